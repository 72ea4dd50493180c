//! Two machines under a seeded network and disk: frames wait, links break unnoticed, both dial at once, processes die before
//! and after a commit, disks refuse, backups of either side are restored. At the end everything must be where it belongs,
//! once.
//!
//! `HCP_SEEDS=n` runs more seeds, `HCP_SEED=n` that one.

mod check;
mod counts;
mod files;
mod tests;
mod users;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use bytes::Bytes;
use prost::Message as _;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use self::counts::Counts;
use super::links::MAX_EPOCHS;
use super::{LinkId, Machine, Now, Output};
use crate::identity::{Identity, OnionAddress};
use crate::messenger::contact::ContactState;
use crate::messenger::message::{Direction, MessageId, MessageState};
use crate::messenger::store::{ContactRow, RowKind, Store, message_state};
use crate::messenger::text::{Name, Text};
use crate::messenger::transfer::TransferId;
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
    /// Ends of transfers are taken in and change nothing.
    EndsUnread,
    /// Ends of transfers that wait are taken back with what else waits for somebody who is taken off the list.
    EndsTakenBack,
}

struct Node {
    address: OnionAddress,
    machine: Option<Machine>,
    backup: Option<Store>,
    online: bool,
    /// What its application has shown, and up to which event.
    shown: Vec<MessageId>,
    offers: Vec<TransferId>,
    cursor: u64,
    /// Files that its process fetches, and over which link.
    fetches: BTreeMap<TransferId, LinkId>,
    /// How much of each accepted file lies on its disk, whatever becomes of the profile.
    disk: BTreeMap<PathBuf, u64>,
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
    /// Who may be restored.
    restorable: Vec<usize>,
    /// How many epochs each remembers of the other.
    max_epochs: usize,
    /// Whether the two may take each other off their lists.
    may_part: bool,
    /// Operations that must be there in the end, each with who wrote it; as of the last restore.
    kept: BTreeSet<(usize, MessageId)>,
    /// Messages that their writer took back, in whatever life.
    taken_back: BTreeSet<MessageId>,
    /// Offered files that are changed before anybody fetches them.
    changed: BTreeSet<TransferId>,
    /// Files that have come whole.
    complete: BTreeSet<TransferId>,
    /// How the two broke the protocol, as each says of the other.
    violations: Vec<&'static str>,
    counts: Counts,
    defect: Defect,
}

