//! Segments of others: checked, held back until what they need has come, applied.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::checks::Held;
use super::holding::{Waiting, Why};
#[cfg(test)]
use super::planted::{Defect, planted};
use super::staging::Paid;
use super::{Machine, Unlink};
use crate::replica::log::ledger::Slot;
use crate::replica::log::limits::{HELD, MAX_RUNS, WINDOW};
use crate::replica::log::storage::{Branch, Hash};
use crate::replica::log::wire::{Segment, Tip};
use crate::replica::place::{LogId, NodeId};

/// What is to be done with a segment.
enum Verdict {
    /// It is here already, or will never be taken.
    Drop,
    /// It stands on what no checkpoint has: what needs it needs nothing but to know that.
    Beside,
    Wait(Why),
    /// Something else stands in its place, on this branch.
    Conflict {
        standing: Hash,
        on: Branch,
    },
    Apply {
        slot: Branch,
        resolved: Vec<(Tip, Branch)>,
    },
}

impl Machine {
    /// Takes a segment from a link, for which it was charged.
    pub(super) fn receive_segment(&mut self, from: NodeId, segment: Arc<Segment>) {
        let (tip, cost) = (segment.tip(), segment.cost() as u64);
        let held = self.held(&tip);
        if let Held::Yes(branch) = held {
            self.note_sent_in_vain(from, &tip, branch);
        }
        if self.held.contains(&tip) || matches!(held, Held::Yes(_) | Held::Nothing) {
            self.give_back(from, cost);
            return;
        }
        // What came over earlier links and waits for the disk is in no credit of this one; it comes again.
        if self.unstored.get(&from).is_some_and(|unstored| unstored + cost > WINDOW) {
            self.give_back(from, cost);
            return;
        }
        let signed = (self.keys.verify)(&tip.log.node, &tip.signed(self.keys.service_key()), &segment.signature);
        #[cfg(test)]
        let signed = signed || planted(Defect::SignatureIgnored);
        if !signed {
            self.unlink(from, Unlink::Forged);
            return;
        }
        self.consider(Waiting { segment, from, since: self.now, asked: self.now, why: Why::Unwanted });
    }

    /// Decides on a segment whose signature is good, and on all that waited for it.
    pub(super) fn consider(&mut self, waiting: Waiting) {
        let mut next = vec![waiting];
        while let Some(mut waiting) = next.pop() {
            let tip = waiting.segment.tip();
            match self.judge(&waiting.segment) {
                Verdict::Drop => self.done_with(&waiting),
                #[cfg(test)]
                Verdict::Beside if planted(Defect::BesideForgotten) => {
                    self.beside.insert(tip, None);
                    self.done_with(&waiting);
                    next.extend(self.released_by(&tip));
                }
                Verdict::Beside if !self.held.is_demanded(&tip) && !self.held.is_awaited(&tip) => {
                    self.done_with(&waiting)
                }
                Verdict::Beside => {
                    let paid = self.paid_for(&waiting);
                    self.stage_beside(waiting.segment, paid);
                    next.extend(self.released_by(&tip));
                }
                Verdict::Wait(why) => {
                    let live = self.ledger.is_open(&tip.log) || self.held.is_demanded(&tip);
                    if let Why::Asking(places) = &why {
                        places.iter().for_each(|(log, seq)| self.want_hash(*log, *seq));
                    }
                    let missing = match &why {
                        Why::Missing(missing) if live => missing.clone(),
                        _ => BTreeSet::new(),
                    };
                    waiting.why = why;
                    self.held.insert(tip, waiting);
                    for ready in self.held.demand(missing) {
                        next.extend(self.held.remove(&ready));
                    }
                }
                Verdict::Conflict { standing, on } => self.conflict(waiting, standing, on),
                Verdict::Apply { slot, resolved } => {
                    let entries = Self::entries_of(&waiting.segment);
                    let paid = self.paid_for(&waiting);
                    self.stage(waiting.segment, &entries, Slot::Extends(slot), &resolved, Vec::new(), paid);
                    next.extend(self.released_by(&tip));
                }
            }
        }
    }

    /// What waited for a segment that was applied.
    pub(super) fn released_by(&mut self, tip: &Tip) -> Vec<Waiting> {
        self.held.satisfied(tip);
        self.held.release(tip)
    }

    /// What a segment takes of its sender's credit until it is durable.
    pub(super) fn paid_for(&self, waiting: &Waiting) -> Option<Paid> {
        let via = self.links.get(&waiting.from)?.via;
        Some(Paid { via, cost: waiting.segment.cost() as u64 })
    }

    /// A segment is dropped: its room is the sender's again.
    pub(super) fn done_with(&mut self, waiting: &Waiting) {
        self.give_back(waiting.from, waiting.segment.cost() as u64);
    }

