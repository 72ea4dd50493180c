//! Transfers: offers and their ends are operations; the bytes go over streams of their own, which others look after.
//!
//! A file is fetched by its receiver while there is a link with the contact; every verified piece is noted here, so that
//! fetching goes on there after whatever happened.

use std::fmt;
use std::path::{Path, PathBuf};

use rand::RngExt;

use super::{LinkId, Machine, Now, Output};
use crate::identity::OnionAddress;
use crate::messenger::contact::ContactState;
use crate::messenger::content::{Offered, Outcome, What};
use crate::messenger::event::{EventKind, LiveKey};
use crate::messenger::fault;
use crate::messenger::message::{Direction, MAX_QUEUED};
use crate::messenger::store::{ContactId, ContactRow, NewTransfer, RowKind, TransferRow, subject, transfer_number};
use crate::messenger::text::FileName;
use crate::messenger::transfer::{Transfer, TransferError, TransferFailure, TransferId, TransferState};
use crate::store::StoreError;

/// Offers of a contact that may be open at once while something of this side's may still come back, the ends of some of
/// them perhaps; else one. A contact that claims to have more and more to give back gets no further than this, and who is
/// restored finds that many files ended as they did.
pub(super) const MAX_OFFERS: usize = 100;
/// When a change of the list ended a transfer: when somebody was blocked is nobody's business.
const NO_TIME: u64 = 0;

/// A file that was measured for an offer.
pub(in crate::messenger) struct Offer {
    pub(in crate::messenger) name: FileName,
    pub(in crate::messenger) size: u64,
    pub(in crate::messenger) root: [u8; 32],
    /// The hashes of its pieces.
    pub(in crate::messenger) pieces: Vec<u8>,
    pub(in crate::messenger) path: PathBuf,
}

/// What a contact may fetch.
pub(in crate::messenger) struct Served {
    pub(in crate::messenger) size: u64,
    pub(in crate::messenger) root: [u8; 32],
    pub(in crate::messenger) pieces: Vec<u8>,
    pub(in crate::messenger) path: PathBuf,
}

impl fmt::Debug for Offer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Offer([redacted])")
    }
}

impl fmt::Debug for Served {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Served([redacted])")
    }
}

impl Machine {
    /// Whether a file can be offered now.
    pub(in crate::messenger) fn may_offer(&self, contact: OnionAddress) -> Result<ContactRow, TransferError> {
        let row = self.writable(contact)?;
        match self.count_open(row.id, Direction::Outgoing)? {
            0 => Ok(row),
            _ => Err(TransferError::Busy),
        }
    }

    pub(in crate::messenger) fn offer_file(
        &mut self,
        contact: OnionAddress,
        offer: &Offer,
        now: Now,
    ) -> Result<TransferId, TransferError> {
        let row = self.may_offer(contact)?;
        let id = TransferId(self.rng.random());
        let Offer { name, size, root, pieces, path } = offer;
        let position = self.store.insert_transfer(&NewTransfer {
            id,
            contact: row.id,
            direction: Direction::Outgoing,
            name: name.as_str(),
            size: *size,
            root,
            pieces: Some(pieces),
            path: Some(path),
            state: TransferState::Offered,
        })?;
        self.store.insert_event(RowKind::TransferOffered, subject(position), 0)?;
        let offered = Offered { transfer: id, name: name.clone(), size: *size, root: *root };
        self.write(&row, What::Offer(offered), now.millis)?;
        fault::point("file offered, not committed");
        self.outputs.push(Output::Passed("file offered"));
        Ok(id)
    }

    /// An offered file that this side may accept now.
    pub(in crate::messenger) fn acceptable(&self, id: TransferId) -> Result<TransferRow, TransferError> {
        let row = self.incoming(id)?;
        if row.state != TransferState::Offered {
            return Err(TransferError::State(row.state));
        }
        Ok(row)
    }

    pub(in crate::messenger) fn accept_file(&mut self, id: TransferId, path: &Path) -> Result<(), TransferError> {
        let mut row = self.acceptable(id)?;
        if self.store.is_saving_to(path)? {
            return Err(TransferError::Exists);
        }
        self.store.remove_discard(path)?;
        row.path = Some(path.to_owned());
        self.dirty.insert(row.contact);
        self.move_transfer(row, TransferState::Running)?;
        fault::point("file accepted, not committed");
        self.outputs.push(Output::Passed("file accepted"));
        Ok(())
    }

    pub(in crate::messenger) fn decline_file(&mut self, id: TransferId, now: Now) -> Result<(), TransferError> {
        let row = self.acceptable(id)?;
        Ok(self.end_here(row, Outcome::Declined, now)?)
    }

    pub(in crate::messenger) fn cancel_file(&mut self, id: TransferId, now: Now) -> Result<(), TransferError> {
        let row = self.store.transfer(id)?.ok_or(TransferError::Unknown)?;
        if !is_open(row.state) {
            return Err(TransferError::State(row.state));
        }
        Ok(self.end_here(row, Outcome::Cancelled, now)?)
    }

