//! What keeps records and what that outlives, as it is shown.

use chronik_core::wal::Survives;

/// What keeps the records of a topic, or of those that do not choose.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// The engine's name, and of a plug-in also what it calls itself, with its version.
    pub engine: String,
    pub survives: Survives,
}

impl Stored {
    /// As configurations call it.
    pub fn survives(&self) -> &'static str {
        self.survives.word()
    }
}
