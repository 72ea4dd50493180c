//! From the core's errors to the exception classes of `hcp.errors`, one for each kind.
//!
//! An exception carries the kind as its class, the name of the core's error as `reason`, and the causes below it as notes.

use std::error::Error;
use std::fmt::Debug;

use hcp_core::error::ErrorKind;
use hcp_core::identity::delegation::{DelegationError, IssueError};
use hcp_core::identity::keyfile::{CostError, LoadKeyError, SaveKeyError};
use hcp_core::identity::{AddressError, DiscoveryKeyError, EmptyPassphrase, ExpandedKeyError, SignatureError, ctor};
use hcp_core::messenger::{
    ContactError, EventsError, GoOnlineError, IdError, MessageError, ProfileError, TransferError,
};
use hcp_core::network::tor::BootstrapError;
use hcp_core::network::{DialError, ListenError, LocalNetworkError};
use hcp_core::node::{BackoffError, BindError, ConnectError, OpenError, RecvError, RenewError, SendError};
use hcp_core::session::SessionError;
use hcp_core::testing::DescriptionError;
use pyo3::prelude::*;

use self::python::{
    AuthenticationError, ClosedError, HcpError, InUseError, InternalError, InvalidInputError, LimitExceededError,
    ProtocolViolationError, RefusedError, StorageError, TimedOutError, UnreachableError,
};

/// The classes of `python/hcp/errors.py`.
mod python {
    use pyo3::import_exception;

    import_exception!(hcp.errors, HcpError);
    import_exception!(hcp.errors, InvalidInputError);
    import_exception!(hcp.errors, ProtocolViolationError);
    import_exception!(hcp.errors, AuthenticationError);
    import_exception!(hcp.errors, RefusedError);
    import_exception!(hcp.errors, UnreachableError);
    import_exception!(hcp.errors, TimedOutError);
    import_exception!(hcp.errors, LimitExceededError);
    import_exception!(hcp.errors, InUseError);
    import_exception!(hcp.errors, StorageError);
    import_exception!(hcp.errors, ClosedError);
    import_exception!(hcp.errors, InternalError);
}

/// An error of the core, or one of the binding's own, on its way to Python.
#[derive(Debug)]
pub(crate) struct Failure {
    kind: ErrorKind,
    reason: String,
    message: String,
    causes: Vec<String>,
}

impl Failure {
    /// An argument that the core's types cannot even hold.
    pub(crate) fn invalid_input(reason: &str, message: impl Into<String>) -> Self {
        Self { kind: ErrorKind::InvalidInput, reason: reason.into(), message: message.into(), causes: Vec::new() }
    }

    /// The object was shut down, or its owner was.
    pub(crate) fn closed(message: &str) -> Self {
        Self { kind: ErrorKind::Closed, reason: "Shutdown".into(), message: message.into(), causes: Vec::new() }
    }

    /// What can be used once is in use.
    pub(crate) fn in_use(message: &str) -> Self {
        Self { kind: ErrorKind::InUse, reason: "InUse".into(), message: message.into(), causes: Vec::new() }
    }

    /// A value that the core has and this binding does not know yet; its `Debug` form tells no secret.
    pub(crate) fn unknown(value: &dyn Debug) -> Self {
        Self::internal(format!("a value that this version does not know: {value:?}"))
    }

    /// A task of the runtime was lost.
    pub(crate) fn internal(message: impl Into<String>) -> Self {
        Self { kind: ErrorKind::Internal, reason: "Internal".into(), message: message.into(), causes: Vec::new() }
    }

