//! How fast entries become durable in segments, beside a table with a row for each entry and the same commits.

use std::path::Path;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::tests::service;
use super::{SqliteStore, Tuning};
use crate::replica::log::storage::Row;
use crate::replica::log::store::Store;
use crate::replica::log::store::contract::{ME, batch, done, log, row};
use crate::store::Database;

/// Bytes of an entry.
const ENTRY: usize = 200;
/// Entries of a full segment.
const ENTRIES: usize = 1_250;

/// Rounds in which both take turns, since a disk is not equally fast all the time; the middle one counts.
const ROUNDS: usize = 5;

#[tokio::test]
#[ignore = "measures: run it in a release build, on a disk and not on a tmpfs"]
async fn entries_become_durable_in_segments() {
    for segments in [1, 4, 16] {
        let commits = 320 / segments;
        let (mut in_segments, mut in_rows) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            let folder = tempfile::tempdir().unwrap();
            in_segments.push(store(&folder.path().join("log.db"), commits, segments).await);
            in_rows.push(table(&folder.path().join("rows.db"), commits, segments));
        }
        let rate = |times: &mut Vec<Duration>| {
            times.sort_unstable();
            (commits * segments * ENTRIES) as f64 / times[ROUNDS / 2].as_secs_f64()
        };
        let (in_segments, in_rows) = (rate(&mut in_segments), rate(&mut in_rows));
        let (entries, ratio) = (segments * ENTRIES, in_segments / in_rows);
        eprintln!(
            "{entries} entries of {ENTRY} bytes a commit: {in_segments:.0} entries/s in segments, {in_rows:.0} in rows, \
             ratio {ratio:.1}"
        );
    }
}

async fn store(path: &Path, commits: usize, segments: usize) -> Duration {
    let store = SqliteStore::open(path, &service(), &ME, Tuning::default()).unwrap();
    let mut seq = 0;
    let began = Instant::now();
    for _ in 0..commits {
        let rows = (0..segments).map(|_| {
            seq += 1;
            Row { payload: Some(Bytes::from(vec![seq as u8; ENTRY * ENTRIES])), ..row(seq, log(1), seq, 0, 0) }
        });
        done(&store, batch(rows)).await;
    }
    let took = began.elapsed();
    store.shutdown().await;
    took
}

fn table(path: &Path, commits: usize, segments: usize) -> Duration {
    let mut database = Database::open(path, &["CREATE TABLE entries (id INTEGER PRIMARY KEY, entry BLOB)"]).unwrap();
    super::schema::tune(&database.connection, Tuning::default()).unwrap();
    let began = Instant::now();
    for commit in 0..commits {
        let within = database.connection.transaction().unwrap();
        for _ in 0..segments * ENTRIES {
            let mut insert = within.prepare_cached("INSERT INTO entries (entry) VALUES (?1)").unwrap();
            insert.execute([vec![commit as u8; ENTRY]]).unwrap();
        }
        within.commit().unwrap();
    }
    began.elapsed()
}
