//! Health and metrics over HTTP/1: `/healthz` (the process answers), `/readyz` (clients are served), `/metrics`, `/cluster`.
//!
//! For a scraper, probes and people on the machine, not for the public: there is no access control, and it listens on
//! loopback unless told otherwise. It is bounded all the same: connections, the size and the time of a request's head,
//! the life of a connection, and one scrape at a time.

mod respond;

use crate::metrics::exposition::Exposition;
use hyper_util::rt::{TokioIo, TokioTimer};
use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};

/// A request's head must have arrived within this, also the next one of a connection that is kept open: longer than the
/// usual interval of scrapes.
const HEAD_WITHIN: Duration = Duration::from_secs(75);

/// Bytes of a request's head: a few times what browsers send.
const HEAD_BYTES_MAX: usize = 16 * 1024;

/// Header lines of a request.
const HEADERS_MAX: usize = 64;

/// A connection is closed after this life, whatever it does, so that slow readers cannot hold their places.
const CONNECTION_LIFE: Duration = Duration::from_secs(600);

/// How long answers under way may take once the broker stops.
const FINISH_WITHIN: Duration = Duration::from_secs(1);

/// Whether clients are served, and if not, why.
#[derive(Clone, Debug)]
pub struct Readiness(Arc<Mutex<Result<(), String>>>);

impl Readiness {
    /// Not ready, for this reason.
    pub fn not_yet(why: &str) -> Self {
        Self(Arc::new(Mutex::new(Err(why.to_owned()))))
    }

    pub fn set_ready(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Ok(());
    }

    /// The broker stops, or cannot serve for a while.
    pub fn set_not_ready(&self, why: &str) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Err(why.to_owned());
    }

    pub fn get(&self) -> Result<(), String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// What the endpoints show.
pub struct AdminState {
    pub readiness: Readiness,
    pub exposition: Exposition,
    /// One scrape at a time: each holds the text of all metrics.
    scrape: tokio::sync::Mutex<()>,
    /// What is known of the cluster.
    cluster: ClusterStatus,
}

type ClusterStatus = Box<dyn Fn() -> serde_json::Value + Send + Sync>;

impl AdminState {
    pub fn new(readiness: Readiness, exposition: Exposition) -> Self {
        Self {
            readiness,
            exposition,
            scrape: tokio::sync::Mutex::new(()),
            cluster: Box::new(|| serde_json::Value::Null),
        }
    }

    /// Shows this at `/cluster`.
    pub fn with_cluster(self, status: impl Fn() -> serde_json::Value + Send + Sync + 'static) -> Self {
        Self { cluster: Box::new(status), ..self }
    }

    fn cluster(&self) -> Option<serde_json::Value> {
        Some((self.cluster)()).filter(|status| !status.is_null())
    }
}

/// The endpoint, bound and not yet serving.
#[derive(Debug)]
pub struct Admin {
    listener: TcpListener,
    connections: Arc<Semaphore>,
}

impl Admin {
    /// Listens. `None` if the configuration has it switched off.
    pub async fn bind(config: &crate::config::Admin) -> std::io::Result<Option<Self>> {
        if !config.enabled {
            return Ok(None);
        }
        let listener = TcpListener::bind(config.listen.pair()).await?;
        let connections = usize::try_from(config.connections).unwrap_or(Semaphore::MAX_PERMITS);
        Ok(Some(Self { listener, connections: Arc::new(Semaphore::new(connections.min(Semaphore::MAX_PERMITS))) }))
    }

    pub fn local_address(&self) -> std::io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves until `shutdown`, then lets answers under way finish.
    pub async fn serve(self, state: Arc<AdminState>, shutdown: impl Future<Output = ()>) {
        let (stop, stopped) = watch::channel(());
        let mut shutdown = pin!(shutdown);
        let mut tasks = tokio::task::JoinSet::new();
        loop {
            let accepted = tokio::select! {
                () = &mut shutdown => break,
                Some(_) = tasks.join_next() => continue,
                accepted = self.listener.accept() => accepted,
            };
            let stream = match accepted {
                Ok((stream, _)) => stream,
                Err(why) => {
                    // Out of file handles, most likely. Accepting again at once would spin.
                    tracing::warn!(%why, "the admin endpoint cannot accept a connection");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            };
            // One too many is closed unanswered: a scraper retries, and a queue would only be the next thing to bound.
            let Ok(place) = self.connections.clone().try_acquire_owned() else { continue };
            let (state, stopped) = (state.clone(), stopped.clone());
            tasks.spawn(async move {
                serve_connection(stream, state, stopped).await;
                drop(place);
            });
        }
        drop(stop);
        let all_done = async { while tasks.join_next().await.is_some() {} };
        if tokio::time::timeout(FINISH_WITHIN, all_done).await.is_err() {
            tracing::debug!("admin connections were cut off");
        }
    }
}

async fn serve_connection(stream: TcpStream, state: Arc<AdminState>, mut stopped: watch::Receiver<()>) {
    let service = hyper::service::service_fn(move |request| {
        let state = state.clone();
        async move { Ok::<_, Infallible>(respond::respond(&state, &request).await) }
    });
    let mut http = hyper::server::conn::http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(HEAD_WITHIN)
        .max_buf_size(HEAD_BYTES_MAX)
        .max_headers(HEADERS_MAX);
    let mut connection = pin!(http.serve_connection(TokioIo::new(stream), service));
    let over = async {
        let life = tokio::time::sleep(CONNECTION_LIFE);
        tokio::select! { () = life => {}, _ = stopped.changed() => {} }
    };
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = over => {
            connection.as_mut().graceful_shutdown();
            tokio::time::timeout(FINISH_WITHIN, connection).await.unwrap_or(Ok(()))
        }
    };
    if let Err(why) = ended {
        tracing::debug!(%why, "an admin connection broke");
    }
}

#[cfg(test)]
mod tests;
