//! Nodes: an identity on a network, which dials peers and accepts them.

use std::sync::Arc;
use std::time::Duration;

use hcp_core::node as core;

use crate::builder::Building;
use crate::cancellation::{Cancellation, unless_cancelled};
use crate::error::HcpError;
use crate::handler::{StreamHandler, serve_with};
use crate::identity::{Identity, OnionAddress};
use crate::network::Network;
use crate::running::Running;
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
    /// a ping per interval and session.
    pub fn keepalive(self: Arc<Self>, interval: Duration, timeout: Duration) -> Arc<Self> {
        self.inner.set(|builder| builder.keepalive(interval, timeout));
        self
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
        Ok(Arc::new(Node { address: Arc::clone(&self.address), inner: Running::start(node) }))
    }
}

/// An identity on a network.
///
/// It runs until [`shutdown`](Self::shutdown), even when no handle is left.
#[derive(Debug, uniffi::Object)]
pub struct Node {
    address: Arc<OnionAddress>,
    inner: Arc<Running<core::Node>>,
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

    /// Opens a session with whoever holds the key of `address`, and proves to them who this node is.
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

    /// Opens a session without showing who this node is. The peer can open no streams in it.
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

    /// Ends the node and its sessions at once, whoever still holds handles.
    pub fn shutdown(&self) {
        drop(self.inner.end());
    }
}

impl Node {
    fn core(&self) -> Result<core::Node, HcpError> {
        self.inner.value().ok_or_else(down)
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
