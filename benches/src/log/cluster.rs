//! Three nodes of whatever kind, which write entries and die: what HCP is compared by.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use hcp_core::network::Network;
use tempfile::TempDir;

use super::disk::Place;
use super::service::{Disks, Entries, Running, Service, Wanted, write};
use crate::Failure;
use crate::peers::TcpNetwork;

/// Nodes of a cluster.
pub const NODES: usize = 3;

/// Nodes that hold every entry durably on two of them before they say that it is written.
pub trait Cluster: Send + Sync {
    /// Writes an entry, from asking for it until it is said to be written.
    fn write(&self) -> BoxFuture<'_, Result<(), Failure>>;

    /// Writes so many entries as fast as it goes.
    fn ingest(&self, count: usize) -> BoxFuture<'_, Result<(), Failure>>;

    /// Kills somebody, without a word to the others; says since when nobody reaches it.
    fn kill(&self, victim: Victim) -> BoxFuture<'_, Result<Instant, Failure>>;
}

/// Who is to die next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Victim {
    /// Who leads; where nobody does, the one that clients write at.
    Leader,
    /// Somebody else.
    Follower,
}

/// Nodes of a service, linked over loopback TCP.
pub struct Replicas {
    /// The first one is written at.
    nodes: Mutex<Vec<Running>>,
    entries: Entries,
    _folder: TempDir,
}

impl Replicas {
    /// # Errors
    /// When they cannot be started.
    pub async fn start(place: &Place) -> Result<Self, Failure> {
        let folder = place.folder()?;
        let network: Arc<dyn Network> = Arc::new(TcpNetwork::new());
        let disks = Disks::sqlite(folder.path());
        let nodes = Service::new(NODES)?.start_all(|node| disks.of(node), &network).await?;
        Ok(Self { nodes: Mutex::new(nodes), entries: Entries::new(), _folder: folder })
    }

    fn replica(&self) -> Result<hcp_core::replica::Replica, Failure> {
        let nodes = self.nodes.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(nodes.first().ok_or("all are dead")?.replica.clone())
    }
}

impl Cluster for Replicas {
    /// On two disks; or on one, when the others are known to be dead.
    fn write(&self) -> BoxFuture<'_, Result<(), Failure>> {
        async {
            let receipt = self.replica()?.append(self.entries.get(0)).await?;
            receipt.replicated_to_live(1).await?;
            Ok(())
        }
        .boxed()
    }

    fn ingest(&self, count: usize) -> BoxFuture<'_, Result<(), Failure>> {
        async move { write(&self.replica()?, count, Wanted::Replicated).await }.boxed()
    }

    fn kill(&self, victim: Victim) -> BoxFuture<'_, Result<Instant, Failure>> {
        let mut nodes = self.nodes.lock().unwrap_or_else(PoisonError::into_inner);
        let killed = match victim {
            Victim::Leader if !nodes.is_empty() => Some(nodes.remove(0)),
            Victim::Leader => None,
            Victim::Follower => nodes.pop(),
        };
        let died = Instant::now();
        async move {
            drop(killed.ok_or("all are dead")?);
            Ok(died)
        }
        .boxed()
    }
}
