//! A log that the nodes of one service share: signed, causal, durable, alive while one node lives.
//!
//! Every node writes a log of its own, in segments that it signs; each start of the process begins a new one. Nodes link
//! over sessions between their own addresses, say what they hold and push what the other lacks. There is no leader: a node
//! that is alone goes on, and a split heals by itself.
//!
//! An application appends entries and makes a state of what it reads. Who also gives the replica a [`StateMachine`] can have
//! what all have seen replaced by that state: then the log stays short, and a node that was away for long loads the state.
//!
//! A service with one node, whose log counts:
//!
//! ```
//! use hcp_core::identity::delegation::OwnerKey;
//! use hcp_core::identity::manifest::{Contents, Manifest, Member, Role};
//! use hcp_core::identity::{Identity, LogKey};
//! use hcp_core::network::MemoryNetwork;
//! use hcp_core::node::{Access, Node};
//! use hcp_core::replica::{
//!     Applied, Follower, Frontier, MemoryDisk, PROTOCOL, Replica, RestoreError, Split, StateMachine, Storage, Turn,
//! };
//!
//! /// The sum of all numbers that were appended.
//! #[derive(Default)]
//! struct Sum(u64);
//!
//! impl StateMachine for Sum {
//!     fn apply(&mut self, entry: &Applied) {
//!         if let (Turn::First, Some(number)) = (entry.turn, entry.entry.first()) {
//!             self.0 += u64::from(*number);
//!         }
//!     }
//!
//!     fn split(&mut self, _: &Split) {}
//!
//!     fn checkpoint(&self) -> Vec<u8> {
//!         self.0.to_be_bytes().to_vec()
//!     }
//!
//!     fn restore(&mut self, state: &[u8]) -> Result<(), RestoreError> {
//!         self.0 = u64::from_be_bytes(state.try_into().map_err(|_| RestoreError)?);
//!         Ok(())
//!     }
//! }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! // What the owner signs, and the node's keys.
//! let (service, owner) = (Identity::generate(), OwnerKey::generate());
//! let (identity, log) = (Identity::generate(), LogKey::generate());
//! let member = Member::new(identity.address(), log.public_key(), Role::Publisher)?;
//! let manifest = Manifest::sign(&owner, service.address(), Contents::new(1, vec![member])?)?;
//!
//! let storage = Storage::memory(&MemoryDisk::new());
//! let replica =
//!     Replica::builder(storage, log, owner.public_key(), manifest).state_machine(Sum::default).open().await?;
//! let node = Node::builder(identity, std::sync::Arc::new(MemoryNetwork::new()))
//!     .protocol(PROTOCOL, Access::Identified, replica.handler())
//!     .bind()
//!     .await?;
//! let links = replica.link(&node);
//!
//! let mut sum = Follower::new(replica.subscribe(Frontier::start()), Sum::default());
//! for number in [3, 4] {
//!     replica.append(vec![number]).await?.durable().await?;
//! }
//! while sum.state().0 < 7 {
//!     sum.next().await?;
//! }
//! drop(links);
//! replica.shutdown().await;
//! # Ok(())
//! # }
//! ```

mod application;
mod clock;
mod driver;
mod error;
mod frontier;
mod head;
mod link;
mod links;
pub(crate) mod log;
mod peers;
mod place;
#[cfg(test)]
mod power;
mod receipt;
mod register;
mod status;
mod storage;
mod subscription;

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use bytes::Bytes;
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

