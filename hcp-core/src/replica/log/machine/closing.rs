//! Closed logs: the proof of a fork, the branches that others have seen, and the cover for what this node has applied.
//!
//! A node that learns of a closure and has applied segments of that log which no open log covers yet appends at once a
//! segment that depends on them; so everybody may take them.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::checks::Held;
use super::holding::{Waiting, Why};
#[cfg(test)]
use super::planted::{Defect, planted};
use super::{Machine, Reading, Stop};
use crate::replica::log::entry::{Entry, Fork};
use crate::replica::log::ledger::{Log, Slot};
use crate::replica::log::limits::PAGE;
use crate::replica::log::storage::{Branch, Found, Hash, Payloads, Range, Read, ReadId, Row};
use crate::replica::log::vector::Vector;
use crate::replica::log::wire::{Head, SIGNATURE, Tip};
use crate::replica::place::LogId;

/// A second segment for a place, whose first is being read.
#[derive(Debug)]
pub(super) struct Proof {
    tip: Tip,
    signature: [u8; SIGNATURE],
}

/// A branch that is to be taken in, while what its author had seen before is read from the store.
#[derive(Debug)]
pub(super) struct Survey {
    tip: Tip,
    standing: Hash,
    on: Branch,
    /// Numbers that are read.
    next: u64,
    seen: Vector,
    /// What the segments that were read name, and could not be placed yet.
    named: Vec<Tip>,
    /// Where the store was asked what stands there.
    asked: BTreeSet<(LogId, u64)>,
    /// What is being read.
    reading: Option<ReadId>,
}

impl Machine {
    /// Another segment stands where this one belongs.
    pub(super) fn conflict(&mut self, waiting: Waiting, standing: Hash, on: Branch) {
        let tip = waiting.segment.tip();
        #[cfg(test)]
        if planted(Defect::ForkIgnored) {
            return self.done_with(&waiting);
        }
        self.prove_fork(&tip, waiting.segment.signature, on);
        let wanted = self.held.is_demanded(&tip);
        if wanted && self.is_forked(&tip.log) {
            self.survey(waiting, standing, on);
        } else {
            self.held.insert(tip, Waiting { why: Why::Unwanted, ..waiting });
        }
    }

    /// Says that a log forked, unless that is known: what stands in the place of this segment, on that branch, is read first.
    pub(super) fn prove_fork(&mut self, tip: &Tip, signature: [u8; SIGNATURE], on: Branch) {
        if self.is_forked(&tip.log) || self.proofs.contains_key(&tip.log) {
            return;
        }
        self.proofs.insert(tip.log, Proof { tip: *tip, signature });
        // What came with this one is not on disk yet.
        let standing = match self.recent.get(tip.log, on, tip.seq) {
            Some((row, _)) => Some(Arc::clone(row)),
            None => self.unstored_row(&tip.log, on, tip.seq),
        };
        match standing {
            Some(row) => self.prove(&row),
            None => {
                let range = Range { log: tip.log, branch: on, from: tip.seq, to: tip.seq };
                let what = Read::Rows { ranges: vec![range], bytes: 1, payloads: Payloads::OfSystem };
                self.read(what, Reading::Proof(tip.log));
            }
        }
    }

    pub(super) fn found_proof(&mut self, log: LogId, found: Found) {
        match found {
            Found::Rows(rows) if !rows.is_empty() => self.prove(&rows[0].clone()),
            _ => {
                self.proofs.remove(&log);
            }
        }
    }

    fn prove(&mut self, row: &Row) {
        let Some(proof) = self.proofs.remove(&row.log) else { return };
        let Ok(one_signature) = row.signature[..].try_into() else { return };
        if row.seq != proof.tip.seq || row.hash == proof.tip.hash || self.stopped.is_some() {
            return;
        }
        let one = Tip { log: row.log, seq: row.seq, hash: row.hash };
        let fork = Fork { one, one_signature, other: proof.tip.hash, other_signature: proof.signature };
        self.add_system(Entry::Fork(fork));
        self.cut();
    }

    /// A log was closed.
    pub(super) fn closed(&mut self, log: LogId) {
        let branches = self.ledger.logs.get(&log).into_iter().flat_map(Log::branches);
        self.to_cover.extend(branches.map(|(branch, _)| (log, branch)));
        if log == self.own {
            self.reborn = true;
        }
    }

    /// Covers what this node has applied of closed logs, and goes on elsewhere when its own is closed.
    pub(super) fn cover(&mut self) {
        // It may have begun under a manifest that stands behind its first segment.
        if std::mem::take(&mut self.reborn) && !self.ledger.is_open(&self.own) {
            let ended = self.ledger.logs.get(&self.own).is_some_and(|log| log.ended);
            if ended {
                return self.stop(Stop::Superseded);
            }
            self.begin_again();
        }
        #[cfg(test)]
        if planted(Defect::CoverForgotten) {
            self.to_cover.clear();
            return self.reconsider_unwanted();
        }
        if self.to_cover.is_empty() || self.stopped.is_some() {
            return;
        }
        for (log, branch) in std::mem::take(&mut self.to_cover) {
            let Some(known) = self.ledger.logs.get(&log) else { continue };
            let Some(chain) = known.get(branch).filter(|chain| chain.seq > known.settled) else { continue };
            let tip = Tip { log, seq: chain.seq, hash: chain.hash };
            if !self.ledger.is_open(&log) && !self.ledger.is_covered(&tip, branch) {
                self.claim(tip, branch);
            }
        }
        self.reconsider_unwanted();
    }

