//! A cluster of openraft with three nodes in this process.
//!
//! What one tells another it is given without bytes and without encryption, which costs it less than anything real would.
//! Each keeps its log with `raft-log`, by openraft's authors, and an entry counts as written there once it is synced.

mod store;

use std::collections::{BTreeMap, HashMap};
use std::io::{self, Cursor};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use openraft::error::{ClientWriteError, InstallSnapshotError, RPCError, RaftError, RemoteError, Unreachable};
use openraft::impls::EmptyNode;
use openraft::network::RPCOption;
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, InstallSnapshotRequest, InstallSnapshotResponse, VoteRequest,
    VoteResponse,
};
use openraft::{Config, Raft, RaftNetwork, RaftNetworkFactory, SnapshotPolicy};
use tempfile::TempDir;
use tokio::task::JoinSet;

use self::store::{Counter, LogStore};
use super::cluster::{Cluster, NODES, Victim};
use super::disk::Place;
use super::service::Entries;
use crate::Failure;

/// One write of a client's: an entry of Raft's log, which is synced by itself. So who writes much puts many together.
#[derive(Clone, Debug)]
pub struct Batch(Vec<Bytes>);

openraft::declare_raft_types!(
    /// Entries are batches, and what comes of them is that they are counted.
    pub Types:
        D = Batch,
        R = (),
        Node = EmptyNode,
);

/// Batches under way at once when much is written, and entries of each: some hundreds, as a client that gathers for some
/// milliseconds has them.
const UNDER_WAY: usize = 16;
const TOGETHER: usize = 500;
/// How long a client waits before it asks somebody else who leads.
const PAUSE: Duration = Duration::from_millis(10);

/// Somebody leads by then, or never will.
const SOON: Duration = Duration::from_secs(30);

/// Who is alive.
type Nodes = Arc<Mutex<HashMap<u64, Raft<Types>>>>;

/// The nodes.
pub struct RaftCluster {
    nodes: Nodes,
    /// Who led when last somebody knew.
    leader: Arc<AtomicU64>,
    entries: Entries,
    _folder: TempDir,
}

impl RaftCluster {
    /// # Errors
    /// When a node cannot be started, or nobody comes to lead.
    pub async fn start(place: &Place) -> Result<Self, Failure> {
        let folder = place.folder()?;
        let nodes = Nodes::default();
        // Everything else as it is by default; logs of this length need no snapshots.
        let config = Config { snapshot_policy: SnapshotPolicy::Never, ..Config::default() }.validate()?;
        let config = Arc::new(config);
        let numbers = 0..NODES as u64;
        for number in numbers.clone() {
            let path = folder.path().join(number.to_string());
            std::fs::create_dir(&path)?;
            let log = LogStore::open(&path)?;
            let wires = Wires { nodes: Arc::clone(&nodes) };
            let raft = Raft::new(number, Arc::clone(&config), wires, log, Counter::default()).await?;
            lock(&nodes).insert(number, raft);
        }
        let first = lock(&nodes)[&0].clone();
        let members: BTreeMap<u64, EmptyNode> = numbers.map(|number| (number, EmptyNode {})).collect();
        first.initialize(members).await?;
        let waiting = first.wait(Some(SOON));
        let led = waiting.metrics(|now| now.current_leader.is_some(), "a leader").await?;
        let leader = led.current_leader.ok_or("nobody leads")?;
        Ok(Self { nodes, leader: Arc::new(AtomicU64::new(leader)), entries: Entries::new(), _folder: folder })
    }

    fn batch(&self, length: usize) -> Batch {
        Batch((0..length).map(|number| self.entries.get(number)).collect())
    }
}

