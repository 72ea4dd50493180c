//! An incoming connection until it is a session or a lane (protocol.md, sections 4 and 6).
//!
//! Nothing but PROOF or JOIN is taken, within a deadline and a bounded number of bytes.

use std::sync::Arc;

use tokio::time::Instant;

use super::connection::{Connection, Taken};
use super::hello::{self, Join, Proved};
use super::limits::MAX_BEFORE_PROOF;
use super::tls::{self, ServerKey};
use super::{CLOSE_PROTOCOL, CLOSE_REFUSED, HANDSHAKE_TIMEOUT, Keepalive, Machine, SessionError, SessionId, machine};
use crate::identity::delegation::ReplicaCredentials;
use crate::identity::{Identity, OnionAddress};
use crate::wire::{Frame, FrameKind};

/// What an acceptor shows.
#[derive(Clone, Debug)]
pub(crate) enum Credentials {
    /// Its own address.
    Identity(Identity),
    /// The right to speak for a service; nothing of the node itself.
    Replica(ReplicaCredentials),
}

/// What all connections of one listener have in common.
#[derive(Debug)]
pub(crate) struct Acceptor {
    config: Arc<rustls::ServerConfig>,
    /// What is dialled: the node's address, or the service's.
    address: OnionAddress,
    server_key: [u8; 32],
    hello: Frame,
    keepalive: Keepalive,
}

impl Acceptor {
    /// Prepares TLS and HELLO once.
    pub(crate) fn new(credentials: &Credentials, keepalive: Keepalive) -> Result<Arc<Self>, SessionError> {
        let (address, key, hello) = match credentials {
            Credentials::Identity(identity) => {
                (identity.address(), ServerKey::Identity(identity.clone()), hello::hello(&[], &[]))
            }
            Credentials::Replica(replica) => {
                let key = ServerKey::Session(replica.session_key().clone());
                let hello = hello::hello(&replica.certificate().to_bytes(), &replica.delegation().to_bytes());
                (replica.service(), key, hello)
            }
        };
        let config = tls::server_config(&key).map_err(SessionError::Tls)?;
        Ok(Arc::new(Self { config, address, server_key: key.public(), hello, keepalive }))
    }
}

/// What an incoming connection turned out to be.
#[derive(Debug)]
pub(crate) enum Accepted {
    /// A session of its own.
    Session(Box<Machine>),
    /// A lane of another one.
    Lane(JoinRequest),
}

/// A connection whose dialler asks to make it a lane. Not verified: [`Machine::join`] does.
#[derive(Debug)]
pub(crate) struct JoinRequest(pub(super) Box<Joining>);

/// What a [`JoinRequest`] holds.
#[derive(Debug)]
pub(super) struct Joining {
    pub(super) connection: Connection,
    pub(super) join: Join,
    /// Under which key the connection was accepted.
    pub(super) server_key: [u8; 32],
    /// What came behind it, for TLS.
    pub(super) rest: Vec<u8>,
    /// Whether the peer has ended TLS right after it.
    pub(super) ended: bool,
}

impl JoinRequest {
    /// The session that it names.
    pub(crate) fn session_id(&self) -> SessionId {
        self.0.join.session
    }

    /// What is still to be sent before the transport is closed: the same for every reason.
    pub(crate) fn refuse(mut self) -> Vec<u8> {
        let mut out = Vec::new();
        self.0.connection.write_close(machine::close_frame(CLOSE_REFUSED));
        self.0.connection.flush(&mut out);
        out
    }
}

/// An incoming connection whose dialler has yet to say what it wants.
#[derive(Debug)]
pub(crate) struct Accepting {
    acceptor: Arc<Acceptor>,
    /// Until it has become something else.
    connection: Option<Connection>,
    began: Instant,
}

impl Accepting {
    /// Begins with the transport's first byte.
    pub(crate) fn new(acceptor: &Arc<Acceptor>, now: Instant) -> Result<Self, SessionError> {
        let tls = tls::server(Arc::clone(&acceptor.config)).map_err(SessionError::Tls)?;
        let mut connection = Connection::new(tls.into(), now);
        // Waits inside TLS until the server's flight goes.
        connection.write_first(acceptor.hello.clone())?;
        Ok(Self { acceptor: Arc::clone(acceptor), connection: Some(connection), began: now })
    }

