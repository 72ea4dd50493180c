//! Between tokio's threads and the interpreter: the runtime, and the one thread that enters the interpreter for it.
//!
//! A thread that enters the interpreter while it is being finalized is killed in the middle of Rust code, and takes the
//! process with it. So no thread of tokio ever enters: what needs the interpreter is handed to one thread, which, like
//! the runtime, ends before finalization begins. That is why `future_into_py` of pyo3-async-runtimes, which enters from
//! the runtime's threads, is not used here.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{LazyLock, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use pyo3::IntoPyObjectExt as _;
use pyo3::prelude::*;
use pyo3_async_runtimes::get_running_loop;
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::sync::oneshot;

use crate::errors::Failure;

/// Has the bridge end with the interpreter.
pub(crate) fn add(module: &Bound<'_, PyModule>) -> PyResult<()> {
    let stop = wrap_pyfunction!(stop, module)?;
    module.py().import("atexit")?.call_method1("register", (stop,)).map(drop)
}

/// The runtime of all operations.
pub(crate) fn runtime() -> Result<&'static Handle, Failure> {
    BRIDGE.as_ref().map(|bridge| &bridge.handle).map_err(|message| Failure::internal(message.as_str()))
}

/// Runs `job` in the interpreter, soon and on another thread; never once the interpreter is being finalized.
///
/// The queue is bounded by what is under way: every operation and every handler hands in one job at a time.
pub(crate) fn later(job: impl FnOnce(Python<'_>) + Send + 'static) {
    if let Ok(bridge) = BRIDGE.as_ref() {
        let _ = bridge.jobs.send(Some(Box::new(job)));
    }
}

/// Runs `future` on the runtime and gives the asyncio future of its end, on the running loop.
///
/// When `abandoned` ends, the future is dropped and the asyncio future stays pending: nobody waits for it any more.
pub(crate) fn spawn<'py, T>(
    py: Python<'py>,
    future: impl Future<Output = Result<T, Failure>> + Send + 'static,
    abandoned: oneshot::Receiver<()>,
) -> PyResult<Bound<'py, PyAny>>
where
    T: for<'a> IntoPyObject<'a> + Send + 'static,
{
    let event_loop = get_running_loop(py)?;
    let asyncio_future = event_loop.call_method0("create_future")?;
    let end = End { target: Some((event_loop.unbind(), asyncio_future.clone().unbind())) };
    runtime()?.spawn(async move {
        // Ends the asyncio future also when the operation panics.
        let mut end = end;
        tokio::select! {
            result = future => end.deliver(result),
            _ = abandoned => end.target = None,
        }
    });
    Ok(asyncio_future)
}

type Job = Box<dyn FnOnce(Python<'_>) + Send>;

struct Bridge {
    handle: Handle,
    /// `None` ends the thread.
    jobs: Sender<Option<Job>>,
    /// Taken at the end.
    parts: Mutex<Option<(Runtime, JoinHandle<()>)>>,
}

static BRIDGE: LazyLock<Result<Bridge, String>> =
    LazyLock::new(|| Bridge::start().map_err(|error| format!("threads cannot be started: {error}")));

impl Bridge {
    fn start() -> std::io::Result<Self> {
        let runtime = Builder::new_multi_thread().thread_name("hcp-tokio").enable_all().build()?;
        let (jobs, queue) = channel();
        let thread = std::thread::Builder::new().name("hcp-python".into()).spawn(move || run(&queue))?;
        Ok(Self { handle: runtime.handle().clone(), jobs, parts: Mutex::new(Some((runtime, thread))) })
    }
}

fn run(queue: &Receiver<Option<Job>>) {
    while let Ok(Some(first)) = queue.recv() {
        let mut last = false;
        Python::attach(|py| {
            enter(py, first);
            // What else is there meanwhile goes along: entering the interpreter costs more than a job.
            for job in queue.try_iter().take(BATCH) {
                match job {
                    Some(job) => enter(py, job),
                    None => last = true,
                }
            }
        });
        if last {
            return;
        }
    }
}

/// A job that panics must not take with it all that come behind it; the panic's message has been printed.
fn enter(py: Python<'_>, job: Job) {
    let _ = catch_unwind(AssertUnwindSafe(|| job(py)));
}

/// Ends all that runs; Python calls it before it finalizes the interpreter.
#[pyfunction]
fn stop(py: Python<'_>) {
    let Ok(bridge) = BRIDGE.as_ref() else { return };
    let parts = bridge.parts.lock().unwrap_or_else(PoisonError::into_inner).take();
    if let Some((runtime, thread)) = parts {
        py.detach(|| {
            let _ = bridge.jobs.send(None);
            let _ = thread.join();
            runtime.shutdown_timeout(SHUTDOWN_DEADLINE);
        });
    }
}

/// The end of an operation on its way to the loop.
struct End {
    /// The loop and the asyncio future.
    target: Option<(Py<PyAny>, Py<PyAny>)>,
}

impl End {
    fn deliver<T>(&mut self, result: Result<T, Failure>)
    where
        T: for<'a> IntoPyObject<'a> + Send + 'static,
    {
        let Some((event_loop, future)) = self.target.take() else { return };
        later(move |py| {
            let result = result.map_err(PyErr::from).and_then(|value| value.into_py_any(py));
            let delivery = Delivery { future, result: Mutex::new(Some(result)) };
            // A loop that is closed has nobody who waits.
            let _ = event_loop.call_method1(py, "call_soon_threadsafe", (delivery,));
        });
    }
}

impl Drop for End {
    fn drop(&mut self) {
        self.deliver::<bool>(Err(Failure::internal("the operation was lost; its thread has panicked")));
    }
}

/// Ends an asyncio future, on its loop.
#[pyclass(frozen, module = "hcp._hcp")]
struct Delivery {
    future: Py<PyAny>,
    result: Mutex<Option<PyResult<Py<PyAny>>>>,
}

#[pymethods]
impl Delivery {
    fn __call__(&self, py: Python<'_>) -> PyResult<()> {
        let future = self.future.bind(py);
        let result = self.result.lock().unwrap_or_else(PoisonError::into_inner).take();
        match result {
            // Whoever waited was cancelled.
            _ if future.call_method0("done")?.is_truthy()? => Ok(()),
            Some(Ok(value)) => future.call_method1("set_result", (value,)).map(drop),
            Some(Err(error)) => future.call_method1("set_exception", (error,)).map(drop),
            None => Ok(()),
        }
    }
}

/// Jobs that are done without letting other threads into the interpreter.
const BATCH: usize = 64;
/// How long blocking work, such as the stretching of a passphrase, holds up the end of the process.
const SHUTDOWN_DEADLINE: Duration = Duration::from_secs(2);
