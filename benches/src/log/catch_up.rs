//! How fast a node gets what it lacks, beside a bulk stream of a session that carries as many bytes over the same network.

use std::sync::Arc;
use std::time::Instant;

use hcp_core::identity::Identity;
use hcp_core::network::{MemoryNetwork, Network};
use hcp_core::node::Node;
use hcp_core::session::Priority;

use super::Run;
use super::service::{Disks, ENTRY, Entries, Running, Service, Wanted, write};
use crate::Failure;
use crate::measure::{Turns, timed};
use crate::peers::{HcpPeer, Peer as _, TcpNetwork, serve_orders};
use crate::report::{Goal, Report, number, rate};

const GROUP: &str = "catch-up";
const TURNS: usize = 5;
/// What is lacking, in full segments.
const ENTRIES: usize = 500_000;
/// What is lacking in segments of one entry each.
const SEGMENTS: usize = 2_000;
/// What the design asks of the log beside the bare session.
const GOAL: Goal = Goal::AtLeast(0.8);

/// Measures both networks, with logs in memory and on disk.
///
/// # Errors
/// When a node fails.
pub async fn run(report: &mut Report, run: &Run) -> Result<(), Failure> {
    let networks: [(&str, Arc<dyn Network>); 2] =
        [("in memory", Arc::new(MemoryNetwork::new())), ("over TCP", Arc::new(TcpNetwork::new()))];
    for (name, network) in networks {
        let full = [Lacking::new(&network, Kept::Memory, run).await?, Lacking::new(&network, Kept::Disk, run).await?];
        let count = run.entries(ENTRIES);
        for lacking in &full {
            write(&lacking.full.replica, count, Wanted::Durable).await?;
        }
        let mut bare = bare(&network).await?;
        let bytes = count * ENTRY;
        let turns = Turns::take(run.turns(TURNS), 3, async |way| match way {
            0 => timed(bare.transfer(bytes as u64)).await,
            way => full[way - 1].catch_up(count).await,
        })
        .await?;
        for (way, kept) in [(1, "kept in memory"), (2, "kept with SQLite")] {
            let rates = [way, 0].map(|way| rate(bytes, turns.median(way)));
            let what = format!("{name}, {kept}, until it is read, vs a bulk stream");
            report.ratio(GROUP, what, turns.speed(way, 0), Some(GOAL), rates.join(" and "));
        }
        for lacking in full {
            lacking.full.stop().await;
        }
    }
    small(report, run).await
}

/// What was written entry by entry: what a segment costs shows there, and no bytes do.
async fn small(report: &mut Report, run: &Run) -> Result<(), Failure> {
    let network: Arc<dyn Network> = Arc::new(MemoryNetwork::new());
    let lacking = Lacking::new(&network, Kept::Disk, run).await?;
    let (count, entries) = (run.entries(SEGMENTS), Entries::new());
    for number in 0..count {
        lacking.full.replica.append(entries.get(number)).await?.durable().await?;
    }
    let turns = Turns::take(run.turns(TURNS), 1, async |_| lacking.catch_up(count).await).await?;
    let rates: Vec<f64> = turns.all(0).iter().map(|seconds| count as f64 / seconds).collect();
    let note = format!("{} segments in memory's network, kept with SQLite", number(count as f64));
    report.value(GROUP, "segments of one entry each", crate::measure::Ratio::of(&rates), "/s", None, note);
    lacking.full.stop().await;
    Ok(())
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kept {
    Memory,
    Disk,
}

/// Two nodes, of which the first lacks everything whenever it starts.
struct Lacking {
    service: Service,
    network: Arc<dyn Network>,
    kept: Kept,
    run: Run,
    full: Running,
    _folder: tempfile::TempDir,
}

impl Lacking {
    async fn new(network: &Arc<dyn Network>, kept: Kept, run: &Run) -> Result<Self, Failure> {
        let (service, folder) = (Service::new(2)?, run.place.folder()?);
        // The first one dials, so that nothing waits for somebody to dial again.
        let full = service.start(1, disks(kept, folder.path()).of(1), network).await?;
        Ok(Self { service, network: Arc::clone(network), kept, run: run.clone(), full, _folder: folder })
    }

    /// How long it takes a node with an empty disk to have read so many entries.
    async fn catch_up(&self, count: usize) -> Result<f64, Failure> {
        let folder = self.run.place.folder()?;
        let start = Instant::now();
        let node = self.service.start(0, disks(self.kept, folder.path()).of(0), &self.network).await?;
        node.reader().read(count).await?;
        let took = start.elapsed().as_secs_f64();
        node.stop().await;
        // The next one is not refused for a session that still seems to be there.
        self.full.linked_with(0).await?;
        Ok(took)
    }
}

fn disks(kept: Kept, folder: &std::path::Path) -> Disks {
    match kept {
        Kept::Memory => Disks::memory(2),
        Kept::Disk => Disks::sqlite(folder),
    }
}

/// A bulk stream without lanes: a link has none either.
async fn bare(network: &Arc<dyn Network>) -> Result<HcpPeer, Failure> {
    let server = serve_orders(Node::builder(Identity::generate(), Arc::clone(network))).bind().await?;
    let client = Node::builder(Identity::generate(), Arc::clone(network)).lanes(0).bind().await?;
    let session = client.connect(server.address()).await?;
    HcpPeer::new(session, Priority::Bulk, vec![server, client]).await
}
