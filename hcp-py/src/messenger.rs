//! The messenger as Python holds it.

mod contact;
mod event;
mod message;
mod profile;
mod transfer;

use std::path::PathBuf;

use hcp_core::messenger as core;
use pyo3::prelude::*;

use self::contact::{Availability, Contact};
use self::event::{Cursor, Events};
use self::message::{Message, MessageId};
use self::profile::Profile;
use self::transfer::{Transfer, TransferId};
use crate::bridge;
use crate::errors::Failure;
use crate::identity::OnionAddress;
use crate::network::{ListenerStatus, Network};
use crate::operation::Operation;
use crate::watch::Watch;

/// Adds the classes and limits of the messenger to the module.
pub(crate) fn add(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add("MAX_CONTACTS", core::MAX_CONTACTS)?;
    module.add("MAX_PENDING", core::MAX_PENDING)?;
    module.add("MAX_EVENTS", core::MAX_EVENTS)?;
    module.add("MAX_PAGE", core::MAX_PAGE)?;
    module.add("MAX_QUEUED", core::MAX_QUEUED)?;
    module.add("MAX_FILE_NAME", core::MAX_FILE_NAME)?;
    module.add("MAX_GREETING", core::MAX_GREETING)?;
    module.add("MAX_NAME", core::MAX_NAME)?;
    module.add("MAX_TEXT", core::MAX_TEXT)?;
    module.add("DISK_RESERVE", core::DISK_RESERVE)?;
    module.add("MAX_FILE", core::MAX_FILE)?;
    module.add_class::<Profile>()?;
    module.add_class::<Messenger>()?;
    module.add_class::<Contact>()?;
    module.add_class::<contact::ContactState>()?;
    module.add_class::<contact::Presence>()?;
    module.add_class::<Availability>()?;
    module.add_class::<Message>()?;
    module.add_class::<MessageId>()?;
    module.add_class::<message::Direction>()?;
    module.add_class::<message::MessageState>()?;
    module.add_class::<message::FailureReason>()?;
    module.add_class::<Transfer>()?;
    module.add_class::<TransferId>()?;
    module.add_class::<transfer::TransferState>()?;
    module.add_class::<transfer::TransferFailure>()?;
    module.add_class::<Cursor>()?;
    module.add_class::<event::Event>()?;
    module.add_class::<event::EventKind>()?;
    module.add_class::<Events>()
}

/// A profile at work.
#[pyclass(frozen, module = "hcp")]
pub(crate) struct Messenger(core::Messenger);

impl Messenger {
    /// Runs an operation of the core that has no result.
    fn change<F, E>(&self, work: impl FnOnce(core::Messenger) -> F + Send + 'static) -> Operation
    where
        F: Future<Output = Result<(), E>> + Send + 'static,
        E: Into<Failure>,
    {
        let messenger = self.0.clone();
        Operation::unit(async move { work(messenger).await })
    }
}

#[pymethods]
impl Messenger {
    #[new]
    fn new(profile: &Profile) -> Result<Self, Failure> {
        let _runtime = bridge::runtime()?.enter();
        Ok(Self(core::Messenger::new(profile.take()?)))
    }

    #[getter]
    fn address(&self) -> OnionAddress {
        OnionAddress(self.0.address())
    }

    fn name(&self) -> Operation {
        let messenger = self.0.clone();
        Operation::new(async move { messenger.name().await })
    }

    fn set_name(&self, name: String) -> Operation {
        self.change(async move |messenger| messenger.set_name(&name).await)
    }

    fn go_online(&self, network: &Network) -> Operation {
        let network = network.0.handle();
        self.change(async move |messenger| Ok::<_, Failure>(messenger.go_online(network?).await?))
    }

    fn go_offline(&self) -> Operation {
        self.change(async move |messenger| {
            messenger.go_offline().await;
            Ok::<_, Failure>(())
        })
    }

    fn back_up(&self, folder: PathBuf) -> Operation {
        self.change(async move |messenger| messenger.back_up(folder).await)
    }

    fn status(&self) -> Watch {
        Watch::new(self.0.status(), ListenerStatus::from_core)
    }

    fn reachable(&self) -> Operation {
        let messenger = self.0.clone();
        Operation::new(async move { Ok::<_, Failure>(messenger.reachable().await) })
    }

    fn shutdown(&self) -> Operation {
        self.change(async move |messenger| {
            messenger.shutdown().await;
            Ok::<_, Failure>(())
        })
    }

    fn contacts(&self) -> Operation {
        let messenger = self.0.clone();
        Operation::new(async move {
            let contacts = messenger.contacts().await?;
            contacts.iter().map(Contact::from_core).collect::<Result<Vec<_>, Failure>>()
        })
    }

