//! How far somebody has read the log.

use std::collections::BTreeMap;

use crate::error::ErrorKind;
use crate::identity::fields::Fields;
use crate::replica::log::machine::Covered;
use crate::replica::log::vector::{Split, Spot, Vector, Writer};
use crate::replica::log::wire::{put_log, take_log};

/// How far somebody has read the log: a place to go on from, on this node or any other.
///
/// Keep it with what was made of the entries, in one transaction: then none is ever handed out twice.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Frontier {
    vector: Vector,
    /// Of some writers' next segment only so many entries were handed out. One node hands out a segment to its end before it
    /// begins another, but who goes on elsewhere may find others' segments in between.
    within: BTreeMap<Writer, (u64, u32)>,
}

impl Frontier {
    /// The beginning of the log.
    pub fn start() -> Self {
        Self::default()
    }

    /// The frontier in bytes: some hundred for each run of each node that has an open log.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = vec![LAYOUT];
        let mut put = |writer: &Writer, seq: u64, index: u32| {
            put_log(&mut out, &writer.log);
            out.extend_from_slice(&writer.branch);
            out.extend_from_slice(&seq.to_be_bytes());
            out.extend_from_slice(&index.to_be_bytes());
        };
        self.vector.0.iter().for_each(|(writer, seq)| put(writer, *seq, WHOLE));
        self.within.iter().for_each(|(writer, (seq, index))| put(writer, *seq, *index));
        out
    }

    /// What [`to_bytes`](Self::to_bytes) made.
    ///
    /// # Errors
    /// [`FrontierError`] when something else did.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, FrontierError> {
        let (layout, mut rest) = bytes.split_first().ok_or(FrontierError)?;
        if *layout != LAYOUT {
            return Err(FrontierError);
        }
        let mut frontier = Self::default();
        while !rest.is_empty() {
            let (part, after) = rest.split_at_checked(PART).ok_or(FrontierError)?;
            rest = after;
            let mut fields = Fields::new(part);
            let mut read = || {
                let writer = Writer { log: take_log(&mut fields)?, branch: fields.take()? };
                Some((writer, fields.u64()?, fields.u32()?))
            };
            match read().ok_or(FrontierError)? {
                (writer, seq, WHOLE) => frontier.vector.raise(writer, seq),
                (writer, seq, index) => {
                    frontier.within.insert(writer, (seq, index));
                }
            }
        }
        Ok(frontier)
    }

    /// How many entries of a segment were handed out; `None` for all.
    pub(super) fn of(&self, writer: &Writer, seq: u64) -> Option<u32> {
        match self.within.get(writer) {
            _ if self.vector.reaches(writer, seq) => None,
            Some((at, index)) if *at == seq => Some(*index),
            _ => Some(0),
        }
    }

    /// Notes that an entry was handed out, and of which segments that was the last.
    pub(super) fn take(&mut self, writer: Writer, seq: u64, index: Option<u32>) {
        match index {
            Some(index) => {
                self.within.insert(writer, (seq, index + 1));
            }
            None => {
                self.vector.raise(writer, seq);
                self.within.remove(&writer);
            }
        }
    }

    pub(super) fn split(&mut self, split: &Split) {
        self.vector.split(split);
        if self.within.get(&split.from).is_some_and(|(seq, _)| *seq >= split.at)
            && let Some(within) = self.within.remove(&split.from)
        {
            self.within.insert(split.into(), within);
        }
    }

    /// The branch that begins with this segment, if anything of it was handed out under that name.
    pub(super) fn knows(&self, branch: &Writer) -> bool {
        self.vector.0.contains_key(branch) || self.within.contains_key(branch)
    }

    /// Whether everything that a checkpoint covers was handed out, and nothing that it leaves out for good.
    pub(super) fn agrees_with(&self, covered: &Covered) -> bool {
        covered.is_in(&self.vector) && !covered.leaves_out(&self.vector)
    }

    /// Stands where a checkpoint does.
    pub(super) fn at(covered: &Covered) -> Self {
        Self { vector: covered.vector(), within: BTreeMap::new() }
    }

    /// Forgets logs that are over: who has read the others has read them.
    pub(super) fn forget_over(&mut self, covered: &Covered) {
        self.vector.0.retain(|writer, _| !covered.is_over(&writer.log));
        self.within.retain(|writer, _| !covered.is_over(&writer.log));
    }

    /// Whether the entry at a spot was handed out.
    pub fn has_read(&self, spot: &Spot) -> bool {
        self.of(&spot.writer, spot.seq).is_none_or(|handed| spot.index < handed)
    }
}

/// Bytes that are no frontier.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, thiserror::Error)]
#[error("these bytes are no frontier of a log")]
pub struct FrontierError;

impl FrontierError {
    /// What a caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        ErrorKind::InvalidInput
    }
}

const LAYOUT: u8 = 1;
/// Of a segment that was handed out to its end.
const WHOLE: u32 = u32::MAX;
/// Log, branch, number, index.
const PART: usize = 48 + 32 + 8 + 4;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replica::place::{Incarnation, LogId, NodeId};

    /// Where the rest of a segment lies on another node is that node's affair.
    #[test]
    fn a_segment_that_was_begun_stays_begun_whatever_comes_in_between() {
        let writer = |n: u8| Writer::trunk(LogId { node: NodeId([n; 32]), incarnation: Incarnation([n; 16]) });
        let mut frontier = Frontier::start();
        frontier.take(writer(1), 1, Some(0));
        frontier.take(writer(1), 1, Some(1));
        let mut moved = Frontier::from_bytes(&frontier.to_bytes()).unwrap();
        assert_eq!(moved, frontier);
        moved.take(writer(2), 1, Some(0));
        moved.take(writer(2), 1, None);
        assert_eq!((moved.of(&writer(1), 1), moved.of(&writer(2), 1)), (Some(2), None));
        moved.take(writer(1), 1, None);
        assert_eq!((moved.of(&writer(1), 1), moved.of(&writer(1), 2)), (None, Some(0)));
    }
}
