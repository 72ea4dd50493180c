//! Messages, credit, ends of streams, drain and close.

use std::time::Duration;

use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::time::Instant;

use super::harness::{Pair, Raw, bulk, data, events, open};
use crate::identity::Identity;
use crate::session::limits::LEAST_WINDOW;
use crate::session::stream::Stream;
use crate::session::{
    CLOSE_SHUTDOWN, Event, MAX_MESSAGE, MAX_STREAM_WINDOW, MAX_STREAMS, Machine, PRIMARY, Priority, RESET_DRAINING,
    STREAM_WINDOW, SessionError, message_cost,
};
use crate::wire::session_proto as proto;
use crate::wire::{FLAG_FIN, FLAG_MORE, Frame, FrameKind, MAX_BATCH, RECORD};

#[test]
fn messages_of_every_length_arrive_whole_and_in_order() {
    let mut pair = Pair::new();
    for priority in [Priority::Control, Priority::Live, Priority::Bulk] {
        let id = pair.open(priority);
        let lengths = [0, 1, 16_365, 16_366, 16_367, 32_732, 65_536, 0, MAX_MESSAGE, 7];
        for (i, length) in lengths.into_iter().enumerate() {
            let message = Bytes::from(vec![i as u8; length]);
            pair.a.send(id, message.clone());
            pair.settle();
            assert_eq!(pair.take_at_b(), [(id, message.clone())], "{priority:?} {length}");
            pair.b.send(id, message.clone());
            pair.settle();
            assert_eq!(pair.take_at_a(), [(id, message)], "{priority:?} {length}");
        }
        assert!(pair.b_events.iter().any(|event| matches!(event, Event::Opened { priority: p, .. } if *p == priority)));
        pair.a.finish(id);
        pair.settle();
        assert!(pair.b_events.iter().any(|event| matches!(event, Event::Finished(s) if *s == id)));
        assert_eq!(pair.b.stats().open_streams, 1, "half of it is open");
        pair.b.send(id, Bytes::from_static(b"after the other's end"));
        pair.b.finish(id);
        pair.settle();
        assert_eq!(pair.take_at_a().len(), 1);
        for events in [&pair.a_events, &pair.b_events] {
            assert!(events.iter().any(|event| matches!(event, Event::Closed { stream } if *stream == id)));
        }
        assert_eq!((pair.a.stats().open_streams, pair.b.stats().open_streams), (0, 0));
    }
}

#[test]
fn a_reader_gives_credit_back_and_one_that_does_not_read_gives_none() {
    let mut pair = Pair::new();
    let (id, mut credit) = pair.a.open(pair.now, "x", Priority::Live).unwrap();
    assert_eq!(credit, STREAM_WINDOW);
    let message = Bytes::from(vec![1; 100_000]);
    let mut sent = 0;
    while credit >= message_cost(message.len()) {
        credit -= message_cost(message.len());
        pair.a.send(id, message.clone());
        sent += 1;
    }
    pair.settle();
    let given = |pair: &Pair| -> u64 {
        pair.a_events.iter().map(|event| if let Event::Credit { bytes, .. } = event { *bytes } else { 0 }).sum()
    };
    assert_eq!(given(&pair), 0);
    assert_eq!(pair.take_at_b().len(), sent);
    pair.settle();
    assert!(given(&pair) >= STREAM_WINDOW / 2, "{}", given(&pair));
}

