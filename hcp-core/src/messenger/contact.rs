//! Contacts as an application sees them.

use std::fmt;
use std::sync::Arc;

use super::text::TextError;
use crate::error::ErrorKind;
use crate::identity::OnionAddress;
use crate::store::StoreError;

/// The most contacts of a profile, in any state.
pub const MAX_CONTACTS: usize = 1000;
/// Contact requests that wait for an answer at once; further ones are told to come back later.
pub const MAX_PENDING: usize = 50;

/// Somebody this profile knows, or who wants to be known.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Contact {
    /// Who it is.
    pub address: OnionAddress,
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

impl fmt::Debug for Contact {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Contact").field("state", &self.state).field("presence", &self.presence).finish_non_exhaustive()
    }
}

/// Where this profile and a contact stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
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

/// Whether a contact is there, and how much.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Presence {
    /// No recent round trip.
    #[default]
    Offline,
    /// There.
    Available,
    /// There, and away from the keyboard.
    Away,
    /// There, and away for longer.
    ExtendedAway,
}

/// How this user is, while online.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Availability {
    /// There.
    #[default]
    Available,
    /// Away from the keyboard.
    Away,
    /// Away for longer.
    ExtendedAway,
}

/// Why an operation on a contact failed.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ContactError {
    /// Nobody with this address is in the list.
    #[error("no contact has this address")]
    Unknown,
    /// The address is the profile's own.
    #[error("this is the profile's own address")]
    Own,
    /// The operation does not fit the state.
    #[error("this cannot be done with a contact that is {0:?}")]
    State(ContactState),
    /// A name or greeting is refused.
    #[error("the name or greeting is refused: {0}")]
    Text(#[from] TextError),
    /// There are [`MAX_CONTACTS`] already.
    #[error("the list of contacts is full: {MAX_CONTACTS}")]
    Full,
    /// The profile's database failed; nothing was changed.
    #[error("the profile's database failed: {0}")]
    Store(#[source] Arc<StoreError>),
    /// The messenger was shut down.
    #[error("the messenger is shut down")]
    Closed,
}

impl ContactError {
    /// What a caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Unknown | Self::Own | Self::State(_) | Self::Text(_) => ErrorKind::InvalidInput,
            Self::Full => ErrorKind::LimitExceeded,
            Self::Store(error) => error.kind(),
            Self::Closed => ErrorKind::Closed,
        }
    }
}
