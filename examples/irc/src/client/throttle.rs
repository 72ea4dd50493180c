//! How fast a client may send: a burst, then a steady rate. A client that is faster is read later, not dropped.

use std::time::Duration;

use tokio::time::Instant;

/// Lines that a client may send at once: what clients send when they connect and join their channels.
const BURST: u32 = 100;
/// Lines a second after that; nobody types faster, and a thousand such clients do not overload a node.
const RATE: u32 = 50;

/// A token bucket, kept as the time at which it would be full.
#[derive(Debug)]
pub(super) struct Throttle {
    full_at: Instant,
}

impl Throttle {
    pub(super) fn new(now: Instant) -> Self {
        Self { full_at: now }
    }

    /// Takes a token; says when the next line may be read.
    pub(super) fn take(&mut self, now: Instant) -> Instant {
        let each = Duration::from_secs(1) / RATE;
        self.full_at = self.full_at.max(now) + each;
        // With `BURST` tokens missing the bucket is empty: the next line waits for the next token.
        let Some(empty_for) = self.full_at.checked_duration_since(now + each * (BURST - 1)) else { return now };
        now + empty_for
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn allows_a_burst_then_the_steady_rate() {
        let start = Instant::now();
        let mut throttle = Throttle::new(start);
        let mut now = start;
        for _ in 0..BURST - 1 {
            assert_eq!(throttle.take(now), now);
        }
        for _ in 0..RATE {
            now = throttle.take(now);
        }
        assert_eq!(now - start, Duration::from_secs(1));
    }
}
