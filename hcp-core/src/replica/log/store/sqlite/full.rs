//! No room: batches are refused with a clear error, reads go on, and once there is room so do batches, without repair.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::tests::service;
use super::{SqliteStore, Tuning};
use crate::replica::log::storage::{Found, Outcome, Read, UpTo};
use crate::replica::log::store::Store;
use crate::replica::log::store::contract::{ME, batch, done, everything, log, row};
use crate::store::StoreError;

/// The folder on the small disk.
const DISK: &str = "HCP_LOG_STORE_DISK";
const SURVIVED: &str = "the store survived a full disk";

fn open(folder: &Path, max_pages: Option<u32>) -> Result<SqliteStore, StoreError> {
    SqliteStore::open(&folder.join("log.db"), &service(), &ME, Tuning { max_pages, ..Tuning::default() })
}

/// Writes until there is no room, and returns the number of the batch that found none.
async fn fill(store: &SqliteStore, from: u64) -> u64 {
    for number in from.. {
        match store.write(batch([row(number, log(1), number, 0, 20_000)])).await {
            Outcome::Done => assert!(store.failure().is_none()),
            Outcome::Full => return number,
            Outcome::Broken => panic!("{:?}", store.failure()),
        }
    }
    unreachable!("disks are finite")
}

/// What holds of a store that has no room for the batch with this number.
async fn reads_go_on(store: &SqliteStore, number: u64) {
    let failure = store.failure().expect("why there is no room");
    assert!(matches!(*failure, StoreError::Full) && failure.to_string().contains("disk is full"), "{failure}");
    // Neither a part of what found no room is there, nor is anything lost.
    let rows = everything(store, 1_000_000).await;
    assert!(rows.iter().map(|row| row.position.0).eq(1..number), "{} rows before {number}", rows.len());
    let places = (1..=number).map(|seq| (log(1), seq)).collect();
    let Found::Hashes(hashes) = store.read(Read::Hashes(places)).await else { panic!() };
    assert!(hashes[..number as usize - 1].iter().all(|at| at.len() == 1) && hashes[number as usize - 1].is_empty());
}

#[tokio::test]
async fn pruning_makes_room_in_a_database_that_may_not_grow() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path(), Some(400)).unwrap();
    let full = fill(&store, 1).await;
    assert!(full > 20, "{full}");
    reads_go_on(&store, full).await;
    // A large batch beside small ones that wait with it: each is refused or done by itself.
    let large = store.write(batch([row(full, log(1), full, 0, 200_000)]));
    let mut pruning = batch([]);
    pruning.forget_rows.push(UpTo { log: log(1), seq: full - 3 });
    let (large, pruned) = tokio::join!(large, store.write(pruning));
    assert_eq!((large, pruned), (Outcome::Full, Outcome::Done));
    let left = everything(&store, 1_000_000).await;
    assert!(left.iter().map(|row| row.position.0).eq([full - 2, full - 1]));
    // The room is there when what was pruned has gone, a little later; the same batch is given until then.
    let next = batch([row(full, log(1), full, 0, 200_000)]);
    let room = async {
        while store.write(next.clone()).await == Outcome::Full {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(60), room).await.unwrap();
    let full = fill(&store, full + 1).await;
    assert!(full > 20, "{full}");
}

/// Runs in a mount namespace of its own.
#[tokio::test]
async fn a_full_disk_is_told_and_nothing_is_repaired_when_there_is_room() {
    let folder = tempfile::tempdir().unwrap();
    // Whoever is not root becomes it in a user namespace, which only then may mount. In a chroot the root is no mount
    // point, and its propagation cannot be changed.
    let ways: [&[&str]; 3] = [&["-m"], &["-U", "-r", "-m"], &["-m", "--propagation", "unchanged"]];
    let works = |way: &&[&str]| {
        let tried = Command::new("unshare").args(*way).arg("true").stderr(Stdio::null()).status();
        tried.is_ok_and(|status| status.success())
    };
    let way = ways.into_iter().find(works).expect("the test may make a mount namespace");
    let script =
        format!(r#"mount -t tmpfs -o size=2m tmpfs "${DISK}" || exit 9; "$@"; code=$?; umount "${DISK}"; exit $code"#);
    let name = concat!(module_path!(), "::survives_on_a_small_disk").split_once("::").unwrap().1;
    let mut command = Command::new("unshare");
    command.args(way).args(["sh", "-c", &script, "sh"]).arg(std::env::current_exe().unwrap());
    command.args(["--exact", name, "--ignored", "--nocapture"]).env(DISK, folder.path());
    let output = command.output().unwrap();
    let told = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && told.contains(SURVIVED), "{told}\n{}", String::from_utf8_lossy(&output.stderr));
}

#[tokio::test]
#[ignore = "the test of a full disk runs it on a disk of its own"]
async fn survives_on_a_small_disk() {
    let disk = std::env::var(DISK).map(PathBuf::from).expect("the test of a full disk says which");
    let mut store = open(&disk, None).unwrap();
    let full = fill(&store, 1).await;
    reads_go_on(&store, full).await;
    // It can be opened while there is no room, or says why not.
    store.shutdown().await;
    match open(&disk, None) {
        Ok(opened) => {
            store = opened;
            let full = fill(&store, full).await;
            reads_go_on(&store, full).await;
        }
        Err(error) => {
            assert!(matches!(error, StoreError::Full), "{error:?}");
            store = reopen_with_room(&disk);
        }
    }
    make_room(&disk);
    let there = everything(&store, 1_000_000).await.len() as u64;
    done(&store, batch([row(there + 1, log(1), there + 1, 0, 100_000)])).await;
    store.shutdown().await;
    let store = open(&disk, None).unwrap();
    let rows = everything(&store, 1_000_000).await;
    assert!(rows.iter().map(|row| row.position.0).eq(1..=there + 1));
    use std::io::Write;
    std::io::stdout().write_all(format!("\n{SURVIVED}: {full} batches\n").as_bytes()).unwrap();
}

fn reopen_with_room(disk: &Path) -> SqliteStore {
    make_room(disk);
    open(disk, None).unwrap()
}

fn make_room(disk: &Path) {
    let status = Command::new("mount").args(["-o", "remount,size=64m"]).arg(disk).status().unwrap();
    assert!(status.success());
}