    /// What a contact that asks for a file may have of it; from now on it counts as running.
    pub(in crate::messenger) fn serve(
        &mut self,
        peer: OnionAddress,
        id: TransferId,
        now: Now,
    ) -> Result<Option<Served>, StoreError> {
        let Some(contact) = self.store.contact(&peer)?.filter(|row| row.state == ContactState::Accepted) else {
            return Ok(None);
        };
        let own = |row: &TransferRow| row.contact == contact.id && row.direction == Direction::Outgoing;
        let Some(row) = self.store.transfer(id)?.filter(|row| own(row) && is_open(row.state)) else {
            return Ok(None);
        };
        let (Some(path), Some(pieces)) = (row.path.clone(), row.pieces.clone()) else {
            // Offered in a life of this profile that was lost; where the file is, is lost with it.
            self.end_here(row, Outcome::Failed(TransferFailure::SourceChanged), now)?;
            return Ok(None);
        };
        let (size, root) = (row.size, row.root);
        if row.state == TransferState::Offered {
            self.move_transfer(row, TransferState::Running)?;
            self.outputs.push(Output::Passed("serving committed, nothing sent"));
        }
        Ok(Some(Served { size, root, pieces, path }))
    }

    /// A file that was to be served is not the one that was offered any more.
    pub(in crate::messenger) fn source_changed(&mut self, id: TransferId, now: Now) -> Result<(), StoreError> {
        match self.store.transfer(id)? {
            Some(row) if is_open(row.state) && row.direction == Direction::Outgoing => {
                self.end_here(row, Outcome::Failed(TransferFailure::SourceChanged), now)
            }
            _ => Ok(()),
        }
    }

    /// Bytes up to here are on the receiver's disk and verified.
    pub(in crate::messenger) fn transfer_progress(&mut self, id: TransferId, done: u64) -> Result<(), StoreError> {
        let Some(mut row) = self.store.transfer(id)?.filter(|row| row.state == TransferState::Running) else {
            return Ok(());
        };
        row.done = done.min(row.size);
        if row.direction == Direction::Incoming {
            self.store.update_transfer(&row)?;
            self.outputs.push(Output::Passed("piece committed"));
        } else {
            // The contact says so, as often as it likes, and says it again after a restart.
            self.served.insert(id, row.done);
        }
        let contact = self.store.contact_by_id(row.contact)?.address;
        let progress = EventKind::Progress { id, contact, done: row.done, size: row.size };
        self.outputs.push(Output::Live(LiveKey::Progress(id), progress));
        Ok(())
    }

    /// Fetching has ended: with an outcome, or because the contact is gone, to go on with the next link.
    pub(in crate::messenger) fn fetch_ended(
        &mut self,
        id: TransferId,
        outcome: Option<Outcome>,
        now: Now,
    ) -> Result<(), StoreError> {
        self.fetching.remove(&id);
        let Some(row) = self.store.transfer(id)?.filter(|row| row.state == TransferState::Running) else {
            return Ok(());
        };
        match outcome {
            Some(outcome) => {
                self.outputs.push(Output::Passed("transfer ended"));
                self.end_here(row, outcome, now)
            }
            None => Ok(()),
        }
    }

    /// Fetches what was accepted, now that there is a link.
    pub(super) fn start_fetches(&mut self, link: LinkId, contact: ContactId) -> Result<(), StoreError> {
        // What looks accepted may have ended in a life that was lost.
        if self.is_catching_up(contact) {
            return Ok(());
        }
        for row in self.store.open_transfers(contact)? {
            let runs = row.direction == Direction::Incoming && row.state == TransferState::Running;
            if runs && !self.fetching.contains_key(&row.id) {
                self.fetching.insert(row.id, link);
                self.outputs.push(Output::Fetch(row.id, link));
            }
        }
        Ok(())
    }

    /// The contact offers a file, or this side did so in a life that was lost.
    pub(super) fn take_offer(
        &mut self,
        contact: &ContactRow,
        direction: Direction,
        offered: &Offered,
        now: Now,
    ) -> Result<(), StoreError> {
        let id = offered.transfer;
        // An id that is taken, by whomever, names another transfer already.
        if self.store.transfer(id)?.is_some() {
            return Ok(());
        }
        // One that is open here may have ended in a life that was lost; until that is known, nothing is declined for it.
        let most = if self.is_catching_up(contact.id) { MAX_OFFERS } else { 1 };
        let busy = direction == Direction::Incoming && self.count_open(contact.id, direction)? >= most;
        let position = self.store.insert_transfer(&NewTransfer {
            id,
            contact: contact.id,
            direction,
            name: offered.name.as_str(),
            size: offered.size,
            root: &offered.root,
            pieces: None,
            path: None,
            state: TransferState::Offered,
        })?;
        // Its end came before it, as it can when much is sent again.
        for (said_by, state) in self.store.ends(contact.id, id)? {
            let row = self.store.transfer_at(position)?;
            if is_open(row.state) && may_end(&row, said_by, state) {
                self.store.insert_event(RowKind::TransferOffered, subject(position), 0)?;
                return self.end_transfer(row, state);
            }
        }
        if busy {
            let row = self.store.transfer_at(position)?;
            // A contact that offers without end gets no more answers than the queue holds.
            return if self.store.count_queued(contact.id)? < MAX_QUEUED / 2 {
                self.end_here(row, Outcome::Declined, now)
            } else {
                self.end_transfer(row, TransferState::Declined)
            };
        }
        self.store.insert_event(RowKind::TransferOffered, subject(position), 0)
    }