    fn judge(&self, segment: &Segment) -> Verdict {
        let (head, tip) = (&segment.head, segment.tip());
        match self.held(&tip) {
            Held::Yes(_) | Held::Nothing => return Verdict::Drop,
            Held::Ask => return Verdict::Wait(Why::Asking(vec![(tip.log, tip.seq)])),
            Held::No | Held::Other(..) => {}
        }
        let (mut missing, mut asking, mut resolved) = (BTreeSet::new(), Vec::new(), Vec::new());
        let mut before = None;
        for needed in head.before().iter().chain(&head.dependencies) {
            match self.held(needed) {
                Held::Nothing if needed.log == head.log => return Verdict::Beside,
                Held::Yes(_) if needed.log == head.log && self.is_beside_settled(needed) => return Verdict::Beside,
                Held::Nothing => {}
                Held::Yes(branch) if needed.log == head.log => before = Some(branch),
                Held::Yes(branch) => resolved.push((*needed, branch)),
                Held::No | Held::Other(..) => {
                    missing.insert(*needed);
                }
                Held::Ask => asking.push((needed.log, needed.seq)),
            }
        }
        #[cfg(test)]
        if planted(Defect::DependenciesIgnored) {
            missing.retain(|needed| needed.log == head.log);
        }
        if !missing.is_empty() {
            return Verdict::Wait(Why::Missing(missing));
        }
        if !asking.is_empty() {
            return Verdict::Wait(Why::Asking(asking));
        }
        if !self.ledger.was_member(&head.log.node) {
            return Verdict::Drop;
        }
        let wanted = self.held.is_demanded(&tip);
        #[cfg(test)]
        let wanted = wanted && !planted(Defect::DemandIgnored);
        if !wanted && (!self.ledger.is_open(&head.log) || self.has_too_many_runs(&head.log)) {
            return match self.beside(head.seq, &tip.log, before) {
                // The proof is worth having all the same.
                Some((standing, on)) if !self.is_forked(&tip.log) => Verdict::Conflict { standing, on },
                _ => Verdict::Wait(Why::Unwanted),
            };
        }
        match self.beside(head.seq, &tip.log, before) {
            Some((standing, on)) => Verdict::Conflict { standing, on },
            // It stands on what a checkpoint does not have.
            None if head.seq > 1 && self.extends(&head.before()).is_none() => Verdict::Drop,
            None => Verdict::Apply { slot: self.extends(&head.before()).unwrap_or_default(), resolved },
        }
    }

    fn extends(&self, before: &Option<Tip>) -> Option<Branch> {
        let before = before.as_ref()?;
        self.ledger.logs.get(&before.log)?.ends_in(before.seq, &before.hash)
    }

    /// What stands at a number on the chain of its predecessor.
    fn beside(&self, seq: u64, log: &LogId, before: Option<Branch>) -> Option<(Hash, Branch)> {
        let known = self.ledger.logs.get(log)?;
        let standing = self.hashes.at(log, seq);
        if seq == 1 {
            return standing.first().copied();
        }
        let before = before?;
        // A child of the predecessor: on its chain, or the first of a chain that came from there.
        let child = |branch: Branch| {
            let owner = known.owner(branch, seq - 1);
            owner == known.owner(before, seq - 1)
        };
        standing.iter().find(|(_, branch)| child(*branch)).copied()
    }

    fn is_beside_settled(&self, tip: &Tip) -> bool {
        self.ledger.logs.get(&tip.log).is_some_and(|log| !log.is_final() && log.is_beside_settled(tip))
    }

    pub(super) fn is_forked(&self, log: &LogId) -> bool {
        self.ledger.logs.get(log).is_some_and(|log| log.forked)
    }

    /// Another run of a node that has begun so many of which nobody else has seen the end.
    fn has_too_many_runs(&self, log: &LogId) -> bool {
        !self.ledger.logs.contains_key(log) && self.ledger.open_logs_of(log.node).count() >= MAX_RUNS
    }

    /// The store has said what stands at some places.
    pub(super) fn looked_up(&mut self, places: &[(LogId, u64)]) {
        // Once each, however many of these places it waits for.
        let tips: BTreeSet<Tip> = places.iter().flat_map(|place| self.held.askers(place)).collect();
        for tip in tips {
            if let Some(waiting) = self.held.remove(&tip) {
                self.consider(waiting);
            }
        }
        self.resume_surveys();
    }

    /// Judges again whatever waits to be wanted: a log was closed, a proof or a cover has come.
    pub(super) fn reconsider_unwanted(&mut self) {
        let unwanted: Vec<Tip> =
            self.held.waiting.iter().filter(|(_, waiting)| waiting.why == Why::Unwanted).map(|(tip, _)| *tip).collect();
        for tip in unwanted {
            if self.held.is_demanded(&tip)
                && let Some(waiting) = self.held.remove(&tip)
            {
                self.consider(waiting);
            }
        }
    }

    /// Drops what has waited too long.
    pub(super) fn expire(&mut self) {
        let now = self.now;
        let old: Vec<Tip> = self
            .held
            .waiting
            .iter()
            .filter(|(_, waiting)| now.saturating_sub(waiting.since) > HELD && waiting.why != Why::Surveyed)
            .map(|(tip, _)| *tip)
            .collect();
        if old.is_empty() {
            return;
        }
        for tip in old {
            if let Some(waiting) = self.held.remove(&tip) {
                self.done_with(&waiting);
            }
        }
        self.renew_demand();
    }

    /// What came over a link goes with it, so that it is within the credit of one; it comes again.
    pub(super) fn drop_held_from(&mut self, node: NodeId) {
        let gone: Vec<Tip> =
            self.held.waiting.iter().filter(|(_, waiting)| waiting.from == node).map(|(tip, _)| *tip).collect();
        for tip in &gone {
            self.held.remove(tip);
        }
        if !gone.is_empty() {
            self.renew_demand();
            self.resume_surveys();
        }
    }

    /// What was wanted only by what is gone is not wanted any more.
    fn renew_demand(&mut self) {
        self.held.reset_demand();
        let live: Vec<BTreeSet<Tip>> = self
            .held
            .waiting
            .iter()
            .filter(|(tip, _)| self.ledger.is_open(&tip.log))
            .filter_map(|(_, waiting)| match &waiting.why {
                Why::Missing(missing) => Some(missing.clone()),
                _ => None,
            })
            .collect();
        for missing in live {
            self.held.demand(missing);
        }
    }
}