#[test]
fn what_messages_did_not_need_is_given_back_so_that_both_sides_agree() {
    let seed: u64 = rand::random();
    for priority in [Priority::Live, Priority::Bulk] {
        let mut random = StdRng::seed_from_u64(seed);
        let mut pair = Pair::new();
        let (id, mut credit) = pair.a.open(pair.now, "x", priority).unwrap();
        let mut refunded = 0;
        for _ in 0..2_000 {
            let length = match random.random_range(0..20) {
                0 => random.random_range(0..200_000),
                _ => random.random_range(1_000..2_500),
            };
            assert!(credit >= message_cost(length), "seed {seed}: {credit}");
            credit -= message_cost(length);
            pair.a.send(id, vec![1; length].into());
            // Too much would be an error on the other side, too little would add up to more than a receiver collects.
            pair.settle();
            pair.take_at_b();
            pair.settle();
            for event in pair.a_events.drain(..) {
                match event {
                    Event::Credit { bytes, .. } => credit += bytes,
                    Event::Refunded { bytes, .. } => {
                        credit += bytes;
                        refunded += bytes;
                    }
                    _ => {}
                }
            }
            assert!((LEAST_WINDOW..=STREAM_WINDOW).contains(&credit), "seed {seed}: {credit}");
        }
        assert!(refunded > STREAM_WINDOW / 4, "{refunded}");
    }
}

#[test]
fn the_longest_message_costs_no_more_than_the_least_window() {
    assert!(message_cost(MAX_MESSAGE) <= LEAST_WINDOW);
}

#[test]
fn frames_end_with_their_records_so_that_full_batches_are_full() {
    let seed: u64 = rand::random();
    for priority in [Priority::Live, Priority::Bulk] {
        let mut random = StdRng::seed_from_u64(seed);
        let mut stream = Stream::new(1, true, priority, MAX_STREAM_WINDOW, Instant::now());
        let (mut cut, mut across) = (0, 0);
        for round in 0..200 {
            // Sometimes something else stands in front.
            let mut room = MAX_BATCH - if round % 8 == 7 { random.random_range(0..2_000) } else { 0 };
            loop {
                if !stream.has_outgoing() {
                    stream.queue(vec![1; random.random_range(20_000..=MAX_MESSAGE)].into());
                }
                let Some((frame, _)) = stream.next_frame(PRIMARY, room) else { break };
                let length = frame.encoded_len();
                assert!(length <= room, "seed {seed}");
                cut += 1;
                across += usize::from((MAX_BATCH - room) / RECORD != (MAX_BATCH - room + length - 1) / RECORD);
                room -= length;
            }
            assert!(room <= 18, "seed {seed}: {room} bytes of a batch are left");
        }
        assert!(across * 20 < cut, "seed {seed}: {across} of {cut} frames lie across records");
    }
}

#[test]
fn a_window_grows_for_a_reader_that_keeps_up_and_shrinks_back_with_its_stream() {
    let mut pair = Pair::new();
    // A round trip of 200 ms, and turns in which much goes by.
    pair.step = Duration::from_millis(100);
    pair.settle();
    for _ in 0..2 {
        let (id, mut credit) = pair.a.open(pair.now, "x", Priority::Live).unwrap();
        let message = Bytes::from(vec![1; 100_000]);
        let mut most = 0;
        for _ in 0..400 {
            while credit >= message_cost(message.len()) {
                credit -= message_cost(message.len());
                pair.a.send(id, message.clone());
            }
            pair.step = Duration::from_micros(100);
            let _ = pair.turn();
            pair.take_at_b();
            for event in pair.a_events.drain(..) {
                if let Event::Credit { bytes, .. } | Event::Refunded { bytes, .. } = event {
                    credit += bytes;
                }
            }
            most = most.max(credit);
        }
        assert!(most > STREAM_WINDOW && most <= MAX_STREAM_WINDOW, "{most}");
        pair.a.reset(id, 9);
        pair.settle();
    }
}

#[test]
fn a_stream_is_reset_in_both_directions_and_its_number_stays_used() {
    let (server, now) = (Identity::generate(), Instant::now());
    let (mut raw, mut machine) = Raw::established(&server, now);
    for frame in [open(1), data(1, 0, 3), Frame::control(FrameKind::Reset, 1, &proto::Reset { code: 1_024 })] {
        raw.send(&frame);
    }
    raw.exchange(&mut machine, now).unwrap();
    assert!(matches!(
        events(&mut machine)[..],
        [Event::Opened { stream: 1, .. }, Event::Message { stream: 1, .. }, Event::Reset { stream: 1, code: 1_024 }]
    ));
    // What comes for it late is ignored, and it cannot be opened again.
    raw.send(&data(1, 0, 3));
    raw.exchange(&mut machine, now).unwrap();
    assert!(events(&mut machine).is_empty());
    raw.send(&open(1));
    assert!(matches!(raw.exchange(&mut machine, now), Err(SessionError::OutOfPlace(_))));
}

