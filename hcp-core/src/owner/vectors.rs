//! `tests/vectors/grant.json`: derivations, blinded keys, requests and grants, good and bad.

use std::collections::BTreeSet;
use std::path::Path;
use std::{env, fs};

use data_encoding::HEXLOWER;
use serde_json::{Value, json};

use super::tests::{NOW, Service, horizon};
use super::*;
use crate::identity::blinded::blinded_public_key;
use crate::identity::delegation::{OwnerKey, Round, signed};
use crate::identity::manifest::{Contents, Manifest, Member, Role};
use crate::network::Period;

fn hex(bytes: &[u8]) -> String {
    HEXLOWER.encode(bytes)
}

fn derivations(service: &Service) -> Value {
    let address = service.address();
    let seed = &service.nodes[0].recipient.seed;
    let period = service.book.clock().at(NOW);
    let Period { number, length, offset } = period;
    json!({
        "service": hex(address.public_key()),
        "replica_seed": hex(&[110; 32]),
        "revision_seed": hex(&[3; 32]),
        "session_number": NOW,
        "session_key": hex(seed.session_key(address, NOW).public_key().as_bytes()),
        "discovery_key": hex(seed.discovery_key().public_key().as_bytes()),
        "period": { "number": number, "minutes": length, "offset": offset },
        "descriptor_signing_seed": hex(&*seed.descriptor_signing_seed(address, number, length, offset)),
        "revision_secret": hex(&*service.revisions.of_period(address, number, length, offset)),
        "blinded_key": hex(&blinded_public_key(address, number, length)),
    })
}

fn requests(service: &Service) -> Vec<Value> {
    let node = &service.nodes[0];
    let good = node.request(PeriodClock::TOR, (NOW, 2), 1, NOW).to_bytes();
    let with = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = good.clone();
        change(&mut bytes);
        bytes
    };
    let forged = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut content = good[..good.len() - 64].to_vec();
        change(&mut content);
        let signature = node.identity.sign(&signed(b"HCP/1 request\0", service.address(), &content));
        [content, signature.to_vec()].concat()
    };
    let elsewhere = Service::of_seed(5, 2).nodes[0].request(PeriodClock::TOR, (NOW, 2), 1, NOW).to_bytes();
    let cases = [
        ("good", good.clone()),
        ("good: no periods", node.request(PeriodClock::TOR, (NOW, 1), 0, NOW).to_bytes()),
        ("for another service", elsewhere),
        ("unknown layout", forged(&|c| c[0] = 2)),
        ("signature altered", with(&|bytes| bytes[200] ^= 1)),
        ("another node's name", {
            let other = service.nodes[1].address();
            with(&|bytes| bytes[33..65].copy_from_slice(other.public_key()))
        }),
        (
            "no session keys",
            forged(&|c| {
                c.drain(75..139);
                c[74] = 0;
            }),
        ),
        ("1201 session keys", forged(&|c| c[73..75].copy_from_slice(&1_201_u16.to_be_bytes()))),
        ("401 periods", forged(&|c| c[155..157].copy_from_slice(&401_u16.to_be_bytes()))),
        ("a session key of small order", forged(&|c| c[75..107].fill(0))),
        ("periods of 4 minutes", forged(&|c| c[139..143].copy_from_slice(&4_u32.to_be_bytes()))),
        ("numbers beyond the last", forged(&|c| c[65..73].fill(255))),
        ("something behind the last key", forged(&|c| c.push(0))),
        ("cut short", good[..good.len() - 1].to_vec()),
    ];
    let to_json = |(name, bytes): &(&str, Vec<u8>)| {
        let result = Request::verify(service.address(), bytes);
        json!({
            "name": name,
            "request": hex(bytes),
            "good": result.is_ok(),
            "verdict": result.err().map_or("good".to_owned(), |error| format!("{error:?}")),
        })
    };
    cases.iter().map(to_json).collect()
}

