//! What a set of segments says: logs with their branches, what each author had seen, which logs are closed, the manifests.
//!
//! Invariants: two ledgers to which the same segments were applied, in whatever causal order, say the same; the only names
//! that differ are the numbers of branches, which never leave the node. Nothing here looks at a clock.

mod closing;
mod forgetting;
mod log;
mod manifests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

pub(crate) use self::closing::Places;
pub(crate) use self::log::{Chain, INNER, Log};
#[cfg(test)]
pub(crate) use self::manifests::manifest_hash;
pub(crate) use self::manifests::{ManifestId, Manifests};
use super::entry::Entry;
use super::keys::Keys;
use super::storage::{Branch, Hash};
use super::vector::{Past, Split, Spot, Vector, Writer};
use super::wire::{Head, Tip};
use crate::identity::manifest::Manifest;
use crate::replica::place::{Incarnation, LogId, NodeId, Place, Stamp};

/// The state of a log-keeping node as far as segments determine it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ledger {
    pub(crate) logs: BTreeMap<LogId, Log>,
    /// Logs that are over and done with: every member knows that they are closed, and a checkpoint covers them.
    /// With the last number that counted.
    pub(crate) forgotten: Arc<BTreeMap<LogId, u64>>,
    /// First places of entries that were appended again, of logs in which they do not stand.
    pub(crate) again: BTreeMap<LogId, BTreeSet<(u64, u32)>>,
    pub(crate) manifests: Manifests,
}

/// Where a segment goes.
#[derive(Clone, Debug)]
pub(crate) enum Slot {
    /// Behind the tip of a chain, or at the beginning of a log.
    Extends(Branch),
    /// Beside what stands at its number on a chain.
    Forks { beside: Branch, standing: Hash, seen: Vector },
}

/// What a segment changed.
#[derive(Clone, Debug)]
pub(crate) enum Change {
    Split(Split),
    Closed(LogId),
    Manifest(Manifest),
}

/// One entry for the application.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Item {
    pub(crate) spot: Spot,
    /// Of an entry that was appended again: where it stood first, and when it was written.
    pub(crate) first: Option<(Place, Stamp)>,
    pub(crate) turn: Turn,
    pub(crate) body: bytes::Bytes,
}

/// Whether an entry's content was there before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Turn {
    First,
    /// It stood at its first place already; only what counts by who had seen what changes.
    Repeated,
}

/// What became of an applied segment.
#[derive(Clone, Debug)]
pub(crate) struct Applied {
    pub(crate) branch: Branch,
    pub(crate) writer: Writer,
    pub(crate) past: Past,
    pub(crate) items: Vec<Item>,
    pub(crate) changes: Vec<Change>,
}

impl Ledger {
    /// Applies a segment whose predecessor and dependencies are in, and whose entries were read from it.
    ///
    /// `resolved` says of each dependency that counts on which branch it stands.
    pub(crate) fn apply(
        &mut self,
        keys: &Keys,
        head: &Head,
        hash: Hash,
        entries: &[Entry],
        slot: Slot,
        resolved: &[(Tip, Branch)],
    ) -> Applied {
        let mut changes = Vec::new();
        let branch = self.place(head, hash, slot, &mut changes);
        self.advance(head, branch, resolved);
        let writer = self.logs[&head.log].writer_of(head.log, branch, head.seq);
        let mut here = None;
        if head.seq == 1 {
            let here = here.get_or_insert_with(|| self.here(head, branch, writer));
            self.close_ended(head, here, &mut changes);
        }
        let mut items = Vec::new();
        for (index, entry) in (0..).zip(entries) {
            let spot = Spot { writer, seq: head.seq, index };
            match entry {
                Entry::Plain(body) => {
                    let late = self.again.get(&head.log).is_some_and(|again| again.contains(&(head.seq, index)));
                    if !late {
                        items.push(Item { spot, first: None, turn: Turn::First, body: body.clone() });
                    }
                }
                Entry::Again { first, stamp, body } if first.log.node == head.log.node => {
                    let turn = self.note_again(first);
                    items.push(Item { spot, first: Some((*first, *stamp)), turn, body: body.clone() });
                }
                Entry::Manifest(bytes) => {
                    let here = here.get_or_insert_with(|| self.here(head, branch, writer));
                    self.take_manifest(keys, bytes, here, &mut changes);
                }
                Entry::Fork(fork) => {
                    let here = here.get_or_insert_with(|| self.here(head, branch, writer));
                    self.close_forked(keys, fork, here, &mut changes);
                }
                Entry::Again { .. } | Entry::Retain { .. } | Entry::Vote(_) | Entry::Unknown { .. } => {}
            }
        }
        if head.seq == 1 {
            // Behind the entries: the manifest that its author began under may be among them.
            self.close_removed(&mut changes);
        }
        let past = Past::new(Arc::clone(&self.logs[&head.log].chain(branch).seen), Arc::clone(&self.forgotten));
        Applied { branch, writer, past, items, changes }
    }

