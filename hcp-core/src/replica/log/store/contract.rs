//! What every store does, as tests that each of them is put under.

use std::sync::Arc;

use bytes::Bytes;
use futures::future::BoxFuture;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::Store;
use crate::replica::log::simulation::disk::Disk;
use crate::replica::log::storage::{
    Batch, Branch, Checkpoint, Found, Hash, Outcome, Payloads, Piece, Position, Range, Read, Row, UpTo,
};
use crate::replica::place::{Incarnation, LogId, NodeId};
use crate::store::StoreError;

/// Makes stores of one kind over what one test keeps them in.
pub(super) trait Fixture: Sync {
    /// Opens the store as this node.
    fn open(&self, node: NodeId) -> BoxFuture<'_, Result<Arc<dyn Store>, StoreError>>;
}

/// Calls a macro with the names of all tests.
macro_rules! all {
    ($call:ident) => {
        $call!(
            a_new_store_holds_nothing,
            what_is_done_is_read_again_before_and_after_reopening,
            all_branches_of_a_place_are_told_apart,
            rows_of_several_logs_come_in_the_order_of_positions,
            a_page_holds_what_begins_within_its_bytes_and_at_least_one,
            payloads_stay_out_where_they_are_not_wanted,
            forgetting_takes_all_branches_up_to_a_number_and_no_more,
            positions_are_free_once_their_segments_went,
            of_states_only_the_checkpoints_is_there_at_opening,
            a_batch_that_cannot_be_carried_out_is_not_there_at_all,
            reads_and_batches_at_once_are_all_answered,
            another_nodes_store_is_refused,
            a_store_that_was_shut_down_answers_so,
            does_what_the_simulators_disk_does,
        );
    };
}
pub(super) use all;

pub(super) const ME: NodeId = NodeId([1; 32]);

/// One of a few logs.
pub(super) fn log(number: u8) -> LogId {
    LogId { node: NodeId([number; 32]), incarnation: Incarnation([number; 16]) }
}

/// A segment; its bytes follow from where it stands.
pub(super) fn row(position: u64, log: LogId, seq: u64, branch: u32, length: usize) -> Row {
    let mark = (position as u8) ^ log.node.0[0].wrapping_mul(31) ^ (branch as u8);
    let mut hash = [mark; 32];
    hash[..8].copy_from_slice(&position.to_be_bytes());
    hash[8..16].copy_from_slice(&seq.to_be_bytes());
    Row {
        position: Position(position),
        log,
        seq,
        branch: Branch(branch),
        hash,
        header: Bytes::from(vec![mark; 100]),
        signature: Bytes::from(vec![mark; 64]),
        payload: Some(Bytes::from(vec![mark; length])),
        system: position.is_multiple_of(5),
    }
}

pub(super) fn batch(rows: impl IntoIterator<Item = Row>) -> Box<Batch> {
    Box::new(Batch { rows: rows.into_iter().map(Arc::new).collect(), ..Batch::default() })
}

fn range(log: LogId, branch: u32, from: u64, to: u64) -> Range {
    Range { log, branch: Branch(branch), from, to }
}

fn checkpoint(root: Hash) -> Checkpoint {
    Checkpoint {
        root,
        length: 300,
        summary: Bytes::from_static(b"summary"),
        pieces: Bytes::from(vec![3; 64]),
        certificate: Bytes::from_static(b"certificate"),
    }
}

fn piece(root: Hash, index: u32, length: usize) -> Piece {
    Piece { root, index, bytes: Bytes::from(vec![root[0] ^ index as u8; length]) }
}

pub(super) async fn done(store: &dyn Store, batch: Box<Batch>) {
    assert_eq!(store.write(batch).await, Outcome::Done, "{:?}", store.failure());
}

/// Everything that a store holds, page by page.
pub(super) async fn everything(store: &dyn Store, page: usize) -> Vec<Row> {
    let (mut rows, mut after) = (Vec::new(), Position(0));
    loop {
        let found = store.scan(after, page, Payloads::Wanted).await.unwrap();
        let Some(last) = found.last() else { return rows };
        assert!(last.position > after);
        after = last.position;
        rows.extend(found);
    }
}

