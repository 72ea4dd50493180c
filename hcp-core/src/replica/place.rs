//! Where an entry stands in the log, and what its author had seen: places, stamps and pasts.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// A node of a replicated service: the public half of its log key.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(pub [u8; 32]);

impl fmt::Debug for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NodeId({:02x}{:02x}…)", self.0[0], self.0[1])
    }
}

/// One run of a node's process; 128 random bits, so that a restored disk can never continue an old log.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Incarnation(pub [u8; 16]);

impl fmt::Debug for Incarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Incarnation({:02x}{:02x}…)", self.0[0], self.0[1])
    }
}

/// An append-only log: one incarnation of one node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LogId {
    /// The author.
    pub node: NodeId,
    /// Its run.
    pub incarnation: Incarnation,
}

/// Where an entry stands; unique for ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// The log.
    pub log: LogId,
    /// The segment's sequence number in the log, from 1.
    pub seq: u64,
    /// The entry's index in the segment, from 0.
    pub index: u32,
}

/// A hybrid logical clock reading: milliseconds since the Unix epoch and a counter that orders readings within one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Stamp {
    /// Milliseconds since 1970-01-01 00:00 UTC.
    pub millis: u64,
    /// Orders readings within one millisecond.
    pub counter: u32,
}

/// What the author of a segment had seen when it wrote it: for each log the highest segment.
///
/// Cheap to clone; "had seen" is one look-up.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Past(pub(crate) Arc<BTreeMap<LogId, u64>>);

impl Past {
    /// Whether the entry at `place` was in this past.
    pub fn has_seen(&self, place: &Place) -> bool {
        self.0.get(&place.log).is_some_and(|seq| *seq >= place.seq)
    }
}

impl FromIterator<(LogId, u64)> for Past {
    fn from_iter<I: IntoIterator<Item = (LogId, u64)>>(items: I) -> Self {
        Self(Arc::new(items.into_iter().collect()))
    }
}
