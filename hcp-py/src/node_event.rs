//! What happens to a node, and what it has counted.

use std::sync::{Arc, Mutex as SyncMutex, PoisonError};

use hcp_core::node as core;
use hcp_core::session::Peer;
use pyo3::IntoPyObjectExt as _;
use pyo3::exceptions::PyStopAsyncIteration;
use pyo3::prelude::*;
use tokio::sync::Mutex;

use crate::errors::{Failure, error_kind};
use crate::identity::OnionAddress;
use crate::operation::Operation;

/// Which side dialled a session.
#[pyclass(frozen, eq, hash, from_py_object, rename_all = "SCREAMING_SNAKE_CASE", module = "hcp")]
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum DialledBy {
    /// This node.
    Us,
    /// The peer.
    Peer,
}

impl From<core::DialledBy> for DialledBy {
    fn from(dialled_by: core::DialledBy) -> Self {
        match dialled_by {
            core::DialledBy::Us => Self::Us,
            core::DialledBy::Peer => Self::Peer,
        }
    }
}

/// What happened to a node.
#[pyclass(frozen, module = "hcp")]
pub(crate) enum NodeEvent {
    SessionBegan { peer: Option<OnionAddress>, dialled_by: DialledBy },
    SessionEnded { peer: Option<OnionAddress>, dialled_by: DialledBy, error: Py<PyAny> },
    LaneBegan { peer: Option<OnionAddress> },
    LaneEnded { peer: Option<OnionAddress> },
    DialFailed { address: OnionAddress, kind: Py<PyAny>, reason: String },
    Missed { count: u64 },
}

impl NodeEvent {
    fn from_core(py: Python<'_>, event: core::NodeEvent) -> PyResult<Self> {
        let address = |peer: Peer| peer.address().map(OnionAddress);
        Ok(match event {
            core::NodeEvent::SessionBegan { peer, dialled_by } => {
                Self::SessionBegan { peer: address(peer), dialled_by: dialled_by.into() }
            }
            core::NodeEvent::SessionEnded { peer, dialled_by, error } => {
                let error = PyErr::from(Failure::from(error)).into_value(py).into_any();
                Self::SessionEnded { peer: address(peer), dialled_by: dialled_by.into(), error }
            }
            core::NodeEvent::LaneBegan { peer } => Self::LaneBegan { peer: address(peer) },
            core::NodeEvent::LaneEnded { peer } => Self::LaneEnded { peer: address(peer) },
            core::NodeEvent::DialFailed { address, kind, reason } => {
                Self::DialFailed { address: OnionAddress(address), kind: error_kind(py, kind)?, reason }
            }
            core::NodeEvent::Missed { count } => Self::Missed { count },
            other => return Err(Failure::unknown(&other).into()),
        })
    }
}

/// The events of a node.
#[pyclass(frozen, module = "hcp")]
pub(crate) struct NodeEvents(Arc<Reader>);

struct Reader {
    events: Mutex<core::NodeEvents>,
    /// Read, and not yet taken by a task.
    read: SyncMutex<Read>,
}

enum Read {
    Nothing,
    Event(core::NodeEvent),
    /// The node is gone.
    End,
}

impl NodeEvents {
    pub(crate) fn new(events: core::NodeEvents) -> Self {
        Self(Arc::new(Reader { events: Mutex::new(events), read: SyncMutex::new(Read::Nothing) }))
    }
}

#[pymethods]
impl NodeEvents {
    fn __aiter__(this: Bound<'_, Self>) -> Bound<'_, Self> {
        this
    }

    fn __anext__(&self) -> Operation {
        let (waiting, reader) = (Arc::clone(&self.0), Arc::clone(&self.0));
        Operation::taking(
            move || {
                let reader = Arc::clone(&waiting);
                async move {
                    reader.wait().await;
                    Ok(())
                }
            },
            move |py| {
                let mut read = reader.read.lock().unwrap_or_else(PoisonError::into_inner);
                match std::mem::replace(&mut *read, Read::Nothing) {
                    Read::Nothing => Ok(None),
                    Read::Event(event) => {
                        drop(read);
                        NodeEvent::from_core(py, event)?.into_bound_py_any(py).map(Some)
                    }
                    Read::End => {
                        *read = Read::End;
                        Err(PyStopAsyncIteration::new_err(()))
                    }
                }
            },
        )
    }
}

impl Reader {
    /// Waits until there is something to take; one task after the other.
    async fn wait(&self) {
        let mut events = self.events.lock().await;
        if !matches!(*self.read.lock().unwrap_or_else(PoisonError::into_inner), Read::Nothing) {
            return;
        }
        let read = events.next().await.map_or(Read::End, Read::Event);
        *self.read.lock().unwrap_or_else(PoisonError::into_inner) = read;
    }
}

/// What a node has done since it was bound, and what it holds now.
#[pyclass(frozen, eq, get_all, module = "hcp")]
#[derive(PartialEq, Eq)]
pub(crate) struct NodeStats {
    sessions_dialled: u64,
    sessions_accepted: u64,
    sessions_open: u64,
    dials_failed: u64,
    handshakes_failed: u64,
    handshakes_displaced: u64,
    sessions_refused: u64,
    lanes_joined: u64,
    lanes_failed: u64,
    sessions_evicted: u64,
    bytes_held: u64,
    bytes_backlog: u64,
}

impl From<core::NodeStats> for NodeStats {
    fn from(stats: core::NodeStats) -> Self {
        Self {
            sessions_dialled: stats.sessions_dialled,
            sessions_accepted: stats.sessions_accepted,
            sessions_open: stats.sessions_open,
            dials_failed: stats.dials_failed,
            handshakes_failed: stats.handshakes_failed,
            handshakes_displaced: stats.handshakes_displaced,
            sessions_refused: stats.sessions_refused,
            lanes_joined: stats.lanes_joined,
            lanes_failed: stats.lanes_failed,
            sessions_evicted: stats.sessions_evicted,
            bytes_held: stats.bytes_held,
            bytes_backlog: stats.bytes_backlog,
        }
    }
}
