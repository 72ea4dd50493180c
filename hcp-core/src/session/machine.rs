//! One session as a state machine: bytes and time in, bytes and events out.
//!
//! The dialler checks whom it reached when HELLO has come, and only then sends anything but its ClientHello; the acceptor
//! takes nothing but PROOF until one has come and fits.

mod frames;
mod output;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io::Read;

use bytes::Bytes;
use tokio::time::Instant;

use super::connection::{Connection, Taken, Traffic};
use super::hello::{self, PeerLimits, Proved, Secrets};
use super::limits::{Churn, ROUND_TRIP_AGE};
#[cfg(test)]
use super::planted::{Defect, planted};
use super::streams::Streams;
use super::{
    CLOSE_SHUTDOWN, ConnId, HANDSHAKE_TIMEOUT, Keepalive, MAX_LANES, PRIMARY, Peer, Priority, SessionError, SessionId,
    SessionStats, StreamId, dialling, tls,
};
use crate::identity::delegation::{Delegation, SerialFloors};
use crate::identity::{Identity, OnionAddress};
use crate::wire::session_proto as proto;
use crate::wire::{Frame, FrameKind};

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
    /// Lanes that it wants while a bulk stream is open, at most [`MAX_LANES`].
    pub(crate) lanes: usize,
    /// The wall clock, in seconds since 1970: for the times of a delegation.
    pub(crate) unix_now: u64,
    /// What the node knows of withdrawn delegations.
    pub(crate) floors: SerialFloors,
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
    /// A message has gone out in fewer frames than were paid for: this many bytes more may be sent.
    Refunded { stream: StreamId, bytes: u64 },
    /// Messages that cost so much take no memory here any more: they have gone out, or of bulk are known to have arrived.
    Gone { stream: StreamId, bytes: u64 },
    /// The peer abandoned the stream; the last event of it. What of it was not consumed need not be.
    Reset { stream: StreamId, code: u32 },
    /// Both directions have ended; the last event of the stream. What was not consumed still wants
    /// [`Machine::consumed`] or [`Machine::release`].
    Closed { stream: StreamId },
    /// A lane is gone; its transport is of no more use.
    LaneEnded(ConnId),
    /// The peer opens no more streams; own streams that it never served get `Reset`.
    Draining,
    /// No stream is open any more and it is this side's turn to call [`Machine::close`].
    Drained,
}

#[derive(Debug)]
enum State {
    /// The dialler waits for HELLO. The ClientHello, until it is taken, is all that goes out.
    Dialling {
        dial: Box<Dial>,
        first: Vec<u8>,
        began: Instant,
    },
    Established,
    /// CLOSE goes when what waits before it has gone.
    Closing(u32),
    Closed,
}

/// What both sides know once a session is established.
#[derive(Debug)]
struct Established {
    peer: Peer,
    id: SessionId,
    server_key: [u8; 32],
    /// What the dialler verified, where the server key is not the dialled address.
    delegation: Option<Delegation>,
    limits: PeerLimits,
    /// What the dialler's PROOF named.
    known: Option<SessionId>,
}

/// A session without I/O.
#[derive(Debug)]
pub(crate) struct Machine {
    is_dialler: bool,
    state: State,
    established: Option<Established>,
    keepalive: Keepalive,
    primary: Connection,
    pub(super) lanes: BTreeMap<ConnId, Connection>,
    /// On the dialler's side how many it wants; and the last number given, or on the acceptor's all that were used.
    pub(super) lane_goal: usize,
    pub(super) last_lane: ConnId,
    pub(super) used_lanes: BTreeSet<ConnId>,
    streams: Streams,
    events: VecDeque<Event>,
    /// The number of the next stream that this side opens, until they are used up.
    next_stream: Option<StreamId>,
    highest_peer_stream: StreamId,
    /// The last stream that this side serves, once it drains; and that the peer serves.
    drain_sent: Option<StreamId>,
    drain_received: Option<StreamId>,
    drained: bool,
    churn: Churn,
    /// Of lanes that are gone.
    past: Traffic,
    /// What went wrong, and when, where the caller could not be told.
    deferred: Option<(Instant, SessionError)>,
}

