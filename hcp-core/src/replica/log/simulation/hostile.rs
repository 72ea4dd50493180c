//! What members that lie do. A liar runs a machine as everybody does; what leaves it is twisted, and more is said in its name.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use rand::RngExt;

use super::application::{Application, EntryId, encode};
use super::disk::Disk;
use super::plan::Plan;
use super::{Checked, World};
use crate::replica::log::checkpoint::{Certificate, Statement, piece_hash, signed, state_root, summary_hash};
use crate::replica::log::entry::{self, Entry, Vote};
use crate::replica::log::ledger::Log;
use crate::replica::log::message::{Message, Need, Offer, Receipt};
use crate::replica::log::storage::Piece;
use crate::replica::log::summary;
use crate::replica::log::wire::{Head, Segment, Tip};
use crate::replica::place::{Incarnation, LogId, NodeId, Stamp};

/// What liars keep in mind, and what the world does of faults.
#[derive(Debug)]
pub(super) struct Liar {
    pub(super) victims: BTreeMap<usize, usize>,
    pub(super) backup: Option<(usize, Disk)>,
    /// Of each own log, what its machine has sent, and the other segments that some peers get from a number on.
    logs: BTreeMap<LogId, Twin>,
    overheard: VecDeque<Message>,
    offers: Vec<Message>,
    /// Logs of their own in which they sign what others sign, each for the ears of one.
    votes: BTreeMap<(usize, usize), Arc<Segment>>,
    pub(super) withholds: bool,
}

#[derive(Debug, Default)]
struct Twin {
    sent: BTreeMap<u64, Arc<Segment>>,
    from: Option<u64>,
    other: BTreeMap<u64, Arc<Segment>>,
}

impl Liar {
    pub(super) fn new(_plan: &Plan) -> Self {
        Self {
            victims: BTreeMap::new(),
            backup: None,
            logs: BTreeMap::new(),
            overheard: VecDeque::new(),
            offers: Vec::new(),
            votes: BTreeMap::new(),
            withholds: false,
        }
    }
}

impl World {
    /// What a liar sends in the place of what its machine says.
    pub(super) fn twist(&mut self, from: usize, to: usize, message: Message) -> Vec<Message> {
        let me = self.cast.nodes[from];
        match message {
            Message::Segment(segment) if segment.head.log.node == me => {
                let (log, seq) = (segment.head.log, segment.head.seq);
                let twin = self.liar.logs.entry(log).or_default();
                twin.sent.insert(seq, Arc::clone(&segment));
                let forked = twin.from.is_some_and(|at| seq >= at);
                if !forked || to.is_multiple_of(2) || self.healed {
                    return vec![Message::Segment(segment)];
                }
                self.counts.note("lies: other segments for some");
                vec![Message::Segment(self.other(from, &segment))]
            }
            Message::Segment(_) if self.liar.withholds && !self.healed => {
                self.counts.note("lies: segments withheld");
                Vec::new()
            }
            Message::Frontier(mut frontier) if self.liar.withholds && !self.healed => {
                self.counts.note("lies: frontiers of what is not there");
                for tip in &mut frontier.tips {
                    tip.seq += 3;
                    tip.hash = [7; 32];
                }
                vec![Message::Frontier(frontier)]
            }
            message => vec![message],
        }
    }

    /// The segment that others get in the place of this one.
    fn other(&mut self, liar: usize, segment: &Segment) -> Arc<Segment> {
        let (log, seq) = (segment.head.log, segment.head.seq);
        let twin = self.liar.logs.entry(log).or_default();
        if let Some(known) = twin.other.get(&seq) {
            return Arc::clone(known);
        }
        let previous = twin.other.get(&(seq - 1)).map_or(segment.head.previous, |before| before.hash);
        let id = self.oracle.invent(liar);
        let head = Head { previous, system: false, ..segment.head.clone() };
        let other = self.sign(liar, head, id);
        self.liar.logs.entry(log).or_default().other.insert(seq, Arc::clone(&other));
        other
    }

