//! `tests/vectors/log.json`: segments, messages and checkpoints that another implementation must take and refuse.

use std::path::Path;
use std::sync::Arc;
use std::{env, fs};

use bytes::Bytes;
use data_encoding::HEXLOWER;
use serde_json::{Value, json};

use super::checkpoint::{Certificate, Statement, is_enough, is_true, piece_hash, signed, state_root, summary_hash};
use super::entry::{self, Entry, Fork, Vote};
use super::fuzz;
use super::keys::Keys;
use super::ledger::{INNER, Ledger, Log, manifest_hash};
use super::message::{Frontier, Hello, Message, Need, Offer, Receipt};
use super::storage::Piece;
use super::summary;
use super::vector::{Vector, Writer};
use super::wire::{Head, Segment, Tip};
use crate::identity::delegation::OwnerKey;
use crate::identity::manifest::{Contents, Manifest, Member, Role, SoftwareVersion};
use crate::identity::{Identity, LogKey};
use crate::replica::place::{Incarnation, LogId, NodeId, Place, Stamp};

fn hex(bytes: &[u8]) -> String {
    HEXLOWER.encode(bytes)
}

fn service() -> [u8; 32] {
    *Identity::from_seed(&[1; 32]).address().public_key()
}

fn author() -> LogKey {
    LogKey::from_seed(&[12; 32])
}

fn head(seq: u64) -> Head {
    Head {
        log: LogId { node: NodeId(author().public_key()), incarnation: Incarnation([3; 16]) },
        seq,
        previous: if seq == 1 { [0; 32] } else { [4; 32] },
        stamp: Stamp { millis: 1_790_000_000_123, counter: 5 },
        manifest: 7,
        system: false,
        dependencies: Vec::new(),
        payload_root: [0; 32],
    }
}

fn tip(n: u8, seq: u64) -> Tip {
    Tip { log: LogId { node: NodeId([n; 32]), incarnation: Incarnation([n; 16]) }, seq, hash: [n; 32] }
}

fn plain(text: &str) -> Entry {
    Entry::Plain(Bytes::copy_from_slice(text.as_bytes()))
}

/// Every kind of entry.
fn system() -> Vec<Entry> {
    let first = Place { log: head(1).log, seq: 9, index: 2 };
    let stamp = Stamp { millis: 1_789_000_000_000, counter: 0 };
    let fork = Fork { one: tip(5, 3), one_signature: [1; 64], other: [6; 32], other_signature: [2; 64] };
    vec![
        plain("plain"),
        Entry::Again { first, stamp, body: Bytes::from_static(b"again") },
        Entry::Manifest(Bytes::from_static(b"manifest")),
        Entry::Fork(fork),
        Entry::Retain { base: [7; 32] },
        Entry::Vote(Vote { asked: tip(5, 3), statement: [8; 32], signature: [3; 64] }),
        Entry::Unknown { kind: 999, body: Bytes::from_static(b"of tomorrow") },
    ]
}

fn segment_case(name: &str, header: &[u8], signature: &[u8], payload: &[u8]) -> Value {
    let parsed = Segment::parse(Bytes::copy_from_slice(header), signature, Bytes::copy_from_slice(payload));
    let verdict = match &parsed {
        Err(error) => format!("{error:?}"),
        Ok(segment) => {
            let message = segment.tip().signed(&service());
            let good = LogKey::verify(&segment.head.log.node.0, &message, &segment.signature).is_ok();
            if good { "good".to_owned() } else { "Signature".to_owned() }
        }
    };
    json!({
        "name": name,
        "header": hex(header),
        "signature": hex(signature),
        "payload": hex(payload),
        "hash": parsed.map_or(Value::Null, |segment| Value::from(hex(&segment.hash))),
        "good": verdict == "good",
        "verdict": verdict,
    })
}

