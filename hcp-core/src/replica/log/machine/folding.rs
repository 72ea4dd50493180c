//! Making a checkpoint: what the author of the asking segment had seen, and the one before does not cover, is folded into
//! copies of that one's ledger and state.
//!
//! A fold runs beside everything else, page by page. What it makes depends on the asking segment alone: on the checkpoint that
//! it names, and on its past. So what this node made of an earlier request that nothing came of is gone on from only where
//! the result is the same.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;

use super::checkpoints::{Asked, Built};
use super::replay::{Branches, Replay, Replayed};
use super::status::TooLarge;
use super::{Machine, Output, Reading, Unfold};
use crate::replica::log::checkpoint::{MAX_PIECES, MAX_SUMMARY, Statement, state_root, summary_hash};
use crate::replica::log::ledger::Ledger;
use crate::replica::log::limits::{FOLD_REST, MAX_FOLD_REST, MIN_FOLD_REST, PAGE};
use crate::replica::log::storage::{Branch, Found, Hash, Payloads, Range, Read};
use crate::replica::log::summary;
use crate::replica::log::vector::{Split, Vector, Writer};
use crate::replica::log::wire::Tip;
use crate::replica::place::LogId;

/// A checkpoint that is being made.
#[derive(Debug)]
pub(super) struct Fold {
    number: u64,
    began: Duration,
    asked: Asked,
    ranges: Vec<Range>,
    replay: Replay,
    /// All of it is folded; this is the log's own part.
    covered: Option<Ledger>,
    /// The application is asked for its state.
    sealing: bool,
    /// The store could not read what is next.
    failed: bool,
}

/// How far the application's copy came, and nothing settled.
#[derive(Debug)]
pub(super) struct Progress {
    replay: Replay,
}

impl Fold {
    /// What a writer wrote has another name now.
    pub(super) fn split(&mut self, split: &Split) {
        self.asked.split(split);
    }
}

impl Machine {
    /// Begins with what others have signed, or with the newest that this node could sign.
    pub(super) fn fold_next(&mut self) {
        let (holds, built) = (self.holds(), self.checkpoints.built.as_ref().map(|built| built.statement.asked));
        let fits = |asked: &Asked| asked.base == holds && Some(asked.tip) != built && self.is_durable(&asked.tip);
        let newest =
            |may: &dyn Fn(&Asked) -> bool| self.checkpoints.asked.iter().rposition(|asked| fits(asked) && may(asked));
        let signed = newest(&|asked| !asked.followed && self.is_signed(&asked.tip));
        // What this node is about to sign is not thrown away for another one.
        let waits =
            self.checkpoints.built.as_ref().is_some_and(|built| !built.signed && self.may_sign(&built.asked.past));
        let (now, rests) = (self.now, &self.checkpoints.rests);
        let rested = |asked: &Asked| rests.get(&asked.tip.log.node).is_none_or(|until| *until <= now);
        let own = || newest(&|asked| !waits && !asked.tried && rested(asked) && self.may_sign(&asked.past));
        let Some(at) = signed.or_else(own) else { return };
        let asked = &mut self.checkpoints.asked[at];
        (asked.tried, asked.followed) = (true, signed.is_some());
        let asked = asked.clone();
        self.begin_fold(asked);
    }

    fn is_durable(&self, tip: &Tip) -> bool {
        let ends = self.durable.range((tip.log, Branch(0))..=(tip.log, Branch(u32::MAX)));
        ends.map(|(_, (seq, _))| *seq).max().is_some_and(|seq| seq >= tip.seq)
    }

    fn begin_fold(&mut self, asked: Asked) {
        let several: BTreeSet<LogId> =
            self.ledger.logs.iter().filter(|(_, log)| log.chains().count() > 1).map(|(id, _)| *id).collect();
        let progress = self.checkpoints.progress.as_ref().map(|progress| &progress.replay);
        let mut replay = match progress
            .filter(|replay| replay.remembers_all(&several) && self.contains(&asked.past, &replay.ledger))
        {
            Some(replay) => replay.clone(),
            None => {
                let stable = self.checkpoints.stable.as_ref();
                let covered = stable.map(|stable| stable.covered.clone()).unwrap_or_default();
                // What its author says that it had seen is not whole: everybody sees that.
                if !self.contains(&asked.past, &covered) {
                    return;
                }
                let copy = stable.map(|stable| stable.statement.asked);
                if self.checkpoints.copy != copy {
                    self.checkpoints.copy = copy;
                    self.outputs.push_back(Output::Unfold(Unfold::Checkpoint));
                }
                self.checkpoints.progress = None;
                Replay::new(covered, Some(several))
            }
        };
        replay.beside = self.beside.all();
        let ranges = self.beyond(&replay.ledger, &asked.past);
        self.checkpoints.folds += 1;
        let number = self.checkpoints.folds;
        self.checkpoints.fold =
            Some(Fold { number, began: self.now, asked, ranges, replay, covered: None, sealing: false, failed: false });
        self.read_fold();
    }

    /// Whether somebody who had seen this had seen all of a ledger.
    fn contains(&self, past: &Vector, ledger: &Ledger) -> bool {
        ledger.logs.iter().all(|(id, log)| {
            let mut tips = log.tips(*id);
            self.ledger.is_forgotten(id)
                || tips.all(|(tip, branch)| past.reaches(&log.writer_of(*id, branch, tip.seq), tip.seq))
        })
    }

