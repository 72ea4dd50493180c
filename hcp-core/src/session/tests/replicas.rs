//! Speaking for a service: what replicas show, what diallers take, and that they say nothing to who does not fit.

use std::io::Read;
use std::sync::Arc;

use prost::Message;
use tokio::time::Instant;

use crate::identity::Identity;
use crate::identity::delegation::{
    Delegation, DelegationError, OwnerCertificate, OwnerKey, ReplicaCredentials, Round, SerialFloors, SessionKey,
    Validity,
};
use crate::session::connection::Connection;
use crate::session::tests::harness::{Raw, anonymous};
use crate::session::tls::ServerKey;
use crate::session::{
    Accepted, Accepting, Acceptor, Credentials, Dial, Dialler, Event, Formerly, Keepalive, Lane, LaneError, LaneHint,
    MAX_STREAMS, Machine, PRIMARY, Peer, STREAM_WINDOW, SessionError, hello, tls,
};
use crate::wire::session_proto as proto;
use crate::wire::{Decoder, FrameKind};

const NOW: u64 = 1_790_000_000;
const DAY: u64 = 86_400;

fn span(from: u64, to: u64) -> Validity {
    Validity::new(from, to).unwrap()
}

fn round(serial: u64, lowest: u64) -> Round {
    Round::new(serial, lowest, span(NOW - DAY, NOW + DAY)).unwrap()
}

/// A service and its owner.
struct Owner {
    service: Identity,
    key: OwnerKey,
    certificate: OwnerCertificate,
}

impl Owner {
    fn new() -> Self {
        Self::certified(span(NOW - DAY, NOW + DAY))
    }

    fn certified(validity: Validity) -> Self {
        let (service, key) = (Identity::generate(), OwnerKey::generate());
        let certificate = OwnerCertificate::issue(&service, key.public_key(), validity);
        Self { service, key, certificate }
    }

    fn replica(&self, round: Round) -> ReplicaCredentials {
        let session_key = SessionKey::generate();
        let delegation = self.key.delegate(self.service.address(), session_key.public_key(), round);
        ReplicaCredentials::new(self.service.address(), self.certificate.clone(), delegation, session_key).unwrap()
    }

    fn dial(&self, floors: &SerialFloors, me: Dialler) -> Dial {
        Dial {
            target: self.service.address(),
            me,
            known: None,
            keepalive: Keepalive::default(),
            lanes: 4,
            unix_now: NOW,
            floors: floors.clone(),
        }
    }
}

fn acceptor(replica: &ReplicaCredentials) -> Arc<Acceptor> {
    Acceptor::new(&Credentials::Replica(replica.clone()), Keepalive::default()).unwrap()
}

/// Carries one flight each way: what the dialler said first, and what it makes of the answer.
fn meet(machine: &mut Machine, accepting: &mut Accepting, now: Instant) -> (Vec<u8>, Result<(), SessionError>) {
    let (mut flight, mut answer) = (Vec::new(), Vec::new());
    machine.poll_output(now, PRIMARY, &mut flight);
    assert!(accepting.handle_input(now, &flight).unwrap().is_none());
    accepting.poll_output(&mut answer);
    let result = machine.handle_input(now, PRIMARY, &answer);
    (flight, result)
}

/// Joins a dialler and a replica.
fn established(dial: Dial, replica: &ReplicaCredentials) -> Result<(Machine, Box<Machine>), SessionError> {
    let now = Instant::now();
    let mut machine = Machine::dial(dial, now)?;
    let mut accepting = Accepting::new(&acceptor(replica), now)?;
    meet(&mut machine, &mut accepting, now).1?;
    let mut proof = Vec::new();
    machine.poll_output(now, PRIMARY, &mut proof);
    match accepting.handle_input(now, &proof)? {
        Some(Accepted::Session(accepted)) => Ok((machine, accepted)),
        other => panic!("{other:?}"),
    }
}

