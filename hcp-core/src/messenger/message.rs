//! Messages as an application sees them.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::SystemTime;

use data_encoding::HEXLOWER;

use super::contact::ContactState;
use super::text::TextError;
use crate::error::ErrorKind;
use crate::identity::OnionAddress;
use crate::store::StoreError;

/// Messages to one contact that may wait to be sent.
pub const MAX_QUEUED: usize = 10_000;
/// The most messages that one call returns.
pub const MAX_PAGE: usize = 1000;

/// Names a message for ever, on both sides; 128 random bits, written as 32 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MessageId(pub(super) [u8; 16]);

/// Which way something goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Direction {
    /// From the contact to this profile.
    Incoming,
    /// From this profile to the contact.
    Outgoing,
}

/// A text message.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Message {
    /// Its name.
    pub id: MessageId,
    /// With whom.
    pub contact: OnionAddress,
    /// Which way.
    pub direction: Direction,
    /// What it says: at most [`MAX_TEXT`](super::MAX_TEXT) bytes, without control characters other than line ends and
    /// tabs.
    pub text: String,
    /// What became of it.
    pub state: MessageState,
    /// When it was written, by the sender's clock, but never later than it arrived. For showing only.
    pub time: SystemTime,
    /// Its place in the history here, which is the order of arrival; for paging.
    pub position: u64,
}

impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Message").field("id", &self.id).field("state", &self.state).finish_non_exhaustive()
    }
}

/// What became of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum MessageState {
    /// On this disk, waiting for the contact; can be cancelled.
    Queued,
    /// On its way; it may have arrived.
    Written,
    /// On the contact's disk; of an incoming message: on this one.
    Delivered,
    /// It will never be delivered.
    Failed(FailureReason),
    /// Taken back before it was on its way.
    Cancelled,
}

/// Why a message will never be delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum FailureReason {
    /// The contact said no to the contact request.
    Rejected,
    /// The contact took this profile off its list.
    Removed,
}

impl fmt::Display for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&HEXLOWER.encode(&self.0))
    }
}

impl fmt::Debug for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MessageId({self})")
    }
}

impl FromStr for MessageId {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        parse_id(text).map(Self)
    }
}

pub(super) fn parse_id(text: &str) -> Result<[u8; 16], IdError> {
    HEXLOWER.decode(text.as_bytes()).ok().and_then(|bytes| bytes.try_into().ok()).ok_or(IdError)
}

/// A text that is no id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an id has 32 lowercase hexadecimal digits")]
pub struct IdError;

impl IdError {
    /// What a caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        ErrorKind::InvalidInput
    }
}

/// Why an operation on messages failed.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MessageError {
    /// Nobody with this address is in the list.
    #[error("no contact has this address")]
    UnknownContact,
    /// Nothing can be written to a contact in this state.
    #[error("nothing can be written to a contact that is {0:?}")]
    State(ContactState),
    /// The text is refused.
    #[error("the text is refused: {0}")]
    Text(#[from] TextError),
    /// [`MAX_QUEUED`] messages to this contact wait already.
    #[error("the queue to this contact is full: {MAX_QUEUED}")]
    QueueFull,
    /// No message has this id.
    #[error("no message has this id")]
    Unknown,
    /// Only a queued message can be cancelled.
    #[error("the message cannot be cancelled any more: it is {0:?}")]
    TooLate(MessageState),
    /// The profile's database failed; nothing was changed.
    #[error("the profile's database failed: {0}")]
    Store(#[source] Arc<StoreError>),
    /// The messenger was shut down.
    #[error("the messenger is shut down")]
    Closed,
}

impl MessageError {
    /// What a caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::UnknownContact | Self::State(_) | Self::Text(_) | Self::Unknown => ErrorKind::InvalidInput,
            Self::TooLate(_) => ErrorKind::Refused,
            Self::QueueFull => ErrorKind::LimitExceeded,
            Self::Store(error) => error.kind(),
            Self::Closed => ErrorKind::Closed,
        }
    }
}
