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
        // One from beyond the end speaks of records that a crash took away, too: their sequences may come again. What had
        // been committed counts all the same, or nobody would know that it is lost.
        let mut state = saved.clone().unwrap_or_default().cut(log.end);
        let replacement = saved.is_some_and(|saved| saved != state).then(|| state.clone());
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
        let high_watermark = self.state.high_watermark;
        self.state.producers.note_again(header, header.max_timestamp, high_watermark);
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
        Recovered { checkpoint: self.state, log: self.log, agreed_epoch: None }
    }
}

/// What a leader or a follower starts from.
#[derive(Clone, Debug)]
pub struct Recovered {
    pub checkpoint: Checkpoint,
    pub log: LogState,
    /// The last epoch whose leader this log was found to agree with, or that was led from here: also where it has no records
    /// of that epoch, or no longer. Known since the log was opened only.
    pub agreed_epoch: Option<LeaderEpoch>,
}

impl Recovered {
    /// An empty log's.
    pub fn empty(log: LogState) -> Self {
        Self { checkpoint: Checkpoint { upto: log.end, ..Checkpoint::default() }, log, agreed_epoch: None }
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
    use crate::driver::Cut;
    use crate::ids::ProducerId;
    use crate::partition::producers::{Refused, Verdict};

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
        assert_eq!(short.next_read(), None, "what is there is known");
        let replacement = short.replacement().expect("it must not stay").encode();
        let mut again = Recovering::new(log(25), Some(&replacement));
        assert_eq!(again.replacement(), None);
        assert_eq!(again.next_read(), Some(Offset(19)), "what came in its place is read");
        (19..25).for_each(|at| again.replay(&header(-1, at)));
        let recovered = again.finish(Timestamp(2));
        assert_eq!(recovered.checkpoint.producers.len(), 0, "it would be told of a record that is not there");
        assert!(!recovered.is_damaged());
        assert!(
            Recovering::new(log(18), Some(&replacement)).finish(Timestamp(2)).is_damaged(),
            "but of 19 it is known"
        );
        assert_eq!(Recovering::new(log(20), Some(&saved)).replacement(), None, "one that tells the truth stays");
    }

    /// A log of single records by producer 7, and what was saved of it when `committed` of them were.
    fn saved_of(count: i64, committed: i64) -> Vec<u8> {
        let mut before = Recovering::new(log(count), None);
        before.state.high_watermark = Offset(committed);
        (0..count).for_each(|at| before.replay(&numbered(at)));
        before.finish(Timestamp(1)).checkpoint.encode()
    }

    fn numbered(at: i64) -> Header {
        let base_sequence = i32::try_from(at).expect("it is small");
        Header { base_sequence, leader_epoch: LeaderEpoch(0), ..header(7, at) }
    }

    #[test]
    fn a_producer_whose_committed_records_were_dropped_and_whose_others_were_cut_goes_on_where_it_stood() {
        // Ten records, of which four are committed and three dropped; a new leader has no more than those four.
        let saved = saved_of(10, 4);
        let cut = Cut::From(Offset(4)).checkpoint(Some(&saved)).expect("it speaks of what goes");
        assert_eq!(cut.high_watermark, Offset(4));
        let log = LogState { start: Offset(3), end: Offset(4), ..LogState::default() };
        let recovering = Recovering::new(log, Some(&cut.encode()));
        assert_eq!(recovering.next_read(), None);
        let recovered = recovering.finish(Timestamp(2)).checkpoint;
        assert_eq!(recovered.producers.judge(&numbered(4)), Ok(Verdict::New));
        let refused = Refused::OutOfOrder { sent: 5, last: 3 };
        assert_eq!(recovered.producers.judge(&numbered(5)), Err(refused), "the one before it is not there");
        assert_eq!(recovered.epochs.latest(), Some(LeaderEpoch(0)));
    }

