//! A session as an application holds it.

use std::fmt;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use super::channel::{Command, Opened, Shared, Standing};
use super::dial::unix_now;
use super::event::DialledBy;
use super::stream::Stream;
use crate::error::ErrorKind;
use crate::identity::delegation::{Delegation, DelegationError, PublicKey};
use crate::session::{CLOSE_SHUTDOWN, MAX_PROTOCOL_NAME, Peer, Priority, SessionError, SessionStats};

/// An encrypted connection with a peer, on which streams are opened. Cheap to clone.
///
/// Everybody who connects to the same peer from one node shares one session. A session that this node dialled ends when its
/// last handle and the last of its streams are dropped, or with the node.
#[derive(Clone)]
pub struct Session {
    pub(super) commands: mpsc::Sender<Command>,
    pub(super) shared: Arc<Shared>,
}

impl Session {
    /// Who is at the other end.
    pub fn peer(&self) -> Peer {
        self.shared.peer
    }

    /// Which side has dialled.
    pub fn dialled_by(&self) -> DialledBy {
        self.shared.dialled_by
    }

    /// On the dialler's side, the delegation by which the peer speaks for the service that was dialled, with its serial and its
    /// end; `None` where it holds the address's own key.
    ///
    /// It was good when the session began. The session goes on when it is no more, which [`Self::check_delegation`] tells.
    pub fn delegation(&self) -> Option<&Delegation> {
        self.shared.delegation.as_ref()
    }

    /// Checks that the delegation would be taken now as it was when the session began: its time may have ended since, and this
    /// node may have verified a higher floor for the service, in another session. Nothing happens to the session either way:
    /// who wants to be with a replica that speaks for the service today [drains](Self::drain) it and connects again.
    ///
    /// Always good where the peer needs none.
    ///
    /// # Errors
    /// [`DelegationError::Expired`] or [`DelegationError::BelowFloor`].
    pub fn check_delegation(&self) -> Result<(), DelegationError> {
        let Shared { peer, delegation, floors, .. } = &*self.shared;
        match (peer.address(), delegation) {
            (Some(service), Some(delegation)) => floors.check(service, delegation, unix_now()),
            _ => Ok(()),
        }
    }

    /// On the dialler's side, which replica of the service that was dialled this session is with: the session key that it has in
    /// this round of delegations. `None` where the peer holds the address's own key.
    pub fn replica(&self) -> Option<PublicKey> {
        self.delegation().map(Delegation::session_key)
    }

    /// The smoothed round trip; `None` before the first ping came back.
    pub fn round_trip(&self) -> Option<Duration> {
        self.stats().round_trip
    }

    /// What the session has done, and how it stands.
    pub fn stats(&self) -> SessionStats {
        *self.shared.stats.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Opens a stream for a protocol that the peer serves, with [`Priority::Live`].
    ///
    /// Takes no round trip: whether the peer serves the protocol shows on the first [`Stream::recv`].
    ///
    /// # Errors
    /// [`OpenError`].
    ///
    /// # Cancel safety
    /// Dropping the future may leave a stream that is reset at once.
    pub async fn open(&self, protocol: &str) -> Result<Stream, OpenError> {
        self.open_with(protocol, Priority::default()).await
    }

    /// Opens a stream as [`Self::open`] does, with a priority: [`Priority::Bulk`] for files and other large transfers, which
    /// then travel on lanes and never in front of a message.
    ///
    /// # Errors
    /// [`OpenError`].
    ///
    /// # Cancel safety
    /// As [`Self::open`].
    pub async fn open_with(&self, protocol: &str, priority: Priority) -> Result<Stream, OpenError> {
        if protocol.is_empty() || protocol.len() > MAX_PROTOCOL_NAME {
            return Err(OpenError::Name);
        }
        let (reply, opened) = oneshot::channel();
        let commands = self.commands.clone();
        let open = Command::Open { protocol: protocol.to_owned(), priority, commands, reply };
        self.commands.send(open).await.map_err(|_| OpenError::SessionEnded)?;
        match opened.await.map_err(|_| OpenError::SessionEnded)? {
            Opened::Stream(channel) => Ok(Stream::new(channel)),
            Opened::TooMany => Err(OpenError::TooMany),
            Opened::Draining => Err(OpenError::Draining),
        }
    }

    /// Ends the session gracefully: neither side opens further streams, those that are open go on until both directions of
    /// each have ended. Returns whether that was within the given time; otherwise the session is shut down with what is left.
    ///
    /// # Cancel safety
    /// Dropping the future leaves the session draining, without the limit in time.
    pub async fn drain(&self, within: Duration) -> bool {
        self.shared.signals.tell(|told| told.drain = Some(CLOSE_SHUTDOWN));
        if tokio::time::timeout(within, self.closed()).await.is_ok() {
            return true;
        }
        self.shutdown().await;
        false
    }

    /// Says goodbye and ends the session, for all who share it, once what was sent before has gone out, for which it takes
    /// 5 seconds at the most; [`Self::drain`] waits for what the peer has yet to get.
    ///
    /// # Cancel safety
    /// Cancel-safe; the session ends all the same once it was asked to.
    pub async fn shutdown(&self) {
        let _ = self.commands.send(Command::Shutdown).await;
        self.closed().await;
    }

    /// Waits until the session has ended and says why.
    ///
    /// # Cancel safety
    /// Cancel-safe.
    pub async fn closed(&self) -> SessionError {
        self.until(|standing| matches!(standing, Standing::Ended(_))).await.unwrap_or(SessionError::Lost)
    }

    /// Waits until no streams can be opened any more; says why, when the session has ended. Cancel-safe.
    pub(super) async fn draining_or_closed(&self) -> Option<SessionError> {
        self.until(|standing| !matches!(standing, Standing::Open)).await
    }

    async fn until(&self, reached: impl FnMut(&Standing) -> bool) -> Option<SessionError> {
        let mut standing = self.shared.standing.subscribe();
        // The sender is in what this handle holds.
        let standing = standing.wait_for(reached).await.ok()?;
        match &*standing {
            Standing::Ended(error) => Some(error.clone()),
            Standing::Open | Standing::Draining => None,
        }
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").field("peer", &self.shared.peer).finish_non_exhaustive()
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
    /// One of the two sides is ending the session gracefully; [`Node::connect`](super::Node::connect) gives one that goes on.
    #[error("the session is being drained")]
    Draining,
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
            Self::Draining | Self::SessionEnded => ErrorKind::Closed,
        }
    }
}
