//! The task that runs one machine: it carries out what the machine says, in order, and tells it what happened.
//!
//! Invariants: outputs are carried out before the next input; batches go to the store one at a time, as the machine gives
//! them; an entry whose append was accepted is durable, refused or in [`Driver::waiting`]; a checkpoint's rows go only while
//! everybody who reads knows.

mod burst;
mod checkpoints;
mod telling;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use futures::FutureExt;
use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot, watch};
use tokio::time::Instant;

use self::burst::Burst;
use super::application::{AppendId, Copy, Factory, StateMachine};
use super::error::{AdoptError, OpenReplicaError, ReceiptError, Stopped};
use super::head::Head;
use super::link::{FromLink, Outbox};
use super::peers::Peers;
use super::receipt::Held;
use super::status::ReplicaStatus;
use super::storage::Storage;
use super::subscription::{applied, read_state};
use super::{Shared, error};
use crate::identity::manifest::Manifest;
use crate::replica::log::limits::BEACON;
use crate::replica::log::machine::{self, Config, Input, Machine, Output, Refusal, Stop, Unlink};
use crate::replica::log::message::Message;
use crate::replica::log::storage::{Batch, BatchId, Checkpoint, Found, Hash, Outcome, Payloads, Position, ReadId};
use crate::replica::log::store::Store;
use crate::replica::log::store::recovery::{RecoverError, recover};
use crate::replica::log::wire::Tip;
use crate::replica::place::{NodeId, Place};

/// What handles ask of the driver.
#[derive(Debug)]
pub(super) enum Command {
    Append {
        id: AppendId,
        seen: Option<Position>,
        waiting: Waiting,
    },
    /// Everything up to here was read by all subscribers.
    Handed(Position),
    Retain {
        seen: Option<Position>,
    },
    Adopt(Manifest, oneshot::Sender<Result<(), AdoptError>>),
    /// Make durable what was appended, and end.
    Shutdown(oneshot::Sender<()>),
}

/// An entry that is neither durable nor refused.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) entry: Bytes,
    pub(super) reply: oneshot::Sender<Result<Place, ReceiptError>>,
    /// Its share of what may wait.
    pub(super) _room: OwnedSemaphorePermit,
}

/// What the driver is given once.
#[derive(Debug)]
pub(super) struct Opening {
    pub(super) config: Config,
    pub(super) storage: Storage,
}

/// What has been opened.
pub(super) struct Opened {
    pub(super) store: Arc<dyn Store>,
    pub(super) machine: Machine,
    /// Up to here everything was delivered in earlier runs.
    pub(super) position: Position,
    copy: Result<Option<Copy>, (Factory, super::RestoreError)>,
}

/// Where the driver says how things are.
pub(super) struct Told {
    pub(super) head: watch::Sender<Head>,
    pub(super) held: watch::Sender<Held>,
    pub(super) peers: watch::Sender<Peers>,
    pub(super) status: watch::Sender<ReplicaStatus>,
    pub(super) manifest: watch::Sender<Manifest>,
}

pub(super) struct Driver {
    shared: Arc<Shared>,
    opening: Opening,
    store: Arc<dyn Store>,
    machine: Machine,
    /// Goes to `None` when the application cannot read its own state; then this node makes no checkpoints.
    copy: Option<Copy>,
    told: Told,
    began: Instant,
    work: FuturesUnordered<BoxFuture<'static, Done>>,
    links: HashMap<NodeId, (u64, Outbox)>,
    waiting: BTreeMap<AppendId, Waiting>,
    /// Those of them that the machine has no room for, in order; what comes later goes behind them.
    held_up: VecDeque<AppendId>,
    /// Up to here everything was delivered.
    delivered: Position,
    /// The checkpoint in the batch that is under way.
    settling: Option<Checkpoint>,
    writing: bool,
    manifest_conflict: Option<u64>,
    stopping: Option<oneshot::Sender<()>>,
    /// Since others had their turn.
    burst: Burst,
}

