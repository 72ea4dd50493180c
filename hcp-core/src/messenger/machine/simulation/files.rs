//! Files in the simulation: their users, and those who fetch and serve them, whose place the simulation takes.

use std::path::PathBuf;

use rand::RngExt;

use super::{Fate, Sim};
use crate::messenger::content::Outcome;
use crate::messenger::machine::Offer;
use crate::messenger::machine::transfers::is_open;
use crate::messenger::message::Direction;
use crate::messenger::store::TransferRow;
use crate::messenger::text::FileName;
use crate::messenger::transfer::{TransferFailure, TransferId, TransferState};

impl Sim {
    pub(super) fn offer(&mut self, node: usize) {
        let to = self.nodes[1 - node].address;
        if self.machine(node).may_offer(to).is_err() {
            return;
        }
        let offer = Offer {
            name: FileName::new("file").unwrap(),
            size: self.rng.random_range(1..10),
            root: self.rng.random(),
            pieces: Vec::new(),
            path: PathBuf::from("source"),
        };
        let fate = self.fate();
        if let Some(id) = self.step(node, fate, |machine, now| machine.offer_file(to, &offer, now).unwrap()) {
            self.counts.offers += 1;
            if self.rng.random_bool(0.15) {
                self.changed.insert(id);
            }
        }
    }

    /// The user says yes or no to an offer.
    pub(super) fn answer(&mut self, node: usize) {
        let asked = |row: &TransferRow| row.direction == Direction::Incoming && row.state == TransferState::Offered;
        let Some(id) = self.one_open(node, asked) else { return };
        let fate = self.fate();
        if self.rng.random_bool(0.8) {
            let path = PathBuf::from(format!("saved {}", self.counts.accepted));
            self.counts.accepted += 1;
            self.step(node, fate, |machine, _| machine.accept_file(id, &path).unwrap());
        } else {
            self.counts.declined += 1;
            self.step(node, fate, |machine, now| machine.decline_file(id, now).unwrap());
        }
    }

    pub(super) fn cancel_file(&mut self, node: usize) {
        let Some(id) = self.one_open(node, |_| true) else { return };
        self.counts.files_cancelled += 1;
        let fate = self.fate();
        self.step(node, fate, |machine, now| machine.cancel_file(id, now).unwrap());
    }

    /// One of the files that a node fetches goes on a little.
    pub(super) fn fetch(&mut self, node: usize, fate: impl Fn(&mut Self) -> Fate) {
        let running: Vec<_> = self.nodes[node].fetches.iter().map(|(id, link)| (*id, *link)).collect();
        if running.is_empty() {
            return;
        }
        let (id, link) = running[self.rng.random_range(0..running.len())];
        let Some(TransferRow { path: Some(path), size, done, state: TransferState::Running, .. }) =
            self.store(node).transfer(id).unwrap()
        else {
            self.nodes[node].fetches.remove(&id);
            return;
        };
        let fates = [fate(self), fate(self), fate(self)];
        if self.nodes[node].disk.get(&path) == Some(&size) {
            return self.end_fetch(node, id, Some(Outcome::Done), fates[0]);
        }
        let (other, me) = (1 - node, self.nodes[node].address);
        let mut wires = self.wires.iter();
        if !wires.any(|wire| wire.ends[node] == Some(link) && wire.ends[other].is_some()) {
            return self.end_fetch(node, id, None, fates[0]);
        }
        let failed = Some(Outcome::Failed(TransferFailure::SourceChanged));
        let answer = self.step(other, fates[0], |machine, now| machine.serve(me, id, now).unwrap());
        match answer.filter(|_| fates[0] != Fate::CrashAfterCommit) {
            None => {}
            Some(None) => self.end_fetch(node, id, failed, fates[1]),
            Some(Some(_)) if self.changed.contains(&id) => {
                self.counts.files_changed += 1;
                self.step(other, fates[1], |machine, now| machine.source_changed(id, now).unwrap());
                self.end_fetch(node, id, failed, fates[2]);
            }
            Some(Some(_)) => {
                // What its disk lacks of what it had noted comes again, and what was not noted, too.
                let held = self.nodes[node].disk.get(&path).filter(|held| **held >= done).map_or(0, |_| done);
                let held = (held + size.div_ceil(3)).min(size);
                self.nodes[node].disk.insert(path, held);
                let noted =
                    self.step(node, fates[1], |machine, _| machine.transfer_progress(id, held).unwrap()).is_some();
                if held == size {
                    self.complete.insert(id);
                }
                if noted && fates[1] != Fate::CrashAfterCommit {
                    self.step(other, fates[2], |machine, _| machine.transfer_progress(id, held).unwrap());
                }
            }
        }
    }

    /// What the defect [`super::Defect::EndsUnread`] does.
    pub(super) fn reopen_transfers(&mut self, node: usize) {
        let store = self.store(node);
        for mut row in store.transfers(usize::MAX >> 1).unwrap() {
            if matches!(row.state, TransferState::Cancelled | TransferState::Declined) {
                row.state = TransferState::Offered;
                store.update_transfer(&row).unwrap();
            }
        }
    }

    fn end_fetch(&mut self, node: usize, id: TransferId, outcome: Option<Outcome>, fate: Fate) {
        self.nodes[node].fetches.remove(&id);
        let path = self.store(node).transfer(id).unwrap().and_then(|row| row.path);
        let ended = self.step(node, fate, |machine, now| machine.fetch_ended(id, outcome, now).unwrap());
        if ended.is_some() && outcome == Some(Outcome::Done) {
            self.counts.files_done += 1;
            // The user may put it elsewhere.
            if self.rng.random_bool(0.5) {
                self.nodes[node].disk.retain(|held, _| Some(held) != path.as_ref());
            }
        }
    }

    fn one_open(&mut self, node: usize, wanted: impl Fn(&TransferRow) -> bool) -> Option<TransferId> {
        let rows = self.store(node).transfers(usize::MAX >> 1).unwrap();
        let open: Vec<_> = rows.iter().filter(|row| is_open(row.state) && wanted(row)).collect();
        if open.is_empty() { None } else { Some(open[self.rng.random_range(0..open.len())].id) }
    }
}
