//! The Tor network: Arti in this process, nothing outside it.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hcp_core::network::tor as core;
use hcp_core::testing::PrivateTorDescription;

use crate::builder::Building;
use crate::cancellation::{Cancellation, unless_cancelled};
use crate::error::HcpError;
use crate::identity::{DiscoveryKey, OnionAddress, exactly};
use crate::watch::ProgressWatch;

/// A Tor network other than the public one, for tests. It protects nobody.
#[derive(Clone, Debug, uniffi::Record)]
pub struct PrivateNetwork {
    /// The directory authorities, through which the directory is fetched at first.
    pub authorities: Vec<PrivateAuthority>,
}

/// A directory authority of a private network.
#[derive(Clone, Debug, uniffi::Record)]
pub struct PrivateAuthority {
    /// The fingerprint of its voting key, 20 bytes.
    pub v3_identity: Vec<u8>,
    /// The fingerprint of its RSA relay key, 20 bytes.
    pub rsa_identity: Vec<u8>,
    /// Its ed25519 relay key, 32 bytes.
    pub ed25519_identity: Vec<u8>,
    /// Where it accepts Tor connections: an IP address and a port.
    pub or_address: String,
}

/// Reads the private network that a JSON file of `hcp-testnet` describes.
///
/// # Errors
/// `Storage` when the file cannot be read, `InvalidInput` when it describes no network.
#[uniffi::export]
pub fn load_private_network(path: String) -> Result<PrivateNetwork, HcpError> {
    Ok(PrivateTorDescription::load(path)?.network().into())
}

impl From<core::PrivateNetwork> for PrivateNetwork {
    fn from(network: core::PrivateNetwork) -> Self {
        let authority = |authority: core::PrivateAuthority| PrivateAuthority {
            v3_identity: authority.v3_identity.to_vec(),
            rsa_identity: authority.rsa_identity.to_vec(),
            ed25519_identity: authority.ed25519_identity.to_vec(),
            or_address: authority.or_address.to_string(),
        };
        Self { authorities: network.authorities.into_iter().map(authority).collect() }
    }
}

impl TryFrom<PrivateNetwork> for core::PrivateNetwork {
    type Error = HcpError;

    fn try_from(network: PrivateNetwork) -> Result<Self, HcpError> {
        let authority = |authority: PrivateAuthority| {
            let no_address = |_| HcpError::invalid("an authority's address is an IP address, a colon and a port");
            Ok(core::PrivateAuthority {
                v3_identity: exactly("a voting key's fingerprint", &authority.v3_identity)?,
                rsa_identity: exactly("a relay key's fingerprint", &authority.rsa_identity)?,
                ed25519_identity: exactly("an ed25519 relay key", &authority.ed25519_identity)?,
                or_address: authority.or_address.parse().map_err(no_address)?,
            })
        };
        Ok(Self { authorities: network.authorities.into_iter().map(authority).collect::<Result<_, HcpError>>()? })
    }
}

/// Configures a [`TorNetwork`]. Its setters change it and return it; it can be used once.
#[derive(Debug, uniffi::Object)]
pub struct TorNetworkBuilder {
    inner: Building<core::TorNetworkBuilder>,
}

#[uniffi::export(async_runtime = "tokio")]
impl TorNetworkBuilder {
    /// Begins to configure a connection that keeps its guards in `state_dir` and the directory in `cache_dir`.
    ///
    /// Both are created if need be. On the public network nobody else may be able to write to them or to the directories
    /// above.
    #[uniffi::constructor]
    pub fn new(state_dir: String, cache_dir: String) -> Arc<Self> {
        Arc::new(Self { inner: Building::new(core::TorNetwork::builder(state_dir, cache_dir)) })
    }

    /// Joins a private test network; default: the public one. It protects nobody.
    ///
    /// # Errors
    /// `InvalidInput` when an identity has the wrong length or an address is none.
    pub fn private_network(self: Arc<Self>, network: PrivateNetwork) -> Result<Arc<Self>, HcpError> {
        let network = network.try_into()?;
        self.inner.set(|builder| builder.private_network(network));
        Ok(self)
    }

    /// How long [`bootstrap`](Self::bootstrap) may take; default 5 minutes.
    pub fn bootstrap_deadline(self: Arc<Self>, deadline: Duration) -> Arc<Self> {
        self.inner.set(|builder| builder.bootstrap_deadline(deadline));
        self
    }

    /// How long a dial waits for the network to be usable before it begins; default 60 s.
    pub fn network_deadline(self: Arc<Self>, deadline: Duration) -> Arc<Self> {
        self.inner.set(|builder| builder.network_deadline(deadline));
        self
    }

