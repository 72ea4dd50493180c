//! What Python awaits: a coroutine around a future of the core.
//!
//! It begins at the first step, as Python's own coroutines do, and may be given to `asyncio.create_task`. Cancelling the
//! task that awaits it, closing it or forgetting it drops the core's future. What must not get lost on the way, such as a
//! received message, stays where it is until the awaiting task really takes it: a task can still be cancelled after the
//! future that it waits for has its result.

use std::sync::{Mutex, PoisonError};

use pyo3::exceptions::{PyRuntimeError, PyStopIteration};
use pyo3::prelude::*;
use pyo3::types::PyAny;
use pyo3_async_runtimes::tokio::future_into_py;
use tokio::sync::oneshot;

use crate::errors::Failure;

/// The steps of an operation, all of them on the event loop's thread.
trait Steps: Send {
    /// Starts the core's future and gives the asyncio future of its end.
    fn begin<'py>(&mut self, py: Python<'py>, abandoned: oneshot::Receiver<()>) -> PyResult<Bound<'py, PyAny>>;

    /// Turns what the asyncio future held into the result; `None` begins again.
    fn end<'py>(&mut self, result: Bound<'py, PyAny>) -> PyResult<Option<Bound<'py, PyAny>>>;
}

/// A coroutine.
#[pyclass(frozen, module = "hcp._hcp")]
pub(crate) struct Operation {
    state: Mutex<State>,
}

enum State {
    New(Box<dyn Steps>),
    Waiting {
        steps: Box<dyn Steps>,
        /// The iterator of the asyncio future.
        iterator: Py<PyAny>,
        /// Dropped with the operation, which ends the core's future.
        _abandon: oneshot::Sender<()>,
    },
    /// A step is being taken.
    Running,
    Done,
}

impl Operation {
    /// Awaits a future of the core. The result is dropped when the awaiting task is cancelled in the same moment.
    pub(crate) fn new<F, T, E>(future: F) -> Self
    where
        F: Future<Output = Result<T, E>> + Send + 'static,
        T: for<'py> IntoPyObject<'py> + Send + 'static,
        E: Into<Failure>,
    {
        Self::from_steps(Once { future: Some(async move { future.await.map_err(|error| error.into().into()) }) })
    }

    /// Waits by `wait` until there is something, and takes it by `take` at the very end; `take` gives `None` when another
    /// task was faster.
    pub(crate) fn taking<W, F, K>(wait: W, take: K) -> Self
    where
        W: FnMut() -> F + Send + 'static,
        F: Future<Output = Result<(), Failure>> + Send + 'static,
        K: for<'py> FnMut(Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> + Send + 'static,
    {
        Self::from_steps(Taking { wait, take })
    }

    /// Is done at once.
    pub(crate) fn ready(value: Py<PyAny>) -> Self {
        Self::from_steps(Ready { value })
    }

    fn from_steps(steps: impl Steps + 'static) -> Self {
        Self { state: Mutex::new(State::New(Box::new(steps))) }
    }

    fn swap(&self, state: State) -> State {
        std::mem::replace(&mut *self.state.lock().unwrap_or_else(PoisonError::into_inner), state)
    }

    fn resume<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let (mut steps, mut waiting) = match self.swap(State::Running) {
            State::New(steps) => (steps, None),
            State::Waiting { steps, iterator, _abandon } => (steps, Some((iterator, _abandon))),
            State::Running => return Err(PyRuntimeError::new_err("the operation is awaited already")),
            State::Done => {
                self.swap(State::Done);
                return Err(PyRuntimeError::new_err("the operation has ended already"));
            }
        };
        let step = self.step(py, &mut steps, &mut waiting);
        match (&step, waiting) {
            (Ok(_), Some((iterator, _abandon))) => self.swap(State::Waiting { steps, iterator, _abandon }),
            _ => self.swap(State::Done),
        };
        step
    }

    fn step<'py>(
        &self,
        py: Python<'py>,
        steps: &mut Box<dyn Steps>,
        waiting: &mut Option<(Py<PyAny>, oneshot::Sender<()>)>,
    ) -> PyResult<Bound<'py, PyAny>> {
        loop {
            let iterator = match waiting {
                Some((iterator, _)) => iterator.bind(py).clone(),
                None => {
                    let (abandon, abandoned) = oneshot::channel();
                    let iterator = steps.begin(py, abandoned)?.call_method0("__await__")?;
                    *waiting = Some((iterator.clone().unbind(), abandon));
                    iterator
                }
            };
            match iterator.call_method1("send", (py.None(),)) {
                Err(error) if error.is_instance_of::<PyStopIteration>(py) => {
                    *waiting = None;
                    let result = error.value(py).getattr("value")?;
                    if let Some(result) = steps.end(result)? {
                        return Err(PyStopIteration::new_err((result.unbind(),)));
                    }
                }
                step => return step,
            }
        }
    }
}

