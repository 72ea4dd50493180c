//! Segments that came and cannot be applied yet: what each waits for, and who wants it.
//!
//! A segment of a closed log is applied only when a segment of an open one, or one that is itself wanted so, needs it: that
//! is the demand. Everything here came over links and is within their credit.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use crate::replica::log::limits::{MAX_BACK, MAX_BACKS};
use crate::replica::log::wire::{Segment, Tip};
use crate::replica::place::{LogId, NodeId};

/// A segment that waits.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) segment: Arc<Segment>,
    /// Over whose link it came.
    pub(super) from: NodeId,
    pub(super) since: Duration,
    /// When something lacking was last asked for.
    pub(super) asked: Duration,
    pub(super) why: Why,
}

/// What a segment waits for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Why {
    /// These have not come.
    Missing(BTreeSet<Tip>),
    /// The store is asked what stands at these places.
    Asking(Vec<(LogId, u64)>),
    /// Its log is closed, and nobody wants it.
    Unwanted,
    /// It begins a branch, and what its author had seen before is being read.
    Surveyed,
}

#[derive(Debug, Default)]
pub(super) struct HeldBack {
    pub(super) waiting: BTreeMap<Tip, Waiting>,
    by_missing: BTreeMap<Tip, BTreeSet<Tip>>,
    by_place: BTreeMap<(LogId, u64), BTreeSet<Tip>>,
    /// What segments of open logs need, and what those need.
    demand: BTreeSet<Tip>,
    /// How many segments before one that is needed were asked for last, by log.
    backs: BTreeMap<LogId, u32>,
}

impl HeldBack {
    pub(super) fn contains(&self, tip: &Tip) -> bool {
        self.waiting.contains_key(tip)
    }

    pub(super) fn is_demanded(&self, tip: &Tip) -> bool {
        self.demand.contains(tip)
    }

    /// Whether something that is held back waits for it.
    pub(super) fn is_awaited(&self, tip: &Tip) -> bool {
        self.by_missing.contains_key(tip)
    }

    pub(super) fn insert(&mut self, tip: Tip, waiting: Waiting) {
        match &waiting.why {
            Why::Missing(missing) => {
                for needed in missing {
                    self.by_missing.entry(*needed).or_default().insert(tip);
                }
            }
            Why::Asking(places) => {
                for place in places {
                    self.by_place.entry(*place).or_default().insert(tip);
                }
            }
            Why::Unwanted | Why::Surveyed => {}
        }
        self.waiting.insert(tip, waiting);
    }

    pub(super) fn remove(&mut self, tip: &Tip) -> Option<Waiting> {
        let waiting = self.waiting.remove(tip)?;
        match &waiting.why {
            Why::Missing(missing) => {
                for needed in missing {
                    drop_from(&mut self.by_missing, needed, tip);
                }
            }
            Why::Asking(places) => {
                for place in places {
                    drop_from(&mut self.by_place, place, tip);
                }
            }
            Why::Unwanted | Why::Surveyed => {}
        }
        Some(waiting)
    }

    /// A segment has come: takes out what waited for that alone.
    pub(super) fn release(&mut self, tip: &Tip) -> Vec<Waiting> {
        let mut ready = Vec::new();
        for waiter in self.by_missing.remove(tip).into_iter().flatten() {
            if let Some(waiting) = self.waiting.get_mut(&waiter)
                && let Why::Missing(missing) = &mut waiting.why
                && missing.remove(tip)
                && missing.is_empty()
            {
                ready.extend(self.waiting.remove(&waiter));
            }
        }
        ready
    }

    pub(super) fn askers(&self, place: &(LogId, u64)) -> Vec<Tip> {
        self.by_place.get(place).map(|waiters| waiters.iter().copied().collect()).unwrap_or_default()
    }

    /// Something live needs these; returns what is here and waited for nothing but that.
    pub(super) fn demand(&mut self, needed: impl IntoIterator<Item = Tip>) -> Vec<Tip> {
        let mut stack: Vec<Tip> = needed.into_iter().collect();
        let mut ready = Vec::new();
        while let Some(tip) = stack.pop() {
            if !self.demand.insert(tip) {
                continue;
            }
            match self.waiting.get(&tip).map(|waiting| &waiting.why) {
                Some(Why::Missing(missing)) => stack.extend(missing.iter().copied()),
                Some(Why::Unwanted) => ready.push(tip),
                _ => {}
            }
        }
        ready
    }

    /// How many segments before one that is needed to ask for: twice as many as the last time.
    pub(super) fn back_for(&mut self, log: LogId) -> u32 {
        let back = self.backs.entry(log).or_insert(1);
        *back = (*back * 2).min(MAX_BACK);
        *back
    }

    pub(super) fn satisfied(&mut self, tip: &Tip) {
        self.demand.remove(tip);
        self.backs.remove(&tip.log);
    }

    /// Forgets who wants what; whoever still waits says so again.
    pub(super) fn reset_demand(&mut self) {
        self.demand.clear();
        if self.backs.len() > MAX_BACKS {
            let waits: BTreeSet<LogId> = self.by_missing.keys().map(|tip| tip.log).collect();
            self.backs.retain(|log, _| waits.contains(log));
        }
    }

    /// How many segments wait, and how many bytes those have that came from one node, at the most.
    pub(super) fn sizes(&self) -> (usize, usize) {
        let mut bytes: BTreeMap<NodeId, usize> = BTreeMap::new();
        for waiting in self.waiting.values() {
            *bytes.entry(waiting.from).or_default() += waiting.segment.cost();
        }
        (self.waiting.len(), bytes.into_values().max().unwrap_or_default())
    }
}

fn drop_from<K: Ord>(map: &mut BTreeMap<K, BTreeSet<Tip>>, key: &K, tip: &Tip) {
    if let Some(set) = map.get_mut(key) {
        set.remove(tip);
        if set.is_empty() {
            map.remove(key);
        }
    }
}
