//! What the author of a segment had seen, as a vector over writers.
//!
//! A writer is a log up to its first fork, or a branch of it from there on, named by the hash of its first segment; so that
//! all nodes call the same writer the same, whichever branch they took in first. A vector that holds a branch holds what
//! stands before it too, so "had seen" is one look-up.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::storage::Hash;
use crate::replica::place::{LogId, Stamp};

/// A log up to its first fork, or one branch of it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) struct Writer {
    pub(crate) log: LogId,
    /// Hash of the branch's first segment; zero for what stands before the first fork.
    pub(crate) branch: Hash,
}

impl Writer {
    pub(crate) fn trunk(log: LogId) -> Self {
        Self { log, branch: [0; 32] }
    }
}

/// Where an entry stands; unique for ever.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) struct Spot {
    pub(crate) writer: Writer,
    pub(crate) seq: u64,
    pub(crate) index: u32,
}

/// For each writer the highest segment that is in it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Vector(pub(crate) BTreeMap<Writer, u64>);

impl Vector {
    pub(crate) fn reaches(&self, writer: &Writer, seq: u64) -> bool {
        self.0.get(writer).is_some_and(|has| *has >= seq)
    }

    pub(crate) fn raise(&mut self, writer: Writer, seq: u64) {
        let has = self.0.entry(writer).or_default();
        *has = seq.max(*has);
    }

    /// A writer became two: what it wrote from a number on has another name now.
    pub(crate) fn split(&mut self, split: &Split) {
        if let Some(has) = self.0.get_mut(&split.from)
            && *has >= split.at
        {
            let seq = std::mem::replace(has, split.at - 1);
            if *has == 0 {
                self.0.remove(&split.from);
            }
            self.0.insert(split.into(), seq);
        }
    }
}

/// What an author had seen when it wrote. Cheap to clone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Past {
    seen: Arc<Vector>,
    /// Logs that are over and done with: everybody has seen them.
    forgotten: Arc<BTreeMap<LogId, u64>>,
}

impl Past {
    pub(crate) fn new(seen: Arc<Vector>, forgotten: Arc<BTreeMap<LogId, u64>>) -> Self {
        Self { seen, forgotten }
    }

    /// The writers that it reaches, and how far.
    pub(crate) fn vector(&self) -> &Vector {
        &self.seen
    }

    /// Whether the entry at `spot` was in this past.
    pub(crate) fn has_seen(&self, spot: &Spot) -> bool {
        self.seen.reaches(&spot.writer, spot.seq) || self.forgotten.contains_key(&spot.writer.log)
    }
}

/// A fork was found: what a writer wrote from a number on belongs to a branch. Whoever keeps spots renames them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Split {
    pub(crate) from: Writer,
    /// The first number of the branch.
    pub(crate) at: u64,
    /// Its name.
    pub(crate) name: Hash,
}

impl Split {
    pub(crate) fn into(&self) -> Writer {
        Writer { log: self.from.log, branch: self.name }
    }

    /// The name that a spot has after this.
    pub(crate) fn rename(&self, spot: &mut Spot) {
        if spot.writer == self.from && spot.seq >= self.at {
            spot.writer = self.into();
        }
    }
}

/// The facts about a write that decide which write wins.
#[derive(Clone, Debug)]
pub(crate) struct Facts {
    pub(crate) spot: Spot,
    /// Breaks ties between concurrent writes, and nothing else.
    pub(crate) stamp: Stamp,
    pub(crate) past: Past,
    /// Of an entry that was appended again, its first place; it takes the place of that one.
    pub(crate) instead: Option<Spot>,
}

impl Facts {
    /// Whether this write supersedes one at `earlier`: its author had seen it, or wrote it before.
    pub(crate) fn supersedes(&self, earlier: &Spot) -> bool {
        let same = self.spot.writer == earlier.writer && *earlier < self.spot;
        same || self.instead == Some(*earlier) || self.past.has_seen(earlier)
    }
}