#[pymethods]
impl Operation {
    fn __await__(this: Bound<'_, Self>) -> Bound<'_, Self> {
        this
    }

    fn __iter__(this: Bound<'_, Self>) -> Bound<'_, Self> {
        this
    }

    fn __next__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        self.resume(py)
    }

    fn send<'py>(&self, py: Python<'py>, _value: Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        self.resume(py)
    }

    #[pyo3(signature = (exception, value = None, _traceback = None))]
    fn throw<'py>(
        &self,
        exception: Bound<'py, PyAny>,
        value: Option<Bound<'py, PyAny>>,
        _traceback: Option<Bound<'py, PyAny>>,
    ) -> PyErr {
        self.swap(State::Done);
        // Whatever is thrown ends the operation: it has nothing to catch an exception with.
        PyErr::from_value(value.unwrap_or(exception))
    }

    fn close(&self) {
        self.swap(State::Done);
    }
}

struct Once<F> {
    future: Option<F>,
}

impl<F, T> Steps for Once<F>
where
    F: Future<Output = PyResult<T>> + Send + 'static,
    T: for<'py> IntoPyObject<'py> + Send + 'static,
{
    fn begin<'py>(&mut self, py: Python<'py>, abandoned: oneshot::Receiver<()>) -> PyResult<Bound<'py, PyAny>> {
        let future = self.future.take().ok_or_else(|| PyRuntimeError::new_err("the operation has begun already"))?;
        future_into_py(py, unless_abandoned(future, abandoned))
    }

    fn end<'py>(&mut self, result: Bound<'py, PyAny>) -> PyResult<Option<Bound<'py, PyAny>>> {
        Ok(Some(result))
    }
}

struct Taking<W, K> {
    wait: W,
    take: K,
}

impl<W, F, K> Steps for Taking<W, K>
where
    W: FnMut() -> F + Send + 'static,
    F: Future<Output = Result<(), Failure>> + Send + 'static,
    K: for<'py> FnMut(Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> + Send + 'static,
{
    fn begin<'py>(&mut self, py: Python<'py>, abandoned: oneshot::Receiver<()>) -> PyResult<Bound<'py, PyAny>> {
        let wait = (self.wait)();
        future_into_py(py, unless_abandoned(async move { wait.await.map_err(PyErr::from) }, abandoned))
    }

    fn end<'py>(&mut self, result: Bound<'py, PyAny>) -> PyResult<Option<Bound<'py, PyAny>>> {
        (self.take)(result.py())
    }
}

struct Ready {
    value: Py<PyAny>,
}

impl Steps for Ready {
    fn begin<'py>(&mut self, py: Python<'py>, _abandoned: oneshot::Receiver<()>) -> PyResult<Bound<'py, PyAny>> {
        let future = pyo3_async_runtimes::get_running_loop(py)?.call_method0("create_future")?;
        future.call_method1("set_result", (&self.value,))?;
        Ok(future)
    }

    fn end<'py>(&mut self, result: Bound<'py, PyAny>) -> PyResult<Option<Bound<'py, PyAny>>> {
        Ok(Some(result))
    }
}

/// Ends with nothing when the operation is gone: an error then would be reported as one that nobody looked at.
async fn unless_abandoned<T>(
    future: impl Future<Output = PyResult<T>>,
    abandoned: oneshot::Receiver<()>,
) -> PyResult<Option<T>> {
    tokio::select! {
        result = future => result.map(Some),
        _ = abandoned => Ok(None),
    }
}

/// Runs `work` on a thread for blocking work. It runs to its end even when nobody waits for it any more.
pub(crate) fn blocking<T>(work: impl FnOnce() -> Result<T, Failure> + Send + 'static) -> Operation
where
    T: for<'py> IntoPyObject<'py> + Send + 'static,
{
    Operation::new(async move {
        let done = tokio::task::spawn_blocking(work).await;
        done.map_err(|error| Failure::internal(format!("a blocking task was lost: {error}")))?
    })
}
