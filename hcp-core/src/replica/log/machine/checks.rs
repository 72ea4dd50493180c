//! Whether a segment is held: from the tips, from the hashes in memory, or by asking the store.

use std::collections::{BTreeSet, HashMap, VecDeque};

use super::{Machine, Reading};
use crate::replica::log::limits::{MAX_HASHES, READ_HASHES};
use crate::replica::log::storage::{Branch, Hash, Read};
use crate::replica::log::wire::Tip;
use crate::replica::place::LogId;

/// Hashes of what stands at places that were written or looked up last.
#[derive(Debug, Default)]
pub(super) struct Hashes {
    known: HashMap<(LogId, u64), Vec<(Hash, Branch)>>,
    order: VecDeque<(LogId, u64)>,
    /// To be asked for, and asked for.
    wanted: BTreeSet<(LogId, u64)>,
    asked: BTreeSet<(LogId, u64)>,
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
        let list = self.known.entry((log, seq)).or_default();
        if list.is_empty() {
            self.order.push_back((log, seq));
        }
        if !list.iter().any(|(known, _)| *known == hash) {
            list.push((hash, branch));
        }
        while self.known.len() > MAX_HASHES
            && let Some(old) = self.order.pop_front()
        {
            self.known.remove(&old);
        }
    }

    pub(super) fn at(&self, log: &LogId, seq: u64) -> &[(Hash, Branch)] {
        self.known.get(&(*log, seq)).map_or(&[], Vec::as_slice)
    }

    pub(super) fn len(&self) -> usize {
        self.known.len()
    }
}

impl Machine {
    pub(super) fn held(&self, tip: &Tip) -> Held {
        if self.beside.contains(tip) {
            return Held::Nothing;
        }
        let Some(log) = self.ledger.logs.get(&tip.log) else {
            return if self.ledger.is_forgotten(&tip.log) { Held::Nothing } else { Held::No };
        };
        if let Some(branch) = log.ends_in(tip.seq, &tip.hash) {
            return Held::Yes(branch);
        }
        if tip.seq <= log.settled {
            return log.branches().next().map_or(Held::Nothing, |(branch, _)| Held::Yes(branch));
        }
        if !log.reaches(tip.seq) {
            return Held::No;
        }
        let known = self.hashes.at(&tip.log, tip.seq);
        if let Some((_, branch)) = known.iter().find(|(hash, _)| *hash == tip.hash) {
            return Held::Yes(*branch);
        }
        let standing = log.standing_at(tip.seq);
        match known.first() {
            Some((hash, branch)) if known.len() >= standing => Held::Other(*hash, *branch),
            _ if standing == 0 => Held::No,
            _ => Held::Ask,
        }
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
                self.hashes.insert(*log, *seq, hash, branch);
            }
        }
        self.looked_up(places);
    }

    pub(super) fn hashes_failed(&mut self, places: &[(LogId, u64)]) {
        for place in places {
            self.hashes.asked.remove(place);
        }
    }
}
