//! How the replica stands, as the driver tells it.

use std::time::Duration;

use super::Driver;
use crate::replica::error::Stopped;
use crate::replica::peers::PeerState;
use crate::replica::place::NodeId;
use crate::replica::status::{Disk, PeerStatus, ReplicaStatus};

impl Driver {
    /// Whether a batch waits for a server that cannot be reached.
    pub(super) fn is_away(&self) -> bool {
        self.writing && self.store.failure().is_some_and(|error| error.is_away())
    }

    pub(super) fn tell_status(&self) {
        let found = self.machine.status();
        let head = self.told.head.borrow().clone();
        let peers = self.told.peers.borrow();
        let of = |(node, state): (NodeId, PeerState)| {
            let linked = found.peers.iter().find(|peer| peer.node == node).filter(|_| state.live);
            let (lag, lead) = (linked.and_then(|peer| peer.lacks), linked.map_or(0, |peer| peer.leads));
            let stalled = linked.map_or(Duration::ZERO, |peer| peer.stalls);
            (node, PeerStatus { live: state.live, lag, stalled, lead, refusal: state.refusal })
        };
        let disk = match &head.stopped {
            Some(Stopped::Store(_) | Stopped::Damaged(_)) => Disk::Failed,
            _ if head.full => Disk::Full,
            _ if self.is_away() => Disk::Away,
            _ => Disk::Good,
        };
        self.told.status.send_replace(ReplicaStatus {
            log: found.log,
            peers: peers.iter().map(of).collect(),
            disk,
            logs: self.machine.sizes().logs,
            forked: found.forked.iter().map(|forked| forked.log).collect(),
            clock_ahead: found.ahead,
            waiting: found.held,
            manifest: found.manifest,
            manifest_conflict: self.manifest_conflict,
            checkpoint: found.checkpoint.is_some(),
            checkpoint_too_large: found.too_large.map(|why| why.to_string()),
            stopped: head.stopped,
        });
    }
}
