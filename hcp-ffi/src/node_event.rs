//! What happens to a node, and what it has counted.

use std::sync::Arc;

use hcp_core::node as core;
use tokio::sync::Mutex;

use crate::cancellation::{Cancellation, unless_cancelled};
use crate::error::{ErrorKind, HcpError};
use crate::identity::OnionAddress;
use crate::mirror::mirror;
use crate::session::{Peer, SessionEnd};

/// Which side dialled a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, uniffi::Enum)]
pub enum DialledBy {
    /// This node.
    Us,
    /// The peer.
    Peer,
}

mirror!(core::DialledBy => DialledBy { Us, Peer });

/// What happened to a node.
#[derive(Clone, Debug, uniffi::Enum)]
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
        error: SessionEnd,
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
        address: Arc<OnionAddress>,
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

impl NodeEvent {
    /// None for an event that this does not know.
    fn from_core(event: core::NodeEvent) -> Option<Self> {
        Some(match event {
            core::NodeEvent::SessionBegan { peer, dialled_by } => {
                Self::SessionBegan { peer: peer.into(), dialled_by: dialled_by.into() }
            }
            core::NodeEvent::SessionEnded { peer, dialled_by, error } => {
                Self::SessionEnded { peer: peer.into(), dialled_by: dialled_by.into(), error: error.into() }
            }
            core::NodeEvent::LaneBegan { peer } => Self::LaneBegan { peer: peer.into() },
            core::NodeEvent::LaneEnded { peer } => Self::LaneEnded { peer: peer.into() },
            core::NodeEvent::DialFailed { address, kind, reason } => {
                Self::DialFailed { address: OnionAddress::shared(address), kind: kind.into(), reason }
            }
            core::NodeEvent::Missed { count } => Self::Missed { count },
            _ => return None,
        })
    }
}

/// The events of a node from the moment on at which it was asked for them.
#[derive(Debug, uniffi::Object)]
pub struct NodeEvents {
    inner: Mutex<core::NodeEvents>,
}

#[uniffi::export(async_runtime = "tokio")]
impl NodeEvents {
    /// Waits for the next event; none when the node is gone.
    ///
    /// # Errors
    /// `Cancelled`, and then no event is lost.
    #[uniffi::method(default(cancellation = None))]
    pub async fn next(&self, cancellation: Option<Arc<Cancellation>>) -> Result<Option<NodeEvent>, HcpError> {
        unless_cancelled(cancellation, async {
            let mut events = self.inner.lock().await;
            loop {
                match events.next().await.map(NodeEvent::from_core) {
                    None => return None,
                    Some(Some(event)) => return Some(event),
                    Some(None) => {}
                }
            }
        })
        .await
    }
}

impl NodeEvents {
    pub(crate) fn shared(events: core::NodeEvents) -> Arc<Self> {
        Arc::new(Self { inner: Mutex::new(events) })
    }
}

/// What a node has done since it was bound, and what it holds now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, uniffi::Record)]
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
    /// Sessions that were refused, since the node had no room for them.
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

impl From<core::NodeStats> for NodeStats {
    fn from(stats: core::NodeStats) -> Self {
        Self {
            sessions_dialled: stats.sessions_dialled,
            sessions_accepted: stats.sessions_accepted,
            sessions_open: stats.sessions_open,
            dials_failed: stats.dials_failed,
            handshakes_failed: stats.handshakes_failed,
            handshakes_displaced: stats.handshakes_displaced,
            sessions_refused: stats.sessions_refused,
            lanes_joined: stats.lanes_joined,
            lanes_failed: stats.lanes_failed,
            sessions_evicted: stats.sessions_evicted,
            bytes_held: stats.bytes_held,
            bytes_backlog: stats.bytes_backlog,
        }
    }
}
