//! Incremental fetch sessions (KIP-227): a consumer names its partitions once, and afterwards only what changed, and is
//! answered with those partitions only that have something new.
//!
//! **Bounds.** There are a fixed number of slots. When all are taken a newcomer gets the slot of a session that has been
//! silent for [`EVICT_AFTER_MS`], or else of a smaller one that has lived that long; otherwise it is served without a
//! session, which every client understands.
//!
//! **Fairness.** A session's partitions keep an order, and those that gave data go to its end, so that under a byte
//! limit all get their turn.

use chronik_core::ids::TopicId;
use chronik_core::time::Timestamp;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// How long a session is safe from others who want its slot. Kafka's `min.incremental.fetch.session.eviction.ms`.
const EVICT_AFTER_MS: i64 = 120_000;
/// "Not part of any session", and the epochs that begin and end one.
const NO_SESSION: i32 = 0;
const INITIAL_EPOCH: i32 = 0;
const FINAL_EPOCH: i32 = -1;

/// A topic as the request's version names it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum TopicRef {
    /// Shared by the partitions that were named together.
    Name(Arc<str>),
    Id(TopicId),
}

/// What a consumer wants of one partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wanted {
    pub fetch_offset: i64,
    /// −1: the consumer does not know.
    pub current_leader_epoch: i32,
    /// −1: the consumer does not know.
    pub last_fetched_epoch: i32,
    pub max_bytes: i32,
}

/// A partition to be fetched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    pub topic: TopicRef,
    pub partition: i32,
    pub wanted: Wanted,
}

/// What a request asked about sessions.
#[derive(Debug)]
pub struct Asked {
    pub session_id: i32,
    pub session_epoch: i32,
    pub by_topic_id: bool,
    pub targets: Vec<Target>,
    pub forgotten: Vec<(TopicRef, i32)>,
}

/// Why a request's session cannot be used; the consumer starts over with a full fetch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SessionError {
    #[error("there is no such fetch session")]
    NotFound,
    #[error("the fetch session is at another epoch")]
    InvalidEpoch,
    #[error("the fetch session names topics in another way")]
    TopicIds,
}

/// What a partition's last answer told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Told {
    pub high_watermark: i64,
    pub log_start: i64,
    /// The answer carries records, or an error, or something else that must be sent in any case.
    pub must_send: bool,
}

struct Entry {
    turn: u64,
    wanted: Wanted,
    told: Option<(i64, i64)>,
}

struct Session {
    epoch: i32,
    by_topic_id: bool,
    created: Timestamp,
    last_used: Timestamp,
    entries: HashMap<(TopicRef, i32), Entry>,
    turns: BTreeMap<u64, (TopicRef, i32)>,
    next_turn: u64,
}

impl Session {
    fn new(by_topic_id: bool, now: Timestamp) -> Self {
        Self {
            epoch: 1,
            by_topic_id,
            created: now,
            last_used: now,
            entries: HashMap::new(),
            turns: BTreeMap::new(),
            next_turn: 0,
        }
    }

    fn turn(&mut self) -> u64 {
        self.next_turn += 1;
        self.next_turn
    }

    fn want(&mut self, target: Target) {
        let key = (target.topic, target.partition);
        if let Some(entry) = self.entries.get_mut(&key) {
            entry.wanted = target.wanted;
            return;
        }
        let turn = self.turn();
        self.turns.insert(turn, key.clone());
        self.entries.insert(key, Entry { turn, wanted: target.wanted, told: None });
    }

    fn forget(&mut self, key: &(TopicRef, i32)) {
        if let Some(entry) = self.entries.remove(key) {
            self.turns.remove(&entry.turn);
        }
    }

    fn targets(&self) -> Vec<Target> {
        let in_turn = self.turns.values().filter_map(|key| Some((key, self.entries.get(key)?)));
        in_turn
            .map(|((topic, partition), entry)| Target {
                topic: topic.clone(),
                partition: *partition,
                wanted: entry.wanted,
            })
            .collect()
    }
}

/// A fetch that is under way.
#[derive(Debug)]
pub struct Fetch {
    /// What goes into the answer; zero without a session.
    pub session_id: i32,
    /// Partitions with nothing new are left out of the answer.
    pub incremental: bool,
    pub targets: Vec<Target>,
}

/// All sessions of this broker.
pub struct FetchSessions {
    slots: usize,
    /// Partitions that all sessions together may remember.
    partitions_max: usize,
    sessions: Mutex<Sessions>,
}

struct Sessions {
    by_id: HashMap<i32, Session>,
    /// Walks through all positive numbers, from a start that differs at each start of the broker, so that a consumer of
    /// an earlier life does not find a stranger's session under its number.
    next_id: i32,
}

