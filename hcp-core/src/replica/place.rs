//! Who writes, to which log, and where in it: nodes, runs, places and stamps.

use std::fmt;

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
