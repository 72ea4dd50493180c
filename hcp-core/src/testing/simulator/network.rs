//! The simulated network: ordered byte streams that split, merge, delay, stall and break.

use std::collections::VecDeque;
use std::time::Duration;

use rand::RngExt;
use rand::rngs::StdRng;

/// How a connection carries bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Line {
    pub(super) delay: Duration,
    /// Up to how much later than that each segment arrives.
    pub(super) jitter: Duration,
    /// Bytes a millisecond.
    pub(super) rate: u64,
    /// Bytes under way beyond which no more is taken.
    pub(super) capacity: usize,
    /// How long the segments are that writes are split into, at most.
    pub(super) grain: usize,
    /// The most that is handed over at once.
    pub(super) gulp: usize,
}

/// One direction of a connection.
#[derive(Debug)]
pub(super) struct Pipe {
    line: Line,
    segments: VecDeque<(Duration, Vec<u8>)>,
    queued: usize,
    /// When the line is free for the next segment, and when the last one arrives.
    free: Duration,
    last: Duration,
    stalled_until: Duration,
    /// The writer has ended, or the network has.
    ended: bool,
    /// What is written vanishes.
    pub(super) dead: bool,
    /// For which time an arrival is on the calendar.
    pub(super) scheduled: Option<Duration>,
    pub(super) written: u64,
    pub(super) delivered: u64,
    /// The first bytes that were written, for who wants to replay them.
    pub(super) recorded: Vec<u8>,
}

/// What a pipe hands over.
#[derive(Debug, Default)]
pub(super) struct Arrived {
    pub(super) bytes: Vec<u8>,
    pub(super) segments: usize,
    /// Nothing follows any more.
    pub(super) ended: bool,
}

/// More than a dialler says before it is established.
const RECORDED: usize = 4_096;

impl Pipe {
    pub(super) fn new(line: Line) -> Self {
        Self {
            line,
            segments: VecDeque::new(),
            queued: 0,
            free: Duration::ZERO,
            last: Duration::ZERO,
            stalled_until: Duration::ZERO,
            ended: false,
            dead: false,
            scheduled: None,
            written: 0,
            delivered: 0,
            recorded: Vec::new(),
        }
    }

    pub(super) fn has_room(&self) -> bool {
        self.queued < self.line.capacity
    }

    /// Takes what was written; gives how many segments it became.
    pub(super) fn write(&mut self, now: Duration, mut bytes: &[u8], rng: &mut StdRng) -> usize {
        self.written += bytes.len() as u64;
        let record = RECORDED.saturating_sub(self.recorded.len()).min(bytes.len());
        self.recorded.extend_from_slice(&bytes[..record]);
        if self.dead || self.ended {
            return 1;
        }
        let mut count = 0;
        while !bytes.is_empty() {
            let length = rng.random_range(1..=self.line.grain).min(bytes.len());
            let (segment, rest) = bytes.split_at(length);
            bytes = rest;
            self.free = self.free.max(now) + Duration::from_micros(length as u64 * 1_000 / self.line.rate);
            let jitter = self.line.jitter.mul_f64(rng.random_range(0.0..1.0));
            self.last = self.last.max(self.free + self.line.delay + jitter);
            self.queued += length;
            self.segments.push_back((self.last, segment.to_vec()));
            count += 1;
        }
        count
    }

    /// When something is to be handed over next.
    pub(super) fn due(&self) -> Option<Duration> {
        let next = match self.segments.front() {
            Some((arrival, _)) => *arrival,
            None if self.ended => self.last,
            None => return None,
        };
        Some(next.max(self.stalled_until))
    }

    /// Hands over what has arrived, together.
    pub(super) fn read(&mut self, now: Duration) -> Arrived {
        let mut arrived = Arrived::default();
        if now < self.stalled_until {
            return arrived;
        }
        while let Some((arrival, segment)) = self.segments.front() {
            if *arrival > now || (arrived.segments > 0 && arrived.bytes.len() + segment.len() > self.line.gulp) {
                break;
            }
            if let Some((_, segment)) = self.segments.pop_front() {
                self.queued -= segment.len();
                arrived.segments += 1;
                if arrived.bytes.is_empty() { arrived.bytes = segment } else { arrived.bytes.extend(segment) }
            }
        }
        self.delivered += arrived.bytes.len() as u64;
        arrived.ended = self.ended && self.segments.is_empty() && now >= self.last;
        arrived
    }

    /// Holds up what is under way and what follows.
    pub(super) fn stall(&mut self, until: Duration) {
        self.stalled_until = self.stalled_until.max(until);
    }

    /// The writer says no more; what is under way arrives.
    pub(super) fn end(&mut self, now: Duration) {
        self.ended = true;
        self.last = self.last.max(now + self.line.delay);
    }

    /// Breaks: some of what is under way still arrives, and then the end.
    pub(super) fn cut(&mut self, now: Duration, rng: &mut StdRng) {
        let kept = rng.random_range(0..=self.segments.len());
        self.segments.truncate(kept);
        self.queued = self.segments.iter().map(|(_, segment)| segment.len()).sum();
        self.last = self.segments.back().map_or(now, |(arrival, _)| *arrival);
        self.end(now);
    }

    /// Breaks without a sign: nothing arrives any more.
    pub(super) fn vanish(&mut self) {
        self.dead = true;
        self.segments.clear();
        self.queued = 0;
    }

    /// Changes a bit of what is under way; `false` when nothing is.
    pub(super) fn tamper(&mut self, rng: &mut StdRng) -> bool {
        if self.segments.is_empty() {
            return false;
        }
        let index = rng.random_range(0..self.segments.len());
        let segment = &mut self.segments[index].1;
        let place = rng.random_range(0..segment.len());
        segment[place] ^= 1 << rng.random_range(0..8);
        true
    }
}
