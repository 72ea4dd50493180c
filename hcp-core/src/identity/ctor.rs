//! C tor's onion service directories: import of a service that C tor ran, export of one that it shall run.
//!
//! A directory holds `hs_ed25519_secret_key` (a 32-byte tag and the expanded key), `hs_ed25519_public_key` (a tag and
//! the public key) and `hostname`. The secret is what counts; whatever stands beside it must agree with it, so that
//! a mixed-up directory is noticed before a wrong address is announced. C tor knows no sealed keys: an export is in
//! the clear, readable by its owner only.
//!
//! Everything here blocks on the disk.

use std::fs::{self, DirBuilder};
use std::io;
use std::path::Path;

use thiserror::Error;
use zeroize::Zeroizing;

use super::keyfile::{read_bounded, write_new};
use super::{Identity, OnionAddress};
use crate::error::ErrorKind;

/// Reads the identity of a C tor onion service directory (what `HiddenServiceDir` names).
///
/// # Errors
/// [`ImportKeyError`] when the secret key is missing or malformed, or when the public key or the host name beside it
/// belongs to another key.
pub fn import(directory: &Path) -> Result<Identity, ImportKeyError> {
    let secret = read(directory, SECRET_FILE, SECRET_TAG.len() + 64)?.ok_or(ImportKeyError::NotFound)?;
    let identity = decode_secret_key(&secret)?;
    let address = identity.address();
    if let Some(public) = read(directory, PUBLIC_FILE, PUBLIC_TAG.len() + 32)?
        && public.as_slice() != public_key_file(address)
    {
        return Err(ImportKeyError::PublicKeyMismatch);
    }
    if let Some(name) = read(directory, HOSTNAME_FILE, HOSTNAME_LIMIT)? {
        let name = std::str::from_utf8(&name).ok().and_then(|name| name.trim_ascii().parse().ok());
        if name != Some(address) {
            return Err(ImportKeyError::HostnameMismatch);
        }
    }
    Ok(identity)
}

/// Writes the identity as a C tor onion service directory with mode 0700, making the directory when it is missing.
///
/// C tor accepts it when the directory belongs to the user that it runs as. The secret is written last: a directory
/// with a secret is complete.
///
/// # Errors
/// [`ExportKeyError::AlreadyExists`] when one of the three files is there; none of them is replaced.
pub fn export(identity: &Identity, directory: &Path) -> Result<(), ExportKeyError> {
    make_private(directory).map_err(ExportKeyError::Io)?;
    let files = [SECRET_FILE, PUBLIC_FILE, HOSTNAME_FILE];
    if files.iter().any(|file| fs::symlink_metadata(directory.join(file)).is_ok()) {
        return Err(ExportKeyError::AlreadyExists);
    }
    let address = identity.address();
    let write = |file: &str, bytes: &[u8]| {
        write_new(&directory.join(file), bytes).map_err(|error| match error.kind() {
            io::ErrorKind::AlreadyExists => ExportKeyError::AlreadyExists,
            _ => ExportKeyError::Io(error),
        })
    };
    write(HOSTNAME_FILE, format!("{address}\n").as_bytes())?;
    write(PUBLIC_FILE, &public_key_file(address))?;
    let mut secret = Zeroizing::new([0; 96]);
    secret[..32].copy_from_slice(SECRET_TAG);
    secret[32..].copy_from_slice(&*identity.expanded_secret_key());
    write(SECRET_FILE, secret.as_slice())
}

/// Decodes the content of an `hs_ed25519_secret_key` file.
///
/// # Errors
/// [`ImportKeyError::Malformed`].
pub fn decode_secret_key(content: &[u8]) -> Result<Identity, ImportKeyError> {
    let expanded: &[u8; 64] = content
        .strip_prefix(SECRET_TAG)
        .and_then(|expanded| expanded.try_into().ok())
        .ok_or(ImportKeyError::Malformed(SECRET_FILE))?;
    Identity::from_expanded_secret_key(expanded).map_err(|_| ImportKeyError::Malformed(SECRET_FILE))
}

/// Why no identity was imported.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ImportKeyError {
    /// The directory holds no secret key.
    #[error("there is no hs_ed25519_secret_key here; give the directory that HiddenServiceDir names in torrc")]
    NotFound,
    /// The disk said no.
    #[error("the onion service directory could not be read; run as the user that owns it, often debian-tor")]
    Io(#[source] io::Error),
    /// The named file is not what C tor writes.
    #[error("{0} is not a file that C tor wrote; version 2 services have no successor and cannot be imported")]
    Malformed(&'static str),
    /// The public key beside the secret belongs to another.
    #[error("hs_ed25519_public_key does not belong to hs_ed25519_secret_key; restore the directory from a backup")]
    PublicKeyMismatch,
    /// The host name beside the secret belongs to another.
    #[error("hostname does not belong to hs_ed25519_secret_key; restore the directory from a backup")]
    HostnameMismatch,
}

impl ImportKeyError {
    /// What a caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Io(_) => ErrorKind::Storage,
            _ => ErrorKind::InvalidInput,
        }
    }
}

/// Why an identity was not exported.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ExportKeyError {
    /// The directory holds a key already.
    #[error("the directory holds an onion service already; choose another one, or move its files away")]
    AlreadyExists,
    /// The disk said no.
    #[error("the onion service directory could not be written; check its permissions and free space")]
    Io(#[source] io::Error),
}

impl ExportKeyError {
    /// What a caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::AlreadyExists => ErrorKind::InvalidInput,
            Self::Io(_) => ErrorKind::Storage,
        }
    }
}

fn read(directory: &Path, file: &'static str, limit: usize) -> Result<Option<Zeroizing<Vec<u8>>>, ImportKeyError> {
    match read_bounded(&directory.join(file), limit) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) if error.kind() == io::ErrorKind::InvalidData => Err(ImportKeyError::Malformed(file)),
        Err(error) => Err(ImportKeyError::Io(error)),
    }
}

fn public_key_file(address: OnionAddress) -> [u8; 64] {
    let mut content = [0; 64];
    content[..32].copy_from_slice(PUBLIC_TAG);
    content[32..].copy_from_slice(address.public_key());
    content
}

/// C tor refuses a directory that others can enter.
fn make_private(directory: &Path) -> io::Result<()> {
    let mut builder = DirBuilder::new();
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    match builder.create(directory) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && directory.is_dir() => Ok(()),
        result => result,
    }
}

const SECRET_FILE: &str = "hs_ed25519_secret_key";
const PUBLIC_FILE: &str = "hs_ed25519_public_key";
const HOSTNAME_FILE: &str = "hostname";
const SECRET_TAG: &[u8; 32] = b"== ed25519v1-secret: type0 ==\0\0\0";
const PUBLIC_TAG: &[u8; 32] = b"== ed25519v1-public: type0 ==\0\0\0";
/// An address has 62 characters; the rest is room for line ends.
const HOSTNAME_LIMIT: usize = 128;

#[cfg(test)]
mod tests;
