//! One log: its chains, where they part, and what their author had seen at the end of each.

use std::collections::BTreeMap;
use std::sync::Arc;

#[cfg(test)]
use super::super::machine::planted::{Defect, planted};
use super::super::storage::{Branch, Hash};
use super::super::vector::{Split, Vector, Writer};
use super::super::wire::Tip;
use super::closing::Places;
use crate::replica::place::LogId;

/// A log and what is known of it.
#[derive(Clone, Debug)]
pub(crate) struct Log {
    chains: BTreeMap<Branch, Chain>,
    /// Which chain ends in a segment, by its hash: a faulty author can make as many chains as it likes.
    ends: BTreeMap<Hash, Branch>,
    /// The highest number of all chains.
    most: u64,
    /// The manifest that its author knew when it began; the oldest, where several segments say so.
    pub(crate) began: u64,
    pub(crate) forked: bool,
    pub(crate) ended: bool,
    pub(crate) removed: bool,
    /// Where it is said that it forked or ended, of each chain of segments the first place.
    pub(crate) closers: Places,
    /// A checkpoint stands for everything up to here: there is no other branch below.
    pub(crate) settled: u64,
    /// The hash there, of a log that did not fork below.
    pub(crate) settled_hash: Hash,
    /// Numbers of branches below are in use, some by stored segments that stand beside what a checkpoint covers.
    numbers: u32,
}

/// Segments in a row as this node took them in.
#[derive(Clone, Debug)]
pub(crate) struct Chain {
    parent: Option<Branch>,
    /// The first number that is its own.
    pub(crate) from: u64,
    pub(crate) seq: u64,
    pub(crate) hash: Hash,
    /// From each of these numbers on the writer has this name.
    cuts: BTreeMap<u64, Hash>,
    /// What its author had seen at the end.
    pub(crate) seen: Arc<Vector>,
}

impl Log {
    /// A log of which nothing is here.
    pub(crate) fn unknown() -> Self {
        Self::begun(u64::MAX)
    }

    pub(crate) fn begun(manifest: u64) -> Self {
        Self {
            chains: BTreeMap::new(),
            ends: BTreeMap::new(),
            most: 0,
            settled_hash: [0; 32],
            began: manifest,
            forked: false,
            ended: false,
            removed: false,
            closers: Places::new(),
            settled: 0,
            numbers: 0,
        }
    }

    pub(crate) fn is_open(&self) -> bool {
        !self.forked && !self.ended && !self.removed
    }

    /// How many chains there are.
    pub(crate) fn count(&self) -> usize {
        self.chains.len()
    }

    pub(crate) fn chains(&self) -> impl Iterator<Item = &Chain> {
        self.chains.values()
    }

    pub(crate) fn branches(&self) -> impl Iterator<Item = (Branch, &Chain)> {
        self.chains.iter().map(|(branch, chain)| (*branch, chain))
    }

    pub(crate) fn chain(&self, branch: Branch) -> &Chain {
        &self.chains[&branch]
    }

    pub(crate) fn get(&self, branch: Branch) -> Option<&Chain> {
        self.chains.get(&branch)
    }

    pub(super) fn extend(&mut self, branch: Branch, seq: u64, hash: Hash) {
        if let Some(chain) = self.chains.get_mut(&branch) {
            self.ends.remove(&chain.hash);
            (chain.seq, chain.hash) = (seq, hash);
            self.note_end(branch, seq, hash);
        } else {
            self.insert(branch, Chain::new(None, seq, hash, BTreeMap::new(), Vector::default()));
        }
    }

    fn insert(&mut self, branch: Branch, chain: Chain) {
        self.note_end(branch, chain.seq, chain.hash);
        self.chains.insert(branch, chain);
    }

    fn note_end(&mut self, branch: Branch, seq: u64, hash: Hash) {
        self.most = seq.max(self.most);
        if hash != INNER {
            self.ends.insert(hash, branch);
        }
    }

