//! A service on disk: a home for each node, the shared key, the file that all nodes have alike.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use tokio::process::Command;

use crate::{NodeProcess, Result};

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
}

impl Cluster {
    /// Makes the homes of `nodes` nodes and everything that they share below `folder`, with the program `hcp-irc`.
    ///
    /// # Errors
    /// When the program cannot be run or refuses.
    pub async fn create(program: &Path, folder: &Path, place: Place, nodes: usize, history: usize) -> Result<Self> {
        let passphrase = folder.join("passphrase");
        std::fs::write(&passphrase, format!("{:032x}\n", rand::random::<u128>()))?;
        let cluster =
            Self { program: program.to_owned(), folder: folder.to_owned(), place, address: String::new(), nodes };
        let key = folder.join("service.key");
        let shown =
            cluster.run(&["new-service", "--out", &text(&key), "--passphrase-file", &text(&passphrase)]).await?;
        let address = shown.split_whitespace().find(|word| word.ends_with(".onion"));
        let address = address.ok_or("new-service printed no address")?.to_owned();
        let mut shared = format!(
            "name = \"irc.hcp.example\"\nnetwork = \"HCP\"\nmotd = \"One address, {nodes} nodes.\"\nhistory = {history}\n\n"
        );
        for i in 0..nodes {
            let home = text(&cluster.home(i));
            let member = cluster.run(&["init", "--home", &home, "--passphrase-file", &text(&passphrase)]).await?;
            let block = member.find("[[member]]").ok_or("init printed no member")?;
            shared.push_str(&member[block..]);
            shared.push('\n');
            // In this first version every node holds the key of the shared address.
            std::fs::copy(&key, cluster.home(i).join("service.key"))?;
        }
        std::fs::write(folder.join("cluster.toml"), shared)?;
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
        if launch.material == Material::Withheld {
            return Err("every node of this service holds the key of the address: none can be without material".into());
        }
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
        command.arg("--home").arg(self.home(node)).arg("--cluster").arg(self.folder.join("cluster.toml"));
        command.arg("--passphrase-file").arg(self.folder.join("passphrase"));
        match &self.place {
            Place::Local(folder) => command.arg("--network").arg(format!("local:{}", folder.display())),
            Place::PrivateTor(description) => command.arg("--private-tor").arg(description),
        };
        let log = std::fs::OpenOptions::new().create(true).append(true).open(self.home(node).join("log.txt"))?;
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::from(log)).kill_on_drop(true);
        NodeProcess::start(node, command)
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
