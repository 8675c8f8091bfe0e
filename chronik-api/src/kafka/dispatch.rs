//! From a frame to its handler: header, version check, table.

use super::connection::{Answer, Close, Dispatch};
use super::context::{ConnectionContext, Principal, RequestContext};
use super::handler::Call;
use super::handlers::{self, api_versions};
use crate::broker::Broker;
use bytes::Bytes;
use chronik_proto_kafka::api::api_versions::ApiVersionsRequest;
use chronik_proto_kafka::{Decoder, Request, RequestHeader, encode_response};
use std::sync::Arc;

/// Dispatches the requests of one connection.
pub struct Dispatcher {
    pub broker: Arc<Broker>,
    pub connection: Arc<ConnectionContext>,
}

impl Dispatch for Dispatcher {
    fn dispatch(&mut self, frame: Bytes) -> Result<Answer, Close> {
        let frame_bytes = frame.len() as u64;
        let mut input = Decoder::new(frame);
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
        (api.dispatch)(Call { broker: self.broker.clone(), context }, input, correlation_id)
    }
}
