//! A node whose disk runs full says so, lives, and goes on when there is room; nothing that was echoed is lost. The disk is a
//! small tmpfs in a mount namespace of its own.

#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use hcp_demo::{Cluster, Place, User, dial_local};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;

const SOON: Duration = Duration::from_secs(60);

/// Serves from a disk of 1.5 MB, which gets room when the file `$ROOM` is there.
const SMALL: &str = r#"
set -u
mount -t tmpfs -o size=1500k tmpfs "$DISK" && cp -a "$HOME_OF_NODE/." "$DISK/" || exit 9
(
    while [ ! -e "$ROOM" ]; do sleep 0.1; done
    mount -o remount,size=64m "$DISK"
) &
"$@"
code=$?
umount "$DISK"
exit "$code"
"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_is_told_and_loses_nothing_that_was_echoed() {
    let folder = tempfile::tempdir().unwrap();
    let (ports, disk) = (folder.path().join("ports"), folder.path().join("disk"));
    std::fs::create_dir(&disk).unwrap();
    let program = Path::new(env!("CARGO_BIN_EXE_hcp-irc"));
    let cluster = Cluster::create(program, folder.path(), Place::Local(ports.clone()), 1, 5_000).await.unwrap();

    // Whoever is not root becomes it in a user namespace, which only then may mount. In a chroot the root is no mount
    // point, and its propagation cannot be changed.
    let ways: [&[&str]; 3] = [&["-m"], &["-U", "-r", "-m"], &["-m", "--propagation", "unchanged"]];
    let works = |way: &&[&str]| {
        let tried = std::process::Command::new("unshare").args(*way).arg("true").stderr(Stdio::null()).status();
        tried.is_ok_and(|status| status.success())
    };
    let way = ways.into_iter().find(works).expect("the test may make a mount namespace");
    let mut command = Command::new("unshare");
    command.args(way).args(["sh", "-c", SMALL, "sh"]);
    command.arg(program).args(["serve", "--json", "--until-stdin-closes", "--home"]).arg(&disk);
    command.arg("--passphrase-file").arg(folder.path().join("passphrase"));
    command.arg("--network").arg(format!("local:{}", ports.display()));
    let room = folder.path().join("room");
    command.env("DISK", &disk).env("HOME_OF_NODE", cluster.home(0)).env("ROOM", &room);
    let stderr = folder.path().join("stderr");
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(std::fs::File::create(&stderr).unwrap());
    let mut node = command.kill_on_drop(true).spawn().unwrap();
    let mut reports = BufReader::new(node.stdout.take().unwrap()).lines();
    let told = || std::fs::read_to_string(&stderr).unwrap();
    let mut ready = async || {
        let until_ready = async {
            while let Ok(Some(line)) = reports.next_line().await {
                if line.contains(r#""event":"ready""#) {
                    return true;
                }
            }
            false
        };
        assert!(tokio::time::timeout(SOON, until_ready).await.unwrap(), "the node ended: {}", told());
    };
    ready().await;

    let alice = User::new("alice", "#hcp", dial_local(&ports, &cluster.address).unwrap());
    alice.wait("joining", SOON, |user| user.joined).await.unwrap();
    let mut said = 0;
    let talk = async {
        loop {
            said += 1;
            alice.say(format!("{said} {}", "x".repeat(300)));
            tokio::time::sleep(Duration::from_millis(25)).await;
        }
    };
    let full = async {
        while !told().contains("disk is full") {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::select! {
        full = tokio::time::timeout(SOON, full) => full.unwrap(),
        () = talk => {}
    }
    // What is there is served while nothing can be written.
    assert!(node.try_wait().unwrap().is_none(), "{}", told());
    std::fs::write(&room, []).unwrap();

    // What waited is written now, and all of it is there for somebody who comes.
    let state = alice.wait("all echoes", SOON, |user| user.joined && user.echoed.len() == said).await.unwrap();
    let bob = User::new("bob", "#hcp", dial_local(&ports, &cluster.address).unwrap());
    bob.wait("all that was echoed", SOON, |bob| state.echoed.iter().all(|text| bob.has_heard(text))).await.unwrap();
    drop(node.stdin.take());
    tokio::time::timeout(SOON, node.wait()).await.unwrap().unwrap();
    eprintln!("{said} lines, none of them lost");
}
