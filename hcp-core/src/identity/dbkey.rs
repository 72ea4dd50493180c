//! The key of a profile's database, apart from the passphrase that seals it, so that changing the passphrase is instant.

use std::fmt;
use std::sync::Arc;

use zeroize::Zeroizing;

use super::key::random;

/// The random key of a profile's database, in two halves with a purpose each.
///
/// Clones share the key; it is overwritten when the last one is dropped.
#[derive(Clone)]
pub(crate) struct DatabaseKey(Arc<Zeroizing<[u8; 64]>>);

impl DatabaseKey {
    pub(crate) fn generate() -> Self {
        let mut bytes = Zeroizing::new([0; 64]);
        random(bytes.as_mut_slice());
        Self(Arc::new(bytes))
    }

    pub(super) fn from_bytes(bytes: &[u8; 64]) -> Self {
        Self(Arc::new(Zeroizing::new(*bytes)))
    }

    pub(super) fn bytes(&self) -> Zeroizing<[u8; 64]> {
        Zeroizing::new(**self.0)
    }

    /// Encrypts the database.
    pub(crate) fn encryption(&self) -> &[u8; 32] {
        self.0.first_chunk().expect("64 bytes begin with 32")
    }

    /// Marks what this profile wrote, so that it knows it again.
    pub(crate) fn marking(&self) -> &[u8; 32] {
        self.0.last_chunk().expect("64 bytes end with 32")
    }
}

impl fmt::Debug for DatabaseKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DatabaseKey([redacted])")
    }
}
