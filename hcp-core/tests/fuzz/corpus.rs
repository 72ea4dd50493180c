//! What the corpora hold: the vectors, and what one can make of them and of the protocol's document.

use std::collections::BTreeMap;
use std::path::Path;
use std::{env, fs};

use data_encoding::HEXLOWER;
use hcp_core::identity::delegation::{OwnerCertificate, OwnerKey, ReplicaCredentials, Round, SessionKey, Validity};
use hcp_core::identity::keyfile::{Argon2Cost, KeyFile, Protection, StoredKey};
use hcp_core::identity::{DiscoveryKey, Identity, Passphrase, ReplicaSeed};
use serde_json::Value;

type Entries = BTreeMap<String, Vec<u8>>;

/// The corpus of each target, by name.
pub(crate) fn all(vectors: &Path) -> BTreeMap<&'static str, Entries> {
    let cases = read(vectors, "delegation.json")["cases"].as_array().unwrap().clone();
    BTreeMap::from([
        ("address", addresses()),
        ("delegation", delegations(&cases)),
        ("frame", frames(&read(vectors, "frames.json"))),
        ("gossip", gossip()),
        ("grant", grants(&read(vectors, "grant.json"))),
        ("hello", first_words(&cases)),
        ("key_file", key_files()),
        ("log", logs(&read(vectors, "log.json"))),
        ("manifest", manifests(&read(vectors, "manifest.json"))),
        ("request", entries_of(&read(vectors, "grant.json")["requests"], "request").collect()),
        ("session", sessions()),
        ("tor_key", tor_keys()),
        ("warden", warden(&read(vectors, "grant.json"))),
    ])
}

fn read(vectors: &Path, file: &str) -> Value {
    serde_json::from_str(&fs::read_to_string(vectors.join(file)).unwrap()).unwrap()
}

fn hex(case: &Value, field: &str) -> Vec<u8> {
    HEXLOWER.decode(case[field].as_str().unwrap().as_bytes()).unwrap()
}

fn file_name(name: &str) -> String {
    name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect()
}

fn delegations(cases: &[Value]) -> Entries {
    let entry = |case: &Value| {
        let now = case["now"].as_u64().unwrap().to_be_bytes().to_vec();
        let name = file_name(case["name"].as_str().unwrap());
        (name, [hex(case, "certificate"), hex(case, "delegation"), now].concat())
    };
    cases.iter().map(entry).collect()
}

/// One field of each case, by the case's name.
fn entries_of<'v>(cases: &'v Value, field: &'v str) -> impl Iterator<Item = (String, Vec<u8>)> + 'v {
    let entry = move |case: &Value| (file_name(case["name"].as_str().unwrap()), hex(case, field));
    cases.as_array().unwrap().iter().map(entry)
}

fn grants(vectors: &Value) -> Entries {
    let mut all: Entries = entries_of(&vectors["grants"], "grant").collect();
    // A book: layout, service, a day's periods, serial 7, floor 3, one node with a grant.
    let (service, node) = (Identity::from_seed(&[1; 32]).address(), Identity::from_seed(&[10; 32]).address());
    let numbers = |numbers: &[u64]| numbers.iter().flat_map(|number| number.to_be_bytes()).collect::<Vec<u8>>();
    let clock = [1_440_u32.to_be_bytes(), 43_200_u32.to_be_bytes()].concat();
    let head = [&[1][..], service.public_key(), &clock, &numbers(&[7, 3]), &1_u32.to_be_bytes()].concat();
    let record = [&node.public_key()[..], &[1], &numbers(&[9]), &1_u32.to_be_bytes(), &numbers(&[6, 0, 1, 2])].concat();
    all.insert("book".to_owned(), [head, record].concat());
    all
}

