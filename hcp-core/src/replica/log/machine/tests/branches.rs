//! A member that forks its log as often as it likes, and says that it holds what nobody does.

use super::*;
use crate::replica::log::limits::MAX_SAID;
use crate::replica::log::message::MAX_TIPS;
use crate::replica::log::wire::MAX_DEPENDENCIES;

/// Branches of one log, each a first segment.
fn branches(cast: &Cast, count: usize) -> Vec<Arc<Segment>> {
    let of = log(cast, 1, 1);
    (0..count as u32).map(|salt| Draft { salt, ..Draft::of(of, None) }.sign(cast)).collect()
}

/// Segments of open logs of the same member's that need these, as many as it takes.
fn wanting(cast: &Cast, needed: &[Arc<Segment>]) -> Vec<Arc<Segment>> {
    let each = needed.chunks(MAX_DEPENDENCIES).zip(2..);
    each.map(|(needed, run)| {
        let dependencies = needed.iter().map(|segment| segment.tip()).collect();
        Draft { dependencies, ..Draft::of(log(cast, 1, run), None) }.sign(cast)
    })
    .collect()
}

/// A machine that has taken in so many branches of one log, linked with their author and with somebody else.
fn forked(count: usize) -> (Bench, Vec<Arc<Segment>>) {
    let cast = Cast::new(3, false);
    let many = branches(&cast, count);
    let asks = wanting(&cast, &many);
    let mut bench = Bench::new(cast);
    bench.link(1);
    bench.link(2);
    for segment in asks.into_iter().chain(many.iter().cloned()) {
        bench.say(1, Message::Segment(segment));
    }
    bench.pass(Duration::from_secs(1));
    let held = bench.machine.ledger().logs[&log(&bench.cast, 1, 1)].count();
    assert_eq!(held, count);
    (bench, many)
}

fn frontiers(messages: &[Message]) -> Vec<Frontier> {
    let frontier = |message: &Message| match message {
        Message::Frontier(frontier) => Some(frontier.clone()),
        _ => None,
    };
    messages.iter().filter_map(frontier).collect()
}

#[test]
fn many_branches_cost_no_more_than_they_are() {
    let (mut bench, many) = forked(2_500);
    let all: Vec<Tip> = many.iter().map(|segment| segment.tip()).collect();
    for node in [1, 2] {
        for tips in all.chunks(MAX_TIPS) {
            bench.say(node, Message::Frontier(Frontier { tips: tips.to_vec(), direct: None }));
        }
    }
    bench.pass(Duration::from_secs(1));
    println!("the longest step took {:?}", bench.longest);
    // With work for each pair of branches it was some minutes.
    assert!(bench.longest < Duration::from_secs(10), "{:?}", bench.longest);
}

#[test]
fn what_is_held_of_a_log_is_named_in_as_many_messages_as_it_takes() {
    let (mut bench, many) = forked(1_300);
    // A third one comes, and is told everything.
    bench.take_sent(2);
    bench.link(2);
    let sent = bench.take_sent(2);
    let told = frontiers(&sent);
    let mut named: Vec<Tip> = told.iter().flat_map(|frontier| frontier.tips.clone()).collect();
    assert!(many.iter().all(|segment| named.contains(&segment.tip())));
    named.sort_unstable();
    assert!(named.windows(2).all(|pair| pair[0] != pair[1]), "something is named twice");
    for message in sent {
        assert!(matches!(Message::decode(&message.encode()), Ok(Some(_))), "its peer cannot read it");
    }
    let beyond = Frontier { tips: named[..=MAX_TIPS].to_vec(), direct: None };
    assert!(Message::decode(&Message::Frontier(beyond).encode()).is_err());
    // What changes is told, and nothing else.
    let more = Draft::of(log(&bench.cast, 2, 1), None).sign(&bench.cast);
    bench.say(2, Message::Segment(Arc::clone(&more)));
    bench.pass(Duration::from_secs(1));
    let told = frontiers(&bench.take_sent(2));
    let named: Vec<Tip> = told.into_iter().flat_map(|frontier| frontier.tips).collect();
    assert!(named.contains(&more.tip()) && named.len() < 5, "{}", named.len());
}

