//! A node as Python holds it.

use std::collections::BTreeMap;
use std::sync::Arc;

use hcp_core::node;
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;

use crate::arguments::seconds;
use crate::errors::Failure;
use crate::handler::PythonHandler;
use crate::identity::{Identity, OnionAddress};
use crate::lifetime::Lifetime;
use crate::network::{ListenerStatus, Network};
use crate::operation::Operation;
use crate::session::Session;
use crate::watch::Watch;

/// Whom a protocol serves.
#[pyclass(frozen, eq, hash, rename_all = "SCREAMING_SNAKE_CASE", module = "hcp")]
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Access {
    /// Everybody, also diallers that do not say who they are.
    Anyone,
    /// Diallers that have proved their address.
    Identified,
}

/// An identity on a network.
#[pyclass(frozen, module = "hcp")]
pub(crate) struct Node(Lifetime<node::Node>, OnionAddress);

/// Whom a protocol serves, and the function that does.
type Route<'py> = (Bound<'py, Access>, Bound<'py, PyAny>);

#[pymethods]
impl Node {
    #[staticmethod]
    #[pyo3(signature = (identity, network, protocols = None, *, keepalive = None))]
    fn bind(
        identity: &Identity,
        network: &Network,
        protocols: Option<BTreeMap<String, Route<'_>>>,
        keepalive: Option<(f64, f64)>,
    ) -> PyResult<Operation> {
        let mut builder = node::Node::builder(identity.0.clone(), network.0.handle()?);
        for (protocol, (access, function)) in protocols.unwrap_or_default() {
            if !function.is_callable() {
                return Err(PyTypeError::new_err(format!("the handler of {protocol:?} cannot be called")));
            }
            let access = match access.get() {
                Access::Anyone => node::Access::Anyone,
                Access::Identified => node::Access::Identified,
            };
            let handler = Arc::new(PythonHandler::new(&function, &protocol)?);
            builder = builder.protocol(&protocol, access, move |stream: node::Stream, session: node::Session| {
                Arc::clone(&handler).serve(stream, session)
            });
        }
        if let Some((interval, timeout)) = keepalive {
            builder =
                builder.keepalive(seconds("keepalive interval", interval)?, seconds("keepalive timeout", timeout)?);
        }
        Ok(Operation::new(async move { builder.bind().await.map(Self::new) }))
    }

    #[getter]
    fn address(&self) -> OnionAddress {
        self.1
    }

    fn status(&self) -> Result<Watch, Failure> {
        Ok(Watch::new(self.0.handle()?.status(), ListenerStatus::from_core))
    }

    fn reachable(&self) -> Operation {
        Operation::new(self.0.run(|node| async move { Ok::<_, Failure>(node.reachable().await) }))
    }

    fn connect(&self, address: &OnionAddress) -> Operation {
        let address = address.0;
        Operation::new(self.0.run(move |node| async move { node.connect(address).await.map(Session) }))
    }

    fn connect_anonymously(&self, address: &OnionAddress) -> Operation {
        let address = address.0;
        Operation::new(self.0.run(move |node| async move { node.connect_anonymously(address).await.map(Session) }))
    }

    fn shutdown(this: Bound<'_, Self>) -> Operation {
        let this = this.unbind();
        Operation::new(async move {
            drop(this.get().0.end());
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
    fn new(node: node::Node) -> Self {
        let address = OnionAddress(node.address());
        Self(Lifetime::new(node, "the node was shut down"), address)
    }
}
