//! Runs `hcp-chat` daemons as processes and talks to them in their JSON lines: for the demo and for hcp-chat's tests.

pub mod demo;

use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Output, Stdio};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::{Place, Result};

/// How long commands may take, on a machine that is busy with tests.
const COMMAND: Duration = Duration::from_secs(60);

/// A profile on disk and how to run `hcp-chat` on it.
#[derive(Clone, Debug)]
pub struct ChatProfile {
    program: PathBuf,
    /// What `--home` gets.
    pub home: PathBuf,
    /// What `--profile` gets.
    pub name: String,
    place: Place,
    /// What `--passphrase-file` gets.
    pub passphrase_file: PathBuf,
}

impl ChatProfile {
    /// Names a profile; nothing is made.
    pub fn new(program: &Path, home: &Path, name: &str, place: Place, passphrase_file: &Path) -> Self {
        Self {
            program: program.to_owned(),
            home: home.to_owned(),
            name: name.to_owned(),
            place,
            passphrase_file: passphrase_file.to_owned(),
        }
    }

    /// The folder of the profile.
    pub fn folder(&self) -> PathBuf {
        self.home.join(&self.name)
    }

    /// A command line without standard input, to which more can be added.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.arg("--home").arg(&self.home).arg("--profile").arg(&self.name);
        command.arg("--passphrase-file").arg(&self.passphrase_file);
        match &self.place {
            Place::Local(folder) => command.arg("--network").arg(format!("local:{}", folder.display())),
            Place::PrivateTor(description) => command.arg("--private-tor").arg(description),
        };
        command.args(arguments).stdin(Stdio::null()).kill_on_drop(true);
        command
    }

    /// Runs a command to its end.
    ///
    /// # Errors
    /// When it cannot be started or takes too long.
    pub async fn output(&self, arguments: &[&str]) -> Result<Output> {
        let output = tokio::time::timeout(COMMAND, self.command(arguments).output()).await;
        Ok(output.map_err(|_| format!("hcp-chat {} takes too long", arguments.join(" ")))??)
    }

    /// Runs a command that must succeed; its standard output.
    ///
    /// # Errors
    /// When it fails.
    pub async fn run(&self, arguments: &[&str]) -> Result<String> {
        let output = self.output(arguments).await?;
        if !output.status.success() {
            let why = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            return Err(format!("hcp-chat {}: {why}", arguments.join(" ")).into());
        }
        Ok(String::from_utf8(output.stdout)?)
    }

    /// Runs a command with `--json`.
    ///
    /// # Errors
    /// When it fails or prints anything but one line of JSON.
    pub async fn json(&self, arguments: &[&str]) -> Result<Value> {
        let printed = self.run(&[arguments, &["--json"]].concat()).await?;
        if printed.lines().count() != 1 {
            return Err(format!("hcp-chat {} printed not one line: {printed}", arguments.join(" ")).into());
        }
        Ok(serde_json::from_str(&printed)?)
    }

    /// Makes the profile; returns its address.
    ///
    /// # Errors
    /// When `init` fails.
    pub async fn init(&self, name: &str) -> Result<String> {
        let made = self.json(&["init", "--name", name]).await?;
        Ok(made["address"].as_str().ok_or("init printed no address")?.to_owned())
    }

    /// Starts its daemon.
    ///
    /// # Errors
    /// When the process cannot be started.
    pub fn start(&self, arguments: &[&str], variables: &[(&str, &str)]) -> Result<ChatDaemon> {
        let mut command = self.command(&[&["daemon"], arguments].concat());
        command.envs(variables.iter().copied());
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        ChatDaemon::start(command)
    }
}

/// What a daemon has printed.
#[derive(Clone, Debug, Default)]
pub struct Printed {
    /// Its lines, in order.
    pub lines: Vec<Value>,
    /// It has ended.
    pub ended: bool,
}

impl Printed {
    /// The events of a name.
    pub fn events<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Value> {
        self.lines.iter().filter(move |line| line["event"] == name)
    }

    /// The texts of the messages that came, in their order.
    pub fn received(&self) -> Vec<&str> {
        self.events("message_received").filter_map(|event| event["message"]["text"].as_str()).collect()
    }

    /// The highest cursor that was printed.
    pub fn cursor(&self) -> Option<u64> {
        self.lines.iter().filter_map(|line| line["cursor"].as_u64()).max()
    }
}

/// A running daemon. Dropping it kills it.
#[derive(Debug)]
pub struct ChatDaemon {
    child: Child,
    stdin: Option<ChildStdin>,
    printed: watch::Receiver<Printed>,
    next: u64,
    _reader: JoinSet<()>,
}

impl ChatDaemon {
    fn start(mut command: Command) -> Result<Self> {
        let mut child = command.spawn().map_err(|error| format!("cannot start hcp-chat: {error}"))?;
        let stdout = child.stdout.take().ok_or("the daemon has no standard output")?;
        let stdin = child.stdin.take();
        let (sender, printed) = watch::channel(Printed::default());
        let mut reader = JoinSet::new();
        reader.spawn(read(stdout, sender));
        Ok(Self { child, stdin, printed, next: 1, _reader: reader })
    }

