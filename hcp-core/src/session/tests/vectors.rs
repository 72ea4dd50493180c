//! The test vectors of protocol.md, section 22, that concern frames, padding, PROOF, JOIN, and what a session takes. Each file
//! is made here and compared with the one that is kept; `HCP_WRITE_VECTORS=1` writes it instead.

mod script;

use std::path::PathBuf;

use aws_lc_rs::hmac;
use bytes::Bytes;
use data_encoding::HEXLOWER;
use serde_json::{Value, json};

use crate::identity::Identity;
use crate::session::hello::{Secrets, join_message, proof_message};
use crate::session::limits::CUT;
use crate::session::{MAX_STREAMS, Priority, STREAM_WINDOW, SessionId, streams::Streams};
use crate::wire::session_proto as proto;
use crate::wire::{Decoder, FLAG_FIN, FLAG_MORE, Frame, FrameKind, Received, class, padme};

fn hex(bytes: impl AsRef<[u8]>) -> String {
    HEXLOWER.encode(bytes.as_ref())
}

/// Compares what was made with what is kept.
fn keep(name: &str, made: &Value) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/vectors").join(name);
    if std::env::var_os("HCP_WRITE_VECTORS").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, format!("{made:#}\n")).unwrap();
    }
    let kept = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let kept: Value = serde_json::from_str(&kept).unwrap();
    assert_eq!(&kept, made, "{name} is not what this version makes");
}

fn kind_name(kind: FrameKind) -> String {
    match kind {
        FrameKind::Optional(_) => "OPTIONAL".to_owned(),
        kind => format!("{kind:?}").to_uppercase(),
    }
}

/// What a decoder makes of bytes: frames, and whether it then fails.
fn decoded(mut bytes: &[u8]) -> (Vec<Value>, bool) {
    let mut decoder = Decoder::default();
    let mut frames = Vec::new();
    loop {
        match decoder.next(&mut bytes).map(|frame| frame.map(Received::into_frame)) {
            Ok(Some(Frame { kind: FrameKind::Optional(_), .. })) => {}
            Ok(Some(frame)) => {
                let mut value = json!({
                    "kind": kind_name(frame.kind), "flags": frame.flags, "stream": frame.stream,
                    "payload": hex(&frame.payload),
                });
                if frame.kind == FrameKind::Bulk {
                    value["place"] = json!(frame.place);
                }
                frames.push(value);
            }
            Ok(None) => return (frames, false),
            Err(_) => return (frames, true),
        }
    }
}

