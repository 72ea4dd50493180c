//! One session as a state machine: bytes and time in, bytes and events out.

use bytes::Bytes;
use tokio::time::Instant;

use super::{
    ConnId, JoinRequest, Keepalive, Lane, LaneDialling, Peer, Priority, SessionError, SessionId, SessionStats, StreamId,
};
use crate::identity::{Identity, OnionAddress};

/// How a dialler presents itself.
#[derive(Clone, Debug)]
pub(crate) enum Dialler {
    /// Signs that it holds this key.
    Identity(Identity),
    /// Shows nothing.
    Anonymous,
}

/// What a dialler wants.
#[derive(Clone, Debug)]
pub(crate) struct Dial {
    /// Whom it dialled: a node or a service.
    pub(crate) target: OnionAddress,
    pub(crate) me: Dialler,
    /// A session with `target` that it still holds; ignored when anonymous.
    pub(crate) known: Option<SessionId>,
    pub(crate) keepalive: Keepalive,
    /// Lanes that it wants while a bulk stream is open, at most `MAX_LANES`.
    pub(crate) lanes: usize,
    // floors: SerialFloors: follows with identity/delegation.
    /// The wall clock, in seconds since 1970: for the times of a delegation.
    pub(crate) unix_now: u64,
}

/// What happened in a session.
#[derive(Debug)]
pub(crate) enum Event {
    /// Both ends are satisfied. The first event of every session.
    Established(Peer),
    /// The peer opened a stream.
    Opened { stream: StreamId, protocol: String, priority: Priority, credit: u64 },
    /// A whole message. The application answers with [`Machine::consumed`] when it has taken it.
    Message { stream: StreamId, message: Bytes },
    /// The peer sends no more on this stream.
    Finished(StreamId),
    /// The peer gave credit: this many bytes more may be sent.
    Credit { stream: StreamId, bytes: u64 },
    /// The peer abandoned the stream; the last event of it. What of it was not consumed need not be.
    Reset { stream: StreamId, code: u32 },
    /// Both directions have ended; the last event of the stream. What is unconsumed still wants [`Machine::consumed`] or
    /// [`Machine::release`].
    Closed { stream: StreamId },
    /// A lane is gone; its transport is to be closed once `poll_output` gives nothing more for it.
    LaneEnded(ConnId),
    /// The peer opens no more streams and serves none above `last`; own streams above it get `Reset`.
    Draining { last: StreamId },
    /// No stream is open any more and it is this side's turn to call [`Machine::close`].
    Drained,
}

/// A session without I/O.
#[derive(Debug)]
pub(crate) struct Machine {}

impl Machine {
    /// The dialling side of a session with whoever speaks for `dial.target`. [`Event::Established`] comes when the
    /// acceptor has shown that it does.
    pub(crate) fn dial(dial: Dial, now: Instant) -> Result<Self, SessionError> {
        todo!()
    }
    /// Takes bytes from the transport of `conn`. An error ends the session; what breaks a lane is an event instead.
    /// After an error only [`Self::close`] and [`Self::poll_output`] are of use. Events are to be polled after each call.
    pub(crate) fn handle_input(&mut self, now: Instant, conn: ConnId, input: &[u8]) -> Result<(), SessionError> {
        todo!()
    }
    /// The transport of `conn` ended. For a lane: `Ok`, and what it had is sent again elsewhere.
    pub(crate) fn handle_lost(&mut self, now: Instant, conn: ConnId) -> Result<(), SessionError> {
        todo!()
    }
    pub(crate) fn handle_timeout(&mut self, now: Instant) -> Result<(), SessionError> {
        todo!()
    }
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        todo!()
    }
    pub(crate) fn poll_event(&mut self) -> Option<Event> {
        todo!()
    }
    /// Appends bytes for the transport of `conn` to `out`, until `out` holds about 64 KiB. To be called with an `out` that
    /// the transport has taken, so that little waits in front of what is urgent.
    pub(crate) fn poll_output(&mut self, now: Instant, conn: ConnId, out: &mut Vec<u8>) {
        todo!()
    }
    /// Whether `poll_output` would give something.
    pub(crate) fn has_output(&self, conn: ConnId) -> bool {
        todo!()
    }
    /// Opens a stream; `None` while the peer allows no more, and when the session drains. With it, the credit.
    pub(crate) fn open(&mut self, now: Instant, protocol: &str, priority: Priority) -> Option<(StreamId, u64)> {
        todo!()
    }
    /// Queues a message whose `message_cost` the caller has acquired as credit and whose length is at most `MAX_MESSAGE`.
    pub(crate) fn send(&mut self, stream: StreamId, message: Bytes) {
        todo!()
    }
    /// Ends this side's direction.
    pub(crate) fn finish(&mut self, stream: StreamId) {
        todo!()
    }
    /// Abandons a stream in both directions. No event follows for it.
    pub(crate) fn reset(&mut self, stream: StreamId, code: u32) {
        todo!()
    }
    /// Notes that the application took a message of `length` bytes, in the order in which they came.
    pub(crate) fn consumed(&mut self, now: Instant, stream: StreamId, length: usize) {
        todo!()
    }
    /// Notes that the application will consume nothing more of this stream: all that came and comes counts as consumed.
    pub(crate) fn release(&mut self, now: Instant, stream: StreamId) {
        todo!()
    }
    /// Opens no more streams, serves no more of the peer's. [`Event::Drained`] follows on the side whose turn it is to close.
    pub(crate) fn drain(&mut self, now: Instant) {
        todo!()
    }
    /// Says goodbye. With `CLOSE_SHUTDOWN` what is queued for the primary is sent first.
    pub(crate) fn close(&mut self, code: u32) {
        todo!()
    }
    pub(crate) fn stats(&self) -> SessionStats {
        todo!()
    }
    /// Once established.
    pub(crate) fn session_id(&self) -> Option<SessionId> {
        todo!()
    }
    pub(crate) fn peer(&self) -> Option<Peer> {
        todo!()
    }
    pub(crate) fn is_dialler(&self) -> bool {
        todo!()
    }
    /// The key that the acceptor showed in TLS. Once established.
    pub(crate) fn server_key(&self) -> Option<[u8; 32]> {
        todo!()
    }
    /// Whether anything was heard from the peer after HELLO or PROOF.
    pub(crate) fn confirmed(&self) -> bool {
        todo!()
    }
    /// What the dialler's PROOF named, on the acceptor's side.
    pub(crate) fn known(&self) -> Option<SessionId> {
        todo!()
    }
    /// How many lanes more than live now are worth having; the caller subtracts those that it is dialling.
    pub(crate) fn lanes_wanted(&self) -> usize {
        todo!()
    }
    /// Begins a lane on the dialler's side.
    pub(crate) fn lane_dialling(&mut self, now: Instant) -> Result<LaneDialling, SessionError> {
        todo!()
    }
    /// Takes a lane into use on the dialler's side.
    pub(crate) fn add_lane(&mut self, now: Instant, lane: Lane) -> Result<ConnId, SessionError> {
        todo!()
    }
    /// Takes a lane into use on the acceptor's side, or gives it back to be refused.
    pub(crate) fn join(&mut self, now: Instant, request: JoinRequest) -> Result<ConnId, Box<JoinRequest>> {
        todo!()
    }
}
