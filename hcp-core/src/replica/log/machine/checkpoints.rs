//! Making checkpoints: a member asks by an entry, everybody folds what its author had seen into a state of its own, and signs.
//!
//! The fold runs beside everything else, page by page, over a ledger of its own. When more than half of the members have
//! signed what this node made itself, what the checkpoint covers is pruned.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;

#[cfg(test)]
use super::planted::{Defect, planted};
use super::replay::{Branches, Replay, Replayed};
use super::{Machine, Output, Reading, Unfold};
use crate::replica::log::checkpoint::{
    Certificate, MAX_PIECES, MAX_SUMMARY, Statement, is_majority, signed, state_root, summary_hash,
};
use crate::replica::log::entry::{Entry, Vote};
use crate::replica::log::keys::Keys;
use crate::replica::log::ledger::{Ledger, is_member};
use crate::replica::log::limits::{MAX_ASKED, PAGE};
use crate::replica::log::storage::{Branch, Checkpoint, Found, Hash, Payloads, Range, Read, UpTo};
use crate::replica::log::summary;
use crate::replica::log::vector::Vector;
use crate::replica::log::wire::{SIGNATURE, Tip};
use crate::replica::place::{LogId, NodeId};

/// What this node knows of checkpoints.
#[derive(Debug, Default)]
pub(super) struct Checkpoints {
    /// Where the next fold begins.
    base: Ledger,
    fold: Option<Fold>,
    /// The newest that asked and was not begun yet.
    next: Option<Tip>,
    /// Who asked last, with what its author had seen.
    asked: VecDeque<(Tip, Vector)>,
    votes: BTreeMap<(Tip, Hash), BTreeMap<NodeId, [u8; SIGNATURE]>>,
    /// For what this node signed last, in this run or an earlier one: what it signs next has that in its past, so that of
    /// two checkpoints one contains the other unless somebody lies.
    voted: Option<Tip>,
    built: Option<Built>,
    pub(super) stable: Option<Stable>,
    /// The application asks for one, once it was handed everything.
    retain: bool,
}

#[derive(Debug)]
struct Fold {
    asked: Tip,
    ranges: Vec<Range>,
    replay: Replay,
    /// The application is asked for its state.
    sealing: bool,
    /// It contains what this node signed before.
    signs: bool,
}

/// What this node made and signed.
#[derive(Debug)]
struct Built {
    statement: Statement,
    summary: Bytes,
    pieces: Bytes,
    covered: Ledger,
}

/// The checkpoint that stands for what was pruned.
#[derive(Debug)]
pub(super) struct Stable {
    pub(super) checkpoint: Checkpoint,
    pub(super) covered: Ledger,
}

impl Stable {
    pub(super) fn of(keys: &Keys, checkpoint: Checkpoint) -> Option<Self> {
        let covered = summary::decode(&checkpoint.summary, keys)?;
        Some(Self { checkpoint, covered })
    }
}

impl Machine {
    /// The application wants what it has seen to be replaced by a state, some time soon.
    pub(super) fn retain(&mut self) {
        self.checkpoints.retain = true;
    }

    /// Asks for a checkpoint once the application was handed everything, so that what the asking segment had seen is whole.
    pub(super) fn retain_if_due(&mut self) {
        if self.checkpoints.retain && self.has_handed_everything() && self.stopped.is_none() {
            self.checkpoints.retain = false;
            self.cut_pending();
            self.add_system(Entry::Retain);
            self.cut();
        }
    }

    /// A segment with entries of the log's own kinds was taken in.
    pub(super) fn note_system(&mut self, tip: Tip, past: &Vector, entries: &[Entry]) {
        for entry in entries {
            match entry {
                Entry::Retain => self.note_asked(tip, past.clone()),
                Entry::Vote(vote) => self.note_vote(tip.log.node, vote),
                _ => {}
            }
        }
    }

    fn note_asked(&mut self, tip: Tip, past: Vector) {
        if let Some(log) = self.ledger.logs.get(&tip.log)
            && let Some(branch) = log.ends_in(tip.seq, &tip.hash)
        {
            let mut past = past;
            log.raise(&mut past, tip.log, branch, tip.seq);
            self.checkpoints.asked.push_back((tip, past));
            self.checkpoints.next = Some(tip);
        }
        if self.checkpoints.asked.len() > MAX_ASKED
            && let Some((old, _)) = self.checkpoints.asked.pop_front()
        {
            self.checkpoints.votes.retain(|(asked, _), _| *asked != old);
        }
    }

