//! Bulk streams over lanes: nothing lost, nothing repeated, whatever becomes of a lane; and who may join one.

use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::time::Instant;

use super::harness::{Pair, Raw, bulk, events, greet, open_bulk};
use crate::identity::Identity;
use crate::session::{
    Accepted, Accepting, CLOSE_SHUTDOWN, Event, LaneError, MAX_LANES, PRIMARY, Priority, STREAM_WINDOW, SessionError,
    hello,
};
use crate::wire::session_proto as proto;
use crate::wire::{FLAG_FIN, Frame, FrameKind};

fn message(i: usize, length: usize) -> Bytes {
    (0..length).map(|k| (i * 31 + k / 997) as u8).collect()
}

#[test]
fn bulk_goes_by_lanes_and_messages_by_the_primary() {
    let mut pair = Pair::new();
    assert_eq!(pair.a.lanes_wanted(), 0, "nothing to carry");
    let id = pair.open(Priority::Bulk);
    assert_eq!((pair.a.lanes_wanted(), pair.b.lanes_wanted()), (4, 0));
    let lane = pair.join();
    assert_eq!((pair.a.lanes_wanted(), pair.b.stats().lanes), (3, 1));
    pair.settle();
    let live = pair.open(Priority::Live);
    pair.a.send(id, message(1, 400_000));
    pair.b.send(id, message(2, 400_000));
    pair.a.send(live, Bytes::from_static(b"hello"));
    let (mut primary, mut by_lane) = (Vec::new(), Vec::new());
    pair.a.poll_output(pair.now, PRIMARY, &mut primary);
    pair.a.poll_output(pair.now, lane, &mut by_lane);
    assert!(primary.len() < 2_000 && by_lane.len() > 60_000, "{} {}", primary.len(), by_lane.len());
    pair.to_b.entry(PRIMARY).or_default().extend(primary);
    pair.to_b.entry(lane).or_default().extend(by_lane);
    pair.settle();
    assert_eq!(pair.take_at_a(), [(id, message(2, 400_000))]);
    let mut taken = pair.take_at_b();
    taken.sort_by_key(|(_, message)| message.len());
    assert_eq!(taken, [(live, Bytes::from_static(b"hello")), (id, message(1, 400_000))]);
}

#[test]
fn who_opened_a_bulk_stream_sends_little_before_it_is_heard() {
    let mut pair = Pair::new();
    pair.open(Priority::Bulk);
    let lane = pair.join();
    let (id, _) = pair.a.open(pair.now, "x", Priority::Bulk).unwrap();
    pair.a.send(id, message(1, 400_000));
    let (mut primary, mut by_lane) = (Vec::new(), Vec::new());
    pair.a.poll_output(pair.now, lane, &mut by_lane);
    assert!(by_lane.is_empty(), "the peer may not know the stream yet");
    pair.a.poll_output(pair.now, PRIMARY, &mut primary);
    assert!(primary.len() > 4 * 16_366 && primary.len() < 5 * 16_384, "{}", primary.len());
    pair.to_b.entry(PRIMARY).or_default().extend(primary);
    pair.settle();
    assert_eq!(pair.take_at_b(), [(id, message(1, 400_000))]);
    // Who did not open it sends by the lane at once.
    pair.b.send(id, message(2, 100_000));
    by_lane.clear();
    pair.b.poll_output(pair.now, lane, &mut by_lane);
    assert!(by_lane.len() > 60_000);
}

