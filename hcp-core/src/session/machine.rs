//! One session as a state machine: bytes and time in, bytes and events out.
//!
//! The dialler checks the acceptor's key when its hello has come, and only then sends anything but its ClientHello; the
//! acceptor takes nothing but a proof until one has come and fits.

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use prost::Message;
use rustls::{ClientConfig, Connection, ServerConfig};
use tokio::time::Instant;

use super::streams::{Streams, cost};
use super::{
    HANDSHAKE_TIMEOUT, Keepalive, MAX_MESSAGE, MAX_PROTOCOL_NAME, MAX_STREAMS, Peer, STREAM_WINDOW, SessionError,
    StreamId, tls,
};
use crate::identity::{Identity, OnionAddress};
use crate::wire::session_proto as proto;
use crate::wire::{Decoder, Frame, FrameKind, HEADER_LEN, MAX_PAYLOAD};

/// What a dialler signs, followed by the TLS exporter, its own and the acceptor's public key.
const PROOF_CONTEXT: &[u8] = b"HCP/1 dialler\0";
/// The most control frames that may wait to be sent: answers to a peer that sends faster than it reads.
const MAX_CONTROL_QUEUE: usize = 1024;
/// TLS output is produced while less than this waits for the transport.
const OUTPUT_HIGH_WATER: usize = 4 * (MAX_PAYLOAD + HEADER_LEN);

/// How a dialler presents itself.
#[derive(Clone, Debug)]
pub(crate) enum Dialler {
    /// Signs that it holds this key.
    Identity(Identity),
    /// Shows nothing.
    Anonymous,
}

/// What happened in a session.
#[derive(Debug)]
pub(crate) enum Event {
    /// Both ends are satisfied.
    Established(Peer),
    /// The peer opened a stream.
    Opened { stream: StreamId, protocol: String, credit: u64 },
    /// A whole message.
    Message { stream: StreamId, message: Bytes },
    /// The peer sends no more on this stream.
    Finished(StreamId),
    /// The peer gave credit: this many bytes more may be sent.
    Credit { stream: StreamId, bytes: u64 },
    /// The peer abandoned the stream.
    Reset { stream: StreamId, code: u32 },
}

#[derive(Debug)]
enum Role {
    Dialler { target: OnionAddress, me: Dialler },
    Acceptor { me: OnionAddress },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Handshake,
    Established,
    Closed,
}

/// A session without I/O.
#[derive(Debug)]
pub(crate) struct Machine {
    tls: Connection,
    role: Role,
    state: State,
    decoder: Decoder,
    streams: Streams,
    control: VecDeque<Frame>,
    events: VecDeque<Event>,
    /// What each stream may send before the peer gives more.
    peer_window: u64,
    peer_max_streams: u32,
    next_stream: StreamId,
    highest_peer_stream: StreamId,
    keepalive: Keepalive,
    began: Instant,
    last_heard: Instant,
    pinged: Option<Instant>,
    round_trip: Option<Duration>,
}

impl Machine {
    /// The dialling side of a session with whoever holds the key of `target`.
    pub(crate) fn dial(
        target: OnionAddress,
        me: Dialler,
        keepalive: Keepalive,
        now: Instant,
    ) -> Result<Self, SessionError> {
        let tls = tls::client_config()
            .and_then(|config: Arc<ClientConfig>| tls::client(config))
            .map_err(SessionError::Tls)?;
        Ok(Self::new(tls.into(), Role::Dialler { target, me }, 1, keepalive, now))
    }

    /// The accepting side.
    pub(crate) fn accept(
        config: Arc<ServerConfig>,
        me: OnionAddress,
        keepalive: Keepalive,
        now: Instant,
    ) -> Result<Self, SessionError> {
        let tls = tls::server(config).map_err(SessionError::Tls)?;
        let mut machine = Self::new(tls.into(), Role::Acceptor { me }, 2, keepalive, now);
        let hello = proto::Hello { window: STREAM_WINDOW, max_streams: MAX_STREAMS };
        machine.control.push_back(Frame::control(FrameKind::Hello, 0, &hello));
        machine.fill_tls();
        Ok(machine)
    }

    /// The configuration that [`Self::accept`] takes, for a node that shows `identity`.
    pub(crate) fn server_config(identity: &Identity) -> Result<Arc<ServerConfig>, SessionError> {
        tls::server_config(identity).map_err(SessionError::Tls)
    }

