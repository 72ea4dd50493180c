//! The core's limits, as functions: UniFFI exports no constants.

use std::time::Duration;

use hcp_core::identity::delegation;
use hcp_core::{messenger, network, node, session};

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

/// Clients that an address may be restricted to.
#[uniffi::export]
pub fn max_discovery_clients() -> u64 {
    network::MAX_DISCOVERY_CLIENTS as u64
}

/// The longest timeout of a keepalive.
#[uniffi::export]
pub fn max_keepalive() -> Duration {
    node::MAX_KEEPALIVE
}

/// Events of a node that wait for a slow reader; older ones are dropped, and the reader is told how many.
#[uniffi::export]
pub fn event_queue() -> u64 {
    node::EVENT_QUEUE as u64
}

/// Bytes that all peers together can make a node hold.
#[uniffi::export]
pub fn node_memory() -> u64 {
    node::NODE_MEMORY as u64
}

/// Bytes of what its applications have sent that a node keeps, all sessions together.
#[uniffi::export]
pub fn node_backlog() -> u64 {
    node::NODE_BACKLOG as u64
}

/// The shortest first wait of a `Backoff`.
#[uniffi::export]
pub fn min_backoff() -> Duration {
    node::MIN_BACKOFF
}

/// The longest wait of a `Backoff`.
#[uniffi::export]
pub fn max_backoff() -> Duration {
    node::MAX_BACKOFF
}

/// A session that lived this long was a success, after which the waits of a `Backoff` begin anew.
#[uniffi::export]
pub fn healthy_session() -> Duration {
    node::HEALTHY_SESSION
}

/// The longest message of a stream, in bytes.
#[uniffi::export]
pub fn max_message() -> u64 {
    session::MAX_MESSAGE as u64
}

/// Bytes that one stream may have in flight in one direction, at first.
#[uniffi::export]
pub fn stream_window() -> u64 {
    session::STREAM_WINDOW
}

/// Bytes that one stream may have in flight in one direction, once its reader has kept up.
#[uniffi::export]
pub fn max_stream_window() -> u64 {
    session::MAX_STREAM_WINDOW
}

/// Bytes by which all windows of a session together may grow.
#[uniffi::export]
pub fn session_growth() -> u64 {
    session::SESSION_GROWTH
}

/// The most lanes of a session.
#[uniffi::export]
pub fn max_lanes() -> u64 {
    session::MAX_LANES as u64
}

/// How far the clocks of an owner and of a dialler may be apart, in seconds.
#[uniffi::export]
pub fn clock_skew() -> u64 {
    delegation::CLOCK_SKEW
}

/// The length of an owner certificate, in bytes.
#[uniffi::export]
pub fn owner_certificate_len() -> u64 {
    delegation::OwnerCertificate::LEN as u64
}

/// The length of a delegation, in bytes.
#[uniffi::export]
pub fn delegation_len() -> u64 {
    delegation::Delegation::LEN as u64
}

/// How many services `SerialFloors` remembers.
#[uniffi::export]
pub fn serial_floors_capacity() -> u64 {
    delegation::SerialFloors::CAPACITY as u64
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

/// The most contacts of a profile, in any state.
#[uniffi::export]
pub fn max_contacts() -> u64 {
    messenger::MAX_CONTACTS as u64
}

/// Contact requests that wait for an answer at once.
#[uniffi::export]
pub fn max_pending() -> u64 {
    messenger::MAX_PENDING as u64
}

/// Messages to one contact that may wait to be sent.
#[uniffi::export]
pub fn max_queued() -> u64 {
    messenger::MAX_QUEUED as u64
}

/// The most messages, or transfers, that one call returns.
#[uniffi::export]
pub fn max_page() -> u32 {
    u32::try_from(messenger::MAX_PAGE).unwrap_or(u32::MAX)
}

/// Events that are kept.
#[uniffi::export]
pub fn max_events() -> u64 {
    messenger::MAX_EVENTS
}

/// The longest name of a person, in bytes of UTF-8.
#[uniffi::export]
pub fn max_name() -> u64 {
    messenger::MAX_NAME as u64
}

/// The longest greeting of a contact request, in bytes of UTF-8.
#[uniffi::export]
pub fn max_greeting() -> u64 {
    messenger::MAX_GREETING as u64
}

/// The longest text message, in bytes of UTF-8.
#[uniffi::export]
pub fn max_text() -> u64 {
    messenger::MAX_TEXT as u64
}

/// The longest name of a file, in bytes of UTF-8.
#[uniffi::export]
pub fn max_file_name() -> u64 {
    messenger::MAX_FILE_NAME as u64
}

/// The largest file that can be offered or accepted, in bytes.
#[uniffi::export]
pub fn max_file() -> u64 {
    messenger::MAX_FILE
}

/// Disk space that a transfer leaves free, in bytes.
#[uniffi::export]
pub fn disk_reserve() -> u64 {
    messenger::DISK_RESERVE
}
