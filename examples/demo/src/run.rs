//! The demo: two people talk through three nodes at one onion address; the node of one of them is killed, and
//! at last all of them are.

use std::path::Path;
use std::time::{Duration, Instant};

use hcp_core::testing::{PrivateTorNetwork, StartEvent};

use crate::{Cluster, Dial, NodeProcess, Place, Result, Timeline, User, dial_socks, dial_socks_isolated, seconds};

const NODES: usize = 3;
const CHANNEL: &str = "#hcp";
const START: Duration = Duration::from_secs(120);
/// Most things take seconds; now and then a C tor client needs three minutes to drop what it knew of a dead node.
const SOON: Duration = Duration::from_secs(300);
/// One in three would be usual; all of so many, one in fourteen million.
const TRIES: usize = 15;
/// Lines that each of the two says, in each part of the talk.
const LINES: usize = 5;

/// Starts a private Tor network and tells of its progress.
///
/// # Errors
/// When `tor` is missing, too old or does not start.
pub async fn start_tor(timeline: Timeline) -> Result<PrivateTorNetwork> {
    timeline.say("starting a private Tor network on loopback: 3 authorities, 5 relays, nothing leaves this machine");
    let network = PrivateTorNetwork::builder().on_event(move |event: StartEvent| timeline.say(format!("  {event}")));
    Ok(network.start().await?)
}

/// Runs the demo; afterwards it stays up until it is interrupted, if asked to.
///
/// # Errors
/// The first thing that did not go as it should.
pub async fn run(program: &Path, stay: bool) -> Result<()> {
    let timeline = Timeline::default();
    let tor = start_tor(timeline).await?;
    let folder = tempfile::tempdir()?;
    let place = Place::PrivateTor(tor.description_file().to_owned());
    let cluster = Cluster::create(program, folder.path(), place, NODES, 200).await?;
    timeline.say(format!("one address for all nodes: {}", cluster.address));

    timeline.say("the owner made the identity of the address, which no node has, and granted each node its part");

    let client = || async { Ok(tor.start_client().await?) };
    let start = |index| start_node(&cluster, index, timeline);
    let (first, second, third, alice_tor, bob_tor) =
        tokio::try_join!(start(0), start(1), start(2), client(), client())?;
    let mut nodes = vec![first, second, third];
    timeline.say("two C tor clients are up, for alice and for bob");
    for node in &mut nodes {
        node.wait("links with both others", SOON, |node| node.peers.len() == NODES - 1).await?;
    }
    timeline
        .say("all three nodes are linked and hold the same log; one descriptor lists the introduction points of all");
    let alice = User::new("alice", CHANNEL, dial_socks(alice_tor.socks_addr(), &cluster.address));
    alice.wait("joining", SOON, |alice| alice.joined).await?;
    let of_alice = node_with_one_more(&nodes, &[0; NODES]).await?;
    timeline.say(format!("alice is on node {}, through a C tor SOCKS port", of_alice + 1));
    let (bob, of_bob) =
        bob_elsewhere(&nodes, of_alice, timeline, || dial_socks_isolated(bob_tor.socks_addr(), &cluster.address))
            .await?;
    timeline.say(format!("bob is on node {}, through a C tor of his own, at the same address", of_bob + 1));

    let began = Instant::now();
    talk(&alice, &bob, "before").await?;
    timeline.say(format!(
        "{} lines said, echoed and heard on the other node in {}",
        2 * LINES,
        seconds(began.elapsed())
    ));
    for node in &nodes {
        timeline.say(format!("memory of node {}: {:.1} MiB resident", node.index + 1, node.memory()?));
    }

    let victim = nodes.remove(of_bob);
    timeline.say(format!("KILL -9: node {}, which bob is on", victim.index + 1));
    let killed = Instant::now();
    victim.kill().await?;
    // Alice goes on talking while bob is away.
    for i in 1..=LINES {
        alice.say(format!("alice while bob is away {i}"));
    }
    let away = alice.wait("echoes", SOON, |alice| alice.echoed.len() == 2 * LINES).await?;
    timeline.say(format!(
        "alice's lines are echoed {} after the kill ({} so far)",
        seconds(killed.elapsed()),
        away.echoed.len()
    ));
    let back = bob.wait("a new connection", SOON, |bob| bob.welcomes == 2 && bob.joined).await?;
    let noticed = back.lost.map_or(Duration::ZERO, |lost| lost - killed);
    let served = back.welcomed.map_or(Duration::ZERO, |welcomed| welcomed - killed);
    let nick = &back.nick;
    timeline.say(format!(
        "bob saw his connection end {} after the kill and was served again after {}, as {nick}",
        seconds(noticed),
        seconds(served)
    ));
    bob.wait("what was said meanwhile", SOON, |bob| away.echoed.iter().all(|text| bob.has_heard(text))).await?;
    timeline.say("bob has everything that was said while he was away");
    talk(&alice, &bob, "after").await?;
    timeline.say("both talk on");

    alice.wait("the ghost's end", SOON, |alice| alice.left.iter().any(|nick| nick == "bob")).await?;
    timeline.say(format!("the ghost of the dead connection has left ({} after the kill)", seconds(killed.elapsed())));
    bob.wait("his nickname", SOON, |bob| bob.nick == "bob").await?;
    timeline.say("bob has his nickname back");
    let mut node = cluster.start(of_bob)?;
    node.wait("the Tor bootstrap", START, |node| node.bootstrap >= 100).await?;
    nodes.push(node);
    for node in &mut nodes {
        node.wait("links with both others", SOON, |node| node.peers.len() == NODES - 1).await?;
    }
    timeline
        .say(format!("node {} is back and has caught up; within a minute the descriptor lists it again", of_bob + 1));
    count(&alice, &bob, timeline)?;
    let said: Vec<_> = alice.state().echoed.into_iter().chain(bob.state().echoed).collect();
    timeline.say("bob leaves; alice stays, and tries to come back whenever her connection ends");
    drop(bob);
    let welcomes = alice.state().welcomes;
    let back = restart_all(&cluster, &mut nodes, timeline).await?;
    // Her client knows the service as it was: nothing of that is left.
    alice.wait("a new connection", SOON, |alice| alice.welcomes > welcomes && alice.joined).await?;
    timeline.say(format!("alice is served again, {} after the last node was back", seconds(back.elapsed())));
    let carol_tor = tor.start_client().await?;
    let carol = User::new("carol", CHANNEL, dial_socks(carol_tor.socks_addr(), &cluster.address));
    carol.wait("joining", SOON, |carol| carol.joined).await?;
    carol.wait("what was said before", SOON, |carol| said.iter().all(|text| carol.has_heard(text))).await?;
    timeline.say(format!("carol, who was never here, is shown all {} lines: the nodes' disks have them", said.len()));
    if stay {
        timeline.say("the service stays up. Connect an IRC client of your own through Tor:");
        timeline.say(format!(
            "  SOCKS5 proxy {}, server {}, port 6667, no TLS",
            carol_tor.socks_addr(),
            cluster.address
        ));
        timeline.say(format!("  then /join {CHANNEL}. End with Ctrl-C."));
        std::future::pending::<()>().await;
    }
    Ok(())
}

