//! One request, one answer.

use super::AdminState;
use crate::metrics::exposition::CONTENT_TYPE;
use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE as CONTENT_TYPE_HEADER, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};

const TEXT: &str = "text/plain; charset=utf-8";
const JSON: &str = "application/json";

const INDEX: &str = "\
chronik's admin endpoint:

  /healthz   200 while the process answers
  /readyz    200 once clients are served, else 503 and the reason
  /metrics   for Prometheus
  /cluster   nodes, Raft, partitions that are not fully in sync, as JSON
";

/// Bodies of requests are not read: none of these takes one.
pub(super) async fn respond<B>(state: &AdminState, request: &Request<B>) -> Response<Full<Bytes>> {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let mut refused = answer(StatusCode::METHOD_NOT_ALLOWED, TEXT, "GET and HEAD only\n".into());
        refused.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return refused;
    }
    match request.uri().path() {
        "/" => answer(StatusCode::OK, TEXT, INDEX.into()),
        "/healthz" => answer(StatusCode::OK, TEXT, "ok\n".into()),
        "/readyz" => match state.readiness.get() {
            Ok(()) => answer(StatusCode::OK, TEXT, "ready\n".into()),
            Err(why) => answer(StatusCode::SERVICE_UNAVAILABLE, TEXT, format!("not ready: {why}\n")),
        },
        "/metrics" => {
            let _one_at_a_time = state.scrape.lock().await;
            match state.exposition.render(state.readiness.get().is_ok()).await {
                Ok(text) => answer(StatusCode::OK, CONTENT_TYPE, text),
                Err(_) => answer(StatusCode::INTERNAL_SERVER_ERROR, TEXT, "the metrics cannot be shown\n".into()),
            }
        }
        "/cluster" => match state.cluster() {
            Some(status) => answer(StatusCode::OK, JSON, format!("{status:#}\n")),
            None => {
                answer(StatusCode::SERVICE_UNAVAILABLE, TEXT, "not ready: nothing is known of a cluster yet\n".into())
            }
        },
        _ => answer(StatusCode::NOT_FOUND, TEXT, format!("there is no such page\n\n{INDEX}")),
    }
}

fn answer(status: StatusCode, kind: &'static str, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE_HEADER, HeaderValue::from_static(kind));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