#[test]
fn lanes_that_come_delay_and_die_lose_and_repeat_nothing() {
    let seed: u64 = rand::random();
    let (mut died, mut resent) = (0, 0);
    for round in 0..20 {
        let mut random = StdRng::seed_from_u64(seed.wrapping_add(round));
        let mut pair = Pair::new();
        let id = pair.open(Priority::Bulk);
        let (mut sent, mut at_a, mut at_b) = ([0, 0], Vec::new(), Vec::new());
        let mut credit = [STREAM_WINDOW; 2];
        let messages: Vec<Bytes> = (0..30).map(|i| message(i, random.random_range(0..200_000))).collect();
        for turn in 0..3_000 {
            for side in 0..2 {
                if let Some(message) = messages.get(sent[side])
                    && credit[side] >= crate::session::message_cost(message.len())
                {
                    credit[side] -= crate::session::message_cost(message.len());
                    if side == 0 {
                        pair.a.send(id, message.clone())
                    } else {
                        pair.b.send(id, message.clone())
                    }
                    sent[side] += 1;
                }
            }
            if pair.a.lanes.len() < MAX_LANES && random.random_ratio(1, 3) {
                pair.join();
            }
            let lanes: Vec<_> = pair.a.lanes.keys().copied().collect();
            for lane in lanes {
                if random.random_ratio(1, 6) {
                    // What is under way is gone; both sides learn of it, perhaps not at once.
                    died += 1;
                    pair.to_a.remove(&lane);
                    pair.to_b.remove(&lane);
                    pair.a.handle_lost(pair.now, lane).unwrap();
                    pair.b.handle_lost(pair.now, lane).unwrap();
                }
            }
            pair.turn_some(&mut random).into_iter().for_each(|result| result.unwrap());
            at_b.extend(pair.take_at_b().into_iter().map(|(_, message)| message));
            at_a.extend(pair.take_at_a().into_iter().map(|(_, message)| message));
            for (side, events) in [&mut pair.a_events, &mut pair.b_events].into_iter().enumerate() {
                for event in events.drain(..) {
                    if let Event::Credit { bytes, .. } | Event::Refunded { bytes, .. } = event {
                        credit[side] += bytes;
                    }
                }
            }
            if at_a.len() == messages.len() && at_b.len() == messages.len() {
                break;
            }
            assert!(turn < 2_999, "seed {seed} round {round}: {} {}", at_a.len(), at_b.len());
        }
        assert!(at_a == messages && at_b == messages, "seed {seed} round {round}");
        pair.a.finish(id);
        pair.b.finish(id);
        pair.settle();
        assert_eq!((pair.a.stats().open_streams, pair.b.stats().open_streams), (0, 0), "seed {seed} round {round}");
        resent += pair.a.stats().frames_resent + pair.b.stats().frames_resent;
    }
    assert!(died > 50 && resent > 50, "seed {seed}: {died} lanes died, {resent} frames were sent again");
}

#[test]
fn a_silent_lane_ends_alone_and_what_it_had_goes_elsewhere() {
    let mut pair = Pair::new();
    let id = pair.open(Priority::Bulk);
    let lane = pair.join();
    pair.settle();
    pair.a.send(id, message(1, 50_000));
    let mut lost = Vec::new();
    pair.a.poll_output(pair.now, lane, &mut lost);
    assert!(lost.len() > 50_000);
    for _ in 0..8 {
        pair.now += std::time::Duration::from_secs(2);
        pair.a.handle_timeout(pair.now).unwrap();
        // The primary is alive.
        let (mut ping, mut pong) = (Vec::new(), Vec::new());
        pair.a.poll_output(pair.now, PRIMARY, &mut ping);
        if !ping.is_empty() {
            pair.b.handle_input(pair.now, PRIMARY, &ping).unwrap();
        }
        pair.b.poll_output(pair.now, PRIMARY, &mut pong);
        if !pong.is_empty() {
            pair.a.handle_input(pair.now, PRIMARY, &pong).unwrap();
        }
    }
    assert!(events(&mut pair.a).iter().any(|event| matches!(event, Event::LaneEnded(ended) if *ended == lane)));
    pair.b.handle_lost(pair.now, lane).unwrap();
    pair.settle();
    assert_eq!(pair.take_at_b(), [(id, message(1, 50_000))]);
}

