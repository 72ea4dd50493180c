//! File transfers as an application sees them.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;

use data_encoding::HEXLOWER;

use super::contact::ContactState;
use super::message::{Direction, IdError, parse_id};
use super::text::TextError;
use crate::error::ErrorKind;
use crate::identity::OnionAddress;
use crate::store::StoreError;

/// The largest file that can be offered or accepted, in bytes.
pub const MAX_FILE: u64 = 64 * 1024 * 1024 * 1024;
/// Disk space that transfers and what contacts write leave free, in bytes: on a full disk the user could do nothing any more,
/// not even block somebody.
pub const DISK_RESERVE: u64 = 64 * 1024 * 1024;

/// Names a transfer on both sides; 128 random bits, written as 32 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TransferId(pub(super) [u8; 16]);

/// A file on its way.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Transfer {
    /// Its name.
    pub id: TransferId,
    /// With whom.
    pub contact: OnionAddress,
    /// Which way.
    pub direction: Direction,
    /// The file's own name, without any folder, made harmless.
    pub name: String,
    /// Bytes in all.
    pub size: u64,
    /// Bytes that are on the receiver's disk and verified, as far as this side knows.
    pub done: u64,
    /// Where it stands.
    pub state: TransferState,
    /// Where the file is here: what is offered, or where it is saved once accepted.
    pub path: Option<PathBuf>,
}

impl fmt::Debug for Transfer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Transfer")
            .field("id", &self.id)
            .field("direction", &self.direction)
            .field("state", &self.state)
            .finish_non_exhaustive()
    }
}

/// Where a transfer stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum TransferState {
    /// Offered and not answered.
    Offered,
    /// Accepted; bytes flow when both are there.
    Running,
    /// All bytes are on the receiver's disk and verified.
    Done,
    /// The receiver said no.
    Declined,
    /// One of the two ended it.
    Cancelled,
    /// It cannot be completed.
    Failed(TransferFailure),
}

/// Why a transfer cannot be completed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum TransferFailure {
    /// What came is not what was offered.
    Mismatch,
    /// The offered file is gone or was changed.
    SourceChanged,
    /// The receiver could not write, or something else stands where the file belongs.
    Disk,
    /// The contact left the list of the other.
    Removed,
}

impl fmt::Display for TransferId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&HEXLOWER.encode(&self.0))
    }
}

impl fmt::Debug for TransferId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TransferId({self})")
    }
}

impl FromStr for TransferId {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        parse_id(text).map(Self)
    }
}

/// Why an operation on a transfer failed.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TransferError {
    /// Nobody with this address is in the list.
    #[error("no contact has this address")]
    UnknownContact,
    /// Nothing can be offered to a contact in this state.
    #[error("nothing can be offered to a contact that is {0:?}")]
    ContactState(ContactState),
    /// Another file to this contact is on its way; one at a time.
    #[error("another file to this contact is on its way; wait for it or cancel it")]
    Busy,
    /// No transfer has this id.
    #[error("no transfer has this id")]
    Unknown,
    /// The operation does not fit the transfer's state.
    #[error("this cannot be done with a transfer that is {0:?}")]
    State(TransferState),
    /// The operation does not fit the transfer's direction.
    #[error("this cannot be done with an {} transfer", if *.0 == Direction::Incoming { "incoming" } else { "outgoing" })]
    Direction(Direction),
    /// The file is larger than [`MAX_FILE`].
    #[error("the file has {size} bytes, more than the limit of {MAX_FILE}")]
    TooLarge {
        /// Bytes of the file.
        size: u64,
    },
    /// The file's name is refused.
    #[error("the file's name is refused: {0}")]
    Name(#[from] TextError),
    /// Something stands already where the file should be saved.
    #[error("something of this name exists already; choose another path")]
    Exists,
    /// The disk has too little space left.
    #[error("the disk has too little space: {needed} bytes are needed, {available} are free")]
    NoSpace {
        /// Bytes that the file and the reserve need.
        needed: u64,
        /// Bytes that are free.
        available: u64,
    },
    /// The file cannot be read, or the place to save it cannot be written.
    #[error("the file system refused: {0}")]
    Io(#[source] Arc<std::io::Error>),
    /// The profile's database failed; nothing was changed.
    #[error("the profile's database failed: {0}")]
    Store(#[source] Arc<StoreError>),
    /// The messenger was shut down.
    #[error("the messenger is shut down")]
    Closed,
}

impl TransferError {
    /// What a caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::UnknownContact
            | Self::ContactState(_)
            | Self::Unknown
            | Self::State(_)
            | Self::Direction(_)
            | Self::TooLarge { .. }
            | Self::Name(_)
            | Self::Exists => ErrorKind::InvalidInput,
            Self::Busy => ErrorKind::Refused,
            Self::NoSpace { .. } => ErrorKind::LimitExceeded,
            Self::Io(_) => ErrorKind::Storage,
            Self::Store(error) => error.kind(),
            Self::Closed => ErrorKind::Closed,
        }
    }
}
