//! What is compared: services at one onion address on two machines, here processes, in four ways.
//!
//! All but ours are made of backends that are processes of their own, with a greeting behind each; configuration is written
//! into folders that go with the contender.

use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use hcp_core::identity::{Identity, ctor};
use hcp_core::testing::PrivateTorNetwork;
use tempfile::TempDir;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpListener;
use tokio::process::{Child, Command};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use crate::Result;
use crate::faults::{IRC, Stage};

/// What happens to a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// SIGKILL.
    Kill,
    /// SIGSTOP.
    Freeze,
}

impl Fault {
    /// What it is called in tables.
    pub fn title(self) -> &'static str {
        match self {
            Self::Kill => "kill -9",
            Self::Freeze => "SIGSTOP",
        }
    }
}

/// How a service is spread over two nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Way {
    /// This library's replicated service.
    Hcp,
    /// Two of Arti's onion services (tor-hsservice) with one key.
    Arti,
    /// Two of C tor's with one key.
    Tor,
    /// Onionbalance in front of two of C tor's.
    Onionbalance,
}

impl Way {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Hcp, Self::Arti, Self::Tor, Self::Onionbalance];

    /// What it is called in tables.
    pub fn title(self) -> &'static str {
        match self {
            Self::Hcp => "HCP, two nodes",
            Self::Arti => "tor-hsservice, one key on two nodes",
            Self::Tor => "C tor, one key on two nodes",
            Self::Onionbalance => "Onionbalance with two C tor backends",
        }
    }
}

/// The length of time periods: Onionbalance's code has 20 s between two votes for test networks, whatever the consensus says.
pub(super) const PERIOD: Duration = Duration::from_secs(24 * 20);

/// How many nodes each has.
const NODES: usize = 2;

/// A running service.
pub enum Contender {
    /// Ours.
    Hcp(Box<Stage>, TempDir),
    /// Everything else.
    Fleet(Fleet),
}

impl std::fmt::Debug for Contender {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Contender")
    }
}

impl Contender {
    /// Starts it and waits until every node says that it can be reached.
    ///
    /// # Errors
    /// When it does not come up.
    pub async fn start(way: Way, programs: &Programs, tor: &PrivateTorNetwork) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        if way == Way::Hcp {
            let mut stage = Stage::make(&programs.irc, folder.path(), (tor, PERIOD), NODES, None, UP).await?;
            stage.heal().await?;
            return Ok(Self::Hcp(Box::new(stage), folder));
        }
        Ok(Self::Fleet(Fleet::start(way, programs, tor, folder).await?))
    }

    /// The address that clients use.
    pub fn address(&self) -> &str {
        match self {
            Self::Hcp(stage, _) => &stage.cluster.address,
            Self::Fleet(fleet) => &fleet.address,
        }
    }

    /// Does it to the node that published last, as far as there is one.
    ///
    /// # Errors
    /// When it cannot be done.
    pub async fn strike(&mut self, fault: Fault) -> Result<()> {
        match self {
            Self::Hcp(stage, _) => {
                let victim = stage.publisher();
                match fault {
                    Fault::Kill => stage.kill(victim).await,
                    Fault::Freeze => stage.freeze(victim).await,
                }
            }
            Self::Fleet(fleet) => fleet.strike(fault).await,
        }
    }
}

/// What is run.
#[derive(Clone, Debug)]
pub struct Programs {
    /// `hcp-irc`.
    pub irc: PathBuf,
    /// Onionbalance's start script.
    pub onionbalance: Option<PathBuf>,
}

/// Backends and what they need.
#[derive(Debug)]
pub struct Fleet {
    way: Way,
    address: String,
    backends: Vec<Backend>,
    /// The backend that was started last, and so published last.
    last: usize,
    _others: Vec<Child>,
    _greeters: JoinSet<()>,
    _folder: TempDir,
}

#[derive(Debug)]
struct Backend {
    folder: PathBuf,
    program: PathBuf,
    arguments: Vec<String>,
    child: Option<Child>,
}

