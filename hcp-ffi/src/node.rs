//! Nodes: an identity on a network, which dials peers and accepts them.

use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use hcp_core::node as core;

use crate::builder::Building;
use crate::cancellation::{Cancellation, unless_cancelled};
use crate::delegation::{ReplicaCredentials, SerialFloors};
use crate::error::HcpError;
use crate::handler::{StreamHandler, serve_with};
use crate::identity::{DiscoveryPublicKey, Identity, OnionAddress};
use crate::maintained::{Backoff, DialAs, Dialling, Maintained};
use crate::network::Network;
use crate::node_event::{NodeEvents, NodeStats};
use crate::running::Running;
use crate::service::Service;
use crate::session::Session;
use crate::watch::StatusWatch;

/// Whom a protocol serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, uniffi::Enum)]
pub enum Access {
    /// Everybody, also diallers that do not say who they are.
    Anyone,
    /// Diallers that have proved their address.
    Identified,
}

impl From<Access> for core::Access {
    fn from(access: Access) -> Self {
        match access {
            Access::Anyone => Self::Anyone,
            Access::Identified => Self::Identified,
        }
    }
}

/// Describes a node before it is bound. Its setters change it and return it; it can be used once.
#[derive(Debug, uniffi::Object)]
pub struct NodeBuilder {
    address: Arc<OnionAddress>,
    inner: Building<core::NodeBuilder>,
}

#[uniffi::export(async_runtime = "tokio")]
impl NodeBuilder {
    /// Starts describing a node.
    ///
    /// # Errors
    /// `Closed` when the network was shut down.
    #[uniffi::constructor]
    pub fn new(identity: Arc<Identity>, network: Network) -> Result<Arc<Self>, HcpError> {
        let inner = Building::new(core::Node::builder(identity.inner.clone(), network.core()?));
        Ok(Arc::new(Self { address: identity.address(), inner }))
    }

    /// Serves streams of `protocol` with `handler`, for peers that `access` admits.
    pub fn protocol(self: Arc<Self>, protocol: String, access: Access, handler: Arc<dyn StreamHandler>) -> Arc<Self> {
        self.inner.set(|builder| builder.protocol(&protocol, access.into(), serve_with(handler)));
        self
    }

    /// When silent sessions are probed and given up: by default after 5 s and 15 s. Shorter notices death sooner and costs
    /// a ping per interval and session. Sessions at the services that the node serves stay as by default, so that strangers
    /// cannot tell one replica from the others.
    pub fn keepalive(self: Arc<Self>, interval: Duration, timeout: Duration) -> Arc<Self> {
        self.inner.set(|builder| builder.keepalive(interval, timeout));
        self
    }

    /// How many lanes a session that this node dialled has while a bulk stream is open in it: 2 by default, at most `maxLanes`.
    /// More carry files faster; over Tor each takes circuits of its own to be built.
    pub fn lanes(self: Arc<Self>, lanes: u64) -> Arc<Self> {
        self.inner.set(|builder| builder.lanes(usize::try_from(lanes).unwrap_or(usize::MAX)));
        self
    }

    /// What is known of the delegations of services, empty by default. An application that keeps it from run to run refuses
    /// delegations that were withdrawn before.
    pub fn floors(self: Arc<Self>, floors: Arc<SerialFloors>) -> Arc<Self> {
        self.inner.set(|builder| builder.floors(floors.inner.clone()));
        self
    }

    /// Hides the node's own address from everybody who has the key of none of these clients, of which there are 1 to
    /// `maxDiscoveryClients`. By default everybody finds it.
    pub fn restricted_to(self: Arc<Self>, clients: Vec<Arc<DiscoveryPublicKey>>) -> Arc<Self> {
        self.inner.set(|builder| builder.restricted_to(DiscoveryPublicKey::all(&clients)));
        self
    }

    /// Serves a service's address as well; each as often as it is called.
    ///
    /// # Errors
    /// `InvalidInput` when the service has been used.
    pub fn service(self: Arc<Self>, service: Arc<Service>) -> Result<Arc<Self>, HcpError> {
        let service = service.inner.take()?;
        self.inner.set(|builder| builder.service(service));
        Ok(self)
    }

