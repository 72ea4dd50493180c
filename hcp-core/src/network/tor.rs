//! The Tor network: Arti in this process, nothing outside it.
//!
//! Invariants: one state directory serves one [`TorNetwork`] at a time; no identity key is ever written to disk, and
//! none stays in memory once its service is gone; what makes the private test network work is off on the public one;
//! every wait has a deadline and every queue a bound.
//!
//! A stream carries at most one Tor cell's worth of buffered bytes until it is flushed, so whoever writes must flush.
//! Tor has no half-closed streams: shutting one down ends both directions.

mod bootstrap;
mod circuits;
mod dial;
mod discovery;
mod host;
pub(crate) mod onion;
mod private;
mod served;

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use arti_client::TorClient;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tor_persist::state_dir::StateDirectory;
use tor_rtcompat::PreferredRuntime;

pub use self::bootstrap::{BootstrapError, BootstrapProgress, TorNetworkBuilder};
use self::bootstrap::{StateLock, Threads};
use self::circuits::Circuits;
use self::dial::Dialler;
use self::discovery::DiscoveryKeys;
use self::host::Service;
use self::onion::{OnionOptions, OnionService};
pub use self::private::{PrivateAuthority, PrivateNetwork};
use self::served::Served;
use super::{BoxedTransport, DialError, Hosting, IntroductionRate, ListenError, Listener, Network};
use crate::identity::{DiscoveryKey, DiscoveryPublicKey, Identity, OnionAddress};

/// A connection to the Tor network; clones share it.
///
/// Dials through one handle to one address may travel on one circuit, by which the other side can link them;
/// [`isolated`](Self::isolated) gives a handle whose dials cannot be linked to those of others.
#[derive(Clone)]
pub struct TorNetwork {
    inner: Arc<Inner>,
    dialler: Arc<Dialler>,
}

impl TorNetwork {
    /// Begins to configure a connection that keeps its guards in `state_dir` and the directory in `cache_dir`.
    ///
    /// Both are created if need be. On the public network nobody else may be able to write to them or to the
    /// directories above.
    pub fn builder(state_dir: impl AsRef<Path>, cache_dir: impl AsRef<Path>) -> TorNetworkBuilder {
        TorNetworkBuilder::new(state_dir.as_ref(), cache_dir.as_ref())
    }

    /// Returns a handle whose dials share no circuit with those of any other handle.
    pub fn isolated(&self) -> Self {
        Self { inner: Arc::clone(&self.inner), dialler: Arc::new(self.dialler.isolated()) }
    }

    /// Dials `address` with this key from now on, through all handles: for addresses that are found only by clients whose keys
    /// they list. The key stays in memory, and is used for reading the descriptor alone: neither the directory nor the service
    /// can tell by it who dials, or that two dials have something in common.
    pub fn set_discovery_key(&self, address: OnionAddress, key: &DiscoveryKey) {
        self.inner.keys.set(address, key);
    }

    /// Dials `address` without a key from now on.
    pub fn remove_discovery_key(&self, address: OnionAddress) {
        self.inner.keys.remove(&address);
    }

    /// Watches how well the network can be used; it may get worse again.
    pub fn progress(&self) -> watch::Receiver<BootstrapProgress> {
        self.inner.progress.clone()
    }

    /// Gives the handle up and waits, for at most 10 s, until everything that runs for the network has ended and the state
    /// directory is free for another.
    ///
    /// The network goes on as long as other clones or listeners exist. Streams end with it.
    ///
    /// # Cancel safety
    /// Dropping the future gives the handle up all the same.
    pub async fn shutdown(self) {
        let stopped = self.inner.client.wait_for_stop();
        drop(self);
        let _ = tokio::time::timeout(SHUTDOWN_DEADLINE, stopped).await;
    }
}

impl Network for TorNetwork {
    fn dial(&self, address: OnionAddress, port: u16) -> BoxFuture<'_, Result<BoxedTransport, DialError>> {
        async move { self.dialler.dial(&address, port).await }.boxed()
    }

    fn dial_isolated(&self, address: OnionAddress, port: u16) -> BoxFuture<'_, Result<BoxedTransport, DialError>> {
        async move { self.dialler.isolated().dial(&address, port).await }.boxed()
    }

    fn listen<'a>(&'a self, identity: &'a Identity, ports: &'a [u16]) -> BoxFuture<'a, Result<Listener, ListenError>> {
        Service::launch(&self.inner, identity, ports, None).boxed()
    }

    fn listen_restricted<'a>(
        &'a self,
        identity: &'a Identity,
        ports: &'a [u16],
        clients: &'a [DiscoveryPublicKey],
    ) -> BoxFuture<'a, Result<Listener, ListenError>> {
        Service::launch(&self.inner, identity, ports, Some(clients)).boxed()
    }

    fn use_discovery_key(&self, address: OnionAddress, key: &DiscoveryKey) {
        self.set_discovery_key(address, key);
    }

    fn host<'a>(
        &'a self,
        service: OnionAddress,
        ports: &'a [u16],
        introduction_rate: Option<IntroductionRate>,
    ) -> BoxFuture<'a, Result<Hosting, ListenError>> {
        async move { OnionService::host(self, service, ports, OnionOptions { introduction_rate }) }.boxed()
    }
}

impl fmt::Debug for TorNetwork {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TorNetwork").field("progress", &*self.inner.progress.borrow()).finish_non_exhaustive()
    }
}

/// What all handles of one connection share, and every service it hosts keeps alive.
struct Inner {
    client: Arc<TorClient<PreferredRuntime>>,
    progress: watch::Receiver<BootstrapProgress>,
    _watcher: AbortOnDrop,
    /// Where services keep their introduction points; emptied at every start, as their keys are gone by then.
    services: StateDirectory,
    served: Arc<Served>,
    /// With which addresses are dialled that have some.
    keys: Arc<DiscoveryKeys>,
    /// Rendezvous circuits; they outlive the listener that they were accepted for.
    circuits: Arc<Circuits>,
    /// After everything that runs on it.
    _threads: Threads,
    /// Released last.
    _lock: StateLock,
}

/// A task that ends with its owner.
struct AbortOnDrop(AbortHandle);

impl AbortOnDrop {
    fn spawn(task: impl Future<Output = ()> + Send + 'static) -> Self {
        Self(tokio::spawn(task).abort_handle())
    }
}

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Its tasks end at once, but for those that compute; a loaded machine may take longer.
const SHUTDOWN_DEADLINE: Duration = Duration::from_secs(10);
