//! Disk work beside the runtime, which ends early when nobody waits for it any more.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Tells long work whether somebody still waits for its result.
#[derive(Clone, Debug, Default)]
pub(super) struct Waiting(Arc<AtomicBool>);

impl Waiting {
    /// # Errors
    /// `Interrupted`, which ends the work, when nobody waits.
    pub(super) fn check(&self) -> io::Result<()> {
        if self.0.load(Ordering::Acquire) { Err(io::ErrorKind::Interrupted.into()) } else { Ok(()) }
    }
}

/// Runs a job that blocks.
///
/// # Errors
/// When the runtime shuts down and the job was not begun.
///
/// # Cancel safety
/// Dropping the future tells the job so, which then ends at its next check; what it has taken is dropped with it.
pub(super) async fn blocking<R: Send + 'static>(job: impl FnOnce(&Waiting) -> R + Send + 'static) -> io::Result<R> {
    let waiting = Waiting::default();
    let _gone_when_dropped = Gone(waiting.clone());
    match tokio::task::spawn_blocking(move || job(&waiting)).await {
        Ok(result) => Ok(result),
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(_) => Err(io::Error::other("the runtime is shutting down")),
        },
    }
}

struct Gone(Waiting);

impl Drop for Gone {
    fn drop(&mut self) {
        self.0.0.store(true, Ordering::Release);
    }
}
