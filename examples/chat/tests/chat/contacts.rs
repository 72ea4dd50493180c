//! Requests, consent, and its end.

use hcp_demo::chat::ChatProfile;
use serde_json::json;

use crate::world::{World, refusal};

#[tokio::test]
async fn a_request_is_shown_with_its_greeting_and_counts_once_it_is_accepted() {
    let world = World::local();
    let (mut alice, mut bob) = (world.person("alice", &[]).await, world.person("bob", &[]).await);
    let asked = alice
        .ask(json!({"command": "contact_add", "address": bob.address, "petname": "Robert", "greeting": "Hello\nyou"}))
        .await;
    assert_eq!(asked["contact"]["petname"], "Robert");
    let pending = bob.contact("pending").await;
    assert_eq!(pending["address"], alice.address.as_str());
    assert_eq!((&pending["name"], &pending["greeting"]), (&json!("alice"), &json!("Hello\nyou")));
    assert_eq!(pending["petname"], "");
    assert_eq!(bob.ask(json!({"command": "status"})).await["pending"], 1);
    let shown = bob.profile.run(&["contact", "list"]).await.unwrap();
    assert!(shown.contains("pending") && shown.contains("calls itself alice") && shown.contains("Hello\n    you"));

    bob.ask(json!({"command": "contact_accept", "contact": alice.address})).await;
    let accepted = alice.contact("accepted").await;
    assert_eq!((&accepted["name"], &accepted["petname"]), (&json!("bob"), &json!("Robert")));
    alice
        .wait("bob's presence", |printed| {
            printed.events("presence").find(|event| event["presence"] == "available").map(drop)
        })
        .await;
    let again = alice.daemon.reply(json!({"command": "contact_add", "address": bob.address})).await.unwrap();
    assert_eq!(again["error"]["kind"], "invalid_input", "{again}");
}

#[tokio::test]
async fn command_lines_do_what_lines_of_json_do() {
    let world = World::local();
    let (alice, bob) = (world.person("alice", &[]).await, world.person("bob", &[]).await);
    let run = |profile: &ChatProfile, line: String| {
        let profile = profile.clone();
        async move {
            let words: Vec<&str> = line.split(' ').collect();
            profile.run(&words).await.unwrap_or_else(|error| panic!("{line}: {error}"))
        }
    };
    let (a, b) = (&alice.profile, &bob.profile);
    run(a, format!("contact add {} --petname bob --greeting Hi", bob.address)).await;
    bob.contact("pending").await;
    let declined = run(b, format!("contact reject {}", alice.address)).await;
    assert!(declined.contains("  declined"), "{declined}");
    alice.contact("rejected").await;
    let accepted = run(b, format!("contact accept {}", alice.address)).await;
    assert!(accepted.contains("  accepted"), "{accepted}");
    alice.contact("accepted").await;

    let renamed = run(b, format!("contact rename {} al", alice.address)).await;
    assert!(renamed.contains("  al"), "{renamed}");
    run(b, "contact connect al".to_owned()).await;
    let sent = run(b, "send al hello".to_owned()).await;
    alice.receives(&["hello"]).await;
    let id = sent.split(['(', ')']).nth(1).unwrap_or_else(|| panic!("{sent}")).to_owned();
    bob.message_state(&id, "delivered").await;
    assert!(run(b, "history al".to_owned()).await.contains(&format!("> hello  [delivered, {id}]")));
    assert!(refusal(b, &["cancel", &id]).await.contains("cannot be cancelled any more"));

    let archived = run(b, "contact archive al".to_owned()).await;
    assert!(archived.contains("  archived"), "{archived}");
    alice.contact("removed_by_peer").await;
    let blocked = run(b, "contact block al".to_owned()).await;
    assert!(blocked.contains("  blocked"), "{blocked}");
    assert!(refusal(b, &["send", "al", "no"]).await.contains("Blocked"));
    assert!(run(b, "contact unblock al".to_owned()).await.contains("  archived"));
    assert!(run(b, "contact list".to_owned()).await.contains(&alice.address));

    // Nobody has this address, so what is written there waits.
    let nobody = hcp_core::identity::Identity::generate().address();
    run(a, format!("contact add {nobody} --petname nobody")).await;
    let queued = run(a, "send nobody later".to_owned()).await;
    let id = queued.split(['(', ')']).nth(1).unwrap_or_else(|| panic!("{queued}")).to_owned();
    assert!(run(a, format!("cancel {id}")).await.contains("cancelled"));
    assert!(run(a, "history nobody".to_owned()).await.contains(&format!("[cancelled, {id}]")));
    for (line, expected) in [
        (vec!["contact", "accept", "who"], "no contact has this petname"),
        (vec!["contact", "accept", "x.onion"], "the address is refused"),
        (vec!["contact", "add", &alice.address], "own address"),
        (vec!["send", "nobody", " "], "nothing in it can be seen"),
    ] {
        let refused = refusal(a, &line).await;
        assert!(refused.contains(expected), "{line:?}: {refused}");
    }
}

