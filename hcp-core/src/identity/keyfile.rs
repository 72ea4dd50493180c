//! Key files: one secret key in one file, sealed by a passphrase or, only on explicit request, plain. A replica's
//! credentials are kept in the same way.
//!
//! A file says which purpose its key has, and that is authenticated with the key, so that a log key is never loaded
//! as an address key. A file is written whole or not at all, is readable by its owner only, and never replaces
//! another. What a file demands for opening it (memory, passes) is bounded before anything is allocated.
//!
//! The format:
//!
//! | bytes | field |
//! |---|---|
//! | 8 | `HCP-KEY` and a zero byte |
//! | 1 | version, 1 |
//! | 1 | purpose: 1 address, 2 log, 3 a profile's database, 4 owner, 5 session, 6 a replica's credentials, 7 a replica's seed, 8 discovery, 9 an owner's revision seed |
//! | 1 | protection: 0 plain, 1 sealed |
//! | 4, 4, 4 | sealed: Argon2id memory in KiB, passes, lanes, big endian |
//! | 16, 12 | sealed: salt, nonce |
//! | 64, 32 or 336 | the expanded secret key; a seed; the X25519 secret of discovery; of credentials service (32), certificate (112), delegation (128), session key (64) |
//! | 16 | sealed: the tag of ChaCha20-Poly1305, which encrypts the field before with all before it as associated data |
//! | 32 | first half of the SHA-512 of all bytes before: tells a damaged file from a wrong passphrase |
//!
//! Everything here blocks, on the disk and for the time that Argon2id takes (about 0.1 s by default): call it from
//! a blocking thread in an async program.

mod file;
mod format;
#[cfg(feature = "testing")]
pub(super) mod fuzz;
mod stored;

use std::io;
use std::path::PathBuf;

use thiserror::Error;

pub(crate) use self::file::{read_bounded, write_new, write_over};
use self::format::DecodeError;
#[cfg(test)]
use self::format::Purpose;
#[cfg(feature = "messenger")]
use super::DatabaseKey;
use super::delegation::{OwnerKey, ReplicaCredentials, SessionKey};
use super::{DiscoveryKey, Identity, LogKey, Passphrase, ReplicaSeed, RevisionSeed};
use crate::error::ErrorKind;

/// How a key file is protected. There is no default: whoever writes a key in the clear says so.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Protection {
    /// Sealed: useless without the passphrase.
    Passphrase(Passphrase),
    /// In the clear, guarded by the file's permissions and the disk's encryption only.
    Plain,
}

/// What opening a sealed file costs, for its owner and for whoever guesses passphrases.
///
/// The default is 64 MiB, 3 passes and 1 lane, about 0.1 s on a desktop. Half the memory halves a guesser's cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Argon2Cost {
    memory_kib: u32,
    passes: u32,
    lanes: u32,
}

impl Argon2Cost {
    /// The least and the most memory, in KiB: 8 MiB and 1 GiB.
    pub const MEMORY_KIB: std::ops::RangeInclusive<u32> = 8 * 1024..=1024 * 1024;
    /// The least and the most passes over the memory.
    pub const PASSES: std::ops::RangeInclusive<u32> = 1..=16;
    /// The least and the most lanes; they are computed one after the other.
    pub const LANES: std::ops::RangeInclusive<u32> = 1..=4;

    /// Sets memory in KiB, passes and lanes.
    ///
    /// # Errors
    /// [`CostError`] outside [`MEMORY_KIB`](Self::MEMORY_KIB), [`PASSES`](Self::PASSES) or [`LANES`](Self::LANES).
    pub fn new(memory_kib: u32, passes: u32, lanes: u32) -> Result<Self, CostError> {
        let fits = Self::MEMORY_KIB.contains(&memory_kib) && Self::PASSES.contains(&passes);
        if fits && Self::LANES.contains(&lanes) { Ok(Self { memory_kib, passes, lanes }) } else { Err(CostError) }
    }
}

impl Default for Argon2Cost {
    fn default() -> Self {
        Self { memory_kib: 64 * 1024, passes: 3, lanes: 1 }
    }
}

/// An Argon2id cost outside the bounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("the Argon2id cost is out of bounds: 8 MiB to 1 GiB of memory, 1 to 16 passes, 1 to 4 lanes")]
pub struct CostError;

impl CostError {
    /// What a caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        ErrorKind::InvalidInput
    }
}

/// A place on disk for one key.
///
/// ```
/// use hcp_core::identity::keyfile::{KeyFile, Protection};
/// use hcp_core::identity::{Identity, Passphrase};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let dir = tempfile::tempdir()?;
/// let identity = Identity::generate();
/// let protection = Protection::Passphrase(Passphrase::new("correct horse battery staple")?);
/// let file = KeyFile::new(dir.path().join("identity.key"));
/// file.save(&identity, &protection)?;
/// let loaded: Identity = file.load(&protection)?;
/// assert_eq!(loaded.address(), identity.address());
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct KeyFile {
    path: PathBuf,
    cost: Argon2Cost,
}