/// With their signature, and without, for the target that signs them.
fn manifests(vectors: &Value) -> Entries {
    // One of as many clients as are too many is longer than what is mutated.
    let short = |(_, manifest): &(String, Vec<u8>)| manifest.len() <= crate::MAX_INPUT;
    let mut all: Entries = entries_of(&vectors["cases"], "manifest").filter(short).collect();
    let unsigned = all.iter().filter_map(|(name, manifest)| {
        let (content, _) = manifest.split_last_chunk::<64>()?;
        Some((format!("unsigned-{name}"), content.to_vec()))
    });
    let unsigned: Vec<_> = unsigned.collect();
    all.extend(unsigned);
    all
}

/// Questions, and one answer of each kind.
fn warden(grants: &Value) -> Entries {
    let service = Identity::from_seed(&[1; 32]).address();
    let question = |above: u64| [&[1][..], service.public_key(), &above.to_be_bytes()].concat();
    let answer = |kind: u8, rest: &[u8]| [&[kind][..], rest].concat();
    let grant = hex(&grants["grants"][0], "grant");
    entries([
        ("question-of-a-new-node", question(0)),
        ("question", question(7)),
        ("a-grant", answer(0, &grant)),
        ("nothing", answer(1, &[0; 8])),
        ("nothing-yet", answer(1, &1_790_000_000_u64.to_be_bytes())),
        ("unknown", answer(2, &[])),
        ("later", answer(3, &[])),
    ])
}

/// Messages, and what stands in them by itself.
fn logs(vectors: &Value) -> Entries {
    let mut all: Entries = entries_of(&vectors["messages"], "message").collect();
    for part in ["header", "payload"] {
        let segments = entries_of(&vectors["segments"], part);
        all.extend(segments.map(|(name, bytes)| (format!("{part}-{name}"), bytes)));
    }
    for part in ["certificate", "summary"] {
        all.insert(part.to_owned(), hex(&vectors["checkpoint"], part));
    }
    all
}

fn addresses() -> Entries {
    let address = Identity::from_seed(&[1; 32]).address();
    let small_order = [&[1][..], &[0; 31]].concat();
    entries([
        ("address", address.to_string().into_bytes()),
        ("upper-case", address.to_string().to_ascii_uppercase().into_bytes()),
        ("without-suffix", address.to_string().trim_end_matches(".onion").as_bytes().to_vec()),
        ("subdomain", format!("www.{address}").into_bytes()),
        ("key", address.public_key().to_vec()),
        ("small-order", small_order),
        ("not-a-point", vec![0xff; 32]),
        ("discovery", DiscoveryKey::from_secret_bytes(&[4; 32]).public_key().to_string().into_bytes()),
        ("discovery-key", DiscoveryKey::from_secret_bytes(&[4; 32]).public_key().as_bytes().to_vec()),
    ])
}

fn key_files() -> Entries {
    let (identity, owner, session) = keys();
    let validity = Validity::new(1, 2).unwrap();
    let certificate = OwnerCertificate::issue(&identity, owner.public_key(), validity);
    let delegation = owner.delegate(identity.address(), session.public_key(), Round::new(4, 3, validity).unwrap());
    let replica = ReplicaCredentials::new(identity.address(), certificate, delegation, session.clone()).unwrap();
    entries([
        ("plain-identity", saved(&identity)),
        ("plain-owner", saved(&owner)),
        ("plain-session", saved(&session)),
        ("plain-replica", saved(&replica)),
        ("plain-replica-seed", saved(&ReplicaSeed::from_bytes(&[4; 32]))),
        ("plain-discovery", saved(&DiscoveryKey::from_secret_bytes(&[4; 32]))),
        ("sealed-identity", sealed(&identity)),
    ])
}

fn keys() -> (Identity, OwnerKey, SessionKey) {
    (Identity::from_seed(&[1; 32]), OwnerKey::from_seed(&[2; 32]), SessionKey::from_seed(&[3; 32]))
}

fn saved(key: &impl StoredKey) -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("key");
    KeyFile::new(&path).save(key, &Protection::Plain).unwrap();
    fs::read(path).unwrap()
}

