//! Times as a person reads them.

use std::time::{SystemTime, UNIX_EPOCH};

use crate::world::change::civil;

/// Unix seconds.
pub(crate) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// `2026-11-30 05:00 UTC`, the minute that has begun.
pub(crate) fn date(unix: u64) -> String {
    let (year, month, day) = civil(unix / 86_400);
    let (hour, minute) = (unix % 86_400 / 3600, unix % 3600 / 60);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02} UTC")
}

/// `23 h, until 2026-11-30 05:00 UTC`; what has begun of an hour counts as one.
pub(crate) fn left(until: u64, now: u64) -> String {
    format!("{} h, until {}", until.saturating_sub(now).div_ceil(3600), date(until))
}

/// As [`left`], and `not` when there is no time.
pub(crate) fn left_if(until: Option<u64>, now: u64) -> String {
    until.map_or_else(|| "not".to_owned(), |until| left(until, now))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hours_are_rounded_up_and_dates_are_those_of_the_calendar() {
        assert_eq!(left(951_782_400, 951_782_400 - 3601), "2 h, until 2000-02-29 00:00 UTC");
        assert_eq!(left(5, 10), "0 h, until 1970-01-01 00:00 UTC");
        assert_eq!(left_if(None, 10), "not");
    }
}
