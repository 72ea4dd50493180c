//! The program around the messenger: profiles, passphrases, refusals, signals.

use std::os::unix::fs::PermissionsExt;

use hcp_demo::Place;
use hcp_demo::chat::ChatProfile;
use serde_json::json;

use crate::world::{SOON, World, program, refusal, text};

#[tokio::test]
async fn two_profiles_live_in_one_home() {
    let world = World::local();
    let (work, home) = (world.profile("work"), world.profile("private"));
    assert!(work.run(&["profiles"]).await.unwrap().starts_with("no profile in "));
    let (first, second) = (work.init("Me").await.unwrap(), home.init("Another").await.unwrap());
    assert_ne!(first, second);
    assert_eq!(work.run(&["id"]).await.unwrap(), format!("{first}\n"));
    assert_eq!(home.json(&["id"]).await.unwrap(), json!({"address": second, "name": "Another"}));
    assert_eq!(work.run(&["profiles"]).await.unwrap(), "private\nwork\n");

    let (a, b) = (work.start(&[], &[]).unwrap(), home.start(&[], &[]).unwrap());
    tokio::try_join!(a.reachable(SOON), b.reachable(SOON)).unwrap();
    assert_eq!(work.run(&["profiles"]).await.unwrap(), "private  its daemon runs\nwork  its daemon runs\n");
    let listed = work.json(&["profiles"]).await.unwrap();
    let expected = json!([{"name": "private", "daemon": true}, {"name": "work", "daemon": true}]);
    assert_eq!((&listed["home"], &listed["profiles"]), (&json!(text(&world.home())), &expected));
    let first_again = refusal(&work, &["init"]).await;
    assert!(first_again.contains("there is a profile work"), "{first_again}");
}

#[tokio::test]
async fn every_refusal_is_one_line_that_says_what_to_do() {
    let world = World::local();
    let right = world.profile("alice");
    right.init("alice").await.unwrap();
    std::fs::write(world.path("wrong"), "battery staple\n").unwrap();
    std::fs::write(world.path("empty"), "\nsecond line").unwrap();
    let with = |name: &str, passphrase: &str| {
        ChatProfile::new(program(), &world.home(), name, Place::Local(world.path("net")), &world.path(passphrase))
    };
    for (profile, arguments, expected) in [
        (with("alice", "wrong"), vec!["id"], "the passphrase is not that of the profile alice"),
        (with("alice", "wrong"), vec!["daemon"], "the passphrase is not that of the profile alice"),
        (with("alice", "empty"), vec!["id"], "is empty"),
        (with("alice", "missing"), vec!["id"], "cannot read the passphrase file"),
        (with("bob", "passphrase"), vec!["id"], "`hcp-chat init` makes it"),
        (with("bob", "passphrase"), vec!["daemon"], "`hcp-chat init` makes it"),
        (with("bob", "passphrase"), vec!["passphrase"], "`hcp-chat init` makes it"),
        (with("alice", "passphrase"), vec!["daemon", "--private-tor", "x"], "contradict each other"),
        (with("alice", "passphrase"), vec!["cancel", "x"], "32 lowercase hexadecimal digits"),
        (with("alice", "passphrase"), vec!["cancel", "0123456789abcdef0123456789abcdef"], "no message has this id"),
        (with("alice", "passphrase"), vec!["id", "--log", "a=b=c"], "--log"),
    ] {
        let line = refusal(&profile, &arguments).await;
        assert!(line.contains(expected), "{arguments:?}: {expected}: {line}");
    }
    // Nobody is at a terminal to be asked.
    let mut command = tokio::process::Command::new("setsid");
    command.arg(program()).args(["--profile", "alice", "id", "--home"]).arg(world.home());
    command.env_remove("HCP_CHAT_PASSPHRASE_FILE").stdin(std::process::Stdio::null());
    let output = command.output().await.unwrap();
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(1) && told.contains("HCP_CHAT_PASSPHRASE_FILE"), "{output:?}");
}

