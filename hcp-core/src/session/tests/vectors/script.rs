//! What an established acceptor takes on its primary, and what ends the session: scripts of what comes and what it does.

use std::io::Write;

use bytes::Bytes;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::{hex, keep};
use crate::identity::Identity;
use crate::session::tests::harness::{Raw, bulk, data, events, open, open_bulk};
use crate::session::{Machine, PRIMARY, SessionError, StreamId};
use crate::wire::session_proto as proto;
use crate::wire::{FLAG_FIN, FLAG_MORE, Frame, FrameKind};

/// One thing that happens.
enum Step {
    /// These frames come, so often.
    Frames(Vec<Frame>, usize),
    /// So many KeyUpdates come, each of which asks for one back.
    KeyUpdates(usize),
    /// What the acceptor does itself.
    Finish(StreamId),
    Reset(StreamId),
    Drain,
}

/// Whether the peer reads what the acceptor says after each step.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Reading {
    All,
    Nothing,
}

/// Whether the last step ends the session. None before it does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Taken,
    Error,
}

impl Step {
    fn to_json(&self) -> Value {
        match self {
            Self::Frames(frames, times) => {
                let mut bytes = Vec::new();
                frames.iter().for_each(|frame| frame.encode(&mut bytes));
                json!({ "frames": hex(bytes), "times": times })
            }
            Self::KeyUpdates(count) => json!({ "key_updates": count }),
            Self::Finish(stream) => json!({ "finish": stream }),
            Self::Reset(stream) => json!({ "reset": stream }),
            Self::Drain => json!({ "drain": true }),
        }
    }

    fn play(&self, raw: &mut Raw, machine: &mut Machine, now: Instant, reading: Reading) -> Result<(), SessionError> {
        match self {
            Self::Frames(frames, times) => {
                let mut bytes = Vec::new();
                frames.iter().for_each(|frame| frame.encode(&mut bytes));
                raw.tls.writer().write_all(&bytes.repeat(*times)).unwrap();
            }
            Self::KeyUpdates(count) => (0..*count).for_each(|_| raw.tls.refresh_traffic_keys().unwrap()),
            Self::Finish(stream) => machine.finish(*stream),
            Self::Reset(stream) => machine.reset(*stream, 1_024),
            Self::Drain => machine.drain(now),
        }
        match reading {
            Reading::All => raw.exchange(machine, now).map(drop)?,
            Reading::Nothing => machine.handle_input(now, PRIMARY, &raw.output())?,
        }
        events(machine);
        Ok(())
    }
}

fn come(frames: impl Into<Vec<Frame>>) -> Step {
    Step::Frames(frames.into(), 1)
}

fn credit(bytes: u64, received: u64) -> Frame {
    Frame::control(FrameKind::Credit, 1, &proto::Credit { bytes, received })
}

fn reset(stream: StreamId) -> Frame {
    Frame::control(FrameKind::Reset, stream, &proto::Reset { code: 1_024 })
}

fn drain() -> Frame {
    Frame::control(FrameKind::Drain, 0, &proto::Drain { last: 0 })
}

fn ping() -> Frame {
    Frame::new(FrameKind::Ping, 0, 0, Bytes::from_static(b"8 bytes."))
}

/// Ways in which stream 1 is over for the acceptor.
fn ends() -> Vec<(&'static str, Vec<Step>)> {
    vec![
        ("that this side has reset", vec![come([open(1)]), Step::Reset(1)]),
        ("that the peer has reset", vec![come([open(1), reset(1)])]),
        ("that both have ended", vec![come([open(1), data(1, FLAG_FIN, 0)]), Step::Finish(1)]),
        (
            "of bulk that both have ended",
            vec![come([open_bulk(1), bulk(1, FLAG_FIN, 0, 0)]), Step::Finish(1), come([credit(0, 1)])],
        ),
    ]
}

/// What comes for a stream that is over.
fn late() -> Vec<(&'static str, Vec<Frame>, Verdict)> {
    let malformed = |kind| Frame::new(kind, 0, 1, Bytes::from_static(&[0xff]));
    vec![
        ("content", vec![data(1, FLAG_MORE, 9), data(1, 0, 9), bulk(1, 0, 5, 9)], Verdict::Taken),
        ("an end", vec![data(1, FLAG_FIN, 0), data(1, FLAG_FIN, 0), bulk(1, FLAG_FIN, 7, 0)], Verdict::Taken),
        ("credit beyond all limits", vec![credit(u64::MAX, 0), credit(1, 99)], Verdict::Taken),
        ("RESET", vec![reset(1), reset(1)], Verdict::Taken),
        ("an end with content", vec![data(1, FLAG_FIN, 1)], Verdict::Error),
        ("an end with more to come", vec![data(1, FLAG_FIN | FLAG_MORE, 0)], Verdict::Error),
        ("an end with content, of BULK", vec![bulk(1, FLAG_FIN, 7, 1)], Verdict::Error),
        ("credit that is no message", vec![malformed(FrameKind::Credit)], Verdict::Error),
        ("RESET that is no message", vec![malformed(FrameKind::Reset)], Verdict::Error),
        ("OPEN", vec![open(1)], Verdict::Error),
    ]
}

/// A script: what it is called, what happens, and how it ends.
type Script = (String, Reading, Vec<Step>, Verdict);