impl FetchSessions {
    pub fn new(slots: usize, partitions_max: usize, seed: u32) -> Arc<Self> {
        let next_id = ((seed & 0x7fff_ffff) as i32).max(1);
        Arc::new(Self { slots, partitions_max, sessions: Mutex::new(Sessions { by_id: HashMap::new(), next_id }) })
    }

    fn lock(&self) -> MutexGuard<'_, Sessions> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many sessions there are.
    pub fn len(&self) -> usize {
        self.lock().by_id.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Works out what a request wants fetched.
    pub fn begin(&self, asked: Asked, now: Timestamp) -> Result<Fetch, SessionError> {
        let mut sessions = self.lock();
        match asked.session_epoch {
            FINAL_EPOCH | INITIAL_EPOCH => {
                if asked.session_id != NO_SESSION {
                    sessions.by_id.remove(&asked.session_id);
                }
                let room = sessions.partitions() + asked.targets.len() <= self.partitions_max;
                let create = asked.session_epoch == INITIAL_EPOCH && !asked.targets.is_empty() && room;
                let session_id = if create { sessions.create(self.slots, &asked, now) } else { NO_SESSION };
                Ok(Fetch { session_id, incremental: false, targets: asked.targets })
            }
            epoch => {
                let room = sessions.partitions() + asked.targets.len() <= self.partitions_max;
                let session = sessions.by_id.get_mut(&asked.session_id).ok_or(SessionError::NotFound)?;
                if !room && !asked.targets.is_empty() {
                    // The consumer starts over, and is served without a session.
                    sessions.by_id.remove(&asked.session_id);
                    return Err(SessionError::NotFound);
                }
                if session.epoch != epoch {
                    return Err(SessionError::InvalidEpoch);
                }
                if session.by_topic_id != asked.by_topic_id {
                    return Err(SessionError::TopicIds);
                }
                session.epoch = if epoch == i32::MAX { 1 } else { epoch + 1 };
                session.last_used = now;
                asked.forgotten.iter().for_each(|key| session.forget(key));
                asked.targets.into_iter().for_each(|target| session.want(target));
                Ok(Fetch { session_id: asked.session_id, incremental: true, targets: session.targets() })
            }
        }
    }

    /// Notes what each partition is answered with, and says which of them belong into the answer: all of a full fetch,
    /// those with news of an incremental one.
    pub fn finish(&self, fetch: &Fetch, told: impl Iterator<Item = Told>) -> Vec<bool> {
        let mut sessions = self.lock();
        let mut session = sessions.by_id.get_mut(&fetch.session_id);
        fetch
            .targets
            .iter()
            .zip(told)
            .map(|(target, told)| {
                let news = (told.high_watermark, told.log_start);
                let Some(session) = session.as_deref_mut() else { return true };
                let key = (target.topic.clone(), target.partition);
                let turn = session.next_turn + 1;
                let Some(entry) = session.entries.get_mut(&key) else { return true };
                let send = told.must_send || !fetch.incremental || entry.told != Some(news);
                entry.told = Some(news);
                if told.must_send {
                    session.turns.remove(&entry.turn);
                    entry.turn = turn;
                    session.next_turn = turn;
                    session.turns.insert(turn, key);
                }
                send
            })
            .collect()
    }
}

impl Sessions {
    fn partitions(&self) -> usize {
        self.by_id.values().map(|session| session.entries.len()).sum()
    }

    /// A new session's number, or zero if there is no slot for it.
    fn create(&mut self, slots: usize, asked: &Asked, now: Timestamp) -> i32 {
        if self.by_id.len() >= slots {
            let silent = |session: &Session| now.0 - session.last_used.0 > EVICT_AFTER_MS;
            let smaller = |session: &Session| {
                session.entries.len() < asked.targets.len() && now.0 - session.created.0 > EVICT_AFTER_MS
            };
            let silent_longest = self.by_id.iter().filter(|(_, s)| silent(s)).min_by_key(|(_, s)| s.last_used);
            let smallest = || self.by_id.iter().filter(|(_, s)| smaller(s)).min_by_key(|(_, s)| s.entries.len());
            match silent_longest.or_else(smallest).map(|(id, _)| *id) {
                Some(evicted) => self.by_id.remove(&evicted),
                None => return NO_SESSION,
            };
        }
        if slots == 0 {
            return NO_SESSION;
        }
        while self.by_id.contains_key(&self.next_id) {
            self.advance();
        }
        let id = self.next_id;
        self.advance();
        let mut session = Session::new(asked.by_topic_id, now);
        asked.targets.iter().cloned().for_each(|target| session.want(target));
        self.by_id.insert(id, session);
        id
    }

