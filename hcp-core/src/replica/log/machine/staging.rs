//! From the ledger to the disk and from there to everybody: what is staged, what is under way, what is durable.
//!
//! One batch is under way at a time; what comes meanwhile goes with the next, so a slow disk makes larger batches.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use super::checkpoints::Noted;
use super::links::Via;
#[cfg(test)]
use super::planted::{Defect, planted};
use super::{AppendId, Delivery, Machine, Output, Stop};
use crate::replica::log::entry::{self, Entry};
use crate::replica::log::ledger::{Applied, Change, Slot};
use crate::replica::log::limits::{FULL, RECENT};
use crate::replica::log::storage::{Batch, BatchId, Branch, Outcome, Row};
use crate::replica::log::wire::{OVERHEAD, Segment, Tip};
use crate::replica::place::{LogId, Place};

/// A segment that was taken in and is not durable yet.
#[derive(Debug)]
pub(super) struct Staged {
    pub(super) row: Arc<Row>,
    segment: Arc<Segment>,
    /// What it changed; none of one that counts no more.
    applied: Option<Applied>,
    /// Of an own segment: what the application calls its entries, by index.
    pub(super) ids: Vec<(AppendId, u32)>,
    /// What a peer paid for it.
    paid: Option<Paid>,
}

/// Credit of a link that a segment takes until it is durable, wherever it waits.
#[derive(Clone, Copy, Debug)]
pub(super) struct Paid {
    pub(super) via: Via,
    pub(super) cost: u64,
}

/// The batch under way.
#[derive(Debug)]
pub(super) struct Flight {
    id: BatchId,
    batch: Batch,
    staged: Vec<Staged>,
    /// The store is to be opened again when it is done.
    reload: bool,
}

/// A segment that was written.
type Written = (Arc<Row>, Arc<Segment>);

/// The segments that were written last, by place.
#[derive(Debug, Default)]
pub(super) struct Recent {
    rows: BTreeMap<(LogId, Branch, u64), Written>,
    order: VecDeque<(LogId, Branch, u64)>,
    bytes: usize,
}

impl Recent {
    pub(super) fn get(&self, log: LogId, branch: Branch, seq: u64) -> Option<&Written> {
        self.rows.get(&(log, branch, seq))
    }

    fn insert(&mut self, row: Arc<Row>, segment: Arc<Segment>) {
        let key = (row.log, row.branch, row.seq);
        self.bytes += row_cost(&row);
        self.rows.insert(key, (row, segment));
        self.order.push_back(key);
        while self.bytes > RECENT
            && let Some(old) = self.order.pop_front()
        {
            if let Some((row, _)) = self.rows.remove(&old) {
                self.bytes -= row_cost(&row);
            }
        }
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }
}

pub(super) fn row_cost(row: &Row) -> usize {
    row.header.len() + row.payload.as_ref().map_or(0, bytes::Bytes::len) + OVERHEAD
}

impl Machine {
    /// Applies a segment that may be applied, and stages it.
    pub(super) fn stage(
        &mut self,
        segment: Arc<Segment>,
        entries: &[Entry],
        slot: Slot,
        resolved: &[(Tip, Branch)],
        ids: Vec<(AppendId, u32)>,
        paid: Option<Paid>,
    ) {
        let whole = Arc::clone(&segment);
        let head = &whole.head;
        let applied = self.ledger.apply(&self.keys, head, segment.hash, entries, slot, resolved);
        let row = self.next_row(&segment, applied.branch);
        self.hashes.insert(head.log, head.seq, segment.hash, applied.branch);
        self.note_taken(&segment.tip(), applied.branch);
        let wall = UNIX_EPOCH + Duration::from_millis(self.wall);
        #[cfg(test)]
        let wall = if planted(Defect::ClockDragged) { wall + Duration::from_secs(100_000) } else { wall };
        if head.log != self.own && !self.clock.see(head.stamp, wall) {
            self.ahead.insert(head.log.node);
        }
        for change in &applied.changes {
            match change {
                Change::Closed(log) => self.closed(*log),
                Change::Manifest(manifest) => self.manifest_applied(manifest.clone()),
                Change::Split(split) => self.split_asked(split),
            }
        }
        if head.system {
            let (past, entries) = (applied.past.vector().clone(), entries.to_vec());
            self.note_system(&Noted { tip: segment.tip(), writer: applied.writer, past, entries });
        }
        if !self.ledger.is_open(&head.log) {
            self.to_cover.insert((head.log, applied.branch));
        }
        self.stage_row(Staged { row, segment, applied: Some(applied), ids, paid });
    }