use self::application::Factory;
pub use self::application::{AppendId, Applied, RestoreError, StateMachine, Turn};
use self::driver::{Command, Driver, Opening, Told, Waiting};
pub use self::error::{AdoptError, AppendError, LinkRefusal, OpenReplicaError, ReceiptError, Stopped, SubscribeError};
pub use self::frontier::{Frontier, FrontierError};
use self::head::{Ground, Head};
use self::link::{FromLink, INBOX};
pub use self::links::{Links, PROTOCOL};
use self::log::keys::Keys;
use self::log::machine::Config;
use self::log::storage::Position;
pub use self::log::store::memory::MemoryDisk;
pub use self::log::vector::{Past, Split, Spot, Write, Writer};
pub use self::log::wire::MAX_ENTRY;
pub use self::peers::{PeerState, Peers};
pub use self::place::{Incarnation, LogId, NodeId, Place, Stamp};
use self::receipt::Held;
pub use self::receipt::Receipt;
pub use self::register::{Register, Set};
pub use self::status::{Disk, PeerStatus, ReplicaStatus};
pub use self::storage::Storage;
pub use self::subscription::{Event, FollowError, Follower, Subscription};
use crate::identity::LogKey;
use crate::identity::delegation::PublicKey;
use crate::identity::manifest::{Manifest, SoftwareVersion};
pub use crate::store::StoreError;

/// This node's part in a replicated service. Cheap to clone; the log is let go when the last clone is dropped.
#[derive(Clone)]
pub struct Replica {
    shared: Arc<Shared>,
    _driving: Arc<JoinSet<()>>,
}

/// What is to be known before a [`Replica`] is opened.
#[must_use = "a replica is there once it is opened"]
pub struct ReplicaBuilder {
    storage: Storage,
    key: LogKey,
    owner: PublicKey,
    manifest: Manifest,
    software: SoftwareVersion,
    machine: Option<Factory>,
}

/// What the replica's handles, its links and its driver share.
#[derive(Debug)]
struct Shared {
    node: NodeId,
    keys: Keys,
    commands: mpsc::Sender<Command>,
    inbox: mpsc::Sender<FromLink>,
    /// Numbers links.
    links: AtomicU64,
    /// What entries that are neither durable nor refused may take.
    room: Arc<Semaphore>,
    head: watch::Receiver<Head>,
    held: watch::Receiver<Held>,
    peers: watch::Receiver<Peers>,
    status: watch::Receiver<ReplicaStatus>,
    manifest: watch::Receiver<Manifest>,
    /// Counts appends; held while one is queued, so that numbers follow the log.
    appended: Mutex<u64>,
    /// The replica is to be shut down.
    closing: watch::Sender<bool>,
    own: Mutex<Own>,
    subscriptions: Mutex<Vec<Weak<AtomicU64>>>,
}

/// Where the entries stand that this process appended last.
#[derive(Debug, Default)]
struct Own {
    ids: HashMap<Place, AppendId>,
    order: VecDeque<Place>,
}

impl Own {
    fn insert(&mut self, place: Place, id: AppendId) {
        self.ids.insert(place, id);
        self.order.push_back(place);
        while self.order.len() > MAX_OWN
            && let Some(old) = self.order.pop_front()
        {
            self.ids.remove(&old);
        }
    }
}

impl Shared {
    /// What every subscription has handed out; `None` when there is none.
    fn seen(&self) -> Option<Position> {
        let mut subscriptions = self.subscriptions.lock().unwrap_or_else(PoisonError::into_inner);
        subscriptions.retain(|delivered| delivered.strong_count() > 0);
        let delivered =
            subscriptions.iter().filter_map(Weak::upgrade).map(|delivered| delivered.load(Ordering::Acquire));
        delivered.min().map(Position)
    }

    /// The name of the entry at a place, if this process appended it.
    fn append_at(&self, place: &Place) -> Option<AppendId> {
        let own = self.own.lock().unwrap_or_else(PoisonError::into_inner);
        own.ids.get(place).copied()
    }
}

impl ReplicaBuilder {
    /// The version of the program, which the manifest's lowest version is compared with. By default that of this library.
    pub fn software(self, software: SoftwareVersion) -> Self {
        Self { software, ..self }
    }

    /// Has a state that takes the place of what all have seen, when [`Replica::retain`] asks for it. `empty` makes the state of a
    /// log without entries.
    ///
    /// By default there is none: then this node makes no checkpoints, and the log only grows, unless others make them.
    pub fn state_machine<M: StateMachine>(self, empty: impl Fn() -> M + Send + Sync + 'static) -> Self {
        Self { machine: Some(Box::new(move || Box::new(empty()))), ..self }
    }