/// A stream that has come to its end for an acceptor in one of the ways there are.
fn over(how: &str, now: Instant) -> (Raw, Machine) {
    let (mut raw, mut machine) = Raw::established(&Identity::generate(), now);
    raw.send(&open(1));
    match how {
        "both have ended" => raw.send(&data(1, FLAG_FIN, 0)),
        "reset by the peer" => raw.send(&Frame::control(FrameKind::Reset, 1, &proto::Reset { code: 1_024 })),
        _ => {}
    }
    raw.exchange(&mut machine, now).unwrap();
    match how {
        "both have ended" => machine.finish(1),
        "reset here" => machine.reset(1, 1_024),
        _ => {}
    }
    raw.exchange(&mut machine, now).unwrap();
    events(&mut machine);
    assert_eq!(machine.stats().open_streams, 0, "{how}");
    (raw, machine)
}

#[test]
fn frames_for_a_stream_that_is_over_are_ignored_however_it_ended_but_not_what_is_no_frame() {
    let now = Instant::now();
    let credit = |bytes, received| Frame::control(FrameKind::Credit, 1, &proto::Credit { bytes, received });
    let reset = |code| Frame::control(FrameKind::Reset, 1, &proto::Reset { code });
    for how in ["both have ended", "reset by the peer", "reset here"] {
        // What was under way, what cannot have been, and what would be errors while it is open.
        let (mut raw, mut machine) = over(how, now);
        let late = [
            data(1, FLAG_MORE, 100),
            data(1, FLAG_FIN, 0),
            data(1, 0, 65_536),
            bulk(1, 0, u64::MAX, 9),
            credit(u64::MAX, 0),
            credit(1, 7),
            reset(0),
            reset(3),
        ];
        for frame in late {
            raw.send(&frame);
            let answer = raw.exchange(&mut machine, now);
            assert!(answer.as_ref().is_ok_and(Vec::is_empty), "{how}: {frame:?} {answer:?}");
        }
        assert!(events(&mut machine).is_empty(), "{how}");
        for frame in [
            data(1, FLAG_FIN, 1),
            data(1, FLAG_FIN | FLAG_MORE, 0),
            bulk(1, FLAG_FIN, 3, 1),
            Frame::new(FrameKind::Credit, 0, 1, Bytes::from_static(&[0xff])),
            Frame::new(FrameKind::Reset, 0, 1, Bytes::from_static(&[0xff])),
            open(1),
        ] {
            let (mut raw, mut machine) = over(how, now);
            raw.send(&frame);
            assert!(raw.exchange(&mut machine, now).is_err(), "{how}: {frame:?}");
        }
    }
}

#[test]
fn who_drains_opens_no_more() {
    let (server, now) = (Identity::generate(), Instant::now());
    let (mut raw, mut machine) = Raw::established(&server, now);
    raw.send(&open(1));
    raw.send(&Frame::control(FrameKind::Drain, 0, &proto::Drain { last: 0 }));
    raw.exchange(&mut machine, now).unwrap();
    raw.send(&open(3));
    assert!(matches!(raw.exchange(&mut machine, now), Err(SessionError::OutOfPlace(_))));
}