    /// How long a dial may take once the network is usable, all its tries together; default 60 s.
    pub fn connect_deadline(self: Arc<Self>, deadline: Duration) -> Arc<Self> {
        self.inner.set(|builder| builder.connect_deadline(deadline));
        self
    }

    /// Dials `address` with a key; each as often as it is called. See [`TorNetwork::set_discovery_key`].
    pub fn discovery_key(self: Arc<Self>, address: Arc<OnionAddress>, key: Arc<DiscoveryKey>) -> Arc<Self> {
        self.inner.set(|builder| builder.discovery_key(address.inner, key.inner.clone()));
        self
    }

    /// About how much memory, in bytes, queued cells may take before circuits are closed; default 256 MiB.
    pub fn memory_limit(self: Arc<Self>, bytes: u64) -> Arc<Self> {
        self.inner.set(|builder| builder.memory_limit(usize::try_from(bytes).unwrap_or(usize::MAX)));
        self
    }

    /// Watches the progress of [`bootstrap`](Self::bootstrap), and of the network after it.
    ///
    /// # Errors
    /// `InvalidInput` when the builder has been used.
    pub fn progress(&self) -> Result<Arc<ProgressWatch>, HcpError> {
        self.inner.look(|builder| ProgressWatch::shared(builder.progress()))
    }

    /// Joins the network; returns once it can be used.
    ///
    /// # Errors
    /// `InUse` when another process uses the state directory, `Storage` when a directory cannot be used, `Unreachable`,
    /// `TimedOut`, `InvalidInput`, `Cancelled`.
    #[uniffi::method(default(cancellation = None))]
    pub async fn bootstrap(&self, cancellation: Option<Arc<Cancellation>>) -> Result<Arc<TorNetwork>, HcpError> {
        let builder = self.inner.take()?;
        let network = unless_cancelled(cancellation, builder.bootstrap()).await??;
        Ok(TorNetwork::shared(network))
    }
}

/// A connection to the Tor network.
///
/// Dials through one handle to one address may travel on one circuit, by which the other side can link them;
/// [`isolated`](Self::isolated) gives a handle whose dials cannot be linked to those of others.
#[derive(uniffi::Object)]
pub struct TorNetwork {
    inner: Mutex<Option<core::TorNetwork>>,
}

#[uniffi::export(async_runtime = "tokio")]
impl TorNetwork {
    /// A handle whose dials share no circuit with those of any other handle.
    ///
    /// # Errors
    /// `Closed` when the network was shut down.
    pub fn isolated(&self) -> Result<Arc<Self>, HcpError> {
        Ok(Self::shared(self.core()?.isolated()))
    }

    /// Dials `address` with this key from now on, through all handles. The key stays in memory; neither the directory nor the
    /// service can tell by it who dials.
    ///
    /// # Errors
    /// `Closed` when the network was shut down.
    pub fn set_discovery_key(&self, address: Arc<OnionAddress>, key: Arc<DiscoveryKey>) -> Result<(), HcpError> {
        self.core()?.set_discovery_key(address.inner, &key.inner);
        Ok(())
    }

    /// Dials `address` without a key from now on.
    ///
    /// # Errors
    /// `Closed` when the network was shut down.
    pub fn remove_discovery_key(&self, address: Arc<OnionAddress>) -> Result<(), HcpError> {
        self.core()?.remove_discovery_key(address.inner);
        Ok(())
    }

    /// Watches how well the network can be used; it may get worse again.
    ///
    /// # Errors
    /// `Closed` when the network was shut down.
    pub fn progress(&self) -> Result<Arc<ProgressWatch>, HcpError> {
        Ok(ProgressWatch::shared(self.core()?.progress()))
    }

    /// Gives the handle up and waits, for at most 10 s, until the state directory is free for another.
    ///
    /// It stays in use as long as nodes, sessions or other handles use it: shut those down before.
    pub async fn shutdown(&self) {
        let network = self.lock().take();
        if let Some(network) = network {
            network.shutdown().await;
        }
    }
}

impl TorNetwork {
    fn shared(inner: core::TorNetwork) -> Arc<Self> {
        Arc::new(Self { inner: Mutex::new(Some(inner)) })
    }

    pub(crate) fn core(&self) -> Result<core::TorNetwork, HcpError> {
        self.lock().clone().ok_or_else(|| HcpError::closed("the network was shut down"))
    }

    fn lock(&self) -> MutexGuard<'_, Option<core::TorNetwork>> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for TorNetwork {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TorNetwork").finish_non_exhaustive()
    }
}