#[test]
fn what_a_peer_names_in_several_messages_it_is_not_sent() {
    let (mut bench, many) = forked(1_300);
    bench.meet(2);
    // What it was sent over the link before.
    bench.take_sent(2);
    let mut tips: Vec<Tip> = many.iter().map(|segment| segment.tip()).collect();
    // All but the last: that alone is pushed.
    let lacking = tips.pop().expect("there are some");
    for tips in tips.chunks(MAX_TIPS) {
        bench.say(2, Message::Frontier(Frontier { tips: tips.to_vec(), direct: None }));
    }
    bench.pass(Duration::from_secs(15));
    let sent = bench.take_sent(2);
    let pushed =
        |tip: &Tip| sent.iter().any(|message| matches!(message, Message::Segment(segment) if segment.tip() == *tip));
    assert!(pushed(&lacking));
    assert!(!tips.iter().any(pushed));
}

#[test]
fn a_branch_that_a_peer_named_before_it_was_held_is_not_sent_to_it() {
    let cast = Cast::new(3, false);
    let many = branches(&cast, 20);
    let asks = wanting(&cast, &many);
    let tips: Vec<Tip> = many.iter().map(|segment| segment.tip()).collect();
    let mut bench = Bench::new(cast);
    bench.link(1);
    bench.link(2);
    bench.say(2, Message::Frontier(Frontier { tips: tips.clone(), direct: None }));
    for segment in asks.into_iter().chain(many) {
        bench.say(1, Message::Segment(segment));
    }
    bench.pass(Duration::from_secs(15));
    let sent = bench.take_sent(2);
    let of = |message: &&Message| matches!(message, Message::Segment(segment) if tips.contains(&segment.tip()));
    // The first that came makes the log one of two ends, of which the peer named only the furthest before.
    assert!(sent.iter().filter(of).count() <= 1, "{} of them were sent", sent.iter().filter(of).count());
}

#[test]
fn who_is_sent_in_vain_what_it_holds_says_so() {
    let (mut bench, many) = forked(20);
    bench.pass(Duration::from_secs(1));
    bench.take_sent(2);
    bench.say(2, Message::Segment(Arc::clone(&many[7])));
    bench.pass(Duration::from_secs(1));
    let told = frontiers(&bench.take_sent(2));
    assert!(told.iter().any(|frontier| frontier.tips.contains(&many[7].tip())), "{told:?}");
}

#[test]
fn what_one_segment_cannot_name_the_one_before_it_does() {
    let (mut bench, many) = forked(2 * MAX_DEPENDENCIES + 100);
    // A node that begins names all that it holds, in several segments.
    let mut recovery = Recovery::new(bench.cast.config(0, 0), Opened { checkpoint: None }).expect("no checkpoint");
    for row in bench.disk.rows() {
        recovery.row(row).expect("a good row");
    }
    bench.machine = recovery.finish(bench.now, WALL, [2; 32]);
    let begun = bench.machine.log();
    bench.drain();
    let seen = &bench.machine.ledger().logs[&begun].chain(Branch(0)).seen;
    let forked = log(&bench.cast, 1, 1);
    assert_eq!(seen.0.keys().filter(|writer| writer.log == forked).count(), many.len());
    let rows: Vec<_> = bench.disk.rows().filter(|row| row.log == begun).cloned().collect();
    assert!(rows.len() >= 3);
    for row in rows {
        let head = Head::parse(&row.header).expect("it is not beyond its limits");
        assert!(head.dependencies.len() <= MAX_DEPENDENCIES);
    }
}

