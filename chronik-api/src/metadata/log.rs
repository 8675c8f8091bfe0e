//! The handle on the cluster's metadata.
//!
//! Reading is taking an `Arc` of the newest image. Changing is *proposing a decision*: a pure function from the newest image
//! to records. Decisions take their turns, each sees what those before it decided, and a proposal is answered when its
//! records are durable and applied **and everyone who listens has acted on them** — so a topic that was created on demand
//! has its logs open before the client hears of it.
//!
//! On a node that is alone the records go to its own log ([`MetadataLog::open`]); in a cluster Raft carries them, and only the
//! controller decides ([`MetadataLog::of_cluster`]). What a proposer or a reader sees is the same.

use super::random;
use super::runs::{self, ReplayError};
use super::writer::{Ask, Command, Writer};
use crate::clock::Clock;
use async_trait::async_trait;
use bytes::Bytes;
use chronik_core::ids::{LogId, NodeId, Offset, TopicId};
use chronik_core::metadata::controller::{self, Decision, FirstStart, Lost, Registration};
use chronik_core::metadata::{ApplyError, ClusterDefaults, Delta, Image, Listener};
use chronik_core::pending::Pending;
use chronik_core::wal::{EngineError, OpenMode, OpenOptions, Refused, WalEngine, WalError};
use std::convert::Infallible;
use std::sync::Arc;
use tokio::sync::{mpsc, oneshot, watch};

/// The metadata log's place among all logs.
pub const METADATA_LOG: LogId = LogId { topic: TopicId::METADATA, partition: 0 };
/// Small, so that what snapshots made superfluous is soon given back.
const SEGMENT_BYTES: u64 = 8 << 20;
/// Proposals that may wait for their turn; more wait at the door.
const PROPOSALS_QUEUED_MAX: usize = 256;
/// Where the directory's identity is kept, beside the log.
const DIRECTORY_ID: &str = "directory.id";

/// How to open the metadata.
#[derive(Clone, Debug)]
pub struct Options {
    pub node: NodeId,
    pub defaults: ClusterDefaults,
    /// Facts after which the log is cut down to a snapshot, unless the image itself is larger: a bound on restarts.
    pub snapshot_after_facts: u64,
}

impl Options {
    pub fn new(node: NodeId, defaults: ClusterDefaults) -> Self {
        // Some 100 bytes each, replayed at about a million a second.
        Self { node, defaults, snapshot_after_facts: 10_000 }
    }
}

/// Why the metadata could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("the metadata log cannot be opened")]
    Engine(#[from] EngineError),
    #[error("the metadata log is damaged or from a later release; nothing was changed")]
    Replay(#[from] ReplayError),
    #[error("the metadata log cannot be read or written")]
    Log(#[from] WalError),
    #[error(
        "the data directory belongs to node {owner}, and node {configured} is configured; start it as node {owner}, or give \
         node {configured} a directory of its own"
    )]
    OtherNode { owner: NodeId, configured: NodeId },
    #[error("the first records of the cluster cannot be written: {0}")]
    Bootstrap(String),
}

/// Why a proposal did not take effect.
#[derive(Debug, thiserror::Error)]
pub enum ProposeError<E> {
    /// The decider's own refusal.
    #[error("{0}")]
    Refused(E),
    /// The log cannot take records now. Nothing has changed; try again later.
    #[error("the metadata log takes no records now: {0}")]
    Unavailable(Refused),
    /// More records than one change may bring.
    #[error("the change needs {bytes} bytes of records, and one change may have {max}")]
    TooLarge { bytes: usize, max: usize },
    /// The decision contradicts the image: a mistake in the decider. Nothing has changed.
    #[error("the decision contradicts what is known: {0}")]
    Flawed(ApplyError),
    /// Another node decides: nothing has changed.
    #[error("this node does not control the cluster")]
    NotController { leader: Option<NodeId> },
    /// Nothing has changed; try again.
    #[error("the cluster takes no changes now: {0}")]
    NotNow(String),
    /// This node has ceased to control the cluster meanwhile: whether the change took effect shows in the metadata.
    #[error("it is not known what became of the change")]
    Unknown,
    /// The log failed, or the broker is stopping: whether the change took effect shows after a restart.
    #[error("the metadata log has stopped")]
    Stopped,
}

