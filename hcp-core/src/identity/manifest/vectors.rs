//! `tests/vectors/manifest.json`: what another implementation must take and refuse, and which of two counts.

use std::collections::BTreeSet;
use std::path::Path;
use std::{env, fs};

use data_encoding::HEXLOWER;
use serde_json::{Value, json};

use super::*;
use crate::identity::delegation::Validity;
use crate::identity::{DiscoveryKey, DiscoveryPublicKey, Identity, LogKey};

const NOW: u64 = 1_790_000_000;
const DAY: u64 = 86_400;

#[derive(Clone)]
struct Case {
    service: OnionAddress,
    certificate: OwnerCertificate,
    manifest: Vec<u8>,
    now: u64,
}

impl Case {
    fn to_json(&self, name: &str) -> Value {
        let result = Manifest::verify(self.service, &self.certificate, &self.manifest, self.now);
        json!({
            "name": name,
            "service": HEXLOWER.encode(self.service.public_key()),
            "certificate": HEXLOWER.encode(&self.certificate.to_bytes()),
            "manifest": HEXLOWER.encode(&self.manifest),
            "now": self.now,
            "good": result.is_ok(),
            "verdict": result.err().map_or("good".to_owned(), |error| format!("{error:?}")),
        })
    }
}

fn member(n: u8, role: Role) -> Member {
    let (address, log) = (Identity::from_seed(&[n; 32]).address(), LogKey::from_seed(&[n + 100; 32]));
    Member::new(address, log.public_key(), role).expect("two keys")
}

fn discovery(n: u8) -> DiscoveryPublicKey {
    DiscoveryKey::from_secret_bytes(&[n; 32]).public_key()
}