/// What became of something that takes time.
enum Done {
    Stored(BatchId, Outcome),
    Found(ReadId, Found),
    Sealed {
        asked: Tip,
        length: u64,
        pieces: Vec<Hash>,
        state: Box<dyn StateMachine>,
        bytes: Bytes,
    },
    /// The state could not be stored.
    NotSealed,
    /// A link has ended.
    Unlinked(NodeId, u64),
}

/// Opens the store and makes the machine and the copy of what it holds; new rows stand behind a position that was given out.
pub(super) async fn open(
    opening: &Opening,
    factory: Option<Factory>,
    began: Instant,
    behind: Position,
) -> Result<Opened, (Option<Factory>, OpenReplicaError)> {
    let service = opening.config.keys.service;
    let store = match opening.storage.open(service, opening.config.keys.node).await {
        Ok(store) => store,
        Err(error) => return Err((factory, error.into())),
    };
    let opened = async {
        let recovery = recover(&*store, opening.config.clone(), Payloads::OfSystem, |_, _| {}).await;
        let recovery = recovery.map_err(|error| match error {
            RecoverError::Store(error) => OpenReplicaError::Store(error),
            RecoverError::Content(error) => OpenReplicaError::Damaged(error.to_string()),
        })?;
        let checkpoint = store.opened().await?.checkpoint;
        let state = match &checkpoint {
            Some(checkpoint) if factory.is_some() => Some(read_state(&*store, checkpoint).await?),
            _ => None,
        };
        Ok::<_, OpenReplicaError>((recovery.behind(behind), state))
    };
    let (recovery, state) = match opened.await {
        Ok(opened) => opened,
        Err(error) => {
            store.shutdown().await;
            return Err((factory, error));
        }
    };
    let position = recovery.position();
    let machine = recovery.finish(since(began), wall(), rand::random());
    let copy = factory.map(|factory| Copy::begin(factory, state)).transpose();
    Ok(Opened { store, machine, position, copy })
}

impl Driver {
    pub(super) fn new(
        shared: Arc<Shared>,
        opening: Opening,
        opened: Opened,
        told: Told,
        began: Instant,
    ) -> Result<Self, (Arc<dyn Store>, super::RestoreError)> {
        let Opened { store, machine, position, copy } = opened;
        let copy = match copy {
            Ok(copy) => copy,
            Err((_, error)) => return Err((store, error)),
        };
        Ok(Self {
            shared,
            opening,
            store,
            machine,
            copy,
            told,
            began,
            work: FuturesUnordered::new(),
            links: HashMap::new(),
            waiting: BTreeMap::new(),
            held_up: VecDeque::new(),
            delivered: position,
            settling: None,
            writing: false,
            manifest_conflict: None,
            stopping: None,
            burst: Burst::default(),
        })
    }

    /// Runs until it is told to shut down or nobody can tell it any more.
    pub(super) async fn run(mut self, mut commands: mpsc::Receiver<Command>, mut inbox: mpsc::Receiver<FromLink>) {
        self.drain().await;
        self.tell_status();
        while !self.is_over() {
            let due = self.began + self.machine.poll_timeout().saturating_sub(START);
            tokio::select! {
                Some(done) = self.work.next(), if !self.work.is_empty() => self.done(done),
                command = commands.recv(), if self.stopping.is_none() => match command {
                    Some(command) => {
                        self.obey(command);
                        // Others that wait go along, so that they share a segment and a pass through the outputs.
                        for _ in 1..COMMANDS {
                            let Ok(command) = commands.try_recv() else { break };
                            self.obey(command);
                        }
                    }
                    None => break,
                },
                Some(news) = inbox.recv() => self.hear(news),
                () = tokio::time::sleep_until(due) => {
                    self.tell(Input::Tick);
                    self.tell_status();
                }
            }
            self.drain().await;
            if self.burst.is_over() {
                // A peer that fetches a long log keeps neither sessions nor subscribers waiting.
                self.burst = Burst::default();
                tokio::task::yield_now().await;
            }
        }
        self.links.clear();
        self.store.shutdown().await;
        if let Some(stopped) = self.stopping.take() {
            let _ = stopped.send(());
        }
    }

