//! What applying an entry changed, in the terms of those who watch: what is needed to tell local clients.

use std::sync::Arc;

use hcp_core::replica::{Spot, Stamp};

use crate::entry::{ModeChange, Target, TextKind};
use crate::names::{ChannelName, Folded, Nick, UserId};

/// A visible change. Users who are hidden cause none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// A user is known now.
    Connected(UserId),
    /// A user's visible nickname changed; `from` is the mask before.
    Renamed {
        user: UserId,
        from: String,
        to: Nick,
    },
    /// A user is gone, for good or until it returns.
    Gone {
        user: UserId,
        mask: String,
        channels: Vec<Folded>,
        reason: String,
    },
    /// A user who had lapsed is back.
    Returned {
        user: UserId,
    },
    Joined {
        user: UserId,
        channel: Folded,
    },
    /// A user left a channel, by itself or, `by` somebody, by a kick.
    Left {
        user: UserId,
        channel: Folded,
        by: Option<String>,
        reason: String,
    },
    /// The topic is another one; `by` is `None` when two creations of the channel met.
    Topic {
        channel: Folded,
        by: Option<String>,
    },
    Modes {
        channel: Folded,
        by: Option<String>,
        changes: Vec<ModeChange>,
    },
    Away {
        user: UserId,
    },
    UserMode {
        user: UserId,
    },
    Said {
        user: UserId,
        target: Target,
        said: Arc<Said>,
    },
    Invited {
        by: String,
        channel: ChannelName,
        target: UserId,
    },
}

/// A message as it was said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Said {
    /// Where it stood first.
    pub(crate) place: Spot,
    pub(crate) stamp: Stamp,
    pub(crate) time: ServerTime,
    /// The sender's mask, as it was visible here when the message was applied.
    pub(crate) source: String,
    /// The sender's mask with the name that it had asked for: the same on all nodes.
    pub(super) claimed: String,
    pub(crate) kind: TextKind,
    pub(crate) text: String,
    pub(crate) tags: String,
}

impl Said {
    /// What it counts in a channel's history: only what is the same on all nodes, so that all keep the same messages.
    pub(super) fn size(&self) -> usize {
        self.text.len() + self.tags.len()
    }
}

/// A time as clients see it: whole seconds, and a counter where milliseconds would be.
///
/// True milliseconds would tell one node's clock and distance from another's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ServerTime {
    pub(crate) seconds: u64,
    /// 0 to 999; orders what happened within the second.
    pub(crate) order: u16,
}

impl ServerTime {
    /// That of a message whose order within its second is not known any more.
    pub(super) fn of(millis: u64) -> Self {
        Self { seconds: millis / 1000, order: 0 }
    }
}

/// Hands out [`ServerTime`]s.
#[derive(Debug, Default)]
pub(crate) struct OrderClock {
    last: ServerTime,
}

impl OrderClock {
    pub(crate) fn time(&mut self, millis: u64) -> ServerTime {
        let seconds = millis / 1000;
        self.last = if seconds == self.last.seconds {
            ServerTime { seconds, order: (self.last.order + 1).min(999) }
        } else {
            ServerTime { seconds, order: 0 }
        };
        self.last
    }
}

impl std::fmt::Display for ServerTime {
    /// Writes `YYYY-MM-DDThh:mm:ss.sssZ` (IRCv3 server-time).
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (year, month, day) = civil(self.seconds / 86_400);
        let of_day = self.seconds % 86_400;
        let (hour, minute, second) = (of_day / 3600, of_day / 60 % 60, of_day % 60);
        write!(f, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{:03}Z", self.order)
    }
}

/// The date of a day counted from 1970-01-01 (Howard Hinnant's `civil_from_days`).
pub(crate) fn civil(days: u64) -> (u64, u64, u64) {
    // A hostile stamp may name any day; clients read four digits of a year.
    let shifted = days.min(2_932_896) + 719_468;
    let era = shifted / 146_097;
    let of_era = shifted % 146_097;
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    (year_of_era + era * 400 + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn milliseconds_count_what_happens_within_a_second() {
        let mut clock = OrderClock::default();
        let times = [1_000, 1_900, 1_001, 2_000].map(|millis| clock.time(millis).to_string());
        assert_eq!(times[0], "1970-01-01T00:00:01.000Z");
        assert_eq!(times[1], "1970-01-01T00:00:01.001Z");
        assert_eq!(times[2], "1970-01-01T00:00:01.002Z");
        assert_eq!(times[3], "1970-01-01T00:00:02.000Z");
    }

    #[test]
    fn dates_are_those_of_the_calendar() {
        for (seconds, date) in [
            (951_782_400, "2000-02-29T00:00:00.000Z"),
            (1_767_225_599, "2025-12-31T23:59:59.000Z"),
            (u64::MAX / 1000, "9999-12-31"),
        ] {
            let text = ServerTime { seconds, order: 0 }.to_string();
            assert!(text.starts_with(date), "{text}");
        }
    }
}
