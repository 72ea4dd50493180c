//! Machines under a seeded network, with relays, directories and clients as far as they matter.
//!
//! A run takes its seed and nothing else. What must hold:
//!
//! - A client that begins ten seconds or more after a single fault, with a descriptor that it fetches or has cached, reaches a
//!   live node at its first or second point, and sends no introduction to a node that is frozen or cut off.
//! - An owner never takes back a point that a successor has; of two successors that are not parted only one establishes it.
//! - No introduction that a node accepted, and had time to tell of, is accepted again.
//! - Once nothing happens any more, all agree on one publisher for each period and only that one uploads; every live node is
//!   listed, nobody else is, and every live node knows that it can be reached.
//! - Uploads of one node and period are bounded in every minute.
//! - No member ever gets more than its share of a descriptor, and what a machine keeps is bounded.
//! - A node that stops takes its points away only when no descriptor lists them, or its successors have them.
//!
//! What holds in the end holds but for chance, as probes and choices of points are drawn: a live node may be reached by none for
//! five minutes, or be doubted by one, and a liar be found out late. Such a run goes on for as long as its plan has patience, is
//! counted, and has to come to the same end.
//!
//! `HCP_SEEDS=n` runs more seeds, `HCP_SEED=n` that one.

mod clients;
mod faults;
mod hostile;
mod links;
mod points;
mod tests;
mod verdict;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use self::clients::Clients;
use self::faults::Fault;
use self::links::Pair;
use self::points::{Directory, Registration, SlotSim};
use super::gossip::{Message, Record, Sign};
use super::machine::{Config, Input, Machine, Notice, Output, Slot, UploadId};
use super::roster::{Role, Roster};
use crate::identity::{Identity, OnionAddress};
use crate::network::onion::{DirectoryView, Period, PeriodView, PointDescription, PointId, RelayId};

type Checked = Result<(), String>;

/// How a run is laid out.
#[derive(Clone, Debug)]
struct Plan {
    nodes: usize,
    relays: u16,
    /// Directories of each period.
    directories: u8,
    /// What happens, one after the other.
    faults: Vec<Fault>,
    /// A member that lies.
    hostile: bool,
    /// Members that hold no material.
    without_material: usize,
    skewed: bool,
    /// Everything goes through bytes, with real signatures.
    bytes: bool,
    clients: bool,
    /// How long nothing happens at the end.
    quiet: Duration,
    /// How much longer the verdict may take to be reached, when chance has it that a probe reached nobody, say.
    patience: Duration,
    /// How long the nodes have before anything happens.
    warm: Duration,
}

