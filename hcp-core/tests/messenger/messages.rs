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
    restored.until_texts(&["three", "four", "five", "six"]).await;
    while alice.until_message().await.text != "six" {}
    let [came, mut went] = restored.by_direction(alice.address).await;
    assert_eq!(came, ["one", "three", "five"]);
    // What was written here stands where it came into this history: what was lost, behind what is new.
    went.sort_unstable();
    assert_eq!(went, ["four", "six", "two"]);
    assert_eq!(alice.texts(restored.address).await, ["one", "two", "three", "four", "five", "six"]);
}

#[tokio::test]
async fn a_backup_from_before_two_knew_each_other_gets_everything_back_once_they_do_again() {
    let world = World::new();
    let bob = world.person("bob").await;
    bob.messenger.shutdown().await;
    copy(&world.path("bob"), &world.path("backup"));
    let mut alice = world.online("alice").await;
    let mut bob = world.again("bob", Cursor::START).await;
    bob.go_online(&world).await;
    alice.befriend(&mut bob).await;
    for number in 0..3 {
        alice.say(bob.address, &format!("a{number}")).await;
        bob.say(alice.address, &format!("b{number}")).await;
    }
    bob.messenger.shutdown().await;
    let while_away = alice.messenger.send(bob.address, "a3").await.unwrap();

    let mut restored = world.again("backup", Cursor::START).await;
    restored.go_online(&world).await;
    // Who is remembered and does not remember decides anew.
    restored.until_state(alice.address, ContactState::Pending).await;
    assert!(restored.texts(alice.address).await.is_empty());
    assert_eq!(alice.messenger.contact(restored.address).await.unwrap().state, ContactState::Accepted);
    restored.messenger.accept(alice.address).await.unwrap();
    restored.until_texts(&["a0", "a1", "a2", "a3", "b0", "b1", "b2"]).await;
    assert_eq!(restored.by_direction(alice.address).await, [vec!["a0", "a1", "a2", "a3"], vec!["b0", "b1", "b2"]]);
    alice.until_delivered(while_away).await;
    restored.say(alice.address, "b3").await;
    assert_eq!(alice.by_direction(restored.address).await, [["b0", "b1", "b2", "b3"], ["a0", "a1", "a2", "a3"]]);
}

#[tokio::test]
async fn a_folder_that_was_copied_while_the_profile_was_open_is_a_backup_too() {
    let world = World::new();
    let (mut alice, mut bob) = world.friends().await;
    alice.say(bob.address, "one").await;
    bob.say(alice.address, "two").await;
    copy(&world.path("bob"), &world.path("backup"));
    alice.say(bob.address, "three").await;
    bob.say(alice.address, "four").await;
    bob.messenger.shutdown().await;

    let mut restored = world.again("backup", Cursor::START).await;
    assert_eq!(restored.texts(alice.address).await, ["one", "two"]);
    restored.go_online(&world).await;
    restored.until_texts(&["three", "four"]).await;
    restored.say(alice.address, "five").await;
    assert_eq!(restored.by_direction(alice.address).await, [vec!["one", "three"], vec!["two", "four", "five"]]);
    assert_eq!(alice.texts(restored.address).await, ["one", "two", "three", "four", "five"]);
}

#[tokio::test]
async fn order_is_kept_when_both_sides_were_restored() {
    let world = World::new();
    let (mut alice, bob) = world.friends().await;
    alice.say(bob.address, "m1").await;
    bob.messenger.shutdown().await;
    copy(&world.path("bob"), &world.path("bob before"));
    // Alice's backup has a message that waits, and was sent after it.
    alice.messenger.send(bob.address, "m2").await.unwrap();
    alice.messenger.back_up(world.path("alice before")).await.unwrap();
    let mut bob = world.again("bob", bob.cursor).await;
    bob.go_online(&world).await;
    bob.until_texts(&["m2"]).await;
    alice.say(bob.address, "m3").await;
    alice.messenger.shutdown().await;

    let mut alice = world.again("alice before", Cursor::START).await;
    alice.messenger.send(bob.address, "m4").await.unwrap();
    alice.go_online(&world).await;
    alice.until_texts(&["m3"]).await;
    bob.until_texts(&["m4"]).await;
    bob.messenger.shutdown().await;

    let mut bob = world.again("bob before", Cursor::START).await;
    bob.go_online(&world).await;
    bob.until_texts(&["m2", "m3", "m4"]).await;
    assert_eq!(bob.by_direction(alice.address).await[0], ["m1", "m2", "m3", "m4"]);
    alice.say(bob.address, "m5").await;
    assert_eq!(bob.texts(alice.address).await, ["m1", "m2", "m3", "m4", "m5"]);
    let mut wrote = alice.by_direction(bob.address).await[1].clone();
    wrote.sort_unstable();
    assert_eq!(wrote, ["m1", "m2", "m3", "m4", "m5"]);
}

#[tokio::test]
async fn a_cursor_of_a_life_that_was_lost_is_refused() {
    let world = World::new();
    let (mut alice, mut bob) = world.friends().await;
    bob.messenger.back_up(world.path("backup")).await.unwrap();
    for number in 0..20 {
        alice.say(bob.address, &format!("lost {number}")).await;
    }
    while bob.until_message().await.text != "lost 19" {}
    let known = bob.cursor;
    bob.messenger.shutdown().await;
    let restored = world.again("backup", Cursor::START).await;
    restored.go_online(&world).await;
    alice.say(restored.address, "new").await;
    let error = restored.messenger.events(known).await.unwrap_err();
    assert!(matches!(error, EventsError::UnknownCursor { .. }), "{error:?}");
}

#[tokio::test]
async fn two_copies_of_a_profile_at_once_lose_nothing_and_show_nothing_twice() {
    let world = World::new();
    let (mut alice, mut bob) = world.friends().await;
    alice.say(bob.address, "one").await;
    bob.messenger.back_up(world.path("copy")).await.unwrap();
    let copy = world.again("copy", Cursor::START).await;
    for round in 0..3 {
        // They take turns: two services at one address would be one too many for a network in memory.
        bob.messenger.send(alice.address, &format!("bob {round}")).await.unwrap();
        while alice.until_message().await.text != format!("bob {round}") {}
        alice.say(bob.address, &format!("to bob {round}")).await;
        bob.messenger.go_offline().await;
        copy.go_online(&world).await;
        copy.messenger.send(alice.address, &format!("copy {round}")).await.unwrap();
        while alice.until_message().await.text != format!("copy {round}") {}
        alice.say(bob.address, &format!("to copy {round}")).await;
        copy.messenger.go_offline().await;
        bob.go_online(&world).await;
    }
    let texts = |who: &'static str| (0..3).map(move |round| format!("{who} {round}"));
    let mut from_bob: Vec<String> = texts("bob").chain(texts("copy")).collect();
    let mut to_bob: Vec<String> =
        ["one".to_owned()].into_iter().chain(texts("to bob")).chain(texts("to copy")).collect();
    let missing: Vec<String> = texts("copy").chain(texts("to copy")).collect();
    bob.until_texts(&missing.iter().map(String::as_str).collect::<Vec<_>>()).await;
    from_bob.sort_unstable();
    to_bob.sort_unstable();
    for (who, direction) in [(&bob, [&to_bob, &from_bob]), (&alice, [&from_bob, &to_bob])] {
        let peer = if who.address == bob.address { alice.address } else { bob.address };
        let [mut came, mut went] = who.by_direction(peer).await;
        came.sort_unstable();
        went.sort_unstable();
        assert_eq!([&came, &went], direction);
    }
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