#[test]
fn frames() {
    let ping = Frame::new(FrameKind::Ping, 0, 0, Bytes::from_static(&[0, 1, 2, 3, 4, 5, 6, 7]));
    let (certificate, delegation) = (Bytes::from_static(&[0xc0; 112]), Bytes::from_static(&[0xde; 128]));
    let hello = proto::Hello { window: STREAM_WINDOW, max_streams: MAX_STREAMS, ..Default::default() };
    let replica = proto::Hello { certificate, delegation, window: STREAM_WINDOW, max_streams: MAX_STREAMS };
    let proof = proto::Proof { window: STREAM_WINDOW, max_streams: MAX_STREAMS, ..Default::default() };
    let identified = proto::Proof {
        address: Bytes::from_static(&[0xad; 32]),
        signature: Bytes::from_static(&[0x51; 64]),
        known: Bytes::from_static(&[0x1d; 16]),
        window: STREAM_WINDOW,
        max_streams: MAX_STREAMS,
    };
    let credit = |bytes, received| Frame::control(FrameKind::Credit, 1, &proto::Credit { bytes, received });
    let good: Vec<(&str, Vec<Frame>)> = vec![
        ("HELLO of a node", vec![Frame::control(FrameKind::Hello, 0, &hello)]),
        ("HELLO of a replica", vec![Frame::control(FrameKind::Hello, 0, &replica)]),
        ("PROOF of an anonymous dialler", vec![Frame::control(FrameKind::Proof, 0, &proof)]),
        ("PROOF of an identified dialler", vec![Frame::control(FrameKind::Proof, 0, &identified)]),
        ("JOIN", vec![Frame::new(FrameKind::Join, 0, 0, Bytes::from_static(&[0x11; 52]))]),
        (
            "OPEN of each priority",
            vec![
                Streams::open_frame(1, "hcp/chat/1", Priority::Live),
                Streams::open_frame(3, "hcp/file/1", Priority::Bulk),
                Streams::open_frame(4_294_967_295, "hcp/chat/1", Priority::Control),
            ],
        ),
        (
            "a message in two frames, an empty one, and the end",
            vec![
                Frame::new(FrameKind::Data, FLAG_MORE, 1, Bytes::from_static(b"hello, ")),
                Frame::new(FrameKind::Data, 0, 1, Bytes::from_static(b"world")),
                Frame::new(FrameKind::Data, 0, 1, Bytes::new()),
                Frame::new(FrameKind::Data, FLAG_FIN, 1, Bytes::new()),
            ],
        ),
        (
            "BULK out of order, and its end",
            vec![
                Frame { place: 1, ..Frame::new(FrameKind::Bulk, 0, 2, Bytes::from_static(b"second")) },
                Frame { place: 0, ..Frame::new(FrameKind::Bulk, FLAG_MORE, 2, Bytes::from_static(b"first")) },
                Frame { place: 1 << 40, ..Frame::new(FrameKind::Bulk, FLAG_FIN, 2, Bytes::new()) },
            ],
        ),
        (
            "CREDIT: both, bytes alone, an acknowledgement alone, neither",
            vec![credit(163_840, 10), credit(163_840, 0), credit(0, 10), credit(0, 0)],
        ),
        (
            "RESET, DRAIN and CLOSE",
            vec![
                Frame::control(FrameKind::Reset, 5, &proto::Reset { code: 1_024 }),
                Frame::control(FrameKind::Drain, 0, &proto::Drain { last: 7 }),
                Frame::control(FrameKind::Close, 0, &proto::Close { code: 0 }),
                Frame::control(FrameKind::Close, 0, &proto::Close { code: 2 }),
            ],
        ),
        ("PING and PONG", vec![ping.clone(), Frame { kind: FrameKind::Pong, ..ping.clone() }]),
    ];
    let mut vectors: Vec<Value> = Vec::new();
    let mut add = |name: &str, bytes: Vec<u8>| {
        let (frames, error) = decoded(&bytes);
        vectors.push(json!({ "name": name, "bytes": hex(&bytes), "frames": frames, "error": error }));
        (vectors[vectors.len() - 1]["frames"].as_array().unwrap().len(), error)
    };
    for (name, frames) in good {
        let mut bytes = Vec::new();
        frames.iter().for_each(|frame| frame.encode(&mut bytes));
        assert_eq!(add(name, bytes), (frames.len(), false), "{name}");
    }
    let mut whole = Vec::new();
    ping.encode(&mut whole);
    let header = |kind: u8, flags: u8, stream: u32, length: u32| {
        [&[kind, flags][..], &stream.to_be_bytes(), &length.to_be_bytes()].concat()
    };
    let followed = |before: Vec<u8>| [before, whole.clone()].concat();
    let padded = [&[0; 5][..], &whole, &[0; 3], &whole, &[0; 9]].concat();
    assert_eq!(add("padding before, between and behind frames", padded), (2, false));
    assert_eq!(add("padding alone", vec![0; 20]), (0, false));
    assert_eq!(add("a header that is not whole", whole[..9].to_vec()), (0, false));
    assert_eq!(add("a payload that is not whole", whole[..17].to_vec()), (0, false));
    let optional = [header(128, 0, 0, 3), vec![1, 2, 3], header(255, 255, 9, 0)].concat();
    assert_eq!(add("optional frames are skipped", followed(optional)), (1, false));
    for (name, bytes) in [
        ("an unknown kind that is not optional", header(13, 0, 0, 0)),
        ("the last kind that is not optional", header(127, 0, 0, 0)),
        ("a flag that the kind does not have", header(9, 1, 0, 8)),
        ("a flag that DATA does not have", header(5, 4, 1, 0)),
        ("an end with content, of DATA", header(5, 2, 1, 1)),
        ("an end with more to come, of DATA", header(5, 3, 1, 0)),
        ("an end with content, of BULK", header(6, 2, 1, 9)),
        ("an end with more to come, of BULK", header(6, 3, 1, 8)),
        ("a stream where none belongs", header(9, 0, 1, 8)),
        ("no stream where one belongs", header(5, 0, 0, 0)),
        ("a HELLO too long", header(1, 0, 0, 4_097)),
        ("a PROOF too long", header(2, 0, 0, 1_025)),
        ("a JOIN too long", header(3, 0, 0, 53)),
        ("a JOIN too short", header(3, 0, 0, 51)),
        ("an OPEN too long", header(4, 0, 1, 1_025)),
        ("a DATA too long", header(5, 0, 1, 65_537)),
        ("a BULK too long", header(6, 0, 1, 65_545)),
        ("a BULK without its place", header(6, 0, 1, 7)),
        ("a CREDIT too long", header(7, 0, 1, 65)),
        ("a PING too short", header(9, 0, 0, 7)),
        ("a PONG too long", header(10, 0, 0, 9)),
        ("a CLOSE too long", header(12, 0, 0, 65)),
        ("the longest length", header(12, 0, 0, u32::MAX)),
        ("an optional frame too long", header(128, 0, 0, 65_537)),
    ] {
        assert_eq!(add(name, bytes.clone()), (0, true), "{name}");
    }
    assert_eq!(add("a good frame, then an error", [whole.clone(), header(13, 0, 0, 0)].concat()), (1, true));
    keep("frames.json", &Value::Array(vectors));
}