    /// Begins a branch beside what stands at `seq` on a chain; what stands there gets a name, if it has none.
    pub(super) fn fork(
        &mut self,
        id: LogId,
        beside: Branch,
        standing: Hash,
        seq: u64,
        hash: Hash,
        seen: Vector,
    ) -> (Branch, Option<Split>) {
        // What stands there may stand on what the chain came from.
        let mut on = beside;
        while self.chain(on).from > seq
            && let Some(parent) = self.chain(on).parent
        {
            on = parent;
        }
        let split = (!self.chain(on).cuts.contains_key(&seq)).then(|| {
            #[cfg(test)]
            let standing = if planted(Defect::NamesOfItsOwn) { [1; 32] } else { standing };
            let split = Split { from: self.writer_of(id, on, seq), at: seq, name: standing };
            if let Some(chain) = self.chains.get_mut(&on) {
                chain.cuts.insert(seq, standing);
            }
            split
        });
        self.forked = true;
        let parent = (seq > 1).then_some(on);
        let seen = match &split {
            Some(split) => {
                let mut seen = seen;
                seen.split(split);
                seen
            }
            None => seen,
        };
        let branch = self.next_branch();
        self.insert(branch, Chain::new(parent, seq, hash, BTreeMap::from([(seq, hash)]), seen));
        (branch, split)
    }

    pub(super) fn split(&mut self, split: &Split) {
        for chain in self.chains.values_mut() {
            if chain.seen.reaches(&split.from, split.at) {
                Arc::make_mut(&mut chain.seen).split(split);
            }
        }
        split.rename_place(&mut self.closers);
    }

    /// The writer of what stands at a number on a chain.
    pub(crate) fn writer_of(&self, id: LogId, branch: Branch, seq: u64) -> Writer {
        let mut on = branch;
        loop {
            let Some(chain) = self.get(on) else { return Writer::trunk(id) };
            if let Some((_, name)) = chain.cuts.range(..=seq).next_back() {
                return Writer { log: id, branch: *name };
            }
            match chain.parent {
                Some(parent) => on = parent,
                None => return Writer::trunk(id),
            }
        }
    }

    /// Raises a vector to what stands at a number on a chain, and to everything before it.
    pub(crate) fn raise(&self, vector: &mut Vector, id: LogId, branch: Branch, seq: u64) {
        let (mut on, mut seq) = (branch, seq);
        while seq > 0
            && let Some(chain) = self.get(on)
        {
            if seq < chain.from {
                let Some(parent) = chain.parent else { return };
                on = parent;
                continue;
            }
            vector.raise(self.writer_of(id, on, seq), seq);
            // Down to what stands before the branch that this belongs to.
            match chain.cuts.range(..=seq).next_back() {
                Some((cut, _)) => seq = cut - 1,
                None => match chain.parent {
                    Some(parent) => (on, seq) = (parent, chain.from - 1),
                    None => return,
                },
            }
        }
    }

    /// The chain whose segments at this number are those of `branch`.
    pub(crate) fn owner(&self, branch: Branch, seq: u64) -> Branch {
        let mut on = branch;
        while let Some(chain) = self.get(on)
            && chain.from > seq
            && let Some(parent) = chain.parent
        {
            on = parent;
        }
        on
    }

    /// The last number up to `to` that stands on `branch` on the way to `on`.
    pub(crate) fn last_on_the_way(&self, branch: Branch, on: Branch, to: u64) -> u64 {
        let (mut at, mut last) = (on, to);
        while at != branch
            && let Some(chain) = self.get(at)
            && let Some(parent) = chain.parent
        {
            (at, last) = (parent, last.min(chain.from - 1));
        }
        last
    }

    /// Whether anything is held at this number or behind it.
    pub(crate) fn reaches(&self, seq: u64) -> bool {
        !self.chains.is_empty() && self.most >= seq
    }

    /// The highest number that is held.
    pub(crate) fn last(&self) -> u64 {
        self.most
    }

    /// How many chains have a segment of their own at this number.
    pub(crate) fn standing_at(&self, seq: u64) -> usize {
        self.chains.values().filter(|chain| (chain.from..=chain.seq).contains(&seq)).count()
    }

    /// The number of the next branch.
    pub(crate) fn next_branch(&self) -> Branch {
        Branch(self.chains.last_key_value().map_or(0, |(last, _)| last.0 + 1).max(self.numbers))
    }

    /// No branch gets a number below from now on.
    pub(crate) fn skip_numbers(&mut self, below: Branch) {
        self.numbers = below.0.max(self.numbers);
    }

    /// Gives the chain that a checkpoint ends, where nothing stored follows it, a number that no stored segment has.
    pub(crate) fn renumber_if_taken(&mut self) {
        let next = self.next_branch();
        if self.numbers > 0 && !self.is_final() && self.most == self.settled {
            self.renumber(next);
        }
    }

    /// Whether a segment stands beside what a checkpoint covers, and so counts no more.
    pub(crate) fn is_beside_settled(&self, tip: &Tip) -> bool {
        tip.seq == self.settled && tip.hash != self.settled_hash
    }