/// What a dialler says to a server that holds `key` and shows these fields, and why it refuses. Whatever the reason, it has
/// sent its ClientHello and sends nothing more.
fn refusal(dial: Dial, key: ServerKey, certificate: &[u8], delegation: &[u8]) -> SessionError {
    let now = Instant::now();
    let mut machine = Machine::dial(dial, now).unwrap();
    let config = tls::server_config(&key).unwrap();
    let mut server = Connection::new(tls::server(config).unwrap().into(), now);
    server.write_first(hello::hello(certificate, delegation)).unwrap();
    let (mut flight, mut answer, mut rest) = (Vec::new(), Vec::new(), Vec::new());
    machine.poll_output(now, PRIMARY, &mut flight);
    assert_eq!(records(&flight).len(), 1);
    assert_eq!((flight[0], flight[5]), (22, 1), "a handshake record with a ClientHello");
    let mut input = &flight[..];
    while !input.is_empty() {
        server.read(now, &mut input).unwrap();
    }
    server.flush(&mut answer);
    let error = machine.handle_input(now, PRIMARY, &answer).unwrap_err();
    machine.close(1);
    machine.poll_output(now, PRIMARY, &mut rest);
    assert!(rest.is_empty() && !machine.has_output(PRIMARY), "{} bytes after {error:?}", rest.len());
    assert!(machine.poll_event().is_none() && machine.peer().is_none());
    error
}

/// Content type and length of each TLS record.
fn records(mut bytes: &[u8]) -> Vec<(u8, u16)> {
    let mut records = Vec::new();
    while let [kind, _, _, high, low, rest @ ..] = bytes {
        let length = u16::from_be_bytes([*high, *low]);
        records.push((*kind, length));
        bytes = &rest[length.into()..];
    }
    assert!(bytes.is_empty());
    records
}

/// A replica's first flight, and the application data in it, as a stranger sees them.
fn first_flight(replica: &ReplicaCredentials) -> (Vec<u8>, Vec<u8>) {
    let now = Instant::now();
    let mut client = tls::client(tls::client_config().unwrap()).unwrap();
    let mut accepting = Accepting::new(&acceptor(replica), now).unwrap();
    let (mut flight, mut answer, mut plain) = (Vec::new(), Vec::new(), Vec::new());
    client.write_tls(&mut flight).unwrap();
    assert!(accepting.handle_input(now, &flight).unwrap().is_none());
    accepting.poll_output(&mut answer);
    let mut input = &answer[..];
    while !input.is_empty() {
        client.read_tls(&mut input).unwrap();
        client.process_new_packets().unwrap();
    }
    // There is no more than this for now, which the reader calls an error.
    let _ = client.reader().read_to_end(&mut plain);
    (answer, plain)
}

#[test]
fn a_replica_speaks_for_the_service_that_was_dialled() {
    let (owner, me, floors) = (Owner::new(), Identity::generate(), SerialFloors::new());
    let replica = owner.replica(round(7, 5));
    let dial = owner.dial(&floors, Dialler::Identity(me.clone()));
    let (mut a, b) = established(dial, &replica).unwrap();
    assert!(matches!(a.poll_event(), Some(Event::Established(Peer::Address(peer))) if peer == owner.service.address()));
    assert_eq!(a.delegation(), Some(replica.delegation()));
    assert_eq!(a.server_key().as_ref(), Some(replica.session_key().public_key().as_bytes()));
    assert_eq!(b.peer(), Some(Peer::Address(me.address())), "the proof was made to the service");
    assert_eq!((b.server_key(), b.delegation()), (a.server_key(), None));
    assert_eq!(floors.floor(owner.service.address()), 5);
    let (_, b) = established(owner.dial(&floors, Dialler::Anonymous), &replica).unwrap();
    assert_eq!(b.peer(), Some(Peer::Anonymous));
}

