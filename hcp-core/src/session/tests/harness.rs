//! Two sessions joined by buffers under a clock of the test's own, and a raw peer inside TLS that sends whatever it wants.

use std::collections::{BTreeMap, VecDeque};
use std::io::{Read, Write};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rand::RngExt;
use rand::rngs::StdRng;
use tokio::time::Instant;

use crate::identity::Identity;
use crate::identity::delegation::SerialFloors;
use crate::session::{
    Accepted, Accepting, Acceptor, ConnId, Credentials, Dial, Dialler, Event, Keepalive, LaneDialling, LaneError,
    Machine, PRIMARY, Priority, SessionError, StreamId, tls,
};
use crate::wire::session_proto as proto;
use crate::wire::{Decoder, Frame, FrameKind};

pub(super) fn acceptor(identity: &Identity) -> Arc<Acceptor> {
    Acceptor::new(&Credentials::Identity(identity.clone()), Keepalive::default()).unwrap()
}

pub(super) fn dial(target: &Identity, me: Dialler) -> Dial {
    Dial {
        target: target.address(),
        me,
        known: None,
        keepalive: Keepalive::default(),
        lanes: 4,
        unix_now: 0,
        floors: SerialFloors::new(),
    }
}

pub(super) fn events(machine: &mut Machine) -> Vec<Event> {
    std::iter::from_fn(|| machine.poll_event()).collect()
}

/// What the two sides of a pair have sent and the other has not yet read, by connection.
type Wires = BTreeMap<ConnId, VecDeque<u8>>;

/// A dialler and an acceptor, both established, and the time.
pub(super) struct Pair {
    pub(super) server: Identity,
    pub(super) acceptor: Arc<Acceptor>,
    pub(super) now: Instant,
    pub(super) a: Machine,
    pub(super) b: Machine,
    /// What is under way to `b`, and to `a`.
    pub(super) to_b: Wires,
    pub(super) to_a: Wires,
    pub(super) a_events: Vec<Event>,
    pub(super) b_events: Vec<Event>,
    /// How long every turn takes.
    pub(super) step: Duration,
}

impl Pair {
    pub(super) fn new() -> Self {
        Self::with(Dialler::Identity(Identity::generate()))
    }

    pub(super) fn with(me: Dialler) -> Self {
        let server = Identity::generate();
        let (acceptor, now) = (acceptor(&server), Instant::now());
        let mut a = Machine::dial(dial(&server, me), now).unwrap();
        let mut accepting = Accepting::new(&acceptor, now).unwrap();
        let b = loop {
            let (mut flight, mut answer) = (Vec::new(), Vec::new());
            a.poll_output(now, PRIMARY, &mut flight);
            if let Some(accepted) = accepting.handle_input(now, &flight).unwrap() {
                let Accepted::Session(b) = accepted else { panic!("a lane") };
                break *b;
            }
            accepting.poll_output(&mut answer);
            a.handle_input(now, PRIMARY, &answer).unwrap();
        };
        let (to_b, to_a) = (Wires::new(), Wires::new());
        let (a_events, b_events, step) = (Vec::new(), Vec::new(), Duration::from_millis(1));
        Self { server, acceptor, now, a, b, to_b, to_a, a_events, b_events, step }
    }

    /// Lets one side after the other send and read until both are quiet; the errors of both.
    pub(super) fn run(&mut self) -> [Result<(), SessionError>; 2] {
        for _ in 0..100_000 {
            let results = self.turn();
            if results.iter().any(Result::is_err) || self.is_quiet() {
                return results;
            }
        }
        panic!("the two never become quiet");
    }

    /// Like `run`, and both go on.
    pub(super) fn settle(&mut self) {
        let [a, b] = self.run();
        a.unwrap();
        b.unwrap();
    }

    /// All that one of them has to say goes to the other, once.
    pub(super) fn turn(&mut self) -> [Result<(), SessionError>; 2] {
        self.turn_with(&mut |length| length)
    }

    /// A turn in which of every wire only some arrives, and on some nothing is taken.
    pub(super) fn turn_some(&mut self, random: &mut StdRng) -> [Result<(), SessionError>; 2] {
        self.turn_with(&mut |length| if random.random_ratio(1, 3) { 0 } else { random.random_range(0..=length) })
    }

    /// A turn on the primary alone, where the lanes' other ends are not machines.
    pub(super) fn settle_primary(&mut self) {
        for (from_a, conn) in [(true, PRIMARY), (false, PRIMARY), (true, PRIMARY), (false, PRIMARY)] {
            let (from, to) = if from_a { (&mut self.a, &mut self.b) } else { (&mut self.b, &mut self.a) };
            let mut out = Vec::new();
            from.poll_output(self.now, conn, &mut out);
            to.handle_input(self.now, conn, &out).unwrap();
        }
    }