fn segments() -> Vec<Value> {
    let good = fuzz::signed(head(1), entry::payload([9; 16], &[plain("one"), plain("two")]));
    let empty = fuzz::signed(head(2), entry::payload([9; 16], &[]));
    let seen = Head { dependencies: vec![tip(1, 4), tip(2, 8), tip(2, 9)], ..head(3) };
    let seen = fuzz::signed(seen, entry::payload([9; 16], &[plain("later")]));
    let all = fuzz::signed(Head { system: true, ..head(4) }, entry::payload([9; 16], &system()));
    let mut cases: Vec<Value> = [
        ("good", &good),
        ("good: empty", &empty),
        ("good: with dependencies", &seen),
        ("good: every kind of entry", &all),
    ]
    .map(|(name, segment)| segment_case(name, &segment.header, &segment.signature, &segment.payload))
    .into();
    let changed = |at: usize, to: u8| {
        let mut header = good.header.to_vec();
        header[at] = to;
        header
    };
    let resigned = |name: &str, header: Vec<u8>, payload: &[u8]| {
        let hash = super::wire::segment_hash(&header);
        let signature = author().sign(&Tip { log: good.head.log, seq: good.head.seq, hash }.signed(&service()));
        segment_case(name, &header, &signature, payload)
    };
    cases.push(segment_case("altered", &changed(60, 9), &good.signature, &good.payload));
    cases.push(segment_case("signature altered", &good.header, &[7; 64], &good.payload));
    cases.push(segment_case("another payload", &good.header, &good.signature, &empty.payload));
    cases.push(resigned("unknown layout", changed(0, 2), &good.payload));
    cases.push(resigned("good: flags of tomorrow", changed(1, 0x80), &good.payload));
    cases.push(resigned("number zero", changed(57, 0), &good.payload));
    cases.push(resigned("a first segment with one before it", changed(70, 1), &good.payload));
    cases.push(resigned("something behind the header", [&good.header[..], &[0]].concat(), &good.payload));
    cases.push(resigned("a header cut short", good.header[..100].to_vec(), &good.payload));
    let with = |name: &str, head: Head, payload: Bytes| {
        let segment = fuzz::signed(head, payload);
        segment_case(name, &segment.header, &segment.signature, &segment.payload)
    };
    let deps = |dependencies| Head { dependencies, ..head(3) };
    let later = || entry::payload([9; 16], &[plain("later")]);
    cases.push(with("dependencies out of order", deps(vec![tip(2, 8), tip(1, 4)]), later()));
    cases.push(with("a dependency twice", deps(vec![tip(1, 4), tip(1, 4)]), later()));
    let own = Tip { log: head(1).log, seq: 1, hash: [1; 32] };
    cases.push(with("a dependency on its own log", deps(vec![own]), later()));
    cases.push(with("kinds of the log's own that are hidden", head(4), entry::payload([9; 16], &system())));
    cases.push(with("a payload without salt", head(2), Bytes::from_static(&[1; 15])));
    cases.push(with("an entry cut short", head(2), [&[9; 16][..], &[0, 0, 0, 0, 0, 9, 1]].concat().into()));
    let long = Entry::Plain(vec![0; super::wire::MAX_ENTRY + 100].into());
    let long = fuzz::signed(head(2), entry::payload([9; 16], &[long]));
    let refused = Segment::parse(long.header.clone(), &long.signature, long.payload.clone());
    assert!(refused.is_err(), "an entry beyond the limit");
    cases
}

fn members(count: u8) -> Vec<LogKey> {
    (0..count).map(|n| LogKey::from_seed(&[n + 40; 32])).collect()
}

fn manifest(keys: &[LogKey]) -> Manifest {
    let member = |(n, key): (u8, &LogKey)| {
        let address = Identity::from_seed(&[n + 80; 32]).address();
        Member::new(address, key.public_key(), Role::Publisher).expect("two keys")
    };
    let contents = Contents::new(7, (0..).zip(keys).map(member).collect()).expect("good members");
    Manifest::sign(&owner(), Identity::from_seed(&[1; 32]).address(), contents).expect("the service is no member")
}

fn owner() -> OwnerKey {
    OwnerKey::from_seed(&[2; 32])
}

/// Logs that are over, open, closed and forked.
fn ledger() -> Ledger {
    let (open, forked) = (tip(5, 1).log, tip(6, 1).log);
    let at = [(Writer::trunk(open), 2), (Writer { log: forked, branch: [3; 32] }, 6)].into();
    let mut ledger = Ledger::default();
    let newest = manifest(&members(3));
    let id = (newest.contents().version(), manifest_hash(&newest.to_bytes()));
    ledger.manifests.told.insert(id, at);
    let nodes = |count| members(count).into_iter().map(|key| NodeId(key.public_key()));
    ledger.manifests.members = nodes(4).map(|node| (node, Some(id))).collect();
    ledger.manifests.members.extend(nodes(3).map(|node| (node, None)));
    ledger.manifests.newest = Some(newest);
    ledger.forgotten = Arc::new([(tip(4, 1).log, 9)].into());
    ledger.again.insert(tip(3, 1).log, [(2, 0), (2, 5)].into());
    let mut log = Log::begun(3);
    log.push_settled([0; 32], None, (1, 12), [1; 32]);
    let branch = Writer { log: forked, branch: [2; 32] };
    let seen = Vector([(Writer::trunk(forked), 4), (branch, 9)].into());
    log.set_seen(0, Arc::new(seen));
    ledger.logs.insert(open, log);
    let mut log = Log::begun(1);
    log.forked = true;
    log.closers.insert(Writer::trunk(open), 11);
    log.push_settled([0; 32], None, (1, 4), INNER);
    log.push_settled([2; 32], Some(0), (5, 9), [7; 32]);
    log.push_settled([3; 32], Some(0), (5, 6), [8; 32]);
    ledger.logs.insert(forked, log);
    ledger
}

