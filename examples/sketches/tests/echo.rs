//! The echo bot as a program, with somebody who talks to it.

#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use hcp_core::identity::{OnionAddress, Passphrase};
use hcp_core::messenger::{Cursor, EventKind, Events, Messenger, Profile};
use hcp_core::network::LocalNetwork;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::time::timeout;

/// Far more than two key derivations and a reconnect after the longest early pause take.
const PATIENCE: Duration = Duration::from_secs(120);
const PASSPHRASE: &str = "correct horse battery staple";

fn bot(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sketch-echo"));
    command.args(arguments).env("HCP_PASSPHRASE", PASSPHRASE).stdout(Stdio::piped()).kill_on_drop(true);
    command
}

/// Starts the bot on a local network and reads the address that it prints.
async fn start(folder: &Path) -> (Child, OnionAddress) {
    let network = format!("local:{}", folder.join("network").display());
    let mut child = bot(&[folder.join("bot").to_str().unwrap(), &network]).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let line = timeout(PATIENCE, lines.next_line()).await.unwrap().unwrap().unwrap();
    (child, line.parse().unwrap())
}

/// Waits for the next message that came in.
async fn received(events: &mut Events) -> String {
    let next = async {
        loop {
            if let EventKind::MessageReceived(message) = events.next().await.unwrap().kind {
                return message.text;
            }
        }
    };
    timeout(PATIENCE, next).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn accepts_a_stranger_and_echoes_also_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let (mut child, address) = start(folder.path()).await;

    let profile = folder.path().join("user");
    let user = Messenger::new(Profile::create(profile, &Passphrase::new(PASSPHRASE).unwrap(), "User").unwrap());
    user.go_online(Arc::new(LocalNetwork::new(folder.path().join("network")).unwrap())).await.unwrap();
    let mut events = user.events(Cursor::START).await.unwrap();
    user.request(address, "Bot", "Please echo").await.unwrap();
    for text in ["first", "second\nwith two lines", "\u{1f9c5}"] {
        user.send(address, text).await.unwrap();
        assert_eq!(received(&mut events).await, text);
    }

    child.kill().await.unwrap();
    user.send(address, "written while the bot is dead").await.unwrap();
    let (_child, again) = start(folder.path()).await;
    assert_eq!(again, address);
    assert_eq!(received(&mut events).await, "written while the bot is dead");
}

#[tokio::test]
async fn refuses_bad_input_with_a_sentence() {
    let folder = tempfile::tempdir().unwrap();
    let home = folder.path().join("bot");
    let cases: [(&[&str], &str, &str); 3] = [
        (&[], PASSPHRASE, "usage: "),
        (&[home.to_str().unwrap()], "", "passphrase"),
        (&[home.to_str().unwrap(), "tor"], PASSPHRASE, "local:FOLDER"),
    ];
    for (arguments, passphrase, expected) in cases {
        let mut child = bot(arguments).env("HCP_PASSPHRASE", passphrase).stderr(Stdio::piped()).spawn().unwrap();
        let mut text = String::new();
        let mut errors = child.stderr.take().unwrap();
        timeout(PATIENCE, errors.read_to_string(&mut text)).await.unwrap().unwrap();
        assert_eq!(child.wait().await.unwrap().code(), Some(1), "{text}");
        assert!(text.contains(expected) && text.lines().count() == 1, "{text}");
        assert!(!home.exists());
    }
}
