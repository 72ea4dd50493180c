//! The stock of a warden: grants that were made in advance, and which of them a node may have when.
//!
//! One folder for each node, under whatever name, with one file for each grant; its name begins with the second at which to
//! hand it out and goes on with its serial. Whom a grant is for stands in the grant. A stock has no key and verifies nothing: a
//! node does. What is not yet due leaves it by no way, and what is in the wrong folder by none at all.
//!
//! Everything here blocks on the disk.

use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use thiserror::Error;
use zeroize::Zeroizing;

use super::book::Book;
use super::grant::{Grant, Label};
use super::holdings::make_private;
use super::issue::Step;
use crate::error::ErrorKind;
use crate::identity::keyfile::{read_bounded, write_over};
use crate::identity::manifest::Manifest;
use crate::identity::{DiscoveryPublicKey, OnionAddress};

/// Grants that were made in advance, in a folder.
#[derive(Clone, Debug)]
pub struct Stock {
    folder: PathBuf,
}

/// The last grant of a node whose time has come.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Due {
    /// How the node's folder is called.
    pub name: String,
    /// Where the grant is.
    pub path: PathBuf,
}

/// What a node gets that asks for what comes after what it holds.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum HandOut {
    /// The next grant whose time has come and that has not ended.
    Grant(Zeroizing<Vec<u8>>),
    /// There is nothing to give now.
    Nothing {
        /// When the next one is due, in Unix seconds, if there is one.
        next: Option<u64>,
    },
    /// There never was anything for the node at this service.
    Unknown,
}

impl Stock {
    /// The most folders that are looked at: one for each node that a book knows.
    pub const MAX_NODES: usize = Book::MAX_NODES;

    /// The stock in `folder`, which need not be there yet.
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self { folder: folder.into() }
    }

    /// Puts a grant into the folder that is called `name`, which is made if it is missing.
    ///
    /// # Errors
    /// [`StockError`] when the disk says no, or `name` cannot be that of a folder.
    pub fn store(&self, name: &str, step: &Step) -> Result<(), StockError> {
        if name.is_empty() || name.starts_with('.') || name.contains(['/', '\\']) {
            return Err(StockError(io::ErrorKind::InvalidInput.into()));
        }
        let folder = self.folder.join(name);
        make_private(&folder).map_err(StockError)?;
        let file = FileName { hand_out: step.hand_out, serial: step.grant.serial() };
        write_over(&folder.join(file.to_string()), &step.grant.to_bytes()).map_err(StockError)
    }

    /// For each node's folder the last grant whose time has come at `unix_now` (Unix seconds), in the order of their names.
    ///
    /// # Errors
    /// [`StockError`] when the disk says no.
    pub fn due(&self, unix_now: u64) -> Result<Vec<Due>, StockError> {
        let mut due = Vec::new();
        for (name, folder) in self.folders()? {
            // Of two at one time the later serial counts.
            let best = files(&folder)?.into_iter().filter(|file| file.hand_out <= unix_now).max();
            due.extend(best.map(|file| Due { name, path: folder.join(file.to_string()) }));
        }
        due.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(due)
    }

    /// What `node` gets for `service` at `unix_now` (Unix seconds) when the newest grant that it holds has the serial `above`, 0
    /// if it holds none. A node that was away takes in one after the other until there is nothing.
    ///
    /// # Errors
    /// [`StockError`] when the disk says no.
    pub fn hand_out(
        &self,
        service: OnionAddress,
        node: OnionAddress,
        above: u64,
        unix_now: u64,
    ) -> Result<HandOut, StockError> {
        let (mut due, mut next, mut is_known) = (Vec::new(), None, false);
        for (_, folder) in self.folders()? {
            let files = files(&folder)?;
            // Whose folder it is, one of its grants says; the others are looked at before they go anywhere.
            let of = files.first().and_then(|file| head(&folder.join(file.to_string())));
            if of != Some((service, node)) {
                continue;
            }
            is_known = true;
            for file in files {
                if file.hand_out > unix_now {
                    next = Some(next.map_or(file.hand_out, |next: u64| next.min(file.hand_out)));
                } else if file.serial > above {
                    due.push((file.serial, folder.join(file.to_string())));
                }
            }
        }
        if !is_known {
            return Ok(HandOut::Unknown);
        }
        due.sort_unstable();
        let mut best = None;
        for (serial, path) in due.into_iter().rev() {
            let Ok(bytes) = read_bounded(&path, Grant::MAX_LEN) else { continue };
            let label = Label::read(&bytes);
            let Some(label) =
                label.filter(|label| (label.service, label.node, label.serial) == (service, node, serial))
            else {
                tracing::warn!("a file in the stock is not what its folder and name say");
                continue;
            };
            // Those before have ended too.
            if label.speaks_until < unix_now {
                break;
            }
            best = Some(bytes);
        }
        Ok(best.map_or(HandOut::Nothing { next }, HandOut::Grant))
    }

    /// The discovery keys of the members, by the newest manifest that came with what is due at `unix_now` (Unix seconds); none
    /// when there is no such manifest, or a member in it has no key. For hiding a warden from others.
    ///
    /// # Errors
    /// [`StockError`] when the disk says no.
    pub fn discovery_keys(&self, unix_now: u64) -> Result<Option<Vec<DiscoveryPublicKey>>, StockError> {
        let read = |due: Due| Label::manifest(&read_bounded(&due.path, Grant::MAX_LEN).ok()?);
        let manifests = self.due(unix_now)?.into_iter().filter_map(read);
        let newest = manifests.reduce(|best, next| if next.supersedes(&best) { next } else { best });
        Ok(newest.as_ref().map(Manifest::contents).and_then(|contents| contents.discovery_keys()))
    }

    /// The folders of nodes, with their names.
    fn folders(&self) -> Result<Vec<(String, PathBuf)>, StockError> {
        let mut folders = Vec::new();
        for entry in fs::read_dir(&self.folder).map_err(StockError)? {
            let entry = entry.map_err(StockError)?;
            if let Ok(name) = entry.file_name().into_string()
                && entry.path().is_dir()
            {
                folders.push((name, entry.path()));
            }
        }
        folders.truncate(Self::MAX_NODES);
        Ok(folders)
    }
}

