//! A running node: its process and what it has told of itself.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, ChildStdout, Command};
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
    /// Its process has ended.
    pub ended: bool,
}

/// A process of `hcp-irc serve`. Dropping it kills it, frozen or not, and waits for its end.
#[derive(Debug)]
pub struct NodeProcess {
    /// Its index, from 0.
    pub index: usize,
    child: Child,
    state: watch::Receiver<NodeState>,
    _reader: JoinSet<()>,
}

impl NodeProcess {
    pub(crate) fn start(index: usize, mut command: Command) -> Result<Self> {
        let mut child = command.spawn().map_err(|error| format!("cannot start node {}: {error}", index + 1))?;
        let stdout = child.stdout.take().ok_or("the node has no standard output")?;
        let (sender, state) = watch::channel(NodeState::default());
        let mut reader = JoinSet::new();
        reader.spawn(read_events(stdout, sender));
        Ok(Self { index, child, state, _reader: reader })
    }

    /// What the node has told so far.
    pub fn state(&self) -> NodeState {
        self.state.borrow().clone()
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
        let id = self.child.id().ok_or("the node has ended")?.to_string();
        let status = Command::new("kill").args(["-STOP", &id]).status().await?;
        if status.success() { Ok(()) } else { Err("cannot stop the process".into()) }
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
