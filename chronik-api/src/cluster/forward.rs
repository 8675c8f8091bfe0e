//! Clients' requests that the controller decides, from whichever broker they came to (KIP-590).
//!
//! The request travels as the bytes that the client sent, and so does the answer: the controller serves it as if the client
//! had come to its listener of the same name. What was decided shows on other brokers a moment later, as in Kafka.

use super::asks::{Asks, NoAnswer};
use super::node::Forwarded;
use crate::broker::Broker;
use crate::kafka::connection::{Answer, Dispatch};
use crate::kafka::context::{ConnectionContext, ListenerContext};
use crate::kafka::dispatch::Dispatcher;
use crate::partitions::anatomy::Arrival;
use bytes::{Buf, Bytes};
use chronik_core::metadata::requests::{self, FORWARD_BYTES_MAX, Request};
use chronik_proto_kafka::in_memory;
use std::collections::BTreeMap;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

/// How long a client's request may take to be decided elsewhere.
const WITHIN: Duration = Duration::from_secs(30);

/// Why a request could not be handed on; the client is told to try again.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ForwardError {
    #[error("there is no controller now")]
    NoController,
    #[error("the controller has not answered in time")]
    TimedOut,
    #[error("a request of {bytes} bytes is more than the {FORWARD_BYTES_MAX} that are handed on")]
    TooLarge { bytes: usize },
    #[error("the controller does not serve it: {0}")]
    NotServed(String),
}

/// Hands a request on to the controller; the response as the client is to get it, without the length before it.
pub async fn to_controller(asks: &Asks, listener: &str, frame: Bytes) -> Result<Bytes, ForwardError> {
    if frame.len() > FORWARD_BYTES_MAX {
        return Err(ForwardError::TooLarge { bytes: frame.len() });
    }
    let request = Request::Forward { listener: listener.to_owned(), frame };
    match asks.hand_on(&request, WITHIN).await {
        Ok(requests::Answer::Forwarded { frame }) => Ok(frame),
        Ok(requests::Answer::Refused(why)) => Err(ForwardError::NotServed(why.to_string())),
        Ok(_) => Err(ForwardError::NotServed("it answers something else".into())),
        Err(NoAnswer::NoController) => Err(ForwardError::NoController),
        Err(NoAnswer::TimedOut) => Err(ForwardError::TimedOut),
    }
}

/// Serves what other brokers hand on.
pub struct Serve {
    pub broker: Arc<Broker>,
    pub listeners: BTreeMap<String, Arc<ListenerContext>>,
    pub elements_max: usize,
}

impl Forwarded for Serve {
    fn serve(&self, listener: String, frame: Bytes) -> Pin<Box<dyn Future<Output = Option<Bytes>> + Send>> {
        /// It is another broker that asks, wherever its client is.
        const NOWHERE: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED), 0);
        // A broker may have listeners that others have not.
        let listener = self.listeners.get(&listener).or_else(|| self.listeners.values().next()).cloned();
        let (broker, elements_max) = (self.broker.clone(), self.elements_max);
        Box::pin(async move {
            let connection = Arc::new(ConnectionContext::new(listener?, NOWHERE, u64::MAX));
            let mut dispatcher = Dispatcher { broker, connection, elements_max, hands_on: false };
            let encoded = match dispatcher.dispatch(frame, Arrival::now()) {
                Ok(Answer::Ready(encoded)) => Some(encoded),
                Ok(Answer::Later(working) | Answer::InTurn(working) | Answer::Exclusive(working)) => {
                    working.await.ok().flatten()
                }
                Ok(Answer::Nothing) | Err(_) => None,
            }?;
            // Nothing that is handed on is answered from files.
            let mut response: Bytes = in_memory(encoded)?.concat().into();
            // Without its length, which is put before it where it goes out.
            if response.len() < 4 {
                return None;
            }
            response.advance(4);
            Some(response)
        })
    }
}
