//! What a ledger says is a function of the segments that are in, in whatever causal order they came.

use std::collections::BTreeSet;

use super::*;
use crate::replica::log::entry::Fork;
use crate::replica::log::machine::replay::{Branches, Replay, Replayed};
use crate::replica::log::made::{Made, ledger_of, log, make, make_under, manifest, plain};
use crate::replica::log::vector::{Vector, Writer};
use crate::replica::place::Place;

/// All orders in which everything comes after what it needs of the others.
fn orders<'a>(made: &[&'a Made]) -> Vec<Vec<&'a Made>> {
    let here: BTreeSet<Tip> = made.iter().map(|one| one.segment.tip()).collect();
    let needs = |one: &Made| -> BTreeSet<Tip> {
        let head = &one.segment.head;
        let needs: BTreeSet<Tip> = head.before().into_iter().chain(head.dependencies.iter().copied()).collect();
        needs.intersection(&here).copied().collect()
    };
    let mut done = vec![Vec::new()];
    for _ in made {
        let mut longer = Vec::new();
        for order in done {
            let has: BTreeSet<Tip> = order.iter().map(|one: &&Made| one.segment.tip()).collect();
            for next in made.iter().filter(|one| !has.contains(&one.segment.tip()) && needs(one).is_subset(&has)) {
                longer.push(order.iter().copied().chain([*next]).collect());
            }
        }
        done = longer;
    }
    done
}

/// The ledger of one order; all make the same checkpoint.
fn agreed(cast: &Cast, made: &[&Made]) -> Ledger {
    agreed_behind(cast, &Ledger::default(), made)
}

/// The same behind a checkpoint.
fn agreed_behind(cast: &Cast, covered: &Ledger, made: &[&Made]) -> Ledger {
    let orders = orders(made);
    assert!(orders.len() > 1, "there is nothing to compare");
    let mut first: Option<(Ledger, Bytes)> = None;
    for order in &orders {
        let mut replay = Replay::new(covered.clone(), None);
        for (one, position) in order.iter().zip(1..) {
            let row = replay.row(&cast.keys[0], &one.row(position), Branches::Anew).expect("a good row");
            assert!(matches!(row, Replayed::Applied(_)), "it counts");
        }
        let mut next = replay.ledger.clone();
        next.settle(Some(covered));
        let summary = summary::encode(&next);
        let (_, same) = first.get_or_insert_with(|| (replay.ledger.clone(), summary.clone()));
        let named = || order.iter().map(|one| one.segment.tip()).collect::<Vec<_>>();
        assert_eq!(*same, summary, "after {:?}", named());
    }
    first.expect("there is an order").0
}

/// Nodes, of which the last one is no member by the second manifest.
fn cast() -> Cast {
    let mut cast = Cast::new(3, false);
    cast.publish(|node| node < 2, cast.software[0]);
    cast
}

#[test]
fn a_log_that_begins_while_its_node_is_removed() {
    let mut cast = cast();
    cast.publish(|_| true, cast.software[0]);
    let mine = make(&cast, log(&cast, 0, 1), None, &[], vec![manifest(&cast, 0)]);
    let told = make(&cast, log(&cast, 0, 1), Some(&mine), &[], vec![manifest(&cast, 1)]);
    let removed = make(&cast, log(&cast, 2, 1), None, &[], vec![plain("here I am")]);
    let claims = make_under(&cast, 1_000, log(&cast, 2, 2), None, &[], vec![plain("under what nobody has signed")]);
    let ledger = agreed(&cast, &[&mine, &told, &removed, &claims]);
    for made in [&removed, &claims] {
        assert!(ledger.logs[&made.segment.head.log].removed);
    }
    let late = make_under(&cast, 3, log(&cast, 2, 3), None, &[], vec![manifest(&cast, 2), plain("and back")]);
    let ledger = agreed(&cast, &[&mine, &told, &removed, &claims, &late]);
    assert!(ledger.logs[&removed.segment.head.log].removed);
    assert!(ledger.logs[&late.segment.head.log].is_open(), "it began under a later manifest");
}