#[test]
fn each_refusal_has_its_error_and_nothing_is_said_before_it() {
    use DelegationError::{
        BelowFloor, CertificateExpired, CertificateNotYetValid, Expired, ForeignService, Malformed, NotYetValid,
        OtherSessionKey, TamperedCertificate, TamperedDelegation,
    };
    let (early, late) = (span(NOW - 9 * DAY, NOW - DAY), span(NOW + DAY, NOW + 9 * DAY));
    let of_round = |validity| Round::new(7, 5, validity).unwrap();
    let (good, other) = (Owner::new(), Owner::new());
    let (past, future) = (Owner::certified(early), Owner::certified(late));
    type Spoil = fn(&mut Vec<u8>, &mut Vec<u8>);
    let as_it_is: Spoil = |_, _| {};
    let cases: [(DelegationError, &Owner, ReplicaCredentials, Spoil); 15] = [
        (Malformed, &good, good.replica(round(7, 5)), |certificate, _| certificate.clear()),
        (Malformed, &good, good.replica(round(7, 5)), |_, delegation| delegation.clear()),
        (Malformed, &good, good.replica(round(7, 5)), |certificate, _| certificate.push(0)),
        (Malformed, &good, good.replica(round(7, 5)), |_, delegation| delegation.truncate(127)),
        (ForeignService, &good, other.replica(round(7, 5)), as_it_is),
        (TamperedCertificate, &good, good.replica(round(7, 5)), |certificate, _| certificate[47] ^= 1),
        (TamperedCertificate, &good, good.replica(round(7, 5)), |certificate, _| certificate[50] ^= 1),
        (TamperedDelegation, &good, good.replica(round(7, 5)), |_, delegation| delegation[47] ^= 1),
        (TamperedDelegation, &good, good.replica(round(7, 5)), |_, delegation| delegation[70] ^= 1),
        (CertificateExpired, &past, past.replica(round(7, 5)), as_it_is),
        (CertificateNotYetValid, &future, future.replica(round(7, 5)), as_it_is),
        (Expired, &good, good.replica(of_round(early)), as_it_is),
        (NotYetValid, &good, good.replica(of_round(late)), as_it_is),
        (BelowFloor, &good, good.replica(round(5, 5)), as_it_is),
        (BelowFloor, &good, good.replica(round(0, 0)), as_it_is),
    ];
    let me = Identity::generate();
    for (expected, owner, replica, spoil) in cases {
        let floors = SerialFloors::new();
        floors.import([(good.service.address(), 6)]);
        let (mut certificate, mut delegation) =
            (replica.certificate().to_bytes().to_vec(), replica.delegation().to_bytes().to_vec());
        spoil(&mut certificate, &mut delegation);
        let key = ServerKey::Session(replica.session_key().clone());
        let dial = owner.dial(&floors, Dialler::Identity(me.clone()));
        let error = refusal(dial, key, &certificate, &delegation);
        assert!(matches!(error, SessionError::Delegation(found) if found == expected), "{error:?}, not {expected:?}");
        assert_eq!(floors.export(), [(good.service.address(), 6)], "{expected:?}");
    }

    // Whoever has seen a replica can show what it showed, but not under its key.
    let (replica, floors) = (good.replica(round(7, 5)), SerialFloors::new());
    let (certificate, delegation) = (replica.certificate().to_bytes(), replica.delegation().to_bytes());
    for key in [ServerKey::Session(SessionKey::generate()), ServerKey::Identity(Identity::generate())] {
        let dial = good.dial(&floors, Dialler::Identity(me.clone()));
        let error = refusal(dial, key, &certificate, &delegation);
        assert!(matches!(error, SessionError::Delegation(OtherSessionKey)), "{error:?}");
    }
    // A session key without what makes it one is just another key.
    let key = ServerKey::Session(replica.session_key().clone());
    let error = refusal(good.dial(&floors, Dialler::Identity(me)), key, &[], &[]);
    assert!(matches!(error, SessionError::WrongKey), "{error:?}");
}

#[test]
fn a_round_that_was_withdrawn_is_refused_once_a_later_one_was_seen() {
    let (owner, floors) = (Owner::new(), SerialFloors::new());
    let (old, new) = (owner.replica(round(7, 5)), owner.replica(round(8, 8)));
    let dial = |replica| established(owner.dial(&floors, Dialler::Anonymous), replica);
    assert!(dial(&old).is_ok());
    assert!(dial(&new).is_ok());
    assert!(matches!(dial(&old), Err(SessionError::Delegation(DelegationError::BelowFloor))));
    assert!(dial(&new).is_ok());
}

