//! The service that things happen to: its nodes, how they stand, and what can be done to them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use hcp_core::testing::PrivateTorNetwork;
use rand::seq::IteratorRandom as _;

use super::namespaces::{ADDRESS, Namespaces};
use crate::node::Published;
use crate::{Cluster, Launch, NodeProcess, Place, Result, Timeline};

/// Starts a private network with time periods so short that a suite sees several.
///
/// # Errors
/// When it does not start.
pub async fn start_tor(inside: bool, timeline: Timeline) -> Result<PrivateTorNetwork> {
    timeline
        .say(format!("starting a private Tor network: 3 authorities, {RELAYS} relays, nothing leaves this machine"));
    let network = PrivateTorNetwork::builder().relays(RELAYS).time_period(PERIOD);
    let network = if inside { network.address(ADDRESS) } else { network };
    Ok(network.on_event(move |event| timeline.say(format!("  {event}"))).start().await?)
}

/// So many that introduction points share none, as on Tor: five nodes have fifteen, and the authorities are relays too.
const RELAYS: usize = 15;

/// Points that share a relay part within seconds, and descriptors are uploaded a minute apart.
const PARTED: Duration = Duration::from_secs(100);

/// The length of a time period.
pub const PERIOD: Duration = Duration::from_secs(12 * 60);

/// The number of the time period that clients are in, where periods are that long (rend-spec-v3, section 2.2.1, with the
/// testing network's offset).
pub fn period_now(length: Duration) -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    now.saturating_sub(length / 2).as_secs() / length.as_secs()
}

/// The nodes of a service.
#[derive(Debug)]
pub struct Stage {
    /// The service on disk.
    pub cluster: Cluster,
    nodes: Vec<Option<NodeProcess>>,
    /// Nodes that were not started as usual.
    odd: Vec<bool>,
    frozen: Vec<bool>,
    cut: Vec<bool>,
    /// How often each was chosen for something bad.
    struck: Vec<usize>,
    /// When each failed or left.
    failures: Vec<Vec<Instant>>,
    namespaces: Option<Namespaces>,
    period: Duration,
    patience: Duration,
    /// Clients that nodes accepted which have ended since.
    accepted: Vec<(Instant, usize)>,
    /// What such nodes had published.
    forgotten: Vec<Published>,
}

impl Stage {
    /// Makes a service on a network whose time periods are `period` long; no node runs yet. To be healthy may take `patience`.
    ///
    /// # Errors
    /// When the program refuses.
    pub async fn make(
        program: &Path,
        folder: &Path,
        (tor, period): (&PrivateTorNetwork, Duration),
        nodes: usize,
        namespaces: Option<Namespaces>,
        patience: Duration,
    ) -> Result<Self> {
        let place = Place::PrivateTor(tor.description_file().to_owned());
        let cluster = Cluster::create(program, folder, place, nodes, 200).await?;
        Ok(Self {
            cluster,
            nodes: std::iter::repeat_with(|| None).take(nodes).collect(),
            odd: vec![false; nodes],
            frozen: vec![false; nodes],
            cut: vec![false; nodes],
            struck: vec![0; nodes],
            failures: vec![Vec::new(); nodes],
            namespaces,
            period,
            patience,
            accepted: Vec::new(),
            forgotten: Vec::new(),
        })
    }

    /// Ends all nodes; gives back the namespaces.
    pub fn leave(mut self) -> Option<Namespaces> {
        self.namespaces.take()
    }

    /// How many nodes there are.
    pub fn size(&self) -> usize {
        self.nodes.len()
    }

    /// Brings everything back to how it should be; returns when all nodes say so.
    ///
    /// # Errors
    /// When they do not in time; they run all the same.
    pub async fn heal(&mut self) -> Result<()> {
        for node in 0..self.size() {
            self.undo(node).await?;
            if self.odd[node] {
                self.stop(node).await?;
            }
            if self.nodes[node].as_ref().is_none_or(|process| process.with(|state| state.ended)) {
                self.start(node, Launch::default())?;
            }
        }
        self.wait_healthy().await
    }

