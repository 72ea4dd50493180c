//! The other nodes of the service, as this one sees them.

use std::collections::BTreeMap;

use super::error::LinkRefusal;
use crate::replica::place::{Incarnation, NodeId};

/// How a peer stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PeerState {
    /// A link with it is up.
    pub live: bool,
    /// The run that it announced on the last link.
    pub incarnation: Option<Incarnation>,
    /// Why the last link was ended by this node; nothing while one is up.
    pub refusal: Option<LinkRefusal>,
}

/// The state of every other member.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Peers(pub(super) BTreeMap<NodeId, PeerState>);

impl Peers {
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

    /// Knows these nodes from now on, and nobody else.
    pub(super) fn set_nodes(&mut self, nodes: impl Iterator<Item = NodeId>) {
        let known = std::mem::take(&mut self.0);
        self.0 = nodes.map(|node| (node, known.get(&node).copied().unwrap_or_default())).collect();
    }
}
