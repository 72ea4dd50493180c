//! What a session refuses, and that nothing a peer sends inside TLS breaks it.

use std::io::{Read, Write};

use bytes::Bytes;
use prost::Message;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::time::Instant;

use super::machine::{Dialler, Event, Machine};
use super::{Keepalive, MAX_MESSAGE, MAX_STREAMS, Peer, STREAM_WINDOW, SessionError, tls};
use crate::identity::Identity;
use crate::wire::session_proto as proto;
use crate::wire::{Decoder, FLAG_FIN, FLAG_MORE, Frame, FrameKind, MAX_PAYLOAD};

fn acceptor(identity: &Identity) -> Machine {
    let config = Machine::server_config(identity).unwrap();
    Machine::accept(config, identity.address(), Keepalive::default(), Instant::now()).unwrap()
}

fn dialler(target: &Identity, me: Dialler) -> Machine {
    Machine::dial(target.address(), me, Keepalive::default(), Instant::now()).unwrap()
}

/// Carries bytes between two machines until both are quiet; the first error of each.
fn exchange(a: &mut Machine, b: &mut Machine) -> [Result<(), SessionError>; 2] {
    let mut errors = [Ok(()), Ok(())];
    loop {
        let (mut from_a, mut from_b) = (Vec::new(), Vec::new());
        a.poll_output(&mut from_a);
        b.poll_output(&mut from_b);
        if from_a.is_empty() && from_b.is_empty() {
            return errors;
        }
        for (machine, bytes, error) in [(&mut *b, from_a, 1), (&mut *a, from_b, 0)] {
            if errors[error].is_ok() && !bytes.is_empty() {
                errors[error] = machine.handle_input(Instant::now(), &bytes);
            }
        }
    }
}

fn events(machine: &mut Machine) -> Vec<Event> {
    std::iter::from_fn(|| machine.poll_event()).collect()
}

/// A peer inside TLS that sends whatever a test wants.
struct Raw {
    tls: rustls::Connection,
    decoder: Decoder,
}

impl Raw {
    fn client() -> Self {
        Self { tls: tls::client(tls::client_config().unwrap()).unwrap().into(), decoder: Decoder::default() }
    }

    /// Carries bytes until both are quiet; fails as the machine fails.
    fn exchange(&mut self, machine: &mut Machine) -> Result<Vec<Frame>, SessionError> {
        let mut frames = Vec::new();
        loop {
            let (mut from_raw, mut from_machine) = (Vec::new(), Vec::new());
            while self.tls.wants_write() {
                self.tls.write_tls(&mut from_raw).unwrap();
            }
            if !from_raw.is_empty() {
                machine.handle_input(Instant::now(), &from_raw)?;
            }
            machine.poll_output(&mut from_machine);
            if from_raw.is_empty() && from_machine.is_empty() {
                return Ok(frames);
            }
            let mut input = &from_machine[..];
            while !input.is_empty() {
                self.tls.read_tls(&mut input).unwrap();
                self.tls.process_new_packets().map_err(SessionError::Tls)?;
                let mut plain = Vec::new();
                let _ = self.tls.reader().read_to_end(&mut plain);
                self.decoder.extend(&plain);
            }
            while let Some(frame) = self.decoder.next().unwrap() {
                frames.push(frame);
            }
        }
    }

    fn send(&mut self, frame: &Frame) {
        let mut writer = self.tls.writer();
        writer.write_all(&frame.header()).and_then(|()| writer.write_all(&frame.payload)).unwrap();
    }

    fn prove(&mut self, as_whom: &Identity, signed_by: &Identity, to: &Identity) {
        let exporter = tls::exporter(&self.tls).unwrap();
        let signed =
            [b"HCP/1 dialler\0", &exporter[..], as_whom.address().public_key(), to.address().public_key()].concat();
        self.send_proof(as_whom.address().public_key(), &signed_by.sign(&signed));
    }

