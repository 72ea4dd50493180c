//! Where streams come from: the [`Network`] trait and its three implementations.
//!
//! A network carries bytes between onion addresses and authenticates nobody beyond what the transport
//! itself does; that is the session's task. Every queue here is bounded.

#[cfg(any(feature = "tor", test))]
mod hedge;
mod local;
mod memory;
#[cfg_attr(
    not(feature = "tor"),
    allow(dead_code, reason = "only Tor has points to establish and descriptors to upload")
)]
pub(crate) mod onion;
#[cfg(feature = "tor")]
pub mod tor;

use std::fmt;
use std::sync::Arc;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{mpsc, watch};

pub use self::local::{LocalNetwork, LocalNetworkError};
pub use self::memory::MemoryNetwork;
use self::onion::OnionBackend;
pub use self::onion::{IntroductionRate, Period};
use crate::error::ErrorKind;
use crate::identity::{DiscoveryKey, DiscoveryPublicKey, Identity, MAX_CLIENTS, OnionAddress};

/// The virtual port on which HCP listens at an onion address.
pub const HCP_PORT: u16 = 4277;

/// How many accepted transport connections may wait for [`Listener::accept`]; more are refused or left to the
/// transport's own backlog, so that a flood costs bounded memory.
pub const ACCEPT_QUEUE: usize = 64;

/// Clients that an address may be restricted to: more do not fit into a descriptor.
pub const MAX_DISCOVERY_CLIENTS: usize = MAX_CLIENTS;

/// An ordered, reliable, bidirectional byte stream.
pub trait Transport: AsyncRead + AsyncWrite + Send + Unpin + 'static {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin + 'static> Transport for T {}

/// A boxed [`Transport`].
pub type BoxedTransport = Box<dyn Transport>;

/// A place where onion addresses can be dialled and served.
pub trait Network: Send + Sync + fmt::Debug + 'static {
    /// Connects to `port` of `address`.
    ///
    /// # Cancel safety
    /// Dropping the future abandons the attempt and leaves nothing behind.
    fn dial(&self, address: OnionAddress, port: u16) -> BoxFuture<'_, Result<BoxedTransport, DialError>>;

    /// Connects as [`Self::dial`] does, in a way that shares nothing with other dials by which the other side, or somebody on
    /// the way, could hold it up together with them: over Tor on circuits of its own. Lanes of a session are dialled so.
    ///
    /// A network on which dials share nothing anyway need not say more than `dial` does, which is the default.
    ///
    /// # Cancel safety
    /// As [`Self::dial`].
    fn dial_isolated(&self, address: OnionAddress, port: u16) -> BoxFuture<'_, Result<BoxedTransport, DialError>> {
        self.dial(address, port)
    }

    /// Serves `ports` at the identity's address until the [`Listener`] is dropped.
    ///
    /// Returns as soon as the service is launched; [`Listener::reachable`] waits until strangers can reach it.
    ///
    /// # Cancel safety
    /// Dropping the future withdraws what was launched.
    fn listen<'a>(&'a self, identity: &'a Identity, ports: &'a [u16]) -> BoxFuture<'a, Result<Listener, ListenError>>;

    /// Serves as [`Self::listen`] does, and lets nobody find the address who has the key of none of `clients`: others do not
    /// learn how to reach it, but can see that it was up lately. 1 to [`MAX_DISCOVERY_CLIENTS`] clients.
    ///
    /// The default is for networks that cannot do so, and fails.
    ///
    /// # Cancel safety
    /// As [`Self::listen`].
    fn listen_restricted<'a>(
        &'a self,
        identity: &'a Identity,
        ports: &'a [u16],
        clients: &'a [DiscoveryPublicKey],
    ) -> BoxFuture<'a, Result<Listener, ListenError>> {
        let _ = (identity, ports, clients);
        Box::pin(async { Err(ListenError::CannotRestrict) })
    }

    /// Dials `address` with this key from now on: it may be found only by clients whose keys it lists.
    ///
    /// A network that hides nothing has no use for it, which is the default.
    fn use_discovery_key(&self, address: OnionAddress, key: &DiscoveryKey) {
        let _ = (address, key);
    }

    /// Serves `ports` at the address of a service together with other nodes, until what is returned is dropped; nobody here
    /// holds the service's identity. Of connections that strangers ask for only so many pass as `rate` says, on a network that can
    /// limit them before they reach the node; all, where it is none.
    ///
    /// # Errors
    /// [`ListenError::Unsupported`] on a network that has no such addresses, which is the default.
    ///
    /// # Cancel safety
    /// Dropping the future withdraws what was launched.
    fn host<'a>(
        &'a self,
        service: OnionAddress,
        ports: &'a [u16],
        rate: Option<IntroductionRate>,
    ) -> BoxFuture<'a, Result<Hosting, ListenError>> {
        let _ = (service, ports, rate);
        async { Err(ListenError::Unsupported) }.boxed()
    }
}

/// A part in serving a service's address.
pub struct Hosting {
    listener: Listener,
    onion: Option<OnionPart>,
}

/// What there is to decide on for a service on Tor: its introduction points and descriptors.
pub(crate) struct OnionPart {
    pub(crate) backend: Arc<dyn OnionBackend>,
    /// What the listener tells; whoever decides knows.
    pub(crate) status: watch::Sender<ListenerStatus>,
}

impl Hosting {
    /// A part on a network where whoever listens at an address is found there, as on the local one.
    pub fn new(listener: Listener) -> Self {
        Self { listener, onion: None }
    }

    pub(crate) fn into_parts(self) -> (Listener, Option<OnionPart>) {
        (self.listener, self.onion)
    }
}

impl fmt::Debug for Hosting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hosting").field("listener", &self.listener).finish_non_exhaustive()
    }
}

