//! From a frame to its handler: header, version check, table.

use super::connection::{Answer, Close, Dispatch, Encoded};
use super::context::{ConnectionContext, Principal, RequestContext};
use super::handler::Call;
use super::handlers::{self, api_versions};
use crate::broker::Broker;
use crate::cluster::asks::Asks;
use crate::cluster::forward;
use crate::partitions::anatomy::{Arrival, Ticket};
use bytes::Bytes;
use chronik_proto_kafka::api::api_versions::ApiVersionsRequest;
use chronik_proto_kafka::{Decoder, Part, Request, RequestHeader, encode_response};
use std::sync::Arc;

/// Dispatches the requests of one connection.
pub struct Dispatcher {
    pub broker: Arc<Broker>,
    pub connection: Arc<ConnectionContext>,
    /// Elements that the arrays of one request may have.
    pub elements_max: usize,
    /// Whether what the controller is to serve is handed on to it; not what was handed on to this broker.
    pub hands_on: bool,
}

impl Dispatch for Dispatcher {
    fn dispatch(&mut self, frame: Bytes, arrival: Arrival) -> Result<Answer, Close> {
        let frame_bytes = frame.len() as u64;
        let mut input = Decoder::new(frame.clone()).with_elements_max(self.elements_max);
        let header =
            RequestHeader::decode(&mut input).map_err(|malformed| Close(format!("request header: {malformed}")))?;
        let RequestHeader { api_key, api_version, correlation_id, client_id } = header;
        let Some(api) = handlers::find(api_key) else {
            return Err(Close(format!("API key {api_key} is not served")));
        };
        if !(api.served_from..=api.upto).contains(&api_version) {
            // KIP-511: a client that is newer than we are is told what we speak, in the oldest form.
            if api_key == ApiVersionsRequest::KEY {
                let response = api_versions::unsupported();
                return Ok(Answer::Ready(encode_response::<ApiVersionsRequest>(correlation_id, 0, &response)));
            }
            return Err(Close(format!(
                "{} version {api_version} is not served, only {} to {}",
                api.name, api.served_from, api.upto
            )));
        }
        let metrics = self.broker.metrics.api(api_key);
        metrics.requests.one();
        metrics.request_bytes.add(frame_bytes);
        let context = RequestContext {
            connection: self.connection.clone(),
            principal: Principal::anonymous(),
            client_id,
            version: api_version,
        };
        if api.by_controller
            && self.hands_on
            && let Some(cluster) = &self.broker.cluster
            && !cluster.asks.is_controller()
        {
            let asks = cluster.asks.clone();
            let listener = self.connection.listener.config.name.clone();
            return Ok(Answer::Exclusive(Box::pin(hand_on(asks, listener, frame, api.name))));
        }
        (api.dispatch)(Call { broker: self.broker.clone(), context, arrival }, input, correlation_id)
    }

    fn take_ticket(&mut self) -> Option<Ticket> {
        self.connection.ticket.take()
    }
}

/// The controller's answer as this connection's. Where there is none, the connection ends: the client comes again, and finds
/// that there is a controller, or another broker.
async fn hand_on(
    asks: Arc<Asks>,
    listener: String,
    frame: Bytes,
    name: &'static str,
) -> Result<Option<Encoded>, Close> {
    let answered = forward::to_controller(&asks, &listener, frame).await;
    let response = answered.map_err(|why| Close(format!("{name} could not be handed on: {why}")))?;
    // No answer comes near: those that are handed on are bounded far below.
    let length = (response.len() as i32).to_be_bytes();
    Ok(Some([Bytes::copy_from_slice(&length), response].map(Part::Bytes).into_iter().collect()))
}
