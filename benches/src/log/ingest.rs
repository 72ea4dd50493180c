//! How many entries a second are durable, and what the disk and the arithmetic allow.

use std::sync::Arc;

use hcp_core::identity::LogKey;
use hcp_core::network::Network;
use tokio::task::JoinSet;

use super::Run;
use super::cluster::NODES;
use super::disk::{bare_file, bare_sqlite};
use super::service::{Disks, ENTRY, Reader, Running, Service, Wanted, write};
use crate::Failure;
use crate::measure::{Ratio, Turns, timed};
use crate::peers::{TcpNetwork, noise};
use crate::report::{Goal, Report, number, rate, time};

const TURNS: usize = 5;
/// Entries of a turn.
const ENTRIES: usize = 300_000;
/// What the design asks of one node on two cores.
const GOAL: f64 = 100_000.0;
/// Signatures, and hashes of an entry's length, that are made to see what one takes.
const SIGNATURES: usize = 500;
const HASHES: usize = 20_000;

/// Measures one node, then three.
///
/// # Errors
/// When a node or the disk fails.
pub async fn run(report: &mut Report, run: &Run) -> Result<(), Failure> {
    one(report, run).await?;
    three(report, run).await?;
    arithmetic(report);
    Ok(())
}

async fn one(report: &mut Report, run: &Run) -> Result<(), Failure> {
    const GROUP: &str = "ingest, one node";
    let folders = [run.place.folder()?, run.place.folder()?, run.place.folder()?];
    let service = Service::new(1)?;
    let alone = service.open(0, Disks::sqlite(folders[0].path()).of(0)).await?;
    let read = service.open(0, Disks::sqlite(folders[1].path()).of(0)).await?;
    let mut reader = Some(Reader::of(&read));
    let count = run.entries(ENTRIES);
    let turns = Turns::take(run.turns(TURNS), 4, async |way| match way {
        0 => timed(write(&alone, count, Wanted::Durable)).await,
        1 => {
            let reading = reader.take().ok_or("a reader was lost")?;
            let (took, back) = timed_with(reading.read(count), write(&read, count, Wanted::Durable)).await?;
            reader = Some(back);
            Ok(took)
        }
        2 => bare_sqlite(folders[2].path(), count * ENTRY),
        _ => bare_file(folders[2].path(), count * ENTRY),
    })
    .await?;
    let goal = Some(Goal::AtLeast(GOAL));
    entries_per_second(report, GROUP, "durable, nobody reads", &turns, 0, count, goal);
    entries_per_second(report, GROUP, "durable and read by the application", &turns, 1, count, goal);
    for (bare, name) in [(2, "SQLite, commits of 1 MiB"), (3, "a file, synced every MiB")] {
        let rates = [1, bare].map(|way| rate(count * ENTRY, turns.median(way)));
        report.ratio(GROUP, format!("durable and read, vs {name}"), turns.speed(1, bare), None, rates.join(" and "));
    }
    alone.shutdown().await;
    read.shutdown().await;
    Ok(())
}

async fn three(report: &mut Report, run: &Run) -> Result<(), Failure> {
    const GROUP: &str = "ingest, three nodes";
    let folder = run.place.folder()?;
    let network: Arc<dyn Network> = Arc::new(TcpNetwork::new());
    let disks = Disks::sqlite(folder.path());
    let nodes = Service::new(NODES)?.start_all(|node| disks.of(node), &network).await?;
    let mut readers: Vec<Reader> = nodes.iter().map(Running::reader).collect();
    let count = run.entries(ENTRIES) / NODES * NODES;
    let turns = Turns::take(run.turns(TURNS), 2, async |way| {
        let mut reading = JoinSet::new();
        for reader in std::mem::take(&mut readers) {
            reading.spawn(reader.read(count));
        }
        // Whoever writes waits for a second disk, and everybody for the application to have read it everywhere.
        let took = timed(async {
            if way == 0 {
                write(&nodes[0].replica, count, Wanted::Replicated).await?;
            } else {
                let each = |node: &Running| {
                    let replica = node.replica.clone();
                    async move { write(&replica, count / NODES, Wanted::Replicated).await }
                };
                futures::future::try_join_all(nodes.iter().map(each)).await?;
            }
            while let Some(read) = reading.join_next().await {
                readers.push(read??);
            }
            Ok(())
        })
        .await?;
        Ok(took)
    })
    .await?;
    let what = "one writes, on two disks, read at all three";
    entries_per_second(report, GROUP, what, &turns, 0, count, None);
    let what = "all three write, on two disks, read at all three";
    entries_per_second(report, GROUP, what, &turns, 1, count, None);
    for node in nodes {
        node.stop().await;
    }
    Ok(())
}

/// What does not depend on the disk.
fn arithmetic(report: &mut Report) {
    const GROUP: &str = "ingest, arithmetic";
    let key = LogKey::generate();
    let message = noise(ENTRY);
    let signature = key.sign(&message);
    let public = key.public_key();
    let turns = Turns::take_now(
        TURNS,
        &mut [
            &mut |_| each(SIGNATURES, || key.sign(&message)),
            &mut |_| each(SIGNATURES, || LogKey::verify(&public, &message, &signature)),
            &mut |_| each(HASHES, || blake3::hash(&message)),
        ],
    );
    let names = ["to sign a segment", "to verify one", "to hash 200 bytes (BLAKE3)"];
    for (way, name) in names.into_iter().enumerate() {
        let note = "of one core; a full segment holds some 1,200 entries".to_owned();
        report.value(GROUP, name, Ratio::of(turns.all(way)).times(1e6), "µs", None, note);
    }
}

fn each<T>(times: usize, mut work: impl FnMut() -> T) -> f64 {
    let start = std::time::Instant::now();
    for _ in 0..times {
        std::hint::black_box(work());
    }
    start.elapsed().as_secs_f64() / times as f64
}

/// How long it takes until both are done.
async fn timed_with<T: Send + 'static>(
    reading: impl Future<Output = Result<T, Failure>> + Send + 'static,
    writing: impl Future<Output = Result<(), Failure>>,
) -> Result<(f64, T), Failure> {
    let start = std::time::Instant::now();
    let reading = tokio::spawn(reading);
    writing.await?;
    let read = reading.await??;
    Ok((start.elapsed().as_secs_f64(), read))
}

/// Says how many a second there were in the turns of one way.
pub(super) fn entries_per_second(
    report: &mut Report,
    group: &'static str,
    what: &str,
    turns: &Turns,
    way: usize,
    count: usize,
    goal: Option<Goal>,
) {
    let rates: Vec<f64> = turns.all(way).iter().map(|seconds| count as f64 / seconds).collect();
    let note = format!("{} entries of {ENTRY} bytes in {}", number(count as f64), time(turns.median(way)));
    report.value(group, what, Ratio::of(&rates), "/s", goal, note);
}
