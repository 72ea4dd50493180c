//! A messenger without a server: every user is an onion service, and messages and files go straight between two people.
//!
//! A [`Profile`] is an identity and an encrypted database. A [`Messenger`] works on it, with or without a network: what is
//! written while the contact, or the own machine, is offline waits in the database.
//!
//! What it keeps to:
//! - nothing goes over the network that is not on disk; nothing is acknowledged that is not on disk;
//! - a message is shown once and in its sender's order, whatever is killed, restored or dialled twice;
//! - nobody who was not accepted gets anything stored but one contact request;
//! - everything that a peer can make grow has a limit, a named constant.
//!
//! ```
//! use std::sync::Arc;
//! use hcp_core::identity::Passphrase;
//! use hcp_core::messenger::{ContactState, Cursor, EventKind, Messenger, Profile};
//! use hcp_core::network::{MemoryNetwork, Network};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let folder = tempfile::tempdir()?;
//! # let folder = folder.path();
//! let passphrase = Passphrase::new("correct horse battery staple")?;
//! let alice = Messenger::new(Profile::create(folder.join("alice"), &passphrase, "Alice")?);
//! let bob = Messenger::new(Profile::create(folder.join("bob"), &passphrase, "Bob")?);
//! let network: Arc<dyn Network> = Arc::new(MemoryNetwork::new());
//! alice.go_online(Arc::clone(&network)).await?;
//! bob.go_online(network).await?;
//!
//! alice.request(bob.address(), "Bob", "It is me, from the library").await?;
//! alice.send(bob.address(), "waits until he accepts").await?;
//!
//! let mut events = bob.events(Cursor::START).await?;
//! loop {
//!     match events.next().await?.kind {
//!         EventKind::Contact(contact) if contact.state == ContactState::Pending => bob.accept(contact.address).await?,
//!         EventKind::MessageReceived(message) => break assert_eq!(message.text, "waits until he accepts"),
//!         _ => {}
//!     }
//! }
//! # Ok(())
//! # }
//! ```

mod contact;
mod content;
mod engine;
mod event;
pub(crate) mod fault;
mod files;
mod link;
mod machine;
mod message;
mod moving;
mod online;
mod profile;
mod store;
mod text;
mod transfer;

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use tokio::sync::watch;

pub use self::contact::{Availability, Contact, ContactError, ContactState, MAX_CONTACTS, MAX_PENDING, Presence};
use self::engine::{Engine, Stopped};
pub use self::event::{Cursor, Event, EventKind, Events, EventsError, MAX_EVENTS};
use self::machine::{Machine, Now, Refused};
pub use self::message::{
    Direction, FailureReason, IdError, MAX_PAGE, MAX_QUEUED, Message, MessageError, MessageId, MessageState,
};
use self::online::Handle;
pub use self::profile::{Profile, ProfileError};
pub use self::text::{MAX_FILE_NAME, MAX_GREETING, MAX_NAME, MAX_TEXT, TextError};
pub use self::transfer::{DISK_RESERVE, MAX_FILE, Transfer, TransferError, TransferFailure, TransferId, TransferState};
use crate::error::ErrorKind;
use crate::identity::OnionAddress;
use crate::network::{ListenerStatus, Network};
use crate::node::BindError;
pub use crate::store::StoreError;

/// A profile at work. Cheap to clone; when the last clone and the last [`Events`] are dropped, the profile is closed.
#[derive(Clone)]
pub struct Messenger {
    handle: Arc<Handle>,
}

impl Messenger {
    /// Starts to work on a profile, offline.
    pub fn new(profile: Profile) -> Self {
        Self { handle: Handle::start(profile) }
    }

    /// The profile's address: what its owner gives to friends.
    pub fn address(&self) -> OnionAddress {
        self.handle.address()
    }