impl Fleet {
    async fn start(way: Way, programs: &Programs, tor: &PrivateTorNetwork, folder: TempDir) -> Result<Self> {
        let identity = Identity::generate();
        let mut greeters = JoinSet::new();
        let mut backends = Vec::new();
        let mut addresses = Vec::new();
        for index in 0..NODES {
            let home = folder.path().join(format!("backend{index}"));
            std::fs::create_dir(&home)?;
            let backend = if way == Way::Arti {
                let key = home.join("key");
                ctor::export(&identity, &key)?;
                let words = ["same-key", "--key", &text(&key), "--private-tor", &text(tor.description_file())]
                    .map(str::to_owned);
                Backend { program: std::env::current_exe()?, arguments: words.into(), folder: home, child: None }
            } else {
                let own = Identity::generate();
                let (served, extra) = if way == Way::Tor { (&identity, None) } else { (&own, Some(&identity)) };
                addresses.push(served.address().to_string());
                let port = greeter(&mut greeters).await?;
                tor_backend(tor, home, served, extra, port)?
            };
            backends.push(backend);
        }
        let mut fleet = Self {
            way,
            address: identity.address().to_string(),
            backends,
            last: 0,
            _others: Vec::new(),
            _greeters: greeters,
            _folder: folder,
        };
        for index in 0..NODES {
            fleet.bring_up(index).await?;
        }
        if way == Way::Onionbalance {
            let program = programs.onionbalance.as_ref().ok_or("no Onionbalance was given")?;
            fleet._others = onionbalance(program, tor, fleet._folder.path(), &identity, &addresses).await?;
        }
        Ok(fleet)
    }

    async fn bring_up(&mut self, index: usize) -> Result<()> {
        let backend = &mut self.backends[index];
        let log = backend.folder.join("log");
        std::fs::write(&log, "")?;
        let mut command = Command::new(&backend.program);
        command.args(&backend.arguments).stdin(Stdio::piped()).stderr(Stdio::null()).kill_on_drop(true);
        let is_arti = self.way == Way::Arti;
        command.stdout(if is_arti {
            std::fs::OpenOptions::new().append(true).open(&log)?.into()
        } else {
            Stdio::null()
        });
        backend.child = Some(command.spawn()?);
        self.last = index;
        let sign = if is_arti { SAME_KEY_IS_UP } else { "finished with status 200" };
        settled(&log, sign).await
    }

    async fn strike(&mut self, fault: Fault) -> Result<()> {
        let child = self.backends[self.last].child.as_mut().ok_or("the backend does not run")?;
        match fault {
            Fault::Kill => Ok(child.kill().await?),
            Fault::Freeze => signal(child, "STOP").await,
        }
    }
}

/// The line that a service with the same key prints.
pub(super) const SAME_KEY_IS_UP: &str = "reachable";

/// Waits until a log says something and then nothing new of the kind for a while.
async fn settled(log: &Path, sign: &str) -> Result<()> {
    let started = Instant::now();
    let (mut count, mut since) = (0, Instant::now());
    while started.elapsed() < UP {
        // A process that has just been started may not have begun its log.
        let now = std::fs::read_to_string(log).map_or(0, |text| text.matches(sign).count());
        if now != count {
            (count, since) = (now, Instant::now());
        }
        if count > 0 && since.elapsed() > QUIET {
            return Ok(());
        }
        sleep(POLL).await;
    }
    Err(format!("a backend is not up after {UP:?}").into())
}

async fn signal(child: &Child, name: &str) -> Result<()> {
    let id = child.id().ok_or("the backend has ended")?.to_string();
    let status = Command::new("kill").args([&format!("-{name}"), &id]).status().await?;
    if status.success() { Ok(()) } else { Err("cannot send a signal".into()) }
}

