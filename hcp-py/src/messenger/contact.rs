//! Contacts.

use hcp_core::messenger as core;
use pyo3::prelude::*;

use crate::errors::Failure;
use crate::identity::OnionAddress;

/// Somebody this profile knows, or who wants to be known.
#[pyclass(frozen, eq, from_py_object, module = "hcp")]
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Contact {
    #[pyo3(get)]
    address: OnionAddress,
    #[pyo3(get)]
    petname: String,
    #[pyo3(get)]
    name: String,
    #[pyo3(get)]
    greeting: String,
    #[pyo3(get)]
    state: ContactState,
    #[pyo3(get)]
    presence: Presence,
}

impl Contact {
    pub(super) fn from_core(contact: &core::Contact) -> Result<Self, Failure> {
        Ok(Self {
            address: OnionAddress(contact.address),
            petname: contact.petname.clone(),
            name: contact.name.clone(),
            greeting: contact.greeting.clone(),
            state: ContactState::from_core(contact.state)?,
            presence: Presence::from_core(contact.presence)?,
        })
    }
}

#[pymethods]
impl Contact {
    fn __repr__(&self) -> String {
        format!("<Contact {:?}, {:?}>", self.state, self.presence)
    }
}

/// Where this profile and a contact stand.
#[pyclass(frozen, eq, hash, from_py_object, rename_all = "SCREAMING_SNAKE_CASE", module = "hcp")]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum ContactState {
    Draft,
    RequestQueued,
    RequestSent,
    Pending,
    Accepted,
    Declined,
    Rejected,
    Blocked,
    RemovedByPeer,
    Archived,
}

impl ContactState {
    fn from_core(state: core::ContactState) -> Result<Self, Failure> {
        Ok(match state {
            core::ContactState::Draft => Self::Draft,
            core::ContactState::RequestQueued => Self::RequestQueued,
            core::ContactState::RequestSent => Self::RequestSent,
            core::ContactState::Pending => Self::Pending,
            core::ContactState::Accepted => Self::Accepted,
            core::ContactState::Declined => Self::Declined,
            core::ContactState::Rejected => Self::Rejected,
            core::ContactState::Blocked => Self::Blocked,
            core::ContactState::RemovedByPeer => Self::RemovedByPeer,
            core::ContactState::Archived => Self::Archived,
            other => return Err(Failure::unknown(&other)),
        })
    }
}

/// Whether a contact is there, and how much.
#[pyclass(frozen, eq, hash, from_py_object, rename_all = "SCREAMING_SNAKE_CASE", module = "hcp")]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Presence {
    Offline,
    Available,
    Away,
    ExtendedAway,
}

impl Presence {
    pub(super) fn from_core(presence: core::Presence) -> Result<Self, Failure> {
        Ok(match presence {
            core::Presence::Offline => Self::Offline,
            core::Presence::Available => Self::Available,
            core::Presence::Away => Self::Away,
            core::Presence::ExtendedAway => Self::ExtendedAway,
            other => return Err(Failure::unknown(&other)),
        })
    }
}

/// How this user is, while online.
#[pyclass(frozen, eq, hash, rename_all = "SCREAMING_SNAKE_CASE", module = "hcp")]
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Availability {
    Available,
    Away,
    ExtendedAway,
}

impl Availability {
    pub(super) fn to_core(self) -> core::Availability {
        match self {
            Self::Available => core::Availability::Available,
            Self::Away => core::Availability::Away,
            Self::ExtendedAway => core::Availability::ExtendedAway,
        }
    }
}
