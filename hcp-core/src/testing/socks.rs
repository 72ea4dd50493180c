//! A SOCKS5 client, just enough to reach an onion address through a C tor client.
//!
//! Every call is bounded by [`SOCKS_DEADLINE`]; the proxy resolves the name, this process never does.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::error::ErrorKind;

/// Connects to `port` of `host` through the SOCKS5 proxy at `proxy`, for at most 120 s.
///
/// # Errors
/// [`SocksError`] says whether the proxy was missing, refused or took too long.
///
/// # Cancel safety
/// Dropping the future abandons the attempt.
pub async fn socks_connect(proxy: SocketAddr, host: &str, port: u16) -> Result<TcpStream, SocksError> {
    bounded(proxy, host, port, None).await
}

/// Connects like [`socks_connect`], on circuits that no connection with another `isolation` shares.
///
/// # Errors
/// As [`socks_connect`]; `isolation` is 1 to 255 bytes long.
///
/// # Cancel safety
/// Dropping the future abandons the attempt.
pub async fn socks_connect_isolated(
    proxy: SocketAddr,
    host: &str,
    port: u16,
    isolation: &str,
) -> Result<TcpStream, SocksError> {
    bounded(proxy, host, port, Some(isolation)).await
}

/// Why a connection through a SOCKS proxy failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SocksError {
    /// The host or the isolation is empty or longer than SOCKS can carry.
    #[error("the host or the isolation is empty or longer than 255 bytes")]
    InvalidName,
    /// The proxy itself could not be reached or closed the connection.
    #[error("the SOCKS proxy could not be used")]
    Proxy(#[from] std::io::Error),
    /// The proxy does not speak SOCKS5 as expected.
    #[error("the SOCKS proxy answered something else than SOCKS5")]
    Protocol,
    /// The proxy could not reach the target.
    #[error("the SOCKS proxy refused with code 0x{code:02x}: {}", reason(*.code))]
    Refused {
        /// The reply code of RFC 1928, or one of Tor's extended ones.
        code: u8,
    },
    /// Nothing came within the deadline.
    #[error("the SOCKS proxy did not connect within {} s", SOCKS_DEADLINE.as_secs())]
    TimedOut,
}

impl SocksError {
    /// What a caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::InvalidName => ErrorKind::InvalidInput,
            Self::Proxy(_) | Self::Refused { .. } => ErrorKind::Unreachable,
            Self::Protocol => ErrorKind::ProtocolViolation,
            Self::TimedOut => ErrorKind::TimedOut,
        }
    }
}

async fn bounded(proxy: SocketAddr, host: &str, port: u16, isolation: Option<&str>) -> Result<TcpStream, SocksError> {
    timeout(SOCKS_DEADLINE, connect(proxy, host, port, isolation)).await.map_err(|_| SocksError::TimedOut)?
}

async fn connect(proxy: SocketAddr, host: &str, port: u16, isolation: Option<&str>) -> Result<TcpStream, SocksError> {
    let host_length = length(host)?;
    let isolation = isolation.map(|name| length(name).map(|length| (length, name))).transpose()?;

    let mut stream = TcpStream::connect(proxy).await?;
    stream.set_nodelay(true)?;
    let method = if isolation.is_some() { USER_PASSWORD } else { NO_AUTHENTICATION };
    stream.write_all(&[VERSION, 1, method]).await?;
    let mut chosen = [0; 2];
    stream.read_exact(&mut chosen).await?;
    if chosen != [VERSION, method] {
        return Err(SocksError::Protocol);
    }

    if let Some((length, name)) = isolation {
        let mut login = vec![1, length];
        login.extend_from_slice(name.as_bytes());
        login.extend_from_slice(&[1, b'x']);
        stream.write_all(&login).await?;
        let mut answer = [0; 2];
        stream.read_exact(&mut answer).await?;
        if answer[1] != 0 {
            return Err(SocksError::Protocol);
        }
    }

    let mut request = vec![VERSION, CONNECT, 0, DOMAIN_NAME, host_length];
    request.extend_from_slice(host.as_bytes());
    request.extend_from_slice(&port.to_be_bytes());
    stream.write_all(&request).await?;

    let mut head = [0; 4];
    stream.read_exact(&mut head).await?;
    if head[0] != VERSION {
        return Err(SocksError::Protocol);
    }
    if head[1] != 0 {
        return Err(SocksError::Refused { code: head[1] });
    }
    let address_length = match head[3] {
        IPV4 => 4,
        IPV6 => 16,
        DOMAIN_NAME => usize::from(stream.read_u8().await?),
        _ => return Err(SocksError::Protocol),
    };
    let mut bound = [0; 255 + 2];
    stream.read_exact(&mut bound[..address_length + 2]).await?;
    Ok(stream)
}

fn length(name: &str) -> Result<u8, SocksError> {
    u8::try_from(name.len()).ok().filter(|length| *length > 0).ok_or(SocksError::InvalidName)
}

fn reason(code: u8) -> &'static str {
    match code {
        0x01 => "general failure",
        0x02 => "not allowed",
        0x04 => "host unreachable",
        0x05 => "connection refused",
        0x06 => "expired",
        0xf0 => "no descriptor for this onion address",
        0xf1 => "the descriptor of this onion address is invalid",
        0xf2 => "introduction to the onion service failed",
        0xf3 => "rendezvous with the onion service failed",
        0xf6 => "not an onion address",
        0xf7 => "introduction to the onion service timed out",
        _ => "unknown reason",
    }
}

/// A C tor client tries introduction points for up to two minutes before it gives up.
const SOCKS_DEADLINE: Duration = Duration::from_secs(120);

const VERSION: u8 = 5;
const NO_AUTHENTICATION: u8 = 0;
const USER_PASSWORD: u8 = 2;
const CONNECT: u8 = 1;
const IPV4: u8 = 1;
const DOMAIN_NAME: u8 = 3;
const IPV6: u8 = 4;
