//! For how long grants are made, and how that time is cut into rounds.

use super::MakeError;
use crate::owner::request::Request;

/// For how long grants are made, and how often a node changes its session key in that time.
///
/// Times are whole hours: a time to the second would show when the owner was at work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Horizon {
    pub(super) asked: u64,
    pub(super) from: u64,
    hours: u32,
    rounds: u16,
}

impl Horizon {
    /// The longest, in hours: a year.
    pub const MAX_HOURS: u32 = 366 * 24;

    /// Begins with the hour that `unix_now` is in and ends `hours` full hours after the next hour has begun; its delegations
    /// are in `rounds` that follow each other.
    ///
    /// # Errors
    /// [`MakeError::Horizon`] when there are no hours or no rounds, more than [`MAX_HOURS`](Self::MAX_HOURS), more rounds than
    /// hours, or more than a request has session keys.
    pub fn new(unix_now: u64, hours: u32, rounds: u16) -> Result<Self, MakeError> {
        let fits = (1..=Self::MAX_HOURS).contains(&hours) && (1..=Request::MAX_SESSION_KEYS).contains(&rounds);
        if !fits || u32::from(rounds) > hours || unix_now > LATEST {
            return Err(MakeError::Horizon);
        }
        Ok(Self { asked: unix_now, from: unix_now / HOUR * HOUR, hours, rounds })
    }

    /// The first second, in Unix seconds.
    pub fn begins(&self) -> u64 {
        self.from
    }

    /// The last second, in Unix seconds.
    pub fn ends(&self) -> u64 {
        self.from + (u64::from(self.hours) + 1) * HOUR - 1
    }

    /// The times of the rounds. Each but the last goes on into the next for a while, for nodes that are late.
    pub(super) fn rounds(&self) -> impl Iterator<Item = (u64, u64)> + use<> {
        let (from, ends, count) = (self.from, self.ends(), u64::from(self.rounds));
        let hours = u64::from(self.hours) + 1;
        let start = move |n: u64| from + hours * n / count * HOUR;
        (0..count).map(move |n| (start(n), (start(n + 1) + overlap(start(n + 1) - start(n)) - 1).min(ends)))
    }
}

/// How long a delegation goes on when the next has begun, and how long before it begins a warden hands it out: a quarter of
/// its time, and not more than six hours.
pub(super) fn overlap(round: u64) -> u64 {
    (round / 4).min(6 * HOUR)
}

const HOUR: u64 = 3600;
/// Behind every time that a clock may show, and far from where numbers end.
const LATEST: u64 = 1 << 40;