impl Machine {
    /// The dialling side of a session with whoever speaks for `dial.target`. [`Event::Established`] comes when the
    /// acceptor has shown that it does.
    pub(crate) fn dial(dial: Dial, now: Instant) -> Result<Self, SessionError> {
        let config = tls::client_config().map_err(SessionError::Tls)?;
        let (connection, first) = dialling::dial(now, config)?;
        let (keepalive, lanes) = (dial.keepalive, dial.lanes.min(MAX_LANES));
        let mut machine = Self::new(now, connection, 1, keepalive);
        machine.lane_goal = lanes;
        machine.state = State::Dialling { dial: Box::new(dial), first, began: now };
        Ok(machine)
    }

    /// The accepting side, from a PROOF that fits.
    pub(super) fn accepted(
        now: Instant,
        connection: Connection,
        proved: Proved,
        server_key: [u8; 32],
        keepalive: Keepalive,
    ) -> Result<Self, SessionError> {
        let id = tls::session_id(connection.tls()).map_err(SessionError::Tls)?;
        let mut machine = Self::new(now, connection, 2, keepalive);
        let Proved { peer, known, limits } = proved;
        machine.establish(now, Established { peer, id, server_key, delegation: None, limits, known });
        Ok(machine)
    }

    /// Sets what a dialler's PROOF will name; of no effect once it is established.
    pub(crate) fn set_known(&mut self, known: Option<SessionId>) {
        if let State::Dialling { dial, .. } = &mut self.state {
            dial.known = known;
        }
    }

    /// Takes in what came right behind PROOF. What is wrong with it comes out of [`Self::handle_timeout`].
    pub(super) fn with_rest(mut self, now: Instant, input: &[u8], alive: bool) -> Self {
        let taken = self
            .handle_frames(now, PRIMARY)
            .and_then(|()| if alive { self.handle_input(now, PRIMARY, input) } else { Err(SessionError::Lost) });
        if let Err(error) = taken {
            self.defer(now, error);
        }
        self
    }

    fn new(now: Instant, primary: Connection, first_stream: StreamId, keepalive: Keepalive) -> Self {
        Self {
            is_dialler: first_stream % 2 == 1,
            state: State::Closed,
            established: None,
            keepalive,
            primary,
            lanes: BTreeMap::new(),
            lane_goal: 0,
            last_lane: PRIMARY,
            used_lanes: BTreeSet::new(),
            streams: Streams::default(),
            events: VecDeque::new(),
            next_stream: Some(first_stream),
            highest_peer_stream: 0,
            drain_sent: None,
            drain_received: None,
            drained: false,
            churn: Churn::new(now),
            past: Traffic::default(),
            deferred: None,
        }
    }

    fn establish(&mut self, now: Instant, established: Established) {
        self.events.push_back(Event::Established(established.peer));
        self.established = Some(established);
        self.state = State::Established;
        // A first measurement of the round trip, and a sign to the peer that it was heard.
        self.primary.ping(now);
    }

    /// Checks HELLO and answers with PROOF; an error leaves nothing to be sent.
    fn handle_hello(&mut self, now: Instant, frame: &Frame) -> Result<(), SessionError> {
        let State::Dialling { dial, .. } = std::mem::replace(&mut self.state, State::Closed) else {
            return Err(SessionError::OutOfPlace("HELLO"));
        };
        let greeted = hello::check_hello(self.primary.tls(), frame, &dial)?;
        let proof = hello::proof(self.primary.tls(), &dial.me, dial.known, &dial.target)?;
        let id = tls::session_id(self.primary.tls()).map_err(SessionError::Tls)?;
        self.primary.write_first(proof)?;
        let established = Established {
            peer: Peer::Address(dial.target),
            id,
            server_key: greeted.server_key,
            delegation: greeted.delegation,
            limits: greeted.limits,
            known: None,
        };
        self.establish(now, established);
        Ok(())
    }

    /// Takes bytes from the transport of `conn`. An error ends the session; what breaks a lane is an event instead. After
    /// an error only [`Self::close`] and [`Self::poll_output`] are of use. Events are to be polled after each call, of
    /// whatever method.
    pub(crate) fn handle_input(&mut self, now: Instant, conn: ConnId, mut input: &[u8]) -> Result<(), SessionError> {
        if let Some((_, error)) = self.deferred.take() {
            return Err(error);
        }
        while !input.is_empty() && !self.is_closed() && self.read(now, conn, &mut input)? {}
        self.see_to_drained();
        Ok(())
    }