#[tokio::test]
async fn whoever_is_rejected_learns_it_and_what_was_queued_fails() {
    let world = World::local();
    let (mut alice, mut bob) = (world.person("alice", &[]).await, world.person("bob", &[]).await);
    alice.ask(json!({"command": "contact_add", "address": bob.address, "petname": "bob"})).await;
    let id = alice.send("bob", "before the answer").await;
    bob.contact("pending").await;
    bob.ask(json!({"command": "contact_reject", "contact": alice.address})).await;
    alice.contact("rejected").await;
    let failed = alice.message_state(&id, "failed").await;
    assert_eq!(failed["reason"], "rejected");
    let refused = alice.daemon.reply(json!({"command": "send", "contact": "bob", "text": "x"})).await.unwrap();
    assert_eq!(refused["error"]["kind"], "invalid_input", "{refused}");
    assert!(bob.daemon.printed().received().is_empty());
}

#[tokio::test]
async fn a_blocked_contact_gets_nothing_through_and_sees_nobody() {
    let world = World::local();
    let (mut alice, mut bob) = world.friends(&[]).await;
    alice.send("bob", "before").await;
    bob.receives(&["before"]).await;
    let seen = bob.ask(json!({"command": "contact_block", "contact": "alice"})).await;
    assert_eq!(seen["contact"]["state"], "blocked");
    alice
        .wait("bob's going", |printed| {
            printed.events("presence").last().filter(|event| event["presence"] == "offline").map(drop)
        })
        .await;
    let id = alice.send("bob", "while blocked").await;
    alice.ask(json!({"command": "contact_connect", "contact": "bob"})).await;

    // Somebody else's message that was written later shows that bob is there and receives.
    let mut carol = world.person("carol", &[]).await;
    carol.ask(json!({"command": "contact_add", "address": bob.address, "petname": "bob"})).await;
    bob.wait("carol's request", |printed| {
        printed.events("contact").find(|event| event["contact"]["address"] == carol.address.as_str()).map(drop)
    })
    .await;
    bob.ask(json!({"command": "contact_accept", "contact": carol.address})).await;
    carol.contact("accepted").await;
    carol.send("bob", "from carol").await;
    bob.receives(&["before", "from carol"]).await;
    let history = bob.ask(json!({"command": "history", "contact": "alice"})).await;
    assert_eq!(history["messages"].as_array().unwrap().len(), 1, "{history}");
    let delivered = |printed: &hcp_demo::chat::Printed| {
        printed.events("message_state").any(|event| event["id"] == id.as_str() && event["state"] == "delivered")
    };
    assert!(!delivered(&alice.daemon.printed()));

    // After the block, both can begin anew.
    let seen = bob.ask(json!({"command": "contact_unblock", "contact": "alice"})).await;
    assert_eq!(seen["contact"]["state"], "archived");
}

#[tokio::test]
async fn petnames_stand_for_contacts_unless_they_are_ambiguous() {
    let world = World::local();
    let alice = world.profile("alice");
    let own = alice.init("alice").await.unwrap();
    let (bob, carol) = (world.profile("bob").init("").await.unwrap(), world.profile("carol").init("").await.unwrap());
    for address in [&bob, &carol] {
        alice.run(&["contact", "add", address, "--petname", "friend"]).await.unwrap();
    }
    let ambiguous = crate::world::refusal(&alice, &["send", "friend", "x"]).await;
    assert!(ambiguous.contains("several contacts"), "{ambiguous}");
    alice.run(&["contact", "rename", &bob.to_uppercase(), "Bob the builder"]).await.unwrap();
    alice.run(&["send", "friend", "to carol"]).await.unwrap();
    alice.run(&["send", "Bob the builder", "to bob"]).await.unwrap();
    for (address, text) in [(&bob, "to bob"), (&carol, "to carol")] {
        let history = alice.json(&["history", address]).await.unwrap();
        assert_eq!(history["messages"][0]["text"], text);
    }
    for (who, expected) in [
        ("nobody", "no contact has this petname"),
        ("", "no contact has this petname"),
        (&format!("{}.onion", "a".repeat(56)), "the address is refused"),
        (&own, "no contact has this address"),
    ] {
        let line = crate::world::refusal(&alice, &["send", who, "x"]).await;
        assert!(line.contains(expected), "{who}: {line}");
    }
    let line = crate::world::refusal(&alice, &["contact", "add", &own]).await;
    assert!(line.contains("own address"), "{line}");
}
