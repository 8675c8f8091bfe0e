//! Accepts client connections, within bounds on their number.

use super::connection::{self, Dispatch, Ended, Limits, MemoryBudget};
use crate::metrics::Metrics;
use std::collections::HashMap;
use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// Pause after a failed accept (out of file handles, mostly), so that the loop does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How many connections there are, by peer.
#[derive(Debug)]
pub struct Admission {
    connections_max: usize,
    per_address_max: usize,
    by_address: Mutex<HashMap<IpAddr, usize>>,
    total: AtomicUsize,
}

/// A place taken; given back when dropped.
#[derive(Debug)]
pub struct Place {
    admission: Arc<Admission>,
    address: IpAddr,
}

/// Why a connection is not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TooMany {
    #[error("as many are open as limits.connections allows")]
    InAll,
    #[error("as many are open from its address as limits.connections_per_ip allows")]
    FromAddress,
}

impl Admission {
    pub fn new(connections_max: usize, per_address_max: usize) -> Arc<Self> {
        Arc::new(Self {
            connections_max,
            per_address_max,
            by_address: Mutex::new(HashMap::new()),
            total: AtomicUsize::new(0),
        })
    }

    /// Open connections.
    pub fn total(&self) -> usize {
        self.total.load(Ordering::Relaxed)
    }

    fn by_address(&self) -> MutexGuard<'_, HashMap<IpAddr, usize>> {
        self.by_address.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a place, unless there are too many, in all or from this address.
    pub fn admit(self: &Arc<Self>, address: IpAddr) -> Result<Place, TooMany> {
        let mut by_address = self.by_address();
        if self.total() >= self.connections_max {
            return Err(TooMany::InAll);
        }
        let count = by_address.entry(address).or_default();
        if *count >= self.per_address_max {
            return Err(TooMany::FromAddress);
        }
        *count += 1;
        self.total.fetch_add(1, Ordering::Relaxed);
        Ok(Place { admission: self.clone(), address })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut by_address = self.admission.by_address();
        if let Some(count) = by_address.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                by_address.remove(&self.address);
            }
        }
        self.admission.total.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What all connections of a listener share.
#[derive(Clone)]
pub struct Shared {
    pub limits: Limits,
    pub memory: MemoryBudget,
    pub admission: Arc<Admission>,
    pub metrics: Arc<Metrics>,
    /// Turns true when the broker shuts down.
    pub shutdown: watch::Receiver<bool>,
}

/// Accepts until shutdown. `dispatcher` makes what serves a connection from that peer.
pub async fn run<D: Dispatch>(listener: TcpListener, shared: Shared, dispatcher: impl Fn(SocketAddr) -> D) {
    let mut shutdown = shared.shutdown.clone();
    loop {
        let accepted = tokio::select! {
            biased;
            () = stopped(&mut shutdown) => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => match shared.admission.admit(peer.ip()) {
                Ok(place) => {
                    shared.metrics.connections_accepted.one();
                    tokio::spawn(serve(stream, peer, dispatcher(peer), shared.clone(), place));
                }
                Err(reason) => {
                    match reason {
                        TooMany::InAll => shared.metrics.connections_refused_total_limit.one(),
                        TooMany::FromAddress => shared.metrics.connections_refused_address_limit.one(),
                    }
                    // A flood must not become a flood of log lines: the counters above tell how many.
                    tracing::debug!(%peer, %reason, "refused a connection");
                }
            },
            Err(failure) => {
                tracing::warn!(error = &failure as &dyn std::error::Error, "cannot accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn stopped(shutdown: &mut watch::Receiver<bool>) {
    // An error means that the sender is gone, and with it the broker.
    let _ = shutdown.wait_for(|stopping| *stopping).await;
}

fn serve(
    stream: TcpStream,
    peer: SocketAddr,
    dispatch: impl Dispatch,
    shared: Shared,
    place: Place,
) -> impl Future<Output = ()> + Send {
    let Shared { limits, memory, metrics, mut shutdown, .. } = shared;
    async move {
        if let Err(failure) = stream.set_nodelay(true) {
            tracing::debug!(%peer, error = &failure as &dyn std::error::Error, "the connection broke at once");
            return;
        }
        metrics.connections.add(1);
        let ended = connection::serve(stream, dispatch, limits, memory, &metrics, stopped(&mut shutdown)).await;
        metrics.connections.add(-1);
        drop(place);
        match &ended {
            Ended::ByClient | Ended::ShuttingDown => {}
            Ended::Idle => metrics.connections_idle.one(),
            _ => metrics.connections_broken.one(),
        }
        match ended {
            Ended::ByClient | Ended::Idle | Ended::ShuttingDown => {
                tracing::debug!(%peer, reason = %ended, "connection ended")
            }
            Ended::Io(cause) => tracing::debug!(%peer, %cause, "connection broke"),
            refused => tracing::info!(%peer, reason = %refused, "closed a connection"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_bounded_in_all_and_per_address_and_come_back() {
        let admission = Admission::new(3, 2);
        let (here, there) = (IpAddr::from([127, 0, 0, 1]), IpAddr::from([127, 0, 0, 2]));
        let first = admission.admit(here);
        let _second = admission.admit(here);
        assert_eq!(admission.admit(here).err(), Some(TooMany::FromAddress));
        let _third = admission.admit(there);
        assert_eq!(admission.admit(there).err(), Some(TooMany::InAll));
        drop(first);
        assert!(admission.admit(there).is_ok());
    }
}
