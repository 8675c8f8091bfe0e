//! Brokers as a client is to see them: under the addresses of the listener that it came in on.

use super::handler::Call;
use chronik_core::ids::{LogId, NodeId};
use chronik_core::metadata::Image;
use chronik_proto_kafka::Str;

/// A broker's address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    pub id: NodeId,
    pub host: Str,
    pub port: i32,
    pub rack: Option<Str>,
}

/// Those that clients may be sent to: a fenced one leads nothing, and may be gone.
pub fn alive(call: &Call, image: &Image) -> Vec<Address> {
    let is_fenced = |node: &Address| image.broker(node.id).is_some_and(|broker| broker.fenced);
    addresses(call, image).into_iter().filter(|node| !is_fenced(node)).collect()
}

/// Replicas that cannot be served now.
pub fn offline(image: &Image, log: LogId, replicas: &[NodeId]) -> Vec<i32> {
    let serves = |node: &NodeId| image.broker(*node).is_some_and(|broker| broker.serves(log));
    replicas.iter().filter(|node| !serves(node)).map(|node| node.0).collect()
}

/// Every broker that can be reached by way of the caller's listener.
pub fn addresses(call: &Call, image: &Image) -> Vec<Address> {
    let listener = &call.context.connection.listener;
    let address = |broker: &std::sync::Arc<chronik_core::metadata::Broker>| {
        let rack = broker.rack.as_deref().map(Str::from);
        if broker.id == call.broker.node {
            let (host, port) = (listener.advertised_host.as_str().into(), i32::from(listener.advertised_port));
            return Some(Address { id: broker.id, host, port, rack });
        }
        let same = broker.listeners.iter().find(|other| other.name == listener.config.name)?;
        Some(Address { id: broker.id, host: same.host.as_str().into(), port: i32::from(same.port), rack })
    };
    image.brokers().values().filter_map(address).collect()
}
