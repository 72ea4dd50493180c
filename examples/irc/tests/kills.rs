//! Nodes as processes on the local network, killed with signal 9 under load: nothing that was echoed is lost.
//!
//! A killed process loses nothing that the kernel has taken, so every other victim loses its log as well: then only what
//! other nodes have confirmed is still there.

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
            let disk = if kill % 2 == 0 { ", and its log is lost" } else { "" };
            eprintln!("kill {kill}: node {} after {moment:?}{disk}", index + 1);
            victim.kill().await?;
            if kill % 2 == 0 {
                cluster.lose_log(index)?;
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
