//! The nodes of one service, started and killed.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use hcp_core::identity::delegation::OwnerKey;
use hcp_core::identity::manifest::{Contents, Manifest, Member, Role};
use hcp_core::identity::{Identity, LogKey};
use hcp_core::network::Network;
use hcp_core::node::{Access, Node};
use hcp_core::replica::{Event, Frontier, Links, MemoryDisk, PROTOCOL, Receipt, Replica, Storage, Subscription};
use tokio::task::JoinSet;

use crate::Failure;
use crate::peers::{noise, serve_orders};

/// Bytes of an entry in all measurements.
pub const ENTRY: usize = 200;
/// Who writes as fast as it goes: so many tasks, each of which has so many entries under way.
const WRITERS: usize = 8;
const WINDOW: usize = 1_024;

/// All that a service's nodes are given: keys and the manifest. The same number of nodes always gives the same, so that a
/// process can open what another one wrote.
pub struct Service {
    owner: OwnerKey,
    /// By their addresses: of two nodes the first one dials.
    nodes: Vec<(Identity, LogKey)>,
    manifest: Manifest,
}

impl Service {
    /// # Errors
    /// When there cannot be so many nodes.
    pub fn new(nodes: usize) -> Result<Self, Failure> {
        let seed = |kind: u8, number: usize| {
            let mut seed = [kind; 32];
            seed[..8].copy_from_slice(&number.to_be_bytes());
            seed
        };
        let keys = |number| (Identity::from_seed(&seed(1, number)), LogKey::from_seed(&seed(2, number)));
        let mut nodes: Vec<_> = (0..nodes).map(keys).collect();
        nodes.sort_by_key(|(identity, _)| identity.address());
        let (owner, service) = (OwnerKey::from_seed(&seed(3, 0)), Identity::from_seed(&seed(4, 0)));
        let member =
            |(identity, log): &(Identity, LogKey)| Member::new(identity.address(), log.public_key(), Role::Publisher);
        let members = nodes.iter().map(member).collect::<Result<_, _>>()?;
        let manifest = Manifest::sign(&owner, service.address(), Contents::new(1, members)?)?;
        Ok(Self { owner, nodes, manifest })
    }

    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// Opens a node's log, without a network.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub async fn open(&self, node: usize, storage: Storage) -> Result<Replica, Failure> {
        let (_, log) = &self.nodes[node];
        let builder = Replica::builder(storage, log.clone(), self.owner.public_key(), self.manifest.clone());
        Ok(builder.open().await?)
    }

    /// Starts a node, which links with the others and also does what [`HcpPeer`](crate::peers::HcpPeer) asks.
    ///
    /// # Errors
    /// When it cannot be opened or bound.
    pub async fn start(&self, node: usize, storage: Storage, network: &Arc<dyn Network>) -> Result<Running, Failure> {
        let replica = self.open(node, storage).await?;
        let builder = Node::builder(self.nodes[node].0.clone(), Arc::clone(network));
        let builder = serve_orders(builder.protocol(PROTOCOL, Access::Identified, replica.handler()));
        let node = builder.bind().await?;
        let links = replica.link(&node);
        Ok(Running { replica, node, _links: links })
    }

    /// Starts all nodes, each with a storage of its own, and waits until all are linked.
    ///
    /// # Errors
    /// When one of them cannot be started.
    pub async fn start_all(
        &self,
        storage: impl Fn(usize) -> Storage,
        network: &Arc<dyn Network>,
    ) -> Result<Vec<Running>, Failure> {
        let mut running = Vec::new();
        for node in 0..self.len() {
            running.push(self.start(node, storage(node), network).await?);
        }
        for node in &running {
            node.linked_with(self.len() - 1).await?;
        }
        Ok(running)
    }
}

/// A node that runs. It is killed when it is dropped: nothing of it is told to anybody.
pub struct Running {
    pub replica: Replica,
    pub node: Node,
    _links: Links,
}

impl Running {
    /// # Errors
    /// When the replica stops before.
    pub async fn linked_with(&self, peers: usize) -> Result<(), Failure> {
        self.replica.peers().wait_for(|all| all.live() == peers).await?;
        Ok(())
    }

