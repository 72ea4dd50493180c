//! Fetching a state from peers that do not give what they offer, and serving pieces.

use super::*;
use crate::replica::log::limits::FETCH;
use crate::replica::log::machine::checkpoints::Stable;

/// Checkpoints of one entry and of two, of states of three pieces each.
fn two_checkpoints(cast: &Cast) -> [(Checkpoint, Vec<Bytes>); 2] {
    let own = log(cast, 1, 1);
    let first = Draft { entries: vec![manifest(cast)], ..Draft::of(own, None) }.sign(cast);
    let second = Draft::of(own, Some(&first)).sign(cast);
    let of = |covered: &[&Segment], name: u8| {
        let pieces: Vec<Bytes> = (0..3).map(|n| vec![name, n].into()).collect();
        (checkpoint(cast, &settled(cast, covered), &pieces), pieces)
    };
    [of(&[&first], 1), of(&[&first, &second], 2)]
}

fn asked(messages: &[Message]) -> Vec<(crate::replica::log::storage::Hash, u32)> {
    let fetch = |message: &Message| match message {
        Message::Fetch { root, index } => Some((*root, *index)),
        _ => None,
    };
    messages.iter().filter_map(fetch).collect()
}

/// A peer sends what it is asked for, for so long or until the machine opens its store again.
fn serve(bench: &mut Bench, node: usize, (held, pieces): &(Checkpoint, Vec<Bytes>), span: Duration) {
    let end = bench.now + span;
    while bench.now < end {
        for (root, index) in asked(&bench.take_sent(node)) {
            if root == held.root {
                let bytes = pieces[index as usize].clone();
                bench.say(node, Message::Piece(crate::replica::log::storage::Piece { root, index, bytes }));
            }
        }
        bench.pass(Duration::from_millis(500));
    }
}

fn is_loaded(bench: &Bench) -> bool {
    bench.machine.status().stopped == Some(super::super::Stop::Reload)
}

#[test]
fn a_newer_checkpoint_takes_the_place_of_one_that_is_offered_and_never_given() {
    let cast = Cast::new(3, false);
    let [old, new] = two_checkpoints(&cast);
    let mut bench = Bench::new(cast);
    bench.link(1);
    bench.link(2);
    bench.say(1, offer(&old.0));
    assert_eq!(asked(&bench.take_sent(1)).len(), 3);
    bench.say(2, offer(&new.0));
    // Nor does it come back.
    bench.say(1, offer(&old.0));
    serve(&mut bench, 2, &new, Duration::from_secs(5));
    assert!(is_loaded(&bench));
}

#[test]
fn what_is_offered_and_never_given_holds_up_no_older_checkpoint_for_long() {
    let cast = Cast::new(3, false);
    let [old, new] = two_checkpoints(&cast);
    let mut bench = Bench::new(cast);
    bench.link(1);
    bench.link(2);
    bench.say(1, offer(&new.0));
    bench.pass(FETCH + Duration::from_secs(1));
    bench.say(2, offer(&old.0));
    // Who gave nothing has nothing given up.
    bench.say(1, offer(&new.0));
    serve(&mut bench, 2, &old, Duration::from_secs(5));
    assert!(is_loaded(&bench));
}

#[test]
fn of_two_that_offer_a_state_the_silent_one_is_asked_no_more() {
    let cast = Cast::new(3, false);
    let [old, _] = two_checkpoints(&cast);
    let mut bench = Bench::new(cast);
    bench.link(1);
    bench.say(1, offer(&old.0));
    bench.pass(Duration::from_secs(1));
    bench.link(2);
    bench.say(2, offer(&old.0));
    bench.take_sent(1);
    serve(&mut bench, 2, &old, FETCH + Duration::from_secs(2));
    assert!(is_loaded(&bench) && asked(&bench.take_sent(1)).is_empty());
}

#[test]
fn what_was_fetched_is_gone_on_with_when_its_only_link_comes_back() {
    let cast = Cast::new(3, false);
    let [old, _] = two_checkpoints(&cast);
    let mut bench = Bench::new(cast);
    bench.link(1);
    bench.say(1, offer(&old.0));
    let first = asked(&bench.take_sent(1));
    let (root, index) = first[0];
    let bytes = old.1[index as usize].clone();
    bench.say(1, Message::Piece(crate::replica::log::storage::Piece { root, index, bytes }));
    let peer = bench.cast.nodes[1];
    bench.tell(Input::LinkDown(peer));
    bench.pass(Duration::from_secs(20));
    bench.link(1);
    bench.say(1, offer(&old.0));
    let again = asked(&bench.take_sent(1));
    assert_eq!(again.len(), 2, "{again:?}");
    assert!(!again.contains(&(root, index)));
    for (root, index) in again {
        let bytes = old.1[index as usize].clone();
        bench.say(1, Message::Piece(crate::replica::log::storage::Piece { root, index, bytes }));
    }
    bench.pass(Duration::from_secs(1));
    assert!(is_loaded(&bench));
}

#[test]
fn a_piece_that_was_read_for_a_link_that_is_gone_is_nothing_to_a_later_one() {
    let cast = Cast::new(3, false);
    let [(held, _), _] = two_checkpoints(&cast);
    let root = held.root;
    let mut bench = Bench::open(cast, Some(held));
    bench.link(1);
    bench.store = Store::Away;
    bench.say(1, Message::Fetch { root, index: 0 });
    let (read, _) = bench.reads.pop().expect("it is read");
    bench.link(1);
    bench.tell(Input::Found(read, Found::Piece(Some(Bytes::from_static(b"state")))));
    assert!(bench.take_sent(1).iter().all(|message| !matches!(message, Message::Piece(_))));
    // It is served as any other.
    bench.say(1, Message::Fetch { root, index: 0 });
    let (read, _) = bench.reads.pop().expect("it is read");
    bench.tell(Input::Found(read, Found::Piece(Some(Bytes::from_static(b"state")))));
    assert!(bench.take_sent(1).iter().any(|message| matches!(message, Message::Piece(_))));
}

#[test]
fn of_two_checkpoints_the_one_that_covers_more_is_newer_whatever_each_forgets() {
    let cast = Cast::new(3, false);
    let (over, goes_on) = (log(&cast, 1, 1), log(&cast, 2, 1));
    let first = Draft { entries: vec![manifest(&cast)], ..Draft::of(goes_on, None) }.sign(&cast);
    let second = Draft::of(goes_on, Some(&first)).sign(&cast);
    let ended = Draft::of(over, None).sign(&cast);
    let stable = |segments: &[&Segment], forgets: bool| {
        let mut ledger = settled(&cast, segments);
        if forgets {
            ledger.logs.remove(&over);
            ledger.forgotten = Arc::new([(over, 1)].into());
        }
        Stable::of(&cast.keys[0], checkpoint(&cast, &ledger, &[Bytes::from_static(STATE)])).expect("a good one")
    };
    let less = stable(&[&ended, &first], false);
    let forgetful = stable(&[&ended, &first], true);
    let more = stable(&[&ended, &first, &second], false);
    let most = stable(&[&ended, &first, &second], true);
    let order = [&less, &forgetful, &more, &most];
    for (at, one) in order.iter().enumerate() {
        for (other_at, other) in order.iter().enumerate() {
            assert_eq!(one.is_newer_than(other), at > other_at, "{at} and {other_at}");
        }
    }
    // What neither covers of the other's is lost by neither.
    let apart = stable(&[&first, &second], false);
    assert!(!apart.is_newer_than(&less) && !less.is_newer_than(&apart));
}
