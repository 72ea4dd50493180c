//! Two machines under a seeded network and disk: frames wait, links break unnoticed, both dial at once, processes die before
//! and after a commit, disks refuse, backups are restored. At the end everything must be where it belongs, once.
//!
//! `HCP_SEEDS=n` runs more seeds, `HCP_SEED=n` that one.

mod tests;

use std::collections::{BTreeMap, BTreeSet, HashSet, VecDeque};
use std::time::{Duration, Instant};

use bytes::Bytes;
use prost::Message as _;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::{LinkId, Machine, Now, Output};
use crate::identity::{Identity, OnionAddress};
use crate::messenger::contact::ContactState;
use crate::messenger::message::{Direction, MessageId, MessageState};
use crate::messenger::store::{RowKind, Store};
use crate::messenger::text::{Name, Text};
use crate::wire::messenger_proto::{self as proto, frame::Body};

/// What is broken on purpose, to see that the invariants notice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Defect {
    None,
    /// How far an epoch has come is noted outside the transaction that stores what came.
    NotAtomic,
    /// Every opening begins the same epochs, as if they were counted.
    EpochsRepeat,
    /// What was lost is not asked back.
    NoRecall,
    /// A reader forgets where it was.
    CursorLost,
}

/// How often each fault happened.
#[derive(Debug, Default)]
struct Counts {
    frames: u64,
    cuts: u64,
    unnoticed: u64,
    crashes_before_commit: u64,
    crashes_after_commit: u64,
    disk_errors: u64,
    backups: u64,
    restores: u64,
    simultaneous: u64,
    cancelled: u64,
    recalled: u64,
    sent: u64,
}

struct Node {
    address: OnionAddress,
    machine: Option<Machine>,
    backup: Option<Store>,
    online: bool,
    /// What its application has shown, and up to which event.
    shown: Vec<MessageId>,
    cursor: u64,
    /// What its user wrote, in order; the number of the life it was written in comes first.
    written: Vec<(u64, MessageId)>,
    life: u64,
    restored: bool,
}

struct Wire {
    ends: [Option<LinkId>; 2],
    /// Towards each of the two.
    frames: [VecDeque<Bytes>; 2],
}

struct Sim {
    rng: StdRng,
    nodes: [Node; 2],
    wires: Vec<Wire>,
    dials: Vec<usize>,
    start: Instant,
    elapsed: Duration,
    next_link: u64,
    counts: Counts,
    defect: Defect,
}

