//! Arbitrary bytes as everything that the log reads: what is taken is written the same, and leaves a machine as it should be.

use std::sync::LazyLock;
use std::time::Duration;

use bytes::Bytes;

use super::checkpoint::{Certificate, is_enough};
use super::entry;
use super::keys::Keys;
use super::machine::{Config, Input, Output, Recovery};
use super::message::Message;
use super::storage::{Opened, Outcome};
use super::summary;
use super::wire::Head;
#[cfg(test)]
use super::wire::Segment;
use crate::identity::delegation::OwnerKey;
use crate::identity::manifest::{Contents, Manifest, Member, Role, SoftwareVersion};
use crate::identity::{Identity, LogKey};
use crate::replica::place::NodeId;

struct Known {
    keys: Keys,
    manifest: Manifest,
    peer: NodeId,
}

static KNOWN: LazyLock<Known> = LazyLock::new(|| {
    let (service, owner) = (Identity::from_seed(&[1; 32]).address(), OwnerKey::from_seed(&[2; 32]));
    let logs = [11, 12].map(|seed| LogKey::from_seed(&[seed; 32]));
    let members = logs.iter().zip(21..).map(|(log, seed)| {
        let address = Identity::from_seed(&[seed; 32]).address();
        Member::new(address, log.public_key(), Role::Publisher).expect("two keys")
    });
    let contents = Contents::new(1, members.collect()).expect("two members");
    let manifest = Manifest::sign(&owner, service, contents).expect("the service is no member");
    let peer = NodeId(logs[1].public_key());
    Known { keys: Keys::new(service, owner.public_key(), logs[0].clone()), manifest, peer }
});

/// As a message, a header, a payload, a certificate and a summary.
pub(crate) fn log(data: &[u8]) {
    let bytes = Bytes::copy_from_slice(data);
    if let Ok(Some(message)) = Message::decode(&bytes) {
        assert_eq!(message.encode(), bytes);
        tell(message);
    }
    if let Ok(head) = Head::parse(data) {
        let again = head.to_bytes();
        // Flags that are not known here are kept in the bytes that came, and nowhere else.
        assert_eq!((again[0], &again[2..]), (data[0], &data[2..]));
    }
    if let Ok(entries) = entry::entries(&bytes)
        && let Some(salt) = data.first_chunk()
    {
        assert_eq!(entry::payload(*salt, &entries), bytes);
        assert!(entries.iter().all(|entry| entry.len() <= data.len()));
    }
    if let Some(certificate) = Certificate::parse(data) {
        assert_eq!(certificate.to_bytes(), bytes);
        let signers = certificate.signers(&KNOWN.keys, |_| true);
        assert!(signers.is_empty() || !is_enough(&signers, &KNOWN.manifest));
    }
    if let Some(ledger) = summary::decode(data, &KNOWN.keys) {
        let once = summary::encode(&ledger);
        let again = summary::decode(&once, &KNOWN.keys).expect("what was written can be read");
        assert_eq!(summary::encode(&again), once);
    }
}

/// A machine that is linked with the sender hears it twice, and lives on for a while.
fn tell(message: Message) {
    let known = &*KNOWN;
    let config =
        Config { keys: known.keys.clone(), manifest: known.manifest.clone(), software: SoftwareVersion::new(9, 0, 0) };
    let wall = 1_790_000_000_000;
    let mut now = Duration::from_secs(100);
    let recovery = Recovery::new(config, Opened::default()).expect("nothing is stored");
    let mut machine = recovery.finish(now, wall, [7; 32]);
    machine.handle(now, wall, Input::LinkUp(known.peer));
    for _ in 0..2 {
        machine.handle(now, wall, Input::Message(known.peer, message.clone()));
    }
    for _ in 0..20 {
        while let Some(output) = machine.poll_output() {
            match output {
                Output::Write(batch, _) => machine.handle(now, wall, Input::Stored(batch, Outcome::Done)),
                Output::Deliver(delivery) => assert!(delivery.items.is_empty(), "an entry that nobody wrote"),
                Output::Send(_, message) => {
                    let bytes = message.encode();
                    assert!(Message::decode(&bytes).is_ok_and(|read| read.is_some_and(|read| read.encode() == bytes)));
                }
                _ => {}
            }
        }
        now = machine.poll_timeout().max(now + Duration::from_millis(300));
        machine.handle(now, wall, Input::Tick);
    }
}

/// A segment of the known peer's, for whoever makes a corpus.
#[cfg(test)]
pub(super) fn signed(head: Head, payload: Bytes) -> Segment {
    let key = LogKey::from_seed(&[12; 32]);
    Segment::make(head, payload, |tip| key.sign(&tip.signed(KNOWN.keys.service_key())))
}
