//! A session as Python holds it.

use hcp_core::{node, session};
use pyo3::prelude::*;

use crate::arguments::seconds;
use crate::delegation::{Delegation, PublicKey};
use crate::errors::Failure;
use crate::identity::OnionAddress;
use crate::node_event::DialledBy;
use crate::operation::Operation;
use crate::stream::Stream;

/// What goes first when a session has more to send than its connection takes.
#[pyclass(frozen, eq, hash, from_py_object, rename_all = "SCREAMING_SNAKE_CASE", module = "hcp")]
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Priority {
    /// What others wait for.
    Control,
    /// Messages.
    Live,
    /// Files and other large transfers.
    Bulk,
}

impl Priority {
    pub(crate) fn from_core(priority: session::Priority) -> Self {
        match priority {
            session::Priority::Control => Self::Control,
            session::Priority::Live => Self::Live,
            session::Priority::Bulk => Self::Bulk,
        }
    }

    fn core(self) -> session::Priority {
        match self {
            Self::Control => session::Priority::Control,
            Self::Live => session::Priority::Live,
            Self::Bulk => session::Priority::Bulk,
        }
    }
}

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

    #[getter]
    fn dialled_by(&self) -> DialledBy {
        self.0.dialled_by().into()
    }

    #[getter]
    fn delegation(&self) -> Option<Delegation> {
        self.0.delegation().cloned().map(Delegation)
    }

    fn check_delegation(&self) -> Result<(), Failure> {
        Ok(self.0.check_delegation()?)
    }

    #[getter]
    fn replica(&self) -> Option<PublicKey> {
        self.0.replica().map(PublicKey)
    }

    fn stats(&self) -> SessionStats {
        self.0.stats().into()
    }

    #[pyo3(signature = (protocol, priority = Priority::Live))]
    fn open(&self, protocol: String, priority: Priority) -> Operation {
        let session = self.0.clone();
        Operation::new(async move { session.open_with(&protocol, priority.core()).await.map(Stream::new) })
    }

    fn drain(&self, within: f64) -> Result<Operation, Failure> {
        let (session, within) = (self.0.clone(), seconds("the time to drain in", within)?);
        Ok(Operation::new(async move { Ok::<_, Failure>(session.drain(within).await) }))
    }

    fn shutdown(&self) -> Operation {
        let session = self.0.clone();
        Operation::unit(async move {
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

/// What a session has done, and how it stands.
#[pyclass(frozen, eq, get_all, module = "hcp")]
#[derive(PartialEq)]
pub(crate) struct SessionStats {
    bytes_sent: u64,
    bytes_received: u64,
    frames_sent: u64,
    frames_received: u64,
    padding_sent: u64,
    frames_resent: u64,
    round_trip: Option<f64>,
    open_streams: usize,
    lanes: usize,
}

impl From<session::SessionStats> for SessionStats {
    fn from(stats: session::SessionStats) -> Self {
        Self {
            bytes_sent: stats.bytes_sent,
            bytes_received: stats.bytes_received,
            frames_sent: stats.frames_sent,
            frames_received: stats.frames_received,
            padding_sent: stats.padding_sent,
            frames_resent: stats.frames_resent,
            round_trip: stats.round_trip.map(|time| time.as_secs_f64()),
            open_streams: stats.open_streams,
            lanes: stats.lanes,
        }
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
