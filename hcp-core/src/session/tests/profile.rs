//! What TLS has that this profile of it does not, from who holds a good key: KeyUpdates without end, session tickets, a second
//! ClientHello, a request for a certificate, an older version; on sessions and on their lanes.

use std::sync::Arc;

use aws_lc_rs::digest;
use bytes::Bytes;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs::{default_provider, kx_group};
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{AlwaysResolvesServerRawPublicKeys, ServerSessionMemoryCache};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, HandshakeKind, PeerIncompatible, PeerMisbehaved,
    ServerConfig, SignatureScheme,
};
use tokio::time::Instant;

use super::harness::{Pair, Raw, acceptor, dial, events};
use crate::identity::Identity;
use crate::session::tls::{self, ServerKey};
use crate::session::{
    Accepting, Acceptor, Dialler, Event, Formerly, LaneDialling, LaneError, LaneHint, Machine, PRIMARY, SessionError,
    hello,
};
use crate::wire::{Frame, FrameKind};

/// KeyUpdates that may come without application data between them.
const MOST_UPDATES: usize = 32;

fn ping() -> Frame {
    Frame::new(FrameKind::Ping, 0, 0, Bytes::from_static(b"12345678"))
}

fn config(server: &Identity) -> Arc<ServerConfig> {
    tls::server_config(&ServerKey::Identity(server.clone())).unwrap()
}

/// One that sends a ticket once the handshake is over.
fn with_ticket(server: &Identity) -> Arc<ServerConfig> {
    let mut config = config(server);
    let with_tickets = Arc::make_mut(&mut config);
    with_tickets.send_tls13_tickets = 1;
    with_tickets.session_storage = ServerSessionMemoryCache::new(8);
    config
}

/// Asks whoever dials for a certificate, and does without one.
#[derive(Debug)]
struct Asking;

impl ClientCertVerifier for Asking {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        Err(CertificateError::BadEncoding.into())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(CertificateError::BadSignature.into())
    }

    fn verify_tls13_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(CertificateError::BadSignature.into())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519, SignatureScheme::ECDSA_NISTP256_SHA256]
    }
}

