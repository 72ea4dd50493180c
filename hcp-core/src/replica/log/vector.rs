//! What the author of a segment had seen, as a vector over writers.
//!
//! A writer is a log up to its first fork, or a branch of it from there on, named by the hash of its first segment; so that
//! all nodes call the same writer the same, whichever branch they took in first. A vector that holds a branch holds what
//! stands before it too, so "had seen" is one look-up.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::storage::Hash;
use crate::identity::fields::Fields;
use crate::replica::place::{LogId, Stamp};

/// Who wrote an entry: a log up to its first fork, or one branch of it from there on.
///
/// Of an honest node it is a log and nothing else.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Writer {
    /// The log.
    pub log: LogId,
    /// Hash of the branch's first segment; zero for what stands before the first fork.
    pub(crate) branch: Hash,
}

impl Writer {
    /// A log, as far as it has not forked.
    pub fn trunk(log: LogId) -> Self {
        Self { log, branch: [0; 32] }
    }
}

/// Where an entry stands; unique for ever.
///
/// All nodes call the same entry the same. When a node is found to have signed two segments for one place, those who keep spots
/// [rename](Split::rename) them. The order is that of logs, and within one that of writing.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Spot {
    /// Who wrote it.
    pub writer: Writer,
    /// The segment's number in the log, from 1.
    pub seq: u64,
    /// The entry's index in the segment, from 0.
    pub index: u32,
}

impl Spot {
    /// Bytes of a spot.
    pub const LEN: usize = 32 + 16 + 32 + 8 + 4;

    /// The spot in one form, for a state that is stored.
    pub fn to_bytes(&self) -> [u8; Self::LEN] {
        let mut out = Vec::with_capacity(Self::LEN);
        super::wire::put_log(&mut out, &self.writer.log);
        out.extend_from_slice(&self.writer.branch);
        out.extend_from_slice(&self.seq.to_be_bytes());
        out.extend_from_slice(&self.index.to_be_bytes());
        let mut bytes = [0; Self::LEN];
        bytes.copy_from_slice(&out);
        bytes
    }

    /// What [`to_bytes`](Self::to_bytes) made.
    pub fn from_bytes(bytes: &[u8; Self::LEN]) -> Self {
        let mut fields = Fields::new(bytes);
        let mut read = || {
            let writer = Writer { log: super::wire::take_log(&mut fields)?, branch: fields.take()? };
            Some(Self { writer, seq: fields.u64()?, index: fields.u32()? })
        };
        read().expect("so many bytes hold all fields")
    }
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

/// What the author of an entry had seen when it wrote. Cheap to clone; "had seen" is one look-up.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Past {
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
    pub fn has_seen(&self, spot: &Spot) -> bool {
        self.seen.reaches(&spot.writer, spot.seq) || self.forgotten.contains_key(&spot.writer.log)
    }
}

impl FromIterator<(LogId, u64)> for Past {
    /// A past of these logs, each up to a segment.
    fn from_iter<I: IntoIterator<Item = (LogId, u64)>>(logs: I) -> Self {
        let seen = logs.into_iter().map(|(log, seq)| (Writer::trunk(log), seq)).collect();
        Self { seen: Arc::new(Vector(seen)), forgotten: Arc::default() }
    }
}

/// A fork was found: what a writer wrote from a number on belongs to a branch. Whoever keeps [spots](Spot) renames them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Split {
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
    pub fn rename(&self, spot: &mut Spot) {
        self.rename_writer(&mut spot.writer, spot.seq);
    }

    /// The same for places of which no two stand on one chain of segments.
    pub(crate) fn rename_place(&self, places: &mut BTreeMap<Writer, u64>) {
        if places.get(&self.from).is_some_and(|seq| *seq >= self.at)
            && let Some(seq) = places.remove(&self.from)
        {
            places.insert(self.into(), seq);
        }
    }

    /// The same for the writer of what stands at a number.
    pub(crate) fn rename_writer(&self, writer: &mut Writer, seq: u64) {
        if *writer == self.from && seq >= self.at {
            *writer = self.into();
        }
    }
}

/// The facts about a write that decide which write wins.
#[derive(Clone, Debug)]
pub struct Write {
    /// Where the writing entry stands.
    pub spot: Spot,
    /// Its clock reading; breaks ties between concurrent writes, and nothing else.
    pub stamp: Stamp,
    /// What its author had seen.
    pub past: Past,
    /// Of an entry that its author appended again: where it stood first. It takes the place of that one.
    pub instead: Option<Spot>,
}

impl Write {
    /// Whether this write supersedes one at `earlier`: its author had seen that, or wrote it before.
    pub fn supersedes(&self, earlier: &Spot) -> bool {
        let same = self.spot.writer == earlier.writer && *earlier < self.spot;
        same || self.instead == Some(*earlier) || self.past.has_seen(earlier)
    }

    /// Where the entry stood first: a name for it that stays when its author appends it again.
    pub fn first(&self) -> Spot {
        self.instead.unwrap_or(self.spot)
    }
}
