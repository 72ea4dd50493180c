//! Who gets in, who does not, and what either shows before.

use bytes::Bytes;
use tokio::time::Instant;

use super::harness::{Pair, Raw, acceptor, anonymous, data, dial, events, open};
use crate::identity::Identity;
use crate::session::{
    Accepted, Accepting, CLOSE_SHUTDOWN, Dialler, Event, HANDSHAKE_TIMEOUT, Machine, PRIMARY, Peer, Priority,
    SessionError, hello, tls,
};
use crate::wire::session_proto as proto;
use crate::wire::{Frame, FrameKind};

fn proof_by(raw: &Raw, as_whom: &Identity, signed_by: &Identity, to: &Identity) -> proto::Proof {
    let exporter = tls::dialler_exporter(&raw.tls).unwrap();
    let signed = hello::proof_message(&exporter, &as_whom.address(), &to.address());
    proto::Proof {
        address: Bytes::copy_from_slice(as_whom.address().public_key()),
        signature: Bytes::copy_from_slice(&signed_by.sign(&signed)),
        ..anonymous()
    }
}

/// What becomes of a dialler that shows this.
fn knock_with(server: &Identity, make: impl FnOnce(&Raw) -> proto::Proof) -> Result<Peer, SessionError> {
    let now = Instant::now();
    let (mut raw, mut accepting) = Raw::greeted(server, now);
    let proof = make(&raw);
    raw.send_proof(&proof);
    match raw.knock(&mut accepting, now)? {
        Some(Accepted::Session(machine)) => Ok(machine.peer().unwrap()),
        other => panic!("{other:?}"),
    }
}

#[test]
fn both_sides_know_each_other_and_call_the_session_by_one_name() {
    let me = Identity::generate();
    let mut pair = Pair::with(Dialler::Identity(me.clone()));
    assert_eq!(pair.a.peer(), Some(Peer::Address(pair.server.address())));
    assert_eq!(pair.b.peer(), Some(Peer::Address(me.address())));
    assert_eq!(pair.a.session_id(), pair.b.session_id());
    assert_eq!(pair.a.server_key().as_ref(), Some(pair.server.address().public_key()));
    assert_eq!(pair.b.server_key(), pair.a.server_key());
    pair.settle();
    assert!(pair.a.stats().round_trip.is_some() && pair.b.stats().round_trip.is_some());
    assert_eq!(Pair::with(Dialler::Anonymous).b.peer(), Some(Peer::Anonymous));
}

#[test]
fn a_session_needs_one_round_trip_and_first_flights_have_their_lengths() {
    let (server, now) = (Identity::generate(), Instant::now());
    let mut a = Machine::dial(dial(&server, Dialler::Identity(Identity::generate())), now).unwrap();
    let mut accepting = Accepting::new(&acceptor(&server), now).unwrap();
    let (mut flight, mut answer, mut second) = (Vec::new(), Vec::new(), Vec::new());
    a.poll_output(now, PRIMARY, &mut flight);
    assert!(accepting.handle_input(now, &flight).unwrap().is_none());
    accepting.poll_output(&mut answer);
    a.handle_input(now, PRIMARY, &answer).unwrap();
    assert!(matches!(events(&mut a)[..], [Event::Established(_)]), "the hello came with the server's first flight");
    assert_eq!(a.stats().bytes_received, 1_024);
    assert_eq!(a.stats().bytes_sent, 1_024);
    assert!(a.open(now, "x", Priority::Live).is_some());
    a.poll_output(now, PRIMARY, &mut second);
    let Ok(Some(Accepted::Session(mut b))) = accepting.handle_input(now, &second) else { panic!() };
    assert!(matches!(events(&mut b)[..], [Event::Established(_), Event::Opened { .. }]));
}

#[test]
fn a_handshake_in_single_bytes_says_nothing_before_it_knows_whom_it_reached() {
    let (server, now) = (Identity::generate(), Instant::now());
    let mut a = Machine::dial(dial(&server, Dialler::Identity(Identity::generate())), now).unwrap();
    let mut accepting = Accepting::new(&acceptor(&server), now).unwrap();
    let (mut flight, mut answer) = (Vec::new(), Vec::new());
    a.poll_output(now, PRIMARY, &mut flight);
    for byte in flight {
        assert!(accepting.handle_input(now, &[byte]).unwrap().is_none());
    }
    accepting.poll_output(&mut answer);
    for byte in answer {
        let mut early = Vec::new();
        a.poll_output(now, PRIMARY, &mut early);
        assert!(early.is_empty() && !a.has_output(PRIMARY), "{} bytes before HELLO", early.len());
        a.handle_input(now, PRIMARY, &[byte]).unwrap();
        if a.peer().is_some() {
            return;
        }
    }
    panic!("never established");
}