    fn note_vote(&mut self, from: NodeId, vote: &Vote) {
        let message = signed(self.keys.service_key(), &vote.statement);
        let known = self.checkpoints.asked.iter().any(|(asked, _)| *asked == vote.asked);
        if from == self.own.node {
            self.checkpoints.voted = Some(vote.asked);
        }
        if !known || !(self.keys.verify)(&from, &message, &vote.signature) {
            return;
        }
        // One for each member and place, so that what is kept is bounded: the first counts.
        let voted =
            self.checkpoints.votes.iter().any(|((asked, _), votes)| *asked == vote.asked && votes.contains_key(&from));
        if !voted {
            self.checkpoints.votes.entry((vote.asked, vote.statement)).or_default().insert(from, vote.signature);
        }
    }

    /// Begins a fold, goes on with it, and sees whether what was made is signed by enough.
    pub(super) fn tend_checkpoints(&mut self) {
        self.retain_if_due();
        if self.checkpoints.fold.is_none()
            && let Some(asked) = self.wanted_by_most().or(self.checkpoints.next)
            && self.is_durable(&asked)
        {
            let most = self.checkpoints.next != Some(asked);
            if !most {
                self.checkpoints.next = None;
            }
            let past = self.checkpoints.asked.iter().find(|(tip, _)| *tip == asked).map(|(_, past)| past.clone());
            if let Some(past) = past
                && !self.begin_fold(asked, &past)
                && self.is_signed_by_most(&asked)
            {
                // This node has made another one since, which nobody needs: back to where everybody was.
                let stable = self.checkpoints.stable.as_ref().map(|stable| stable.covered.clone());
                self.checkpoints.base = stable.unwrap_or_default();
                self.checkpoints.built = None;
                self.outputs.push_back(Output::Unfold(Unfold::Checkpoint));
                if !self.begin_fold(asked, &past) {
                    self.checkpoints.asked.retain(|(tip, _)| *tip != asked);
                }
            }
        }
        self.see_whether_stable();
    }

    /// Only what is durable can be read.
    fn is_durable(&self, tip: &Tip) -> bool {
        let ends = self.durable.range((tip.log, Branch(0))..=(tip.log, Branch(u32::MAX)));
        ends.map(|(_, (seq, _))| *seq).max().is_some_and(|seq| seq >= tip.seq)
    }

    fn is_signed_by_most(&self, tip: &Tip) -> bool {
        self.checkpoints.votes.iter().any(|((asked, _), votes)| {
            asked == tip
                && is_majority(votes.keys().filter(|node| is_member(&self.manifest, node)).count(), &self.manifest)
        })
    }

    /// A checkpoint that more than half have signed and this node has not made.
    fn wanted_by_most(&self) -> Option<Tip> {
        let built = self.checkpoints.built.as_ref().map(|built| built.statement.asked);
        let stable = self.checkpoints.stable.as_ref().map(|stable| &stable.covered);
        let covers = |tip: &Tip| {
            stable.is_some_and(|ledger| {
                ledger.is_forgotten(&tip.log) || ledger.logs.get(&tip.log).is_some_and(|log| log.reaches(tip.seq))
            })
        };
        let asked = self.checkpoints.asked.iter().rev().map(|(tip, _)| *tip);
        asked.into_iter().find(|tip| Some(*tip) != built && self.is_signed_by_most(tip) && !covers(tip))
    }

    /// `false` when it does not have everything that the last one has.
    fn begin_fold(&mut self, asked: Tip, past: &Vector) -> bool {
        let base = &self.checkpoints.base;
        for (id, log) in &base.logs {
            let behind = |(tip, branch): (Tip, _)| !past.reaches(&log.writer_of(*id, branch, tip.seq), tip.seq);
            if !self.ledger.is_forgotten(id) && log.tips(*id).any(behind) {
                return false;
            }
        }
        let (mut ranges, mut several) = (Vec::new(), BTreeSet::new());
        for (id, log) in self.ledger.logs.iter().filter(|(id, _)| !base.is_forgotten(id)) {
            let settled = base.logs.get(id).map_or(0, |log| log.settled);
            if log.chains().count() > 1 {
                several.insert(*id);
            }
            for (branch, chain) in log.branches() {
                let reached = chain.parts(*id).into_iter().filter(|(writer, from, _)| past.reaches(writer, *from));
                let to = reached.map(|(writer, _, to)| past.0.get(&writer).map_or(0, |seq| to.min(*seq))).max();
                let from = chain.from.max(settled.saturating_add(1));
                if let Some(to) = to.filter(|to| *to >= from) {
                    ranges.push(Range { log: *id, branch, from, to });
                }
            }
        }
        let replay = Replay::new(base.clone(), Some(several));
        let signs = self.checkpoints.voted.is_none_or(|voted| {
            self.ledger.logs.get(&voted.log).is_none_or(|log| {
                let tips = log.branches().filter(|(_, chain)| chain.seq >= voted.seq && chain.from <= voted.seq);
                tips.into_iter().any(|(on, _)| past.reaches(&log.writer_of(voted.log, on, voted.seq), voted.seq))
            })
        });
        if !signs && !self.is_signed_by_most(&asked) {
            return true;
        }
        self.checkpoints.fold = Some(Fold { asked, ranges, replay, sealing: false, signs });
        self.read_fold();
        true
    }