    /// As [`Self::handle_input`], from a transport that gives bytes when it is asked: reads once, at most about what one record
    /// of TLS has. `false` when there was nothing yet, or the lane is gone. The end of the transport is that of `conn`.
    pub(crate) fn read_from(
        &mut self,
        now: Instant,
        conn: ConnId,
        transport: &mut dyn Read,
    ) -> Result<bool, SessionError> {
        if let Some((_, error)) = self.deferred.take() {
            return Err(error);
        }
        let read = !self.is_closed() && self.read(now, conn, transport)?;
        self.see_to_drained();
        Ok(read)
    }

    /// Reads once. `false` when there was nothing, also when a lane is or was gone, whose input is of no interest.
    fn read(&mut self, now: Instant, conn: ConnId, input: &mut dyn Read) -> Result<bool, SessionError> {
        let Some(connection) = self.connection(conn) else { return Ok(false) };
        let ended = match connection.read(now, input) {
            Ok(Taken::Nothing) => return Ok(false),
            Ok(taken) => {
                self.handle_frames(now, conn)?;
                (taken == Taken::End).then_some(SessionError::Lost)
            }
            Err(error) => Some(error),
        };
        match ended {
            Some(error) => self.end_connection(conn, error).map(|()| false),
            None => Ok(true),
        }
    }

    /// The transport of `conn` ended. For a lane: `Ok`, and what it had is sent again elsewhere.
    pub(crate) fn handle_lost(&mut self, _now: Instant, conn: ConnId) -> Result<(), SessionError> {
        #[cfg(test)]
        if planted(Defect::LossUntold) {
            return Ok(());
        }
        // What came before the end says why.
        if let Some((_, error)) = self.deferred.take() {
            return Err(error);
        }
        self.end_connection(conn, SessionError::Lost)
    }

    /// Lets time pass: pings what is silent, gives up what is dead.
    pub(crate) fn handle_timeout(&mut self, now: Instant) -> Result<(), SessionError> {
        if let Some((_, error)) = self.deferred.take() {
            return Err(error);
        }
        match &self.state {
            State::Dialling { began, .. } if now >= *began + HANDSHAKE_TIMEOUT => {
                self.state = State::Closed;
                Err(SessionError::HandshakeTimedOut)
            }
            State::Dialling { .. } | State::Closed => Ok(()),
            State::Established | State::Closing(_) => {
                self.primary.handle_timeout(now, &self.keepalive)?;
                let keepalive = &self.keepalive;
                let dead =
                    |(id, lane): (&ConnId, &mut Connection)| lane.handle_timeout(now, keepalive).err().map(|_| *id);
                let dead: Vec<ConnId> = self.lanes.iter_mut().filter_map(dead).collect();
                dead.into_iter().for_each(|lane| self.end_lane(lane));
                Ok(())
            }
        }
    }

