//! What goes wrong with single calls: any of them may fail, and what lies still may change.

use super::{SimDisk, State};
use crate::dice::Dice;
use std::io;

/// What a call asks of the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asks {
    /// To find something, or to read.
    Look,
    /// To take room, for bytes or for a name.
    Take,
    /// To change something for which there is room.
    Change,
    /// To make something durable.
    Sync,
}

/// Calls fail now and then, as long as this lasts.
#[derive(Clone, Debug)]
pub struct Trouble {
    pub dice: Dice,
    /// Of a thousand calls so many fail.
    pub per_mille: u64,
    /// Only for lack of room; otherwise because of the device.
    pub is_about_room: bool,
}

impl Trouble {
    pub(super) fn trip(&mut self, asks: Asks) -> io::Result<()> {
        if self.is_about_room && asks != Asks::Take || !self.dice.per_mille(self.per_mille) {
            return Ok(());
        }
        if self.is_about_room {
            return Err(io::ErrorKind::StorageFull.into());
        }
        Err(io::Error::other("the device has failed at this"))
    }
}

/// A segment's file, by the offset it begins with.
fn base_of(name: &str) -> Option<i64> {
    name.strip_suffix(".log")?.parse().ok()
}

/// Segments of a log that are closed, and so old that what is beside the log says that they were committed: if one of them
/// is lost or cannot be read, nobody takes that for a write that never ended.
fn old_segments(state: &State, log: &str, committed: i64) -> Vec<u64> {
    let Some(files) = state.now.get(log) else { return Vec::new() };
    let mut segments: Vec<(i64, u64)> =
        files.iter().filter_map(|(name, number)| Some((base_of(name)?, *number))).collect();
    segments.sort_unstable();
    segments.windows(2).filter(|pair| pair[1].0 <= committed).map(|pair| pair[0].1).collect()
}

impl SimDisk {
    /// The last segment of a log is empty all of a sudden, if it begins below that offset and nothing else says how long it
    /// was. Whether there was such a one.
    pub fn empty_last_segment(&self, log: &str, below: i64) -> bool {
        let mut state = self.state();
        let State { inodes, now, .. } = &mut *state;
        let journals: Vec<u64> = now.get("").into_iter().flatten().map(|(_, number)| *number).collect();
        let Some(files) = now.get(log) else { return false };
        let Some((name, number)) = files.iter().rfind(|(name, _)| name.ends_with(".log")) else { return false };
        let base = name.trim_end_matches(".log");
        if files.contains_key(&format!("{base}.index")) || base.parse::<i64>().is_ok_and(|base| base >= below) {
            return false;
        }
        if let Some(inode) = inodes.get_mut(number) {
            *inode = super::Inode::default();
        }
        // Nor does a journal: what it has of other logs is where it belongs by now.
        inodes.values_mut().for_each(super::Inode::sync);
        for journal in journals {
            inodes.insert(journal, super::Inode::default());
        }
        true
    }

    /// A bit of one of the log's old segments, or of an index, turns over. Where, if there is such a file.
    pub fn rot(&self, log: &str, committed: i64, dice: &mut Dice) -> Option<String> {
        let mut state = self.state();
        let mut fit = old_segments(&state, log, committed);
        let indexes = state.now.get(log)?.iter().filter(|(name, _)| name.ends_with(".index"));
        fit.extend(indexes.map(|(_, number)| *number));
        let number = *dice.pick(&fit)?;
        let name = state.now.get(log)?.iter().find(|(_, known)| **known == number)?.0.clone();
        let inode = state.inodes.get_mut(&number).filter(|inode| inode.len() > 0)?;
        let (at, bit) = (dice.below(inode.len() as u64), dice.below(8));
        inode.rot(usize::try_from(at).ok()?, bit as u8);
        Some(format!("bit {bit} of byte {at} of {name}"))
    }

    /// The next write to one of the log's indexes goes into one of its old segments. Whether there is one.
    pub fn misdirect(&self, log: &str, committed: i64, dice: &mut Dice) -> bool {
        let mut state = self.state();
        let Some(into) = dice.pick(&old_segments(&state, log, committed)).copied() else { return false };
        let Some(length) = state.inodes.get(&into).map(super::Inode::len) else { return false };
        let at = usize::try_from(dice.below(length as u64)).unwrap_or(0);
        state.misdirected = Some((log.to_owned(), into, at));
        true
    }

    /// Somebody throws away what a log has, so that it is made anew from other replicas.
    pub fn throw_away(&self, log: &str) {
        let mut state = self.state();
        state.now.remove(log);
        state.durable.remove(log);
        state.unsynced.remove(log);
    }
}
