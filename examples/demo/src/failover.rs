//! Kills nodes under load and measures: what was echoed is never lost, and how long a fresh client waits.

use std::path::Path;
use std::time::{Duration, Instant};

use hcp_core::testing::PrivateTorNetwork;

use crate::run::{start_node, start_tor};
use crate::{Cluster, NodeProcess, Place, Result, Timeline, User, dial_socks, percentile, seconds};

const NODES: usize = 3;
const CHANNEL: &str = "#load";
const SOON: Duration = Duration::from_secs(180);
/// How long a fresh client tries at all.
const SERVED: Duration = Duration::from_secs(300);
/// Each of the speakers says a line this often.
const PACE: Duration = Duration::from_millis(200);

/// People who talk all the time, and the count of what they said.
#[derive(Debug)]
pub struct Load {
    users: Vec<User>,
    pace: Duration,
    said: usize,
}

impl Load {
    /// Wraps users who are on one channel; each says a line every `pace`.
    pub fn new(users: Vec<User>, pace: Duration) -> Self {
        Self { users, pace, said: 0 }
    }

    /// Lets everybody talk, at a steady pace, until `until` is done.
    ///
    /// # Errors
    /// That of `until`.
    pub async fn during<T>(&mut self, until: impl Future<Output = Result<T>>) -> Result<T> {
        let mut pace = tokio::time::interval(self.pace);
        pace.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        tokio::pin!(until);
        loop {
            tokio::select! {
                end = &mut until => return end,
                _ = pace.tick() => {
                    self.said += 1;
                    for (i, user) in self.users.iter().enumerate() {
                        user.say(format!("user {i} line {}", self.said));
                    }
                }
            }
        }
    }

    /// Waits until everybody's lines are echoed and heard by all others; says how many lines, and how many were lost.
    ///
    /// # Errors
    /// When some were lost or never echoed.
    pub async fn settle(&self) -> Result<usize> {
        let mut all = Vec::new();
        for user in &self.users {
            let state = user.wait("all echoes", SOON, |user| user.joined && user.echoed.len() == self.said).await;
            all.extend(state.map_err(|error| self.what_is_missing(&error))?.echoed);
        }
        for (i, user) in self.users.iter().enumerate() {
            let own = format!("user {i} ");
            let heard_all = |state: &crate::UserState| {
                let heard: std::collections::HashSet<_> = state.heard.iter().map(|heard| heard.text.as_str()).collect();
                all.iter().filter(|text| !text.starts_with(&own)).all(|text| heard.contains(text.as_str()))
            };
            let heard = user.wait("everything that was echoed", SOON, heard_all).await;
            heard.map_err(|error| self.what_is_missing(&error))?;
        }
        Ok(all.len())
    }

    /// Some lines that did not come to everybody, and to whom they did: what nobody heard was lost.
    fn what_is_missing(&self, error: &dyn std::fmt::Display) -> Box<dyn std::error::Error + Send + Sync> {
        let states: Vec<_> = self.users.iter().map(User::state).collect();
        let mut missing = Vec::new();
        for (by, line) in (0..self.users.len()).flat_map(|by| (1..=self.said).map(move |line| (by, line))) {
            let text = format!("user {by} line {line}");
            let echoed = states[by].echoed.contains(&text);
            let heard: Vec<_> = (0..states.len()).filter(|to| states[*to].has_heard(&text)).collect();
            if !echoed || (0..states.len()).any(|to| to != by && !heard.contains(&to)) {
                missing.push(format!("{text:?} (echoed: {echoed}, heard by {heard:?})"));
            }
        }
        let shown = missing.iter().take(20).cloned().collect::<Vec<_>>().join(", ");
        format!("{error}; {} of {} lines are missing somewhere: {shown}", missing.len(), self.said * states.len())
            .into()
    }
}

/// Runs the measurement on a private Tor network of its own.
///
/// # Errors
/// When anything echoed was lost, or anything else went wrong.
pub async fn run(program: &Path, kills: usize) -> Result<()> {
    let timeline = Timeline::default();
    let tor = start_tor(timeline).await?;
    let folder = tempfile::tempdir()?;
    let place = Place::PrivateTor(tor.description_file().to_owned());
    let cluster = Cluster::create(program, folder.path(), place, NODES, 5_000).await?;
    let mut nodes = Vec::new();
    for index in 0..NODES {
        nodes.push(start_node(&cluster, index, timeline).await?);
    }
    let clients = futures::future::try_join_all((0..NODES).map(|_| tor.start_client())).await?;
    let mut users = Vec::new();
    for (i, client) in clients.iter().enumerate() {
        let user = User::new(&format!("user{i}"), CHANNEL, dial_socks(client.socks_addr(), &cluster.address));
        user.wait("joining", SOON, |user| user.joined).await?;
        users.push(user);
    }
    let mut load = Load::new(users, PACE);
    let mut waits = Vec::new();
    for kill in 1..=kills {
        let wait = load.during(kill_one(&tor, &cluster, &mut nodes, timeline)).await?;
        timeline.say(format!("kill {kill} of {kills}: a fresh client was served {} after it", seconds(wait)));
        waits.push(wait);
    }
    let lines = load.settle().await?;
    timeline.say(format!("{lines} lines were said and echoed during {kills} kills, none of them lost"));
    timeline.say(format!(
        "from kill -9 of the publishing node to a fresh client served, {kills} kills: p50 {}, worst {}",
        seconds(percentile(&waits, 50)),
        seconds(percentile(&waits, 100))
    ));
    Ok(())
}

/// Kills the node that new clients reach, times a fresh client, and starts the node again.
async fn kill_one(
    tor: &PrivateTorNetwork,
    cluster: &Cluster,
    nodes: &mut Vec<NodeProcess>,
    timeline: Timeline,
) -> Result<Duration> {
    for node in nodes.iter_mut() {
        node.wait("links with all others", SOON, |node| node.peers.len() == NODES - 1).await?;
    }
    // A Tor client that has never asked for the descriptor.
    let fresh_tor = tor.start_client().await?;
    // A random moment of the load.
    tokio::time::sleep(Duration::from_millis(rand::random_range(0..1_000))).await;
    let publisher = nodes.iter().enumerate().max_by_key(|(_, node)| last_published(node)).map_or(0, |(i, _)| i);
    let victim = nodes.remove(publisher);
    let index = victim.index;
    let killed = Instant::now();
    victim.kill().await?;
    let fresh = User::new("fresh", "#fresh", dial_socks(fresh_tor.socks_addr(), &cluster.address));
    let state = fresh.wait("a welcome", SERVED, |user| user.welcomes > 0).await?;
    let served = state.welcomed.map_or(Duration::ZERO, |welcomed| welcomed - killed);
    nodes.push(start_node(cluster, index, timeline).await?);
    Ok(served)
}

/// When a node uploaded a descriptor, last.
fn last_published(node: &NodeProcess) -> Option<Instant> {
    node.state().published_descriptors.last().map(|published| published.at)
}
