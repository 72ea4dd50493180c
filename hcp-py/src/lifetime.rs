//! Things that end when Python says so: garbage collection is no time to withdraw a service.

use std::sync::{Mutex, PoisonError};

use tokio::sync::watch;

use crate::errors::Failure;

/// Holds a handle of the core until it is ended.
pub(crate) struct Lifetime<T> {
    handle: Mutex<Option<T>>,
    ended: watch::Sender<bool>,
    /// The message of the error that says that it has ended.
    message: &'static str,
}

impl<T: Clone> Lifetime<T> {
    pub(crate) fn new(handle: T, message: &'static str) -> Self {
        Self { handle: Mutex::new(Some(handle)), ended: watch::Sender::new(false), message }
    }

    /// The handle, unless it has ended.
    pub(crate) fn handle(&self) -> Result<T, Failure> {
        let handle = self.handle.lock().unwrap_or_else(PoisonError::into_inner);
        handle.clone().ok_or_else(|| Failure::closed(self.message))
    }

    /// Runs what works on the handle until it is done or the handle ends.
    pub(crate) fn run<W, F, R, E>(&self, work: W) -> impl Future<Output = Result<R, Failure>> + use<T, W, F, R, E>
    where
        W: FnOnce(T) -> F,
        F: Future<Output = Result<R, E>>,
        E: Into<Failure>,
    {
        let work = self.handle().map(work);
        let mut ended = self.ended.subscribe();
        let message = self.message;
        async move {
            let work = work?;
            tokio::select! {
                result = work => result.map_err(Into::into),
                _ = ended.wait_for(|ended| *ended) => Err(Failure::closed(message)),
            }
        }
    }

    /// Gives the handle up; whatever runs on it fails.
    pub(crate) fn end(&self) -> Option<T> {
        self.ended.send_replace(true);
        self.handle.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}