impl<E> ProposeError<E> {
    /// For proposals that cannot be refused.
    pub(crate) fn widen(error: ProposeError<Infallible>) -> Self {
        match error {
            ProposeError::Refused(never) => match never {},
            ProposeError::Unavailable(why) => ProposeError::Unavailable(why),
            ProposeError::TooLarge { bytes, max } => ProposeError::TooLarge { bytes, max },
            ProposeError::Flawed(why) => ProposeError::Flawed(why),
            ProposeError::NotController { leader } => ProposeError::NotController { leader },
            ProposeError::NotNow(why) => ProposeError::NotNow(why),
            ProposeError::Unknown => ProposeError::Unknown,
            ProposeError::Stopped => ProposeError::Stopped,
        }
    }
}

/// Acts on the metadata: opens and deletes logs, wakes polls.
///
/// First it is told what there is, then of every change of that, one after the other and never two at once: who acts on
/// what is there beside who acts on a change might have the last word with what is no longer so.
///
/// Awaited before the change is published and its proposer answered, one change at a time. Must not propose: its own
/// proposal would wait for itself.
#[async_trait]
pub trait Applied: Send + Sync {
    /// What there is; called once, before any change is told.
    async fn begin(&self, image: &Arc<Image>);

    async fn applied(&self, image: &Arc<Image>, delta: &Delta);
}

/// See the module's head. A clone is another handle on the same.
#[derive(Clone)]
pub struct MetadataLog {
    node: NodeId,
    directory_id: [u8; 16],
    commands: mpsc::Sender<Command>,
    images: watch::Receiver<Arc<Image>>,
    failures: watch::Receiver<Option<String>>,
}

impl MetadataLog {
    /// Opens the log, reads it back, writes a new cluster's first records, and starts the task that owns it.
    pub async fn open(engine: &dyn WalEngine, options: Options, clock: Clock) -> Result<MetadataLog, OpenError> {
        let how = OpenOptions { mode: OpenMode::CreateIfMissing, segment_bytes: SEGMENT_BYTES };
        let wal = engine.open(METADATA_LOG, how).await?;
        let replayed = runs::replay(&*wal, options.defaults.clone()).await?;
        let directory_id = match Pending::start(|done| wal.meta_get(DIRECTORY_ID, done)).await? {
            Some(known) if known.len() == 16 => {
                let mut id = [0; 16];
                id.copy_from_slice(&known);
                id
            }
            _ => {
                let id = random::identity();
                let entry = vec![(DIRECTORY_ID.to_owned(), Some(Bytes::copy_from_slice(&id)))];
                Pending::start(|done| wal.meta_put(entry, done)).await?;
                id
            }
        };
        let owner = replayed.image.brokers().values().find(|broker| broker.directory_id == directory_id);
        if let Some(owner) = owner.filter(|owner| owner.id != options.node) {
            return Err(OpenError::OtherNode { owner: owner.id, configured: options.node });
        }
        let (commands, inbox) = mpsc::channel(PROPOSALS_QUEUED_MAX);
        let (publish, images) = watch::channel(Arc::new(replayed.image));
        let (fail, failures) = watch::channel(None);
        let run_bytes_max = engine.capabilities().run_bytes_max;
        let writer =
            Writer::new(wal, clock, inbox, publish, fail, run_bytes_max, options.snapshot_after_facts, replayed.facts);
        tokio::spawn(writer.run());
        let log = MetadataLog { node: options.node, directory_id, commands, images, failures };
        let first = FirstStart { cluster_id: random::identity() };
        log.propose_sure(move |image| controller::bootstrap(image, first))
            .await
            .map_err(|why: ProposeError<Infallible>| OpenError::Bootstrap(why.to_string()))?;
        Ok(log)
    }

