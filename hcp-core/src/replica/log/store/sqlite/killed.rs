//! The process is killed while it writes; this proves that batches are whole, not that they were synced.

use std::io::{BufRead, BufReader};
use std::process::Stdio;

use super::workload::{command, open, said};
use crate::replica::log::store::Store;
use crate::replica::log::store::workload::last_held;

#[tokio::test]
async fn what_was_durable_survives_kills_and_the_next_process_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let mut reported = 0;
    for round in 0..12 {
        let mut command = command(None, folder.path(), u64::MAX, false);
        let mut process = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let until = reported + 1 + round * 7 % 23;
        while reported < until {
            let line = lines.next().expect("the process goes on until it is killed").unwrap();
            reported = said(&line).unwrap_or(reported);
        }
        process.kill().unwrap();
        process.wait().unwrap();
        // What it said before it went.
        reported = lines.map_while(Result::ok).filter_map(|line| said(&line)).last().unwrap_or(reported);
        let store = open(folder.path(), false);
        let held = last_held(&store).await.unwrap();
        assert!(held == reported || held == reported + 1, "{held} are there, {reported} were durable");
        store.shutdown().await;
    }
    assert!(reported > 100, "{reported}");
}
