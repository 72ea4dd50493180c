//! What everybody who waits for the log looks at: how far it is durable, where it is read, whether it goes on.

use std::sync::Arc;

use super::error::Stopped;
use crate::replica::log::storage::Position;
use crate::replica::log::store::Store;
use crate::replica::place::LogId;

/// The store as it was opened last.
#[derive(Clone, Debug)]
pub(super) struct Ground {
    /// Counts openings.
    pub(super) opening: u64,
    /// Nobody holds it for longer than it takes to read, so that it is let go when the replica is; none then.
    pub(super) store: Option<Arc<dyn Store>>,
}

/// How far the log is.
#[derive(Clone, Debug)]
pub(super) struct Head {
    pub(super) ground: Ground,
    /// Everything up to here was delivered.
    pub(super) position: Position,
    /// Counts the beginnings and the ends of batches that bring a checkpoint: rows may be gone when it has changed.
    pub(super) pruned: u64,
    /// The log that this run writes.
    pub(super) own: LogId,
    /// There is no room on the disk.
    pub(super) full: bool,
    /// Nothing more will be written.
    pub(super) stopped: Option<Stopped>,
}