    /// Launches the node. Returns once it is launched; `Node.reachable` waits until it can be dialled.
    ///
    /// # Errors
    /// `InvalidInput` for a configuration that cannot work, `InUse` when this process serves the address already,
    /// `Cancelled`, and what the network says.
    #[uniffi::method(default(cancellation = None))]
    pub async fn bind(&self, cancellation: Option<Arc<Cancellation>>) -> Result<Arc<Node>, HcpError> {
        let builder = self.inner.take()?;
        let node = unless_cancelled(cancellation, builder.bind()).await??;
        let (address, inner) = (Arc::clone(&self.address), Running::start(node));
        Ok(Arc::new(Node { address, inner, dialling: Mutex::default() }))
    }
}

/// An identity on a network.
///
/// It runs until [`shutdown`](Self::shutdown), even when no handle is left.
#[derive(Debug, uniffi::Object)]
pub struct Node {
    address: Arc<OnionAddress>,
    inner: Arc<Running<core::Node>>,
    /// What dials for the node, and would keep it alive when it is shut down.
    dialling: Mutex<Vec<Weak<Dialling>>>,
}

#[uniffi::export(async_runtime = "tokio")]
impl Node {
    /// The node's own address.
    pub fn address(&self) -> Arc<OnionAddress> {
        Arc::clone(&self.address)
    }

    /// Watches whether strangers can reach the node.
    ///
    /// # Errors
    /// `Closed` when the node was shut down.
    pub fn status(&self) -> Result<Arc<StatusWatch>, HcpError> {
        Ok(StatusWatch::shared(self.core()?.status()))
    }

    /// Waits until strangers can reach the node; false when it stopped before.
    ///
    /// # Errors
    /// `Cancelled`; `Closed` when the node was shut down.
    #[uniffi::method(default(cancellation = None))]
    pub async fn reachable(&self, cancellation: Option<Arc<Cancellation>>) -> Result<bool, HcpError> {
        let node = self.core()?;
        self.unless_down(cancellation, async { Ok(node.reachable().await) }).await
    }

    /// The session with whoever holds the key of `address`, or speaks for it: the one that exists, whoever dialled it, or a
    /// new one, to which this node proves who it is. It is shared by all who connect to the address.
    ///
    /// A session whose peer has vanished is found dead by the keepalive, and given out until then.
    ///
    /// # Errors
    /// `Unreachable`, `TimedOut`, `ProtocolViolation`, `Authentication`; `Cancelled`; `Closed` when the node was shut down.
    #[uniffi::method(default(cancellation = None))]
    pub async fn connect(
        &self,
        address: Arc<OnionAddress>,
        cancellation: Option<Arc<Cancellation>>,
    ) -> Result<Arc<Session>, HcpError> {
        let node = self.core()?;
        self.unless_down(cancellation, async { Ok(Session::shared(node.connect(address.inner).await?)) }).await
    }

    /// Opens a new session without showing who this node is. The peer can open no streams in it.
    ///
    /// # Errors
    /// As [`Self::connect`].
    #[uniffi::method(default(cancellation = None))]
    pub async fn connect_anonymously(
        &self,
        address: Arc<OnionAddress>,
        cancellation: Option<Arc<Cancellation>>,
    ) -> Result<Arc<Session>, HcpError> {
        let node = self.core()?;
        self.unless_down(cancellation, async { Ok(Session::shared(node.connect_anonymously(address.inner).await?)) })
            .await
    }

    /// Opens a new session as somebody else, such as an identity made for this one peer. The peer can open no streams in it,
    /// and nothing connects it with this node.
    ///
    /// A peer keeps one session for an identity: of two that are open at once it may drain the first.
    ///
    /// # Errors
    /// As [`Self::connect`].
    #[uniffi::method(default(cancellation = None))]
    pub async fn connect_as(
        &self,
        address: Arc<OnionAddress>,
        identity: Arc<Identity>,
        cancellation: Option<Arc<Cancellation>>,
    ) -> Result<Arc<Session>, HcpError> {
        let node = self.core()?;
        let connect = async { Ok(Session::shared(node.connect_as(address.inner, &identity.inner).await?)) };
        self.unless_down(cancellation, connect).await
    }

    /// Keeps a session with whoever holds the key of `address`: connects, and connects again whenever the session has ended.
    /// Waits from one second to one minute unless told otherwise.
    ///
    /// # Errors
    /// `Closed` when the node was shut down.
    #[uniffi::method(default(backoff = None))]
    #[expect(clippy::unused_async, reason = "the task that dials needs a runtime to be on")]
    pub async fn maintain(
        &self,
        address: Arc<OnionAddress>,
        backoff: Option<Arc<Backoff>>,
    ) -> Result<Arc<Maintained>, HcpError> {
        self.keep(&address, core::DialAs::Node, backoff)
    }

