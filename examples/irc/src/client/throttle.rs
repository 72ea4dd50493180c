//! How much a client may ask for: a burst, then a steady rate. A client that asks for more is read later, not dropped.

use std::time::Duration;

use tokio::time::Instant;

use crate::message::{Message, ParseMessageError};

/// Cost that a client may run up at once: what clients send when they connect and join their channels.
const BURST: u32 = 100;
/// Cost a second after that; nobody types faster, and a thousand such clients do not overload a node.
const RATE: u32 = 50;
/// Bytes of a line that cost as much as the line itself: an ordinary line of IRC without tags costs one.
const BYTES: usize = 512;
/// Cost of a nickname, or of each channel joined or left: all who share a channel are told.
const NAME: u32 = 5;

/// A token bucket, kept as the time at which it would be full.
#[derive(Debug)]
pub(super) struct Throttle {
    full_at: Instant,
}

impl Throttle {
    pub(super) fn new(now: Instant) -> Self {
        Self { full_at: now }
    }

    /// Takes what a line costs; says when the next line may be read.
    pub(super) fn take(&mut self, now: Instant, cost: u32) -> Instant {
        let each = Duration::from_secs(1) / RATE;
        self.full_at = self.full_at.max(now) + each * cost;
        // With `BURST` tokens missing the bucket is empty: the next line waits for the next token.
        let Some(empty_for) = self.full_at.checked_duration_since(now + each * (BURST - 1)) else { return now };
        now + empty_for
    }
}

/// What a line of `len` bytes costs: one and its size, for each of its targets, for each is an entry of its own.
pub(super) fn cost(len: usize, line: &Result<Message, ParseMessageError>) -> u32 {
    let size = 1 + u32::try_from(len / BYTES).unwrap_or(u32::MAX / 1024);
    let Ok(message) = line else { return size };
    // A line holds at most 510 commas.
    let targets = message.param(0).map_or(1, |targets| targets.bytes().filter(|byte| *byte == b',').count() as u32 + 1);
    match message.command() {
        "PRIVMSG" | "NOTICE" | "TAGMSG" => size * targets,
        "JOIN" | "PART" => size.max(NAME) * targets,
        "NICK" => size.max(NAME),
        _ => size,
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
            assert_eq!(throttle.take(now, 1), now);
        }
        for _ in 0..RATE {
            now = throttle.take(now, 1);
        }
        assert_eq!(now - start, Duration::from_secs(1));
        now = throttle.take(now, RATE);
        assert_eq!(now - start, Duration::from_secs(2));
    }

    #[test]
    fn a_line_costs_by_its_bytes_targets_and_names() {
        let tagged = format!("@+x={} PRIVMSG a,b :hi", "y".repeat(1100));
        for (line, expected) in [
            ("PRIVMSG #c :hi", 1),
            ("PRIVMSG a,b,c,d :hi", 4),
            (&tagged, 6),
            ("JOIN #a,#b", 10),
            ("PART #a", 5),
            ("NICK ann", 5),
            ("WHO #a,b", 1),
        ] {
            assert_eq!(cost(line.len(), &Message::parse(line.as_bytes())), expected, "{line}");
        }
        assert_eq!(cost(9000, &Err(ParseMessageError::TooLong)), 18);
    }
}
