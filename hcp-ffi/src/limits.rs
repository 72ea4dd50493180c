//! The core's limits, as functions: UniFFI exports no constants.

use std::time::Duration;

use hcp_core::{network, node, session};

/// The virtual port on which HCP listens at an onion address.
#[uniffi::export]
pub fn hcp_port() -> u16 {
    network::HCP_PORT
}

/// How many connections may wait to be accepted.
#[uniffi::export]
pub fn accept_queue() -> u64 {
    network::ACCEPT_QUEUE as u64
}

/// Accepted connections whose dialler has not proved itself yet.
#[uniffi::export]
pub fn max_handshakes() -> u64 {
    node::MAX_HANDSHAKES as u64
}

/// Sessions that a node accepts at once.
#[uniffi::export]
pub fn max_sessions() -> u64 {
    node::MAX_SESSIONS as u64
}

/// The longest timeout of a keepalive.
#[uniffi::export]
pub fn max_keepalive() -> Duration {
    node::MAX_KEEPALIVE
}

/// The longest message of a stream, in bytes.
#[uniffi::export]
pub fn max_message() -> u64 {
    session::MAX_MESSAGE as u64
}

/// Bytes that one stream may have in flight in one direction.
#[uniffi::export]
pub fn stream_window() -> u64 {
    session::STREAM_WINDOW
}

/// Streams that a peer may have open at once in one session.
#[uniffi::export]
pub fn max_streams() -> u32 {
    session::MAX_STREAMS
}

/// How long a dialler may take from its first byte to its proof.
#[uniffi::export]
pub fn handshake_timeout() -> Duration {
    session::HANDSHAKE_TIMEOUT
}

/// The longest name of a protocol, in bytes.
#[uniffi::export]
pub fn max_protocol_name() -> u64 {
    session::MAX_PROTOCOL_NAME as u64
}
