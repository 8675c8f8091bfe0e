//! One rule, judged in this process.

use crate::rules::{Check, rules};
use crate::{Again, Subject};
use chronik_conformance::wal;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

/// No rule of this kit takes so long on any machine.
const PATIENCE: Duration = Duration::from_secs(120);

/// Whom a rule judges.
#[derive(Clone, Debug)]
pub struct Judge {
    pub subject: Subject,
    pub again: Again,
}

/// Judges one rule. `false` if it is broken; why has been printed to standard error, by the panic's hook, a line each.
pub fn one(subject: &Subject, again: &Again, name: &str) -> bool {
    let Some(rule) = rules().into_iter().find(|rule| rule.name == name) else {
        eprintln!("there is no rule {name}");
        return false;
    };
    std::panic::set_hook(Box::new(|why| {
        let payload = why.payload();
        let words = payload.downcast_ref::<String>().map(String::as_str);
        eprintln!("{}", words.or_else(|| payload.downcast_ref::<&str>().copied()).unwrap_or("it panics"));
    }));
    match rule.check {
        Check::Suite => {
            let subject = subject.clone();
            catch_unwind(AssertUnwindSafe(|| wal::check(name, move || Box::new(subject.store())))).is_ok()
        }
        Check::Own(check) => {
            let judge = Judge { subject: subject.clone(), again: again.clone() };
            let (verdict, wait) = channel();
            let checking = thread::Builder::new().name(name.to_owned()).spawn(move || {
                check(&judge);
                let _nobody_waits_any_more = verdict.send(());
            });
            let answer = match checking {
                Ok(_) => wait.recv_timeout(PATIENCE),
                Err(why) => {
                    eprintln!("no thread for the rule: {why}");
                    return false;
                }
            };
            if answer == Err(RecvTimeoutError::Timeout) {
                eprintln!("something has not ended within {PATIENCE:?}");
            }
            answer.is_ok()
        }
    }
}
