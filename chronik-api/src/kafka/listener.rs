//! Accepts client connections, within bounds on their number.

use super::connection::{self, Dispatch, Ended, Limits, RequestMemory};
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

    /// `None` when there are too many, in all or from this address.
    pub fn admit(self: &Arc<Self>, address: IpAddr) -> Option<Place> {
        let mut by_address = self.by_address();
        if self.total() >= self.connections_max {
            return None;
        }
        let count = by_address.entry(address).or_default();
        if *count >= self.per_address_max {
            return None;
        }
        *count += 1;
        self.total.fetch_add(1, Ordering::Relaxed);
        Some(Place { admission: self.clone(), address })
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
#[derive(Clone, Debug)]
pub struct Shared {
    pub limits: Limits,
    pub memory: RequestMemory,
    pub admission: Arc<Admission>,
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
                Some(place) => drop(tokio::spawn(serve(stream, peer, dispatcher(peer), shared.clone(), place))),
                None => {
                    tracing::warn!(%peer, open = shared.admission.total(), "refused a connection: too many are open")
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
    let Shared { limits, memory, mut shutdown, .. } = shared;
    async move {
        if let Err(failure) = stream.set_nodelay(true) {
            tracing::debug!(%peer, error = &failure as &dyn std::error::Error, "the connection broke at once");
            return;
        }
        let ended = connection::serve(stream, dispatch, limits, memory, stopped(&mut shutdown)).await;
        drop(place);
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
        assert!(admission.admit(here).is_none(), "two per address");
        let _third = admission.admit(there);
        assert!(admission.admit(there).is_none(), "three in all");
        drop(first);
        assert!(admission.admit(there).is_some());
    }
}
