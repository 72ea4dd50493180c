//! How each kind of key becomes the secret bytes of a file, and back.

use zeroize::Zeroizing;

use super::format::Purpose;
#[cfg(feature = "messenger")]
use crate::identity::DatabaseKey;
use crate::identity::delegation::{OwnerKey, ReplicaCredentials, SessionKey};
use crate::identity::{DiscoveryKey, Identity, LogKey, ReplicaSeed, RevisionSeed};

/// Keeps [`StoredKey`](super::StoredKey) to this crate's keys: a purpose number means one type for ever.
#[expect(unnameable_types, reason = "a sealed trait is one that cannot be named")]
pub trait Stored: Sized {
    const PURPOSE: Purpose;
    fn secret(&self) -> Zeroizing<Vec<u8>>;
    fn from_secret(secret: &[u8]) -> Option<Self>;
}

/// For keys that are kept as 64 bytes.
macro_rules! stored_as_64_bytes {
    ($key:ident, $purpose:ident, $bytes:ident, $from_bytes:expr) => {
        impl Stored for $key {
            const PURPOSE: Purpose = Purpose::$purpose;

            fn secret(&self) -> Zeroizing<Vec<u8>> {
                let bytes: Zeroizing<[u8; 64]> = self.$bytes();
                Zeroizing::new(bytes.to_vec())
            }

            fn from_secret(secret: &[u8]) -> Option<Self> {
                $from_bytes(secret.try_into().ok()?).ok()
            }
        }
    };
}

stored_as_64_bytes!(Identity, Address, expanded_secret_key, Self::from_expanded_secret_key);
stored_as_64_bytes!(LogKey, Log, expanded, Self::from_expanded);
#[cfg(feature = "messenger")]
stored_as_64_bytes!(DatabaseKey, Database, bytes, |bytes| Ok::<_, ()>(Self::from_bytes(bytes)));
stored_as_64_bytes!(OwnerKey, Owner, expanded, Self::from_expanded);
stored_as_64_bytes!(SessionKey, Session, expanded, Self::from_expanded);

/// For seeds of 32 bytes.
macro_rules! stored_as_seed {
    ($seed:ident) => {
        impl Stored for $seed {
            const PURPOSE: Purpose = Purpose::$seed;

            fn secret(&self) -> Zeroizing<Vec<u8>> {
                Zeroizing::new(self.bytes().to_vec())
            }

            fn from_secret(secret: &[u8]) -> Option<Self> {
                Some(Self::from_bytes(secret.try_into().ok()?))
            }
        }
    };
}

stored_as_seed!(ReplicaSeed);
stored_as_seed!(RevisionSeed);

impl Stored for ReplicaCredentials {
    const PURPOSE: Purpose = Purpose::Replica;

    fn secret(&self) -> Zeroizing<Vec<u8>> {
        self.stored()
    }

    fn from_secret(secret: &[u8]) -> Option<Self> {
        Self::from_stored(secret)
    }
}

impl Stored for DiscoveryKey {
    const PURPOSE: Purpose = Purpose::Discovery;

    fn secret(&self) -> Zeroizing<Vec<u8>> {
        Zeroizing::new(self.secret_bytes().to_vec())
    }

    fn from_secret(secret: &[u8]) -> Option<Self> {
        let key = Self::from_secret_bytes(secret.try_into().ok()?);
        // Another secret that is clamped to the same one was not written here.
        (key.secret_bytes().as_slice() == secret).then_some(key)
    }
}