    fn sign(&mut self, liar: usize, head: Head, id: EntryId) -> Arc<Segment> {
        let body = encode(id, self.rng.random_range(0..6), 16);
        let payload = entry::payload(self.rng.random(), &[Entry::Plain(body)]);
        let keys = self.cast.keys[liar].clone();
        Arc::new(Segment::make(head, payload, |tip| (keys.sign)(&tip.signed(keys.service_key()))))
    }

    /// A message passes a liar's ears.
    pub(super) fn overhear(&mut self, from: usize, to: usize, message: &Message) {
        if !self.is_hostile(to) {
            return;
        }
        if matches!(message, Message::Segment(_) | Message::Receipt(_)) {
            self.liar.overheard.push_back(message.clone());
            if self.liar.overheard.len() > 200 {
                self.liar.overheard.pop_front();
            }
        }
        if matches!(message, Message::Offer(_)) && self.liar.offers.len() < 20 {
            self.liar.offers.push(message.clone());
        }
        if let Message::Segment(segment) = message
            && segment.head.system
            && segment.head.log.node == self.cast.nodes[from]
        {
            self.sign_too(to, from, segment);
        }
        if let Message::Segment(segment) = message
            && self.plan.false_receipts
            && segment.head.log.node == self.cast.nodes[from]
            && self.rng.random_bool(0.2)
        {
            self.counts.note("lies: receipts for what is not on disk");
            let keys = self.cast.keys[to].clone();
            let tip = Tip { seq: segment.head.seq + self.rng.random_range(0..3), ..segment.tip() };
            let signature = (keys.sign)(&tip.receipted(keys.service_key()));
            let _ = self.put(to, from, Message::Receipt(Receipt { tip, signature }));
        }
    }

    /// Signs whatever somebody else has signed, and says so to nobody but them.
    fn sign_too(&mut self, liar: usize, with: usize, segment: &Segment) {
        if self.healed || self.is_hostile(with) {
            return;
        }
        let keys = self.cast.keys[liar].clone();
        let signature = |statement: &[u8; 32]| (keys.sign)(&signed(keys.service_key(), statement));
        let votes: Vec<Entry> = entry::entries(&segment.payload)
            .unwrap_or_default()
            .into_iter()
            .filter_map(|entry| match entry {
                Entry::Vote(vote) => Some(Entry::Vote(Vote { signature: signature(&vote.statement), ..vote })),
                _ => None,
            })
            .collect();
        if votes.is_empty() {
            return;
        }
        self.counts.note("lies: votes for what others sign");
        let wall = self.wall(liar);
        let head = match self.liar.votes.get(&(liar, with)) {
            Some(before) => Head { seq: before.head.seq + 1, previous: before.hash, ..before.head.clone() },
            None => {
                let incarnation = Incarnation(self.rng.random());
                Head { system: true, ..first_head(LogId { node: keys.node, incarnation }, wall) }
            }
        };
        let payload = entry::payload(self.rng.random(), &votes);
        let segment = Arc::new(Segment::make(head, payload, |tip| (keys.sign)(&tip.signed(keys.service_key()))));
        self.liar.votes.insert((liar, with), Arc::clone(&segment));
        let _ = self.put(liar, with, Message::Segment(segment));
    }

