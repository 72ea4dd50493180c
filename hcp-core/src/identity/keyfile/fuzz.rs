//! Arbitrary bytes as key files.

use super::format::{self, DecodeError};
use super::{Passphrase, Protection, StoredKey};

/// Opens `data` as a file that holds a `K`; what comes out is what would be saved.
pub(in crate::identity) fn decode<K: StoredKey>(data: &[u8], passphrase: &Passphrase) {
    let mut fixed = data.to_vec();
    format::fix_checksum(&mut fixed);
    for protection in [Protection::Plain, Protection::Passphrase(passphrase.clone())] {
        for bytes in [data, &fixed] {
            // A dear cost is for the owner's patience, not for this.
            if matches!(protection, Protection::Passphrase(_)) && !format::is_cheap(bytes) {
                continue;
            }
            match format::decode(K::PURPOSE, bytes, &protection) {
                Ok(secret) => {
                    assert!(bytes.len() <= format::MAX_LEN);
                    if let Some(key) = K::from_secret(&secret) {
                        assert_eq!(key.secret(), secret);
                    }
                }
                Err(DecodeError::Magic) => assert!(!bytes.starts_with(format::MAGIC) || bytes.len() < 11),
                Err(_) => {}
            }
        }
    }
}
