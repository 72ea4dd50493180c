//! What TLS has that this profile of it does not, from who holds a good key: KeyUpdates without end, session tickets, a second
//! ClientHello, an older version.

use std::sync::Arc;

use aws_lc_rs::digest;
use bytes::Bytes;
use rustls::crypto::aws_lc_rs::kx_group;
use rustls::server::ServerSessionMemoryCache;
use rustls::{HandshakeKind, PeerIncompatible, PeerMisbehaved, ServerConfig};
use tokio::time::Instant;

use super::harness::{Raw, acceptor, dial};
use crate::identity::Identity;
use crate::session::tls::{self, ServerKey};
use crate::session::{Accepting, Dialler, Machine, PRIMARY, SessionError, hello};
use crate::wire::{Frame, FrameKind};

/// KeyUpdates that may come without application data between them.
const MOST_UPDATES: usize = 32;

fn ping() -> Frame {
    Frame::new(FrameKind::Ping, 0, 0, Bytes::from_static(b"12345678"))
}

fn config(server: &Identity) -> Arc<ServerConfig> {
    tls::server_config(&ServerKey::Identity(server.clone())).unwrap()
}

/// A dialler that waits for an answer to its ClientHello, and this.
fn dialling(server: &Identity, now: Instant) -> (Machine, Vec<u8>) {
    let mut machine = Machine::dial(dial(server, Dialler::Identity(Identity::generate())), now).unwrap();
    let mut client_hello = Vec::new();
    machine.poll_output(now, PRIMARY, &mut client_hello);
    (machine, client_hello)
}

/// A raw acceptor that is about to send its first flight, HELLO with it.
fn greeting(config: Arc<ServerConfig>, client_hello: &[u8]) -> Raw {
    let mut raw = Raw::with(tls::server(config).unwrap().into());
    raw.input(client_hello).unwrap();
    raw.send(&hello::hello(&[], &[]));
    raw
}

fn updates(raw: &mut Raw, count: usize) {
    (0..count).for_each(|_| raw.tls.refresh_traffic_keys().unwrap());
}

/// A record in the clear.
fn record(kind: u8, body: &[u8]) -> Vec<u8> {
    [&[kind, 3, 3][..], &(body.len() as u16).to_be_bytes(), body].concat()
}

/// What answers this ClientHello and has the form of a ServerHello.
fn server_hello(client_hello: &[u8], random: &[u8], suite: [u8; 2], extensions: &[u8]) -> Vec<u8> {
    // In front of it are the headers of record and message, a version and the client's random value.
    let session_id = &client_hello[43..44 + usize::from(client_hello[43])];
    let length = (extensions.len() as u16).to_be_bytes();
    let body = [&[3, 3][..], random, session_id, &suite, &[0], &length, extensions].concat();
    record(22, &[&[2, 0][..], &(body.len() as u16).to_be_bytes(), &body].concat())
}

/// What a dialler makes of an answer to its ClientHello; it says nothing more, whatever that is.
fn refusal_of(answer: impl FnOnce(&[u8]) -> Vec<u8>) -> SessionError {
    let now = Instant::now();
    let (mut machine, client_hello) = dialling(&Identity::generate(), now);
    let refused = machine.handle_input(now, PRIMARY, &answer(&client_hello));
    let mut rest = Vec::new();
    machine.poll_output(now, PRIMARY, &mut rest);
    machine.close(1);
    machine.poll_output(now, PRIMARY, &mut rest);
    assert!(rest.is_empty() && !machine.has_output(PRIMARY), "{} bytes more than its ClientHello", rest.len());
    refused.expect_err("the answer is taken")
}

#[test]
fn either_side_takes_32_key_updates_without_data_between_them_and_no_more() {
    let (server, now) = (Identity::generate(), Instant::now());
    let dialled = || {
        let (mut machine, client_hello) = dialling(&server, now);
        let mut raw = greeting(config(&server), &client_hello);
        raw.exchange(&mut machine, now).unwrap();
        (raw, machine)
    };
    for (side, (mut raw, mut machine)) in [("acceptor", Raw::established(&server, now)), ("dialler", dialled())] {
        for _ in 0..3 {
            updates(&mut raw, MOST_UPDATES);
            raw.send(&ping());
            let answers = raw.exchange(&mut machine, now).unwrap();
            assert!(answers.contains(&Frame { kind: FrameKind::Pong, ..ping() }), "{side}: {answers:?}");
        }
        updates(&mut raw, MOST_UPDATES + 1);
        let refused = raw.exchange(&mut machine, now);
        let too_many = matches!(
            &refused,
            Err(SessionError::Tls(rustls::Error::PeerMisbehaved(PeerMisbehaved::TooManyKeyUpdateRequests)))
        );
        assert!(too_many, "{side}: {refused:?}");
    }
}

