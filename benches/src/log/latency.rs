//! How long it takes until an entry that was appended here is applied there, beside one way of a message over the same
//! session.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::future::try_join;
use hcp_core::network::{MemoryNetwork, Network};
use hcp_core::session::Priority;

use super::Run;
use super::service::{Disks, ENTRY, Entries, Reader, Running, Service};
use crate::Failure;
use crate::measure::{Ratio, quantile};
use crate::peers::{Delayed, HcpPeer, Peer as _};
use crate::report::{Goal, Report, time};

const SAMPLES: usize = 400;
/// What the design allows beyond one way, in milliseconds.
const ALLOWANCE: f64 = 20.0;
/// Networks in memory: what they are called, and how long one way takes.
const NETWORKS: [(&str, Duration); 2] =
    [("latency, memory", Duration::ZERO), ("latency, 20 ms one way", Duration::from_millis(20))];
/// Pauses between entries go up to this, so that they come at any time of whatever goes round.
const PAUSE: Duration = Duration::from_millis(40);

/// Measures on networks in memory, with logs on disk.
///
/// # Errors
/// When a node fails.
pub async fn run(report: &mut Report, run: &Run) -> Result<(), Failure> {
    for (group, one_way) in NETWORKS {
        let network: Arc<dyn Network> = if one_way.is_zero() {
            Arc::new(MemoryNetwork::new())
        } else {
            Arc::new(Delayed::new(MemoryNetwork::new(), one_way))
        };
        let folder = run.place.folder()?;
        let disks = Disks::sqlite(folder.path());
        let nodes = Service::new(2)?.start_all(|node| disks.of(node), &network).await?;
        measure(report, group, &nodes, run.entries(SAMPLES)).await?;
        for node in nodes {
            node.stop().await;
        }
    }
    Ok(())
}

/// Entries from the first of two nodes to the second, and messages between them, in turns.
///
/// # Errors
/// When a node fails.
pub(super) async fn measure(
    report: &mut Report,
    group: &'static str,
    nodes: &[Running],
    samples: usize,
) -> Result<(), Failure> {
    let [here, there] = nodes else { return Err("two nodes, no more".into()) };
    let session = here.node.connect(there.node.address()).await?;
    let mut ping = HcpPeer::new(session, Priority::Live, Vec::new()).await?;
    let mut reader = there.reader();
    let entries = Entries::new();
    let (mut appended, mut durable, mut one_way) = (Vec::new(), Vec::new(), Vec::new());
    // Once to warm up.
    pass(here, &mut reader, entries.get(0)).await?;
    ping.round_trips(1, ENTRY).await?;
    for number in 1..=samples {
        let (from_append, from_durable) = pass(here, &mut reader, entries.get(number)).await?;
        appended.push(from_append);
        durable.push(from_durable);
        let start = Instant::now();
        ping.round_trips(1, ENTRY).await?;
        one_way.push(start.elapsed().as_secs_f64() / 2.0);
        // Of coprime steps, so that all parts of a pause come.
        tokio::time::sleep(PAUSE * (number * 37 % 101) as u32 / 101).await;
    }
    let trip = quantile(&one_way, 0.5);
    let mut row = |what, times: &[f64], goal| {
        let beyond: Vec<f64> = times.iter().map(|took| took - trip).collect();
        let [half, most] = [0.5, 0.99].map(|part| time(quantile(times, part)));
        let most_of_trips = time(quantile(&one_way, 0.99));
        let note = format!("all of it: half {half}, 99 % {most}; one way: half {}, 99 % {most_of_trips}", time(trip));
        report.value(group, what, Ratio::of(&beyond).times(1e3), "ms", goal, note);
    };
    // A commit is when it is durable here; what is appended waits for others that go into the same segment before.
    row("committed here, applied there, beyond one way", &durable, Some(Goal::AtMost(ALLOWANCE)));
    row("appended here, applied there, beyond one way", &appended, None);
    Ok(())
}

/// From when an entry was appended until it was read there, and from when it was durable here; the latter is negative when
/// it was read there before this node had said so.
async fn pass(here: &Running, reader: &mut Reader, entry: bytes::Bytes) -> Result<(f64, f64), Failure> {
    let start = Instant::now();
    let receipt = here.replica.append(entry.clone()).await?;
    let written = async {
        receipt.durable().await?;
        Ok::<_, Failure>(Instant::now())
    };
    let read = async {
        if reader.entry().await? != entry {
            return Err("another entry came".into());
        }
        Ok::<_, Failure>(Instant::now())
    };
    let (written, read) = try_join(written, read).await?;
    let from_durable = match read.checked_duration_since(written) {
        Some(after) => after.as_secs_f64(),
        None => -(written - read).as_secs_f64(),
    };
    Ok(((read - start).as_secs_f64(), from_durable))
}
