//! A node that began with nothing waits for what the others have before it serves clients.

use std::time::Duration;

use hcp_core::replica::ReplicaStatus;

use super::Server;

impl Server {
    /// Serves clients from now on if this node waited for what others have and has it; called when all that came is applied.
    pub(super) fn stop_holding(&mut self) {
        let Some(since) = self.holding else { return };
        if self.caught_up
            && self.world.is_current(&self.own)
            && !is_behind(&self.log.replica().status().borrow(), since.elapsed())
        {
            self.holding = None;
            self.ready.send_replace(true);
        }
    }
}

/// Whether a replica that was just opened held nothing but its own new run.
pub(super) fn began_empty(status: &ReplicaStatus) -> bool {
    status.logs <= 1 && !status.checkpoint
}

/// Whether a node that began with nothing, so long ago, should still wait for what the others have: who joined a channel here
/// would seem to create it, and what the others have would come as if it were said now.
fn is_behind(status: &ReplicaStatus, waited: Duration) -> bool {
    let live = || status.peers.values().filter(|peer| peer.live);
    if live().next().is_none() {
        return !status.peers.is_empty() && waited < ALONE;
    }
    let few = if waited < ALONE { 0 } else { NEARLY };
    waited < BEHIND && live().any(|peer| peer.lag.is_none() || peer.lead > few)
}

/// How long a node that began with nothing waits for a first link: longer than the others between two attempts.
const ALONE: Duration = Duration::from_secs(6);
/// How long it waits at the most for what the others have.
const BEHIND: Duration = Duration::from_secs(15);
/// Segments that may be on their way while others write without pause: who lacks no more has caught up.
const NEARLY: u64 = 16;