#[test]
fn a_dialler_shows_nothing_to_a_server_with_another_key() {
    let (wanted, other, now) = (Identity::generate(), Identity::generate(), Instant::now());
    let mut a = Machine::dial(dial(&wanted, Dialler::Identity(Identity::generate())), now).unwrap();
    let mut accepting = Accepting::new(&acceptor(&other), now).unwrap();
    let (mut flight, mut answer, mut rest) = (Vec::new(), Vec::new(), Vec::new());
    a.poll_output(now, PRIMARY, &mut flight);
    assert!(accepting.handle_input(now, &flight).unwrap().is_none());
    accepting.poll_output(&mut answer);
    assert!(matches!(a.handle_input(now, PRIMARY, &answer), Err(SessionError::WrongKey)));
    a.close(1);
    a.poll_output(now, PRIMARY, &mut rest);
    assert!(rest.is_empty() && !a.has_output(PRIMARY), "nothing but the ClientHello is ever sent");
}

#[test]
fn proofs_that_do_not_fit_are_refused() {
    let (server, victim, attacker) = (Identity::generate(), Identity::generate(), Identity::generate());
    assert_eq!(
        knock_with(&server, |raw| proof_by(raw, &victim, &victim, &server)).unwrap(),
        Peer::Address(victim.address())
    );
    let forged = knock_with(&server, |raw| proof_by(raw, &victim, &attacker, &server));
    assert!(matches!(forged, Err(SessionError::BadProof)));
    let for_another = knock_with(&server, |raw| proof_by(raw, &victim, &victim, &attacker));
    assert!(matches!(for_another, Err(SessionError::BadProof)));
    let no_key = knock_with(&server, |raw| proto::Proof {
        address: Bytes::from_static(&[1; 32]),
        ..proof_by(raw, &victim, &victim, &server)
    });
    assert!(matches!(no_key, Err(SessionError::BadProof)));
    for spoil in [
        |proof: &mut proto::Proof| proof.address.clear(),
        |proof: &mut proto::Proof| proof.signature.clear(),
        |proof: &mut proto::Proof| proof.signature.truncate(63),
        |proof: &mut proto::Proof| proof.known = Bytes::from_static(&[1; 15]),
        |proof: &mut proto::Proof| proof.window = 532_479,
        |proof: &mut proto::Proof| proof.window = 8_388_609,
        |proof: &mut proto::Proof| {
            (proof.address, proof.signature) = Default::default();
            proof.known = Bytes::from_static(&[1; 16]);
        },
    ] {
        let spoilt = knock_with(&server, |raw| {
            let mut proof = proof_by(raw, &victim, &victim, &server);
            spoil(&mut proof);
            proof
        });
        assert!(matches!(spoilt, Err(SessionError::Malformed(_))), "{spoilt:?}");
    }
}

#[test]
fn a_proof_of_one_connection_counts_on_no_other() {
    let (server, victim) = (Identity::generate(), Identity::generate());
    let mut seen = None;
    knock_with(&server, |raw| {
        let proof = proof_by(raw, &victim, &victim, &server);
        seen = Some(proof.clone());
        proof
    })
    .unwrap();
    // Replayed to the same server, and by a relay in the middle that has its own connection to it.
    let replayed = knock_with(&server, |_| seen.take().unwrap());
    assert!(matches!(replayed, Err(SessionError::BadProof)));
}

#[test]
fn what_the_proof_names_reaches_the_acceptor() {
    let (server, me) = (Identity::generate(), Identity::generate());
    let now = Instant::now();
    let (mut raw, mut accepting) = Raw::greeted(&server, now);
    let proof = proto::Proof { known: Bytes::from_static(&[7; 16]), ..proof_by(&raw, &me, &me, &server) };
    raw.send_proof(&proof);
    let Ok(Some(Accepted::Session(machine))) = raw.knock(&mut accepting, now) else { panic!() };
    assert_eq!(machine.known().map(|id| id.0), Some([7; 16]));
}

