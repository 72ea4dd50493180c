//! How long it takes until an entry is applied at another node, over a private Tor network.

use std::sync::Arc;
use std::time::Duration;

use hcp_core::network::Network;
use hcp_core::network::tor::TorNetwork;
use hcp_core::testing::PrivateTorNetwork;

use super::Run;
use super::latency::measure;
use super::service::{Disks, Service};
use crate::Failure;
use crate::report::Report;

const SAMPLES: usize = 200;
/// Two networks: what the group is called, and how long a link to a relay takes.
const NETWORKS: [(&str, Duration); 2] =
    [("latency, Tor", Duration::ZERO), ("latency, Tor, 20 ms a link", Duration::from_millis(20))];
/// Two nodes find each other within this.
const DEADLINE: Duration = Duration::from_secs(240);

/// Starts the networks, one after the other, and measures.
///
/// # Errors
/// When a network does not come up or a node fails.
pub async fn run(report: &mut Report, run: &Run) -> Result<(), Failure> {
    for (group, link_delay) in NETWORKS {
        let testnet = PrivateTorNetwork::builder().link_delay(link_delay).start().await?;
        let folder = run.place.folder()?;
        let disks = Disks::sqlite(folder.path());
        let service = Service::new(2)?;
        let mut nodes = Vec::new();
        for node in 0..service.len() {
            let own = folder.path().join(format!("tor-{node}"));
            let network = TorNetwork::builder(own.join("state"), own.join("cache"))
                .private_network(testnet.description().network())
                .bootstrap()
                .await?;
            let network: Arc<dyn Network> = Arc::new(network);
            nodes.push(service.start(node, disks.of(node), &network).await?);
        }
        for node in &nodes {
            tokio::time::timeout(DEADLINE, node.linked_with(1)).await??;
        }
        measure(report, group, &nodes, run.entries(SAMPLES)).await?;
        for node in nodes {
            node.stop().await;
        }
    }
    Ok(())
}