    #[test]
    fn a_cut_further_back_than_what_is_remembered_reads_the_log_again_and_counts_nothing_twice() {
        let saved = saved_of(100, 90);
        let cut = Cut::From(Offset(50)).checkpoint(Some(&saved)).expect("it speaks of what goes");
        let mut recovering = Recovering::new(log(50), Some(&cut.encode()));
        assert_eq!(recovering.next_read(), Some(Offset(0)));
        (0..50).for_each(|at| recovering.replay(&numbered(at)));
        let mut afresh = Recovering::new(log(50), None);
        afresh.state.high_watermark = Offset(50);
        (0..50).for_each(|at| afresh.replay(&numbered(at)));
        assert_eq!(recovering.finish(Timestamp(2)).checkpoint, afresh.finish(Timestamp(2)).checkpoint);
    }

    #[test]
    fn what_is_to_be_read_back_is_cut_again_where_more_is_lost_meanwhile() {
        let later = |at: i64| Header { leader_epoch: LeaderEpoch(5), ..numbered(at) };
        let mut before = Recovering::new(log(100), None);
        before.state.high_watermark = Offset(90);
        (0..50).for_each(|at| before.replay(&numbered(at)));
        (50..100).for_each(|at| before.replay(&later(at)));
        let saved = before.finish(Timestamp(1)).checkpoint.encode();
        // To be read back up to 60, and then no more than 50 is there; or is to be.
        let cut = Cut::From(Offset(60)).checkpoint(Some(&saved)).expect("it speaks of what goes").encode();
        let again = Cut::From(Offset(50)).checkpoint(Some(&cut)).expect("so does this").encode();
        for known in [cut, again] {
            let mut recovering = Recovering::new(log(50), Some(&known));
            assert_eq!(recovering.next_read(), Some(Offset(0)));
            (0..50).for_each(|at| recovering.replay(&numbered(at)));
            let recovered = recovering.finish(Timestamp(2));
            assert_eq!(recovered.latest_epoch(), Some(LeaderEpoch(0)), "of the other nothing is left");
            assert_eq!(recovered.checkpoint.producers.judge(&numbered(50)), Ok(Verdict::New));
        }
    }

    #[test]
    fn a_checkpoint_stays_as_long_as_it_tells_the_truth() {
        let saved = saved_of(10, 4);
        assert_eq!(Cut::From(Offset(10)).checkpoint(Some(&saved)), None);
        assert_eq!(Cut::From(Offset(5)).checkpoint(None), None);
        assert_eq!(Cut::From(Offset(5)).checkpoint(Some(b"damaged")), None, "it is as good as none");
    }

    #[test]
    fn a_log_that_begins_anew_behind_what_it_had_knows_who_appended_what_comes_before() {
        // The leader has dropped what this one lacks, and tells what only that part of the log knew. Whoever has appended
        // something behind it, too, is known by that.
        let theirs = Checkpoint::decode(&saved_of(25, 25)).expect("it is whole").producers.before(Offset(25));
        assert!(Checkpoint::decode(&saved_of(40, 40)).expect("it is whole").producers.before(Offset(25)).is_empty());
        let known = Checkpoint { producers: theirs, ..Checkpoint::default() }.encode();
        for saved in [None, Some(saved_of(10, 4))] {
            let cut = Cut::All { start: Offset(25), known: Some(known.clone().into()) };
            let checkpoint = cut.checkpoint(saved.as_deref()).expect("it is told").encode();
            let log = LogState { start: Offset(25), end: Offset(25), ..LogState::default() };
            let recovered = Recovering::new(log, Some(&checkpoint)).finish(Timestamp(2)).checkpoint;
            assert_eq!(recovered.producers.judge(&numbered(25)), Ok(Verdict::New));
            assert_eq!(recovered.producers.judge(&numbered(26)), Err(Refused::OutOfOrder { sent: 26, last: 24 }));
        }
        // It is cut to before its start, and nobody knows more than it does.
        let cut = Cut::All { start: Offset(5), known: None }.checkpoint(Some(&saved_of(10, 4))).expect("it is cut");
        assert_eq!(cut.producers.judge(&numbered(6)), Err(Refused::OutOfOrder { sent: 6, last: 4 }));
        // Of its epochs no record is left; with the last of them it would be told the same again, for ever.
        let cut = Cut::All { start: Offset(10), known: None }.checkpoint(Some(&saved_of(10, 4))).expect("it is cut");
        assert_eq!((cut.epochs.latest(), cut.upto), (None, Offset(10)));
    }
}
