//! What two nodes say to each other on a link.

use std::sync::Arc;

use super::storage::{Hash, Piece};
use super::wire::{SIGNATURE, Segment, Tip};
use crate::identity::manifest::SoftwareVersion;
use crate::replica::place::{Incarnation, NodeId};

/// A message of a link. What comes was decoded, its sizes and forms are good, its signatures are not yet checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Message {
    /// The first, in both directions.
    Hello(Hello),
    Frontier(Frontier),
    Segment(Arc<Segment>),
    Receipt(Receipt),
    /// So many bytes more may be sent.
    Credit(u64),
    Need(Need),
    Offer(Box<Offer>),
    /// Asks for a piece of a state.
    Fetch {
        root: Hash,
        index: u32,
    },
    Piece(Piece),
    /// The statement of the checkpoint that the sender holds durably; zero if it holds none.
    Holds(Hash),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Hello {
    pub(crate) service: [u8; 32],
    pub(crate) node: NodeId,
    pub(crate) incarnation: Incarnation,
    /// What this node runs, and the lowest that may be run by its manifest.
    pub(crate) software: SoftwareVersion,
    pub(crate) lowest: SoftwareVersion,
    pub(crate) manifest: u64,
}

/// What a node holds durably, as far as it did not say so on this link.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Frontier {
    /// Each stands for all before it; those of one log may come in several messages.
    pub(crate) tips: Vec<Tip>,
    /// With whom else the node is linked, when that has changed: what those wrote they push themselves.
    pub(crate) direct: Option<Vec<NodeId>>,
}

/// "I hold this log durably up to here."
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Receipt {
    pub(crate) tip: Tip,
    pub(crate) signature: [u8; SIGNATURE],
}

/// Asks for a segment that something held back needs, and for some that stand before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Need {
    pub(crate) tip: Tip,
    pub(crate) back: u32,
}

/// A checkpoint for a node that lacks what is not held any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Offer {
    pub(crate) certificate: bytes::Bytes,
    pub(crate) summary: bytes::Bytes,
    /// The hashes of the state's pieces.
    pub(crate) pieces: bytes::Bytes,
}

/// Tips in one frontier: 45 KB, below a frame. What one has more goes into the next.
pub(crate) const MAX_TIPS: usize = 512;
