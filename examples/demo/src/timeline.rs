//! Prints what happened when, since the start.

use std::io::Write;
use std::time::{Duration, Instant};

/// A clock that starts at zero and prints.
#[derive(Clone, Copy, Debug)]
pub struct Timeline {
    start: Instant,
}

impl Default for Timeline {
    fn default() -> Self {
        Self { start: Instant::now() }
    }
}

impl Timeline {
    /// Prints a line with the time since the start.
    pub fn say(&self, text: impl AsRef<str>) {
        let mut out = std::io::stdout().lock();
        // A reader who has gone away is no reason to stop.
        let _ = writeln!(out, "[{:7.2} s] {}", self.start.elapsed().as_secs_f64(), text.as_ref());
        let _ = out.flush();
    }
}

/// Prints text as it is.
pub(crate) fn print(text: &str) {
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

/// Prints a line to standard error.
pub fn complain(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// A duration for people.
pub fn seconds(duration: Duration) -> String {
    format!("{:.2} s", duration.as_secs_f64())
}

/// The value below which `percent` of the values lie (nearest rank); zero for none.
pub fn percentile(values: &[Duration], percent: usize) -> Duration {
    let mut sorted = values.to_vec();
    sorted.sort();
    let rank = (sorted.len() * percent).div_ceil(100);
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_values_that_occurred() {
        let values: Vec<_> = [5, 1, 4, 2, 3].map(Duration::from_secs).into();
        assert_eq!(percentile(&values, 50), Duration::from_secs(3));
        assert_eq!(percentile(&values, 100), Duration::from_secs(5));
        assert_eq!(percentile(&[], 50), Duration::ZERO);
    }
}
