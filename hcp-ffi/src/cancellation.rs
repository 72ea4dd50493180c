//! Cancelling from a language whose tasks cannot drop a future: the one mechanism for everything that may take long.

use std::sync::Arc;

use tokio::sync::watch;

use crate::error::HcpError;

/// Cancels what it was given to.
///
/// A call that takes one fails with `HcpError.Cancelled` soon after [`cancel`](Self::cancel), and drops what it had begun,
/// as if it had not been called: no message is lost, no connection stays. One object may cancel many calls; it cannot be
/// used again. Kotlin needs it only to cancel from outside the coroutine that waits.
#[derive(Debug, uniffi::Object)]
pub struct Cancellation {
    cancelled: watch::Sender<bool>,
}

#[uniffi::export]
impl Cancellation {
    /// Makes one that has not been used.
    #[uniffi::constructor]
    pub fn new() -> Arc<Self> {
        Arc::new(Self::unused())
    }

    /// Cancels all calls that were given this object, and those that will be.
    pub fn cancel(&self) {
        self.cancelled.send_replace(true);
    }

    /// Whether [`cancel`](Self::cancel) has been called.
    pub fn is_cancelled(&self) -> bool {
        *self.cancelled.borrow()
    }
}

impl Cancellation {
    pub(crate) fn unused() -> Self {
        Self { cancelled: watch::Sender::new(false) }
    }

    /// Waits for [`cancel`](Self::cancel). Cancel-safe.
    pub(crate) async fn cancelled(&self) {
        // The sender lives in `self`, so the wait ends with a value.
        let _ = self.cancelled.subscribe().wait_for(|cancelled| *cancelled).await;
    }
}

/// Does `work` unless it is cancelled first.
pub(crate) async fn unless_cancelled<T>(
    cancellation: Option<Arc<Cancellation>>,
    work: impl Future<Output = T>,
) -> Result<T, HcpError> {
    let Some(cancellation) = cancellation else { return Ok(work.await) };
    tokio::select! {
        biased;
        () = cancellation.cancelled() => Err(HcpError::cancelled()),
        done = work => Ok(done),
    }
}
