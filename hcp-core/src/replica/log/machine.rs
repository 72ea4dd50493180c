//! What a node of a replicated log decides: no I/O, no clock and no randomness of its own.
//!
//! The driver tells it what happened ([`Input`]) with both clocks, and carries out what it answers ([`Output`]), in order.

mod appending;
mod beside;
mod checkpoints;
mod checks;
mod closing;
mod fetching;
mod folding;
mod frontier;
mod holding;
mod links;
#[cfg(test)]
pub(super) mod planted;
mod pushing;
mod reading;
mod receiving;
mod recovery;
mod replay;
mod staging;
pub(crate) mod status;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use rand::SeedableRng;
use rand::rngs::StdRng;

use self::appending::Appending;
use self::beside::Beside;
use self::checkpoints::Checkpoints;
use self::checks::Hashes;
use self::closing::{Proof, Survey};
use self::fetching::Fetch;
use self::holding::HeldBack;
use self::links::{Link, Talk, Via};
pub(crate) use self::reading::{Covered, ReadError, Reader};
pub(crate) use self::recovery::{OpenError, Recovery};
use self::staging::{Flight, Recent, Staged};
use super::keys::Keys;
use super::ledger::{Item, Ledger};
use super::message::Message;
use super::storage::{Batch, BatchId, Branch, Found, Hash, Outcome, Position, Read, ReadId};
use super::vector::{Past, Split, Writer};
use super::wire::Tip;
use crate::identity::manifest::{Manifest, SoftwareVersion};
use crate::replica::clock::Clock;
use crate::replica::place::{Incarnation, LogId, NodeId, Place, Stamp};

/// What a node is told once.
#[derive(Clone, Debug)]
pub(crate) struct Config {
    pub(crate) keys: Keys,
    /// The newest manifest that the node was given; the log may hold a newer one.
    pub(crate) manifest: Manifest,
    pub(crate) software: SoftwareVersion,
}

/// Names an entry that the application appends; the application's choice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct AppendId(pub(crate) u64);

/// What happened.
#[derive(Debug)]
pub(crate) enum Input {
    /// [`Machine::poll_timeout`] is due, and nothing else happened.
    Tick,
    /// There is a link with a node now; one that was there before is gone.
    LinkUp(NodeId),
    LinkDown(NodeId),
    /// What came from a node, decoded, in the order in which it came.
    Message(NodeId, Message),
    /// What became of a batch.
    Stored(BatchId, Outcome),
    /// What was read.
    Found(ReadId, Found),
    /// The application appends an entry, having seen everything up to the last [`Input::Handed`]. Answered by
    /// [`Output::Appended`] or [`Output::Refused`].
    Append {
        id: AppendId,
        entry: Bytes,
    },
    /// The application was handed everything up to here.
    Handed(Position),
    /// The owner's newest word came by another way than the log.
    Manifest(Manifest),
    /// The application wants what it has seen to be replaced by a state: a checkpoint is asked for.
    Retain,
    /// What [`Output::Seal`] asked for is stored: the state's length and the hashes of its pieces.
    Sealed {
        asked: Tip,
        length: u64,
        pieces: Vec<Hash>,
    },
}

/// What is to be done, in this order.
#[derive(Debug)]
pub(crate) enum Output {
    /// Make it durable. Answered by [`Input::Stored`]; a batch that found no room comes again under its old name.
    Write(BatchId, Box<Batch>),
    /// Read. Answered by [`Input::Found`].
    Read(ReadId, Read),
    Send(NodeId, Message),
    /// End the link with a node, which broke a rule or cannot be spoken with.
    Unlink(NodeId, Unlink),
    /// Hand these entries to the application.
    Deliver(Box<Delivery>),
    /// Tell the application that what it was handed of a writer has another name now.
    Split(#[cfg_attr(not(test), expect(dead_code, reason = "subscriptions find it out as they read"))] Split),
    /// The entry is durable here.
    Appended {
        id: AppendId,
        place: Place,
    },
    /// It was not appended.
    Refused {
        id: AppendId,
        why: Refusal,
    },
    /// A node has confirmed to hold durably what this node wrote to this log up to here.
    Replicated {
        log: LogId,
        by: NodeId,
        seq: u64,
    },
    /// Apply these to the copy of the application's state that checkpoints are made of, the splits first.
    Fold(Box<Delivery>, Vec<Split>),
    /// Take that copy back to an earlier state.
    Unfold(Unfold),
    /// Store that copy's state in pieces under its root. Answered by [`Input::Sealed`].
    Seal(Tip),
    /// Enough members have signed the state that was sealed for this place.
    Stable(Tip),
    /// This manifest counts now.
    Manifest(Manifest),
    /// Nothing more will be written here.
    Stopped(Stop),
}

/// How far the copy of the application's state is to go back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unfold {
    /// To the state that was sealed last in this run, or else to that of the checkpoint, or to nothing.
    Sealed,
    /// To the state of the checkpoint that is held, or to nothing.
    Checkpoint,
}

