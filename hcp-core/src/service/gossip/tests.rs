//! That messages survive the wire, and what is refused.

use std::sync::Arc;

use super::*;
use crate::identity::Identity;
use crate::service::roster::Role;
use crate::service::tuning::{MAX_CLAIMS, MAX_HELD, MAX_MESSAGE, MAX_PUBLICATIONS, MAX_TAGS};

fn service() -> OnionAddress {
    Identity::from_seed(&[1; 32]).address()
}

fn member(seed: u8) -> Identity {
    Identity::from_seed(&[seed; 32])
}

fn roster() -> Roster {
    Roster::new((11..40).map(|seed| (member(seed).address(), Role::Publisher))).unwrap()
}

fn sign(seed: u8) -> Sign {
    Arc::new(move |message| member(seed).sign(message))
}

fn decode(message: &Message) -> Result<Message, GossipError> {
    Message::decode(&message.encode(), service(), &roster())
}

fn period() -> Period {
    Period { number: 3, length: 1_440, offset: 43_200 }
}

fn pulse(seed: u8, count: u64) -> Pulse {
    Pulse::sign(service(), member(seed).address(), 5, count, &sign(seed))
}

/// A record with all that it may hold.
fn full_record(seed: u8) -> SignedRecord {
    let author = member(seed).address();
    let secrets: Vec<_> = (0..3).map(|point| PointSecrets::from_bytes(&[100 + point; 64])).collect();
    let points: Vec<_> = secrets.iter().enumerate().map(|(at, s)| s.describe(RelayId([at as u8; 32]))).collect();
    let proofs: Vec<_> =
        points.iter().zip(&secrets).map(|(point, secrets)| prove_point(service(), author, point, secrets)).collect();
    let left_out = (11..27).map(|seed| member(seed).address()).collect();
    let publication = Publication { period: period(), set: [6; 32], rotation: 9, at: u64::MAX, left_out };
    let record = Record {
        incarnation: u64::MAX,
        version: u64::MAX,
        points,
        holds: vec![period(); 8],
        publications: vec![publication; MAX_PUBLICATIONS],
        taken: vec![PointId([8; 32]); MAX_CLAIMS],
        stopping: true,
    };
    SignedRecord::sign(service(), author, record, &proofs, &sign(seed))
}

#[test]
fn every_message_reads_as_it_was_written() {
    let other = member(13).address();
    let point = PointId([3; 32]);
    let messages = [
        Message::Heartbeat(Heartbeat {
            sent: 1,
            echo: Some(Echo { sent: 0, held: 7 }),
            wall: 9,
            pulse: pulse(12, 4),
            seeking: vec![other],
            sightings: vec![pulse(13, 2)],
        }),
        Message::Record(full_record(12)),
        Message::Entrust(Entrust {
            incarnation: 4,
            relay: RelayId([1; 32]),
            secrets: PointSecrets::from_bytes(&[9; 64]),
            holders: vec![other, member(14).address()],
            before: 77,
        }),
        Message::Tags(Tags { point, first: 3, tags: vec![[1; 32]; MAX_TAGS] }),
        Message::Held(vec![(point, 8)]),
        Message::Ask { point, nonce: 5 },
        Message::Promise { point, nonce: 5, answer: Answer::KeepsAway(3_000) },
        Message::Promise { point, nonce: 5, answer: Answer::Taken },
        Message::Release(point),
        Message::Forget(point),
        Message::Heard([4; 16]),
        Message::Reached(other),
    ];
    for message in messages {
        let decoded = decode(&message).unwrap();
        assert!(message.encode().len() <= MAX_MESSAGE);
        assert_eq!(decoded.encode(), message.encode());
        assert_eq!(std::mem::discriminant(&decoded), std::mem::discriminant(&message));
    }
}

#[test]
fn a_record_holds_what_its_author_signed() {
    let signed = full_record(12);
    let Message::Record(read) = decode(&Message::Record(signed.clone())).unwrap() else { panic!() };
    assert_eq!(read.record(), signed.record());
    assert_eq!(read.member(), member(12).address());
}

