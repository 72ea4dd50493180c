//! A node as Python holds it.

use std::sync::{Arc, Mutex, PoisonError, Weak};

use hcp_core::node;
use pyo3::prelude::*;

use crate::arguments::seconds;
use crate::bridge;
use crate::delegation::{ReplicaCredentials, SerialFloors};
use crate::errors::Failure;
use crate::identity::{DiscoveryPublicKey, Identity, OnionAddress};
use crate::lifetime::Lifetime;
use crate::maintained::{Backoff, DialAs, Dialling, Maintained};
use crate::network::{ListenerStatus, Network};
use crate::node_event::{NodeEvents, NodeStats};
use crate::operation::Operation;
use crate::routes::{Protocols, routes};
use crate::service::{Service, Status, withdrawn};
use crate::session::Session;
use crate::watch::Watch;

/// An identity on a network.
#[pyclass(frozen, module = "hcp")]
pub(crate) struct Node {
    node: Lifetime<node::Node>,
    address: OnionAddress,
    /// Of the services that the node serves beside its own address.
    services: Vec<Status>,
    /// What dials for the node, and would keep it alive when it is shut down.
    dialling: Mutex<Vec<Weak<Dialling>>>,
}

#[pymethods]
impl Node {
    #[staticmethod]
    #[expect(clippy::too_many_arguments, reason = "keyword arguments in Python")]
    #[pyo3(signature = (identity, network, protocols = None, *, keepalive = None, lanes = None, floors = None,
        restricted_to = None, services = None))]
    fn bind(
        identity: &Identity,
        network: &Network,
        protocols: Option<Protocols<'_>>,
        keepalive: Option<(f64, f64)>,
        lanes: Option<usize>,
        floors: Option<&SerialFloors>,
        restricted_to: Option<Vec<DiscoveryPublicKey>>,
        services: Option<Vec<Bound<'_, Service>>>,
    ) -> PyResult<Operation> {
        let mut builder = node::Node::builder(identity.0.clone(), network.0.handle()?);
        for (protocol, access, handler) in routes(protocols.unwrap_or_default())? {
            builder = builder.protocol(&protocol, access, handler);
        }
        if let Some((interval, timeout)) = keepalive {
            builder =
                builder.keepalive(seconds("keepalive interval", interval)?, seconds("keepalive timeout", timeout)?);
        }
        if let Some(lanes) = lanes {
            builder = builder.lanes(lanes);
        }
        if let Some(floors) = floors {
            builder = builder.floors(floors.0.clone());
        }
        if let Some(clients) = restricted_to {
            builder = builder.restricted_to(clients.iter().map(|client| client.0));
        }
        let offered: Vec<_> = services.unwrap_or_default().iter().map(|service| service.get().offered()).collect();
        Ok(Operation::new(async move {
            let mut services = Vec::with_capacity(offered.len());
            for take in offered {
                let offer = take()?;
                builder = builder.service(offer.service);
                services.push(offer.status);
            }
            Ok::<_, Failure>(Self::new(builder.bind().await?, services))
        }))
    }

    #[getter]
    fn address(&self) -> OnionAddress {
        self.address
    }

    fn status(&self) -> Result<Watch, Failure> {
        Ok(Watch::new(self.node.handle()?.status(), ListenerStatus::from_core))
    }

    fn reachable(&self) -> Operation {
        Operation::new(self.node.run(|node| async move { Ok::<_, Failure>(node.reachable().await) }))
    }

    fn connect(&self, address: &OnionAddress) -> Operation {
        let address = address.0;
        Operation::new(self.node.run(move |node| async move { node.connect(address).await.map(Session) }))
    }

    fn connect_anonymously(&self, address: &OnionAddress) -> Operation {
        let address = address.0;
        Operation::new(self.node.run(move |node| async move { node.connect_anonymously(address).await.map(Session) }))
    }

    fn connect_as(&self, address: &OnionAddress, identity: &Identity) -> Operation {
        let (address, identity) = (address.0, identity.0.clone());
        Operation::new(self.node.run(move |node| async move { node.connect_as(address, &identity).await.map(Session) }))
    }

    #[pyo3(signature = (address, backoff = None))]
    fn maintain(&self, address: &OnionAddress, backoff: Option<&Backoff>) -> Result<Maintained, Failure> {
        self.keep(address, node::DialAs::Node, backoff)
    }

    #[pyo3(signature = (address, me, backoff = None))]
    fn maintain_as(
        &self,
        address: &OnionAddress,
        me: &DialAs,
        backoff: Option<&Backoff>,
    ) -> Result<Maintained, Failure> {
        self.keep(address, me.0.clone(), backoff)
    }

    fn renew(&self, credentials: &ReplicaCredentials) -> Result<(), Failure> {
        Ok(self.node.handle()?.renew(credentials.0.clone())?)
    }

    fn restrict_to(&self, clients: Vec<DiscoveryPublicKey>) -> Result<(), Failure> {
        Ok(self.node.handle()?.restrict_to(clients.iter().map(|client| client.0))?)
    }

    fn events(&self) -> Result<NodeEvents, Failure> {
        Ok(NodeEvents::new(self.node.handle()?.events()))
    }

    fn stats(&self) -> Result<NodeStats, Failure> {
        Ok(self.node.handle()?.stats().into())
    }

    fn shutdown(this: Bound<'_, Self>) -> Operation {
        let this = this.unbind();
        Operation::unit(async move {
            if let Some(node) = this.get().end() {
                let status = node.status();
                drop(node);
                withdrawn(status).await;
                for status in &this.get().services {
                    withdrawn(status.clone()).await;
                }
            }
            Ok::<_, Failure>(())
        })
    }

    fn __aenter__(this: Bound<'_, Self>) -> Operation {
        Operation::ready(this.into_any().unbind())
    }

    fn __aexit__(
        this: Bound<'_, Self>,
        _exception_type: Bound<'_, PyAny>,
        _exception: Bound<'_, PyAny>,
        _traceback: Bound<'_, PyAny>,
    ) -> Operation {
        Self::shutdown(this)
    }
}

impl Node {
    fn new(node: node::Node, services: Vec<Status>) -> Self {
        let address = OnionAddress(node.address());
        Self { node: Lifetime::new(node, "the node was shut down"), address, services, dialling: Mutex::default() }
    }

    fn keep(&self, address: &OnionAddress, me: node::DialAs, backoff: Option<&Backoff>) -> Result<Maintained, Failure> {
        // Held while the node is asked, so that a shutdown either comes before or finds what is made here.
        let mut dialling = self.dialling.lock().unwrap_or_else(PoisonError::into_inner);
        let node = self.node.handle()?;
        // The task that dials needs a runtime to be on.
        let _runtime = bridge::runtime()?.enter();
        let maintained =
            Maintained::new(node.maintain_as(address.0, me, backoff.map(|waits| waits.0).unwrap_or_default()));
        dialling.retain(|dialling| dialling.strong_count() > 0);
        dialling.push(Arc::downgrade(&maintained.0));
        Ok(maintained)
    }

    /// Gives the node up, with all that dials for it.
    fn end(&self) -> Option<node::Node> {
        let node = self.node.end();
        let dialling = std::mem::take(&mut *self.dialling.lock().unwrap_or_else(PoisonError::into_inner));
        for dialling in dialling.iter().filter_map(Weak::upgrade) {
            drop(dialling.end());
        }
        node
    }
}
