//! The hybrid logical clock (Kulkarni et al., 2014): close to the wall clock, and never behind anything seen.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::place::Stamp;

/// A stamp further ahead of this node's own clock than this does not move it: a faulty node cannot drag all others along.
pub(crate) const MAX_AHEAD: Duration = Duration::from_secs(60);

/// The clock of one node. Time is a parameter.
#[derive(Debug, Default)]
pub(crate) struct Clock {
    last: Stamp,
}

impl Clock {
    /// A reading that is later than all readings before it and all stamps taken in.
    pub(crate) fn read(&mut self, now: SystemTime) -> Stamp {
        let millis = millis(now);
        self.last = if millis > self.last.millis { Stamp { millis, counter: 0 } } else { next(self.last) };
        self.last
    }

    /// Takes in a stamp that was seen. `false` when it is too far ahead to be believed.
    pub(crate) fn see(&mut self, stamp: Stamp, now: SystemTime) -> bool {
        let believed = stamp.millis <= millis(now).saturating_add(MAX_AHEAD.as_millis() as u64);
        if believed {
            self.last = self.last.max(stamp);
        }
        believed
    }
}

fn next(stamp: Stamp) -> Stamp {
    match stamp.counter.checked_add(1) {
        Some(counter) => Stamp { counter, ..stamp },
        None => Stamp { millis: stamp.millis + 1, counter: 0 },
    }
}

fn millis(now: SystemTime) -> u64 {
    // A clock before 1970 reads as 1970; 64 bits of milliseconds last beyond any other.
    now.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_millis(millis)
    }

    #[test]
    fn readings_grow_even_when_the_wall_clock_goes_back() {
        let mut clock = Clock::default();
        let readings = [at(100), at(100), at(50), at(101)].map(|now| clock.read(now));
        assert!(readings.windows(2).all(|pair| pair[0] < pair[1]), "{readings:?}");
    }

    #[test]
    fn follows_what_it_sees_unless_that_is_absurd() {
        let mut clock = Clock::default();
        let near = Stamp { millis: 30_000, counter: 3 };
        assert!(clock.see(near, at(100)));
        assert!(clock.read(at(100)) > near);
        let absurd = Stamp { millis: 10_000_000, counter: 0 };
        assert!(!clock.see(absurd, at(100)));
        assert!(clock.read(at(100)) < absurd);
    }
}
