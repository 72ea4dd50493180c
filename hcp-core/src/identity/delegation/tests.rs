use std::thread;

use curve25519_dalek::constants::EIGHT_TORSION;
use curve25519_dalek::edwards::CompressedEdwardsY;

use super::*;
use crate::identity::Identity;

const NOW: u64 = 1_790_000_000;
const DAY: u64 = 86_400;

fn span(from: u64, to: u64) -> Validity {
    Validity::new(from, to).expect("in order")
}

fn round(serial: u64, lowest: u64) -> Round {
    Round::new(serial, lowest, span(NOW - DAY, NOW + DAY)).expect("floor fits")
}

/// What a server shows, every part of which a test can spoil.
#[derive(Clone)]
struct Shown {
    service: Identity,
    owner: OwnerKey,
    certificate: Vec<u8>,
    delegation: Vec<u8>,
    key: [u8; 32],
}

impl Shown {
    fn good() -> Self {
        Self::of_service(1)
    }

    fn of_service(seed: u8) -> Self {
        let (service, owner) = (Identity::from_seed(&[seed; 32]), OwnerKey::from_seed(&[seed + 100; 32]));
        let session = SessionKey::from_seed(&[seed + 200; 32]).public_key();
        let certificate = OwnerCertificate::issue(&service, owner.public_key(), span(NOW - 9 * DAY, NOW + 9 * DAY));
        let delegation = owner.delegate(service.address(), session, round(7, 3));
        let (certificate, delegation) = (certificate.to_bytes().to_vec(), delegation.to_bytes().to_vec());
        Self { service, owner, certificate, delegation, key: *session.as_bytes() }
    }

    fn certified(mut self, validity: Validity) -> Self {
        let certificate = OwnerCertificate::issue(&self.service, self.owner.public_key(), validity);
        self.certificate = certificate.to_bytes().to_vec();
        self
    }

    fn delegated(mut self, round: Round) -> Self {
        let session = PublicKey::from_bytes(self.key).expect("a key");
        self.delegation = self.owner.delegate(self.service.address(), session, round).to_bytes().to_vec();
        self
    }

    fn verify_at(&self, now: u64, floors: &SerialFloors) -> Result<Delegation, DelegationError> {
        verify(self.service.address(), &self.certificate, &self.delegation, &self.key, now, floors)
    }

    fn refusal(&self) -> DelegationError {
        let floors = SerialFloors::new();
        let error = self.verify_at(NOW, &floors).expect_err("refused");
        assert_eq!(floors.export(), [], "a refused delegation leaves no floor");
        error
    }
}

#[test]
fn takes_what_the_owner_signed_and_remembers_its_floor() {
    let floors = SerialFloors::new();
    let (shown, verified) = (Shown::good(), Shown::good().verify_at(NOW, &floors).expect("good"));
    assert_eq!((verified.serial(), verified.lowest_serial()), (7, 3));
    assert_eq!(verified.session_key().as_bytes(), &shown.key);
    assert_eq!(verified.validity(), span(NOW - DAY, NOW + DAY));
    assert_eq!(floors.export(), [(shown.service.address(), 3)]);
}

#[test]
fn the_layout_is_that_of_the_protocol() {
    let (service, owner) = (Identity::from_seed(&[1; 32]), OwnerKey::from_seed(&[2; 32]));
    let session = SessionKey::from_seed(&[3; 32]);
    let certificate = OwnerCertificate::issue(&service, owner.public_key(), span(4, 5)).to_bytes();
    assert_eq!(certificate.len(), 112);
    assert_eq!(&certificate[..32], owner.public_key().as_bytes());
    assert_eq!(certificate[32..48], [0, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0, 5]);
    let signed = [b"HCP/1 owner certificate\0", &service.address().public_key()[..], &certificate[..48]].concat();
    assert_eq!(certificate[48..], service.sign(&signed));

    let round = Round::new(7, 6, span(4, 5)).expect("floor fits");
    let delegation = owner.delegate(service.address(), session.public_key(), round).to_bytes();
    assert_eq!(delegation.len(), 128);
    assert_eq!(&delegation[..32], session.public_key().as_bytes());
    assert_eq!(delegation[32..48], certificate[32..48]);
    assert_eq!(delegation[48..64], [0, 0, 0, 0, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0, 6]);
    let signed = [b"HCP/1 delegation\0", &service.address().public_key()[..], &delegation[..64]].concat();
    // The owner key signs plain Ed25519, as any key does.
    assert_eq!(delegation[64..], Identity::from_seed(&[2; 32]).sign(&signed));
}

