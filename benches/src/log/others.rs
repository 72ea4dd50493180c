//! What others do for the same work: entries on the disks of two of three nodes.

use std::sync::Arc;
use std::time::Instant;

use tokio::task::JoinSet;

use super::Run;
use super::cluster::{Cluster, Replicas};
use super::ingest::entries_per_second;
use super::postgres::Table;
use super::raft::RaftCluster;
use crate::Failure;
use crate::measure::{Ratio, Turns, quantile, timed};
use crate::report::{Report, number, time};

const GROUP: &str = "on two of three disks";
const TURNS: usize = 5;
const ENTRIES: usize = 100_000;
/// Clients that each write one entry at a time, and how many all together.
const CLIENTS: usize = 64;
const OF_CLIENTS: usize = 5_000;
/// Entries that one client alone writes.
const ALONE: usize = 100;

/// How they are called, ours first.
pub const NAMES: [&str; 3] = ["hcp", "openraft", "PostgreSQL"];

/// One of each, started.
///
/// # Errors
/// When one of them cannot be started.
pub async fn start(run: &Run, which: usize) -> Result<Arc<dyn Cluster>, Failure> {
    Ok(match which {
        0 => Arc::new(Replicas::start(&run.place).await?),
        1 => Arc::new(RaftCluster::start(&run.place).await?),
        _ => Arc::new(Table::start(&run.place).await?),
    })
}

/// Measures all of them, in turns.
///
/// # Errors
/// When one of them fails.
pub async fn run(report: &mut Report, run: &Run) -> Result<(), Failure> {
    let mut clusters = Vec::new();
    for which in 0..NAMES.len() {
        clusters.push(start(run, which).await?);
    }
    let ways = clusters.len();

    let count = run.entries(ENTRIES);
    let turns = Turns::take(run.turns(TURNS), ways, async |way| timed(clusters[way].ingest(count)).await).await?;
    compare(report, &turns, "one client with all it has", count);

    let count = run.entries(OF_CLIENTS);
    let turns = Turns::take(run.turns(TURNS), ways, async |way| timed(clients(&clusters[way], count)).await).await?;
    compare(report, &turns, "64 clients, one entry at a time each", count);

    let count = run.entries(ALONE);
    let mut times = vec![Vec::new(); ways];
    Turns::take(run.turns(TURNS), ways, async |way| {
        timed(async {
            for _ in 0..count {
                let start = Instant::now();
                clusters[way].write().await?;
                times[way].push(start.elapsed().as_secs_f64());
            }
            Ok(())
        })
        .await
    })
    .await?;
    for (name, times) in NAMES.into_iter().zip(&times) {
        let note = format!("99 % below {}", time(quantile(times, 0.99)));
        let what = format!("{name}: one client, one entry at a time, each");
        report.value(GROUP, what, Ratio::of(times).times(1e3), "ms", None, note);
    }
    Ok(())
}

fn compare(report: &mut Report, turns: &Turns, work: &str, count: usize) {
    for (other, name) in NAMES.into_iter().enumerate().skip(1) {
        let rates = [0, other].map(|way| format!("{}/s", number(count as f64 / turns.median(way))));
        let what = format!("{work}, vs {name}");
        report.ratio(GROUP, what, turns.speed(0, other), None, rates.join(" and "));
    }
    entries_per_second(report, GROUP, &format!("hcp: {work}"), turns, 0, count, None);
}

/// Clients that each write one entry after the other.
async fn clients(cluster: &Arc<dyn Cluster>, count: usize) -> Result<(), Failure> {
    let mut clients = JoinSet::new();
    for client in 0..CLIENTS {
        let share = count / CLIENTS + usize::from(client < count % CLIENTS);
        let cluster = Arc::clone(cluster);
        clients.spawn(async move {
            for _ in 0..share {
                cluster.write().await?;
            }
            Ok::<_, Failure>(())
        });
    }
    while let Some(done) = clients.join_next().await {
        done??;
    }
    Ok(())
}