    /// Opens the replica and begins a run of the node.
    ///
    /// Of the manifest that is given and those in the log the newest counts, so one that is rolled back has no effect.
    ///
    /// # Errors
    /// [`OpenReplicaError`].
    ///
    /// # Cancel safety
    /// A dropped call may still have begun a run, which does no harm.
    pub async fn open(self) -> Result<Replica, OpenReplicaError> {
        let Self { storage, key, owner, manifest, software, machine } = self;
        let service = manifest.service();
        let keys = Keys::new(service, owner, key);
        if Manifest::signed_by(service, owner, &manifest.to_bytes()).is_err() {
            return Err(OpenReplicaError::ForeignManifest);
        }
        let lowest = manifest.contents().lowest_software_version();
        if software < lowest {
            return Err(OpenReplicaError::TooOld { software, lowest });
        }
        let members = manifest.contents().members();
        if !members.iter().any(|member| *member.log_key().as_bytes() == keys.node.0) {
            return Err(OpenReplicaError::NotAMember);
        }
        let began = Instant::now();
        let opening = Opening { config: Config { keys: keys.clone(), manifest, software }, storage };
        let opened = driver::open(&opening, machine, began, Position(0)).await.map_err(|(_, error)| error)?;
        let (told, shared, commands, inbox) = share(keys, &opened);
        let driver = match Driver::new(Arc::clone(&shared), opening, opened, told, began) {
            Ok(driver) => driver,
            Err((store, error)) => {
                store.shutdown().await;
                return Err(error.into());
            }
        };
        let mut driving = JoinSet::new();
        driving.spawn(driver.run(commands, inbox));
        Ok(Replica { shared, _driving: Arc::new(driving) })
    }
}

/// What the driver's queues and watches have at one end, and handles at the other.
fn share(
    keys: Keys,
    opened: &driver::Opened,
) -> (Told, Arc<Shared>, mpsc::Receiver<Command>, mpsc::Receiver<FromLink>) {
    let (node, log) = (keys.node, opened.machine.log());
    let manifest = opened.machine.manifest().clone();
    let contents = manifest.contents();
    let mut peers = Peers::default();
    let nodes = contents.members().iter().map(|member| NodeId(*member.log_key().as_bytes()));
    peers.set_nodes(nodes.filter(|other| *other != node));
    let ground = Ground { opening: 1, store: Some(Arc::clone(&opened.store)) };
    let position = opened.position;
    let (head_tx, head) = watch::channel(Head { ground, position, pruned: 0, own: log, full: false, stopped: None });
    let (held_tx, held) = watch::channel(Held::default());
    let (peers_tx, peers) = watch::channel(peers);
    let (status_tx, status) = watch::channel(ReplicaStatus {
        log,
        peers: Default::default(),
        disk: Disk::Good,
        logs: opened.machine.sizes().logs,
        forked: Vec::new(),
        clock_ahead: Vec::new(),
        waiting: 0,
        manifest: contents.version(),
        manifest_conflict: None,
        checkpoint: opened.machine.status().checkpoint.is_some(),
        checkpoint_too_large: None,
        stopped: None,
    });
    let (manifest_tx, manifest) = watch::channel(manifest);
    let (commands, commanded) = mpsc::channel(COMMANDS);
    let (inbox, heard) = mpsc::channel(INBOX);
    let told = Told { head: head_tx, held: held_tx, peers: peers_tx, status: status_tx, manifest: manifest_tx };
    let shared = Shared {
        node,
        keys,
        commands,
        inbox,
        links: AtomicU64::new(1),
        room: Arc::new(Semaphore::new(ROOM)),
        head,
        held,
        peers,
        status,
        manifest,
        appended: Mutex::new(0),
        closing: watch::Sender::new(false),
        own: Mutex::default(),
        subscriptions: Mutex::default(),
    };
    (told, Arc::new(shared), commanded, heard)
}