impl Sim {
    fn new(seed: u64, defect: Defect) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let nodes = [0, 1].map(|_| {
            let identity = Identity::from_seed(&rng.random());
            let store = Store::in_memory(&identity);
            Node {
                address: identity.address(),
                machine: Some(Machine::new(identity.address(), store, rng.random())),
                backup: None,
                online: false,
                shown: Vec::new(),
                cursor: 0,
                written: Vec::new(),
                life: 0,
                restored: false,
            }
        });
        let start = Instant::now();
        let counts = Counts::default();
        Self {
            rng,
            nodes,
            wires: Vec::new(),
            dials: Vec::new(),
            start,
            elapsed: Duration::ZERO,
            next_link: 0,
            counts,
            defect,
        }
    }

    fn now(&self) -> Now {
        Now { instant: self.start + self.elapsed, millis: 1_000_000 + self.elapsed.as_millis() as u64 }
    }

    /// One step of a node in a transaction, which may fail or be the node's last.
    fn step<R>(&mut self, node: usize, fate: Fate, step: impl FnOnce(&mut Machine, Now) -> R) -> Option<R> {
        let now = self.now();
        let machine = self.nodes[node].machine.as_mut().unwrap();
        machine.store().begin().unwrap();
        let result = step(machine, now);
        machine.finish(now).unwrap();
        match fate {
            Fate::Good => {
                machine.store().commit().unwrap();
                let outputs = machine.take_outputs();
                self.carry_out(node, outputs);
                self.read_events(node);
                Some(result)
            }
            Fate::DiskError => {
                self.counts.disk_errors += 1;
                machine.store().rollback();
                machine.forget(now);
                let outputs = machine.take_outputs();
                self.carry_out(node, outputs);
                None
            }
            Fate::CrashBeforeCommit => {
                self.counts.crashes_before_commit += 1;
                machine.store().rollback();
                self.crash(node, None);
                None
            }
            Fate::CrashAfterCommit => {
                self.counts.crashes_after_commit += 1;
                machine.store().commit().unwrap();
                self.crash(node, None);
                self.read_events(node);
                Some(result)
            }
        }
    }

    /// The process dies; its links go, which the other side may not notice.
    fn crash(&mut self, node: usize, store: Option<Store>) {
        let machine = self.nodes[node].machine.take().unwrap();
        let store = store.unwrap_or(machine.store);
        let other = self.nodes[1 - node].address;
        let state = &mut self.nodes[node];
        let mut machine = Machine::new(state.address, store, self.rng.random());
        if self.defect == Defect::EpochsRepeat {
            let contact = machine.store.contact(&other).unwrap().unwrap().id;
            machine.openings.insert(contact, [7; 16]);
        }
        state.machine = Some(machine);
        state.online = false;
        state.life += 1;
        self.dials.retain(|dialler| *dialler != node);
        for wire in &mut self.wires {
            wire.ends[node] = None;
            wire.frames[node].clear();
        }
        self.read_events(node);
    }

    fn carry_out(&mut self, node: usize, outputs: Vec<Output>) {
        for output in outputs {
            match output {
                Output::Send(link, frame) => {
                    if self.defect == Defect::NoRecall
                        && matches!(proto::Frame::decode(&frame[..]).unwrap().body, Some(Body::Recall(_)))
                    {
                        continue;
                    }
                    if let Some(wire) = self.wires.iter_mut().find(|wire| wire.ends[node] == Some(link)) {
                        wire.frames[1 - node].push_back(frame);
                    }
                }
                Output::Close(link) => {
                    for wire in self.wires.iter_mut().filter(|wire| wire.ends[node] == Some(link)) {
                        wire.ends[node] = None;
                        wire.frames[node].clear();
                    }
                }
                Output::Dial(_) => self.dials.push(node),
                _ => {}
            }
        }
    }

    /// The application reads what is new, and notes where it is.
    fn read_events(&mut self, node: usize) {
        let state = &mut self.nodes[node];
        let store = state.machine.as_ref().unwrap().store();
        let from = if self.defect == Defect::CursorLost { state.cursor.saturating_sub(1) } else { state.cursor };
        for row in store.events(from, usize::MAX >> 1).unwrap() {
            if row.kind == RowKind::MessageReceived {
                state.shown.push(store.operation(row.subject as u64).unwrap().id);
            }
            state.cursor = row.cursor;
        }
    }

    fn fate(&mut self) -> Fate {
        match self.rng.random_range(0..200) {
            0 => Fate::CrashBeforeCommit,
            1 => Fate::CrashAfterCommit,
            2 => Fate::DiskError,
            _ => Fate::Good,
        }
    }

    fn go_online(&mut self, node: usize) {
        if !self.nodes[node].online {
            self.nodes[node].online = true;
            self.step(node, Fate::Good, |machine, now| machine.go_online(now).unwrap());
        }
    }

    fn dial(&mut self, index: usize, fails: bool) {
        let node = self.dials.swap_remove(index);
        let other = 1 - node;
        let peer = self.nodes[other].address;
        if fails || !self.nodes[other].online {
            self.step(node, Fate::Good, |machine, now| machine.dial_failed(&peer, now));
            return;
        }
        if self.wires.iter().any(|wire| wire.ends[0].is_some() && wire.ends[1].is_some()) {
            self.counts.simultaneous += 1;
        }
        let ids = [LinkId(self.next_link), LinkId(self.next_link + 1)];
        self.next_link += 2;
        self.wires.push(Wire { ends: ids.map(Some), frames: Default::default() });
        let me = self.nodes[node].address;
        self.step(node, Fate::Good, |machine, now| machine.link_up(ids[node], peer, true, now).unwrap());
        self.step(other, Fate::Good, |machine, now| machine.link_up(ids[other], me, false, now).unwrap());
    }

    /// Delivers some frames of a wire, or its end.
    fn deliver(&mut self, wire: usize, to: usize, fate: Fate) {
        let Some(link) = self.wires[wire].ends[to] else {
            self.wires[wire].frames[to].clear();
            return;
        };
        let count = self.rng.random_range(1..=4);
        let frames: Vec<Bytes> = (0..count).map_while(|_| self.wires[wire].frames[to].pop_front()).collect();
        if frames.is_empty() {
            if self.wires[wire].ends[1 - to].is_none() {
                self.wires[wire].ends[to] = None;
                self.step(to, Fate::Good, |machine, now| machine.link_down(link, now));
            }
            return;
        }
        self.counts.frames += frames.len() as u64;
        let returned =
            |frame: &Bytes| matches!(proto::Frame::decode(&frame[..]).unwrap().body, Some(Body::Returned(_)));
        self.counts.recalled += frames.iter().filter(|frame| returned(frame)).count() as u64;
        self.step(to, fate, |machine, now| {
            for frame in &frames {
                machine.handle_frame(link, frame, now).unwrap();
            }
        });
        if self.defect == Defect::NotAtomic && matches!(fate, Fate::DiskError | Fate::CrashBeforeCommit) {
            let store = self.nodes[to].machine.as_ref().unwrap().store();
            let contact = store.contact(&self.nodes[1 - to].address).unwrap().unwrap().id;
            for frame in &frames {
                if let Some(Body::Operation(operation)) = proto::Frame::decode(&frame[..]).unwrap().body {
                    let epoch = operation.epoch[..].try_into().unwrap();
                    store.set_epoch(contact, Direction::Incoming, &epoch, operation.seq).unwrap();
                }
            }
        }
    }

    fn write(&mut self, node: usize) {
        let (fate, to) = (self.fate(), self.nodes[1 - node].address);
        let text = Text::new(&format!("message {}", self.counts.sent)).unwrap();
        let id = self.step(node, fate, |machine, now| machine.send_text(to, &text, now).unwrap());
        if let Some(id) = id {
            self.counts.sent += 1;
            let life = self.nodes[node].life - u64::from(fate == Fate::CrashAfterCommit);
            self.nodes[node].written.push((life, id));
        }
    }

    fn cancel(&mut self, node: usize) {
        let machine = self.nodes[node].machine.as_ref().unwrap();
        let contact = machine.store().contact(&self.nodes[1 - node].address).unwrap().unwrap().id;
        let queued = machine.store().queued(contact, 10).unwrap();
        if queued.is_empty() {
            return;
        }
        let id = queued[self.rng.random_range(0..queued.len())].id;
        self.step(node, Fate::Good, |machine, _| machine.cancel(id).unwrap());
        // A backup may bring it back, and then it has no place among what was written before.
        self.nodes[node].written.retain(|(_, written)| *written != id);
        self.counts.cancelled += 1;
    }

    fn tick(&mut self, by: Duration) {
        self.elapsed += by;
        for node in 0..2 {
            self.step(node, Fate::Good, |machine, now| machine.handle_timeout(now));
        }
    }

    /// One thing that may happen.
    fn happen(&mut self, restorable: usize) {
        let node = self.rng.random_range(0..2);
        match self.rng.random_range(0..100) {
            0..45 if !self.wires.is_empty() => {
                let wire = self.rng.random_range(0..self.wires.len());
                let fate = self.fate();
                self.deliver(wire, node, fate);
            }
            45..60 => self.write(node),
            60..63 => self.cancel(node),
            63..73 if !self.dials.is_empty() => {
                let (index, fails) = (self.rng.random_range(0..self.dials.len()), self.rng.random_bool(0.1));
                self.dial(index, fails);
            }
            73..86 => {
                let by = if self.rng.random_bool(0.9) { 300..3_000 } else { 20_000..70_000 };
                let by = Duration::from_millis(self.rng.random_range(by));
                self.tick(by);
            }
            86..91 => self.go_online(node),
            91..94 if !self.wires.is_empty() => {
                // Both, one, or none of the two notices at once that the wire is gone.
                let wire = self.rng.random_range(0..self.wires.len());
                let wire = self.wires.swap_remove(wire);
                self.counts.cuts += 1;
                for (end, link) in wire.ends.into_iter().enumerate() {
                    let Some(link) = link else { continue };
                    if self.rng.random_bool(0.5) {
                        self.step(end, Fate::Good, |machine, now| machine.link_down(link, now));
                    } else {
                        self.counts.unnoticed += 1;
                        let mut ends = [None, None];
                        ends[end] = Some(link);
                        self.wires.push(Wire { ends, frames: Default::default() });
                    }
                }
            }
            94..96 => {
                self.counts.backups += 1;
                let copy = self.nodes[restorable].machine.as_ref().unwrap().store().copy();
                self.nodes[restorable].backup = Some(copy);
            }
            96..97 => {
                if let Some(backup) = self.nodes[restorable].backup.as_ref().map(Store::copy) {
                    self.counts.restores += 1;
                    let (_, newest) = backup.cursors().unwrap();
                    self.nodes[restorable].restored = true;
                    // What the application shows now is what its history holds.
                    self.nodes[restorable].cursor = newest;
                    let other = self.nodes[1 - restorable].address;
                    let contact = backup.contact(&other).unwrap().unwrap().id;
                    let texts = backup.texts(contact, None, usize::MAX >> 1).unwrap();
                    let shown = texts.iter().filter(|row| row.direction == Direction::Incoming).map(|row| row.id);
                    self.nodes[restorable].shown = shown.collect();
                    self.crash(restorable, Some(backup));
                }
            }
            97..98 => {
                self.counts.crashes_after_commit += 1;
                self.crash(node, None);
            }
            _ => {}
        }
    }

    /// Lets everything come to rest without further faults.
    fn settle(&mut self) -> Result<(), String> {
        for _ in 0..3_000 {
            for node in 0..2 {
                self.go_online(node);
            }
            while !self.dials.is_empty() {
                self.dial(0, false);
            }
            for wire in 0..self.wires.len() {
                for to in 0..2 {
                    self.deliver(wire, to, Fate::Good);
                }
            }
            self.wires.retain(|wire| wire.ends != [None, None]);
            if self.wires.iter().all(|wire| wire.frames.iter().all(VecDeque::is_empty)) {
                if self.at_rest() {
                    return Ok(());
                }
                // Half a link is noticed by its session's keepalive.
                let dead: Vec<_> = self.wires.iter().filter(|wire| wire.ends.contains(&None)).map(|w| w.ends).collect();
                for (end, link) in dead.into_iter().flat_map(|ends| ends.into_iter().enumerate()) {
                    if let Some(link) = link {
                        self.step(end, Fate::Good, |machine, now| machine.link_down(link, now));
                    }
                }
                self.wires.retain(|wire| !wire.ends.contains(&None));
                self.tick(Duration::from_secs(5));
            }
        }
        let states = self.nodes.iter().map(|node| {
            let machine = node.machine.as_ref().unwrap();
            let contact = machine.store().contacts().unwrap().pop().unwrap();
            let waiting = machine.store().count_queued(contact.id).unwrap();
            let own = machine.store().epochs(contact.id, Direction::Outgoing).unwrap();
            let theirs = machine.store().epochs(contact.id, Direction::Incoming).unwrap();
            let placed: Vec<_> = own
                .iter()
                .flat_map(|(epoch, _)| {
                    machine.store().placed(contact.id, Direction::Outgoing, epoch, 0, 10_000).unwrap()
                })
                .filter(|(_, row)| row.state != MessageState::Delivered)
                .map(|(seq, row)| (seq, row.state, row.is_text))
                .collect();
            format!(
                "{:?}, {waiting} wait, own {own:?}, theirs {theirs:?}, undelivered {placed:?}, {:?}",
                contact.state, machine.links
            )
        });
        Err(format!("never comes to rest: {}", states.collect::<Vec<_>>().join("; ")))
    }

    fn at_rest(&self) -> bool {
        let quiet = |node: &Node| {
            let machine = node.machine.as_ref().unwrap();
            let other = self.nodes.iter().find(|other| other.address != node.address).unwrap();
            let contact = machine.store().contact(&other.address).unwrap().unwrap();
            let texts = machine.store().texts(contact.id, None, usize::MAX >> 1).unwrap();
            let waits = |state| matches!(state, MessageState::Queued | MessageState::Written);
            let links = machine.links.values().filter(|link| link.sync.is_some()).count();
            contact.state == ContactState::Accepted
                && links == 1
                && !texts.iter().any(|row| waits(row.state))
                && machine.links.values().all(|link| link.sync.as_ref().is_none_or(|sync| sync.recalls.is_empty()))
        };
        self.nodes.iter().all(quiet)
    }

    /// Whatever must hold in the end.
    fn check(&self) -> Result<(), String> {
        let ids = |node: usize, direction| {
            let store = self.nodes[node].machine.as_ref().unwrap().store();
            let contact = store.contact(&self.nodes[1 - node].address).unwrap().unwrap().id;
            let rows = store.texts(contact, None, usize::MAX >> 1).unwrap();
            let rows =
                rows.into_iter().filter(move |row| row.direction == direction && row.state == MessageState::Delivered);
            rows.map(|row| row.id).collect::<Vec<_>>()
        };
        for node in 0..2 {
            let (sender, receiver) = (&self.nodes[node], &self.nodes[1 - node]);
            let (sent, arrived) = (ids(node, Direction::Outgoing), ids(1 - node, Direction::Incoming));
            let (sent_set, arrived_set): (BTreeSet<_>, BTreeSet<_>) =
                (sent.iter().copied().collect(), arrived.iter().copied().collect());
            if sent_set != arrived_set {
                let only = |a: &BTreeSet<MessageId>, b: &BTreeSet<MessageId>| a.difference(b).count();
                return Err(format!(
                    "of what {node} wrote, {} are only at the sender and {} only at the receiver",
                    only(&sent_set, &arrived_set),
                    only(&arrived_set, &sent_set)
                ));
            }
            let shown: HashSet<_> = receiver.shown.iter().collect();
            if shown.len() != receiver.shown.len() {
                return Err("something was shown twice".into());
            }
            if shown != arrived_set.iter().collect() {
                return Err("something that arrived was not shown".into());
            }
            if !sender.restored {
                let machine = sender.machine.as_ref().unwrap();
                let cancelled = |id| machine.store().text(id).unwrap().unwrap().state == MessageState::Cancelled;
                for (_, id) in &sender.written {
                    if !arrived_set.contains(id) && !cancelled(*id) {
                        return Err("something that was written is lost".into());
                    }
                }
            }
            // In the order in which they were written, within each life of a sender that was restored.
            let mut places = BTreeMap::new();
            for (place, id) in arrived.iter().enumerate() {
                places.insert(*id, place);
            }
            let mut last: BTreeMap<u64, usize> = BTreeMap::new();
            for (life, id) in &sender.written {
                let Some(place) = places.get(id) else { continue };
                let life = if sender.restored { *life } else { 0 };
                if last.insert(life, *place).is_some_and(|before| before > *place) {
                    return Err("something arrived before what was written before it".into());
                }
            }
        }
        Ok(())
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Good,
    DiskError,
    CrashBeforeCommit,
    CrashAfterCommit,
}