    /// Whether a shutdown has nothing left to wait for.
    fn is_over(&self) -> bool {
        let stuck = self.told.head.borrow().full || self.told.head.borrow().stopped.is_some() || self.is_away();
        self.stopping.is_some() && (stuck || (self.waiting.is_empty() && !self.writing))
    }

    fn tell(&mut self, input: Input) {
        self.machine.handle(since(self.began), wall(), input);
    }

    fn obey(&mut self, command: Command) {
        match command {
            Command::Append { id, seen, waiting } => {
                self.hand(seen);
                let entry = waiting.entry.clone();
                self.waiting.insert(id, waiting);
                if self.held_up.is_empty() {
                    self.tell(Input::Append { id: machine::AppendId(id.0), entry });
                } else {
                    self.held_up.push_back(id);
                }
            }
            Command::Handed(position) => self.tell(Input::Handed(position)),
            Command::Retain { seen } => {
                self.hand(seen);
                self.tell(Input::Retain);
            }
            Command::Adopt(manifest, reply) => {
                let _ = reply.send(self.adopt(manifest));
            }
            Command::Shutdown(reply) => self.stopping = Some(reply),
        }
    }

    /// What is appended next was written by somebody who has seen this.
    fn hand(&mut self, seen: Option<Position>) {
        // Without subscribers all that is delivered is handed out.
        self.tell(Input::Handed(seen.unwrap_or(self.delivered)));
    }

    fn adopt(&mut self, manifest: Manifest) -> Result<(), AdoptError> {
        if let Some(why) = &self.told.head.borrow().stopped {
            return Err(AdoptError::Stopped(why.clone()));
        }
        let keys = &self.opening.config.keys;
        if Manifest::signed_by(keys.service, keys.owner, &manifest.to_bytes()).is_err() {
            return Err(AdoptError::Foreign);
        }
        let counts = self.machine.manifest();
        if !manifest.supersedes(counts) {
            let version = counts.contents().version();
            if version == manifest.contents().version() && counts.supersedes(&manifest) {
                self.manifest_conflict = Some(version);
            }
            return Err(AdoptError::Older { counts: version });
        }
        self.tell(Input::Manifest(manifest));
        Ok(())
    }

    fn hear(&mut self, news: FromLink) {
        match news {
            FromLink::Up { node, link, outbox, lasts } => {
                self.links.insert(node, (link, outbox));
                let ends = async move {
                    // It is never sent anything: its other half goes with the link.
                    let _ = lasts.await;
                    Done::Unlinked(node, link)
                };
                self.work.push(ends.boxed());
                self.tell(Input::LinkUp(node));
                self.look_at(node);
            }
            FromLink::Message { node, link, message } if self.is_current(node, link) => {
                self.burst.count(&message);
                let hello = matches!(message, Message::Hello(_));
                self.tell(Input::Message(node, message));
                if hello {
                    self.look_at(node);
                }
            }
            FromLink::Message { .. } => {}
        }
    }

    fn is_current(&self, node: NodeId, link: u64) -> bool {
        self.links.get(&node).is_some_and(|(current, _)| *current == link)
    }

    /// Tells how a peer stands.
    fn look_at(&mut self, node: NodeId) {
        let log = self.machine.linked(&node).flatten();
        self.told.peers.send_if_modified(|peers| {
            let Some(state) = peers.0.get_mut(&node) else { return false };
            let mut new = *state;
            new.live = log.is_some();
            if let Some(log) = log {
                (new.incarnation, new.refusal) = (Some(log.incarnation), None);
            }
            std::mem::replace(state, new) != new
        });
    }

    fn done(&mut self, done: Done) {
        match done {
            Done::Stored(batch, outcome) => {
                self.writing = false;
                self.settled(outcome);
                self.tell(Input::Stored(batch, outcome));
            }
            Done::Found(read, found) => self.tell(Input::Found(read, found)),
            Done::Sealed { asked, length, pieces, state, bytes } => {
                if let Some(copy) = &mut self.copy {
                    copy.take_back(state, bytes);
                }
                self.tell(Input::Sealed { asked, length, pieces });
            }
            Done::NotSealed => {
                tracing::error!(
                    "the state was not stored; this node makes no more checkpoints until it is started again"
                );
                self.copy = None;
            }
            Done::Unlinked(node, link) if self.is_current(node, link) => {
                self.links.remove(&node);
                self.tell(Input::LinkDown(node));
                self.look_at(node);
            }
            Done::Unlinked(..) => {}
        }
    }

