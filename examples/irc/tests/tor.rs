//! A node on a private Tor network, and a real IRC client that reaches it through C tor.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use hcp_core::testing::PrivateTorNetwork;
use hcp_demo::{Cluster, Place, User, dial_socks};

const SOON: Duration = Duration::from_secs(120);

/// WeeChat in a terminal of its own; ends with the test.
struct WeeChat {
    socket: PathBuf,
}

impl WeeChat {
    fn start(folder: &Path, commands: &str) -> Self {
        let socket = folder.join("tmux");
        let client = Self { socket };
        let home = folder.join("weechat");
        let home = home.display();
        client.tmux(
            &["-f", "/dev/null", "new-session", "-d", "-x", "160", "-y", "50", "-s", "irc", "--"].map(String::from),
            &[
                "weechat".to_owned(),
                "--no-connect".to_owned(),
                "--dir".to_owned(),
                home.to_string(),
                "--run-command".to_owned(),
                commands.to_owned(),
            ],
        );
        client
    }

    fn tmux(&self, arguments: &[String], more: &[String]) -> String {
        let output = Command::new("tmux").arg("-S").arg(&self.socket).args(arguments).args(more).output();
        let output = output.expect("tmux is installed: make deps");
        assert!(output.status.success(), "tmux {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    fn type_line(&self, line: &str) {
        self.tmux(&["send-keys", "-t", "irc", "-l", line].map(String::from), &[]);
        self.tmux(&["send-keys", "-t", "irc", "Enter"].map(String::from), &[]);
    }

    async fn shows(&self, text: &str) {
        let deadline = Instant::now() + SOON;
        loop {
            let screen = self.tmux(&["capture-pane", "-p", "-t", "irc"].map(String::from), &[]);
            if screen.contains(text) {
                return;
            }
            assert!(Instant::now() < deadline, "no {text:?} on the screen:\n{screen}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

impl Drop for WeeChat {
    fn drop(&mut self) {
        let _ = Command::new("tmux").arg("-S").arg(&self.socket).arg("kill-server").status();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_real_irc_client_talks_through_c_tor() {
    let tor = PrivateTorNetwork::shared().await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let program = Path::new(env!("CARGO_BIN_EXE_hcp-irc"));
    let place = Place::PrivateTor(tor.description_file().to_owned());
    let cluster = Cluster::create(program, folder.path(), place, 1, 200).await.unwrap();
    let mut node = cluster.start(0).unwrap();
    node.wait("readiness", SOON, |node| node.ready.is_some()).await.unwrap();
    let ready = node.state().ready.unwrap_or_default();
    assert!(ready < Duration::from_secs(15), "reachable only {ready:?} after its start");

    let client = tor.start_client().await.unwrap();
    let other = User::new("alice", "#hcp", dial_socks(client.socks_addr(), &cluster.address));
    other.wait("joining", SOON, |user| user.joined).await.unwrap();

    let proxy = client.socks_addr();
    let commands = format!(
        "/proxy add tor socks5 {} {}; /server add hcp {}/6667 -notls -proxy=tor -nicks=walter -autojoin=#hcp; /connect hcp",
        proxy.ip(),
        proxy.port(),
        cluster.address
    );
    let weechat = WeeChat::start(folder.path(), &commands);
    weechat.shows("walter").await;
    weechat.type_line("/buffer #hcp");
    weechat.shows("alice").await;
    other.say("hello walter, this came through an onion service");
    weechat.shows("hello walter, this came through an onion service").await;
    weechat.type_line("and hello alice, typed into a real client");
    let heard = |user: &hcp_demo::UserState| user.has_heard("and hello alice, typed into a real client");
    let state = other.wait("what was typed", SOON, heard).await.unwrap();
    assert_eq!(state.heard.last().map(|heard| heard.from.as_str()), Some("walter"));
    weechat.type_line("/whois alice");
    // Only operators set topics; of a channel of one's own one is the operator.
    weechat.type_line("/join #walter");
    weechat.shows("has joined #walter").await;
    weechat.type_line("/topic a topic set from a real client");
    weechat.shows("a topic set from a real client").await;
    weechat.type_line("/quit");
    other.wait("the quit", SOON, |user| user.left.iter().any(|nick| nick == "walter")).await.unwrap();
}