    /// Waits until all nodes run, see each other, and are listed; for a while also until all of their points are, none of which
    /// shares a relay then. Whether a node's own address can be found yet is of no concern to the service's clients, and not
    /// waited for.
    ///
    /// # Errors
    /// When that takes too long, with what is missing.
    pub async fn wait_healthy(&self) -> Result<()> {
        let started = Instant::now();
        loop {
            let Some(problem) = self.problem(started.elapsed() < PARTED) else { return Ok(()) };
            if started.elapsed() > self.patience {
                return Err(format!("not healthy within {:?}: {problem}", self.patience).into());
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// What keeps the service from being healthy; with all of its points, if they are wanted.
    fn problem(&self, all_points: bool) -> Option<String> {
        for (index, node) in self.nodes.iter().enumerate() {
            let name = index + 1;
            let Some(process) = node else { return Some(format!("node {name} does not run")) };
            let state = process.state();
            if state.ended {
                return Some(format!("node {name} has ended; see log.txt in its home"));
            }
            if state.peers.len() + 1 < self.size() {
                return Some(format!("node {name} sees {} peers", state.peers.len()));
            }
        }
        let latest = self.latest_descriptors();
        if !latest.contains_key(&period_now(self.period)) {
            return Some("no node has published for this time period".into());
        }
        // As many points of each as there is room for, at most three.
        let full = (self.size() * (LISTED / self.size()).clamp(1, 3)) as u64;
        let short =
            latest.into_values().find(|last| last.listed.len() < self.size() || (all_points && last.points < full));
        short.map(|last| format!("the last descriptor lists {} points of {} nodes", last.points, last.listed.len()))
    }

    /// What was published last for each period that counts: this one and any after it.
    fn latest_descriptors(&self) -> BTreeMap<u64, Published> {
        let (now, mut latest) = (period_now(self.period), BTreeMap::<u64, Published>::new());
        for process in self.nodes.iter().flatten() {
            process.with(|state| {
                for published in state.published_descriptors.iter().filter(|published| published.period >= now) {
                    let newest = latest.entry(published.period).or_insert_with(|| published.clone());
                    if newest.at < published.at {
                        *newest = published.clone();
                    }
                }
            });
        }
        latest
    }

    /// Starts a node that does not run; one that is started in its own way is put right by [`Self::heal`].
    ///
    /// # Errors
    /// When its process cannot be started.
    pub fn start(&mut self, node: usize, mut launch: Launch) -> Result<()> {
        self.forget(node);
        self.odd[node] = launch.material != crate::Material::Given || !launch.variables.is_empty();
        if let Some(namespaces) = &self.namespaces {
            launch.wrapper = namespaces.wrapper(node)?;
        }
        // Hooks of builds for tests; others have none.
        launch.variables.push(("HCP_FAULT".into(), "stdin".into()));
        self.nodes[node] = Some(self.cluster.start_with(node, &launch)?);
        Ok(())
    }

    /// Stops a node, if it runs, and starts it in another way.
    ///
    /// # Errors
    /// When it does not stop or start.
    pub async fn restart(&mut self, node: usize, launch: Launch) -> Result<()> {
        self.stop(node).await?;
        self.start(node, launch)
    }

    /// Kills a node.
    ///
    /// # Errors
    /// When it does not run.
    pub async fn kill(&mut self, node: usize) -> Result<()> {
        self.failures[node].push(Instant::now());
        self.forget(node);
        self.nodes[node].take().ok_or("the node does not run")?.kill().await
    }

    /// Asks a node to end, and waits for that.
    ///
    /// # Errors
    /// When it does not end in time, or says that something went wrong.
    pub async fn stop(&mut self, node: usize) -> Result<()> {
        self.forget(node);
        match self.nodes[node].take() {
            Some(process) => {
                self.failures[node].push(Instant::now());
                process.terminate(STOP).await
            }
            None => Ok(()),
        }
    }

    /// Stops a node where it is.
    ///
    /// # Errors
    /// When it does not run.
    pub async fn freeze(&mut self, node: usize) -> Result<()> {
        self.frozen[node] = true;
        self.failures[node].push(Instant::now());
        self.process(node)?.freeze().await
    }

    /// Lets a frozen node go on.
    ///
    /// # Errors
    /// When it does not run.
    pub async fn thaw(&mut self, node: usize) -> Result<()> {
        self.frozen[node] = false;
        self.process(node)?.thaw().await
    }

    /// Cuts the link of a node.
    ///
    /// # Errors
    /// When the nodes have no namespaces.
    pub async fn cut(&mut self, node: usize) -> Result<()> {
        self.namespaces.as_ref().ok_or("links can be cut in namespaces only")?.cut(node).await?;
        self.cut[node] = true;
        self.failures[node].push(Instant::now());
        // Its Arti tries its guards again only after minutes: what comes next begins with a node that does as the others do.
        self.odd[node] = true;
        Ok(())
    }

    /// Thaws a node and puts its link back.
    ///
    /// # Errors
    /// When that is refused.
    pub async fn undo(&mut self, node: usize) -> Result<()> {
        self.mend(node).await?;
        if std::mem::take(&mut self.frozen[node])
            && let Some(process) = &self.nodes[node]
        {
            process.thaw().await?;
        }
        Ok(())
    }

    async fn mend(&mut self, node: usize) -> Result<()> {
        if let (true, Some(namespaces)) = (std::mem::take(&mut self.cut[node]), &self.namespaces) {
            namespaces.mend(node).await?;
        }
        Ok(())
    }

    /// Uses a hook of a node.
    ///
    /// # Errors
    /// When it does not run.
    pub async fn tell(&mut self, node: usize, line: &str) -> Result<()> {
        // What was done to it ends with it.
        self.odd[node] = true;
        self.failures[node].push(Instant::now());
        self.nodes[node].as_mut().ok_or("the node does not run")?.tell(line).await
    }

    /// The process of a node.
    ///
    /// # Errors
    /// When it does not run.
    pub fn process(&self, node: usize) -> Result<&NodeProcess> {
        self.nodes[node].as_ref().ok_or_else(|| "the node does not run".into())
    }

    /// A node at random, none of `not`.
    pub fn any(&self, not: &[usize]) -> usize {
        (0..self.size()).filter(|node| !not.contains(node)).choose(&mut rand::rng()).unwrap_or(0)
    }

    /// Waits until no node has failed so often lately that its next failure would not be urgent to the others.
    pub async fn wait_rested(&self) {
        let counted = |failures: &Vec<Instant>| failures.iter().filter(|at| at.elapsed() < FLAPPING).count();
        while self.failures.iter().any(|failures| counted(failures) >= FAILURES) {
            tokio::time::sleep(POLL).await;
        }
    }

    /// One at random of those that were struck least often, none of `not`.
    pub fn victim(&mut self, not: &[usize]) -> usize {
        let candidates = || (0..self.size()).filter(|node| !not.contains(node));
        let least = candidates().map(|node| self.struck[node]).min();
        let victim =
            candidates().filter(|node| Some(self.struck[*node]) == least).choose(&mut rand::rng()).unwrap_or(0);
        self.struck[victim] += 1;
        victim
    }

    /// The node whose descriptor clients find.
    pub fn publisher(&self) -> usize {
        let last = |process: &NodeProcess| {
            process.with(|state| {
                state.published_descriptors.iter().map(|published| published.at).max().or(state.published)
            })
        };
        let published = self.nodes.iter().enumerate().map(|(node, process)| (process.as_ref().and_then(last), node));
        published.max().map_or(0, |(_, node)| node)
    }

    /// How long after `fault` everything had been done for the nodes `dead` that the others have to do, at least one point of
    /// each among it; none while it has not.
    pub fn takeover(&self, dead: &[usize], fault: Instant) -> Option<Duration> {
        let mut end = fault;
        let living =
            || self.nodes.iter().enumerate().filter(|(node, _)| !dead.contains(node)).filter_map(|(_, p)| p.as_ref());
        for member in dead.iter().map(|node| *node as u64) {
            let mut points = 0;
            for process in living() {
                let done = |takeover: &&crate::node::Takeover| takeover.member == member && takeover.at >= fault;
                let takeover = process.with(|state| state.takeovers.iter().find(done).copied())?;
                (end, points) = (end.max(takeover.at), points + takeover.points);
            }
            if points == 0 {
                return None;
            }
            // What lists it and was published before; a period that has come since begins without it.
            for period in self.periods_with(member, fault) {
                let without = |published: &&Published| {
                    published.period == period && published.at >= fault && !published.listed.contains(&member)
                };
                let first = |process: &NodeProcess| {
                    process.with(|state| state.published_descriptors.iter().find(without).map(|published| published.at))
                };
                end = end.max(living().filter_map(first).min()?);
            }
        }
        Some(end - fault)
    }

    /// The periods that counted at `fault` and whose last descriptor of before then lists `member`.
    fn periods_with(&self, member: u64, fault: Instant) -> BTreeSet<u64> {
        let now = period_now(self.period);
        let mut latest = BTreeMap::<u64, (Instant, bool)>::new();
        let mut note = |published: &Published| {
            if published.period >= now && published.at < fault {
                let seen = (published.at, published.listed.contains(&member));
                latest.entry(published.period).and_modify(|known| *known = seen.max(*known)).or_insert(seen);
            }
        };
        self.forgotten.iter().for_each(&mut note);
        for process in self.nodes.iter().flatten() {
            process.with(|state| state.published_descriptors.iter().for_each(&mut note));
        }
        latest.into_iter().filter(|(_, (_, lists))| *lists).map(|(period, _)| period).collect()
    }

    /// Waits for the takeover, for as long as it may take and a little more.
    pub async fn wait_takeover(&self, dead: &[usize], fault: Instant) -> Option<Duration> {
        loop {
            let end = self.takeover(dead, fault);
            if end.is_some() || fault.elapsed() > 2 * super::judge::TAKEOVER {
                return end;
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// Waits until another node has acted on its belief that a node is dead. Links of the log do not tell: they stay.
    ///
    /// # Errors
    /// When that takes longer than a takeover may.
    pub async fn wait_declared_dead(&self, node: usize, since: Instant) -> Result<()> {
        loop {
            let of_it = |takeover: &crate::node::Takeover| takeover.member == node as u64 && takeover.at >= since;
            let acted = |process: &NodeProcess| process.with(|state| state.takeovers.iter().any(of_it));
            let mut others = self.nodes.iter().enumerate().filter(|(other, _)| *other != node);
            if others.any(|(_, process)| process.as_ref().is_some_and(acted)) {
                return Ok(());
            }
            if since.elapsed() > 2 * super::judge::TAKEOVER {
                return Err("the others never declared it dead".into());
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// Waits until a descriptor was published for the time period that clients are in.
    ///
    /// # Errors
    /// When that takes twice as long as nodes wait between uploads that are not urgent.
    pub async fn wait_published(&self, since: Instant) -> Result<()> {
        loop {
            let period = period_now(self.period);
            let new = |published: &Published| published.at >= since && published.period == period;
            let has = |process: &NodeProcess| process.with(|state| state.published_descriptors.iter().any(new));
            if self.nodes.iter().flatten().any(has) {
                return Ok(());
            }
            if since.elapsed() > RENEWED {
                return Err("nobody has published since, so no client can have seen what it announced".into());
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// Copies what nodes have logged to a folder, for whoever wants to know why.
    ///
    /// # Errors
    /// When a file cannot be copied.
    pub fn keep_logs(&self, folder: &Path, name: &str) -> Result<()> {
        std::fs::create_dir_all(folder)?;
        for node in 0..self.size() {
            let log = self.cluster.home(node).join("log.txt");
            if log.is_file() {
                std::fs::copy(log, folder.join(format!("{name}-node{}.log", node + 1).to_lowercase()))?;
            }
        }
        Ok(())
    }

    /// Which nodes accepted clients since `since`, and when.
    pub fn accepted(&self, since: Instant) -> Vec<(Instant, usize)> {
        let mut accepted = self.accepted.clone();
        for node in 0..self.size() {
            accepted.extend(self.accepted_by(node));
        }
        accepted.retain(|(at, _)| *at >= since);
        accepted
    }

    fn accepted_by(&self, node: usize) -> Vec<(Instant, usize)> {
        let Some(process) = &self.nodes[node] else { return Vec::new() };
        process.with(|state| state.accepted.iter().map(|at| (*at, node)).collect())
    }

    /// Keeps what a node has told that is about to end.
    fn forget(&mut self, node: usize) {
        self.odd[node] = false;
        self.frozen[node] = false;
        let accepted = self.accepted_by(node);
        self.accepted.extend(accepted);
        if let Some(process) = &self.nodes[node] {
            self.forgotten.extend(process.with(|state| state.published_descriptors.clone()));
        }
        let now = period_now(self.period);
        self.forgotten.retain(|published| published.period >= now);
    }
}

const STOP: Duration = Duration::from_secs(15);
const POLL: Duration = Duration::from_millis(100);
/// Nodes publish what is new, and not urgent, within half of that.
const RENEWED: Duration = Duration::from_secs(120);

/// What others do at once for a node that fails they do so many times in so long; after that they take up to a minute, so that
/// one that flaps does not make a flood of uploads.
const FAILURES: usize = 3;
const FLAPPING: Duration = Duration::from_secs(180);

/// Points that one descriptor may list (rend-spec-v3).
const LISTED: usize = 20;