    /// Something is said that no machine would say.
    pub(super) fn lie(&mut self) -> Checked {
        if self.healed {
            return Ok(());
        }
        let pause = super::between(&mut self.rng, 150, 700);
        self.after(pause, super::Event::Lie);
        let liar = self.nodes.len() - self.rng.random_range(1..=self.plan.liars);
        let Some(machine) = &self.nodes[liar].machine else { return Ok(()) };
        let log = machine.log();
        let honest = self.nodes.len() - self.plan.liars;
        let to = self.rng.random_range(0..honest);
        match self.rng.random_range(0..12) {
            0 | 1 if self.plan.forks => {
                let twin = self.liar.logs.entry(log).or_default();
                let last = twin.sent.keys().next_back().copied().unwrap_or_default();
                twin.from.get_or_insert(last + 1);
                self.counts.note("lies: forks begun");
            }
            2 if self.plan.forks => self.roll_back(liar, log, to)?,
            3 => {
                self.counts.note("lies: replays");
                for _ in 0..8 {
                    if self.liar.overheard.is_empty() {
                        break;
                    }
                    let at = self.rng.random_range(0..self.liar.overheard.len());
                    let message = self.liar.overheard[at].clone();
                    // A receipt of somebody else's is a forgery on this link.
                    if matches!(message, Message::Segment(_)) || self.rng.random_bool(0.05) {
                        self.put(liar, to, message)?;
                    }
                }
                for offer in self.liar.offers.clone() {
                    self.counts.note("lies: older checkpoints");
                    self.put(liar, to, offer)?;
                }
            }
            4 => self.liar.withholds = !self.liar.withholds,
            5 => self.forge(liar, to)?,
            6 => self.flood(liar, log, to)?,
            7 => self.depend_on_nothing(liar, log, to)?,
            8 => self.offer_nonsense(liar, to)?,
            9 if self.plan.forks => self.stand_beside(liar, log, to)?,
            _ => {
                for _ in 0..self.rng.random_range(1..4) {
                    self.append(liar)?;
                }
            }
        }
        Ok(())
    }

    /// As after a disk was rolled back: another segment for a place of long ago.
    fn roll_back(&mut self, liar: usize, log: LogId, to: usize) -> Checked {
        let Some(twin) = self.liar.logs.get(&log) else { return Ok(()) };
        let back = self.rng.random_range(1..4);
        let Some(segment) = twin.sent.values().nth_back(back).cloned() else { return Ok(()) };
        if segment.head.system {
            return Ok(());
        }
        self.counts.note("lies: rolled-back disks");
        let id = self.oracle.invent(liar);
        let other = self.sign(liar, segment.head.clone(), id);
        self.put(liar, to, Message::Segment(other))
    }

    /// Segments that stand beside what a checkpoint covers, and another one that names the last; only one node is shown them.
    fn stand_beside(&mut self, liar: usize, log: LogId, to: usize) -> Checked {
        let covered = self.nodes[to].machine.as_ref().and_then(|machine| machine.ledger().logs.get(&log));
        let Some(covered) = covered.filter(|log| log.settled > 0 && !log.is_final()) else { return Ok(()) };
        self.counts.note("lies: segments beside a checkpoint");
        let (first, wall) = (covered.settled + 1, self.wall(liar));
        let (mut previous, mut all) = (self.rng.random(), Vec::new());
        for seq in first..=first + self.rng.random_range(0..12) {
            let id = self.oracle.invent(liar);
            let beside = self.sign(liar, Head { seq, previous, ..first_head(log, wall) }, id);
            previous = beside.hash;
            all.push(beside);
        }
        let run = LogId { incarnation: Incarnation(self.rng.random()), ..log };
        let named = all.last().map(|last| last.tip());
        let head = Head { dependencies: named.into_iter().collect(), ..first_head(run, wall) };
        let id = self.oracle.invent(liar);
        all.push(self.sign(liar, head, id));
        if self.rng.random_bool(0.5) {
            all.reverse();
        }
        for segment in all {
            self.put(liar, to, Message::Segment(segment))?;
        }
        Ok(())
    }

    /// A segment in somebody else's name.
    fn forge(&mut self, liar: usize, to: usize) -> Checked {
        self.counts.note("lies: forged segments");
        let somebody = self.rng.random_range(0..self.nodes.len() - self.plan.liars);
        let log = LogId { node: self.cast.nodes[somebody], incarnation: Incarnation(self.rng.random()) };
        let id = self.oracle.invent(liar);
        let segment = self.sign(liar, first_head(log, self.wall(liar)), id);
        self.put(liar, to, Message::Segment(segment))
    }

