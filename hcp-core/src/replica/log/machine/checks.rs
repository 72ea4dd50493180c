//! Whether a segment is held: from the tips, from the hashes in memory, or by asking the store.

use std::collections::{BTreeSet, HashMap, VecDeque};

use super::{Machine, Reading};
use crate::replica::log::ledger::Log;
use crate::replica::log::limits::{MAX_HASHES, READ_HASHES};
use crate::replica::log::storage::{Branch, Hash, Read};
use crate::replica::log::wire::Tip;
use crate::replica::place::LogId;

/// Hashes of what stands at places that were written or looked up last.
#[derive(Debug, Default)]
pub(super) struct Hashes {
    known: HashMap<(LogId, u64), Standing>,
    order: VecDeque<(LogId, u64)>,
    /// To be asked for, and asked for.
    wanted: BTreeSet<(LogId, u64)>,
    asked: BTreeSet<(LogId, u64)>,
}

/// What stands at one place.
#[derive(Debug, Default)]
struct Standing {
    list: Vec<(Hash, Branch)>,
    /// Where that is much: a faulty author can have as many branches begin at one place as it likes.
    index: HashMap<Hash, Branch>,
}

/// Whether a segment is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Held {
    Yes(Branch),
    /// It does not count any more, and whoever names it names nothing.
    Nothing,
    No,
    /// Something else stands there.
    Other(Hash, Branch),
    /// The store knows.
    Ask,
}

impl Hashes {
    pub(super) fn insert(&mut self, log: LogId, seq: u64, hash: Hash, branch: Branch) {
        let standing = self.known.entry((log, seq)).or_default();
        if standing.list.is_empty() {
            self.order.push_back((log, seq));
        }
        if standing.on(&hash).is_none() {
            standing.list.push((hash, branch));
            if standing.list.len() == FEW {
                standing.index = standing.list.iter().copied().collect();
            } else if standing.list.len() > FEW {
                standing.index.insert(hash, branch);
            }
        }
        while self.known.len() > MAX_HASHES
            && let Some(old) = self.order.pop_front()
        {
            self.known.remove(&old);
        }
    }

    pub(super) fn at(&self, log: &LogId, seq: u64) -> &[(Hash, Branch)] {
        self.known.get(&(*log, seq)).map_or(&[], |standing| &standing.list)
    }

    /// On which branch a segment stands, as far as that is in memory.
    fn on(&self, tip: &Tip) -> Option<Branch> {
        self.known.get(&(tip.log, tip.seq))?.on(&tip.hash)
    }

    /// On which branch of its log a segment stands.
    pub(super) fn stands_on(&self, log: &Log, tip: &Tip) -> Option<Branch> {
        log.ends_in(tip.seq, &tip.hash).or_else(|| self.on(tip))
    }

    /// Whether the store is asked what stands at a place, and has not answered.
    pub(super) fn is_asked(&self, place: &(LogId, u64)) -> bool {
        self.wanted.contains(place) || self.asked.contains(place)
    }

    pub(super) fn len(&self) -> usize {
        self.known.len()
    }
}

impl Standing {
    fn on(&self, hash: &Hash) -> Option<Branch> {
        if self.list.len() >= FEW {
            return self.index.get(hash).copied();
        }
        self.list.iter().find(|(known, _)| known == hash).map(|(_, branch)| *branch)
    }
}

impl Machine {
    pub(super) fn held(&self, tip: &Tip) -> Held {
        #[cfg(test)]
        LOOKED.set(LOOKED.get() + 1);
        let Some(log) = self.ledger.logs.get(&tip.log) else {
            return if self.ledger.is_forgotten(&tip.log) { Held::Nothing } else { Held::No };
        };
        if let Some(branch) = log.ends_in(tip.seq, &tip.hash) {
            return Held::Yes(branch);
        }
        if tip.seq <= log.settled {
            return log.branches().next().map_or(Held::Nothing, |(branch, _)| Held::Yes(branch));
        }
        if self.beside.contains(tip) {
            return Held::Nothing;
        }
        if !log.reaches(tip.seq) {
            return Held::No;
        }
        if let Some(branch) = self.hashes.on(tip) {
            return Held::Yes(branch);
        }
        let known = self.hashes.at(&tip.log, tip.seq);
        let all = |standing: usize| known.len() >= standing;
        match known.first() {
            Some((hash, branch)) if all(log.count()) || all(log.standing_at(tip.seq)) => Held::Other(*hash, *branch),
            None if log.standing_at(tip.seq) == 0 => Held::No,
            _ => Held::Ask,
        }
    }

    /// What stands at a place has to be read again.
    #[cfg(test)]
    pub(super) fn forget_hash(&mut self, log: &LogId, seq: u64) {
        self.hashes.known.remove(&(*log, seq));
    }

    /// What stands at a place is not in memory any more, nor at all.
    #[cfg(test)]
    pub(super) fn forget_place(&mut self, log: &LogId, seq: u64) {
        self.hashes.known.remove(&(*log, seq));
        self.ledger.logs.remove(log);
    }

    /// Asks the store what stands at a place, with the next read of hashes.
    pub(super) fn want_hash(&mut self, log: LogId, seq: u64) {
        if !self.hashes.asked.contains(&(log, seq)) {
            self.hashes.wanted.insert((log, seq));
        }
    }

    pub(super) fn ask_hashes(&mut self) {
        while !self.hashes.wanted.is_empty() {
            let places: Vec<_> = self.hashes.wanted.iter().take(READ_HASHES).copied().collect();
            for place in &places {
                self.hashes.wanted.remove(place);
                self.hashes.asked.insert(*place);
            }
            self.read(Read::Hashes(places.clone()), Reading::Hashes(places));
        }
    }

    pub(super) fn found_hashes(&mut self, places: &[(LogId, u64)], found: Vec<Vec<(Hash, Branch)>>) {
        for ((log, seq), list) in places.iter().zip(found) {
            self.hashes.asked.remove(&(*log, *seq));
            for (hash, branch) in list {
                // What counts no more stands nowhere.
                if !self.beside.contains(&Tip { log: *log, seq: *seq, hash }) {
                    self.hashes.insert(*log, *seq, hash, branch);
                }
            }
        }
        self.looked_up(places);
    }

    pub(super) fn hashes_failed(&mut self, places: &[(LogId, u64)]) {
        for place in places {
            self.hashes.asked.remove(place);
        }
        self.survey_failed(places);
    }
}

/// Hashes at one place that are looked through one by one.
const FEW: usize = 16;

#[cfg(test)]
thread_local! {
    static LOOKED: std::cell::Cell<u64> = const { std::cell::Cell::new(0) };
}

/// How often machines of this thread looked whether a segment is held.
#[cfg(test)]
pub(super) fn looked() -> u64 {
    LOOKED.get()
}
