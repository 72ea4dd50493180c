//! Messages as the foreign languages see them.

use std::sync::Arc;
use std::time::SystemTime;

use hcp_core::messenger as core;
use hcp_core::messenger::MessageId;

use crate::error::HcpError;
use crate::identity::OnionAddress;
use crate::mirror::mirror;

// Names a message for ever, on both sides: 32 hexadecimal digits.
uniffi::custom_type!(MessageId, String, {
    remote,
    try_lift: |text| Ok(text.parse().map_err(HcpError::from)?),
    lower: |id| id.to_string(),
});

/// Which way something goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, uniffi::Enum)]
pub enum Direction {
    /// From the contact to this profile.
    Incoming,
    /// From this profile to the contact.
    Outgoing,
}

mirror!(core::Direction => Direction { Incoming, Outgoing });

/// A text message.
#[derive(Clone, Debug, uniffi::Record)]
pub struct Message {
    /// Its name.
    pub id: MessageId,
    /// With whom.
    pub contact: Arc<OnionAddress>,
    /// Which way.
    pub direction: Direction,
    /// What it says: at most `maxText` bytes, without control characters other than line ends and tabs.
    pub text: String,
    /// What became of it.
    pub state: MessageState,
    /// When it was written, by the sender's clock, but never later than it arrived. For showing only.
    pub time: SystemTime,
    /// Its place in the history here, which is the order of arrival; for paging.
    pub position: u64,
}

impl From<core::Message> for Message {
    fn from(message: core::Message) -> Self {
        Self {
            id: message.id,
            contact: OnionAddress::shared(message.contact),
            direction: message.direction.into(),
            text: message.text,
            state: message.state.into(),
            time: message.time,
            position: message.position,
        }
    }
}

/// What became of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, uniffi::Enum)]
#[non_exhaustive]
pub enum MessageState {
    /// On this disk, waiting for the contact; can be cancelled.
    Queued,
    /// On its way; it may have arrived.
    Written,
    /// On the contact's disk; of an incoming message: on this one.
    Delivered,
    /// It will never be delivered.
    Failed {
        /// Why.
        reason: FailureReason,
    },
    /// Taken back before it was on its way.
    Cancelled,
}

impl From<core::MessageState> for MessageState {
    fn from(state: core::MessageState) -> Self {
        match state {
            core::MessageState::Queued => Self::Queued,
            core::MessageState::Delivered => Self::Delivered,
            core::MessageState::Failed(reason) => Self::Failed { reason: reason.into() },
            core::MessageState::Cancelled => Self::Cancelled,
            // A state between queued and delivered: whoever does not know it knows this much.
            _ => Self::Written,
        }
    }
}

/// Why a message will never be delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, uniffi::Enum)]
pub enum FailureReason {
    /// The contact said no to the contact request.
    Rejected,
    /// The contact took this profile off its list.
    Removed,
}

mirror!(core::FailureReason => FailureReason { Rejected, Removed; else Removed });
