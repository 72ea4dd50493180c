//! File transfers.

use std::path::PathBuf;

use hcp_core::messenger as core;
use pyo3::prelude::*;

use super::message::Direction;
use crate::errors::Failure;
use crate::identity::OnionAddress;

/// Names a transfer on both sides.
#[pyclass(frozen, eq, ord, hash, from_py_object, module = "hcp")]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct TransferId(pub(super) core::TransferId);

#[pymethods]
impl TransferId {
    #[new]
    fn new(text: &str) -> Result<Self, Failure> {
        Ok(Self(text.parse::<core::TransferId>()?))
    }

    fn __str__(&self) -> String {
        self.0.to_string()
    }

    fn __repr__(&self) -> String {
        format!("{:?}", self.0)
    }
}

/// A file on its way.
#[pyclass(frozen, eq, from_py_object, module = "hcp")]
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Transfer {
    #[pyo3(get)]
    id: TransferId,
    #[pyo3(get)]
    contact: OnionAddress,
    #[pyo3(get)]
    direction: Direction,
    #[pyo3(get)]
    name: String,
    #[pyo3(get)]
    size: u64,
    #[pyo3(get)]
    done: u64,
    #[pyo3(get)]
    state: TransferState,
    #[pyo3(get)]
    failure: Option<TransferFailure>,
    #[pyo3(get)]
    path: Option<PathBuf>,
}

impl Transfer {
    pub(super) fn from_core(transfer: &core::Transfer) -> Result<Self, Failure> {
        let (state, failure) = TransferState::from_core(transfer.state)?;
        Ok(Self {
            id: TransferId(transfer.id),
            contact: OnionAddress(transfer.contact),
            direction: Direction::from_core(transfer.direction),
            name: transfer.name.clone(),
            size: transfer.size,
            done: transfer.done,
            state,
            failure,
            path: transfer.path.clone(),
        })
    }
}

#[pymethods]
impl Transfer {
    fn __repr__(&self) -> String {
        format!("<Transfer {}, {:?}, {:?}>", self.id.0, self.direction, self.state)
    }
}

/// Where a transfer stands.
#[pyclass(frozen, eq, hash, from_py_object, rename_all = "SCREAMING_SNAKE_CASE", module = "hcp")]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum TransferState {
    Offered,
    Running,
    Done,
    Declined,
    Cancelled,
    Failed,
}

impl TransferState {
    /// The reason stands beside the state, so that states can be compared.
    pub(super) fn from_core(state: core::TransferState) -> Result<(Self, Option<TransferFailure>), Failure> {
        Ok(match state {
            core::TransferState::Offered => (Self::Offered, None),
            core::TransferState::Running => (Self::Running, None),
            core::TransferState::Done => (Self::Done, None),
            core::TransferState::Declined => (Self::Declined, None),
            core::TransferState::Cancelled => (Self::Cancelled, None),
            core::TransferState::Failed(reason) => (Self::Failed, Some(TransferFailure::from_core(reason)?)),
            other => return Err(Failure::unknown(&other)),
        })
    }
}

/// Why a transfer cannot be completed.
#[pyclass(frozen, eq, hash, from_py_object, rename_all = "SCREAMING_SNAKE_CASE", module = "hcp")]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum TransferFailure {
    Mismatch,
    SourceChanged,
    Disk,
    Removed,
}

impl TransferFailure {
    fn from_core(reason: core::TransferFailure) -> Result<Self, Failure> {
        Ok(match reason {
            core::TransferFailure::Mismatch => Self::Mismatch,
            core::TransferFailure::SourceChanged => Self::SourceChanged,
            core::TransferFailure::Disk => Self::Disk,
            core::TransferFailure::Removed => Self::Removed,
            other => return Err(Failure::unknown(&other)),
        })
    }
}