#[test]
fn messages_cut_in_any_way_are_put_together() {
    let (server, now) = (Identity::generate(), Instant::now());
    let (mut raw, mut machine) = Raw::established(&server, now);
    raw.send(&open(1));
    for (flags, length) in [(FLAG_MORE, 1), (FLAG_MORE, 0), (FLAG_MORE, 65_536), (0, 0), (0, 0)] {
        raw.send(&data(1, flags, length));
    }
    raw.send(&data(1, FLAG_FIN, 0));
    raw.exchange(&mut machine, now).unwrap();
    let lengths: Vec<usize> = events(&mut machine)
        .iter()
        .filter_map(|event| if let Event::Message { message, .. } = event { Some(message.len()) } else { None })
        .collect();
    assert_eq!(lengths, [65_537, 0]);
}

#[test]
fn a_peers_stream_that_is_over_but_not_taken_counts_against_it() {
    let (server, now) = (Identity::generate(), Instant::now());
    let (mut raw, mut machine) = Raw::established(&server, now);
    let mut refused = 0;
    for i in 0..2 * MAX_STREAMS + 10 {
        let id = 2 * i + 1;
        raw.send(&open(id));
        raw.send(&data(id, 0, 1_000));
        raw.send(&data(id, FLAG_FIN, 0));
        raw.exchange(&mut machine, now).unwrap();
        machine.finish(id);
        let frames = raw.exchange(&mut machine, now).unwrap();
        refused += usize::from(events(&mut machine).is_empty());
        drop(frames);
    }
    assert_eq!(refused, 10, "what the application does not take is bounded");
    machine.release(now, 1);
    raw.send(&open(1_001));
    raw.exchange(&mut machine, now).unwrap();
    assert!(matches!(events(&mut machine)[..], [Event::Opened { .. }]));
}

#[test]
fn drain_lets_what_is_open_end_and_then_closes() {
    let mut pair = Pair::new();
    let id = pair.open(Priority::Live);
    pair.b.drain(pair.now);
    let crossing = pair.a.open(pair.now, "too late", Priority::Live).unwrap().0;
    pair.settle();
    assert!(pair.a_events.iter().any(|event| matches!(event, Event::Draining)));
    let never_served =
        |event: &Event| matches!(event, Event::Reset { stream, code: RESET_DRAINING } if *stream == crossing);
    assert!(pair.a_events.iter().any(never_served));
    assert!(
        pair.a.open(pair.now, "x", Priority::Live).is_none() && pair.b.open(pair.now, "x", Priority::Live).is_none()
    );
    pair.a.send(id, Bytes::from_static(b"goes on"));
    pair.a.finish(id);
    pair.settle();
    assert_eq!(pair.take_at_b().len(), 1);
    assert!(!pair.b_events.iter().any(|event| matches!(event, Event::Drained)));
    pair.b.finish(id);
    pair.settle();
    assert!(pair.b_events.iter().any(|event| matches!(event, Event::Drained)));
    assert!(!pair.a_events.iter().any(|event| matches!(event, Event::Drained)), "who sent DRAIN closes");
    pair.b.close(4);
    assert!(matches!(pair.run(), [Err(SessionError::ClosedByPeer(4)), Ok(())]));
}

#[test]
fn when_both_drain_the_dialler_closes() {
    let mut pair = Pair::new();
    pair.a.drain(pair.now);
    pair.b.drain(pair.now);
    pair.settle();
    let drained = |events: &[Event]| events.iter().filter(|event| matches!(event, Event::Drained)).count();
    assert_eq!(drained(&pair.a_events), 1);
    // The acceptor's own came while it could not know of the other's.
    pair.a.close(CLOSE_SHUTDOWN);
    assert!(matches!(pair.run(), [Ok(()), Err(SessionError::ClosedByPeer(CLOSE_SHUTDOWN))]));
}

#[test]
fn a_shutdown_sends_what_is_queued_first_and_an_error_does_not() {
    for (code, delivered) in [(CLOSE_SHUTDOWN, 1), (1, 0)] {
        let mut pair = Pair::new();
        let id = pair.open(Priority::Bulk);
        pair.a.send(id, Bytes::from(vec![3; 300_000]));
        pair.a.close(code);
        let [a, b] = pair.run();
        assert!(a.is_ok() && matches!(b, Err(SessionError::ClosedByPeer(c)) if c == code));
        assert_eq!(pair.take_at_b().len(), delivered, "code {code}");
        let mut last = Vec::new();
        pair.b.poll_output(pair.now, PRIMARY, &mut last);
        assert!(!pair.a.has_output(PRIMARY) && !pair.b.has_output(PRIMARY), "both have said all");
    }
}

