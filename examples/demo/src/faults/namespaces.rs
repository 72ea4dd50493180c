//! A network namespace for the suite and one for each node, with a bridge between, so that a node's link can be cut for real.
//!
//! Everything ends with this process: nothing is given a name that outlives it, and nothing outside is touched.

use std::ffi::OsString;
use std::net::Ipv4Addr;
use std::os::unix::process::CommandExt as _;
use std::process::Stdio;
use std::time::{Duration, Instant};

use tokio::process::{Child, Command};

use crate::Result;

/// Where the private network is to be found, on the bridge.
pub const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);

/// Set for the process inside.
const INSIDE: &str = "HCP_FAULTS_INSIDE";

/// Starts this program anew, with the same arguments, in a network namespace of its own; returns there.
///
/// # Errors
/// When the machine does not allow that.
pub fn enter() -> Result<()> {
    if std::env::var_os(INSIDE).is_some() {
        return Ok(());
    }
    let mut command = std::process::Command::new("unshare");
    if !rustix::process::geteuid().is_root() {
        command.args(["--user", "--map-root-user"]);
    }
    command.args(["--net", "--"]).arg(std::env::current_exe()?).args(std::env::args_os().skip(1)).env(INSIDE, "1");
    Err(format!("cannot make a network namespace: {}", command.exec()).into())
}

/// The namespaces of the nodes.
#[derive(Debug)]
pub struct Namespaces {
    /// Each holds one until its standard input closes, with ours.
    holders: Vec<Child>,
}

impl Namespaces {
    /// Makes the bridge, and a namespace for each of `nodes` nodes.
    ///
    /// # Errors
    /// When `ip` or the kernel refuses; must be called inside, see [`enter`].
    pub async fn make(nodes: usize) -> Result<Self> {
        ip("link set lo up").await?;
        ip(&format!("link add {BRIDGE} type bridge")).await?;
        ip(&format!("address add {ADDRESS}/24 dev {BRIDGE}")).await?;
        ip(&format!("link set {BRIDGE} up")).await?;
        let mut namespaces = Self { holders: Vec::new() };
        for node in 0..nodes {
            namespaces.add(node).await?;
        }
        Ok(namespaces)
    }

    async fn add(&mut self, node: usize) -> Result<()> {
        let mut holder = Command::new("unshare");
        holder.args(["--net", "--", "cat"]).stdin(Stdio::piped()).stdout(Stdio::null()).kill_on_drop(true);
        let holder = holder.spawn()?;
        let id = holder.id().ok_or("the holder of a namespace has ended")?;
        self.holders.push(holder);
        let own = std::fs::read_link("/proc/self/ns/net")?;
        let started = Instant::now();
        while std::fs::read_link(format!("/proc/{id}/ns/net"))? == own {
            if started.elapsed() > UNSHARED {
                return Err("the holder of a namespace does not get one".into());
            }
            tokio::time::sleep(POLL).await;
        }
        let (near, address) = (near(node), Ipv4Addr::from(u32::from(ADDRESS) + 1 + u32::try_from(node)?));
        ip(&format!("link add {near} type veth peer name {FAR} netns {id}")).await?;
        ip(&format!("link set {near} master {BRIDGE} up")).await?;
        for command in
            ["link set lo up".into(), format!("address add {address}/24 dev {FAR}"), format!("link set {FAR} up")]
        {
            let mut arguments = self.wrapper(node)?.into_iter();
            let mut inside = Command::new(arguments.next().ok_or("no wrapper")?);
            run(inside.args(arguments).arg("ip").args(command.split(' '))).await?;
        }
        Ok(())
    }

    /// The command that runs what follows it in the namespace of a node.
    ///
    /// # Errors
    /// When the namespace is gone.
    pub fn wrapper(&self, node: usize) -> Result<Vec<OsString>> {
        let id = self.holders.get(node).and_then(Child::id).ok_or("the node has no namespace")?;
        Ok(["nsenter", "--target", &id.to_string(), "--net", "--"].map(OsString::from).into())
    }

    /// Cuts the link of a node: what either side sends is lost, without a word to anybody.
    ///
    /// # Errors
    /// When `ip` refuses.
    pub async fn cut(&self, node: usize) -> Result<()> {
        ip(&format!("link set {} nomaster", near(node))).await
    }

    /// Puts the link back.
    ///
    /// # Errors
    /// When `ip` refuses.
    pub async fn mend(&self, node: usize) -> Result<()> {
        ip(&format!("link set {} master {BRIDGE}", near(node))).await
    }
}

fn near(node: usize) -> String {
    format!("hcp-n{node}")
}

async fn ip(arguments: &str) -> Result<()> {
    run(Command::new("ip").args(arguments.split(' '))).await
}

async fn run(command: &mut Command) -> Result<()> {
    let output = command.stdin(Stdio::null()).output().await.map_err(|error| format!("cannot run ip: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("{:?}: {}", command.as_std(), String::from_utf8_lossy(&output.stderr).trim()).into())
}

const BRIDGE: &str = "hcp-bridge";

/// The end of a link inside.
const FAR: &str = "eth0";

const UNSHARED: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(10);