/// A segment's entries, with what decides which write wins.
#[derive(Clone, Debug)]
pub(crate) struct Delivery {
    pub(crate) position: Position,
    pub(crate) writer: Writer,
    pub(crate) seq: u64,
    pub(crate) stamp: Stamp,
    pub(crate) past: Past,
    pub(crate) items: Vec<Item>,
}

/// Why a link is ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unlink {
    #[error("the peer belongs to another service, or is not who it was dialled as")]
    Foreign,
    #[error("the peer is no member by the newest manifest")]
    NotMember,
    #[error("the peer runs a version below the lowest that the manifest allows")]
    PeerTooOld,
    #[error("this node runs a version below the lowest that the peer's manifest allows")]
    TooOld,
    #[error("the peer sent something that nobody signed")]
    Forged,
    #[error("the peer sent more than it was allowed")]
    Credit,
    #[error("the peer sends too many messages")]
    Flood,
    #[error("the peer spoke out of turn")]
    Order,
}

/// Why an entry was not appended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    #[error("the entry is longer than the limit")]
    TooLong,
    #[error("too many entries wait to be written")]
    Busy,
    #[error("there is no room on the disk")]
    Full,
    #[error("nothing more is written here")]
    Stopped,
}

/// Why nothing more is written here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Stop {
    #[error("the store is broken")]
    Broken,
    #[error("another run of this node has begun")]
    Superseded,
    #[error("this node is no member any more")]
    Removed,
    /// A checkpoint took the place of what was held: open the store again.
    #[error("a checkpoint was loaded; the store is to be opened again")]
    Reload,
}

/// The state of one node.
pub(crate) struct Machine {
    keys: Keys,
    software: SoftwareVersion,
    manifest: Manifest,
    rng: StdRng,
    now: Duration,
    wall: u64,
    clock: Clock,
    /// Everything that was taken in, durable or not yet.
    ledger: Ledger,
    /// The log that this run writes.
    own: LogId,
    /// What is on disk: for each chain the last segment.
    durable: BTreeMap<(LogId, Branch), (u64, Hash)>,
    position: Position,
    staged: Vec<Staged>,
    /// Of each peer, what it sent over whichever link, and is not durable yet, in bytes as segments cost.
    unstored: BTreeMap<NodeId, u64>,
    flight: Option<Flight>,
    batches: u64,
    reads: u64,
    reading: BTreeMap<ReadId, Reading>,
    recent: Recent,
    hashes: Hashes,
    held: HeldBack,
    beside: Beside,
    appending: Appending,
    links: BTreeMap<NodeId, Link>,
    talks: BTreeMap<NodeId, Talk>,
    /// How many there were in this run.
    linked: u64,
    /// Ends of closed logs that may have to be covered.
    to_cover: BTreeSet<(LogId, Branch)>,
    /// This node's own log was closed.
    reborn: bool,
    proofs: BTreeMap<LogId, Proof>,
    surveys: VecDeque<Survey>,
    /// Who holds what of the logs that this process wrote.
    receipts: BTreeMap<(LogId, NodeId), u64>,
    checkpoints: Checkpoints,
    fetch: Option<Fetch>,
    /// Who offered a state and owed pieces of it in the end, and since when.
    silent: BTreeMap<NodeId, Duration>,
    /// What goes with the next batch beside segments.
    chores: Batch,
    /// The store is to be opened again once the chores are done.
    reloading: bool,
    ahead: BTreeSet<NodeId>,
    beacon: Duration,
    full_until: Option<Duration>,
    stopped: Option<Stop>,
    outputs: VecDeque<Output>,
}

/// What a read is for.
#[derive(Debug)]
enum Reading {
    Hashes(Vec<(LogId, u64)>),
    Push(Via),
    Need(Via),
    Proof(LogId),
    Survey,
    Fold(u64),
    Piece { via: Via, root: Hash, index: u32 },
}

