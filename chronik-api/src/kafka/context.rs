//! Who asks: what a handler knows about a request besides its bytes.

use crate::config::Listener;
use crate::partitions::anatomy::TicketPlace;
use chronik_proto_kafka::Str;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

/// A listener that is up: its configuration, and where its clients are told to connect.
#[derive(Clone, Debug)]
pub struct ListenerContext {
    pub config: Listener,
    pub advertised_host: String,
    pub advertised_port: u16,
}

/// One connection, from its first byte to its last.
#[derive(Debug)]
pub struct ConnectionContext {
    pub listener: Arc<ListenerContext>,
    pub peer: SocketAddr,
    /// Counts the broker's connections; tells them apart in logs.
    pub number: u64,
    /// Of the request that is being dispatched.
    pub ticket: TicketPlace,
    software: Mutex<Option<(String, String)>>,
}

impl ConnectionContext {
    pub fn new(listener: Arc<ListenerContext>, peer: SocketAddr, number: u64) -> Self {
        Self { listener, peer, number, ticket: TicketPlace::default(), software: Mutex::new(None) }
    }

    /// Name and version of the client's software, once it has said (KIP-511).
    pub fn software(&self) -> Option<(String, String)> {
        self.software.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub fn set_software(&self, name: &str, version: &str) {
        *self.software.lock().unwrap_or_else(PoisonError::into_inner) = Some((name.to_owned(), version.to_owned()));
    }
}

/// As whom a client acts. There is no authentication yet, so everyone is Kafka's `ANONYMOUS`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Principal {
    pub kind: String,
    pub name: String,
}

impl Principal {
    pub fn anonymous() -> Self {
        Self { kind: "User".into(), name: "ANONYMOUS".into() }
    }
}

/// One request's surroundings.
#[derive(Clone, Debug)]
pub struct RequestContext {
    pub connection: Arc<ConnectionContext>,
    pub principal: Principal,
    pub client_id: Option<Str>,
    pub version: i16,
}

/// What a principal may want to do to something, in Kafka's terms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    Read,
    Write,
    Create,
    Delete,
    Alter,
    Describe,
    ClusterAction,
    DescribeConfigs,
    AlterConfigs,
    IdempotentWrite,
}

/// What it is to be done to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resource<'a> {
    Cluster,
    Topic(&'a str),
    Group(&'a str),
    TransactionalId(&'a str),
}

/// Decides who may do what. Every handler asks it, so that rules can come in without touching the handlers.
pub trait Authorizer: Send + Sync {
    fn allows(&self, context: &RequestContext, operation: Operation, resource: Resource<'_>) -> bool;
}

/// The only rule there is as long as there are no identities: everyone may do everything.
#[derive(Clone, Copy, Debug, Default)]
pub struct AllowAll;

impl Authorizer for AllowAll {
    fn allows(&self, _: &RequestContext, _: Operation, _: Resource<'_>) -> bool {
        true
    }
}