#[test]
fn nothing_but_proof_or_join_is_taken_first() {
    let optional = Frame::new(FrameKind::Optional(200), 0, 0, Bytes::new());
    let close = Frame::control(FrameKind::Close, 0, &proto::Close::default());
    let hello = Frame::control(FrameKind::Hello, 0, &proto::Hello::default());
    for frame in [open(1), data(1, 0, 10), hello, optional, close] {
        let (server, now) = (Identity::generate(), Instant::now());
        let (mut raw, mut accepting) = Raw::greeted(&server, now);
        raw.send(&frame);
        assert!(matches!(raw.knock(&mut accepting, now), Err(SessionError::OutOfPlace(_))), "{frame:?}");
        let mut last = Vec::new();
        accepting.poll_output(&mut last);
        let frames = raw.input(&last).unwrap();
        assert!(frames.iter().any(|frame| frame.kind == FrameKind::Close), "the peer is told");
    }
}

#[test]
fn a_stranger_is_heard_for_a_bounded_time_and_number_of_bytes() {
    use std::io::Write;
    let (server, now) = (Identity::generate(), Instant::now());
    let (mut raw, mut accepting) = Raw::greeted(&server, now);
    let mut sent = 0;
    let refused = loop {
        raw.tls.writer().write_all(&[0; 1_000]).unwrap();
        sent += 1_000;
        if let Err(error) = raw.knock(&mut accepting, now) {
            break error;
        }
        assert!(sent < 20_000);
    };
    assert!(matches!(refused, SessionError::Limit(_)) && sent > 16_384);
    for accepting in [Accepting::new(&acceptor(&server), now).unwrap(), Raw::greeted(&server, now).1] {
        let mut accepting = accepting;
        let deadline = accepting.poll_timeout().unwrap();
        assert_eq!(deadline, now + HANDSHAKE_TIMEOUT);
        assert!(accepting.handle_timeout(deadline - HANDSHAKE_TIMEOUT / 2).is_ok());
        assert!(matches!(accepting.handle_timeout(deadline), Err(SessionError::HandshakeTimedOut)));
    }
    let mut a = Machine::dial(dial(&server, Dialler::Anonymous), now).unwrap();
    assert!(matches!(a.handle_timeout(a.poll_timeout().unwrap()), Err(SessionError::HandshakeTimedOut)));
}

#[test]
fn a_dialler_without_alpn_is_refused_and_told_nothing() {
    let (server, now) = (Identity::generate(), Instant::now());
    let mut config = tls::client_config().unwrap();
    std::sync::Arc::make_mut(&mut config).alpn_protocols.clear();
    let mut raw = Raw::with(tls::client(config).unwrap().into());
    let mut accepting = Accepting::new(&acceptor(&server), now).unwrap();
    assert!(matches!(raw.knock(&mut accepting, now), Err(SessionError::NotHcp)));
    let mut out = Vec::new();
    accepting.poll_output(&mut out);
    assert!(out.is_empty(), "{} bytes of an answer", out.len());
}

#[test]
fn what_is_wrong_right_behind_the_proof_ends_the_session() {
    let (server, now) = (Identity::generate(), Instant::now());
    let (mut raw, mut accepting) = Raw::greeted(&server, now);
    raw.send_proof(&anonymous());
    raw.send(&data(1, 0, 1));
    let Ok(Some(Accepted::Session(mut machine))) = raw.knock(&mut accepting, now) else { panic!() };
    let due = machine.poll_timeout().unwrap();
    assert!(due <= now && matches!(machine.handle_timeout(due), Err(SessionError::OutOfPlace(_))));
}

#[test]
fn a_close_right_behind_the_proof_is_an_orderly_end_even_when_the_transport_ends_with_it() {
    let (server, now) = (Identity::generate(), Instant::now());
    let mut a = Machine::dial(dial(&server, Dialler::Anonymous), now).unwrap();
    let mut accepting = Accepting::new(&acceptor(&server), now).unwrap();
    let (mut flight, mut answer, mut last) = (Vec::new(), Vec::new(), Vec::new());
    a.poll_output(now, PRIMARY, &mut flight);
    assert!(accepting.handle_input(now, &flight).unwrap().is_none());
    accepting.poll_output(&mut answer);
    a.handle_input(now, PRIMARY, &answer).unwrap();
    a.drain(now);
    a.close(CLOSE_SHUTDOWN);
    a.poll_output(now, PRIMARY, &mut last);
    let Some(Accepted::Session(mut b)) = accepting.handle_input(now, &last).unwrap() else { panic!("no session") };
    assert!(events(&mut b).iter().any(|event| matches!(event, Event::Draining)));
    let end = b.handle_lost(now, PRIMARY);
    assert!(matches!(end, Err(SessionError::ClosedByPeer(CLOSE_SHUTDOWN))), "{end:?}");
}
