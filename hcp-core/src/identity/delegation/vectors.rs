//! `tests/vectors/delegation.json`: what another implementation must take and refuse.

use std::path::Path;
use std::{env, fs};

use data_encoding::HEXLOWER;
use serde_json::{Value, json};

use super::*;
use crate::identity::Identity;

const NOW: u64 = 1_790_000_000;
const DAY: u64 = 86_400;

/// One case, as it starts from the good one.
#[derive(Clone)]
struct Case {
    service: OnionAddress,
    certificate: Vec<u8>,
    delegation: Vec<u8>,
    server_key: [u8; 32],
    now: u64,
    floor: u64,
}

impl Case {
    fn verdict(&self) -> (Result<Delegation, DelegationError>, u64) {
        let floors = SerialFloors::new();
        floors.import([(self.service, self.floor)]);
        let result = verify(self.service, &self.certificate, &self.delegation, &self.server_key, self.now, &floors);
        (result, floors.floor(self.service))
    }

    fn to_json(&self, name: &str) -> Value {
        let (result, floor_after) = self.verdict();
        json!({
            "name": name,
            "service": HEXLOWER.encode(self.service.public_key()),
            "certificate": HEXLOWER.encode(&self.certificate),
            "delegation": HEXLOWER.encode(&self.delegation),
            "server_key": HEXLOWER.encode(&self.server_key),
            "now": self.now,
            "floor": self.floor,
            "good": result.is_ok(),
            "verdict": word(result.err()),
            "floor_after": floor_after,
        })
    }
}

fn word(refusal: Option<DelegationError>) -> &'static str {
    match refusal {
        None => "good",
        Some(DelegationError::Malformed) => "malformed",
        Some(DelegationError::ForeignService) => "foreign service",
        Some(DelegationError::TamperedCertificate) => "tampered certificate",
        Some(DelegationError::CertificateNotYetValid) => "certificate not yet valid",
        Some(DelegationError::CertificateExpired) => "certificate expired",
        Some(DelegationError::TamperedDelegation) => "tampered delegation",
        Some(DelegationError::NotYetValid) => "not yet valid",
        Some(DelegationError::Expired) => "expired",
        Some(DelegationError::OtherSessionKey) => "other session key",
        Some(DelegationError::BelowFloor) => "below the floor",
    }
}

fn span(from: u64, to: u64) -> Validity {
    Validity::new(from, to).expect("in order")
}