    /// When [`Self::handle_timeout`] wants to be called next.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        if let Some((since, _)) = self.deferred {
            return Some(since);
        }
        match &self.state {
            State::Dialling { began, .. } => Some(*began + HANDSHAKE_TIMEOUT),
            State::Closed => None,
            State::Established | State::Closing(_) => {
                let connections = self.lanes.values().chain([&self.primary]);
                connections.map(|connection| connection.poll_timeout(&self.keepalive)).min()
            }
        }
    }

    /// The next event.
    pub(crate) fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// Opens a stream; with it, what may be sent at once. `None` while the peer allows no more, and when the session drains.
    pub(crate) fn open(&mut self, now: Instant, protocol: &str, priority: Priority) -> Option<(StreamId, u64)> {
        let limits = self.established.as_ref()?.limits;
        let draining = self.drain_sent.is_some() || self.drain_received.is_some();
        let full = self.streams.open(true) >= limits.max_streams as usize || !self.streams.has_room();
        if draining || full || !matches!(self.state, State::Established) {
            return None;
        }
        let id = self.next_stream?;
        self.next_stream = id.checked_add(2);
        self.streams.insert(now, id, true, priority, limits.window);
        self.primary.queue(Streams::open_frame(id, protocol, priority));
        if self.next_stream.is_none() {
            self.drain(now);
        }
        Some((id, limits.window))
    }

    /// Queues a message whose [`message_cost`](super::message_cost) the caller has acquired as credit and which is no longer
    /// than [`MAX_MESSAGE`](super::MAX_MESSAGE).
    pub(crate) fn send(&mut self, stream: StreamId, message: Bytes) {
        self.streams.queue(stream, message);
    }

    /// Ends this side's direction of a stream.
    pub(crate) fn finish(&mut self, stream: StreamId) {
        self.streams.finish(stream);
    }

    /// Abandons a stream in both directions. No event follows for it.
    pub(crate) fn reset(&mut self, stream: StreamId, code: u32) {
        if self.streams.remove(stream) {
            self.primary.queue(Frame::control(FrameKind::Reset, stream, &proto::Reset { code }));
            self.see_to_drained();
        }
    }

    /// Notes that the application took the next message of a stream; they are taken in the order in which they came.
    pub(crate) fn consumed(&mut self, now: Instant, stream: StreamId) {
        let round_trip = self.primary.round_trip().smoothed();
        if self.streams.consumed(now, stream, round_trip)
            && self.primary.last_ping().is_none_or(|last| now.saturating_duration_since(last) >= ROUND_TRIP_AGE)
        {
            self.primary.ping(now);
        }
    }

    /// Notes that the application will take nothing more of a stream: all that came and comes counts as taken.
    pub(crate) fn release(&mut self, now: Instant, stream: StreamId) {
        self.streams.release(now, stream);
    }

    /// Opens no more streams and serves no more of the peer's. [`Event::Drained`] follows on the side whose turn it is to
    /// close, once all streams are over; when the peer drains already, that is the peer.
    pub(crate) fn drain(&mut self, _now: Instant) {
        let draining = self.drain_sent.is_some() || self.drain_received.is_some();
        if matches!(self.state, State::Established) && !draining {
            let last = self.highest_peer_stream;
            self.drain_sent = Some(last);
            self.primary.queue(Frame::control(FrameKind::Drain, 0, &proto::Drain { last }));
            self.see_to_drained();
        }
    }

    /// Says goodbye. With [`CLOSE_SHUTDOWN`] what is queued is sent first, on the primary; what lanes have under way may be
    /// lost, which [`Self::drain`] waits for.
    pub(crate) fn close(&mut self, code: u32) {
        self.state = match self.state {
            State::Dialling { .. } | State::Closed => State::Closed,
            State::Established | State::Closing(_) => State::Closing(code),
        };
        self.lanes.values_mut().for_each(Connection::end_tls);
        if code != CLOSE_SHUTDOWN {
            self.streams.abandon();
        }
    }

    /// What the session has done and how it stands.
    pub(crate) fn stats(&self) -> SessionStats {
        let mut traffic = self.past;
        self.lanes.values().chain([&self.primary]).for_each(|connection| traffic.add(connection.traffic()));
        SessionStats {
            bytes_sent: traffic.bytes_sent,
            bytes_received: traffic.bytes_received,
            frames_sent: traffic.frames_sent,
            frames_received: traffic.frames_received,
            padding_sent: traffic.padding_sent,
            frames_resent: self.streams.resent(),
            round_trip: self.primary.round_trip().smoothed(),
            open_streams: self.streams.open(true) + self.streams.open(false),
            lanes: self.lanes.len(),
        }
    }

    /// Bytes that the peer makes this machine hold before they are messages: parts of frames and messages, and bulk behind a
    /// gap.
    pub(crate) fn held(&self) -> usize {
        let frames: usize = self.lanes.values().chain([&self.primary]).map(Connection::partial).sum();
        frames + self.streams.assembling()
    }

    /// Has all windows together grow by less than they might, so that a test gets there.
    #[cfg(feature = "testing")]
    pub(crate) fn limit_growth(&mut self, bytes: u64) {
        self.streams.limit_growth(bytes);
    }

    /// What all windows together may still grow by.
    #[cfg(feature = "testing")]
    pub(crate) fn growth_left(&self) -> u64 {
        self.streams.growth_left()
    }

    /// The PROOF of this connection once more, for who tries it on another.
    #[cfg(feature = "testing")]
    pub(crate) fn proof_again(&self, me: &Dialler, target: &OnionAddress) -> Result<Frame, SessionError> {
        hello::proof(self.primary.tls(), me, None, target)
    }

    /// What of that the windows of streams pay for.
    #[cfg(feature = "testing")]
    pub(crate) fn held_for_streams(&self) -> usize {
        self.streams.assembling()
    }

    /// The session's name, once established.
    pub(crate) fn session_id(&self) -> Option<SessionId> {
        self.established.as_ref().map(|established| established.id)
    }

    /// Who is at the other end, once established.
    #[cfg(any(test, feature = "testing"))]
    pub(crate) fn peer(&self) -> Option<Peer> {
        self.established.as_ref().map(|established| established.peer)
    }

    /// Whether this side dialled.
    pub(crate) fn is_dialler(&self) -> bool {
        self.is_dialler
    }

    /// The key that the acceptor showed in TLS, once established.
    pub(crate) fn server_key(&self) -> Option<[u8; 32]> {
        self.established.as_ref().map(|established| established.server_key)
    }

    /// What lets the acceptor speak for the service that this side dialled, where its key is not the service's own.
    pub(crate) fn delegation(&self) -> Option<&Delegation> {
        self.established.as_ref()?.delegation.as_ref()
    }

    /// What the dialler's PROOF named, on the acceptor's side.
    pub(crate) fn known(&self) -> Option<SessionId> {
        #[cfg(test)]
        if planted(Defect::KnownUnheard) {
            return None;
        }
        self.established.as_ref()?.known
    }

    /// What lanes need, once established. Most sessions have none.
    pub(super) fn secrets(&self) -> Option<Secrets> {
        Secrets::of(self.primary.tls(), self.session_id()?).ok()
    }

    pub(super) fn is_established(&self) -> bool {
        matches!(self.state, State::Established)
    }

    fn is_closed(&self) -> bool {
        matches!(self.state, State::Closed)
    }

    pub(super) fn streams(&self) -> &Streams {
        &self.streams
    }

    /// Takes CREDIT in that the peer's machine would not send.
    #[cfg(test)]
    pub(super) fn credit_for_tests(&mut self, stream: StreamId, bytes: u64) -> Result<(), SessionError> {
        self.streams.credit(stream, &proto::Credit { bytes, received: 0 }, &mut self.events)
    }

    fn connection(&mut self, conn: ConnId) -> Option<&mut Connection> {
        if conn == PRIMARY { Some(&mut self.primary) } else { self.lanes.get_mut(&conn) }
    }

    /// A connection ended: a lane alone, or with the primary the session.
    fn end_connection(&mut self, conn: ConnId, error: SessionError) -> Result<(), SessionError> {
        if conn == PRIMARY {
            return Err(error);
        }
        self.end_lane(conn);
        Ok(())
    }

    /// Forgets a lane; what it had is sent again.
    pub(super) fn end_lane(&mut self, lane: ConnId) {
        if let Some(connection) = self.lanes.remove(&lane) {
            self.past.add(connection.traffic());
            self.streams.lane_lost(lane);
            self.events.push_back(Event::LaneEnded(lane));
        }
    }

    /// Has the next call fail.
    pub(super) fn defer(&mut self, now: Instant, error: SessionError) {
        self.deferred.get_or_insert((now, error));
    }

    /// Tells once when the session has drained and this side is to close it: who sent DRAIN alone, or else the dialler.
    fn see_to_drained(&mut self) {
        let ours = self.drain_sent.is_some() && (self.drain_received.is_none() || self.is_dialler);
        let open = self.streams.any_open();
        #[cfg(test)]
        let open = open && !planted(Defect::DrainAtOnce);
        if ours && !self.drained && self.is_established() && !open {
            self.drained = true;
            self.events.push_back(Event::Drained);
        }
    }
}

/// The frame that ends a session or a lane.
pub(super) fn close_frame(code: u32) -> Frame {
    Frame::control(FrameKind::Close, 0, &proto::Close { code })
}
