//! Nodes as processes, killed with signal 9 under load: what others had confirmed is afterwards at every node, once. On the local
//! network, and, if it is asked for, on a private Tor network.
//!
//! A killed process loses nothing that the kernel has taken, so every other victim loses its log as well. Every fourth time
//! the others stand still for a moment before and die with it, so that the victim holds entries which nobody else has seen:
//! saying that these are replicated would lose them.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hcp_core::identity::delegation::OwnerKey;
use hcp_core::identity::manifest::{Contents, Manifest, Member, Role};
use hcp_core::identity::{Identity, LogKey};
use hcp_core::network::{LocalNetwork, Network};
use hcp_core::node::{Access, Node};
use hcp_core::replica::{Frontier, PROTOCOL, Replica, Storage};
use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStdin, Command};
use tokio::sync::{mpsc, watch};

use crate::harness::soon;
use crate::load::{Author, Counts, Reading, Step, counts_of, reaches, text_of, write};

const NODES: u8 = 3;
/// Kills, unless the variable of this name says how many.
const KILLS: &str = "HCP_KILLS";
const FEW: usize = 12;
/// On Tor so many services share them.
#[cfg(all(feature = "tor", feature = "testing"))]
const SERVICES: usize = 4;
/// Entries of one process that are not confirmed yet.
const AT_ONCE: usize = 8;
/// What is expected of this process, and where its files are.
const INDEX: &str = "HCP_KILLS_NODE";
const FOLDER: &str = "HCP_KILLS_FOLDER";
const RUN: &str = "HCP_KILLS_RUN";
/// The description of a private Tor network, if that is where it is to meet the others.
#[cfg(all(feature = "tor", feature = "testing"))]
const TOR: &str = "HCP_KILLS_TOR";

// What both sides know.

/// Of the service whose files are in this folder.
fn identity(folder: &Path, node: u8) -> Identity {
    let seed = blake3::Hasher::new().update(folder.as_os_str().as_encoded_bytes()).update(&[node]).finalize();
    Identity::from_seed(seed.as_bytes())
}

fn key(node: u8) -> LogKey {
    LogKey::from_seed(&[20 + node; 32])
}

fn owner() -> OwnerKey {
    OwnerKey::from_seed(&[30; 32])
}

fn manifest(folder: &Path) -> Manifest {
    let member = |node| Member::new(identity(folder, node).address(), key(node).public_key(), Role::Publisher).unwrap();
    let contents = Contents::new(1, (0..NODES).map(member).collect()).unwrap();
    Manifest::sign(&owner(), Identity::from_seed(&[40; 32]).address(), contents).unwrap()
}

fn database(folder: &Path, node: u8) -> PathBuf {
    folder.join(format!("{node}")).join("log.db")
}

// The process.

#[cfg(all(feature = "tor", feature = "testing"))]
async fn network(folder: &Path, node: u8) -> Arc<dyn Network> {
    use hcp_core::network::tor::TorNetwork;
    use hcp_core::testing::PrivateTorNetwork;

    let Some(description) = std::env::var_os(TOR) else { return local(folder) };
    let testnet = PrivateTorNetwork::attach(description).unwrap();
    let own = folder.join(format!("tor{node}"));
    let builder = TorNetwork::builder(own.join("state"), own.join("cache"));
    Arc::new(builder.private_network(testnet.description().network()).bootstrap().await.unwrap())
}

#[cfg(not(all(feature = "tor", feature = "testing")))]
#[allow(clippy::unused_async, reason = "with Tor it takes time")]
async fn network(folder: &Path, _: u8) -> Arc<dyn Network> {
    local(folder)
}

fn local(folder: &Path) -> Arc<dyn Network> {
    Arc::new(LocalNetwork::new(folder.join("ports")).unwrap())
}

