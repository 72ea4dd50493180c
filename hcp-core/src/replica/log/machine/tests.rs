//! One machine, told by hand what its peers say: what a node does of what a single member can send it.

mod branches;
mod credit;
mod fetching;
mod orders;
mod passing;
mod requests;
mod waiting;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::{Input, Machine, Output, Recovery, Unlink};
use crate::replica::log::checkpoint::{Certificate, Statement, piece_hash, signed, state_root, summary_hash};
use crate::replica::log::entry::{self, Entry};
use crate::replica::log::ledger::{Ledger, Slot};
use crate::replica::log::message::{Frontier, Hello, Message, Offer};
use crate::replica::log::simulation::cast::Cast;
use crate::replica::log::simulation::disk::Disk;
use crate::replica::log::storage::{Branch, Checkpoint, Found, Opened, Outcome, Read, ReadId};
use crate::replica::log::summary;
use crate::replica::log::wire::{Head, Segment, Tip};
use crate::replica::place::{Incarnation, LogId, NodeId, Stamp};

/// What becomes of batches and reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Store {
    Quick,
    /// The disk is full; reads are answered.
    Full,
    /// Nothing is answered; what was to be read is in `reads`.
    Away,
    /// What is to be read is in `reads`; batches are written.
    Unread,
}

/// A machine of node 0 with a store and an application that takes everything at once.
struct Bench {
    cast: Cast,
    machine: Machine,
    disk: Disk,
    store: Store,
    now: Duration,
    sent: Vec<(NodeId, Message)>,
    reads: Vec<(ReadId, Read)>,
    unlinked: Vec<(NodeId, Unlink)>,
    /// The application was asked for its state for these, and has answered if it is quick.
    sealed: Vec<Tip>,
    seals: bool,
    /// The application takes what is delivered to it.
    takes: bool,
    stable: usize,
    /// How long the longest step took.
    longest: Duration,
}

impl Bench {
    fn new(cast: Cast) -> Self {
        Self::open(cast, None)
    }

    fn open(cast: Cast, checkpoint: Option<Checkpoint>) -> Self {
        let recovery = Recovery::new(cast.config(0, 0), Opened { checkpoint }).expect("a good checkpoint");
        let now = Duration::from_secs(1_000);
        let machine = recovery.finish(now, WALL, [1; 32]);
        let mut bench = Self {
            cast,
            machine,
            disk: Disk::default(),
            store: Store::Quick,
            now,
            sent: Vec::new(),
            reads: Vec::new(),
            unlinked: Vec::new(),
            sealed: Vec::new(),
            seals: true,
            takes: true,
            stable: 0,
            longest: Duration::ZERO,
        };
        bench.drain();
        bench
    }

    /// A link with a node is up, over which it has said who it is and that it holds nothing.
    fn link(&mut self, node: usize) {
        self.meet(node);
        self.say(node, Message::Frontier(Frontier { tips: Vec::new(), direct: Some(Vec::new()) }));
    }

    /// A link with a node is up, over which it has said who it is.
    fn meet(&mut self, node: usize) {
        let peer = self.cast.nodes[node];
        let hello = Hello {
            service: *self.cast.keys[0].service_key(),
            node: peer,
            incarnation: Incarnation([1; 16]),
            software: self.cast.software[node],
            lowest: self.cast.software[node],
            manifest: 1,
        };
        self.tell(Input::LinkUp(peer));
        self.say(node, Message::Hello(hello));
    }

    fn say(&mut self, node: usize, message: Message) {
        self.tell(Input::Message(self.cast.nodes[node], message));
    }

    fn tell(&mut self, input: Input) {
        self.handle(input);
        self.drain();
    }

    fn handle(&mut self, input: Input) {
        let began = std::time::Instant::now();
        self.machine.handle(self.now, WALL, input);
        self.longest = self.longest.max(began.elapsed());
    }

    /// Time passes in steps of half a second.
    fn pass(&mut self, span: Duration) {
        let end = self.now + span;
        while self.now < end {
            self.now += Duration::from_millis(500);
            self.tell(Input::Tick);
        }
    }

    fn drain(&mut self) {
        while let Some(output) = self.machine.poll_output() {
            match output {
                Output::Write(id, batch) => match self.store {
                    Store::Quick | Store::Unread => {
                        self.disk.write(&batch);
                        self.handle(Input::Stored(id, Outcome::Done));
                    }
                    Store::Full => self.handle(Input::Stored(id, Outcome::Full)),
                    Store::Away => {}
                },
                Output::Read(id, what) if matches!(self.store, Store::Away | Store::Unread) => {
                    self.reads.push((id, what))
                }
                Output::Read(id, what) => {
                    let found = self.disk.read(&what);
                    self.handle(Input::Found(id, found));
                }
                Output::Send(node, message) => self.sent.push((node, message)),
                Output::Unlink(node, why) => self.unlinked.push((node, why)),
                Output::Deliver(delivery) if self.takes => self.handle(Input::Handed(delivery.position)),
                Output::Seal(asked) => {
                    self.sealed.push(asked);
                    if self.seals {
                        self.seal(asked);
                    }
                }
                Output::Stable(_) => self.stable += 1,
                _ => {}
            }
        }
    }

