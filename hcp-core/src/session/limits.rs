//! Limits of a session that are not public, each with its reason, and the bucket that bounds frames which cost no credit.

use std::time::Duration;

use tokio::time::Instant;

use super::{MAX_STREAMS, SessionError};
use crate::wire::{FLAG_FIN, Frame, RECORD};

/// What each frame costs of the window beyond its payload, so that a flood of empty messages runs out of credit too.
pub(super) const FRAME_COST: u64 = 64;
/// What a frame costs of the window. The end of a stream costs nothing, and there is one.
pub(super) fn frame_cost(frame: &Frame) -> u64 {
    if frame.flags & FLAG_FIN != 0 { 0 } else { frame.payload.len() as u64 + FRAME_COST }
}

/// The content of the frames that long messages are cut into, which a BULK frame with its headers makes one TLS record of;
/// a DATA frame that does takes 8 bytes more. Four of them are a full batch, and the longest message costs less than the
/// least window.
pub(super) const CUT: usize = RECORD - 18;
/// Messages up to this length are not cut to fill a record or a batch: what that saves is a class of padding at the most
/// once in a full batch, and each piece costs the receiver as much as a message.
pub(super) const LEAST_CUT: usize = 1_024;
/// The least window that a peer may announce: what the longest message costs in frames of 4,096 bytes.
pub(super) const LEAST_WINDOW: u64 = 532_480;
/// Application data that an acceptor reads before PROOF or JOIN: a padded flight many times over.
pub(super) const MAX_BEFORE_PROOF: u64 = 16 * 1024;
/// Answers that may wait for a peer that does not read: more than the streams and pings that an honest one has open, and
/// some 30 KiB.
pub(super) const MAX_ANSWERS: usize = 1_024;
/// Streams of both sides that a session holds at once, those included that are over and not yet consumed.
pub(super) const MAX_HELD: usize = 2 * MAX_STREAMS as usize;
/// TLS output is produced while less than this waits in the caller's buffer: one full batch. A control message never
/// waits behind more than that, and a batch on its way.
pub(super) const OUTPUT_HIGH_WATER: usize = 60 * 1024;
/// Frames of a bulk stream that its opener sends on the primary, while lanes live, before the peer has answered.
pub(super) const UNHEARD_BULK: u64 = 4;
/// How long a measured round trip is good for deciding whether a window grows.
pub(super) const ROUND_TRIP_AGE: Duration = Duration::from_secs(10);
/// Frames without a cost that may come at once, and in a second in the long run: some ten times what the busiest honest peer
/// was seen to send, and little work.
const CHURN_BURST: u32 = 2_000;
const CHURN_RATE: u32 = 1_000;

/// A token bucket for frames that cost their sender nothing and their receiver work.
#[derive(Debug)]
pub(super) struct Churn {
    /// In thousandths of a frame, so that no fraction is lost between two frames.
    tokens: u64,
    filled: Instant,
}

impl Churn {
    pub(super) fn new(now: Instant) -> Self {
        Self { tokens: u64::from(CHURN_BURST) * 1_000, filled: now }
    }

    /// Counts one frame.
    pub(super) fn count(&mut self, now: Instant) -> Result<(), SessionError> {
        // A frame a millisecond is a thousandth of CHURN_RATE thousand: the units fit each other.
        let elapsed = u64::try_from(now.saturating_duration_since(self.filled).as_micros()).unwrap_or(u64::MAX);
        let gained = elapsed.saturating_mul(u64::from(CHURN_RATE)) / 1_000;
        if gained > 0 {
            self.tokens = self.tokens.saturating_add(gained).min(u64::from(CHURN_BURST) * 1_000);
            self.filled = now;
        }
        self.tokens = self.tokens.checked_sub(1_000).ok_or(SessionError::Limit("frames that cost no credit"))?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_passes_and_then_the_rate() {
        let start = Instant::now();
        let mut churn = Churn::new(start);
        for _ in 0..CHURN_BURST {
            churn.count(start).unwrap();
        }
        assert!(churn.count(start).is_err());
        for millisecond in 1..5_000 {
            churn.count(start + Duration::from_millis(millisecond)).unwrap();
        }
        assert!(churn.count(start + Duration::from_millis(4_999)).is_err());
        assert!(churn.count(start + Duration::from_secs(3_600)).is_ok());
    }
}
