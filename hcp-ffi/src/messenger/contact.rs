//! Contacts as the foreign languages see them.

use std::sync::Arc;

use hcp_core::messenger as core;

use crate::identity::OnionAddress;
use crate::mirror::mirror;

/// Somebody this profile knows, or who wants to be known.
#[derive(Clone, Debug, uniffi::Record)]
pub struct Contact {
    /// Who it is.
    pub address: Arc<OnionAddress>,
    /// What the user calls them; empty when the user gave no name.
    pub petname: String,
    /// What they call themselves; anybody can claim any name.
    pub name: String,
    /// What came, or went, with the contact request.
    pub greeting: String,
    /// Where the two stand.
    pub state: ContactState,
    /// Whether they are there; never from anything but a recent round trip.
    pub presence: Presence,
}

impl From<core::Contact> for Contact {
    fn from(contact: core::Contact) -> Self {
        Self {
            address: OnionAddress::shared(contact.address),
            petname: contact.petname,
            name: contact.name,
            greeting: contact.greeting,
            state: contact.state.into(),
            presence: contact.presence.into(),
        }
    }
}

/// Where this profile and a contact stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq, uniffi::Enum)]
#[non_exhaustive]
pub enum ContactState {
    /// Kept in the list; nothing was asked.
    Draft,
    /// Asked; the request has not reached them.
    RequestQueued,
    /// Asked; the request lies in their inbox.
    RequestSent,
    /// They asked; the request lies in the inbox here.
    Pending,
    /// Both have agreed.
    Accepted,
    /// They asked, and this user said no.
    Declined,
    /// This user asked, and they said no.
    Rejected,
    /// Their sessions get what a stranger's get, and nothing of theirs is shown.
    Blocked,
    /// They took this profile off their list; what was written stays.
    RemovedByPeer,
    /// This user took them off the list; what was written stays.
    Archived,
}

mirror!(core::ContactState => ContactState {
    Draft, RequestQueued, RequestSent, Pending, Accepted, Declined, Rejected, Blocked, RemovedByPeer, Archived;
    else Archived
});

/// Whether a contact is there, and how much.
#[derive(Clone, Copy, Debug, PartialEq, Eq, uniffi::Enum)]
#[non_exhaustive]
pub enum Presence {
    /// No recent round trip.
    Offline,
    /// There.
    Available,
    /// There, and away from the keyboard.
    Away,
    /// There, and away for longer.
    ExtendedAway,
}

mirror!(core::Presence => Presence { Offline, Available, Away, ExtendedAway; else Offline });

/// How this user is, while online.
#[derive(Clone, Copy, Debug, PartialEq, Eq, uniffi::Enum)]
#[non_exhaustive]
pub enum Availability {
    /// There.
    Available,
    /// Away from the keyboard.
    Away,
    /// Away for longer.
    ExtendedAway,
}

mirror!(Availability => core::Availability { Available, Away, ExtendedAway });