    /// What the profile calls itself towards contacts.
    ///
    /// # Errors
    /// [`ContactError::Store`] and [`ContactError::Closed`].
    ///
    /// # Cancel safety
    /// Cancel-safe, as are all methods that only read.
    pub async fn name(&self) -> Result<String, ContactError> {
        self.read(|machine| Ok(machine.store().name()?)).await
    }

    /// Changes what the profile calls itself; contacts learn it when they are connected next.
    ///
    /// # Errors
    /// [`ContactError`].
    ///
    /// # Cancel safety
    /// Dropping the future of a method that changes something leaves it done or not done, never half done.
    pub async fn set_name(&self, name: &str) -> Result<(), ContactError> {
        let name = text::Name::new(name)?;
        self.change(move |machine, _| Ok(machine.set_name(&name)?)).await
    }

    /// Goes online: from now on contacts are dialled and can dial. Does nothing when it is online already.
    ///
    /// Returns when the profile's onion service is launched; [`Self::reachable`] waits until others can reach it.
    ///
    /// # Errors
    /// [`GoOnlineError`].
    ///
    /// # Cancel safety
    /// Cancel-safe; it goes online all the same.
    pub async fn go_online(&self, network: Arc<dyn Network>) -> Result<(), GoOnlineError> {
        self.handle.go_online(network).await
    }

    /// Ends all sessions and withdraws the onion service; what is written waits.
    ///
    /// # Cancel safety
    /// Cancel-safe; it goes offline all the same.
    pub async fn go_offline(&self) {
        self.handle.go_offline().await;
    }

    /// Whether others can reach this profile; [`ListenerStatus::Stopped`] while it is offline.
    pub fn status(&self) -> watch::Receiver<ListenerStatus> {
        self.handle.status()
    }

    /// Waits until others can reach this profile; `false` when it was shut down before.
    ///
    /// # Cancel safety
    /// Cancel-safe.
    pub async fn reachable(&self) -> bool {
        self.handle.reachable().await
    }

    /// Closes the profile: when this returns, another program can open it. Further calls fail.
    ///
    /// # Cancel safety
    /// Cancel-safe; the profile is closed all the same.
    pub async fn shutdown(&self) {
        self.handle.shutdown().await;
    }

    /// Copies the profile, as it is now, to a folder, where [`Profile::open`] opens it with the same passphrase.
    ///
    /// A backup is restored by opening it, or by moving it to where the profile was; not both at once. What was written
    /// and received since then comes back from the contacts, as far as they still have it; events get other cursors, so
    /// that an application reads them from [`Cursor::START`].
    ///
    /// # Errors
    /// [`ProfileError`]; nothing is left in the folder then. [`ProfileError::AlreadyExists`] when there is a profile in it.
    ///
    /// # Cancel safety
    /// Dropping the future does not stop the copying.
    pub async fn back_up(&self, folder: impl Into<PathBuf>) -> Result<(), ProfileError> {
        let key = self.call(|engine| engine.machine().store().key().clone()).await?;
        let (from, to) = (self.handle.folder().to_owned(), folder.into());
        // Not on the engine's thread, which has contacts to talk to.
        let copied = tokio::task::spawn_blocking(move || profile::back_up(&from, &key, &to)).await;
        copied.unwrap_or(Err(ProfileError::Closed))
    }

    /// Everybody in the list, in the order in which they came into it.
    ///
    /// # Errors
    /// [`ContactError::Store`] and [`ContactError::Closed`].
    pub async fn contacts(&self) -> Result<Vec<Contact>, ContactError> {
        self.read(|machine| {
            let rows = machine.store().contacts()?;
            Ok(rows.into_iter().map(|row| machine.contact_view(row)).collect())
        })
        .await
    }

    /// One contact.
    ///
    /// # Errors
    /// [`ContactError`].
    pub async fn contact(&self, address: OnionAddress) -> Result<Contact, ContactError> {
        self.read(move |machine| {
            let row = machine.store().contact(&address)?.ok_or(ContactError::Unknown)?;
            Ok(machine.contact_view(row))
        })
        .await
    }

