//! Services that a node speaks for together with others, and the listeners at their addresses.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use hcp_core::network::{self, ListenerStatus};
use hcp_core::node as core;
use tokio::sync::watch;

use crate::builder::Building;
use crate::cancellation::{Cancellation, unless_cancelled};
use crate::delegation::ReplicaCredentials;
use crate::error::HcpError;
use crate::handler::{StreamHandler, serve_with};
use crate::node::Access;
use crate::watch::StatusWatch;

/// What serves an address, for a [`Service`] to take. Dropping it before that (`close` in Kotlin) withdraws the address.
#[derive(uniffi::Object)]
pub struct Listener {
    /// Taken by the service.
    inner: Mutex<Option<network::Listener>>,
    status: watch::Receiver<ListenerStatus>,
}

#[uniffi::export(async_runtime = "tokio")]
impl Listener {
    /// Watches whether strangers can reach the address.
    pub fn status(&self) -> Arc<StatusWatch> {
        StatusWatch::shared(self.status.clone())
    }

    /// Waits until strangers can reach the address; false when it stopped before.
    ///
    /// # Errors
    /// `Cancelled`.
    #[uniffi::method(default(cancellation = None))]
    pub async fn reachable(&self, cancellation: Option<Arc<Cancellation>>) -> Result<bool, HcpError> {
        let mut status = self.status.clone();
        unless_cancelled(cancellation, async {
            use ListenerStatus::{Reachable, Stopped};
            let last = status.wait_for(|status| matches!(status, Reachable | Stopped)).await;
            last.is_ok_and(|status| *status == Reachable)
        })
        .await
    }
}

impl Listener {
    pub(crate) fn shared(inner: network::Listener) -> Arc<Self> {
        Arc::new(Self { status: inner.status(), inner: Mutex::new(Some(inner)) })
    }
}

impl fmt::Debug for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Listener").field("status", &*self.status.borrow()).finish_non_exhaustive()
    }
}

/// What a node serves at a service's address, apart from what it serves at its own: it shares no protocols with that, so that
/// a stranger who finds one learns nothing of the other. Its setters change it and return it; it can be used once.
#[derive(Debug, uniffi::Object)]
pub struct Service {
    pub(crate) inner: Building<core::Service>,
}

#[uniffi::export]
impl Service {
    /// Serves the connections of a listener at the service's address with a delegation for it.
    ///
    /// # Errors
    /// `InUse` when the listener is in another service.
    #[uniffi::constructor]
    pub fn new(listener: Arc<Listener>, credentials: Arc<ReplicaCredentials>) -> Result<Arc<Self>, HcpError> {
        let taken = listener.inner.lock().unwrap_or_else(PoisonError::into_inner).take();
        let taken = taken.ok_or_else(|| HcpError::in_use("the listener is in another service"))?;
        Ok(Arc::new(Self { inner: Building::new(core::Service::new(taken, credentials.inner.clone())) }))
    }

    /// Serves streams of `protocol` with `handler`, for peers that `access` admits.
    pub fn protocol(self: Arc<Self>, protocol: String, access: Access, handler: Arc<dyn StreamHandler>) -> Arc<Self> {
        self.inner.set(|service| service.protocol(&protocol, access.into(), serve_with(handler)));
        self
    }
}
