//! A service on disk: the owner's folder, a home for each node, what they gave each other.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};

use hcp_core::identity::OnionAddress;
use hcp_core::testing::PrivateTorDescription;
use tokio::process::Command;

use crate::{NodeProcess, Result};

/// For how long nodes can serve, in hours: longer than any test.
const HOURS: &str = "6";
/// Enough for that with the shortest time periods of a private network.
const PERIODS: &str = "100";

/// Where nodes listen.
#[derive(Clone, Debug)]
pub enum Place {
    /// Loopback, through a folder of ports; no Tor.
    Local(PathBuf),
    /// The private Tor network that this file describes.
    PrivateTor(PathBuf),
}

/// How a node is started when it is not as usual.
#[derive(Clone, Debug, Default)]
pub struct Launch {
    /// A command that runs the program that follows it, under the same process id.
    pub wrapper: Vec<OsString>,
    /// Environment variables.
    pub variables: Vec<(OsString, OsString)>,
    /// What it has to sign descriptors with.
    pub material: Material,
}

/// What a node has to sign descriptors with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Material {
    /// What the owner gave it.
    #[default]
    Given,
    /// Nothing: it is only listed.
    Withheld,
}

/// The keys and files of a service.
#[derive(Clone, Debug)]
pub struct Cluster {
    program: PathBuf,
    folder: PathBuf,
    place: Place,
    /// The one address of the service.
    pub address: String,
    nodes: usize,
    /// Nodes that have nothing to sign descriptors with.
    bare: Arc<Mutex<BTreeSet<usize>>>,
}

impl Cluster {
    /// Makes the homes of `nodes` nodes and everything that they share below `folder`, with the program `hcp-irc`.
    ///
    /// # Errors
    /// When the program cannot be run or refuses.
    pub async fn create(program: &Path, folder: &Path, place: Place, nodes: usize, history: usize) -> Result<Self> {
        let passphrase = folder.join("passphrase");
        std::fs::write(&passphrase, format!("{:032x}\n", rand::random::<u128>()))?;
        let period = match &place {
            Place::Local(_) => None,
            Place::PrivateTor(file) => Some(PrivateTorDescription::load(file)?.time_period_minutes().to_string()),
        };
        let cluster = Self {
            program: program.to_owned(),
            folder: folder.to_owned(),
            place,
            address: String::new(),
            nodes,
            bare: Arc::default(),
        };
        let period: Vec<&str> = period.iter().flat_map(|minutes| ["--period-minutes", minutes.as_str()]).collect();
        let sealed = text(&passphrase);
        let keys = ["--passphrase-file", sealed.as_str()];
        let owner = text(&folder.join("owner"));

        let new = ["owner", "new", "--dir", &owner].iter().chain(&keys).chain(&period).copied().collect::<Vec<_>>();
        let shown = cluster.run(&new).await?;
        let address = shown.split_whitespace().find(|word| word.ends_with(".onion"));
        let address = address.ok_or("owner new printed no address")?.to_owned();
        cluster.run(&[&["owner", "key", "--dir", &owner], &keys[..]].concat()).await?;

        // In the order of their addresses, in which nodes tell of each other.
        let mut members = Vec::new();
        for i in 0..nodes {
            let home = folder.join(format!("new{i}"));
            let member = cluster.run(&[&["init", "--home", &text(&home)], &keys[..]].concat()).await?;
            let block = member[member.find("[[member]]").ok_or("init printed no member")?..].to_owned();
            let address = block.split('"').nth(1).ok_or("init printed no address")?.parse::<OnionAddress>()?;
            members.push((address, block, home));
        }
        members.sort_by_key(|(address, ..)| *address);
        let mut shared = format!(
            "name = \"irc.hcp.example\"\nnetwork = \"HCP\"\nmotd = \"One address, {nodes} nodes.\"\nhistory = {history}\n\n"
        );
        for (i, (_, block, home)) in members.iter().enumerate() {
            shared.push_str(&format!("{block}name = \"node{}\"\n\n", i + 1));
            std::fs::rename(home, cluster.home(i))?;
        }
        let file = text(&folder.join("cluster.toml"));
        std::fs::write(&file, shared)?;
        cluster.run(&[&["owner", "manifest", "--dir", &owner], &keys[..], &[&file]].concat()).await?;

        let mut requests = Vec::new();
        for i in 0..nodes {
            let (home, out) = (text(&cluster.home(i)), text(&folder.join(format!("node{}.request", i + 1))));
            let request = ["request", "--home", &home, "--service", &address, "--periods", PERIODS, "--out", &out];
            cluster.run(&[&request[..], &keys[..], &period[..]].concat()).await?;
            requests.push(out);
        }
        let grants = folder.join("granted");
        let grant = ["owner", "grant", "--dir", &owner, "--hours", HOURS, "--out", &text(&grants)];
        let requests: Vec<&str> = requests.iter().map(String::as_str).collect();
        cluster.run(&[&grant[..], &keys[..], &requests[..]].concat()).await?;
        for i in 0..nodes {
            let (home, grant) = (text(&cluster.home(i)), text(&grants.join(format!("node{}.grant", i + 1))));
            cluster.run(&[&["import-grant", "--home", &home], &keys[..], &[&grant]].concat()).await?;
        }
        Ok(Self { address, ..cluster })
    }

