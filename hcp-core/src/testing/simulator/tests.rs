//! Many seeds, and that the simulator notices what is broken on purpose.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use super::{Report, Simulation};

/// How many seeds run unless `HCP_SEEDS` says otherwise.
const SEEDS: u64 = 10_000;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|text| text.parse().ok())
}

/// Runs seeds on as many threads as there are processors; stops at the first that fails.
fn run_all(count: u64) -> Report {
    let next = AtomicU64::new(0);
    let (total, failure) = (Mutex::new(Report::default()), Mutex::new(None));
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                while failure.lock().unwrap().is_none() {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= count {
                        return;
                    }
                    match Simulation::new(seed).run() {
                        Ok(report) => total.lock().unwrap().add(&report),
                        Err(error) => *failure.lock().unwrap() = Some(error),
                    }
                }
            });
        }
    });
    if let Some(error) = failure.into_inner().unwrap() {
        panic!("{error} (HCP_SEED={} runs it alone)", error.seed());
    }
    total.into_inner().unwrap()
}

#[test]
fn nothing_is_lost_in_silence_whatever_breaks() {
    if let Some(seed) = number("HCP_SEED") {
        let report = Simulation::new(seed).run().unwrap_or_else(|error| panic!("{error}"));
        println!("{report}");
        return;
    }
    let count = number("HCP_SEEDS").unwrap_or(SEEDS);
    let report = run_all(count);
    println!("{count} seeds\n{report}");
    if count >= SEEDS {
        let never: Vec<_> = report.counts().filter(|(_, count)| *count == 0).map(|(name, _)| name).collect();
        assert!(never.is_empty(), "these never happened: {never:?}");
    }
}

#[test]
fn a_seed_runs_the_same_way_again() {
    for seed in 0..40 {
        let [first, second] = [0, 1].map(|_| Simulation::new(seed).run().unwrap_or_else(|error| panic!("{error}")));
        assert_eq!(first.digest(), second.digest(), "seed {seed}");
    }
}
