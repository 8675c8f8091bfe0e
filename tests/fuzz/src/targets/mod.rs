//! The targets, one file each.

mod batches;
mod config;
mod frames;
mod kafka;
mod listener;
mod log_files;
mod plugin;
mod raft;
mod replication;

use crate::target::Target;

/// Every target, in the order they are run.
pub fn all() -> Vec<Box<dyn Target>> {
    vec![
        Box::new(kafka::Messages),
        Box::new(batches::Batches),
        Box::new(frames::Frames),
        Box::new(raft::Raft),
        Box::new(replication::Replication),
        Box::new(plugin::Plugins),
        Box::new(config::Configurations),
        Box::new(log_files::LogFiles),
        Box::new(listener::Listeners),
    ]
}

/// The inputs kept in the repository for a target; empty where its own seeds are enough.
pub fn corpus(name: &str) -> &'static str {
    match name {
        "kafka" => include_str!("../../corpus/kafka.txt"),
        "log-files" => include_str!("../../corpus/log-files.txt"),
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::corpus::parse;
    use crate::run::execute;

    #[test]
    fn every_targets_seeds_are_taken_and_all_that_is_kept_for_it_passes() {
        for target in all() {
            let seeds = target.seeds();
            assert!(!seeds.is_empty(), "{}", target.name());
            for seed in &seeds {
                let seen = execute(&*target, seed).map(|(seen, _)| seen.is_taken);
                assert_eq!(seen, Ok(true), "{}: {}", target.name(), crate::corpus::to_hex(seed));
            }
            for input in parse(corpus(target.name())).expect("corpus files hold hexadecimal lines") {
                let wrong = execute(&*target, &input).err();
                assert_eq!(wrong, None, "{}: {}", target.name(), crate::corpus::to_hex(&input));
            }
        }
    }
}
