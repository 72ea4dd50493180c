//! Messages between contacts.

use std::time::{Duration, SystemTime};

use hcp_core::messenger::{
    ContactState, Cursor, EventKind, EventsError, MAX_TEXT, MessageError, MessageState, Presence, TextError,
};

use super::harness::{World, copy};

#[tokio::test]
async fn two_talk_both_ways_and_see_each_message_once_and_in_order() {
    let world = World::new();
    let (mut alice, mut bob) = world.friends().await;
    let begin = SystemTime::now();
    for i in 0..200 {
        alice.messenger.send(bob.address, &format!("to bob {i}")).await.unwrap();
        bob.messenger.send(alice.address, &format!("to alice {i}")).await.unwrap();
    }
    for i in 0..200 {
        let (at_bob, at_alice) = (bob.until_message().await, alice.until_message().await);
        assert_eq!(at_bob.text, format!("to bob {i}"));
        assert_eq!(at_alice.text, format!("to alice {i}"));
        assert_eq!(at_bob.contact, alice.address);
        let age = at_bob.time.duration_since(begin - Duration::from_secs(1)).unwrap();
        assert!(age < Duration::from_secs(60));
    }
    let history = alice.messenger.messages(bob.address, None, 1000).await.unwrap();
    assert_eq!(history.len(), 400);
    let page = alice.messenger.messages(bob.address, Some(history[100].position), 10).await.unwrap();
    assert_eq!(page, history[90..100]);
}

#[tokio::test]
async fn what_is_written_to_somebody_offline_waits_also_over_restarts_and_can_be_cancelled() {
    let world = World::new();
    let (mut alice, bob) = world.friends().await;
    let (bob_address, cursor) = (bob.address, bob.messenger.cursor().await.unwrap());
    alice.until_presence(bob_address, Presence::Available).await;
    bob.messenger.shutdown().await;
    alice.until_presence(bob_address, Presence::Offline).await;

    let first = alice.messenger.send(bob_address, "first").await.unwrap();
    let taken_back = alice.messenger.send(bob_address, "not this one").await.unwrap();
    alice.messenger.send(bob_address, "second").await.unwrap();
    alice.messenger.cancel(taken_back).await.unwrap();
    assert!(matches!(alice.messenger.cancel(taken_back).await, Err(MessageError::TooLate(MessageState::Cancelled))));
    assert_eq!(alice.messenger.message(first).await.unwrap().state, MessageState::Queued);
    alice.messenger.shutdown().await;
    let alice = world.again("alice", Cursor::START).await;
    alice.go_online(&world).await;

    let mut bob = world.again("bob", cursor).await;
    bob.go_online(&world).await;
    assert_eq!(bob.until_message().await.text, "first");
    assert_eq!(bob.until_message().await.text, "second");
    alice.messenger.send(bob_address, "third").await.unwrap();
    assert_eq!(bob.until_message().await.text, "third");
    assert!(matches!(alice.messenger.cancel(first).await, Err(MessageError::TooLate(MessageState::Delivered))));
}

#[tokio::test]
async fn what_was_written_before_the_request_was_answered_arrives_after_it() {
    let world = World::new();
    let (mut alice, mut bob) = (world.online("alice").await, world.online("bob").await);
    alice.messenger.request(bob.address, "Bob", "hello").await.unwrap();
    alice.messenger.send(bob.address, "early").await.unwrap();
    bob.until_state(alice.address, ContactState::Pending).await;
    alice.until_state(bob.address, ContactState::RequestSent).await;
    assert!(bob.texts(alice.address).await.is_empty());
    bob.messenger.accept(alice.address).await.unwrap();
    assert_eq!(bob.until_message().await.text, "early");
}

