//! What a node begins with.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::Recovery;
use crate::replica::log::checkpoint::{Certificate, Statement, piece_hash, state_root, summary_hash};
use crate::replica::log::entry::{self, Entry};
use crate::replica::log::ledger::{Ledger, Slot};
use crate::replica::log::machine::{Machine, Output};
use crate::replica::log::made::{Made, apply_to, ledger_of, log, make, manifest, plain};
use crate::replica::log::simulation::cast::Cast;
use crate::replica::log::storage::{Batch, Branch, Checkpoint, Opened, Position, Row};
use crate::replica::log::summary;
use crate::replica::log::vector::Vector;
use crate::replica::log::wire::{Head, Tip};

/// A checkpoint that says what this ledger says.
fn checkpoint(cast: &Cast, ledger: &Ledger) -> Checkpoint {
    let summary = summary::encode(ledger);
    let hashes = [piece_hash(b"state")];
    let root = state_root(&hashes);
    let asked = Tip { log: log(cast, 1, 1), seq: 1, hash: [1; 32] };
    let version = ledger.manifest().map_or(0, |manifest| manifest.contents().version());
    let statement = Statement { asked, manifest: version, summary: summary_hash(&summary), root, length: 5 };
    let certificate = Certificate { statement, signatures: BTreeMap::new() }.to_bytes();
    Checkpoint { root, length: 5, summary, pieces: hashes.as_flattened().to_vec().into(), certificate }
}

/// A node that opens a store with a checkpoint.
fn opening(cast: &Cast, ledger: &Ledger) -> Recovery {
    let opened = Opened { checkpoint: Some(checkpoint(cast, ledger)) };
    Recovery::new(cast.config(0, 0), opened).expect("a good checkpoint")
}

fn finish(recovery: Recovery) -> Machine {
    recovery.finish(Duration::from_secs(1_000), 1_000_000, [1; 32])
}

fn batches(machine: &mut Machine) -> Vec<Batch> {
    let batches = std::iter::from_fn(|| machine.poll_output()).filter_map(|output| match output {
        Output::Write(_, batch) => Some(*batch),
        _ => None,
    });
    batches.collect()
}

/// The first batch of a node whose earlier run is over for everybody, but for its last segment, which only its disk has.
fn first_batch(cast: &Cast, config: usize) -> Option<Batch> {
    let old = log(cast, 0, 7);
    let other = make(cast, log(cast, 1, 1), None, &[], vec![manifest(cast, 0)]);
    let mut ledger = ledger_of(cast, &[&other]);
    ledger.forgotten = Arc::new([(old, 1)].into());
    ledger.settle(None);
    let begun: Made = make(cast, old, None, &[], vec![]);
    let lost = make(cast, old, Some(&begun), &[], vec![plain("durable")]);
    let opened = Opened { checkpoint: Some(checkpoint(cast, &ledger)) };
    let mut recovery = Recovery::new(cast.config(0, config), opened).expect("a good checkpoint");
    assert!(recovery.row(&lost.row(5)).expect("a good row").is_none());
    let batches = batches(&mut finish(recovery));
    assert!(batches.len() <= 1, "one is under way at a time");
    batches.into_iter().next()
}

#[test]
fn what_is_appended_again_goes_with_the_batch_that_deletes_it() {
    let batch = first_batch(&Cast::new(3, false), 0).expect("a run begins");
    assert_eq!(batch.forget_positions, [Position(5)]);
    let entries = batch.rows.iter().flat_map(|row| entry::entries(row.payload.as_ref().unwrap()).unwrap());
    let again = entries.filter(|entry| matches!(entry, Entry::Again { body, .. } if body == "durable"));
    assert_eq!(again.count(), 1);
}

