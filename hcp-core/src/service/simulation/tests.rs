//! Many seeds, and that the simulation notices what is broken on purpose.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rand::SeedableRng;
use rand::rngs::StdRng;

use super::faults::{Fault, Target};
use super::{Counts, LATE, Plan, World};
use crate::seeds::{number, run_all};
use crate::service::machine::planted::{Defect, plant};
use crate::service::tuning::REACHED;

/// How many seeds run unless `HCP_SEEDS` says otherwise.
const SEEDS: u64 = 300;
/// How much longer a verdict may take: twice the time in which a live node that no probe has reached counts as not reachable.
const PATIENCE: Duration = Duration::from_secs(2 * REACHED.as_secs());
/// One run of so many may take it.
const MOSTLY: u64 = 100;

/// What a seed is about.
fn plan(seed: u64) -> Plan {
    let mut rng = StdRng::seed_from_u64(seed ^ 0x5eed);
    let hostile = seed % 25 == 7;
    let nodes = match seed % 50 {
        49 if seed % 150 == 49 => 20,
        7 => 7,
        _ if hostile || seed % 5 == 3 => 5,
        _ => 3,
    };
    let mut faults = vec![Fault::random(&mut rng)];
    if seed % 10 == 4 {
        faults.push(Fault::random(&mut rng));
    }
    if hostile {
        faults = if nodes == 7 { vec![Fault::Kill(Target::Publisher, Duration::from_secs(20))] } else { Vec::new() };
    }
    let dense = nodes == 5 && seed.is_multiple_of(3);
    let quiet = match () {
        // Until probes have told who lies: thirty-five, each of which adds a fifth of a doubt, of one each 30 seconds, and an
        // upload.
        () if hostile && nodes == 5 => 1_300,
        () if nodes > 5 => 100,
        // Points part more than once, and each time there is an upload a minute later.
        () if dense => 300,
        () => 180,
    };
    Plan {
        nodes,
        relays: match nodes {
            6.. => 100,
            _ if dense => 20,
            _ => 60,
        },
        directories: 6,
        faults,
        hostile,
        without_material: usize::from(seed % 7 == 2 && nodes < 20),
        skewed: seed % 4 == 1,
        bytes: seed % 30 == 11,
        clients: nodes <= 5,
        quiet: Duration::from_secs(quiet),
        patience: PATIENCE,
        warm: Duration::from_secs(55),
    }
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
    "points re-established",
    "points taken from a live node",
    "points taken over",
    "points that are none",
    "points that relays do not know",
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
    let counts = run_all(count, |seed| World::new(seed, plan(seed)).run(), Counts::add);
    println!("{count} seeds: {counts:#?}");
    if count >= SEEDS {
        let never: Vec<_> = HAPPENED.iter().filter(|what| !counts.0.contains_key(*what)).collect();
        assert!(never.is_empty(), "these never happened: {never:?}");
        let late = counts.0.get(LATE).copied().unwrap_or_default();
        assert!(late <= count / MOSTLY, "{late} of {count} verdicts took longer");
    }
}

fn quick(nodes: usize, faults: Vec<Fault>) -> Plan {
    Plan {
        nodes,
        relays: 60,
        directories: 6,
        faults,
        hostile: false,
        without_material: 0,
        skewed: false,
        bytes: false,
        clients: true,
        quiet: Duration::from_secs(120),
        patience: Duration::ZERO,
        warm: Duration::from_secs(60),
    }
}

/// Whether a defect makes some seed fail with these words; what else is said on the way is added to `others`.
fn is_noticed(defect: Defect, plan: &Plan, says: &str, others: &mut Vec<String>) -> bool {
    plant(Some(defect));
    let noticed = (0..30).any(|seed| match World::new(seed, plan.clone()).run().0 {
        Ok(()) => false,
        Err(reason) => {
            let as_expected = reason.contains(says);
            others.push(format!("seed {seed}: {reason}"));
            as_expected
        }
    });
    plant(None);
    noticed
}

/// Every invariant is shown to fail: by what is planted, and with what is then said.
#[test]
fn what_is_broken_on_purpose_is_noticed() {
    let seconds = Duration::from_secs;
    let frozen = || quick(3, vec![Fault::Freeze(Target::Anybody, seconds(40))]);
    let killed = || quick(3, vec![Fault::Kill(Target::Anybody, seconds(40))]);
    let stopped = || quick(3, vec![Fault::Stop(Target::Anybody, seconds(20))]);
    let parted = || quick(3, vec![Fault::Isolate(Target::Anybody, seconds(30))]);
    let hostile = || Plan { hostile: true, ..quick(7, Vec::new()) };
    let lies = || Plan { hostile: true, quiet: seconds(600), ..quick(5, Vec::new()) };
    let dense = || Plan { relays: 18, ..quick(5, vec![Fault::Kill(Target::Anybody, seconds(20))]) };
    let expected: [(Defect, Plan, &str); 16] = [
        (Defect::DeathUnnoticed, frozen(), "went to a node that does not answer"),
        (Defect::NothingTaken, frozen(), "went to a node that does not answer"),
        (Defect::SleepForgotten, frozen(), ", which lives"),
        (Defect::FenceForgotten, parted(), "an owner takes back what a successor has"),
        (Defect::MarksKept, killed(), "a replayed introduction is answered"),
        (Defect::MarksIgnored, killed(), "a replayed introduction is answered"),
        (Defect::EverybodyPublishes, quick(3, Vec::new()), "publishers of one period"),
        (Defect::PublishedOnce, killed(), "directories have what they should"),
        (Defect::NoUploadLimit, killed(), "uploads in one minute"),
        (Defect::NotGathered, quick(3, Vec::new()), "before it knows the others' points"),
        (Defect::ShareForgotten, hostile(), "are its share"),
        (Defect::EverythingHeld, hostile(), "points of one member are held"),
        (Defect::PartingForgotten, dense(), "points share"),
        (Defect::NewcomersIgnored, killed(), "directories have what they should"),
        (Defect::RetireBeforePublish, stopped(), "is taken away while descriptors list it"),
        (Defect::ChecksForgotten, lies(), "that are not there are listed"),
    ];
    let next = AtomicU64::new(0);
    let wrong = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                while let Some((defect, plan, says)) = expected.get(next.fetch_add(1, Ordering::Relaxed) as usize) {
                    let mut others = Vec::new();
                    if is_noticed(*defect, plan, says, &mut others) {
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

/// A hundred nodes, each linked with every other.
#[test]
fn a_hundred_nodes_are_all_listed_somewhere() {
    let plan = Plan {
        relays: 2_000,
        clients: false,
        quiet: Duration::ZERO,
        warm: Duration::from_secs(36),
        ..quick(100, Vec::new())
    };
    let (result, counts) = World::new(1, plan).run();
    println!("{counts:?}");
    result.unwrap_or_else(|reason| panic!("{reason}"));
}

#[test]
fn a_seed_runs_the_same_way_again() {
    for seed in 0..3 {
        let [one, two] = [0, 1].map(|_| World::new(seed, plan(seed)).run().1);
        assert_eq!(one.0, two.0, "seed {seed}");
    }
}
