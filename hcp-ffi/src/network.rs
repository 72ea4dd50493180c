//! Where streams come from: memory for tests, loopback for development, Tor.

use std::sync::Arc;

use hcp_core::network as core;

use crate::cancellation::{Cancellation, unless_cancelled};
use crate::error::HcpError;
use crate::identity::{DiscoveryKey, DiscoveryPublicKey, Identity, OnionAddress};
use crate::service::Listener;
use crate::tor::TorNetwork;

/// A place where onion addresses can be dialled and served.
#[derive(Clone, Debug, uniffi::Enum)]
pub enum Network {
    /// Addresses inside this process, for tests.
    Memory(Arc<MemoryNetwork>),
    /// Addresses on this machine, for development. **Not anonymous.**
    Local(Arc<LocalNetwork>),
    /// Tor.
    Tor(Arc<TorNetwork>),
}

#[uniffi::export(async_runtime = "tokio")]
impl Network {
    /// Serves the identity's address, at the port of HCP, until the `Listener` is dropped or the node ends that took it.
    ///
    /// Returns as soon as the address is launched; `Listener.reachable` waits until strangers can reach it.
    ///
    /// # Errors
    /// `InUse` when this process serves the address already, `Closed` when the network was shut down, `Cancelled`, and what
    /// the network says.
    // The generated code of an enum's methods knows no defaults; an extension in each language leaves out the argument.
    pub async fn listen(
        &self,
        identity: Arc<Identity>,
        cancellation: Option<Arc<Cancellation>>,
    ) -> Result<Arc<Listener>, HcpError> {
        let network = self.core()?;
        let listener = unless_cancelled(cancellation, network.listen(&identity.inner, &[core::HCP_PORT])).await??;
        Ok(Listener::shared(listener))
    }

    /// Serves as [`listen`](Self::listen) does, and lets nobody find the address who has the key of none of `clients`, of which
    /// there are 1 to `maxDiscoveryClients`.
    ///
    /// # Errors
    /// As `listen`; `InvalidInput` for another number of clients, and on a network that cannot do so.
    pub async fn listen_restricted(
        &self,
        identity: Arc<Identity>,
        clients: Vec<Arc<DiscoveryPublicKey>>,
        cancellation: Option<Arc<Cancellation>>,
    ) -> Result<Arc<Listener>, HcpError> {
        let (network, clients) = (self.core()?, DiscoveryPublicKey::all(&clients));
        let listen = network.listen_restricted(&identity.inner, &[core::HCP_PORT], &clients);
        Ok(Listener::shared(unless_cancelled(cancellation, listen).await??))
    }
}

impl Network {
    pub(crate) fn core(&self) -> Result<Arc<dyn core::Network>, HcpError> {
        Ok(match self {
            Self::Memory(memory) => Arc::new(memory.inner.clone()),
            Self::Local(local) => Arc::new(local.inner.clone()),
            Self::Tor(tor) => Arc::new(tor.core()?),
        })
    }
}

/// A network inside this process, for tests.
#[derive(Debug, uniffi::Object)]
pub struct MemoryNetwork {
    inner: core::MemoryNetwork,
}

#[uniffi::export]
impl MemoryNetwork {
    /// A network without services.
    #[uniffi::constructor]
    pub fn new() -> Arc<Self> {
        Arc::new(Self { inner: core::MemoryNetwork::new() })
    }

    /// The same network for somebody who dials `address` with a discovery key.
    pub fn with_discovery_key(&self, address: Arc<OnionAddress>, key: Arc<DiscoveryKey>) -> Arc<Self> {
        Arc::new(Self { inner: self.inner.clone().with_discovery_key(address.inner, &key.inner) })
    }
}

/// Addresses on one machine, through a folder that all of its users share. **Not anonymous.**
#[derive(Debug, uniffi::Object)]
pub struct LocalNetwork {
    inner: core::LocalNetwork,
}

#[uniffi::export]
impl LocalNetwork {
    /// A network whose addresses stand in `folder`, which is made when it is missing.
    ///
    /// # Errors
    /// `Storage` when the folder cannot be made.
    #[uniffi::constructor]
    pub fn new(folder: String) -> Result<Arc<Self>, HcpError> {
        Ok(Arc::new(Self { inner: core::LocalNetwork::new(folder)? }))
    }
}
