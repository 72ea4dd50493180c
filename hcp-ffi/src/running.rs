//! Things that run until they are told to end, whoever still holds handles.
//!
//! A garbage collector, and Swift's optimiser, drop a handle after its last use, not at the end of its scope. A node that
//! ended with its handle would so vanish from under a program that only waits for peers.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use crate::cancellation::Cancellation;

/// Holds on to itself until it is ended.
pub(crate) struct Running<T> {
    state: Mutex<Option<State<T>>>,
    ended: Cancellation,
}

struct State<T> {
    value: T,
    _itself: Arc<Running<T>>,
}

impl<T: Clone> Running<T> {
    pub(crate) fn start(value: T) -> Arc<Self> {
        let running = Arc::new(Self { state: Mutex::new(None), ended: Cancellation::unused() });
        let state = State { value, _itself: Arc::clone(&running) };
        *running.state.lock().unwrap_or_else(PoisonError::into_inner) = Some(state);
        running
    }

    /// What runs; none once it was ended.
    pub(crate) fn value(&self) -> Option<T> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).as_ref().map(|state| state.value.clone())
    }

    /// Ends it and hands it out; none when it was ended before.
    pub(crate) fn end(&self) -> Option<T> {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner).take();
        self.ended.cancel();
        state.map(|state| state.value)
    }

    /// Does `work` unless this ends first. Cancel-safe when `work` is.
    pub(crate) async fn unless_ended<R>(&self, work: impl Future<Output = R>) -> Option<R> {
        tokio::select! {
            biased;
            () = self.ended.cancelled() => None,
            done = work => Some(done),
        }
    }
}

impl<T> fmt::Debug for Running<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Running").finish_non_exhaustive()
    }
}