#[test]
fn padding() {
    let lengths = [10, 11, 18, 100, 1_000, 1_023, 1_024, 1_025, 4_096, 4_097, 16_384, 16_385, 33_000, 65_535, 65_536];
    let vectors: Vec<Value> = lengths
        .into_iter()
        .map(|length| json!({ "length": length, "without_bulk": class(length), "with_bulk": padme(length) }))
        .collect();
    let full = Frame::new(FrameKind::Bulk, 0, 1, vec![0; CUT].into()).encoded_len();
    assert_eq!((full, padme(4 * full)), (16_384, 65_536));
    keep("padding.json", &Value::Array(vectors));
}

#[test]
fn proof() {
    let (dialler, acceptor) = (Identity::from_seed(&[1; 32]), Identity::from_seed(&[2; 32]));
    let vectors: Vec<Value> = [[0; 32], [0x5a; 32]]
        .into_iter()
        .map(|exporter| {
            let signed = proof_message(&exporter, &dialler.address(), &acceptor.address());
            let signature = dialler.sign(&signed);
            dialler.address().verify(&signed, &signature).unwrap();
            json!({
                "dialler_seed": hex([1; 32]), "dialler": hex(dialler.address().public_key()),
                "acceptor_seed": hex([2; 32]), "acceptor": hex(acceptor.address().public_key()),
                "exporter": hex(exporter), "signed": hex(&signed), "signature": hex(signature),
            })
        })
        .collect();
    keep("proof.json", &Value::Array(vectors));
}

#[test]
fn join() {
    let vectors: Vec<Value> = [(1, [0; 32]), (2, [0x5a; 32]), (u32::MAX, [0xff; 32])]
        .into_iter()
        .map(|(number, exporter)| {
            let (id, key) = ([0x1d; 16], [0x4e; 32]);
            let frame = Secrets::for_vectors(id, key).join_over(number, &exporter);
            let signed = join_message(&SessionId(id), number, &exporter);
            let mac = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &key), &signed);
            assert_eq!(frame.payload[20..], *mac.as_ref());
            let mut bytes = Vec::new();
            frame.encode(&mut bytes);
            json!({
                "session_id": hex(id), "hint": hex(SessionId(id).lane_hint().0), "lane_key": hex(key), "number": number, "exporter": hex(exporter),
                "authenticated": hex(&signed), "mac": hex(mac), "frame": hex(&bytes),
            })
        })
        .collect();
    keep("join.json", &Value::Array(vectors));
}