    fn from_core(kind: ErrorKind, error: &(dyn Error + 'static)) -> Self {
        let mut causes = Vec::new();
        let mut source = error.source();
        while let Some(cause) = source
            && causes.len() < MAX_CAUSES
        {
            causes.push(cause.to_string());
            source = cause.source();
        }
        Self { kind, reason: reason(error), message: error.to_string(), causes }
    }
}

impl From<Failure> for PyErr {
    fn from(failure: Failure) -> Self {
        let Failure { kind, reason, message, causes } = failure;
        let arguments = (message, reason, causes);
        match kind {
            ErrorKind::InvalidInput => InvalidInputError::new_err(arguments),
            ErrorKind::ProtocolViolation => ProtocolViolationError::new_err(arguments),
            ErrorKind::Authentication => AuthenticationError::new_err(arguments),
            ErrorKind::Refused => RefusedError::new_err(arguments),
            ErrorKind::Unreachable => UnreachableError::new_err(arguments),
            ErrorKind::TimedOut => TimedOutError::new_err(arguments),
            ErrorKind::LimitExceeded => LimitExceededError::new_err(arguments),
            ErrorKind::InUse => InUseError::new_err(arguments),
            ErrorKind::Storage => StorageError::new_err(arguments),
            ErrorKind::Closed => ClosedError::new_err(arguments),
            ErrorKind::Internal => InternalError::new_err(arguments),
            // A kind that the core has and this binding does not know yet; the tests compare the two lists.
            _ => HcpError::new_err(arguments),
        }
    }
}

macro_rules! from_core {
    ($($error:ty),+ $(,)?) => {$(
        impl From<$error> for Failure {
            fn from(error: $error) -> Self {
                Self::from_core(error.kind(), &error)
            }
        }
    )+};
}

from_core!(
    AddressError,
    BackoffError,
    BindError,
    BootstrapError,
    ConnectError,
    ContactError,
    CostError,
    DelegationError,
    DescriptionError,
    DialError,
    DiscoveryKeyError,
    EmptyPassphrase,
    EventsError,
    ExpandedKeyError,
    GoOnlineError,
    IdError,
    IssueError,
    ListenError,
    LoadKeyError,
    LocalNetworkError,
    MessageError,
    OpenError,
    ProfileError,
    RecvError,
    RenewError,
    SaveKeyError,
    SendError,
    SessionError,
    SignatureError,
    TransferError,
    ctor::ExportKeyError,
    ctor::ImportKeyError,
);

/// The `ErrorKind` of Python.
pub(crate) fn error_kind(py: Python<'_>, kind: ErrorKind) -> PyResult<Py<PyAny>> {
    let failure = Failure { kind, reason: String::new(), message: String::new(), causes: Vec::new() };
    Ok(PyErr::from(failure).value(py).getattr("kind")?.unbind())
}

/// Whether the error says no more than that the other side, or this one, has ended the stream or session.
pub(crate) fn is_closed(py: Python<'_>, error: &PyErr) -> bool {
    error.is_instance_of::<ClosedError>(py)
}

/// The name of the innermost error of the core: of its variant, or of its type when it has none. With it derived `Debug`
/// output begins.
fn reason(error: &(dyn Error + 'static)) -> String {
    if let Some(inner) = wrapped(error) {
        return reason(inner);
    }
    let debug = format!("{error:?}");
    let end = debug.find(|c: char| !c.is_ascii_alphanumeric()).unwrap_or(debug.len());
    debug[..end].to_owned()
}

/// The error of the core that another one only wraps.
fn wrapped<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a (dyn Error + 'static)> {
    if let Some(error) = error.downcast_ref() {
        return match error {
            BindError::Listen(inner) => Some(inner),
            BindError::Session(inner) => Some(inner),
            _ => None,
        };
    }
    if let Some(error) = error.downcast_ref() {
        return match error {
            ConnectError::Dial(inner) => Some(inner),
            ConnectError::Session(inner) => Some(inner),
            _ => None,
        };
    }
    if let Some(error) = error.downcast_ref() {
        return match error {
            RenewError::Delegation(inner) => Some(inner),
            RenewError::Session(inner) => Some(inner),
            _ => None,
        };
    }
    if let Some(error) = error.downcast_ref() {
        return match error {
            SessionError::Delegation(inner) => Some(inner),
            _ => None,
        };
    }
    if let Some(error) = error.downcast_ref() {
        return match error {
            GoOnlineError::Bind(inner) => Some(inner),
            GoOnlineError::Store(inner) => Some(inner),
            _ => None,
        };
    }
    if let Some(error) = error.downcast_ref() {
        return match error {
            ContactError::Text(inner) => Some(inner),
            ContactError::Store(inner) => Some(&**inner),
            _ => None,
        };
    }
    if let Some(error) = error.downcast_ref() {
        return match error {
            MessageError::Text(inner) => Some(inner),
            MessageError::Store(inner) => Some(&**inner),
            _ => None,
        };
    }
    if let Some(error) = error.downcast_ref() {
        return match error {
            TransferError::Name(inner) => Some(inner),
            TransferError::Store(inner) => Some(&**inner),
            _ => None,
        };
    }
    if let Some(error) = error.downcast_ref() {
        return match error {
            ProfileError::Name(inner) => Some(inner),
            ProfileError::LoadKey(inner) => Some(inner),
            ProfileError::SaveKey(inner) => Some(inner),
            ProfileError::Store(inner) => Some(inner),
            _ => None,
        };
    }
    match error.downcast_ref()? {
        EventsError::Store(inner) => Some(&**inner),
        _ => None,
    }
}

/// Deeper chains say nothing new.
const MAX_CAUSES: usize = 16;
