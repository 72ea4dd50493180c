//! A folder on a disk whose power may go: what is synced of it, and what is not.

use std::collections::BTreeMap;
use std::path::Path;

use rand::RngExt;
use rand::rngs::StdRng;

use super::trace::Call;

/// What a disk writes as a whole.
const SECTOR: usize = 512;

#[derive(Debug, Default)]
pub(super) struct Volume {
    files: Vec<File>,
    /// As the process sees them.
    names: BTreeMap<String, usize>,
    synced_names: BTreeMap<String, usize>,
    /// Changes of names that are not synced: what a name stands for from then on.
    changed_names: Vec<(String, Option<usize>)>,
}

#[derive(Debug, Default)]
struct File {
    synced: Vec<u8>,
    changes: Vec<Change>,
}

#[derive(Debug)]
enum Change {
    Write { offset: usize, bytes: Vec<u8> },
    Truncate(usize),
}

impl Volume {
    pub(super) fn apply(&mut self, call: &Call) {
        match call {
            Call::Create(name) if !self.names.contains_key(name) => {
                self.files.push(File::default());
                self.names.insert(name.clone(), self.files.len() - 1);
                self.changed_names.push((name.clone(), Some(self.files.len() - 1)));
            }
            Call::Create(_) | Call::Said(_) => {}
            Call::Write { name, offset, bytes } => {
                let change = Change::Write { offset: *offset, bytes: bytes.clone() };
                self.file(name).changes.push(change);
            }
            Call::Truncate { name, length } => self.file(name).changes.push(Change::Truncate(*length)),
            Call::Sync(name) => {
                let file = self.file(name);
                for change in std::mem::take(&mut file.changes) {
                    change.apply(&mut file.synced);
                }
            }
            Call::SyncFolder => {
                self.changed_names.clear();
                self.synced_names = self.names.clone();
            }
            Call::Unlink(name) => {
                self.names.remove(name).expect("what is unlinked is there");
                self.changed_names.push((name.clone(), None));
            }
        }
    }

    /// Writes what a power cut leaves to a folder: of what is not synced each part with this probability, of names those up
    /// to some change. Says whether something was lost.
    pub(super) fn cut(&self, folder: &Path, kept: f64, random: &mut StdRng) -> bool {
        let mut names = self.synced_names.clone();
        let mut lost = false;
        for (name, file) in &self.changed_names {
            if !random.random_bool(kept) {
                lost = true;
                break;
            }
            match file {
                Some(file) => names.insert(name.clone(), *file),
                None => names.remove(name),
            };
        }
        for (name, file) in names {
            let file = &self.files[file];
            let mut bytes = file.synced.clone();
            for change in &file.changes {
                lost |= !change.apply_some(&mut bytes, kept, random);
            }
            std::fs::write(folder.join(name), bytes).unwrap();
        }
        lost
    }

    fn file(&mut self, name: &str) -> &mut File {
        let file = self.names[name];
        &mut self.files[file]
    }
}

impl Change {
    fn apply(&self, to: &mut Vec<u8>) {
        match self {
            Self::Write { offset, bytes } => write(to, *offset, bytes),
            Self::Truncate(length) => to.resize(*length, 0),
        }
    }

    /// Applies each sector or not, and says whether all were.
    fn apply_some(&self, to: &mut Vec<u8>, kept: f64, random: &mut StdRng) -> bool {
        let mut all = true;
        match self {
            Self::Write { offset, bytes } => {
                let (mut at, end) = (*offset, offset + bytes.len());
                while at < end {
                    let next = ((at / SECTOR + 1) * SECTOR).min(end);
                    if random.random_bool(kept) {
                        write(to, at, &bytes[at - offset..next - offset]);
                    } else {
                        all = false;
                    }
                    at = next;
                }
            }
            Self::Truncate(_) if random.random_bool(kept) => self.apply(to),
            Self::Truncate(_) => all = false,
        }
        all
    }
}

fn write(to: &mut Vec<u8>, offset: usize, bytes: &[u8]) {
    if to.len() < offset + bytes.len() {
        to.resize(offset + bytes.len(), 0);
    }
    to[offset..offset + bytes.len()].copy_from_slice(bytes);
}
