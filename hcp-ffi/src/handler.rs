//! Handlers of protocols that are written in the foreign language.
//!
//! Whatever a handler does, the node goes on: what it throws resets its stream.

use std::sync::Arc;

use hcp_core::node as core;
use uniffi::UnexpectedUniFFICallbackError;

use crate::session::Session;
use crate::stream::Stream;

/// Serves the streams of a protocol.
#[uniffi::export(foreign)]
#[async_trait::async_trait]
pub trait StreamHandler: Send + Sync {
    /// Serves one stream that the peer opened in `session`, in which the handler may open streams of its own.
    ///
    /// The stream ends when this returns: what was sent before `finish` still goes out, else the peer sees it reset, as it
    /// does when this throws. It is cancelled when the session has ended and a few seconds have passed. In Kotlin, an `Error`
    /// that leaves this is not noticed; the `protocol` that takes a function sees to them too.
    async fn serve(&self, stream: Arc<Stream>, session: Arc<Session>) -> Result<(), HandlerError>;
}

/// What a handler throws on purpose; whatever else it throws counts as the same.
#[derive(Debug, thiserror::Error, uniffi::Error)]
pub enum HandlerError {
    /// The handler gave its stream up.
    #[error("the handler failed: {reason}")]
    Failed {
        /// Why, for the log.
        reason: String,
    },
}

impl From<UnexpectedUniFFICallbackError> for HandlerError {
    fn from(error: UnexpectedUniFFICallbackError) -> Self {
        Self::Failed { reason: error.reason }
    }
}

/// The handler as the core takes it.
pub(crate) fn serve_with(handler: Arc<dyn StreamHandler>) -> impl core::Handler {
    move |stream: core::Stream, session: core::Session| {
        let handler = Arc::clone(&handler);
        async move {
            // A garbage collector may hold the handle for long after the handler is done, or was aborted with its session.
            let stream = EndOnDrop(Stream::shared(stream));
            if let Err(HandlerError::Failed { reason }) =
                handler.serve(Arc::clone(&stream.0), Session::shared(session)).await
            {
                tracing::warn!("a handler failed");
                tracing::debug!(reason, "why the handler failed");
            }
        }
    }
}

struct EndOnDrop(Arc<Stream>);

impl Drop for EndOnDrop {
    fn drop(&mut self) {
        self.0.end();
    }
}
