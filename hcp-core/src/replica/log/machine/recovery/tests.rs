//! What a node begins with.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::Recovery;
use crate::replica::log::checkpoint::{Certificate, Statement, piece_hash, state_root, summary_hash};
use crate::replica::log::entry::{self, Entry};
use crate::replica::log::ledger::Ledger;
use crate::replica::log::machine::Output;
use crate::replica::log::made::{Made, ledger_of, log, make, manifest, plain};
use crate::replica::log::simulation::cast::Cast;
use crate::replica::log::storage::{Batch, Checkpoint, Opened, Position};
use crate::replica::log::summary;
use crate::replica::log::wire::Tip;

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

/// The first batch of a node whose earlier run is over for everybody, but for its last segment, which only its disk has.
fn first_batch(cast: &Cast, config: usize) -> Option<Batch> {
    let old = log(cast, 0, 7);
    let other = make(cast, log(cast, 1, 1), None, &[], vec![manifest(cast, 0)]);
    let mut ledger = ledger_of(cast, &[&other]);
    ledger.forgotten = Arc::new([(old, 1)].into());
    ledger.settle();
    let begun: Made = make(cast, old, None, &[], vec![]);
    let lost = make(cast, old, Some(&begun), &[], vec![plain("durable")]);
    let opened = Opened { checkpoint: Some(checkpoint(cast, &ledger)) };
    let mut recovery = Recovery::new(cast.config(0, config), opened).expect("a good checkpoint");
    assert!(recovery.row(&lost.row(5)).expect("a good row").is_none());
    let mut machine = recovery.finish(Duration::from_secs(1_000), 1_000_000, [1; 32]);
    let batches = std::iter::from_fn(|| machine.poll_output()).filter_map(|output| match output {
        Output::Write(_, batch) => Some(*batch),
        _ => None,
    });
    let batches: Vec<Batch> = batches.collect();
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