    fn turn_with(&mut self, some: &mut dyn FnMut(usize) -> usize) -> [Result<(), SessionError>; 2] {
        self.now += self.step;
        let Self { a, b, to_a, to_b, now, .. } = self;
        for (machine, wires) in [(&mut *a, &mut *to_b), (&mut *b, &mut *to_a)] {
            let ids: Vec<ConnId> = machine.lanes.keys().copied().chain([PRIMARY]).collect();
            for conn in ids {
                let mut out = Vec::new();
                machine.poll_output(*now, conn, &mut out);
                wires.entry(conn).or_default().extend(out);
            }
        }
        let mut deliver = |machine: &mut Machine, wires: &mut Wires| {
            wires.iter_mut().try_for_each(|(conn, wire)| {
                let bytes: Vec<u8> = wire.drain(..some(wire.len())).collect();
                if bytes.is_empty() { Ok(()) } else { machine.handle_input(*now, *conn, &bytes) }
            })
        };
        let results = [deliver(a, to_a), deliver(b, to_b)];
        self.a_events.extend(events(&mut self.a));
        self.b_events.extend(events(&mut self.b));
        results
    }

    fn is_quiet(&self) -> bool {
        let quiet = |machine: &Machine| {
            !machine.has_output(PRIMARY) && !machine.lanes.keys().any(|lane| machine.has_output(*lane))
        };
        quiet(&self.a) && quiet(&self.b) && self.to_a.values().chain(self.to_b.values()).all(VecDeque::is_empty)
    }

    /// Joins a lane: the dialler's own way, over the acceptor of the pair.
    pub(super) fn join(&mut self) -> ConnId {
        let (dialling, request) = self.half_join();
        let lane = dialling.unwrap();
        let number = self.a.add_lane(self.now, lane).unwrap();
        let mut flight = Vec::new();
        self.a.poll_output(self.now, number, &mut flight);
        let accepted = request.handle(self.now, &flight).unwrap();
        let Some(Accepted::Lane(request)) = accepted else { panic!("no lane") };
        assert_eq!(self.b.join(self.now, request).map_err(drop), Ok(number));
        number
    }

    /// A lane that the dialler has, and the acceptor's side that has not yet read JOIN.
    pub(super) fn half_join(&mut self) -> (Result<crate::session::Lane, LaneError>, HalfJoined) {
        let mut dialling = self.a.lane_dialling(self.now).unwrap();
        let mut accepting = Accepting::new(&self.acceptor, self.now).unwrap();
        let lane = greet(&mut dialling, &mut accepting, self.now);
        (lane, HalfJoined { accepting })
    }

    /// Opens a stream from the dialler and lets the acceptor hear of it.
    pub(super) fn open(&mut self, priority: Priority) -> StreamId {
        let (id, _) = self.a.open(self.now, "test/1", priority).unwrap();
        self.settle();
        id
    }

    /// Takes whatever messages have come to `b`, giving credit, and returns them.
    pub(super) fn take_at_b(&mut self) -> Vec<(StreamId, Bytes)> {
        take(&mut self.b, &mut self.b_events, self.now)
    }

    pub(super) fn take_at_a(&mut self) -> Vec<(StreamId, Bytes)> {
        take(&mut self.a, &mut self.a_events, self.now)
    }
}

fn take(machine: &mut Machine, events: &mut Vec<Event>, now: Instant) -> Vec<(StreamId, Bytes)> {
    let mut taken = Vec::new();
    events.retain(|event| match event {
        Event::Message { stream, message } => {
            taken.push((*stream, message.clone()));
            false
        }
        _ => true,
    });
    taken.iter().for_each(|(stream, _)| machine.consumed(now, *stream));
    taken
}

/// The acceptor's side of a connection whose dialler has heard HELLO.
pub(super) struct HalfJoined {
    pub(super) accepting: Accepting,
}

impl HalfJoined {
    pub(super) fn handle(mut self, now: Instant, input: &[u8]) -> Result<Option<Accepted>, SessionError> {
        self.accepting.handle_input(now, input)
    }
}

/// Brings a lane up to where JOIN is written.
pub(super) fn greet(
    dialling: &mut LaneDialling,
    accepting: &mut Accepting,
    now: Instant,
) -> Result<crate::session::Lane, LaneError> {
    let (mut hello, mut answer) = (Vec::new(), Vec::new());
    dialling.poll_output(&mut hello);
    assert!(accepting.handle_input(now, &hello).unwrap().is_none());
    accepting.poll_output(&mut answer);
    dialling.handle_input(now, &answer).map(|lane| lane.expect("HELLO came with the first flight"))
}

