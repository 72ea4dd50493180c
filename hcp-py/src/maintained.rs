//! A session that is dialled again whenever it has ended, as Python holds it.

use std::sync::Arc;

use hcp_core::node;
use pyo3::prelude::*;

use crate::arguments::seconds;
use crate::errors::Failure;
use crate::identity::Identity;
use crate::lifetime::Lifetime;
use crate::operation::Operation;
use crate::session::Session;

/// How long to wait between attempts to reach a peer.
#[pyclass(frozen, eq, module = "hcp")]
#[derive(PartialEq, Eq)]
pub(crate) struct Backoff(pub(crate) node::Backoff);

#[pymethods]
impl Backoff {
    #[new]
    #[pyo3(signature = (first = 1.0, longest = 60.0))]
    fn new(first: f64, longest: f64) -> Result<Self, Failure> {
        Ok(Self(node::Backoff::new(seconds("the first wait", first)?, seconds("the longest wait", longest)?)?))
    }

    #[getter]
    fn first(&self) -> f64 {
        self.0.first().as_secs_f64()
    }

    #[getter]
    fn longest(&self) -> f64 {
        self.0.longest().as_secs_f64()
    }

    fn __repr__(&self) -> String {
        format!("Backoff({:?}, {:?})", self.first(), self.longest())
    }
}

/// As whom a node dials.
#[pyclass(frozen, module = "hcp")]
pub(crate) struct DialAs(pub(crate) node::DialAs);

#[pymethods]
impl DialAs {
    #[staticmethod]
    fn node() -> Self {
        Self(node::DialAs::Node)
    }

    #[staticmethod]
    fn anonymous() -> Self {
        Self(node::DialAs::Anonymous)
    }

    #[staticmethod]
    fn identity(identity: &Identity) -> Self {
        Self(node::DialAs::Identity(identity.0.clone()))
    }

    fn __repr__(&self) -> &'static str {
        match self.0 {
            node::DialAs::Node => "DialAs.node()",
            node::DialAs::Anonymous => "DialAs.anonymous()",
            _ => "DialAs.identity([redacted])",
        }
    }
}

/// Ends the dialling; the node that dials can do so too.
pub(crate) type Dialling = Lifetime<Arc<node::Maintained>>;

/// A session that is kept.
#[pyclass(frozen, module = "hcp")]
pub(crate) struct Maintained(pub(crate) Arc<Dialling>);

impl Maintained {
    pub(crate) fn new(maintained: node::Maintained) -> Self {
        Self(Arc::new(Lifetime::new(Arc::new(maintained), "the session is not kept any more")))
    }
}

#[pymethods]
impl Maintained {
    fn session(&self) -> Operation {
        Operation::new(self.0.run(|maintained| async move { Ok::<_, Failure>(Session(maintained.session().await)) }))
    }

    fn after(&self, last: &Session) -> Operation {
        let last = last.0.clone();
        Operation::new(self.0.run(|maintained| async move { Ok::<_, Failure>(Session(maintained.after(&last).await)) }))
    }

    fn current(&self) -> Option<Session> {
        self.0.handle().ok()?.current().map(Session)
    }

    fn stop(&self) {
        drop(self.0.end());
    }

    fn __aenter__(this: Bound<'_, Self>) -> Operation {
        Operation::ready(this.into_any().unbind())
    }

    fn __aexit__(
        &self,
        py: Python<'_>,
        _exception_type: Bound<'_, PyAny>,
        _exception: Bound<'_, PyAny>,
        _traceback: Bound<'_, PyAny>,
    ) -> Operation {
        self.stop();
        Operation::ready(py.None())
    }
}
