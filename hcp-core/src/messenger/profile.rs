//! A profile on disk: an identity and a database, both opened with a passphrase.
//!
//! The folder holds `profile.key`, a random key sealed by the passphrase, and `profile.db`, a SQLCipher database under that
//! key, which holds everything else, the identity included. Changing the passphrase seals the same key anew; destroying
//! `profile.key` destroys the profile. No name, text or address stands in the clear, not in a file's name either.

use std::fmt;
use std::io::Write;
use std::path::{Path, PathBuf};

use super::fault;
use super::store::Store;
use super::text::{Name, TextError};
use crate::error::ErrorKind;
use crate::identity::keyfile::{Argon2Cost, KeyFile, LoadKeyError, Protection, SaveKeyError};
use crate::identity::{DatabaseKey, Identity, OnionAddress, Passphrase};
use crate::store::{StoreError, log_of};

/// An opened profile; nobody else can open it until this one is dropped.
pub struct Profile {
    pub(super) folder: PathBuf,
    pub(super) identity: Identity,
    pub(super) store: Store,
}

impl Profile {
    /// Makes a profile with a new identity in `folder`, which is made when it is missing.
    ///
    /// `name` is what the profile calls itself towards contacts; it may be empty. Blocks, for about a second: the
    /// passphrase is stretched with Argon2id.
    ///
    /// # Errors
    /// [`ProfileError`]; a profile that is there already stays as it is.
    pub fn create(folder: impl AsRef<Path>, passphrase: &Passphrase, name: &str) -> Result<Self, ProfileError> {
        Self::create_for(Identity::generate(), folder, passphrase, name, Argon2Cost::default())
    }

    /// Like [`Self::create`], for an identity that exists already, and at a given cost of opening.
    ///
    /// # Errors
    /// As [`Self::create`].
    pub fn create_for(
        identity: Identity,
        folder: impl AsRef<Path>,
        passphrase: &Passphrase,
        name: &str,
        cost: Argon2Cost,
    ) -> Result<Self, ProfileError> {
        let folder = folder.as_ref();
        let name = Name::new(name)?;
        make_private(folder)?;
        let (database, key_file) = (folder.join(DATABASE_FILE), folder.join(KEY_FILE));
        match (database.exists(), key_file.exists()) {
            (false, false) => {}
            (true, true) => return Err(ProfileError::AlreadyExists),
            _ => return Err(ProfileError::Incomplete),
        }
        let key = DatabaseKey::generate();
        let store = Store::create(&database, &key, &identity, &name)?;
        // The key last: with it, the profile is complete.
        if let Err(error) = KeyFile::new(key_file).cost(cost).save(&key, &Protection::Passphrase(passphrase.clone())) {
            // Nobody has its key, so it is worth nothing, and in the way of a second attempt.
            drop(store);
            for suffix in ["", "-wal", "-shm", ".lock"] {
                let mut path = database.clone().into_os_string();
                path.push(suffix);
                let _ = std::fs::remove_file(path);
            }
            return Err(error.into());
        }
        Ok(Self { folder: absolute(folder)?, identity, store })
    }

    /// Opens the profile in `folder`. Blocks, for about a second.
    ///
    /// # Errors
    /// [`ProfileError`]; [`ProfileError::InUse`] when it is open already, here or in another program.
    pub fn open(folder: impl AsRef<Path>, passphrase: &Passphrase) -> Result<Self, ProfileError> {
        let folder = folder.as_ref();
        let key: DatabaseKey = KeyFile::new(folder.join(KEY_FILE)).load(&Protection::Passphrase(passphrase.clone()))?;
        let database = folder.join(DATABASE_FILE);
        if !database.exists() {
            return Err(ProfileError::Incomplete);
        }
        let (store, identity) = Store::open(&database, &key)?;
        Ok(Self { folder: absolute(folder)?, identity, store })
    }

    /// Seals the key of the profile in `folder` with another passphrase, at once and whole. Blocks, for two seconds.
    ///
    /// # Errors
    /// [`ProfileError`]; the old passphrase counts on then.
    pub fn change_passphrase(
        folder: impl AsRef<Path>,
        old: &Passphrase,
        new: &Passphrase,
        cost: Argon2Cost,
    ) -> Result<(), ProfileError> {
        let file = KeyFile::new(folder.as_ref().join(KEY_FILE)).cost(cost);
        let key: DatabaseKey = file.load(&Protection::Passphrase(old.clone()))?;
        Ok(file.replace(&key, &Protection::Passphrase(new.clone()))?)
    }

    /// The profile's address: what its owner gives to friends.
    pub fn address(&self) -> OnionAddress {
        self.identity.address()
    }
}

impl fmt::Debug for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Profile([redacted])")
    }
}

