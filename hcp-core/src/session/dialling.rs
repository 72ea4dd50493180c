//! A further connection of a session on the dialler's side, until it is a lane (protocol.md, section 6).
//!
//! Nothing is sent but the ClientHello before the server has shown the session's own server key.

use tokio::time::Instant;

use super::connection::Connection;
use super::{ConnId, SessionError};

/// A lane that the dialler has joined on its side; [`Machine::add_lane`](super::Machine::add_lane) takes it.
#[derive(Debug)]
pub(crate) struct Lane {
    pub(super) number: ConnId,
    pub(super) connection: Connection,
}

/// Why a connection did not become a lane. None of it concerns the session.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LaneError {
    /// Another replica of the service answered; dialling again may reach the right one.
    #[error("another replica answered")]
    OtherReplica,
    /// Anything else.
    #[error(transparent)]
    Session(#[from] SessionError),
}

/// A connection that wants to be a lane.
#[derive(Debug)]
pub(crate) struct LaneDialling {}

impl LaneDialling {
    /// Takes bytes from the transport; the lane once it is one. What is still to be sent goes on through the machine.
    pub(crate) fn handle_input(&mut self, now: Instant, input: &[u8]) -> Result<Option<Lane>, LaneError> {
        todo!()
    }
    /// Appends bytes for the transport to `out`.
    pub(crate) fn poll_output(&mut self, out: &mut Vec<u8>) {
        todo!()
    }
    /// When [`Self::handle_timeout`] wants to be called.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        todo!()
    }
    /// Fails once the handshake has taken too long.
    pub(crate) fn handle_timeout(&mut self, now: Instant) -> Result<(), LaneError> {
        todo!()
    }
}
