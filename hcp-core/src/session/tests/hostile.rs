//! What an established peer may not do, and that its memory and work stay bounded.

use std::time::Duration;

use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::time::Instant;

use super::harness::{Pair, Raw, bulk, data, events, open, open_bulk};
use crate::identity::Identity;
use crate::session::{
    Event, MAX_MESSAGE, MAX_STREAM_WINDOW, MAX_STREAMS, Machine, Priority, STREAM_WINDOW, SessionError, message_cost,
};
use crate::wire::session_proto as proto;
use crate::wire::{FLAG_FIN, FLAG_MORE, Frame, FrameKind};

fn ping() -> Frame {
    Frame::new(FrameKind::Ping, 0, 0, Bytes::from_static(b"12345678"))
}

fn credit(stream: u32, bytes: u64) -> Frame {
    Frame::control(FrameKind::Credit, stream, &proto::Credit { bytes, received: 0 })
}

#[test]
fn limits_hold_against_a_peer_that_ignores_them() {
    let server = Identity::generate();
    let now = Instant::now();
    let long_name = Frame::control(FrameKind::Open, 1, &proto::Open { protocol: "x".repeat(256), priority: 0 });
    let no_name = Frame::control(FrameKind::Open, 1, &proto::Open::default());
    let floods: [(&str, Vec<Frame>); 16] = [
        ("too many streams", (0..=MAX_STREAMS).map(|i| open(2 * i + 1)).collect()),
        ("a stream number of the other side", vec![open(2)]),
        ("a stream number twice", vec![open(1), open(1)]),
        ("a stream number that goes back", vec![open(5), open(3)]),
        ("a stream that was never opened", vec![data(99, 0, 1)]),
        ("bulk that was never opened", vec![bulk(99, 0, 0, 1)]),
        ("credit for what was never opened", vec![credit(99, 1)]),
        ("a stream of ours that was never opened", vec![data(2, 0, 1)]),
        ("more than the window", [vec![open(1)], vec![data(1, 0, 65_536); 11]].concat()),
        ("the window in empty messages", [vec![open(1)], vec![data(1, 0, 0); 10_241]].concat()),
        ("a message too long", [vec![open(1)], vec![data(1, FLAG_MORE, 65_536); MAX_MESSAGE / 65_536 + 1]].concat()),
        ("an end inside a message", vec![open(1), data(1, FLAG_MORE, 1), data(1, FLAG_FIN, 0)]),
        ("data after the end", vec![open(1), data(1, FLAG_FIN, 0), data(1, 0, 1)]),
        ("credit beyond the largest window", vec![open(1), credit(1, 8_388_608)]),
        (
            "an acknowledgement where none belongs",
            vec![open(1), Frame::control(FrameKind::Credit, 1, &proto::Credit { bytes: 1, received: 1 })],
        ),
        ("a pong to no ping", vec![Frame { kind: FrameKind::Pong, ..ping() }]),
    ];
    for (what, frames) in floods {
        let (mut raw, mut machine) = Raw::established(&server, now);
        frames.iter().for_each(|frame| raw.send(frame));
        let refused = raw.exchange(&mut machine, now);
        assert!(matches!(refused, Err(SessionError::Limit(_) | SessionError::OutOfPlace(_))), "{what}: {refused:?}");
    }
    for frame in [long_name, no_name, Frame::new(FrameKind::Close, 0, 0, Bytes::from_static(&[0xff]))] {
        let (mut raw, mut machine) = Raw::established(&server, now);
        raw.send(&frame);
        let refused = raw.exchange(&mut machine, now);
        assert!(matches!(refused, Err(SessionError::Malformed(_))), "{frame:?} {refused:?}");
    }
}

