//! One ordered stream of everything that happens to a profile.
//!
//! What matters is kept in the database and has a cursor, so that an application that was not running reads on where it
//! was. Presence and progress are told as they are now, with the cursor of what was told before; only their newest state
//! waits for a slow reader, so that memory stays bounded.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Notify;

use super::Messenger;
use super::contact::{Contact, Presence};
use super::message::{Message, MessageId, MessageState};
use super::transfer::{Transfer, TransferId, TransferState};
use crate::error::ErrorKind;
use crate::identity::OnionAddress;
use crate::store::StoreError;

/// Events that are kept; older ones are forgotten, and whoever was that far behind reads the state instead.
pub const MAX_EVENTS: u64 = 100_000;
/// Events that are read from the database at once.
const PAGE: usize = 64;

/// A place in the stream of events.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cursor(pub u64);

impl Cursor {
    /// Before the first event.
    pub const START: Self = Self(0);
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for Cursor {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(Self)
    }
}

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Event {
    /// Hand it to [`Messenger::events`] to read on behind this event.
    pub cursor: Cursor,
    /// What happened.
    pub kind: EventKind,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum EventKind {
    /// A contact is new or has changed; as it is now, which later events may repeat.
    Contact(Contact),
    /// A message came; told once for each message.
    MessageReceived(Message),
    /// A message was written here, or recovered from what the contact still had of it.
    MessageWritten(Message),
    /// A message has moved on.
    MessageState {
        /// Which.
        id: MessageId,
        /// With whom.
        contact: OnionAddress,
        /// What became of it.
        state: MessageState,
    },
    /// A file was offered, by the contact or here; told once for each transfer.
    TransferOffered(Transfer),
    /// A transfer has moved on.
    TransferState {
        /// Which.
        id: TransferId,
        /// With whom.
        contact: OnionAddress,
        /// Where it stands.
        state: TransferState,
    },
    /// A contact came, went or changed its status. Not kept.
    Presence {
        /// Who.
        contact: OnionAddress,
        /// How they are now.
        presence: Presence,
    },
    /// Bytes of a transfer have arrived and are verified. Not kept.
    Progress {
        /// Which.
        id: TransferId,
        /// With whom.
        contact: OnionAddress,
        /// Bytes on the receiver's disk, verified.
        done: u64,
        /// Bytes in all.
        size: u64,
    },
}

/// Reads events in order.
#[derive(Debug)]
pub struct Events {
    messenger: Messenger,
    after: Cursor,
    read: VecDeque<Event>,
    live: Arc<Live>,
}

impl Events {
    pub(super) fn new(messenger: Messenger, after: Cursor, live: Arc<Live>) -> Self {
        Self { messenger, after, read: VecDeque::new(), live }
    }

    /// Waits for the next event.
    ///
    /// # Errors
    /// [`EventsError`]; after [`EventsError::Closed`] nothing more comes.
    ///
    /// # Cancel safety
    /// Cancel-safe: no event is lost.
    pub async fn next(&mut self) -> Result<Event, EventsError> {
        loop {
            if let Some(event) = self.read.pop_front() {
                self.after = event.cursor;
                return Ok(event);
            }
            // Before reading, so that what is committed meanwhile wakes this up again.
            let woken = self.live.notify.notified();
            let after = self.after;
            let page = self.messenger.call(move |engine| engine.events(after, PAGE)).await;
            self.read = page.map_err(|_| EventsError::Closed)??.into();
            if !self.read.is_empty() {
                continue;
            }
            if let Some(kind) = self.live.take() {
                return Ok(Event { cursor: self.after, kind });
            }
            tokio::select! {
                () = woken => {}
                () = self.messenger.handle.stopped() => return Err(EventsError::Closed),
            }
        }
    }
}

/// What is told as it is now, for one reader.
#[derive(Debug, Default)]
pub(super) struct Live {
    pending: Mutex<BTreeMap<LiveKey, EventKind>>,
    notify: Notify,
}

/// What is replaced by its newer state; bounded by the contacts and their transfers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum LiveKey {
    Presence(OnionAddress),
    Progress(TransferId),
}

impl Live {
    /// Wakes the reader up: something was committed.
    pub(super) fn wake(&self) {
        self.notify.notify_one();
    }

    pub(super) fn put(&self, key: LiveKey, kind: EventKind) {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner).insert(key, kind);
        self.notify.notify_one();
    }

    fn take(&self) -> Option<EventKind> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner).pop_first().map(|(_, kind)| kind)
    }
}

/// Why events cannot be read.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EventsError {
    /// The cursor is not one of this profile's, or what followed it is forgotten: read the state, then go on from
    /// [`Messenger::cursor`].
    #[error("events behind {cursor} are not known (known are {oldest} to {newest}): read the state instead")]
    UnknownCursor {
        /// The cursor given.
        cursor: Cursor,
        /// The oldest cursor that can be read on from.
        oldest: Cursor,
        /// The newest one.
        newest: Cursor,
    },
    /// The profile's database failed.
    #[error("the profile's database failed: {0}")]
    Store(#[source] Arc<StoreError>),
    /// The messenger was shut down.
    #[error("the messenger is shut down")]
    Closed,
}

impl EventsError {
    /// What a caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::UnknownCursor { .. } => ErrorKind::InvalidInput,
            Self::Store(error) => error.kind(),
            Self::Closed => ErrorKind::Closed,
        }
    }
}
