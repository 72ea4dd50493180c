//! A session as Python holds it.

use hcp_core::node;
use pyo3::prelude::*;

use crate::errors::Failure;
use crate::identity::OnionAddress;
use crate::operation::Operation;
use crate::stream::Stream;

/// An encrypted connection with a peer.
#[pyclass(frozen, module = "hcp")]
pub(crate) struct Session(pub(crate) node::Session);

#[pymethods]
impl Session {
    #[getter]
    fn peer(&self) -> Option<OnionAddress> {
        self.0.peer().address().map(OnionAddress)
    }

    #[getter]
    fn round_trip(&self) -> Option<f64> {
        self.0.round_trip().map(|time| time.as_secs_f64())
    }

    fn open(&self, protocol: String) -> Operation {
        let session = self.0.clone();
        Operation::new(async move { session.open(&protocol).await.map(Stream::new) })
    }

    fn shutdown(&self) -> Operation {
        let session = self.0.clone();
        Operation::new(async move {
            session.shutdown().await;
            Ok::<_, Failure>(())
        })
    }

    fn closed(&self) -> Operation {
        let session = self.0.clone();
        Operation::new(async move { Ok::<_, Failure>(Ended(session.closed().await.into())) })
    }

    fn __aenter__(this: Bound<'_, Self>) -> Operation {
        Operation::ready(this.into_any().unbind())
    }

    fn __aexit__(
        &self,
        _exception_type: Bound<'_, PyAny>,
        _exception: Bound<'_, PyAny>,
        _traceback: Bound<'_, PyAny>,
    ) -> Operation {
        self.shutdown()
    }

    fn __repr__(&self) -> String {
        format!("{:?}", self.0)
    }
}

/// Why a session ended: an exception that is returned, not raised.
struct Ended(Failure);

impl<'py> IntoPyObject<'py> for Ended {
    type Target = PyAny;
    type Output = Bound<'py, PyAny>;
    type Error = PyErr;

    fn into_pyobject(self, py: Python<'py>) -> PyResult<Self::Output> {
        Ok(PyErr::from(self.0).into_value(py).into_bound(py).into_any())
    }
}
