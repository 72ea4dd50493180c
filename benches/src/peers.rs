//! Pairs of ends on this machine, each ready to do the same work over another protocol.

mod bytes;
mod hcp;
mod iroh;
mod noise;
mod tcp;
mod tls;
mod wrapped;

use std::sync::OnceLock;

use futures::future::BoxFuture;
use tokio::runtime::Handle;

pub use self::bytes::BytesPeer;
pub use self::hcp::{HcpPeer, order_handler, serve_orders};
pub use self::iroh::IrohPair;
pub use self::noise::{Cipher, NoisePair};
pub use self::tcp::TcpNetwork;
pub use self::tls::{Authentication, BareTls};
pub use self::wrapped::{Counter, Counting, Delayed, delayed};
use crate::Failure;

/// Bytes that one write or one message of a transfer has.
pub const PIECE: usize = 64 * 1024;

/// Runs a future at the far end, which has a thread of its own: so has the near end, and the two cores that a machine must
/// have are used by all protocols alike.
///
/// # Errors
/// Those of the future.
pub async fn far<T: Send + 'static>(
    future: impl Future<Output = Result<T, Failure>> + Send + 'static,
) -> Result<T, Failure> {
    static FAR: OnceLock<Handle> = OnceLock::new();
    let handle = match FAR.get() {
        Some(handle) => handle,
        None => {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            let handle = FAR.get_or_init(|| runtime.handle().clone());
            std::thread::Builder::new().name("far".into()).spawn(move || {
                runtime.block_on(std::future::pending::<()>());
            })?;
            handle
        }
    };
    handle.spawn(future).await?
}

/// The dialling end of a pair; the other end does what it is asked.
pub trait Peer: Send {
    /// Sends `bytes` and waits for the other end to say that it has them all.
    fn transfer(&mut self, bytes: u64) -> BoxFuture<'_, Result<(), Failure>>;

    /// Sends a message of `length` bytes and waits for its echo, `count` times.
    fn round_trips(&mut self, count: u64, length: usize) -> BoxFuture<'_, Result<(), Failure>>;

    /// Sends `count` messages of `length` bytes, and waits for the other end to say that it has them all.
    fn messages(&mut self, count: u64, length: usize) -> BoxFuture<'_, Result<(), Failure>>;
}

/// What the accepting end is asked to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Take that many bytes, then send one.
    Transfer(u64),
    /// Send messages back.
    RoundTrips { count: u64, length: u32 },
    /// Take that many messages, then send one.
    Messages(u64),
}

impl Order {
    pub const LEN: usize = 13;

    pub fn to_bytes(self) -> [u8; Self::LEN] {
        let (kind, count, length) = match self {
            Self::Transfer(bytes) => (1, bytes, 0),
            Self::RoundTrips { count, length } => (2, count, length),
            Self::Messages(count) => (3, count, 0),
        };
        let mut bytes = [0; Self::LEN];
        bytes[0] = kind;
        bytes[1..9].copy_from_slice(&count.to_be_bytes());
        bytes[9..].copy_from_slice(&u32::to_be_bytes(length));
        bytes
    }

    pub fn from_bytes(bytes: [u8; Self::LEN]) -> Result<Self, Failure> {
        let [kind, c0, c1, c2, c3, c4, c5, c6, c7, l0, l1, l2, l3] = bytes;
        let count = u64::from_be_bytes([c0, c1, c2, c3, c4, c5, c6, c7]);
        match kind {
            1 => Ok(Self::Transfer(count)),
            2 => Ok(Self::RoundTrips { count, length: u32::from_be_bytes([l0, l1, l2, l3]) }),
            3 => Ok(Self::Messages(count)),
            _ => Err("no such order".into()),
        }
    }
}

/// Bytes that look random to whoever would compress them, the same each time.
pub fn noise(length: usize) -> ::bytes::Bytes {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    std::iter::repeat_with(next).take(length).collect()
}