/// A file whose passphrase is `fuzz` and whose cost is the least. Its salt is random, so it is made once.
fn sealed(identity: &Identity) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/keyfile/sealed-cheap.key");
    if !path.exists() && env::var_os("HCP_WRITE_VECTORS").is_some() {
        let cost = Argon2Cost::new(*Argon2Cost::MEMORY_KIB.start(), 1, 1).unwrap();
        let protection = Protection::Passphrase(Passphrase::new("fuzz").unwrap());
        KeyFile::new(&path).cost(cost).save(identity, &protection).unwrap();
    }
    fs::read(path).unwrap()
}

fn tor_keys() -> Entries {
    let expanded = Identity::from_seed(&[1; 32]).expanded_secret_key();
    let tag = b"== ed25519v1-secret: type0 ==\0\0\0";
    let good = [&tag[..], &*expanded].concat();
    let mut unclamped = good.clone();
    unclamped[32] |= 1;
    entries([
        ("good", good.clone()),
        ("not-clamped", unclamped),
        ("short", good[..95].to_vec()),
        ("public", [&b"== ed25519v1-public: type0 ==\0\0\0"[..], &[7; 32]].concat()),
    ])
}

fn frames(vectors: &Value) -> Entries {
    let data = frame(5, 0, 1, b"hello");
    let all: Vec<u8> = [
        &frame(4, 0, 1, &open("hcp/chat/1", 1))[..],
        &[0; 5],
        &data,
        &frame(6, 1, 2, &[&7_u64.to_be_bytes()[..], b"part"].concat()),
        &frame(200, 0xff, 9, b"optional"),
        &frame(9, 0, 0, b"8 bytes."),
        &frame(5, 2, 1, b""),
        &frame(12, 0, 0, &[8, 1]),
    ]
    .concat();
    let cut = |by: u8, bytes: &[u8]| [&[by], bytes].concat();
    let vector = |case: &Value| {
        let (name, bytes) = (file_name(case["name"].as_str().unwrap()), hex(case, "bytes"));
        // A few are longer than fuzzing likes.
        (bytes.len() < 4_000).then(|| (format!("vector-{name}"), cut(5, &bytes)))
    };
    let mut all_vectors: Entries = vectors.as_array().unwrap().iter().filter_map(vector).collect();
    assert!(all_vectors.len() >= 10);
    all_vectors.extend(entries([
        ("all", cut(0, &all)),
        ("all-in-pieces", cut(6, &all)),
        ("padding", cut(9, &[0; 1_024])),
        ("longest-length", cut(0, &[5, 0, 0, 0, 0, 1, 0, 1, 0, 0])),
        ("too-long", cut(0, &[5, 0, 0, 0, 0, 1, 0xff, 0xff, 0xff, 0xff])),
        ("unknown", cut(0, &frame(13, 0, 0, b""))),
        ("flags", cut(0, &frame(9, 1, 0, b"8 bytes."))),
        ("cut-short", cut(0, &data[..12])),
    ]));
    all_vectors
}

fn first_words(cases: &[Value]) -> Entries {
    let hello = |case: &Value| {
        let limits = [&[0x18][..], &varint(655_360), &[0x20], &varint(32)].concat();
        let fields = [field(1, &hex(case, "certificate")), field(2, &hex(case, "delegation")), limits].concat();
        [&[0][..], &frame(1, 0, 0, &fields), &[0; 16]].concat()
    };
    let mut all: Entries = cases
        .iter()
        .map(|case| (format!("hello-{}", file_name(case["name"].as_str().unwrap())), hello(case)))
        .collect();
    let proof = |fields: &[u8]| [&[1][..], &frame(2, 0, 0, fields), &[0; 16]].concat();
    let signed = [field(1, &[1; 32]), field(2, &[2; 64]), field(3, &[3; 16]), limits_of_proof()].concat();
    all.extend(entries([
        ("proof-anonymous", proof(&limits_of_proof())),
        ("proof-signed", proof(&signed)),
        ("proof-and-open", [proof(&limits_of_proof()), frame(4, 0, 1, &open("x", 0)), frame(5, 0, 1, b"hi")].concat()),
        ("join", [&[1][..], &frame(3, 0, 0, &[5; 52])].concat()),
        ("open-first", [&[1][..], &frame(4, 0, 1, &open("x", 0))].concat()),
    ]));
    all
}

