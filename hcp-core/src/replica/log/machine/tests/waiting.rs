//! What segments that wait for others cost, and branches of which it is read what their authors had seen.

use super::*;
use crate::replica::log::limits::{FREE_BURST, OFFER};
use crate::replica::log::message::Need;

#[test]
fn what_many_wait_for_is_struck_off_one_by_one() {
    const COUNT: usize = 1_024;
    let cast = Cast::new(3, false);
    let mut chain: Vec<Arc<Segment>> = Vec::new();
    for _ in 0..COUNT {
        let next = Draft::of(log(&cast, 1, 1), chain.last().map(|last| &**last)).sign(&cast);
        chain.push(next);
    }
    let dependencies: Vec<Tip> = chain.iter().map(|segment| segment.tip()).collect();
    let mut waiters = Vec::new();
    for run in 2..10 {
        let dependencies = dependencies.clone();
        waiters.push(Draft { dependencies, ..Draft::of(log(&cast, 1, run), None) }.sign(&cast));
    }
    let mut bench = Bench::new(cast);
    bench.link(1);
    for segment in &waiters {
        bench.say(1, Message::Segment(Arc::clone(segment)));
    }
    assert_eq!(bench.machine.sizes().held, waiters.len());
    let (last, before) = chain.split_last().expect("there are some");
    let looked = super::super::checks::looked();
    for segment in before {
        bench.say(1, Message::Segment(Arc::clone(segment)));
    }
    let each = (super::super::checks::looked() - looked) / before.len() as u64;
    assert_eq!(bench.machine.sizes().held, waiters.len());
    assert!(each < 20, "for each segment that came it was looked {each} times whether one is held");
    bench.say(1, Message::Segment(Arc::clone(last)));
    assert_eq!(bench.machine.sizes().held, 0);
    assert!(waiters.iter().all(|waiter| bench.machine.ledger().logs.contains_key(&waiter.head.log)));
}

/// A log whose second segment names one of node 2, and a branch at its third that an open log of the author's needs.
fn branch_behind() -> (Bench, LogId, Arc<Segment>) {
    let cast = Cast::new(3, false);
    let of = log(&cast, 1, 1);
    let other = Draft::of(log(&cast, 2, 1), None).sign(&cast);
    let first = Draft::of(of, None).sign(&cast);
    let second = Draft { dependencies: vec![other.tip()], ..Draft::of(of, Some(&first)) }.sign(&cast);
    let [third, branch] = [1, 2].map(|salt| Draft { salt, ..Draft::of(of, Some(&second)) }.sign(&cast));
    let needs = Draft { dependencies: vec![branch.tip()], ..Draft::of(log(&cast, 1, 2), None) }.sign(&cast);
    let mut bench = Bench::new(cast);
    bench.link(1);
    bench.link(2);
    for segment in [other, first, second, third, needs] {
        bench.say(1, Message::Segment(segment));
    }
    (bench, of, branch)
}

#[test]
fn a_branch_is_taken_in_though_what_its_author_had_named_is_known_as_nothing_no_more() {
    let (mut bench, of, branch) = branch_behind();
    // As when so much came since that this one is not known any more.
    bench.machine.forget_place(&log(&bench.cast, 2, 1), 1);
    bench.say(1, Message::Segment(Arc::clone(&branch)));
    bench.pass(Duration::from_secs(2));
    assert!(bench.machine.ledger().logs[&of].ends_in(3, &branch.hash).is_some());
    assert!(bench.longest < Duration::from_secs(5));
}

#[test]
fn a_branch_whose_link_is_gone_holds_up_no_other_one() {
    let (mut bench, of, branch) = branch_behind();
    bench.store = Store::Away;
    bench.say(1, Message::Segment(Arc::clone(&branch)));
    // While it is being read what its author had seen, its link goes.
    assert!(bench.reads.iter().any(|(_, what)| matches!(what, Read::Rows { .. })), "{:?}", bench.reads);
    let peer = bench.cast.nodes[1];
    bench.tell(Input::LinkDown(peer));
    assert!(bench.machine.ledger().logs[&of].ends_in(3, &branch.hash).is_none());
    bench.store = Store::Quick;
    // It comes again over another one.
    let needs = Draft { dependencies: vec![branch.tip()], ..Draft::of(log(&bench.cast, 1, 2), None) }.sign(&bench.cast);
    bench.say(2, Message::Segment(needs));
    bench.say(2, Message::Segment(Arc::clone(&branch)));
    bench.pass(Duration::from_secs(2));
    assert!(bench.machine.ledger().logs[&of].ends_in(3, &branch.hash).is_some());
    // What was read for the first changes nothing.
    for (read, what) in std::mem::take(&mut bench.reads) {
        let found = bench.disk.read(&what);
        bench.tell(Input::Found(read, found));
    }
    assert_eq!(bench.machine.ledger().logs[&of].count(), 2);
}

