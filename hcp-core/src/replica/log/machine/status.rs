//! How a node stands, and what it keeps in memory.

use super::Machine;

/// What a machine keeps in memory that others have a say in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sizes {
    /// Segments held back, and the most bytes of them that came from one node.
    pub(crate) held: usize,
    pub(crate) held_bytes: usize,
    pub(crate) hashes: usize,
    pub(crate) recent: usize,
    pub(crate) logs: usize,
}

impl Machine {
    pub(crate) fn sizes(&self) -> Sizes {
        let (held, held_bytes) = self.held.sizes();
        Sizes { held, held_bytes, hashes: self.hashes.len(), recent: self.recent.bytes(), logs: self.ledger.logs.len() }
    }
}