#[test]
fn frames_that_cost_no_credit_are_bounded_in_a_second() {
    let server = Identity::generate();
    let drain = Frame::control(FrameKind::Drain, 0, &proto::Drain::default());
    let reset = Frame::control(FrameKind::Reset, 1, &proto::Reset::default());
    let optional = Frame::new(FrameKind::Optional(255), 9, 7, Bytes::new());
    for frame in [ping(), reset, optional, credit(1, 0)] {
        let now = Instant::now();
        let (mut raw, mut machine) = Raw::established(&server, now);
        raw.send(&open(1));
        let refused = (0..2_500).find_map(|_| {
            raw.send(&frame);
            raw.exchange(&mut machine, now).err()
        });
        assert!(matches!(refused, Some(SessionError::Limit(_))), "{frame:?} {refused:?}");
        // In the long run a thousand a second are well.
        let (mut raw, mut machine) = Raw::established(&server, now);
        raw.send(&open(1));
        for i in 0..3_000_u64 {
            raw.send(&frame);
            raw.exchange(&mut machine, now + Duration::from_millis(i)).unwrap();
        }
    }
    let (mut raw, mut machine) = Raw::established(&server, Instant::now());
    raw.send(&drain);
    raw.send(&drain);
    assert!(matches!(raw.exchange(&mut machine, Instant::now()), Err(SessionError::OutOfPlace(_))));
}

#[test]
fn answers_that_the_peer_does_not_read_are_bounded() {
    let (server, now) = (Identity::generate(), Instant::now());
    for opens in [false, true] {
        let (mut raw, mut machine) = Raw::established(&server, now);
        let mut answered = 0;
        let refused = (0..2_500).find_map(|i| {
            raw.send(&if opens { open(2 * i + 1) } else { ping() });
            let taken = machine.handle_input(now + Duration::from_millis(i.into()), 0, &raw.output());
            events(&mut machine);
            machine.reset(2 * i + 1, 1);
            answered += 1;
            taken.err()
        });
        assert!(matches!(refused, Some(SessionError::Limit(_))), "{refused:?}");
        assert!(answered < 1_100, "{answered}");
    }
}

/// Sends on a stream as an application does that has no end of it: whatever the peer allows. Returns when the machine has had
/// enough, with what the peer made it keep in all.
fn send_all_that_is_allowed(
    machine: &mut Machine,
    stream: u32,
    mut ask: impl FnMut(&mut Machine) -> Result<(), SessionError>,
) -> (u64, SessionError) {
    let message = Bytes::from(vec![1; 50_000]);
    let (mut credit, mut kept) = (STREAM_WINDOW, 0);
    for _ in 0..200 {
        while credit >= message_cost(message.len()) {
            credit -= message_cost(message.len());
            kept += message_cost(message.len());
            machine.send(stream, message.clone());
        }
        if let Err(error) = ask(machine) {
            return (kept, error);
        }
        for event in events(machine) {
            match event {
                Event::Credit { bytes, .. } => credit += bytes,
                Event::Refunded { bytes, .. } => {
                    credit += bytes;
                    kept -= bytes;
                }
                Event::Gone { bytes, .. } => kept -= bytes,
                _ => {}
            }
        }
    }
    panic!("{kept} bytes are kept, and it goes on")
}

#[test]
fn a_peer_that_gives_credit_and_reads_nothing_is_no_store_for_what_it_asks() {
    let (server, now) = (Identity::generate(), Instant::now());
    for frame in [open(1), open_bulk(1)] {
        let (mut raw, mut machine) = Raw::established(&server, now);
        raw.send(&frame);
        machine.handle_input(now, 0, &raw.output()).unwrap();
        events(&mut machine);
        let (kept, error) = send_all_that_is_allowed(&mut machine, 1, |machine| {
            raw.send(&credit(1, 600_000));
            machine.handle_input(now, 0, &raw.output())
        });
        assert!(matches!(error, SessionError::Limit("credit")), "{error:?}");
        assert!((MAX_STREAM_WINDOW / 2..=MAX_STREAM_WINDOW).contains(&kept), "{kept}");
    }
}

