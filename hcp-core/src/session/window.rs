//! What a peer may have out towards this side on one stream, and how that grows.
//!
//! A window doubles when its reader consumed a whole one within two round trips: then the window is what limits the stream
//! (the rule of rust-yamux). All growth of a session comes out of one pool.

use std::time::Duration;

use tokio::time::Instant;

use super::limits::LEAST_WINDOW;
#[cfg(test)]
use super::planted::{Defect, planted};
use super::{MAX_STREAM_WINDOW, STREAM_WINDOW, SessionError};

/// The receiving side's account of one stream.
#[derive(Debug)]
pub(super) struct ReceiveWindow {
    /// What the peer may have out, in bytes of payload and frame costs.
    size: u64,
    /// What has come and was neither consumed nor given back.
    held: u64,
    /// What was consumed and not yet given back as credit.
    returnable: u64,
    /// When the reader began to consume the present window's worth, and how much of it.
    began: Instant,
    consumed: u64,
}

impl ReceiveWindow {
    pub(super) fn new(now: Instant) -> Self {
        Self { size: STREAM_WINDOW, held: 0, returnable: 0, began: now, consumed: 0 }
    }

    /// Counts what came.
    pub(super) fn receive(&mut self, cost: u64) -> Result<(), SessionError> {
        if self.held + self.returnable + cost > self.size {
            return Err(SessionError::Limit("stream window"));
        }
        self.held += cost;
        Ok(())
    }

    /// Counts what the application took; returns credit to announce, in big steps, yet so that a sender to whom all is given
    /// back but the last step can still send the longest message. May take growth out of `pool`.
    pub(super) fn consume(
        &mut self,
        now: Instant,
        cost: u64,
        round_trip: Option<Duration>,
        pool: &mut u64,
    ) -> Option<u64> {
        self.held = self.held.saturating_sub(cost);
        self.returnable += cost;
        self.consumed += cost;
        let mut grown = 0;
        if self.consumed >= self.size {
            let elapsed = now.saturating_duration_since(self.began);
            if round_trip.is_some_and(|round_trip| elapsed <= round_trip * 2) {
                let wished = self.size.min(MAX_STREAM_WINDOW - self.size);
                grown = wished.min(*pool);
                #[cfg(test)]
                if planted(Defect::PoolUnbounded) {
                    grown = wished;
                }
                *pool = pool.saturating_sub(grown);
                self.size += grown;
            }
            self.began = now;
            self.consumed = 0;
        }
        if grown > 0 || self.returnable >= (self.size / 4).min(self.size - LEAST_WINDOW) {
            return Some(std::mem::take(&mut self.returnable) + grown);
        }
        None
    }

    /// What came and was not consumed.
    pub(super) fn held(&self) -> u64 {
        self.held
    }

    /// What this stream has of the session's growth.
    pub(super) fn growth(&self) -> u64 {
        self.size - STREAM_WINDOW
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::SESSION_GROWTH;

    #[test]
    fn a_window_takes_its_size_and_no_more() {
        let mut window = ReceiveWindow::new(Instant::now());
        window.receive(STREAM_WINDOW).unwrap();
        assert!(window.receive(1).is_err());
    }

    #[test]
    fn what_is_consumed_but_not_announced_is_not_the_peers_to_use() {
        let now = Instant::now();
        let mut window = ReceiveWindow::new(now);
        window.receive(STREAM_WINDOW).unwrap();
        assert_eq!(window.consume(now, 1_000, None, &mut 0), None);
        assert!(window.receive(1_000).is_err());
    }

    #[test]
    fn a_reader_that_keeps_up_gets_larger_windows_to_the_limit_and_a_slow_one_does_not() {
        let round_trip = Duration::from_millis(100);
        for (fast, expected) in [(true, MAX_STREAM_WINDOW), (false, STREAM_WINDOW)] {
            let (mut pool, mut now) = (SESSION_GROWTH, Instant::now());
            let mut window = ReceiveWindow::new(now);
            let mut allowed = STREAM_WINDOW;
            for _ in 0..8_000 {
                now += if fast { Duration::from_micros(100) } else { Duration::from_millis(9) };
                window.receive(16_384).unwrap();
                allowed -= 16_384;
                allowed += window.consume(now, 16_384, Some(round_trip), &mut pool).unwrap_or(0);
                assert!(allowed <= window.size);
            }
            assert_eq!(window.size, expected);
            assert_eq!(pool, SESSION_GROWTH - window.growth());
        }
    }

    #[test]
    fn a_sender_whose_messages_were_all_taken_can_send_the_longest_one() {
        let now = Instant::now();
        let (mut window, mut allowed) = (ReceiveWindow::new(now), STREAM_WINDOW);
        for cost in (0..500).map(|i| 64 + i * 97 % 40_000) {
            window.receive(cost).unwrap();
            allowed -= cost;
            allowed += window.consume(now, cost, None, &mut 0).unwrap_or(0);
            assert!(allowed >= LEAST_WINDOW, "{allowed}");
        }
    }

    #[test]
    fn growth_ends_with_the_sessions_pool() {
        let (mut pool, now) = (1_000, Instant::now());
        let mut window = ReceiveWindow::new(now);
        for _ in 0..100 {
            window.receive(STREAM_WINDOW / 4).unwrap();
            window.consume(now, STREAM_WINDOW / 4, Some(Duration::from_secs(1)), &mut pool);
        }
        assert_eq!((pool, window.size), (0, STREAM_WINDOW + 1_000));
    }
}