/// One that asks for a certificate.
fn asking(server: &Identity) -> Arc<ServerConfig> {
    let provider = CryptoProvider { kx_groups: vec![kx_group::X25519MLKEM768], ..default_provider() };
    let key = tls::certified(&ServerKey::Identity(server.clone()));
    let mut config = ServerConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_client_cert_verifier(Arc::new(Asking))
        .with_cert_resolver(Arc::new(AlwaysResolvesServerRawPublicKeys::new(key)));
    config.alpn_protocols = vec![b"hcp/1".to_vec()];
    Arc::new(config)
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

/// A lane of `pair` that waits for an answer to its ClientHello, and this.
fn lane_dialling(pair: &mut Pair) -> (LaneDialling, Vec<u8>) {
    let mut lane = pair.a.lane_dialling(pair.now).unwrap();
    let mut client_hello = Vec::new();
    lane.poll_output(&mut client_hello);
    (lane, client_hello)
}

/// What a lane makes of an answer to its ClientHello; it says nothing more, whatever that is, and its session goes on.
fn refusal_on_a_lane(pair: &mut Pair, answer: impl FnOnce(&[u8]) -> Vec<u8>) -> SessionError {
    let (mut lane, client_hello) = lane_dialling(pair);
    let refused = lane.handle_input(pair.now, &answer(&client_hello));
    let mut rest = Vec::new();
    lane.poll_output(&mut rest);
    assert!(rest.is_empty(), "{} bytes more than its ClientHello", rest.len());
    pair.settle();
    match refused {
        Err(LaneError::Session(error)) => error,
        other => panic!("{other:?}"),
    }
}

/// What asks for another ClientHello, so that TLS would go on, and so that it would not.
fn retries() -> [Vec<u8>; 4] {
    let version = [0, 43, 0, 2, 3, 4];
    let cookie = [0, 44, 0, 6, 0, 4, 1, 2, 3, 4];
    let (hybrid, x25519) = ([0, 51, 0, 2, 0x11, 0xec], [0, 51, 0, 2, 0, 0x1d]);
    [
        [&version[..], &cookie].concat(),
        [&version[..], &hybrid, &cookie].concat(),
        [&version[..], &hybrid].concat(),
        [&version[..], &x25519].concat(),
    ]
}

/// The HelloRetryRequest with these extensions.
fn retry(client_hello: &[u8], extensions: &[u8]) -> Vec<u8> {
    let random = digest::digest(&digest::SHA256, b"HelloRetryRequest");
    server_hello(client_hello, random.as_ref(), [0x13, 2], extensions)
}

/// Checks why a dialler refused the nth of [`retries`].
fn check_refusal_of_retry(nth: usize, refused: &SessionError) {
    let why = match nth {
        0 | 1 => return assert!(matches!(refused, SessionError::NotHcp), "{nth}: {refused:?}"),
        2 => PeerMisbehaved::IllegalHelloRetryRequestWithOfferedGroup,
        _ => PeerMisbehaved::IllegalHelloRetryRequestWithUnofferedNamedGroup,
    };
    let expected = Error::PeerMisbehaved(why);
    assert!(matches!(refused, SessionError::Tls(error) if *error == expected), "{nth}: {refused:?}");
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
        let too_many =
            matches!(&refused, Err(SessionError::Tls(Error::PeerMisbehaved(PeerMisbehaved::TooManyKeyUpdateRequests))));
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
    let refused = greeting(with_ticket(&server), &client_hello).exchange(&mut machine, now);
    assert!(matches!(refused, Err(SessionError::OutOfPlace("a session ticket"))), "{refused:?}");
    assert!(machine.peer().is_some(), "it came behind the handshake");
}

#[test]
fn a_dialler_ends_a_lane_whose_server_sends_a_ticket_and_the_session_goes_on() {
    let mut pair = Pair::new();
    let (mut lane, client_hello) = lane_dialling(&mut pair);
    let mut raw = greeting(with_ticket(&pair.server), &client_hello);
    let lane = lane.handle_input(pair.now, &raw.output()).unwrap().expect("HELLO came with the first flight");
    let number = pair.a.add_lane(pair.now, lane).unwrap();
    let mut join = Vec::new();
    pair.a.poll_output(pair.now, number, &mut join);
    let joined = raw.input(&join).unwrap();
    assert!(joined.iter().any(|frame| frame.kind == FrameKind::Join));
    assert_eq!(pair.a.stats().lanes, 1);
    events(&mut pair.a);
    let ticket = raw.output();
    assert!(!ticket.is_empty(), "it comes behind the handshake");
    pair.a.handle_input(pair.now, number, &ticket).unwrap();
    assert!(matches!(events(&mut pair.a)[..], [Event::LaneEnded(ended)] if ended == number));
    pair.settle();
}

#[test]
fn a_dialler_says_nothing_more_to_a_server_that_asks_for_a_certificate() {
    let asked = |server: &Identity, client_hello: &[u8]| greeting(asking(server), client_hello).output();
    let (server, now) = (Identity::generate(), Instant::now());
    // Whom it wanted, somebody else, and on a lane.
    let (mut machine, client_hello) = dialling(&server, now);
    let mut rest = Vec::new();
    let wanted = machine.handle_input(now, PRIMARY, &asked(&server, &client_hello));
    machine.poll_output(now, PRIMARY, &mut rest);
    machine.close(1);
    machine.poll_output(now, PRIMARY, &mut rest);
    assert!(rest.is_empty() && !machine.has_output(PRIMARY), "{} bytes more than its ClientHello", rest.len());
    let other = refusal_of(|client_hello| asked(&server, client_hello));
    let mut pair = Pair::new();
    let server = pair.server.clone();
    let on_a_lane = refusal_on_a_lane(&mut pair, |client_hello| asked(&server, client_hello));
    for refused in [wanted.expect_err("it is taken"), other, on_a_lane] {
        assert!(matches!(refused, SessionError::OutOfPlace("a request for a certificate")), "{refused:?}");
    }
}

#[test]
fn a_dialler_says_nothing_more_to_a_server_that_asks_for_another_client_hello() {
    for (nth, extensions) in retries().iter().enumerate() {
        check_refusal_of_retry(nth, &refusal_of(|client_hello| retry(client_hello, extensions)));
    }
}

#[test]
fn a_lane_says_nothing_more_to_a_server_that_asks_for_another_client_hello() {
    let mut pair = Pair::new();
    for (nth, extensions) in retries().iter().enumerate() {
        let refused = refusal_on_a_lane(&mut pair, |client_hello| retry(client_hello, extensions));
        check_refusal_of_retry(nth, &refused);
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

/// Holds one session, whose key is the one of now.
#[derive(Debug)]
struct Holds(Arc<Acceptor>);

impl Formerly for Holds {
    fn acceptor_of(&self, _hint: &LaneHint) -> Option<Arc<Acceptor>> {
        Some(Arc::clone(&self.0))
    }
}

#[test]
fn a_lane_that_sends_its_share_on_request_alone_is_told_nothing() {
    let pair = Pair::new();
    let hint = pair.a.session_id().unwrap().lane_hint();
    let mut config = tls::client_config_offering(vec![kx_group::X25519, kx_group::X25519MLKEM768]).unwrap();
    Arc::make_mut(&mut config).alpn_protocols = tls::lane_config(&hint).unwrap().alpn_protocols.clone();
    let mut lane = Raw::with(tls::client(config).unwrap().into());
    let holds = Arc::new(Holds(Arc::clone(&pair.acceptor)));
    let mut accepting = Accepting::knowing(&pair.acceptor, holds, pair.now).unwrap();
    assert!(matches!(lane.knock(&mut accepting, pair.now), Err(SessionError::NotHcp)));
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
        let expected = Error::PeerIncompatible(why);
        assert!(matches!(&refused, SessionError::Tls(error) if *error == expected), "{version}: {refused:?}");
    }
    for (what, answer) in
        [("an alert of who knows no 1.3", record(21, &[2, 70])), ("HTTP", b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec())]
    {
        let refused = refusal_of(|_| answer);
        assert!(matches!(refused, SessionError::Tls(_)), "{what}: {refused:?}");
    }
}