    fn contact(&self, address: &OnionAddress) -> Operation {
        let (messenger, address) = (self.0.clone(), address.0);
        Operation::new(async move { Contact::from_core(&messenger.contact(address).await?) })
    }

    fn draft(&self, address: &OnionAddress, petname: String) -> Operation {
        let address = address.0;
        self.change(async move |messenger| messenger.draft(address, &petname).await)
    }

    fn request(&self, address: &OnionAddress, petname: String, greeting: String) -> Operation {
        let address = address.0;
        self.change(async move |messenger| messenger.request(address, &petname, &greeting).await)
    }

    fn accept(&self, address: &OnionAddress) -> Operation {
        let address = address.0;
        self.change(async move |messenger| messenger.accept(address).await)
    }

    fn reject(&self, address: &OnionAddress) -> Operation {
        let address = address.0;
        self.change(async move |messenger| messenger.reject(address).await)
    }

    fn block(&self, address: &OnionAddress) -> Operation {
        let address = address.0;
        self.change(async move |messenger| messenger.block(address).await)
    }

    fn unblock(&self, address: &OnionAddress) -> Operation {
        let address = address.0;
        self.change(async move |messenger| messenger.unblock(address).await)
    }

    fn archive(&self, address: &OnionAddress) -> Operation {
        let address = address.0;
        self.change(async move |messenger| messenger.archive(address).await)
    }

    fn rename(&self, address: &OnionAddress, petname: String) -> Operation {
        let address = address.0;
        self.change(async move |messenger| messenger.rename(address, &petname).await)
    }

    fn set_availability(&self, availability: &Availability) -> Operation {
        let availability = availability.to_core();
        self.change(async move |messenger| messenger.set_availability(availability).await)
    }

    fn connect_now(&self, address: &OnionAddress) -> Operation {
        let address = address.0;
        self.change(async move |messenger| messenger.connect_now(address).await)
    }

    fn send(&self, contact: &OnionAddress, text: String) -> Operation {
        let (messenger, contact) = (self.0.clone(), contact.0);
        Operation::new(async move { messenger.send(contact, &text).await.map(MessageId) })
    }

    fn cancel(&self, id: &MessageId) -> Operation {
        let id = id.0;
        self.change(async move |messenger| messenger.cancel(id).await)
    }

    #[pyo3(signature = (contact, before = None, limit = core::MAX_PAGE))]
    fn messages(&self, contact: &OnionAddress, before: Option<u64>, limit: usize) -> Operation {
        let (messenger, contact) = (self.0.clone(), contact.0);
        Operation::new(async move {
            let messages = messenger.messages(contact, before, limit).await?;
            messages.iter().map(Message::from_core).collect::<Result<Vec<_>, Failure>>()
        })
    }

    fn message(&self, id: &MessageId) -> Operation {
        let (messenger, id) = (self.0.clone(), id.0);
        Operation::new(async move { Message::from_core(&messenger.message(id).await?) })
    }

    fn offer_file(&self, contact: &OnionAddress, path: PathBuf) -> Operation {
        let (messenger, contact) = (self.0.clone(), contact.0);
        Operation::new(async move { messenger.offer_file(contact, path).await.map(TransferId) })
    }

    fn accept_file(&self, id: &TransferId, path: PathBuf) -> Operation {
        let id = id.0;
        self.change(async move |messenger| messenger.accept_file(id, path).await)
    }

    fn decline_file(&self, id: &TransferId) -> Operation {
        let id = id.0;
        self.change(async move |messenger| messenger.decline_file(id).await)
    }

    fn cancel_file(&self, id: &TransferId) -> Operation {
        let id = id.0;
        self.change(async move |messenger| messenger.cancel_file(id).await)
    }

    fn transfers(&self) -> Operation {
        let messenger = self.0.clone();
        Operation::new(async move {
            let transfers = messenger.transfers().await?;
            transfers.iter().map(Transfer::from_core).collect::<Result<Vec<_>, Failure>>()
        })
    }

    fn transfer(&self, id: &TransferId) -> Operation {
        let (messenger, id) = (self.0.clone(), id.0);
        Operation::new(async move { Transfer::from_core(&messenger.transfer(id).await?) })
    }

    fn events(&self, after: &Cursor) -> Events {
        Events::new(self.0.clone(), after.0)
    }

    fn cursor(&self) -> Operation {
        let messenger = self.0.clone();
        Operation::new(async move { messenger.cursor().await.map(Cursor) })
    }

    fn __aenter__(this: Bound<'_, Self>) -> Operation {
        Operation::ready(this.into_any().unbind())
    }

    fn __aexit__(
        &self,
        _exception_type: Bound<'_, PyAny>,
        _exception: Bound<'_, PyAny>,
        _traceback: Bound<'_, PyAny>,
    ) -> Operation {
        self.shutdown()
    }

    fn __repr__(&self) -> String {
        format!("{:?}", self.0)
    }
}