#[test]
fn key_updates_that_ask_for_others_are_answered_by_one() {
    let (server, now) = (Identity::generate(), Instant::now());
    let (mut raw, mut machine) = Raw::established(&server, now);
    updates(&mut raw, MOST_UPDATES);
    machine.handle_input(now, PRIMARY, &raw.output()).unwrap();
    raw.send(&ping());
    machine.handle_input(now, PRIMARY, &raw.output()).unwrap();
    let mut answer = Vec::new();
    machine.poll_output(now, PRIMARY, &mut answer);
    // A KeyUpdate takes a record of 27 bytes, and a small flush one of 1,046.
    assert_eq!(answer.len(), 27 + 1_046);
    assert_eq!(raw.input(&answer).unwrap(), [Frame { kind: FrameKind::Pong, ..ping() }]);
}

#[test]
fn a_dialler_ends_a_session_whose_server_sends_a_ticket() {
    let (server, now) = (Identity::generate(), Instant::now());
    let (mut machine, client_hello) = dialling(&server, now);
    let mut config = config(&server);
    let with_tickets = Arc::make_mut(&mut config);
    with_tickets.send_tls13_tickets = 1;
    with_tickets.session_storage = ServerSessionMemoryCache::new(8);
    let refused = greeting(config, &client_hello).exchange(&mut machine, now);
    assert!(matches!(refused, Err(SessionError::OutOfPlace("a session ticket"))), "{refused:?}");
    assert!(machine.peer().is_some(), "it came behind the handshake");
}

#[test]
fn a_dialler_says_nothing_more_to_a_server_that_asks_for_another_client_hello() {
    let retry = digest::digest(&digest::SHA256, b"HelloRetryRequest");
    let version = [0, 43, 0, 2, 3, 4];
    let cookie = [0, 44, 0, 6, 0, 4, 1, 2, 3, 4];
    let (hybrid, x25519) = ([0, 51, 0, 2, 0x11, 0xec], [0, 51, 0, 2, 0, 0x1d]);
    let asked = |extensions: &[&[u8]]| {
        let extensions = [&version[..], &extensions.concat()].concat();
        refusal_of(|client_hello| server_hello(client_hello, retry.as_ref(), [0x13, 2], &extensions))
    };
    // By these TLS would go on.
    for extensions in [vec![&cookie[..]], vec![&hybrid[..], &cookie[..]]] {
        let refused = asked(&extensions);
        assert!(matches!(refused, SessionError::NotHcp), "{refused:?}");
    }
    for (extensions, why) in [
        (hybrid, PeerMisbehaved::IllegalHelloRetryRequestWithOfferedGroup),
        (x25519, PeerMisbehaved::IllegalHelloRetryRequestWithUnofferedNamedGroup),
    ] {
        let refused = asked(&[&extensions]);
        let expected = rustls::Error::PeerMisbehaved(why);
        assert!(matches!(&refused, SessionError::Tls(error) if *error == expected), "{refused:?}");
    }
}

#[test]
fn a_dialler_that_sends_its_share_on_request_alone_is_told_nothing() {
    let (server, now) = (Identity::generate(), Instant::now());
    let reluctant = || {
        let config = tls::client_config_offering(vec![kx_group::X25519, kx_group::X25519MLKEM768]).unwrap();
        Raw::with(tls::client(config).unwrap().into())
    };
    // TLS would ask for it.
    let mut asking = Raw::with(tls::server(config(&server)).unwrap().into());
    asking.input(&reluctant().output()).unwrap();
    assert_eq!(asking.tls.handshake_kind(), Some(HandshakeKind::FullWithHelloRetryRequest));
    let mut accepting = Accepting::new(&acceptor(&server), now).unwrap();
    assert!(matches!(reluctant().knock(&mut accepting, now), Err(SessionError::NotHcp)));
    let mut answer = Vec::new();
    accepting.poll_output(&mut answer);
    assert!(answer.is_empty(), "{} bytes of an answer", answer.len());
}

#[test]
fn a_dialler_says_nothing_more_to_a_server_of_another_version() {
    let random = [7; 32];
    let answers: [(&str, [u8; 2], &[u8], PeerIncompatible); 3] = [
        ("1.2", [0xc0, 0x2f], &[0xff, 1, 0, 1, 0], PeerIncompatible::ServerTlsVersionIsDisabledByOurConfig),
        ("1.2 as if chosen", [0x13, 2], &[0, 43, 0, 2, 3, 3], PeerIncompatible::ServerTlsVersionIsDisabledByOurConfig),
        ("unknown", [0x13, 2], &[0, 43, 0, 2, 3, 5], PeerIncompatible::ServerDoesNotSupportTls12Or13),
    ];
    for (version, suite, extensions, why) in answers {
        let refused = refusal_of(|client_hello| server_hello(client_hello, &random, suite, extensions));
        let expected = rustls::Error::PeerIncompatible(why);
        assert!(matches!(&refused, SessionError::Tls(error) if *error == expected), "{version}: {refused:?}");
    }
    for (what, answer) in
        [("an alert of who knows no 1.3", record(21, &[2, 70])), ("HTTP", b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec())]
    {
        let refused = refusal_of(|_| answer);
        assert!(matches!(refused, SessionError::Tls(_)), "{what}: {refused:?}");
    }
}