fn vectors() -> Value {
    let (identity, owner) = (Identity::from_seed(&[1; 32]), OwnerKey::from_seed(&[2; 32]));
    let service = identity.address();
    let issue = |from, to| {
        let validity = Validity::new(from, to).expect("in order");
        OwnerCertificate::issue(&identity, owner.public_key(), validity)
    };
    let members = vec![
        member(10, Role::Listed).named("harbour").expect("a name"),
        member(11, Role::Publisher).named("tower-2").expect("a name"),
        member(12, Role::Publisher),
    ];
    let contents = |version| {
        let contents = Contents::new(version, members.clone()).expect("good");
        contents.lowest_software(SoftwareVersion::new(0, 1, 2))
    };
    let sign = |contents| Manifest::sign(&owner, service, contents).expect("signed");
    let good = sign(contents(7).shared(b"shared".to_vec()).expect("fits"));
    let content = good.contents().to_bytes();
    let start = Case { service, certificate: issue(NOW - DAY, NOW + DAY), manifest: good.to_bytes(), now: NOW };
    let with = |change: &dyn Fn(&mut Case)| {
        let mut case = start.clone();
        change(&mut case);
        case
    };
    // Changes what is signed, and signs it.
    let forged = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut content = content.clone();
        change(&mut content);
        let signature = owner.sign(&signed(PURPOSE, service, &content));
        with(&|case| case.manifest = [&content[..], &signature].concat())
    };
    // Layout, version (8), software (6), count (2); members are in the order of their addresses.
    let first = 17;
    let len = |at: usize| 67 + usize::from(content[at + 65]);
    let (second, third) = (first + len(first), first + len(first) + len(first + len(first)));
    let behind = third + len(third);
    let replace = |at: usize, bytes: &[u8]| {
        let bytes = bytes.to_vec();
        forged(&move |c| c[at..at + bytes.len()].copy_from_slice(&bytes))
    };
    // The same with two members that have discovery keys, and two clients.
    let found = |n| member(n, Role::Publisher).with_discovery_key(discovery(n));
    let restricted =
        Contents::new(8, vec![found(10), found(11)]).and_then(|all| all.restricted_to([20, 21].map(discovery)));
    let restricted = restricted.expect("good");
    let hidden = restricted.to_bytes();
    let changed = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut content = hidden.clone();
        change(&mut content);
        let signature = owner.sign(&signed(PURPOSE, service, &content));
        with(&|case| case.manifest = [&content[..], &signature].concat())
    };
    let (key_of_first, key_of_second, clients) = (first + 67, first + 99 + 67, first + 2 * 99 + 4 + 1);
    let restricted = with(&|case| case.manifest = sign(restricted.clone()).to_bytes());
    let mut small_order = [0; 32];
    small_order[0] = 1;
    let cases: Vec<(&str, Case)> = vec![
        ("good", start.clone()),
        ("good: no names, no configuration, any software", {
            let contents = Contents::new(0, vec![member(12, Role::Publisher)]).expect("good");
            with(&|case| case.manifest = sign(contents.clone()).to_bytes())
        }),
        ("good: first good second of the certificate", with(&|c| c.now = NOW - DAY - 300)),
        ("certificate: one second earlier", with(&|c| c.now = NOW - DAY - 301)),
        ("good: last good second of the certificate", with(&|c| c.now = NOW + DAY + 300)),
        ("certificate: one second later", with(&|c| c.now = NOW + DAY + 301)),
        ("another service", with(&|c| c.service = Identity::from_seed(&[4; 32]).address())),
        ("certificate of another owner key", {
            let validity = Validity::new(NOW - DAY, NOW + DAY).expect("in order");
            let other = OwnerKey::from_seed(&[5; 32]).public_key();
            with(&|c| c.certificate = OwnerCertificate::issue(&identity, other, validity))
        }),
        ("signed for another service", {
            let other = Identity::from_seed(&[4; 32]).address();
            let elsewhere = Manifest::sign(&owner, other, contents(7)).expect("signed").to_bytes();
            with(&|c| c.manifest.clone_from(&elsewhere))
        }),
        ("version altered", with(&|c| c.manifest[8] ^= 1)),
        ("signature altered", with(&|c| *c.manifest.last_mut().expect("some") ^= 1)),
        ("empty", with(&|c| c.manifest.clear())),
        ("unknown layout", replace(0, &[2])),
        ("no members", forged(&|c| c.splice(15..behind, [0, 0]).for_each(drop))),
        ("129 members", replace(15, &[0, 129])),
        ("fewer members than counted", replace(15, &[0, 4])),
        ("members out of order", {
            let parts = [&content[first..second], &content[second..third]];
            let swapped = [parts[1], parts[0]].concat();
            forged(&|c| c.splice(first..third, swapped.iter().copied()).for_each(drop))
        }),
        ("a member twice", {
            let one = content[first..second].to_vec();
            forged(&|c| c.splice(second..third, one.iter().copied()).for_each(drop))
        }),
        ("a log key twice", replace(third + 32, &content[first + 32..first + 64])),
        ("a log key that is another's address", replace(third + 32, &content[first..first + 32])),
        ("a log key that is its own address", replace(third + 32, &content[third..third + 32])),
        ("a name twice", {
            let named = |n, role| member(n, role).named("same").expect("a name");
            let sole = |n| Contents::new(7, vec![named(n, Role::Publisher)]).expect("good").to_bytes();
            let (a, b) = (sole(10), sole(11));
            let (a, b) = (&a[17..a.len() - 5], &b[17..b.len() - 5]);
            let pair = if a < b { [a, b].concat() } else { [b, a].concat() };
            forged(&|c| {
                c[16] = 2;
                c.splice(first..behind, pair.iter().copied()).for_each(drop);
            })
        }),
        ("an address of small order", replace(first, &small_order)),
        ("a log key of small order", replace(first + 32, &small_order)),
        ("an unknown role", replace(first + 64, &[2])),
        ("no publisher", { forged(&|c| [first, second, third].iter().for_each(|at| c[at + 64] = 0)) }),
        ("a name with a capital letter", {
            let at = [first, second].into_iter().find(|at| content[at + 65] > 0).expect("two have names");
            replace(at + 66, b"H")
        }),
        ("a name of 33 characters", {
            let name = [&[33][..], &[b'a'; 33]].concat();
            let end = third + 66 + usize::from(content[third + 65]);
            forged(&|c| c.splice(third + 65..end, name.iter().copied()).for_each(drop))
        }),
        ("the service as a member", {
            let own = Contents::new(
                7,
                vec![
                    Member::new(service, LogKey::from_seed(&[99; 32]).public_key(), Role::Publisher).expect("two keys"),
                ],
            );
            let content = own.expect("good").to_bytes();
            let signature = owner.sign(&signed(PURPOSE, service, &content));
            with(&|c| c.manifest = [&content[..], &signature].concat())
        }),
        ("configuration of more than 64 KiB", replace(behind, &65_537_u32.to_be_bytes())),
        ("configuration that is not there", replace(behind, &7_u32.to_be_bytes())),
        ("something behind the clients", forged(&|c| c.push(0))),
        ("good: a restricted service", restricted),
        ("two discovery keys of one member", {
            let two = [&[2][..], discovery(20).as_bytes(), discovery(21).as_bytes()].concat();
            changed(&|c| c.splice(key_of_first - 1..key_of_first + 32, two.iter().copied()).for_each(drop))
        }),
        ("a discovery key of small order", changed(&|c| c[key_of_first..key_of_first + 32].fill(0))),
        ("a discovery key beyond the field", changed(&|c| c[key_of_first..key_of_first + 32].fill(0xff))),
        ("a discovery key twice", {
            let key = hidden[key_of_first..key_of_first + 32].to_vec();
            changed(&|c| c[key_of_second..key_of_second + 32].copy_from_slice(&key))
        }),
        ("a member without a discovery key", {
            changed(&|c| c.splice(key_of_first - 1..key_of_first + 32, [0]).for_each(drop))
        }),
        ("a client twice", changed(&|c| c.copy_within(clients..clients + 32, clients + 32))),
        ("a client that is a member", {
            // Clients are in order, so that it stands where it belongs.
            let member = hidden[key_of_first..key_of_first + 32].to_vec();
            changed(&|c| {
                let mut keys = [c[clients..clients + 32].to_vec(), member.clone()];
                keys.sort();
                c[clients..].copy_from_slice(&keys.concat());
            })
        }),
        ("clients out of order", {
            let (a, b) = (hidden[clients..clients + 32].to_vec(), hidden[clients + 32..].to_vec());
            changed(&|c| c[clients..].copy_from_slice(&[&b[..], &a[..]].concat()))
        }),
        ("fewer clients than counted", changed(&|c| c[clients - 1] = 3)),
        ("161 clients", {
            let mut keys: Vec<_> = (30..189).map(discovery).chain([discovery(20), discovery(21)]).collect();
            keys.sort();
            let keys: Vec<u8> = keys.iter().flat_map(|key| *key.as_bytes()).collect();
            changed(&|c| c.splice(clients - 1.., [&[161][..], &keys].concat()).for_each(drop))
        }),
    ];
    let twins = [0, 1].map(|n| sign(contents(7).shared(vec![n]).expect("fits")));
    let pairs = [
        (&good, &sign(contents(8))),
        (&good, &good),
        (&twins[0], &twins[1]),
        (&twins[0], &good),
        (&sign(contents(u64::MAX)), &good),
    ];
    let order = |(a, b): &(&Manifest, &Manifest)| {
        json!({
            "first": HEXLOWER.encode(&a.to_bytes()),
            "second": HEXLOWER.encode(&b.to_bytes()),
            "first_counts": a.supersedes(b),
            "second_counts": b.supersedes(a),
        })
    };
    json!({
        "keys": {
            "service_seed": HEXLOWER.encode(&[1; 32]),
            "service": HEXLOWER.encode(service.public_key()),
            "owner_seed": HEXLOWER.encode(&[2; 32]),
            "owner_key": HEXLOWER.encode(owner.public_key().as_bytes()),
        },
        "signed_bytes": HEXLOWER.encode(&signed(PURPOSE, service, &content)),
        "cases": cases.iter().map(|(name, case)| case.to_json(name)).collect::<Vec<_>>(),
        "order": pairs.iter().map(order).collect::<Vec<_>>(),
    })
}

#[test]
fn vectors_are_what_this_code_says() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors/manifest.json");
    let made = format!("{:#}\n", vectors());
    if env::var_os("HCP_WRITE_VECTORS").is_some() {
        fs::write(&path, &made).expect("written");
    }
    let kept = fs::read_to_string(&path).expect("tests/vectors/manifest.json is part of the source");
    assert!(kept == made, "manifest.json differs from what this code says; HCP_WRITE_VECTORS=1 rewrites it");
}

#[test]
fn vectors_hold_every_verdict_and_nothing_else_is_good() {
    let vectors = vectors();
    let cases = vectors["cases"].as_array().expect("a list");
    let verdicts: BTreeSet<&str> = cases.iter().filter_map(|case| case["verdict"].as_str()).collect();
    assert_eq!(verdicts.len(), 17, "{verdicts:?}");
    for case in cases {
        let name = case["name"].as_str().expect("named");
        assert_eq!(case["good"].as_bool(), Some(name.starts_with("good")), "{name}");
    }
}
