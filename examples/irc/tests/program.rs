//! The program as its operator sees it: real processes on loopback, their reports, their exit codes.

use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::Duration;

use hcp_core::network::{LocalNetwork, Network};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};

const DEADLINE: Duration = Duration::from_secs(30);

struct Cluster {
    folder: tempfile::TempDir,
    address: String,
}

struct Process {
    child: Child,
    reports: Lines<BufReader<ChildStdout>>,
    told: Vec<Value>,
}

async fn run(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hcp-irc"));
    command.args(arguments).stdin(Stdio::null()).kill_on_drop(true);
    tokio::time::timeout(DEADLINE, command.output()).await.expect("ends in time").expect("runs")
}

/// Runs it and returns the one line that it must fail with.
async fn refusal(arguments: &[&str]) -> String {
    let output = run(arguments).await;
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let text = String::from_utf8(output.stderr).expect("UTF-8");
    let lines: Vec<&str> = text.lines().filter(|line| line.starts_with("hcp-irc: ")).collect();
    assert_eq!((lines.len(), text.lines().last()), (1, lines.last().copied()), "{text}");
    lines[0].to_owned()
}

fn text(path: &Path) -> String {
    path.display().to_string()
}

impl Cluster {
    async fn new(nodes: usize) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let at = |name: &str| text(&folder.path().join(name));
        let made = run(&["new-service", "--out", &at("service.key"), "--plain-keys"]).await;
        let address = String::from_utf8(made.stdout).expect("UTF-8").trim().to_owned();
        let mut shared = "name = \"irc.test\"\nnetwork = \"Test\"\n".to_owned();
        for node in 0..nodes {
            let made = run(&["init", "--home", &at(&node.to_string()), "--plain-keys"]).await;
            assert!(made.status.success(), "{made:?}");
            shared.push_str(std::str::from_utf8(&made.stdout).expect("UTF-8"));
            std::fs::copy(at("service.key"), folder.path().join(node.to_string()).join("service.key")).expect("copies");
        }
        std::fs::write(at("cluster.toml"), shared).expect("writes");
        Self { folder, address }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn arguments(&self, node: usize) -> Vec<String> {
        let network = format!("local:{}", self.path("net").display());
        let (home, cluster) = (text(&self.path(&node.to_string())), text(&self.path("cluster.toml")));
        ["serve", "--home", &home, "--cluster", &cluster, "--plain-keys", "--network", &network, "--json"]
            .map(str::to_owned)
            .to_vec()
    }

    fn start(&self, node: usize, more: &[&str]) -> Process {
        let mut command = Command::new(env!("CARGO_BIN_EXE_hcp-irc"));
        command.args(self.arguments(node)).args(more).kill_on_drop(true);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("starts");
        let reports = BufReader::new(child.stdout.take().expect("is piped")).lines();
        Process { child, reports, told: Vec::new() }
    }

    /// Connects a client to whichever node the network picks and registers it.
    async fn client(&self, nick: &str) -> impl AsyncReadExt + AsyncWriteExt + Unpin + use<> {
        let network = LocalNetwork::new(self.path("net")).expect("a network");
        let address = self.address.parse().expect("an address");
        let mut stream = network.dial(address, 6667).await.expect("connects");
        let hello = format!("NICK {nick}\r\nUSER u 0 * :r\r\n");
        stream.write_all(hello.as_bytes()).await.expect("writes");
        stream
    }
}

impl Process {
    /// Reads reports up to the first that fits.
    async fn until(&mut self, fits: impl Fn(&Value) -> bool) -> Value {
        let found = async {
            loop {
                let line = self.reports.next_line().await.expect("reads").expect("the process runs");
                let report: Value = serde_json::from_str(&line).expect("JSON");
                self.told.push(report.clone());
                if fits(&report) {
                    return report;
                }
            }
        };
        tokio::time::timeout(DEADLINE, found).await.expect("the report comes in time")
    }

    /// As [`Process::until`], unless it was told before.
    async fn once(&mut self, fits: impl Fn(&Value) -> bool) {
        if !self.told.iter().any(&fits) {
            self.until(fits).await;
        }
    }

    async fn ready(&mut self) {
        self.until(|report| report["event"] == "ready").await;
    }
}

async fn read_until(stream: &mut (impl AsyncReadExt + Unpin), part: &str) -> String {
    let found = async {
        let mut seen = Vec::new();
        loop {
            let mut bytes = [0; 1024];
            let len = stream.read(&mut bytes).await.expect("reads");
            assert!(len > 0, "the connection ended: {}", String::from_utf8_lossy(&seen));
            seen.extend(&bytes[..len]);
            let text = String::from_utf8_lossy(&seen);
            if text.contains(part) {
                return text.into_owned();
            }
        }
    };
    tokio::time::timeout(DEADLINE, found).await.unwrap_or_else(|_| panic!("{part:?} did not come"))
}

