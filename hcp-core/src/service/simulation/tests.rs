//! Many seeds, and that the simulation notices what is broken on purpose.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::faults::{Fault, Target};
use super::{Counts, Plan, World};
use crate::service::machine::planted::{Defect, plant};

/// How many seeds run unless `HCP_SEEDS` says otherwise.
const SEEDS: u64 = 300;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|text| text.parse().ok())
}

/// What a seed is about.
fn plan(seed: u64) -> Plan {
    let mut rng = StdRng::seed_from_u64(seed ^ 0x5eed);
    let hostile = seed % 25 == 7;
    let nodes = match seed % 50 {
        49 => 20,
        _ if hostile || seed % 5 == 3 => 5,
        _ => 3,
    };
    let mut faults = vec![Fault::random(&mut rng)];
    if seed % 10 == 4 {
        faults.push(Fault::random(&mut rng));
    }
    if hostile {
        faults = if rng.random_bool(0.5) {
            vec![Fault::Kill(Target::Publisher, Duration::from_secs(20))]
        } else {
            Vec::new()
        };
    }
    let faults_none = faults.is_empty();
    Plan {
        nodes,
        relays: if nodes > 5 { 100 } else { 60 },
        directories: 6,
        faults,
        hostile,
        without_material: usize::from(seed % 7 == 2 && nodes < 20),
        skewed: seed % 4 == 1,
        bytes: seed % 30 == 11,
        clients: nodes <= 5,
        quiet: Duration::from_secs(if hostile && faults_none { 620 } else { 150 }),
    }
}

/// Runs seeds on as many threads as there are processors; stops at the first that fails.
fn run_all(count: u64) -> Counts {
    let next = AtomicU64::new(0);
    let (total, failure) = (Mutex::new(Counts::default()), Mutex::new(None));
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                while failure.lock().unwrap().is_none() {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= count {
                        return;
                    }
                    let (result, counts) = World::new(seed, plan(seed)).run();
                    total.lock().unwrap().add(&counts);
                    if let Err(reason) = result {
                        *failure.lock().unwrap() = Some((seed, reason));
                    }
                }
            });
        }
    });
    if let Some((seed, reason)) = failure.into_inner().unwrap() {
        panic!("seed {seed}: {reason} (HCP_SEED={seed} runs it alone)");
    }
    total.into_inner().unwrap()
}

/// Everything that a whole run has to show.
const HAPPENED: &[&str] = &[
    "cached clients served",
    "changes of the period",
    "changes of the ring",
    "circuits of points broken",
    "clean stops",
    "dials failed",
    "establishments failed",
    "fresh clients served",
    "introductions lost",
    "introductions to no point",
    "lies: claims and publications",
    "lies: messages",
    "links made anew",
    "links that flap",
    "nodes cut off",
    "nodes frozen",
    "nodes killed",
    "nodes killed and started at once",
    "nodes parted from their peers only",
    "nodes stopped",
    "nodes thawed",
    "pairs parted",
    "points let go by a node that stops",
    "points of both sides of a split",
    "points re-established",
    "points taken from a live node",
    "points taken over",
    "points that are none",
    "probes answered",
    "publishers frozen",
    "publishers killed",
    "relays lost",
    "replays to a successor",
    "replays to an owner",
    "rolling restarts",
    "splits",
    "two nodes lost at once",
    "uploads",
    "uploads refused by a directory",
];

#[test]
fn clients_are_served_whatever_breaks() {
    if let Some(seed) = number("HCP_SEED") {
        let (result, counts) = World::new(seed, plan(seed)).run();
        println!("{:?}\n{counts:#?}", plan(seed));
        result.unwrap_or_else(|reason| panic!("seed {seed}: {reason}"));
        return;
    }
    let count = number("HCP_SEEDS").unwrap_or(SEEDS);
    let counts = run_all(count);
    println!("{count} seeds: {counts:#?}");
    if count >= SEEDS {
        let never: Vec<_> = HAPPENED.iter().filter(|what| !counts.0.contains_key(*what)).collect();
        assert!(never.is_empty(), "these never happened: {never:?}");
    }
}