    fn new(mut tls: Connection, role: Role, first_stream: StreamId, keepalive: Keepalive, now: Instant) -> Self {
        // The machine bounds what it hands to TLS itself, one frame at a time.
        tls.set_buffer_limit(None);
        Self {
            tls,
            role,
            state: State::Handshake,
            decoder: Decoder::default(),
            streams: Streams::default(),
            control: VecDeque::new(),
            events: VecDeque::new(),
            peer_window: 0,
            peer_max_streams: 0,
            next_stream: first_stream,
            highest_peer_stream: 0,
            keepalive,
            began: now,
            last_heard: now,
            pinged: None,
            round_trip: None,
        }
    }

    /// The last measured round trip of a ping.
    pub(crate) fn round_trip(&self) -> Option<Duration> {
        self.round_trip
    }

    /// Takes bytes from the transport. After an error only [`Self::poll_output`] is of use, for the alert.
    pub(crate) fn handle_input(&mut self, now: Instant, mut input: &[u8]) -> Result<(), SessionError> {
        self.last_heard = now;
        while !input.is_empty() {
            // After the peer's close_notify TLS takes nothing more.
            if self.tls.read_tls(&mut input).map_err(|_| SessionError::Limit("TLS buffer"))? == 0 {
                return Err(SessionError::Lost);
            }
            let state = self.tls.process_new_packets().map_err(SessionError::Tls)?;
            self.read_plaintext(now, state.plaintext_bytes_to_read())?;
            if state.peer_has_closed() {
                return Err(SessionError::Lost);
            }
        }
        Ok(())
    }

    fn read_plaintext(&mut self, now: Instant, mut left: usize) -> Result<(), SessionError> {
        let mut chunk = [0; 16 * 1024];
        while left > 0 {
            let n = match self.tls.reader().read(&mut chunk) {
                Ok(0) | Err(_) => return Ok(()),
                Ok(n) => n,
            };
            left = left.saturating_sub(n);
            self.decoder.extend(&chunk[..n]);
            while let Some(frame) = self.decoder.next()? {
                self.handle_frame(now, frame)?;
            }
        }
        Ok(())
    }

    fn handle_frame(&mut self, now: Instant, frame: Frame) -> Result<(), SessionError> {
        match (self.state, frame.kind) {
            (State::Closed, _) => Ok(()),
            (State::Handshake, FrameKind::Hello) => self.handle_hello(&frame.payload),
            (State::Handshake, FrameKind::Proof) => self.handle_proof(&frame.payload),
            (State::Handshake, FrameKind::Close) => self.handle_close(&frame.payload),
            (State::Handshake, _) => Err(SessionError::OutOfPlace("a frame before the handshake's end")),
            (State::Established, _) => self.handle_established(now, frame),
        }
    }

    fn handle_hello(&mut self, payload: &[u8]) -> Result<(), SessionError> {
        let Role::Dialler { target, me } = &self.role else {
            return Err(SessionError::OutOfPlace("a dialler's hello"));
        };
        if !tls::speaks_hcp(&self.tls) {
            return Err(SessionError::NotHcp);
        }
        if !tls::shows_key_of(&self.tls, target) {
            return Err(SessionError::WrongKey);
        }
        let hello = proto::Hello::decode(payload).map_err(|_| SessionError::Malformed("hello"))?;
        let mut proof = proto::Proof { window: STREAM_WINDOW, max_streams: MAX_STREAMS, ..Default::default() };
        if let Dialler::Identity(identity) = me {
            let exporter = tls::exporter(&self.tls).map_err(SessionError::Tls)?;
            let signed = proof_message(&exporter, &identity.address(), target);
            proof.address = Bytes::copy_from_slice(identity.address().public_key());
            proof.signature = Bytes::copy_from_slice(&identity.sign(&signed));
        }
        let peer = Peer::Address(*target);
        self.control.push_back(Frame::control(FrameKind::Proof, 0, &proof));
        self.establish(peer, hello.window, hello.max_streams)
    }

    fn handle_proof(&mut self, payload: &[u8]) -> Result<(), SessionError> {
        let Role::Acceptor { me } = &self.role else {
            return Err(SessionError::OutOfPlace("an acceptor's proof"));
        };
        if !tls::speaks_hcp(&self.tls) {
            return Err(SessionError::NotHcp);
        }
        let proof = proto::Proof::decode(payload).map_err(|_| SessionError::Malformed("proof"))?;
        let peer = if proof.address.is_empty() && proof.signature.is_empty() {
            Peer::Anonymous
        } else {
            let key: [u8; 32] = proof.address[..].try_into().map_err(|_| SessionError::Malformed("proof"))?;
            let signature: [u8; 64] = proof.signature[..].try_into().map_err(|_| SessionError::Malformed("proof"))?;
            let address = OnionAddress::from_public_key(key).map_err(|_| SessionError::BadProof)?;
            let exporter = tls::exporter(&self.tls).map_err(SessionError::Tls)?;
            address.verify(&proof_message(&exporter, &address, me), &signature).map_err(|_| SessionError::BadProof)?;
            Peer::Address(address)
        };
        self.establish(peer, proof.window, proof.max_streams)
    }