#[test]
fn a_node_that_is_no_member_keeps_what_it_would_append_again() {
    let mut cast = Cast::new(3, false);
    let lowest = cast.software[0];
    let without = cast.publish(|node| node != 0, lowest);
    let batch = first_batch(&cast, without);
    assert!(batch.is_none_or(|batch| batch.forget_positions.is_empty() && batch.rows.is_empty()));
}

/// A row as it stands in the store, with the number that its branch had.
fn stored(made: &Made, position: u64, branch: u32) -> Row {
    Row { branch: Branch(branch), ..made.row(position) }
}

#[test]
fn of_a_log_that_forked_a_run_names_the_ends_and_nothing_between() {
    let cast = Cast::new(3, false);
    let begun = make(&cast, log(&cast, 1, 1), None, &[], vec![manifest(&cast, 0)]);
    let [one, other] = ["one", "other"].map(|text| make(&cast, log(&cast, 1, 1), Some(&begun), &[], vec![plain(text)]));
    let mut ledger = ledger_of(&cast, &[&begun, &one]);
    let fork = Slot::Forks { beside: Branch(0), standing: one.segment.hash, seen: Vector::default() };
    apply_to(&cast, &mut ledger, &other, fork);
    ledger.settle(None);
    let batches = batches(&mut finish(opening(&cast, &ledger)));
    let rows = batches.iter().flat_map(|batch| &batch.rows);
    let named = rows.flat_map(|row| Head::parse(&row.header).expect("a good header").dependencies);
    let mut ends = [one.segment.tip(), other.segment.tip()];
    ends.sort_unstable();
    assert_eq!(named.collect::<Vec<_>>(), ends);
}

/// A log of which a checkpoint covers two segments, and what stands beside the second, with what follows that.
fn beside(cast: &Cast) -> (Ledger, Made, Made) {
    let of = log(cast, 1, 1);
    let begun = make(cast, of, None, &[], vec![manifest(cast, 0)]);
    let [covered, not] = ["covered", "not"].map(|text| make(cast, of, Some(&begun), &[], vec![plain(text)]));
    let behind = make(cast, of, Some(&not), &[], vec![plain("behind")]);
    let mut ledger = ledger_of(cast, &[&begun, &covered]);
    ledger.settle(None);
    (ledger, covered, behind)
}

#[test]
fn what_follows_a_checkpoint_has_the_number_of_no_branch_that_stands_beside_it() {
    let cast = Cast::new(3, false);
    let (ledger, covered, behind) = beside(&cast);
    let of = log(&cast, 1, 1);
    let branch = |recovery: Recovery| finish(recovery).ledger.logs[&of].branches().next().map(|(branch, _)| branch);
    assert_eq!(branch(opening(&cast, &ledger)), Some(Branch(0)));
    for number in [0, 7] {
        let mut recovery = opening(&cast, &ledger);
        assert!(recovery.row(&stored(&behind, 5, number)).expect("a good row").is_none());
        assert_eq!(branch(recovery), Some(Branch(number + 1)));
    }
    // Where something follows in the store, it has one.
    let next = make(&cast, of, Some(&covered), &[], vec![plain("next")]);
    let mut recovery = opening(&cast, &ledger);
    assert!(recovery.row(&stored(&next, 5, 0)).expect("a good row").is_some());
    assert!(recovery.row(&stored(&behind, 6, 1)).expect("a good row").is_none());
    assert_eq!(branch(recovery), Some(Branch(0)));
}

#[test]
fn a_branch_counts_though_those_of_the_numbers_before_do_not_any_more() {
    let cast = Cast::new(3, false);
    let (ledger, covered, _) = beside(&cast);
    let next = |text| make(&cast, log(&cast, 1, 1), Some(&covered), &[], vec![plain(text)]);
    let mut recovery = opening(&cast, &ledger);
    for (position, branch, text) in [(5, 0, "one"), (6, 2, "other"), (7, 5, "third")] {
        assert!(recovery.row(&stored(&next(text), position, branch)).expect("a good row").is_some(), "{text}");
    }
}
