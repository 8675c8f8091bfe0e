//! Rebuilds a partition's memory from its log after a restart: from the last checkpoint, or if there is none or it is
//! damaged, from the log's start.

use super::checkpoint::Checkpoint;
use crate::batch::Header;
use crate::ids::{LeaderEpoch, Offset};
use crate::time::Timestamp;
use crate::wal::LogState;

/// A partition whose log is being read back.
#[derive(Debug)]
pub struct Recovering {
    state: Checkpoint,
    replacement: Option<Checkpoint>,
    log: LogState,
}

impl Recovering {
    /// `saved` is the value of [`super::checkpoint::META_KEY`], if there is one.
    pub fn new(log: LogState, saved: Option<&[u8]>) -> Self {
        let saved = saved.and_then(Checkpoint::decode);
        let high_watermark = saved.as_ref().map_or(Offset::ZERO, |checkpoint| checkpoint.high_watermark);
        let is_beyond_the_end = saved.as_ref().is_some_and(|checkpoint| checkpoint.upto > log.end);
        let replacement = is_beyond_the_end.then(|| Checkpoint { high_watermark, ..Checkpoint::default() });
        let mut state = saved
            // A checkpoint from beyond the end speaks of records that a crash took away: their sequences may come again.
            // What had been committed counts all the same, or nobody would know that it is lost.
            .filter(|checkpoint| checkpoint.upto <= log.end)
            .unwrap_or_default();
        state.high_watermark = high_watermark;
        state.upto = state.upto.max(log.start);
        Self { state, replacement, log }
    }

    /// What must take the saved checkpoint's place, durably, before anything is appended: that one speaks of records which
    /// are not there. Were it kept, it would be believed again as soon as others lie where those were.
    pub fn replacement(&self) -> Option<&Checkpoint> {
        self.replacement.as_ref()
    }

    /// The offset from which the log must be read and its batches handed to [`Recovering::replay`]; `None` when done.
    pub fn next_read(&self) -> Option<Offset> {
        (self.state.upto < self.log.end).then_some(self.state.upto)
    }

    /// Takes one batch of the log, in order. `leader_epoch` is as stored in it.
    pub fn replay(&mut self, header: &Header) {
        if header.next_offset() <= self.state.upto {
            return;
        }
        // The broker's clock at that append is not stored; a record's own time may be anything, so it is bounded by what
        // the caller passes as now when it expires producers.
        self.state.producers.note(header, header.max_timestamp);
        self.state.epochs.note(header.leader_epoch, header.base_offset);
        self.state.upto = header.next_offset();
    }

    /// Skips a stretch that holds no batches (a gap at the end).
    pub fn skip_to(&mut self, offset: Offset) {
        self.state.upto = self.state.upto.max(offset);
    }

    /// As [`Recovered::is_damaged`].
    pub fn is_damaged(&self) -> bool {
        self.state.high_watermark > self.log.end
    }

    /// The rebuilt state, as of the log's end. Producers read back count as seen at `now`, so that a restart shortens
    /// nobody's window.
    pub fn finish(mut self, now: Timestamp) -> Recovered {
        let mut seen_now = super::producers::Producers::default();
        for (id, producer) in self.state.producers.iter() {
            let mut producer = producer.clone();
            producer.last_seen = now;
            seen_now.restore(id, producer);
        }
        self.state.producers = seen_now;
        self.state.epochs.truncate_prefix(self.log.start);
        Recovered { checkpoint: self.state, log: self.log }
    }
}

/// What a leader starts from.
#[derive(Clone, Debug)]
pub struct Recovered {
    pub checkpoint: Checkpoint,
    pub log: LogState,
}

impl Recovered {
    /// An empty log's.
    pub fn empty(log: LogState) -> Self {
        Self { checkpoint: Checkpoint { upto: log.end, ..Checkpoint::default() }, log }
    }

    pub fn latest_epoch(&self) -> Option<LeaderEpoch> {
        self.checkpoint.epochs.latest()
    }

    /// The log has come back with less than was known to be committed.
    pub fn is_damaged(&self) -> bool {
        self.checkpoint.high_watermark > self.log.end
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::{Builder, RecordOut};
    use crate::ids::ProducerId;

    fn log(end: i64) -> LogState {
        LogState { end: Offset(end), ..LogState::default() }
    }

    /// Of one record, at an offset.
    fn header(producer: i64, at: i64) -> Header {
        let mut builder = Builder::new(Timestamp(1));
        builder.push(&RecordOut { value: Some(b"v"), ..RecordOut::default() });
        let mut header = builder.build().header;
        header.base_offset = Offset(at);
        if producer >= 0 {
            header.producer_id = ProducerId(producer);
            header.producer_epoch = 0;
            header.base_sequence = 0;
        }
        header
    }

    #[test]
    fn a_checkpoint_of_records_that_are_gone_is_not_believed_when_others_have_come_in_their_place() {
        let mut before = Recovering::new(log(20), None);
        (0..20).for_each(|at| before.replay(&header(if at == 19 { 28 } else { -1 }, at)));
        let saved = Checkpoint { high_watermark: Offset(19), ..before.finish(Timestamp(1)).checkpoint };
        assert!(saved.producers.iter().any(|(id, _)| id.0 == 28));
        let saved = saved.encode();

        // The last one, which was not committed, is lost, and so is not among what is there.
        let short = Recovering::new(log(19), Some(&saved));
        assert_eq!(short.next_read(), Some(Offset(0)));
        let replacement = short.replacement().expect("it must not stay").encode();
        let mut again = Recovering::new(log(25), Some(&replacement));
        assert_eq!(again.replacement(), None);
        assert_eq!(again.next_read(), Some(Offset(0)), "all is read anew");
        (0..25).for_each(|at| again.replay(&header(-1, at)));
        let recovered = again.finish(Timestamp(2));
        assert_eq!(recovered.checkpoint.producers.iter().count(), 0, "it would be told of a record that is not there");
        assert!(!recovered.is_damaged());
        assert!(
            Recovering::new(log(18), Some(&replacement)).finish(Timestamp(2)).is_damaged(),
            "but of 19 it is known"
        );
        assert_eq!(Recovering::new(log(20), Some(&saved)).replacement(), None, "one that tells the truth stays");
    }
}
