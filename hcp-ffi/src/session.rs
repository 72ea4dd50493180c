//! Sessions as the foreign languages hold them.

use std::sync::Arc;
use std::time::Duration;

use hcp_core::node as core;
use hcp_core::session as core_session;

use crate::cancellation::{Cancellation, unless_cancelled};
use crate::delegation::{Delegation, PublicKey};
use crate::error::{ErrorKind, HcpError, message};
use crate::identity::OnionAddress;
use crate::mirror::mirror;
use crate::node_event::DialledBy;
use crate::stream::Stream;

/// Who is at the other end of a session.
#[derive(Clone, Debug, uniffi::Enum)]
pub enum Peer {
    /// It proved that it holds the key of this address.
    Address(Arc<OnionAddress>),
    /// It dialled and did not say who it is.
    Anonymous,
}

#[uniffi::export]
impl Peer {
    /// The address, if the peer has shown one.
    pub fn address(&self) -> Option<Arc<OnionAddress>> {
        match self {
            Self::Address(address) => Some(Arc::clone(address)),
            Self::Anonymous => None,
        }
    }
}

impl From<core_session::Peer> for Peer {
    fn from(peer: core_session::Peer) -> Self {
        match peer {
            core_session::Peer::Address(address) => Self::Address(OnionAddress::shared(address)),
            core_session::Peer::Anonymous => Self::Anonymous,
        }
    }
}

/// What goes first when a session has more to send than its connection takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, uniffi::Enum)]
pub enum Priority {
    /// What others wait for: a few small messages.
    Control,
    /// Messages of people and services.
    Live,
    /// Files and other large transfers, which may travel on lanes.
    Bulk,
}

mirror!(core_session::Priority => Priority { Control, Live, Bulk });
mirror!(Priority => core_session::Priority { Control, Live, Bulk });

/// What a session has done, and how it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, uniffi::Record)]
pub struct SessionStats {
    /// Bytes given to TLS on all connections: frames with headers, and padding.
    pub bytes_sent: u64,
    /// Bytes taken from TLS on all connections.
    pub bytes_received: u64,
    /// Frames sent, repeated ones included.
    pub frames_sent: u64,
    /// Frames received, repeated ones included.
    pub frames_received: u64,
    /// Of `bytes_sent`, what was padding.
    pub padding_sent: u64,
    /// Bulk frames that were sent again because a lane ended.
    pub frames_resent: u64,
    /// The smoothed round trip, once measured.
    pub round_trip: Option<Duration>,
    /// Streams that are open now, either side's.
    pub open_streams: u64,
    /// Lanes that live now.
    pub lanes: u64,
}

impl From<core_session::SessionStats> for SessionStats {
    fn from(stats: core_session::SessionStats) -> Self {
        Self {
            bytes_sent: stats.bytes_sent,
            bytes_received: stats.bytes_received,
            frames_sent: stats.frames_sent,
            frames_received: stats.frames_received,
            padding_sent: stats.padding_sent,
            frames_resent: stats.frames_resent,
            round_trip: stats.round_trip,
            open_streams: stats.open_streams as u64,
            lanes: stats.lanes as u64,
        }
    }
}

/// How a session ended.
#[derive(Clone, Debug, uniffi::Record)]
pub struct SessionEnd {
    /// What a caller can do about it.
    pub kind: ErrorKind,
    /// What happened.
    pub message: String,
}

impl From<core_session::SessionError> for SessionEnd {
    fn from(error: core_session::SessionError) -> Self {
        Self { kind: error.kind().into(), message: message(&error) }
    }
}

/// An encrypted connection with a peer, on which streams are opened.
///
/// Everybody who connects to the same peer from one node shares one session. One that this node dialled ends when its last handle and the last of its streams are dropped, or with the node.
#[derive(Debug, uniffi::Object)]
pub struct Session {
    pub(crate) inner: core::Session,
}

