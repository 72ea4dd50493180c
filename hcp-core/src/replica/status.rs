//! How a replica stands.

use std::collections::BTreeMap;
use std::time::Duration;

use super::error::{LinkRefusal, Stopped};
use crate::replica::place::{LogId, NodeId};

/// How a replica stands; at most half a second old.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ReplicaStatus {
    /// The log that this run writes.
    pub log: LogId,
    /// Every other member of the manifest that counts.
    pub peers: BTreeMap<NodeId, PeerStatus>,
    /// How the disk stands.
    pub disk: Disk,
    /// Logs held, one for each run of each node that is not over.
    pub logs: usize,
    /// Logs whose node signed two different segments for one place. Both stay, as if two had written them, and the log takes
    /// no more.
    pub forked: Vec<LogId>,
    /// Nodes whose clock is over a minute ahead of this one's; one of the two is wrong.
    pub clock_ahead: Vec<NodeId>,
    /// Segments that wait for others that they depend on.
    pub waiting: usize,
    /// Version of the manifest that counts.
    pub manifest: u64,
    /// A version that the owner signed twice, with different content. Everywhere the same one of the two counts.
    pub manifest_conflict: Option<u64>,
    /// A checkpoint stands for what came before it.
    pub checkpoint: bool,
    /// What of a checkpoint is beyond its limit, so that this node signs none and the log grows.
    pub checkpoint_too_large: Option<String>,
    /// Why nothing more is written here.
    pub stopped: Option<Stopped>,
}

/// How a peer stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct PeerStatus {
    /// A link with it is up.
    pub live: bool,
    /// Segments that are durable here and that it has not said to hold; `None` while there is no link, or it has not said.
    pub lag: Option<u64>,
    /// For how long it has lacked some without getting any nearer, to half a second.
    pub stalled: Duration,
    /// Segments that it says it holds and that this node lacks.
    pub lead: u64,
    /// Why this node has ended the last link.
    pub refusal: Option<LinkRefusal>,
}

/// How the disk stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Disk {
    /// It takes what it is given.
    Good,
    /// There is no room; what is read from it goes on, and it is tried again every second.
    Full,
    /// The server that the log is kept in cannot be reached, or does not answer: what is appended waits, and all goes on when
    /// it is there again.
    Away,
    /// It failed, and the process has to be started again once the cause is gone.
    Failed,
}