/// An accepted transport connection.
pub struct Incoming {
    /// The virtual port that was dialled.
    pub port: u16,
    /// The connection.
    pub stream: BoxedTransport,
}

impl fmt::Debug for Incoming {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Incoming").field("port", &self.port).finish_non_exhaustive()
    }
}

/// Whether strangers can reach a [`Listener`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ListenerStatus {
    /// Launched, not yet announced.
    Starting,
    /// Announced: the network says that the address can be dialled.
    Reachable,
    /// The network reports a problem; the text says which, without addresses.
    Broken(String),
    /// Gone for good.
    Stopped,
}

/// Changes who can find an address that is served.
pub(crate) type Restrict = Arc<dyn Fn(&[DiscoveryPublicKey]) -> Result<(), ListenError> + Send + Sync>;

/// Serves an address; dropping it withdraws the service.
pub struct Listener {
    incoming: mpsc::Receiver<Incoming>,
    status: watch::Receiver<ListenerStatus>,
    restrict: Option<Restrict>,
    _guard: Box<dyn Send + Sync>,
}

impl Listener {
    /// Joins the parts that an implementation of [`Network`] provides; `guard` is dropped with the listener.
    pub fn new(
        incoming: mpsc::Receiver<Incoming>,
        status: watch::Receiver<ListenerStatus>,
        guard: impl Send + Sync + 'static,
    ) -> Self {
        Self { incoming, status, restrict: None, _guard: Box::new(guard) }
    }

    /// Changes by `restrict` who can find the address while it is served.
    pub(crate) fn restricted_by(mut self, restrict: Restrict) -> Self {
        self.restrict = Some(restrict);
        self
    }

    /// What changes who can find the address, on a network that can do so.
    pub(crate) fn restrict(&self) -> Option<Restrict> {
        self.restrict.clone()
    }

    /// Waits for the next connection; `None` when the service has stopped.
    ///
    /// # Cancel safety
    /// Cancel-safe: no connection is lost.
    pub async fn accept(&mut self) -> Option<Incoming> {
        self.incoming.recv().await
    }

    /// Watches whether strangers can reach the service.
    pub fn status(&self) -> watch::Receiver<ListenerStatus> {
        self.status.clone()
    }

    /// Waits until the service is reachable; `false` when it stopped before.
    ///
    /// # Cancel safety
    /// Cancel-safe.
    pub async fn reachable(&self) -> bool {
        let mut status = self.status.clone();
        status
            .wait_for(|s| matches!(s, ListenerStatus::Reachable | ListenerStatus::Stopped))
            .await
            .is_ok_and(|s| *s == ListenerStatus::Reachable)
    }
}

impl fmt::Debug for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Listener").field("status", &*self.status.borrow()).finish_non_exhaustive()
    }
}

/// The step of dialling at which a deadline passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum DialPhase {
    /// Waiting for the network itself: bootstrap, directory.
    Network,
    /// Reaching the address: descriptor, introduction, rendezvous.
    Connect,
    /// Asking whoever serves the address for a stream.
    Stream,
}

impl fmt::Display for DialPhase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Network => "waiting for the network",
            Self::Connect => "connecting to the address",
            Self::Stream => "asking for the port",
        })
    }
}

/// Why [`Network::dial`] failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DialError {
    /// Nobody serves the address, or not this port.
    #[error("nobody serves this address and port")]
    NotFound,
    /// The address can be found by clients only whose discovery key it lists, and there is none for it here, or another.
    #[error("the address is hidden from whoever has no discovery key that it lists")]
    Restricted,
    /// The address is served, yet could not be reached.
    #[error("the address could not be reached")]
    Unreachable(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// A deadline passed.
    #[error("timed out while {phase}")]
    TimedOut {
        /// Where the time went.
        phase: DialPhase,
    },
}

impl DialError {
    /// What a caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::NotFound | Self::Unreachable(_) => ErrorKind::Unreachable,
            Self::Restricted => ErrorKind::Authentication,
            Self::TimedOut { .. } => ErrorKind::TimedOut,
        }
    }
}

/// Why [`Network::listen`] failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ListenError {
    /// This process serves the address already.
    #[error("this address is served by this process already")]
    InUse,
    /// No port was named, or one twice.
    #[error("the list of ports is empty or names one twice")]
    InvalidPorts,
    /// This network has no addresses that several nodes serve.
    #[error("this network has no addresses that several nodes serve")]
    Unsupported,
    /// This network can hide no address.
    #[error("this network cannot restrict an address to some clients")]
    CannotRestrict,
    /// No client was named, or more than [`MAX_DISCOVERY_CLIENTS`].
    #[error("an address can be restricted to 1 to {MAX_DISCOVERY_CLIENTS} clients")]
    Clients,
    /// The network refused to launch the service.
    #[error("the service could not be launched")]
    Launch(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl ListenError {
    /// What a caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::InUse => ErrorKind::InUse,
            Self::InvalidPorts | Self::Unsupported | Self::CannotRestrict | Self::Clients => ErrorKind::InvalidInput,
            Self::Launch(_) => ErrorKind::Internal,
        }
    }
}

/// Fails for lists of ports that cannot be served.
pub(crate) fn check_ports(ports: &[u16]) -> Result<(), ListenError> {
    let twice = ports.iter().enumerate().any(|(i, port)| ports[..i].contains(port));
    if ports.is_empty() || twice { Err(ListenError::InvalidPorts) } else { Ok(()) }
}

/// Fails for lists of clients to which no address can be restricted.
pub(crate) fn check_clients(clients: &[DiscoveryPublicKey]) -> Result<(), ListenError> {
    if clients.is_empty() || clients.len() > MAX_DISCOVERY_CLIENTS { Err(ListenError::Clients) } else { Ok(()) }
}
