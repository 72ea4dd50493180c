//! How many requests strangers can make: a bucket of tokens.

use std::time::{Duration, Instant};

/// Requests that can come at once.
const BURST: u32 = 20;
/// In which time one more may come.
const REFILL: Duration = Duration::from_secs(10);

/// Tokens for requests; full at first.
#[derive(Debug)]
pub(super) struct Bucket {
    tokens: u32,
    since: Option<Instant>,
}

impl Default for Bucket {
    fn default() -> Self {
        Self { tokens: BURST, since: None }
    }
}

impl Bucket {
    /// Takes a token; `false` when there is none.
    pub(super) fn take(&mut self, now: Instant) -> bool {
        let since = *self.since.get_or_insert(now);
        let gained = now.saturating_duration_since(since).as_nanos() / REFILL.as_nanos();
        let gained = u32::try_from(gained).unwrap_or(u32::MAX);
        if self.tokens.saturating_add(gained) >= BURST {
            (self.tokens, self.since) = (BURST, Some(now));
        } else {
            self.tokens += gained;
            self.since = Some(since + REFILL * gained);
        }
        let granted = self.tokens > 0;
        self.tokens = self.tokens.saturating_sub(1);
        granted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grants_a_burst_then_one_for_every_pause() {
        let (mut bucket, mut now) = (Bucket::default(), Instant::now());
        assert_eq!((0..30).filter(|_| bucket.take(now)).count(), 20);
        for _ in 0..5 {
            now += REFILL;
            assert!(bucket.take(now) && !bucket.take(now));
        }
        now += REFILL * 1000;
        assert_eq!((0..30).filter(|_| bucket.take(now)).count(), 20);
    }
}
