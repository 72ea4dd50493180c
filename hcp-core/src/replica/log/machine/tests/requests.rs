//! Requests for checkpoints, of which a member may write as many as it likes.

use super::*;
use crate::replica::log::entry::Vote;

/// What this node asked for, and how it voted.
fn own(bench: &Bench) -> (Tip, Vote) {
    let (mut asked, mut voted) = (None, None);
    for row in bench.disk.rows().filter(|row| row.log == bench.machine.log()) {
        for entry in entry::entries(row.payload.as_ref().expect("it is there")).expect("a good payload") {
            match entry {
                Entry::Retain { .. } => asked = Some(Tip { log: row.log, seq: row.seq, hash: row.hash }),
                Entry::Vote(vote) => voted = Some(vote),
                _ => {}
            }
        }
    }
    (asked.expect("it asks"), voted.expect("it votes"))
}

/// A member writes so many requests, all in one segment or each in one of its own.
fn ask(bench: &mut Bench, node: usize, segments: usize, each: usize) {
    let mut before: Option<Arc<Segment>> = None;
    for _ in 0..segments {
        let entries = (0..each).map(|_| Entry::Retain { base: [0; 32] }).collect();
        let of = log(&bench.cast, node, 1);
        let segment = Draft { entries, ..Draft::of(of, before.as_deref()) }.sign(&bench.cast);
        bench.say(node, Message::Segment(Arc::clone(&segment)));
        before = Some(segment);
    }
}

#[test]
fn what_one_member_asks_pushes_out_nothing_that_others_ask() {
    for (segments, each) in [(0, 0), (1, 8), (20, 1)] {
        let mut bench = Bench::new(Cast::new(3, false));
        bench.link(1);
        bench.link(2);
        bench.tell(Input::Retain);
        bench.pass(Duration::from_secs(3));
        let (asked, vote) = own(&bench);
        ask(&mut bench, 1, segments, each);
        bench.pass(Duration::from_secs(3));
        // The vote of the third member suffices.
        let message = signed(bench.cast.keys[0].service_key(), &vote.statement);
        let signature = (bench.cast.keys[2].sign)(&message);
        let (dependencies, entries) = (vec![asked], vec![Entry::Vote(Vote { signature, ..vote })]);
        let voted = Draft { dependencies, entries, ..Draft::of(log(&bench.cast, 2, 1), None) }.sign(&bench.cast);
        bench.say(2, Message::Segment(voted));
        bench.pass(Duration::from_secs(3));
        assert_eq!(bench.stable, 1, "beside {segments} segments with {each} requests each");
    }
}

#[test]
fn what_one_member_asks_takes_its_share_of_the_time_at_the_most() {
    let mut bench = Bench::new(Cast::new(3, false));
    bench.link(1);
    bench.seals = false;
    let mut before: Option<Arc<Segment>> = None;
    let (mut seals, mut since) = (0, None);
    // For ten minutes it asks every other second, and each state takes ten seconds.
    for _ in 0..300 {
        let entries = vec![Entry::Retain { base: [0; 32] }];
        // Who has signed something signs only what has that in its past.
        let own = bench.disk.rows().filter(|row| row.log == bench.machine.log()).last().expect("it has begun");
        let dependencies = vec![Tip { log: own.log, seq: own.seq, hash: own.hash }];
        let draft = Draft { entries, dependencies, ..Draft::of(log(&bench.cast, 1, 1), before.as_deref()) };
        let segment = draft.sign(&bench.cast);
        bench.say(1, Message::Segment(Arc::clone(&segment)));
        before = Some(segment);
        bench.pass(Duration::from_secs(2));
        if let Some(asked) = bench.sealed.last().copied()
            && bench.now - *since.get_or_insert(bench.now) >= Duration::from_secs(10)
        {
            (seals, since) = (seals + 1, None);
            bench.sealed.clear();
            bench.seal(asked);
            bench.drain();
        }
    }
    // Of 600 seconds one in six, and no fewer than it may have.
    assert!((6..=11).contains(&seals), "{seals} states were made");
}

#[test]
fn what_the_store_could_not_read_is_read_again() {
    let mut bench = Bench::new(Cast::new(3, false));
    bench.link(1);
    bench.store = Store::Unread;
    ask(&mut bench, 1, 1, 1);
    for _ in 0..3 {
        assert_eq!(bench.reads.len(), 1, "rows are read for a state, once at a time");
        let (read, _) = bench.reads.remove(0);
        bench.tell(Input::Found(read, Found::Failed));
        assert!(bench.reads.is_empty() && bench.sealed.is_empty());
        bench.pass(Duration::from_secs(1));
    }
    let (read, what) = bench.reads.remove(0);
    let found = bench.disk.read(&what);
    bench.store = Store::Quick;
    bench.tell(Input::Found(read, found));
    assert_eq!(bench.sealed.len(), 1);
}

#[test]
fn a_fork_that_shows_while_a_state_is_made_keeps_nobody_from_signing_it() {
    let mut bench = Bench::new(Cast::new(3, false));
    bench.link(1);
    bench.seals = false;
    let of = log(&bench.cast, 1, 1);
    let first = Draft::of(of, None).sign(&bench.cast);
    let entries = vec![Entry::Retain { base: [0; 32] }];
    let asking = Draft { entries, ..Draft::of(of, Some(&first)) }.sign(&bench.cast);
    // Another one in the place of the request, which an open log of the same member needs.
    let twin = Draft { salt: 1, ..Draft::of(of, Some(&first)) }.sign(&bench.cast);
    let needs = Draft { dependencies: vec![twin.tip()], ..Draft::of(log(&bench.cast, 1, 2), None) }.sign(&bench.cast);
    for segment in [first, Arc::clone(&asking), needs] {
        bench.say(1, Message::Segment(segment));
    }
    assert_eq!(bench.sealed, [asking.tip()]);
    bench.say(1, Message::Segment(twin));
    bench.pass(Duration::from_secs(2));
    assert_eq!(bench.machine.ledger().logs[&of].count(), 2, "it has forked");
    bench.seal(asking.tip());
    bench.drain();
    bench.pass(Duration::from_secs(2));
    let own = bench.disk.rows().filter(|row| row.log == bench.machine.log());
    let entries = own.flat_map(|row| entry::entries(row.payload.as_ref().expect("it is there")).expect("good"));
    let votes: Vec<Tip> =
        entries.filter_map(|entry| if let Entry::Vote(vote) = entry { Some(vote.asked) } else { None }).collect();
    assert_eq!(votes, [asking.tip()]);
}
