//! Entries that were appended again: which of them are copies of each other.
//!
//! Each has a name, into which goes all that its author says of it. Of those of one name the first that comes is new and the
//! others are copies of it, whichever that is; what says something else of the same first place is another entry. What
//! stands at the first place is looked at by nobody: an honest author appends nothing again that counts where it stands.
//!
//! A checkpoint keeps some of each author's names, so that an author who is told by it what it has appended again, or who lies,
//! fills nothing.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use super::super::storage::Hash;
use super::{Ledger, Turn};
use crate::replica::place::{LogId, NodeId};

#[derive(Clone, Debug, Default)]
pub(crate) struct Again {
    /// Of each author the names.
    known: BTreeMap<NodeId, BTreeMap<Hash, Copies>>,
    /// Where those stand that are behind the checkpoint.
    behind: BTreeMap<LogId, BTreeMap<u64, Vec<Hash>>>,
}

/// Where copies of an entry are.
#[derive(Clone, Copy, Debug, Default)]
struct Copies {
    /// The checkpoint knows the name.
    covered: bool,
    /// So many stand behind it.
    behind: u32,
}

impl Again {
    /// Takes one, and says whether it is the first of its name.
    pub(super) fn note(&mut self, log: &LogId, seq: u64, name: Hash) -> Turn {
        self.behind.entry(*log).or_default().entry(seq).or_default().push(name);
        match self.known.entry(log.node).or_default().entry(name) {
            Entry::Vacant(new) => {
                new.insert(Copies { covered: false, behind: 1 });
                Turn::First
            }
            Entry::Occupied(mut known) => {
                known.get_mut().behind += 1;
                Turn::Repeated
            }
        }
    }

    /// Notes a name that a checkpoint knows.
    pub(crate) fn insert(&mut self, author: NodeId, name: Hash) {
        self.known.entry(author).or_default().entry(name).or_default().covered = true;
    }

    /// Whether an author has appended this again already.
    pub(crate) fn knows(&self, author: &NodeId, name: &Hash) -> bool {
        self.known.get(author).is_some_and(|known| known.contains_key(name))
    }

    /// The names, in the order of their authors.
    pub(crate) fn names(&self) -> impl ExactSizeIterator<Item = (&NodeId, impl ExactSizeIterator<Item = &Hash>)> {
        self.known.iter().map(|(author, known)| (author, known.keys()))
    }

    /// Everything that is in is covered; of each author, of so many at the most, its share of the names is kept.
    pub(super) fn settle(&mut self, authors: usize) {
        self.behind.clear();
        let share = (MAX_NAMES / authors.max(1)).max(1);
        let covered = Copies { covered: true, behind: 0 };
        for known in self.known.values_mut() {
            *known = std::mem::take(known).into_keys().take(share).map(|name| (name, covered)).collect();
        }
    }

    /// Takes over what a checkpoint keeps, here where more than it covers is in.
    pub(super) fn adopt(&mut self, covered: &Ledger) {
        let mut behind = std::mem::take(&mut self.behind);
        for (log, places) in &mut behind {
            let left = places.split_off(&covered.first_behind(log));
            for name in std::mem::replace(places, left).into_values().flatten() {
                if let Some(copies) = self.known.get_mut(&log.node).and_then(|known| known.get_mut(&name)) {
                    copies.behind -= 1;
                }
            }
        }
        behind.retain(|_, places| !places.is_empty());
        self.behind = behind;
        for (author, known) in &mut self.known {
            known.retain(|name, copies| {
                copies.covered = covered.again.knows(author, name);
                copies.covered || copies.behind > 0
            });
        }
        self.known.retain(|_, known| !known.is_empty());
    }

    /// Whether what counted as a copy here does not where a checkpoint is loaded, which has let go of the name.
    pub(crate) fn is_new_behind(&self, covered: &Ledger) -> bool {
        let mut left: BTreeMap<(NodeId, Hash), u32> = BTreeMap::new();
        for (log, places) in &self.behind {
            for name in places.range(covered.first_behind(log)..).flat_map(|(_, names)| names) {
                *left.entry((log.node, *name)).or_default() += 1;
            }
        }
        left.iter().any(|((author, name), count)| {
            let copies = self.known.get(author).and_then(|known| known.get(name)).copied().unwrap_or_default();
            !covered.again.knows(author, name) && (copies.covered || copies.behind > *count)
        })
    }
}

impl Ledger {
    /// The first number of a log that is not covered.
    fn first_behind(&self, log: &LogId) -> u64 {
        match self.logs.get(log) {
            _ if self.is_forgotten(log) => u64::MAX,
            Some(log) => log.last() + 1,
            None => 0,
        }
    }
}

/// Names that a checkpoint keeps, 128 KiB of them, in equal shares for all who were ever members: more than an honest node ever
/// appends again, and a part of a summary that leaves room for the rest.
const MAX_NAMES: usize = 4_096;