/// Kills all nodes at once and starts them anew: for that time the service is not there. Says when all were back.
async fn restart_all(cluster: &Cluster, nodes: &mut Vec<NodeProcess>, timeline: Timeline) -> Result<Instant> {
    timeline.say("KILL -9: all three nodes; the service is gone");
    futures::future::try_join_all(nodes.drain(..).map(NodeProcess::kill)).await?;
    *nodes = futures::future::try_join_all((0..NODES).map(|index| start_node(cluster, index, timeline))).await?;
    for node in nodes {
        node.wait("links with both others", SOON, |node| node.peers.len() == NODES - 1).await?;
    }
    timeline.say("all three are back and linked");
    Ok(Instant::now())
}

/// Starts a node and shows how far it is.
pub(crate) async fn start_node(cluster: &Cluster, index: usize, timeline: Timeline) -> Result<NodeProcess> {
    let mut node = cluster.start(index)?;
    node.wait("the Tor bootstrap", START, |node| node.bootstrap >= 100).await?;
    timeline.say(format!("  node {}: Tor is up", index + 1));
    node.wait("reachability", START, |node| node.ready.is_some()).await?;
    let ready = node.state().ready.unwrap_or_default();
    timeline.say(format!("  node {}: reachable {} after its start", index + 1, seconds(ready)));
    Ok(node)
}

/// The node that has one client more than it had.
async fn node_with_one_more(nodes: &[NodeProcess], before: &[u64; NODES]) -> Result<usize> {
    let deadline = Instant::now() + SOON;
    loop {
        let more = nodes.iter().zip(before).position(|(node, before)| node.state().clients > *before);
        if let Some(node) = more {
            return Ok(node);
        }
        if Instant::now() > deadline {
            return Err("no node shows the client".into());
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Connects bob until chance takes him to another node than alice's.
async fn bob_elsewhere(
    nodes: &[NodeProcess],
    of_alice: usize,
    timeline: Timeline,
    dial: impl Fn() -> Dial,
) -> Result<(User, usize)> {
    let mut before = [0; NODES];
    before[of_alice] = 1;
    for _ in 0..TRIES {
        let bob = User::new("bob", CHANNEL, dial());
        bob.wait("joining", SOON, |bob| bob.joined).await?;
        let of_bob = node_with_one_more(nodes, &before).await?;
        if of_bob != of_alice {
            return Ok((bob, of_bob));
        }
        timeline.say("chance took bob to alice's node; he comes again");
        drop(bob);
        let deadline = Instant::now() + SOON;
        while nodes[of_alice].state().clients > 1 && Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    Err(format!("bob came to alice's node {TRIES} times of {TRIES}: clients are not spread over the nodes").into())
}

async fn talk(alice: &User, bob: &User, when: &str) -> Result<()> {
    for i in 1..=LINES {
        alice.say(format!("alice {when} {i}"));
        bob.say(format!("bob {when} {i}"));
    }
    for (speaker, listener, name) in [(alice, bob, "alice"), (bob, alice, "bob")] {
        for i in 1..=LINES {
            let text = format!("{name} {when} {i}");
            speaker.wait("an echo", SOON, |speaker| speaker.echoed.contains(&text)).await?;
            listener.wait("a line", SOON, |listener| listener.has_heard(&text)).await?;
        }
    }
    Ok(())
}

fn count(alice: &User, bob: &User, timeline: Timeline) -> Result<()> {
    let (alice, bob) = (alice.state(), bob.state());
    let echoed = alice.echoed.len() + bob.echoed.len();
    let lost: Vec<_> = alice
        .echoed
        .iter()
        .filter(|text| !bob.has_heard(text))
        .chain(bob.echoed.iter().filter(|text| !alice.has_heard(text)))
        .collect();
    timeline.say(format!("{echoed} lines were said and echoed, {} of them lost", lost.len()));
    if lost.is_empty() { Ok(()) } else { Err(format!("lost: {lost:?}").into()) }
}
