//! A running node: its process and what it has told of itself.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::Result;

/// What a node has told since it was started.
#[derive(Clone, Debug, Default)]
pub struct NodeState {
    /// How far Tor's start has come.
    pub bootstrap: u64,
    /// When the shared address was announced by this node, last.
    pub published: Option<Instant>,
    /// Everything that is needed runs.
    pub ready: Option<Duration>,
    /// Clients on this node.
    pub clients: u64,
    /// Live peers, by their index in the cluster file.
    pub peers: BTreeSet<u64>,
    /// How often it relaunched the shared address.
    pub relaunches: u64,
    /// Streams of clients that it accepted, each when this program heard of it.
    pub accepted: Vec<Instant>,
    /// Its uploads of descriptors.
    pub published_descriptors: Vec<Published>,
    /// What it finished for members that it had declared dead.
    pub takeovers: Vec<Takeover>,
    /// Its process has ended.
    pub ended: bool,
}

/// A descriptor that directories took.
#[derive(Clone, Debug)]
pub struct Published {
    /// When this program heard of it.
    pub at: Instant,
    /// The number of the time period.
    pub period: u64,
    /// The members whose introduction points it lists.
    pub listed: BTreeSet<u64>,
    /// How many points it lists.
    pub points: u64,
}

/// All that one node does for one member that it has declared dead is done.
#[derive(Clone, Copy, Debug)]
pub struct Takeover {
    /// When this program heard of it.
    pub at: Instant,
    /// The dead one.
    pub member: u64,
    /// How many of its introduction points this node took over.
    pub points: u64,
}

/// A process of `hcp-irc serve`. Dropping it kills it, frozen or not, and waits for its end.
#[derive(Debug)]
pub struct NodeProcess {
    /// Its index, from 0.
    pub index: usize,
    child: Child,
    stdin: Option<ChildStdin>,
    state: watch::Receiver<NodeState>,
    _reader: JoinSet<()>,
}

impl NodeProcess {
    pub(crate) fn start(index: usize, mut command: Command) -> Result<Self> {
        let mut child = command.spawn().map_err(|error| format!("cannot start node {}: {error}", index + 1))?;
        let stdout = child.stdout.take().ok_or("the node has no standard output")?;
        let stdin = child.stdin.take();
        let (sender, state) = watch::channel(NodeState::default());
        let mut reader = JoinSet::new();
        reader.spawn(read_events(stdout, sender));
        Ok(Self { index, child, stdin, state, _reader: reader })
    }

    /// What the node has told so far.
    pub fn state(&self) -> NodeState {
        self.state.borrow().clone()
    }

    /// Looks at what the node has told so far.
    pub fn with<T>(&self, look: impl FnOnce(&NodeState) -> T) -> T {
        look(&self.state.borrow())
    }

    /// Waits until the node's state fits.
    ///
    /// # Errors
    /// When that takes longer than `deadline` or the node ends before.
    pub async fn wait(&mut self, what: &str, deadline: Duration, fits: impl Fn(&NodeState) -> bool) -> Result<()> {
        let fits_or_ended = self.state.wait_for(|state| fits(state) || state.ended);
        let state = tokio::time::timeout(deadline, fits_or_ended).await;
        let node = self.index + 1;
        match state {
            Ok(Ok(state)) if !state.ended => Ok(()),
            Ok(_) => Err(format!("node {node} ended while waiting for: {what}; see log.txt in its home").into()),
            Err(_) => {
                Err(format!("node {node}: {what} did not come within {deadline:?}; see log.txt in its home").into())
            }
        }
    }

    /// Kills the process with signal 9 and waits for its end.
    ///
    /// # Errors
    /// When there is nothing to kill.
    pub async fn kill(mut self) -> Result<()> {
        Ok(self.child.kill().await?)
    }

    /// Stops the process where it is, without a word to anybody.
    ///
    /// A process that is stopped does not notice that its standard input closed: it outlives this program when that is
    /// itself killed with signal 9, and then has to be killed by hand.
    ///
    /// # Errors
    /// When there is no process.
    pub async fn freeze(&self) -> Result<()> {
        self.signal("STOP").await
    }

    /// Lets a process go on that was frozen.
    ///
    /// # Errors
    /// When there is no process.
    pub async fn thaw(&self) -> Result<()> {
        self.signal("CONT").await
    }