    /// Takes bytes from the transport. Once it has given something it takes no more: what came in is in there, and a
    /// session's events are to be polled at once.
    pub(crate) fn handle_input(&mut self, now: Instant, mut input: &[u8]) -> Result<Option<Accepted>, SessionError> {
        let Some(mut connection) = self.connection.take() else {
            return Err(SessionError::OutOfPlace("input after the handshake"));
        };
        match self.first_frame(now, &mut connection, &mut input) {
            Ok(None) => {
                self.connection = Some(connection);
                Ok(None)
            }
            Ok(Some((frame, alive))) => self.accept(now, connection, &frame, alive, input).map(Some),
            // TLS lets a client pass that offers no protocol at all, and has its answer ready: it shows who is here, and HELLO.
            Err(SessionError::NotHcp) => Err(SessionError::NotHcp),
            Err(error) => {
                self.fail(connection);
                Err(error)
            }
        }
    }

    /// Appends bytes for the transport to `out`; after an error the last ones.
    pub(crate) fn poll_output(&mut self, out: &mut Vec<u8>) {
        if let Some(connection) = &mut self.connection {
            connection.flush(out);
        }
    }

    /// When [`Self::handle_timeout`] wants to be called.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        self.connection.as_ref().map(|_| self.began + HANDSHAKE_TIMEOUT)
    }

    /// Fails once the handshake has taken too long.
    pub(crate) fn handle_timeout(&mut self, now: Instant) -> Result<(), SessionError> {
        if self.connection.is_some() && now >= self.began + HANDSHAKE_TIMEOUT {
            self.connection = None;
            return Err(SessionError::HandshakeTimedOut);
        }
        Ok(())
    }

    /// Reads until a frame is whole; with it, whether the peer goes on.
    fn first_frame(
        &self,
        now: Instant,
        connection: &mut Connection,
        input: &mut &[u8],
    ) -> Result<Option<(Frame, bool)>, SessionError> {
        while !input.is_empty() {
            let alive = connection.read(now, input)? != Taken::End;
            if tls::has_chosen(connection.tls()) && !tls::speaks_hcp(connection.tls()) {
                return Err(SessionError::NotHcp);
            }
            if let Some(frame) = connection.next_frame()? {
                return Ok(Some((frame, alive)));
            }
            if !alive {
                return Err(SessionError::Lost);
            }
            if connection.traffic().bytes_received > MAX_BEFORE_PROOF {
                return Err(SessionError::Limit("bytes before its proof"));
            }
        }
        Ok(None)
    }

    fn accept(
        &mut self,
        now: Instant,
        connection: Connection,
        frame: &Frame,
        alive: bool,
        input: &[u8],
    ) -> Result<Accepted, SessionError> {
        let first = match First::parse(&connection, frame, &self.acceptor.address) {
            Ok(first) => first,
            Err(error) => {
                self.fail(connection);
                return Err(error);
            }
        };
        let Acceptor { server_key, keepalive, .. } = *self.acceptor;
        match first {
            First::Proof(proved) => {
                let machine = Machine::accepted(now, connection, proved, server_key, keepalive)?;
                Ok(Accepted::Session(Box::new(machine.with_rest(now, input, alive))))
            }
            First::Join(join) => {
                // The caller's read buffer bounds it.
                let (rest, ended) = (input.to_vec(), !alive);
                Ok(Accepted::Lane(JoinRequest(Box::new(Joining { connection, join, server_key, rest, ended }))))
            }
        }
    }

    /// Says what went wrong where that can still be said: TLS's own alert, or CLOSE.
    fn fail(&mut self, mut connection: Connection) {
        if !connection.tls().is_handshaking() {
            connection.write_close(machine::close_frame(CLOSE_PROTOCOL));
        }
        self.connection = Some(connection);
    }
}

/// What a dialler said first.
enum First {
    Proof(Proved),
    Join(Join),
}

impl First {
    fn parse(connection: &Connection, frame: &Frame, acceptor: &OnionAddress) -> Result<Self, SessionError> {
        if !tls::speaks_hcp(connection.tls()) {
            return Err(SessionError::NotHcp);
        }
        match frame.kind {
            FrameKind::Proof => hello::check_proof(connection.tls(), &frame.payload, acceptor).map(Self::Proof),
            FrameKind::Join => Join::parse(&frame.payload).map(Self::Join),
            _ => Err(SessionError::OutOfPlace("a frame before PROOF or JOIN")),
        }
    }
}
