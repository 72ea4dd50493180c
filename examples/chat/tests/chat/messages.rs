//! Talking, queueing, taking back.

use serde_json::json;

use crate::world::{Person, SOON, World};

#[tokio::test]
async fn messages_go_both_ways_in_order_and_are_confirmed() {
    let world = World::local();
    let (mut alice, mut bob) = world.friends(&[]).await;
    let texts: Vec<String> = (0..50).map(|i| format!("text {i} with \"quotes\", ü, 🦊 and\na second line")).collect();
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    let mut ids = (Vec::new(), Vec::new());
    for text in &texts {
        ids.0.push(alice.send("bob", text).await);
        ids.1.push(bob.send("alice", text).await);
    }
    tokio::join!(alice.receives(&texts), bob.receives(&texts));
    for (person, ids) in [(&alice, &ids.0), (&bob, &ids.1)] {
        for id in ids {
            person.message_state(id, "delivered").await;
        }
    }
    let history = bob.ask(json!({"command": "history", "contact": "alice", "limit": 1000})).await;
    let of = |direction: &str| -> Vec<String> {
        let messages = history["messages"].as_array().unwrap().iter();
        let of = messages.filter(|message| message["direction"] == direction);
        of.map(|message| message["text"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!((of("incoming"), of("outgoing")), (texts.iter().map(|t| (*t).to_owned()).collect(), of("incoming")));
}

#[tokio::test]
async fn what_is_written_to_somebody_away_arrives_when_they_are_back() {
    let world = World::local();
    let (mut alice, bob) = world.friends(&[]).await;
    let (bob, address) = bob.stop().await;
    let mut ids = Vec::new();
    for text in ["one", "two", "three"] {
        ids.push(alice.send("bob", text).await);
    }
    // Taking it back works while it waits, and once.
    let cancelled = alice.send("bob", "a slip").await;
    alice.ask(json!({"command": "cancel", "message": cancelled})).await;
    alice.message_state(&cancelled, "cancelled").await;
    let again = alice.daemon.reply(json!({"command": "cancel", "message": cancelled})).await.unwrap();
    assert_eq!(again["error"]["kind"], "refused", "{again}");
    // The queue outlives the sender's process, too.
    let (alice, of_alice) = alice.stop().await;
    let queued = alice.run(&["send", "bob", "four"]).await.unwrap();
    assert!(queued.starts_with("queued: `hcp-chat daemon` delivers it ("), "{queued}");

    let mut alice = Person::again(alice, of_alice, &[], SOON).await;
    let bob = Person::again(bob, address, &[], SOON).await;
    alice.ask(json!({"command": "contact_connect", "contact": "bob"})).await;
    bob.receives(&["one", "two", "three", "four"]).await;
    for id in &ids {
        alice.message_state(id, "delivered").await;
    }
    let late = alice.daemon.reply(json!({"command": "cancel", "message": ids[0]})).await.unwrap();
    assert_eq!(late["error"]["kind"], "refused", "{late}");
    let shown = alice.profile.run(&["history", "bob"]).await.unwrap();
    let states: Vec<_> = shown.lines().map(|line| line.split(['[', ',']).nth(1).unwrap()).collect();
    assert_eq!(states, ["delivered", "delivered", "delivered", "cancelled", "delivered"], "{shown}");
}

#[tokio::test]
async fn a_profile_without_a_daemon_queues_takes_back_and_shows() {
    let world = World::local();
    let (alice, bob) = (world.profile("alice"), world.profile("bob"));
    alice.init("alice").await.unwrap();
    let address = bob.init("bob").await.unwrap();
    let asked = alice.run(&["contact", "add", &address, "--petname", "bob", "--greeting", "hi"]).await.unwrap();
    assert_eq!(asked, format!("{address}  request queued  bob\n`hcp-chat daemon` goes on with it\n"));
    let sent = alice.json(&["send", "bob", "kept"]).await.unwrap();
    assert_eq!(sent["state"], "queued");
    let slip = alice.json(&["send", "bob", "a slip"]).await.unwrap();
    let slip = slip["message"].as_str().unwrap();
    assert_eq!(alice.run(&["cancel", slip]).await.unwrap(), format!("cancelled ({slip})\n"));
    let history = alice.json(&["history", "bob", "--limit", "1"]).await.unwrap();
    assert_eq!(history["messages"][0]["state"], "cancelled");
    assert_eq!(history["messages"].as_array().unwrap().len(), 1);
    assert!(alice.run(&["status"]).await.unwrap().contains("offline: no daemon runs"));
}

#[tokio::test]
async fn events_go_on_behind_a_cursor_after_a_restart() {
    let world = World::local();
    let (mut alice, bob) = world.friends(&[]).await;
    alice.send("bob", "one").await;
    bob.receives(&["one"]).await;
    let cursor = bob.daemon.printed().cursor().unwrap();
    let (bob, address) = bob.stop().await;
    alice.send("bob", "two").await;
    let bob = Person::again(bob, address, &["--after", &cursor.to_string()], SOON).await;
    alice.ask(json!({"command": "contact_connect", "contact": "bob"})).await;
    bob.receives(&["two"]).await;
    let (bob, address) = bob.stop().await;
    let bob = Person::again(bob, address, &["--after", "0"], SOON).await;
    bob.receives(&["one", "two"]).await;
    let (bob, _) = bob.stop().await;
    let unknown = crate::world::refusal(&bob, &["daemon", "--after", "1000000000000"]).await;
    assert!(unknown.contains("events behind 1000000000000 are not known"), "{unknown}");
}
