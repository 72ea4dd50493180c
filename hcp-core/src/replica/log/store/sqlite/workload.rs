//! The process that the tests of crashes have write.

use std::io::Write;
use std::path::Path;
use std::process::Command;

use super::tests::service;
use super::{SqliteStore, Tuning};
use crate::replica::log::storage::Outcome;
use crate::replica::log::store::Store;
use crate::replica::log::store::contract::ME;
use crate::replica::log::store::workload::{last_held, nth};

/// The folder that the process writes to.
const FOLDER: &str = "HCP_LOG_STORE_FOLDER";
/// The number of the last batch.
const LAST: &str = "HCP_LOG_STORE_LAST";
/// Set where nothing is to be synced.
const UNSYNCED: &str = "HCP_LOG_STORE_UNSYNCED";
/// Opens what is in a folder; copies into the database often, so that this is tested too.
pub(super) fn open(folder: &Path, unsynced: bool) -> SqliteStore {
    let tuning = Tuning { checkpoint_pages: 40, unsynced, ..Tuning::default() };
    SqliteStore::open(&folder.join("log.db"), &service(), &ME, tuning).unwrap()
}

/// A command that goes on writing in a folder, and says so after each batch; run by another one if there is one.
pub(super) fn command(by: Option<Command>, folder: &Path, last: u64, unsynced: bool) -> Command {
    let program = std::env::current_exe().unwrap();
    let mut command = match by {
        Some(mut by) => {
            by.arg(program);
            by
        }
        None => Command::new(program),
    };
    let name = concat!(module_path!(), "::goes_on_writing");
    let name = name.split_once("::").unwrap().1;
    command.args(["--exact", name, "--ignored", "--nocapture", "--test-threads=1"]);
    command.env(FOLDER, folder).env(LAST, last.to_string());
    if unsynced {
        command.env(UNSYNCED, "1");
    }
    command
}

/// The number in what the process says.
pub(super) fn said(line: &str) -> Option<u64> {
    line.trim().strip_prefix("durable ")?.parse().ok()
}

/// By itself it writes a few batches to a folder that goes again.
#[tokio::test]
#[ignore = "the tests of crashes run it in a process of its own"]
async fn goes_on_writing() {
    let own = tempfile::tempdir().unwrap();
    let folder = std::env::var(FOLDER).map_or_else(|_| own.path().to_owned(), Into::into);
    let last = std::env::var(LAST).map_or(30, |last| last.parse().unwrap());
    let store = open(&folder, std::env::var(UNSYNCED).is_ok());
    let held = last_held(&store).await.unwrap();
    for number in held + 1..=last {
        assert_eq!(store.write(Box::new(nth(number))).await, Outcome::Done);
        // In one call: whoever traces this process reads it from there.
        std::io::stdout().write_all(format!("\ndurable {number}\n").as_bytes()).unwrap();
    }
    assert_eq!(last_held(&store).await.unwrap(), last);
}