#[tokio::test]
async fn a_profile_is_backed_up_with_and_without_its_daemon() {
    let world = World::local();
    let (mut alice, bob) = world.friends(&[]).await;
    alice.send("bob", "kept").await;
    bob.receives(&["kept"]).await;
    // The folder of a profile in the same home, which makes the copy a profile with that name.
    let copy = world.home().join("copy");
    let copied = bob.profile.run(&["backup", &text(&copy)]).await.unwrap();
    assert_eq!(copied, format!("copied to {}\n", copy.display()));
    let again = refusal(&bob.profile, &["backup", &text(&copy)]).await;
    assert!(again.contains("there is a profile in this folder already"), "{again}");
    let (profile, address) = bob.stop().await;
    let restored = world.profile("copy");
    assert_eq!(restored.run(&["id"]).await.unwrap(), format!("{address}\n"));
    assert!(restored.run(&["history", "alice"]).await.unwrap().contains("< kept"));

    profile.run(&["backup", &text(&world.path("offline"))]).await.unwrap();
    assert!(world.path("offline/profile.db").exists() && world.path("offline/profile.key").exists());
}

#[tokio::test]
async fn the_passphrase_changes_and_the_old_one_is_worth_nothing() {
    let world = World::local();
    let profile = world.profile("alice");
    let address = profile.init("alice").await.unwrap();
    std::fs::write(world.path("new"), "another one\n").unwrap();
    profile.run(&["passphrase", "--new-passphrase-file", &text(&world.path("new"))]).await.unwrap();
    assert!(refusal(&profile, &["id"]).await.contains("the passphrase is not that"));
    let place = Place::Local(world.path("net"));
    let changed = ChatProfile::new(program(), &world.home(), "alice", place, &world.path("new"));
    assert_eq!(changed.json(&["id"]).await.unwrap()["address"], address.as_str());
}

#[tokio::test]
async fn a_profile_serves_one_program_at_a_time() {
    let world = World::local();
    let profile = world.profile("alice");
    profile.init("alice").await.unwrap();
    let daemon = profile.start(&["--no-socket"], &[]).unwrap();
    daemon.reachable(SOON).await.unwrap();
    for arguments in [["id"], ["daemon"]] {
        let line = refusal(&profile, &arguments).await;
        assert!(line.contains("is in use by another program, which does not answer on daemon.sock"), "{line}");
    }
    daemon.terminate().await.unwrap();
    profile.run(&["id"]).await.unwrap();

    // With a socket, the commands talk to the daemon, and only a second daemon is refused.
    let daemon = profile.start(&[], &[]).unwrap();
    daemon.reachable(SOON).await.unwrap();
    profile.run(&["id"]).await.unwrap();
    assert!(refusal(&profile, &["daemon"]).await.contains("is in use"));
    // A killed daemon leaves a socket behind that keeps nobody out.
    daemon.kill().await.unwrap();
    assert!(profile.folder().join("daemon.sock").exists());
    profile.run(&["id"]).await.unwrap();
    profile.start(&[], &[]).unwrap().reachable(SOON).await.unwrap();
}

#[tokio::test]
async fn the_daemon_ends_on_signals_and_with_its_supervisor_and_leaves_no_socket() {
    let world = World::local();
    let profile = world.profile("alice");
    profile.init("alice").await.unwrap();
    for end in ["TERM", "INT", "end of input"] {
        let arguments: &[&str] = if end == "end of input" { &["--until-eof"] } else { &[] };
        let mut daemon = profile.start(arguments, &[]).unwrap();
        daemon.reachable(SOON).await.unwrap();
        let mode = |name: &str| std::fs::metadata(profile.folder().join(name)).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode("."), mode("daemon.sock")), (0o700, 0o600));
        daemon.close_input();
        if end != "end of input" {
            // The end of its input alone does not end it.
            assert!(profile.run(&["status"]).await.unwrap().contains("reachable"));
            daemon.signal(end).await.unwrap();
        }
        let (status, _) = daemon.ended().await.unwrap();
        assert_eq!(status.code(), Some(0), "{end}");
        assert!(!profile.folder().join("daemon.sock").exists());
    }
}

#[tokio::test]
async fn a_very_long_home_works_too() {
    let world = World::local();
    let home = world.path(&"long".repeat(40));
    let profile =
        ChatProfile::new(program(), &home, "alice", Place::Local(world.path("net")), &world.path("passphrase"));
    let address = profile.init("alice").await.unwrap();
    let daemon = profile.start(&[], &[]).unwrap();
    daemon.reachable(SOON).await.unwrap();
    assert_eq!(profile.run(&["id"]).await.unwrap(), format!("{address}\n"));
    assert!(profile.run(&["status"]).await.unwrap().contains("reachable"));
}