    /// Puts somebody into the list without asking them anything.
    ///
    /// # Errors
    /// [`ContactError::State`] when they are in the list already.
    pub async fn draft(&self, address: OnionAddress, petname: &str) -> Result<(), ContactError> {
        let petname = text::Name::new(petname)?;
        self.change(move |machine, _| machine.draft(address, &petname)).await
    }

    /// Asks somebody to become a contact; the request is delivered when they can be reached. `petname` is what the user
    /// calls them, and stays here.
    ///
    /// When they have asked already, this accepts.
    ///
    /// # Errors
    /// [`ContactError`]; [`ContactError::State`] when there is a request, or an accepted contact, already.
    pub async fn request(&self, address: OnionAddress, petname: &str, greeting: &str) -> Result<(), ContactError> {
        let (petname, greeting) = (text::Name::new(petname)?, text::Text::greeting(greeting)?);
        self.change(move |machine, _| machine.request(address, &petname, &greeting)).await
    }

    /// Says yes to a contact request, also to one that was declined before.
    ///
    /// # Errors
    /// [`ContactError`].
    pub async fn accept(&self, address: OnionAddress) -> Result<(), ContactError> {
        self.change(move |machine, _| machine.accept(address)).await
    }

    /// Says no to a contact request. Who asked learns it the next time they are connected.
    ///
    /// # Errors
    /// [`ContactError`].
    pub async fn reject(&self, address: OnionAddress) -> Result<(), ContactError> {
        self.change(move |machine, _| machine.reject(address)).await
    }

    /// Treats somebody as a stranger whose requests are not shown; what waits for them is cancelled, and files that are under
    /// way end. They cannot tell it from a request that nobody answers, so what they have offered stays open at their side.
    /// Works for addresses that are not in the list, too.
    ///
    /// # Errors
    /// [`ContactError`].
    pub async fn block(&self, address: OnionAddress) -> Result<(), ContactError> {
        self.change(move |machine, _| machine.block(address)).await
    }

    /// Ends a block; the contact is archived then, and can be asked anew, or ask.
    ///
    /// # Errors
    /// [`ContactError`].
    pub async fn unblock(&self, address: OnionAddress) -> Result<(), ContactError> {
        self.change(move |machine, _| machine.unblock(address)).await
    }

    /// Takes a contact off the list and keeps what was written; what waits for them is cancelled, and files that are under way
    /// end. They learn it when they are connected next.
    ///
    /// # Errors
    /// [`ContactError`].
    pub async fn archive(&self, address: OnionAddress) -> Result<(), ContactError> {
        self.change(move |machine, _| machine.archive(address)).await
    }

    /// Changes what the user calls a contact.
    ///
    /// # Errors
    /// [`ContactError`].
    pub async fn rename(&self, address: OnionAddress, petname: &str) -> Result<(), ContactError> {
        let petname = text::Name::new(petname)?;
        self.change(move |machine, _| machine.rename(address, &petname)).await
    }

    /// What contacts are told of this user while connected; available after every start.
    ///
    /// # Errors
    /// [`ContactError::Closed`].
    pub async fn set_availability(&self, availability: Availability) -> Result<(), ContactError> {
        self.change(move |machine, _| {
            machine.set_availability(availability);
            Ok(())
        })
        .await
    }

    /// Dials a contact now instead of after the pause that follows failed attempts.
    ///
    /// # Errors
    /// [`ContactError`].
    pub async fn connect_now(&self, address: OnionAddress) -> Result<(), ContactError> {
        self.change(move |machine, now| machine.connect_now(address, now)).await
    }

    /// Writes a text message, which is on disk when this returns, and delivered when the contact can be reached.
    ///
    /// Works for contacts that are accepted, and for those who were asked and have not answered.
    ///
    /// # Errors
    /// [`MessageError`].
    pub async fn send(&self, contact: OnionAddress, text: &str) -> Result<MessageId, MessageError> {
        let text = text::Text::new(text)?;
        self.change(move |machine, now| machine.send_text(contact, &text, now)).await
    }

