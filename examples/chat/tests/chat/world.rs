//! A folder with people in it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use hcp_demo::Place;
use hcp_demo::chat::{ChatDaemon, ChatProfile, Printed};
use serde_json::{Value, json};

/// For anything on loopback, on a machine that is busy with other tests. Attempts to dial pause for up to a minute.
pub(crate) const SOON: Duration = Duration::from_secs(120);

/// A home for all profiles, and a network.
pub(crate) struct World {
    folder: tempfile::TempDir,
    place: Place,
    pub(crate) deadline: Duration,
}

/// Somebody with a profile and a running daemon.
pub(crate) struct Person {
    pub(crate) profile: ChatProfile,
    pub(crate) address: String,
    pub(crate) daemon: ChatDaemon,
    deadline: Duration,
}

impl World {
    /// On loopback.
    pub(crate) fn local() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let place = Place::Local(folder.path().join("net"));
        Self::on(folder, place, SOON)
    }

    pub(crate) fn on(folder: tempfile::TempDir, place: Place, deadline: Duration) -> Self {
        std::fs::write(
            folder.path().join("passphrase"),
            "correct horse battery staple\nmore lines count for nothing\n",
        )
        .unwrap();
        Self { folder, place, deadline }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn home(&self) -> PathBuf {
        self.path("home")
    }

    /// A profile that is not made yet.
    pub(crate) fn profile(&self, name: &str) -> ChatProfile {
        let passphrase = self.path("passphrase");
        ChatProfile::new(program(), &self.home(), name, self.place.clone(), &passphrase)
    }

    pub(crate) async fn person(&self, name: &str, arguments: &[&str]) -> Person {
        let profile = self.profile(name);
        let address = profile.init(name).await.unwrap();
        let daemon = profile.start(arguments, &[]).unwrap();
        daemon.reachable(self.deadline).await.unwrap();
        Person { profile, address, daemon, deadline: self.deadline }
    }

    /// Two people who have each other in their lists, under their names.
    pub(crate) async fn friends(&self, of_bob: &[&str]) -> (Person, Person) {
        let (mut alice, mut bob) = tokio::join!(self.person("alice", &[]), self.person("bob", of_bob));
        alice.ask(json!({"command": "contact_add", "address": bob.address, "petname": "bob"})).await;
        bob.contact("pending").await;
        bob.ask(json!({"command": "contact_accept", "contact": alice.address})).await;
        bob.ask(json!({"command": "contact_rename", "contact": alice.address, "petname": "alice"})).await;
        alice.contact("accepted").await;
        (alice, bob)
    }
}

impl Person {
    pub(crate) async fn ask(&mut self, command: Value) -> Value {
        self.daemon.ask(command).await.unwrap()
    }

    pub(crate) async fn send(&mut self, contact: &str, text: &str) -> String {
        self.daemon.send(contact, text).await.unwrap()
    }

    pub(crate) async fn wait<T>(&self, what: &str, find: impl FnMut(&Printed) -> Option<T>) -> T {
        let name = &self.profile.name;
        let found = self.daemon.wait(what, self.deadline, find).await;
        found.unwrap_or_else(|error| panic!("{name}: {error}; printed: {:#?}", self.daemon.printed().lines))
    }

    /// Waits for the event that a contact is in a state; the contact.
    pub(crate) async fn contact(&self, state: &str) -> Value {
        let is = |event: &&Value| event["contact"]["state"] == state;
        self.wait(&format!("a contact that is {state}"), |printed| {
            printed.events("contact").find(is).map(|event| event["contact"].clone())
        })
        .await
    }

    /// Waits until a message is in a state; the event.
    pub(crate) async fn message_state(&self, id: &str, state: &str) -> Value {
        let is = |event: &&Value| event["id"] == id && event["state"] == state;
        self.wait(&format!("a message that is {state}"), |printed| printed.events("message_state").find(is).cloned())
            .await
    }

    /// Waits until as many messages have come and checks them all.
    pub(crate) async fn receives(&self, texts: &[&str]) {
        let enough = |printed: &Printed| (printed.received().len() >= texts.len()).then(|| printed.clone());
        let printed = self.wait(&format!("{} messages", texts.len()), enough).await;
        assert_eq!(printed.received(), texts);
    }

    /// Waits until a transfer is in a state.
    pub(crate) async fn transfer_state(&self, id: &str, state: &str) -> Value {
        let is = |event: &&Value| event["id"] == id && event["state"] == state;
        self.wait(&format!("a transfer that is {state}"), |printed| printed.events("transfer_state").find(is).cloned())
            .await
    }

    /// Starts the daemon anew, after [`Self::stop`] or a kill.
    pub(crate) async fn again(profile: ChatProfile, address: String, arguments: &[&str], deadline: Duration) -> Self {
        let daemon = profile.start(arguments, &[]).unwrap();
        daemon.reachable(deadline).await.unwrap();
        Self { profile, address, daemon, deadline }
    }

    /// Ends the daemon as a supervisor does.
    pub(crate) async fn stop(self) -> (ChatProfile, String) {
        let (status, _) = self.daemon.terminate().await.unwrap();
        assert_eq!(status.code(), Some(0));
        (self.profile, self.address)
    }
}

pub(crate) fn program() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_hcp-chat"))
}

/// Runs a command that must fail, and returns the one line that it fails with.
pub(crate) async fn refusal(profile: &ChatProfile, arguments: &[&str]) -> String {
    let output = profile.output(arguments).await.unwrap();
    assert_eq!(output.status.code(), Some(1), "{arguments:?}: {output:?}");
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(text.starts_with("hcp-chat: ") && text.lines().count() == 1, "{arguments:?}: {text}");
    text
}

pub(crate) fn text(path: &Path) -> String {
    path.to_str().unwrap().to_owned()
}
