//! An incoming connection until it is a session or a lane (protocol.md, sections 4 and 6).
//!
//! - Nothing but PROOF or JOIN is taken, within a deadline and a bounded number of bytes.
//! - A lane is shown the key that its session began with, everybody else the one of now; with each key goes its own HELLO,
//!   so that nothing connects the two.

use std::sync::{Arc, Mutex, PoisonError};

use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tokio::time::Instant;

use super::connection::{Connection, Taken};
use super::hello::{self, Join, LaneHint, Proved};
use super::limits::MAX_BEFORE_PROOF;
#[cfg(test)]
use super::planted::{Defect, planted};
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
    key: Arc<CertifiedKey>,
    hello: Frame,
    keepalive: Keepalive,
}

/// Knows under what the sessions that live were accepted.
pub(crate) trait Formerly: std::fmt::Debug + Send + Sync {
    /// What has accepted the session that a lane's ClientHello names.
    fn acceptor_of(&self, hint: &LaneHint) -> Option<Arc<Acceptor>>;
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
        let (server_key, key) = (key.public(), tls::certified(&key));
        Ok(Arc::new(Self { config, address, server_key, key, hello, keepalive }))
    }

    /// What is dialled: the node's address, or the service's.
    pub(crate) fn address(&self) -> OnionAddress {
        self.address
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

/// Chooses the key for one connection, and notes the choice.
#[derive(Debug)]
struct Choice {
    present: Arc<Acceptor>,
    former: Arc<dyn Formerly>,
    /// A former one, if that is what was chosen.
    chosen: Mutex<Option<Arc<Acceptor>>>,
}

impl Choice {
    fn take(&self) -> Option<Arc<Acceptor>> {
        self.chosen.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl ResolvesServerCert for Choice {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        // Of this address alone: a session with one that the node serves must not show what it serves beside it.
        let former = tls::lane_hint(&hello)
            .and_then(|hint| self.former.acceptor_of(&hint))
            .filter(|former| former.address == self.present.address && former.server_key != self.present.server_key);
        #[cfg(test)]
        let former = former.filter(|_| !planted(Defect::FormerKeyForgotten));
        let key = Arc::clone(&former.as_ref().unwrap_or(&self.present).key);
        *self.chosen.lock().unwrap_or_else(PoisonError::into_inner) = former;
        Some(key)
    }

    fn only_raw_public_keys(&self) -> bool {
        true
    }
}

/// An incoming connection whose dialler has yet to say what it wants.
#[derive(Debug)]
pub(crate) struct Accepting {
    acceptor: Arc<Acceptor>,
    choice: Option<Arc<Choice>>,
    /// Until it has become something else.
    connection: Option<Connection>,
    /// The key was shown, and HELLO is on its way.
    greeted: bool,
    /// The key is one of before, for a lane and nothing else.
    formerly: bool,
    began: Instant,
}

impl Accepting {
    /// Begins with the transport's first byte.
    #[cfg(any(test, feature = "testing"))]
    pub(crate) fn new(acceptor: &Arc<Acceptor>, now: Instant) -> Result<Self, SessionError> {
        Self::begin(acceptor, None, Arc::clone(&acceptor.config), now)
    }

    /// Begins with the transport's first byte, at an address whose sessions may have been accepted under other keys before.
    pub(crate) fn knowing(
        acceptor: &Arc<Acceptor>,
        former: Arc<dyn Formerly>,
        now: Instant,
    ) -> Result<Self, SessionError> {
        let choice = Arc::new(Choice { present: Arc::clone(acceptor), former, chosen: Mutex::default() });
        let config = tls::choosing(&acceptor.config, Arc::clone(&choice) as _);
        Self::begin(acceptor, Some(choice), config, now)
    }

    fn begin(
        acceptor: &Arc<Acceptor>,
        choice: Option<Arc<Choice>>,
        config: Arc<rustls::ServerConfig>,
        now: Instant,
    ) -> Result<Self, SessionError> {
        let tls = tls::server(config).map_err(SessionError::Tls)?;
        let connection = Some(Connection::new(tls.into(), now));
        let acceptor = Arc::clone(acceptor);
        Ok(Self { acceptor, choice, connection, greeted: false, formerly: false, began: now })
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
        &mut self,
        now: Instant,
        connection: &mut Connection,
        input: &mut &[u8],
    ) -> Result<Option<(Frame, bool)>, SessionError> {
        while !input.is_empty() {
            let alive = connection.read(now, input)? != Taken::End;
            if !self.greeted && tls::has_chosen(connection.tls()) {
                self.greet(connection)?;
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

    /// Puts HELLO behind the server's flight, which is ready and shows the key that was chosen.
    fn greet(&mut self, connection: &mut Connection) -> Result<(), SessionError> {
        if !tls::speaks_hcp(connection.tls()) {
            return Err(SessionError::NotHcp);
        }
        let chosen = self.choice.take().and_then(|choice| choice.take());
        if let Some(former) = chosen {
            self.acceptor = former;
            self.formerly = true;
        }
        self.greeted = true;
        connection.write_first(self.acceptor.hello.clone())
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
            First::Proof(_) if self.formerly => {
                self.fail(connection);
                Err(SessionError::OutOfPlace("a session where a lane was asked for"))
            }
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