#[uniffi::export(async_runtime = "tokio")]
impl Session {
    /// Who is at the other end.
    pub fn peer(&self) -> Peer {
        self.inner.peer().into()
    }

    /// Which side has dialled.
    pub fn dialled_by(&self) -> DialledBy {
        self.inner.dialled_by().into()
    }

    /// On the dialler's side, the delegation by which the peer speaks for the service that was dialled, with its serial and its
    /// end; none where it holds the address's own key.
    pub fn delegation(&self) -> Option<Arc<Delegation>> {
        self.inner.delegation().cloned().map(Delegation::shared)
    }

    /// Checks that the delegation would be taken now as it was when the session began: its time may have ended since, and the
    /// node may have verified a higher floor for the service, in another session. Nothing happens to the session either way:
    /// who wants to be with a replica that speaks for the service today drains it and connects again.
    ///
    /// # Errors
    /// `Authentication`.
    pub fn check_delegation(&self) -> Result<(), HcpError> {
        Ok(self.inner.check_delegation()?)
    }

    /// On the dialler's side, the session key of the replica of the service that this session is with; none where the peer
    /// holds the address's own key.
    pub fn replica(&self) -> Option<Arc<PublicKey>> {
        self.inner.replica().map(PublicKey::shared)
    }

    /// The smoothed round trip; none before the first ping came back.
    pub fn round_trip(&self) -> Option<Duration> {
        self.inner.round_trip()
    }

    /// What the session has done, and how it stands.
    pub fn stats(&self) -> SessionStats {
        self.inner.stats().into()
    }

    /// Opens a stream for a protocol that the peer serves, with `Priority.Live`.
    ///
    /// Takes no round trip: whether the peer serves the protocol shows on the first `Stream.recv`.
    ///
    /// # Errors
    /// `InvalidInput` for a name that none can have, `LimitExceeded` when the peer allows no more streams, `Closed`.
    pub async fn open(&self, protocol: String) -> Result<Arc<Stream>, HcpError> {
        Ok(Stream::shared(self.inner.open(&protocol).await?))
    }

    /// Opens a stream as [`open`](Self::open) does, with a priority: `Bulk` for files and other large transfers, which then
    /// travel on lanes and never in front of a message.
    ///
    /// # Errors
    /// As `open`.
    pub async fn open_with(&self, protocol: String, priority: Priority) -> Result<Arc<Stream>, HcpError> {
        Ok(Stream::shared(self.inner.open_with(&protocol, priority.into()).await?))
    }

    /// Ends the session gracefully: neither side opens further streams, those that are open go on until both directions of
    /// each have ended. Returns whether that was within the given time; otherwise the session is shut down with what is left.
    ///
    /// # Errors
    /// `Cancelled`; the session goes on draining, without the limit in time.
    #[uniffi::method(default(cancellation = None))]
    pub async fn drain(&self, within: Duration, cancellation: Option<Arc<Cancellation>>) -> Result<bool, HcpError> {
        unless_cancelled(cancellation, self.inner.drain(within)).await
    }

    /// Says goodbye and ends the session, for all who share it, once what was sent before has gone out.
    ///
    /// # Errors
    /// `Cancelled`; the session ends all the same.
    #[uniffi::method(default(cancellation = None))]
    pub async fn shutdown(&self, cancellation: Option<Arc<Cancellation>>) -> Result<(), HcpError> {
        unless_cancelled(cancellation, self.inner.shutdown()).await
    }

    /// Waits until the session has ended and says why.
    ///
    /// # Errors
    /// `Cancelled`.
    #[uniffi::method(default(cancellation = None))]
    pub async fn closed(&self, cancellation: Option<Arc<Cancellation>>) -> Result<SessionEnd, HcpError> {
        Ok(unless_cancelled(cancellation, self.inner.closed()).await?.into())
    }
}

impl Session {
    pub(crate) fn shared(inner: core::Session) -> Arc<Self> {
        Arc::new(Self { inner })
    }
}
