//! A driver that follows: appends what the leader sends, and says how far it has come.

use super::{Completion, Cut, Outward, PartitionDriver, Role};
use crate::batch::Batch;
use crate::ids::Offset;
use crate::partition::follower::Effect;
use crate::pending::{Done, Started};
use crate::time::Now;
use crate::wal::{Refused, Run, WalError};

impl<K> PartitionDriver<K> {
    pub(super) fn run_follower(&mut self, now: Now) -> bool {
        let mut busy = false;
        while let Role::Follower(follower, leader) = &mut self.role
            && let Some(effect) = follower.poll_effect()
        {
            busy = true;
            match effect {
                Effect::Send(message) => {
                    if let Some(to) = *leader {
                        self.outward.push(Outward::Send { to, message });
                    }
                }
                Effect::Append { at, batch } => self.append_sent(at, &batch, now),
                Effect::Sync { upto } => {
                    let done = Done::new(self.inboxes.durable.clone(), self.cuts);
                    if let Started::Now(outcome) = self.log.sync(upto, done) {
                        self.learn(Completion::Durable(self.cuts, outcome), now);
                    }
                }
                Effect::Truncate { from } => self.outward.push(Outward::Cut(Cut::From(from))),
                Effect::Reset { start, known } => self.outward.push(Outward::Cut(Cut::All { start, known })),
                Effect::Trim { upto } => self.outward.push(Outward::Trim { upto }),
                Effect::WatermarkAdvanced { to } => self.outward.push(Outward::WatermarkAdvanced { to }),
                Effect::Offline(why) => self.outward.push(Outward::Offline(why)),
            }
        }
        self.grant_credit(now) || busy
    }

    /// A follower that is throttled gives its leader credit as the broker's bucket allows.
    fn grant_credit(&mut self, now: Now) -> bool {
        let Role::Follower(follower, _) = &mut self.role else { return false };
        let Some(wanted) = follower.credit_wanted(now.monotonic) else { return false };
        match self.throttles.follower.ask(now.monotonic, wanted) {
            Ok(bytes) => {
                follower.grant(bytes);
                // What may come counts as come: a session's end loses no more than the window.
                self.throttles.follower.settle(bytes, bytes);
            }
            Err(until) => follower.hold(until),
        }
        true
    }

    /// **Copies** the header (61 bytes); the records are shared with the frame that they came in.
    fn append_sent(&mut self, at: Offset, batch: &Batch, now: Now) {
        let run = Run {
            base: at,
            next_offset: batch.header.next_offset(),
            epoch: batch.header.leader_epoch,
            max_timestamp: batch.header.max_timestamp,
            bytes: batch.to_payload(),
        };
        match self.log.append(run, Done::new(self.inboxes.written.clone(), self.cuts)) {
            Ok(Started::Now(outcome)) => self.learn(Completion::Written(self.cuts, outcome), now),
            Ok(Started::Later) => {}
            Err(rejected) => match rejected.why {
                Refused::Failed => {
                    let cause = crate::wal::Cause::new(Refused::Failed);
                    self.fail(WalError::Failed(cause));
                }
                _ => {
                    let end = self.log.state().end;
                    if let Role::Follower(follower, _) = &mut self.role {
                        follower.refused(now, end);
                    }
                }
            },
        }
    }
}