/// Answers whoever connects; the port.
async fn greeter(tasks: &mut JoinSet<()>) -> Result<u16> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let port = listener.local_addr()?.port();
    tasks.spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let _ = stream.write_all(GREETING).await;
                // For as long as the client likes.
                let mut ignored = tokio::io::sink();
                let _ = tokio::io::copy(&mut stream, &mut ignored).await;
            });
        }
    });
    Ok(port)
}

/// What backends say to whoever connects.
pub(super) const GREETING: &[u8] = b":backend NOTICE * :welcome\r\n";

/// An onion service of C tor; with `front`, a backend of the service that Onionbalance publishes at that address.
fn tor_backend(
    tor: &PrivateTorNetwork,
    folder: PathBuf,
    served: &Identity,
    front: Option<&Identity>,
    port: u16,
) -> Result<Backend> {
    let service = folder.join("service");
    ctor::export(served, &service)?;
    let mut torrc = tor.description().common_torrc(&folder);
    torrc.push_str(&format!(
        "SocksPort 0\nLog [rend]info file {log}\nHiddenServiceDir {service}\nHiddenServicePort {IRC} 127.0.0.1:{port}\n",
        log = folder.join("log").display(),
        service = service.display(),
    ));
    if let Some(front) = front {
        torrc.push_str("HiddenServiceOnionBalanceInstance 1\n");
        std::fs::write(service.join("ob_config"), format!("MasterOnionAddress {}\n", front.address()))?;
    }
    let file = folder.join("torrc");
    std::fs::write(&file, torrc)?;
    Ok(Backend { program: tor.description().tor().to_owned(), arguments: tor_arguments(&file), folder, child: None })
}

fn tor_arguments(torrc: &Path) -> Vec<String> {
    ["--defaults-torrc", "/nonexistent", "--ignore-missing-torrc", "--quiet", "-f", &text(torrc)]
        .map(str::to_owned)
        .into()
}

/// A C tor to be controlled, and Onionbalance, with the intervals that it has for test networks: a look at the backends every
/// 20 s, where it is ten minutes elsewhere.
async fn onionbalance(
    program: &Path,
    tor: &PrivateTorNetwork,
    folder: &Path,
    identity: &Identity,
    backends: &[String],
) -> Result<Vec<Child>> {
    let home = folder.join("front");
    // Tor makes no control socket where others could reach it.
    DirBuilder::new().mode(0o700).create(&home)?;
    let socket = home.join("control");
    let mut torrc = tor.description().common_torrc(&home);
    torrc.push_str(&format!("SocksPort 0\nControlSocket {}\n", socket.display()));
    let file = home.join("torrc");
    std::fs::write(&file, torrc)?;
    let mut command = Command::new(tor.description().tor());
    command.args(tor_arguments(&file)).stdin(Stdio::null()).kill_on_drop(true);
    let controlled = command.spawn()?;
    settled(&home.join("log"), "Bootstrapped 100%").await?;

    let key = home.join("key");
    ctor::export(identity, &key)?;
    let instances: Vec<_> =
        backends.iter().map(|address| format!("  - address: {address}\n    name: backend\n")).collect();
    let config = home.join("config.yaml");
    let secret = key.join("hs_ed25519_secret_key");
    std::fs::write(&config, format!("services:\n- instances:\n{}  key: {}\n", instances.concat(), secret.display()))?;
    let log = std::fs::File::create(home.join("onionbalance.log"))?;
    let mut command = Command::new(program);
    command.args(["--is-testnet", "--verbosity", "debug", "--socket", &text(&socket), "--config", &text(&config)]);
    command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).kill_on_drop(true);
    let front = command.spawn().map_err(|error| format!("cannot start {}: {error}", program.display()))?;
    settled(&home.join("onionbalance.log"), "Successfully uploaded descriptor").await?;
    Ok(vec![front, controlled])
}

fn text(path: &Path) -> String {
    path.display().to_string()
}

/// Onionbalance begins 45 s after its start, and then may need a second round.
const UP: Duration = Duration::from_secs(180);
const POLL: Duration = Duration::from_millis(200);

/// Uploads to all directories follow each other faster.
const QUIET: Duration = Duration::from_secs(4);