    fn advance(&mut self) {
        self.next_id = if self.next_id == i32::MAX { 1 } else { self.next_id + 1 };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(partition: i32) -> Target {
        let wanted = Wanted { fetch_offset: 0, current_leader_epoch: -1, last_fetched_epoch: -1, max_bytes: 1 << 20 };
        Target { topic: TopicRef::Name("t".into()), partition, wanted }
    }

    fn asked(session_id: i32, session_epoch: i32, partitions: &[i32]) -> Asked {
        Asked {
            session_id,
            session_epoch,
            by_topic_id: false,
            targets: partitions.iter().map(|partition| target(*partition)).collect(),
            forgotten: Vec::new(),
        }
    }

    fn quiet() -> Told {
        Told { high_watermark: 5, log_start: 0, must_send: false }
    }

    fn order(fetch: &Fetch) -> Vec<i32> {
        fetch.targets.iter().map(|target| target.partition).collect()
    }

    #[test]
    fn a_session_sends_only_news_and_lets_partitions_take_turns() {
        let sessions = FetchSessions::new(10, 100, 7);
        let now = Timestamp(0);
        let first = sessions.begin(asked(0, 0, &[0, 1, 2]), now).unwrap();
        assert_eq!(first.session_id, 7);
        assert_eq!(sessions.finish(&first, [quiet(); 3].into_iter()), [true; 3], "a full fetch tells all");
        let second = sessions.begin(asked(7, 1, &[]), now).unwrap();
        assert_eq!(order(&second), [0, 1, 2]);
        let told = [Told { must_send: true, ..quiet() }, quiet(), Told { high_watermark: 6, ..quiet() }];
        assert_eq!(sessions.finish(&second, told.into_iter()), [true, false, true]);
        let third = sessions.begin(asked(7, 2, &[]), now).unwrap();
        assert_eq!(order(&third), [1, 2, 0], "who gave data goes last");
        let without = Asked { forgotten: vec![(TopicRef::Name("t".into()), 2)], ..asked(7, 3, &[]) };
        assert_eq!(order(&sessions.begin(without, now).unwrap()), [1, 0]);
    }

    #[test]
    fn a_session_that_is_not_as_the_consumer_thinks_is_refused() {
        let sessions = FetchSessions::new(10, 100, 1);
        let now = Timestamp(0);
        let id = sessions.begin(asked(0, 0, &[0]), now).unwrap().session_id;
        assert_eq!(sessions.begin(asked(id + 1, 1, &[]), now).unwrap_err(), SessionError::NotFound);
        assert_eq!(sessions.begin(asked(id, 5, &[]), now).unwrap_err(), SessionError::InvalidEpoch);
        let by_id = Asked { by_topic_id: true, ..asked(id, 1, &[]) };
        assert_eq!(sessions.begin(by_id, now).unwrap_err(), SessionError::TopicIds);
        assert_eq!(sessions.begin(asked(id, -1, &[0]), now).unwrap().session_id, 0);
        assert!(sessions.is_empty(), "the last epoch ends the session");
    }

    #[test]
    fn slots_are_bounded_and_only_the_silent_or_small_make_room() {
        let sessions = FetchSessions::new(2, 100, 1);
        let a = sessions.begin(asked(0, 0, &[0]), Timestamp(0)).unwrap().session_id;
        let b = sessions.begin(asked(0, 0, &[0, 1]), Timestamp(0)).unwrap().session_id;
        assert_eq!(sessions.begin(asked(0, 0, &[0, 1]), Timestamp(1)).unwrap().session_id, 0, "no slot, no session");
        let later = Timestamp(EVICT_AFTER_MS + 2);
        sessions.begin(asked(b, 1, &[]), Timestamp(10)).unwrap();
        let c = sessions.begin(asked(0, 0, &[0, 1]), later).unwrap().session_id;
        assert_ne!(c, 0);
        assert_eq!(sessions.begin(asked(a, 1, &[]), later).unwrap_err(), SessionError::NotFound);
    }

    #[test]
    fn what_sessions_remember_is_bounded_in_all() {
        let sessions = FetchSessions::new(10, 3, 1);
        let now = Timestamp(0);
        let a = sessions.begin(asked(0, 0, &[0, 1]), now).unwrap().session_id;
        assert_ne!(a, 0);
        assert_eq!(sessions.begin(asked(0, 0, &[0, 1]), now).unwrap().session_id, 0, "two more would be four");
        assert_eq!(sessions.begin(asked(a, 1, &[2, 3]), now).unwrap_err(), SessionError::NotFound);
        assert!(sessions.is_empty(), "who grows beyond the bound starts over");
    }
}
