//! All lanes of a pair of nodes as one thing that comes up and goes down.
//!
//! **A session is all of its lanes.** It is up when each of them stands, and down as soon as one breaks, or nothing has come
//! for too long; then the others are given up, and only when nothing of it can be delivered any more is its end told. The
//! next one is another session, with another number.
//!
//! **Who dials.** The node with the lower id. The other dials too if it has waited in vain for a while: the first may not know
//! of it yet, as where it joins. Of two sessions between the same nodes the later one stays.
//!
//! Frames are handed over in the task that reads them: what they cause happens there, without another hand-off.

use crate::handshake::{self, HandshakeError, Identity, PING, PONG, Peer, Place};
use crate::lane::{Bound, NotTaken, Order, Outbox};
use crate::link::{Endpoint, Frame, Incoming, Lane, LaneReceiver, Link, LinkError};
use chronik_core::ids::{LogId, NodeId};
use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};
use tokio::runtime::Handle;
use tokio::sync::{Notify, Semaphore};
use tokio::task::{AbortHandle, JoinSet};

/// Handshakes of strangers that go on at the same time.
const HANDSHAKES_MAX: usize = 64;
/// A peer that is not reached is tried again after so long at first …
const DIAL_AGAIN_MIN: Duration = Duration::from_millis(50);
/// … and at last.
const DIAL_AGAIN_MAX: Duration = Duration::from_secs(1);
/// How long the node with the higher id waits to be dialled before it dials.
const DIAL_IN_TURN: Duration = Duration::from_millis(500);

/// A session that ends sooner than this is not made anew at once.
const SHORT_LIVED: Duration = Duration::from_secs(2);

/// How sessions are kept.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Lanes of each session.
    pub lanes: u32,
    /// The longest body of a frame.
    pub frame_bytes_max: usize,
    /// What may wait on each lane.
    pub bound: Bound,
    /// How long dialling and greeting may take.
    pub handshake_within: Duration,
    pub ping_every: Duration,
    /// A peer from which nothing came for so long is gone, whatever the network says.
    pub silence_max: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            lanes: 1,
            frame_bytes_max: 64 << 20,
            bound: Bound { frames: 4_096, bytes: 64 << 20 },
            handshake_within: Duration::from_secs(3),
            ping_every: Duration::from_millis(250),
            silence_max: Duration::from_millis(1_500),
        }
    }
}

/// What a session's events are told to. Called from the tasks that read: must not block.
pub trait Owner: Send + Sync + 'static {
    /// Whether a peer may come in, apart from what the handshake looks at; else why not, in words.
    fn admits(&self, peer: &Peer) -> Result<(), String>;
    fn up(&self, session: &Arc<Session>);
    fn frame(&self, session: &Arc<Session>, lane: usize, frame: Frame);
    /// Nothing of it is delivered any more.
    fn down(&self, session: &Arc<Session>);
    /// A peer cannot be reached.
    fn unreachable(&self, _peer: NodeId) {}
    /// Nobody listens where a peer should: told beside [`Owner::unreachable`].
    fn gone(&self, _peer: NodeId) {}
}

/// A session with one peer.
#[derive(Debug)]
pub struct Session {
    pub number: u64,
    pub peer: Peer,
    pub remote: SocketAddr,
    lanes: Vec<Outbox<LogId>>,
    ended: AtomicBool,
    end: Notify,
    over: AtomicBool,
    gone: Notify,
    heard_ms: AtomicU64,
    round_trip_us: AtomicU64,
    began: Instant,
}

impl Session {
    fn new(number: u64, peer: Peer, remote: SocketAddr, settings: &Settings) -> Self {
        Self {
            number,
            peer,
            remote,
            lanes: (0..settings.lanes).map(|_| Outbox::new(settings.bound, settings.frame_bytes_max)).collect(),
            ended: AtomicBool::new(false),
            end: Notify::new(),
            over: AtomicBool::new(false),
            gone: Notify::new(),
            heard_ms: AtomicU64::new(0),
            round_trip_us: AtomicU64::new(0),
            began: Instant::now(),
        }
    }

    /// Sends on a lane.
    pub fn send(&self, lane: usize, frame: Frame, order: Order<LogId>) -> Result<(), NotTaken> {
        self.lanes[lane % self.lanes.len()].push(frame, order)
    }

    /// Gives the session up.
    pub fn end(&self) {
        if !self.ended.swap(true, Ordering::AcqRel) {
            self.lanes.iter().for_each(Outbox::close);
            self.end.notify_one();
        }
    }

