//! A service that a node speaks for together with others.

use super::router::Router;
use super::{Access, Handler};
use crate::identity::delegation::ReplicaCredentials;
use crate::network::Listener;

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
