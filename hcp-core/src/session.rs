//! The session: TLS 1.3 with raw public keys, the dialler's proof, and multiplexed streams over a primary connection and
//! lanes; without I/O, clock or randomness of its own (`docs/protocol.md`).
//!
//! - A machine takes bytes and the time, and gives bytes and events.
//! - Nothing but HELLO and PROOF or JOIN is taken before both ends are satisfied.
//! - Everything that a peer controls has a limit, named here or in `limits` with its reason.

mod accepting;
mod assembly;
mod bulk;
mod connection;
mod dialling;
#[cfg(feature = "testing")]
pub(crate) mod forger;
#[cfg(feature = "testing")]
pub(crate) mod fuzz;
mod hello;
mod lanes;
mod limits;
mod machine;
#[cfg(test)]
pub(crate) mod planted;
mod roundtrip;
mod schedule;
mod stream;
mod streams;
#[cfg(test)]
mod tests;
mod tls;
mod window;

use std::fmt;
use std::time::Duration;

pub(crate) use self::accepting::{Accepted, Accepting, Acceptor, Credentials, Formerly, JoinRequest};
pub(crate) use self::dialling::{Lane, LaneDialling, LaneError};
pub(crate) use self::hello::LaneHint;
pub(crate) use self::machine::{Dial, Dialler, Event, Machine};
pub(crate) use self::stream::cost as message_cost;
use crate::error::ErrorKind;
use crate::identity::OnionAddress;
use crate::identity::delegation::DelegationError;
pub use crate::wire::FrameError;

/// The number of a stream in its session. The dialler's are odd, the acceptor's even.
pub(crate) type StreamId = u32;
/// The number of a connection in its session: [`PRIMARY`], or a lane's number.
pub(crate) type ConnId = u32;
/// The connection that a session began with and ends with.
pub(crate) const PRIMARY: ConnId = 0;

/// The longest message of a stream, in bytes: below a window, so that one message never stalls its stream.
pub const MAX_MESSAGE: usize = 524_288;
/// Bytes that one stream may have out in one direction at first, frames' costs included: room for the longest message
/// and the next one's beginning.
pub const STREAM_WINDOW: u64 = 655_360;
/// What one stream's window may grow to when its reader keeps up: 64 Mbit/s at a round trip of a second.
pub const MAX_STREAM_WINDOW: u64 = 8_388_608;
/// What all windows of a session together may grow beyond [`STREAM_WINDOW`], in bytes: with the windows of 64 streams it
/// bounds what a peer can make this side hold to 64 MiB a session.
pub const SESSION_GROWTH: u64 = 25_165_824;
/// Streams that a peer may have open at once in one session: each may hold a window, and what people and services do with one
/// peer at a time is a handful.
pub const MAX_STREAMS: u32 = 32;
/// Lanes that may live at once in one session: more would share the same few relays of the onion service's guards.
pub const MAX_LANES: usize = 4;
/// How long a handshake may take from the transport's first byte; short enough that idle strangers cost little.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(20);
/// The longest name of a protocol, in bytes: what a length of one byte can say.
pub const MAX_PROTOCOL_NAME: usize = 255;

/// CLOSE: an orderly end.
pub(crate) const CLOSE_SHUTDOWN: u32 = 0;
/// CLOSE: the peer broke a rule.
pub(crate) const CLOSE_PROTOCOL: u32 = 1;
/// CLOSE: a lane that cannot be joined.
pub(crate) const CLOSE_REFUSED: u32 = 2;
/// RESET: as many streams are being served as can be.
pub(crate) const RESET_BUSY: u32 = 4;
/// CLOSE: this side has no room for the session.
pub(crate) const CLOSE_BUSY: u32 = 3;
/// CLOSE: another session with the same peer goes on.
pub(crate) const CLOSE_REPLACED: u32 = 4;
/// RESET: this side drains, the stream was never served.
pub(crate) const RESET_DRAINING: u32 = 5;

/// Names a session to both of its sides and to nobody else.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct SessionId(pub(crate) [u8; 16]);

impl fmt::Debug for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Whoever knows it can ask for lanes of the session, and be refused; still it is nobody's business.
        f.write_str("SessionId([redacted])")
    }
}

/// Who is at the other end of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Peer {
    /// It proved that it holds the key of this address, or a delegation of it.
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

/// What goes first when a session has more to send than its connection takes. None starves the others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Priority {
    /// What others wait for: a few small messages.
    Control,
    /// Messages of people and services.
    #[default]
    Live,
    /// Files and other large transfers, which may travel on lanes.
    Bulk,
}

/// What a session has done and how it stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
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
    /// The smoothed round trip on the primary connection, once measured.
    pub round_trip: Option<Duration>,
    /// Streams that are open now, either side's.
    pub open_streams: usize,
    /// Lanes that live now.
    pub lanes: usize,
}

/// When a silent session is probed and when it is given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keepalive {
    /// Silence after which a ping is sent.
    pub interval: Duration,
    /// Silence after which the connection is dead.
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
    /// The server's key is not that of the dialled address, and no delegation speaks for it.
    #[error("the server's key is not that of the dialled address")]
    WrongKey,
    /// The server showed a delegation of the dialled service, and it does not count.
    #[error("the server does not speak for the dialled service")]
    Delegation(#[from] DelegationError),
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
    /// Peers made this node hold too much, and this one the most: what came from it and was not taken, or what it did not read.
    #[error("the peer made this node hold too much")]
    Evicted,
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
            Self::Delegation(error) => error.kind(),
            Self::HandshakeTimedOut | Self::Silent => ErrorKind::TimedOut,
            Self::ClosedByPeer(_) | Self::Shutdown => ErrorKind::Closed,
            Self::Lost => ErrorKind::Unreachable,
            Self::Evicted => ErrorKind::LimitExceeded,
        }
    }
}