    /// The last round trip that was measured.
    pub fn round_trip(&self) -> Option<Duration> {
        match self.round_trip_us.load(Ordering::Relaxed) {
            0 => None,
            us => Some(Duration::from_micros(us)),
        }
    }

    fn elapsed_us(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    /// Returns when it is over and its end has been told.
    async fn is_over(&self) {
        loop {
            let gone = self.gone.notified();
            if self.over.load(Ordering::Acquire) {
                return;
            }
            gone.await;
        }
    }
}

/// How it stands with a peer, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerStatus {
    pub node: NodeId,
    /// As configured, or as it came in.
    pub address: String,
    pub is_up: bool,
    pub round_trip: Option<Duration>,
    pub transport: &'static str,
    /// Why there is no session; in one that is up, what will go wrong on the other plane.
    pub trouble: Option<String>,
}

#[derive(Default)]
struct Peers {
    dialled: BTreeMap<NodeId, Dialled>,
    live: BTreeMap<NodeId, Arc<Session>>,
}

struct Dialled {
    endpoint: Endpoint,
    task: AbortHandle,
    trouble: Option<String>,
}

/// One plane of a node: its listener, and its sessions.
pub struct Hub {
    me: Weak<Hub>,
    link: Arc<dyn Link>,
    own: Identity,
    settings: Settings,
    owner: Arc<dyn Owner>,
    peers: Mutex<Peers>,
    /// Lanes of sessions that are not complete yet, with when the first of them came.
    gathering: Mutex<HashMap<(NodeId, u64), Gathering>>,
    /// Sessions come up one after the other.
    establishing: tokio::sync::Mutex<()>,
    /// A session has come or gone.
    changed: Notify,
    listening: Mutex<Option<AbortHandle>>,
    stopped: AtomicBool,
    runtime: Handle,
}