#[test]
fn a_record_of_another_service_or_author_is_refused() {
    let signed = full_record(12);
    let bytes = Message::Record(signed.clone()).encode();
    let elsewhere = Message::decode(&bytes, member(2).address(), &roster());
    assert_eq!(elsewhere.unwrap_err(), GossipError::Signature);
    let mut proto = signed.to_proto();
    proto.member = member(13).address().public_key().to_vec().into();
    let forged = SignedRecord::from_proto(proto, service(), &roster());
    assert_eq!(forged.unwrap_err(), GossipError::Signature);
}

#[test]
fn a_member_cannot_announce_a_point_whose_secrets_it_does_not_have() {
    let (owner, thief) = (member(12).address(), member(13).address());
    let secrets = PointSecrets::from_bytes(&[9; 64]);
    let point = secrets.describe(RelayId([1; 32]));
    let proof = prove_point(service(), owner, &point, &secrets);
    let record = |points| Record {
        incarnation: 1,
        version: 1,
        points,
        holds: Vec::new(),
        publications: Vec::new(),
        taken: Vec::new(),
        stopping: false,
    };
    let stolen = SignedRecord::sign(service(), thief, record(vec![point]), &[proof], &sign(13));
    assert_eq!(decode(&Message::Record(stolen)).unwrap_err(), GossipError::Signature);
    // Nor its own point at a relay for which the proof is not.
    let moved = PointDescription { relay: RelayId([2; 32]), ..point };
    let moved = SignedRecord::sign(service(), owner, record(vec![moved]), &[proof], &sign(12));
    assert_eq!(decode(&Message::Record(moved)).unwrap_err(), GossipError::Signature);
    // Nor one with a key by which everybody could read what is introduced there.
    let weak = PointDescription { ntor: [0; 32], ..point };
    let proof = prove_point(service(), owner, &weak, &secrets);
    let weak = SignedRecord::sign(service(), owner, record(vec![weak]), &[proof], &sign(12));
    assert_eq!(decode(&Message::Record(weak)).unwrap_err(), GossipError::Point);
    // Nor the same one twice.
    let proof = prove_point(service(), owner, &point, &secrets);
    let twice = SignedRecord::sign(service(), owner, record(vec![point; 2]), &[proof; 2], &sign(12));
    assert_eq!(decode(&Message::Record(twice)).unwrap_err(), GossipError::Point);
}

#[test]
fn nobody_says_of_somebody_else_that_it_lives() {
    let forged = Pulse { member: member(13).address(), ..pulse(12, 4) };
    let heartbeat =
        Heartbeat { sent: 1, echo: None, wall: 0, pulse: pulse(12, 1), seeking: vec![], sightings: vec![forged] };
    assert_eq!(decode(&Message::Heartbeat(heartbeat)).unwrap_err(), GossipError::Signature);
}

#[test]
fn what_is_beyond_its_limits_is_refused() {
    let point = PointId([3; 32]);
    let tags = Message::Tags(Tags { point, first: 0, tags: vec![[1; 32]; MAX_TAGS + 1] });
    assert_eq!(decode(&tags).unwrap_err(), GossipError::Limit("marks"));
    let held = Message::Held(vec![(point, 0); MAX_HELD + 1]);
    assert_eq!(decode(&held).unwrap_err(), GossipError::Limit("points held"));
    let long = Message::Tags(Tags { point, first: 0, tags: vec![[1; 32]; MAX_MESSAGE / 32] });
    assert_eq!(decode(&long).unwrap_err(), GossipError::TooLong);
    assert_eq!(Message::decode(&[], service(), &roster()).unwrap_err(), GossipError::Malformed);
}

#[test]
fn who_is_no_member_is_a_stranger() {
    assert_eq!(decode(&Message::Reached(member(99).address())).unwrap_err(), GossipError::Stranger);
    let heartbeat = Heartbeat {
        sent: 1,
        echo: None,
        wall: 0,
        pulse: pulse(12, 1),
        seeking: vec![member(99).address(), member(13).address()],
        sightings: vec![pulse(99, 1)],
    };
    let Message::Heartbeat(read) = decode(&Message::Heartbeat(heartbeat)).unwrap() else { panic!() };
    assert_eq!((read.seeking.len(), read.sightings.len()), (1, 0));
}
