//! A broker that is compared: where it is, what it is, and its processes where they can be seen.

use super::CompareError;
use crate::client::answers;
use crate::machine::listeners;
use std::str::FromStr;

/// `NAME=HOST:PORT[,HOST:PORT…]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Against {
    pub name: String,
    pub bootstrap: String,
}

impl FromStr for Against {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wanted = || "NAME=HOST:PORT, like kafka=127.0.0.1:19092".to_owned();
        let (name, bootstrap) = named(text).ok_or_else(wanted)?;
        let is_address = |address: &str| {
            let parts = address.trim().rsplit_once(':');
            parts.is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok_and(|port| port > 0))
        };
        if bootstrap.split(',').all(is_address) { Ok(Self { name, bootstrap }) } else { Err(wanted()) }
    }
}

/// `NAME=TEXT`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct About {
    pub name: String,
    pub text: String,
}

impl FromStr for About {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, text) = named(text).ok_or_else(|| "NAME=TEXT".to_owned())?;
        Ok(Self { name, text })
    }
}

fn named(text: &str) -> Option<(String, String)> {
    let (name, rest) = text.split_once('=')?;
    (!name.trim().is_empty() && !rest.trim().is_empty()).then(|| (name.trim().to_owned(), rest.trim().to_owned()))
}

/// See the module's head.
#[derive(Clone, Debug)]
pub struct Peer {
    pub name: String,
    pub bootstrap: String,
    pub pids: Vec<u32>,
    /// Where it tells where the time of records goes; nowhere, for those that somebody else has started.
    pub admins: Vec<String>,
    about: Option<String>,
}

impl Peer {
    /// One that somebody else has started; it must answer.
    pub fn new(name: &str, bootstrap: &str, about: Option<String>) -> Result<Self, CompareError> {
        answers(bootstrap).map_err(|why| CompareError::Silent {
            name: name.into(),
            bootstrap: bootstrap.into(),
            why: Box::new(why),
        })?;
        let pids = listeners::processes(bootstrap).unwrap_or_default();
        Ok(Self { name: name.to_owned(), bootstrap: bootstrap.to_owned(), pids, admins: Vec::new(), about })
    }

    /// One that this program has started.
    pub fn of_process(name: &str, bootstrap: &str, admin: &str, pid: u32, about: String) -> Self {
        let (name, bootstrap, admins) = (name.to_owned(), bootstrap.to_owned(), vec![admin.to_owned()]);
        Self { name, bootstrap, pids: vec![pid], admins, about: Some(about) }
    }

    /// What it is, for a report.
    pub fn words(&self) -> String {
        let about = self.about.clone().unwrap_or_else(|| "nothing is said of it (--about)".to_owned());
        let seen = match self.pids.len() {
            0 => "its processes cannot be seen from here".to_owned(),
            1 => "one process".to_owned(),
            count => format!("{count} processes"),
        };
        format!("{about}; {}, {seen}", self.bootstrap)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broker_is_named_and_has_addresses() {
        let read = |text: &str| text.parse::<Against>().map(|against| (against.name, against.bootstrap));
        assert_eq!(read("kafka=127.0.0.1:9092"), Ok(("kafka".into(), "127.0.0.1:9092".into())));
        assert_eq!(read("k=a:1,b:2,[::1]:3"), Ok(("k".into(), "a:1,b:2,[::1]:3".into())));
        for wrong in ["127.0.0.1:9092", "kafka=", "=a:1", "kafka=a", "kafka=a:0", "kafka=a:1,", "kafka=a:x"] {
            assert!(read(wrong).is_err_and(|why| why.contains("NAME=HOST:PORT")), "{wrong}");
        }
        assert_eq!("k=a=b".parse(), Ok(About { name: "k".into(), text: "a=b".into() }));
    }
}