struct Gathering {
    peer: Peer,
    lanes: BTreeMap<u32, Lane>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Hub {
    /// Takes in peers from `incoming` on. Must be called inside the runtime that the plane is to live on.
    pub fn start(
        link: Arc<dyn Link>,
        incoming: Box<dyn Incoming>,
        own: Identity,
        settings: Settings,
        owner: Arc<dyn Owner>,
    ) -> Arc<Self> {
        let hub = Arc::new_cyclic(|me| Self {
            me: me.clone(),
            link,
            own,
            settings,
            owner,
            peers: Mutex::default(),
            gathering: Mutex::default(),
            establishing: tokio::sync::Mutex::default(),
            changed: Notify::new(),
            listening: Mutex::default(),
            stopped: AtomicBool::new(false),
            runtime: Handle::current(),
        });
        let listening = tokio::spawn(listen(Arc::downgrade(&hub), incoming));
        *lock(&hub.listening) = Some(listening.abort_handle());
        hub
    }

    pub fn identity(&self) -> &Identity {
        &self.own
    }

    /// Keeps sessions with these; gives up those with others that were among them before.
    pub fn set_peers(&self, endpoints: Vec<Endpoint>) {
        let Some(me) = self.me.upgrade() else { return };
        let mut peers = lock(&self.peers);
        let mut before = std::mem::take(&mut peers.dialled);
        for endpoint in endpoints.into_iter().filter(|endpoint| endpoint.node != self.own.node) {
            let dialled = match before.remove(&endpoint.node) {
                Some(same) if same.endpoint == endpoint => same,
                other => {
                    other.inspect(|moved| moved.task.abort());
                    let task = self.runtime.spawn(keep_up(Arc::downgrade(&me), endpoint.clone())).abort_handle();
                    Dialled { endpoint: endpoint.clone(), task, trouble: None }
                }
            };
            peers.dialled.insert(endpoint.node, dialled);
        }
        for (node, gone) in before {
            gone.task.abort();
            if let Some(session) = peers.live.get(&node) {
                session.end();
            }
        }
    }

    /// The present session with a peer.
    pub fn session(&self, peer: NodeId) -> Option<Arc<Session>> {
        lock(&self.peers).live.get(&peer).cloned()
    }

    pub fn status(&self) -> Vec<PeerStatus> {
        let peers = lock(&self.peers);
        let transport = self.link.name();
        let known = peers.dialled.iter().map(|(node, dialled)| {
            let live = peers.live.get(node);
            PeerStatus {
                node: *node,
                address: format!("{}:{}", dialled.endpoint.host, dialled.endpoint.port),
                is_up: live.is_some(),
                round_trip: live.and_then(|session| session.round_trip()),
                transport,
                trouble: match live {
                    Some(session) => self.unlike(&session.peer),
                    None => dialled.trouble.clone(),
                },
            }
        });
        let others = peers.live.iter().filter(|(node, _)| !peers.dialled.contains_key(node));
        let others = others.map(|(node, session)| PeerStatus {
            node: *node,
            address: session.remote.to_string(),
            is_up: true,
            round_trip: session.round_trip(),
            transport,
            trouble: self.unlike(&session.peer),
        });
        known.chain(others).collect()
    }

    /// Why the other plane will have no session with the peer: nodes whose network layers differ there cannot even say so.
    fn unlike(&self, peer: &Peer) -> Option<String> {
        let (theirs, ours) = (peer.other_transport.as_str(), self.own.other_transport);
        let plane = self.own.plane.other().name();
        (!theirs.is_empty() && !ours.is_empty() && theirs != ours).then(|| {
            format!("{plane}.transport is {theirs:?} on node {}, and {ours:?} on node {}", peer.node, self.own.node)
        })
    }

    /// Gives everything up, for good.
    pub fn stop(&self) {
        self.stopped.store(true, Ordering::Release);
        lock(&self.listening).take().inspect(AbortHandle::abort);
        let mut peers = lock(&self.peers);
        std::mem::take(&mut peers.dialled).values().for_each(|dialled| dialled.task.abort());
        peers.live.values().for_each(|session| session.end());
    }

    fn is_up(&self, peer: NodeId) -> bool {
        lock(&self.peers).live.contains_key(&peer)
    }

    fn trouble(&self, peer: NodeId, why: &HandshakeError) {
        let words = with_causes(why) + &self.hint(peer, why);
        let mut peers = lock(&self.peers);
        let Some(dialled) = peers.dialled.get_mut(&peer) else { return };
        if dialled.trouble.as_ref() != Some(&words) {
            // Each reason once: it is tried again and again.
            tracing::warn!(plane = self.own.plane.name(), node = peer.0, "no session with node {peer}: {words}");
        }
        dialled.trouble = Some(words);
        drop(peers);
        self.owner.unreachable(peer);
        if let HandshakeError::Link(LinkError::Unreachable(why)) = why
            && why.kind() == std::io::ErrorKind::ConnectionRefused
        {
            self.owner.gone(peer);
        }
    }

    /// What may be wrong where the other end is not as expected, or not there.
    fn hint(&self, peer: NodeId, why: &HandshakeError) -> String {
        let unlike = matches!(
            why,
            HandshakeError::NoGreeting(_)
                | HandshakeError::TimedOut
                | HandshakeError::Link(LinkError::Ended | LinkError::Broken(_) | LinkError::TooLarge { .. })
        );
        if !unlike {
            return String::new();
        }
        let plane = self.own.plane.name();
        let ours = self.own.transport;
        format!("; here {plane}.transport is {ours:?}: is it also on node {peer}, and is TLS the same on both?")
    }

    /// All lanes stand.
    async fn establish(&self, peer: Peer, number: u64, lanes: Vec<Lane>) -> Option<Arc<Session>> {
        let me = self.me.upgrade()?;
        let _one_after_the_other = self.establishing.lock().await;
        let earlier = self.session(peer.node);
        if let Some(earlier) = earlier {
            earlier.end();
            earlier.is_over().await;
        }
        let remote = lanes.first()?.remote;
        let session = Arc::new(Session::new(number, peer, remote, &self.settings));
        {
            let mut peers = lock(&self.peers);
            if self.stopped.load(Ordering::Acquire) {
                return None;
            }
            peers.live.insert(session.peer.node, session.clone());
            if let Some(dialled) = peers.dialled.get_mut(&session.peer.node) {
                dialled.trouble = None;
            }
        }
        if let Some(words) = self.unlike(&session.peer) {
            tracing::error!(node = session.peer.node.0, "{words}: configure both the same");
        }
        self.owner.up(&session);
        self.changed.notify_waiters();
        tokio::spawn(me.serve(session.clone(), lanes));
        Some(session)
    }

    /// A session's whole life after it came up.
    async fn serve(self: Arc<Self>, session: Arc<Session>, lanes: Vec<Lane>) {
        let mut tasks = JoinSet::new();
        for (number, Lane { mut sender, receiver, .. }) in lanes.into_iter().enumerate() {
            let (of, owner) = (session.clone(), self.owner.clone());
            tasks.spawn(receive_all(of, owner, number, receiver, self.settings.frame_bytes_max));
            let of = session.clone();
            tasks.spawn(async move {
                let sent = match of.lanes.get(number) {
                    Some(outbox) => outbox.send_all(&mut *sender).await,
                    None => Ok(()),
                };
                if sent.is_ok() {
                    sender.finish().await;
                }
                sent
            });
        }
        let why = tokio::select! {
            ended = tasks.join_next() => match ended {
                Some(Ok(Err(why))) => with_causes(&why),
                Some(Err(panicked)) => format!("a bug: {panicked}"),
                _ => "the other end has closed it".into(),
            },
            silent = self.watch(&session) => silent,
            () = session.end.notified() => "it is given up".into(),
        };
        session.end();
        tasks.abort_all();
        while tasks.join_next().await.is_some() {}
        tracing::info!(
            plane = self.own.plane.name(),
            node = session.peer.node.0,
            "the session with node {} has ended: {why}",
            session.peer.node
        );
        // Told while it is still the present one: whoever makes the next waits for [`Session::is_over`] then, and what comes
        // up is not taken for what has ended.
        self.owner.down(&session);
        {
            let mut peers = lock(&self.peers);
            if peers.live.get(&session.peer.node).is_some_and(|live| Arc::ptr_eq(live, &session)) {
                peers.live.remove(&session.peer.node);
            }
        }
        session.over.store(true, Ordering::Release);
        session.gone.notify_waiters();
        self.changed.notify_waiters();
    }

    /// Pings; returns when nothing has come for too long.
    async fn watch(&self, session: &Session) -> String {
        let mut timer = tokio::time::interval(self.settings.ping_every);
        timer.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            timer.tick().await;
            let heard = Duration::from_millis(session.heard_ms.load(Ordering::Relaxed));
            let silence = session.began.elapsed().saturating_sub(heard);
            if silence > self.settings.silence_max {
                return format!("nothing has come from it for {} ms", silence.as_millis());
            }
            // A full lane says enough by itself.
            let _ = session.send(0, Frame::new(PING, session.elapsed_us()), Order::Alone);
        }
    }
}