    /// Takes back a message that is still queued.
    ///
    /// # Errors
    /// [`MessageError`]; [`MessageError::TooLate`] when it may be on its way.
    pub async fn cancel(&self, id: MessageId) -> Result<(), MessageError> {
        self.change(move |machine, _| machine.cancel(id)).await
    }

    /// The newest `limit` messages with a contact (at most [`MAX_PAGE`]), of those before a position, oldest first.
    ///
    /// # Errors
    /// [`MessageError`].
    pub async fn messages(
        &self,
        contact: OnionAddress,
        before: Option<u64>,
        limit: usize,
    ) -> Result<Vec<Message>, MessageError> {
        self.read(move |machine| {
            let contact = machine.store().contact(&contact)?.ok_or(MessageError::UnknownContact)?;
            let rows = machine.store().texts(contact.id, before, limit.min(MAX_PAGE))?;
            let messages = rows.iter().filter_map(|row| machine.message_view(row).transpose());
            Ok(messages.collect::<Result<_, _>>()?)
        })
        .await
    }

    /// One message.
    ///
    /// # Errors
    /// [`MessageError`].
    pub async fn message(&self, id: MessageId) -> Result<Message, MessageError> {
        self.read(move |machine| {
            let row = machine.store().text(id)?.ok_or(MessageError::Unknown)?;
            machine.message_view(&row)?.ok_or(MessageError::Unknown)
        })
        .await
    }

    /// Offers a file to a contact. The file is read once now, for its hash, and again when it is sent; it must stay as it
    /// is until then. One file to a contact at a time.
    ///
    /// # Errors
    /// [`TransferError`].
    pub async fn offer_file(
        &self,
        contact: OnionAddress,
        path: impl Into<PathBuf>,
    ) -> Result<TransferId, TransferError> {
        moving::offer(self, contact, &path.into()).await
    }

    /// Accepts an offered file and saves it at `path`; in `path`, under the offered name, when that is a folder.
    ///
    /// Until it is complete and verified, its bytes stand beside it in a file whose name ends in `.part`. Nothing that
    /// exists is overwritten.
    ///
    /// # Errors
    /// [`TransferError`].
    pub async fn accept_file(&self, id: TransferId, path: impl Into<PathBuf>) -> Result<(), TransferError> {
        moving::accept(self, id, &path.into()).await
    }

    /// Says no to an offered file.
    ///
    /// # Errors
    /// [`TransferError`].
    pub async fn decline_file(&self, id: TransferId) -> Result<(), TransferError> {
        self.change(move |machine, now| machine.decline_file(id, now)).await
    }

    /// Ends a transfer from either side; what a receiver has of it so far is deleted.
    ///
    /// # Errors
    /// [`TransferError`].
    pub async fn cancel_file(&self, id: TransferId) -> Result<(), TransferError> {
        self.change(move |machine, now| machine.cancel_file(id, now)).await
    }

    /// The newest [`MAX_PAGE`] transfers, oldest first.
    ///
    /// # Errors
    /// [`TransferError::Store`] and [`TransferError::Closed`].
    pub async fn transfers(&self) -> Result<Vec<Transfer>, TransferError> {
        self.read(|machine| {
            let rows = machine.store().transfers(MAX_PAGE)?;
            let transfers = rows.into_iter().map(|row| machine.transfer_view(row));
            Ok(transfers.collect::<Result<_, _>>()?)
        })
        .await
    }

    /// One transfer.
    ///
    /// # Errors
    /// [`TransferError`].
    pub async fn transfer(&self, id: TransferId) -> Result<Transfer, TransferError> {
        self.read(move |machine| {
            let row = machine.store().transfer(id)?.ok_or(TransferError::Unknown)?;
            Ok(machine.transfer_view(row)?)
        })
        .await
    }