    /// More than is allowed: bytes, or messages.
    fn flood(&mut self, liar: usize, log: LogId, to: usize) -> Checked {
        if self.rng.random_bool(0.3) {
            self.counts.note("lies: floods of messages");
            let tip = Tip { log, seq: 1, hash: [1; 32] };
            for _ in 0..2_500 {
                self.put(liar, to, Message::Need(Need { tip, back: 1 }))?;
            }
            return Ok(());
        }
        self.counts.note("lies: floods of segments");
        let payload = entry::payload([0; 16], &vec![Entry::Plain(vec![0; 60_000].into()); 4]);
        for n in 0..12 {
            let head = Head { seq: 1_000_000 + n, previous: [9; 32], ..first_head(log, self.wall(liar)) };
            let keys = self.cast.keys[liar].clone();
            let segment = Segment::make(head, payload.clone(), |tip| (keys.sign)(&tip.signed(keys.service_key())));
            self.put(liar, to, Message::Segment(Arc::new(segment)))?;
        }
        Ok(())
    }

    /// A checkpoint that nobody else has signed, of a state in which nothing was ever written.
    fn offer_nonsense(&mut self, liar: usize, to: usize) -> Checked {
        let Some(machine) = &self.nodes[liar].machine else { return Ok(()) };
        self.counts.note("lies: false checkpoints");
        let mut ledger = machine.ledger().clone();
        let log = LogId { node: self.cast.nodes[liar], incarnation: Incarnation(self.rng.random()) };
        let mut nothing = Log::begun(1);
        nothing.push_settled([0; 32], None, (1, 7), [7; 32]);
        nothing.settle();
        ledger.logs.insert(log, nothing);
        ledger.logs.values_mut().for_each(Log::settle);
        let summary = summary::encode(&ledger);
        let state = Application::default().to_bytes();
        let hashes = [piece_hash(&state)];
        let root = state_root(&hashes);
        let asked = Tip { log, seq: 7, hash: [7; 32] };
        let statement =
            Statement { asked, manifest: 1, summary: summary_hash(&summary), root, length: state.len() as u64 };
        let keys = self.cast.keys[liar].clone();
        let signature = (keys.sign)(&signed(keys.service_key(), &statement.hash()));
        let certificate = Certificate { statement, signatures: [(keys.node, signature)].into() };
        let pieces = hashes.as_flattened().to_vec().into();
        let offer = Offer { certificate: certificate.to_bytes(), summary, pieces };
        self.put(liar, to, Message::Offer(Box::new(offer)))?;
        self.put(liar, to, Message::Piece(Piece { root, index: 0, bytes: state.into() }))
    }

    /// A segment that needs what does not exist, or was written by nobody who is a member.
    fn depend_on_nothing(&mut self, liar: usize, log: LogId, to: usize) -> Checked {
        self.counts.note("lies: dependencies on nothing");
        let stranger = LogId { node: NodeId([5; 32]), incarnation: Incarnation([5; 16]) };
        let nothing = Tip { log: stranger, seq: 3, hash: [3; 32] };
        let run = LogId { incarnation: Incarnation(self.rng.random()), ..log };
        let head = Head { dependencies: vec![nothing], ..first_head(run, self.wall(liar)) };
        let id = self.oracle.invent(liar);
        let segment = self.sign(liar, head, id);
        self.put(liar, to, Message::Segment(segment))
    }
}

fn first_head(log: LogId, wall: u64) -> Head {
    Head {
        log,
        seq: 1,
        previous: [0; 32],
        stamp: Stamp { millis: wall, counter: 0 },
        manifest: 1,
        system: false,
        dependencies: Vec::new(),
        payload_root: [0; 32],
    }
}
