//! What happens to a node, told to whoever listens, and counted.

use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::broadcast;

use super::ledger::Ledger;
use crate::error::ErrorKind;
use crate::identity::OnionAddress;
use crate::session::{Peer, SessionError};

/// Events that wait for a slow reader; older ones are dropped, and the reader is told how many. A burst of all lanes and
/// sessions of a small node fits.
pub const EVENT_QUEUE: usize = 256;

/// Which side dialled a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DialledBy {
    /// This node.
    Us,
    /// The peer.
    Peer,
}

/// What happened to a node.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum NodeEvent {
    /// A session was established.
    SessionBegan {
        /// Who is at the other end.
        peer: Peer,
        /// Which side dialled.
        dialled_by: DialledBy,
    },
    /// A session has ended.
    SessionEnded {
        /// Who was at the other end.
        peer: Peer,
        /// Which side had dialled.
        dialled_by: DialledBy,
        /// Why it ended.
        error: SessionError,
    },
    /// A lane joined a session.
    LaneBegan {
        /// Who is at the other end.
        peer: Peer,
    },
    /// A lane has ended; its session goes on.
    LaneEnded {
        /// Who is at the other end.
        peer: Peer,
    },
    /// A dial came to no session.
    DialFailed {
        /// Who was dialled.
        address: OnionAddress,
        /// What kind of failure it was.
        kind: ErrorKind,
        /// Why it failed, for a log; no address is in it.
        reason: String,
    },
    /// The reader was too slow.
    Missed {
        /// Events that it will never see; newer ones follow.
        count: u64,
    },
}

/// The events of a node from the moment on at which it was asked for them.
#[derive(Debug)]
pub struct NodeEvents {
    receiver: broadcast::Receiver<NodeEvent>,
}

impl NodeEvents {
    /// Waits for the next event; `None` when the node is gone.
    ///
    /// # Cancel safety
    /// Cancel-safe: no event is lost.
    pub async fn next(&mut self) -> Option<NodeEvent> {
        match self.receiver.recv().await {
            Ok(event) => Some(event),
            Err(broadcast::error::RecvError::Lagged(count)) => Some(NodeEvent::Missed { count }),
            Err(broadcast::error::RecvError::Closed) => None,
        }
    }
}

/// What a node has done since it was bound, and what it holds now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct NodeStats {
    /// Sessions that this node dialled and that were established.
    pub sessions_dialled: u64,
    /// Sessions that peers dialled and that were established.
    pub sessions_accepted: u64,
    /// Sessions that are established now.
    pub sessions_open: u64,
    /// Dials that came to no session.
    pub dials_failed: u64,
    /// Connections that came to neither a session nor a lane: garbage, timeouts, wrong proofs.
    pub handshakes_failed: u64,
    /// Of those, connections that made room for newer ones.
    pub handshakes_displaced: u64,
    /// Sessions that were refused, since their address had no room for them.
    pub sessions_refused: u64,
    /// Lanes that have joined sessions, whoever dialled.
    pub lanes_joined: u64,
    /// Lanes that could not be dialled, or were refused.
    pub lanes_failed: u64,
    /// Sessions that were ended because they held the most when peers made the node hold too much, or had the most to send when
    /// all sessions together had too much.
    pub sessions_evicted: u64,
    /// Bytes that peers make the node hold now: received, and not taken by the application.
    pub bytes_held: u64,
    /// Bytes that applications have sent and the node keeps now: not gone out, or bulk that is not acknowledged.
    pub bytes_backlog: u64,
}

/// Counts and tells.
#[derive(Debug)]
pub(super) struct Telling {
    events: broadcast::Sender<NodeEvent>,
    pub(super) counts: Counts,
}

/// What [`NodeStats`] counts.
#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) sessions_dialled: AtomicU64,
    pub(super) sessions_accepted: AtomicU64,
    pub(super) sessions_open: AtomicU64,
    pub(super) dials_failed: AtomicU64,
    pub(super) handshakes_failed: AtomicU64,
    pub(super) handshakes_displaced: AtomicU64,
    pub(super) sessions_refused: AtomicU64,
    pub(super) lanes_joined: AtomicU64,
    pub(super) lanes_failed: AtomicU64,
}

impl Default for Telling {
    fn default() -> Self {
        Self { events: broadcast::Sender::new(EVENT_QUEUE), counts: Counts::default() }
    }
}

impl Telling {
    /// Tells whoever listens; nobody need.
    pub(super) fn tell(&self, event: NodeEvent) {
        let _ = self.events.send(event);
    }

    pub(super) fn listen(&self) -> NodeEvents {
        NodeEvents { receiver: self.events.subscribe() }
    }

    pub(super) fn stats(&self, ledger: &Ledger, backlog: &Ledger) -> NodeStats {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        NodeStats {
            sessions_dialled: count(&self.counts.sessions_dialled),
            sessions_accepted: count(&self.counts.sessions_accepted),
            sessions_open: count(&self.counts.sessions_open),
            dials_failed: count(&self.counts.dials_failed),
            handshakes_failed: count(&self.counts.handshakes_failed),
            handshakes_displaced: count(&self.counts.handshakes_displaced),
            sessions_refused: count(&self.counts.sessions_refused),
            lanes_joined: count(&self.counts.lanes_joined),
            lanes_failed: count(&self.counts.lanes_failed),
            sessions_evicted: (ledger.evictions() + backlog.evictions()) as u64,
            bytes_held: ledger.total() as u64,
            bytes_backlog: backlog.total() as u64,
        }
    }
}

/// Adds one.
pub(super) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}