    pub fn reader(&self) -> Reader {
        Reader::of(&self.replica)
    }

    pub async fn stop(self) {
        let replica = self.replica.clone();
        drop(self);
        replica.shutdown().await;
    }
}

/// An application that counts what it reads.
pub struct Reader(Subscription);

impl Reader {
    pub fn of(replica: &Replica) -> Self {
        Self(replica.subscribe(Frontier::start()))
    }

    /// Reads so many entries.
    ///
    /// # Errors
    /// When the log ends before or cannot be read.
    pub async fn read(mut self, count: usize) -> Result<Self, Failure> {
        for _ in 0..count {
            self.entry().await?;
        }
        Ok(self)
    }

    /// The next entry.
    ///
    /// # Errors
    /// When the log ends before or cannot be read.
    pub async fn entry(&mut self) -> Result<Bytes, Failure> {
        loop {
            match self.0.next().await?.ok_or("the log has ended")? {
                Event::Entry(applied) => return Ok(applied.entry),
                _ => continue,
            }
        }
    }

    /// Reads all that was there when it began, and says how much that was.
    ///
    /// # Errors
    /// When the log ends before or cannot be read.
    pub async fn catch_up(&mut self) -> Result<usize, Failure> {
        let mut count = 0;
        loop {
            match self.0.next().await?.ok_or("the log has ended")? {
                Event::Entry(_) => count += 1,
                Event::CaughtUp => return Ok(count),
                _ => continue,
            }
        }
    }
}

/// When a writer is content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// On this node's disk.
    Durable,
    /// On this node's disk and on another one's.
    Replicated,
}

impl Wanted {
    async fn wait(self, receipt: &Receipt) -> Result<(), Failure> {
        match self {
            Self::Durable => _ = receipt.durable().await?,
            Self::Replicated => _ = receipt.replicated(1).await?,
        }
        Ok(())
    }
}

/// Writes so many entries at a node as fast as it goes, and waits until the writer is content with all of them.
///
/// # Errors
/// When an entry is not taken.
pub async fn write(replica: &Replica, count: usize, wanted: Wanted) -> Result<(), Failure> {
    let mut writers = JoinSet::new();
    for writer in 0..WRITERS {
        let share = count / WRITERS + usize::from(writer < count % WRITERS);
        let replica = replica.clone();
        writers.spawn(async move {
            let entries = Entries::new();
            let mut under_way = VecDeque::with_capacity(WINDOW);
            for number in 0..share {
                if under_way.len() == WINDOW
                    && let Some(receipt) = under_way.pop_front()
                {
                    wanted.wait(&receipt).await?;
                }
                under_way.push_back(replica.append(entries.get(number)).await?);
            }
            for receipt in under_way {
                wanted.wait(&receipt).await?;
            }
            Ok::<_, Failure>(())
        });
    }
    while let Some(done) = writers.join_next().await {
        done??;
    }
    Ok(())
}

/// What is written: entries that a store cannot make smaller.
pub struct Entries(Bytes);

impl Entries {
    const KINDS: usize = 4_096;

    #[allow(clippy::new_without_default, reason = "it computes")]
    pub fn new() -> Self {
        Self(noise(Self::KINDS + ENTRY))
    }

    pub fn get(&self, number: usize) -> Bytes {
        let at = number % Self::KINDS;
        self.0.slice(at..at + ENTRY)
    }
}

/// Where a node of a service keeps its log.
pub enum Disks {
    Sqlite(PathBuf),
    Memory(Vec<MemoryDisk>),
}

impl Disks {
    pub fn sqlite(folder: &Path) -> Self {
        Self::Sqlite(folder.to_owned())
    }

    pub fn memory(nodes: usize) -> Self {
        Self::Memory((0..nodes).map(|_| MemoryDisk::new()).collect())
    }

    pub fn of(&self, node: usize) -> Storage {
        match self {
            Self::Sqlite(folder) => Storage::sqlite(folder.join(format!("node-{node}.db"))),
            Self::Memory(disks) => Storage::memory(&disks[node]),
        }
    }
}