async fn receive_all(
    session: Arc<Session>,
    owner: Arc<dyn Owner>,
    lane: usize,
    mut receiver: Box<dyn LaneReceiver>,
    frame_bytes_max: usize,
) -> Result<(), LinkError> {
    receiver.set_frame_bytes_max(frame_bytes_max);
    while let Some(frame) = receiver.receive().await? {
        if session.ended.load(Ordering::Acquire) {
            return Ok(());
        }
        session.heard_ms.store(session.began.elapsed().as_millis() as u64, Ordering::Relaxed);
        match frame.kind {
            PING => drop(session.send(0, Frame::new(PONG, frame.number), Order::Alone)),
            PONG => {
                let us = session.elapsed_us().saturating_sub(frame.number).max(1);
                session.round_trip_us.store(us, Ordering::Relaxed);
            }
            _ => owner.frame(&session, lane, frame),
        }
    }
    Ok(())
}

/// Takes in lanes, each in a task of its own, for as long as the hub lives.
async fn listen(hub: Weak<Hub>, mut incoming: Box<dyn Incoming>) {
    let places = Arc::new(Semaphore::new(HANDSHAKES_MAX));
    loop {
        let lane = match incoming.accept().await {
            Ok(lane) => lane,
            Err(why) => {
                tracing::debug!(error = &why as &dyn std::error::Error, "a connection between nodes was not accepted");
                // Whatever it was: accepting again at once could spin.
                tokio::time::sleep(Duration::from_millis(10)).await;
                continue;
            }
        };
        // Strangers wait for strangers, and are bounded by the handshake's time.
        let Ok(place) = places.clone().acquire_owned().await else { return };
        let Some(hub) = hub.upgrade() else { return };
        tokio::spawn(async move {
            let remote = lane.remote;
            let within = hub.settings.handshake_within;
            let answered = tokio::time::timeout(within, hub.answer(lane)).await;
            if let Err(why) = answered.unwrap_or(Err(HandshakeError::TimedOut)) {
                tracing::warn!(plane = hub.own.plane.name(), %remote, "a peer is refused: {}", with_causes(&why));
            }
            drop(place);
        });
    }
}