impl Replica {
    /// A replica that keeps its log in `storage`: of the node with this log key, of the service whose manifest this is, which
    /// its owner key has signed.
    pub fn builder(storage: Storage, key: LogKey, owner: PublicKey, manifest: Manifest) -> ReplicaBuilder {
        let software = SoftwareVersion::of_this_library();
        ReplicaBuilder { storage, key, owner, manifest, software, machine: None }
    }

    /// This node.
    pub fn node(&self) -> NodeId {
        self.shared.node
    }

    /// The log that this run writes. A run can go on in another log, when others say that the first one is closed.
    pub fn log(&self) -> LogId {
        self.shared.head.borrow().own
    }

    /// Appends an entry of at most [`MAX_ENTRY`] bytes; waits while some megabytes of entries wait for the disk.
    ///
    /// The entry counts as written by somebody who has seen what *all* subscriptions have handed out, and everything that
    /// was stored when the replica was opened: read up to [`Event::CaughtUp`] before the first append, and drop
    /// subscriptions that are no longer read.
    ///
    /// # Errors
    /// [`AppendError`]; the entry was not appended then. Whether it could be stored, the [`Receipt`] says.
    ///
    /// # Cancel safety
    /// Cancel-safe: the entry was queued, or not at all.
    pub async fn append(&self, entry: impl Into<Bytes>) -> Result<Receipt, AppendError> {
        let entry = entry.into();
        if entry.len() > MAX_ENTRY {
            return Err(AppendError::TooLong { length: entry.len() });
        }
        self.check()?;
        // At most 64 KiB and some more, which fits.
        let cost = (entry.len() + ENTRY_COST) as u32;
        let room = Arc::clone(&self.shared.room).acquire_many_owned(cost);
        let room = tokio::select! {
            room = room => room.map_err(|_| AppendError::Closed)?,
            error = self.cannot_append() => return Err(error),
        };
        let slot = self.shared.commands.reserve().await.map_err(|_| AppendError::Closed)?;
        self.check()?;
        let (reply, place) = oneshot::channel();
        let id = {
            let mut appended = self.shared.appended.lock().unwrap_or_else(PoisonError::into_inner);
            *appended += 1;
            let id = AppendId(*appended);
            let waiting = Waiting { entry, reply, _room: room };
            slot.send(Command::Append { id, seen: self.shared.seen(), waiting });
            id
        };
        let Shared { head, held, peers, .. } = &*self.shared;
        Ok(Receipt::new(id, place, head.clone(), held.clone(), peers.clone()))
    }

    /// Whether an entry can be appended now.
    fn check(&self) -> Result<(), AppendError> {
        let head = self.shared.head.borrow();
        match &head.stopped {
            Some(why) => Err(why.clone().into()),
            None if head.full => Err(AppendError::Full),
            None if self.shared.head.has_changed().is_err() => Err(AppendError::Closed),
            None => Ok(()),
        }
    }

    /// Waits until the disk has room, if it has none, or until nothing is written any more.
    ///
    /// # Cancel safety
    /// Cancel-safe.
    pub async fn room(&self) {
        let mut head = self.shared.head.clone();
        let _ = head.wait_for(|head| !head.full || head.stopped.is_some()).await;
    }

    /// Waits until nothing can be appended.
    async fn cannot_append(&self) -> AppendError {
        let mut head = self.shared.head.clone();
        let _ = head.wait_for(|head| head.full || head.stopped.is_some()).await;
        self.check().err().unwrap_or(AppendError::Closed)
    }

    /// Reads the log from a frontier on, in causal order: from [`Frontier::start`], or from where an earlier subscription was,
    /// in this run or an earlier one.
    pub fn subscribe(&self, from: Frontier) -> Subscription {
        let delivered = Arc::new(AtomicU64::new(0));
        let mut subscriptions = self.shared.subscriptions.lock().unwrap_or_else(PoisonError::into_inner);
        subscriptions.push(Arc::downgrade(&delivered));
        Subscription::new(Arc::clone(&self.shared), self.shared.head.clone(), from, delivered)
    }

