//! Builders whose setters take them by value, behind the shared handles of the foreign languages.

use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::error::HcpError;

/// A builder until its final call takes it.
pub(crate) struct Building<B>(Mutex<Option<B>>);

impl<B> Building<B> {
    pub(crate) fn new(builder: B) -> Self {
        Self(Mutex::new(Some(builder)))
    }

    /// Sets something, with no effect when the builder has been used: the final call fails then.
    pub(crate) fn set(&self, setter: impl FnOnce(B) -> B) {
        let mut builder = self.lock();
        *builder = builder.take().map(setter);
    }

    pub(crate) fn look<T>(&self, at: impl FnOnce(&B) -> T) -> Result<T, HcpError> {
        self.lock().as_ref().map(at).ok_or_else(used)
    }

    pub(crate) fn take(&self) -> Result<B, HcpError> {
        self.lock().take().ok_or_else(used)
    }

    fn lock(&self) -> MutexGuard<'_, Option<B>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<B> fmt::Debug for Building<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Building").finish_non_exhaustive()
    }
}

fn used() -> HcpError {
    HcpError::invalid("this builder has been used; make another one")
}