#[test]
fn a_manifest_that_two_were_given() {
    let cast = cast();
    let mine = make(&cast, log(&cast, 0, 1), None, &[], vec![manifest(&cast, 0), manifest(&cast, 1)]);
    let other = make(&cast, log(&cast, 1, 1), None, &[], vec![manifest(&cast, 0)]);
    let again = make(&cast, log(&cast, 1, 1), Some(&other), &[], vec![manifest(&cast, 1), manifest(&cast, 0)]);
    let removed = make(&cast, log(&cast, 2, 1), None, &[&mine, &other], vec![plain("here I am")]);
    let ledger = agreed(&cast, &[&mine, &other, &again, &removed]);
    let at =
        |place: &[(&Made, u64)]| place.iter().map(|(one, seq)| (Writer::trunk(one.segment.head.log), *seq)).collect();
    let told: Vec<_> = ledger.manifests.told.values().cloned().collect();
    assert_eq!(told, [at(&[(&mine, 1), (&other, 2)])], "the older one lacks nobody");
}

/// Of every member the newest manifest counts that lacks it, also when one comes late that has somebody for the first time.
#[test]
fn manifests_of_which_some_lack_somebody() {
    let mut cast = Cast::new(4, false);
    cast.publish(|node| node < 2, cast.software[0]);
    cast.publish(|node| node < 3, cast.software[0]);
    cast.publish(|node| node != 1, cast.software[0]);
    let told = |node, run, which: &[usize]| {
        let entries = which.iter().map(|index| manifest(&cast, *index)).collect();
        make(&cast, log(&cast, node, run), None, &[], entries)
    };
    let (one, two, three) = (told(0, 1, &[1, 3]), told(0, 2, &[2]), told(1, 1, &[3, 1]));
    let (four, five) = (told(1, 2, &[0, 2]), told(2, 1, &[1]));
    let ledger = agreed(&cast, &[&one, &two, &three, &four, &five]);
    let lacking = |node: usize| ledger.manifests.members[&cast.nodes[node]].map(|(version, _)| version);
    assert_eq!([0, 1, 2, 3].map(lacking), [None, Some(4), Some(2), Some(3)]);
    let versions: Vec<u64> = ledger.manifests.told.keys().map(|(version, _)| *version).collect();
    assert_eq!(versions, [2, 3, 4]);
    assert_eq!(ledger.manifest().map(|newest| newest.contents().version()), Some(4));
}

/// The proof that somebody signed these two.
fn proof(one: &Made, other: &Made) -> Entry {
    let (one, other) = (&one.segment, &other.segment);
    Entry::Fork(Fork {
        one: one.tip(),
        one_signature: one.signature,
        other: other.hash,
        other_signature: other.signature,
    })
}

#[test]
fn a_log_that_forks_at_its_first_segment() {
    let cast = cast();
    let of = log(&cast, 1, 1);
    let old = make_under(&cast, 1, of, None, &[], vec![plain("old")]);
    let new = make_under(&cast, 2, of, None, &[], vec![plain("new")]);
    let more = make_under(&cast, 2, of, Some(&new), &[], vec![manifest(&cast, 0)]);
    let proven = make(&cast, log(&cast, 0, 1), None, &[], vec![proof(&old, &new), proof(&old, &new)]);
    let known = make(&cast, log(&cast, 2, 1), None, &[&proven], vec![proof(&new, &old)]);
    let ledger = agreed(&cast, &[&old, &new, &more, &proven, &known]);
    assert_eq!(ledger.logs[&of].began, 1, "the oldest that it names");
    let places = [&proven, &known].map(|one| (Writer::trunk(one.segment.head.log), 1));
    assert_eq!(ledger.logs[&of].closers, places.into());
}

#[test]
fn what_is_said_in_branches() {
    let cast = cast();
    let of = log(&cast, 1, 1);
    let first = make(&cast, of, None, &[], vec![plain("first")]);
    let one = make(&cast, of, Some(&first), &[], vec![manifest(&cast, 1)]);
    let behind = make(&cast, of, Some(&one), &[], vec![manifest(&cast, 0), manifest(&cast, 1)]);
    let other = make(&cast, of, Some(&first), &[], vec![plain("other"), manifest(&cast, 1)]);
    let last = make(&cast, of, Some(&other), &[], vec![manifest(&cast, 1)]);
    let ledger = agreed(&cast, &[&first, &one, &behind, &other, &last]);
    let place = |one: &Made, seq| (Writer { log: of, branch: one.segment.hash }, seq);
    let told: Vec<_> = ledger.manifests.told.values().cloned().collect();
    assert_eq!(told, [[place(&one, 2), place(&other, 2)].into()]);
}