    fn send_proof(&mut self, address: &[u8], signature: &[u8]) {
        let proof = proto::Proof {
            window: STREAM_WINDOW,
            max_streams: MAX_STREAMS,
            address: Bytes::copy_from_slice(address),
            signature: Bytes::copy_from_slice(signature),
        };
        self.send(&Frame::control(FrameKind::Proof, 0, &proof));
    }

    /// An anonymous dialler that the machine has taken in.
    fn established(server: &Identity) -> (Self, Machine) {
        let (mut raw, mut machine) = (Self::client(), acceptor(server));
        raw.exchange(&mut machine).unwrap();
        raw.send_proof(&[], &[]);
        raw.exchange(&mut machine).unwrap();
        assert!(matches!(events(&mut machine)[..], [Event::Established(Peer::Anonymous)]));
        (raw, machine)
    }
}

fn open(stream: u32) -> Frame {
    Frame::control(FrameKind::Open, stream, &proto::Open { protocol: "x".to_owned() })
}

fn data(stream: u32, flags: u8, length: usize) -> Frame {
    Frame { kind: FrameKind::Data, flags, stream, payload: vec![0; length].into() }
}

#[test]
fn both_sides_know_each_other() {
    let (server, me) = (Identity::generate(), Identity::generate());
    let (mut a, mut b) = (dialler(&server, Dialler::Identity(me.clone())), acceptor(&server));
    assert!(exchange(&mut a, &mut b).iter().all(Result::is_ok));
    assert!(matches!(events(&mut a)[..], [Event::Established(Peer::Address(peer))] if peer == server.address()));
    assert!(matches!(events(&mut b)[..], [Event::Established(Peer::Address(peer))] if peer == me.address()));
}

#[test]
fn a_session_needs_one_round_trip() {
    let (server, me) = (Identity::generate(), Identity::generate());
    let (mut a, mut b) = (dialler(&server, Dialler::Identity(me)), acceptor(&server));
    let mut flight = Vec::new();
    a.poll_output(&mut flight);
    b.handle_input(Instant::now(), &flight).unwrap();
    flight.clear();
    b.poll_output(&mut flight);
    a.handle_input(Instant::now(), &flight).unwrap();
    assert!(matches!(events(&mut a)[..], [Event::Established(_)]), "the hello came with the server's first flight");
    assert!(a.open("x").is_some());
    flight.clear();
    a.poll_output(&mut flight);
    b.handle_input(Instant::now(), &flight).unwrap();
    assert!(matches!(events(&mut b)[..], [Event::Established(_), Event::Opened { .. }]));
}

#[test]
fn a_dialler_shows_nothing_to_a_server_with_another_key() {
    let (wanted, other, me) = (Identity::generate(), Identity::generate(), Identity::generate());
    let (mut a, mut b) = (dialler(&wanted, Dialler::Identity(me)), acceptor(&other));
    let [dialling, accepting] = exchange(&mut a, &mut b);
    assert!(matches!(dialling, Err(SessionError::WrongKey)));
    assert!(accepting.is_ok() && events(&mut b).is_empty(), "no proof came");
}

#[test]
fn a_proof_signed_by_another_key_is_refused() {
    let (server, victim, attacker) = (Identity::generate(), Identity::generate(), Identity::generate());
    let (mut raw, mut machine) = (Raw::client(), acceptor(&server));
    raw.exchange(&mut machine).unwrap();
    raw.prove(&victim, &attacker, &server);
    assert!(matches!(raw.exchange(&mut machine), Err(SessionError::BadProof)));
    assert!(events(&mut machine).is_empty());
}

