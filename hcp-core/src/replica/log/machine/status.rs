//! How a node stands, and what it keeps in memory.

use std::time::Duration;

use super::{Machine, Stop};
use crate::identity::manifest::Manifest;
use crate::replica::log::storage::Branch;
use crate::replica::log::wire::Tip;
use crate::replica::place::{LogId, NodeId};

/// How a node stands, as far as it knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Status {
    /// The log that this run writes.
    pub(crate) log: LogId,
    /// The version of the newest manifest.
    pub(crate) manifest: u64,
    /// Those with which a link is up.
    pub(crate) peers: Vec<PeerStatus>,
    pub(crate) forked: Vec<Forked>,
    /// Members of whom something came whose clock was more than a minute ahead, in this run.
    pub(crate) ahead: Vec<NodeId>,
    /// Segments that came and wait for others.
    pub(crate) held: usize,
    /// There is no room on the disk.
    pub(crate) full: bool,
    pub(crate) stopped: Option<Stop>,
    /// The segment that asked for the checkpoint that is held.
    pub(crate) checkpoint: Option<Tip>,
    /// Why nothing comes of requests for checkpoints.
    pub(crate) too_large: Option<TooLarge>,
}

/// How a peer stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PeerStatus {
    pub(crate) node: NodeId,
    /// Segments that are durable here, and of which the peer has not said that it holds them; none while it has said nothing.
    pub(crate) lacks: Option<u64>,
    /// For how long it has lacked some without getting any nearer, to half a second.
    pub(crate) stalls: Duration,
    /// Segments that it holds and this node does not.
    pub(crate) leads: u64,
    /// It holds the same checkpoint, or none as this node.
    pub(crate) same_checkpoint: bool,
}

/// A log that its author has forked: proof of a fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Forked {
    pub(crate) log: LogId,
    /// How many branches are held; one when there is only the proof.
    pub(crate) branches: usize,
}

/// What of a checkpoint is beyond its limit, so that this node signs none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TooLarge {
    /// There are too many logs that are not over: each run of a node is one, until every member has seen its end.
    #[error("the log's own part of a checkpoint would have {0} bytes")]
    Summary(usize),
    #[error("the application's state has {0} bytes")]
    State(u64),
}

/// What a machine keeps in memory that others have a say in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sizes {
    /// Segments held back, and the most bytes of them that came from one node.
    pub(crate) held: usize,
    pub(crate) held_bytes: usize,
    /// The most bytes that came from one node and are not durable.
    pub(crate) unstored: u64,
    pub(crate) hashes: usize,
    pub(crate) recent: usize,
    pub(crate) logs: usize,
    /// Of what one peer has said: logs, and ends that are not known here, at the most.
    pub(crate) said: usize,
    pub(crate) strange: usize,
}

impl Machine {
    /// How this node stands. Walks all logs for every peer.
    pub(crate) fn status(&self) -> Status {
        let forked = self.ledger.logs.iter().filter(|(_, log)| log.forked);
        Status {
            log: self.own,
            manifest: self.manifest.contents().version(),
            peers: self.links.keys().filter_map(|node| self.peer_status(*node)).collect(),
            forked: forked
                .map(|(log, known)| Forked { log: *log, branches: known.tips(*log).count().max(1) })
                .collect(),
            ahead: self.ahead.iter().copied().collect(),
            held: self.held.sizes().0,
            full: self.is_full(),
            stopped: self.stopped,
            checkpoint: self.checkpoints.stable.as_ref().map(|stable| stable.statement.asked),
            too_large: self.checkpoints.too_large,
        }
    }

    fn peer_status(&self, node: NodeId) -> Option<PeerStatus> {
        let link = self.links.get(&node)?;
        let lacking = self.durable.iter().map(|((log, branch), (seq, _))| {
            let own = self.ledger.logs.get(log).and_then(|known| known.get(*branch)).map_or(1, |chain| chain.from);
            seq.saturating_sub(self.reached(link, log, *branch).max(own - 1))
        });
        let leads = link.said.iter().filter(|(log, _)| !self.ledger.is_forgotten(log)).map(|(log, said)| {
            let own = self.durable.range((*log, Branch(0))..=(*log, Branch(u32::MAX)));
            said.last().saturating_sub(own.map(|(_, (seq, _))| *seq).max().unwrap_or_default())
        });
        let since = link.lag.values().map(|(_, since)| *since).min();
        Some(PeerStatus {
            node,
            lacks: link.heard.then(|| lacking.sum()),
            stalls: since.map_or(Duration::ZERO, |since| self.now.saturating_sub(since)),
            leads: leads.sum(),
            same_checkpoint: link.holds.is_some_and(|(holds, _)| holds == self.holds()),
        })
    }

    pub(crate) fn sizes(&self) -> Sizes {
        let (held, held_bytes) = self.held.sizes();
        Sizes {
            held,
            held_bytes,
            unstored: self.unstored.values().max().copied().unwrap_or_default(),
            hashes: self.hashes.len(),
            recent: self.recent.bytes(),
            logs: self.ledger.logs.len(),
            said: self.links.values().map(|link| link.said.len()).max().unwrap_or_default(),
            strange: self.links.values().map(|link| link.strange).max().unwrap_or_default(),
        }
    }

    /// The log that a linked peer writes, once it has said so; `None` when there is no link.
    pub(crate) fn linked(&self, node: &NodeId) -> Option<Option<LogId>> {
        self.links.get(node).map(|link| link.log)
    }

    /// Whether something was delivered that nobody was handed.
    pub(crate) fn has_unhanded(&self) -> bool {
        !self.has_handed_everything()
    }

    /// Whether there is something to be done.
    pub(crate) fn has_output(&self) -> bool {
        !self.outputs.is_empty()
    }

    /// The manifest that counts.
    pub(crate) fn manifest(&self) -> &Manifest {
        &self.manifest
    }
}