/// The log of a node that is no member any more is let go of when everybody has seen the manifest, wherever that stands.
#[test]
fn a_removed_nodes_log_is_let_go_of_when_everybody_knows() {
    let cast = cast();
    let mine = make(&cast, log(&cast, 0, 1), None, &[], vec![manifest(&cast, 0)]);
    let removed = make(&cast, log(&cast, 2, 1), None, &[&mine], vec![plain("here I am")]);
    let other = make(&cast, log(&cast, 1, 1), None, &[&mine, &removed], vec![plain("hello")]);
    let told = make(&cast, log(&cast, 0, 1), Some(&mine), &[&removed, &other], vec![manifest(&cast, 1)]);
    let more = make(&cast, log(&cast, 0, 1), Some(&told), &[], vec![plain("I know, having said it")]);
    let seen = make(&cast, log(&cast, 1, 1), Some(&other), &[&more], vec![plain("I know")]);
    let of = removed.segment.head.log;
    // By the second of two checkpoints.
    let settled = |made: &[&Made]| {
        let [mut first, mut second] = [ledger_of(&cast, made), ledger_of(&cast, made)];
        first.settle(None);
        second.settle(Some(&first));
        second
    };
    assert!(!settled(&[&mine, &removed, &other, &told, &more]).is_forgotten(&of), "one does not know yet");
    assert!(settled(&[&mine, &removed, &other, &told, &more, &seen]).is_forgotten(&of));
}

#[test]
fn what_is_said_to_be_appended_again() {
    let cast = cast();
    let (first, second) = (log(&cast, 2, 1), log(&cast, 2, 2));
    let stands = make(&cast, first, None, &[], vec![plain("once")]);
    let place = Place { log: first, seq: 1, index: 0 };
    let again = Entry::Again { first: place, stamp: Stamp::default(), body: Bytes::from_static(b"once") };
    let repeats = make(&cast, second, None, &[], vec![again]);
    agreed(&cast, &[&stands, &repeats]);
}

/// A checkpoint names the ends of a log that forked: whoever has seen these has seen all of it.
#[test]
fn what_stands_before_a_fork_is_seen_by_who_has_seen_a_branch() {
    let cast = cast();
    let of = log(&cast, 1, 1);
    let first = make(&cast, of, None, &[], vec![manifest(&cast, 0)]);
    let second = make(&cast, of, Some(&first), &[], vec![plain("second")]);
    let one = make(&cast, of, Some(&second), &[], vec![plain("one")]);
    let other = make(&cast, of, Some(&second), &[], vec![plain("other")]);
    let third = make(&cast, of, Some(&one), &[], vec![plain("third")]);
    let further = make(&cast, of, Some(&one), &[], vec![plain("further")]);
    let mut ledger = agreed(&cast, &[&first, &second, &one, &other, &third, &further]);
    ledger.settle(None);
    let summary = summary::encode(&ledger);
    let decoded = summary::decode(&summary, &cast.keys[0]).expect("its own");
    assert_eq!(summary::encode(&decoded), summary);
    let ends: BTreeSet<Tip> = decoded.tips().map(|(tip, _)| tip).collect();
    assert_eq!(ends, [&other, &third, &further].map(|one| one.segment.tip()).into());
    let mut seen = Vector::default();
    for (tip, on) in decoded.tips() {
        decoded.raise(&mut seen, &tip, on);
    }
    let branch = |one: &Made| Writer { log: of, branch: one.segment.hash };
    let whole =
        [(Writer::trunk(of), 2), (branch(&one), 3), (branch(&other), 3), (branch(&third), 4), (branch(&further), 4)];
    assert_eq!(seen, Vector(whole.into()));
}

/// Of a log that forked, and that a checkpoint covers, only the ends say anything, in whatever order a branch came.
#[test]
fn what_branches_had_seen_of_a_log_of_which_nothing_more_counts() {
    let cast = cast();
    let of = log(&cast, 1, 1);
    let first = make(&cast, of, None, &[], vec![manifest(&cast, 0)]);
    let one = make(&cast, of, Some(&first), &[], vec![plain("one")]);
    let other = make(&cast, of, Some(&first), &[], vec![plain("other")]);
    let mut covered = agreed(&cast, &[&first, &one, &other]);
    covered.settle(None);
    let covered = summary::decode(&summary::encode(&covered), &cast.keys[0]).expect("its own");
    let run = log(&cast, 2, 1);
    let begins = make(&cast, run, None, &[&first], vec![plain("begins")]);
    let left = make(&cast, run, Some(&begins), &[&other], vec![plain("left")]);
    let right = make(&cast, run, Some(&begins), &[&one], vec![plain("right")]);
    agreed_behind(&cast, &covered, &[&begins, &left, &right]);
}