    /// The handle on what another task, or thread, owns.
    pub(crate) fn of_cluster(
        node: NodeId,
        directory_id: [u8; 16],
        commands: mpsc::Sender<Command>,
        images: watch::Receiver<Arc<Image>>,
        failures: watch::Receiver<Option<String>>,
    ) -> Self {
        Self { node, directory_id, commands, images, failures }
    }

    /// Says that this process has started, and gives its broker epoch. Everything the node leads is in a new leader epoch
    /// afterwards, so logs are opened after this, not before.
    pub async fn register(
        &self,
        rack: Option<String>,
        listeners: Vec<Listener>,
        clean: bool,
        damaged: Vec<LogId>,
    ) -> Result<Offset, ProposeError<Infallible>> {
        let registration = Registration {
            node: self.node,
            incarnation: random::identity(),
            directory_id: self.directory_id,
            rack,
            listeners,
            clean,
            // There is nobody else who could have more of what is missing.
            lost: Lost { damaged, missing: Vec::new() },
            replication_address: None,
            features: controller::supported_features(),
            after: None,
        };
        self.propose_sure(move |_| controller::register_broker(&registration)).await?;
        let image = self.image();
        Ok(image.broker(self.node).map_or(Offset::ZERO, |broker| broker.epoch))
    }

    pub fn node(&self) -> NodeId {
        self.node
    }

    /// The data directory's identity, drawn at its first start.
    pub fn directory_id(&self) -> [u8; 16] {
        self.directory_id
    }

    /// The newest image.
    pub fn image(&self) -> Arc<Image> {
        self.images.borrow().clone()
    }

    /// Hears of each new image, latest only.
    pub fn subscribe(&self) -> watch::Receiver<Arc<Image>> {
        self.images.clone()
    }

    /// Decides against the newest image in its turn, and returns when what was decided is durable, applied, and acted on.
    /// Once asked, it happens even if the asker goes away.
    pub async fn propose<R, E>(
        &self,
        decide: impl FnOnce(&Image) -> Result<Decision<R>, E> + Send + 'static,
    ) -> Result<R, ProposeError<E>>
    where
        R: Send + 'static,
        E: Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        let ask = Box::new(Ask::new(decide, reply));
        self.commands.send(Command::Propose(ask)).await.map_err(|_| ProposeError::Stopped)?;
        answer.await.unwrap_or(Err(ProposeError::Stopped))
    }

    /// As [`MetadataLog::propose`], for what cannot be refused as a whole.
    pub async fn propose_sure<R: Send + 'static, E>(
        &self,
        decide: impl FnOnce(&Image) -> Decision<R> + Send + 'static,
    ) -> Result<R, ProposeError<E>> {
        let sure = self.propose(move |image| Ok::<_, Infallible>(decide(image))).await;
        sure.map_err(ProposeError::widen)
    }

    /// From now on `listener` hears of every change; it has acted on what there is when this returns. Listeners are called
    /// in the order in which they came.
    pub async fn listen(&self, listener: Arc<dyn Applied>) -> Option<()> {
        let (reply, answer) = oneshot::channel();
        self.commands.send(Command::Listen(listener, reply)).await.ok()?;
        answer.await.ok()
    }

    /// Returns when the log has failed, with the words to end the process with: what is on disk is no longer known, and
    /// only a restart that reads it back can tell. Never returns otherwise.
    pub async fn failed(&self) -> String {
        let mut failures = self.failures.clone();
        match failures.wait_for(Option::is_some).await.map(|why| why.clone()) {
            Ok(why) => why.unwrap_or_default(),
            // The task ended in order.
            Err(_) => std::future::pending().await,
        }
    }

    /// Carries out what has been proposed, and stops. The log itself is closed with its engine.
    pub async fn close(&self) {
        let (reply, answer) = oneshot::channel();
        if self.commands.send(Command::Close(reply)).await.is_ok() {
            let _ = answer.await;
        }
    }
}