    /// Everything that happened behind a cursor, then everything that happens.
    ///
    /// Who is there now is told as well, so that whoever reads misses nobody.
    ///
    /// # Errors
    /// [`EventsError`].
    pub async fn events(&self, after: Cursor) -> Result<Events, EventsError> {
        let live = self.call(move |engine| engine.subscribe(after)).await.map_err(|_| EventsError::Closed)??;
        Ok(Events::new(self.clone(), after, live))
    }

    /// The cursor of the newest event: read from it to learn only what is to come.
    ///
    /// # Errors
    /// [`EventsError`].
    pub async fn cursor(&self) -> Result<Cursor, EventsError> {
        self.call(|engine| engine.cursor()).await.map_err(|_| EventsError::Closed)?
    }

    /// Has the engine change something, in a transaction of its own.
    async fn change<R, E>(
        &self,
        change: impl FnOnce(&mut Machine, Now) -> Result<R, E> + Send + 'static,
    ) -> Result<R, E>
    where
        R: Send + 'static,
        E: From<StoreError> + From<Stopped> + Send + 'static,
    {
        self.call(|engine| engine.change(change)).await?
    }

    /// Reads what is on disk.
    async fn read<R, E>(&self, read: impl FnOnce(&Machine) -> Result<R, E> + Send + 'static) -> Result<R, E>
    where
        R: Send + 'static,
        E: From<Stopped> + Send + 'static,
    {
        self.call(|engine| read(engine.machine())).await?
    }

    async fn call<R: Send + 'static>(&self, job: impl FnOnce(&mut Engine) -> R + Send + 'static) -> Result<R, Stopped> {
        self.handle.call(job).await
    }
}

impl fmt::Debug for Messenger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Messenger([redacted])")
    }
}

/// Why [`Messenger::go_online`] failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GoOnlineError {
    /// The node could not be launched.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The profile's database failed.
    #[error("the profile's database failed: {0}")]
    Store(#[source] StoreError),
    /// The messenger was shut down.
    #[error("the messenger is shut down")]
    Closed,
}

impl GoOnlineError {
    /// What a caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Bind(error) => error.kind(),
            Self::Store(error) => error.kind(),
            Self::Closed => ErrorKind::Closed,
        }
    }
}

impl From<Stopped> for ProfileError {
    fn from(_: Stopped) -> Self {
        Self::Closed
    }
}

impl From<Stopped> for ContactError {
    fn from(_: Stopped) -> Self {
        Self::Closed
    }
}

impl From<Stopped> for MessageError {
    fn from(_: Stopped) -> Self {
        Self::Closed
    }
}

impl From<Stopped> for TransferError {
    fn from(_: Stopped) -> Self {
        Self::Closed
    }
}

impl From<StoreError> for ContactError {
    fn from(error: StoreError) -> Self {
        Self::Store(Arc::new(error))
    }
}

impl From<StoreError> for MessageError {
    fn from(error: StoreError) -> Self {
        Self::Store(Arc::new(error))
    }
}

impl From<StoreError> for TransferError {
    fn from(error: StoreError) -> Self {
        Self::Store(Arc::new(error))
    }
}

impl From<StoreError> for EventsError {
    fn from(error: StoreError) -> Self {
        Self::Store(Arc::new(error))
    }
}

impl From<Refused> for MessageError {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::UnknownContact => Self::UnknownContact,
            Refused::State(state) => Self::State(state),
            Refused::QueueFull => Self::QueueFull,
            Refused::Store(error) => error.into(),
        }
    }
}

impl From<Refused> for TransferError {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::UnknownContact => Self::UnknownContact,
            Refused::State(state) => Self::ContactState(state),
            Refused::QueueFull => Self::Busy,
            Refused::Store(error) => error.into(),
        }
    }
}
