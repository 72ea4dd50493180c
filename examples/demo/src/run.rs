//! The demo: two people talk through three nodes at one onion address; the node of one of them is killed.

use std::path::Path;
use std::time::{Duration, Instant};

use hcp_core::testing::{PrivateTorNetwork, StartEvent};

use crate::{Cluster, NodeProcess, Place, Result, Timeline, User, dial_socks, seconds};

const NODES: usize = 3;
const CHANNEL: &str = "#hcp";
const START: Duration = Duration::from_secs(120);
/// Most things take seconds; now and then a C tor client needs three minutes to drop what it knew of a dead node.
const SOON: Duration = Duration::from_secs(300);
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

    let client = || async { Ok(tor.start_client().await?) };
    let (first, alice_tor, bob_tor) = tokio::try_join!(start_node(&cluster, 0, timeline), client(), client())?;
    timeline.say("two C tor clients are up, for alice and for bob");
    let mut nodes = vec![first];
    let alice = User::new("alice", CHANNEL, dial_socks(alice_tor.socks_addr(), &cluster.address));
    alice.wait("joining", SOON, |alice| alice.joined).await?;
    nodes[0].wait("a client", SOON, |node| node.clients == 1).await?;
    timeline.say("alice is on node 1, through a C tor SOCKS port");
    for index in 1..NODES {
        let node = start_node(&cluster, index, timeline).await?;
        nodes.push(node);
    }
    for node in &mut nodes {
        node.wait("links with both others", SOON, |node| node.peers.len() == NODES - 1).await?;
    }
    timeline.say("all three nodes are linked and hold the same log");
    let bob = User::new("bob", CHANNEL, dial_socks(bob_tor.socks_addr(), &cluster.address));
    bob.wait("joining", SOON, |bob| bob.joined).await?;
    let of_bob = clients_of(&mut nodes).await?;
    timeline.say(format!("bob is on node {}, through a C tor of his own, at the same address", of_bob + 1));
    if of_bob == 0 {
        return Err("both are on one node, so there is nothing to show: start again".into());
    }

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
    let node = start_node(&cluster, of_bob, timeline).await?;
    nodes.push(node);
    for node in &mut nodes {
        node.wait("links with both others", SOON, |node| node.peers.len() == NODES - 1).await?;
    }
    timeline.say(format!("node {} is back and has caught up", of_bob + 1));
    count(&alice, &bob, timeline)?;
    if stay {
        timeline.say("the service stays up. Connect an IRC client of your own through Tor:");
        timeline.say(format!(
            "  SOCKS5 proxy {}, server {}, port 6667, no TLS",
            alice_tor.socks_addr(),
            cluster.address
        ));
        timeline.say(format!("  then /join {CHANNEL}. End with Ctrl-C."));
        std::future::pending::<()>().await;
    }
    Ok(())
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

/// The node that the second client is on.
async fn clients_of(nodes: &mut [NodeProcess]) -> Result<usize> {
    let deadline = Instant::now() + SOON;
    loop {
        let counts: Vec<_> = nodes.iter().map(|node| node.state().clients).collect();
        if counts.iter().sum::<u64>() == 2 {
            return Ok(counts[1..].iter().position(|count| *count > 0).map_or(0, |other| other + 1));
        }
        if Instant::now() > deadline {
            return Err("the nodes do not show two clients".into());
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
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