    /// Keeps a segment that stands beside what a checkpoint covers, and that something names which counts: whoever is to take
    /// that in has to be shown that it stands there, also when its author shows it to nobody.
    pub(super) fn stage_beside(&mut self, segment: Arc<Segment>, paid: Option<Paid>) {
        let tip = segment.tip();
        let before = segment.head.before();
        let goes_on = before.and_then(|before| self.beside.ended_by(&before));
        let Some(log) = self.ledger.logs.get_mut(&tip.log) else { return };
        let branch = goes_on.unwrap_or_else(|| log.next_branch());
        log.skip_numbers(Branch(branch.0.saturating_add(1)));
        // Of two at one place its author has signed both: once that is known nothing more of its log counts.
        let other = self.beside.other_at(&tip).or_else(|| self.hashes.at(&tip.log, tip.seq).first().copied());
        if let Some((_, on)) = other {
            self.prove_fork(&tip, segment.signature, on);
        }
        self.beside.insert(tip, Some(branch));
        let row = self.next_row(&segment, branch);
        self.stage_row(Staged { row, segment, applied: None, ids: Vec::new(), paid });
    }

    fn next_row(&mut self, segment: &Segment, branch: Branch) -> Arc<Row> {
        self.position.0 += 1;
        Arc::new(Row {
            position: self.position,
            log: segment.head.log,
            seq: segment.head.seq,
            branch,
            hash: segment.hash,
            header: segment.header.clone(),
            signature: bytes::Bytes::copy_from_slice(&segment.signature),
            payload: Some(segment.payload.clone()),
            system: segment.head.system,
        })
    }

    fn stage_row(&mut self, staged: Staged) {
        if let Some(paid) = &staged.paid {
            *self.unstored.entry(paid.via.node).or_default() += paid.cost;
        }
        self.staged.push(staged);
    }

    /// Has what is staged written, unless something is under way.
    pub(super) fn write(&mut self) {
        if let Some(until) = self.full_until {
            if self.now < until {
                return;
            }
            self.full_until = None;
            if let Some(flight) = &self.flight {
                self.outputs.push_back(Output::Write(flight.id, Box::new(flight.batch.clone())));
            }
        }
        let chores = &self.chores;
        let chores = chores.checkpoint.is_some() || !chores.pieces.is_empty() || !chores.forget_states.is_empty();
        let nothing = self.staged.is_empty() && !chores;
        let over = matches!(self.stopped, Some(Stop::Broken | Stop::Reload));
        if self.flight.is_some() || nothing || over {
            return;
        }
        let staged = std::mem::take(&mut self.staged);
        self.batches += 1;
        let rows = staged.iter().map(|staged| Arc::clone(&staged.row)).collect();
        let kept = self.keep_states();
        let batch = Batch { rows, ..std::mem::take(&mut self.chores) };
        self.chores.forget_states = kept;
        let reload = self.reloading && batch.checkpoint.is_some();
        let id = BatchId(self.batches);
        self.outputs.push_back(Output::Write(id, Box::new(batch.clone())));
        #[cfg(test)]
        if planted(Defect::DurableEarly) {
            staged.into_iter().for_each(|staged| self.made_durable(staged));
            self.send_receipts();
            self.flight = Some(Flight { id, batch, staged: Vec::new(), reload });
            return;
        }
        self.flight = Some(Flight { id, batch, staged, reload });
    }