impl Hub {
    async fn answer(&self, mut lane: Lane) -> Result<(), HandshakeError> {
        let admits = |peer: &Peer, place: Place| self.admits(peer, place);
        let (peer, place) = handshake::answer(&mut lane, &self.own, admits).await?;
        let key = (peer.node, place.session);
        let whole = {
            let mut gathering = lock(&self.gathering);
            let one = gathering.entry(key).or_insert_with(|| {
                self.runtime.spawn(forget(self.me.clone(), key, self.settings.handshake_within));
                Gathering { peer: peer.clone(), lanes: BTreeMap::new() }
            });
            if one.peer != peer {
                return Err(HandshakeError::Refused("lanes of one session say different things".into()));
            }
            one.lanes.insert(place.lane, lane);
            if one.lanes.len() == place.lanes as usize { gathering.remove(&key) } else { None }
        };
        if let Some(Gathering { peer, lanes, .. }) = whole {
            self.establish(peer, place.session, lanes.into_values().collect()).await;
        }
        Ok(())
    }

    fn admits(&self, peer: &Peer, place: Place) -> Result<(), String> {
        if place.lanes != self.settings.lanes {
            let (theirs, ours) = (place.lanes, self.settings.lanes);
            let plane = self.own.plane.name();
            return Err(format!(
                "{plane}.lanes gives {theirs} on node {}, and {ours} on node {}",
                peer.node, self.own.node
            ));
        }
        // A peer may have a few attempts behind it that it has given up; no more.
        if lock(&self.gathering).len() > HANDSHAKES_MAX {
            return Err("too many sessions are half made".into());
        }
        self.owner.admits(peer)
    }

    /// Dials all lanes.
    async fn dial(&self, to: &Endpoint) -> Result<(Peer, u64, Vec<Lane>), HandshakeError> {
        let number = random();
        let mut made = Vec::new();
        let mut known: Option<Peer> = None;
        for lane in 0..self.settings.lanes {
            let place = Place { session: number, lane, lanes: self.settings.lanes };
            let mut dialled = self.link.dial(to, self.own.plane.class(lane)).await?;
            let peer = handshake::greet(&mut dialled, &self.own, to, place).await?;
            if known.as_ref().is_some_and(|known| *known != peer) {
                return Err(HandshakeError::Refused("its lanes lead to different nodes".into()));
            }
            known = Some(peer);
            made.push(dialled);
        }
        let peer = known.ok_or(HandshakeError::Link(LinkError::Ended))?;
        self.owner.admits(&peer).map_err(HandshakeError::Refused)?;
        Ok((peer, number, made))
    }
}

/// A session that is not whole by then never will be: its lanes are given up.
async fn forget(hub: Weak<Hub>, half_made: (NodeId, u64), after: Duration) {
    tokio::time::sleep(after).await;
    if let Some(hub) = hub.upgrade() {
        lock(&hub.gathering).remove(&half_made);
    }
}

/// Keeps a session with a peer up for as long as the hub lives.
async fn keep_up(hub: Weak<Hub>, to: Endpoint) {
    let mut pause = DIAL_AGAIN_MIN;
    loop {
        let Some(now) = hub.upgrade() else { return };
        if let Some(session) = now.session(to.node) {
            drop(now);
            session.is_over().await;
            if session.began.elapsed() < SHORT_LIVED {
                // Something ends it as soon as it stands.
                again_after(&mut pause).await;
            } else {
                pause = DIAL_AGAIN_MIN;
            }
            continue;
        }
        if now.own.node > to.node {
            // It is the other's turn.
            let _ = tokio::time::timeout(DIAL_IN_TURN, now.changed.notified()).await;
            if now.is_up(to.node) {
                continue;
            }
        }
        let dialled = tokio::time::timeout(now.settings.handshake_within, now.dial(&to)).await;
        match dialled.unwrap_or(Err(HandshakeError::TimedOut)) {
            // Also if one came in meanwhile: for the other end this is the later one.
            Ok((peer, number, lanes)) => drop(now.establish(peer, number, lanes).await),
            Err(why) => {
                now.trouble(to.node, &why);
                drop(now);
                again_after(&mut pause).await;
            }
        }
    }
}

async fn again_after(pause: &mut Duration) {
    // Some more or less, so that many nodes do not keep in step.
    tokio::time::sleep(*pause + *pause * (random() % 32) as u32 / 64).await;
    *pause = (*pause * 2).min(DIAL_AGAIN_MAX);
}

fn random() -> u64 {
    // It need only differ from time to time and from node to node; guessing it gains nobody anything.
    getrandom::u64().unwrap_or_else(|_| {
        let since = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
        since.as_nanos() as u64 ^ u64::from(std::process::id()).rotate_left(40)
    })
}

fn with_causes(error: &dyn std::error::Error) -> String {
    let mut words = error.to_string();
    let mut cause = error.source();
    while let Some(deeper) = cause {
        words.push_str(": ");
        words.push_str(&deeper.to_string());
        cause = deeper.source();
    }
    words
}