#[test]
fn a_peer_that_reads_bulk_and_acknowledges_none_of_it_is_cut_off() {
    let mut pair = Pair::new();
    let id = pair.open(Priority::Bulk);
    let lane = pair.join();
    pair.settle();
    // The other side's machine is left out from here on: what the lane brings is read and dropped.
    let mut read = 0;
    let (mut first, now) = (true, pair.now);
    let (kept, error) = send_all_that_is_allowed(&mut pair.a, id, |machine| {
        for conn in [lane, 0] {
            loop {
                let mut out = Vec::new();
                machine.poll_output(now, conn, &mut out);
                if out.is_empty() {
                    break;
                }
                read += out.len();
            }
        }
        // As if the peer's machine had said so; it would have acknowledged.
        machine.credit_for_tests(id, if std::mem::take(&mut first) { 0 } else { 600_000 })
    });
    assert!(matches!(error, SessionError::Limit("credit")), "{error:?}");
    assert!(read > 4_000_000, "{read}");
    assert!((MAX_STREAM_WINDOW / 2..=MAX_STREAM_WINDOW).contains(&kept), "{kept}");
}

#[test]
fn streams_that_are_opened_and_reset_while_nothing_goes_out_leave_nothing_behind() {
    let (server, now) = (Identity::generate(), Instant::now());
    let (mut raw, mut machine) = Raw::established(&server, now);
    for round in 0..400 {
        let stream = 2 * round + 1;
        raw.send(&if round % 2 == 0 { open(stream) } else { open_bulk(stream) });
        let later = now + Duration::from_millis(u64::from(round) * 10);
        machine.handle_input(later, 0, &raw.output()).unwrap();
        machine.send(stream, Bytes::from_static(b"never read"));
        raw.send(&Frame::control(FrameKind::Reset, stream, &proto::Reset::default()));
        machine.handle_input(later, 0, &raw.output()).unwrap();
        events(&mut machine);
        assert_eq!(machine.streams().queued(), 0, "round {round}");
    }
}

#[test]
fn streams_never_read_hold_no_more_than_their_windows_and_harm_no_other() {
    let mut pair = Pair::new();
    let ids: Vec<_> = (0..MAX_STREAMS).map(|_| pair.a.open(pair.now, "x", Priority::Live).unwrap()).collect();
    assert!(pair.a.open(pair.now, "x", Priority::Live).is_none());
    let message = Bytes::from(vec![1; 100_000]);
    for (id, credit) in &ids {
        for _ in 0..*credit / 110_000 {
            pair.a.send(*id, message.clone());
        }
    }
    pair.settle();
    let held = pair.b_events.iter().filter(|event| matches!(event, Event::Message { .. })).count();
    assert_eq!(held, MAX_STREAMS as usize * 5);
    // The other direction, and a stream of the other side's, go on.
    let (id, _) = pair.b.open(pair.now, "y", Priority::Live).unwrap();
    pair.b.send(id, Bytes::from_static(b"hello"));
    pair.settle();
    assert_eq!(pair.take_at_a().len(), 1);
}

#[test]
fn a_control_message_goes_before_what_waits_of_bulk() {
    let mut pair = Pair::new();
    let bulk = pair.open(Priority::Bulk);
    let control = pair.open(Priority::Control);
    pair.a.send(bulk, Bytes::from(vec![1; 500_000]));
    let mut first = Vec::new();
    pair.a.poll_output(pair.now, 0, &mut first);
    assert!(first.len() < 70_000, "{}", first.len());
    pair.a.send(control, Bytes::from_static(b"now"));
    pair.to_b.entry(0).or_default().extend(first);
    let _ = pair.turn();
    assert_eq!(pair.take_at_b(), [(control, Bytes::from_static(b"now"))], "before the rest of the bulk message");
    pair.settle();
    assert_eq!(pair.take_at_b().len(), 1);
}