    /// What is in a past and not in a ledger.
    fn beyond(&self, ledger: &Ledger, past: &Vector) -> Vec<Range> {
        let ends = ledger.logs.iter().flat_map(|(id, log)| log.chains().flat_map(|chain| chain.parts(*id)));
        let done: BTreeMap<Writer, u64> = ends.map(|(writer, _, to)| (writer, to)).collect();
        let mut ranges = Vec::new();
        for (id, log) in self.ledger.logs.iter().filter(|(id, _)| !ledger.is_forgotten(id)) {
            for (branch, chain) in log.branches() {
                let parts = chain.parts(*id).into_iter();
                let parts = parts.filter_map(|(writer, first, last)| {
                    let from = done.get(&writer).map_or(first, |done| first.max(done + 1));
                    let to = past.0.get(&writer).map_or(0, |seq| last.min(*seq));
                    (from <= to).then_some((from, to))
                });
                let range = parts.reduce(|one, next| (one.0, next.1));
                ranges.extend(range.map(|(from, to)| Range { log: *id, branch, from, to }));
            }
        }
        ranges
    }

    fn read_fold(&mut self) {
        let Some(fold) = &mut self.checkpoints.fold else { return };
        fold.ranges.retain(|range| range.from <= range.to);
        if fold.ranges.is_empty() {
            let mut covered = fold.replay.ledger.clone();
            covered.settle(self.checkpoints.stable.as_ref().map(|stable| &stable.covered));
            fold.covered = Some(covered);
            return self.seal();
        }
        let number = fold.number;
        let what = Read::Rows { ranges: fold.ranges.clone(), bytes: PAGE, payloads: Payloads::Wanted };
        self.read(what, Reading::Fold(number));
    }

    /// Reads what the store could not, from time to time.
    pub(super) fn read_fold_again(&mut self) {
        if self.checkpoints.fold.as_mut().is_some_and(|fold| std::mem::take(&mut fold.failed)) {
            self.read_fold();
        }
    }

    /// Asks for the state, unless one that may be the same is just being forgotten.
    pub(super) fn seal(&mut self) {
        let forgetting = self.is_forgetting_states();
        if let Some(fold) = self.checkpoints.fold.as_mut().filter(|fold| fold.covered.is_some())
            && !forgetting
            && !std::mem::replace(&mut fold.sealing, true)
        {
            self.outputs.push_back(Output::Seal(fold.asked.tip));
        }
    }

    pub(super) fn is_sealing(&self) -> bool {
        self.checkpoints.fold.as_ref().is_some_and(|fold| fold.sealing)
    }

    pub(super) fn found_fold(&mut self, number: u64, found: Found) {
        let Some(fold) = self.checkpoints.fold.as_mut().filter(|fold| fold.number == number) else { return };
        let rows = match found {
            Found::Rows(rows) if !rows.is_empty() => rows,
            Found::Failed => {
                fold.failed = true;
                return;
            }
            _ => return self.give_up_fold(),
        };
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
                _ => {
                    return self.give_up_fold();
                }
            }
        }
        for (delivery, splits) in outputs {
            self.outputs.push_back(Output::Fold(delivery, splits));
        }
        self.read_fold();
    }

    /// Of who asked for this no more is made for a while.
    fn rest(&mut self, fold: &Fold) {
        let took = self.now.saturating_sub(fold.began);
        let members = self.manifest.contents().members().len() as u32;
        let rest = took.saturating_mul(FOLD_REST * members).clamp(MIN_FOLD_REST, MAX_FOLD_REST);
        let until = self.now + rest;
        self.checkpoints.rests.insert(fold.asked.tip.log.node, until);
    }

    /// The application's copy is to go back to the last state that it made.
    fn give_up_fold(&mut self) {
        if let Some(fold) = self.checkpoints.fold.take() {
            self.rest(&fold);
        }
        self.outputs.push_back(Output::Unfold(Unfold::Sealed));
    }

    /// The application has made and stored its state.
    pub(super) fn sealed(&mut self, asked: Tip, length: u64, pieces: &[Hash]) {
        let sealing = |fold: &mut Fold| fold.asked.tip == asked && fold.sealing;
        let Some(fold) = self.checkpoints.fold.take_if(sealing) else { return };
        self.rest(&fold);
        let Some(covered) = fold.covered else { return };
        self.checkpoints.copy = Some(asked);
        self.checkpoints.progress = Some(Progress { replay: fold.replay });
        let summary = summary::encode(&covered);
        let root = state_root(pieces);
        let before = self.checkpoints.built.take().map(|built| built.statement.root);
        self.chores.forget_states.extend(before);
        self.checkpoints.too_large = match (summary.len() > MAX_SUMMARY, pieces.len() > MAX_PIECES) {
            (true, _) => Some(TooLarge::Summary(summary.len())),
            (_, true) => Some(TooLarge::State(length)),
            _ => None,
        };
        if self.checkpoints.too_large.is_some() || self.stopped.is_some() {
            self.chores.forget_states.push(root);
            return;
        }
        let manifest = covered.manifest().map_or(0, |manifest| manifest.contents().version());
        let statement = Statement { asked, manifest, summary: summary_hash(&summary), root, length };
        let pieces = Bytes::copy_from_slice(pieces.as_flattened());
        self.checkpoints.built = Some(Built { asked: fold.asked, statement, summary, pieces, covered, signed: false });
    }
}
