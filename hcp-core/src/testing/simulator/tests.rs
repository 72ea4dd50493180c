//! Many seeds, and that the simulator notices what is broken on purpose.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use super::{Report, Simulation};
use crate::seeds::{number, run_all};
use crate::session::planted::{Defect, plant};

/// How many seeds run unless `HCP_SEEDS` says otherwise.
const SEEDS: u64 = 10_000;

/// Seeds on which a planted defect has to show.
const MOST_TRIES: u64 = 2_000;

#[test]
fn nothing_is_lost_in_silence_whatever_breaks() {
    if let Some(seed) = number("HCP_SEED") {
        let report = Simulation::new(seed).run().unwrap_or_else(|error| panic!("{error}"));
        println!("{report}");
        return;
    }
    let count = number("HCP_SEEDS").unwrap_or(SEEDS);
    let report = run_all(
        count,
        |seed| match Simulation::new(seed).run() {
            Ok(report) => (Ok(()), report),
            Err(error) => (Err(error.to_string()), Report::default()),
        },
        Report::add,
    );
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

/// Whether a defect makes a run fail with these words; what else is said on the way is added to `others`.
fn is_noticed(defect: Defect, says: &str, others: &mut Vec<String>) -> bool {
    plant(Some(defect));
    let noticed = (0..MOST_TRIES).any(|seed| match Simulation::new(seed).run() {
        Ok(_) => false,
        Err(error) => {
            let as_expected = error.reason.contains(says);
            others.push(error.to_string());
            as_expected
        }
    });
    plant(None);
    noticed
}

/// Every invariant is shown to fail: by what is planted, and with what is then said.
#[test]
fn what_is_broken_on_purpose_is_noticed() {
    let expected = [
        (Defect::LaneFramesForgotten, "not over in time"),
        (Defect::DuplicatesDelivered, "is not what was sent"),
        (Defect::OrderOfArrival, "is not what was sent"),
        (Defect::FrameDropped, "is not what was sent"),
        (Defect::CreditNeverReturned, "not over in time"),
        (Defect::CreditTwice, "bytes are allowed, and the window is"),
        (Defect::FinOvertakes, "ended before it was complete"),
        (Defect::OverEarly, "is over and incomplete"),
        (Defect::DrainAtOnce, "drained while stream"),
        (Defect::NeverServedUntold, "is incomplete after a drain"),
        (Defect::LowerStarve, "starved for"),
        (Defect::PrioritiesReversed, "waited behind"),
        (Defect::ResetUntold, "drained while stream"),
        (Defect::LossUntold, "goes on without its primary"),
        (Defect::KeepaliveAsleep, "time stands still"),
        (Defect::KeepaliveSlow, "late for a primary that was cut"),
        (Defect::KeepaliveHasty, "though nothing happened to it: the peer went silent"),
        (Defect::DeliveredHeld, "bytes are held, and"),
        (Defect::OutputUnbounded, "where some was announced"),
        (Defect::ForeignLaneTaken, "took a lane of another"),
        (Defect::OtherReplicaTaken, "a lane to another replica"),
        (Defect::AnyServerTaken, "who may not answer"),
        (Defect::LanesUnbounded, "lanes are alive"),
        (Defect::HeldUnbounded, "streams are held"),
        (Defect::BusyHasty, "for want of room by who held"),
        (Defect::BusyUntold, "is incomplete after a drain"),
        (Defect::KnownUnheard, "of a session that it holds did not arrive"),
        (Defect::FormerKeyForgotten, "not shown the key of its session"),
        (Defect::ProofUnbound, "a proof of another connection was taken"),
        (Defect::PoolUnbounded, "and the session's pool has"),
        (Defect::ServedWhileDraining, "was served by a side that drains"),
    ];
    let next = AtomicU64::new(0);
    let wrong = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                while let Some((defect, says)) = expected.get(next.fetch_add(1, Ordering::Relaxed) as usize) {
                    let mut others = Vec::new();
                    if is_noticed(*defect, says, &mut others) {
                        println!("{defect:?}: failure {} was {}", others.len(), others.pop().unwrap());
                    } else {
                        wrong.lock().unwrap().push((*defect, *says, others));
                    }
                }
            });
        }
    });
    let wrong = wrong.into_inner().unwrap();
    assert!(wrong.is_empty(), "not noticed as it should be: {wrong:#?}");
}
