//! Logs under a seeded network, with disks, crashes and members that lie.
//!
//! A run takes its seed and nothing else. What must hold:
//!
//! - After everything has healed, all honest nodes have applied the same entries and are in the same state.
//! - An entry that an honest node holds durably, or has confirmed to hold, is there while one honest holder is.
//! - Nothing is applied twice, nothing before what its author had seen, nothing that its author did not write.
//! - Every honest node can write, and everybody gets it, whatever was forked, removed or lost.
//! - In the end all honest nodes hold the same checkpoint.
//! - What a machine keeps is bounded.
//!
//! `HCP_SEEDS=n` runs more seeds, `HCP_SEED=n` that one.

mod application;
pub(super) mod cast;
pub(super) mod disk;
mod faults;
mod hostile;
mod network;
mod plan;
mod process;
mod scenarios;
mod tests;
mod verdict;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use self::application::{Application, EntryId, Oracle};
use self::cast::Cast;
use self::disk::{Disk, Writing};
use self::hostile::Liar;
use self::network::Pair;
use self::plan::Plan;
use super::machine::{AppendId, Input, Machine, Stop};
use super::message::Message;
use super::storage::{BatchId, Hash, Read, ReadId};
use super::wire::Tip;
use crate::replica::place::LogId;

type Checked = Result<(), String>;

