//! An owner and nodes that play what happens between them, and each way in which something else is refused.

mod book;
mod grants;
mod holdings;
mod requests;

use std::path::Path;

use super::grant::Parts;
use super::*;
use crate::identity::delegation::{OwnerCertificate, OwnerKey, Validity};
use crate::identity::manifest::{Contents, Manifest, Member, Role};
use crate::identity::{Identity, LogKey, OnionAddress, ReplicaSeed, RevisionSeed};

/// In the first half of a period of the public network, at a full hour.
pub(super) const NOW: u64 = 20_000 * DAY + 14 * HOUR;
pub(super) const DAY: u64 = 86_400;
pub(super) const HOUR: u64 = 3600;

/// An owner with some nodes, the last of which does not publish.
pub(super) struct Service {
    pub(super) identity: Identity,
    pub(super) signer: IdentitySigner,
    pub(super) key: OwnerKey,
    pub(super) certificate: OwnerCertificate,
    pub(super) revisions: RevisionSeed,
    pub(super) manifest: Manifest,
    pub(super) book: Book,
    pub(super) nodes: Vec<Node>,
}

pub(super) struct Node {
    pub(super) identity: Identity,
    pub(super) recipient: Recipient,
}

impl Node {
    fn new(service: OnionAddress, n: u8) -> Self {
        let (identity, seed) = (Identity::from_seed(&[n; 32]), ReplicaSeed::from_bytes(&[n + 100; 32]));
        let recipient = Recipient::new(service, identity.address(), seed);
        Self { identity, recipient }
    }

    pub(super) fn address(&self) -> OnionAddress {
        self.identity.address()
    }

    pub(super) fn request(&self, clock: PeriodClock, keys: (u64, u16), periods: u16, now: u64) -> Request {
        let (first, _) = clock.needed(now, now);
        let Recipient { service, seed, .. } = &self.recipient;
        Request::new(&self.identity, seed, *service, keys, (first, periods)).expect("within the limits")
    }

    pub(super) fn holdings(&self, folder: &Path) -> Holdings {
        Holdings::open(folder, self.recipient.clone(), NOW).expect("opened")
    }
}

impl Service {
    pub(super) fn new(nodes: u8) -> Self {
        Self::of_seed(1, nodes)
    }

    pub(super) fn of_seed(seed: u8, nodes: u8) -> Self {
        let (identity, key) = (Identity::from_seed(&[seed; 32]), OwnerKey::from_seed(&[seed + 1; 32]));
        let validity = Validity::new(NOW - DAY, NOW + 400 * DAY).expect("in order");
        let certificate = OwnerCertificate::issue(&identity, key.public_key(), validity);
        let nodes: Vec<_> = (10..10 + nodes).map(|n| Node::new(identity.address(), n)).collect();
        Self {
            manifest: manifest(&key, identity.address(), 1, &nodes, nodes.len() - 1),
            signer: IdentitySigner::new(identity.clone()),
            revisions: RevisionSeed::from_bytes(&[seed + 2; 32]),
            book: Book::new(identity.address(), PeriodClock::TOR),
            identity,
            key,
            certificate,
            nodes,
        }
    }

    pub(super) fn address(&self) -> OnionAddress {
        self.identity.address()
    }

    /// A request of each node, with session keys from this number on.
    pub(super) fn requests(&self, first_number: u64) -> Vec<Request> {
        self.nodes.iter().map(|node| node.request(self.book.clock(), (first_number, 64), 40, NOW)).collect()
    }

    pub(super) async fn grant(&mut self, requests: &[Request], horizon: Horizon) -> Result<Vec<Grant>, MakeError> {
        let Self { signer, key, certificate, revisions, manifest, book, .. } = self;
        let owner = Owner { signer, key, certificate, revisions, manifest };
        owner.grant(book, requests, horizon).await
    }

    /// The bytes of a day's grant for each node.
    pub(super) async fn day(&mut self, first_number: u64) -> Vec<Vec<u8>> {
        let requests = self.requests(first_number);
        let grants = self.grant(&requests, horizon(23, 2)).await.expect("granted");
        grants.iter().map(|grant| grant.to_bytes().to_vec()).collect()
    }

    /// Signs what no owner should, or with parts of another.
    pub(super) fn forge(&self, grant: Grant, change: impl FnOnce(&mut Parts)) -> Vec<u8> {
        let Grant { node, certificate, manifest, rounds, clock, first_period, periods, .. } = grant;
        let mut parts = Parts { node, certificate, manifest, rounds, clock, first_period, periods };
        change(&mut parts);
        Grant::sign(&self.key, parts).to_bytes().to_vec()
    }
}

/// Of which the last does not publish, unless all do.
pub(super) fn manifest(
    key: &OwnerKey,
    service: OnionAddress,
    version: u64,
    nodes: &[Node],
    publishers: usize,
) -> Manifest {
    let member = |(place, node): (usize, &Node)| {
        let role = if place < publishers.max(1) { Role::Publisher } else { Role::Listed };
        let log = LogKey::from_seed(&[place as u8 + 150; 32]).public_key();
        Member::new(node.address(), log, role).expect("two keys")
    };
    let contents = Contents::new(version, nodes.iter().enumerate().map(member).collect()).expect("good");
    Manifest::sign(key, service, contents).expect("signed")
}

pub(super) fn horizon(hours: u32, rounds: u16) -> Horizon {
    Horizon::new(NOW, hours, rounds).expect("a horizon")
}

#[tokio::test]
async fn an_owner_key_is_certified_by_whoever_signs_for_the_service() {
    let service = Service::new(2);
    let validity = service.certificate.validity();
    let certificate = certify(&service.signer, service.key.public_key(), validity).await.expect("signed");
    assert!(certificate == service.certificate);
}

#[tokio::test]
async fn nothing_here_prints_a_key_or_an_address() {
    let mut service = Service::new(2);
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut holdings = service.nodes[0].holdings(folder.path());
    let request = service.requests(1).remove(0);
    let grants = service.day(1).await;
    holdings.import(&grants[0], NOW).expect("taken");
    let printed = format!(
        "{holdings:?} {request:?} {:?} {:?} {:?} {:?}",
        holdings.recipient(),
        service.book,
        service.book.exposure(NOW),
        MakeError::Revoked(service.address())
    );
    assert!(!printed.contains(".onion") && printed.contains("[redacted]"), "{printed}");
    let hex = data_encoding::HEXLOWER.encode(service.address().public_key());
    assert!(!printed.contains(&hex) && !MakeError::Revoked(service.address()).to_string().contains("onion"));
}
