//! A further connection of a session on the dialler's side, until it is a lane (protocol.md, section 6).
//!
//! Nothing is sent but the ClientHello before the server has shown the session's own server key.

use std::sync::Arc;

use rustls::ClientConfig;
use tokio::time::Instant;

use super::connection::{Connection, Taken};
use super::hello::Secrets;
#[cfg(test)]
use super::planted::{Defect, planted};
use super::{ConnId, HANDSHAKE_TIMEOUT, SessionError, tls};
use crate::wire::FrameKind;

/// A connection that the dialler has joined to its session; [`Machine::add_lane`](super::Machine::add_lane) takes it.
#[derive(Debug)]
pub(crate) struct Lane {
    pub(super) number: ConnId,
    pub(super) connection: Box<Connection>,
    pub(super) session: super::SessionId,
    /// What came behind HELLO, for TLS: the caller's read buffer bounds it.
    pub(super) rest: Vec<u8>,
    /// Whether the peer has ended TLS right after HELLO.
    pub(super) ended: bool,
}

#[cfg(feature = "testing")]
impl Lane {
    /// What is to be said on it: for a dialler that asks for more lanes than there may be.
    pub(crate) fn into_words(mut self) -> Vec<u8> {
        let mut out = Vec::new();
        self.connection.flush(&mut out);
        out
    }
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
pub(crate) struct LaneDialling {
    /// Until it is one.
    connection: Option<Connection>,
    /// What goes out before the server is known: the ClientHello.
    first: Vec<u8>,
    secrets: Secrets,
    server_key: [u8; 32],
    number: ConnId,
    began: Instant,
}

impl LaneDialling {
    pub(super) fn new(
        secrets: Secrets,
        server_key: [u8; 32],
        number: ConnId,
        now: Instant,
    ) -> Result<Self, SessionError> {
        let config = tls::lane_config(&secrets.id.lane_hint()).map_err(SessionError::Tls)?;
        let (connection, first) = dial(now, config)?;
        Ok(Self { connection: Some(connection), first, secrets, server_key, number, began: now })
    }

    /// Takes bytes from the transport; gives the lane once it is one. What is still to be sent goes on through the machine.
    pub(crate) fn handle_input(&mut self, now: Instant, mut input: &[u8]) -> Result<Option<Lane>, LaneError> {
        let Some(mut connection) = self.connection.take() else {
            return Err(SessionError::OutOfPlace("input after the handshake").into());
        };
        while !input.is_empty() {
            let alive = connection.read(now, &mut input)? != Taken::End;
            if let Some(frame) = connection.next_frame()? {
                if !tls::speaks_hcp(connection.tls()) {
                    return Err(SessionError::NotHcp.into());
                }
                let right = tls::server_key(connection.tls()) == Some(self.server_key);
                #[cfg(test)]
                let right = right || planted(Defect::OtherReplicaTaken);
                if !right {
                    return Err(LaneError::OtherReplica);
                }
                if frame.kind != FrameKind::Hello {
                    return Err(SessionError::OutOfPlace("a frame before HELLO").into());
                }
                connection.write_first(self.secrets.join(self.number, connection.tls())?)?;
                let Self { number, ref secrets, .. } = *self;
                let connection = Box::new(connection);
                return Ok(Some(Lane { number, connection, session: secrets.id, rest: input.to_vec(), ended: !alive }));
            }
            if !alive {
                return Err(SessionError::Lost.into());
            }
        }
        self.connection = Some(connection);
        Ok(None)
    }

    /// Appends bytes for the transport to `out`.
    pub(crate) fn poll_output(&mut self, out: &mut Vec<u8>) {
        out.append(&mut self.first);
    }

    /// When [`Self::handle_timeout`] wants to be called.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        self.connection.as_ref().map(|_| self.began + HANDSHAKE_TIMEOUT)
    }

    /// Fails once the handshake has taken too long.
    pub(crate) fn handle_timeout(&mut self, now: Instant) -> Result<(), LaneError> {
        if self.connection.is_some() && now >= self.began + HANDSHAKE_TIMEOUT {
            self.connection = None;
            return Err(SessionError::HandshakeTimedOut.into());
        }
        Ok(())
    }
}

/// A connection of the dialler's with the ClientHello, all that it says before it knows whom it reached.
pub(super) fn dial(now: Instant, config: Arc<ClientConfig>) -> Result<(Connection, Vec<u8>), SessionError> {
    let tls = tls::client(config).map_err(SessionError::Tls)?;
    let mut connection = Connection::new(tls.into(), now);
    let mut first = Vec::new();
    connection.flush(&mut first);
    Ok((connection, first))
}
