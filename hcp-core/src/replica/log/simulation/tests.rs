//! Many seeds, and that the simulation notices what is broken on purpose.

use super::faults::Fault;
use super::plan::Plan;
use super::{Counts, World};
use crate::replica::log::machine::planted::{Defect, plant};
use crate::seeds::{number, run_all};

/// How many seeds run unless `HCP_SEEDS` says otherwise.
const SEEDS: u64 = 300;

/// Everything that a whole run has to show.
const HAPPENED: &[&str] = &[
    "checkpoints asked for",
    "checkpoints loaded",
    "checkpoints stable",
    "branches dropped for a checkpoint",
    "clocks that jump",
    "concurrent writes",
    "crashes",
    "crashes in the middle of a write",
    "crashes of all nodes",
    "crashes right after opening",
    "dials failed",
    "disks lost",
    "entries appended again",
    "entries durable",
    "entries refused: disk full",
    "folds given up",
    "full disks",
    "lies: dependencies on nothing",
    "lies: false checkpoints",
    "lies: false votes",
    "lies: floods of messages",
    "lies: floods of segments",
    "lies: forged segments",
    "lies: forks begun",
    "lies: frontiers of what is not there",
    "lies: older checkpoints",
    "lies: other segments for some",
    "lies: receipts for what is not on disk",
    "lies: replays",
    "lies: segments beside a checkpoint",
    "lies: rolled-back disks",
    "lies: segments withheld",
    "lies: votes for what others sign",
    "links lost",
    "links that flap",
    "logs ended",
    "logs forked",
    "logs of removed members",
    "logs with branches",
    "members removed",
    "messages delayed",
    "messages lost with their link",
    "messages through bytes",
    "nodes cut off",
    "nodes that never come back",
    "receipts",
    "restored backups",
    "runs with clocks an hour ahead",
    "slow disks",
    "splits",
    "splits with liars between",
    "torn writes",
    "unlinked: credit",
    "unlinked: flood",
    "unlinked: forged",
    "writes lost in a crash",
    "writes refused by a full disk",
    "writes there though never said to be",
];

#[test]
fn nodes_agree_whatever_breaks() {
    if let Some(seed) = number("HCP_SEED") {
        let (result, counts) = World::new(seed, Plan::of(seed)).run();
        println!("{:?}\n{counts:#?}", Plan::of(seed));
        result.unwrap_or_else(|reason| panic!("seed {seed}: {reason}"));
        return;
    }
    let count = number("HCP_SEEDS").unwrap_or(SEEDS);
    let counts = run_all(count, |seed| World::new(seed, Plan::of(seed)).run(), Counts::add);
    println!("{count} seeds: {counts:#?}");
    if count >= SEEDS {
        let never: Vec<_> = HAPPENED.iter().filter(|what| !counts.0.contains_key(*what)).collect();
        assert!(never.is_empty(), "these never happened: {never:?}");
    }
}

/// Whether a defect makes some seed fail with these words; what else is said on the way is added to `others`.
fn is_noticed(defect: Defect, parity: u64, says: &str, others: &mut Vec<String>) -> bool {
    plant(Some(defect));
    // Some take a fault at one moment of all.
    let noticed = (0..200).filter(|seed| parity > 1 || seed % 2 == parity).any(|seed| {
        let plan = Plan::of(seed);
        // Where everybody writes in the end, everything is covered by that.
        let plan = Plan { last_words: plan.last_words && defect != Defect::CoverForgotten, ..plan };
        let plan = match defect {
            // A liar between two halves, each of which asks for checkpoints.
            Defect::HalfSuffices | Defect::VotesForgotten => {
                Plan { nodes: 5, liars: 1, retention: 0.04, faults: vec![Fault::TwoFaced; 4], ..plan }
            }
            Defect::BranchKept | Defect::BesideForgotten => Plan { retention: 0.04, forks: true, ..plan },
            // Something is appended again where a member is removed that has written what others had not seen.
            Defect::CopiesLate => {
                Plan { retention: 0.04, faults: vec![Fault::Remove, Fault::Flap, Fault::Remove], ..plan }
            }
            _ => plan,
        };
        let run = std::panic::catch_unwind(|| World::new(seed, plan).run().0);
        match run.unwrap_or_else(|_| Err("a panic".to_owned())) {
            Ok(()) => false,
            Err(reason) => {
                others.push(format!("seed {seed}: {reason}"));
                reason.contains(says)
            }
        }
    });
    plant(None);
    noticed
}

/// Every invariant is shown to fail: by what is planted, and with what is then said. `HCP_DEFECT=name` plants that one alone.
#[test]
fn what_is_broken_on_purpose_is_noticed() {
    const HOSTILE: u64 = 1;
    const ANY: u64 = 2;
    let expected: [(Defect, u64, &str); 22] = [
        (Defect::CoverForgotten, HOSTILE, "is not at both of"),
        (Defect::DurableEarly, ANY, "missing at node"),
        (Defect::PrunedAgain, ANY, "is applied twice"),
        (Defect::ForkIgnored, HOSTILE, "missing at node"),
        (Defect::DemandIgnored, ANY, "missing at node"),
        (Defect::DependenciesIgnored, ANY, "which its author had seen"),
        (Defect::NamesOfItsOwn, HOSTILE, "are in different states"),
        (Defect::SignatureIgnored, HOSTILE, "is applied as one of"),
        (Defect::IncarnationKept, ANY, "which is honest, has forked"),
        (Defect::ClockDragged, HOSTILE, "clock was dragged along"),
        (Defect::RelayForgotten, ANY, "missing at node"),
        (Defect::SplitUntold, HOSTILE, "does not supersede"),
        (Defect::VectorForgotten, ANY, "does not supersede"),
        (Defect::CreditIgnored, HOSTILE, "holds back"),
        (Defect::NeedForgotten, HOSTILE, "missing at node"),
        (Defect::MajorityIgnored, HOSTILE, "missing at node"),
        (Defect::HalfSuffices, HOSTILE, "missing at node"),
        (Defect::VotesForgotten, HOSTILE, "hold different checkpoints"),
        (Defect::BranchKept, HOSTILE, "is not at both of"),
        (Defect::BesideForgotten, HOSTILE, "missing at node"),
        (Defect::CutForgotten, ANY, "which its author had not seen"),
        (Defect::CopiesLate, ANY, "missing at node"),
    ];
    let mut wrong = Vec::new();
    let only = std::env::var("HCP_DEFECT").ok();
    let chosen = |defect: &Defect| only.as_ref().is_none_or(|only| format!("{defect:?}") == *only);
    for (defect, parity, says) in expected.into_iter().filter(|(defect, ..)| chosen(defect)) {
        let mut others = Vec::new();
        if is_noticed(defect, parity, says, &mut others) {
            println!("{defect:?}: failure {} was {}", others.len(), others.pop().unwrap());
        } else {
            wrong.push((defect, says, others));
        }
    }
    assert!(wrong.is_empty(), "not noticed as it should be: {wrong:#?}");
}