fn limits_of_proof() -> Vec<u8> {
    [&[0x20][..], &varint(655_360), &[0x28], &varint(32)].concat()
}

fn sessions() -> Entries {
    let session = |way: u8, cut: u8, frames: &[Vec<u8>]| [vec![way, cut], frames.concat()].concat();
    let place = |place: u64, content: &[u8]| [&place.to_be_bytes()[..], content].concat();
    // To an acceptor streams are odd, to a dialler even.
    let talk = |first: u32| {
        vec![
            frame(4, 0, first, &open("hcp/chat/1", 0)),
            frame(5, 1, first, b"hel"),
            frame(5, 0, first, b"lo"),
            frame(9, 0, 0, b"8 bytes."),
            frame(7, 0, first, &[8, 100]),
            frame(5, 2, first, b""),
            frame(4, 0, first + 2, &open("hcp/file/1", 1)),
            frame(6, 0, first + 2, &place(1, b"second")),
            frame(6, 0, first + 2, &place(0, b"first")),
            frame(6, 2, first + 2, &place(2, b"")),
            frame(200, 7, 0, b"whatever"),
            frame(8, 0, first, &[8, 3]),
            frame(11, 0, 0, &[8, 2]),
            frame(12, 0, 0, &[]),
        ]
    };
    // Pieces of 249 bytes, in turns on the primary and the lane.
    let turn = |frame: Vec<u8>| [frame.clone(), vec![0; 249 - frame.len()]].concat();
    let bulk = |at: u64, flags: u8, content: &[u8]| turn(frame(6, flags, 1, &place(at, content)));
    let lane = [
        turn(frame(4, 0, 1, &open("f", 1))),
        bulk(0, 1, &[7; 231]),
        bulk(2, 0, b"end"),
        bulk(1, 1, &[7; 100]),
        turn(frame(9, 0, 0, b"8 bytes.")),
        bulk(4, 2, b""),
        bulk(3, 0, &[7; 200]),
        turn(frame(12, 0, 0, &[])),
    ];
    entries([
        ("raw-acceptor", session(0, 3, &[vec![22, 3, 1, 0, 5, 1, 0, 0, 1, 0]])),
        ("raw-dialler", session(1, 3, &[vec![22, 3, 3, 0, 4, 2, 0, 0, 0]])),
        ("client-hello", session(2, 0, &[vec![0, 90, 1]])),
        ("server-flight", session(3, 0, &[vec![1, 0, 1]])),
        ("server-flight-as-it-is", session(3, 0, &[])),
        ("acceptor", session(4, 255, &talk(1))),
        ("acceptor-in-pieces", session(4, 1, &talk(1))),
        (
            "acceptor-opens-many",
            session(4, 255, &(0..33).map(|i| frame(4, 0, 2 * i + 1, &open("x", 2))).collect::<Vec<_>>()),
        ),
        ("dialler", session(5, 255, &talk(2))),
        ("lane", session(6, 31, &lane)),
        ("lane-turns", session(6, 3, &talk(1))),
    ])
}

