//! An incoming connection until it is a session or a lane (protocol.md, sections 4 and 6).

use std::sync::Arc;

use tokio::time::Instant;

use super::{ConnId, Keepalive, Machine, SessionError, SessionId};
use crate::identity::Identity;

/// What an acceptor shows.
#[derive(Clone, Debug)]
pub(crate) enum Credentials {
    /// Its own address.
    Identity(Identity),
    // Replica(ReplicaCredentials): follows with identity/delegation.
}

/// What all connections of one listener have in common.
#[derive(Debug)]
pub(crate) struct Acceptor {}

impl Acceptor {
    /// Prepares TLS and HELLO once.
    pub(crate) fn new(credentials: &Credentials, keepalive: Keepalive) -> Result<Arc<Self>, SessionError> {
        todo!()
    }
}

/// What an incoming connection turned out to be.
#[derive(Debug)]
pub(crate) enum Accepted {
    Session(Box<Machine>),
    Lane(JoinRequest),
}

/// A connection whose dialler asks to make it a lane. Not verified: [`Machine::join`] does.
#[derive(Debug)]
pub(crate) struct JoinRequest {}

impl JoinRequest {
    /// The session that it names.
    pub(crate) fn session_id(&self) -> SessionId {
        todo!()
    }
    /// The lane's number.
    pub(crate) fn number(&self) -> ConnId {
        todo!()
    }
    /// What is still to be sent before the transport is closed: the same for every reason.
    pub(crate) fn refuse(self) -> Vec<u8> {
        todo!()
    }
}

/// An incoming connection whose dialler has yet to say what it wants.
#[derive(Debug)]
pub(crate) struct Accepting {}

impl Accepting {
    pub(crate) fn new(acceptor: &Arc<Acceptor>, now: Instant) -> Result<Self, SessionError> {
        todo!()
    }
    /// Takes bytes from the transport. Once it gives something, it takes no more: what came in is in there. The machine's
    /// events are to be polled at once.
    pub(crate) fn handle_input(&mut self, now: Instant, input: &[u8]) -> Result<Option<Accepted>, SessionError> {
        todo!()
    }
    /// Appends bytes for the transport to `out`; after an error the last ones.
    pub(crate) fn poll_output(&mut self, out: &mut Vec<u8>) {
        todo!()
    }
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        todo!()
    }
    pub(crate) fn handle_timeout(&mut self, now: Instant) -> Result<(), SessionError> {
        todo!()
    }
}
