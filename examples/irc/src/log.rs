//! What the server needs of the replicated log: a queue of entries to append and a queue of what happened.
//!
//! The server never waits for the log. [`bridge`](crate::bridge) joins these queues to an `hcp_core` replica.

use bytes::Bytes;
use hcp_core::error::ErrorKind;
use hcp_core::replica::{Incarnation, LogId, NodeId, Write};
use tokio::sync::mpsc;

/// How many entries may wait for the log to take them; the server keeps the rest and stalls the clients who sent them.
pub const APPEND_QUEUE: usize = 256;
/// How many events may wait for the server; the log's own queues hold back the rest.
pub const EVENT_QUEUE: usize = 1024;

/// The server's end of the log.
#[derive(Debug)]
pub struct LogPort {
    /// This node's log.
    pub own: LogId,
    /// Entries to append, in order.
    pub appends: mpsc::Sender<Append>,
    /// What happened.
    pub events: mpsc::Receiver<LogEvent>,
}

/// The log's end of a [`LogPort`].
#[derive(Debug)]
pub struct LogSide {
    /// Entries to append, in order.
    pub appends: mpsc::Receiver<Append>,
    /// What happened.
    pub events: mpsc::Sender<LogEvent>,
}

/// An entry to append.
#[derive(Clone, Debug)]
pub struct Append {
    /// The encoded entry.
    pub entry: Bytes,
    /// Asks for [`LogEvent::Confirmed`] with this number once another live node, if there is one, holds the entry.
    pub confirm: Option<u64>,
}

/// What happened to the log.
#[derive(Clone, Debug)]
pub enum LogEvent {
    /// An entry is durable here and was applied; own entries of this run come in the order of their appends.
    Applied {
        /// Where it stands.
        write: Write,
        /// The encoded entry.
        entry: Bytes,
        /// Whether this run appended it.
        own: bool,
    },
    /// A node began a new run.
    Began(LogId),
    /// All that was stored when the log was opened has been delivered.
    CaughtUp,
    /// A node is live with this run, or cannot be reached.
    Peer {
        /// The node.
        node: NodeId,
        /// Its run, if it is live.
        run: Option<Incarnation>,
    },
    /// What [`Append::confirm`] asked for.
    Confirmed(u64),
    /// The log cannot go on.
    Failed(LogFailure),
}

/// Why the log cannot go on.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{message}")]
pub struct LogFailure {
    /// What a caller can do about it.
    pub kind: ErrorKind,
    /// One line for the operator.
    pub message: String,
}

impl LogPort {
    /// Makes both ends.
    pub fn new(own: LogId) -> (Self, LogSide) {
        let (appends, taken) = mpsc::channel(APPEND_QUEUE);
        let (told, events) = mpsc::channel(EVENT_QUEUE);
        (Self { own, appends, events }, LogSide { appends: taken, events: told })
    }
}
