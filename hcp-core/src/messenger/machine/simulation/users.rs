//! What the users of the two do, but for files: they write, take back, meet, and copy their profiles away and back.

use std::collections::BTreeSet;

use rand::RngExt;

use super::{Defect, Fate, Sim};
use crate::messenger::contact::ContactState;
use crate::messenger::message::{Direction, MessageState};
use crate::messenger::store::Store;
use crate::messenger::text::{Name, Text};

impl Sim {
    pub(super) fn write(&mut self, node: usize, fate: Fate) {
        let to = self.nodes[1 - node].address;
        if self.machine(node).writable(to).is_err() {
            return;
        }
        let text = Text::new(&format!("message {}", self.counts.sent)).unwrap();
        let id = self.step(node, fate, |machine, now| machine.send_text(to, &text, now).unwrap());
        if let Some(id) = id {
            self.counts.sent += 1;
            let life = self.nodes[node].life - u64::from(fate == Fate::CrashAfterCommit);
            self.nodes[node].written.push((life, id));
        }
    }

    pub(super) fn cancel(&mut self, node: usize) {
        let Some(contact) = self.contact(node) else { return };
        let mut queued = self.store(node).queued(contact.id, 0, 10).unwrap();
        queued.retain(|row| row.is_text);
        if queued.is_empty() {
            return;
        }
        let id = queued[self.rng.random_range(0..queued.len())].id;
        let fate = self.fate();
        if self.step(node, fate, |machine, _| machine.cancel(id).unwrap()).is_some() {
            // A backup may bring it back, and then it has no place among what was written before.
            self.nodes[node].written.retain(|(_, written)| *written != id);
            self.taken_back.insert(id);
            self.counts.cancelled += 1;
        }
    }

    /// The user asks whom the profile does not know any more, and accepts who asks.
    pub(super) fn befriend(&mut self, node: usize) {
        let other = self.nodes[1 - node].address;
        match self.contact(node).map(|contact| contact.state) {
            None => {
                let (nobody, greeting) = (Name::new("").unwrap(), Text::greeting("hello").unwrap());
                self.step(node, Fate::Good, |machine, _| machine.request(other, &nobody, &greeting).unwrap());
            }
            Some(ContactState::Pending) => {
                self.step(node, Fate::Good, |machine, _| machine.accept(other).unwrap());
            }
            Some(ContactState::Blocked) => {
                self.step(node, Fate::Good, |machine, _| machine.unblock(other).unwrap());
            }
            Some(ContactState::Archived | ContactState::RemovedByPeer | ContactState::Rejected) => {
                let (nobody, greeting) = (Name::new("").unwrap(), Text::greeting("again").unwrap());
                self.step(node, Fate::Good, |machine, _| machine.request(other, &nobody, &greeting).unwrap());
            }
            Some(_) => {}
        }
    }

    /// The user takes the other off the list, or blocks it.
    pub(super) fn part(&mut self, node: usize) {
        let Some(contact) = self.contact(node).filter(|row| row.state == ContactState::Accepted) else { return };
        let queued = self.store(node).queued(contact.id, 0, usize::MAX >> 1).unwrap();
        let (fate, blocks) = (self.fate(), self.rng.random_bool(0.3));
        let parted = self.step(node, fate, |machine, _| {
            if blocks { machine.block(contact.address).unwrap() } else { machine.archive(contact.address).unwrap() }
        });
        if parted.is_none() {
            return;
        }
        self.counts.parted += 1;
        self.taken_back.extend(queued.iter().map(|row| row.id));
        if self.defect == Defect::EndsTakenBack {
            for row in self.store(node).queued(contact.id, 0, usize::MAX >> 1).unwrap() {
                self.store(node).set_operation_state(row.position, MessageState::Cancelled).unwrap();
                self.taken_back.insert(row.id);
            }
        }
    }

    pub(super) fn back_up(&mut self, node: usize) {
        self.counts.backups += 1;
        let copy = self.store(node).copy();
        self.nodes[node].backup = Some(copy);
    }

    /// A folder is copied back to where a profile was.
    pub(super) fn restore(&mut self, node: usize) {
        let Some(backup) = self.nodes[node].backup.as_ref().map(Store::copy) else { return };
        self.counts.restores += 1;
        let known: BTreeSet<_> = self.kept.union(&self.held()).copied().collect();
        // What the application shows now is what its history holds.
        let other = self.nodes[1 - node].address;
        let texts = match backup.contact(&other).unwrap() {
            Some(contact) => backup.texts(contact.id, None, usize::MAX >> 1).unwrap(),
            None => Vec::new(),
        };
        let offers = backup.transfers(usize::MAX >> 1).unwrap();
        let state = &mut self.nodes[node];
        state.restored = true;
        (_, state.cursor) = backup.cursors().unwrap();
        let incoming = texts.iter().filter(|row| row.direction == Direction::Incoming);
        state.shown = incoming.map(|row| row.id).collect();
        state.offers = offers.iter().map(|row| row.id).collect();
        self.crash(node, Some(backup));
        // What neither of the two holds now is gone for good.
        self.kept = known.intersection(&self.held()).copied().collect();
    }
}
