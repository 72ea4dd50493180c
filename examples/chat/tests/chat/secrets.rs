//! What somebody finds who has the disk and not the passphrase.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use data_encoding::{BASE32_NOPAD, BASE64, BASE64_NOPAD, BASE64URL_NOPAD, HEXLOWER, HEXUPPER};
use hcp_core::identity::OnionAddress;
use serde_json::json;

use crate::tor;
use crate::world::text;

const GREETING: &str = "greeting-Xw3kq8: from the library";
const PETNAME: &str = "petname-J5vtz1";
const NAME_OF_ALICE: &str = "name-of-alice-Qm7h2";
const NAME_OF_BOB: &str = "name-of-bob-Ry4c9";
const TEXT_OF_ALICE: &str = "text-of-alice-Hb6n3: meet me at noon";
const TEXT_OF_BOB: &str = "text-of-bob-Zd2f5: I shall be there";
const FILE_NAME: &str = "file-name-Lk8s4.pdf";
const SAVED_NAME: &str = "saved-name-Pw6t2.pdf";
/// Stands in every kilobyte of the file.
const CONTENT: &str = "content-Vt5m8";
/// Bytes of the file: more than are sent before the end.
const LEN: usize = 32 * 1024 * 1024;

/// What is searched for, each with its name.
type Secrets = Vec<(String, Vec<u8>)>;

#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    Terminated,
    Killed,
}

#[tokio::test]
async fn a_locked_profile_on_disk_shows_nothing_after_an_orderly_end() {
    locked_profile_shows_nothing(End::Terminated).await;
}

#[tokio::test]
async fn a_locked_profile_on_disk_shows_nothing_after_a_kill() {
    locked_profile_shows_nothing(End::Killed).await;
}

async fn locked_profile_shows_nothing(end: End) {
    let world = tor::world().await;
    // Names of profiles are names of folders, and so no secret.
    let (first, second) = (world.profile("one"), world.profile("two"));
    let (of_alice, of_bob) = (first.init(NAME_OF_ALICE).await.unwrap(), second.init(NAME_OF_BOB).await.unwrap());
    let (mut alice, mut bob) = (first.start(&[], &[]).unwrap(), second.start(&[], &[]).unwrap());
    tokio::try_join!(alice.reachable(tor::TOR_DEADLINE), bob.reachable(tor::TOR_DEADLINE)).unwrap();

    let request = json!({"command": "contact_add", "address": of_bob, "petname": PETNAME, "greeting": GREETING});
    alice.ask(request).await.unwrap();
    let state = |wanted: &'static str| {
        move |printed: &hcp_demo::chat::Printed| {
            printed.events("contact").find(|event| event["contact"]["state"] == wanted).cloned()
        }
    };
    let pending = bob.wait("the request", tor::TOR_DEADLINE, state("pending")).await.unwrap();
    assert_eq!(
        (&pending["contact"]["name"], &pending["contact"]["greeting"]),
        (&json!(NAME_OF_ALICE), &json!(GREETING))
    );
    bob.ask(json!({"command": "contact_accept", "contact": of_alice})).await.unwrap();
    let accepted = alice.wait("the answer", tor::TOR_DEADLINE, state("accepted")).await.unwrap();
    assert_eq!(accepted["contact"]["name"], NAME_OF_BOB);
    alice.send(PETNAME, TEXT_OF_ALICE).await.unwrap();
    bob.send(&of_alice, TEXT_OF_BOB).await.unwrap();
    for (daemon, text) in [(&alice, TEXT_OF_BOB), (&bob, TEXT_OF_ALICE)] {
        daemon.wait(text, tor::TOR_DEADLINE, |printed| printed.received().contains(&text).then_some(())).await.unwrap();
    }
    let offered = world.path(FILE_NAME);
    std::fs::write(&offered, format!("{CONTENT:1024}").repeat(LEN / 1024)).unwrap();
    alice.ask(json!({"command": "file_offer", "contact": PETNAME, "path": text(&offered)})).await.unwrap();
    let offer = |printed: &hcp_demo::chat::Printed| {
        printed.events("transfer_offered").find(|event| event["transfer"]["name"] == FILE_NAME).cloned()
    };
    let offer = bob.wait("the offer", tor::TOR_DEADLINE, offer).await.unwrap();
    // Where the user wants to have it, which is not in the home. The end comes in the middle of it.
    let saved = world.path(SAVED_NAME);
    let accept = json!({"command": "file_accept", "transfer": offer["transfer"]["id"], "path": text(&saved)});
    bob.ask(accept).await.unwrap();
    bob.wait("some of the file", tor::TOR_DEADLINE, |printed| {
        printed.events("progress").find(|event| event["done"].as_u64() > Some(0)).map(drop)
    })
    .await
    .unwrap();
    for (daemon, copy) in [(&mut alice, "copy-of-one"), (&mut bob, "copy-of-two")] {
        let folder = text(&world.home().join(copy));
        daemon.ask(json!({"command": "backup", "folder": folder})).await.unwrap();
    }
    // One more that waits in the queue of somebody who has gone.
    match end {
        End::Terminated => drop(bob.terminate().await.unwrap()),
        End::Killed => drop(bob.kill().await.unwrap()),
    }
    alice.send(PETNAME, TEXT_OF_ALICE).await.unwrap();
    match end {
        End::Terminated => drop(alice.terminate().await.unwrap()),
        End::Killed => drop(alice.kill().await.unwrap()),
    }

    let secrets = secrets(&[&of_alice, &of_bob]);
    let mut seen = 0;
    let found = search(&world.home(), &secrets, &mut seen);
    assert!(found.is_empty(), "in the clear on disk: {found:#?}");
    assert!(seen > 100_000, "only {seen} bytes were searched");

    // The search finds what is there: first what is no secret, then each secret once it is planted.
    let magic = std::fs::read(first.folder().join("profile.key")).unwrap()[..8].to_vec();
    assert!(search(&world.home(), &vec![("magic".into(), magic)], &mut seen).iter().any(|f| f.contains("profile.key")));
    let folder = first.folder().join("tor-private/state/planted");
    std::fs::create_dir(&folder).unwrap();
    for (name, bytes) in &secrets {
        let planted = folder.join("planted");
        std::fs::write(&planted, [&[b'x'; 777], bytes.as_slice(), b"y"].concat()).unwrap();
        assert!(!search(&folder, &secrets, &mut seen).is_empty(), "{name} is not found in a file");
        std::fs::remove_file(&planted).unwrap();
        if let Ok(name) = std::str::from_utf8(bytes)
            && !name.contains('/')
        {
            let planted = folder.join(format!("x{name}y"));
            std::fs::write(&planted, "").unwrap();
            assert!(!search(&folder, &secrets, &mut seen).is_empty(), "{name} is not found in a file's name");
            std::fs::remove_file(&planted).unwrap();
        }
    }
    assert!(search(&world.home(), &secrets, &mut seen).is_empty());

    // It was the middle, and a copy is a profile.
    for name in ["two", "copy-of-two"] {
        let listed = world.profile(name).json(&["file", "list"]).await.unwrap();
        let transfer = &listed["transfers"][0];
        let done = transfer["done"].as_u64().unwrap();
        assert!(transfer["state"] == "running" && done > 0 && done < LEN as u64, "{name}: {transfer}");
    }
    assert!(world.profile("copy-of-one").json(&["history", PETNAME]).await.is_ok());
    let part = std::fs::metadata(world.path(&format!("{SAVED_NAME}.part"))).unwrap();
    assert_eq!(part.permissions().mode() & 0o077, 0, "others can read what has come of the file");
}

