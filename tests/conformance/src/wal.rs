//! The storage contract, [`chronik_core::wal`], as rules.
//!
//! ```ignore
//! chronik_conformance::wal_suite!(MyStore::new());
//! ```
//!
//! makes one test per rule. A [`Store`] is whatever an engine keeps its logs in; a rule starts engines over it, and where
//! the store allows, looks at what a killed process or a power cut leaves of it. Rules about what survives apply as far as
//! the engine's [`chronik_core::wal::Capabilities`] promise.

mod append;
mod change;
mod directory;
mod driver;
mod lifecycle;
mod model;
mod read;
mod survive;
mod together;

pub use directory::{Directory, StartIn, copy_tree};
pub use driver::{Log, everything, id, run_of};
pub use model::{Dice, Model};

use chronik_core::wal::WalEngine;
use futures::future::BoxFuture;
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

/// Where an engine keeps its logs.
pub trait Store: Send + Sync {
    /// An engine over the store. Engines started over it before are closed.
    fn start(&self) -> Arc<dyn WalEngine>;

    /// A store such as this one would be if the process that uses it were killed now. `None` where that cannot be had.
    fn after_kill(&self) -> Option<Box<dyn Store>> {
        None
    }

    /// A store such as this one would be if the power were cut now. `None` where that cannot be had.
    fn after_power_cut(&self) -> Option<Box<dyn Store>> {
        None
    }
}

/// One sentence of the contract, and how to tell.
#[derive(Clone, Copy)]
pub struct Rule {
    pub name: &'static str,
    pub says: &'static str,
    pub check: for<'a> fn(&'a dyn Store) -> BoxFuture<'a, ()>,
}

/// Declares rules: a name with a number, the sentence, and the test.
macro_rules! declare_rules {
    ($($name:ident: $says:literal, |$store:ident| $check:block)*) => {
        pub(super) const RULES: &[super::Rule] = &[$(super::Rule {
            name: stringify!($name),
            says: $says,
            check: |$store| Box::pin(async move { $check }),
        }),*];
    };
}
use declare_rules;

/// Every rule, in the order of their numbers.
pub fn rules() -> impl Iterator<Item = &'static Rule> {
    [lifecycle::RULES, append::RULES, read::RULES, change::RULES, survive::RULES, together::RULES].into_iter().flatten()
}

/// Nothing a rule asks for takes longer than this on any machine; only a completion that never comes does.
const PATIENCE: Duration = Duration::from_secs(120);

/// Checks one rule. Panics, with the rule's sentence, where the engine breaks it.
pub fn check(name: &str, store: impl FnOnce() -> Box<dyn Store> + Send + 'static) {
    let rule = rules().find(|rule| rule.name == name).unwrap_or_else(|| panic!("there is no rule {name}"));
    let (verdict, wait) = mpsc::channel();
    let judge = thread::Builder::new().name(name.into()).spawn(move || {
        let store = store();
        futures::executor::block_on((rule.check)(&*store));
        let _nobody_waits_any_more = verdict.send(());
    });
    let judge = judge.unwrap_or_else(|error| panic!("no thread for the test: {error}"));
    match wait.recv_timeout(PATIENCE) {
        Ok(()) => {}
        Err(mpsc::RecvTimeoutError::Disconnected) => {
            let _already_printed = judge.join();
            panic!("broken: {}", rule.says);
        }
        Err(mpsc::RecvTimeoutError::Timeout) => panic!("something never completed: {}", rule.says),
    }
}

/// One test per rule of the storage contract, over the stores that the expression makes.
#[macro_export]
macro_rules! wal_suite {
    ($store:expr) => {
        $crate::wal_suite!(@ $store,
            e01_missing_log e02_create_twice e03_create_if_missing e04_open_is_shared e05_list_is_ordered
            e06_delete_is_for_good e07_delete_of_missing e08_closed_engine e09_usage e10_capabilities
            e11_close_waits_for_appends e12_set_aside
            a01_new_log_is_empty a02_readable_before_written a03_completes_when_written a04_out_of_order
            a05_gaps a06_fenced a07_empty_range a08_too_large a09_refusal_changes_nothing a10_bytes_come_back
            a11_write_carries_all a12_every_done_once a13_state_follows
            r01_at_the_end r02_out_of_range r03_middle_of_a_run r04_max_bytes r05_upto r06_from_every_offset
            r07_timestamps r08_old_and_new
            c01_truncate_suffix c02_truncate_suffix_places c03_epoch_after_truncation c04_truncate_to_start
            c05_truncate_prefix c06_truncate_prefix_places c07_epoch_before_start c08_reset c09_call_order
            c10_values c11_values_all_or_none c12_segments c13_retention c14_sync_cut_off c15_any_history
            s01_reopen s02_reopen_changed s03_reopen_engine s04_killed s05_power_cut s06_durable_end_stays
            s07_any_history_reopened
            t01_concurrent_appends t02_readers_beside_writers t03_syncs_shared t04_closed_log t05_sync_writes
        );
    };
    (@ $store:expr, $($rule:ident)*) => {
        $(#[test]
        fn $rule() {
            $crate::wal::check(stringify!($rule), || Box::new($store));
        })*

        #[test]
        fn no_rule_is_left_out() {
            let run = [$(stringify!($rule)),*];
            let all: Vec<_> = $crate::wal::rules().map(|rule| rule.name).collect();
            assert_eq!(run.as_slice(), all.as_slice());
        }
    };
}
