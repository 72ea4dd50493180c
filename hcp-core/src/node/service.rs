//! A service that a node speaks for together with others.

use std::sync::Arc;

use tokio::sync::watch;

use super::router::Router;
use super::{Access, Handler};
use crate::error::ErrorKind;
use crate::identity::OnionAddress;
use crate::identity::delegation::{DelegationError, ReplicaCredentials};
use crate::network::Listener;
use crate::session::{Acceptor, Credentials, Keepalive, SessionError};

/// What a node serves at a service's address, apart from what it serves at its own: it shares no protocols with that, so that
/// a stranger who finds one learns nothing of the other.
#[derive(Debug)]
pub struct Service {
    pub(super) listener: Listener,
    pub(super) credentials: ReplicaCredentials,
    pub(super) router: Router,
    pub(super) refused: Option<String>,
}

impl Service {
    /// Serves the connections of a listener at the service's address with a delegation for it.
    pub fn new(listener: Listener, credentials: ReplicaCredentials) -> Self {
        Self { listener, credentials, router: Router::default(), refused: None }
    }

    /// Serves streams of `protocol` with `handler`, for peers that `access` admits.
    #[must_use]
    pub fn protocol(mut self, protocol: &str, access: Access, handler: impl Handler) -> Self {
        if !self.router.insert(protocol, access, handler) {
            self.refused = Some(protocol.to_owned());
        }
        self
    }
}

/// What the connections of a listener are accepted under from now on.
#[derive(Debug)]
pub(super) struct Present(watch::Sender<Arc<Acceptor>>);

impl Present {
    pub(super) fn new(credentials: &Credentials, keepalive: Keepalive) -> Result<Self, SessionError> {
        Acceptor::new(credentials, keepalive).map(|acceptor| Self(watch::Sender::new(acceptor)))
    }

    pub(super) fn watch(&self) -> watch::Receiver<Arc<Acceptor>> {
        self.0.subscribe()
    }

    /// The address at which this is shown.
    pub(super) fn address(&self) -> OnionAddress {
        self.0.borrow().address()
    }

    pub(super) fn replace(&self, acceptor: Arc<Acceptor>) {
        self.0.send_replace(acceptor);
    }
}

/// Why [`Node::renew`](super::Node::renew) failed; what was shown before is shown still.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RenewError {
    /// The node does not serve the service that the credentials speak for.
    #[error("the node does not serve this service")]
    NotServed,
    /// Diallers would not take the credentials now.
    #[error("diallers would not take the credentials now: {0}")]
    Delegation(#[from] DelegationError),
    /// TLS could not be set up.
    #[error(transparent)]
    Session(#[from] SessionError),
}

impl RenewError {
    /// What a caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::NotServed => ErrorKind::InvalidInput,
            Self::Delegation(error) => error.kind(),
            Self::Session(error) => error.kind(),
        }
    }
}
