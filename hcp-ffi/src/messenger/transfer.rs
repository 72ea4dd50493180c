//! File transfers as the foreign languages see them.

use std::sync::Arc;

use hcp_core::messenger as core;
use hcp_core::messenger::TransferId;

use super::message::Direction;
use crate::error::HcpError;
use crate::identity::OnionAddress;
use crate::mirror::mirror;

// Names a transfer on both sides: 32 hexadecimal digits.
uniffi::custom_type!(TransferId, String, {
    remote,
    try_lift: |text| Ok(text.parse().map_err(HcpError::from)?),
    lower: |id| id.to_string(),
});

/// A file on its way.
#[derive(Clone, Debug, uniffi::Record)]
pub struct Transfer {
    /// Its name.
    pub id: TransferId,
    /// With whom.
    pub contact: Arc<OnionAddress>,
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
    /// Where the file is here: what is offered, or where it is saved once accepted. What is not Unicode in it is replaced.
    pub path: Option<String>,
}

impl From<core::Transfer> for Transfer {
    fn from(transfer: core::Transfer) -> Self {
        Self {
            id: transfer.id,
            contact: OnionAddress::shared(transfer.contact),
            direction: transfer.direction.into(),
            name: transfer.name,
            size: transfer.size,
            done: transfer.done,
            state: transfer.state.into(),
            path: transfer.path.map(|path| path.to_string_lossy().into_owned()),
        }
    }
}

/// Where a transfer stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, uniffi::Enum)]
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
    Failed {
        /// Why.
        reason: TransferFailure,
    },
}

impl From<core::TransferState> for TransferState {
    fn from(state: core::TransferState) -> Self {
        match state {
            core::TransferState::Offered => Self::Offered,
            core::TransferState::Done => Self::Done,
            core::TransferState::Declined => Self::Declined,
            core::TransferState::Cancelled => Self::Cancelled,
            core::TransferState::Failed(reason) => Self::Failed { reason: reason.into() },
            // A state between offered and ended: whoever does not know it knows this much.
            _ => Self::Running,
        }
    }
}

/// Why a transfer cannot be completed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, uniffi::Enum)]
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

mirror!(core::TransferFailure => TransferFailure { Mismatch, SourceChanged, Disk, Removed; else Disk });