    /// One of the two says that a transfer has ended.
    pub(super) fn take_end(
        &mut self,
        contact: &ContactRow,
        direction: Direction,
        id: TransferId,
        outcome: Outcome,
    ) -> Result<(), StoreError> {
        let Some(row) = self.store.transfer(id)? else {
            // What it ends may have been lost here, and come again behind it.
            return self.store.insert_end(contact.id, id, direction, outcome.state());
        };
        let fits = row.contact == contact.id && is_open(row.state) && may_end(&row, direction, outcome.state());
        if fits { self.end_transfer(row, outcome.state()) } else { Ok(()) }
    }

    /// Ends a transfer at this side's word, and tells the contact.
    fn end_here(&mut self, row: TransferRow, outcome: Outcome, now: Now) -> Result<(), StoreError> {
        let contact = self.store.contact_by_id(row.contact)?;
        self.write(&contact, What::End { transfer: row.id, outcome }, now.millis)?;
        self.end_transfer(row, outcome.state())
    }

    /// Tells a contact, when the two speak as contacts next, that a transfer ended because one of them left the other's list.
    pub(super) fn tell_removed(&mut self, contact: &ContactRow, transfer: TransferId) -> Result<(), StoreError> {
        let outcome = Outcome::Failed(TransferFailure::Removed);
        self.write(contact, What::End { transfer, outcome }, NO_TIME)?;
        Ok(())
    }

    /// Ends a transfer.
    pub(super) fn end_transfer(&mut self, mut row: TransferRow, state: TransferState) -> Result<(), StoreError> {
        if state == TransferState::Done {
            row.done = row.size;
        }
        // Also of a file that is complete: it may be so elsewhere, since a life that was lost.
        if let Some(path) = row.path.clone().filter(|_| row.direction == Direction::Incoming) {
            // Noted, so that it is deleted at the next start if the process is killed before. Of one that is complete nothing is
            // left here, and what has its name at the next start may be somebody else's.
            if state != TransferState::Done {
                self.store.insert_discard(&path)?;
            }
            self.outputs.push(Output::Discard(path));
        }
        self.fetching.remove(&row.id);
        self.served.remove(&row.id);
        self.outputs.push(Output::Abort(row.id));
        self.move_transfer(row, state)
    }

    fn move_transfer(&mut self, mut row: TransferRow, state: TransferState) -> Result<(), StoreError> {
        row.state = state;
        self.store.update_transfer(&row)?;
        let subject = subject(row.position);
        self.store.insert_event(RowKind::TransferState, subject, transfer_number(state))
    }

    fn incoming(&self, id: TransferId) -> Result<TransferRow, TransferError> {
        let row = self.store.transfer(id)?.ok_or(TransferError::Unknown)?;
        if row.direction == Direction::Outgoing {
            return Err(TransferError::Direction(row.direction));
        }
        Ok(row)
    }

    fn count_open(&self, contact: ContactId, direction: Direction) -> Result<usize, StoreError> {
        Ok(self.store.open_transfers(contact)?.iter().filter(|row| row.direction == direction).count())
    }
}

/// A transfer as the application sees it.
pub(super) fn view(row: TransferRow, contact: OnionAddress) -> Transfer {
    let TransferRow { id, direction, name, size, done, state, path, .. } = row;
    Transfer { id, contact, direction, name, size, done, state, path }
}

/// Whether this is an end that who wrote in this direction may put to a transfer.
fn may_end(row: &TransferRow, direction: Direction, state: TransferState) -> bool {
    let by_receiver = row.direction != direction;
    match state {
        TransferState::Offered | TransferState::Running => false,
        TransferState::Done | TransferState::Declined => by_receiver,
        // The latter is said by a receiver whom the sender refused, too: the sender may have no memory of its offer.
        TransferState::Cancelled | TransferState::Failed(TransferFailure::SourceChanged) => true,
        TransferState::Failed(_) => by_receiver,
    }
}

pub(super) fn is_open(state: TransferState) -> bool {
    matches!(state, TransferState::Offered | TransferState::Running)
}
