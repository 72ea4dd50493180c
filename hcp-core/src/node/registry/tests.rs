//! Two registries under a seeded network that delays, cuts unnoticed, and restarts sides. In the end both must be left with
//! the same session and no other.
//!
//! `HCP_SEED=n` runs that seed alone.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::{MAX_PER_PEER, Registry, Verdict};
use crate::identity::{Identity, OnionAddress};

/// What is broken on purpose, to see that the invariant notices.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Defect {
    None,
    /// Both sides choose, each by what it has seen.
    BothChoose,
    /// Nobody chooses.
    NobodyChooses,
}

#[derive(Debug, Default)]
struct Counts {
    simultaneous: u64,
    cuts: u64,
    unnoticed: u64,
    restarts: u64,
    drained: u64,
    stayed_known: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum What {
    Want { side: usize },
    Hello { id: u32 },
    Proof { id: u32, known: Option<u32> },
    Drain { id: u32, to: usize },
    StreamsOver { id: u32 },
    Close { id: u32, to: usize },
    Lost { id: u32, by: usize },
    Cut { id: u32 },
    Restart { side: usize },
}

struct Connection {
    dialler: usize,
    life: [u32; 2],
    known: Option<u32>,
    cut: bool,
    /// When what was sent last to either side arrives: a connection keeps the order.
    last: [u64; 2],
}

struct World {
    random: StdRng,
    addresses: [OnionAddress; 2],
    registries: [Registry<u32, u32>; 2],
    fresh: Box<dyn Fn(usize) -> Registry<u32, u32>>,
    life: [u32; 2],
    dialling: [Option<u32>; 2],
    connections: BTreeMap<u32, Connection>,
    queue: BinaryHeap<Reverse<(u64, u64, What)>>,
    now: u64,
    sequence: u64,
    faults: bool,
    counts: Counts,
}

/// The longest that a message takes, and that a dead connection stays unnoticed.
const DELAY: u64 = 1_000;
const KEEPALIVE: u64 = 15_000;

impl World {
    fn new(seed: u64, defect: Defect) -> Self {
        let mut addresses: Vec<OnionAddress> = (0..4).map(|_| Identity::generate().address()).collect();
        addresses.sort();
        let [lowest, low, high, highest] = addresses[..] else { unreachable!("four were made") };
        let me = match defect {
            Defect::None => [low, high],
            Defect::BothChoose => [low, lowest],
            Defect::NobodyChooses => [highest, high],
        };
        let fresh = Box::new(move |side: usize| Registry::new(me[side]));
        Self {
            random: StdRng::seed_from_u64(seed),
            addresses: [low, high],
            registries: [fresh(0), fresh(1)],
            fresh,
            life: [0; 2],
            dialling: [None; 2],
            connections: BTreeMap::new(),
            queue: BinaryHeap::new(),
            now: 0,
            sequence: 0,
            faults: true,
            counts: Counts::default(),
        }
    }

    fn at(&mut self, time: u64, what: What) {
        self.sequence += 1;
        self.queue.push(Reverse((time, self.sequence, what)));
    }

    fn after(&mut self, longest: u64, what: What) {
        let time = self.now + self.random.random_range(1..=longest);
        self.at(time, what);
    }

    /// Sends something to a side of a connection, behind what was sent there before.
    fn send(&mut self, id: u32, to: usize, what: What) {
        let arrives = self.now + self.random.random_range(1..=DELAY);
        let Some(connection) = self.connections.get_mut(&id) else { return };
        let arrives = arrives.max(connection.last[to] + 1);
        connection.last[to] = arrives;
        self.at(arrives, what);
    }

    /// Whether a side, in the life in which the connection was made, still gets what comes on it.
    fn reaches(&self, id: u32, side: usize) -> bool {
        self.connections.get(&id).is_some_and(|c| !c.cut && c.life[side] == self.life[side])
    }

    fn began(&mut self, side: usize, id: u32, known: Option<u32>) {
        let peer = self.addresses[1 - side];
        let Verdict { drain, end } = self.registries[side].began(peer, id, known, id);
        self.counts.stayed_known += u64::from(drain == [id]);
        for drained in drain {
            self.counts.drained += 1;
            self.send(drained, 1 - side, What::Drain { id: drained, to: 1 - side });
            self.after(3 * DELAY, What::StreamsOver { id: drained });
        }
        for ended in end {
            self.registries[side].ended(peer, ended);
            self.send(ended, 1 - side, What::Close { id: ended, to: 1 - side });
        }
    }

    fn current(&self, side: usize) -> Option<u32> {
        self.registries[side].current(self.addresses[1 - side]).map(|(id, _)| id)
    }