    /// A batch is stored, or is not.
    fn settled(&mut self, outcome: Outcome) {
        let full = outcome == Outcome::Full;
        let settling = self.settling.take();
        if let Some(checkpoint) = &settling
            && outcome == Outcome::Done
        {
            self.note_covered(checkpoint);
        }
        let pruned = settling.is_some();
        self.told.head.send_if_modified(|head| {
            head.pruned += u64::from(pruned);
            std::mem::replace(&mut head.full, full) != full || pruned
        });
    }

    /// Carries out what the machine says.
    async fn drain(&mut self) {
        let before = self.delivered;
        let own = self.machine.log();
        self.append_held_up();
        loop {
            while let Some(output) = self.machine.poll_output() {
                self.carry_out(output).await;
            }
            if self.delivered > before && self.shared.seen().is_none() && self.machine.has_unhanded() {
                self.tell(Input::Handed(self.delivered));
            } else if !self.machine.has_output() {
                break;
            }
        }
        let log = self.machine.log();
        if self.delivered > before || log != own || log != self.told.head.borrow().own {
            let position = self.delivered;
            self.told.head.send_modify(|head| (head.position, head.own) = (position, log));
        }
    }

    async fn carry_out(&mut self, output: Output) {
        match output {
            Output::Write(id, batch) => self.write(id, batch),
            Output::Read(id, what) => {
                let store = Arc::clone(&self.store);
                self.work.push(async move { Done::Found(id, store.read(what).await) }.boxed());
            }
            Output::Send(node, message) => {
                self.burst.count(&message);
                if self.links.get(&node).is_some_and(|(_, outbox)| !outbox.push(message)) {
                    self.end_link(node, error::LinkRefusal::Slow);
                    self.tell(Input::LinkDown(node));
                }
            }
            Output::Unlink(node, why) => {
                tell_unlink(node, why);
                self.end_link(node, why.into());
            }
            Output::Deliver(delivery) => {
                self.delivered = delivery.position;
                for item in &delivery.items {
                    let own = item.spot.writer.log.node == self.opening.config.keys.node;
                    if let Some((first, _)) = item.first.filter(|_| own) {
                        let now = Place { log: item.spot.writer.log, seq: item.spot.seq, index: item.spot.index };
                        self.told.held.send_modify(|held| {
                            held.moved.insert(first, now);
                        });
                    }
                }
            }
            // Whoever reads the log finds out by itself.
            Output::Split(_) => {}
            Output::Appended { id, place } => {
                let id = AppendId(id.0);
                if let Some(waiting) = self.waiting.remove(&id) {
                    self.shared.note_appended(place, id);
                    let _ = waiting.reply.send(Ok(place));
                }
            }
            Output::Refused { id, why } => self.refused(AppendId(id.0), why),
            Output::Replicated { log, by, seq } => self.told.held.send_modify(|held| {
                held.receipts.insert((log, by), seq);
            }),
            Output::Fold(delivery, splits) => {
                if let Some(copy) = &mut self.copy {
                    splits.iter().for_each(|split| copy.split(split));
                    delivery.items.iter().for_each(|item| copy.apply(&applied(&delivery, item)));
                }
            }
            Output::Unfold(unfold) => self.unfold(unfold).await,
            Output::Seal(asked) => self.seal(asked),
            Output::Stable(asked) => tracing::debug!(by = ?asked.log.node, "the members agree on a checkpoint"),
            Output::Manifest(manifest) => self.adopted(manifest),
            Output::Stopped(Stop::Reload) => self.reload().await,
            Output::Stopped(why) => self.stop(match why {
                Stop::Superseded => Stopped::Superseded,
                Stop::Removed => Stopped::Removed,
                Stop::Broken | Stop::Reload => self.broken(),
            }),
        }
    }

