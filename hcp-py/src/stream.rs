//! A stream as Python holds it: one task may send while another receives.

use std::sync::{Arc, Mutex as SyncMutex, PoisonError};

use bytes::Bytes;
use hcp_core::node::{self, SendError};
use hcp_core::session::MAX_MESSAGE;
use pyo3::buffer::PyBuffer;
use pyo3::exceptions::PyStopAsyncIteration;
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use tokio::sync::Mutex;

use crate::arguments::bounded;
use crate::errors::Failure;
use crate::lifetime::Lifetime;
use crate::operation::Operation;
use crate::session::Priority;

/// An ordered flow of messages to and from a peer.
#[pyclass(frozen, module = "hcp")]
pub(crate) struct Stream {
    flow: Arc<Flow>,
    priority: Priority,
}

/// The sending half of a stream.
#[pyclass(frozen, module = "hcp")]
pub(crate) struct StreamSender(Arc<Mutex<node::StreamSender>>);

/// What all handles of a stream share.
pub(crate) struct Flow(Lifetime<Halves>);

#[derive(Clone)]
struct Halves {
    receiver: Arc<Mutex<node::Stream>>,
    sender: Arc<Mutex<node::StreamSender>>,
    /// Received, and not yet taken by a task.
    received: Arc<SyncMutex<Received>>,
}

enum Received {
    Nothing,
    Message(Bytes),
    End,
}

impl Flow {
    /// Ends this side's direction, then gives the stream up.
    pub(crate) async fn finish(&self) {
        let _ = self.0.run(finish).await;
        self.reset();
    }

    /// Abandons the stream; the peer sees that.
    pub(crate) fn reset(&self) {
        drop(self.0.end());
    }
}

impl Stream {
    pub(crate) fn new(stream: node::Stream) -> Self {
        let priority = Priority::from_core(stream.priority());
        let halves = Halves {
            sender: Arc::new(Mutex::new(stream.sender())),
            receiver: Arc::new(Mutex::new(stream)),
            received: Arc::new(SyncMutex::new(Received::Nothing)),
        };
        Self { flow: Arc::new(Flow(Lifetime::new(halves, "the stream was given up"))), priority }
    }

    pub(crate) fn flow(&self) -> Arc<Flow> {
        Arc::clone(&self.flow)
    }

    /// Receives a message; `at_end` is what there is when the peer has ended its direction.
    fn receive(&self, at_end: fn(Python<'_>) -> PyResult<Bound<'_, PyAny>>) -> Operation {
        let waiting = Arc::clone(&self.flow);
        let flow = Arc::clone(&self.flow);
        Operation::taking(
            move || waiting.0.run(wait),
            move |py| {
                let halves = flow.0.handle()?;
                let mut received = halves.received.lock().unwrap_or_else(PoisonError::into_inner);
                match std::mem::replace(&mut *received, Received::Nothing) {
                    Received::Nothing => Ok(None),
                    Received::Message(message) => Ok(Some(PyBytes::new(py, &message).into_any())),
                    Received::End => {
                        *received = Received::End;
                        at_end(py).map(Some)
                    }
                }
            },
        )
    }
}

#[pymethods]
impl Stream {
    #[getter]
    fn priority(&self) -> Priority {
        self.priority
    }

    fn send(&self, py: Python<'_>, message: PyBuffer<u8>) -> PyResult<Operation> {
        let message = bounded(py, &message, MAX_MESSAGE)?;
        Ok(Operation::unit(self.flow.0.run(|halves| send(halves.sender, message))))
    }

    fn recv(&self) -> Operation {
        self.receive(|py| Ok(py.None().into_bound(py)))
    }

    fn finish(&self) -> Operation {
        Operation::unit(self.flow.0.run(finish))
    }

    fn sender(&self) -> Result<StreamSender, Failure> {
        Ok(StreamSender(self.flow.0.handle()?.sender))
    }

    fn reset(&self) {
        self.flow.reset();
    }

    fn __aiter__(this: Bound<'_, Self>) -> Bound<'_, Self> {
        this
    }

    fn __anext__(&self) -> Operation {
        self.receive(|_| Err(PyStopAsyncIteration::new_err(())))
    }

    fn __aenter__(this: Bound<'_, Self>) -> Operation {
        Operation::ready(this.into_any().unbind())
    }

    fn __aexit__(
        &self,
        exception_type: Bound<'_, PyAny>,
        _exception: Bound<'_, PyAny>,
        _traceback: Bound<'_, PyAny>,
    ) -> Operation {
        let flow = Arc::clone(&self.flow);
        let failed = !exception_type.is_none();
        Operation::unit(async move {
            if failed {
                flow.reset();
            } else {
                flow.finish().await;
            }
            Ok::<_, Failure>(())
        })
    }
}

#[pymethods]
impl StreamSender {
    fn send(&self, py: Python<'_>, message: PyBuffer<u8>) -> PyResult<Operation> {
        let message = bounded(py, &message, MAX_MESSAGE)?;
        Ok(Operation::unit(send(Arc::clone(&self.0), message)))
    }

    fn finish(&self) -> Operation {
        let sender = Arc::clone(&self.0);
        Operation::unit(async move {
            sender.lock().await.finish().await;
            Ok::<_, Failure>(())
        })
    }
}

/// Waits until something is received; one task after the other.
async fn wait(halves: Halves) -> Result<(), Failure> {
    let mut receiver = halves.receiver.lock().await;
    if !matches!(*halves.received.lock().unwrap_or_else(PoisonError::into_inner), Received::Nothing) {
        return Ok(());
    }
    let received = receiver.recv().await?.map_or(Received::End, Received::Message);
    *halves.received.lock().unwrap_or_else(PoisonError::into_inner) = received;
    Ok(())
}

/// `message` is the length of one that is too long.
async fn send(sender: Arc<Mutex<node::StreamSender>>, message: Result<Vec<u8>, usize>) -> Result<(), SendError> {
    let message = message.map_err(|length| SendError::TooLong { length })?;
    sender.lock().await.send(message).await
}

async fn finish(halves: Halves) -> Result<(), Failure> {
    halves.sender.lock().await.finish().await;
    Ok(())
}