async fn found(store: &dyn Store, ranges: Vec<Range>, bytes: usize, payloads: Payloads) -> Vec<Row> {
    match store.read(Read::Rows { ranges, bytes, payloads }).await {
        Found::Rows(rows) => rows.iter().map(|row| Row::clone(row)).collect(),
        other => panic!("{other:?}"),
    }
}

pub(super) async fn a_new_store_holds_nothing(fixture: &dyn Fixture) {
    let store = fixture.open(ME).await.unwrap();
    assert_eq!(store.opened().await.unwrap().checkpoint, None);
    assert!(everything(&*store, 1).await.is_empty());
    assert_eq!(store.payload(Position(1)).await.unwrap(), None);
    assert_eq!(store.read(Read::Hashes(vec![(log(1), 1)])).await, Found::Hashes(vec![vec![]]));
    assert!(found(&*store, vec![range(log(1), 0, 1, u64::MAX)], 1, Payloads::Wanted).await.is_empty());
    assert_eq!(store.read(Read::Piece { root: [1; 32], index: 0 }).await, Found::Piece(None));
    done(&*store, Box::default()).await;
}

pub(super) async fn what_is_done_is_read_again_before_and_after_reopening(fixture: &dyn Fixture) {
    let mut store = fixture.open(ME).await.unwrap();
    let rows = [row(1, log(1), 1, 0, 0), row(2, log(2), 1, 0, 200_000), row(4, log(1), 2, 0, 10)];
    let mut first = batch(rows.clone());
    first.pieces = vec![piece([7; 32], 0, 128 * 1024), piece([7; 32], 1, 5)];
    first.checkpoint = Some(checkpoint([7; 32]));
    done(&*store, first).await;
    for _ in 0..2 {
        assert_eq!(everything(&*store, 1).await, rows);
        assert_eq!(everything(&*store, usize::MAX).await, rows);
        assert_eq!(store.payload(Position(2)).await.unwrap(), rows[1].payload);
        let places = vec![(log(1), 2), (log(3), 1), (log(2), 1), (log(2), 2), (log(1), u64::MAX)];
        let there = |row: &Row| vec![(row.hash, row.branch)];
        let expected = vec![there(&rows[2]), vec![], there(&rows[1]), vec![], vec![]];
        assert_eq!(store.read(Read::Hashes(places)).await, Found::Hashes(expected));
        assert_eq!(store.opened().await.unwrap().checkpoint, Some(checkpoint([7; 32])));
        let last = store.read(Read::Piece { root: [7; 32], index: 1 }).await;
        assert_eq!(last, Found::Piece(Some(piece([7; 32], 1, 5).bytes)));
        assert_eq!(store.read(Read::Piece { root: [7; 32], index: 2 }).await, Found::Piece(None));
        store.shutdown().await;
        store = fixture.open(ME).await.unwrap();
    }
}

pub(super) async fn all_branches_of_a_place_are_told_apart(fixture: &dyn Fixture) {
    let store = fixture.open(ME).await.unwrap();
    let rows = [row(1, log(1), 1, 0, 9), row(2, log(1), 2, 0, 9), row(3, log(1), 2, 1, 9), row(4, log(1), 3, 1, 9)];
    done(&*store, batch(rows.clone())).await;
    let Found::Hashes(hashes) = store.read(Read::Hashes(vec![(log(1), 2)])).await else { panic!() };
    assert_eq!(hashes, [[(rows[1].hash, Branch(0)), (rows[2].hash, Branch(1))]]);
    let trunk = found(&*store, vec![range(log(1), 0, 1, 9)], usize::MAX, Payloads::Wanted).await;
    assert_eq!(trunk, rows[..2]);
    let other = found(&*store, vec![range(log(1), 1, 1, 9)], usize::MAX, Payloads::Wanted).await;
    assert_eq!(other, rows[2..]);
}

