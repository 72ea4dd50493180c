//! The messenger: contacts, messages and files between two people, without a server.

mod contact;
mod event;
mod message;
mod profile;
mod transfer;

use std::sync::Arc;

use hcp_core::messenger as core;
use hcp_core::messenger::{Cursor, MessageId, TransferId};

pub use self::contact::{Availability, Contact, ContactState, Presence};
pub use self::event::{Event, EventKind, Events};
pub use self::message::{Direction, FailureReason, Message, MessageState};
pub use self::profile::{Profile, change_passphrase};
pub use self::transfer::{Transfer, TransferFailure, TransferState};
use crate::cancellation::{Cancellation, unless_cancelled};
use crate::error::HcpError;
use crate::identity::OnionAddress;
use crate::network::Network;
use crate::running::Running;
use crate::watch::StatusWatch;

/// A profile at work. It runs until [`shutdown`](Self::shutdown), even when no handle is left.
///
/// Methods that fail say `InvalidInput` for what cannot be done, as with a contact in another state; `LimitExceeded` for a
/// full list or queue; `Storage` when the database fails; `Closed` when the messenger was shut down.
#[derive(Debug, uniffi::Object)]
pub struct Messenger {
    address: Arc<OnionAddress>,
    inner: Arc<Running<core::Messenger>>,
}

#[uniffi::export(async_runtime = "tokio")]
impl Messenger {
    /// Starts to work on a profile, offline.
    ///
    /// # Errors
    /// `InvalidInput` when a messenger works on it already.
    #[uniffi::constructor]
    pub fn new(profile: Arc<Profile>) -> Result<Arc<Self>, HcpError> {
        let inner = Running::start(core::Messenger::new(profile.take()?));
        Ok(Arc::new(Self { address: profile.address(), inner }))
    }

    /// The profile's address: what its owner gives to friends.
    pub fn address(&self) -> Arc<OnionAddress> {
        Arc::clone(&self.address)
    }

    /// What the profile calls itself towards contacts.
    ///
    /// # Errors
    /// `Storage`, `Closed`.
    pub async fn name(&self) -> Result<String, HcpError> {
        Ok(self.core()?.name().await?)
    }

    /// Changes what the profile calls itself; contacts learn it when they are connected next.
    ///
    /// # Errors
    /// `InvalidInput` when the name is refused; `Storage`, `Closed`.
    pub async fn set_name(&self, name: String) -> Result<(), HcpError> {
        Ok(self.core()?.set_name(&name).await?)
    }

    /// Goes online: from now on contacts are dialled and can dial. Does nothing when it is online already.
    ///
    /// Returns when the profile's onion service is launched; [`reachable`](Self::reachable) waits until others can reach it.
    ///
    /// # Errors
    /// `InUse` when this process serves the address already; what the network says; `Storage`, `Closed`, `Cancelled`.
    #[uniffi::method(default(cancellation = None))]
    pub async fn go_online(&self, network: Network, cancellation: Option<Arc<Cancellation>>) -> Result<(), HcpError> {
        let (messenger, network) = (self.core()?, network.core()?);
        Ok(unless_cancelled(cancellation, messenger.go_online(network)).await??)
    }

    /// Ends all sessions and withdraws the onion service; what is written waits.
    ///
    /// # Errors
    /// `Closed`.
    pub async fn go_offline(&self) -> Result<(), HcpError> {
        self.core()?.go_offline().await;
        Ok(())
    }

    /// Copies the profile, as it is now, to a folder, where `Profile.open` opens it with the same passphrase.
    ///
    /// A backup is restored by opening it, or by moving it to where the profile was; not both at once. What was written
    /// and received since then comes back from the contacts, as far as they still have it; events get other cursors.
    ///
    /// # Errors
    /// `InvalidInput` when there is a profile in the folder already; `Storage`, `LimitExceeded` when the disk is full, `Closed`.
    pub async fn back_up(&self, folder: String) -> Result<(), HcpError> {
        Ok(self.core()?.back_up(folder).await?)
    }

    /// Watches whether others can reach this profile; `Stopped` while it is offline.
    ///
    /// # Errors
    /// `Closed`.
    pub fn status(&self) -> Result<Arc<StatusWatch>, HcpError> {
        Ok(StatusWatch::shared(self.core()?.status()))
    }

    /// Waits until others can reach this profile; false when it was shut down before.
    ///
    /// # Errors
    /// `Cancelled`.
    #[uniffi::method(default(cancellation = None))]
    pub async fn reachable(&self, cancellation: Option<Arc<Cancellation>>) -> Result<bool, HcpError> {
        let Some(messenger) = self.inner.value() else { return Ok(false) };
        let reachable = self.inner.unless_ended(messenger.reachable());
        Ok(unless_cancelled(cancellation, reachable).await?.unwrap_or(false))
    }

