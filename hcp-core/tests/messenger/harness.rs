//! Messengers on one network, and waiting for what they tell.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use hcp_core::identity::keyfile::Argon2Cost;
use hcp_core::identity::{Identity, OnionAddress, Passphrase};
use hcp_core::messenger::{
    ContactState, Cursor, Direction, Event, EventKind, Events, Message, MessageId, MessageState, Messenger, Presence,
    Profile,
};
use hcp_core::network::{MemoryNetwork, Network};
use tempfile::TempDir;

/// How long anything may take.
pub(super) const DEADLINE: Duration = Duration::from_secs(30);

pub(super) fn passphrase() -> Passphrase {
    Passphrase::new("correct horse").unwrap()
}

/// The cheapest key that is allowed, since these tests are not about it.
pub(super) fn cheap() -> Argon2Cost {
    Argon2Cost::new(*Argon2Cost::MEMORY_KIB.start(), *Argon2Cost::PASSES.start(), *Argon2Cost::LANES.start()).unwrap()
}

pub(super) struct World {
    pub(super) network: Arc<dyn Network>,
    folder: TempDir,
}

impl World {
    pub(super) fn new() -> Self {
        Self { network: Arc::new(MemoryNetwork::new()), folder: tempfile::tempdir().unwrap() }
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A new person, offline.
    pub(super) async fn person(&self, name: &str) -> Person {
        let profile = Profile::create_for(Identity::generate(), self.path(name), &passphrase(), name, cheap()).unwrap();
        Person::of(profile, Cursor::START).await
    }

    /// A new person, online.
    pub(super) async fn online(&self, name: &str) -> Person {
        let person = self.person(name).await;
        person.messenger.go_online(Arc::clone(&self.network)).await.unwrap();
        person
    }

    /// A person who comes back, offline.
    pub(super) async fn again(&self, name: &str, cursor: Cursor) -> Person {
        Person::of(Profile::open(self.path(name), &passphrase()).unwrap(), cursor).await
    }

    /// Two who are contacts and online.
    pub(super) async fn friends(&self) -> (Person, Person) {
        let (mut alice, mut bob) = (self.online("alice").await, self.online("bob").await);
        alice.befriend(&mut bob).await;
        (alice, bob)
    }
}

pub(super) struct Person {
    pub(super) messenger: Messenger,
    pub(super) address: OnionAddress,
    pub(super) events: Events,
    pub(super) cursor: Cursor,
}

impl Person {
    async fn of(profile: Profile, cursor: Cursor) -> Self {
        let messenger = Messenger::new(profile);
        let events = messenger.events(cursor).await.unwrap();
        Self { address: messenger.address(), messenger, events, cursor }
    }

    pub(super) async fn go_online(&self, world: &World) {
        self.messenger.go_online(Arc::clone(&world.network)).await.unwrap();
    }

    /// Asks somebody, who accepts.
    pub(super) async fn befriend(&mut self, other: &mut Self) {
        self.messenger.request(other.address, "", "").await.unwrap();
        other.until_state(self.address, ContactState::Pending).await;
        other.messenger.accept(self.address).await.unwrap();
        self.until_state(other.address, ContactState::Accepted).await;
    }

    /// The next event that `wanted` makes something of.
    pub(super) async fn until<R>(&mut self, what: &str, mut wanted: impl FnMut(&Event) -> Option<R>) -> R {
        let search = async {
            loop {
                let event = self.events.next().await.unwrap();
                self.cursor = event.cursor;
                if let Some(found) = wanted(&event) {
                    return found;
                }
            }
        };
        tokio::time::timeout(DEADLINE, search).await.unwrap_or_else(|_| panic!("no event: {what}"))
    }

    pub(super) async fn until_state(&mut self, contact: OnionAddress, state: ContactState) {
        let wanted = |event: &Event| match &event.kind {
            EventKind::Contact(told) if told.address == contact && told.state == state => Some(()),
            _ => None,
        };
        self.until(&format!("a contact that is {state:?}"), wanted).await;
    }

    pub(super) async fn until_presence(&mut self, contact: OnionAddress, presence: Presence) {
        let wanted = |event: &Event| match &event.kind {
            EventKind::Presence { contact: told, presence: now } if *told == contact && *now == presence => Some(()),
            _ => None,
        };
        self.until(&format!("a contact that is {presence:?}"), wanted).await;
    }

    pub(super) async fn until_message(&mut self) -> Message {
        let wanted = |event: &Event| match &event.kind {
            EventKind::MessageReceived(message) => Some(message.clone()),
            _ => None,
        };
        self.until("a message", wanted).await
    }

    /// Sends and waits until it lies on the other's disk.
    pub(super) async fn say(&mut self, contact: OnionAddress, text: &str) {
        let id = self.messenger.send(contact, text).await.unwrap();
        self.until_delivered(id).await;
    }

    pub(super) async fn until_delivered(&mut self, id: MessageId) {
        self.until("a delivery", |event| match event.kind {
            EventKind::MessageState { id: told, state: MessageState::Delivered, .. } if told == id => Some(()),
            _ => None,
        })
        .await;
    }

    /// Waits for all of these texts, received or given back as own ones, in whatever order.
    pub(super) async fn until_texts(&mut self, texts: &[&str]) {
        let mut missing = texts.to_vec();
        while !missing.is_empty() {
            let text = self
                .until(&format!("one of {missing:?}"), |event| match &event.kind {
                    EventKind::MessageReceived(message) | EventKind::MessageWritten(message) => {
                        Some(message.text.clone())
                    }
                    _ => None,
                })
                .await;
            missing.retain(|other| *other != text);
        }
    }

    pub(super) async fn texts(&self, contact: OnionAddress) -> Vec<String> {
        let messages = self.messenger.messages(contact, None, 1000).await.unwrap();
        messages.into_iter().map(|message| message.text).collect()
    }

    /// The texts that came from a contact, and those that went there.
    pub(super) async fn by_direction(&self, contact: OnionAddress) -> [Vec<String>; 2] {
        let messages = self.messenger.messages(contact, None, 1000).await.unwrap();
        let (came, went): (Vec<_>, Vec<_>) =
            messages.into_iter().partition(|message| message.direction == Direction::Incoming);
        [came, went].map(|messages| messages.into_iter().map(|message| message.text).collect())
    }
}

/// Copies a folder, as a user would who makes a backup.
pub(super) fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_file() {
            std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
        }
    }
}