/// The grants in a node's folder, by their names, the first to hand out first.
fn files(folder: &Path) -> Result<Vec<FileName>, StockError> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).map_err(StockError)? {
        let name = entry.map_err(StockError)?.file_name();
        files.extend(name.to_str().and_then(FileName::parse));
    }
    files.sort_unstable();
    Ok(files)
}

/// Service and node of the grant in a file.
fn head(path: &Path) -> Option<(OnionAddress, OnionAddress)> {
    let mut head = [0; Label::HEAD];
    File::open(path).ok()?.read_exact(&mut head).ok()?;
    Label::head(&head)
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct FileName {
    hand_out: u64,
    serial: u64,
}

impl FileName {
    fn parse(text: &str) -> Option<Self> {
        let (hand_out, serial) = text.strip_suffix(SUFFIX)?.split_once('-')?;
        let name = Self { hand_out: hand_out.parse().ok()?, serial: serial.parse().ok()? };
        // One that is written otherwise would not be found again.
        (name.to_string() == text).then_some(name)
    }
}

/// Numbers of one length are ordered as their digits are.
impl fmt::Display for FileName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:020}-{:020}{SUFFIX}", self.hand_out, self.serial)
    }
}

impl fmt::Debug for HandOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Grant(_) => f.write_str("Grant([redacted])"),
            Self::Nothing { next } => f.debug_struct("Nothing").field("next", next).finish(),
            Self::Unknown => f.write_str("Unknown"),
        }
    }
}

/// The folder of a stock could not be used.
#[derive(Debug, Error)]
#[error("the stock of grants could not be used; check the folder and its permissions")]
pub struct StockError(#[source] io::Error);

impl StockError {
    /// What a caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        ErrorKind::Storage
    }
}

const SUFFIX: &str = ".grant";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_one_whose_time_has_come_is_due() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let stock = Stock::new(folder.path());
        for (node, hand_out, serial) in [("a", 0, 1), ("a", 100, 2), ("a", 900, 3), ("b", 1000, 4)] {
            let file = FileName { hand_out, serial };
            fs::create_dir_all(folder.path().join(node)).expect("made");
            fs::write(folder.path().join(node).join(file.to_string()), [serial as u8]).expect("written");
        }
        for other in
            ["a/note", "a/5-6.grant", "a/x-y.grant", "a/+0000000000000000005-00000000000000000009.grant", "b.grant"]
        {
            fs::write(folder.path().join(other), b"not a grant").expect("written");
        }
        let due = |now| -> Vec<(String, Vec<u8>)> {
            let due = stock.due(now).expect("read").into_iter();
            due.map(|due| (due.name, fs::read(due.path).expect("there"))).collect()
        };
        assert_eq!(due(50), [("a".to_owned(), vec![1])]);
        assert_eq!(due(899), [("a".to_owned(), vec![2])]);
        assert_eq!(due(1000), [("a".to_owned(), vec![3]), ("b".to_owned(), vec![4])]);
        assert!(Stock::new(folder.path().join("nowhere")).due(0).is_err());
    }
}