    /// Closes the profile: when this returns, another program can open it. Further calls fail.
    pub async fn shutdown(&self) {
        if let Some(messenger) = self.inner.value() {
            messenger.shutdown().await;
            self.inner.end();
        }
    }

    /// Everybody in the list, in the order in which they came into it.
    ///
    /// # Errors
    /// `Storage`, `Closed`.
    pub async fn contacts(&self) -> Result<Vec<Contact>, HcpError> {
        Ok(self.core()?.contacts().await?.into_iter().map(Into::into).collect())
    }

    /// One contact.
    ///
    /// # Errors
    /// `InvalidInput` when there is none; `Storage`, `Closed`.
    pub async fn contact(&self, address: Arc<OnionAddress>) -> Result<Contact, HcpError> {
        Ok(self.core()?.contact(address.inner).await?.into())
    }

    /// Puts somebody into the list without asking them anything.
    ///
    /// # Errors
    /// `InvalidInput` when they are in the list already; `LimitExceeded`, `Storage`, `Closed`.
    pub async fn draft(&self, address: Arc<OnionAddress>, petname: String) -> Result<(), HcpError> {
        Ok(self.core()?.draft(address.inner, &petname).await?)
    }

    /// Asks somebody to become a contact; the request is delivered when they can be reached. `petname` is what the user
    /// calls them, and stays here. When they have asked already, this accepts.
    ///
    /// # Errors
    /// `InvalidInput` when there is a request, or an accepted contact, already; `LimitExceeded`, `Storage`, `Closed`.
    pub async fn request(&self, address: Arc<OnionAddress>, petname: String, greeting: String) -> Result<(), HcpError> {
        Ok(self.core()?.request(address.inner, &petname, &greeting).await?)
    }

    /// Says yes to a contact request, also to one that was declined before.
    ///
    /// # Errors
    /// `InvalidInput`, `Storage`, `Closed`.
    pub async fn accept(&self, address: Arc<OnionAddress>) -> Result<(), HcpError> {
        Ok(self.core()?.accept(address.inner).await?)
    }

    /// Says no to a contact request. Who asked learns it the next time they are connected.
    ///
    /// # Errors
    /// `InvalidInput`, `Storage`, `Closed`.
    pub async fn reject(&self, address: Arc<OnionAddress>) -> Result<(), HcpError> {
        Ok(self.core()?.reject(address.inner).await?)
    }

    /// Treats somebody as a stranger whose requests are not shown; what waits for them is cancelled. They cannot tell it
    /// from a request that nobody answers. Works for addresses that are not in the list, too.
    ///
    /// # Errors
    /// `InvalidInput`, `LimitExceeded`, `Storage`, `Closed`.
    pub async fn block(&self, address: Arc<OnionAddress>) -> Result<(), HcpError> {
        Ok(self.core()?.block(address.inner).await?)
    }

    /// Ends a block; the contact is archived then, and can be asked anew, or ask.
    ///
    /// # Errors
    /// `InvalidInput`, `Storage`, `Closed`.
    pub async fn unblock(&self, address: Arc<OnionAddress>) -> Result<(), HcpError> {
        Ok(self.core()?.unblock(address.inner).await?)
    }

    /// Takes a contact off the list and keeps what was written; what waits for them is cancelled. They learn it when they
    /// are connected next.
    ///
    /// # Errors
    /// `InvalidInput`, `Storage`, `Closed`.
    pub async fn archive(&self, address: Arc<OnionAddress>) -> Result<(), HcpError> {
        Ok(self.core()?.archive(address.inner).await?)
    }

    /// Changes what the user calls a contact.
    ///
    /// # Errors
    /// `InvalidInput`, `Storage`, `Closed`.
    pub async fn rename(&self, address: Arc<OnionAddress>, petname: String) -> Result<(), HcpError> {
        Ok(self.core()?.rename(address.inner, &petname).await?)
    }

    /// What contacts are told of this user while connected; available after every start.
    ///
    /// # Errors
    /// `Closed`.
    pub async fn set_availability(&self, availability: Availability) -> Result<(), HcpError> {
        Ok(self.core()?.set_availability(availability.into()).await?)
    }

    /// Dials a contact now instead of after the pause that follows failed attempts.
    ///
    /// # Errors
    /// `InvalidInput`, `Storage`, `Closed`.
    pub async fn connect_now(&self, address: Arc<OnionAddress>) -> Result<(), HcpError> {
        Ok(self.core()?.connect_now(address.inner).await?)
    }

    /// Writes a text message, which is on disk when this returns, and delivered when the contact can be reached.
    ///
    /// Works for contacts that are accepted, and for those who were asked and have not answered.
    ///
    /// # Errors
    /// `InvalidInput` for a text that is empty or too long, or a contact in another state; `LimitExceeded` when too much
    /// waits already; `Storage`, `Closed`.
    pub async fn send(&self, contact: Arc<OnionAddress>, text: String) -> Result<MessageId, HcpError> {
        Ok(self.core()?.send(contact.inner, &text).await?)
    }