/// Certificates, and whether they are enough for a manifest's members.
fn certificates() -> Vec<Value> {
    let statement = checkpoint().0.statement;
    let case = |name: &str, covered: &[LogKey], newest: &[LogKey], signers: &[LogKey], service: &[u8; 32]| {
        let sign = |key: &LogKey| (NodeId(key.public_key()), key.sign(&signed(service, &statement.hash())));
        let certificate = Certificate { statement, signatures: signers.iter().map(sign).collect() };
        let keys = Keys::new(Identity::from_seed(&[1; 32]).address(), owner().public_key(), author());
        let signers = certificate.signers(&keys, |_| true);
        let good = is_enough(&signers, &manifest(covered)) && is_true(&signers, &manifest(newest));
        assert_eq!(good, name.starts_with("good"), "{name}");
        let names = |keys: &[LogKey]| keys.iter().map(|key| hex(&key.public_key())).collect::<Vec<_>>();
        json!({
            "name": name,
            "covered": names(covered),
            "newest": names(newest),
            "certificate": hex(&certificate.to_bytes()),
            "good": good,
        })
    };
    let mut cases = Vec::new();
    for (count, enough) in [(1, 1), (2, 2), (3, 2), (4, 3), (5, 4), (6, 4), (7, 5), (9, 6), (10, 7)] {
        let (all, signers) = (members(count), members(enough));
        cases.push(case(&format!("good: {enough} of {count}"), &all, &all, &signers, &service()));
        cases.push(case(&format!("{} of {count}", enough - 1), &all, &all, &signers[1..], &service()));
    }
    let (all, few) = (members(10), members(5));
    let stranger = [&few[..3], &all[7..8]].concat();
    cases.push(case("3 of 5, and a stranger", &few, &few, &stranger, &service()));
    cases.push(case("for another service", &few, &few, &few, &[9; 32]));
    cases.push(case("good: a later manifest has more members", &few, &all, &few[1..], &service()));
    cases.push(case("good: a later manifest has two of those who signed", &few, &all[3..8], &few, &service()));
    cases.push(case("a later manifest has one of those who signed", &few, &all[4..9], &few, &service()));
    cases
}

fn checkpoint() -> (Certificate, Bytes, Bytes) {
    let summary = summary::encode(&ledger());
    let hashes = [piece_hash(b"one piece"), piece_hash(b"another")];
    let statement = Statement {
        asked: tip(5, 3),
        manifest: 7,
        summary: summary_hash(&summary),
        root: state_root(&hashes),
        length: 16,
    };
    let key = author();
    let signature = key.sign(&signed(&service(), &statement.hash()));
    let certificate = Certificate { statement, signatures: [(NodeId(key.public_key()), signature)].into() };
    (certificate, summary, hashes.as_flattened().to_vec().into())
}

