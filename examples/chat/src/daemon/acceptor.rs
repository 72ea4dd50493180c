//! Says yes without asking anybody: for bots and tests.

use std::ffi::OsString;
use std::path::PathBuf;

use hcp_core::messenger::{
    Contact, ContactState, Cursor, Direction, EventKind, Events, Messenger, Transfer, TransferError, TransferState,
};

use crate::failure::Failure;

/// Files of one name that are saved beside each other.
const MAX_SAME_NAME: usize = 1000;

/// Accepts contact requests and files, those that wait and those that come.
pub(crate) struct Acceptor {
    messenger: Messenger,
    contacts: bool,
    save_to: Option<PathBuf>,
    events: Option<Events>,
}

impl Acceptor {
    /// Prepares; events from now on count.
    pub(crate) async fn new(messenger: Messenger, contacts: bool, save_to: Option<PathBuf>) -> Result<Self, Failure> {
        let events = if contacts || save_to.is_some() {
            let failure = |error| Failure::of("read the events", &error);
            let from: Cursor = messenger.cursor().await.map_err(failure)?;
            Some(messenger.events(from).await.map_err(failure)?)
        } else {
            None
        };
        Ok(Self { messenger, contacts, save_to, events })
    }

    /// Ends only when something is wrong.
    pub(crate) async fn run(mut self) -> Result<(), Failure> {
        let Some(mut events) = self.events.take() else { return std::future::pending().await };
        // What came while this did not run.
        for contact in self.messenger.contacts().await.map_err(|error| Failure::of("read the contacts", &error))? {
            self.contact(&contact).await;
        }
        for transfer in self.messenger.transfers().await.map_err(|error| Failure::of("read the transfers", &error))? {
            self.transfer(&transfer).await;
        }
        loop {
            match events.next().await.map_err(|error| Failure::of("read the events", &error))?.kind {
                EventKind::Contact(contact) => self.contact(&contact).await,
                EventKind::TransferOffered(transfer) => self.transfer(&transfer).await,
                _ => {}
            }
        }
    }

    async fn contact(&self, contact: &Contact) {
        if self.contacts
            && contact.state == ContactState::Pending
            && let Err(error) = self.messenger.accept(contact.address).await
        {
            tracing::warn!(%error, "cannot accept a contact request");
        }
    }

    async fn transfer(&self, transfer: &Transfer) {
        let Some(folder) = &self.save_to else { return };
        if transfer.direction != Direction::Incoming || transfer.state != TransferState::Offered {
            return;
        }
        for number in 0..MAX_SAME_NAME {
            let mut name = OsString::from(&transfer.name);
            if number > 0 {
                name.push(format!(".{number}"));
            }
            match self.messenger.accept_file(transfer.id, folder.join(name)).await {
                Ok(()) => return,
                Err(TransferError::Exists) => {}
                Err(error) => return tracing::warn!(%error, "cannot accept a file"),
            }
        }
        tracing::warn!("cannot accept a file: too many of its name are there");
    }
}