fn run(seed: u64, defect: Defect) -> (Result<(), String>, Counts) {
    let mut sim = Sim::new(seed, defect);
    let (alice, bob) = (sim.nodes[0].address, sim.nodes[1].address);
    let (nobody, greeting) = (Name::new("").unwrap(), Text::greeting("hello").unwrap());
    sim.step(0, Fate::Good, |machine, _| machine.request(bob, &nobody, &greeting).unwrap());
    if seed.is_multiple_of(2) {
        // Both ask; otherwise one asks and the other accepts.
        sim.step(1, Fate::Good, |machine, _| machine.request(alice, &nobody, &greeting).unwrap());
    }
    let mut accepted = seed.is_multiple_of(2);
    let restorable = (seed / 2 % 2) as usize;
    for _ in 0..10_000 {
        if accepted {
            break;
        }
        for node in 0..2 {
            sim.go_online(node);
        }
        while !sim.dials.is_empty() {
            sim.dial(0, false);
        }
        for wire in 0..sim.wires.len() {
            sim.deliver(wire, 0, Fate::Good);
            sim.deliver(wire, 1, Fate::Good);
        }
        sim.tick(Duration::from_secs(1));
        let pending = sim.nodes[1].machine.as_ref().unwrap().store().contact(&alice).unwrap();
        if pending.is_some_and(|row| row.state == ContactState::Pending) {
            sim.step(1, Fate::Good, |machine, _| machine.accept(alice).unwrap());
            accepted = true;
        }
    }
    for _ in 0..400 {
        sim.happen(restorable);
    }
    let result = sim.settle().and_then(|()| sim.check());
    (result, sim.counts)
}
