//! A value that changes, and how Python looks at it.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};

use pyo3::IntoPyObjectExt as _;
use pyo3::exceptions::PyStopAsyncIteration;
use pyo3::prelude::*;
use tokio::sync::watch;

use crate::operation::Operation;

/// A value that changes.
#[pyclass(frozen, module = "hcp")]
pub(crate) struct Watch {
    source: Arc<dyn Source>,
}

impl Watch {
    /// Watches what `convert` makes of the values.
    pub(crate) fn new<T, P>(mut receiver: watch::Receiver<T>, convert: fn(&T) -> P) -> Self
    where
        T: Send + Sync + 'static,
        P: for<'py> IntoPyObject<'py> + 'static,
    {
        // The iteration begins with the value as it is.
        receiver.mark_changed();
        Self { source: Arc::new(Watched { receiver: Mutex::new(receiver), convert }) }
    }
}

#[pymethods]
impl Watch {
    /// The value as it is now.
    #[getter]
    fn value<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        self.source.value(py)
    }

    fn __aiter__(this: Bound<'_, Self>) -> Bound<'_, Self> {
        this
    }

    fn __anext__(&self) -> Operation {
        let waiting = Arc::clone(&self.source);
        let source = Arc::clone(&self.source);
        Operation::taking(
            move || {
                let changed = waiting.changed();
                async move {
                    changed.await;
                    Ok(())
                }
            },
            move |py| source.take(py),
        )
    }
}

trait Source: Send + Sync {
    fn value<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>>;

    /// Waits until there is a value that was not taken yet, or none will come any more.
    fn changed(&self) -> Pin<Box<dyn Future<Output = ()> + Send>>;

    /// Takes the value if it is new.
    fn take<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>>;
}

struct Watched<T, P> {
    receiver: Mutex<watch::Receiver<T>>,
    convert: fn(&T) -> P,
}

impl<T, P> Source for Watched<T, P>
where
    T: Send + Sync + 'static,
    P: for<'py> IntoPyObject<'py> + 'static,
{
    fn value<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let receiver = self.receiver.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let value = (self.convert)(&receiver.borrow());
        value.into_bound_py_any(py)
    }

    fn changed(&self) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        let mut receiver = self.receiver.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Box::pin(async move {
            // An error says that the value will not change any more, which `take` sees too.
            let _ = receiver.changed().await;
        })
    }

    fn take<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        let mut receiver = self.receiver.lock().unwrap_or_else(PoisonError::into_inner);
        let value = receiver.borrow_and_update();
        if value.has_changed() {
            let value = (self.convert)(&value);
            return value.into_bound_py_any(py).map(Some);
        }
        drop(value);
        // The last value was taken above, so the iteration ends with it.
        if receiver.has_changed().is_err() { Err(PyStopAsyncIteration::new_err(())) } else { Ok(None) }
    }
}