    /// Keeps a session as [`maintain`](Self::maintain) does, and dials as somebody: towards a service best anonymously.
    ///
    /// That sessions follow each other at once tells the peer that they are probably of the same dialler.
    ///
    /// # Errors
    /// `Closed` when the node was shut down.
    #[uniffi::method(default(backoff = None))]
    #[expect(clippy::unused_async, reason = "the task that dials needs a runtime to be on")]
    pub async fn maintain_as(
        &self,
        address: Arc<OnionAddress>,
        me: DialAs,
        backoff: Option<Arc<Backoff>>,
    ) -> Result<Arc<Maintained>, HcpError> {
        self.keep(&address, me.into(), backoff)
    }

    /// Has the node speak for a service under other credentials than it does, such as those of the owner's next round, while
    /// it goes on serving: whoever connects from now on is shown these.
    ///
    /// Sessions that exist go on as they are, and the lanes that join them later are shown the key with which they began. So
    /// that key stays in memory until the last of them has ended.
    ///
    /// # Errors
    /// `InvalidInput` when the node does not serve the service, `Authentication` when diallers would not take the credentials
    /// now, `Closed` when the node was shut down.
    pub fn renew(&self, credentials: Arc<ReplicaCredentials>) -> Result<(), HcpError> {
        Ok(self.core()?.renew(credentials.inner.clone())?)
    }

    /// Hides the node's own address from everybody but these clients from now on, whoever could find it before.
    ///
    /// It takes until the network has heard of it, over Tor a minute. Sessions that exist go on, and who has found the
    /// address before can dial it as long as it remembers how.
    ///
    /// # Errors
    /// `InvalidInput` on a network that can restrict no address, and for a number of clients that cannot be; `Closed` when the
    /// node was shut down.
    pub fn restrict_to(&self, clients: Vec<Arc<DiscoveryPublicKey>>) -> Result<(), HcpError> {
        Ok(self.core()?.restrict_to(DiscoveryPublicKey::all(&clients))?)
    }

    /// What happens to the node from now on.
    ///
    /// # Errors
    /// `Closed` when the node was shut down.
    pub fn events(&self) -> Result<Arc<NodeEvents>, HcpError> {
        Ok(NodeEvents::shared(self.core()?.events()))
    }

    /// What the node has done since it was bound, and what it holds now.
    ///
    /// # Errors
    /// `Closed` when the node was shut down.
    pub fn stats(&self) -> Result<NodeStats, HcpError> {
        Ok(self.core()?.stats().into())
    }

    /// Ends the node and its sessions at once, whoever still holds handles.
    pub fn shutdown(&self) {
        drop(self.inner.end());
        let dialling = std::mem::take(&mut *self.dialling.lock().unwrap_or_else(PoisonError::into_inner));
        for dialling in dialling.iter().filter_map(Weak::upgrade) {
            drop(dialling.end());
        }
    }
}

impl Node {
    fn core(&self) -> Result<core::Node, HcpError> {
        self.inner.value().ok_or_else(down)
    }

    fn keep(
        &self,
        address: &OnionAddress,
        me: core::DialAs,
        backoff: Option<Arc<Backoff>>,
    ) -> Result<Arc<Maintained>, HcpError> {
        let backoff = backoff.map(|backoff| backoff.inner).unwrap_or_default();
        // Held while the node is asked, so that a shutdown either comes before or finds what is made here.
        let mut dialling = self.dialling.lock().unwrap_or_else(PoisonError::into_inner);
        let maintained = Running::start(Arc::new(self.core()?.maintain_as(address.inner, me, backoff)));
        dialling.retain(|dialling| dialling.upgrade().is_some_and(|dialling| dialling.value().is_some()));
        dialling.push(Arc::downgrade(&maintained));
        Ok(Maintained::shared(maintained))
    }

    async fn unless_down<T>(
        &self,
        cancellation: Option<Arc<Cancellation>>,
        work: impl Future<Output = Result<T, HcpError>>,
    ) -> Result<T, HcpError> {
        unless_cancelled(cancellation, self.inner.unless_ended(work)).await?.ok_or_else(down)?
    }
}

fn down() -> HcpError {
    HcpError::closed("the node was shut down")
}