#[test]
fn a_proof_cannot_be_passed_on() {
    // A server that the victim dialled replays the victim's proof to the real target.
    let (target, middle, victim) = (Identity::generate(), Identity::generate(), Identity::generate());
    let (mut a, mut b) = (dialler(&middle, Dialler::Identity(victim.clone())), acceptor(&middle));
    assert!(exchange(&mut a, &mut b).iter().all(Result::is_ok));
    let (mut raw, mut machine) = (Raw::client(), acceptor(&target));
    raw.exchange(&mut machine).unwrap();
    // What the middle may at best have: a signature over its own session and its own address.
    let signed =
        [b"HCP/1 dialler\0", &[0; 32][..], victim.address().public_key(), middle.address().public_key()].concat();
    raw.send_proof(victim.address().public_key(), &victim.sign(&signed));
    assert!(matches!(raw.exchange(&mut machine), Err(SessionError::BadProof)));
    // Even with this connection's exporter, a proof towards another address does not count.
    let (mut raw, mut machine) = (Raw::client(), acceptor(&target));
    raw.exchange(&mut machine).unwrap();
    raw.prove(&victim, &victim, &middle);
    assert!(matches!(raw.exchange(&mut machine), Err(SessionError::BadProof)));
}

#[test]
fn nothing_but_a_proof_is_taken_before_a_proof() {
    for frame in [open(1), data(1, 0, 10), Frame::control(FrameKind::Hello, 0, &proto::Hello::default())] {
        let server = Identity::generate();
        let (mut raw, mut machine) = (Raw::client(), acceptor(&server));
        raw.exchange(&mut machine).unwrap();
        raw.send(&frame);
        assert!(matches!(raw.exchange(&mut machine), Err(SessionError::OutOfPlace(_))), "{frame:?}");
    }
}

#[test]
fn a_dialler_without_alpn_is_refused() {
    let server = Identity::generate();
    let mut config = tls::client_config().unwrap();
    std::sync::Arc::make_mut(&mut config).alpn_protocols.clear();
    let mut raw = Raw { tls: tls::client(config).unwrap().into(), decoder: Decoder::default() };
    let mut machine = acceptor(&server);
    let refused = raw.exchange(&mut machine).and_then(|_| {
        raw.send_proof(&[], &[]);
        raw.exchange(&mut machine)
    });
    assert!(matches!(refused, Err(SessionError::NotHcp | SessionError::Tls(_))), "{refused:?}");
}

#[test]
fn limits_hold_against_a_peer_that_ignores_them() {
    let server = Identity::generate();
    let last = 2 * MAX_STREAMS + 1;
    let floods: [(&str, Vec<Frame>); 6] = [
        ("too many streams", (0..=MAX_STREAMS).map(|i| open(2 * i + 1)).collect()),
        ("a stream number of the other side", vec![open(2)]),
        ("a stream number twice", vec![open(1), open(1)]),
        ("a stream that was never opened", vec![data(last, 0, 1)]),
        ("more than the window", [vec![open(1)], vec![data(1, 0, MAX_PAYLOAD); 17]].concat()),
        (
            "a message too long",
            [vec![open(1)], vec![data(1, FLAG_MORE, MAX_PAYLOAD); MAX_MESSAGE / MAX_PAYLOAD + 1]].concat(),
        ),
    ];
    for (what, frames) in floods {
        let (mut raw, mut machine) = Raw::established(&server);
        raw.tls.set_buffer_limit(None);
        frames.iter().for_each(|frame| raw.send(frame));
        let refused = raw.exchange(&mut machine);
        assert!(matches!(refused, Err(SessionError::Limit(_) | SessionError::OutOfPlace(_))), "{what}: {refused:?}");
    }
    let (mut raw, mut machine) = Raw::established(&server);
    raw.tls.set_buffer_limit(None);
    // The machine's answers are never taken from it.
    let ping = Frame { kind: FrameKind::Ping, flags: 0, stream: 0, payload: Bytes::new() };
    (0..2_000).for_each(|_| raw.send(&ping));
    let mut flood = Vec::new();
    while raw.tls.wants_write() {
        raw.tls.write_tls(&mut flood).unwrap();
    }
    assert!(matches!(machine.handle_input(Instant::now(), &flood), Err(SessionError::Limit(_))));
}