fn scripts() -> Vec<Script> {
    let mut all: Vec<Script> = Vec::new();
    for (what, frames, verdict) in late() {
        for (how, mut steps) in ends() {
            steps.push(come(frames.clone()));
            all.push((format!("{what}, for a stream {how}"), Reading::All, steps, verdict));
        }
    }
    let ended = [open(1), data(1, FLAG_FIN, 0)];
    let many: Vec<Frame> = (0..32).map(|i| open(2 * i + 1)).collect();
    let last = u64::MAX - 1;
    let optional = Frame::new(FrameKind::Optional(200), 0, 0, Bytes::new());
    let others: Vec<(&str, Reading, Vec<Step>, Verdict)> = vec![
        (
            "content behind the end of a direction, while the other goes on",
            Reading::All,
            vec![come(ended.clone()), come([data(1, 0, 1)])],
            Verdict::Error,
        ),
        (
            "the end of a direction twice, while the other goes on",
            Reading::All,
            vec![come(ended), come([data(1, FLAG_FIN, 0)])],
            Verdict::Error,
        ),
        (
            "BULK behind the end of a direction, while the other goes on",
            Reading::All,
            vec![come([open_bulk(1), bulk(1, FLAG_FIN, 0, 0)]), come([bulk(1, 0, 1, 1)])],
            Verdict::Error,
        ),
        (
            "BULK that came before, behind the end of its direction",
            Reading::All,
            vec![come([open_bulk(1), bulk(1, 0, 0, 1), bulk(1, FLAG_FIN, 1, 0)]), come([bulk(1, 0, 0, 1)])],
            Verdict::Taken,
        ),
        ("the last place that may be", Reading::All, vec![come([open_bulk(1), bulk(1, 0, last, 1)])], Verdict::Taken),
        ("an end there", Reading::All, vec![come([open_bulk(1), bulk(1, FLAG_FIN, last, 0)])], Verdict::Taken),
        ("the place 2^64 - 1", Reading::All, vec![come([open_bulk(1), bulk(1, 0, u64::MAX, 1)])], Verdict::Error),
        (
            "an end at the place 2^64 - 1",
            Reading::All,
            vec![come([open_bulk(1), bulk(1, FLAG_FIN, u64::MAX, 0)])],
            Verdict::Error,
        ),
        ("one DRAIN", Reading::All, vec![come([open(1)]), come([drain()])], Verdict::Taken),
        ("a second DRAIN", Reading::All, vec![come([open(1), drain()]), come([drain()])], Verdict::Error),
        ("OPEN behind DRAIN of the same side", Reading::All, vec![come([open(1), drain(), open(3)])], Verdict::Error),
        (
            "OPEN that crosses a DRAIN, and what follows it",
            Reading::All,
            vec![come([open(1)]), Step::Drain, come([open(3), data(3, 0, 9), open(5), reset(5), drain()])],
            Verdict::Taken,
        ),
        ("as many streams as may be", Reading::All, vec![come(many.clone())], Verdict::Taken),
        ("one stream more", Reading::All, vec![come(many.clone()), come([open(65)])], Verdict::Error),
        (
            "one stream more, which crosses a DRAIN",
            Reading::All,
            vec![come(many), Step::Drain, come([open(65)])],
            Verdict::Error,
        ),
        (
            "1,024 answers that the peer does not read",
            Reading::Nothing,
            vec![Step::Frames(vec![ping()], 1_024)],
            Verdict::Taken,
        ),
        (
            "PING of a peer that does not read 1,024 answers",
            Reading::Nothing,
            vec![Step::Frames(vec![ping()], 1_024), come([ping()])],
            Verdict::Error,
        ),
        (
            "OPEN of a peer that does not read 1,024 answers",
            Reading::Nothing,
            vec![Step::Frames(vec![ping()], 1_024), come([open(1)])],
            Verdict::Error,
        ),
        (
            "1,024 answers and 1 more, of which the peer reads the first",
            Reading::All,
            vec![Step::Frames(vec![ping()], 1_024), come([ping(), open(1)])],
            Verdict::Taken,
        ),
        (
            "2,000 frames at once that cost nothing",
            Reading::All,
            vec![Step::Frames(vec![optional.clone()], 2_000)],
            Verdict::Taken,
        ),
        (
            "one frame more at once that costs nothing",
            Reading::All,
            vec![Step::Frames(vec![optional.clone()], 2_000), come([optional])],
            Verdict::Error,
        ),
        ("32 KeyUpdates", Reading::All, vec![Step::KeyUpdates(32)], Verdict::Taken),
        ("33 KeyUpdates", Reading::All, vec![Step::KeyUpdates(32), Step::KeyUpdates(1)], Verdict::Error),
        (
            "64 KeyUpdates with application data between them",
            Reading::All,
            vec![Step::KeyUpdates(32), come([ping()]), Step::KeyUpdates(32), come([ping()])],
            Verdict::Taken,
        ),
    ];
    all.extend(others.into_iter().map(|(name, reading, steps, verdict)| (name.to_owned(), reading, steps, verdict)));
    all
}

#[test]
fn session() {
    let (server, now) = (Identity::from_seed(&[2; 32]), Instant::now());
    let mut vectors: Vec<Value> = Vec::new();
    for (name, reading, steps, verdict) in scripts() {
        let (mut raw, mut machine) = Raw::established(&server, now);
        let (last, before) = steps.split_last().unwrap();
        for step in before {
            step.play(&mut raw, &mut machine, now, reading).unwrap_or_else(|error| panic!("{name}: {error}"));
        }
        let end = last.play(&mut raw, &mut machine, now, reading);
        assert_eq!(end.is_err(), verdict == Verdict::Error, "{name}: {end:?}");
        let steps: Vec<Value> = steps.iter().map(Step::to_json).collect();
        vectors.push(json!({
            "name": name, "reads": reading == Reading::All, "steps": steps, "error": verdict == Verdict::Error,
        }));
    }
    keep("session.json", &Value::Array(vectors));
}
