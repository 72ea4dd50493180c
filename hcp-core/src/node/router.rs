//! From the name of a protocol to the handler that serves it.

use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::sync::Arc;

use futures::future::BoxFuture;

use super::{RESET_ANONYMOUS, RESET_UNKNOWN_PROTOCOL, Session, Stream};
use crate::session::{MAX_PROTOCOL_NAME, Peer};

/// Whom a protocol serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Everybody, also diallers that do not say who they are.
    Anyone,
    /// Diallers that have proved their address.
    Identified,
}

/// Serves the streams of a protocol. Any `Fn(Stream, Session) -> impl Future` is one.
///
/// The future is aborted when the session ends.
pub trait Handler: Send + Sync + 'static {
    /// Serves one stream that the peer opened in `session`, in which the handler may open streams of its own.
    ///
    /// Holding the session keeps one alive that this node dialled.
    fn serve(&self, stream: Stream, session: Session) -> BoxFuture<'static, ()>;
}

impl<F, R> Handler for F
where
    F: Fn(Stream, Session) -> R + Send + Sync + 'static,
    R: Future<Output = ()> + Send + 'static,
{
    fn serve(&self, stream: Stream, session: Session) -> BoxFuture<'static, ()> {
        Box::pin(self(stream, session))
    }
}

/// The protocols of a node.
#[derive(Default)]
pub(super) struct Router {
    routes: HashMap<String, (Access, Arc<dyn Handler>)>,
}

impl Router {
    /// Registers a handler; `false` when the name cannot be used.
    pub(super) fn insert(&mut self, protocol: &str, access: Access, handler: impl Handler) -> bool {
        let fits = !protocol.is_empty() && protocol.len() <= MAX_PROTOCOL_NAME;
        fits && self.routes.insert(protocol.to_owned(), (access, Arc::new(handler))).is_none()
    }

    /// The handler for a stream, or the code to reset it with.
    pub(super) fn route(&self, protocol: &str, peer: Peer) -> Result<Arc<dyn Handler>, u32> {
        let (access, handler) = self.routes.get(protocol).ok_or(RESET_UNKNOWN_PROTOCOL)?;
        match (access, peer) {
            (Access::Identified, Peer::Anonymous) => Err(RESET_ANONYMOUS),
            _ => Ok(Arc::clone(handler)),
        }
    }
}

impl fmt::Debug for Router {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.routes.keys()).finish()
    }
}
