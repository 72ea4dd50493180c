//! The session: TLS 1.3 with raw public keys, the dialler's proof, and multiplexed streams; without I/O or a clock.
//!
//! A machine takes bytes and the time, and gives bytes and events. Nothing but the hello and the proof is accepted
//! before both ends are satisfied; everything a peer controls has a limit, named here with its reason.

mod machine;
mod streams;
#[cfg(test)]
mod tests;
mod tls;

use std::time::Duration;

pub(crate) use self::machine::{Dialler, Event, Machine};
pub(crate) use self::streams::{StreamId, cost as message_cost};
use crate::error::ErrorKind;
use crate::identity::OnionAddress;
pub use crate::wire::FrameError;

/// The longest message of a stream, in bytes: half a window, so that one message never stalls its stream.
pub const MAX_MESSAGE: usize = 512 * 1024;
/// Bytes that one stream may have in flight in one direction: what a peer can make this side hold for each stream.
pub const STREAM_WINDOW: u64 = 1024 * 1024;
/// Streams that a peer may have open at once in one session; with the window it bounds a session's memory to 32 MiB.
pub const MAX_STREAMS: u32 = 32;
/// What each frame costs of the window beyond its payload, so that a flood of empty messages runs out of credit too.
pub(crate) const FRAME_COST: u64 = 64;
/// How long a dialler may take from its first byte to its proof; short enough that idle strangers cost little.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(20);
/// The longest name of a protocol, in bytes.
pub const MAX_PROTOCOL_NAME: usize = 255;

/// Who is at the other end of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Peer {
    /// It proved that it holds the key of this address.
    Address(OnionAddress),
    /// It dialled and did not say who it is.
    Anonymous,
}

impl Peer {
    /// The address, if the peer has shown one.
    pub fn address(&self) -> Option<OnionAddress> {
        match self {
            Self::Address(address) => Some(*address),
            Self::Anonymous => None,
        }
    }
}

/// When a silent session is probed and when it is given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keepalive {
    /// Silence after which a ping is sent.
    pub interval: Duration,
    /// Silence after which the session is dead.
    pub timeout: Duration,
}

impl Default for Keepalive {
    fn default() -> Self {
        Self { interval: Duration::from_secs(5), timeout: Duration::from_secs(15) }
    }
}

/// Why a session ended, or never began.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SessionError {
    /// TLS failed: garbage, a wrong version, a forged signature.
    #[error("TLS failed")]
    Tls(#[source] rustls::Error),
    /// The other side does not speak HCP/1.
    #[error("the other side does not speak hcp/1")]
    NotHcp,
    /// The server's key is not that of the dialled address.
    #[error("the server's key is not that of the dialled address")]
    WrongKey,
    /// The dialler's signature does not fit the address that it claims.
    #[error("the dialler's proof does not fit the address that it claims")]
    BadProof,
    /// A frame breaks a rule.
    #[error("bad frame")]
    Frame(#[from] FrameError),
    /// A message of the session itself cannot be decoded.
    #[error("malformed {0}")]
    Malformed(&'static str),
    /// A frame came where it is not allowed.
    #[error("{0} out of place")]
    OutOfPlace(&'static str),
    /// The peer went beyond a limit that it was told.
    #[error("the peer exceeded its limit of {0}")]
    Limit(&'static str),
    /// The handshake took too long.
    #[error("the handshake timed out")]
    HandshakeTimedOut,
    /// Nothing came from the peer for the keepalive's timeout.
    #[error("the peer went silent")]
    Silent,
    /// The peer closed the session.
    #[error("the peer closed the session (code {0})")]
    ClosedByPeer(u32),
    /// The transport ended without a close.
    #[error("the connection was lost")]
    Lost,
    /// This side shut the session down.
    #[error("the session was shut down")]
    Shutdown,
}

impl SessionError {
    /// What a caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Tls(_)
            | Self::NotHcp
            | Self::Frame(_)
            | Self::Malformed(_)
            | Self::OutOfPlace(_)
            | Self::Limit(_) => ErrorKind::ProtocolViolation,
            Self::WrongKey | Self::BadProof => ErrorKind::Authentication,
            Self::HandshakeTimedOut | Self::Silent => ErrorKind::TimedOut,
            Self::ClosedByPeer(_) | Self::Shutdown => ErrorKind::Closed,
            Self::Lost => ErrorKind::Unreachable,
        }
    }
}
