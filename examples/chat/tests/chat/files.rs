//! Files, through kills too.

use std::path::Path;

use serde_json::{Value, json};

use crate::world::{Person, SOON, World, text};

/// Bytes that look random, to compare and not to compress.
fn make_file(path: &Path, len: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(len);
    std::fs::write(path, &bytes).unwrap();
    bytes
}

fn id(reply: &Value) -> String {
    reply["transfer"]["id"].as_str().unwrap().to_owned()
}

async fn offered(person: &Person) -> Value {
    person.wait("an offer", |printed| printed.events("transfer_offered").last().map(|e| e["transfer"].clone())).await
}

#[tokio::test]
async fn a_file_survives_the_kill_of_its_receiver_and_is_not_sent_again() {
    const LEN: usize = 64 * 1024 * 1024;
    let world = World::local();
    let downloads = text(&world.path("downloads"));
    let arguments = ["--save-to", &downloads];
    let (mut alice, bob) = world.friends(&arguments).await;
    let source = world.path("film.bin");
    let content = make_file(&source, LEN);
    let transfer = id(&alice.ask(json!({"command": "file_offer", "contact": "bob", "path": text(&source)})).await);
    bob.wait("a quarter of the file", |printed| {
        printed.events("progress").find(|event| event["done"].as_u64() >= Some(LEN as u64 / 4)).map(drop)
    })
    .await;
    let (profile, address) = (bob.profile.clone(), bob.address.clone());
    let printed = bob.daemon.kill().await.unwrap();
    assert!(printed.events("transfer_state").all(|event| event["state"] != "done"), "it was too fast to be killed");
    assert!(!world.path("downloads/film.bin").exists());

    let kept = profile.json(&["file", "list"]).await.unwrap()["transfers"][0]["done"].as_u64().unwrap();
    assert!((1..LEN as u64).contains(&kept), "{kept}");
    let bob = Person::again(profile, address, &arguments, SOON).await;
    bob.transfer_state(&transfer, "done").await;
    alice.transfer_state(&transfer, "done").await;
    let progress: Vec<_> = bob.daemon.printed().events("progress").filter_map(|event| event["done"].as_u64()).collect();
    assert!(progress.iter().all(|done| *done >= kept), "{kept} bytes were kept, then {progress:?}");
    assert!(std::fs::read(world.path("downloads/film.bin")).unwrap() == content, "the file differs");
    assert_eq!(std::fs::read_dir(world.path("downloads")).unwrap().count(), 1, "something is left beside the file");
}

#[tokio::test]
async fn files_are_accepted_declined_and_cancelled_by_hand() {
    let world = World::local();
    let (mut alice, bob) = world.friends(&[]).await;
    let source = world.path("notes.txt");
    let content = make_file(&source, 100_000);
    let path = text(&source);

    // Through the daemon's socket, with the short spelling.
    let printed = alice.profile.run(&["file", "bob", &path]).await.unwrap();
    assert!(printed.contains("offered") && printed.contains("notes.txt"), "{printed}");
    let offer = offered(&bob).await;
    assert_eq!(
        (&offer["name"], &offer["size"], &offer["direction"]),
        (&json!("notes.txt"), &json!(100_000), &json!("incoming"))
    );
    let first = offer["id"].as_str().unwrap().to_owned();
    std::fs::create_dir(world.path("saved")).unwrap();
    let accepted = bob.profile.json(&["file", "accept", &first, &text(&world.path("saved"))]).await.unwrap();
    assert_eq!(accepted["transfer"]["path"], text(&world.path("saved/notes.txt")).as_str());
    bob.transfer_state(&first, "done").await;
    alice.transfer_state(&first, "done").await;
    assert!(std::fs::read(world.path("saved/notes.txt")).unwrap() == content);

    let second = id(&alice.ask(json!({"command": "file_offer", "contact": "bob", "path": path})).await);
    bob.wait("the second offer", |printed| {
        printed.events("transfer_offered").find(|event| event["transfer"]["id"] == second.as_str()).map(drop)
    })
    .await;
    let line = crate::world::refusal(&bob.profile, &["file", "accept", &second, &text(&world.path("saved"))]).await;
    assert!(line.contains("exists already"), "{line}");
    bob.profile.run(&["file", "decline", &second]).await.unwrap();
    alice.transfer_state(&second, "declined").await;

    let third = id(&alice.ask(json!({"command": "file_offer", "contact": "bob", "path": path})).await);
    alice.profile.run(&["file", "cancel", &third]).await.unwrap();
    bob.transfer_state(&third, "cancelled").await;
    let listed = bob.profile.run(&["file", "list"]).await.unwrap();
    let states: Vec<_> = listed.lines().map(|line| line.split_whitespace().nth(1).unwrap()).collect();
    assert_eq!(states, ["done", "declined", "cancelled"], "{listed}");
}

#[tokio::test]
async fn what_cannot_be_offered_is_refused_with_its_reason() {
    let world = World::local();
    let alice = world.profile("alice");
    alice.init("").await.unwrap();
    let bob = world.profile("bob").init("").await.unwrap();
    alice.run(&["contact", "add", &bob, "--petname", "bob"]).await.unwrap();
    make_file(&world.path("file"), 10);
    let (missing, file, folder) = (text(&world.path("missing")), text(&world.path("file")), text(&world.path("home")));
    for arguments in [
        ["file", "offer", "bob", missing.as_str()],
        ["file", "offer", "bob", folder.as_str()],
        ["file", "offer", "nobody", file.as_str()],
        ["file", "accept", "0123456789abcdef0123456789abcdef", file.as_str()],
        ["file", "accept", "no id", file.as_str()],
    ] {
        crate::world::refusal(&alice, &arguments).await;
    }
}