/// Serves, appends without end and says what has become of it; says when it has delivered what it is asked about.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "the test of kills runs it in processes of its own"]
async fn runs_a_node() {
    let variable = |name| std::env::var(name).expect("the test of kills says it");
    let (folder, node) = (PathBuf::from(variable(FOLDER)), variable(INDEX).parse().unwrap());
    let author = (node, variable(RUN).parse().unwrap());
    let storage = Storage::sqlite(database(&folder, node));
    let replica = Replica::builder(storage, key(node), owner().public_key(), manifest(&folder)).open().await.unwrap();
    let builder = Node::builder(identity(&folder, node), network(&folder, node).await);
    let serving = builder.protocol(PROTOCOL, Access::Identified, replica.handler()).bind().await.unwrap();
    let _links = replica.link(&serving);
    let Reading { counts: delivered, task } = Reading::start(replica.subscribe(Frontier::start()));
    tokio::spawn(async move { say(&format!("wrong: {}", task.await.unwrap())) });
    let writing = tokio::spawn(write(replica.clone(), author, AT_ONCE, 1, |step, number| {
        say(&format!("{} {number}", if step == Step::Durable { "durable" } else { "replicated" }));
    }));
    let (ask, mut asked) = mpsc::unbounded_channel();
    // It ends with the test, whichever way that ends.
    std::thread::spawn(move || std::io::stdin().lines().map_while(Result::ok).try_for_each(|line| ask.send(line)));
    while let Some(line) = asked.recv().await {
        match line.split_once(' ').unwrap_or((&line, "")) {
            ("until", counts) => {
                let (wanted, mut delivered) = (counts_of(counts), delivered.clone());
                tokio::spawn(async move {
                    let counts = delivered.wait_for(|counts| reaches(counts, &wanted)).await;
                    say(&format!("has{}", text_of(&counts.expect("it reads until the process ends"))));
                });
            }
            ("quiet", _) => writing.abort(),
            ("list", _) => say(&format!("lists{}", text_of(&delivered.borrow()))),
            other => panic!("{other:?}"),
        }
    }
}

/// One line in one call, so that a kill tears none.
fn say(line: &str) {
    std::io::stdout().write_all(format!("\n{line}\n").as_bytes()).unwrap();
}

// The test.

/// What a process has said.
#[derive(Debug, Default)]
struct Said {
    durable: BTreeSet<u64>,
    replicated: BTreeSet<u64>,
    answers: Vec<Counts>,
    wrong: Vec<String>,
    ended: bool,
}

struct Running {
    author: Author,
    process: Child,
    asks: ChildStdin,
    said: watch::Receiver<Said>,
}

impl Running {
    fn start(folder: &Path, (node, run): Author, tor: Option<&Path>) -> Self {
        std::fs::create_dir_all(database(folder, node).parent().unwrap()).unwrap();
        let name = concat!(module_path!(), "::runs_a_node").split_once("::").unwrap().1;
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", name, "--ignored", "--nocapture", "--test-threads=1"]);
        command.env(FOLDER, folder).env(INDEX, node.to_string()).env(RUN, run.to_string());
        #[cfg(all(feature = "tor", feature = "testing"))]
        command.envs(tor.map(|description| (TOR, description)));
        #[cfg(not(all(feature = "tor", feature = "testing")))]
        assert!(tor.is_none(), "this was built without Tor");
        let mut process =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true).spawn().expect("it can be started");
        let asks = process.stdin.take().unwrap();
        let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let (tell, said) = watch::channel(Said::default());
        tokio::spawn(async move {
            while let Ok(Some(line)) = lines.next_line().await {
                tell.send_if_modified(|said| {
                    match line.split_once(' ').unwrap_or((&line, "")) {
                        ("durable", number) => said.durable.extend(number.parse::<u64>()),
                        ("replicated", number) => said.replicated.extend(number.parse::<u64>()),
                        ("has" | "lists", counts) => said.answers.push(counts_of(counts)),
                        ("wrong:", what) => said.wrong.push(what.to_owned()),
                        _ => return false,
                    }
                    true
                });
            }
            tell.send_modify(|said| said.ended = true);
        });
        Self { author: (node, run), process, asks, said }
    }

    fn signal(&self, signal: Signal) {
        let pid = self.process.id().and_then(|id| Pid::from_raw(id.cast_signed())).expect("it runs");
        kill_process(pid, signal).unwrap();
    }

    async fn ask(&mut self, what: &str) {
        self.asks.write_all(format!("{what}\n").as_bytes()).await.expect("the process lives");
    }

    /// Asks, and waits for what it says.
    async fn answer(&mut self, question: &str) -> Counts {
        let before = self.said.borrow().answers.len();
        self.ask(question).await;
        let tells = |said: &Said| said.ended || !said.wrong.is_empty() || said.answers.len() > before;
        let author = self.author;
        let said = tokio::time::timeout(LONG, self.said.wait_for(tells)).await;
        let said = said.unwrap_or_else(|_| panic!("{author:?} does not deliver what it was asked for")).unwrap();
        assert!(said.wrong.is_empty(), "{author:?}: {:?}", said.wrong);
        said.answers.get(before).unwrap_or_else(|| panic!("{author:?} ended by itself")).clone()
    }
}