    /// Reads what the author of a branch had seen before it.
    fn survey(&mut self, waiting: Waiting, standing: Hash, on: Branch) {
        let tip = waiting.segment.tip();
        self.held.insert(tip, Waiting { why: Why::Surveyed, ..waiting });
        let Some(log) = self.ledger.logs.get(&tip.log) else { return };
        let base = self.base_vector(&tip.log);
        let next = log.settled + 1;
        let (named, asked) = (Vec::new(), BTreeSet::new());
        self.surveys.push_back(Survey { tip, standing, on, next, seen: base, named, asked, reading: None });
        self.resume_surveys();
    }

    pub(super) fn found_survey(&mut self, read: ReadId, found: Found) {
        // That it was read for may be gone.
        let Some(survey) = self.surveys.front_mut().filter(|survey| survey.reading == Some(read)) else { return };
        survey.reading = None;
        match found {
            Found::Rows(rows) if !rows.is_empty() => {
                for row in rows {
                    survey.next = row.seq + 1;
                    if let Ok(head) = Head::parse(&row.header) {
                        survey.named.extend(head.dependencies);
                    }
                }
            }
            // It is tried again when the segment comes again.
            _ => self.drop_survey(),
        }
        self.resume_surveys();
    }

    /// The store has not said what stands at some places; it is tried again when the segment comes again.
    pub(super) fn survey_failed(&mut self, places: &[(LogId, u64)]) {
        if self.surveys.front().is_some_and(|survey| places.iter().any(|place| survey.asked.contains(place))) {
            self.drop_survey();
            self.resume_surveys();
        }
    }

    fn drop_survey(&mut self) {
        if let Some(survey) = self.surveys.pop_front()
            && let Some(waiting) = self.held.remove(&survey.tip)
        {
            self.done_with(&waiting);
        }
    }

    /// Goes on with the first survey.
    pub(super) fn resume_surveys(&mut self) {
        while let Some(mut survey) = self.surveys.pop_front() {
            // Its segment went with the link over which it came.
            if !self.held.contains(&survey.tip) {
                continue;
            }
            if survey.reading.is_some() {
                return self.surveys.push_front(survey);
            }
            let Some(log) = self.ledger.logs.get(&survey.tip.log) else { continue };
            let named = std::mem::take(&mut survey.named);
            for tip in named {
                match self.held(&tip) {
                    Held::Yes(branch) => self.ledger.raise(&mut survey.seen, &tip, branch),
                    // It was named by what is applied: it was nothing then, and is not remembered as that any more.
                    Held::Nothing | Held::No | Held::Other(..) => {}
                    Held::Ask => {
                        let place = (tip.log, tip.seq);
                        if !survey.asked.contains(&place) || self.hashes.is_asked(&place) {
                            survey.named.push(tip);
                        }
                    }
                }
            }
            if survey.next < survey.tip.seq {
                let branch = log.owner(survey.on, survey.next);
                let last = log.last_on_the_way(branch, survey.on, survey.tip.seq - 1);
                let range = Range { log: survey.tip.log, branch, from: survey.next, to: last };
                let what = Read::Rows { ranges: vec![range], bytes: PAGE, payloads: Payloads::OfSystem };
                survey.reading = Some(self.read(what, Reading::Survey));
                return self.surveys.push_front(survey);
            }
            if !survey.named.is_empty() {
                for tip in &survey.named {
                    self.want_hash(tip.log, tip.seq);
                    survey.asked.insert((tip.log, tip.seq));
                }
                return self.surveys.push_front(survey);
            }
            self.branch_off(survey);
        }
    }

    /// Takes the branch in.
    fn branch_off(&mut self, survey: Survey) {
        let Survey { tip, standing, on, seen, .. } = survey;
        let Some(waiting) = self.held.remove(&tip) else { return };
        if matches!(self.held(&tip), Held::Yes(_) | Held::Nothing) {
            return self.done_with(&waiting);
        }
        let mut resolved = Vec::new();
        for needed in &waiting.segment.head.dependencies {
            match self.held(needed) {
                Held::Yes(branch) => resolved.push((*needed, branch)),
                Held::Nothing => {}
                _ => return self.consider(waiting),
            }
        }
        let entries = Self::entries_of(&waiting.segment);
        let slot = Slot::Forks { beside: on, standing, seen };
        let paid = self.paid_for(&waiting);
        self.stage(waiting.segment, &entries, slot, &resolved, Vec::new(), paid);
        for waiting in self.released_by(&tip) {
            self.consider(waiting);
        }
    }
}
