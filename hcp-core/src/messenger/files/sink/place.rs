//! A destination, its partial file beside it, and the move from one to the other.

use std::fs::{self, File, Metadata, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use super::{SinkError, is_wanted};
use crate::messenger::files::blocking::Waiting;
use crate::messenger::files::pieces::Layout;
use crate::messenger::files::platform;

/// How long to wait for the lock: an attempt that was given up lets go of it after one more batch and its sync.
const LOCK_WAIT: Duration = Duration::from_secs(20);
/// How often the lock is tried.
const LOCK_RETRY: Duration = Duration::from_millis(10);

/// Where a file is to be saved.
#[derive(Debug)]
pub(super) struct Place {
    destination: PathBuf,
    part: PathBuf,
    pub(super) folder: PathBuf,
}

impl Place {
    /// # Errors
    /// `InvalidInput` when the path has no file name.
    pub(super) fn new(destination: PathBuf) -> io::Result<Self> {
        let mut name = destination.file_name().ok_or(io::ErrorKind::InvalidInput)?.to_owned();
        name.push(".part");
        let folder = destination.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        Ok(Self { part: destination.with_file_name(name), folder: folder.to_owned(), destination })
    }

    /// What stands at the destination; a dangling symbolic link counts.
    pub(super) fn destination(&self) -> io::Result<Option<Metadata>> {
        look(&self.destination)
    }

    /// Creates an empty partial file, or takes one that is there.
    pub(super) fn take_name(&self) -> Result<(), SinkError> {
        match look(&self.part)? {
            Some(found) if found.is_file() && found.len() == 0 => Ok(()),
            Some(_) => Err(SinkError::Exists),
            None => {
                self.create_part()?;
                Ok(())
            }
        }
    }

    /// Opens, and locks, the partial file, or a new one; `None` when the wanted file stands at the destination. Also says
    /// whether something empty stands there.
    pub(super) fn open_part(
        &self,
        layout: Layout,
        root: &[u8; 32],
        waiting: &Waiting,
    ) -> Result<Option<(File, bool)>, SinkError> {
        let deadline = Instant::now() + LOCK_WAIT;
        while Instant::now() < deadline {
            waiting.check()?;
            let reserved = match self.destination()? {
                None => false,
                Some(found) if found.is_file() => {
                    if is_wanted(&mut platform::open_to_read(&self.destination)?, layout, root, waiting)? {
                        // Killed behind the move: its names may not have reached the disk.
                        self.remove_part()?;
                        platform::sync_folder(&self.folder)?;
                        return Ok(None);
                    }
                    if found.len() > 0 || look(&self.part)?.is_none() {
                        return Err(SinkError::Exists);
                    }
                    true
                }
                Some(_) => return Err(SinkError::Exists),
            };
            let file = match look(&self.part)? {
                Some(found) if found.is_file() => platform::open_to_write(&self.part),
                Some(_) => return Err(SinkError::NotAFile),
                None => self.create_part(),
            };
            let file = match file {
                Ok(file) => file,
                // An attempt that is being given up has moved it away, or another has made it.
                Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::AlreadyExists) => {
                    thread::sleep(LOCK_RETRY);
                    continue;
                }
                Err(error) => return Err(error.into()),
            };
            if !lock(&file, deadline, waiting)? {
                break;
            }
            if self.is_part(&file)? {
                return Ok(Some((file, reserved)));
            }
        }
        Err(SinkError::Busy)
    }

    /// Whether an open file is the one that the partial file's name leads to.
    pub(super) fn is_part(&self, file: &File) -> io::Result<bool> {
        let open = file.metadata()?;
        Ok(look(&self.part)?.is_some_and(|found| found.is_file() && platform::same_file(&open, &found)))
    }

    /// Moves the partial file to the destination, durably; over an empty file if the name is known to be reserved by it.
    pub(super) fn publish(&self, reserved: bool) -> Result<(), SinkError> {
        if reserved && self.destination()?.is_some_and(|found| found.is_file() && found.len() == 0) {
            fs::rename(&self.part, &self.destination)?;
        } else {
            match fs::hard_link(&self.part, &self.destination) {
                Ok(()) => self.remove_part()?,
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Err(SinkError::Exists),
                // Some file systems have no hard links.
                Err(_) => self.publish_by_rename()?,
            }
        }
        Ok(platform::sync_folder(&self.folder)?)
    }

    /// Reserves the name first, since a rename replaces what is there; a crash in between leaves an empty file.
    fn publish_by_rename(&self) -> Result<(), SinkError> {
        match platform::create_private(&self.destination) {
            Ok(file) => drop(file),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Err(SinkError::Exists),
            Err(error) => return Err(error.into()),
        }
        let moved = fs::rename(&self.part, &self.destination);
        Ok(moved.inspect_err(|_| drop(fs::remove_file(&self.destination)))?)
    }

    /// Deletes the partial file, unless something else has its name.
    pub(super) fn remove_part(&self) -> io::Result<()> {
        if !look(&self.part)?.is_some_and(|found| found.is_file()) {
            return Ok(());
        }
        match fs::remove_file(&self.part) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    fn create_part(&self) -> io::Result<File> {
        let file = platform::create_private(&self.part)?;
        platform::sync_folder(&self.folder)?;
        Ok(file)
    }
}

fn look(path: &Path) -> io::Result<Option<Metadata>> {
    match fs::symlink_metadata(path) {
        Ok(metadata) => Ok(Some(metadata)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Locks a file; `false` when somebody else keeps it locked.
fn lock(file: &File, deadline: Instant, waiting: &Waiting) -> io::Result<bool> {
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(true),
            // A file system without locks: if two attempts meet there, the last verification finds it.
            Err(TryLockError::Error(error)) if error.kind() == io::ErrorKind::Unsupported => return Ok(true),
            Err(TryLockError::Error(error)) => return Err(error),
            Err(TryLockError::WouldBlock) if Instant::now() >= deadline => return Ok(false),
            Err(TryLockError::WouldBlock) => {
                waiting.check()?;
                thread::sleep(LOCK_RETRY);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn publishes_where_there_are_no_hard_links() {
        let folder = tempfile::tempdir().unwrap();
        let destination = folder.path().join("saved");
        let place = Place::new(destination.clone()).unwrap();
        fs::write(&place.part, b"bytes").unwrap();
        fs::write(&destination, b"mine").unwrap();
        assert!(matches!(place.publish_by_rename(), Err(SinkError::Exists)));
        assert_eq!(fs::read(&destination).unwrap(), b"mine");
        fs::remove_file(&destination).unwrap();
        place.publish_by_rename().unwrap();
        assert_eq!(fs::read(&destination).unwrap(), b"bytes");
        assert!(!place.part.exists());

        fs::remove_file(&destination).unwrap();
        assert!(matches!(place.publish_by_rename(), Err(SinkError::Io(_))), "there is nothing to move");
        assert!(!destination.exists(), "the reserved name is given back");
    }
}