/// Copies the profile in `from`, which may be open, to the folder `to`.
pub(super) fn back_up(from: &Path, key: &DatabaseKey, to: &Path) -> Result<(), ProfileError> {
    make_private(to)?;
    let (database, key_file) = (to.join(DATABASE_FILE), to.join(KEY_FILE));
    if database.exists() || key_file.exists() {
        return Err(ProfileError::AlreadyExists);
    }
    let copied = crate::store::copy_encrypted(&from.join(DATABASE_FILE), key.encryption(), &database);
    if let Err(StoreError::Io(error)) = &copied
        && error.kind() == std::io::ErrorKind::AlreadyExists
    {
        // Another backup that goes there just now.
        return Err(ProfileError::AlreadyExists);
    }
    let copied = copied.map_err(ProfileError::from).and_then(|()| {
        fault::point("backup without its key");
        // The key last, and as it is now: the passphrase may have been changed since the profile was opened.
        let sealed =
            std::fs::read(from.join(KEY_FILE)).map_err(|error| ProfileError::Folder(from.to_owned(), error))?;
        write_new(&key_file, &sealed).map_err(|error| ProfileError::Folder(to.to_owned(), error))
    });
    let copied = copied.and_then(|()| {
        // Names in a folder, too, must survive a power cut.
        let synced = if cfg!(unix) { std::fs::File::open(to).and_then(|folder| folder.sync_all()) } else { Ok(()) };
        synced.map_err(|error| ProfileError::Folder(to.to_owned(), error))
    });
    if copied.is_err() {
        // Without its other half it is worth nothing, and in the way of a second attempt.
        for path in [database.clone(), log_of(&database), key_file] {
            let _ = std::fs::remove_file(path);
        }
    } else {
        fault::point("backup complete, not told");
    }
    copied
}

/// Writes a file that only its owner can read, where there is none.
fn write_new(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let mut file = crate::store::private().create_new(true).open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// The folder wherever the process goes.
fn absolute(folder: &Path) -> Result<PathBuf, ProfileError> {
    std::path::absolute(folder).map_err(|error| ProfileError::Folder(folder.to_owned(), error))
}

/// Makes a folder that only its owner can enter.
fn make_private(folder: &Path) -> Result<(), ProfileError> {
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(folder).map_err(|error| ProfileError::Folder(folder.to_owned(), error))
}

/// Why a profile cannot be made or opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProfileError {
    /// There is no profile in the folder.
    #[error("there is no profile in this folder")]
    NotFound,
    /// There is a profile in the folder already.
    #[error("there is a profile in this folder already")]
    AlreadyExists,
    /// Of the key and the database one is missing: the profile was not made completely, or was copied in part.
    #[error("of the profile's key and database one is missing: restore it, or move the other away")]
    Incomplete,
    /// The profile is open already, here or in another program.
    #[error("the profile is in use by another program, or opened twice in this one")]
    InUse,
    /// The passphrase is not the one.
    #[error("the passphrase is wrong")]
    WrongPassphrase,
    /// The name is refused.
    #[error("the name is refused: {0}")]
    Name(#[from] TextError),
    /// The folder cannot be made, read or written.
    #[error("cannot use the folder {}: {_1}", .0.display())]
    Folder(PathBuf, #[source] std::io::Error),
    /// The key cannot be read.
    #[error("cannot open the profile's key: {0}")]
    LoadKey(#[source] LoadKeyError),
    /// The key cannot be written.
    #[error("cannot write the profile's key: {0}")]
    SaveKey(#[source] SaveKeyError),
    /// The database cannot be opened.
    #[error("cannot open the profile's database: {0}")]
    Store(#[source] StoreError),
    /// The profile was closed.
    #[error("the profile is closed")]
    Closed,
}

impl From<LoadKeyError> for ProfileError {
    fn from(error: LoadKeyError) -> Self {
        match error {
            LoadKeyError::NotFound => Self::NotFound,
            LoadKeyError::WrongPassphrase => Self::WrongPassphrase,
            error => Self::LoadKey(error),
        }
    }
}

impl From<SaveKeyError> for ProfileError {
    fn from(error: SaveKeyError) -> Self {
        match error {
            SaveKeyError::AlreadyExists => Self::AlreadyExists,
            error => Self::SaveKey(error),
        }
    }
}

impl From<StoreError> for ProfileError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::InUse => Self::InUse,
            error => Self::Store(error),
        }
    }
}

impl ProfileError {
    /// What a caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::NotFound | Self::AlreadyExists | Self::Incomplete | Self::Name(_) => ErrorKind::InvalidInput,
            Self::InUse => ErrorKind::InUse,
            Self::WrongPassphrase => ErrorKind::Authentication,
            Self::Folder(..) => ErrorKind::Storage,
            Self::Closed => ErrorKind::Closed,
            Self::LoadKey(error) => error.kind(),
            Self::SaveKey(error) => error.kind(),
            Self::Store(error) => error.kind(),
        }
    }
}

/// The random key, sealed by the passphrase.
const KEY_FILE: &str = "profile.key";
/// The database under that key.
const DATABASE_FILE: &str = "profile.db";
