//! How often the authorities vote, and so when time periods of onion services end.
//!
//! When a time period ends, descriptors move to other directories, which costs time that no test expects that is not about
//! it. Periods are aligned to the clock, so unless one is asked for, the interval is chosen such that the next end is far away.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// The time between two votes; all processes of a network must agree on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct VotingInterval {
    seconds: u32,
}

impl VotingInterval {
    /// The interval whose time period ends last, for a network that starts at `now`, counted from the epoch.
    ///
    /// Whatever the time of day, the period lasts for at least two and a half hours more.
    pub(super) fn best(now: Duration) -> Self {
        let intervals = CHOICES.map(|seconds| Self { seconds });
        intervals.into_iter().max_by_key(|interval| interval.until_next_period(now)).unwrap_or(intervals[0])
    }

    /// The interval of which 24 are that long; none where C tor or Arti would not have it.
    pub(super) fn of_period(length: Duration) -> Option<Self> {
        let interval = Self { seconds: u32::try_from(length.as_secs() / 24).ok()? };
        let fits = interval.time_period() == length && length.as_secs().is_multiple_of(60);
        (fits && interval.seconds >= SHORTEST && DAY.is_multiple_of(interval.seconds)).then_some(interval)
    }

    pub(super) fn as_secs(self) -> u32 {
        self.seconds
    }

    /// The length of a time period, as C tor has it on testing networks: one run of the shared random protocol.
    pub(super) fn time_period(self) -> Duration {
        Duration::from_secs(u64::from(24 * self.seconds))
    }

    /// When the run of the shared random protocol began that goes on at `now`; both counted from the epoch.
    pub(super) fn run_start(self, now: Duration) -> Duration {
        Duration::from_secs(now.as_secs() - now.as_secs() % self.time_period().as_secs())
    }

    /// How long until the time period ends; one begins half a period after the epoch (rend-spec-v3, 2.2.1).
    fn until_next_period(self, now: Duration) -> Duration {
        let period = self.time_period().as_secs();
        Duration::from_secs(period - (now.as_secs() + period / 2) % period)
    }
}

/// In seconds. Each divides a day evenly, which C tor demands, and 24 of each are whole minutes.
const CHOICES: [u32; 5] = [300, 450, 600, 900, 1200];

/// In seconds; what C tor has votes take leaves no time for more often.
const SHORTEST: u32 = 20;

const DAY: u32 = 24 * 60 * 60;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn at_any_time_of_day_a_time_period_can_be_had_that_lasts_for_hours() {
        const DAY: u64 = super::DAY as u64;
        for seconds in CHOICES {
            assert_eq!(DAY % u64::from(24 * seconds), 0, "so that one day stands for all");
            assert_eq!(24 * seconds % 60, 0, "the consensus states minutes");
        }
        let left = |now: u64| {
            let now = Duration::from_secs(20_000 * DAY + now);
            VotingInterval::best(now).until_next_period(now)
        };
        let shortest = (0..DAY).map(left).min().unwrap();
        assert!(shortest >= Duration::from_secs(150 * 60), "{shortest:?}");
    }

    #[test]
    fn a_period_can_be_asked_for_unless_tor_refuses_it() {
        let of = |seconds| VotingInterval::of_period(Duration::from_secs(seconds)).map(VotingInterval::as_secs);
        assert_eq!(of(12 * 60), Some(30));
        assert_eq!(of(8 * 60), Some(20));
        assert_eq!(of(6 * 60), None, "too short");
        assert_eq!(of(12 * 60 + 1), None, "not 24 whole seconds");
        assert_eq!(of(24 * 35), None, "35 s do not divide a day");
        assert_eq!(of(24 * 32), None, "not whole minutes");
    }

    #[test]
    fn a_period_of_the_shortest_interval_ends_at_odd_hours() {
        let interval = VotingInterval { seconds: 300 };
        let until = |minutes: u64| interval.until_next_period(Duration::from_secs(60 * minutes));
        assert_eq!(until(0), Duration::from_secs(60 * 60));
        assert_eq!(until(59), Duration::from_secs(60));
        assert_eq!(until(60), Duration::from_secs(2 * 60 * 60));
    }
}
