//! The owner's folder: keys, certificate, manifest, book, and the newest request of each node.
//!
//! Files that change are written beside their place and then renamed, so that a crash leaves the old one or the new one. One
//! process at a time works on it.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::Write;
use std::path::{Path, PathBuf};

use hcp_core::identity::delegation::{OwnerCertificate, OwnerKey};
use hcp_core::identity::keyfile::Protection;
use hcp_core::identity::manifest::Manifest;
use hcp_core::identity::{Identity, OnionAddress, RevisionSeed};
use hcp_core::owner::{Book, Grant, Request};

use crate::failure::Failure;
use crate::keys;

pub(super) struct OwnerFolder {
    path: PathBuf,
    _lock: File,
}

impl OwnerFolder {
    /// Makes the folder if it is missing, and keeps others out of it.
    pub(super) fn open(path: &Path) -> Result<Self, Failure> {
        keys::make_private_folder(path)?;
        let lock_path = path.join("lock");
        let lock = OpenOptions::new().create(true).truncate(false).write(true).open(&lock_path);
        let lock = lock.map_err(|error| Failure::file("open the lock", &lock_path, &error))?;
        match lock.try_lock() {
            Ok(()) => Ok(Self { path: path.to_owned(), _lock: lock }),
            Err(TryLockError::WouldBlock) => {
                Err(Failure::new(format!("{} is in use by another hcp-irc: wait for that one", path.display())))
            }
            Err(TryLockError::Error(error)) => Err(Failure::file("lock", &lock_path, &error)),
        }
    }

    pub(super) fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    pub(super) fn identity(&self, protection: &Protection) -> Result<Identity, Failure> {
        keys::load(&self.file(IDENTITY), "service's identity (does `owner new` come first?)", protection)
    }

    pub(super) fn owner_key(&self, protection: &Protection) -> Result<OwnerKey, Failure> {
        keys::load(&self.file(OWNER_KEY), "owner key (does `owner key` come first?)", protection)
    }

    pub(super) fn revisions(&self, protection: &Protection) -> Result<RevisionSeed, Failure> {
        keys::load(&self.file(REVISIONS), "seed of the revision counters", protection)
    }

    pub(super) fn certificate(&self) -> Result<OwnerCertificate, Failure> {
        let path = self.file(CERTIFICATE);
        let bytes = read(&path, OwnerCertificate::LEN, "read the owner certificate (does `owner key` come first?)")?;
        OwnerCertificate::from_bytes(&bytes).map_err(|error| Failure::file("understand", &path, &error))
    }

    pub(super) fn book(&self) -> Result<Book, Failure> {
        let path = self.file(BOOK);
        let bytes = read(&path, Book::MAX_LEN, "read the owner's book (does `owner new` come first?)")?;
        Book::from_bytes(&bytes).map_err(|error| Failure::file("understand", &path, &error))
    }

    pub(super) fn save_book(&self, book: &Book) -> Result<(), Failure> {
        write(&self.file(BOOK), &book.to_bytes())
    }

    /// The manifest that was signed last, if any.
    pub(super) fn manifest(&self, book: &Book, now: u64) -> Result<Option<Manifest>, Failure> {
        let path = self.file(MANIFEST);
        if !path.exists() {
            return Ok(None);
        }
        let bytes = read(&path, Manifest::MAX_LEN, "read the manifest")?;
        Manifest::verify(book.service(), &self.certificate()?, &bytes, now)
            .map(Some)
            .map_err(|error| Failure::file("use the manifest (sign it anew with `owner manifest`)", &path, &error))
    }

    /// Notes a request, in the place of an older one of the same node.
    pub(super) fn keep_request(&self, request: &Request) -> Result<(), Failure> {
        let folder = self.file(REQUESTS);
        keys::make_private_folder(&folder)?;
        write(&folder.join(format!("{}.request", request.node())), &request.to_bytes())
    }

    /// The request of a node that was given last, if any.
    pub(super) fn request(&self, service: OnionAddress, node: OnionAddress) -> Result<Option<Request>, Failure> {
        let path = self.file(REQUESTS).join(format!("{node}.request"));
        if path.exists() { read_request(service, &path).map(Some) } else { Ok(None) }
    }
}

/// Reads a request that a node made.
pub(super) fn read_request(service: OnionAddress, path: &Path) -> Result<Request, Failure> {
    let bytes = read(path, Request::MAX_LEN, "read the request")?;
    Request::verify(service, &bytes).map_err(|error| Failure::file("use the request", path, &error))
}

/// Reads a grant's bytes, unverified.
pub(super) fn read_grant(path: &Path) -> Result<Vec<u8>, Failure> {
    read(path, Grant::MAX_LEN, "read the grant")
}

/// Reads a file that is not longer than it may be.
fn read(path: &Path, limit: usize, what: &str) -> Result<Vec<u8>, Failure> {
    let failure = |error: std::io::Error| Failure::file(what, path, &error);
    if fs::metadata(path).map_err(failure)?.len() > limit as u64 {
        return Err(Failure::new(format!("cannot {what} {}: it is too long to be one", path.display())));
    }
    fs::read(path).map_err(failure)
}

/// Writes a file that only its owner can read, whole or not at all.
pub(crate) fn write(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    let failure = |error: std::io::Error| Failure::file("write", path, &error);
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(format!(".{}.tmp", std::process::id()));
    let temporary = PathBuf::from(temporary);
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(&temporary).map_err(failure)?;
    let written = file.write_all(bytes).and_then(|()| file.sync_all()).and_then(|()| fs::rename(&temporary, path));
    if written.is_err() {
        drop(fs::remove_file(&temporary));
    }
    written.map_err(failure)
}

pub(super) const IDENTITY: &str = "identity.key";
pub(super) const OWNER_KEY: &str = "owner.key";
pub(super) const REVISIONS: &str = "revisions.key";
pub(super) const CERTIFICATE: &str = "certificate";
pub(super) const MANIFEST: &str = "manifest";
pub(super) const BOOK: &str = "book";
const REQUESTS: &str = "requests";