/// A peer inside TLS that sends whatever a test wants.
pub(super) struct Raw {
    pub(super) tls: rustls::Connection,
    decoder: Decoder,
    /// Plaintext bytes that came.
    pub(super) received: usize,
}

impl Raw {
    pub(super) fn client() -> Self {
        Self::with(tls::client(tls::client_config().unwrap()).unwrap().into())
    }

    pub(super) fn with(mut tls: rustls::Connection) -> Self {
        tls.set_buffer_limit(None);
        Self { tls, decoder: Decoder::default(), received: 0 }
    }

    /// What waits for the transport.
    pub(super) fn output(&mut self) -> Vec<u8> {
        let mut out = Vec::new();
        while self.tls.wants_write() {
            self.tls.write_tls(&mut out).unwrap();
        }
        out
    }

    /// Takes bytes in; the frames that came.
    pub(super) fn input(&mut self, mut input: &[u8]) -> Result<Vec<Frame>, SessionError> {
        let mut frames = Vec::new();
        while !input.is_empty() && self.tls.read_tls(&mut input).unwrap() > 0 {
            self.tls.process_new_packets().map_err(SessionError::Tls)?;
            let mut plain = Vec::new();
            let _ = self.tls.reader().read_to_end(&mut plain);
            self.received += plain.len();
            let mut plain = &plain[..];
            while let Some(frame) = self.decoder.next(&mut plain).unwrap() {
                frames.push(frame.into_frame());
            }
        }
        Ok(frames)
    }

    /// Carries bytes to and from an acceptor until both are quiet.
    pub(super) fn knock(&mut self, accepting: &mut Accepting, now: Instant) -> Result<Option<Accepted>, SessionError> {
        loop {
            let out = self.output();
            let accepted = if out.is_empty() { None } else { accepting.handle_input(now, &out)? };
            let mut answer = Vec::new();
            accepting.poll_output(&mut answer);
            self.input(&answer)?;
            if accepted.is_some() || (answer.is_empty() && out.is_empty()) {
                return Ok(accepted);
            }
        }
    }

    /// Carries bytes to and from a machine until both are quiet; fails as the machine fails.
    pub(super) fn exchange(&mut self, machine: &mut Machine, now: Instant) -> Result<Vec<Frame>, SessionError> {
        let mut frames = Vec::new();
        loop {
            let (out, mut answer) = (self.output(), Vec::new());
            if !out.is_empty() {
                machine.handle_input(now, PRIMARY, &out)?;
            }
            machine.poll_output(now, PRIMARY, &mut answer);
            if out.is_empty() && answer.is_empty() {
                return Ok(frames);
            }
            frames.extend(self.input(&answer)?);
        }
    }

    pub(super) fn send(&mut self, frame: &Frame) {
        let mut bytes = Vec::new();
        frame.encode(&mut bytes);
        self.tls.writer().write_all(&bytes).unwrap();
    }

    pub(super) fn send_proof(&mut self, proof: &proto::Proof) {
        self.send(&Frame::control(FrameKind::Proof, 0, proof));
    }

    /// An anonymous dialler that has heard HELLO, and the acceptor that waits for its PROOF.
    pub(super) fn greeted(server: &Identity, now: Instant) -> (Self, Accepting) {
        let (mut raw, mut accepting) = (Self::client(), Accepting::new(&acceptor(server), now).unwrap());
        raw.knock(&mut accepting, now).unwrap();
        (raw, accepting)
    }

    /// An anonymous dialler that has been taken in.
    pub(super) fn established(server: &Identity, now: Instant) -> (Self, Machine) {
        let (mut raw, mut accepting) = Self::greeted(server, now);
        raw.send_proof(&anonymous());
        let Some(Accepted::Session(mut machine)) = raw.knock(&mut accepting, now).unwrap() else { panic!() };
        raw.exchange(&mut machine, now).unwrap();
        events(&mut machine);
        (raw, *machine)
    }
}

/// The PROOF of who shows nothing.
pub(super) fn anonymous() -> proto::Proof {
    proto::Proof { window: crate::session::STREAM_WINDOW, max_streams: 32, ..Default::default() }
}

pub(super) fn open(stream: StreamId) -> Frame {
    crate::session::streams::Streams::open_frame(stream, "x", Priority::Live)
}

pub(super) fn open_bulk(stream: StreamId) -> Frame {
    crate::session::streams::Streams::open_frame(stream, "x", Priority::Bulk)
}

pub(super) fn data(stream: StreamId, flags: u8, length: usize) -> Frame {
    Frame::new(FrameKind::Data, flags, stream, vec![1; length].into())
}

pub(super) fn bulk(stream: StreamId, flags: u8, place: u64, length: usize) -> Frame {
    Frame { place, ..Frame::new(FrameKind::Bulk, flags, stream, vec![1; length].into()) }
}