    fn seal(&mut self, asked: Tip) {
        let pieces = vec![piece_hash(STATE)];
        self.handle(Input::Sealed { asked, length: STATE.len() as u64, pieces });
    }

    /// What was sent to a node since this was asked last.
    fn take_sent(&mut self, node: usize) -> Vec<Message> {
        let peer = self.cast.nodes[node];
        let (to, rest) = std::mem::take(&mut self.sent).into_iter().partition(|(other, _)| *other == peer);
        self.sent = rest;
        let to: Vec<(NodeId, Message)> = to;
        to.into_iter().map(|(_, message)| message).collect()
    }

    /// The credit that a node was given back since this was asked last.
    fn credit(&mut self, node: usize) -> u64 {
        let credit = |message| if let Message::Credit(bytes) = message { bytes } else { 0 };
        self.take_sent(node).into_iter().map(credit).sum()
    }
}

fn log(cast: &Cast, node: usize, run: u8) -> LogId {
    LogId { node: cast.nodes[node], incarnation: Incarnation([run; 16]) }
}

/// Who writes what where.
struct Draft<'a> {
    log: LogId,
    before: Option<&'a Segment>,
    dependencies: Vec<Tip>,
    entries: Vec<Entry>,
    /// Makes one segment differ from another.
    salt: u32,
}

impl<'a> Draft<'a> {
    fn of(log: LogId, before: Option<&'a Segment>) -> Self {
        Self { log, before, dependencies: Vec::new(), entries: Vec::new(), salt: 0 }
    }

    fn sign(mut self, cast: &Cast) -> Arc<Segment> {
        self.dependencies.sort();
        let index = cast.nodes.iter().position(|node| *node == self.log.node).expect("a member");
        let keys = cast.keys[index].clone();
        let head = Head {
            log: self.log,
            seq: self.before.map_or(1, |before| before.head.seq + 1),
            previous: self.before.map_or([0; 32], |before| before.hash),
            stamp: Stamp { millis: WALL, counter: 0 },
            manifest: 1,
            system: self.entries.iter().any(Entry::is_system),
            dependencies: self.dependencies,
            payload_root: [0; 32],
        };
        let mut salt = [0; 16];
        salt[..4].copy_from_slice(&self.salt.to_be_bytes());
        let payload = entry::payload(salt, &self.entries);
        Arc::new(Segment::make(head, payload, |tip| (keys.sign)(&tip.signed(keys.service_key()))))
    }
}

/// The ledger of these segments, settled.
fn settled(cast: &Cast, segments: &[&Segment]) -> Ledger {
    let mut ledger = Ledger::default();
    for segment in segments {
        let resolved: Vec<_> = segment.head.dependencies.iter().map(|tip| (*tip, Branch(0))).collect();
        let entries = Machine::entries_of(segment);
        let slot = Slot::Extends(Branch(0));
        ledger.apply(&cast.keys[0], &segment.head, segment.hash, &entries, slot, &resolved);
    }
    ledger.settle(None);
    ledger
}

/// A checkpoint of a ledger and of a state of these pieces, which nodes 1 and 2 have signed.
fn checkpoint(cast: &Cast, ledger: &Ledger, pieces: &[Bytes]) -> Checkpoint {
    let summary = summary::encode(ledger);
    let hashes: Vec<_> = pieces.iter().map(|piece| piece_hash(piece)).collect();
    let (root, length) = (state_root(&hashes), pieces.iter().map(|piece| piece.len() as u64).sum());
    let (asked_log, asked) = ledger.logs.iter().next_back().expect("something is covered");
    let asked = Tip { log: *asked_log, seq: asked.last(), hash: [1; 32] };
    let statement = Statement { asked, manifest: 1, summary: summary_hash(&summary), root, length };
    let message = signed(cast.keys[0].service_key(), &statement.hash());
    let signatures = [1, 2].map(|node| (cast.nodes[node], (cast.keys[node].sign)(&message))).into();
    let certificate = Certificate { statement, signatures }.to_bytes();
    Checkpoint { root, length, summary, pieces: hashes.as_flattened().to_vec().into(), certificate }
}

fn offer(checkpoint: &Checkpoint) -> Message {
    Message::Offer(Box::new(Offer {
        certificate: checkpoint.certificate.clone(),
        summary: checkpoint.summary.clone(),
        pieces: checkpoint.pieces.clone(),
    }))
}

fn manifest(cast: &Cast) -> Entry {
    Entry::Manifest(cast.manifests[0].to_bytes().into())
}

const WALL: u64 = 1_790_000_000_000;
const STATE: &[u8] = b"state";
