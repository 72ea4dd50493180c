//! Messages.

use std::time::SystemTime;

use hcp_core::messenger as core;
use pyo3::prelude::*;

use crate::errors::Failure;
use crate::identity::OnionAddress;

/// Names a message for ever, on both sides.
#[pyclass(frozen, eq, ord, hash, from_py_object, module = "hcp")]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct MessageId(pub(super) core::MessageId);

#[pymethods]
impl MessageId {
    #[new]
    fn new(text: &str) -> Result<Self, Failure> {
        Ok(Self(text.parse::<core::MessageId>()?))
    }

    fn __str__(&self) -> String {
        self.0.to_string()
    }

    fn __repr__(&self) -> String {
        format!("{:?}", self.0)
    }
}

/// Which way something goes.
#[pyclass(frozen, eq, hash, from_py_object, rename_all = "SCREAMING_SNAKE_CASE", module = "hcp")]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Direction {
    Incoming,
    Outgoing,
}

impl Direction {
    pub(super) fn from_core(direction: core::Direction) -> Self {
        match direction {
            core::Direction::Incoming => Self::Incoming,
            core::Direction::Outgoing => Self::Outgoing,
        }
    }
}

/// A text message.
#[pyclass(frozen, eq, from_py_object, module = "hcp")]
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Message {
    #[pyo3(get)]
    id: MessageId,
    #[pyo3(get)]
    contact: OnionAddress,
    #[pyo3(get)]
    direction: Direction,
    #[pyo3(get)]
    text: String,
    #[pyo3(get)]
    state: MessageState,
    #[pyo3(get)]
    failure: Option<FailureReason>,
    #[pyo3(get)]
    time: SystemTime,
    #[pyo3(get)]
    position: u64,
}

impl Message {
    pub(super) fn from_core(message: &core::Message) -> Result<Self, Failure> {
        let (state, failure) = MessageState::from_core(message.state)?;
        Ok(Self {
            id: MessageId(message.id),
            contact: OnionAddress(message.contact),
            direction: Direction::from_core(message.direction),
            text: message.text.clone(),
            state,
            failure,
            time: message.time,
            position: message.position,
        })
    }
}

#[pymethods]
impl Message {
    fn __repr__(&self) -> String {
        format!("<Message {}, {:?}, {:?}>", self.id.0, self.direction, self.state)
    }
}

/// What became of a message.
#[pyclass(frozen, eq, hash, from_py_object, rename_all = "SCREAMING_SNAKE_CASE", module = "hcp")]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum MessageState {
    Queued,
    Written,
    Delivered,
    Failed,
    Cancelled,
}

impl MessageState {
    /// The reason stands beside the state, so that states can be compared.
    pub(super) fn from_core(state: core::MessageState) -> Result<(Self, Option<FailureReason>), Failure> {
        Ok(match state {
            core::MessageState::Queued => (Self::Queued, None),
            core::MessageState::Written => (Self::Written, None),
            core::MessageState::Delivered => (Self::Delivered, None),
            core::MessageState::Failed(reason) => (Self::Failed, Some(FailureReason::from_core(reason)?)),
            core::MessageState::Cancelled => (Self::Cancelled, None),
            other => return Err(Failure::unknown(&other)),
        })
    }
}

/// Why a message will never be delivered.
#[pyclass(frozen, eq, hash, from_py_object, rename_all = "SCREAMING_SNAKE_CASE", module = "hcp")]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum FailureReason {
    Rejected,
    Removed,
}

impl FailureReason {
    fn from_core(reason: core::FailureReason) -> Result<Self, Failure> {
        Ok(match reason {
            core::FailureReason::Rejected => Self::Rejected,
            core::FailureReason::Removed => Self::Removed,
            other => return Err(Failure::unknown(&other)),
        })
    }
}