#[test]
fn a_peer_that_comes_again_may_say_no_more_than_it_could() {
    let mut bench = Bench::new(Cast::new(3, false));
    let tip = Tip { log: log(&bench.cast, 1, 1), seq: 1, hash: [1; 32] };
    let mut said = 0;
    while bench.unlinked.is_empty() {
        bench.link(1);
        for _ in 0..100 {
            bench.say(1, Message::Need(Need { tip, back: 1 }));
            said += 1;
        }
        assert!(said <= FREE_BURST as u64, "{said} messages, and it may say more");
    }
}

#[test]
fn of_offers_that_come_at_once_one_is_looked_at_and_the_last_later() {
    let cast = Cast::new(3, false);
    let first = Draft { entries: vec![manifest(&cast)], ..Draft::of(log(&cast, 1, 1), None) }.sign(&cast);
    let held = checkpoint(&cast, &settled(&cast, &[&first]), &[Bytes::from_static(b"state")]);
    let nonsense =
        Checkpoint { certificate: held.certificate.clone(), root: [9; 32], pieces: vec![9; 32].into(), ..held.clone() };
    let mut bench = Bench::new(cast);
    bench.link(1);
    bench.say(1, offer(&nonsense));
    bench.say(1, offer(&held));
    let fetches = |bench: &mut Bench| {
        bench.take_sent(1).iter().filter(|message| matches!(message, Message::Fetch { .. })).count()
    };
    assert_eq!(fetches(&mut bench), 0);
    bench.pass(OFFER / 2 + Duration::from_secs(1));
    assert_eq!(fetches(&mut bench), 1);
}

/// A node with a checkpoint of one segment of node 1's log, so many in a row that stand beside it, and one that names the last.
fn beside(count: usize) -> (Bench, Vec<Arc<Segment>>, Arc<Segment>) {
    let cast = Cast::new(3, false);
    let of = log(&cast, 1, 1);
    let begun = Draft { entries: vec![manifest(&cast)], ..Draft::of(of, None) }.sign(&cast);
    let stored = checkpoint(&cast, &settled(&cast, &[&begun]), &[Bytes::from_static(STATE)]);
    let mut chain = vec![Draft { salt: 1, ..Draft::of(of, None) }.sign(&cast)];
    for _ in 0..count {
        let next = Draft::of(of, chain.last().map(|last| &**last)).sign(&cast);
        chain.push(next);
    }
    let dependencies = chain.last().map(|last| last.tip()).into_iter().collect();
    let names = Draft { dependencies, ..Draft::of(log(&cast, 1, 2), None) }.sign(&cast);
    let mut bench = Bench::open(cast, Some(stored));
    bench.link(1);
    bench.link(2);
    (bench, chain.split_off(1), names)
}

fn has(bench: &Bench, segment: &Segment) -> bool {
    bench.disk.rows().any(|row| (row.log, row.hash) == (segment.head.log, segment.hash))
}

#[test]
fn what_stands_beside_a_checkpoint_is_kept_once_something_names_it_and_given_to_who_lacks_it() {
    for named_first in [false, true] {
        let (mut bench, chain, names) = beside(1);
        let beside = &chain[0];
        if !named_first {
            bench.say(1, Message::Segment(Arc::clone(beside)));
            assert!(!has(&bench, beside), "nobody needs it");
        }
        bench.say(1, Message::Segment(Arc::clone(&names)));
        assert!(!has(&bench, &names), "where what it names stands is not known");
        bench.say(1, Message::Segment(Arc::clone(beside)));
        assert!(has(&bench, beside) && has(&bench, &names));
        assert!(!bench.machine.ledger().logs[&beside.head.log].reaches(2), "it counts no more for that");
        bench.take_sent(2);
        bench.say(2, Message::Need(Need { tip: beside.tip(), back: 1 }));
        let is_it = |message: &Message| matches!(message, Message::Segment(segment) if segment.tip() == beside.tip());
        assert!(bench.take_sent(2).iter().any(is_it));
    }
}

#[test]
fn a_whole_branch_beside_a_checkpoint_is_kept_and_given_at_once() {
    const COUNT: usize = 40;
    let (mut bench, chain, names) = beside(COUNT);
    bench.say(1, Message::Segment(Arc::clone(&names)));
    // The last first, as it is asked for.
    for segment in chain.iter().rev() {
        bench.say(1, Message::Segment(Arc::clone(segment)));
    }
    assert!(chain.iter().all(|segment| has(&bench, segment)) && has(&bench, &names));
    bench.take_sent(2);
    bench.say(2, Message::Need(Need { tip: chain[COUNT - 1].tip(), back: 255 }));
    let sent = bench.take_sent(2);
    let given = |tip: Tip| sent.iter().any(|message| matches!(message, Message::Segment(of) if of.tip() == tip));
    assert!(chain.iter().all(|segment| given(segment.tip())));
}

/// Otherwise whoever lacks it would have to ask for each, and what names it waits for so long and no longer.
#[test]
fn what_is_pushed_brings_what_it_names_that_stands_beside_a_checkpoint() {
    let (mut bench, chain, names) = beside(40);
    bench.take_sent(2);
    bench.say(1, Message::Segment(Arc::clone(&names)));
    for segment in chain.iter().rev() {
        bench.say(1, Message::Segment(Arc::clone(segment)));
    }
    bench.pass(Duration::from_secs(20));
    let sent = bench.take_sent(2);
    let given = |tip: Tip| sent.iter().any(|message| matches!(message, Message::Segment(of) if of.tip() == tip));
    assert!(given(names.tip()) && chain.iter().all(|segment| given(segment.tip())));
}