#[test]
fn refuses_wrong_lengths_and_fields_that_cannot_be() {
    let good = Shown::good();
    for (certificate, delegation) in [(0, 0), (0, 128), (112, 0), (111, 128), (113, 128), (112, 127), (112, 129)] {
        let mut bad = good.clone();
        bad.certificate.resize(certificate, 0);
        bad.delegation.resize(delegation, 0);
        assert_eq!(bad.refusal(), DelegationError::Malformed, "{certificate}, {delegation}");
    }
    let mut disguise = CompressedEdwardsY(good.key).decompress().expect("a key");
    disguise += EIGHT_TORSION[1];
    for key in [[0xff; 32], EIGHT_TORSION[1].compress().0, disguise.compress().0] {
        assert_eq!(PublicKey::from_bytes(key), Err(IssueError::NotAKey));
        // Times in the wrong order.
        for (place, bytes) in [(0, &key[..]), (32, &u64::MAX.to_be_bytes()[..])] {
            let (mut bad, mut worse) = (good.clone(), good.clone());
            bad.certificate[place..place + bytes.len()].copy_from_slice(bytes);
            assert_eq!(bad.refusal(), DelegationError::Malformed);
            worse.delegation[place..place + bytes.len()].copy_from_slice(bytes);
            assert_eq!(worse.refusal(), DelegationError::Malformed);
        }
    }
}

#[test]
fn refuses_what_was_made_for_another_service() {
    let (mut shown, other) = (Shown::good(), Shown::of_service(2));
    shown.certificate.clone_from(&other.certificate);
    shown.delegation.clone_from(&other.delegation);
    shown.key = other.key;
    assert_eq!(shown.refusal(), DelegationError::ForeignService);
    // One owner key that serves two services does not join them.
    let mut shown = Shown::good();
    let twin = Identity::from_seed(&[2; 32]);
    let certificate = OwnerCertificate::issue(&twin, shown.owner.public_key(), span(NOW - DAY, NOW + DAY));
    let session = PublicKey::from_bytes(shown.key).expect("a key");
    shown.delegation = shown.owner.delegate(twin.address(), session, round(7, 3)).to_bytes().to_vec();
    assert_eq!(shown.refusal(), DelegationError::TamperedDelegation);
    shown.certificate = certificate.to_bytes().to_vec();
    assert_eq!(shown.refusal(), DelegationError::ForeignService);
}

#[test]
fn refuses_a_certificate_that_the_identity_did_not_sign() {
    let good = Shown::good();
    // From the times on, so that the owner key still fits the delegation.
    for place in 40..OwnerCertificate::LEN {
        let mut bad = good.clone();
        bad.certificate[place] ^= 1;
        let expected = if place < 48 && OwnerCertificate::from_bytes(&bad.certificate).is_err() {
            DelegationError::Malformed
        } else {
            DelegationError::TamperedCertificate
        };
        assert_eq!(bad.refusal(), expected, "byte {place}");
    }
    // Somebody who has only an owner key certifies it with it.
    let mut bad = good.clone();
    let own = Identity::from_seed(&[101; 32]);
    let content =
        [b"HCP/1 owner certificate\0", &good.service.address().public_key()[..], &good.certificate[..48]].concat();
    bad.certificate[48..].copy_from_slice(&own.sign(&content));
    assert_eq!(bad.refusal(), DelegationError::TamperedCertificate);
}

#[test]
fn refuses_a_delegation_that_the_owner_did_not_sign() {
    let good = Shown::good();
    let mut refused = 0;
    for place in 0..Delegation::LEN {
        let mut bad = good.clone();
        bad.delegation[place] ^= 1;
        let expected = match Delegation::from_bytes(&bad.delegation) {
            Ok(_) => DelegationError::TamperedDelegation,
            Err(error) => error,
        };
        refused += usize::from(expected == DelegationError::TamperedDelegation);
        assert_eq!(bad.refusal(), expected, "byte {place}");
    }
    assert!(refused > 64 + 16, "whatever still parses is told by its signature: {refused}");
    // The service's identity does not sign delegations itself, and another owner's do not count.
    for signer in [good.service.clone(), Identity::from_seed(&[55; 32])] {
        let mut bad = good.clone();
        let content =
            [b"HCP/1 delegation\0", &good.service.address().public_key()[..], &good.delegation[..64]].concat();
        bad.delegation[64..].copy_from_slice(&signer.sign(&content));
        assert_eq!(bad.refusal(), DelegationError::TamperedDelegation);
    }
}