    fn step(&mut self, what: What) {
        match what {
            What::Want { side } => {
                if self.current(side).is_none() && self.dialling[side].is_none() {
                    let id = self.sequence as u32;
                    self.counts.simultaneous += u64::from(self.dialling[1 - side].is_some());
                    self.dialling[side] = Some(id);
                    let connection =
                        Connection { dialler: side, life: self.life, known: None, cut: false, last: [self.now; 2] };
                    self.connections.insert(id, connection);
                    self.send(id, side, What::Hello { id });
                    if self.faults && self.random.random_bool(0.2) {
                        self.after(6 * DELAY, What::Cut { id });
                    }
                }
            }
            What::Hello { id } => {
                let side = self.connections[&id].dialler;
                if self.connections[&id].life[side] != self.life[side] {
                    return;
                }
                self.dialling[side] = None;
                if !self.reaches(id, side) || self.connections[&id].life[1 - side] != self.life[1 - side] {
                    return;
                }
                let known = self.current(side);
                self.connections.get_mut(&id).expect("it exists").known = known;
                self.send(id, 1 - side, What::Proof { id, known });
                self.began(side, id, None);
            }
            What::Proof { id, known } => {
                let side = 1 - self.connections[&id].dialler;
                if self.reaches(id, side) {
                    self.began(side, id, known);
                }
            }
            What::Drain { id, to } if self.reaches(id, to) => {
                self.registries[to].drains(self.addresses[1 - to], id);
            }
            What::StreamsOver { id } => {
                for to in [0, 1] {
                    self.send(id, to, What::Close { id, to });
                }
            }
            What::Close { id, to } if self.reaches(id, to) => self.registries[to].ended(self.addresses[1 - to], id),
            What::Drain { .. } | What::Close { .. } => {}
            What::Lost { id, by } => self.registries[by].ended(self.addresses[1 - by], id),
            What::Cut { id } => {
                self.counts.cuts += 1;
                self.connections.get_mut(&id).expect("it exists").cut = true;
                for by in [0, 1] {
                    let unnoticed = self.random.random_bool(0.5);
                    self.counts.unnoticed += u64::from(unnoticed);
                    self.after(if unnoticed { KEEPALIVE } else { 1 }, What::Lost { id, by });
                }
            }
            What::Restart { side } => {
                self.counts.restarts += 1;
                self.registries[side] = (self.fresh)(side);
                self.life[side] += 1;
                self.dialling[side] = None;
                let lives = self.life;
                let dead: Vec<u32> =
                    self.connections.iter().filter(|(_, c)| c.life != lives).map(|(id, _)| *id).collect();
                for id in dead {
                    self.after(KEEPALIVE, What::Lost { id, by: 1 - side });
                }
            }
        }
    }

    fn run(&mut self) {
        while let Some(Reverse((time, _, what))) = self.queue.pop() {
            self.now = time;
            self.step(what);
        }
    }
}

/// Runs a seed and says what is wrong in the end.
fn simulate(seed: u64, defect: Defect) -> (Counts, Result<(), String>) {
    let mut world = World::new(seed, defect);
    for _ in 0..40 {
        let side = world.random.random_range(0..2);
        world.after(40 * DELAY, What::Want { side });
        if world.random.random_bool(0.3) {
            // Both at once, as two who come online when the network comes back.
            let time = world.random.random_range(0..40 * DELAY);
            world.at(time, What::Want { side: 0 });
            world.at(time + 1, What::Want { side: 1 });
        }
    }
    for _ in 0..world.random.random_range(0..3) {
        let side = world.random.random_range(0..2);
        world.after(40 * DELAY, What::Restart { side });
    }
    world.run();
    world.faults = false;
    let start = world.now;
    for side in [0, 1] {
        world.at(start + 1, What::Want { side });
    }
    world.run();
    let (ours, theirs) = (world.current(0), world.current(1));
    let verdict = if ours.is_none() || ours != theirs {
        Err(format!("one side goes on with {ours:?}, the other with {theirs:?}"))
    } else if world.registries.iter().flat_map(|registry| registry.peers.values()).any(|entries| entries.len() != 1) {
        Err("more than one session was left".to_owned())
    } else {
        Ok(())
    };
    (world.counts, verdict)
}

#[test]
fn both_sides_end_with_the_same_session_whatever_the_network_does() {
    let seeds = match std::env::var("HCP_SEED") {
        Ok(seed) => vec![seed.parse().expect("a number")],
        Err(_) => (0..2_000).collect(),
    };
    let alone = seeds.len() == 1;
    let mut sum = Counts::default();
    for seed in seeds {
        let (counts, verdict) = simulate(seed, Defect::None);
        assert_eq!(verdict, Ok(()), "HCP_SEED={seed} {counts:?}");
        sum.simultaneous += counts.simultaneous;
        sum.cuts += counts.cuts;
        sum.unnoticed += counts.unnoticed;
        sum.restarts += counts.restarts;
        sum.drained += counts.drained;
        sum.stayed_known += counts.stayed_known;
    }
    let all = [sum.simultaneous, sum.cuts, sum.unnoticed, sum.restarts, sum.drained, sum.stayed_known];
    assert!(alone || all.iter().all(|count| *count > 0), "{sum:?}");
}

#[test]
fn a_registry_that_chooses_on_both_sides_or_on_none_is_found_out() {
    for defect in [Defect::BothChoose, Defect::NobodyChooses] {
        assert!((0..500).any(|seed| simulate(seed, defect).1.is_err()));
    }
}

#[test]
fn sessions_with_one_peer_are_bounded_and_the_current_one_stays() {
    let mut addresses = [Identity::generate().address(), Identity::generate().address()];
    addresses.sort();
    for (me, peer) in [(addresses[0], addresses[1]), (addresses[1], addresses[0])] {
        let mut registry = Registry::new(me);
        let mut ended = Vec::new();
        for id in 0..20u32 {
            ended.extend(registry.began(peer, id, None, id).end);
            assert_eq!(registry.current(peer), Some((id, &id)));
        }
        assert_eq!(ended, (0..20 - MAX_PER_PEER as u32).collect::<Vec<_>>());
    }
}

#[test]
fn a_session_of_an_address_with_itself_is_nobody_elses_business() {
    let me = Identity::generate().address();
    let mut registry = Registry::new(me);
    assert_eq!(registry.began(me, 1, None, 1), Verdict { drain: vec![], end: vec![] });
    assert_eq!(registry.current(me), None);
}