fn vectors() -> Value {
    let (service_seed, owner_seed, session_seed) = ([1; 32], [2; 32], [3; 32]);
    let (service, owner) = (Identity::from_seed(&service_seed), OwnerKey::from_seed(&owner_seed));
    let session = SessionKey::from_seed(&session_seed).public_key();
    let validity = span(NOW - DAY, NOW + DAY);
    let issue = |validity| OwnerCertificate::issue(&service, owner.public_key(), validity).to_bytes().to_vec();
    let delegate = |serial, lowest, validity| {
        let round = Round::new(serial, lowest, validity).expect("floor fits");
        owner.delegate(service.address(), session, round).to_bytes().to_vec()
    };
    let good = Case {
        service: service.address(),
        certificate: issue(span(NOW - 30 * DAY, NOW + 30 * DAY)),
        delegation: delegate(7, 5, validity),
        server_key: *session.as_bytes(),
        now: NOW,
        floor: 0,
    };
    let with = |change: &dyn Fn(&mut Case)| {
        let mut case = good.clone();
        change(&mut case);
        case
    };
    let other = Identity::from_seed(&[4; 32]);
    let of_other = OwnerCertificate::issue(&other, owner.public_key(), validity).to_bytes().to_vec();
    let to_other = owner.delegate(other.address(), session, Round::new(7, 5, validity).expect("floor fits"));
    let short = span(NOW - 10, NOW + 10);
    let (early, late) = (NOW - 10 - CLOCK_SKEW, NOW + 10 + CLOCK_SKEW);
    let cases: [(&str, Case); 30] = [
        ("good", good.clone()),
        ("good: floor known is that of the delegation", with(&|c| c.floor = 5)),
        ("good: serial at the known floor", with(&|c| c.floor = 7)),
        ("good: no floor", with(&|c| c.delegation = delegate(0, 0, validity))),
        ("good: highest numbers", with(&|c| c.delegation = delegate(u64::MAX, u64::MAX, span(0, u64::MAX)))),
        ("serial below the known floor", with(&|c| c.floor = 8)),
        (
            "serial below its own floor",
            with(&|c| {
                c.delegation[48..56].copy_from_slice(&4_u64.to_be_bytes());
                let content = signed(b"HCP/1 delegation\0", c.service, &c.delegation[..64]);
                c.delegation[64..].copy_from_slice(&Identity::from_seed(&owner_seed).sign(&content));
            }),
        ),
        ("certificate: first good second", with(&|c| (c.certificate, c.now) = (issue(short), early))),
        ("certificate: one second earlier", with(&|c| (c.certificate, c.now) = (issue(short), early - 1))),
        ("certificate: last good second", with(&|c| (c.certificate, c.now) = (issue(short), late))),
        ("certificate: one second later", with(&|c| (c.certificate, c.now) = (issue(short), late + 1))),
        ("delegation: first good second", with(&|c| (c.delegation, c.now) = (delegate(7, 5, short), early))),
        ("delegation: one second earlier", with(&|c| (c.delegation, c.now) = (delegate(7, 5, short), early - 1))),
        ("delegation: last good second", with(&|c| (c.delegation, c.now) = (delegate(7, 5, short), late))),
        ("delegation: one second later", with(&|c| (c.delegation, c.now) = (delegate(7, 5, short), late + 1))),
        ("server shows another key", with(&|c| c.server_key = *other.address().public_key())),
        ("another service was dialled", with(&|c| c.service = other.address())),
        ("certificate of another service", with(&|c| c.certificate.clone_from(&of_other))),
        ("delegation for another service", with(&|c| c.delegation = to_other.to_bytes().to_vec())),
        ("certificate: longer time", with(&|c| c.certificate[47] ^= 1)),
        ("certificate: signature", with(&|c| c.certificate[111] ^= 1)),
        ("delegation: longer time", with(&|c| c.delegation[47] ^= 1)),
        ("delegation: serial", with(&|c| c.delegation[55] ^= 1)),
        ("delegation: signature", with(&|c| c.delegation[64] ^= 1)),
        (
            "delegation signed by the service's identity",
            with(&|c| {
                let content = signed(b"HCP/1 delegation\0", c.service, &c.delegation[..64]);
                c.delegation[64..].copy_from_slice(&service.sign(&content));
            }),
        ),
        ("both empty", with(&|c| (c.certificate, c.delegation) = (Vec::new(), Vec::new()))),
        ("certificate too long", with(&|c| c.certificate.push(0))),
        ("delegation too short", with(&|c| c.delegation.truncate(127))),
        (
            "owner key of small order",
            with(&|c| {
                c.certificate[..32].fill(0);
                c.certificate[0] = 1;
                let content = signed(b"HCP/1 owner certificate\0", c.service, &c.certificate[..48]);
                c.certificate[48..].copy_from_slice(&service.sign(&content));
            }),
        ),
        (
            "times in the wrong order",
            with(&|c| {
                c.delegation[32..40].copy_from_slice(&(NOW + 2).to_be_bytes());
                c.delegation[40..48].copy_from_slice(&(NOW + 1).to_be_bytes());
                let content = signed(b"HCP/1 delegation\0", c.service, &c.delegation[..64]);
                c.delegation[64..].copy_from_slice(&Identity::from_seed(&owner_seed).sign(&content));
            }),
        ),
    ];
    json!({
        "keys": {
            "service_seed": HEXLOWER.encode(&service_seed),
            "service": HEXLOWER.encode(service.address().public_key()),
            "owner_seed": HEXLOWER.encode(&owner_seed),
            "owner_key": HEXLOWER.encode(owner.public_key().as_bytes()),
            "session_seed": HEXLOWER.encode(&session_seed),
            "session_key": HEXLOWER.encode(session.as_bytes()),
        },
        "certificate_signed_bytes":
            HEXLOWER.encode(&signed(b"HCP/1 owner certificate\0", good.service, &good.certificate[..48])),
        "delegation_signed_bytes": HEXLOWER.encode(&signed(b"HCP/1 delegation\0", good.service, &good.delegation[..64])),
        "cases": cases.iter().map(|(name, case)| case.to_json(name)).collect::<Vec<_>>(),
    })
}

#[test]
fn vectors_are_what_this_code_says() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors/delegation.json");
    let made = format!("{:#}\n", vectors());
    if env::var_os("HCP_WRITE_VECTORS").is_some() {
        fs::create_dir_all(path.parent().expect("in a folder")).expect("made");
        fs::write(&path, &made).expect("written");
    }
    let kept = fs::read_to_string(&path).expect("tests/vectors/delegation.json is part of the source");
    assert!(kept == made, "delegation.json differs from what this code says; HCP_WRITE_VECTORS=1 rewrites it");
}

#[test]
fn vectors_hold_every_verdict() {
    let vectors = vectors();
    let cases = vectors["cases"].as_array().expect("a list");
    let verdicts: std::collections::BTreeSet<&str> = cases.iter().filter_map(|case| case["verdict"].as_str()).collect();
    assert_eq!(verdicts.len(), 11, "{verdicts:?}");
    for case in cases {
        let name = case["name"].as_str().expect("named");
        let said_good = ["good", "first good", "last good"].iter().any(|word| name.contains(word));
        assert_eq!(case["good"].as_bool(), Some(said_good), "{name}");
    }
}
