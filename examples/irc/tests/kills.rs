//! Nodes as processes on the local network, killed with signal 9 under load: nothing that was echoed is lost.
//!
//! A killed process loses nothing that the kernel has taken, so every other victim loses its log as well. Every fourth
//! time the others stand still for a moment before and die with it, so that the victim has stored entries which nobody
//! else holds: echoing these would lose them.

#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::time::Duration;

use hcp_demo::failover::Load;
use hcp_demo::{Cluster, NodeProcess, Place, User, dial_local};

const NODES: usize = 3;
const KILLS: usize = 20;
/// Each of the users says a line this often.
const PACE: Duration = Duration::from_millis(25);
const SOON: Duration = Duration::from_secs(60);

async fn linked(nodes: &mut [NodeProcess]) {
    for node in nodes {
        node.wait("readiness", SOON, |node| node.ready.is_some()).await.unwrap();
        node.wait("links with all others", SOON, |node| node.peers.len() == NODES - 1).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_echoed_is_lost_in_twenty_kills_under_load() {
    let folder = tempfile::tempdir().unwrap();
    let ports = folder.path().join("ports");
    let program = Path::new(env!("CARGO_BIN_EXE_hcp-irc"));
    let cluster = Cluster::create(program, folder.path(), Place::Local(ports.clone()), NODES, 5_000).await.unwrap();
    let mut nodes: Vec<_> = (0..NODES).map(|i| cluster.start(i).unwrap()).collect();
    linked(&mut nodes).await;
    let mut users = Vec::new();
    for i in 0..NODES {
        let user = User::new(&format!("user{i}"), "#load", dial_local(&ports, &cluster.address).unwrap());
        user.wait("joining", SOON, |user| user.joined).await.unwrap();
        users.push(user);
    }
    let mut load = Load::new(users, PACE);
    for kill in 1..=KILLS {
        load.during(async {
            linked(&mut nodes).await;
            // The moment is the point: anywhere between an append, its commit, its push and its echo.
            let moment = Duration::from_micros(rand::random_range(0..500_000));
            tokio::time::sleep(moment).await;
            let victim = nodes.remove(rand::random_range(0..nodes.len()));
            let index = victim.index;
            if kill % 4 == 0 {
                for node in &nodes {
                    node.freeze().await?;
                }
                // Several lines of every user, which the victim stores and must not echo.
                tokio::time::sleep(8 * PACE).await;
            }
            let disk = if kill % 2 == 0 { ", and its log is lost" } else { "" };
            eprintln!("kill {kill}: node {} after {moment:?}{disk}", index + 1);
            victim.kill().await?;
            if kill % 2 == 0 {
                cluster.lose_log(index)?;
            }
            if kill % 4 == 0 {
                for other in std::mem::take(&mut nodes) {
                    let index = other.index;
                    other.kill().await?;
                    nodes.push(cluster.start(index)?);
                }
            }
            nodes.push(cluster.start(index)?);
            Ok(())
        })
        .await
        .unwrap();
    }
    let lines = load.settle().await.unwrap();
    assert!(lines >= 20 * KILLS * NODES, "{lines} lines are too few to prove anything");
    eprintln!("{lines} lines were said and echoed during {KILLS} kills, none of them lost");
}