pub(super) async fn rows_of_several_logs_come_in_the_order_of_positions(fixture: &dyn Fixture) {
    let store = fixture.open(ME).await.unwrap();
    // More of each log than is looked up at once.
    let of_log = |log_number: u8, position: u64, seq: u64| row(position, log(log_number), seq, 0, 3);
    let rows: Vec<Row> =
        (0..3_000).map(|at| of_log(if at % 7 == 0 { 2 } else { 1 + (at % 2) as u8 * 2 }, at + 1, at + 1)).collect();
    done(&*store, batch(rows.clone())).await;
    let ranges = vec![range(log(3), 0, 500, 2_600), range(log(1), 0, 1, 2_000), range(log(2), 0, 100, u64::MAX - 1)];
    let all = found(&*store, ranges.clone(), usize::MAX, Payloads::Wanted).await;
    let wanted =
        |row: &&Row| ranges.iter().any(|range| range.log == row.log && (range.from..=range.to).contains(&row.seq));
    assert_eq!(all, rows.iter().filter(wanted).cloned().collect::<Vec<_>>());
}

pub(super) async fn a_page_holds_what_begins_within_its_bytes_and_at_least_one(fixture: &dyn Fixture) {
    let store = fixture.open(ME).await.unwrap();
    // Each has 100 bytes of header.
    let rows = [row(1, log(1), 1, 0, 100), row(2, log(1), 2, 0, 50), row(3, log(1), 3, 0, 0)];
    done(&*store, batch(rows.clone())).await;
    for (bytes, count) in [(0, 1), (1, 1), (200, 1), (201, 2), (350, 2), (351, 3), (usize::MAX, 3)] {
        let page = found(&*store, vec![range(log(1), 0, 1, 3)], bytes, Payloads::Wanted).await;
        assert_eq!(page, rows[..count], "within {bytes} bytes");
        assert_eq!(store.scan(Position(0), bytes, Payloads::Wanted).await.unwrap(), rows[..count]);
    }
}

pub(super) async fn payloads_stay_out_where_they_are_not_wanted(fixture: &dyn Fixture) {
    let store = fixture.open(ME).await.unwrap();
    let rows: Vec<Row> = (1..=10).map(|at| row(at, log(1), at, 0, 1_000)).collect();
    done(&*store, batch(rows.clone())).await;
    let without = rows.iter().cloned().map(|row| Row { payload: row.payload.filter(|_| row.system), ..row });
    let without: Vec<Row> = without.collect();
    assert_eq!(without.iter().filter(|row| row.payload.is_some()).count(), 2);
    assert_eq!(found(&*store, vec![range(log(1), 0, 1, 10)], usize::MAX, Payloads::OfSystem).await, without);
    assert_eq!(store.scan(Position(0), usize::MAX, Payloads::OfSystem).await.unwrap(), without);
    // Headers can outlive payloads.
    let bare = Row { payload: None, ..row(11, log(1), 11, 0, 0) };
    done(&*store, batch([bare.clone()])).await;
    assert_eq!(store.scan(Position(10), 1, Payloads::Wanted).await.unwrap(), [bare]);
}

pub(super) async fn forgetting_takes_all_branches_up_to_a_number_and_no_more(fixture: &dyn Fixture) {
    let mut store = fixture.open(ME).await.unwrap();
    let rows: Vec<Row> = [(1, 1, 1, 0), (2, 1, 2, 0), (3, 1, 2, 1), (4, 2, 1, 0), (5, 1, 3, 1), (6, 2, 2, 0)]
        .map(|(position, of, seq, branch)| row(position, log(of), seq, branch, 5_000))
        .to_vec();
    done(&*store, batch(rows.clone())).await;
    let mut pruning = batch([]);
    pruning.forget_rows = vec![UpTo { log: log(1), seq: 2 }, UpTo { log: log(3), seq: 9 }];
    done(&*store, pruning).await;
    assert_eq!(everything(&*store, usize::MAX).await, rows[3..]);
    let gone = store.read(Read::Hashes(vec![(log(1), 2)])).await;
    assert_eq!(gone, Found::Hashes(vec![vec![]]));
    let mut pruning = batch([row(7, log(1), 4, 1, 10)]);
    pruning.forget_rows = vec![UpTo { log: log(2), seq: u64::MAX - 1 }];
    done(&*store, pruning).await;
    store.shutdown().await;
    store = fixture.open(ME).await.unwrap();
    assert_eq!(everything(&*store, usize::MAX).await, [rows[4].clone(), row(7, log(1), 4, 1, 10)]);
}

