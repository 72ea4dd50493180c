//! The smoothed round trip of one connection (RFC 6298, section 2).

use std::time::Duration;

/// An estimate that no single late answer throws off.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct RoundTrip {
    smoothed: Option<Duration>,
}

impl RoundTrip {
    /// Takes in one measurement.
    pub(super) fn measured(&mut self, sample: Duration) {
        self.smoothed = Some(match self.smoothed {
            Some(smoothed) => (smoothed * 7 + sample) / 8,
            None => sample,
        });
    }

    pub(super) fn smoothed(&self) -> Option<Duration> {
        self.smoothed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_measurement_counts_whole_and_later_ones_an_eighth() {
        let mut round_trip = RoundTrip::default();
        assert_eq!(round_trip.smoothed(), None);
        round_trip.measured(Duration::from_millis(80));
        assert_eq!(round_trip.smoothed(), Some(Duration::from_millis(80)));
        round_trip.measured(Duration::from_millis(880));
        assert_eq!(round_trip.smoothed(), Some(Duration::from_millis(180)));
    }
}
