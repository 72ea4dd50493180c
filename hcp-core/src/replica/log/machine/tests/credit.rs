//! What a peer may have here at once, on its way to a disk that takes nothing too.

use super::*;
use crate::replica::log::limits::{FREE_BURST, MAX_FETCHED, WINDOW};
use crate::replica::log::machine::AppendId;
use crate::replica::log::message::Receipt;
use crate::replica::log::storage::Piece;

/// Sends segments of a log as long as there is credit, at most so many bytes, and says how many it were.
fn send(bench: &mut Bench, before: &mut Option<Arc<Segment>>, most: u64) -> u64 {
    let (mut allowed, mut sent) = (WINDOW, 0);
    while sent < most {
        let entries = vec![Entry::Plain(vec![0; 60_000].into()); 4];
        let of = log(&bench.cast, 1, 1);
        let segment = Draft { entries, ..Draft::of(of, before.as_deref()) }.sign(&bench.cast);
        let cost = segment.cost() as u64;
        if cost > allowed {
            break;
        }
        (allowed, sent) = (allowed - cost, sent + cost);
        bench.say(1, Message::Segment(Arc::clone(&segment)));
        *before = Some(segment);
        allowed += bench.credit(1);
    }
    sent
}

#[test]
fn a_peer_is_given_credit_back_when_what_it_sent_is_durable() {
    let mut bench = Bench::new(Cast::new(3, false));
    bench.link(1);
    bench.store = Store::Full;
    let mut last = None;
    let sent = send(&mut bench, &mut last, 100 * WINDOW);
    assert!(sent <= WINDOW && sent > WINDOW / 2, "{sent}");
    assert_eq!(bench.machine.sizes().unstored, sent);
    bench.store = Store::Quick;
    bench.pass(Duration::from_secs(2));
    assert_eq!(bench.machine.sizes().unstored, 0);
    assert!(bench.credit(1) > WINDOW / 2);
    // It goes on as before.
    assert!(send(&mut bench, &mut last, 8 * WINDOW) >= 8 * WINDOW);
    assert!(bench.unlinked.is_empty(), "{:?}", bench.unlinked);
}

#[test]
fn a_peer_that_comes_again_and_again_has_no_more_on_its_way_to_the_disk() {
    let mut bench = Bench::new(Cast::new(3, false));
    bench.store = Store::Full;
    let mut last = None;
    for _ in 0..20 {
        bench.link(1);
        bench.take_sent(1);
        send(&mut bench, &mut last, WINDOW);
        assert!(bench.machine.sizes().unstored <= WINDOW, "{:?}", bench.machine.sizes());
    }
    assert!(bench.unlinked.is_empty(), "{:?}", bench.unlinked);
}

#[test]
fn no_more_of_a_state_is_fetched_than_the_disk_takes() {
    let cast = Cast::new(3, false);
    let first = Draft { entries: vec![manifest(&cast)], ..Draft::of(log(&cast, 1, 1), None) }.sign(&cast);
    let pieces: Vec<Bytes> = (0..200u8).map(|n| vec![n; 1_000].into()).collect();
    let held = checkpoint(&cast, &settled(&cast, &[&first]), &pieces);
    let mut bench = Bench::new(cast);
    bench.link(1);
    bench.store = Store::Full;
    bench.say(1, offer(&held));
    let serve = |bench: &mut Bench| {
        let mut count = 0;
        loop {
            let asked = bench.take_sent(1).into_iter().filter_map(|message| match message {
                Message::Fetch { root, index } => Some((root, index)),
                _ => None,
            });
            let asked: Vec<_> = asked.collect();
            if asked.is_empty() {
                return count;
            }
            count += asked.len();
            for (root, index) in asked {
                bench.say(1, Message::Piece(Piece { root, index, bytes: pieces[index as usize].clone() }));
            }
        }
    };
    assert_eq!(serve(&mut bench), MAX_FETCHED);
    bench.store = Store::Quick;
    let end = bench.now + Duration::from_secs(20);
    while bench.machine.status().stopped != Some(super::super::Stop::Reload) {
        assert!(bench.now < end, "the state does not come");
        bench.pass(Duration::from_millis(500));
        serve(&mut bench);
    }
}

/// However fast segments go out, a peer may answer each of them; what it says beside that is bounded.
#[test]
fn who_answers_what_is_pushed_to_it_does_not_say_too_much() {
    let mut bench = Bench::new(Cast::new(3, false));
    bench.link(1);
    let mut answers = 0.0;
    for id in 0.. {
        bench.tell(Input::Append { id: AppendId(id), entry: Bytes::from_static(b"hello") });
        bench.machine.cut();
        bench.tell(Input::Tick);
        let mut pushed = 0;
        for message in bench.take_sent(1) {
            let Message::Segment(segment) = message else { continue };
            let (tip, keys) = (segment.tip(), bench.cast.keys[1].clone());
            let signature = (keys.sign)(&tip.receipted(keys.service_key()));
            bench.say(1, Message::Receipt(Receipt { tip, signature }));
            bench.say(1, Message::Credit(segment.cost() as u64));
            pushed += 1;
        }
        assert!(pushed > 0, "nothing is pushed after {answers} answers: {:?}", bench.unlinked);
        answers += 2.0 * f64::from(pushed);
        if answers > 2.0 * FREE_BURST {
            break;
        }
    }
    assert!(bench.unlinked.is_empty(), "{:?}", bench.unlinked);
    for _ in 0..=FREE_BURST as usize {
        bench.say(1, Message::Credit(1));
    }
    assert_eq!(bench.unlinked, [(bench.cast.nodes[1], Unlink::Flood)]);
}