    pub(super) fn stored(&mut self, id: BatchId, outcome: Outcome) {
        if self.flight.as_ref().is_none_or(|flight| flight.id != id) {
            return;
        }
        match outcome {
            Outcome::Done => {
                self.full_until = None;
                if let Some(flight) = self.flight.take() {
                    let (reload, pieces) = (flight.reload, !flight.batch.pieces.is_empty());
                    flight.staged.into_iter().for_each(|staged| self.made_durable(staged));
                    self.send_receipts();
                    if reload {
                        self.stop(Stop::Reload);
                    } else if pieces {
                        self.ask_pieces();
                    }
                }
            }
            // Nothing of the batch left this node, yet it was signed: the same goes again, and nothing else in its place.
            Outcome::Full => self.full_until = Some(self.now + FULL),
            Outcome::Broken => self.stop(Stop::Broken),
        }
    }

    fn made_durable(&mut self, staged: Staged) {
        let Staged { row, segment, applied, ids, paid } = staged;
        paid.into_iter().for_each(|paid| self.stored_of(paid));
        let Some(applied) = applied else { return };
        self.durable.insert((row.log, row.branch), (row.seq, row.hash));
        for link in self.links.values_mut() {
            link.due.insert((row.log, row.branch));
        }
        for change in applied.changes {
            #[cfg(test)]
            if planted(Defect::SplitUntold) {
                continue;
            }
            if let Change::Split(split) = change {
                self.outputs.push_back(Output::Split(split));
            }
        }
        self.note_unhanded(row.position, Tip { log: row.log, seq: row.seq, hash: row.hash }, row.branch);
        self.outputs.push_back(Output::Deliver(Box::new(Delivery {
            position: row.position,
            writer: applied.writer,
            seq: row.seq,
            stamp: segment.head.stamp,
            past: applied.past,
            items: applied.items,
        })));
        for (id, index) in ids {
            let place = Place { log: row.log, seq: row.seq, index };
            self.outputs.push_back(Output::Appended { id, place });
        }
        self.note_receipt_due(Tip { log: row.log, seq: row.seq, hash: row.hash });
        self.recent.insert(row, segment);
    }

    /// What a peer sent is durable: that takes nothing of its credit any more.
    fn stored_of(&mut self, paid: Paid) {
        let node = paid.via.node;
        if let Some(unstored) = self.unstored.get_mut(&node) {
            *unstored = unstored.saturating_sub(paid.cost);
            if *unstored == 0 {
                self.unstored.remove(&node);
            }
        }
        if self.link_of(paid.via).is_some() {
            self.give_back(node, paid.cost);
        }
    }

    /// A row that is not on disk yet.
    pub(super) fn unstored_row(&self, log: &LogId, branch: Branch, seq: u64) -> Option<Arc<Row>> {
        let under_way = self.flight.iter().flat_map(|flight| &flight.staged);
        let mut rows = self.staged.iter().chain(under_way).map(|staged| &staged.row);
        rows.find(|row| row.log == *log && (row.branch, row.seq) == (branch, seq)).cloned()
    }

    /// Pieces of a state that are not on disk yet.
    pub(super) fn unstored_pieces(&self) -> usize {
        self.chores.pieces.len() + self.flight.as_ref().map_or(0, |flight| flight.batch.pieces.len())
    }

    pub(super) fn is_forgetting_states(&self) -> bool {
        self.flight.as_ref().is_some_and(|flight| !flight.batch.forget_states.is_empty())
    }

    pub(super) fn is_checkpoint_under_way(&self) -> bool {
        self.flight.as_ref().is_some_and(|flight| flight.batch.checkpoint.is_some())
    }

    pub(super) fn is_full(&self) -> bool {
        self.full_until.is_some()
    }

    /// The entries of a segment whose form was checked.
    pub(super) fn entries_of(segment: &Segment) -> Vec<Entry> {
        entry::entries(&segment.payload).unwrap_or_default()
    }
}
