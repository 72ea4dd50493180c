//! Events, and the asynchronous iterator over them.

use std::sync::{Arc, Mutex as SyncMutex, PoisonError};

use hcp_core::messenger as core;
use pyo3::IntoPyObjectExt as _;
use pyo3::exceptions::PyStopAsyncIteration;
use pyo3::prelude::*;
use tokio::sync::Mutex;

use super::contact::{Contact, Presence};
use super::message::{FailureReason, Message, MessageId, MessageState};
use super::transfer::{Transfer, TransferFailure, TransferId, TransferState};
use crate::errors::Failure;
use crate::identity::OnionAddress;
use crate::operation::Operation;

/// A place in the stream of events.
#[pyclass(frozen, eq, ord, hash, module = "hcp")]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Cursor(pub(super) core::Cursor);

#[pymethods]
impl Cursor {
    #[new]
    fn new(value: u64) -> Self {
        Self(core::Cursor(value))
    }

    #[classattr]
    const START: Self = Self(core::Cursor::START);

    #[getter]
    fn value(&self) -> u64 {
        self.0.0
    }

    fn __str__(&self) -> String {
        self.0.to_string()
    }

    fn __repr__(&self) -> String {
        format!("Cursor({})", self.0)
    }
}

/// Something that happened.
#[pyclass(frozen, eq, module = "hcp")]
#[derive(PartialEq, Eq)]
pub(crate) struct Event {
    #[pyo3(get)]
    cursor: Cursor,
    #[pyo3(get)]
    kind: EventKind,
}

impl Event {
    fn from_core(event: &core::Event) -> Result<Self, Failure> {
        Ok(Self { cursor: Cursor(event.cursor), kind: EventKind::from_core(&event.kind)? })
    }
}

#[pymethods]
impl Event {
    fn __repr__(&self) -> String {
        format!("<Event {}>", self.cursor.0)
    }
}

/// What happened.
#[pyclass(frozen, eq, module = "hcp")]
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum EventKind {
    Contact { contact: Contact },
    MessageReceived { message: Message },
    MessageWritten { message: Message },
    MessageState { id: MessageId, contact: OnionAddress, state: MessageState, failure: Option<FailureReason> },
    TransferOffered { transfer: Transfer },
    TransferState { id: TransferId, contact: OnionAddress, state: TransferState, failure: Option<TransferFailure> },
    Presence { contact: OnionAddress, presence: Presence },
    Progress { id: TransferId, contact: OnionAddress, done: u64, size: u64 },
}

impl EventKind {
    fn from_core(kind: &core::EventKind) -> Result<Self, Failure> {
        Ok(match kind {
            core::EventKind::Contact(contact) => Self::Contact { contact: Contact::from_core(contact)? },
            core::EventKind::MessageReceived(message) => {
                Self::MessageReceived { message: Message::from_core(message)? }
            }
            core::EventKind::MessageWritten(message) => Self::MessageWritten { message: Message::from_core(message)? },
            core::EventKind::MessageState { id, contact, state } => {
                let (state, failure) = MessageState::from_core(*state)?;
                Self::MessageState { id: MessageId(*id), contact: OnionAddress(*contact), state, failure }
            }
            core::EventKind::TransferOffered(transfer) => {
                Self::TransferOffered { transfer: Transfer::from_core(transfer)? }
            }
            core::EventKind::TransferState { id, contact, state } => {
                let (state, failure) = TransferState::from_core(*state)?;
                Self::TransferState { id: TransferId(*id), contact: OnionAddress(*contact), state, failure }
            }
            core::EventKind::Presence { contact, presence } => {
                Self::Presence { contact: OnionAddress(*contact), presence: Presence::from_core(*presence)? }
            }
            core::EventKind::Progress { id, contact, done, size } => {
                Self::Progress { id: TransferId(*id), contact: OnionAddress(*contact), done: *done, size: *size }
            }
            other => return Err(Failure::unknown(other)),
        })
    }
}

/// Reads events in order.
#[pyclass(frozen, module = "hcp")]
pub(crate) struct Events {
    reader: Arc<Reader>,
}

struct Reader {
    messenger: core::Messenger,
    after: core::Cursor,
    events: Mutex<Option<core::Events>>,
    /// Read, and not yet taken by a task.
    read: SyncMutex<Read>,
}

enum Read {
    Nothing,
    Event(core::Event),
    /// The messenger was shut down.
    End,
}

impl Events {
    pub(super) fn new(messenger: core::Messenger, after: core::Cursor) -> Self {
        let (events, read) = (Mutex::new(None), SyncMutex::new(Read::Nothing));
        Self { reader: Arc::new(Reader { messenger, after, events, read }) }
    }
}

#[pymethods]
impl Events {
    fn __aiter__(this: Bound<'_, Self>) -> Bound<'_, Self> {
        this
    }

    fn __anext__(&self) -> Operation {
        let (waiting, reader) = (Arc::clone(&self.reader), Arc::clone(&self.reader));
        Operation::taking(
            move || {
                let reader = Arc::clone(&waiting);
                async move { reader.wait().await }
            },
            move |py| {
                let mut read = reader.read.lock().unwrap_or_else(PoisonError::into_inner);
                match std::mem::replace(&mut *read, Read::Nothing) {
                    Read::Nothing => Ok(None),
                    Read::Event(event) => {
                        drop(read);
                        Event::from_core(&event)?.into_bound_py_any(py).map(Some)
                    }
                    Read::End => {
                        *read = Read::End;
                        Err(PyStopAsyncIteration::new_err(()))
                    }
                }
            },
        )
    }
}

impl Reader {
    /// Waits until there is something to take; one task after the other.
    async fn wait(&self) -> Result<(), Failure> {
        let mut events = self.events.lock().await;
        if !matches!(*self.read.lock().unwrap_or_else(PoisonError::into_inner), Read::Nothing) {
            return Ok(());
        }
        let read = match self.next(&mut events).await {
            Ok(event) => Read::Event(event),
            Err(core::EventsError::Closed) => Read::End,
            Err(error) => return Err(error.into()),
        };
        *self.read.lock().unwrap_or_else(PoisonError::into_inner) = read;
        Ok(())
    }

    async fn next(&self, events: &mut Option<core::Events>) -> Result<core::Event, core::EventsError> {
        let events = match events {
            Some(events) => events,
            None => events.insert(self.messenger.events(self.after).await?),
        };
        events.next().await
    }
}