fn messages() -> Vec<Value> {
    let segment = fuzz::signed(head(1), entry::payload([9; 16], &[plain("one")]));
    let hello = Hello {
        service: service(),
        node: NodeId(author().public_key()),
        incarnation: Incarnation([3; 16]),
        software: SoftwareVersion::new(0, 2, 1),
        lowest: SoftwareVersion::new(0, 1, 0),
        manifest: 7,
    };
    let signature = author().sign(&segment.tip().receipted(&service()));
    let (certificate, summary, pieces) = checkpoint();
    let offer = Offer { certificate: certificate.to_bytes(), summary, pieces };
    let good = [
        ("hello", Message::Hello(hello)),
        ("frontier", Message::Frontier(Frontier { tips: vec![tip(1, 4), tip(2, 8)], direct: None })),
        ("frontier with links", Message::Frontier(Frontier { tips: Vec::new(), direct: Some(vec![NodeId([4; 32])]) })),
        ("segment", Message::Segment(segment.clone().into())),
        ("receipt", Message::Receipt(Receipt { tip: segment.tip(), signature })),
        ("credit", Message::Credit(65_536)),
        ("need", Message::Need(Need { tip: tip(1, 4), back: 8 })),
        ("offer", Message::Offer(Box::new(offer))),
        ("holds", Message::Holds([7; 32])),
        ("fetch", Message::Fetch { root: [5; 32], index: 2 }),
        ("piece", Message::Piece(Piece { root: [5; 32], index: 2, bytes: Bytes::from_static(b"one piece") })),
    ];
    let mut cases: Vec<(String, Bytes)> =
        good.iter().map(|(name, message)| (format!("good: {name}"), message.encode())).collect();
    for (name, message) in &good {
        let bytes = message.encode();
        if *name != "piece" {
            cases.push((format!("{name} cut short"), bytes.slice(..bytes.len() - 1)));
        }
        if !matches!(*name, "piece" | "segment" | "offer") {
            cases.push((format!("{name} with something behind it"), [&bytes[..], &[0]].concat().into()));
        }
    }
    cases.push(("skipped: a kind of tomorrow".to_owned(), Bytes::from_static(&[200, 1, 2])));
    cases.push(("an unknown kind that is not to be skipped".to_owned(), Bytes::from_static(&[11, 1, 2])));
    cases.push(("nothing".to_owned(), Bytes::new()));
    let case = |(name, bytes): &(String, Bytes)| {
        let read = Message::decode(bytes);
        let verdict = match &read {
            Ok(Some(message)) => {
                assert_eq!(message.encode(), *bytes, "{name}");
                "good".to_owned()
            }
            Ok(None) => "skipped".to_owned(),
            Err(error) => format!("{error:?}"),
        };
        assert!(name.starts_with(&verdict) || verdict.starts_with(|c: char| c.is_uppercase()), "{name}: {verdict}");
        json!({ "name": name, "message": hex(bytes), "verdict": verdict })
    };
    cases.iter().map(case).collect()
}

fn vectors() -> Value {
    let (certificate, summary, pieces) = checkpoint();
    let statement = certificate.statement;
    let tip = fuzz::signed(head(1), entry::payload([9; 16], &[plain("one"), plain("two")])).tip();
    json!({
        "keys": {
            "service": hex(&service()),
            "author_seed": hex(&[12; 32]),
            "author": hex(&author().public_key()),
            "owner": hex(owner().public_key().as_bytes()),
        },
        "signed_bytes": {
            "segment": hex(&tip.signed(&service())),
            "receipt": hex(&tip.receipted(&service())),
            "checkpoint": hex(&signed(&service(), &statement.hash())),
        },
        "segments": segments(),
        "messages": messages(),
        "checkpoint": {
            "statement": hex(&statement.to_bytes()),
            "statement_hash": hex(&statement.hash()),
            "certificate": hex(&certificate.to_bytes()),
            "summary": hex(&summary),
            "summary_hash": hex(&summary_hash(&summary)),
            "pieces": hex(&pieces),
            "root": hex(&statement.root),
        },
        "certificates": certificates(),
    })
}

#[test]
fn vectors_are_what_this_code_says() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors/log.json");
    let made = format!("{:#}\n", vectors());
    if env::var_os("HCP_WRITE_VECTORS").is_some() {
        fs::write(&path, &made).expect("written");
    }
    let kept = fs::read_to_string(&path).expect("tests/vectors/log.json is part of the source");
    assert!(kept == made, "log.json differs from what this code says; HCP_WRITE_VECTORS=1 rewrites it");
}

#[test]
fn nothing_is_good_but_what_is_called_so() {
    for case in segments() {
        let name = case["name"].as_str().expect("named").to_owned();
        assert_eq!(case["good"].as_bool(), Some(name.starts_with("good")), "{name}: {}", case["verdict"]);
    }
}

#[test]
fn a_summary_survives_its_bytes() {
    let keys = Keys::new(Identity::from_seed(&[1; 32]).address(), owner().public_key(), author());
    let bytes = summary::encode(&ledger());
    let read = summary::decode(&bytes, &keys).expect("what was written");
    assert_eq!(summary::encode(&read), bytes);
}

#[test]
fn a_certificate_survives_its_bytes() {
    let (certificate, ..) = checkpoint();
    assert_eq!(Certificate::parse(&certificate.to_bytes()), Some(certificate));
}