    fn read_fold(&mut self) {
        let Some(fold) = &mut self.checkpoints.fold else { return };
        fold.ranges.retain(|range| range.from <= range.to);
        if fold.ranges.is_empty() {
            fold.sealing = true;
            fold.replay.ledger.settle();
            self.outputs.push_back(Output::Seal(fold.asked));
            return;
        }
        let what = Read::Rows { ranges: fold.ranges.clone(), bytes: PAGE, payloads: Payloads::Wanted };
        self.read(what, Reading::Fold);
    }

    pub(super) fn found_fold(&mut self, found: Found) {
        let Some(fold) = &mut self.checkpoints.fold else { return };
        let Found::Rows(rows) = found else { return self.give_up_fold() };
        if rows.is_empty() {
            return self.give_up_fold();
        }
        let mut outputs = Vec::new();
        for row in rows {
            for range in &mut fold.ranges {
                if range.log == row.log && range.branch == row.branch {
                    range.from = row.seq + 1;
                }
            }
            match fold.replay.row(&self.keys, &row, Branches::Anew) {
                Ok(Replayed::Applied(taken)) => outputs.push((Box::new(taken.delivery), taken.splits)),
                // What its author says that it had seen is not whole: everybody sees that.
                _ => return self.give_up_fold(),
            }
        }
        for (delivery, splits) in outputs {
            self.outputs.push_back(Output::Fold(delivery, splits));
        }
        self.read_fold();
    }

    /// The application's copy for folding is to go back to the last state that it made.
    fn give_up_fold(&mut self) {
        if let Some(fold) = self.checkpoints.fold.take() {
            self.checkpoints.asked.retain(|(tip, _)| *tip != fold.asked);
        }
        self.outputs.push_back(Output::Unfold(Unfold::Sealed));
    }

    /// The application has made and stored its state.
    pub(super) fn sealed(&mut self, asked: Tip, length: u64, pieces: &[Hash]) {
        let Some(fold) = self.checkpoints.fold.take_if(|fold| fold.asked == asked && fold.sealing) else { return };
        let (covered, signs) = (fold.replay.ledger, fold.signs);
        let summary = summary::encode(&covered);
        if summary.len() > MAX_SUMMARY || pieces.len() > MAX_PIECES || self.stopped.is_some() {
            return;
        }
        let manifest = covered.manifest().map_or(0, |manifest| manifest.contents().version());
        let root = state_root(pieces);
        let statement = Statement { asked, manifest, summary: summary_hash(&summary), root, length };
        let hash = statement.hash();
        let signature = (self.keys.sign)(&signed(self.keys.service_key(), &hash));
        self.checkpoints.base = covered.clone();
        let pieces = Bytes::copy_from_slice(pieces.as_flattened());
        let before = self.checkpoints.built.take().map(|built| built.statement.root);
        let stable = self.checkpoints.stable.as_ref().map(|stable| stable.checkpoint.root);
        self.chores.forget_states.extend(before.filter(|before| *before != root && Some(*before) != stable));
        self.checkpoints.built = Some(Built { statement, summary, pieces, covered });
        // Not one that would stand for one branch of a log that this node knows to have another.
        let parted = self.ledger.logs.iter().any(|(id, log)| {
            log.forked && covered_open(&self.checkpoints.base, id).is_some_and(|seq| log.parts_by(seq))
        });
        if signs && !parted {
            self.add_system(Entry::Vote(Vote { asked, statement: hash, signature }));
            self.cut();
        }
    }

    fn see_whether_stable(&mut self) {
        let Some(built) = &self.checkpoints.built else { return };
        let key = (built.statement.asked, built.statement.hash());
        let Some(votes) = self.checkpoints.votes.get(&key) else { return };
        let manifest = &self.manifest;
        let signatures: BTreeMap<_, _> =
            votes.iter().filter(|(node, _)| is_member(manifest, node)).map(|(node, vote)| (*node, *vote)).collect();
        if !is_majority(signatures.len(), manifest) {
            return;
        }
        let certificate = Certificate { statement: built.statement, signatures };
        if let Some(built) = self.checkpoints.built.take() {
            let checkpoint = Checkpoint {
                root: built.statement.root,
                length: built.statement.length,
                summary: built.summary,
                pieces: built.pieces,
                certificate: certificate.to_bytes(),
            };
            self.outputs.push_back(Output::Stable(built.statement.asked));
            self.install(Stable { checkpoint, covered: built.covered });
        }
    }