#[test]
fn a_session_that_closes_asks_for_no_time_that_has_passed() {
    let mut pair = Pair::new();
    let id = pair.open(Priority::Bulk);
    pair.join();
    pair.settle();
    // It has much to say before CLOSE, on the primary; the lane has ended on this side.
    pair.a.send(id, message(1, 400_000));
    pair.a.close(CLOSE_SHUTDOWN);
    pair.now += std::time::Duration::from_secs(6);
    pair.a.handle_timeout(pair.now).unwrap();
    assert!(pair.a.poll_timeout().unwrap() > pair.now);
}

#[test]
fn a_lane_that_the_peer_closes_or_breaks_ends_alone() {
    let mut pair = Pair::new();
    let id = pair.open(Priority::Bulk);
    for garbage in [false, true] {
        let lane = pair.join();
        if garbage {
            pair.a
                .handle_input(
                    pair.now,
                    lane,
                    &[
                        0x17, 3, 3, 0, 32, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
                        0, 0, 0, 0, 0, 0, 0,
                    ],
                )
                .unwrap();
        } else {
            pair.b.lanes.get_mut(&lane).unwrap().write_close(super::super::machine::close_frame(2));
        }
        pair.settle();
        assert!(pair.a_events.drain(..).any(|event| matches!(event, Event::LaneEnded(ended) if ended == lane)));
        pair.b.handle_lost(pair.now, lane).unwrap();
    }
    pair.a.send(id, message(1, 5_000));
    pair.settle();
    assert_eq!(pair.take_at_b().len(), 1, "the session goes on");
}

/// What the acceptor makes of a raw peer's JOIN on a connection of its own.
fn join_by(pair: &mut Pair, join: impl FnOnce(&rustls::Connection) -> Frame) -> bool {
    let (mut raw, mut accepting) = (Raw::client(), Accepting::new(&pair.acceptor, pair.now).unwrap());
    raw.knock(&mut accepting, pair.now).unwrap();
    let join = join(&raw.tls);
    raw.send(&join);
    let Ok(Some(Accepted::Lane(request))) = raw.knock(&mut accepting, pair.now) else { panic!("not heard") };
    match pair.b.join(pair.now, request) {
        Ok(_) => true,
        Err(request) => {
            let frames = raw.input(&request.refuse()).unwrap();
            let refused = Frame::control(FrameKind::Close, 0, &proto::Close { code: 2 });
            assert_eq!(frames, [refused], "the same whatever the reason");
            false
        }
    }
}

#[test]
fn a_lane_is_neither_stolen_nor_replayed_nor_moved() {
    let mut pair = Pair::new();
    pair.settle();
    let mut other = Pair::new();
    other.settle();
    let key = |pair: &Pair| pair.a.secrets().unwrap();
    let mut seen = None;
    let secrets = key(&pair);
    assert!(join_by(&mut pair, |tls| {
        let join = secrets.join(1, tls).unwrap();
        seen = Some(join.clone());
        join
    }));
    let replayed = seen.unwrap();
    assert!(!join_by(&mut pair, |_| replayed), "replayed, or forwarded by a relay in the middle");
    assert!(!join_by(&mut pair, |tls| secrets.join(1, tls).unwrap()), "a number that was used");
    let foreign = key(&other);
    assert!(!join_by(&mut pair, |tls| foreign.join(2, tls).unwrap()), "another session's");
    let guessed = hello::Secrets::for_vectors(pair.a.session_id().unwrap().0, [1; 32]);
    assert!(!join_by(&mut pair, |tls| guessed.join(2, tls).unwrap()), "who knows the id alone");
    assert!(!join_by(&mut pair, |tls| {
        let mut join = secrets.join(2, tls).unwrap();
        let mut payload = join.payload.to_vec();
        payload[19] = 3;
        join.payload = payload.into();
        join
    }));
    for number in 2..=MAX_LANES as u32 {
        assert!(join_by(&mut pair, |tls| secrets.join(number, tls).unwrap()));
    }
    assert!(!join_by(&mut pair, |tls| secrets.join(9, tls).unwrap()), "as many as may be");
    assert_eq!(pair.b.stats().lanes, MAX_LANES);
    pair.settle_primary();
}