#[test]
fn refuses_another_session_key() {
    let mut shown = Shown::good();
    shown.key = *SessionKey::generate().public_key().as_bytes();
    assert_eq!(shown.refusal(), DelegationError::OtherSessionKey);
}

#[test]
fn times_are_good_to_within_the_clock_skew_and_no_further() {
    let floors = SerialFloors::new();
    let (from, to) = (NOW - 10, NOW + 10);
    let wide = span(NOW - DAY, NOW + DAY);
    let narrow = Round::new(7, 3, span(from, to)).expect("floor fits");
    let cases = [
        (
            Shown::good().certified(span(from, to)),
            DelegationError::CertificateNotYetValid,
            DelegationError::CertificateExpired,
        ),
        (Shown::good().certified(wide).delegated(narrow), DelegationError::NotYetValid, DelegationError::Expired),
    ];
    for (shown, early, late) in cases {
        for now in [from - 300, from, NOW, to, to + 300] {
            assert!(shown.verify_at(now, &floors).is_ok(), "{now}");
        }
        assert_eq!(shown.verify_at(from - 301, &floors), Err(early));
        assert_eq!(shown.verify_at(to + 301, &floors), Err(late));
    }
    // Where the clock and the times end.
    let always =
        Shown::good().certified(span(0, u64::MAX)).delegated(Round::new(7, 3, span(0, u64::MAX)).expect("floor fits"));
    for now in [0, u64::MAX] {
        assert!(always.verify_at(now, &floors).is_ok(), "{now}");
    }
    let never = Shown::good().certified(span(0, 0));
    assert_eq!(never.verify_at(u64::MAX, &floors), Err(DelegationError::CertificateExpired));
}

#[test]
fn a_serial_below_a_floor_is_refused() {
    let floors = SerialFloors::new();
    let shown = |serial, lowest| Shown::good().delegated(round(serial, lowest));
    let service = Shown::good().service.address();
    assert!(shown(7, 3).verify_at(NOW, &floors).is_ok());
    assert_eq!(shown(2, 0).verify_at(NOW, &floors), Err(DelegationError::BelowFloor));
    assert!(shown(3, 0).verify_at(NOW, &floors).is_ok(), "at the floor");
    assert_eq!(floors.floor(service), 3, "a lower floor lowers nothing");
    assert!(shown(9, 9).verify_at(NOW, &floors).is_ok());
    assert_eq!(shown(7, 3).verify_at(NOW, &floors), Err(DelegationError::BelowFloor));
    // Another service has a floor of its own.
    assert!(Shown::of_service(2).verify_at(NOW, &floors).is_ok());
    // The owner's own tools do not issue what is below its own floor.
    assert_eq!(Round::new(2, 3, span(0, 1)), Err(IssueError::FloorAboveSerial));
    floors.forget(service);
    assert!(shown(7, 3).verify_at(NOW, &floors).is_ok());
}

#[test]
fn a_serial_below_its_own_floor_is_refused() {
    // No tool of ours makes one.
    let mut shown = Shown::good();
    shown.delegation[48..56].copy_from_slice(&2_u64.to_be_bytes());
    let content = [b"HCP/1 delegation\0", &shown.service.address().public_key()[..], &shown.delegation[..64]].concat();
    shown.delegation[64..].copy_from_slice(&Identity::from_seed(&[101; 32]).sign(&content));
    assert_eq!(shown.refusal(), DelegationError::BelowFloor);
}

#[test]
fn floors_are_kept_across_runs_and_shared_by_clones() {
    let floors = SerialFloors::new();
    let addresses: Vec<_> = (1..=3).map(|seed| Identity::from_seed(&[seed; 32]).address()).collect();
    floors.import([(addresses[0], 5), (addresses[1], 6), (addresses[2], 0)]);
    let shared = floors.clone();
    shared.import([(addresses[0], 4)]);
    assert_eq!(floors.export(), [(addresses[1], 6), (addresses[0], 5)], "last reached last; 0 says nothing");
    let later = SerialFloors::new();
    later.import(floors.export());
    assert_eq!(later.export(), floors.export());
    assert_eq!(later.floor(addresses[2]), 0);
    assert_eq!(format!("{later:?}"), "SerialFloors { services: 2 }");
}