/// Two segments for one place prove a fork also when the first of them is not on disk yet: of an open log, and beside what a
/// checkpoint covers.
#[test]
fn of_two_segments_that_come_at_once_it_is_proven_that_their_log_forked() {
    let cast = Cast::new(3, false);
    let of = log(&cast, 1, 1);
    let begun = Draft { entries: vec![manifest(&cast)], ..Draft::of(of, None) }.sign(&cast);
    let behind = |before: &Segment, salt| Draft { salt, ..Draft::of(before.head.log, Some(before)) }.sign(&cast);
    let (covered, not) = (behind(&begun, 1), behind(&begun, 2));
    let at_once = |before: &Segment| [behind(before, 3), behind(before, 4)];
    let held = checkpoint(&cast, &settled(&cast, &[&begun, &covered]), &[Bytes::from_static(STATE)]);
    for pair in [at_once(&covered), at_once(&not)] {
        let needed = pair.iter().map(|segment| segment.tip()).collect();
        let names = Draft { dependencies: needed, ..Draft::of(log(&cast, 1, 2), None) }.sign(&cast);
        let mut bench = Bench::open(Cast::new(3, false), Some(held.clone()));
        bench.link(1);
        bench.say(1, Message::Segment(names));
        bench.store = Store::Away;
        for segment in pair {
            bench.say(1, Message::Segment(segment));
        }
        // Nothing is found of what was not written.
        for (id, what) in std::mem::take(&mut bench.reads) {
            let found = bench.disk.read(&what);
            bench.tell(Input::Found(id, found));
        }
        assert!(bench.machine.ledger().logs[&of].forked);
    }
}

/// What the manifest under which a run begins stands behind says that its node is no member.
#[test]
fn a_run_goes_on_whose_first_segment_cannot_bring_its_manifest() {
    let (mut bench, _) = forked(MAX_DEPENDENCIES + 100);
    let lowest = bench.cast.software[0];
    let out = bench.cast.publish(|node| node != 0, lowest);
    let back = bench.cast.publish(|_| true, lowest);
    let told = Entry::Manifest(bench.cast.manifests[out].to_bytes().into());
    let told = Draft { entries: vec![told], ..Draft::of(log(&bench.cast, 2, 1), None) }.sign(&bench.cast);
    bench.say(2, Message::Segment(told));
    let opened = Opened { checkpoint: None };
    let mut recovery = Recovery::new(bench.cast.config(0, back), opened).expect("no checkpoint");
    for row in bench.disk.rows() {
        recovery.row(row).expect("a good row");
    }
    let machine = recovery.finish(bench.now, WALL, [3; 32]);
    let own = machine.log();
    assert!(machine.ledger().is_open(&own));
    let runs = machine.ledger().logs.keys().filter(|log| log.node == own.node).count();
    assert_eq!(runs, 2, "the one before, and one");
}

#[test]
fn what_peers_say_of_logs_that_nobody_has_takes_little_room() {
    let mut bench = Bench::new(Cast::new(3, false));
    bench.link(1);
    for n in 0..100u32 {
        let tips = (0..MAX_TIPS as u32).map(|m| {
            let mut run = [1; 16];
            run[..4].copy_from_slice(&n.to_be_bytes());
            run[4..8].copy_from_slice(&m.to_be_bytes());
            let log = LogId { node: NodeId([7; 32]), incarnation: Incarnation(run) };
            Tip { log, seq: 1, hash: [1; 32] }
        });
        let tips = tips.collect();
        bench.say(1, Message::Frontier(Frontier { tips, direct: None }));
    }
    // Nor of ends of one log.
    for n in 0..100u32 {
        let tips = (0..MAX_TIPS as u32).map(|m| {
            let mut hash = [1; 32];
            hash[..4].copy_from_slice(&n.to_be_bytes());
            hash[4..8].copy_from_slice(&m.to_be_bytes());
            Tip { log: log(&bench.cast, 1, 1), seq: 1, hash }
        });
        let tips = tips.collect();
        bench.say(1, Message::Frontier(Frontier { tips, direct: None }));
    }
    let sizes = bench.machine.sizes();
    assert!(sizes.said <= sizes.logs + MAX_DEPENDENCIES && sizes.strange <= MAX_SAID, "{sizes:?}");
    assert!(sizes.strange > 1_000 && bench.unlinked.is_empty());
}