pub(super) async fn positions_are_free_once_their_segments_went(fixture: &dyn Fixture) {
    let mut store = fixture.open(ME).await.unwrap();
    done(&*store, batch((1..=5).map(|at| row(at, log(1), at, 0, 70_000)))).await;
    let mut again = batch([row(4, log(1), 4, 1, 300), row(5, log(2), 1, 0, 300)]);
    again.forget_positions = vec![Position(5), Position(4), Position(77)];
    done(&*store, again).await;
    let kept: Vec<Row> = (1..=3).map(|at| row(at, log(1), at, 0, 70_000)).collect();
    let expected = [kept, vec![row(4, log(1), 4, 1, 300), row(5, log(2), 1, 0, 300)]].concat();
    for _ in 0..2 {
        assert_eq!(everything(&*store, usize::MAX).await, expected);
        store.shutdown().await;
        store = fixture.open(ME).await.unwrap();
    }
}

pub(super) async fn of_states_only_the_checkpoints_is_there_at_opening(fixture: &dyn Fixture) {
    let mut store = fixture.open(ME).await.unwrap();
    let held = async |store: &dyn Store, root: u8| {
        let found = store.read(Read::Piece { root: [root; 32], index: 0 }).await;
        matches!(found, Found::Piece(Some(bytes)) if bytes == piece([root; 32], 0, 40).bytes)
    };
    let of = |root: u8| piece([root; 32], 0, 40);
    done(&*store, Box::new(Batch { pieces: vec![of(1), of(2), of(3)], ..Batch::default() })).await;
    let taken = Batch { checkpoint: Some(checkpoint([1; 32])), forget_states: vec![[3; 32]], ..Batch::default() };
    done(&*store, Box::new(taken)).await;
    assert!(held(&*store, 1).await && held(&*store, 2).await && !held(&*store, 3).await);
    // What was forgotten can come again.
    done(&*store, Box::new(Batch { pieces: vec![of(3), of(3)], ..Batch::default() })).await;
    assert!(held(&*store, 3).await);
    store.shutdown().await;
    store = fixture.open(ME).await.unwrap();
    assert!(held(&*store, 1).await && !held(&*store, 2).await && !held(&*store, 3).await);
    done(&*store, Box::new(Batch { pieces: vec![of(2)], ..Batch::default() })).await;
    let next = Batch { checkpoint: Some(checkpoint([2; 32])), forget_states: vec![[1; 32]], ..Batch::default() };
    done(&*store, Box::new(next)).await;
    assert_eq!(store.opened().await.unwrap().checkpoint, Some(checkpoint([2; 32])));
    assert!(!held(&*store, 1).await && held(&*store, 2).await);
}

pub(super) async fn a_batch_that_cannot_be_carried_out_is_not_there_at_all(fixture: &dyn Fixture) {
    let store = fixture.open(ME).await.unwrap();
    let first = row(1, log(1), 1, 0, 50);
    done(&*store, batch([first.clone()])).await;
    // A position that is taken.
    let mut wrong = batch([row(2, log(2), 1, 0, 50), row(1, log(1), 2, 0, 50)]);
    wrong.checkpoint = Some(checkpoint([1; 32]));
    assert_eq!(store.write(wrong).await, Outcome::Broken);
    assert!(store.failure().is_some());
    assert_eq!(store.write(batch([row(3, log(1), 2, 0, 5)])).await, Outcome::Broken);
    assert_eq!(everything(&*store, 1).await, std::slice::from_ref(&first));
    store.shutdown().await;
    let store = fixture.open(ME).await.unwrap();
    assert_eq!(everything(&*store, 1).await, [first]);
    assert_eq!(store.opened().await.unwrap().checkpoint, None);
    done(&*store, batch([row(2, log(2), 1, 0, 50)])).await;
}