#[test]
fn the_service_identity_itself_needs_no_delegation_and_what_it_shows_of_one_is_ignored() {
    let (owner, floors, now) = (Owner::new(), SerialFloors::new(), Instant::now());
    let mut machine = Machine::dial(owner.dial(&floors, Dialler::Anonymous), now).unwrap();
    let config = tls::server_config(&ServerKey::Identity(owner.service)).unwrap();
    let mut server = Connection::new(tls::server(config).unwrap().into(), now);
    server.write_first(hello::hello(b"no certificate", &[0; 128])).unwrap();
    let (mut flight, mut answer) = (Vec::new(), Vec::new());
    machine.poll_output(now, PRIMARY, &mut flight);
    let mut input = &flight[..];
    while !input.is_empty() {
        server.read(now, &mut input).unwrap();
    }
    server.flush(&mut answer);
    machine.handle_input(now, PRIMARY, &answer).unwrap();
    assert!(machine.peer().is_some());
    assert_eq!(machine.delegation(), None);
}

#[test]
fn a_lane_that_reaches_another_replica_is_given_up_before_anything_is_sent() {
    let (owner, floors, now) = (Owner::new(), SerialFloors::new(), Instant::now());
    let (first, second) = (owner.replica(round(7, 5)), owner.replica(round(7, 5)));
    let (mut a, _b) = established(owner.dial(&floors, Dialler::Anonymous), &first).unwrap();
    for (replica, reached) in [(&second, false), (&first, true)] {
        let mut lane = a.lane_dialling(now).unwrap();
        let mut accepting = Accepting::new(&acceptor(replica), now).unwrap();
        let (mut flight, mut answer, mut rest) = (Vec::new(), Vec::new(), Vec::new());
        lane.poll_output(&mut flight);
        assert!(accepting.handle_input(now, &flight).unwrap().is_none());
        accepting.poll_output(&mut answer);
        match lane.handle_input(now, &answer) {
            Ok(Some(_)) => assert!(reached),
            Err(LaneError::OtherReplica) => assert!(!reached),
            other => panic!("{other:?}"),
        }
        lane.poll_output(&mut rest);
        assert!(rest.is_empty());
    }
}

#[test]
fn the_first_flights_of_replicas_have_equal_lengths_and_hold_what_the_protocol_names() {
    let owner = Owner::new();
    let replicas: Vec<_> = (0..8).map(|_| owner.replica(round(7, 5))).collect();
    let (flight, plain) = first_flight(&replicas[0]);
    let shape = records(&flight);
    for replica in &replicas {
        let (flight, other_plain) = first_flight(replica);
        assert_eq!(records(&flight), shape);
        assert_eq!(other_plain.len(), 1_024);

        let mut decoder = Decoder::default();
        let mut rest = &other_plain[..];
        let frame = decoder.next(&mut rest).unwrap().unwrap().into_frame();
        assert_eq!(frame.kind, FrameKind::Hello);
        assert!(other_plain[frame.encoded_len()..].iter().all(|byte| *byte == 0), "the rest is padding");
        assert!(matches!(decoder.next(&mut rest), Ok(None)));
        // To the byte: an unknown field would not survive this.
        let expected = proto::Hello {
            certificate: owner.certificate.to_bytes().to_vec().into(),
            delegation: replica.delegation().to_bytes().to_vec().into(),
            window: STREAM_WINDOW,
            max_streams: MAX_STREAMS,
        };
        assert_eq!(frame.payload[..], expected.encode_to_vec());

        // What differs between two replicas ends with the delegation: session key and signature.
        let place = other_plain.windows(Delegation::LEN).position(|at| at == replica.delegation().to_bytes()).unwrap();
        let differs = (0..1_024).filter(|i| plain[*i] != other_plain[*i]);
        for i in differs {
            let within = i - place;
            assert!((0..32).contains(&within) || (64..128).contains(&within), "byte {within} of the delegation");
        }
    }
}

/// Whoever has accepted one session.
#[derive(Debug)]
struct Before(LaneHint, Arc<Acceptor>);

impl Formerly for Before {
    fn acceptor_of(&self, hint: &LaneHint) -> Option<Arc<Acceptor>> {
        (self.0 == *hint).then(|| Arc::clone(&self.1))
    }
}

