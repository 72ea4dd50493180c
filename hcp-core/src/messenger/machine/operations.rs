//! Operations: writing them, and what follows from each, whoever wrote it.

use std::time::{Duration, SystemTime};

use rand::RngExt;

use super::{Machine, Now, Output};
use crate::identity::OnionAddress;
use crate::messenger::contact::ContactState;
use crate::messenger::content::{self, Content, What};
use crate::messenger::fault;
use crate::messenger::message::{Direction, MAX_QUEUED, Message, MessageError, MessageId, MessageState};
use crate::messenger::store::{ContactId, ContactRow, Epoch, OperationRow, RowKind, Written, message_number, subject};
use crate::messenger::text::Text;
use crate::store::StoreError;

/// Why nothing can be written to a contact.
#[derive(Debug)]
pub(in crate::messenger) enum Refused {
    UnknownContact,
    State(ContactState),
    QueueFull,
    Store(StoreError),
}

impl From<StoreError> for Refused {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl Machine {
    pub(in crate::messenger) fn send_text(
        &mut self,
        contact: OnionAddress,
        text: &Text,
        now: Now,
    ) -> Result<MessageId, MessageError> {
        let row = self.writable(contact)?;
        let (id, position) = self.write(&row, What::Text(text.clone()), now.millis)?;
        self.store.insert_event(RowKind::MessageWritten, subject(position), 0)?;
        fault::point("message queued, not committed");
        self.outputs.push(Output::Passed("message queued"));
        Ok(id)
    }

    pub(in crate::messenger) fn cancel(&mut self, id: MessageId) -> Result<(), MessageError> {
        let row = self.store.text(id)?.ok_or(MessageError::Unknown)?;
        if row.direction == Direction::Incoming || row.state != MessageState::Queued {
            return Err(MessageError::TooLate(row.state));
        }
        self.set_message_state(&row, MessageState::Cancelled)?;
        fault::point("message cancelled, not committed");
        self.outputs.push(Output::Passed("message cancelled"));
        Ok(())
    }

    /// A contact to whom something can be written, now or once they have accepted.
    pub(super) fn writable(&self, contact: OnionAddress) -> Result<ContactRow, Refused> {
        let row = self.store.contact(&contact)?.ok_or(Refused::UnknownContact)?;
        if !super::wants_session(row.state) {
            return Err(Refused::State(row.state));
        }
        if self.store.count_queued(row.id)? >= MAX_QUEUED {
            return Err(Refused::QueueFull);
        }
        Ok(row)
    }

    /// Queues an operation, which says that it was written at `millis`.
    pub(super) fn write(
        &mut self,
        contact: &ContactRow,
        what: What,
        millis: u64,
    ) -> Result<(MessageId, u64), StoreError> {
        let id = MessageId(self.rng.random());
        let is_text = matches!(what, What::Text(_));
        let content = Content { millis, what }.encode();
        let mark = content::mark(self.store.marking(), &contact.address, id, &content);
        let position = self.store.insert_operation(&Written {
            contact: contact.id,
            direction: Direction::Outgoing,
            id,
            place: None,
            mark: &mark,
            content: &content,
            is_text,
            millis,
            state: MessageState::Queued,
        })?;
        self.dirty.insert(contact.id);
        Ok((id, position))
    }

    /// Stores an operation that came over the network, one of the contact's or an own one that was lost, and does what it
    /// says. One that is here already changes nothing.
    pub(super) fn receive(
        &mut self,
        contact: &ContactRow,
        direction: Direction,
        place: (Epoch, u64),
        arrived: Arrived<'_>,
        now: Now,
    ) -> Result<(), StoreError> {
        if let Some(row) = self.store.operation_with(contact.id, direction, arrived.id)? {
            // An own one that was sent in a life of this profile that was lost, whatever has become of it in this one.
            if direction == Direction::Outgoing && row.state != MessageState::Delivered {
                if row.state != MessageState::Written {
                    self.store.place_operation(row.position, place.0, place.1, row.state)?;
                }
                self.set_message_state(&row, MessageState::Delivered)?;
                // An offer that counted here as one that never went out.
                if let (
                    MessageState::Cancelled | MessageState::Failed(_),
                    Some(Content { what: What::Offer(offered), .. }),
                ) = (row.state, &arrived.read)
                {
                    self.tell_removed(contact, offered.transfer)?;
                }
            }
            return Ok(());
        }
        let millis = arrived.read.as_ref().map_or(now.millis, |content| content.millis.min(now.millis));
        let is_text = matches!(arrived.read, Some(Content { what: What::Text(_), .. }));
        let position = self.store.insert_operation(&Written {
            contact: contact.id,
            direction,
            id: arrived.id,
            place: Some(place),
            mark: arrived.mark,
            content: arrived.content,
            is_text,
            millis,
            state: MessageState::Delivered,
        })?;
        match arrived.read.map(|content| content.what) {
            None => Ok(()),
            Some(What::Text(_)) => {
                let kind = match direction {
                    Direction::Incoming => RowKind::MessageReceived,
                    Direction::Outgoing => RowKind::MessageWritten,
                };
                self.store.insert_event(kind, subject(position), message_number(MessageState::Delivered))
            }
            Some(What::Offer(offered)) => self.take_offer(contact, direction, &offered, now),
            Some(What::End { transfer, outcome }) => self.take_end(contact, direction, transfer, outcome),
        }
    }

    /// Moves an operation on, and tells of it when it is a message.
    pub(super) fn set_message_state(&mut self, row: &OperationRow, state: MessageState) -> Result<(), StoreError> {
        self.store.set_operation_state(row.position, state)?;
        self.tell_state(row, state)
    }

    pub(super) fn tell_state(&mut self, row: &OperationRow, state: MessageState) -> Result<(), StoreError> {
        if row.is_text {
            let subject = subject(row.position);
            self.store.insert_event(RowKind::MessageState, subject, message_number(state))?;
        }
        Ok(())
    }

    /// The epoch of this opening of the database with a contact; the first operation begins it.
    pub(super) fn opening(&mut self, contact: ContactId) -> Epoch {
        let rng = &mut self.rng;
        *self.openings.entry(contact).or_insert_with(|| rng.random())
    }
}

/// An operation that came over the network.
pub(super) struct Arrived<'a> {
    pub(super) id: MessageId,
    pub(super) mark: &'a [u8],
    pub(super) content: &'a [u8],
    /// The content, read; `None` for a kind that this version does not know.
    pub(super) read: Option<Content>,
}

/// What an operation says; `None` for a kind that this version does not know.
pub(super) fn what(row: &OperationRow) -> Result<Option<What>, StoreError> {
    let content = Content::decode(&row.content).map_err(|_| StoreError::Damaged("an operation cannot be read"))?;
    Ok(content.map(|content| content.what))
}

/// A text as the application sees it.
pub(super) fn message(row: &OperationRow, contact: OnionAddress) -> Result<Option<Message>, StoreError> {
    let Some(What::Text(text)) = what(row)? else { return Ok(None) };
    Ok(Some(Message {
        id: row.id,
        contact,
        direction: row.direction,
        text: text.as_str().to_owned(),
        state: row.state,
        time: SystemTime::UNIX_EPOCH + Duration::from_millis(row.millis),
        position: row.position,
    }))
}
