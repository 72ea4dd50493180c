//! The demo of hcp-chat: two people meet on a private Tor network, talk, queue while one is away, and send a file through
//! a kill.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use hcp_core::testing::PrivateTorNetwork;
use rand::Rng as _;
use serde_json::{Value, json};

use super::{ChatDaemon, ChatProfile};
use crate::run::start_tor;
use crate::{Place, Result, Timeline, seconds};

/// Most steps take seconds; a descriptor that was fetched at the wrong moment costs minutes.
const SOON: Duration = Duration::from_secs(300);
/// Texts that are said in each part of the talk.
const TEXTS: usize = 5;
/// Bytes of the file.
const FILE: usize = 20 * 1024 * 1024;

/// Somebody with a profile and a daemon.
struct Person {
    name: &'static str,
    profile: ChatProfile,
    address: String,
    daemon: ChatDaemon,
}

/// Runs the demo with the program `hcp-chat`; it ends by itself.
///
/// # Errors
/// The first thing that did not go as it should.
pub async fn run(program: &Path) -> Result<()> {
    let timeline = Timeline::default();
    let tor = start_tor(timeline).await?;
    let folder = tempfile::tempdir()?;
    let mut alice = Person::new("alice", program, folder.path(), &tor, &[], timeline).await?;
    let downloads = folder.path().join("downloads");
    let save_to = downloads.display().to_string();
    let bob_arguments = ["--save-to", save_to.as_str()];
    let mut bob = Person::new("bob", program, folder.path(), &tor, &bob_arguments, timeline).await?;

    befriend(&mut alice, &mut bob, timeline).await?;
    talk(&mut alice, &mut bob, timeline).await?;
    let bob = away_and_back(&mut alice, bob, &bob_arguments, timeline).await?;
    send_file(&mut alice, bob, folder.path(), &downloads, &bob_arguments, timeline).await
}

impl Person {
    async fn new(
        name: &'static str,
        program: &Path,
        folder: &Path,
        tor: &PrivateTorNetwork,
        arguments: &[&str],
        timeline: Timeline,
    ) -> Result<Self> {
        let passphrase = folder.join(format!("{name}-passphrase"));
        std::fs::write(&passphrase, format!("{:032x}\n", rand::random::<u128>()))?;
        let place = Place::PrivateTor(tor.description_file().to_owned());
        let profile = ChatProfile::new(program, &folder.join(name), "default", place, &passphrase);
        let address = profile.init(name).await?;
        timeline.say(format!("{name} is {address}"));
        let daemon = profile.start(arguments, &[])?;
        let person = Self { name, profile, address, daemon };
        person.reachable(timeline).await?;
        Ok(person)
    }

    async fn reachable(&self, timeline: Timeline) -> Result<()> {
        let began = Instant::now();
        self.daemon.reachable(SOON).await.map_err(|error| format!("{}: {error}", self.name))?;
        timeline.say(format!("  {}'s daemon can be reached, {} after its start", self.name, seconds(began.elapsed())));
        Ok(())
    }

    async fn ask(&mut self, command: Value) -> Result<Value> {
        self.daemon.ask(command).await.map_err(|error| format!("{}: {error}", self.name).into())
    }

    async fn wait<T>(&self, what: &str, find: impl FnMut(&super::Printed) -> Option<T>) -> Result<T> {
        self.daemon.wait(what, SOON, find).await.map_err(|error| format!("{}: {error}", self.name).into())
    }

    async fn contact_is(&self, state: &str) -> Result<()> {
        let what = format!("the contact as {state}");
        self.wait(&what, |printed| printed.events("contact").find(|event| event["contact"]["state"] == state).map(drop))
            .await
    }

    /// Waits until exactly these texts have come, in this order.
    async fn receives(&self, texts: &[String]) -> Result<()> {
        let all = |printed: &super::Printed| (printed.received().len() >= texts.len()).then(|| printed.clone());
        let printed = self.wait("the messages", all).await?;
        let received = printed.received();
        if received == texts { Ok(()) } else { Err(format!("{} received {received:?}", self.name).into()) }
    }
}

async fn befriend(alice: &mut Person, bob: &mut Person, timeline: Timeline) -> Result<()> {
    let began = Instant::now();
    let request = json!({
        "command": "contact_add", "address": bob.address, "petname": "Bob", "greeting": "It is me, from the library",
    });
    alice.ask(request).await?;
    bob.contact_is("pending").await?;
    timeline.say(format!("alice's request is in bob's inbox after {}", seconds(began.elapsed())));
    bob.ask(json!({"command": "contact_accept", "contact": alice.address})).await?;
    alice.contact_is("accepted").await?;
    timeline.say(format!("bob accepted, and alice knows, {} after she asked", seconds(began.elapsed())));
    bob.ask(json!({"command": "contact_rename", "contact": alice.address, "petname": "Alice"})).await?;
    Ok(())
}

