//! Sessions as the foreign languages hold them.

use std::sync::Arc;
use std::time::Duration;

use hcp_core::node as core;
use hcp_core::session as core_session;

use crate::cancellation::{Cancellation, unless_cancelled};
use crate::error::{ErrorKind, HcpError, message};
use crate::identity::OnionAddress;
use crate::stream::Stream;

/// Who is at the other end of a session.
#[derive(Clone, Debug, uniffi::Enum)]
pub enum Peer {
    /// It proved that it holds the key of this address.
    Address(Arc<OnionAddress>),
    /// It dialled and did not say who it is.
    Anonymous,
}

#[uniffi::export]
impl Peer {
    /// The address, if the peer has shown one.
    pub fn address(&self) -> Option<Arc<OnionAddress>> {
        match self {
            Self::Address(address) => Some(Arc::clone(address)),
            Self::Anonymous => None,
        }
    }
}

/// How a session ended.
#[derive(Clone, Debug, uniffi::Record)]
pub struct SessionEnd {
    /// What a caller can do about it.
    pub kind: ErrorKind,
    /// What happened.
    pub message: String,
}

/// An encrypted connection with a peer, on which streams are opened.
///
/// A session that this node dialled ends when its last handle and the last of its streams are dropped, or with the node.
#[derive(Debug, uniffi::Object)]
pub struct Session {
    inner: core::Session,
}

#[uniffi::export(async_runtime = "tokio")]
impl Session {
    /// Who is at the other end.
    pub fn peer(&self) -> Peer {
        match self.inner.peer() {
            core_session::Peer::Address(address) => Peer::Address(OnionAddress::shared(address)),
            core_session::Peer::Anonymous => Peer::Anonymous,
        }
    }

    /// The last measured round trip; none before the first ping came back.
    pub fn round_trip(&self) -> Option<Duration> {
        self.inner.round_trip()
    }

    /// Opens a stream for a protocol that the peer serves.
    ///
    /// Takes no round trip: whether the peer serves the protocol shows on the first `Stream.recv`.
    ///
    /// # Errors
    /// `InvalidInput` for a name that none can have, `LimitExceeded` when the peer allows no more streams, `Closed`.
    pub async fn open(&self, protocol: String) -> Result<Arc<Stream>, HcpError> {
        Ok(Stream::shared(self.inner.open(&protocol).await?))
    }

    /// Says goodbye and ends the session once what was sent before has gone out.
    ///
    /// # Errors
    /// `Cancelled`; the session ends all the same.
    #[uniffi::method(default(cancellation = None))]
    pub async fn shutdown(&self, cancellation: Option<Arc<Cancellation>>) -> Result<(), HcpError> {
        unless_cancelled(cancellation, self.inner.shutdown()).await
    }

    /// Waits until the session has ended and says why.
    ///
    /// # Errors
    /// `Cancelled`.
    #[uniffi::method(default(cancellation = None))]
    pub async fn closed(&self, cancellation: Option<Arc<Cancellation>>) -> Result<SessionEnd, HcpError> {
        let error = unless_cancelled(cancellation, self.inner.closed()).await?;
        Ok(SessionEnd { kind: error.kind().into(), message: message(&error) })
    }
}

impl Session {
    pub(crate) fn shared(inner: core::Session) -> Arc<Self> {
        Arc::new(Self { inner })
    }
}
