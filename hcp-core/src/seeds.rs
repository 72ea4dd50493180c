//! Many seeds of a simulation: for the tests of every part that has one.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

/// What an environment variable says, such as `HCP_SEED`, the one to run alone, or `HCP_SEEDS`, how many.
pub(crate) fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|text| text.parse().ok())
}

/// Runs the first `count` seeds on as many threads as there are processors, and adds up what they counted; panics with the
/// first that fails, and says how to run it alone.
pub(crate) fn run_all<C: Default + Send>(
    count: u64,
    run: impl Fn(u64) -> (Result<(), String>, C) + Sync,
    add: impl Fn(&mut C, &C) + Sync,
) -> C {
    let next = AtomicU64::new(0);
    let (total, failure) = (Mutex::new(C::default()), Mutex::new(None));
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                while failure.lock().unwrap().is_none() {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= count {
                        return;
                    }
                    let (result, counts) = run(seed);
                    add(&mut total.lock().unwrap(), &counts);
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