#[test]
fn batches_show_only_the_lengths_of_the_classes() {
    let mut pair = Pair::new();
    let (live, bulk) = (pair.open(Priority::Live), pair.open(Priority::Bulk));
    pair.settle();
    let mut sent = pair.a.stats().bytes_sent;
    let mut batch = |pair: &mut Pair| {
        let _ = pair.turn();
        let grown = pair.a.stats().bytes_sent - sent;
        sent += grown;
        grown
    };
    for (length, padded) in [
        (0, 1_024),
        (1_000, 1_024),
        (1_014, 1_024),
        (1_015, 4_096),
        (4_087, 16_384),
        (16_366, 16_384),
        (16_375, 65_536),
    ] {
        pair.a.send(live, Bytes::from(vec![1; length]));
        assert_eq!(batch(&mut pair), padded, "{length}");
        pair.settle();
        assert_eq!(pair.take_at_b().len(), 1);
        pair.settle();
        batch(&mut pair);
    }
    pair.a.send(bulk, Bytes::from(vec![1; 4 * 16_366]));
    assert_eq!(batch(&mut pair), 65_536, "four full frames need no padding");
    pair.a.send(bulk, Bytes::from(vec![1; 982]));
    assert_eq!(batch(&mut pair), 1_024);
    // The headers of five frames and more would be a class of their own if frames did not fill their batch.
    pair.a.send(live, Bytes::from(vec![1; 65_536]));
    assert_eq!([batch(&mut pair), batch(&mut pair)], [65_536, 1_024]);
    assert!(pair.a.stats().padding_sent > 0);
}

#[test]
fn bytes_after_the_end_of_tls_end_the_session() {
    let (server, now) = (Identity::generate(), Instant::now());
    let (mut raw, mut machine) = Raw::established(&server, now);
    raw.send(&open(1));
    raw.tls.send_close_notify();
    assert!(matches!(machine.handle_input(now, 0, &raw.output()), Err(SessionError::Lost)));
    assert!(matches!(events(&mut machine)[..], [Event::Opened { .. }]), "what came before counts");
    assert!(matches!(machine.handle_input(now, 0, &[0]), Err(SessionError::Lost)));
}

#[test]
fn frames_made_at_random_never_break_a_session() {
    let seed: u64 = rand::random();
    let mut random = StdRng::seed_from_u64(seed);
    let server = Identity::generate();
    let (mut refused, mut taken) = (0, 0);
    for _ in 0..300 {
        let now = Instant::now();
        let (mut raw, mut machine) = Raw::established(&server, now);
        raw.send(&open(1));
        raw.send(&open_bulk(3));
        for _ in 0..60 {
            let stream = random.random_range(0..6);
            let small: Vec<u8> = (0..random.random_range(0..40)).map(|_| random.random()).collect();
            let frame = match random.random_range(0..60) {
                0 => Frame::control(
                    FrameKind::Open,
                    stream,
                    &proto::Open { protocol: "x".into(), priority: random.random_range(0..5) },
                ),
                1 => credit(stream, random.random_range(0..100_000)),
                2..20 => Frame::new(FrameKind::Data, random.random_range(0..2), 1, small.into()),
                20..50 => Frame {
                    place: random.random_range(0..40),
                    ..Frame::new(FrameKind::Bulk, random.random_range(0..2), 3, small.into())
                },
                50..59 => Frame::new(
                    FrameKind::Optional(random.random_range(128..=255)),
                    random.random(),
                    stream,
                    Bytes::new(),
                ),
                _ => Frame::control(FrameKind::Reset, stream, &proto::Reset { code: random.random() }),
            };
            if frame.stream == 0 && matches!(frame.kind, FrameKind::Open | FrameKind::Credit | FrameKind::Reset) {
                // The decoder's to refuse, which has tests of its own.
                continue;
            }
            raw.send(&frame);
            match raw.exchange(&mut machine, now) {
                Ok(_) => taken += 1,
                Err(_) => {
                    refused += 1;
                    break;
                }
            }
            for event in events(&mut machine) {
                if let Event::Message { stream, .. } = event {
                    machine.consumed(now, stream);
                    machine.send(stream, Bytes::from_static(b"answer"));
                    machine.finish(stream);
                }
            }
        }
    }
    assert!(refused > 0 && taken > 1_000, "seed {seed}: {refused} refused, {taken} taken");
}
