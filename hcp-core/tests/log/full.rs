//! A disk that is really full, under one node of two: a small tmpfs in a mount namespace of its own.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use hcp_core::replica::{AppendError, Disk, Frontier, OpenReplicaError, ReceiptError, Storage, StoreError};

use crate::harness::{Cluster, Running, all_linked, next_entry, read, soon};

/// The folder on the small disk.
const DISK: &str = "HCP_LOG_SMALL_DISK";
const SURVIVED: &str = "the replica survived a full disk";
/// Bytes of an entry: of many a few fit, of few many.
const ENTRY: usize = 20_000;

#[tokio::test]
async fn a_really_full_disk_is_told_others_are_served_and_nothing_is_repaired_when_there_is_room() {
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
    let mut command = tokio::process::Command::new("unshare");
    command.args(way).args(["sh", "-c", &script, "sh"]).arg(std::env::current_exe().unwrap());
    command.args(["--exact", name, "--ignored", "--nocapture"]).env(DISK, folder.path());
    let output = command.output().await.unwrap();
    let told = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && told.contains(SURVIVED), "{told}\n{}", String::from_utf8_lossy(&output.stderr));
}

/// Appends until there is no room, and returns how many are durable and one that waits.
async fn fill(node: &Running, from: usize) -> (usize, hcp_core::replica::Receipt) {
    for number in from.. {
        let receipt = soon(node.replica.append(entry(number))).await.unwrap();
        match soon(receipt.durable()).await {
            Ok(_) => {}
            Err(ReceiptError::Full) => return (number, receipt),
            Err(error) => panic!("{error:?}"),
        }
    }
    unreachable!("disks are finite")
}

fn entry(number: usize) -> String {
    format!("{number:<ENTRY$}")
}

/// All of somebody's entries so far, in order.
async fn numbers(node: &Running, count: usize) -> Vec<String> {
    let texts = read(&mut node.replica.subscribe(Frontier::start()), count).await;
    texts.into_iter().map(|text| text.trim_end().to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "the test of a full disk runs it on a disk of its own"]
async fn survives_on_a_small_disk() {
    let disk = std::env::var(DISK).map(PathBuf::from).expect("the test of a full disk says which");
    let room = tempfile::tempdir().unwrap();
    let mut cluster = Cluster::new(3);
    let folders = [&*disk, room.path(), room.path()];
    for (node, machine) in cluster.machines.iter_mut().enumerate() {
        machine.storage = Some(Storage::sqlite(folders[node].join(format!("{node}.db"))));
    }
    let (small, roomy) = (cluster.start(0).await, cluster.start(1).await);
    small.linked_with(1).await;
    let (full, waits) = fill(&small, 0).await;
    assert!(full > 10, "{full}");
    assert!(matches!(small.replica.append("refused").await, Err(AppendError::Full)));
    soon(small.replica.status().wait_for(|status| status.disk == Disk::Full)).await.unwrap();
    let expected: Vec<_> = (0..full).map(|number| number.to_string()).collect();
    // What is there is read here, and goes on to others: to the one that is linked, and to one that comes only now.
    assert_eq!(numbers(&small, full).await, expected);
    assert_eq!(numbers(&roomy, full).await, expected);
    let late = cluster.start(2).await;
    late.linked_with(2).await;
    assert_eq!(numbers(&late, full).await, expected);
    // They go on without it, and it says of nothing that it holds it.
    let meanwhile = roomy.replica.append("meanwhile").await.unwrap();
    assert_eq!(soon(meanwhile.replicated(1)).await.unwrap(), 1);
    assert!(small.replica.status().borrow().stopped.is_none());

    // It is started again while there is no room, or says why not.
    soon(small.stop()).await;
    drop(waits);
    let small = match cluster.open(0, &cluster.manifest).await {
        Ok(replica) => {
            soon(replica.shutdown()).await;
            let small = cluster.start(0).await;
            assert_eq!(numbers(&small, full).await, expected);
            resize(&disk, "8m");
            small
        }
        Err(error) => {
            assert!(matches!(error, OpenReplicaError::Store(StoreError::Full)), "{error:?}");
            resize(&disk, "8m");
            cluster.start(0).await
        }
    };
    let running = [small, roomy, late];
    all_linked(&running).await;
    // It finds out by itself, by its next try.
    let after = async {
        loop {
            running[0].replica.room().await;
            if let Ok(after) = running[0].replica.append("after").await {
                match after.replicated(2).await {
                    Err(ReceiptError::Full) => continue,
                    reached => break reached,
                }
            }
        }
    };
    assert_eq!(soon(after).await.unwrap(), 2);
    soon(running[0].replica.status().wait_for(|status| status.disk == Disk::Good)).await.unwrap();
    assert_eq!(soon(meanwhile.replicated(2)).await.unwrap(), 2);
    for node in &running {
        // What waited may have found room before the process ended; else it is gone with it, and nobody was told otherwise.
        let mut subscription = node.replica.subscribe(Frontier::start());
        let mut texts = Vec::new();
        while texts.last().is_none_or(|text| text != "after") || !texts.contains(&"meanwhile".to_owned()) {
            texts.push(String::from_utf8_lossy(&next_entry(&mut subscription).await.entry).trim_end().to_owned());
        }
        texts.retain(|text| text.parse::<usize>().is_ok());
        assert!(texts == expected || texts[..full] == expected && texts.len() == full + 1, "{texts:?}");
    }
    // Again, and with room while the process lives: what waited goes by itself.
    let [small, roomy, late] = running;
    let (full, waits) = fill(&small, 10_000).await;
    resize(&disk, "64m");
    soon(small.replica.room()).await;
    assert_eq!(soon(waits.replicated(2)).await.unwrap(), 2);
    small.replica.append("at last").await.unwrap().durable().await.unwrap();
    for node in [small, roomy, late] {
        node.stop().await;
    }
    use std::io::Write as _;
    std::io::stdout().write_all(format!("\n{SURVIVED}: {full} entries\n").as_bytes()).unwrap();
}

fn resize(disk: &Path, size: &str) {
    let status = Command::new("mount").args(["-o", &format!("remount,size={size}")]).arg(disk).status().unwrap();
    assert!(status.success());
}