    /// What it has printed so far.
    pub fn printed(&self) -> Printed {
        self.printed.borrow().clone()
    }

    /// Waits until something can be found in what it has printed since its start.
    ///
    /// # Errors
    /// When that takes longer than `deadline` or the daemon ends before.
    pub async fn wait<T>(
        &self,
        what: &str,
        deadline: Duration,
        mut find: impl FnMut(&Printed) -> Option<T>,
    ) -> Result<T> {
        let mut printed = self.printed.clone();
        let mut found = None;
        let waited = printed.wait_for(|printed| {
            found = find(printed);
            found.is_some() || printed.ended
        });
        let in_time = tokio::time::timeout(deadline, waited).await.is_ok();
        match found {
            Some(found) => Ok(found),
            None if in_time => Err(format!("the daemon ended while waiting for: {what}").into()),
            None => Err(format!("{what} did not come within {deadline:?}").into()),
        }
    }

    /// Waits until it is online, and others can reach it.
    ///
    /// # Errors
    /// As [`Self::wait`].
    pub async fn reachable(&self, deadline: Duration) -> Result<()> {
        self.wait("reachability", deadline, |printed| printed.events("reachable").next().map(drop)).await
    }

    /// Writes a line as it is to its standard input.
    ///
    /// # Errors
    /// When it has ended or its input was closed.
    pub async fn write(&mut self, line: &[u8]) -> Result<()> {
        let stdin = self.stdin.as_mut().ok_or("standard input is closed")?;
        stdin.write_all(line).await?;
        Ok(stdin.flush().await?)
    }

    /// Gives it a command and returns the whole reply.
    ///
    /// # Errors
    /// When there is none in time.
    pub async fn reply(&mut self, mut command: Value) -> Result<Value> {
        let id = self.next;
        self.next += 1;
        command["id"] = id.into();
        self.write(format!("{command}\n").as_bytes()).await?;
        let what = format!("the reply to {}", command["command"]);
        self.wait(&what, COMMAND, |printed| printed.lines.iter().rev().find(|line| line["reply"] == id).cloned()).await
    }

    /// Gives it a command that must succeed; what stands behind `ok`.
    ///
    /// # Errors
    /// When it fails, or there is no reply in time.
    pub async fn ask(&mut self, command: Value) -> Result<Value> {
        let mut reply = self.reply(command.clone()).await?;
        match reply.get_mut("ok") {
            Some(ok) => Ok(ok.take()),
            None => Err(format!("{}: {}", command["command"], reply["error"]["message"]).into()),
        }
    }

    /// Writes a message; its id.
    ///
    /// # Errors
    /// As [`Self::ask`].
    pub async fn send(&mut self, contact: &str, text: &str) -> Result<String> {
        let sent = self.ask(json!({"command": "send", "contact": contact, "text": text})).await?;
        Ok(sent["message"].as_str().ok_or("the reply has no id")?.to_owned())
    }

    /// Closes its standard input.
    pub fn close_input(&mut self) {
        self.stdin = None;
    }

    /// Kills it with signal 9 and waits for its end; what it had printed.
    ///
    /// # Errors
    /// When its end cannot be waited for.
    pub async fn kill(mut self) -> Result<Printed> {
        // An error means that it has ended already.
        let _ = self.child.start_kill();
        self.child.wait().await?;
        self.finished().await
    }

    /// Asks it to end (SIGTERM) and waits for that; its status and what it had printed.
    ///
    /// # Errors
    /// When it does not end in time.
    pub async fn terminate(self) -> Result<(ExitStatus, Printed)> {
        self.signal("TERM").await?;
        self.ended().await
    }

    /// Sends it a signal, by its name.
    ///
    /// # Errors
    /// When it has ended.
    pub async fn signal(&self, name: &str) -> Result<()> {
        let id = self.child.id().ok_or("the daemon has ended")?.to_string();
        let status = Command::new("kill").args([&format!("-{name}"), &id]).status().await?;
        if status.success() { Ok(()) } else { Err("cannot send the signal".into()) }
    }

    /// Waits for its end; its status and what it had printed.
    ///
    /// # Errors
    /// When it does not end in time.
    pub async fn ended(mut self) -> Result<(ExitStatus, Printed)> {
        let status = tokio::time::timeout(COMMAND, self.child.wait()).await;
        let status = status.map_err(|_| "the daemon does not end")??;
        Ok((status, self.finished().await?))
    }

    async fn finished(mut self) -> Result<Printed> {
        let finished = tokio::time::timeout(COMMAND, self.printed.wait_for(|printed| printed.ended)).await;
        Ok(finished.map_err(|_| "the daemon's output does not end")??.clone())
    }
}

async fn read(stdout: ChildStdout, printed: watch::Sender<Printed>) {
    let mut lines = BufReader::new(stdout).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        // A line that is no JSON is one that no test waits for, and shows up where its wait fails.
        let line = serde_json::from_str(&line).unwrap_or(Value::String(line));
        printed.send_modify(|printed| printed.lines.push(line));
    }
    printed.send_modify(|printed| printed.ended = true);
}