async fn talk(alice: &mut Person, bob: &mut Person, timeline: Timeline) -> Result<()> {
    let began = Instant::now();
    let texts = |name: &str| (1..=TEXTS).map(|i| format!("{name} says {i}")).collect::<Vec<_>>();
    let (of_alice, of_bob) = (texts("alice"), texts("bob"));
    for (from_alice, from_bob) in of_alice.iter().zip(&of_bob) {
        alice.daemon.send("Bob", from_alice).await?;
        bob.daemon.send("Alice", from_bob).await?;
    }
    alice.receives(&of_bob).await?;
    bob.receives(&of_alice).await?;
    timeline.say(format!("{} messages written and received, both ways, in {}", 2 * TEXTS, seconds(began.elapsed())));
    Ok(())
}

async fn away_and_back(alice: &mut Person, bob: Person, arguments: &[&str], timeline: Timeline) -> Result<Person> {
    let Person { name, profile, address, daemon } = bob;
    let (status, _) = daemon.terminate().await?;
    if !status.success() {
        return Err(format!("bob's daemon ended with {status}").into());
    }
    timeline.say("bob goes offline (SIGTERM)");
    let texts: Vec<_> = (1..=TEXTS).map(|i| format!("while you were away {i}")).collect();
    for text in &texts {
        alice.daemon.send("Bob", text).await?;
    }
    timeline.say(format!("alice writes {TEXTS} messages, which wait in her profile"));
    let bob = Person { name, daemon: profile.start(arguments, &[])?, profile, address };
    let began = Instant::now();
    bob.reachable(timeline).await?;
    bob.receives(&texts).await?;
    timeline.say(format!("bob is back and has all {TEXTS}, in order, {} after his start", seconds(began.elapsed())));
    Ok(bob)
}

async fn send_file(
    alice: &mut Person,
    bob: Person,
    folder: &Path,
    downloads: &Path,
    arguments: &[&str],
    timeline: Timeline,
) -> Result<()> {
    let source = folder.join("film.bin");
    let mut content = vec![0; FILE];
    rand::rng().fill_bytes(&mut content);
    std::fs::write(&source, &content)?;
    drop(content);
    let began = Instant::now();
    alice.ask(json!({"command": "file_offer", "contact": "Bob", "path": source.display().to_string()})).await?;
    let done = |printed: &super::Printed, at_least: u64| {
        printed.events("progress").filter_map(|event| event["done"].as_u64()).find(|done| *done >= at_least)
    };
    let half = bob.wait("half of the file", |printed| done(printed, FILE as u64 / 2)).await?;
    let Person { name, profile, address, daemon } = bob;
    daemon.kill().await?;
    timeline.say(format!("KILL -9: bob, who has {} of {} of the file", mebibytes(half), mebibytes(FILE as u64)));
    let kept = profile.json(&["file", "list"]).await?["transfers"]
        .as_array()
        .and_then(|transfers| transfers.last()?["done"].as_u64())
        .ok_or("bob's profile does not know the file any more")?;
    let bob = Person { name, daemon: profile.start(arguments, &[])?, profile, address };
    bob.reachable(timeline).await?;
    let resumed = bob.wait("more of the file", |printed| done(printed, 1)).await?;
    bob.wait("the whole file", |printed| {
        printed.events("transfer_state").find(|event| event["state"] == "done").map(drop)
    })
    .await?;
    timeline.say(format!("the file is complete {} after it was offered", seconds(began.elapsed())));
    let (sent, received) = (hash(&source)?, hash(&downloads.join("film.bin"))?);
    timeline.say(format!("BLAKE3 of alice's file {sent}"));
    timeline.say(format!("BLAKE3 of bob's file   {received}"));
    if sent != received {
        return Err("the files differ".into());
    }
    // What is told first is what was there, if the next piece was not quicker.
    if kept == 0 || resumed < kept {
        return Err("what was there already was sent again".into());
    }
    timeline.say(format!("{} were on bob's disk already and not sent again", mebibytes(kept)));
    Ok(())
}

fn hash(path: &PathBuf) -> Result<blake3::Hash> {
    let mut hasher = blake3::Hasher::new();
    std::io::copy(&mut std::fs::File::open(path)?, &mut hasher)?;
    Ok(hasher.finalize())
}

fn mebibytes(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1024 * 1024))
}