    fn establish(&mut self, peer: Peer, window: u64, max_streams: u32) -> Result<(), SessionError> {
        if window < cost(MAX_MESSAGE) {
            return Err(SessionError::Malformed("window"));
        }
        // What a peer would take beyond our own window, we do not queue for it.
        self.peer_window = window.min(STREAM_WINDOW);
        self.peer_max_streams = max_streams;
        self.state = State::Established;
        self.events.push_back(Event::Established(peer));
        Ok(())
    }

    fn handle_established(&mut self, now: Instant, frame: Frame) -> Result<(), SessionError> {
        let stream = frame.stream;
        if self.control.len() >= MAX_CONTROL_QUEUE {
            return Err(SessionError::Limit("answers that it does not read"));
        }
        match frame.kind {
            FrameKind::Hello | FrameKind::Proof => return Err(SessionError::OutOfPlace("a second handshake")),
            FrameKind::Open => self.handle_open(stream, &frame.payload)?,
            FrameKind::Data => {
                self.check_known(stream)?;
                // A stream that this side has reset may still have data under way.
                if let Some(state) = self.streams.get(stream) {
                    let received = state.receive(frame)?;
                    if let Some(message) = received.message {
                        self.events.push_back(Event::Message { stream, message });
                    }
                    if received.finished {
                        self.events.push_back(Event::Finished(stream));
                        self.streams.reap(stream);
                    }
                }
            }
            FrameKind::Credit => {
                self.check_known(stream)?;
                let bytes = proto::Credit::decode(frame.payload).map_err(|_| SessionError::Malformed("credit"))?.bytes;
                let limit = self.peer_window;
                if let Some(state) = self.streams.get(stream) {
                    let credit = state.send_credit.checked_add(bytes).filter(|sum| *sum <= limit);
                    state.send_credit = credit.ok_or(SessionError::Limit("credit"))?;
                    self.events.push_back(Event::Credit { stream, bytes });
                }
            }
            FrameKind::Reset => {
                self.check_known(stream)?;
                let code = proto::Reset::decode(frame.payload).map_err(|_| SessionError::Malformed("reset"))?.code;
                if self.streams.remove(stream) {
                    self.events.push_back(Event::Reset { stream, code });
                }
            }
            FrameKind::Ping => {
                self.control.push_back(Frame { kind: FrameKind::Pong, ..frame });
            }
            FrameKind::Pong => {
                if let Some(sent) = self.pinged.take() {
                    self.round_trip = Some(now - sent);
                }
            }
            FrameKind::Close => self.handle_close(&frame.payload)?,
        }
        Ok(())
    }

    fn handle_close(&mut self, payload: &[u8]) -> Result<(), SessionError> {
        let code = proto::Close::decode(payload).map_err(|_| SessionError::Malformed("close"))?.code;
        self.state = State::Closed;
        Err(SessionError::ClosedByPeer(code))
    }

    fn handle_open(&mut self, stream: StreamId, payload: &[u8]) -> Result<(), SessionError> {
        let parity = 1 - self.next_stream % 2;
        if stream % 2 != parity || stream <= self.highest_peer_stream {
            return Err(SessionError::OutOfPlace("a stream number"));
        }
        if self.streams.count(parity) >= MAX_STREAMS as usize {
            return Err(SessionError::Limit("open streams"));
        }
        let protocol = proto::Open::decode(payload).map_err(|_| SessionError::Malformed("open"))?.protocol;
        if protocol.is_empty() || protocol.len() > MAX_PROTOCOL_NAME {
            return Err(SessionError::Malformed("protocol name"));
        }
        self.highest_peer_stream = stream;
        self.streams.insert(stream, self.peer_window);
        self.events.push_back(Event::Opened { stream, protocol, credit: self.peer_window });
        Ok(())
    }

    /// Fails for a stream that neither side ever opened.
    fn check_known(&self, stream: StreamId) -> Result<(), SessionError> {
        let ours = stream % 2 == self.next_stream % 2;
        let known = if ours { stream < self.next_stream } else { stream <= self.highest_peer_stream };
        if known && stream != 0 {
            Ok(())
        } else {
            Err(SessionError::OutOfPlace("a frame for a stream that was never opened"))
        }
    }