impl Sim {
    fn new(seed: u64, defect: Defect) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let forgetful = seed.is_multiple_of(7);
        let max_epochs = if forgetful { 2 } else { MAX_EPOCHS };
        let nodes = [0, 1].map(|_| {
            let identity = Identity::from_seed(&rng.random());
            let store = Store::in_memory(&identity);
            let mut machine = Machine::new(identity.address(), store, rng.random());
            machine.max_epochs = max_epochs;
            Node {
                address: identity.address(),
                machine: Some(machine),
                backup: None,
                online: false,
                shown: Vec::new(),
                offers: Vec::new(),
                cursor: 0,
                fetches: BTreeMap::new(),
                disk: BTreeMap::new(),
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
            // What is forgotten on purpose cannot be given back: nobody loses anything then.
            restorable: match seed / 2 % 4 {
                _ if forgetful => vec![],
                0 => vec![0],
                1 => vec![1],
                _ => vec![0, 1],
            },
            max_epochs,
            may_part: seed.is_multiple_of(3),
            kept: BTreeSet::new(),
            taken_back: BTreeSet::new(),
            changed: BTreeSet::new(),
            complete: BTreeSet::new(),
            violations: Vec::new(),
            counts,
            defect,
        }
    }

    fn machine(&self, node: usize) -> &Machine {
        self.nodes[node].machine.as_ref().unwrap()
    }

    fn store(&self, node: usize) -> &Store {
        self.machine(node).store()
    }

    /// The other, as a node has it in its list.
    fn contact(&self, node: usize) -> Option<ContactRow> {
        self.store(node).contact(&self.nodes[1 - node].address).unwrap()
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
        self.violations.append(&mut machine.violations);
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
        machine.max_epochs = self.max_epochs;
        if self.defect == Defect::EpochsRepeat
            && let Some(contact) = machine.store.contact(&other).unwrap()
        {
            machine.openings.insert(contact.id, [7; 16]);
        }
        state.machine = Some(machine);
        state.online = false;
        state.life += 1;
        state.fetches.clear();
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
                Output::Fetch(id, link) => {
                    self.nodes[node].fetches.insert(id, link);
                }
                Output::Abort(id) => {
                    self.nodes[node].fetches.remove(&id);
                }
                Output::StopDial(_) | Output::Live(..) | Output::Discard(_) | Output::Passed(_) => {}
            }
        }
    }

    /// The application reads what is new, and notes where it is.
    fn read_events(&mut self, node: usize) {
        let state = &mut self.nodes[node];
        let store = state.machine.as_ref().unwrap().store();
        let from = if self.defect == Defect::CursorLost { state.cursor.saturating_sub(1) } else { state.cursor };
        for row in store.events(from, usize::MAX >> 1).unwrap() {
            match row.kind {
                RowKind::MessageReceived => state.shown.push(store.operation(row.subject as u64).unwrap().id),
                RowKind::TransferOffered => state.offers.push(store.transfer_at(row.subject as u64).unwrap().id),
                // A backup may bring back what has come to nothing, and then it has no place among what was written before.
                RowKind::MessageState if has_failed(message_state(row.state).unwrap()) => {
                    let id = store.operation(row.subject as u64).unwrap().id;
                    state.written.retain(|(_, written)| *written != id);
                }
                _ => {}
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
            let Some(ContactRow { id: contact, .. }) = self.contact(to) else { return };
            let store = self.store(to);
            for frame in &frames {
                if let Some(Body::Operation(operation)) = proto::Frame::decode(&frame[..]).unwrap().body {
                    let epoch = operation.epoch[..].try_into().unwrap();
                    store.set_epoch(contact, Direction::Incoming, &epoch, operation.seq).unwrap();
                }
            }
        }
        if self.defect == Defect::EndsUnread {
            self.reopen_transfers(to);
        }
    }

    fn tick(&mut self, by: Duration) {
        self.elapsed += by;
        for node in 0..2 {
            self.step(node, Fate::Good, |machine, now| machine.handle_timeout(now));
        }
    }

    /// One thing that may happen.
    fn happen(&mut self) {
        let node = self.rng.random_range(0..2);
        match self.rng.random_range(0..100) {
            0..45 if !self.wires.is_empty() => {
                let wire = self.rng.random_range(0..self.wires.len());
                let fate = self.fate();
                self.deliver(wire, node, fate);
            }
            45..56 => {
                let fate = self.fate();
                self.write(node, fate);
            }
            // More than is on its way at once.
            56 if self.rng.random_bool(0.15) => {
                for _ in 0..100 {
                    self.write(node, Fate::Good);
                }
            }
            57..59 => self.cancel(node),
            59..61 => self.offer(node),
            61..64 => self.answer(node),
            64 if self.rng.random_bool(0.2) => self.cancel_file(node),
            65..70 => (0..3).for_each(|_| self.fetch(node, Self::fate)),
            70..78 if !self.dials.is_empty() => {
                let (index, fails) = (self.rng.random_range(0..self.dials.len()), self.rng.random_bool(0.1));
                self.dial(index, fails);
            }
            78..86 => {
                let by = if self.rng.random_bool(0.9) { 300..3_000 } else { 20_000..70_000 };
                let by = Duration::from_millis(self.rng.random_range(by));
                self.tick(by);
            }
            86..91 => self.go_online(node),
            91..94 if !self.wires.is_empty() => self.cut(),
            94..97 if self.restorable.is_empty() => {}
            94..96 => {
                let node = self.restorable[self.rng.random_range(0..self.restorable.len())];
                self.back_up(node);
            }
            96 => {
                let node = self.restorable[self.rng.random_range(0..self.restorable.len())];
                self.restore(node);
            }
            97 => {
                self.counts.crashes_after_commit += 1;
                self.crash(node, None);
            }
            98 => self.befriend(node),
            99 if self.may_part && self.rng.random_bool(0.4) => self.part(node),
            _ => {}
        }
    }

    /// A wire is gone: both, one, or none of the two notices at once.
    fn cut(&mut self) {
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

    /// Lets everything come to rest without further faults.
    fn settle(&mut self) -> Result<(), String> {
        for _ in 0..3_000 {
            for node in 0..2 {
                self.go_online(node);
                self.befriend(node);
            }
            while !self.dials.is_empty() {
                self.dial(0, false);
            }
            for wire in 0..self.wires.len() {
                for to in 0..2 {
                    self.deliver(wire, to, Fate::Good);
                }
            }
            for node in 0..2 {
                self.fetch(node, |_| Fate::Good);
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
        Err(format!("never comes to rest: {}", self.describe()))
    }
}

/// Whether an operation will never arrive, unless another life brings it back.
fn has_failed(state: MessageState) -> bool {
    matches!(state, MessageState::Cancelled | MessageState::Failed(_))
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
    if (seed / 8).is_multiple_of(4) {
        // Of a profile that knows nobody yet.
        for node in sim.restorable.clone() {
            sim.back_up(node);
        }
    }
    sim.step(0, Fate::Good, |machine, _| machine.request(bob, &nobody, &greeting).unwrap());
    if seed.is_multiple_of(2) {
        // Both ask; otherwise one asks and the other accepts.
        sim.step(1, Fate::Good, |machine, _| machine.request(alice, &nobody, &greeting).unwrap());
    }
    let mut accepted = seed.is_multiple_of(2);
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
        if sim.contact(1).is_some_and(|row| row.state == ContactState::Pending) {
            sim.befriend(1);
            accepted = true;
        }
    }
    for _ in 0..500 {
        sim.happen();
    }
    sim.counts.both_restored += u64::from(sim.nodes.iter().all(|node| node.restored));
    let result = sim.settle().and_then(|()| sim.check());
    if sim.max_epochs < MAX_EPOCHS {
        sim.counts.forgotten = sim.forgotten();
    }
    (result, sim.counts)
}
