//! What HCP's replicated log costs and survives, beside what others do for the same work: openraft with three nodes, and a
//! PostgreSQL table with synchronous replication.
//!
//! Everybody's word of an entry counts only once it survives a power cut: here after an fsync, there after an fsync on as many
//! nodes. All nodes of everything share this machine's cores and its disk.

pub mod catch_up;
pub mod cluster;
pub mod disk;
pub mod failures;
pub mod ingest;
pub mod latency;
pub mod memory;
pub mod others;
pub mod postgres;
pub mod raft;
pub mod service;
pub mod stores;
#[cfg(feature = "tor")]
pub mod tor;

use self::disk::Place;

/// Where a run measures, and how much.
#[derive(Clone, Debug)]
pub struct Run {
    pub place: Place,
    pub extent: Extent,
}

/// How much is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// So much that figures mean something.
    Whole,
    /// A tenth, once: to see that all works.
    Trial,
}

impl Run {
    /// So many entries, or a tenth of them.
    pub fn entries(&self, whole: usize) -> usize {
        match self.extent {
            Extent::Whole => whole,
            Extent::Trial => whole / 10,
        }
    }

    /// So many turns, or one.
    pub fn turns(&self, whole: usize) -> usize {
        match self.extent {
            Extent::Whole => whole,
            Extent::Trial => 1,
        }
    }
}