#[tokio::test]
async fn nodes_report_serve_survive_a_kill_and_stop_with_their_supervisor() {
    let cluster = Cluster::new(2).await;
    let (mut one, mut two) = (cluster.start(0, &["--until-stdin-closes"]), cluster.start(1, &["--until-stdin-closes"]));
    one.ready().await;
    two.ready().await;
    one.once(|report| report["event"] == "peer" && report["member"] == 1 && report["live"] == true).await;
    two.once(|report| report["event"] == "peer" && report["member"] == 0 && report["live"] == true).await;
    one.child.kill().await.expect("is killed");
    two.until(|report| report["event"] == "peer" && report["member"] == 0 && report["live"] == false).await;

    let mut client = cluster.client("ann").await;
    read_until(&mut client, " 422 ann ").await;
    two.until(|report| report["event"] == "clients" && report["count"] == 1).await;

    let mut again = cluster.start(0, &[]);
    again.ready().await;
    two.until(|report| report["event"] == "peer" && report["live"] == true).await;

    drop(two.child.stdin.take());
    read_until(&mut client, "ERROR :Closing link: The server process stops").await;
    let ended = tokio::time::timeout(DEADLINE, two.child.wait()).await.expect("stops in time").expect("is waited for");
    assert!(ended.success());
}

#[tokio::test]
async fn every_refusal_is_one_line_that_says_what_to_do() {
    let cluster = Cluster::new(1).await;
    let serve = |change: fn(&mut Vec<String>, &Cluster)| {
        let mut arguments = cluster.arguments(0);
        change(&mut arguments, &cluster);
        arguments
    };
    std::fs::write(cluster.path("bad.toml"), "name = \"irc.test\"\nnetwrok = \"x\"\n").expect("writes");
    std::fs::write(cluster.path("passphrase"), "wrong\n").expect("writes");
    std::fs::write(cluster.path("empty"), "").expect("writes");
    for (arguments, expected) in [
        (serve(|a, c| a[4] = text(&c.path("missing.toml"))), "cannot read the cluster file"),
        (serve(|a, c| a[4] = text(&c.path("bad.toml"))), "line 2: unknown field `netwrok`"),
        (serve(|a, c| a[2] = text(&c.path("nowhere"))), "does `init` come first?"),
        (serve(|a, c| drop(a.splice(5..6, ["--passphrase-file".into(), text(&c.path("passphrase"))]))), "not sealed"),
        (serve(|a, c| drop(a.splice(5..6, ["--passphrase-file".into(), text(&c.path("empty"))]))), "empty"),
        (serve(|a, c| a.extend(["--service-key".into(), text(&c.path("missing.key"))])), "no key file at this path"),
        (serve(|a, c| a.extend(["--service-key".into(), text(&c.path("0/log.key"))])), "another purpose"),
        (serve(|a, _| a.extend(["--private-tor".into(), "x".into()])), "contradict each other"),
    ] {
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let line = refusal(&arguments).await;
        assert!(line.contains(expected), "{expected}: {line}");
    }
    let home = text(&cluster.path("0"));
    assert!(refusal(&["init", "--home", &home, "--plain-keys"]).await.contains("exists already"));
    let other = text(&cluster.path("other"));
    run(&["init", "--home", &other, "--plain-keys"]).await;
    let mut stranger = cluster.arguments(0);
    stranger[2] = other;
    stranger.extend(["--service-key".into(), text(&cluster.path("service.key"))]);
    let stranger: Vec<&str> = stranger.iter().map(String::as_str).collect();
    assert!(refusal(&stranger).await.contains("belong to no [[member]]"));
}

#[tokio::test]
async fn a_home_serves_one_process() {
    let cluster = Cluster::new(1).await;
    let mut first = cluster.start(0, &[]);
    first.ready().await;
    let arguments = cluster.arguments(0);
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    assert!(refusal(&arguments).await.contains("is in use by another hcp-irc"));
}

#[tokio::test]
async fn keys_are_sealed_and_a_wrong_passphrase_is_told_as_such() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let at = |name: &str| text(&folder.path().join(name));
    std::fs::write(at("right"), "correct horse\n").expect("writes");
    std::fs::write(at("wrong"), "battery staple\n").expect("writes");
    let block = run(&["init", "--home", &at("home"), "--passphrase-file", &at("right")]).await.stdout;
    let made = run(&["new-service", "--out", &at("home/service.key"), "--passphrase-file", &at("right")]).await;
    assert!(String::from_utf8_lossy(&made.stdout).trim().ends_with(".onion"));
    let shared = format!("name = \"irc.test\"\nnetwork = \"T\"\n{}", String::from_utf8_lossy(&block));
    std::fs::write(at("cluster.toml"), shared).expect("writes");
    let (home, cluster, wrong) = (at("home"), at("cluster.toml"), at("wrong"));
    let line = refusal(&["serve", "--home", &home, "--cluster", &cluster, "--passphrase-file", &wrong]).await;
    assert!(line.contains("wrong passphrase"), "{line}");
}
