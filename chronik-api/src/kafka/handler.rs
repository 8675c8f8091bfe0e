//! What a handler is, and how a frame becomes a call of one.

use super::connection::{Answer, Close, Encoded, Working};
use super::context::RequestContext;
use crate::broker::Broker;
use crate::partitions::anatomy::Arrival;
use chronik_proto_kafka::{Decoder, ErrorCode, Request, decode_request, encode_response};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

/// What a handler is given besides the request.
#[derive(Clone)]
pub struct Call {
    pub broker: Arc<Broker>,
    pub context: RequestContext,
    pub arrival: Arrival,
}

impl Call {
    pub fn version(&self) -> i16 {
        self.context.version
    }
}

/// What a handler gives.
pub enum Reply<R> {
    Now(R),
    /// None is wanted (acks=0).
    Nothing,
    /// The request changes nothing and is answered with much: it is not begun before all earlier requests of its
    /// connection are answered, so that nobody holds memory for an answer that cannot go out yet.
    InTurn(Pin<Box<dyn Future<Output = R> + Send>>),
    /// The request has taken effect; the answer comes later.
    Later(Pin<Box<dyn Future<Output = R> + Send>>),
    /// The request takes effect as the future runs: the connection's next request waits for it.
    Exclusive(Pin<Box<dyn Future<Output = R> + Send>>),
    /// As [`Reply::Exclusive`], and no answer is wanted unless the connection is to end.
    ExclusiveNothing(Pin<Box<dyn Future<Output = Result<(), Close>> + Send>>),
    /// The connection must end.
    Close(Close),
}

impl<R> Reply<R> {
    pub fn in_turn(future: impl Future<Output = R> + Send + 'static) -> Self {
        Reply::InTurn(Box::pin(future))
    }

    pub fn later(future: impl Future<Output = R> + Send + 'static) -> Self {
        Reply::Later(Box::pin(future))
    }

    pub fn exclusive(future: impl Future<Output = R> + Send + 'static) -> Self {
        Reply::Exclusive(Box::pin(future))
    }
}

/// A request that this broker serves.
pub trait Handler: Request + Send + 'static
where
    Self::Response: Send + 'static,
{
    /// The lowest version told to clients, where it is lower than the lowest served.
    const ADVERTISED_FROM: i16 = *Self::VERSIONS.start();
    /// In a cluster the controller serves it, whichever broker it came to.
    const BY_CONTROLLER: bool = false;

    fn handle(self, call: Call) -> Reply<Self::Response>;
}

/// One row of the table of APIs.
#[derive(Clone, Copy)]
pub struct Api {
    pub key: i16,
    pub name: &'static str,
    /// First and last version told to clients …
    pub advertised_from: i16,
    pub upto: i16,
    /// … and the first that is answered.
    pub served_from: i16,
    pub flexible_since: i16,
    pub by_controller: bool,
    pub dispatch: fn(Call, Decoder, i32) -> Result<Answer, Close>,
}

/// The row of an API.
pub const fn api<R: Handler>() -> Api
where
    R::Response: Send + 'static,
{
    Api {
        key: R::KEY,
        name: R::NAME,
        advertised_from: R::ADVERTISED_FROM,
        upto: *R::VERSIONS.end(),
        served_from: *R::VERSIONS.start(),
        flexible_since: R::FLEXIBLE_SINCE,
        by_controller: R::BY_CONTROLLER,
        dispatch: dispatch::<R>,
    }
}

fn dispatch<R: Handler>(call: Call, mut input: Decoder, correlation_id: i32) -> Result<Answer, Close>
where
    R::Response: Send + 'static,
{
    let version = call.version();
    let request = decode_request::<R>(&mut input, version)
        .map_err(|malformed| Close(format!("{} version {version}: {malformed}", R::NAME)))?;
    let broker = call.broker.clone();
    let began = Instant::now();
    let encode = move |response: &R::Response| -> Encoded {
        let encoded = encode_response::<R>(correlation_id, version, response);
        let metrics = broker.metrics.api(R::KEY);
        metrics.latency.observe(began.elapsed());
        metrics.response_bytes.add(encoded.iter().map(|part| part.len() as u64).sum());
        encoded
    };
    let (mut future, exclusive): (Working, bool) = match request.handle(call) {
        Reply::Now(response) => return Ok(Answer::Ready(encode(&response))),
        Reply::Nothing => return Ok(Answer::Nothing),
        Reply::Close(close) => return Err(close),
        Reply::InTurn(future) => return Ok(Answer::InTurn(Box::pin(async move { Ok(Some(encode(&future.await))) }))),
        Reply::Later(future) => (Box::pin(async move { Ok(Some(encode(&future.await))) }), false),
        Reply::Exclusive(future) => (Box::pin(async move { Ok(Some(encode(&future.await))) }), true),
        Reply::ExclusiveNothing(future) => (Box::pin(async move { future.await.map(|()| None) }), true),
    };
    // Much of what may take long does not: a fetch that finds data, a commit in memory. A first look saves the queue.
    match future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(Ok(Some(encoded))) => Ok(Answer::Ready(encoded)),
        Poll::Ready(Ok(None)) => Ok(Answer::Nothing),
        Poll::Ready(Err(close)) => Err(close),
        Poll::Pending if exclusive => Ok(Answer::Exclusive(future)),
        Poll::Pending => Ok(Answer::Later(future)),
    }
}

/// For responses whose error is a pair of code and words.
pub fn refusal(code: ErrorCode, words: impl Into<String>) -> (i16, Option<chronik_proto_kafka::Str>) {
    (code.0, Some(words.into().into()))
}
