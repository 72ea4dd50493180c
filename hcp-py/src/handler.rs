//! Serves streams with asynchronous functions of Python, as tasks of the event loop that bound the node.
//!
//! A stream lives as long as its task: one that returns finishes the stream, one that raises resets it, and one whose
//! session ends is cancelled. Nothing that a handler does reaches the node.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use hcp_core::node;
use pyo3::prelude::*;
use pyo3::types::{IntoPyDict, PyDict};
use pyo3::{PyClass, PyClassInitializer};
use pyo3_async_runtimes::TaskLocals;
use tokio::sync::oneshot;

use crate::errors::is_closed;
use crate::session::Session;
use crate::stream::Stream;

/// A function of Python that serves a protocol.
pub(crate) struct PythonHandler {
    function: Py<PyAny>,
    protocol: String,
    locals: TaskLocals,
}

/// How a handler ended.
enum Outcome {
    Returned,
    Failed,
}

impl PythonHandler {
    /// Serves `protocol` with `function` on the running loop, in a copy of the present context.
    pub(crate) fn new(function: &Bound<'_, PyAny>, protocol: &str) -> PyResult<Self> {
        let locals = TaskLocals::with_running_loop(function.py())?.copy_context(function.py())?;
        Ok(Self { function: function.clone().unbind(), protocol: protocol.to_owned(), locals })
    }

    /// Serves one stream; dropping the future cancels the task.
    pub(crate) async fn serve(self: Arc<Self>, stream: node::Stream, session: node::Session) {
        let stream = Stream::new(stream);
        let flow = stream.flow();
        let (ended, end) = oneshot::channel();
        let task = Arc::new(Task {
            handler: Arc::clone(&self),
            handle: OnceLock::new(),
            abandoned: AtomicBool::new(false),
            ended: Mutex::new(Some(ended)),
        });
        let guard = CancelOnDrop(Arc::clone(&task));
        let start = Start { task, stream: Mutex::new(Some((stream, Session(session)))) };
        let started = tokio::task::spawn_blocking(move || Python::attach(|py| self.call_soon(py, start)));
        let outcome = match started.await {
            Ok(Ok(())) => end.await.unwrap_or(Outcome::Failed),
            // The event loop is closed: nobody is left to serve anything.
            _ => Outcome::Failed,
        };
        drop(guard);
        match outcome {
            Outcome::Returned => flow.finish().await,
            Outcome::Failed => flow.reset(),
        }
    }

    fn call_soon<C: PyClass>(&self, py: Python<'_>, callback: impl Into<PyClassInitializer<C>>) -> PyResult<()> {
        let context = [("context", self.locals.context(py))].into_py_dict(py)?;
        let callback = Py::new(py, callback)?;
        self.locals.event_loop(py).call_method("call_soon_threadsafe", (callback,), Some(&context)).map(drop)
    }

    fn report(&self, py: Python<'_>, error: PyErr, task: Option<&Bound<'_, PyAny>>) -> PyResult<()> {
        let context = PyDict::new(py);
        context.set_item("message", format!("the handler of the protocol {:?} failed", self.protocol))?;
        context.set_item("exception", error)?;
        if let Some(task) = task {
            context.set_item("task", task)?;
        }
        self.locals.event_loop(py).call_method1("call_exception_handler", (context,)).map(drop)
    }
}

/// A handler at work.
struct Task {
    handler: Arc<PythonHandler>,
    /// The asyncio task; held here because the loop holds only a weak reference.
    handle: OnceLock<Py<PyAny>>,
    abandoned: AtomicBool,
    ended: Mutex<Option<oneshot::Sender<Outcome>>>,
}

impl Task {
    fn end(&self, outcome: Outcome) {
        if let Some(ended) = self.ended.lock().unwrap_or_else(PoisonError::into_inner).take() {
            // Nobody waits any more when the session is gone.
            let _ = ended.send(outcome);
        }
    }
}

/// Cancels the task when the session ends before it.
struct CancelOnDrop(Arc<Task>);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.abandoned.store(true, Ordering::Release);
        if self.0.ended.lock().unwrap_or_else(PoisonError::into_inner).is_none() {
            return;
        }
        let task = Arc::clone(&self.0);
        pyo3_async_runtimes::tokio::get_runtime().spawn_blocking(move || {
            // A closed loop has cancelled its tasks itself.
            let _ = Python::attach(|py| {
                let handler = Arc::clone(&task.handler);
                handler.call_soon(py, Cancel { task })
            });
        });
    }
}

/// Starts the task, on the loop.
#[pyclass(frozen, module = "hcp._hcp")]
struct Start {
    task: Arc<Task>,
    stream: Mutex<Option<(Stream, Session)>>,
}

#[pymethods]
impl Start {
    fn __call__(&self, py: Python<'_>) -> PyResult<()> {
        let taken = self.stream.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some((stream, session)) = taken else { return Ok(()) };
        // `Cancel` may run before this; then there is no task, and must be none.
        if self.task.abandoned.load(Ordering::Acquire) {
            return Ok(());
        }
        let handler = &self.task.handler;
        let begun = handler
            .function
            .call1(py, (stream, session))
            .and_then(|coroutine| handler.locals.event_loop(py).call_method1("create_task", (coroutine,)));
        match begun {
            Ok(handle) => {
                let _ = self.task.handle.set(handle.clone().unbind());
                handle.call_method1("add_done_callback", (Done { task: Arc::clone(&self.task) },)).map(drop)
            }
            Err(error) => {
                self.task.end(Outcome::Failed);
                handler.report(py, error, None)
            }
        }
    }
}

/// Sees to the end of the task, on the loop.
#[pyclass(frozen, module = "hcp._hcp")]
struct Done {
    task: Arc<Task>,
}

#[pymethods]
impl Done {
    fn __call__(&self, task: Bound<'_, PyAny>) -> PyResult<()> {
        let py = task.py();
        if task.call_method0("cancelled")?.is_truthy()? {
            self.task.end(Outcome::Failed);
            return Ok(());
        }
        let exception = task.call_method0("exception")?;
        if exception.is_none() {
            self.task.end(Outcome::Returned);
            return Ok(());
        }
        self.task.end(Outcome::Failed);
        let error = PyErr::from_value(exception);
        // That a peer leaves is how most streams end, and no defect of the handler.
        if is_closed(py, &error) { Ok(()) } else { self.task.handler.report(py, error, Some(&task)) }
    }
}

/// Cancels the task, on the loop.
#[pyclass(frozen, module = "hcp._hcp")]
struct Cancel {
    task: Arc<Task>,
}

#[pymethods]
impl Cancel {
    fn __call__(&self, py: Python<'_>) -> PyResult<()> {
        match self.task.handle.get() {
            Some(handle) => handle.call_method0(py, "cancel").map(drop),
            None => Ok(()),
        }
    }
}