/// How often each thing happened.
#[derive(Clone, Debug, Default)]
struct Counts(BTreeMap<&'static str, u64>);

impl Counts {
    fn note(&mut self, what: &'static str) {
        *self.0.entry(what).or_default() += 1;
    }

    fn add(&mut self, other: &Self) {
        for (what, count) in &other.0 {
            *self.0.entry(what).or_default() += count;
        }
    }
}

/// What happens at a node, later if it is frozen.
#[derive(Debug)]
enum NodeEvent {
    Tick,
    Input(Box<Input>),
    /// A message that came over the pair's link of that number.
    Arrived {
        from: usize,
        link: u64,
        message: Box<Message>,
    },
    LinkUp {
        with: usize,
        link: u64,
    },
    LinkDown {
        with: usize,
        link: u64,
    },
    Dial {
        to: usize,
    },
    DialDone {
        to: usize,
    },
    /// The last cell of an establishment is about to go out.
    Establish {
        slot: Slot,
        relay: RelayId,
        until: Option<Duration>,
        result: Duration,
    },
    UploadNow {
        upload: UploadId,
    },
    Start,
}

#[derive(Debug)]
enum Event {
    Node {
        node: usize,
        life: u64,
        what: NodeEvent,
    },
    /// A relay notices that a circuit is gone.
    Unregister {
        point: PointId,
        node: usize,
        life: u64,
        slot: Slot,
    },
    Client,
    Fault(usize),
    Heal(usize),
    /// A step of a rolling restart.
    Stop(usize),
    Check,
}

struct Node {
    address: OnionAddress,
    identity: Identity,
    role: Role,
    machine: Option<Machine>,
    /// Counts runs of the process.
    life: u64,
    /// Since when it is frozen, and what has come since.
    frozen: Option<Duration>,
    inbox: Vec<NodeEvent>,
    /// When it last went on.
    resumed: Option<Duration>,
    /// Cut off from everything.
    cut: bool,
    /// Since when it stops, and whether it is started again after that.
    stopping: Option<Duration>,
    comes_back: bool,
    started: Duration,
    incarnation: u64,
    /// The beginning of its clock, which is nobody else's, and how wrong its wall clock is.
    boot: Duration,
    skew: i64,
    ticks: Duration,
    slots: BTreeMap<Slot, SlotSim>,
    uploads: BTreeMap<UploadId, Flight>,
    revisions: BTreeMap<Period, u64>,
    uploaded: Vec<(Duration, Period)>,
    backoff: BTreeMap<usize, Duration>,
}

/// An upload under way: its period, its revision, and what goes to which directories.
type Flight = (Period, u64, Vec<(Vec<RelayId>, Vec<PointDescription>)>);

struct World {
    rng: StdRng,
    plan: Plan,
    now: Duration,
    calendar: BTreeMap<(Duration, u64), Event>,
    entries: u64,
    nodes: Vec<Node>,
    pairs: BTreeMap<(usize, usize), Pair>,
    links: u64,
    relays: HashMap<PointId, Registration>,
    /// Where nodes have points being established, until when: they put no other one there.
    choices: Vec<(usize, RelayId, Duration)>,
    slow_relays: HashSet<RelayId>,
    dead_relays: HashSet<RelayId>,
    owners: HashMap<PointId, usize>,
    /// What the member that lies last said of itself before it was made a lie.
    truth: Option<Record>,
    directories: HashMap<(RelayId, Period), Directory>,
    periods: Vec<Period>,
    ring: u8,
    clients: Clients,
    /// When something last began to be wrong or was healed, and whether something is wrong.
    disturbed: Duration,
    healed: Duration,
    broken: bool,
    rolling: bool,
    /// When the fault before the present one was healed.
    base: Duration,
    /// Whom the present one hit.
    hit: Vec<usize>,
    counts: Counts,
    failed: Option<String>,
}

/// Runs whose verdict took longer than they were given.
const LATE: &str = "verdicts that took longer";
/// Between two looks for such a verdict.
const AGAIN: Duration = Duration::from_secs(30);
const START: Duration = Duration::from_secs(1_000);
const WALL: u64 = 1_790_000_000;

fn between(rng: &mut StdRng, from: u64, to: u64) -> Duration {
    Duration::from_millis(rng.random_range(from..to))
}

impl World {
    fn new(seed: u64, plan: Plan) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let nodes: Vec<_> = (0..plan.nodes)
            .map(|index| {
                let identity = Identity::from_seed(&rng.random());
                let hostile = plan.hostile && index == 0;
                Node {
                    address: identity.address(),
                    identity,
                    role: if hostile { Role::Listed } else { Role::Publisher },
                    machine: None,
                    life: 0,
                    frozen: None,
                    inbox: Vec::new(),
                    resumed: None,
                    cut: false,
                    stopping: None,
                    comes_back: false,
                    started: Duration::ZERO,
                    incarnation: 0,
                    boot: between(&mut rng, 0, 900_000),
                    skew: if plan.skewed { [-90_000, 0, 90_000][index % 3] } else { 0 },
                    ticks: Duration::ZERO,
                    slots: BTreeMap::new(),
                    uploads: BTreeMap::new(),
                    revisions: BTreeMap::new(),
                    uploaded: Vec::new(),
                    backoff: BTreeMap::new(),
                }
            })
            .collect();
        let mut world = Self {
            slow_relays: (0..plan.relays).filter(|_| rng.random_bool(0.1)).map(relay).collect(),
            choices: Vec::new(),
            dead_relays: HashSet::new(),
            rng,
            now: START,
            calendar: BTreeMap::new(),
            entries: 0,
            pairs: BTreeMap::new(),
            links: 0,
            relays: HashMap::new(),
            owners: HashMap::new(),
            truth: None,
            directories: HashMap::new(),
            periods: [0, 1].map(|next| Period { number: 7 + next, length: 1_440, offset: 43_200 }).to_vec(),
            ring: 0,
            clients: Clients::default(),
            disturbed: START,
            healed: START,
            broken: false,
            rolling: false,
            base: START,
            hit: Vec::new(),
            counts: Counts::default(),
            failed: None,
            nodes,
            plan,
        };
        for one in 0..world.nodes.len() {
            for two in one + 1..world.nodes.len() {
                let latency = between(&mut world.rng, 30, 250);
                world.pairs.insert((one, two), Pair::new(latency));
            }
        }
        for node in 0..world.nodes.len() {
            let at = world.now + between(&mut world.rng, 0, 6_000);
            world.at_node(at, node, NodeEvent::Start);
        }
        world
    }

    /// Runs to the end, and says what did not hold.
    fn run(mut self) -> (Result<(), String>, Counts) {
        let mut at = START + self.plan.warm;
        for fault in 0..self.plan.faults.len() {
            self.at(at, Event::Fault(fault));
            at += self.plan.faults[fault].lasts()
                + Duration::from_secs(if fault + 1 < self.plan.faults.len() { 110 } else { 0 });
        }
        let end = at + self.plan.quiet;
        self.at(START + Duration::from_secs(1), Event::Check);
        if self.plan.clients {
            self.at(START + Duration::from_secs(50), Event::Client);
        }
        let patient = end + self.plan.patience;
        let mut until = end;
        let verdict = loop {
            if let Err(reason) = self.run_until(until) {
                return (Err(reason), self.counts);
            }
            match self.verdict() {
                Err(_) if until < patient => {
                    if until == end {
                        self.counts.note(LATE);
                    }
                    until = (until + AGAIN).min(patient);
                }
                verdict => break verdict,
            }
        };
        let verdict = verdict.map_err(|reason| format!("at the end: {reason}; {:?}", self.plan.faults));
        (verdict, self.counts)
    }

    fn run_until(&mut self, until: Duration) -> Checked {
        while let Some(entry) = self.calendar.first_entry().filter(|entry| entry.key().0 <= until) {
            let ((when, _), event) = entry.remove_entry();
            self.now = when;
            let result = self.happen(event);
            let failed = self.failed.take();
            if let Err(reason) = result.and(failed.map_or(Ok(()), Err)) {
                let at = self.now - START;
                return Err(format!("after {at:.1?}: {reason}; {:?}", self.plan.faults));
            }
        }
        Ok(())
    }

    fn at(&mut self, when: Duration, event: Event) {
        self.entries += 1;
        self.calendar.insert((when.max(self.now), self.entries), event);
    }

    fn at_node(&mut self, when: Duration, node: usize, what: NodeEvent) {
        let life = self.nodes[node].life;
        self.at(when, Event::Node { node, life, what });
    }

    fn input_at(&mut self, when: Duration, node: usize, input: Input) {
        self.at_node(when, node, NodeEvent::Input(Box::new(input)));
    }

    fn happen(&mut self, event: Event) -> Checked {
        match event {
            Event::Node { node, life, what } => {
                if self.nodes[node].life != life {
                    return Ok(());
                }
                if let Some(since) = self.nodes[node].frozen {
                    // What had left the node is on its way.
                    let gone = matches!(what, NodeEvent::Establish { .. } | NodeEvent::UploadNow { .. })
                        && self.now - since < Duration::from_millis(300);
                    if !gone {
                        if !matches!(what, NodeEvent::Tick) {
                            self.nodes[node].inbox.push(what);
                        }
                        return Ok(());
                    }
                }
                self.node_event(node, what)
            }
            Event::Unregister { point, node, life, slot } => {
                if self.relays.get(&point).is_some_and(|at| (at.node, at.life, at.slot) == (node, life, slot)) {
                    self.relays.remove(&point);
                }
                Ok(())
            }
            Event::Client => {
                let next = self.now + between(&mut self.rng, 300, 1_500);
                self.at(next, Event::Client);
                self.client()
            }
            Event::Fault(fault) => self.begin_fault(fault),
            Event::Heal(fault) => self.heal_fault(fault),
            Event::Stop(node) => self.step_stop(node),
            Event::Check => {
                self.at(self.now + Duration::from_secs(1), Event::Check);
                self.check()
            }
        }
    }

    fn node_event(&mut self, node: usize, what: NodeEvent) -> Checked {
        match what {
            NodeEvent::Tick => {
                let due = self.nodes[node].machine.as_ref().is_some_and(|m| m.poll_timeout() <= self.boottime(node));
                if due { self.feed(node, Input::Tick) } else { Ok(()) }
            }
            NodeEvent::Input(input) => self.feed(node, *input),
            NodeEvent::Start => self.start(node),
            NodeEvent::Arrived { from, link, message } => self.arrived(node, from, link, *message),
            NodeEvent::LinkUp { with, link } => self.link_is_up(node, with, link),
            NodeEvent::LinkDown { with, link } => self.link_is_down(node, with, link),
            NodeEvent::Dial { to } => {
                self.dial(node, to);
                Ok(())
            }
            NodeEvent::DialDone { to } => self.dial_done(node, to),
            NodeEvent::Establish { slot, relay, until, result } => {
                self.establish_at_relay(node, slot, relay, until, result)
            }
            NodeEvent::UploadNow { upload } => {
                self.upload_arrives(node, upload);
                Ok(())
            }
        }
    }

    fn boottime(&self, node: usize) -> Duration {
        self.now + self.nodes[node].boot
    }

    fn wall(&self, node: usize) -> u64 {
        let millis = WALL * 1_000 + (self.now - START).as_millis() as u64;
        millis.saturating_add_signed(self.nodes[node].skew)
    }

    fn start(&mut self, node: usize) -> Checked {
        let members = self.nodes.iter().map(|node| (node.address, node.role));
        let roster = Roster::new(members).unwrap();
        let sign: Sign = if self.plan.bytes {
            let identity = self.nodes[node].identity.clone();
            Arc::new(move |message| identity.sign(message))
        } else {
            Arc::new(|_| [0; 64])
        };
        let config = Config { service: service(), me: self.nodes[node].address, sign, roster };
        let (now, wall, seed) = (self.boottime(node), self.wall(node), self.rng.random());
        let state = &mut self.nodes[node];
        state.incarnation = wall;
        state.machine = Some(Machine::new(config, now, wall, seed));
        state.started = self.now;
        state.stopping = None;
        state.ticks = Duration::ZERO;
        self.counts.note("starts");
        self.feed(node, Input::View(self.view()))?;
        if node + self.plan.without_material < self.nodes.len() {
            self.feed(node, Input::Material(self.material()))?;
        }
        for other in 0..self.nodes.len() {
            if self.nodes[node].address < self.nodes[other].address {
                let at = self.now + between(&mut self.rng, 100, 1_500);
                self.at_node(at, node, NodeEvent::Dial { to: other });
            }
        }
        Ok(())
    }

    fn view(&self) -> DirectoryView {
        let periods =
            self.periods.iter().map(|period| PeriodView { period: *period, directories: self.ring_of(period) });
        DirectoryView { periods: periods.collect() }
    }

    fn ring_of(&self, period: &Period) -> Vec<RelayId> {
        (0..self.plan.directories).map(|index| directory(period.number as u8, index.wrapping_add(self.ring))).collect()
    }

    fn material(&self) -> BTreeSet<Period> {
        let first = self.periods[0];
        (0..6).map(|after| Period { number: first.number + after, ..first }).collect()
    }

    /// Tells a machine something and carries out what it answers.
    fn feed(&mut self, node: usize, input: Input) -> Checked {
        let (now, wall) = (self.boottime(node), self.wall(node));
        let Some(machine) = self.nodes[node].machine.as_mut() else { return Ok(()) };
        machine.handle(now, wall, input);
        while let Some(output) = self.nodes[node].machine.as_mut().and_then(Machine::poll_output) {
            self.carry_out(node, output)?;
        }
        if let Some(machine) = self.nodes[node].machine.as_ref() {
            let due = machine.poll_timeout().saturating_sub(self.nodes[node].boot).max(self.now);
            if self.nodes[node].ticks != due || due == self.now {
                self.nodes[node].ticks = due;
                self.at_node(due.max(self.now + Duration::from_micros(10)), node, NodeEvent::Tick);
            }
        }
        Ok(())
    }

    fn carry_out(&mut self, node: usize, output: Output) -> Checked {
        match output {
            Output::Establish { slot, place, secrets, seen, until } => {
                self.establish(node, slot, place, &secrets, seen, until)
            }
            Output::Withdraw(slot) => self.withdraw(node, slot)?,
            Output::Upload { upload, period, not_before, listings } => {
                self.upload(node, upload, period, not_before, listings)?;
            }
            Output::Send(to, message) => {
                let to = self.index(to);
                self.send(node, to, message)?;
            }
            Output::Redial(to) => {
                let to = self.index(to);
                self.counts.note("links made anew");
                self.close_link(node, to);
            }
            Output::Probe(nonce) => self.probe(node, nonce),
            Output::Check(point) => self.ask_relay(node, point),
            Output::Notice(notice) => self.counts.note(match notice {
                Notice::Died(_) => "deaths told",
                Notice::Returned(_) => "returns told",
                Notice::TookOver { .. } => "takeovers told",
                Notice::Published { .. } => "publications told",
            }),
            Output::Stopped => {
                self.counts.note("clean stops");
                let comes_back = std::mem::take(&mut self.nodes[node].comes_back);
                self.end_process(node);
                // Its points have just changed hands.
                self.disturbed = self.now;
                if comes_back {
                    self.at_node(self.now + Duration::from_secs(2), node, NodeEvent::Start);
                }
            }
        }
        Ok(())
    }

    fn index(&self, member: OnionAddress) -> usize {
        self.nodes.iter().position(|node| node.address == member).unwrap()
    }

    /// Whether a node runs and the rest of the world can reach it.
    fn serves(&self, node: usize) -> bool {
        let node = &self.nodes[node];
        node.machine.is_some() && node.frozen.is_none() && !node.cut
    }

    fn is_hostile(&self, node: usize) -> bool {
        self.plan.hostile && node == 0
    }
}

fn service() -> OnionAddress {
    Identity::from_seed(&[200; 32]).address()
}

fn relay(index: u16) -> RelayId {
    let mut id = [100; 32];
    id[..2].copy_from_slice(&index.to_be_bytes());
    RelayId(id)
}

fn directory(period: u8, index: u8) -> RelayId {
    let mut id = [200; 32];
    (id[0], id[1]) = (period, index);
    RelayId(id)
}
