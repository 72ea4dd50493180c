//! A session as an application holds it.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};

use super::channel::Command;
use super::stream::Stream;
use crate::error::ErrorKind;
use crate::session::{MAX_PROTOCOL_NAME, Peer, SessionError};

/// An encrypted connection with a peer, on which streams are opened. Cheap to clone.
///
/// A session that this node dialled ends when its last handle and the last of its streams are dropped, or with the node.
#[derive(Clone)]
pub struct Session {
    pub(super) inner: Arc<SessionInner>,
}

pub(super) struct SessionInner {
    pub(super) peer: Peer,
    pub(super) commands: mpsc::Sender<Command>,
    pub(super) round_trip: watch::Receiver<Option<Duration>>,
    pub(super) ended: watch::Receiver<Option<SessionError>>,
}

impl Session {
    /// Who is at the other end.
    pub fn peer(&self) -> Peer {
        self.inner.peer
    }

    /// The last measured round trip; `None` before the first ping came back.
    pub fn round_trip(&self) -> Option<Duration> {
        *self.inner.round_trip.borrow()
    }

    /// Opens a stream for a protocol that the peer serves.
    ///
    /// Takes no round trip: whether the peer serves the protocol shows on the first [`Stream::recv`].
    ///
    /// # Errors
    /// [`OpenError`].
    ///
    /// # Cancel safety
    /// Dropping the future may leave a stream that is reset at once.
    pub async fn open(&self, protocol: &str) -> Result<Stream, OpenError> {
        if protocol.is_empty() || protocol.len() > MAX_PROTOCOL_NAME {
            return Err(OpenError::Name);
        }
        let (reply, opened) = oneshot::channel();
        let commands = self.inner.commands.clone();
        let open = Command::Open { protocol: protocol.to_owned(), commands, reply };
        self.inner.commands.send(open).await.map_err(|_| OpenError::SessionEnded)?;
        let channel = opened.await.map_err(|_| OpenError::SessionEnded)?.ok_or(OpenError::TooMany)?;
        Ok(Stream::new(channel))
    }

    /// Says goodbye and ends the session once what was sent before has gone out.
    ///
    /// # Cancel safety
    /// Cancel-safe; the session ends all the same.
    pub async fn shutdown(&self) {
        let _ = self.inner.commands.send(Command::Shutdown).await;
        self.closed().await;
    }

    /// Waits until the session has ended and says why.
    ///
    /// # Cancel safety
    /// Cancel-safe.
    pub async fn closed(&self) -> SessionError {
        let mut ended = self.inner.ended.clone();
        let error = ended.wait_for(Option::is_some).await.ok().and_then(|error| error.clone());
        error.unwrap_or(SessionError::Lost)
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").field("peer", &self.inner.peer).finish_non_exhaustive()
    }
}

/// Why [`Session::open`] failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The protocol's name is empty or too long.
    #[error("a protocol name has 1 to {MAX_PROTOCOL_NAME} bytes")]
    Name,
    /// As many streams are open as the peer allows.
    #[error("the peer allows no more streams")]
    TooMany,
    /// The session ended.
    #[error("the session ended")]
    SessionEnded,
}

impl OpenError {
    /// What a caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Name => ErrorKind::InvalidInput,
            Self::TooMany => ErrorKind::LimitExceeded,
            Self::SessionEnded => ErrorKind::Closed,
        }
    }
}
