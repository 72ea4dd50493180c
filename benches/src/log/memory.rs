//! What a node takes in memory that has opened a long log. Each measurement has a process of its own.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use hcp_core::network::{MemoryNetwork, Network};
use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;

use super::Run;
use super::service::{Disks, ENTRY, Reader, Running, Service, Wanted, write};
use crate::Failure;
use crate::idle::resident;
use crate::measure::Ratio;
use crate::report::{Report, number, time};

/// The argument with which this program opens a node's log and prints what it found.
pub const ARGUMENT: &str = "memory-of";
const GROUP: &str = "memory";
/// Logs of nodes and entries that take some minutes.
pub const USUAL: &[(usize, usize)] = &[(1, 1_000_000), (3, 1_000_000), (20, 100_000)];
/// Logs that take 9 GB on disk, and long to write.
pub const LONG: &[(usize, usize)] = &[(1, 10_000_000), (3, 10_000_000)];

/// What a process found.
#[derive(Debug, Serialize, Deserialize)]
struct Found {
    /// Bytes that are in memory: before the log was opened, then, and when it had been read.
    before: usize,
    opened: usize,
    read: usize,
    /// Seconds.
    opening: f64,
    reading: f64,
    entries: usize,
}

/// Writes the logs and opens each in a process of its own.
///
/// # Errors
/// When a node or a process fails.
pub async fn run(report: &mut Report, run: &Run, logs: &[(usize, usize)]) -> Result<(), Failure> {
    for (nodes, entries) in logs {
        let entries = run.entries(*entries) / nodes * nodes;
        let folder = run.place.folder()?;
        fill(folder.path(), *nodes, entries).await?;
        let program = std::env::current_exe()?;
        let output = Command::new(program).arg(ARGUMENT).arg(folder.path()).arg(nodes.to_string()).output()?;
        if !output.status.success() {
            return Err(String::from_utf8_lossy(&output.stderr).into());
        }
        let found: Found = serde_json::from_slice(&output.stdout)?;
        if found.entries != entries {
            return Err(format!("{} of {entries} entries were there", found.entries).into());
        }
        let log = format!("{} entries of {ENTRY} bytes by {nodes}", number(entries as f64));
        let mebibytes = |bytes: usize| Ratio::exact(bytes as f64 / f64::from(1 << 20));
        let note = format!("{} before, opened in {}", mebibytes_text(found.before), time(found.opening));
        report.value(GROUP, format!("a node with {log}, opened"), mebibytes(found.opened), "MiB", None, note);
        let note = format!("read in {}", time(found.reading));
        report.value(GROUP, "the same, and all of it read", mebibytes(found.read), "MiB", None, note);
    }
    Ok(())
}

/// Opens the log of a folder's first node alone, reads it, and prints what that took.
///
/// # Errors
/// When it cannot be read.
pub async fn measure(folder: &Path, nodes: usize) -> Result<String, Failure> {
    let service = Service::new(nodes)?;
    let before = resident()?;
    let start = std::time::Instant::now();
    let replica = service.open(0, Disks::sqlite(folder).of(0)).await?;
    let opening = start.elapsed().as_secs_f64();
    let opened = resident()?;
    let start = std::time::Instant::now();
    let entries = Reader::of(&replica).catch_up().await?;
    let (reading, read) = (start.elapsed().as_secs_f64(), resident()?);
    replica.shutdown().await;
    Ok(serde_json::to_string(&Found { before, opened, read, opening, reading, entries })?)
}

/// Has nodes write a log together.
async fn fill(folder: &Path, nodes: usize, entries: usize) -> Result<(), Failure> {
    let network: Arc<dyn Network> = Arc::new(MemoryNetwork::new());
    let disks = Disks::sqlite(folder);
    let running = Service::new(nodes)?.start_all(|node| disks.of(node), &network).await?;
    let mut reading = JoinSet::new();
    for reader in running.iter().map(Running::reader) {
        reading.spawn(reader.read(entries));
    }
    let mut writing = JoinSet::new();
    for node in &running {
        let replica = node.replica.clone();
        writing.spawn(async move { write(&replica, entries / nodes, Wanted::Durable).await });
    }
    while let Some(done) = writing.join_next().await {
        done??;
    }
    while let Some(done) = reading.join_next().await {
        done??;
    }
    for node in running {
        node.stop().await;
    }
    Ok(())
}

fn mebibytes_text(bytes: usize) -> String {
    format!("{} MiB", number(bytes as f64 / f64::from(1 << 20)))
}