/// How often each thing happened.
#[derive(Clone, Debug, Default)]
struct Counts(BTreeMap<&'static str, u64>);

impl Counts {
    fn note(&mut self, what: &'static str) {
        self.add_to(what, 1);
    }

    fn add_to(&mut self, what: &'static str, count: u64) {
        *self.0.entry(what).or_default() += count;
    }

    fn add(&mut self, other: &Self) {
        for (what, count) in &other.0 {
            self.add_to(what, *count);
        }
    }
}

#[derive(Debug)]
enum Event {
    Tick {
        node: usize,
        life: u64,
    },
    Message {
        from: usize,
        to: usize,
        link: u64,
        message: Message,
    },
    /// Both ends learn of a link, or one end of its end.
    LinkUp {
        node: usize,
        with: usize,
        link: u64,
    },
    LinkDown {
        node: usize,
        with: usize,
        link: u64,
    },
    Dial {
        one: usize,
        two: usize,
    },
    Written {
        node: usize,
        life: u64,
        batch: BatchId,
    },
    Read {
        node: usize,
        life: u64,
        read: ReadId,
        what: Read,
    },
    /// The application takes what was delivered.
    Handed {
        node: usize,
        life: u64,
    },
    Sealed {
        node: usize,
        life: u64,
        asked: Tip,
        length: u64,
        pieces: Vec<Hash>,
    },
    Append,
    Start {
        node: usize,
    },
    /// A process dies soon after it has opened its store.
    Crash {
        node: usize,
        life: u64,
    },
    Fault(usize),
    Heal(usize),
    Lie,
}

struct Node {
    machine: Option<Machine>,
    disk: Disk,
    application: Application,
    /// The copy that checkpoints are made of, and as it was at the last.
    shadow: Application,
    sealed: Application,
    /// Counts runs of the process.
    life: u64,
    ticks: Duration,
    /// How wrong its wall clock is, in milliseconds.
    skew: i64,
    writing: Option<Writing>,
    /// How long its disk takes.
    latency: Duration,
    /// The newest manifest that its files hold.
    manifest: usize,
    appends: BTreeMap<AppendId, EntryId>,
    stopped: Option<Stop>,
    /// A checkpoint that it made is on its way to the disk.
    made: bool,
    /// It never comes back.
    gone: bool,
}

struct World {
    rng: StdRng,
    plan: Plan,
    cast: Cast,
    now: Duration,
    calendar: BinaryHeap<Reverse<(Duration, u64, usize)>>,
    events: Vec<Option<Event>>,
    free: Vec<usize>,
    order: u64,
    nodes: Vec<Node>,
    pairs: BTreeMap<(usize, usize), Pair>,
    links: u64,
    oracle: Oracle,
    liar: Liar,
    written: usize,
    /// The furthest that a clock of an honest node was ever ahead, in milliseconds.
    latest_skew: u64,
    counts: Counts,
    /// The most bytes that waited for a link with a rate.
    most_queued: usize,
    /// When whose application was handed what, where that is looked at.
    handed: Option<Vec<(usize, EntryId, Duration)>>,
    healed: bool,
    /// Who asked for the last checkpoint, in which segment.
    asked_last: Option<(LogId, u64)>,
    failed: Option<String>,
}

/// Until two last checkpoints are everywhere: who could not make one is offered it after some seconds, and again after others.
const LAST: Duration = Duration::from_secs(60);
const START: Duration = Duration::from_secs(1_000);
const WALL: u64 = 1_790_000_000_000;

fn between(rng: &mut StdRng, from: u64, to: u64) -> Duration {
    Duration::from_micros(rng.random_range(from * 1_000..to * 1_000))
}

impl World {
    fn new(seed: u64, plan: Plan) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let cast = Cast::new(plan.nodes, plan.real_signatures);
        let nodes = (0..plan.nodes)
            .map(|index| Node {
                machine: None,
                disk: Disk::default(),
                application: Application::default(),
                shadow: Application::default(),
                sealed: Application::default(),
                life: 0,
                ticks: Duration::MAX,
                skew: match (plan.skewed, index % 4) {
                    _ if plan.future_clock && index + plan.liars >= plan.nodes => 3_600_000,
                    (true, 1) => -300_000,
                    (true, 2) => 40_000,
                    _ => 0,
                },
                writing: None,
                latency: Duration::from_millis(rng.random_range(1..6)),
                manifest: 0,
                appends: BTreeMap::new(),
                stopped: None,
                made: false,
                gone: false,
            })
            .collect();
        let mut world = Self {
            cast,
            now: START,
            calendar: BinaryHeap::new(),
            events: Vec::new(),
            free: Vec::new(),
            order: 0,
            nodes,
            pairs: BTreeMap::new(),
            links: 0,
            oracle: Oracle::default(),
            liar: Liar::new(&plan),
            written: 0,
            latest_skew: 40_000,
            counts: Counts::default(),
            most_queued: 0,
            handed: None,
            healed: false,
            asked_last: None,
            failed: None,
            rng,
            plan,
        };
        for one in 0..world.nodes.len() {
            for two in one + 1..world.nodes.len() {
                let latency = between(&mut world.rng, 20, 200);
                world.pairs.insert((one, two), Pair::new(latency));
            }
        }
        world
    }

    fn at(&mut self, when: Duration, event: Event) {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.events.push(None);
            self.events.len() - 1
        });
        self.events[slot] = Some(event);
        self.order += 1;
        self.calendar.push(Reverse((when, self.order, slot)));
    }

    fn after(&mut self, delay: Duration, event: Event) {
        self.at(self.now + delay, event);
    }

    /// What was to happen then happens.
    fn pass(&mut self, when: Duration, slot: usize) -> Checked {
        self.now = when;
        if let Some(event) = self.events[slot].take() {
            self.free.push(slot);
            self.happen(event)?;
        }
        self.failed.take().map_or(Ok(()), Err)
    }

    /// Runs to the end; what happened is counted either way.
    fn run(mut self) -> (Checked, Counts) {
        let outcome = self.play();
        (outcome, self.counts)
    }

    fn play(&mut self) -> Checked {
        for node in 0..self.nodes.len() {
            let delay = between(&mut self.rng, 0, 500);
            self.after(delay, Event::Start { node });
        }
        for (one, two) in self.pairs.keys().copied().collect::<Vec<_>>() {
            let delay = between(&mut self.rng, 500, 1_500);
            self.after(delay, Event::Dial { one, two });
        }
        self.after(Duration::from_secs(2), Event::Append);
        for index in 0..self.plan.faults.len() {
            let delay = Duration::from_secs(3) + self.plan.spacing * index as u32;
            self.after(delay, Event::Fault(index));
        }
        if self.plan.future_clock {
            self.counts.note("runs with clocks an hour ahead");
        }
        if self.plan.hostile {
            self.after(Duration::from_secs(3), Event::Lie);
        }
        let end = START + Duration::from_secs(3) + self.plan.spacing * self.plan.faults.len() as u32;
        let (mut healed_at, mut last) = (None, false);
        let (mut steps, mut again_at) = (0, None);
        while let Some(Reverse((when, _, slot))) = self.calendar.pop() {
            steps += 1;
            if steps > 400_000 {
                return Err("nodes are busy with nothing".to_owned());
            }
            self.pass(when, slot)?;
            if healed_at.is_none() && when >= end && self.written >= self.plan.entries {
                healed_at = Some(when);
                self.heal_all();
            }
            if let Some(healed) = healed_at {
                if !last && when >= healed + self.plan.quiet {
                    last = true;
                    self.last_words();
                    self.ask_last();
                    again_at = Some(when + LAST / 2);
                }
                if again_at.is_some_and(|at| when >= at) {
                    again_at = None;
                    self.ask_last();
                }
                if when >= healed + self.plan.quiet + LAST {
                    return self.verdict();
                }
            }
        }
        Err("nothing happens any more".to_owned())
    }

    fn happen(&mut self, event: Event) -> Checked {
        match event {
            Event::Tick { node, life } => {
                if self.nodes[node].life == life {
                    self.nodes[node].ticks = Duration::MAX;
                    self.tell(node, Input::Tick)?;
                }
            }
            Event::Message { from, to, link, message } => self.arrive(from, to, link, message)?,
            Event::LinkUp { node, with, link } => self.see_link_up(node, with, link)?,
            Event::LinkDown { node, with, link } => self.see_link_down(node, with, link)?,
            Event::Dial { one, two } => self.dial(one, two),
            Event::Written { node, life, batch } => {
                if self.nodes[node].life == life {
                    self.finish_write(node, batch)?;
                }
            }
            Event::Read { node, life, read, what } => {
                if self.nodes[node].life == life {
                    let found = self.nodes[node].disk.read(&what);
                    self.tell(node, Input::Found(read, found))?;
                }
            }
            Event::Handed { node, life } => {
                if self.nodes[node].life == life {
                    let position = self.nodes[node].application.taken();
                    self.tell(node, Input::Handed(position))?;
                }
            }
            Event::Sealed { node, life, asked, length, pieces } => {
                if self.nodes[node].life == life {
                    self.tell(node, Input::Sealed { asked, length, pieces })?;
                }
            }
            Event::Append => self.write_something()?,
            Event::Start { node } => self.start(node)?,
            Event::Crash { node, life } => {
                if self.nodes[node].life == life {
                    self.crash(node, faults::Torn::Lost);
                }
            }
            Event::Fault(index) => self.break_something(index)?,
            Event::Heal(index) => self.mend(index)?,
            Event::Lie => self.lie()?,
        }
        Ok(())
    }

    /// The next entries of somebody's.
    fn write_something(&mut self) -> Checked {
        if self.written < self.plan.entries || !self.healed {
            let pause = between(&mut self.rng, 5, 60);
            self.after(pause, Event::Append);
        }
        if self.written >= self.plan.entries {
            return Ok(());
        }
        // Later only some write, so that not everything is covered by and by.
        let late = self.written > self.plan.entries / 3;
        let able: Vec<usize> =
            (0..self.nodes.len()).filter(|node| !self.is_hostile(*node) && !self.nodes[*node].gone).collect();
        let writers = if late { self.plan.writers.min(able.len()) } else { able.len() };
        let node = able[self.rng.random_range(0..writers)];
        if self.nodes[node].machine.is_none() {
            return Ok(());
        }
        if self.rng.random_bool(self.plan.retention) {
            self.counts.note("checkpoints asked for");
            self.tell(node, Input::Retain)?;
        }
        let burst = self.rng.random_range(1..=self.plan.burst);
        for _ in 0..burst {
            self.append(node)?;
        }
        Ok(())
    }

    fn append(&mut self, node: usize) -> Checked {
        if self.nodes[node].machine.is_none() {
            return Ok(());
        }
        let length = if self.rng.random_bool(0.02) { self.rng.random_range(1_000..60_000) } else { 16 };
        self.append_bytes(node, length).map(|_| ())
    }

    fn append_bytes(&mut self, node: usize, length: usize) -> Result<EntryId, String> {
        let id = self.oracle.write(node, &self.nodes[node].application);
        let append = AppendId(id.0);
        self.nodes[node].appends.insert(append, id);
        self.written += 1;
        let entry = application::encode(id, self.rng.random_range(0..6), length);
        self.tell(node, Input::Append { id: append, entry }).map(|()| id)
    }

    /// How many nodes are honest, and the latest that any of their clocks may show.
    fn honest_and_latest(&self) -> (usize, u64) {
        let honest = if self.plan.hostile { self.plan.nodes - self.plan.liars } else { self.plan.nodes };
        let elapsed = (self.now - START).as_millis() as u64;
        (honest, WALL + elapsed + self.latest_skew + 61_000)
    }

    fn is_hostile(&self, node: usize) -> bool {
        self.plan.hostile && node >= self.plan.nodes - self.plan.liars
    }
}
