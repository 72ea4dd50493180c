//! What the machine asks of its store, and what the store answers: the whole contract between the two.
//!
//! The machine has one [`Batch`] under way at a time and any number of [`Read`]s up to [`MAX_READS`]. A store carries
//! batches out in the order in which they come. What it must keep:
//!
//! - **All or nothing**: a batch is there as a whole or not at all, also after a crash or a power cut in the middle of it.
//! - **Durable first**: [`Outcome::Done`] is said once the whole batch survives a power cut, and not before.
//! - **Reads see what was said to be done**: a read that is asked for after [`Outcome::Done`] sees that batch. Whether it
//!   sees one whose outcome has not been said is open; the machine does not care.
//! - **Positions are this node's own** and say in which order it took segments in; that order is causal. No position is
//!   ever used twice while its segment is held, and gaps mean nothing.
//! - **A place is not unique**: of a log that forked, several segments stand at one sequence number, told apart by their
//!   hash. An index on (log, sequence) is what reads need; none on the hash.
//!
//! Nothing here needs a clock or interprets what it stores, but for [`Row`]'s fields.

use std::sync::Arc;

use bytes::Bytes;

use crate::replica::place::LogId;

/// A hash of a segment's header, or a root of a state.
pub(crate) type Hash = [u8; 32];

/// Reads that are under way at once at the most: for each of 127 links a page, something that is needed and four pieces; and
/// a few for hashes, proofs and the checkpoint.
pub(crate) const MAX_READS: usize = 1_024;

/// Where a segment stands in the order in which this node took segments in; from 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Position(pub(crate) u64);

/// Numbers the branches of a log that forked, on this node: 0 is the one that it took in first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Branch(pub(crate) u32);

/// A segment as it is stored. Wide values are shared, not copied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Row {
    pub(crate) position: Position,
    pub(crate) log: LogId,
    /// Its number in the log, from 1.
    pub(crate) seq: u64,
    pub(crate) branch: Branch,
    pub(crate) hash: Hash,
    /// The bytes that are signed.
    pub(crate) header: Bytes,
    /// 64 bytes.
    pub(crate) signature: Bytes,
    /// `None` where it was not [wanted](Payloads), and at opening unless it is.
    pub(crate) payload: Option<Bytes>,
    /// The payload holds entries that the log itself is ruled by, which it needs at [opening](Opened).
    pub(crate) system: bool,
}

/// Names a batch; they count up from 1 in each run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct BatchId(pub(crate) u64);

/// Names a read; they count up from 1 in each run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct ReadId(pub(crate) u64);

/// What is to be made durable together, carried out in the order of the fields.
#[derive(Clone, Debug, Default)]
pub(crate) struct Batch {
    /// Single segments that go, found at opening not to count any more.
    pub(crate) forget_positions: Vec<Position>,
    /// New segments, in the order of their positions, which are above all that were there.
    pub(crate) rows: Vec<Arc<Row>>,
    /// Pieces of a state that is being fetched.
    pub(crate) pieces: Vec<Piece>,
    /// Takes the place of the checkpoint that is held.
    pub(crate) checkpoint: Option<Checkpoint>,
    /// The roots of states that are not needed any more. At opening none is but the checkpoint's.
    pub(crate) forget_states: Vec<Hash>,
    /// Segments that go as a whole.
    pub(crate) forget_rows: Vec<UpTo>,
}

/// A checkpoint as it is stored: what was signed, by whom, and what a node needs beside the application's state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Checkpoint {
    /// The root of the application's state, under which its pieces are held.
    pub(crate) root: Hash,
    /// Bytes of the state.
    pub(crate) length: u64,
    /// The log's own part: frontier, vectors, closed logs, manifest.
    pub(crate) summary: Bytes,
    /// The hashes of the state's pieces, 32 bytes each.
    pub(crate) pieces: Bytes,
    /// The statement with its signatures.
    pub(crate) certificate: Bytes,
}

/// A piece of a state: all have [`PIECE`] bytes but the last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Piece {
    pub(crate) root: Hash,
    /// From 0.
    pub(crate) index: u32,
    pub(crate) bytes: Bytes,
}

/// The length of a state's pieces, in bytes: what fits into a message of a link with room for its head.
pub(crate) const PIECE: usize = 128 * 1024;

/// All segments of one log up to a number, on all its branches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct UpTo {
    pub(crate) log: LogId,
    pub(crate) seq: u64,
}

/// What the store says of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// All of it is durable.
    Done,
    /// None of it is there, for want of room; the machine gives the same batch again after a while.
    Full,
    /// Whether it is there nobody knows, and nothing more can be stored: the machine stops.
    Broken,
}

/// What is to be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Read {
    /// The hashes of whatever stands at these places. Answered by [`Found::Hashes`], one list for each place.
    Hashes(Vec<(LogId, u64)>),
    /// Segments with their payloads, of these logs and branches and with numbers in these ranges, in the order of their
    /// positions over all of them together; as many as begin within so many bytes of headers and payloads, and at least
    /// one if there is any. Without payloads when those are not wanted. Answered by [`Found::Rows`].
    Rows { ranges: Vec<Range>, bytes: usize, payloads: Payloads },
    /// A piece of a state. Answered by [`Found::Piece`].
    Piece { root: Hash, index: u32 },
}

/// Whether payloads are to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Payloads {
    Wanted,
    /// Only of rows that are [`system`](Row::system).
    OfSystem,
}

/// Segments of one branch of a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Range {
    pub(crate) log: LogId,
    pub(crate) branch: Branch,
    /// The first number that is wanted.
    pub(crate) from: u64,
    /// The last number that is wanted.
    pub(crate) to: u64,
}

/// What was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// For each place that was asked for, what stands there: nothing, one segment, or several of a log that forked.
    Hashes(Vec<Vec<(Hash, Branch)>>),
    /// Rows in the order of their positions.
    Rows(Vec<Arc<Row>>),
    /// `None` when that piece is not held.
    Piece(Option<Bytes>),
    /// The store could not read; the machine asks again if it still wants to know.
    Failed,
}

/// What a store holds when it is opened: this, and its rows one after the other.
///
/// Whoever opens reads all rows in pages, in the order of their positions, and gives them to the machine's `Recovery`, so
/// that nobody holds all headers of a long log at once. Of each it first asks `Recovery::wants_payload`; other payloads
/// need not be read.
#[derive(Clone, Debug, Default)]
pub(crate) struct Opened {
    pub(crate) checkpoint: Option<Checkpoint>,
}