    /// Asks for a checkpoint of what all subscriptions have handed out, in all members' name: when enough of them have signed the
    /// same state of it, the state takes its place: more than (n + f) / 2 of n members, of whom f may lie, fewer than a third.
    /// Nothing comes of it where they do not.
    ///
    /// A node signs once all its subscriptions have handed out what came up to the request: one that is not read holds it back.
    ///
    /// # Errors
    /// [`AppendError`] when nothing more is written here.
    ///
    /// # Cancel safety
    /// Cancel-safe: it was asked for, or not at all.
    pub async fn retain(&self) -> Result<(), AppendError> {
        self.check()?;
        let slot = self.shared.commands.reserve().await.map_err(|_| AppendError::Closed)?;
        slot.send(Command::Retain { seen: self.shared.seen() });
        Ok(())
    }

    /// The manifest that counts, which changes when a newer one comes, through the log or by [`adopt`](Self::adopt).
    ///
    /// All nodes switch to it when it comes, with the shared configuration that it carries.
    pub fn manifest(&self) -> watch::Receiver<Manifest> {
        self.shared.manifest.clone()
    }

    /// Takes a newer manifest, which came by another way than the log, and gives it to all nodes through the log.
    ///
    /// Links with whoever is no member any more end, and new members are dialled.
    ///
    /// # Errors
    /// [`AdoptError`]; a manifest that was rolled back is [`AdoptError::Older`].
    ///
    /// # Cancel safety
    /// Dropping the future changes nothing, or all.
    pub async fn adopt(&self, manifest: Manifest) -> Result<(), AdoptError> {
        let (reply, adopted) = oneshot::channel();
        let command = Command::Adopt(manifest, reply);
        self.shared.commands.send(command).await.map_err(|_| AdoptError::Closed)?;
        adopted.await.map_err(|_| AdoptError::Closed)?
    }

    /// Watches the other members.
    pub fn peers(&self) -> watch::Receiver<Peers> {
        self.shared.peers.clone()
    }

    /// Watches how this replica stands.
    pub fn status(&self) -> watch::Receiver<ReplicaStatus> {
        self.shared.status.clone()
    }

    /// Waits until nothing more is written here, and says why; what was durable before stays so. `None` when the replica was
    /// shut down.
    ///
    /// # Cancel safety
    /// Cancel-safe.
    pub async fn stopped(&self) -> Option<Stopped> {
        let mut head = self.shared.head.clone();
        head.wait_for(|head| head.stopped.is_some()).await.ok().and_then(|head| head.stopped.clone())
    }

    /// Makes durable what was appended, as far as there is room, ends the links and lets go of the store. What waits for a
    /// server that is away is not waited for, but for some seconds.
    ///
    /// # Cancel safety
    /// Cancel-safe; once it was asked to, the replica shuts down all the same.
    pub async fn shutdown(&self) {
        self.shared.closing.send_replace(true);
        let (reply, done) = oneshot::channel();
        if self.shared.commands.send(Command::Shutdown(reply)).await.is_ok() {
            let _ = done.await;
        }
        let mut head = self.shared.head.clone();
        while head.changed().await.is_ok() {}
    }
}

impl fmt::Debug for Replica {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Replica").field("node", &self.shared.node).finish_non_exhaustive()
    }
}

impl fmt::Debug for ReplicaBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReplicaBuilder").field("storage", &self.storage).finish_non_exhaustive()
    }
}

/// Commands that wait for the driver; whoever asks waits beyond. What entries may take is bounded by [`ROOM`].
const COMMANDS: usize = 1_024;
/// Bytes of entries that are neither durable nor refused: below what the machine takes, so that it never refuses for want of
/// room.
const ROOM: usize = 3 * 1024 * 1024;
/// What an entry takes beyond its bytes.
const ENTRY_COST: usize = 64;
/// Entries of this process whose names are kept.
const MAX_OWN: usize = 65_536;