    /// A checkpoint stands for what it covers: that goes, or the store is opened again where this node holds what it does
    /// not have and nothing else.
    pub(super) fn install(&mut self, stable: Stable) {
        let conflicts = self.conflicts(&stable.covered);
        let forget = self.to_forget(&stable.covered);
        if let Some(before) = &self.checkpoints.stable {
            self.chores.forget_states.push(before.checkpoint.root);
        }
        self.chores.forget_states.retain(|root| *root != stable.checkpoint.root);
        self.chores.checkpoint = Some(stable.checkpoint.clone());
        #[cfg(test)]
        let forget = if planted(Defect::PrunedAgain) { Vec::new() } else { forget };
        self.chores.forget_rows.extend(forget);
        if conflicts.is_empty() && self.lacks(&stable.covered).next().is_none() {
            self.ledger.adopt(&stable.covered);
            self.durable.retain(|(log, _), _| self.ledger.logs.contains_key(log));
            self.checkpoints.stable = Some(stable);
        } else {
            self.reloading = true;
        }
    }

    /// Logs of which this node holds what counts no more.
    fn conflicts(&self, covered: &Ledger) -> BTreeSet<LogId> {
        let mut conflicts = BTreeSet::new();
        for (id, log) in &self.ledger.logs {
            let conflicting = if let Some(last) = covered.forgotten.get(id) {
                log.reaches(last + 1)
            } else if let Some(settled) = covered.logs.get(id) {
                let beyond = |(writer, _, to): (_, _, u64)| {
                    !settled
                        .chains()
                        .flat_map(|chain| chain.parts(*id))
                        .any(|(other, _, end)| other == writer && end >= to)
                };
                let parted =
                    |chain: &crate::replica::log::ledger::Chain| chain.cuts().any(|(cut, _)| cut <= settled.settled);
                if settled.is_final() {
                    log.chains().flat_map(|chain| chain.parts(*id)).any(beyond)
                } else {
                    let wrong_end = log
                        .chains()
                        .any(|chain| chain.seq == settled.settled && settled.ends_in(chain.seq, &chain.hash).is_none());
                    wrong_end || log.chains().any(parted)
                }
            } else {
                false
            };
            if conflicting {
                conflicts.insert(*id);
            }
        }
        conflicts
    }

    fn to_forget(&self, covered: &Ledger) -> Vec<UpTo> {
        let own = self.own.node;
        let all = |log: LogId| UpTo { log, seq: u64::MAX - 1 };
        // What this node wrote and nothing stands for is appended again when the store is opened.
        let over = covered
            .forgotten
            .iter()
            .map(|(log, last)| if log.node == own { UpTo { log: *log, seq: *last } } else { all(*log) });
        let settled = covered.logs.iter().map(|(id, log)| {
            let last = log.chains().map(|chain| chain.seq).max().unwrap_or_default();
            if log.is_final() && id.node != own { all(*id) } else { UpTo { log: *id, seq: last } }
        });
        over.chain(settled).collect()
    }

    /// Logs of which this node lacks what a checkpoint covers.
    pub(super) fn lacks<'a>(&'a self, covered: &'a Ledger) -> impl Iterator<Item = LogId> + 'a {
        let lacking = |(id, log): &(&LogId, &crate::replica::log::ledger::Log)| {
            let last = log.chains().map(|chain| chain.seq).max().unwrap_or_default();
            !self.ledger.is_forgotten(id) && !self.ledger.logs.get(*id).is_some_and(|log| log.reaches(last))
        };
        covered.logs.iter().filter(lacking).map(|(id, _)| *id)
    }

    /// What a log's author had seen where the checkpoint ends.
    pub(super) fn base_vector(&self, log: &LogId) -> Vector {
        let stable = self.checkpoints.stable.as_ref();
        let chain = stable.and_then(|stable| stable.covered.logs.get(log)).and_then(|log| log.chains().next());
        chain.map(|chain| (*chain.seen).clone()).unwrap_or_default()
    }

    /// Takes up what was known before the store was opened.
    pub(super) fn recover_checkpoints(&mut self, stable: Option<Stable>, system: &[(Tip, Vector, Vec<Entry>)]) {
        if let Some(stable) = &stable {
            self.checkpoints.base = stable.covered.clone();
        }
        self.checkpoints.stable = stable;
        for (tip, past, entries) in system {
            self.note_system(*tip, past, entries);
        }
    }
}

/// How far a ledger has a log that it does not know to have forked.
fn covered_open(ledger: &Ledger, log: &LogId) -> Option<u64> {
    ledger.logs.get(log).filter(|log| !log.forked).map(|log| log.settled)
}
