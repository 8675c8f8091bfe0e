//! A file: what is there now, and what takes it back to what is durable.
//!
//! **Why undone, not redone.** Nearly all writes are synced and never looked at again. Kept as what they overwrote, which for
//! an append is nothing, they cost one copy, and a sync forgets them; the durable content is worked out where the power is cut.

use crate::dice::Dice;

/// A change that is not synced, as what takes it back.
#[derive(Clone, Debug)]
enum Undo {
    /// `written` bytes at `at`, over `before`, in a file of that length.
    Write { at: usize, written: usize, before: Vec<u8>, length: usize },
    /// From that length, of which `cut` was dropped.
    SetLen { length: usize, cut: Vec<u8> },
}

/// The same, as what does it again.
enum Change {
    Write { at: usize, bytes: Vec<u8> },
    SetLen(usize),
}

#[derive(Clone, Debug, Default)]
pub(super) struct Inode {
    now: Vec<u8>,
    /// From what is durable to what is there now.
    changes: Vec<Undo>,
}

impl Inode {
    pub fn len(&self) -> usize {
        self.now.len()
    }

    pub fn read(&self, buffer: &mut [u8], at: usize) -> usize {
        let from = at.min(self.now.len());
        let read = buffer.len().min(self.now.len() - from);
        buffer[..read].copy_from_slice(&self.now[from..from + read]);
        read
    }

    pub fn write<'a>(&mut self, parts: impl Iterator<Item = &'a [u8]>, at: usize) -> usize {
        let length = self.now.len();
        if length < at {
            self.now.resize(at, 0);
        }
        let mut place = at;
        let mut before = Vec::new();
        for part in parts {
            let over = part.len().min(self.now.len() - place);
            before.extend_from_slice(&self.now[place..place + over]);
            self.now[place..place + over].copy_from_slice(&part[..over]);
            self.now.extend_from_slice(&part[over..]);
            place += part.len();
        }
        let written = place - at;
        self.changes.push(Undo::Write { at, written, before, length });
        written
    }

    pub fn set_len(&mut self, to: usize) {
        let length = self.now.len();
        let cut = self.now.get(to..).map(<[u8]>::to_vec).unwrap_or_default();
        self.now.resize(to, 0);
        self.changes.push(Undo::SetLen { length, cut });
    }

    pub fn sync(&mut self) {
        self.changes.clear();
    }

    /// A bit that is durable turns over by itself.
    pub fn rot(&mut self, at: usize, bit: u8) {
        if let Some(byte) = self.now.get_mut(at) {
            *byte ^= 1 << (bit % 8);
        }
    }

    /// Back to what is durable; gives what was taken back, the last change first.
    fn take_back(&mut self) -> Vec<Change> {
        let mut taken = Vec::new();
        while let Some(change) = self.changes.pop() {
            taken.push(match change {
                Undo::Write { at, written, before, length } => {
                    let bytes = self.now[at..at + written].to_vec();
                    self.now[at..at + before.len()].copy_from_slice(&before);
                    self.now.truncate(length);
                    Change::Write { at, bytes }
                }
                Undo::SetLen { length, cut } => {
                    let to = self.now.len();
                    self.now.truncate(length);
                    self.now.extend_from_slice(&cut);
                    self.now.resize(length, 0);
                    Change::SetLen(to)
                }
            });
        }
        taken
    }

    /// What was not synced is gone.
    pub fn forget_unsynced(&mut self) {
        self.take_back();
    }

    /// Likewise, but for what chance has left of it: each change whole, in part, or not at all.
    pub fn cut_power(&mut self, dice: &mut Dice) {
        let taken = self.take_back();
        for change in taken.into_iter().rev() {
            match (dice.below(4), change) {
                (0, _) => {}
                (1, Change::Write { at, bytes }) => {
                    let part = usize::try_from(dice.below(bytes.len() as u64 + 1)).unwrap_or(0);
                    self.write(std::iter::once(&bytes[..part]), at);
                }
                (_, Change::Write { at, bytes }) => drop(self.write(std::iter::once(&bytes[..]), at)),
                (_, Change::SetLen(to)) => self.set_len(to),
            }
        }
        self.sync();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(inode: &mut Inode, bytes: &[u8], at: usize) {
        inode.write(bytes.chunks(2), at);
    }

    #[test]
    fn what_was_not_synced_is_taken_back_and_what_was_stays() {
        let mut inode = Inode::default();
        write(&mut inode, b"durable", 0);
        inode.sync();
        write(&mut inode, b"RAB", 2);
        write(&mut inode, b"longer", 5);
        inode.set_len(4);
        write(&mut inode, b"behind a hole", 9);
        inode.set_len(40);
        inode.forget_unsynced();
        assert_eq!(inode.now, b"durable");
    }

    #[test]
    fn a_power_cut_leaves_of_each_write_all_a_beginning_or_nothing() {
        let mut seen = std::collections::BTreeSet::new();
        for seed in 0..200 {
            let mut inode = Inode::default();
            write(&mut inode, b"ab", 0);
            inode.sync();
            write(&mut inode, b"XY", 1);
            inode.cut_power(&mut Dice::new(seed));
            seen.insert(inode.now);
        }
        let all: [&[u8]; 3] = [b"aXY", b"aX", b"ab"];
        assert_eq!(seen, all.into_iter().map(<[u8]>::to_vec).collect());
    }
}
