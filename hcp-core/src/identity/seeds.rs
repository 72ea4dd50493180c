//! Secrets from which other secrets are derived, so that none of those has to travel or to be kept.
//!
//! Each derivation is HMAC-SHA256 under the seed, of a purpose that ends with a zero byte, the service where it matters, and
//! what tells the derived keys apart, of fixed length: no two derivations hash the same bytes, and none can be undone.

use std::fmt;
use std::sync::Arc;

use aws_lc_rs::hmac;
use zeroize::Zeroizing;

use super::delegation::SessionKey;
use super::key::random;
use super::{DiscoveryKey, OnionAddress};

/// A node's own secret for speaking for a service: its session keys and the keys that sign its descriptors come from it.
///
/// The node makes it and gives nobody more than the public halves of what is derived. Clones share the seed; it is
/// overwritten when the last one is dropped. What was derived is secret as well.
#[derive(Clone)]
pub struct ReplicaSeed(Seed);

impl ReplicaSeed {
    /// Makes a new seed from the operating system's random source.
    ///
    /// # Panics
    /// When the operating system has no random source: no key may be made then.
    pub fn generate() -> Self {
        Self(Seed::generate())
    }

    /// Takes 32 secret random bytes.
    pub fn from_bytes(seed: &[u8; 32]) -> Self {
        Self(Seed::from_bytes(seed))
    }

    /// The session key for `service` with this number; each number is for one delegation.
    pub fn session_key(&self, service: OnionAddress, number: u64) -> SessionKey {
        let parts: [&[u8]; 3] = [b"HCP/1 session key\0", service.public_key(), &number.to_be_bytes()];
        SessionKey::from_seed(&self.0.derive(&parts))
    }

    /// The key with which the node finds what only the members of its service find: the other members' own addresses, and the
    /// service itself where that is restricted. Its public half stands in the manifest.
    pub fn discovery_key(&self) -> DiscoveryKey {
        DiscoveryKey::from_secret_bytes(&self.0.derive(&[b"HCP/1 discovery key\0"]))
    }

    /// The seed (RFC 8032) of the key that signs descriptors of `service` in the time period with this number, length in
    /// minutes, and offset in seconds.
    pub(crate) fn descriptor_signing_seed(
        &self,
        service: OnionAddress,
        number: u64,
        length: u32,
        offset: u32,
    ) -> Zeroizing<[u8; 32]> {
        let period = period(number, length, offset);
        self.0.derive(&[b"HCP/1 descriptor-signing key\0", service.public_key(), &period])
    }

    pub(super) fn bytes(&self) -> &[u8; 32] {
        &self.0.0
    }
}

/// The owner's secret from which the publishers of a service get what their revision counters are made of.
///
/// A publisher is given that of the periods that it may publish in. Who knows it can tell from a descriptor when in the
/// period it was uploaded, and no more. Clones share the seed; it is overwritten when the last one is dropped.
#[derive(Clone)]
pub struct RevisionSeed(Seed);

impl RevisionSeed {
    /// Makes a new seed from the operating system's random source.
    ///
    /// # Panics
    /// When the operating system has no random source: no key may be made then.
    pub fn generate() -> Self {
        Self(Seed::generate())
    }

    /// Takes 32 secret random bytes.
    pub fn from_bytes(seed: &[u8; 32]) -> Self {
        Self(Seed::from_bytes(seed))
    }

    /// What the publishers of `service` share in one time period.
    pub(crate) fn of_period(
        &self,
        service: OnionAddress,
        number: u64,
        length: u32,
        offset: u32,
    ) -> Zeroizing<[u8; 32]> {
        self.0.derive(&[b"HCP/1 revision secret\0", service.public_key(), &period(number, length, offset)])
    }

    pub(super) fn bytes(&self) -> &[u8; 32] {
        &self.0.0
    }
}

impl fmt::Debug for ReplicaSeed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ReplicaSeed([redacted])")
    }
}

impl fmt::Debug for RevisionSeed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RevisionSeed([redacted])")
    }
}

#[derive(Clone)]
struct Seed(Arc<Zeroizing<[u8; 32]>>);

impl Seed {
    fn generate() -> Self {
        let mut seed = Zeroizing::new([0; 32]);
        random(&mut *seed);
        Self(Arc::new(seed))
    }

    fn from_bytes(seed: &[u8; 32]) -> Self {
        Self(Arc::new(Zeroizing::new(*seed)))
    }

    fn derive(&self, parts: &[&[u8]]) -> Zeroizing<[u8; 32]> {
        let mut mac = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, self.0.as_slice()));
        parts.iter().for_each(|part| mac.update(part));
        let mut derived = Zeroizing::new([0; 32]);
        derived.copy_from_slice(mac.sign().as_ref());
        derived
    }
}

fn period(number: u64, length: u32, offset: u32) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&number.to_be_bytes());
    bytes[8..12].copy_from_slice(&length.to_be_bytes());
    bytes[12..].copy_from_slice(&offset.to_be_bytes());
    bytes
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use data_encoding::HEXLOWER;

    use super::*;
    use crate::identity::Identity;

    #[test]
    fn whatever_differs_gives_another_secret() {
        let services = [1, 2].map(|seed| Identity::from_seed(&[seed; 32]).address());
        let mut seen = BTreeSet::new();
        for seed in [3, 4] {
            let (replica, revision) = (ReplicaSeed::from_bytes(&[seed; 32]), RevisionSeed::from_bytes(&[seed; 32]));
            seen.insert(*replica.discovery_key().public_key().as_bytes());
            for service in services {
                for number in [0, 1, 256] {
                    seen.insert(*replica.session_key(service, number).public_key().as_bytes());
                    for (length, offset) in [(1440, 0), (1440, 43_200), (8, 0)] {
                        seen.insert(*replica.descriptor_signing_seed(service, number, length, offset));
                        seen.insert(*revision.of_period(service, number, length, offset));
                    }
                }
            }
        }
        assert_eq!(seen.len(), 2 * (1 + 2 * 3 * (1 + 2 * 3)));
    }

    #[test]
    fn a_derivation_is_what_the_document_says() {
        // Section 14 of docs/protocol.md, worked out with Python's hmac.
        let service = Identity::from_seed(&[1; 32]).address();
        let derived = ReplicaSeed::from_bytes(&[3; 32]).descriptor_signing_seed(service, 20_000, 1440, 43_200);
        assert_eq!(HEXLOWER.encode(&*derived), DERIVED);
        let discovery = ReplicaSeed::from_bytes(&[3; 32]).discovery_key();
        assert_eq!(HEXLOWER.encode(discovery.secret_bytes().as_slice()), DISCOVERY);
    }

    #[test]
    fn nothing_is_printed() {
        assert_eq!(format!("{:?}", ReplicaSeed::generate()), "ReplicaSeed([redacted])");
        assert_eq!(format!("{:?}", RevisionSeed::generate()), "RevisionSeed([redacted])");
    }

    /// Clamped, as RFC 7748 has it.
    const DISCOVERY: &str = "68903f7269ce39105668d2468c17150671586e9a4622412b6d1b1cc17b0e797c";
    const DERIVED: &str = "9ccfe445f8756591d10174439fe5a43658a15f962cea8feed3b85a052a1e1f95";
}
