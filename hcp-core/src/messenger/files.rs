//! One file on its way between two peers: cutting it into pieces, reading it, writing it, and the protocol in between.
//!
//! Knows nothing of contacts or the database. What it keeps to:
//! - the offer's BLAKE3 root decides: a list of pieces that does not merge to it is refused before a byte is taken, and a
//!   piece that is not in the list does not count;
//! - the receiver writes to `<destination>.part` alone, never past the declared size, and never over anything;
//! - a piece counts as held once it is verified and synced; whatever is dropped or killed, fetching goes on behind it;
//! - the sender checks each piece while it reads it, and never sends the end of one that is not the offered one.
//!
//! An offer begins with [`measure`]. The receiver calls [`prepare`] when its user accepts, then for each attempt
//! [`Sink::open`] and [`fetch`]. The sender's protocol handler calls [`asked`], and answers what it gets from that.

mod blocking;
mod fetch;
mod pieces;
mod platform;
mod serve;
mod sink;
mod source;
#[cfg(test)]
mod tests;

use std::time::Duration;

pub(in crate::messenger) use self::fetch::{FetchEnd, fetch};
pub(in crate::messenger) use self::pieces::{Layout, PieceList};
pub(in crate::messenger) use self::platform::free_space;
pub(in crate::messenger) use self::serve::{ServeEnd, asked};
pub(in crate::messenger) use self::sink::{Opened, Sink, SinkError, Space, discard, prepare};
pub(in crate::messenger) use self::source::{SourceError, measure};

/// The protocol of a file's bytes.
pub(in crate::messenger) const FILE_PROTOCOL: &str = "hcp/file/1";
/// Bytes of the file in one message; few enough that a chat message waits for little of it.
const CHUNK: u64 = 32 * 1024;
/// Bytes that are read or written in one go. Not more than the smallest piece, so that what has come of a whole piece never
/// waits in memory.
const BATCH: u64 = 256 * 1024;
/// Without a message, or without room for one, for this long, the peer is lost: a session that stalls has been found dead
/// by its keepalive before, so this is for peers that only keep it alive.
const LOST_AFTER: Duration = Duration::from_secs(60);
