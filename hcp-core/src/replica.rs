//! A log that the nodes of one service share: signed, causal, durable, alive while one node lives.
//!
//! Every node writes a log of its own, in segments that it signs; each start of the process begins a new one. Nodes link
//! over sessions between their own addresses, say what they hold and push what the other lacks. There is no leader: a node
//! that is alone goes on, and a split heals by itself.

mod clock;
mod engine;
mod link;
mod links;
#[allow(dead_code, reason = "for the stores and the driver")]
pub(crate) mod log;
mod peers;
mod place;
mod receipt;
mod register;
mod segment;
mod segments;
mod subscription;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use bytes::Bytes;
use tokio::sync::{Semaphore, mpsc, oneshot, watch};

use self::engine::{Engine, Head, INPUT_BYTES, INPUT_QUEUE, Input};
pub use self::links::{Links, PROTOCOL};
use self::peers::LinkCounts;
pub use self::peers::{Member, PeerState, Peers};
pub use self::place::{Incarnation, LogId, NodeId, Past, Place, Stamp};
pub use self::receipt::{Receipt, ReceiptError};
pub use self::register::{Register, Write};
pub use self::segment::MAX_ENTRY;
use self::segments::{SegmentReader, SegmentWriter};
pub use self::subscription::{AppendId, Applied, Event, Subscription};
use crate::error::ErrorKind;
use crate::identity::{LogKey, OnionAddress};
pub use crate::store::StoreError;

/// This node's part in a replicated service. Cheap to clone.
#[derive(Clone)]
pub struct Replica {
    shared: Arc<Shared>,
}

/// What the replica's handles, its links and its engine share.
struct Shared {
    key: LogKey,
    service: OnionAddress,
    log: LogId,
    members: watch::Sender<Arc<[Member]>>,
    /// Who has been a member since this process began: others may still pass on what it wrote.
    authors: Mutex<BTreeSet<NodeId>>,
    inputs: mpsc::Sender<Input>,
    /// Bytes of foreign segments that may wait for the engine.
    room: Arc<Semaphore>,
    head: watch::Receiver<Head>,
    reader: Arc<SegmentReader>,
    links: Arc<LinkCounts>,
    /// How much of our log each peer has confirmed to hold durably.
    receipts: watch::Sender<BTreeMap<NodeId, u64>>,
    appended: Mutex<u64>,
    subscriptions: Mutex<Vec<Weak<AtomicI64>>>,
    stopped: watch::Receiver<bool>,
}

impl Shared {
    fn is_author(&self, node: &NodeId) -> bool {
        self.authors.lock().unwrap_or_else(PoisonError::into_inner).contains(node)
    }

    /// The member that is dialled there.
    fn member_at(&self, address: OnionAddress) -> Option<Member> {
        self.members.borrow().iter().find(|member| member.address == address).copied()
    }

    /// The engine has ended, on request or because it cannot write.
    fn has_stopped(&self) -> bool {
        *self.stopped.borrow() || self.inputs.is_closed()
    }

    fn note_receipt(&self, node: NodeId, seq: u64) {
        self.receipts.send_if_modified(|receipts| {
            let held = receipts.entry(node).or_default();
            let newer = seq > *held;
            *held = seq.max(*held);
            newer
        });
    }

    /// What every subscription has handed out, or all that is durable if there is none.
    fn seen(&self) -> i64 {
        let mut subscriptions = self.subscriptions.lock().unwrap_or_else(PoisonError::into_inner);
        subscriptions.retain(|delivered| delivered.strong_count() > 0);
        let delivered =
            subscriptions.iter().filter_map(Weak::upgrade).map(|delivered| delivered.load(Ordering::Acquire));
        delivered.min().unwrap_or_else(|| self.head.borrow().last)
    }
}