    /// Asks the process to end, and waits for that.
    ///
    /// # Errors
    /// When it does not end within `deadline`, or with another status than 0.
    pub async fn terminate(mut self, deadline: Duration) -> Result<()> {
        self.signal("TERM").await?;
        let node = self.index + 1;
        let status = tokio::time::timeout(deadline, self.child.wait()).await;
        let status = status.map_err(|_| format!("node {node} does not end within {deadline:?}"))??;
        if status.success() { Ok(()) } else { Err(format!("node {node} ended with {status}").into()) }
    }

    /// Writes a line to the process's standard input.
    ///
    /// # Errors
    /// When it does not read any more.
    pub async fn tell(&mut self, line: &str) -> Result<()> {
        let stdin = self.stdin.as_mut().ok_or("the node has no standard input")?;
        stdin.write_all(format!("{line}\n").as_bytes()).await?;
        Ok(stdin.flush().await?)
    }

    /// The files that the process has mapped, as the kernel lists them.
    ///
    /// # Errors
    /// When the process has ended.
    pub fn maps(&self) -> Result<String> {
        let id = self.child.id().ok_or("the node has ended")?;
        Ok(std::fs::read_to_string(format!("/proc/{id}/maps"))?)
    }

    async fn signal(&self, name: &str) -> Result<()> {
        let id = self.child.id().ok_or("the node has ended")?.to_string();
        let status = Command::new("kill").args([&format!("-{name}"), &id]).status().await?;
        if status.success() { Ok(()) } else { Err(format!("cannot send {name} to the process").into()) }
    }

    /// The number of its process.
    ///
    /// # Errors
    /// When the process has ended.
    pub fn id(&self) -> Result<u32> {
        self.child.id().ok_or_else(|| "the node has ended".into())
    }

    /// Resident memory in MiB.
    ///
    /// # Errors
    /// When the process has ended.
    pub fn memory(&self) -> Result<f64> {
        let id = self.child.id().ok_or("the node has ended")?;
        let status = std::fs::read_to_string(format!("/proc/{id}/status"))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).ok_or("no VmRSS")?;
        let kib: f64 = line.trim().trim_end_matches("kB").trim().parse()?;
        Ok(kib / 1024.0)
    }
}

impl Drop for NodeProcess {
    /// Blocks for the moment that a process needs to die: until then it may write to a folder that is about to be removed.
    fn drop(&mut self) {
        // An error means that it has ended already.
        let _ = self.child.start_kill();
        let started = Instant::now();
        while matches!(self.child.try_wait(), Ok(None)) && started.elapsed() < END_DEADLINE {
            std::thread::sleep(END_POLL);
        }
    }
}

async fn read_events(stdout: ChildStdout, state: watch::Sender<NodeState>) {
    let mut lines = BufReader::new(stdout).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        let Ok(event) = serde_json::from_str::<Value>(&line) else { continue };
        let number = |name: &str| event[name].as_u64().unwrap_or(0);
        state.send_modify(|state| match event["event"].as_str() {
            Some("bootstrap") => state.bootstrap = number("percent"),
            Some("reachable") if event["what"] == "service" => state.published = Some(Instant::now()),
            Some("ready") => state.ready = Some(Duration::from_secs_f64(event["seconds"].as_f64().unwrap_or(0.0))),
            Some("clients") => state.clients = number("count"),
            Some("peer") if event["live"] == true => {
                state.peers.insert(number("member"));
            }
            Some("peer") => {
                state.peers.remove(&number("member"));
            }
            Some("relaunch") => state.relaunches += 1,
            Some("accepted") => state.accepted.push(Instant::now()),
            Some("published") => state.published_descriptors.push(Published {
                at: Instant::now(),
                period: number("period"),
                points: number("points"),
                listed: event["listed"].as_array().into_iter().flatten().filter_map(Value::as_u64).collect(),
            }),
            Some("takeover") => state.takeovers.push(Takeover {
                at: Instant::now(),
                member: number("member"),
                points: number("points"),
            }),
            _ => {}
        });
    }
    state.send_modify(|state| state.ended = true);
}

/// A killed process ends within milliseconds; one that waits for a broken disk must not keep this program.
const END_DEADLINE: Duration = Duration::from_secs(5);
const END_POLL: Duration = Duration::from_millis(2);

#[cfg(test)]
mod tests {
    use std::process::Stdio;

    use super::*;

    #[tokio::test]
    async fn a_frozen_process_is_gone_once_it_is_dropped() {
        let mut command = Command::new("sleep");
        command.arg("600").stdout(Stdio::piped());
        let node = NodeProcess::start(0, command).unwrap();
        let place = format!("/proc/{}", node.child.id().unwrap());
        node.freeze().await.unwrap();
        assert!(std::fs::exists(&place).unwrap());
        drop(node);
        assert!(!std::fs::exists(&place).unwrap());
    }
}