    /// Puts the segment in its place; a fork gives what stands there a name of its own.
    fn place(&mut self, head: &Head, hash: Hash, slot: Slot, changes: &mut Vec<Change>) -> Branch {
        let log = self.logs.entry(head.log).or_insert_with(Log::unknown);
        if head.seq == 1 {
            log.began = log.began.min(head.manifest);
        }
        match slot {
            Slot::Extends(branch) => {
                log.extend(branch, head.seq, hash);
                branch
            }
            Slot::Forks { beside, standing, seen } => {
                let (branch, split) = log.fork(head.log, beside, standing, head.seq, hash, seen);
                if let Some(split) = split {
                    self.split(&split);
                    changes.push(Change::Split(split));
                }
                branch
            }
        }
    }

    fn split(&mut self, split: &Split) {
        for log in self.logs.values_mut() {
            log.split(split);
        }
        self.manifests.split(split);
    }

    /// Adds to what the log's author has seen.
    fn advance(&mut self, head: &Head, branch: Branch, resolved: &[(Tip, Branch)]) {
        let mut seen = match self.logs.get_mut(&head.log) {
            Some(log) => log.take_seen(branch),
            None => return,
        };
        #[cfg(test)]
        if super::machine::planted::planted(super::machine::planted::Defect::VectorForgotten) {
            seen = Arc::default();
        }
        let vector = Arc::make_mut(&mut seen);
        for (tip, on) in resolved {
            self.raise(vector, tip, *on);
        }
        if let Some(log) = self.logs.get_mut(&head.log) {
            if head.seq > 1 {
                log.raise(vector, head.log, branch, head.seq - 1);
            }
            log.set_seen(branch.0, seen);
        }
    }

    /// Raises a vector to what somebody says to have seen; of a log of which nothing more counts, only its ends say anything.
    pub(crate) fn raise(&self, vector: &mut Vector, tip: &Tip, on: Branch) {
        if let Some(log) = self.logs.get(&tip.log)
            && !(log.is_final() && log.ends_in(tip.seq, &tip.hash).is_none())
        {
            log.raise(vector, tip.log, on, tip.seq);
        }
    }

    /// Notes that an entry was appended again, and says whether its first copy is here.
    fn note_again(&mut self, first: &Place) -> Turn {
        // Of a log that is over, what everybody has seen stays so, whether a checkpoint has let go of it here or not yet.
        let over = self.forgotten.get(&first.log).is_some_and(|last| first.seq <= *last);
        let held = over || self.logs.get(&first.log).is_some_and(|log| log.reaches(first.seq));
        let new = !held && self.again.entry(first.log).or_default().insert((first.seq, first.index));
        if new { Turn::First } else { Turn::Repeated }
    }

    /// The newest manifest.
    pub(crate) fn manifest(&self) -> Option<&Manifest> {
        self.manifests.newest.as_ref()
    }

    /// Whether somebody was a member by any manifest that was applied.
    pub(crate) fn was_member(&self, node: &NodeId) -> bool {
        self.manifests.members.contains_key(node)
    }

    /// Whether a log's author may still write to it. Of a log that is not known: whether it may begin.
    pub(crate) fn is_open(&self, log: &LogId) -> bool {
        if self.is_forgotten(log) {
            return false;
        }
        match self.logs.get(log) {
            Some(known) => known.is_open(),
            None => self.manifest().is_some_and(|manifest| is_member(manifest, &log.node)),
        }
    }

    pub(crate) fn is_forgotten(&self, log: &LogId) -> bool {
        self.forgotten.contains_key(log)
    }

    /// The tips of all branches that nothing follows.
    pub(crate) fn tips(&self) -> impl Iterator<Item = (Tip, Branch)> + '_ {
        self.logs.iter().flat_map(|(id, log)| log.tips(*id))
    }

    /// Logs of which a node may have begun another: the open ones of one node.
    pub(crate) fn open_logs_of(&self, node: NodeId) -> impl Iterator<Item = LogId> + '_ {
        let from = LogId { node, incarnation: Incarnation([0; 16]) };
        self.logs
            .range(from..)
            .take_while(move |(log, _)| log.node == node)
            .filter(|(_, log)| log.is_open())
            .map(|(id, _)| *id)
    }

    /// Whether the author of an open log other than its own has seen this.
    pub(crate) fn is_covered(&self, tip: &Tip, branch: Branch) -> bool {
        let Some(log) = self.logs.get(&tip.log) else { return true };
        let writer = log.writer_of(tip.log, branch, tip.seq);
        let covers = |(id, other): (&LogId, &Log)| {
            *id != tip.log && other.is_open() && other.chains().any(|chain| chain.seen.reaches(&writer, tip.seq))
        };
        self.logs.iter().any(covers)
    }
}

pub(crate) fn is_member(manifest: &Manifest, node: &NodeId) -> bool {
    manifest.contents().members().iter().any(|member| *member.log_key().as_bytes() == node.0)
}