/// Messages of a member to another one, as `service::gossip::fuzz` knows the two: a service of seed 1, members 11 to 13.
fn gossip() -> Entries {
    let service = Identity::from_seed(&[1; 32]).address();
    let member = |seed: u8| Identity::from_seed(&[seed; 32]);
    let key = |seed: u8| member(seed).address().public_key().to_vec();
    let number = |field: u8, number: u64| [vec![field << 3], varint(number)].concat();
    let signed = |seed: u8, purpose: &[u8], rest: &[u8]| {
        member(seed).sign(&[purpose, service.public_key(), &key(seed), rest].concat()).to_vec()
    };
    let pulse = |seed: u8, count: u64| {
        let rest = [5_u64.to_be_bytes(), count.to_be_bytes()].concat();
        let signature = signed(seed, b"HCP/1 service pulse\0", &rest);
        [field(1, &key(seed)), number(2, 5), number(3, count), field(4, &signature)].concat()
    };
    let heartbeat = |more: &[Vec<u8>]| {
        let own = [number(1, 500), number(4, 1_790_000_000_000), field(5, &pulse(12, 9))].concat();
        field(1, &[own, more.concat()].concat())
    };
    let record = |content: &[u8]| {
        let signature = signed(12, b"HCP/1 service record\0", content);
        field(2, &[field(1, &key(12)), field(2, content), field(3, &signature)].concat())
    };
    let start = [number(1, 5), number(2, 3)].concat();
    // The base point of X25519 is nobody's key, and a good one.
    let ntor = [&[9][..], &[0; 31]].concat();
    let point = |owner: u8| {
        let seed = Identity::from_seed(&[99; 32]);
        let said = [&b"HCP/1 service point\0"[..], service.public_key(), &key(owner), &[7; 32], &ntor].concat();
        let id = seed.address().public_key().to_vec();
        let proof = seed.sign(&said);
        field(3, &[field(1, &[7; 32]), field(2, &id), field(3, &ntor), field(4, &proof)].concat())
    };
    let period = [number(1, 20_717), number(2, 1_440), number(3, 43_200)].concat();
    let publication =
        [field(1, &period), field(2, &[6; 32]), number(3, 2), number(4, 1_790_000_000), field(5, &key(13))].concat();
    let full = [start.clone(), point(12), field(4, &period), field(5, &publication), field(6, &[8; 32]), number(7, 1)]
        .concat();
    let entrust =
        [field(1, &[7; 32]), field(2, &[9; 64]), field(3, &key(11)), field(3, &key(13)), number(4, 1), number(5, 5)]
            .concat();
    entries([
        ("heartbeat", heartbeat(&[])),
        ("heartbeat-echo", heartbeat(&[number(2, 100_000), number(3, 20)])),
        ("heartbeat-sighting", heartbeat(&[field(6, &key(13)), field(7, &pulse(13, 4))])),
        ("heartbeat-stranger", heartbeat(&[field(6, &key(40)), field(7, &pulse(40, 4))])),
        ("record", record(&start)),
        ("record-full", record(&full)),
        ("record-stolen-point", record(&[start, point(13)].concat())),
        ("entrust", field(3, &entrust)),
        ("tags", field(4, &[field(1, &[4; 32]), field(3, &[1; 32]), field(3, &[2; 32])].concat())),
        ("held", field(5, &field(1, &[field(1, &[4; 32]), number(2, 3)].concat()))),
        ("ask", field(6, &[field(1, &[4; 32]), number(2, 77)].concat())),
        ("promise", field(7, &[field(1, &[4; 32]), number(2, 77), number(3, 3_000)].concat())),
        ("promise-taken", field(7, &[field(1, &[4; 32]), number(2, 77)].concat())),
        ("release", field(8, &[4; 32])),
        ("forget", field(9, &[4; 32])),
        ("heard", field(10, &[4; 16])),
        ("reached", field(11, &key(11))),
    ])
}

fn open(protocol: &str, priority: u8) -> Vec<u8> {
    [field(1, protocol.as_bytes()), vec![0x10, priority]].concat()
}

/// A protobuf field of bytes.
fn field(number: u8, content: &[u8]) -> Vec<u8> {
    [&[number << 3 | 2][..], &varint(content.len() as u64), content].concat()
}

fn varint(mut number: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while number >= 0x80 {
        bytes.push(number as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
    bytes
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap();
    [&[kind, flags][..], &stream.to_be_bytes(), &length.to_be_bytes(), payload].concat()
}

fn entries<const N: usize>(entries: [(&str, Vec<u8>); N]) -> Entries {
    entries.into_iter().map(|(name, input)| (name.to_owned(), input)).collect()
}