#[test]
fn a_lane_under_another_key_is_noticed_by_either_side() {
    let mut pair = Pair::new();
    pair.settle();
    let elsewhere = super::harness::acceptor(&Identity::generate());
    // The dialler: another replica answers, and hears nothing but a ClientHello.
    let mut dialling = pair.a.lane_dialling(pair.now).unwrap();
    let mut accepting = Accepting::new(&elsewhere, pair.now).unwrap();
    assert!(matches!(greet(&mut dialling, &mut accepting, pair.now), Err(LaneError::OtherReplica)));
    let mut rest = Vec::new();
    dialling.poll_output(&mut rest);
    assert!(rest.is_empty());
    // The acceptor: a dialler that does not look.
    let (mut raw, mut accepting) = (Raw::client(), Accepting::new(&elsewhere, pair.now).unwrap());
    raw.knock(&mut accepting, pair.now).unwrap();
    raw.send(&pair.a.secrets().unwrap().join(1, &raw.tls).unwrap());
    let Ok(Some(Accepted::Lane(request))) = raw.knock(&mut accepting, pair.now) else { panic!() };
    assert_eq!(Some(request.session_id()), pair.b.session_id());
    assert!(pair.b.join(pair.now, request).is_err());
}

#[test]
fn a_lane_takes_no_frames_but_its_own() {
    let mut pair = Pair::new();
    pair.settle();
    let secrets = pair.a.secrets().unwrap();
    let (mut raw, mut accepting) = (Raw::client(), Accepting::new(&pair.acceptor, pair.now).unwrap());
    raw.knock(&mut accepting, pair.now).unwrap();
    raw.send(&secrets.join(1, &raw.tls).unwrap());
    raw.send(&open_bulk(1));
    let Ok(Some(Accepted::Lane(request))) = raw.knock(&mut accepting, pair.now) else { panic!() };
    assert!(pair.b.join(pair.now, request).is_ok());
    let refused = pair.b.handle_timeout(pair.b.poll_timeout().unwrap());
    assert!(matches!(refused, Err(SessionError::OutOfPlace(_))), "{refused:?}");
}

#[test]
fn places_acknowledgements_and_ends_that_cannot_be_are_errors() {
    let (server, now) = (Identity::generate(), Instant::now());
    let credit = |bytes, received| Frame::control(FrameKind::Credit, 1, &proto::Credit { bytes, received });
    let cases: [(&str, Vec<Frame>); 7] = [
        ("beyond what was sent", vec![credit(0, 1)]),
        ("behind the end", vec![bulk(1, FLAG_FIN, 3, 0), bulk(1, 0, 4, 1)]),
        ("an end too early", vec![bulk(1, 0, 4, 1), bulk(1, FLAG_FIN, 3, 0)]),
        ("the place that no end can follow", vec![bulk(1, 0, u64::MAX, 1)]),
        ("an end at that place", vec![bulk(1, FLAG_FIN, u64::MAX, 0)]),
        ("data on a bulk stream", vec![super::harness::data(1, 0, 1)]),
        ("more than the window, out of order", (1..100).map(|place| bulk(1, 0, place, 65_536)).collect()),
    ];
    for (what, frames) in cases {
        let (mut raw, mut machine) = Raw::established(&server, now);
        raw.send(&open_bulk(1));
        frames.iter().for_each(|frame| raw.send(frame));
        let refused = raw.exchange(&mut machine, now);
        assert!(matches!(refused, Err(SessionError::Limit(_) | SessionError::OutOfPlace(_))), "{what}: {refused:?}");
    }
    // Repeated frames cost nothing and come out once.
    let (mut raw, mut machine) = Raw::established(&server, now);
    raw.send(&open_bulk(1));
    for _ in 0..100 {
        raw.send(&bulk(1, 0, 0, 65_536));
        raw.send(&bulk(1, 0, 2, 100));
    }
    raw.exchange(&mut machine, now).unwrap();
    let count = events(&mut machine).iter().filter(|event| matches!(event, Event::Message { .. })).count();
    assert_eq!(count, 1);
}
