//! Segments that stand on what no checkpoint has: whoever names them names nothing.
//!
//! A branch that begins where a checkpoint ends, or before, counts no more, and to see that a segment is of one takes the
//! segment: its number and hash alone do not tell. So one that something needs is stored, without being applied, and given to
//! whoever lacks it. It is paid for like others, and goes when a checkpoint covers its place.

use std::collections::{BTreeMap, BTreeSet};

use crate::replica::log::storage::{Branch, Hash};
use crate::replica::log::wire::Tip;
use crate::replica::place::LogId;

/// Those that are stored, and under which number of a branch.
#[derive(Debug, Default)]
pub(super) struct Beside {
    /// Of what was named before the store was opened, and is not in it, none.
    tips: BTreeMap<Tip, Option<Branch>>,
    /// How far each branch goes.
    ends: BTreeMap<(LogId, Branch), u64>,
}

impl Beside {
    /// From what was read when the store was opened.
    pub(super) fn of(tips: BTreeMap<Tip, Option<Branch>>) -> Self {
        let mut all = Self::default();
        tips.into_iter().for_each(|(tip, branch)| all.insert(tip, branch));
        all
    }

    pub(super) fn contains(&self, tip: &Tip) -> bool {
        self.tips.contains_key(tip)
    }

    /// Under which number it is stored.
    pub(super) fn on(&self, tip: &Tip) -> Option<Branch> {
        *self.tips.get(tip)?
    }

    /// The branch that this one ends, and which another segment may go on.
    pub(super) fn ended_by(&self, tip: &Tip) -> Option<Branch> {
        self.on(tip).filter(|branch| self.ends.get(&(tip.log, *branch)) == Some(&tip.seq))
    }

    /// Another one at the same place.
    pub(super) fn other_at(&self, tip: &Tip) -> Option<(Hash, Branch)> {
        let at = |hash| Tip { hash, ..*tip };
        let mut others = self.tips.range(at([0; 32])..=at([0xff; 32])).filter(|(other, _)| other.hash != tip.hash);
        others.find_map(|(other, branch)| Some((other.hash, (*branch)?)))
    }

    pub(super) fn insert(&mut self, tip: Tip, branch: Option<Branch>) {
        self.tips.insert(tip, branch);
        if let Some(branch) = branch {
            let end = self.ends.entry((tip.log, branch)).or_default();
            *end = tip.seq.max(*end);
        }
    }

    pub(super) fn tips(&self) -> impl Iterator<Item = &Tip> {
        self.tips.keys()
    }

    pub(super) fn all(&self) -> BTreeSet<Tip> {
        self.tips.keys().copied().collect()
    }
}