#[test]
fn a_message_counts_until_the_last_of_it_is_let_go_of() {
    for priority in [Priority::Live, Priority::Bulk] {
        let mut pair = Pair::new();
        let id = pair.open(priority);
        if priority == Priority::Bulk {
            pair.join();
            pair.settle();
        }
        let message = Bytes::from(vec![1; 300_000]);
        pair.a.send(id, message.clone());
        // Which has bulk acknowledged.
        pair.a.finish(id);
        let (mut given_back, mut batches) = (0, 0);
        while given_back < message_cost(message.len()) {
            let _ = pair.turn();
            pair.take_at_b();
            for event in pair.a_events.drain(..) {
                match event {
                    Event::Gone { bytes, .. } => {
                        assert!(message.is_unique(), "{priority:?}: {bytes} bytes are kept that count no more");
                        given_back += bytes;
                    }
                    Event::Refunded { bytes, .. } => given_back += bytes,
                    _ => {}
                }
            }
            batches += 1;
            assert!(batches < 100, "{priority:?}: {given_back} bytes are given back");
        }
        assert_eq!(given_back, message_cost(message.len()), "{priority:?}");
        assert!(batches > 1, "{priority:?}");
    }
}

#[test]
fn a_session_that_ends_otherwise_keeps_nothing_of_what_it_would_have_sent() {
    for by_the_peer in [false, true] {
        let mut pair = Pair::new();
        let (live, bulk) = (pair.open(Priority::Live), pair.open(Priority::Bulk));
        let lane = pair.join();
        pair.settle();
        let messages = [live, bulk].map(|id| {
            let message = Bytes::from(vec![1; 300_000]);
            pair.a.send(id, message.clone());
            message
        });
        // Some of the bulk is under way on the lane, and would be sent again if that was lost.
        let (mut under_way, mut last) = (Vec::new(), Vec::new());
        pair.a.poll_output(pair.now, lane, &mut under_way);
        assert!(under_way.len() > 60_000 && !messages.iter().any(Bytes::is_unique));
        if by_the_peer {
            pair.b.close(3);
            pair.b.poll_output(pair.now, PRIMARY, &mut last);
            let ended = pair.a.handle_input(pair.now, PRIMARY, &last);
            assert!(matches!(ended, Err(SessionError::ClosedByPeer(3))), "{ended:?}");
        } else {
            pair.a.close(3);
        }
        assert!(messages.iter().all(Bytes::is_unique), "by the peer: {by_the_peer}");
    }
}

#[test]
fn a_silent_session_is_probed_and_then_given_up() {
    let mut pair = Pair::new();
    pair.settle();
    let before = pair.a.stats().frames_sent;
    pair.now = pair.a.poll_timeout().unwrap();
    pair.a.handle_timeout(pair.now).unwrap();
    let mut probe = Vec::new();
    pair.a.poll_output(pair.now, PRIMARY, &mut probe);
    assert_eq!(pair.a.stats().frames_sent, before + 1);
    let dead = pair.a.poll_timeout().unwrap();
    assert!(dead > pair.now);
    assert!(matches!(pair.a.handle_timeout(dead), Err(SessionError::Silent)));
    // One that is answered goes on.
    let mut pair = Pair::new();
    pair.settle();
    for _ in 0..10 {
        pair.now = pair.a.poll_timeout().unwrap().min(pair.b.poll_timeout().unwrap());
        pair.a.handle_timeout(pair.now).unwrap();
        pair.b.handle_timeout(pair.now).unwrap();
        pair.settle();
    }
}
