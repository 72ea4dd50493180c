//! Where streams come from: the base class, and the networks without Tor.

use std::path::PathBuf;
use std::sync::Arc;

use hcp_core::network;
use pyo3::PyClassInitializer;
use pyo3::prelude::*;

use crate::errors::Failure;
use crate::identity::{DiscoveryKey, DiscoveryPublicKey, Identity, OnionAddress};
use crate::lifetime::Lifetime;
use crate::operation::Operation;
use crate::service::Listener;

/// A place where onion addresses can be dialled and served.
#[pyclass(frozen, subclass, module = "hcp")]
pub(crate) struct Network(pub(crate) Arc<Lifetime<Arc<dyn network::Network>>>);

impl Network {
    pub(crate) fn new(network: impl network::Network) -> Self {
        Self(Arc::new(Lifetime::new(Arc::new(network), "the network was shut down")))
    }
}

#[pymethods]
impl Network {
    fn listen(&self, identity: &Identity) -> Operation {
        let identity = identity.0.clone();
        Operation::new(
            self.0.run(
                |network| async move { network.listen(&identity, &[network::HCP_PORT]).await.map(Listener::from) },
            ),
        )
    }

    fn listen_restricted(&self, identity: &Identity, clients: Vec<DiscoveryPublicKey>) -> Operation {
        let identity = identity.0.clone();
        let clients: Vec<_> = clients.iter().map(|client| client.0).collect();
        Operation::new(self.0.run(move |network| async move {
            network.listen_restricted(&identity, &[network::HCP_PORT], &clients).await.map(Listener::from)
        }))
    }
}

/// A network inside this process.
#[pyclass(frozen, extends = Network, module = "hcp")]
pub(crate) struct MemoryNetwork(network::MemoryNetwork);

impl MemoryNetwork {
    fn create(network: network::MemoryNetwork) -> PyClassInitializer<Self> {
        PyClassInitializer::from(Network::new(network.clone())).add_subclass(Self(network))
    }
}

#[pymethods]
impl MemoryNetwork {
    #[new]
    fn new() -> PyClassInitializer<Self> {
        Self::create(network::MemoryNetwork::new())
    }

    fn with_discovery_key(&self, py: Python<'_>, address: &OnionAddress, key: &DiscoveryKey) -> PyResult<Py<Self>> {
        Py::new(py, Self::create(self.0.clone().with_discovery_key(address.0, &key.0)))
    }
}

/// Addresses on one machine, through a folder. Not anonymous.
#[pyclass(frozen, extends = Network, module = "hcp")]
pub(crate) struct LocalNetwork;

#[pymethods]
impl LocalNetwork {
    #[new]
    fn new(folder: PathBuf) -> Result<PyClassInitializer<Self>, Failure> {
        Ok(PyClassInitializer::from(Network::new(network::LocalNetwork::new(folder)?)).add_subclass(Self))
    }
}

/// Whether strangers can reach a node.
#[pyclass(frozen, eq, module = "hcp")]
#[derive(PartialEq, Eq)]
pub(crate) enum ListenerStatus {
    /// Launched, not yet announced.
    Starting(),
    /// The address can be dialled.
    Reachable(),
    /// The network reports a problem.
    Broken {
        /// Which one, without addresses.
        problem: String,
    },
    /// Gone for good.
    Stopped(),
}

impl ListenerStatus {
    pub(crate) fn from_core(status: &network::ListenerStatus) -> Self {
        match status {
            network::ListenerStatus::Starting => Self::Starting(),
            network::ListenerStatus::Reachable => Self::Reachable(),
            network::ListenerStatus::Broken(problem) => Self::Broken { problem: problem.clone() },
            network::ListenerStatus::Stopped => Self::Stopped(),
            other => Self::Broken { problem: format!("a status that this version does not know: {other:?}") },
        }
    }
}
