//! One lifecycle call per log at a time: who comes while another is inside waits for its turn.

use chronik_core::ids::LogId;
use chronik_core::pending::{Done, Pending, Started};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

/// The logs that somebody is inside for, and who waits for them to come out.
#[derive(Default)]
pub struct Gate(Mutex<BTreeMap<LogId, Vec<Done<()>>>>);

impl Gate {
    fn with<R>(&self, act: impl FnOnce(&mut BTreeMap<LogId, Vec<Done<()>>>) -> R) -> R {
        // Single inserts and removals leave the map valid.
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Waits until nobody is inside for `id`, and goes in.
    pub async fn enter(self: &Arc<Self>, id: LogId) -> Inside {
        loop {
            let mut entered = false;
            let turn = Pending::start(|done| {
                self.with(|inside| match inside.get_mut(&id) {
                    Some(waiting) => {
                        waiting.push(done);
                        Started::Later
                    }
                    None => {
                        inside.insert(id, Vec::new());
                        entered = true;
                        Started::Now(())
                    }
                })
            });
            if entered {
                return Inside { gate: self.clone(), id };
            }
            turn.await;
        }
    }
}

/// Somebody's stay inside; ends when this is dropped.
pub struct Inside {
    gate: Arc<Gate>,
    id: LogId,
}

impl Drop for Inside {
    fn drop(&mut self) {
        let waiting = self.gate.with(|inside| inside.remove(&self.id)).unwrap_or_default();
        waiting.into_iter().for_each(|done| done.complete(()));
    }
}