pub(super) async fn reads_and_batches_at_once_are_all_answered(fixture: &dyn Fixture) {
    let store = fixture.open(ME).await.unwrap();
    done(&*store, batch((1..=20).map(|at| row(at, log(1), at, 0, 2_000)))).await;
    let writes = (0..40).map(|at| store.write(batch([row(21 + at, log(2), 1 + at, 0, 3_000)])));
    let pages = (0..100).map(|_| found(&*store, vec![range(log(1), 0, 1, 20)], usize::MAX, Payloads::Wanted));
    let hashes = (0..300).map(|at| store.read(Read::Hashes(vec![(log(1), 1 + at % 20)])));
    let (outcomes, pages, hashes) = tokio::join!(
        futures::future::join_all(writes),
        futures::future::join_all(pages),
        futures::future::join_all(hashes)
    );
    assert!(outcomes.iter().all(|outcome| *outcome == Outcome::Done));
    assert!(pages.iter().all(|page| page.len() == 20));
    assert!(hashes.iter().all(|found| matches!(found, Found::Hashes(found) if found[0].len() == 1)));
    assert_eq!(everything(&*store, 10_000).await.len(), 60);
}

pub(super) async fn another_nodes_store_is_refused(fixture: &dyn Fixture) {
    fixture.open(ME).await.unwrap().shutdown().await;
    assert!(matches!(fixture.open(NodeId([9; 32])).await, Err(StoreError::Damaged(_))));
    fixture.open(ME).await.unwrap();
}

pub(super) async fn a_store_that_was_shut_down_answers_so(fixture: &dyn Fixture) {
    let store = fixture.open(ME).await.unwrap();
    store.shutdown().await;
    store.shutdown().await;
    assert_eq!(store.write(Box::default()).await, Outcome::Broken);
    assert_eq!(store.read(Read::Hashes(vec![])).await, Found::Failed);
    assert!(matches!(store.opened().await, Err(StoreError::Closed)));
}

/// Random batches and reads, and both have the same.
pub(super) async fn does_what_the_simulators_disk_does(fixture: &dyn Fixture) {
    let mut store = fixture.open(ME).await.unwrap();
    let (seed, mut disk) = (20_261_129, Disk::default());
    let mut random = StdRng::seed_from_u64(seed);
    let (mut position, mut ends, mut full_pages) = (0, [[0_u64; 2]; 3], 0);
    for round in 0..150 {
        let mut next = Batch::default();
        if position > 3 && random.random_ratio(1, 6) {
            next.forget_positions.push(Position(random.random_range(1..=position)));
        }
        for _ in 0..random.random_range(0..6) {
            position += random.random_range(1..3);
            let (of, branch) = (random.random_range(0..3_usize), random.random_range(0..2_usize));
            ends[of][branch] += 1;
            let length = random.random_range(0..9_000);
            next.rows.push(Arc::new(row(position, log(of as u8), ends[of][branch], branch as u32, length)));
        }
        if random.random_ratio(1, 8) {
            let of = random.random_range(0..3_usize);
            let seq = random.random_range(0..=ends[of][0]);
            next.forget_rows.push(UpTo { log: log(of as u8), seq });
        }
        let root = [random.random_range(1..4_u8); 32];
        if random.random_ratio(1, 3) {
            next.pieces.push(piece(root, random.random_range(0..3), 600));
        }
        if random.random_ratio(1, 9) {
            next.forget_states.push(root);
        }
        disk.write(&next);
        done(&*store, Box::new(next)).await;
        if round % 40 == 39 {
            // States go at opening, as in a batch that forgets them.
            disk.write(&Batch { forget_states: (1..4).map(|root| [root; 32]).collect(), ..Batch::default() });
            store.shutdown().await;
            store = fixture.open(ME).await.unwrap();
        }
        let places = (0..20).map(|at| (log(at % 4), random.random_range(0..40))).collect();
        let from = random.random_range(1..60);
        let ranges =
            vec![range(log(0), 0, from, from + 30), range(log(1), 1, 1, from), range(log(2), 0, from, u64::MAX)];
        let bytes = random.random_range(0..50_000);
        let reads = [
            Read::Hashes(places),
            Read::Rows { ranges, bytes, payloads: Payloads::Wanted },
            Read::Piece { root, index: random.random_range(0..4) },
        ];
        for read in reads {
            let (expected, found) = (disk.read(&read), store.read(read.clone()).await);
            full_pages += usize::from(matches!(&found, Found::Rows(rows) if rows.len() > 3));
            assert_eq!(found, expected, "seed {seed}, round {round}, {read:?}");
        }
    }
    assert!(full_pages > 10, "{full_pages}");
}