    /// How many nodes the service has.
    pub fn nodes(&self) -> usize {
        self.nodes
    }

    /// The folder of one node.
    pub fn home(&self, node: usize) -> PathBuf {
        self.folder.join(format!("node{}", node + 1))
    }

    /// Starts one node.
    ///
    /// # Errors
    /// When its process cannot be started.
    pub fn start(&self, node: usize) -> Result<NodeProcess> {
        self.start_with(node, &Launch::default())
    }

    /// Starts one node in its own way.
    ///
    /// # Errors
    /// When its process cannot be started, or not so.
    pub fn start_with(&self, node: usize, launch: &Launch) -> Result<NodeProcess> {
        self.supply(node, launch.material)?;
        let mut command = match launch.wrapper.split_first() {
            None => Command::new(&self.program),
            Some((wrapper, arguments)) => {
                let mut command = Command::new(wrapper);
                command.args(arguments).arg(&self.program);
                command
            }
        };
        command.envs(launch.variables.iter().map(|(name, value)| (name, value)));
        command.arg("serve").arg("--json").arg("--until-stdin-closes");
        command.arg("--home").arg(self.home(node));
        command.arg("--passphrase-file").arg(self.folder.join("passphrase"));
        match &self.place {
            Place::Local(folder) => command.arg("--network").arg(format!("local:{}", folder.display())),
            Place::PrivateTor(description) => command.arg("--private-tor").arg(description),
        };
        let log = std::fs::OpenOptions::new().create(true).append(true).open(self.home(node).join("log.txt"))?;
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::from(log)).kill_on_drop(true);
        NodeProcess::start(node, command)
    }

    /// Sees to it that a node that does not run has what it shall have to sign descriptors with. Blocks.
    fn supply(&self, node: usize, material: Material) -> Result<()> {
        let mut bare = self.bare.lock().unwrap_or_else(PoisonError::into_inner);
        let is_bare = bare.contains(&node);
        if is_bare == (material == Material::Withheld) {
            return Ok(());
        }
        let file = self.folder.join("cluster.toml");
        let block = format!("name = \"node{}\"\n", node + 1);
        let listed = format!("{block}publisher = false\n");
        let text_now = std::fs::read_to_string(&file)?;
        let changed = if is_bare { text_now.replace(&listed, &block) } else { text_now.replace(&block, &listed) };
        std::fs::write(&file, changed)?;
        // What it was granted before would do as well.
        for entry in std::fs::read_dir(self.home(node).join("grants"))? {
            std::fs::remove_file(entry?.path())?;
        }
        let (owner, sealed) = (text(&self.folder.join("owner")), text(&self.folder.join("passphrase")));
        let keys = ["--passphrase-file", sealed.as_str()];
        let out = text(&self.folder.join("granted"));
        let request = text(&self.folder.join(format!("node{}.request", node + 1)));
        let granted = format!("{out}/node{}.grant", node + 1);
        self.run_now(&[&["owner", "manifest", "--dir", &owner], &keys[..], &[&text(&file)]].concat())?;
        let grant = ["owner", "grant", "--dir", &owner, "--hours", HOURS, "--out", &out];
        self.run_now(&[&grant[..], &keys[..], &[&request]].concat())?;
        let home = text(&self.home(node));
        self.run_now(&[&["import-grant", "--home", &home], &keys[..], &[&granted]].concat())?;
        if !bare.remove(&node) {
            bare.insert(node);
        }
        Ok(())
    }

    fn run_now(&self, arguments: &[&str]) -> Result<()> {
        let output = std::process::Command::new(&self.program).args(arguments).stdin(Stdio::null()).output()?;
        if !output.status.success() {
            return Err(format!("hcp-irc {}: {}", arguments[0], String::from_utf8_lossy(&output.stderr).trim()).into());
        }
        Ok(())
    }

    /// Loses what a node that does not run has stored of the log, as if its disk had been replaced. Its keys stay.
    ///
    /// # Errors
    /// When a file cannot be removed.
    pub fn lose_log(&self, node: usize) -> Result<()> {
        for entry in std::fs::read_dir(self.home(node))? {
            let entry = entry?;
            if entry.file_name().to_string_lossy().starts_with("log.db") {
                std::fs::remove_file(entry.path())?;
            }
        }
        Ok(())
    }

    async fn run(&self, arguments: &[&str]) -> Result<String> {
        let output = Command::new(&self.program).args(arguments).stdin(Stdio::null()).kill_on_drop(true).output().await;
        let output = output.map_err(|error| format!("cannot run {}: {error}", self.program.display()))?;
        if !output.status.success() {
            return Err(format!("hcp-irc {}: {}", arguments[0], String::from_utf8_lossy(&output.stderr).trim()).into());
        }
        Ok(String::from_utf8(output.stdout)?)
    }
}

fn text(path: &Path) -> String {
    path.display().to_string()
}