#[tokio::test]
async fn a_restored_backup_gets_back_what_the_other_side_has_and_repeats_nothing() {
    let world = World::new();
    let (mut alice, mut bob) = world.friends().await;
    alice.say(bob.address, "one").await;
    bob.say(alice.address, "two").await;
    bob.messenger.shutdown().await;
    copy(&world.path("bob"), &world.path("backup"));
    let mut bob = world.again("bob", bob.cursor).await;
    bob.go_online(&world).await;
    alice.say(bob.address, "three").await;
    bob.say(alice.address, "four").await;
    alice.say(bob.address, "five").await;
    bob.messenger.shutdown().await;

    let mut restored = world.again("backup", Cursor::START).await;
    assert_eq!(restored.texts(alice.address).await, ["one", "two"]);
    restored.go_online(&world).await;
    restored.messenger.send(alice.address, "six").await.unwrap();
    let mut missing = vec!["three", "four", "five", "six"];
    while !missing.is_empty() {
        let text = restored
            .until("what was lost", |event| match &event.kind {
                EventKind::MessageReceived(message) | EventKind::MessageWritten(message) => Some(message.text.clone()),
                _ => None,
            })
            .await;
        missing.retain(|other| *other != text);
    }
    while alice.until_message().await.text != "six" {}
    let mut texts = restored.texts(alice.address).await;
    texts.sort_unstable();
    assert_eq!(texts, ["five", "four", "one", "six", "three", "two"]);
    assert_eq!(alice.texts(restored.address).await, ["one", "two", "three", "four", "five", "six"]);
}

#[tokio::test]
async fn events_go_on_where_a_reader_was_and_refuse_a_cursor_that_is_not_theirs() {
    let world = World::new();
    let (alice, mut bob) = world.friends().await;
    for i in 0..3 {
        alice.messenger.send(bob.address, &i.to_string()).await.unwrap();
    }
    assert_eq!(bob.until_message().await.text, "0");
    let cursor = bob.cursor;
    assert_eq!(bob.until_message().await.text, "1");
    let mut again = bob.messenger.events(cursor).await.unwrap();
    loop {
        if let EventKind::MessageReceived(message) = again.next().await.unwrap().kind {
            break assert_eq!(message.text, "1");
        }
    }
    let ahead = Cursor(1_000_000);
    assert!(matches!(bob.messenger.events(ahead).await, Err(EventsError::UnknownCursor { .. })));
    let reading = tokio::spawn(async move {
        loop {
            match again.next().await {
                Ok(_) => {}
                Err(error) => break error,
            }
        }
    });
    let waiting = bob.messenger.clone();
    let reached = tokio::spawn(async move {
        waiting.go_offline().await;
        waiting.reachable().await
    });
    // Both wait by then.
    while !matches!(*bob.messenger.status().borrow(), hcp_core::network::ListenerStatus::Stopped) {
        tokio::task::yield_now().await;
    }
    bob.messenger.shutdown().await;
    assert!(matches!(reading.await.unwrap(), EventsError::Closed));
    assert!(!reached.await.unwrap());
}

#[tokio::test]
async fn texts_are_bounded_and_lose_what_steers_a_terminal() {
    let world = World::new();
    let (alice, mut bob) = world.friends().await;
    let long = "x".repeat(MAX_TEXT + 1);
    let refused = alice.messenger.send(bob.address, &long).await;
    assert!(matches!(refused, Err(MessageError::Text(TextError::TooLong { .. }))));
    assert!(matches!(alice.messenger.send(bob.address, "\u{1b}").await, Err(MessageError::Text(TextError::Empty))));
    alice.messenger.send(bob.address, &long[1..]).await.unwrap();
    alice.messenger.send(bob.address, "\u{1b}[2Jclear\r\nline").await.unwrap();
    assert_eq!(bob.until_message().await.text.len(), MAX_TEXT);
    assert_eq!(bob.until_message().await.text, "[2Jclear\nline");
    let nobody = hcp_core::identity::Identity::generate().address();
    assert!(matches!(alice.messenger.send(nobody, "x").await, Err(MessageError::UnknownContact)));
}