#[test]
fn of_two_segments_beside_a_checkpoint_in_one_place_it_is_said_that_their_log_forked() {
    let (mut bench, chain, names) = beside(1);
    let fake = Draft { salt: 3, ..Draft::of(chain[0].head.log, None) }.sign(&bench.cast);
    let other = Draft::of(chain[0].head.log, Some(&fake)).sign(&bench.cast);
    let too = Draft { dependencies: vec![other.tip()], ..Draft::of(log(&bench.cast, 1, 3), None) }.sign(&bench.cast);
    for segment in [&names, &chain[0], &too, &other] {
        bench.say(1, Message::Segment(Arc::clone(segment)));
    }
    bench.pass(Duration::from_secs(1));
    assert!(bench.machine.is_forked(&chain[0].head.log));
}

/// From there on whoever names it names what the checkpoint has in its place, so everything behind is understood anew.
#[test]
fn a_checkpoint_that_covers_the_place_of_what_stood_beside_the_one_before_has_the_store_opened_again() {
    let (mut bench, chain, names) = beside(1);
    bench.say(1, Message::Segment(names));
    bench.say(1, Message::Segment(Arc::clone(&chain[0])));
    let of = chain[0].head.log;
    let mut covered = bench.machine.ledger().clone();
    assert!(!bench.machine.holds_what_does_not_count(&covered));
    let log = covered.logs.get_mut(&of).expect("it is held");
    (log.settled, log.settled_hash) = (2, [9; 32]);
    assert!(bench.machine.holds_what_does_not_count(&covered));
}

#[test]
fn what_one_member_needs_keeps_nobody_elses_needs_from_being_asked_for() {
    let cast = Cast::new(4, false);
    // Whoever comes first in the order of nodes.
    let (low, high) = if cast.nodes[1] < cast.nodes[2] { (1, 2) } else { (2, 1) };
    let nowhere = |run: u8, number: u32| {
        let mut hash = [7; 32];
        hash[..4].copy_from_slice(&number.to_be_bytes());
        Tip { log: log(&cast, low, run), seq: u64::from(number) + 2, hash }
    };
    let junk: Vec<_> = (2..5)
        .map(|run| {
            let dependencies = (0..250).map(|number| nowhere(run + 10, number)).collect();
            Draft { dependencies, ..Draft::of(log(&cast, low, run), None) }.sign(&cast)
        })
        .collect();
    let lacking = Draft::of(log(&cast, 3, 1), None).sign(&cast);
    let honest = Draft { dependencies: vec![lacking.tip()], ..Draft::of(log(&cast, high, 1), None) }.sign(&cast);
    let mut bench = Bench::new(cast);
    bench.link(low);
    bench.link(high);
    for segment in junk {
        bench.say(low, Message::Segment(segment));
    }
    bench.say(high, Message::Segment(honest));
    bench.sent.clear();
    bench.pass(Duration::from_secs(3));
    let needed = |(_, message): &(NodeId, Message)| matches!(message, Message::Need(need) if need.tip == lacking.tip());
    assert!(bench.sent.iter().any(needed));
    let all = bench.sent.iter().filter(|(_, message)| matches!(message, Message::Need(_))).count();
    assert!(all > 50, "{all}: what is left of a peer's share goes to who has more");
}

#[test]
fn what_waits_for_many_places_that_are_read_is_judged_once_for_each_answer() {
    const COUNT: u64 = 400;
    let cast = Cast::new(3, false);
    let mut chain: Vec<Arc<Segment>> = Vec::new();
    for _ in 0..COUNT {
        let next = Draft::of(log(&cast, 1, 1), chain.last().map(|last| &**last)).sign(&cast);
        chain.push(next);
    }
    let dependencies = chain.iter().map(|segment| segment.tip()).collect();
    let waiter = Draft { dependencies, ..Draft::of(log(&cast, 2, 1), None) }.sign(&cast);
    let mut bench = Bench::new(cast);
    bench.link(1);
    bench.link(2);
    for segment in &chain {
        bench.say(1, Message::Segment(Arc::clone(segment)));
    }
    for segment in &chain {
        bench.machine.forget_hash(&segment.head.log, segment.head.seq);
    }
    bench.store = Store::Unread;
    let looked = super::super::checks::looked();
    bench.say(2, Message::Segment(Arc::clone(&waiter)));
    for _ in 0..20 {
        for (read, what) in std::mem::take(&mut bench.reads) {
            let found = bench.disk.read(&what);
            bench.tell(Input::Found(read, found));
        }
    }
    assert!(has(&bench, &waiter));
    let each = (super::super::checks::looked() - looked) / COUNT;
    assert!(each < 20, "for each place it was looked {each} times whether one is held");
}