    /// Lets time pass: pings a silent peer, gives up a dead one.
    pub(crate) fn handle_timeout(&mut self, now: Instant) -> Result<(), SessionError> {
        match self.state {
            State::Closed => Ok(()),
            State::Handshake if now >= self.began + HANDSHAKE_TIMEOUT => Err(SessionError::HandshakeTimedOut),
            State::Handshake => Ok(()),
            State::Established if now >= self.last_heard + self.keepalive.timeout => Err(SessionError::Silent),
            State::Established => {
                if self.pinged.is_none() && now >= self.last_heard + self.keepalive.interval {
                    self.pinged = Some(now);
                    self.control.push_back(Frame { kind: FrameKind::Ping, flags: 0, stream: 0, payload: Bytes::new() });
                }
                Ok(())
            }
        }
    }

    /// When [`Self::handle_timeout`] wants to be called next.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        match self.state {
            State::Closed => None,
            State::Handshake => Some(self.began + HANDSHAKE_TIMEOUT),
            State::Established if self.pinged.is_some() => Some(self.last_heard + self.keepalive.timeout),
            State::Established => Some(self.last_heard + self.keepalive.interval.min(self.keepalive.timeout)),
        }
    }

    /// The next event.
    pub(crate) fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// Appends bytes for the transport to `out`, as long as it holds less than a few frames.
    pub(crate) fn poll_output(&mut self, out: &mut Vec<u8>) {
        loop {
            while self.tls.wants_write() {
                // Writing to a Vec cannot fail.
                if self.tls.write_tls(out).is_err() {
                    return;
                }
            }
            if out.len() >= OUTPUT_HIGH_WATER || !self.fill_tls() {
                return;
            }
        }
    }

    /// Hands the next frame to TLS; `false` when there is none.
    fn fill_tls(&mut self) -> bool {
        // During the handshake the dialler has nothing to say, and the acceptor only its hello.
        let frame = match self.control.pop_front() {
            Some(frame) => frame,
            None => match self.streams.next_frame() {
                Some(frame) => frame,
                None => return false,
            },
        };
        let mut writer = self.tls.writer();
        writer.write_all(&frame.header()).and_then(|()| writer.write_all(&frame.payload)).is_ok()
    }

    /// Opens a stream for `protocol`; `None` while the peer allows no more.
    pub(crate) fn open(&mut self, protocol: &str) -> Option<(StreamId, u64)> {
        let id = self.next_stream;
        if self.streams.count(id % 2) >= self.peer_max_streams as usize || self.state != State::Established {
            return None;
        }
        self.next_stream = id.checked_add(2)?;
        self.streams.insert(id, self.peer_window);
        self.control.push_back(Frame::control(FrameKind::Open, id, &proto::Open { protocol: protocol.to_owned() }));
        Some((id, self.peer_window))
    }

    /// Queues a message whose cost the caller has acquired as credit.
    pub(crate) fn send(&mut self, stream: StreamId, message: Bytes) {
        if let Some(state) = self.streams.get(stream) {
            state.queue(stream, message);
        }
    }

    /// Ends this side's direction of a stream.
    pub(crate) fn finish(&mut self, stream: StreamId) {
        if let Some(state) = self.streams.get(stream) {
            state.finish(stream);
        }
    }

    /// Abandons a stream in both directions.
    pub(crate) fn reset(&mut self, stream: StreamId, code: u32) {
        if self.streams.remove(stream) {
            self.control.push_back(Frame::control(FrameKind::Reset, stream, &proto::Reset { code }));
        }
    }

    /// Notes that the application took a message of `length` bytes.
    pub(crate) fn consumed(&mut self, stream: StreamId, length: usize) {
        if let Some(bytes) = self.streams.get(stream).and_then(|state| state.consume(length)) {
            self.control.push_back(Frame::control(FrameKind::Credit, stream, &proto::Credit { bytes }));
        }
    }

    /// Says goodbye; what is queued is still sent.
    pub(crate) fn close(&mut self, code: u32) {
        if self.state != State::Closed {
            while let Some(frame) = self.streams.next_frame() {
                self.control.push_back(frame);
            }
            self.control.push_back(Frame::control(FrameKind::Close, 0, &proto::Close { code }));
            self.state = State::Closed;
        }
    }
}

fn proof_message(exporter: &[u8; 32], dialler: &OnionAddress, acceptor: &OnionAddress) -> Vec<u8> {
    [PROOF_CONTEXT, exporter, dialler.public_key(), acceptor.public_key()].concat()
}
