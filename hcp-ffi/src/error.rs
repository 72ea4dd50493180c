//! The one error of the bindings: a case for each of the core's kinds, which says what a caller can do about it.

use std::error::Error;

use hcp_core::error::ErrorKind as CoreKind;

use crate::mirror::mirror;

/// Why something failed; each case says what a caller can do about it.
#[derive(Debug, thiserror::Error, uniffi::Error)]
#[uniffi(flat_error)]
#[non_exhaustive]
pub enum HcpError {
    /// An argument, a file or a configuration is wrong; retrying cannot help.
    #[error("{message}")]
    InvalidInput {
        /// What happened.
        message: String,
    },
    /// A peer broke the protocol; the connection to it is gone.
    #[error("{message}")]
    ProtocolViolation {
        /// What happened.
        message: String,
    },
    /// A key, signature or passphrase does not fit.
    #[error("{message}")]
    Authentication {
        /// What happened.
        message: String,
    },
    /// The other side understood and said no.
    #[error("{message}")]
    Refused {
        /// What happened.
        message: String,
    },
    /// The other side or the network cannot be reached now; retrying later may help.
    #[error("{message}")]
    Unreachable {
        /// What happened.
        message: String,
    },
    /// A deadline passed.
    #[error("{message}")]
    TimedOut {
        /// What happened.
        message: String,
    },
    /// A limit was reached: a queue, a frame, a disk.
    #[error("{message}")]
    LimitExceeded {
        /// What happened.
        message: String,
    },
    /// Somebody else holds the resource: a state directory, a port.
    #[error("{message}")]
    InUse {
        /// What happened.
        message: String,
    },
    /// Reading or writing local storage failed.
    #[error("{message}")]
    Storage {
        /// What happened.
        message: String,
    },
    /// The session, node or stream was shut down.
    #[error("{message}")]
    Closed {
        /// What happened.
        message: String,
    },
    /// Something that should not happen; a bug or a broken environment.
    #[error("{message}")]
    Internal {
        /// What happened.
        message: String,
    },
    /// The caller cancelled it, through a `Cancellation`.
    #[error("{message}")]
    Cancelled {
        /// What happened.
        message: String,
    },
}

impl HcpError {
    pub(crate) fn new(kind: CoreKind, message: impl Into<String>) -> Self {
        let message = message.into();
        match kind {
            CoreKind::InvalidInput => Self::InvalidInput { message },
            CoreKind::ProtocolViolation => Self::ProtocolViolation { message },
            CoreKind::Authentication => Self::Authentication { message },
            CoreKind::Refused => Self::Refused { message },
            CoreKind::Unreachable => Self::Unreachable { message },
            CoreKind::TimedOut => Self::TimedOut { message },
            CoreKind::LimitExceeded => Self::LimitExceeded { message },
            CoreKind::InUse => Self::InUse { message },
            CoreKind::Storage => Self::Storage { message },
            CoreKind::Closed => Self::Closed { message },
            // A kind that the core has and this does not know yet is a defect of this crate.
            _ => Self::Internal { message },
        }
    }

    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self::new(CoreKind::InvalidInput, message)
    }

    pub(crate) fn closed(message: impl Into<String>) -> Self {
        Self::new(CoreKind::Closed, message)
    }

    pub(crate) fn in_use(message: impl Into<String>) -> Self {
        Self::new(CoreKind::InUse, message)
    }

    pub(crate) fn cancelled() -> Self {
        Self::Cancelled { message: "cancelled".into() }
    }
}

/// What a caller can do about an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, uniffi::Enum)]
#[non_exhaustive]
pub enum ErrorKind {
    /// An argument, a file or a configuration is wrong; retrying cannot help.
    InvalidInput,
    /// A peer broke the protocol; the connection to it is gone.
    ProtocolViolation,
    /// A key, signature or passphrase does not fit.
    Authentication,
    /// The other side understood and said no.
    Refused,
    /// The other side or the network cannot be reached now; retrying later may help.
    Unreachable,
    /// A deadline passed.
    TimedOut,
    /// A limit was reached: a queue, a frame, a disk.
    LimitExceeded,
    /// Somebody else holds the resource: a state directory, a port.
    InUse,
    /// Reading or writing local storage failed.
    Storage,
    /// The session, node or stream was shut down.
    Closed,
    /// Something that should not happen; a bug or a broken environment.
    Internal,
}

mirror!(CoreKind => ErrorKind {
    InvalidInput, ProtocolViolation, Authentication, Refused, Unreachable, TimedOut, LimitExceeded, InUse, Storage, Closed,
    Internal; else Internal
});

/// The message of an error with those of its causes, as far as they add something.
pub(crate) fn message(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let more = cause.to_string();
        if !text.contains(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        source = cause.source();
    }
    text
}

macro_rules! from_core {
    ($($error:path),+ $(,)?) => {$(
        impl From<$error> for HcpError {
            fn from(error: $error) -> Self {
                Self::new(error.kind(), message(&error))
            }
        }
    )+};
}

from_core!(
    hcp_core::identity::AddressError,
    hcp_core::identity::DiscoveryKeyError,
    hcp_core::identity::EmptyPassphrase,
    hcp_core::identity::ExpandedKeyError,
    hcp_core::identity::SignatureError,
    hcp_core::identity::ctor::ExportKeyError,
    hcp_core::identity::ctor::ImportKeyError,
    hcp_core::identity::delegation::DelegationError,
    hcp_core::identity::delegation::IssueError,
    hcp_core::identity::keyfile::CostError,
    hcp_core::identity::keyfile::LoadKeyError,
    hcp_core::identity::keyfile::SaveKeyError,
    hcp_core::messenger::ContactError,
    hcp_core::messenger::EventsError,
    hcp_core::messenger::GoOnlineError,
    hcp_core::messenger::IdError,
    hcp_core::messenger::MessageError,
    hcp_core::messenger::ProfileError,
    hcp_core::messenger::TransferError,
    hcp_core::network::ListenError,
    hcp_core::network::LocalNetworkError,
    hcp_core::network::tor::BootstrapError,
    hcp_core::node::BackoffError,
    hcp_core::node::BindError,
    hcp_core::node::ConnectError,
    hcp_core::node::OpenError,
    hcp_core::node::RecvError,
    hcp_core::node::RenewError,
    hcp_core::node::SendError,
    hcp_core::testing::DescriptionError,
);