/// Asks who is thought to lead, and whoever else there is, until somebody has written it.
async fn put(nodes: &Nodes, leads: &AtomicU64, batch: &Batch) -> Result<(), Failure> {
    loop {
        let leader = leads.load(Ordering::Relaxed);
        let node = lock(nodes).get(&leader).cloned();
        let next = match node {
            Some(node) => match node.client_write(batch.clone()).await {
                Ok(_) => return Ok(()),
                Err(RaftError::APIError(ClientWriteError::ForwardToLeader(to))) => to.leader_id,
                Err(_) => None,
            },
            None => None,
        };
        match next.filter(|next| *next != leader) {
            Some(next) => leads.store(next, Ordering::Relaxed),
            None => {
                leads.store((leader + 1) % NODES as u64, Ordering::Relaxed);
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

impl Cluster for RaftCluster {
    fn write(&self) -> BoxFuture<'_, Result<(), Failure>> {
        async { put(&self.nodes, &self.leader, &self.batch(1)).await }.boxed()
    }

    fn ingest(&self, count: usize) -> BoxFuture<'_, Result<(), Failure>> {
        async move {
            let mut writing = JoinSet::new();
            let mut left = count;
            while left > 0 {
                if writing.len() == UNDER_WAY
                    && let Some(done) = writing.join_next().await
                {
                    done??;
                }
                let length = left.min(TOGETHER);
                left -= length;
                let (nodes, leader, batch) = (Arc::clone(&self.nodes), Arc::clone(&self.leader), self.batch(length));
                writing.spawn(async move { put(&nodes, &leader, &batch).await });
            }
            while let Some(done) = writing.join_next().await {
                done??;
            }
            Ok(())
        }
        .boxed()
    }

    fn kill(&self, victim: Victim) -> BoxFuture<'_, Result<Instant, Failure>> {
        async move {
            let killed = {
                let mut nodes = lock(&self.nodes);
                let leads = nodes.values().find_map(|node| node.metrics().borrow().current_leader);
                let whom = |number: &u64| (Some(*number) == leads) == (victim == Victim::Leader);
                let number = nodes.keys().copied().find(|number| whom(number)).ok_or("there is no such node")?;
                nodes.remove(&number)
            };
            // Nobody hears of it: the others cannot reach it any more.
            let died = Instant::now();
            if let Some(killed) = killed {
                killed.shutdown().await?;
            }
            Ok(died)
        }
        .boxed()
    }
}

fn lock(nodes: &Nodes) -> std::sync::MutexGuard<'_, HashMap<u64, Raft<Types>>> {
    nodes.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Leads from a node to each.
struct Wires {
    nodes: Nodes,
}

struct Wire {
    nodes: Nodes,
    to: u64,
}

type Answer<T, E = openraft::error::Infallible> = Result<T, RPCError<u64, EmptyNode, RaftError<u64, E>>>;

impl Wire {
    fn peer(&self) -> Result<Raft<Types>, Unreachable> {
        let peer = lock(&self.nodes).get(&self.to).cloned();
        peer.ok_or_else(|| Unreachable::new(&io::Error::from(io::ErrorKind::ConnectionRefused)))
    }

    fn failed<E: std::error::Error>(&self, error: RaftError<u64, E>) -> RPCError<u64, EmptyNode, RaftError<u64, E>> {
        RPCError::RemoteError(RemoteError::new(self.to, error))
    }
}

impl RaftNetworkFactory<Types> for Wires {
    type Network = Wire;

    async fn new_client(&mut self, to: u64, _: &EmptyNode) -> Wire {
        Wire { nodes: Arc::clone(&self.nodes), to }
    }
}

impl RaftNetwork<Types> for Wire {
    async fn append_entries(
        &mut self,
        request: AppendEntriesRequest<Types>,
        _: RPCOption,
    ) -> Answer<AppendEntriesResponse<u64>> {
        self.peer()?.append_entries(request).await.map_err(|error| self.failed(error))
    }

    async fn install_snapshot(
        &mut self,
        request: InstallSnapshotRequest<Types>,
        _: RPCOption,
    ) -> Answer<InstallSnapshotResponse<u64>, InstallSnapshotError> {
        self.peer()?.install_snapshot(request).await.map_err(|error| self.failed(error))
    }

    async fn vote(&mut self, request: VoteRequest<u64>, _: RPCOption) -> Answer<VoteResponse<u64>> {
        self.peer()?.vote(request).await.map_err(|error| self.failed(error))
    }
}
