//! What the user does with contacts.

use std::collections::BTreeSet;

use super::{Machine, Now, Output, operations};
use crate::identity::OnionAddress;
use crate::messenger::contact::{ContactError, ContactState, MAX_CONTACTS};
use crate::messenger::content::What;
use crate::messenger::fault;
use crate::messenger::message::{FailureReason, MessageState};
use crate::messenger::store::{ContactId, ContactRow, RowKind};
use crate::messenger::text::{Name, Text};
use crate::messenger::transfer::{TransferFailure, TransferId, TransferState};
use crate::store::StoreError;

/// Operations that are ended at once.
const PAGE: usize = 64;

impl Machine {
    pub(in crate::messenger) fn draft(&mut self, address: OnionAddress, petname: &Name) -> Result<(), ContactError> {
        if let Some(row) = self.store.contact(&address)? {
            return Err(ContactError::State(row.state));
        }
        let mut row = self.new_contact(address, ContactState::Draft)?;
        petname.as_str().clone_into(&mut row.petname);
        self.write_contact(&row, None)
    }

    pub(in crate::messenger) fn request(
        &mut self,
        address: OnionAddress,
        petname: &Name,
        greeting: &Text,
    ) -> Result<(), ContactError> {
        let known = self.store.contact(&address)?;
        let before = known.as_ref().map(|row| row.state);
        let state = match before {
            None
            | Some(
                ContactState::Draft | ContactState::Rejected | ContactState::RemovedByPeer | ContactState::Archived,
            ) => ContactState::RequestQueued,
            Some(ContactState::Pending | ContactState::Declined) => ContactState::Accepted,
            Some(
                state @ (ContactState::RequestQueued
                | ContactState::RequestSent
                | ContactState::Accepted
                | ContactState::Blocked),
            ) => return Err(ContactError::State(state)),
        };
        let mut row = match known {
            Some(row) => row,
            None => self.new_contact(address, state)?,
        };
        row.state = state;
        if !petname.as_str().is_empty() {
            petname.as_str().clone_into(&mut row.petname);
        }
        self.outputs.push(Output::Passed("request queued"));
        if state == ContactState::RequestQueued {
            greeting.as_str().clone_into(&mut row.greeting);
        }
        self.write_contact(&row, before)
    }

    pub(in crate::messenger) fn accept(&mut self, address: OnionAddress) -> Result<(), ContactError> {
        self.move_contact(address, |state| match state {
            ContactState::Pending | ContactState::Declined => Some(ContactState::Accepted),
            _ => None,
        })?;
        fault::point("contact accepted, not committed");
        self.outputs.push(Output::Passed("contact accepted"));
        Ok(())
    }

    pub(in crate::messenger) fn reject(&mut self, address: OnionAddress) -> Result<(), ContactError> {
        self.move_contact(address, |state| (state == ContactState::Pending).then_some(ContactState::Declined))
    }

    pub(in crate::messenger) fn block(&mut self, address: OnionAddress) -> Result<(), ContactError> {
        let known = self.store.contact(&address)?;
        let before = known.as_ref().map(|row| row.state);
        let mut row = match known {
            Some(row) => row,
            None => self.new_contact(address, ContactState::Blocked)?,
        };
        row.state = ContactState::Blocked;
        // Who is blocked while a request of theirs waits, waits on.
        row.shadow = before == Some(ContactState::Pending);
        self.write_contact(&row, before)
    }

    pub(in crate::messenger) fn unblock(&mut self, address: OnionAddress) -> Result<(), ContactError> {
        self.move_contact(address, |state| (state == ContactState::Blocked).then_some(ContactState::Archived))
    }

    pub(in crate::messenger) fn archive(&mut self, address: OnionAddress) -> Result<(), ContactError> {
        self.move_contact(address, |state| match state {
            ContactState::Blocked | ContactState::Archived => None,
            _ => Some(ContactState::Archived),
        })
    }

    pub(in crate::messenger) fn rename(&mut self, address: OnionAddress, petname: &Name) -> Result<(), ContactError> {
        let mut row = self.store.contact(&address)?.ok_or(ContactError::Unknown)?;
        petname.as_str().clone_into(&mut row.petname);
        self.write_contact(&row, Some(row.state))
    }

    pub(in crate::messenger) fn connect_now(&mut self, address: OnionAddress, now: Now) -> Result<(), ContactError> {
        let row = self.store.contact(&address)?.ok_or(ContactError::Unknown)?;
        if !super::wants_session(row.state) {
            return Err(ContactError::State(row.state));
        }
        self.dialling.hurry(&address, now.instant);
        Ok(())
    }

    /// What follows from a contact's new state for what waits.
    pub(super) fn contact_moved(&mut self, row: &ContactRow) -> Result<(), StoreError> {
        let ended = match row.state {
            ContactState::Rejected => MessageState::Failed(FailureReason::Rejected),
            ContactState::RemovedByPeer => MessageState::Failed(FailureReason::Removed),
            ContactState::Blocked | ContactState::Archived | ContactState::Declined => MessageState::Cancelled,
            _ => return Ok(()),
        };
        let unsent = self.end_queued(row.id, ended)?;
        for transfer in self.store.open_transfers(row.id)? {
            if !unsent.contains(&transfer.id) {
                self.tell_removed(row, transfer.id)?;
            }
            self.end_transfer(transfer, TransferState::Failed(TransferFailure::Removed))?;
        }
        Ok(())
    }

    /// Ends what waits for a contact, but for the ends of transfers: those wait on, as the two may become contacts anew
    /// before the other has heard of the change, and its side of the transfer would stay open. Returns the transfers whose
    /// offers never went out, of which the other need not hear.
    fn end_queued(&mut self, contact: ContactId, state: MessageState) -> Result<BTreeSet<TransferId>, StoreError> {
        let mut unsent = BTreeSet::new();
        let mut above = 0;
        loop {
            let page = self.store.queued(contact, above, PAGE)?;
            for operation in &page {
                above = operation.position;
                match operations::what(operation)? {
                    Some(What::End { transfer, .. }) if !unsent.contains(&transfer) => continue,
                    Some(What::Offer(offered)) => drop(unsent.insert(offered.transfer)),
                    _ => {}
                }
                self.set_message_state(operation, state)?;
            }
            if page.len() < PAGE {
                return Ok(unsent);
            }
        }
    }

    fn move_contact(
        &mut self,
        address: OnionAddress,
        next: impl FnOnce(ContactState) -> Option<ContactState>,
    ) -> Result<(), ContactError> {
        let mut row = self.store.contact(&address)?.ok_or(ContactError::Unknown)?;
        let before = row.state;
        row.state = next(before).ok_or(ContactError::State(before))?;
        self.write_contact(&row, Some(before))
    }

    fn new_contact(&mut self, address: OnionAddress, state: ContactState) -> Result<ContactRow, ContactError> {
        if address == self.me {
            return Err(ContactError::Own);
        }
        if self.store.count_contacts(None)? >= MAX_CONTACTS && !self.store.forget_contact()? {
            return Err(ContactError::Full);
        }
        Ok(self.store.insert_contact(&address, state)?)
    }

    fn write_contact(&mut self, row: &ContactRow, before: Option<ContactState>) -> Result<(), ContactError> {
        self.store.update_contact(row)?;
        self.store.insert_event(RowKind::Contact, row.id.number(), 0)?;
        if before != Some(row.state) {
            self.contact_moved(row)?;
        }
        if !super::wants_session(row.state) && !self.links.values().any(|link| link.peer == row.address) {
            self.outputs.push(Output::StopDial(row.address));
        }
        self.dirty.insert(row.id);
        Ok(())
    }
}
