//! The program as its operator sees it: real processes on loopback, their reports, their exit codes.

use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::Duration;

use hcp_core::identity::OnionAddress;
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

/// Runs it and returns what it printed; it must not fail.
async fn good(arguments: &[&str]) -> String {
    let output = run(arguments).await;
    assert!(output.status.success(), "{arguments:?}: {output:?}");
    String::from_utf8(output.stdout).expect("UTF-8")
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
        let owner = at("owner");
        let made = good(&["owner", "new", "--dir", &owner, "--plain-keys"]).await;
        let address = made.split_whitespace().find(|word| word.ends_with(".onion")).expect("an address").to_owned();
        good(&["owner", "key", "--dir", &owner, "--plain-keys"]).await;
        // Nodes tell of each other in the order of their addresses.
        let mut members = Vec::new();
        for node in 0..nodes {
            let home = at(&format!("new{node}"));
            let block = good(&["init", "--home", &home, "--plain-keys"]).await;
            let address: OnionAddress = block.split('"').nth(1).expect("an address").parse().expect("an address");
            members.push((address, block, home));
        }
        members.sort_by_key(|(address, ..)| *address);
        let mut shared = "name = \"irc.test\"\nnetwork = \"Test\"\n".to_owned();
        for (node, (_, block, home)) in members.iter().enumerate() {
            shared.push_str(&format!("{block}name = \"{node}\"\n"));
            std::fs::rename(home, at(&node.to_string())).expect("renames");
        }
        std::fs::write(at("cluster.toml"), shared).expect("writes");
        good(&["owner", "manifest", "--dir", &owner, "--plain-keys", &at("cluster.toml")]).await;
        for node in 0..nodes {
            let (home, request) = (at(&node.to_string()), at(&format!("{node}.request")));
            let ask = ["request", "--home", &home, "--service", &address, "--out", &request, "--plain-keys"];
            good(&ask).await;
            let grant = ["owner", "grant", "--dir", &owner, "--hours", "24", "--out", &at("granted"), "--plain-keys"];
            good(&[&grant[..], &[&request]].concat()).await;
            good(&["import-grant", "--home", &home, "--plain-keys", &at(&format!("granted/{node}.grant"))]).await;
        }
        Self { folder, address }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn arguments(&self, node: usize) -> Vec<String> {
        let network = format!("local:{}", self.path("net").display());
        let home = text(&self.path(&node.to_string()));
        ["serve", "--home", &home, "--plain-keys", "--network", &network, "--json"].map(str::to_owned).to_vec()
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
    std::fs::write(cluster.path("passphrase"), "wrong\n").expect("writes");
    std::fs::write(cluster.path("empty"), "").expect("writes");
    for (arguments, expected) in [
        (serve(|a, c| a[2] = text(&c.path("nowhere"))), "does `init` come first?"),
        (serve(|a, c| drop(a.splice(3..4, ["--passphrase-file".into(), text(&c.path("passphrase"))]))), "not sealed"),
        (serve(|a, c| drop(a.splice(3..4, ["--passphrase-file".into(), text(&c.path("empty"))]))), "empty"),
        (serve(|a, _| a.extend(["--private-tor".into(), "x".into()])), "contradict each other"),
    ] {
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let line = refusal(&arguments).await;
        assert!(line.contains(expected), "{expected}: {line}");
    }
    let home = text(&cluster.path("0"));
    assert!(refusal(&["init", "--home", &home, "--plain-keys"]).await.contains("exists already"));
    // A node that has asked and was granted nothing, and one whose log key is not the one in the manifest.
    let other = text(&cluster.path("other"));
    good(&["init", "--home", &other, "--plain-keys"]).await;
    let refused = async |home: &str| {
        let mut arguments = cluster.arguments(0);
        arguments[2] = home.to_owned();
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        refusal(&arguments).await
    };
    assert!(refused(&other).await.contains("`request --service ADDRESS`"));
    let asked = text(&cluster.path("other.request"));
    good(&["request", "--home", &other, "--service", &cluster.address, "--out", &asked, "--plain-keys"]).await;
    assert!(refused(&other).await.contains("hcp-irc import-grant"));
    std::fs::rename(cluster.path("other").join("log.key"), cluster.path("0").join("log.key")).expect("renames");
    assert!(refused(&home).await.contains("belong to no member of the manifest"));
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
    good(&["init", "--home", &at("home"), "--passphrase-file", &at("right")]).await;
    let (home, wrong) = (at("home"), at("wrong"));
    let line = refusal(&["serve", "--home", &home, "--passphrase-file", &wrong]).await;
    assert!(line.contains("wrong passphrase"), "{line}");
}

/// The first line is the warden's address.
async fn start_warden(cluster: &Cluster, home: &str) -> (Child, String) {
    let (stock, network) = (text(&cluster.path("stock")), format!("local:{}", cluster.path("net").display()));
    let home = text(&cluster.path(home));
    let arguments = ["warden", "--stock", &stock, "--listen", "--home", &home, "--plain-keys", "--network", &network];
    let mut command = Command::new(env!("CARGO_BIN_EXE_hcp-irc"));
    command.args(arguments).kill_on_drop(true).stdin(Stdio::null()).stdout(Stdio::piped());
    let mut child = command.spawn().expect("starts");
    let mut lines = BufReader::new(child.stdout.take().expect("is piped")).lines();
    let address = tokio::time::timeout(DEADLINE, lines.next_line()).await.expect("in time").expect("reads");
    (child, address.expect("a line"))
}

#[tokio::test]
async fn a_node_fetches_from_a_warden_that_listens() {
    let cluster = Cluster::new(1).await;
    let (owner, stock) = (text(&cluster.path("owner")), text(&cluster.path("stock")));
    let schedule =
        ["owner", "schedule", "--dir", &owner, "--hours", "100", "--rounds", "4", "--out", &stock, "--plain-keys"];
    good(&schedule).await;
    let grants = || std::fs::read_dir(cluster.path("0").join("grants")).expect("reads").count();
    assert_eq!(grants(), 1);
    let (mut warden, address) = start_warden(&cluster, "warden").await;
    let mut node = cluster.start(0, &["--warden", &address]);
    node.until(|report| report["event"] == "fetched" && report["grants"] == 1).await;
    // The others are not due.
    assert_eq!(grants(), 2);

    warden.kill().await.expect("is killed");
    let (_warden, again) = start_warden(&cluster, "warden").await;
    assert_eq!(again, address, "its key is kept");
}

#[tokio::test]
async fn a_restricted_service_is_not_served_where_nothing_can_be_hidden() {
    let cluster = Cluster::new(1).await;
    let (owner, file, home) = (cluster.path("owner"), cluster.path("cluster.toml"), cluster.path("0"));
    let (owner, file, home) = (text(&owner), text(&file), text(&home));
    let secret = text(&cluster.path("ann.auth_private"));
    let key = good(&["client-key", "--service", &cluster.address, "--out", &secret]).await;
    let line = std::fs::read_to_string(&secret).expect("written");
    assert_eq!(line.split(':').next().map(|name| format!("{name}.onion")), Some(cluster.address.clone()));
    assert!(refusal(&["client-key", "--service", &cluster.address, "--out", &secret]).await.contains("exists already"));

    let shared = std::fs::read_to_string(&file).expect("reads");
    std::fs::write(&file, format!("clients = [\"{}\"]\n{shared}", key.trim())).expect("writes");
    let signed = good(&["owner", "manifest", "--dir", &owner, "--plain-keys", &file]).await;
    assert!(signed.contains("Only 1 clients and the members find it"), "{signed}");
    good(&["owner", "grant", "--dir", &owner, "--hours", "24", "--out", &home, "--plain-keys"]).await;
    good(&["import-grant", "--home", &home, "--plain-keys", &format!("{home}/0.grant")]).await;
    let arguments = cluster.arguments(0);
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    assert!(refusal(&arguments).await.contains("cannot restrict an address"));

    // Members without a key cannot see whether they are reachable.
    let keyless: String =
        shared.lines().filter(|line| !line.starts_with("discovery_key")).map(|l| format!("{l}\n")).collect();
    std::fs::write(&file, format!("clients = [\"{}\"]\n{keyless}", key.trim())).expect("writes");
    let refused = refusal(&["owner", "manifest", "--dir", &owner, "--plain-keys", &file]).await;
    assert!(refused.contains("a member has no discovery key"), "{refused}");
}

#[tokio::test]
async fn a_member_that_is_added_replicates_while_the_others_run_on() {
    let cluster = Cluster::new(1).await;
    let at = |name: &str| text(&cluster.path(name));
    let (owner, file, granted) = (at("owner"), at("cluster.toml"), at("granted"));
    let mut first = cluster.start(0, &[]);
    first.ready().await;
    let mut ann = cluster.client("ann").await;
    read_until(&mut ann, " 422 ann ").await;
    ann.write_all(b"JOIN #a\r\nPRIVMSG #a :before\r\n").await.expect("writes");

    let block = good(&["init", "--home", &at("1"), "--plain-keys"]).await;
    let shared = std::fs::read_to_string(&file).expect("reads");
    std::fs::write(&file, format!("{shared}{block}name = \"1\"\n")).expect("writes");
    good(&["owner", "manifest", "--dir", &owner, "--plain-keys", &file]).await;
    let request = at("1.request");
    good(&["request", "--home", &at("1"), "--service", &cluster.address, "--out", &request, "--plain-keys"]).await;
    let grant = ["owner", "grant", "--dir", &owner, "--hours", "24", "--out", &granted, "--plain-keys"];
    good(&[&grant[..], &[&request]].concat()).await;
    good(&grant).await;
    for node in ["0", "1"] {
        good(&["import-grant", "--home", &at(node), "--plain-keys", &at(&format!("granted/{node}.grant"))]).await;
    }
    // It looks for grants every quarter of a minute.
    let mut second = cluster.start(1, &[]);
    second.until(|report| report["event"] == "peer" && report["live"] == true).await;
    second.once(|report| report["event"] == "ready").await;
    // The echo says that both have it on disk.
    ann.write_all(b"CAP REQ :echo-message\r\nPRIVMSG #a :after\r\n").await.expect("writes");
    read_until(&mut ann, "PRIVMSG #a :after").await;
    first.child.kill().await.expect("is killed");
    let mut bob = cluster.client("bob").await;
    read_until(&mut bob, " 422 bob ").await;
    bob.write_all(b"CAP REQ :server-time message-tags\r\nJOIN #a\r\n").await.expect("writes");
    let played = read_until(&mut bob, "PRIVMSG #a :after").await;
    assert!(played.contains("PRIVMSG #a :before"), "{played}");
}