/// Texts and names as they are, and addresses in all their spellings.
fn secrets(addresses: &[&str]) -> Secrets {
    let words =
        [GREETING, PETNAME, NAME_OF_ALICE, NAME_OF_BOB, TEXT_OF_ALICE, TEXT_OF_BOB, FILE_NAME, SAVED_NAME, CONTENT];
    let mut secrets: Secrets = words.iter().map(|word| ((*word).to_owned(), word.as_bytes().to_vec())).collect();
    for address in addresses {
        let key = *address.parse::<OnionAddress>().unwrap().public_key();
        let bare = address.trim_end_matches(".onion");
        // With `.onion` they are found by what is before it; a key's base32 is the address but for the checksum.
        let spellings = [
            ("address", bare.to_owned()),
            ("address in capitals", bare.to_uppercase()),
            ("address with .onion", (*address).to_owned()),
            ("address with .onion in capitals", address.to_uppercase()),
            // The last character of 52 holds bits of the checksum, too.
            ("key in base32", BASE32_NOPAD.encode(&key)[..51].to_owned()),
            ("key in lowercase base32", BASE32_NOPAD.encode(&key)[..51].to_lowercase()),
            ("key in hex", HEXLOWER.encode(&key)),
            ("key in capital hex", HEXUPPER.encode(&key)),
            ("key in base64", BASE64.encode(&key)),
            ("key in base64 without padding", BASE64_NOPAD.encode(&key)),
            ("key in base64url", BASE64URL_NOPAD.encode(&key)),
        ];
        secrets.extend(spellings.into_iter().map(|(name, text)| (name.to_owned(), text.into_bytes())));
        secrets.push(("key".into(), key.to_vec()));
    }
    secrets
}

/// Where a secret stands, in a file or in a name; counts the bytes that it has seen.
fn search(folder: &Path, secrets: &Secrets, seen: &mut usize) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        let (path, kind) = (entry.path(), entry.file_type().unwrap());
        let name = entry.file_name().into_encoded_bytes();
        let mut bytes = Vec::new();
        if kind.is_dir() {
            found.extend(search(&path, secrets, seen));
        } else if kind.is_file() {
            bytes = std::fs::read(&path).unwrap();
        }
        *seen += name.len() + bytes.len();
        for (what, secret) in secrets {
            for (place, hay) in [("the name of", &name), ("", &bytes)] {
                if contains(hay, secret) {
                    found.push(format!("{what} in {place} {}", path.display()));
                }
            }
        }
    }
    found
}

fn contains(hay: &[u8], needle: &[u8]) -> bool {
    // The first byte alone rules out nearly every place.
    let mut from = 0;
    while let Some(at) = hay[from..].iter().position(|byte| *byte == needle[0]) {
        if hay[from + at..].starts_with(needle) {
            return true;
        }
        from += at + 1;
    }
    false
}