    fn write(&mut self, id: BatchId, batch: Box<Batch>) {
        if let Some(checkpoint) = &batch.checkpoint {
            self.settling = Some(checkpoint.clone());
            self.told.head.send_modify(|head| head.pruned += 1);
        }
        self.writing = true;
        let store = Arc::clone(&self.store);
        self.work.push(async move { Done::Stored(id, store.write(batch).await) }.boxed());
    }

    fn end_link(&mut self, node: NodeId, why: error::LinkRefusal) {
        self.links.remove(&node);
        self.told.peers.send_if_modified(|peers| {
            let Some(state) = peers.0.get_mut(&node) else { return false };
            (state.live, state.refusal) = (false, Some(why));
            true
        });
    }

    fn refused(&mut self, id: AppendId, why: Refusal) {
        match why {
            // It goes again when there is room, before all that came later.
            Refusal::Full | Refusal::Busy => {
                let at = self.held_up.partition_point(|other| *other < id);
                self.held_up.insert(at, id);
            }
            // Nothing that is longer is let in. What is stopped says so for all, or goes on in a store that is opened again.
            Refusal::TooLong | Refusal::Stopped => {
                let why = self.told.head.borrow().stopped.clone();
                if let Some(why) = why
                    && let Some(waiting) = self.waiting.remove(&id)
                {
                    let _ = waiting.reply.send(Err(why.into()));
                }
            }
        }
    }

    /// Appends what the machine had no room for.
    fn append_held_up(&mut self) {
        if self.told.head.borrow().full {
            return;
        }
        for id in std::mem::take(&mut self.held_up) {
            if let Some(entry) = self.waiting.get(&id).map(|waiting| waiting.entry.clone()) {
                self.tell(Input::Append { id: machine::AppendId(id.0), entry });
            }
        }
    }

    fn adopted(&mut self, manifest: Manifest) {
        let contents = manifest.contents();
        tracing::info!(version = contents.version(), "a newer manifest counts");
        if self.told.manifest.borrow().contents().version() == contents.version() {
            self.manifest_conflict = Some(contents.version());
        }
        let own = self.opening.config.keys.node;
        let nodes = contents.members().iter().map(|member| NodeId(*member.log_key().as_bytes()));
        self.told.peers.send_modify(|peers| peers.set_nodes(nodes.filter(|node| *node != own)));
        // A store that is opened again begins with it.
        self.opening.config.manifest = manifest.clone();
        self.told.manifest.send_replace(manifest);
    }

    fn broken(&self) -> Stopped {
        let closed = || Arc::new(crate::store::StoreError::Closed);
        Stopped::Store(self.store.failure().unwrap_or_else(closed))
    }

    /// Nothing more is written: everybody who waits is told.
    fn stop(&mut self, why: Stopped) {
        tracing::error!(%why, "the log takes nothing more");
        self.links.clear();
        for waiting in std::mem::take(&mut self.waiting).into_values() {
            let _ = waiting.reply.send(Err(why.clone().into()));
        }
        self.told.head.send_modify(|head| head.stopped = Some(why));
        self.told.peers.send_modify(|peers| peers.0.values_mut().for_each(|state| state.live = false));
        self.tell_status();
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        self.told.head.send_modify(|head| head.ground.store = None);
    }
}

impl Shared {
    /// Notes what this process appended and where it stands.
    fn note_appended(&self, place: Place, id: AppendId) {
        self.own.lock().unwrap_or_else(PoisonError::into_inner).insert(place, id);
    }
}

fn tell_unlink(node: NodeId, why: Unlink) {
    match why {
        Unlink::TooOld | Unlink::PeerTooOld => tracing::error!(?node, %why, "no link with a peer"),
        _ => tracing::warn!(?node, %why, "no link with a peer"),
    }
}

/// The machine's clock, which never goes back.
fn since(began: Instant) -> Duration {
    START + began.elapsed()
}

fn wall() -> u64 {
    // 64 bits of milliseconds last beyond any clock.
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as u64
}

/// Where the machine's clock begins: late enough for "so long ago" to be a time.
const START: Duration = Duration::from_secs(60);
/// Commands that are taken in one pass.
const COMMANDS: usize = 256;
const _: () = assert!(BEACON.as_millis() <= 500, "statuses are told at every beacon, and documented to be no older");
