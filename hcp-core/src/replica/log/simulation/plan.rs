//! What a seed is about.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::faults::Fault;

/// How a run is laid out.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub(super) nodes: usize,
    /// How many of them, the last ones, lie, if any do.
    pub(super) liars: usize,
    pub(super) hostile: bool,
    /// Entries that are written before the end.
    pub(super) entries: usize,
    /// The most entries that one node writes at once.
    pub(super) burst: u32,
    /// How often one asks for a checkpoint when it writes.
    pub(super) retention: f64,
    /// How many nodes write in the end.
    pub(super) writers: usize,
    /// Every node writes once more when all is well.
    pub(super) last_words: bool,
    /// What happens, one after the other.
    pub(super) faults: Vec<Fault>,
    pub(super) spacing: Duration,
    pub(super) skewed: bool,
    pub(super) delays: bool,
    /// Liars confirm what they do not hold.
    pub(super) false_receipts: bool,
    /// Liars' clocks are an hour ahead.
    pub(super) future_clock: bool,
    pub(super) real_signatures: bool,
    /// Liars sign two segments for one place.
    pub(super) forks: bool,
    /// Bytes a second in each direction of a link, where that matters.
    pub(super) rate: Option<u64>,
    /// Every message goes through its bytes.
    pub(super) bytes: bool,
    /// How long nothing happens before the end.
    pub(super) quiet: Duration,
}

impl Plan {
    /// Nothing breaks and nobody lies.
    pub(super) fn quiet(nodes: usize) -> Self {
        Self {
            nodes,
            liars: 0,
            hostile: false,
            faults: Vec::new(),
            retention: 0.0,
            skewed: false,
            delays: false,
            ..Self::of(0)
        }
    }

    pub(super) fn of(seed: u64) -> Self {
        let mut rng = StdRng::seed_from_u64(seed ^ 0x109);
        let hostile = seed % 2 == 1;
        let nodes = if seed % 20 == 3 { 7 } else { 5 };
        let count = rng.random_range(2..5);
        Self {
            nodes,
            liars: if nodes == 7 { 2 } else { 1 },
            hostile,
            entries: 1_000,
            retention: [0.0, 0.01, 0.04][seed as usize / 2 % 3],
            burst: [6, 16, 40][seed as usize % 3],
            writers: if seed % 4 == 2 { 1 } else { nodes },
            last_words: (seed / 6).is_multiple_of(2),
            faults: (0..count).map(|_| Fault::random(&mut rng)).collect(),
            spacing: Duration::from_millis(rng.random_range(1_500..4_000)),
            skewed: seed % 3 == 1,
            delays: seed % 4 < 2,
            false_receipts: hostile && seed.is_multiple_of(3),
            future_clock: hostile && !seed.is_multiple_of(5),
            real_signatures: seed % 50 == 11,
            forks: seed / 2 % 4 < 2,
            rate: None,
            bytes: seed % 25 == 11,
            quiet: Duration::from_secs(25),
        }
    }
}