    /// Gives the only chain, of which nothing is stored yet, the number that the store has for what follows.
    pub(crate) fn renumber(&mut self, to: Branch) {
        if self.chains.len() == 1
            && let Some((_, chain)) = self.chains.pop_first()
        {
            self.insert(to, chain);
        }
    }

    /// Of a checkpoint: a writer with its end, and the place of the one that it stands on.
    pub(crate) fn push_settled(&mut self, name: Hash, on: Option<u32>, (from, seq): (u64, u64), hash: Hash) {
        let cuts = if name == [0; 32] { BTreeMap::new() } else { BTreeMap::from([(from, name)]) };
        let branch = self.next_branch();
        self.insert(branch, Chain { parent: on.map(Branch), from, seq, hash, cuts, seen: Arc::default() });
    }

    /// Whether every chain stands on one that ends right before it.
    pub(crate) fn is_rooted(&self) -> bool {
        self.chains.values().all(|chain| match chain.parent {
            Some(parent) => self.chains.get(&parent).is_some_and(|parent| parent.seq == chain.from - 1),
            None => chain.from == 1,
        })
    }

    /// Takes the vector out, to be put back changed.
    pub(super) fn take_seen(&mut self, branch: Branch) -> Arc<Vector> {
        self.chains.get_mut(&branch).map(|chain| std::mem::take(&mut chain.seen)).unwrap_or_default()
    }

    pub(crate) fn set_seen(&mut self, chain: u32, seen: Arc<Vector>) {
        if let Some(chain) = self.chains.get_mut(&Branch(chain)) {
            chain.seen = seen;
        }
    }

    /// A checkpoint covers everything up to here; of a log that forked nothing more counts.
    pub(crate) fn settle(&mut self) {
        (self.settled, self.settled_hash) = match (self.forked, self.chains.values().next()) {
            (true, _) => (FINAL, [0; 32]),
            (false, Some(chain)) => (chain.seq, chain.hash),
            (false, None) => (0, [0; 32]),
        };
    }

    /// Nothing of it counts any more that a checkpoint does not have.
    pub(crate) fn is_final(&self) -> bool {
        self.settled == FINAL
    }

    /// Forgets a writer of logs that are over and done with.
    pub(super) fn forget(&mut self, is_forgotten: impl Fn(&LogId) -> bool) {
        for chain in self.chains.values_mut() {
            if chain.seen.0.keys().any(|writer| is_forgotten(&writer.log)) {
                Arc::make_mut(&mut chain.seen).0.retain(|writer, _| !is_forgotten(&writer.log));
            }
        }
    }

    /// Whether branches part at this number or before, as far as is known.
    pub(crate) fn parts_by(&self, seq: u64) -> bool {
        self.chains.values().any(|chain| chain.cuts.keys().any(|cut| *cut <= seq))
    }

    /// The ends of all chains, but for those on whose end others stand.
    pub(crate) fn tips(&self, id: LogId) -> impl Iterator<Item = (Tip, Branch)> + '_ {
        self.branches()
            .filter(|(_, chain)| chain.hash != INNER)
            .map(move |(branch, chain)| (Tip { log: id, seq: chain.seq, hash: chain.hash }, branch))
    }

    /// The chain that ends in this segment.
    pub(crate) fn ends_in(&self, seq: u64, hash: &Hash) -> Option<Branch> {
        self.ends.get(hash).filter(|branch| self.chains.get(branch).is_some_and(|chain| chain.seq == seq)).copied()
    }
}

impl Chain {
    fn new(parent: Option<Branch>, seq: u64, hash: Hash, cuts: BTreeMap<u64, Hash>, seen: Vector) -> Self {
        Self { parent, from: seq, seq, hash, cuts, seen: Arc::new(seen) }
    }

    pub(crate) fn cuts(&self) -> impl Iterator<Item = (u64, Hash)> + '_ {
        self.cuts.iter().map(|(cut, name)| (*cut, *name))
    }

    pub(crate) fn parent(&self) -> Option<Branch> {
        self.parent
    }

    /// The lowest number at which something else stands beside this chain.
    pub(crate) fn first_cut(&self) -> Option<u64> {
        self.cuts.keys().next().copied()
    }
}

/// In the place of a hash: of a writer of a checkpoint that forked further on, the last segment is not known.
pub(crate) const INNER: Hash = [0; 32];
/// Behind every number.
const FINAL: u64 = u64::MAX - 1;
