//! What happened in simulated runs: how often each thing, and a digest of all of it in order.

mod happened;

use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

pub(super) use self::happened::Happened;
use self::happened::NAMES;

/// What happened in one run, or in several.
#[derive(Clone)]
pub struct Report {
    counts: [u64; NAMES.len()],
    hasher: DefaultHasher,
    /// The digests of the reports that were added, whose order does not matter.
    added: u64,
    virtual_time: Duration,
}

impl Default for Report {
    fn default() -> Self {
        Self { counts: [0; NAMES.len()], hasher: DefaultHasher::new(), added: 0, virtual_time: Duration::ZERO }
    }
}

impl Report {
    /// Each thing that is counted, with how often it happened.
    pub fn counts(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        NAMES.iter().copied().zip(self.counts)
    }

    /// A digest of everything that happened, in its order and with its times. Two runs of one seed have the same.
    pub fn digest(&self) -> u64 {
        self.hasher.finish().wrapping_add(self.added)
    }

    /// How much virtual time passed.
    pub fn virtual_time(&self) -> Duration {
        self.virtual_time
    }

    /// Adds the counts and the time of another report.
    pub fn add(&mut self, other: &Self) {
        self.counts.iter_mut().zip(other.counts).for_each(|(sum, count)| *sum += count);
        self.virtual_time += other.virtual_time;
        self.added = self.added.wrapping_add(other.digest());
    }

    pub(super) fn happened(&mut self, what: Happened) {
        self.happened_times(what, 1);
    }

    pub(super) fn happened_times(&mut self, what: Happened, times: u64) {
        self.counts[what as usize] += times;
    }

    /// Notes something for the digest.
    pub(super) fn log(&mut self, at: Duration, what: impl Hash) {
        at.as_nanos().hash(&mut self.hasher);
        what.hash(&mut self.hasher);
    }

    pub(super) fn ended(&mut self, at: Duration) {
        self.virtual_time = at;
        (at.as_nanos(), self.counts).hash(&mut self.hasher);
    }
}

impl fmt::Debug for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.counts()).finish()
    }
}

/// A line for each thing, and the virtual time.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, count) in self.counts() {
            writeln!(f, "{count:>12}  {name}")?;
        }
        write!(f, "{:>12}  hours of virtual time", self.virtual_time.as_secs() / 3_600)
    }
}
