//! The discovery keys with which addresses are dialled; in memory, never in Arti's key store.
//!
//! Arti compares keys by pointer: circuits and descriptors are used again only with a clone of the key that they were fetched
//! with. So each key is made once.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tor_hsclient::{HsClientSecretKeys, HsClientSecretKeysBuilder};
use tor_hscrypto::pk::{HsClientDescEncKeypair, HsClientDescEncSecretKey};
use tor_llcrypto::pk::curve25519::StaticSecret;

use crate::identity::{DiscoveryKey, DiscoveryPublicKey, OnionAddress};

/// The key for each address that has one.
#[derive(Default)]
pub(super) struct DiscoveryKeys(Mutex<HashMap<OnionAddress, (DiscoveryPublicKey, HsClientSecretKeys)>>);

impl DiscoveryKeys {
    pub(super) fn set(&self, address: OnionAddress, key: &DiscoveryKey) {
        let public = key.public_key();
        let mut keys = self.lock();
        if keys.get(&address).is_some_and(|(known, _)| *known == public) {
            return;
        }
        let secret = HsClientDescEncSecretKey::from(StaticSecret::from(*key.secret_bytes()));
        let mut made = HsClientSecretKeysBuilder::default();
        made.ks_hsc_desc_enc(HsClientDescEncKeypair::from_secret_key(secret));
        let made = made.build().expect("there are no rules that a key could break");
        keys.insert(address, (public, made));
    }

    pub(super) fn remove(&self, address: &OnionAddress) {
        self.lock().remove(address);
    }

    /// The key for an address, or none at all.
    pub(super) fn of(&self, address: &OnionAddress) -> HsClientSecretKeys {
        self.lock().get(address).map_or_else(HsClientSecretKeys::none, |(_, key)| key.clone())
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<OnionAddress, (DiscoveryPublicKey, HsClientSecretKeys)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::Identity;

    #[test]
    fn a_key_that_is_set_again_is_the_same_to_arti() {
        let (keys, key) = (DiscoveryKeys::default(), DiscoveryKey::generate());
        let (one, other) = (Identity::from_seed(&[1; 32]).address(), Identity::from_seed(&[2; 32]).address());
        assert!(keys.of(&one).is_empty());
        keys.set(one, &key);
        let first = keys.of(&one);
        keys.set(one, &DiscoveryKey::from_secret_bytes(&key.secret_bytes()));
        assert!(keys.of(&one) == first && !first.is_empty() && keys.of(&other).is_empty());
        keys.set(one, &DiscoveryKey::generate());
        assert!(keys.of(&one) != first);
        keys.remove(&one);
        assert!(keys.of(&one).is_empty());
    }
}