fn grants(service: &mut Service) -> Vec<Value> {
    let requests = service.requests(NOW);
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let mut made = || runtime.block_on(service.grant(&requests, horizon(23, 2))).expect("granted");
    let (mut first, mut second) = (made(), made());
    let (listed, two, one) = (first.swap_remove(2), first.swap_remove(1), first.swap_remove(0));
    let bytes = one.to_bytes().to_vec();
    let again = || Grant::verify(&service.nodes[0].recipient, &bytes, NOW).expect("good");
    let forge = |change: &dyn Fn(&mut super::grant::Parts)| service.forge(again(), |parts| change(parts));
    let with = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = bytes.clone();
        change(&mut bytes);
        bytes
    };
    let of_two = || Grant::verify(&service.nodes[1].recipient, &two.to_bytes(), NOW).expect("good");
    let without = super::tests::manifest(&service.key, service.address(), 2, &service.nodes[1..], 1);
    let not_publishing = {
        let nodes = &service.nodes;
        let contents = service.manifest.contents().members().iter().map(|member| {
            let role = if member.address() == nodes[0].address() { Role::Listed } else { Role::Publisher };
            Member::new(member.address(), *member.log_key().as_bytes(), role).expect("two keys")
        });
        let contents = Contents::new(2, contents.collect()).expect("good");
        Manifest::sign(&service.key, service.address(), contents).expect("signed")
    };
    let foreign = super::tests::manifest(&Service::of_seed(5, 3).key, service.address(), 1, &service.nodes, 3);
    let cases: Vec<(&str, usize, u64, Vec<u8>)> = vec![
        ("good", 0, NOW, bytes.clone()),
        ("good: a node that does not publish", 2, NOW, listed.to_bytes().to_vec()),
        ("good: with a later serial", 0, NOW, second.swap_remove(0).to_bytes().to_vec()),
        ("good: last good second", 0, NOW + 86_400 + 299, bytes.clone()),
        ("over", 0, NOW + 86_400 + 300, bytes.clone()),
        ("certificate not yet valid", 0, NOW - 86_400 - 301, bytes.clone()),
        ("certificate expired", 0, NOW + 500 * 86_400, bytes.clone()),
        ("for another node", 1, NOW, bytes.clone()),
        ("for another service", 0, NOW, {
            let mut other = Service::of_seed(5, 3);
            let requests = other.requests(NOW);
            runtime.block_on(other.grant(&requests, horizon(23, 2))).expect("granted").remove(0).to_bytes().to_vec()
        }),
        ("unknown layout", 0, NOW, with(&|bytes| bytes[0] = 2)),
        ("certificate altered", 0, NOW, with(&|bytes| bytes[176] ^= 1)),
        (
            "a revision secret altered",
            0,
            NOW,
            with(&|bytes| {
                let at = bytes.len() - 65;
                bytes[at] ^= 1;
            }),
        ),
        ("cut short", 0, NOW, bytes[..bytes.len() - 1].to_vec()),
        ("manifest of another owner", 0, NOW, forge(&|parts| parts.manifest = foreign.clone())),
        ("not a member", 0, NOW, forge(&|parts| parts.manifest = without.clone())),
        ("not a publisher", 0, NOW, forge(&|parts| parts.manifest = not_publishing.clone())),
        ("another node's certificates", 0, NOW, forge(&|parts| parts.periods = of_two().periods)),
        ("certificates of other periods", 0, NOW, forge(&|parts| parts.first_period += 1)),
        ("another node's delegations", 0, NOW, forge(&|parts| parts.rounds = of_two().rounds)),
        ("another number", 0, NOW, forge(&|parts| parts.rounds[0].number += 1)),
        (
            "another owner's delegation",
            0,
            NOW,
            forge(&|parts| {
                let session = parts.rounds[1].delegation.session_key();
                let round = Round::new(3, 0, parts.rounds[1].delegation.validity()).expect("fits");
                parts.rounds[1].delegation = OwnerKey::from_seed(&[99; 32]).delegate(service.address(), session, round);
            }),
        ),
        ("serials go back", 0, NOW, forge(&|parts| parts.rounds.swap(0, 1))),
        ("no rounds", 0, NOW, forge(&|parts| parts.rounds.clear())),
    ];
    let to_json = |(name, node, now, bytes): &(&str, usize, u64, Vec<u8>)| {
        let recipient = &service.nodes[*node].recipient;
        let result = Grant::verify(recipient, bytes, *now);
        json!({
            "name": name,
            "node": hex(recipient.node.public_key()),
            "replica_seed": hex(&[110 + *node as u8; 32]),
            "now": now,
            "grant": hex(bytes),
            "good": result.is_ok(),
            "verdict": result.err().map_or("good".to_owned(), |error| format!("{error:?}")),
        })
    };
    cases.iter().map(to_json).collect()
}

fn vectors() -> Value {
    let mut service = Service::new(3);
    json!({
        "service": hex(service.address().public_key()),
        "derivations": derivations(&service),
        "requests": requests(&service),
        "grants": grants(&mut service),
    })
}

#[test]
fn vectors_are_what_this_code_says() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors/grant.json");
    let made = format!("{:#}\n", vectors());
    if env::var_os("HCP_WRITE_VECTORS").is_some() {
        fs::write(&path, &made).expect("written");
    }
    let kept = fs::read_to_string(&path).expect("tests/vectors/grant.json is part of the source");
    assert!(kept == made, "grant.json differs from what this code says; HCP_WRITE_VECTORS=1 rewrites it");
}

#[test]
fn vectors_hold_every_verdict_and_nothing_else_is_good() {
    let vectors = vectors();
    for (list, count) in [("requests", 6), ("grants", 16)] {
        let cases = vectors[list].as_array().expect("a list");
        let verdicts: BTreeSet<&str> = cases.iter().filter_map(|case| case["verdict"].as_str()).collect();
        assert_eq!(verdicts.len(), count, "{verdicts:?}");
        for case in cases {
            let name = case["name"].as_str().expect("named");
            assert_eq!(case["good"].as_bool(), Some(name.starts_with("good")), "{name}");
        }
    }
}
