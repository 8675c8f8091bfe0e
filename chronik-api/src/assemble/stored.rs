//! What keeps this broker's records and what that outlives, as it is shown; and what is refused because of it.
//!
//! What must stay true: no topic is acknowledged as durable on disks by a broker whose engine says that what it keeps does
//! not outlive a power cut. The broker that decides goes by its own engine: in a cluster all brokers have the same.

use chronik_core::wal::Survives;
use chronik_proto_kafka::ErrorCode;
use std::fmt;

/// The topic configuration that promises, and the value that promises the most.
const DURABILITY: &str = "chronik.durability";
const FSYNC: &str = "fsync";

/// What keeps the records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// `segment`, `memory`, or `plugin` with its name and version.
    pub engine: String,
    pub survives: Survives,
}

/// A configuration that the engine cannot keep.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BeyondEngine(Stored);

impl fmt::Display for BeyondEngine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Stored { engine, survives } = &self.0;
        let kept = told(*survives);
        write!(
            f,
            "{DURABILITY}={FSYNC} cannot be kept: what this broker's storage engine ({engine}) keeps {kept}; \
             {DURABILITY}=replicated can"
        )
    }
}

impl crate::kafka::refusal::Refusal for BeyondEngine {
    fn code(&self) -> ErrorCode {
        ErrorCode::INVALID_CONFIG
    }
}

/// In words that follow "what it keeps".
pub fn told(survives: Survives) -> &'static str {
    match survives {
        Survives::PowerLoss => "survives a power cut once synced",
        Survives::Process => "survives the process but no power cut",
        Survives::Nothing => "does not survive the process",
    }
}

impl Stored {
    /// As configurations call it.
    pub fn survives(&self) -> &'static str {
        match self.survives {
            Survives::PowerLoss => "power-loss",
            Survives::Process => "process",
            Survives::Nothing => "nothing",
        }
    }

    /// Whether a configuration may be set.
    ///
    /// # Errors
    /// Where it promises more than the engine keeps.
    pub fn allows(&self, name: &str, value: &str) -> Result<(), BeyondEngine> {
        let beyond = name == DURABILITY && value.trim() == FSYNC && self.survives < Survives::PowerLoss;
        if beyond { Err(BeyondEngine(self.clone())) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_engine_that_outlives_a_power_cut_may_promise_fsync() {
        for survives in [Survives::Nothing, Survives::Process, Survives::PowerLoss] {
            let stored = Stored { engine: "plugin mine 1".into(), survives };
            assert_eq!(stored.allows(DURABILITY, FSYNC).is_ok(), survives == Survives::PowerLoss, "{survives:?}");
            assert!(stored.allows(DURABILITY, "replicated").is_ok());
            assert!(stored.allows("cleanup.policy", FSYNC).is_ok());
        }
        let stored = Stored { engine: "plugin mine 1".into(), survives: Survives::Process };
        let why = stored.allows(DURABILITY, FSYNC).expect_err("it does not");
        assert!(why.to_string().contains("(plugin mine 1) keeps survives the process but no power cut"), "{why}");
    }
}
