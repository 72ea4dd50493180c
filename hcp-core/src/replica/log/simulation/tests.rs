//! Many seeds, and that the simulation notices what is broken on purpose.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use super::plan::Plan;
use super::{Counts, World};

/// How many seeds run unless `HCP_SEEDS` says otherwise.
const SEEDS: u64 = 300;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|text| text.parse().ok())
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
                    let (result, counts) = World::new(seed, Plan::of(seed)).run();
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

#[test]
fn nodes_agree_whatever_breaks() {
    if let Some(seed) = number("HCP_SEED") {
        let (result, counts) = World::new(seed, Plan::of(seed)).run();
        println!("{:?}\n{counts:#?}", Plan::of(seed));
        result.unwrap_or_else(|reason| panic!("seed {seed}: {reason}"));
        return;
    }
    let count = number("HCP_SEEDS").unwrap_or(SEEDS);
    let counts = run_all(count);
    println!("{count} seeds: {counts:#?}");
}
