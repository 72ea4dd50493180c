//! The other nodes of the service, as this one sees them.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::watch;

use super::place::{Incarnation, NodeId};
use crate::identity::OnionAddress;

/// A node of the service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member {
    /// Where its node is dialled.
    pub address: OnionAddress,
    /// The public half of its log key.
    pub node: NodeId,
}

/// How a peer stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PeerState {
    /// A link with it is up.
    pub live: bool,
    /// The run that it announced on the last link.
    pub incarnation: Option<Incarnation>,
}

/// The state of every other member.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Peers(BTreeMap<NodeId, PeerState>);

impl Peers {
    pub(super) fn new(nodes: impl Iterator<Item = NodeId>) -> Self {
        Self(nodes.map(|node| (node, PeerState::default())).collect())
    }

    /// One peer's state; `None` for this node itself and for strangers.
    pub fn state(&self, node: &NodeId) -> Option<PeerState> {
        self.0.get(node).copied()
    }

    /// All peers.
    pub fn iter(&self) -> impl Iterator<Item = (NodeId, PeerState)> + '_ {
        self.0.iter().map(|(node, state)| (*node, *state))
    }

    /// How many are live.
    pub fn live(&self) -> usize {
        self.0.values().filter(|state| state.live).count()
    }
}

/// Marks a peer live for as long as the link is up. Links with one peer may overlap for a moment.
pub(super) struct LiveGuard {
    links: Arc<LinkCounts>,
    node: NodeId,
}

/// The links that are up, and the view of the peers made from them.
#[derive(Debug)]
pub(super) struct LinkCounts {
    counts: std::sync::Mutex<BTreeMap<NodeId, usize>>,
    peers: watch::Sender<Peers>,
}

impl LinkCounts {
    pub(super) fn new(nodes: impl Iterator<Item = NodeId>) -> Self {
        Self { counts: Default::default(), peers: watch::Sender::new(Peers::new(nodes)) }
    }

    /// Knows these nodes from now on, and nobody else.
    pub(super) fn set_nodes(&self, nodes: impl Iterator<Item = NodeId>) {
        let counts = self.counts.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        self.peers.send_modify(|peers| {
            let known = std::mem::take(&mut peers.0);
            let state = |node: NodeId| known.get(&node).copied().unwrap_or_default();
            let live = |node: NodeId| counts.get(&node).is_some_and(|count| *count > 0);
            peers.0 = nodes.map(|node| (node, PeerState { live: live(node), ..state(node) })).collect();
        });
    }

    pub(super) fn watch(&self) -> watch::Receiver<Peers> {
        self.peers.subscribe()
    }

    pub(super) fn link_up(self: &Arc<Self>, node: NodeId, incarnation: Incarnation) -> LiveGuard {
        self.count(node, |count| count + 1, Some(incarnation));
        LiveGuard { links: Arc::clone(self), node }
    }

    fn count(&self, node: NodeId, change: impl FnOnce(usize) -> usize, incarnation: Option<Incarnation>) {
        let mut counts = self.counts.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let count = counts.entry(node).or_default();
        *count = change(*count);
        let live = *count > 0;
        self.peers.send_if_modified(|peers| {
            let Some(state) = peers.0.get_mut(&node) else { return false };
            let new = PeerState { live, incarnation: incarnation.or(state.incarnation) };
            std::mem::replace(state, new) != new
        });
    }
}

impl Drop for LiveGuard {
    fn drop(&mut self) {
        self.links.count(self.node, |count| count.saturating_sub(1), None);
    }
}
