//! How much passes through the driver before others have their turn.

use crate::replica::log::message::Message;

/// Segments that were taken from links or given to them, one after the other.
#[derive(Debug, Default)]
pub(super) struct Burst {
    segments: usize,
    bytes: usize,
}

impl Burst {
    pub(super) fn count(&mut self, message: &Message) {
        if let Message::Segment(segment) = message {
            self.segments += 1;
            self.bytes += segment.cost();
        }
    }

    /// Whether sessions and subscribers have waited long enough.
    pub(super) fn is_over(&self) -> bool {
        self.segments >= SEGMENTS || self.bytes >= BYTES
    }
}

/// Each costs a signature to check, and a part of a millisecond all together.
const SEGMENTS: usize = 16;
/// As many as are read for a peer at once.
const BYTES: usize = crate::replica::log::limits::PEER_PAGE;