#[test]
fn bytes_after_the_end_of_tls_end_the_session() {
    let server = Identity::generate();
    let (mut raw, mut machine) = Raw::established(&server);
    raw.tls.send_close_notify();
    let mut last = Vec::new();
    raw.tls.write_tls(&mut last).unwrap();
    assert!(matches!(machine.handle_input(Instant::now(), &last), Err(SessionError::Lost)));
    assert!(matches!(machine.handle_input(Instant::now(), &[0]), Err(SessionError::Lost)));
}

#[test]
fn answers_that_the_peer_does_not_read_are_bounded() {
    let server = Identity::generate();
    let (mut raw, mut machine) = Raw::established(&server);
    raw.tls.set_buffer_limit(None);
    let refused = (0..2_000).find_map(|i| {
        raw.send(&open(2 * i + 1));
        let mut bytes = Vec::new();
        while raw.tls.wants_write() {
            raw.tls.write_tls(&mut bytes).unwrap();
        }
        let taken = machine.handle_input(Instant::now(), &bytes);
        events(&mut machine);
        machine.reset(2 * i + 1, 1);
        taken.err()
    });
    assert!(matches!(refused, Some(SessionError::Limit(_))), "{refused:?}");
}

#[test]
fn frames_made_at_random_never_break_a_session() {
    let seed: u64 = rand::random();
    let mut random = StdRng::seed_from_u64(seed);
    let server = Identity::generate();
    let kinds = [
        FrameKind::Hello,
        FrameKind::Proof,
        FrameKind::Open,
        FrameKind::Data,
        FrameKind::Credit,
        FrameKind::Reset,
        FrameKind::Ping,
        FrameKind::Pong,
        FrameKind::Close,
    ];
    let (mut refused, mut taken) = (0, 0);
    for _ in 0..200 {
        let (mut raw, mut machine) = Raw::established(&server);
        for _ in 0..50 {
            let kind = kinds[random.random_range(0..kinds.len())];
            let stream = random.random_range(0..6);
            let flags = if kind == FrameKind::Data { random.random_range(0..4) } else { 0 };
            let payload: Vec<u8> = match random.random_range(0..3) {
                0 => proto::Open { protocol: "x".to_owned() }.encode_to_vec(),
                1 => proto::Credit { bytes: random.random() }.encode_to_vec(),
                _ => (0..random.random_range(0..40)).map(|_| random.random()).collect(),
            };
            raw.send(&Frame { kind, flags, stream, payload: payload.into() });
            match raw.exchange(&mut machine) {
                Ok(_) => taken += 1,
                Err(_) => {
                    refused += 1;
                    break;
                }
            }
            for event in events(&mut machine) {
                if let Event::Opened { stream, .. } = event {
                    machine.send(stream, Bytes::from_static(b"answer"));
                    machine.finish(stream);
                }
            }
        }
    }
    assert!(refused > 0 && taken > 0, "seed {seed}: {refused} refused, {taken} taken");
}

#[test]
fn a_stream_ends_when_both_sides_have_ended_it() {
    let server = Identity::generate();
    let (mut raw, mut machine) = Raw::established(&server);
    raw.send(&open(1));
    raw.send(&data(1, 0, 3));
    raw.send(&data(1, FLAG_FIN, 0));
    raw.exchange(&mut machine).unwrap();
    assert!(matches!(events(&mut machine)[..], [Event::Opened { .. }, Event::Message { .. }, Event::Finished(1)]));
    machine.finish(1);
    let frames = raw.exchange(&mut machine).unwrap();
    assert!(frames.iter().any(|frame| frame.flags == FLAG_FIN));
    // Its number is not free again, and what comes for it late is ignored.
    raw.send(&data(1, 0, 3));
    raw.exchange(&mut machine).unwrap();
    raw.send(&open(1));
    assert!(matches!(raw.exchange(&mut machine), Err(SessionError::OutOfPlace(_))));
}