#[test]
fn floors_are_bounded_and_forget_what_was_not_reached_for_longest() {
    let floors = SerialFloors::new();
    let address = |i: u32| {
        let mut seed = [0; 32];
        seed[..4].copy_from_slice(&i.to_be_bytes());
        Identity::from_seed(&seed).address()
    };
    let capacity = u32::try_from(SerialFloors::CAPACITY).expect("small");
    floors.import((0..capacity).map(|i| (address(i), 1)));
    floors.import([(address(0), 1), (address(capacity), 1)]);
    assert_eq!(floors.export().len(), SerialFloors::CAPACITY);
    assert_eq!(floors.floor(address(0)), 1, "reached again");
    assert_eq!(floors.floor(address(1)), 0, "the oldest went");
    assert_eq!(floors.floor(address(capacity)), 1);
}

#[test]
fn of_many_at_once_the_highest_floor_stays() {
    let floors = SerialFloors::new();
    let service = Shown::good().service.address();
    thread::scope(|scope| {
        for serial in 1..=16 {
            let floors = floors.clone();
            scope.spawn(move || drop(Shown::good().delegated(round(serial, serial)).verify_at(NOW, &floors)));
        }
    });
    assert_eq!(floors.floor(service), 16);
}

#[test]
fn credentials_belong_together() {
    let (shown, other) = (Shown::good(), Shown::of_service(2));
    let (certificate, delegation) = (
        |s: &Shown| OwnerCertificate::from_bytes(&s.certificate).expect("parses"),
        |s: &Shown| Delegation::from_bytes(&s.delegation).expect("parses"),
    );
    let session = || SessionKey::from_seed(&[201; 32]);
    let service = shown.service.address();
    let make = |certificate, delegation, key| ReplicaCredentials::new(service, certificate, delegation, key).err();
    assert_eq!(make(certificate(&shown), delegation(&shown), session()), None);
    assert_eq!(make(certificate(&other), delegation(&other), session()), Some(DelegationError::ForeignService));
    assert_eq!(make(certificate(&other), delegation(&shown), session()), Some(DelegationError::ForeignService));
    assert_eq!(make(certificate(&shown), delegation(&other), session()), Some(DelegationError::TamperedDelegation));
    assert_eq!(
        make(certificate(&shown), delegation(&shown), SessionKey::generate()),
        Some(DelegationError::OtherSessionKey)
    );

    let good = ReplicaCredentials::new(service, certificate(&shown), delegation(&shown), session()).expect("good");
    assert_eq!(good.check(NOW), Ok(()));
    assert_eq!(good.check(NOW - 2 * DAY), Err(DelegationError::NotYetValid));
    assert_eq!(good.check(NOW + 2 * DAY), Err(DelegationError::Expired));
    assert_eq!(good.check(NOW + 10 * DAY), Err(DelegationError::CertificateExpired));
    assert_eq!(good.check(0), Err(DelegationError::CertificateNotYetValid));
}

#[test]
fn nothing_here_prints_a_key_or_an_address() {
    let shown = Shown::good();
    let credentials = ReplicaCredentials::new(
        shown.service.address(),
        OwnerCertificate::from_bytes(&shown.certificate).expect("parses"),
        Delegation::from_bytes(&shown.delegation).expect("parses"),
        SessionKey::from_seed(&[201; 32]),
    );
    let credentials = credentials.expect("good");
    assert_eq!(format!("{credentials:?}"), "ReplicaCredentials([redacted])");
    assert_eq!(format!("{:?}", credentials.session_key()), "SessionKey([redacted])");
    assert_eq!(format!("{:?}", shown.owner), "OwnerKey([redacted])");
    assert_eq!(format!("{:?}", shown.owner.public_key()), "PublicKey([redacted])");
    let printed = format!("{:?} {:?}", credentials.certificate(), credentials.delegation());
    let numbers = printed.chars().filter(char::is_ascii_digit).count();
    assert_eq!(numbers, 4 * 10 + 2, "four times and two serials: {printed}");
}

#[test]
fn each_refusal_says_what_it_is() {
    assert_eq!(DelegationError::Malformed.kind(), ErrorKind::ProtocolViolation);
    for error in [DelegationError::Expired, DelegationError::BelowFloor, DelegationError::ForeignService] {
        assert_eq!(error.kind(), ErrorKind::Authentication);
    }
    assert_eq!(Validity::new(2, 1), Err(IssueError::EmptyTime));
    assert_eq!(IssueError::EmptyTime.kind(), ErrorKind::InvalidInput);
}