/// A lane of `a` at a server that shows `present` and knows of `former`; what HELLO said to it.
fn lane_at(
    a: &mut Machine,
    present: &Arc<Acceptor>,
    former: Arc<dyn Formerly>,
) -> (Result<Lane, LaneError>, Accepting) {
    let now = Instant::now();
    let mut lane = a.lane_dialling(now).unwrap();
    let mut accepting = Accepting::knowing(present, former, now).unwrap();
    let (mut flight, mut answer) = (Vec::new(), Vec::new());
    lane.poll_output(&mut flight);
    assert!(accepting.handle_input(now, &flight).unwrap().is_none());
    accepting.poll_output(&mut answer);
    (lane.handle_input(now, &answer).map(Option::unwrap), accepting)
}

#[test]
fn after_a_renewal_a_lane_is_shown_its_sessions_key_and_nobody_else_is() {
    let (owner, floors, now) = (Owner::new(), SerialFloors::new(), Instant::now());
    let (old, new) = (owner.replica(round(7, 5)), owner.replica(round(8, 5)));
    let (former, present) = (acceptor(&old), acceptor(&new));
    let (mut a, mut b) = established(owner.dial(&floors, Dialler::Anonymous), &old).unwrap();
    let hint = a.session_id().unwrap().lane_hint();
    let before: Arc<dyn Formerly> = Arc::new(Before(hint, Arc::clone(&former)));
    let (lane, mut accepting) = lane_at(&mut a, &present, Arc::clone(&before));
    let number = a.add_lane(now, lane.unwrap()).unwrap();
    let mut join = Vec::new();
    a.poll_output(now, number, &mut join);
    let Some(Accepted::Lane(request)) = accepting.handle_input(now, &join).unwrap() else { panic!("no lane") };
    assert_eq!(b.join(now, request).map_err(drop), Ok(number));

    // Of a session that is not known, or is known no more, it is not.
    let (mut other, _b) = established(owner.dial(&floors, Dialler::Anonymous), &old).unwrap();
    assert!(matches!(lane_at(&mut other, &present, before).0, Err(LaneError::OtherReplica)));

    // Nor does what is served at one address show what is served at another.
    let node = Acceptor::new(&Credentials::Identity(Identity::generate()), Keepalive::default()).unwrap();
    let before: Arc<dyn Formerly> = Arc::new(Before(hint, former));
    assert!(matches!(lane_at(&mut a, &node, before).0, Err(LaneError::OtherReplica)));
}

#[test]
fn with_a_key_of_before_goes_its_own_hello_and_no_session_begins_under_it() {
    let (owner, floors, now) = (Owner::new(), SerialFloors::new(), Instant::now());
    let (old, new) = (owner.replica(round(7, 5)), owner.replica(round(8, 5)));
    let (a, _b) = established(owner.dial(&floors, Dialler::Anonymous), &old).unwrap();
    let hint = a.session_id().unwrap().lane_hint();
    let former: Arc<dyn Formerly> = Arc::new(Before(hint, acceptor(&old)));
    // A dialler that gives the hint and then wants a session.
    let tls = tls::client(tls::lane_config(&hint).unwrap()).unwrap();
    let (mut raw, mut accepting) = (Raw::with(tls.into()), Accepting::knowing(&acceptor(&new), former, now).unwrap());
    let hello = accepting.handle_input(now, &raw.output()).map(|accepted| {
        assert!(accepted.is_none());
        let mut answer = Vec::new();
        accepting.poll_output(&mut answer);
        raw.input(&answer).unwrap()
    });
    let hello = proto::Hello::decode(&hello.unwrap()[0].payload[..]).unwrap();
    assert_eq!(hello.delegation, old.delegation().to_bytes()[..]);
    assert_eq!(tls::server_key(&raw.tls).unwrap(), *old.session_key().public_key().as_bytes());
    raw.send_proof(&anonymous());
    let refused = accepting.handle_input(now, &raw.output());
    assert!(matches!(refused, Err(SessionError::OutOfPlace(_))), "{refused:?}");
}