impl KeyFile {
    /// Names the file; nothing is touched yet.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), cost: Argon2Cost::default() }
    }

    /// Sets what opening the file will cost; default [`Argon2Cost::default`]. Loading takes the cost from the file.
    pub fn cost(self, cost: Argon2Cost) -> Self {
        Self { cost, ..self }
    }

    /// Writes `key` to a new file with mode 0600, durably and all at once.
    ///
    /// # Errors
    /// [`SaveKeyError::AlreadyExists`] when there is anything at the path, which then stays as it was, and
    /// [`SaveKeyError::Io`].
    pub fn save<K: StoredKey>(&self, key: &K, protection: &Protection) -> Result<(), SaveKeyError> {
        let bytes = format::encode(K::PURPOSE, &key.secret(), protection, self.cost)?;
        write_new(&self.path, &bytes).map_err(|error| match error.kind() {
            io::ErrorKind::AlreadyExists => SaveKeyError::AlreadyExists,
            _ => SaveKeyError::Io(error),
        })
    }

    /// Writes `key` in the place of the file that is there, durably: after a crash there is the old file or the new one.
    #[cfg(feature = "messenger")]
    pub(crate) fn replace<K: StoredKey>(&self, key: &K, protection: &Protection) -> Result<(), SaveKeyError> {
        let bytes = format::encode(K::PURPOSE, &key.secret(), protection, self.cost)?;
        write_over(&self.path, &bytes).map_err(SaveKeyError::Io)
    }

    /// Reads the key back.
    ///
    /// A plain file is loaded only with [`Protection::Plain`]: else whoever can write the file could slip in a key
    /// of their own and no passphrase would be missed.
    ///
    /// # Errors
    /// [`LoadKeyError`]; [`LoadKeyError::WrongPassphrase`] is the one to ask again on.
    pub fn load<K: StoredKey>(&self, protection: &Protection) -> Result<K, LoadKeyError> {
        let bytes = read_bounded(&self.path, format::MAX_LEN).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => LoadKeyError::NotFound,
            io::ErrorKind::InvalidData => LoadKeyError::NotAKeyFile,
            _ => LoadKeyError::Io(error),
        })?;
        let secret = format::decode(K::PURPOSE, &bytes, protection).map_err(LoadKeyError::from)?;
        K::from_secret(&secret).ok_or(LoadKeyError::Damaged)
    }
}

/// What a [`KeyFile`] can hold: [`Identity`], [`LogKey`], [`OwnerKey`], [`SessionKey`], [`DiscoveryKey`], [`ReplicaCredentials`],
/// [`ReplicaSeed`] or [`RevisionSeed`].
pub trait StoredKey: stored::Stored {}

impl StoredKey for Identity {}
impl StoredKey for LogKey {}
impl StoredKey for OwnerKey {}
impl StoredKey for SessionKey {}
impl StoredKey for DiscoveryKey {}
impl StoredKey for ReplicaCredentials {}
impl StoredKey for ReplicaSeed {}
impl StoredKey for RevisionSeed {}
#[cfg(feature = "messenger")]
impl StoredKey for DatabaseKey {}

/// Why a key was not saved.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum SaveKeyError {
    /// Something is at the path already.
    #[error("there is a file at the key file's path already; choose another path, or move that file away")]
    AlreadyExists,
    /// The disk said no.
    #[error("the key file could not be written; check the directory's permissions and free space")]
    Io(#[source] io::Error),
    /// Sealing failed although its inputs are checked: a broken build or too little memory.
    #[error("the key could not be sealed; this is a defect of the program or its build")]
    Seal,
}

impl SaveKeyError {
    /// What a caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::AlreadyExists => ErrorKind::InvalidInput,
            Self::Io(_) => ErrorKind::Storage,
            Self::Seal => ErrorKind::Internal,
        }
    }
}

/// Why a key was not loaded.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum LoadKeyError {
    /// No file at the path.
    #[error("there is no key file at this path; check the path, or make a key first")]
    NotFound,
    /// The disk said no.
    #[error("the key file could not be read; check its permissions")]
    Io(#[source] io::Error),
    /// The file is something else.
    #[error("this is not a key file; check the path")]
    NotAKeyFile,
    /// Written by a later version of the program.
    #[error("the key file has a newer format; use the program version that wrote it, or a later one")]
    UnknownVersion,
    /// The key has another purpose than was asked for.
    #[error("the key file holds a key with another purpose; give the path of the right one")]
    WrongPurpose,
    /// The file is not what was written.
    #[error("the key file is damaged; restore it from a backup")]
    Damaged,
    /// The file demands more than opening a key may cost, or so little that it cannot be ours.
    #[error("the key file demands an Argon2id cost out of bounds; restore it from a backup")]
    CostOutOfBounds,
    /// The passphrase does not fit.
    #[error("wrong passphrase; try again")]
    WrongPassphrase,
    /// A passphrase is needed.
    #[error("the key file is sealed; give its passphrase")]
    Sealed,
    /// A passphrase was given for a plain file.
    #[error("the key file is not sealed although a passphrase was given; ask for a plain file if that is intended")]
    NotSealed,
}

impl LoadKeyError {
    /// What a caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Io(_) | Self::Damaged => ErrorKind::Storage,
            Self::WrongPassphrase | Self::WrongPurpose | Self::Sealed | Self::NotSealed => ErrorKind::Authentication,
            Self::CostOutOfBounds => ErrorKind::LimitExceeded,
            Self::NotFound | Self::NotAKeyFile | Self::UnknownVersion => ErrorKind::InvalidInput,
        }
    }
}

impl From<DecodeError> for LoadKeyError {
    fn from(error: DecodeError) -> Self {
        match error {
            DecodeError::Magic => Self::NotAKeyFile,
            DecodeError::Version => Self::UnknownVersion,
            DecodeError::Purpose => Self::WrongPurpose,
            DecodeError::Damaged => Self::Damaged,
            DecodeError::Cost => Self::CostOutOfBounds,
            DecodeError::Unsealing => Self::WrongPassphrase,
            DecodeError::Sealed => Self::Sealed,
            DecodeError::NotSealed => Self::NotSealed,
        }
    }
}

#[cfg(test)]
mod tests;