impl Replica {
    /// Opens this node's replica of `service` and begins a new incarnation.
    ///
    /// `members` are all nodes of the service; this one may be among them. The database at `path` is made when it is
    /// missing.
    ///
    /// # Errors
    /// [`OpenReplicaError`] when the database cannot be used or the list of members contradicts itself.
    ///
    /// # Cancel safety
    /// A dropped call may still begin an incarnation, which does no harm.
    pub async fn open(
        path: impl AsRef<Path>,
        service: OnionAddress,
        key: LogKey,
        members: Vec<Member>,
    ) -> Result<Self, OpenReplicaError> {
        if contradict(&members) {
            return Err(OpenReplicaError::DuplicateMember);
        }
        let node = NodeId(key.public_key());
        let log = LogId { node, incarnation: Incarnation(rand::random()) };
        let (head_tx, head) = watch::channel(Head::default());
        let (inputs, queue) = mpsc::channel(INPUT_QUEUE);
        let (stopped_tx, stopped) = watch::channel(false);
        let path: PathBuf = path.as_ref().to_owned();
        let (engine_key, nodes) = (key.clone(), members.len());
        let opened = tokio::task::spawn_blocking(move || {
            let writer = SegmentWriter::open(&path, &service, &node)?;
            let reader = writer.reader()?;
            Ok::<_, StoreError>((Engine::begin(writer, engine_key, service, log, head_tx, nodes)?, reader))
        });
        let (engine, reader) = opened.await.map_err(|_| OpenReplicaError::Interrupted)??;
        std::thread::Builder::new()
            .name("hcp-log".to_owned())
            .spawn(move || {
                engine.run(queue);
                stopped_tx.send_replace(true);
            })
            .map_err(|error| OpenReplicaError::Store(error.into()))?;
        let others = members.iter().map(|member| member.node).filter(|other| *other != node);
        let shared = Shared {
            links: Arc::new(LinkCounts::new(others)),
            key,
            service,
            log,
            authors: Mutex::new(members.iter().map(|member| member.node).collect()),
            members: watch::Sender::new(members.into()),
            inputs,
            room: Arc::new(Semaphore::new(INPUT_BYTES)),
            head,
            reader: Arc::new(reader),
            receipts: watch::Sender::new(BTreeMap::new()),
            appended: Mutex::new(0),
            subscriptions: Mutex::default(),
            stopped,
        };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// Replicates with other members from now on, such as those of a later manifest.
    ///
    /// Links with whoever is no member any more end, and new members are dialled. What former members wrote is still taken
    /// from others as long as this process runs, so that nobody waits for what was written before all knew. What a new member
    /// writes is refused by whoever does not know it yet, who is cut off from those that do: tell all before it starts.
    ///
    /// # Errors
    /// [`SetMembersError`]; nothing has changed.
    ///
    /// # Cancel safety
    /// Dropping the future changes nothing, or all.
    pub async fn set_members(&self, members: Vec<Member>) -> Result<(), SetMembersError> {
        if contradict(&members) {
            return Err(SetMembersError::DuplicateMember);
        }
        let slot = self.shared.inputs.reserve().await.map_err(|_| SetMembersError::Closed)?;
        slot.send(Input::Nodes(members.len()));
        let authors = members.iter().map(|member| member.node);
        self.shared.authors.lock().unwrap_or_else(PoisonError::into_inner).extend(authors);
        let others = members.iter().map(|member| member.node).filter(|other| *other != self.shared.log.node);
        self.shared.links.set_nodes(others);
        self.shared.members.send_replace(members.into());
        Ok(())
    }

    /// The log that this process writes.
    pub fn log(&self) -> LogId {
        self.shared.log
    }

    /// Appends an entry of at most [`MAX_ENTRY`] bytes; waits while the queue is full.
    ///
    /// The entry counts as written by somebody who has seen what *all* subscriptions have handed out, and everything that
    /// was stored when the replica was opened: read up to [`Event::CaughtUp`] before the first append, and drop
    /// subscriptions that are no longer read.
    ///
    /// # Errors
    /// [`AppendError`]; the entry was not appended then.
    ///
    /// # Cancel safety
    /// Cancel-safe: the entry was queued, or not at all.
    pub async fn append(&self, entry: impl Into<Bytes>) -> Result<Receipt, AppendError> {
        let entry = entry.into();
        if entry.len() > MAX_ENTRY {
            return Err(AppendError::TooLong { length: entry.len() });
        }
        let slot = self.shared.inputs.reserve().await.map_err(|_| self.append_error())?;
        let (reply, place) = oneshot::channel();
        let seen = self.shared.seen();
        let id = {
            // The number and the place in the queue are given together, so that numbers follow the log.
            let mut appended = self.shared.appended.lock().unwrap_or_else(PoisonError::into_inner);
            *appended += 1;
            slot.send(Input::Append { entry, seen, reply });
            AppendId(*appended)
        };
        Ok(Receipt::new(id, place, self.shared.receipts.subscribe(), self.shared.links.watch()))
    }

    fn append_error(&self) -> AppendError {
        self.shared.head.borrow().failed.clone().map_or(AppendError::Closed, AppendError::Store)
    }

    /// Reads the log from its beginning, in causal order.
    pub fn subscribe(&self) -> Subscription {
        let delivered = Arc::new(AtomicI64::new(0));
        let mut subscriptions = self.shared.subscriptions.lock().unwrap_or_else(PoisonError::into_inner);
        subscriptions.push(Arc::downgrade(&delivered));
        Subscription::new(Arc::clone(&self.shared.reader), self.shared.head.clone(), self.shared.log, delivered)
    }

    /// Watches the other members.
    pub fn peers(&self) -> watch::Receiver<Peers> {
        self.shared.links.watch()
    }

    /// Waits until storing fails for good, and says why; what was durable before stays so. `None` when the replica was
    /// shut down.
    ///
    /// # Cancel safety
    /// Cancel-safe.
    pub async fn failed(&self) -> Option<Arc<StoreError>> {
        let mut head = self.shared.head.clone();
        head.wait_for(|head| head.failed.is_some()).await.ok().and_then(|head| head.failed.clone())
    }

    /// How this replica stands.
    pub fn status(&self) -> ReplicaStatus {
        let head = self.shared.head.borrow();
        ReplicaStatus {
            segments: u64::try_from(head.last).unwrap_or(0),
            logs: head.tips.len(),
            forked: head.forked.to_vec(),
            clock_ahead: head.ahead.to_vec(),
        }
    }

    /// Writes what is queued, ends the engine and lets go of the database. Links end with it.
    ///
    /// # Cancel safety
    /// Cancel-safe; the replica stops all the same.
    pub async fn shutdown(&self) {
        let _ = self.shared.inputs.send(Input::Stop).await;
        let _ = self.shared.stopped.clone().wait_for(|stopped| *stopped).await;
    }
}

impl fmt::Debug for Replica {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Replica").field("log", &self.shared.log).finish_non_exhaustive()
    }
}