impl Machine {
    /// Takes what happened.
    pub(crate) fn handle(&mut self, now: Duration, wall: u64, input: Input) {
        (self.now, self.wall) = (now, wall);
        match input {
            Input::Tick => {}
            Input::LinkUp(node) => self.link_up(node),
            Input::LinkDown(node) => self.link_down(node),
            Input::Message(node, message) => self.receive(node, message),
            Input::Stored(batch, outcome) => self.stored(batch, outcome),
            Input::Found(read, found) => self.found(read, found),
            Input::Append { id, entry } => self.append(id, entry),
            Input::Handed(position) => self.handed(position),
            Input::Manifest(manifest) => self.given_manifest(manifest),
            Input::Retain => self.retain(),
            Input::Sealed { asked, length, pieces } => self.sealed(asked, length, &pieces),
        }
        self.act();
    }

    /// What is to be done next.
    pub(crate) fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When to be told [`Input::Tick`].
    pub(crate) fn poll_timeout(&self) -> Duration {
        let cut = self.cut_at().unwrap_or(Duration::MAX);
        let full = self.full_until.unwrap_or(Duration::MAX);
        self.beacon.min(cut).min(full)
    }

    /// The log that this run writes.
    pub(crate) fn log(&self) -> LogId {
        self.own
    }

    /// Everything that follows from what has changed.
    fn act(&mut self) {
        if self.stopped.is_none() {
            self.cover();
            self.tend_checkpoints();
            self.cut_if_due();
        }
        self.ask_hashes();
        self.write();
        if self.now >= self.beacon {
            self.beacon = self.now + super::limits::BEACON;
            self.expire();
            self.beacons();
            self.ask_needs();
            self.offer();
            self.take_early_offers();
            self.ask_pieces();
            self.read_fold_again();
        }
        self.pump_all();
    }

    fn found(&mut self, read: ReadId, found: Found) {
        let Some(reading) = self.reading.remove(&read) else { return };
        match (reading, found) {
            (Reading::Hashes(places), Found::Hashes(found)) => self.found_hashes(&places, found),
            (Reading::Hashes(places), _) => self.hashes_failed(&places),
            (Reading::Push(via), found) => self.found_push(via, found),
            (Reading::Need(via), found) => self.found_need(via, found),
            (Reading::Proof(log), found) => self.found_proof(log, found),
            (Reading::Survey, found) => self.found_survey(read, found),
            (Reading::Fold(number), found) => self.found_fold(number, found),
            (Reading::Piece { via, root, index }, found) => self.found_piece(via, root, index, found),
        }
    }

    fn read(&mut self, what: Read, reading: Reading) -> ReadId {
        self.reads += 1;
        let id = ReadId(self.reads);
        self.reading.insert(id, reading);
        self.outputs.push_back(Output::Read(id, what));
        id
    }

    /// What the segments say that this node has taken in.
    #[cfg(test)]
    pub(crate) fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    fn stop(&mut self, why: Stop) {
        if self.stopped.is_none() {
            self.stopped = Some(why);
            self.refuse_pending();
            self.outputs.push_back(Output::Stopped(why));
        }
    }

    fn new(config: Config, now: Duration, wall: u64, seed: [u8; 32]) -> Self {
        let mut rng = StdRng::from_seed(seed);
        let incarnation = Incarnation(rand::RngExt::random(&mut rng));
        let own = LogId { node: config.keys.node, incarnation };
        Self {
            software: config.software,
            manifest: config.manifest,
            keys: config.keys,
            rng,
            now,
            wall,
            clock: Clock::default(),
            ledger: Ledger::default(),
            own,
            durable: BTreeMap::new(),
            position: Position(0),
            staged: Vec::new(),
            unstored: BTreeMap::new(),
            flight: None,
            batches: 0,
            reads: 0,
            reading: BTreeMap::new(),
            recent: Recent::default(),
            hashes: Hashes::default(),
            held: HeldBack::default(),
            beside: Beside::default(),
            appending: Appending::default(),
            links: BTreeMap::new(),
            talks: BTreeMap::new(),
            linked: 0,
            to_cover: BTreeSet::new(),
            reborn: false,
            proofs: BTreeMap::new(),
            surveys: VecDeque::new(),
            receipts: BTreeMap::new(),
            checkpoints: Checkpoints::default(),
            fetch: None,
            silent: BTreeMap::new(),
            chores: Batch::default(),
            reloading: false,
            ahead: BTreeSet::new(),
            beacon: now,
            full_until: None,
            stopped: None,
            outputs: VecDeque::new(),
        }
    }
}

impl fmt::Debug for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Machine").field("own", &self.own).finish_non_exhaustive()
    }
}
