//! What happens to a profile, in order.

use std::sync::Arc;

use hcp_core::messenger as core;
use hcp_core::messenger::{Cursor, MessageId, TransferId};
use tokio::sync::Mutex;

use super::contact::{Contact, Presence};
use super::message::{Message, MessageState};
use super::shut_down;
use super::transfer::{Transfer, TransferState};
use crate::cancellation::{Cancellation, unless_cancelled};
use crate::error::HcpError;
use crate::identity::OnionAddress;
use crate::running::Running;

// A place in the stream of events: a number, to be kept by whoever wants to read on there.
uniffi::custom_type!(Cursor, u64, {
    remote,
    try_lift: |number| Ok(Cursor(number)),
    lower: |cursor| cursor.0,
});

/// Something that happened.
#[derive(Clone, Debug, uniffi::Record)]
pub struct Event {
    /// Hand it to `Messenger.events` to read on behind this event.
    pub cursor: Cursor,
    /// What happened.
    pub kind: EventKind,
}

/// What happened.
#[derive(Clone, Debug, uniffi::Enum)]
#[non_exhaustive]
pub enum EventKind {
    /// A contact is new or has changed; as it is now, which later events may repeat.
    Contact {
        /// The contact.
        contact: Contact,
    },
    /// A message came; told once for each message.
    MessageReceived {
        /// The message.
        message: Message,
    },
    /// A message was written here, or recovered from what the contact still had of it.
    MessageWritten {
        /// The message.
        message: Message,
    },
    /// A message has moved on.
    MessageState {
        /// Which.
        id: MessageId,
        /// With whom.
        contact: Arc<OnionAddress>,
        /// What became of it.
        state: MessageState,
    },
    /// A file was offered, by the contact or here; told once for each transfer.
    TransferOffered {
        /// The transfer.
        transfer: Transfer,
    },
    /// A transfer has moved on.
    TransferState {
        /// Which.
        id: TransferId,
        /// With whom.
        contact: Arc<OnionAddress>,
        /// Where it stands.
        state: TransferState,
    },
    /// A contact came, went or changed its status. Not kept.
    Presence {
        /// Who.
        contact: Arc<OnionAddress>,
        /// How they are now.
        presence: Presence,
    },
    /// Bytes of a transfer have arrived and are verified. Not kept.
    Progress {
        /// Which.
        id: TransferId,
        /// With whom.
        contact: Arc<OnionAddress>,
        /// Bytes on the receiver's disk, verified.
        done: u64,
        /// Bytes in all.
        size: u64,
    },
}

impl EventKind {
    /// None for a kind that this does not know.
    fn from_core(kind: core::EventKind) -> Option<Self> {
        let address = OnionAddress::shared;
        Some(match kind {
            core::EventKind::Contact(contact) => Self::Contact { contact: contact.into() },
            core::EventKind::MessageReceived(message) => Self::MessageReceived { message: message.into() },
            core::EventKind::MessageWritten(message) => Self::MessageWritten { message: message.into() },
            core::EventKind::MessageState { id, contact, state } => {
                Self::MessageState { id, contact: address(contact), state: state.into() }
            }
            core::EventKind::TransferOffered(transfer) => Self::TransferOffered { transfer: transfer.into() },
            core::EventKind::TransferState { id, contact, state } => {
                Self::TransferState { id, contact: address(contact), state: state.into() }
            }
            core::EventKind::Presence { contact, presence } => {
                Self::Presence { contact: address(contact), presence: presence.into() }
            }
            core::EventKind::Progress { id, contact, done, size } => {
                Self::Progress { id, contact: address(contact), done, size }
            }
            _ => return None,
        })
    }
}

/// Reads events in order.
#[derive(Debug, uniffi::Object)]
pub struct Events {
    messenger: Arc<Running<core::Messenger>>,
    inner: Mutex<core::Events>,
}

#[uniffi::export(async_runtime = "tokio")]
impl Events {
    /// Waits for the next event.
    ///
    /// # Errors
    /// `Closed` when the messenger was shut down, and then nothing more comes; `InvalidInput` when what followed the
    /// cursor is forgotten: read the state instead; `Storage`; `Cancelled`, and then no event is lost.
    #[uniffi::method(default(cancellation = None))]
    pub async fn next(&self, cancellation: Option<Arc<Cancellation>>) -> Result<Event, HcpError> {
        let next = async {
            let mut events = self.inner.lock().await;
            loop {
                let event = events.next().await?;
                if let Some(kind) = EventKind::from_core(event.kind) {
                    return Ok(Event { cursor: event.cursor, kind });
                }
            }
        };
        unless_cancelled(cancellation, self.messenger.unless_ended(next)).await?.ok_or_else(shut_down)?
    }
}

impl Events {
    pub(super) fn shared(messenger: Arc<Running<core::Messenger>>, inner: core::Events) -> Arc<Self> {
        Arc::new(Self { messenger, inner: Mutex::new(inner) })
    }
}
