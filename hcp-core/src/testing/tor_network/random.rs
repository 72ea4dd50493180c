//! What authorities remember of shared random values, so that a young network has some, as one has that has run for a day.
//!
//! Without, a service has no second directory to go to before a time period ends, and is not found for a minute after it.

use std::time::Duration;

use data_encoding::BASE64;

use super::period::VotingInterval;

/// In an authority's data directory.
pub(super) const FILE: &str = "sr-state";

/// The file, the same for all authorities: a previous and a current value, as if three had revealed (srv-spec, section 4.1).
///
/// The values are nobody's secret: whoever knows them can place relays on the ring of directories, which here are all ours.
pub(super) fn state(now: Duration, interval: VotingInterval) -> String {
    let start = interval.run_start(now);
    // C tor keeps a state only while it is valid, and works out anew until when that is.
    let until = start + 2 * interval.time_period();
    format!(
        "Version 1\nValidAfter {}\nValidUntil {}\nSharedRandPreviousValue 3 {}\nSharedRandCurrentValue 3 {}\n",
        date(start),
        date(until),
        BASE64.encode(&[1; 32]),
        BASE64.encode(&[2; 32]),
    )
}

/// In UTC, as C tor writes it.
fn date(since_epoch: Duration) -> String {
    let seconds = since_epoch.as_secs();
    let (days, time) = (seconds / DAY, seconds % DAY);
    // Years that begin in March have their odd day last (Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms").
    let days = days + DAYS_BEFORE_EPOCH;
    let (era, day) = (days / DAYS_OF_ERA, days % DAYS_OF_ERA);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let (year, month) = (year + 400 * era + month / 10, (month + 2) % 12 + 1);
    format!("{year:04}-{month:02}-{day:02} {:02}:{:02}:{:02}", time / 3_600, time / 60 % 60, time % 60)
}

const DAY: u64 = 24 * 60 * 60;

/// 400 years.
const DAYS_OF_ERA: u64 = 146_097;

/// From the first of March of the year 0.
const DAYS_BEFORE_EPOCH: u64 = 719_468;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_those_of_the_calendar() {
        let at = |seconds| date(Duration::from_secs(seconds));
        assert_eq!(at(0), "1970-01-01 00:00:00");
        assert_eq!(at(951_782_399), "2000-02-28 23:59:59");
        assert_eq!(at(951_782_400), "2000-02-29 00:00:00");
        assert_eq!(at(951_868_800), "2000-03-01 00:00:00");
        assert_eq!(at(1_795_930_978), "2026-11-29 05:42:58");
        assert_eq!(at(4_107_542_400), "2100-03-01 00:00:00");
    }

    #[test]
    fn the_state_is_of_the_run_that_goes_on() {
        let interval = VotingInterval::of_period(Duration::from_secs(12 * 60)).unwrap();
        let state = state(Duration::from_secs(1_795_930_978), interval);
        assert!(state.contains("ValidAfter 2026-11-29 05:36:00\nValidUntil 2026-11-29 06:00:00\n"), "{state}");
    }
}