/// How a replica stands.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ReplicaStatus {
    /// Segments held durably.
    pub segments: u64,
    /// Logs held, one for each run of each node.
    pub logs: usize,
    /// Logs whose node signed two different segments for one place.
    pub forked: Vec<LogId>,
    /// Nodes whose clock is over a minute ahead of this one's.
    pub clock_ahead: Vec<NodeId>,
}

/// Why [`Replica::open`] failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenReplicaError {
    /// Two members have one address or one log key.
    #[error("two members have the same address or log key")]
    DuplicateMember,
    /// The database cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The runtime is shutting down.
    #[error("opening was interrupted")]
    Interrupted,
}

impl OpenReplicaError {
    /// What a caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::DuplicateMember => ErrorKind::InvalidInput,
            Self::Store(error) => error.kind(),
            Self::Interrupted => ErrorKind::Closed,
        }
    }
}

/// Why [`Replica::set_members`] failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SetMembersError {
    /// Two members have one address or one log key.
    #[error("two members have the same address or log key")]
    DuplicateMember,
    /// The replica was shut down, or cannot write any more.
    #[error("the replica has stopped")]
    Closed,
}

impl SetMembersError {
    /// What a caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::DuplicateMember => ErrorKind::InvalidInput,
            Self::Closed => ErrorKind::Closed,
        }
    }
}

/// Whether two of them have an address or a key in common.
fn contradict(members: &[Member]) -> bool {
    members.iter().enumerate().any(|(i, member)| {
        members[..i].iter().any(|other| other.node == member.node || other.address == member.address)
    })
}

/// Why [`Replica::append`] failed.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AppendError {
    /// The entry is longer than [`MAX_ENTRY`].
    #[error("entry of {length} bytes exceeds the limit of {MAX_ENTRY}")]
    TooLong {
        /// Its length, in bytes.
        length: usize,
    },
    /// The log cannot be written any more.
    #[error("the log cannot be written: {0}")]
    Store(#[source] Arc<StoreError>),
    /// The replica was shut down.
    #[error("the replica was shut down")]
    Closed,
}

impl AppendError {
    /// What a caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::TooLong { .. } => ErrorKind::InvalidInput,
            Self::Store(error) => error.kind(),
            Self::Closed => ErrorKind::Closed,
        }
    }
}
