//! What a node passes on of what others wrote, and what its own segments say that it has seen.

use super::*;
use crate::replica::log::entry::Fork;
use crate::replica::log::machine::AppendId;

/// Numbers of a log's segments that were sent to a node since this was asked last.
fn passed(bench: &mut Bench, of: LogId, to: usize) -> Vec<u64> {
    let messages = bench.take_sent(to).into_iter();
    let segments =
        messages.filter_map(|message| if let Message::Segment(segment) = message { Some(segment) } else { None });
    segments.filter(|segment| segment.head.log == of).map(|segment| segment.head.seq).collect()
}

/// Two segments of an earlier run of node 1, which node 3 passed on; node 2, which lacks them, is linked with node 1.
fn left_to_its_author() -> (Bench, Arc<Segment>) {
    let mut bench = Bench::new(Cast::new(4, false));
    let of = log(&bench.cast, 1, 7);
    let first = Draft::of(of, None).sign(&bench.cast);
    let second = Draft::of(of, Some(&first)).sign(&bench.cast);
    bench.link(3);
    bench.say(3, Message::Segment(first));
    bench.say(3, Message::Segment(Arc::clone(&second)));
    bench.meet(2);
    let direct = Some(bench.cast.nodes[..2].to_vec());
    bench.say(2, Message::Frontier(Frontier { tips: Vec::new(), direct }));
    assert_eq!(passed(&mut bench, of, 2), [0; 0], "it comes from who wrote it");
    (bench, second)
}

#[test]
fn what_its_author_lost_is_passed_on_at_once() {
    let (mut bench, second) = left_to_its_author();
    // Node 1 writes another log by now, and holds nothing of the one before.
    bench.link(1);
    assert_eq!(passed(&mut bench, second.head.log, 2), [1, 2]);
}

#[test]
fn what_its_author_kept_is_left_to_it() {
    let (mut bench, second) = left_to_its_author();
    bench.meet(1);
    bench.say(1, Message::Frontier(Frontier { tips: vec![second.tip()], direct: Some(Vec::new()) }));
    assert_eq!(passed(&mut bench, second.head.log, 2), [0; 0]);
    // Unless it does not come.
    bench.pass(Duration::from_secs(4));
    assert_eq!(passed(&mut bench, second.head.log, 2), [1, 2]);
}

#[test]
fn what_is_pending_has_not_seen_what_is_covered_behind_it() {
    let mut bench = Bench::new(Cast::new(3, false));
    let of = log(&bench.cast, 1, 7);
    let first = Draft::of(of, None).sign(&bench.cast);
    let [one, other] = [1, 2].map(|salt| Draft { salt, ..Draft::of(of, Some(&first)) }.sign(&bench.cast));
    bench.link(1);
    bench.link(2);
    bench.takes = false;
    bench.say(1, Message::Segment(first));
    bench.say(1, Message::Segment(Arc::clone(&one)));
    bench.tell(Input::Append { id: AppendId(1), entry: Bytes::from_static(b"mine") });
    let fork = Entry::Fork(Fork {
        one: one.tip(),
        one_signature: one.signature,
        other: other.hash,
        other_signature: other.signature,
    });
    let told = Draft { entries: vec![fork], ..Draft::of(log(&bench.cast, 2, 1), None) }.sign(&bench.cast);
    bench.take_sent(2);
    bench.say(2, Message::Segment(told));
    let own: Vec<_> = bench
        .take_sent(2)
        .into_iter()
        .filter_map(|message| if let Message::Segment(segment) = message { Some(segment) } else { None })
        .filter(|segment| segment.head.log.node == bench.cast.nodes[0])
        .collect();
    let covers = |segment: &Segment| segment.head.dependencies.contains(&one.tip());
    let says = |segment: &Segment| Machine::entries_of(segment).contains(&Entry::Plain(Bytes::from_static(b"mine")));
    assert!(own.iter().any(|segment| says(segment) && !covers(segment)), "{own:?}");
    assert!(own.iter().any(|segment| covers(segment)), "{own:?}");
}
