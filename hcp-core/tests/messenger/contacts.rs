//! How people come to be contacts, and cease to be.

use std::sync::Arc;

use hcp_core::messenger::{
    Availability, ContactError, ContactState, EventKind, FailureReason, MessageError, MessageState, Presence,
};

use super::harness::World;

#[tokio::test]
async fn a_request_carries_name_and_greeting_and_is_answered_by_the_user() {
    let world = World::new();
    let (mut alice, mut bob) = (world.online("Alice").await, world.online("Bob").await);
    alice.messenger.request(bob.address, "my friend", "it is me").await.unwrap();
    bob.until_state(alice.address, ContactState::Pending).await;
    let asked = bob.messenger.contact(alice.address).await.unwrap();
    assert_eq!((asked.name.as_str(), asked.greeting.as_str(), asked.petname.as_str()), ("Alice", "it is me", ""));
    alice.until_state(bob.address, ContactState::RequestSent).await;
    assert!(matches!(
        alice.messenger.request(bob.address, "", "").await,
        Err(ContactError::State(ContactState::RequestSent))
    ));
    bob.messenger.accept(alice.address).await.unwrap();
    alice.until_state(bob.address, ContactState::Accepted).await;
    alice.until_presence(bob.address, Presence::Available).await;
    let contact = alice.messenger.contact(bob.address).await.unwrap();
    assert_eq!((contact.name.as_str(), contact.petname.as_str()), ("Bob", "my friend"));
    assert_eq!(contact.presence, Presence::Available);
}

#[tokio::test]
async fn two_who_ask_each_other_are_contacts_and_keep_one_session() {
    let world = World::new();
    let (mut alice, mut bob) = (world.person("alice").await, world.person("bob").await);
    alice.messenger.request(bob.address, "", "").await.unwrap();
    bob.messenger.request(alice.address, "", "").await.unwrap();
    tokio::join!(alice.go_online(&world), bob.go_online(&world));
    alice.until_state(bob.address, ContactState::Accepted).await;
    bob.until_state(alice.address, ContactState::Accepted).await;
    alice.say(bob.address, "hi").await;
    bob.say(alice.address, "hi").await;
}

#[tokio::test]
async fn a_rejected_request_fails_what_waits_and_both_may_change_their_minds() {
    let world = World::new();
    let (mut alice, mut bob) = (world.online("alice").await, world.online("bob").await);
    alice.messenger.request(bob.address, "", "").await.unwrap();
    let waiting = alice.messenger.send(bob.address, "are you there?").await.unwrap();
    bob.until_state(alice.address, ContactState::Pending).await;
    alice.until_state(bob.address, ContactState::RequestSent).await;
    bob.messenger.reject(alice.address).await.unwrap();
    alice.messenger.connect_now(bob.address).await.unwrap();
    alice.until_state(bob.address, ContactState::Rejected).await;
    let failed = alice.messenger.message(waiting).await.unwrap();
    assert_eq!(failed.state, MessageState::Failed(FailureReason::Rejected));
    let refused = alice.messenger.send(bob.address, "please").await;
    assert!(matches!(refused, Err(MessageError::State(ContactState::Rejected))));
    bob.messenger.accept(alice.address).await.unwrap();
    alice.until_state(bob.address, ContactState::Accepted).await;
}

#[tokio::test]
async fn whoever_is_taken_off_a_list_learns_it_and_keeps_the_history() {
    let world = World::new();
    let (mut alice, mut bob) = world.friends().await;
    alice.say(bob.address, "hello").await;
    bob.messenger.archive(alice.address).await.unwrap();
    alice.until_state(bob.address, ContactState::RemovedByPeer).await;
    assert_eq!(alice.texts(bob.address).await, ["hello"]);
    assert_eq!(bob.texts(alice.address).await, ["hello"]);
    // Asking anew brings it back.
    alice.messenger.request(bob.address, "", "sorry").await.unwrap();
    bob.until_state(alice.address, ContactState::Pending).await;
    bob.messenger.accept(alice.address).await.unwrap();
    alice.until_state(bob.address, ContactState::Accepted).await;
    alice.say(bob.address, "again").await;
    assert_eq!(bob.texts(alice.address).await, ["hello", "again"]);
}

#[tokio::test]
async fn a_blocked_contact_is_left_waiting_like_a_stranger() {
    let world = World::new();
    let (mut alice, mut bob) = world.friends().await;
    alice.until_presence(bob.address, Presence::Available).await;
    bob.messenger.block(alice.address).await.unwrap();
    alice.until_presence(bob.address, Presence::Offline).await;
    let id = alice.messenger.send(bob.address, "hello?").await.unwrap();
    alice.messenger.connect_now(bob.address).await.unwrap();
    assert_eq!(alice.messenger.contact(bob.address).await.unwrap().state, ContactState::Accepted);
    assert_eq!(alice.messenger.message(id).await.unwrap().state, MessageState::Queued);
    assert!(bob.texts(alice.address).await.is_empty());
    bob.messenger.unblock(alice.address).await.unwrap();
    assert_eq!(bob.messenger.contact(alice.address).await.unwrap().state, ContactState::Archived);
    // She may have noticed by herself already.
    let _ = alice.messenger.connect_now(bob.address).await;
    alice.until_state(bob.address, ContactState::RemovedByPeer).await;
    bob.until_state(alice.address, ContactState::Archived).await;
}

#[tokio::test]
async fn availability_is_told_and_absence_is_noticed() {
    let world = World::new();
    let (mut alice, bob) = world.friends().await;
    alice.until_presence(bob.address, Presence::Available).await;
    for (availability, presence) in [
        (Availability::Away, Presence::Away),
        (Availability::ExtendedAway, Presence::ExtendedAway),
        (Availability::Available, Presence::Available),
    ] {
        bob.messenger.set_availability(availability).await.unwrap();
        alice.until_presence(bob.address, presence).await;
    }
    bob.messenger.go_offline().await;
    alice.until_presence(bob.address, Presence::Offline).await;
    bob.messenger.go_online(Arc::clone(&world.network)).await.unwrap();
    alice.until_presence(bob.address, Presence::Available).await;
}

#[tokio::test]
async fn drafts_names_and_the_own_address() {
    let world = World::new();
    let (mut alice, bob) = (world.person("alice").await, world.person("bob").await);
    alice.messenger.draft(bob.address, "Bobby").await.unwrap();
    alice.until_state(bob.address, ContactState::Draft).await;
    assert!(matches!(alice.messenger.draft(bob.address, "").await, Err(ContactError::State(ContactState::Draft))));
    alice.messenger.rename(bob.address, "Bob\u{202e}!").await.unwrap();
    assert_eq!(alice.messenger.contact(bob.address).await.unwrap().petname, "Bob!");
    assert!(matches!(alice.messenger.request(alice.address, "", "").await, Err(ContactError::Own)));
    assert!(matches!(alice.messenger.accept(bob.address).await, Err(ContactError::State(ContactState::Draft))));
    let nobody = hcp_core::identity::Identity::generate().address();
    assert!(matches!(alice.messenger.accept(nobody).await, Err(ContactError::Unknown)));
    alice.messenger.set_name("Alice").await.unwrap();
    assert_eq!(alice.messenger.name().await.unwrap(), "Alice");
    assert_eq!(alice.messenger.contacts().await.unwrap().len(), 1);
    alice.messenger.request(bob.address, "", "").await.unwrap();
    let told = alice.until("the request", |event| match &event.kind {
        EventKind::Contact(contact) if contact.state == ContactState::RequestQueued => Some(contact.petname.clone()),
        _ => None,
    });
    assert_eq!(told.await, "Bob!");
}