/// What must be at every node, and what was wrong.
#[derive(Debug, Default)]
struct Confirmed {
    counts: Counts,
    /// How far those had stored that were killed and lost their logs.
    lost: Counts,
    wrong: Vec<String>,
}

impl Confirmed {
    /// What a process has said by now, which others hold or, unless its log is lost, it itself.
    fn take(&mut self, running: &Running, disk: Disk) {
        let said = running.said.borrow();
        let [durable, replicated] =
            [&said.durable, &said.replicated].map(|numbers| numbers.last().copied().unwrap_or(0));
        let held = if disk == Disk::Kept { durable.max(replicated) } else { replicated };
        if held > 0 {
            self.counts.insert(running.author, held);
        }
        if said.ended && disk == Disk::Lost {
            self.lost.insert(running.author, durable);
        }
        self.wrong.extend(said.wrong.iter().map(|what| format!("at {:?}: {what}", running.author)));
    }

    fn entries(&self) -> u64 {
        self.counts.values().sum()
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Disk {
    Kept,
    Lost,
}

/// A service whose nodes are processes.
struct Service {
    folder: tempfile::TempDir,
    /// Where a private Tor network is described, if the nodes meet on one.
    tor: Option<PathBuf>,
    running: Vec<Running>,
    runs: u32,
    confirmed: Confirmed,
}

impl Service {
    fn start(&mut self, node: u8) {
        self.runs += 1;
        self.running.push(Running::start(self.folder.path(), (node, self.runs), self.tor.as_deref()));
    }

    /// Kills a process, hears what it said before it went, and starts the node again.
    async fn kill(&mut self, node: u8, disk: Disk) {
        let at = self.running.iter().position(|running| running.author.0 == node).unwrap();
        let mut victim = self.running.remove(at);
        victim.process.kill().await.unwrap();
        soon(victim.said.wait_for(|said| said.ended)).await.unwrap();
        self.confirmed.take(&victim, disk);
        if disk == Disk::Lost {
            std::fs::remove_dir_all(database(self.folder.path(), node).parent().unwrap()).unwrap();
        }
        self.start(node);
    }

    /// Waits until all nodes have delivered all that was confirmed.
    async fn settle(&mut self) {
        for running in &self.running {
            self.confirmed.take(running, Disk::Lost);
        }
        let question = format!("until{}", text_of(&self.confirmed.counts));
        for running in &mut self.running {
            running.answer(&question).await;
        }
        assert!(self.confirmed.wrong.is_empty(), "{:?}", self.confirmed.wrong);
    }

    /// What all nodes have delivered, once it is the same.
    async fn agree(&mut self) -> Counts {
        let agreed = async {
            loop {
                let mut lists = Vec::new();
                for running in &mut self.running {
                    lists.push(running.answer("list").await);
                }
                if lists.windows(2).all(|two| two[0] == two[1]) {
                    return lists.swap_remove(0);
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(LONG, agreed).await.expect("all nodes come to hold the same")
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_confirmed_is_lost_or_doubled_when_nodes_are_killed_and_lose_their_logs() {
    kill_nodes(None, kills()).await;
}

#[cfg(all(feature = "tor", feature = "testing"))]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a kill takes half a minute: left to make test-all"]
async fn nor_on_a_private_tor_network() {
    let testnet = hcp_core::testing::PrivateTorNetwork::shared().await.unwrap();
    // Most of the time nodes wait for circuits: that several services can do at once.
    let description = Some(testnet.description_file().to_owned());
    let services = (0..SERVICES).map(|_| tokio::spawn(kill_nodes(description.clone(), kills().div_ceil(SERVICES))));
    for service in services.collect::<Vec<_>>() {
        service.await.unwrap();
    }
}

fn kills() -> usize {
    std::env::var(KILLS).map_or(FEW, |kills| kills.parse().unwrap())
}

#[allow(clippy::print_stderr, reason = "a test's output is shown when it fails")]
async fn kill_nodes(tor: Option<PathBuf>, kills: usize) {
    let began = Instant::now();
    let folder = tempfile::tempdir().unwrap();
    let mut service = Service { folder, tor, running: Vec::new(), runs: 0, confirmed: Confirmed::default() };
    (0..NODES).for_each(|node| service.start(node));
    for kill in 1..=kills {
        // Twice: what was confirmed by a node that died may be said a little later.
        service.settle().await;
        service.settle().await;
        // All write, so that whoever dies does so under load.
        for running in &mut service.running {
            let writes = running.said.wait_for(|said| said.replicated.len() > AT_ONCE);
            tokio::time::timeout(LONG, writes).await.expect("it finds the others").unwrap();
        }
        // The moment is the point: anywhere between an append, its commit, its push and what others say.
        tokio::time::sleep(Duration::from_micros(rand::random_range(0..200_000))).await;
        let node = rand::random_range(0..NODES);
        let disk = if kill % 2 == 0 { Disk::Lost } else { Disk::Kept };
        if kill % 4 == 0 {
            let (victim, others): (Vec<_>, Vec<_>) = service.running.iter_mut().partition(|each| each.author.0 == node);
            others.iter().for_each(|other| other.signal(Signal::STOP));
            // Until it has stored what it may have under way, and nobody answers.
            for victim in victim {
                let stands = |said: &Said| said.durable.len() == said.replicated.len() + AT_ONCE;
                soon(victim.said.wait_for(stands)).await.unwrap();
                // Of what others said before, something may be on its way.
                while matches!(tokio::time::timeout(SILENCE, victim.said.changed()).await, Ok(Ok(()))) {}
            }
        }
        service.kill(node, disk).await;
        if kill % 4 == 0 {
            for other in (0..NODES).filter(|other| *other != node) {
                service.kill(other, Disk::Kept).await;
            }
        }
        if kill % 10 == 0 {
            eprintln!("{kill} kills, {} entries confirmed, {:?}", service.confirmed.entries(), began.elapsed());
        }
    }
    service.settle().await;
    for running in &mut service.running {
        running.ask("quiet").await;
    }
    service.settle().await;
    let held = service.agree().await;
    // The same is on their disks.
    for node in 0..NODES {
        service.kill(node, Disk::Kept).await;
        service.running.last_mut().unwrap().ask("quiet").await;
    }
    service.settle().await;
    let again = service.agree().await;
    assert!(held.iter().all(|(author, count)| again.get(author).is_some_and(|there| there >= count)));
    let Confirmed { counts, lost, .. } = &service.confirmed;
    assert!(counts.iter().all(|(author, count)| again[author] >= *count));
    assert!(service.confirmed.entries() > (kills * AT_ONCE) as u64, "{} are too few", service.confirmed.entries());
    let alone = lost.iter().map(|(author, count)| count.saturating_sub(again.get(author).copied().unwrap_or(0)));
    let alone: u64 = alone.sum();
    assert!(alone > 0, "no node that was killed held what nobody else did");
    eprintln!(
        "{} entries were confirmed during {kills} kills, none of them lost or doubled; {alone} were only at a node that died; \
         {:?}",
        service.confirmed.entries(),
        began.elapsed()
    );
}

/// Longer than what others said takes to come, over Tor too.
const SILENCE: Duration = Duration::from_secs(1);
/// A node that lost its log fetches all of it, on a machine that may do other things.
const LONG: Duration = Duration::from_secs(1_800);
