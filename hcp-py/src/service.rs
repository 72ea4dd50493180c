//! Services that a node speaks for together with others, and the listeners at their addresses.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hcp_core::{network, node};
use pyo3::prelude::*;
use tokio::sync::watch;

use crate::delegation::ReplicaCredentials;
use crate::errors::Failure;
use crate::network::ListenerStatus;
use crate::operation::Operation;
use crate::routes::{Protocols, routes};
use crate::watch::Watch;

/// Whether an address can be reached; ends when it is served no more.
pub(crate) type Status = watch::Receiver<network::ListenerStatus>;

/// Waits until an address is free again, once whatever serves it has been dropped.
pub(crate) async fn withdrawn(mut status: Status) {
    // It ends when the tasks that serve the address have been dropped, which takes the runtime a moment.
    let withdrawn = async { while status.changed().await.is_ok() {} };
    let _ = tokio::time::timeout(SHUTDOWN_DEADLINE, withdrawn).await;
}

/// What serves an address for a service to take.
#[pyclass(frozen, module = "hcp")]
pub(crate) struct Listener {
    /// Taken by the service.
    listener: Mutex<Option<network::Listener>>,
    status: Status,
}

impl From<network::Listener> for Listener {
    fn from(listener: network::Listener) -> Self {
        Self { status: listener.status(), listener: Mutex::new(Some(listener)) }
    }
}

impl Listener {
    fn take(&self) -> Option<network::Listener> {
        self.listener.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

#[pymethods]
impl Listener {
    fn status(&self) -> Watch {
        Watch::new(self.status.clone(), ListenerStatus::from_core)
    }

    fn reachable(&self) -> Operation {
        let mut status = self.status.clone();
        Operation::new(async move {
            use network::ListenerStatus::{Reachable, Stopped};
            let last = status.wait_for(|status| matches!(status, Reachable | Stopped)).await;
            Ok::<_, Failure>(last.is_ok_and(|status| *status == Reachable))
        })
    }

    fn shutdown(this: Bound<'_, Self>) -> Operation {
        let this = this.unbind();
        Operation::unit(async move {
            if let Some(listener) = this.get().take() {
                drop(listener);
                withdrawn(this.get().status.clone()).await;
            }
            Ok::<_, Failure>(())
        })
    }
}

/// What a node serves at a service's address.
#[pyclass(frozen, module = "hcp")]
pub(crate) struct Service(Arc<Mutex<Option<Offer>>>);

/// A service until a node takes it.
pub(crate) struct Offer {
    pub(crate) service: node::Service,
    pub(crate) status: Status,
}

#[pymethods]
impl Service {
    #[new]
    fn new(listener: &Listener, credentials: &ReplicaCredentials, protocols: Protocols<'_>) -> PyResult<Self> {
        let routes = routes(protocols)?;
        let taken = listener.take().ok_or_else(|| Failure::in_use("the listener was used or shut down"))?;
        let mut service = node::Service::new(taken, credentials.0.clone());
        for (protocol, access, handler) in routes {
            service = service.protocol(&protocol, access, handler);
        }
        Ok(Self(Arc::new(Mutex::new(Some(Offer { service, status: listener.status.clone() })))))
    }
}

impl Service {
    /// Takes the service once what it returns is called.
    pub(crate) fn offered(&self) -> impl FnOnce() -> Result<Offer, Failure> + Send + 'static {
        let offer = Arc::clone(&self.0);
        move || {
            let taken = offer.lock().unwrap_or_else(PoisonError::into_inner).take();
            taken.ok_or_else(|| Failure::in_use("the service is in a node already"))
        }
    }
}

/// As the Tor network's own; nothing but a runtime that is stuck takes as long.
const SHUTDOWN_DEADLINE: Duration = Duration::from_secs(10);
