//! The protocols that a node or a service is to serve, as Python names them.

use std::collections::BTreeMap;
use std::sync::Arc;

use hcp_core::node;
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;

use crate::handler::PythonHandler;

/// Whom a protocol serves.
#[pyclass(frozen, eq, hash, rename_all = "SCREAMING_SNAKE_CASE", module = "hcp")]
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Access {
    /// Everybody, also diallers that do not say who they are.
    Anyone,
    /// Diallers that have proved their address.
    Identified,
}

/// By name, whom a protocol serves, and the function that does.
pub(crate) type Protocols<'py> = BTreeMap<String, (Bound<'py, Access>, Bound<'py, PyAny>)>;

/// What the core takes: for each protocol its name, whom it serves, and its handler.
pub(crate) fn routes(protocols: Protocols<'_>) -> PyResult<Vec<(String, node::Access, impl node::Handler)>> {
    let mut routes = Vec::with_capacity(protocols.len());
    for (protocol, (access, function)) in protocols {
        if !function.is_callable() {
            return Err(PyTypeError::new_err(format!("the handler of {protocol:?} cannot be called")));
        }
        let access = match access.get() {
            Access::Anyone => node::Access::Anyone,
            Access::Identified => node::Access::Identified,
        };
        let handler = Arc::new(PythonHandler::new(&function, &protocol)?);
        let handler = move |stream: node::Stream, session: node::Session| Arc::clone(&handler).serve(stream, session);
        routes.push((protocol, access, handler));
    }
    Ok(routes)
}