    /// Takes back a message that is still queued.
    ///
    /// # Errors
    /// `Refused` when it may be on its way; `InvalidInput`, `Storage`, `Closed`.
    pub async fn cancel(&self, id: MessageId) -> Result<(), HcpError> {
        Ok(self.core()?.cancel(id).await?)
    }

    /// The newest `limit` messages with a contact (at most `maxPage`), of those before a position, oldest first.
    ///
    /// # Errors
    /// `InvalidInput`, `Storage`, `Closed`.
    pub async fn messages(
        &self,
        contact: Arc<OnionAddress>,
        before: Option<u64>,
        limit: u32,
    ) -> Result<Vec<Message>, HcpError> {
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        Ok(self.core()?.messages(contact.inner, before, limit).await?.into_iter().map(Into::into).collect())
    }

    /// One message.
    ///
    /// # Errors
    /// `InvalidInput` when there is none; `Storage`, `Closed`.
    pub async fn message(&self, id: MessageId) -> Result<Message, HcpError> {
        Ok(self.core()?.message(id).await?.into())
    }

    /// Offers a file to a contact. The file is read once now, for its hash, and again when it is sent; it must stay as it
    /// is until then. One file to a contact at a time.
    ///
    /// # Errors
    /// `InvalidInput` for a contact in another state or a file that is too large; `Refused` while another file is on its
    /// way; `Storage` when it cannot be read; `Closed`, `Cancelled`.
    #[uniffi::method(default(cancellation = None))]
    pub async fn offer_file(
        &self,
        contact: Arc<OnionAddress>,
        path: String,
        cancellation: Option<Arc<Cancellation>>,
    ) -> Result<TransferId, HcpError> {
        let messenger = self.core()?;
        Ok(unless_cancelled(cancellation, messenger.offer_file(contact.inner, path)).await??)
    }

    /// Accepts an offered file and saves it at `path`; in `path`, under the offered name, when that is a folder.
    ///
    /// Until it is complete and verified, its bytes stand beside it in a file whose name ends in `.part`. Nothing that
    /// exists is overwritten.
    ///
    /// # Errors
    /// `InvalidInput` when something exists there already, or the transfer is in another state; `LimitExceeded` when the
    /// disk has too little space; `Storage`, `Closed`.
    pub async fn accept_file(&self, id: TransferId, path: String) -> Result<(), HcpError> {
        Ok(self.core()?.accept_file(id, path).await?)
    }

    /// Says no to an offered file.
    ///
    /// # Errors
    /// `InvalidInput`, `Storage`, `Closed`.
    pub async fn decline_file(&self, id: TransferId) -> Result<(), HcpError> {
        Ok(self.core()?.decline_file(id).await?)
    }

    /// Ends a transfer from either side; what a receiver has of it so far is deleted.
    ///
    /// # Errors
    /// `InvalidInput`, `Storage`, `Closed`.
    pub async fn cancel_file(&self, id: TransferId) -> Result<(), HcpError> {
        Ok(self.core()?.cancel_file(id).await?)
    }

    /// The newest `maxPage` transfers, oldest first.
    ///
    /// # Errors
    /// `Storage`, `Closed`.
    pub async fn transfers(&self) -> Result<Vec<Transfer>, HcpError> {
        Ok(self.core()?.transfers().await?.into_iter().map(Into::into).collect())
    }

    /// One transfer.
    ///
    /// # Errors
    /// `InvalidInput` when there is none; `Storage`, `Closed`.
    pub async fn transfer(&self, id: TransferId) -> Result<Transfer, HcpError> {
        Ok(self.core()?.transfer(id).await?.into())
    }

    /// Everything that happened behind a cursor, by default from the beginning; then everything that happens.
    ///
    /// # Errors
    /// `InvalidInput` when what followed the cursor is forgotten, or it is not one of this profile's: read the state, then
    /// go on from [`cursor`](Self::cursor). `Storage`, `Closed`.
    #[uniffi::method(default(after = None))]
    pub async fn events(&self, after: Option<Cursor>) -> Result<Arc<Events>, HcpError> {
        let events = self.core()?.events(after.unwrap_or(Cursor::START)).await?;
        Ok(Events::shared(Arc::clone(&self.inner), events))
    }

    /// The cursor of the newest event: read from it to learn only what is to come.
    ///
    /// # Errors
    /// `Storage`, `Closed`.
    pub async fn cursor(&self) -> Result<Cursor, HcpError> {
        Ok(self.core()?.cursor().await?)
    }
}

impl Messenger {
    fn core(&self) -> Result<core::Messenger, HcpError> {
        self.inner.value().ok_or_else(shut_down)
    }
}

fn shut_down() -> HcpError {
    HcpError::closed("the messenger is shut down")
}
