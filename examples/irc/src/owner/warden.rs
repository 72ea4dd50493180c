//! The warden: hands out, one after the other, grants that the owner made in advance.
//!
//! It has no key and verifies nothing; a node does. The stock is a folder for each node, with one file for each grant whose
//! name begins with the second at which to hand it out.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::args::Warden;
use super::folder::{read_grant, write};
use super::time::now;
use crate::failure::Failure;
use crate::keys::{self, print};

/// `hcp-irc warden`.
pub(crate) async fn warden(command: Warden) -> Result<(), Failure> {
    keys::make_private_folder(&command.out)?;
    loop {
        for (node, path) in due(&command.stock, now())? {
            let grant = read_grant(&path)?;
            let out = command.out.join(format!("{node}.grant"));
            if fs::read(&out).is_ok_and(|held| held == grant) {
                continue;
            }
            write(&out, &grant)?;
            print(&format!("{}\n", out.display()))?;
        }
        let Some(seconds) = command.every else { return Ok(()) };
        tokio::time::sleep(Duration::from_secs(seconds)).await;
    }
}

/// Puts a grant into the stock.
pub(super) fn store(stock: &Path, node: &str, hand_out: u64, serial: u64, grant: &[u8]) -> Result<(), Failure> {
    let folder = stock.join(node);
    keys::make_private_folder(&folder)?;
    write(&folder.join(format!("{hand_out:020}-{serial:020}.grant")), grant)
}

/// For each node the last grant whose time has come.
fn due(stock: &Path, now: u64) -> Result<Vec<(String, PathBuf)>, Failure> {
    let mut due = Vec::new();
    for (node, folder) in entries(stock)? {
        if !folder.is_dir() {
            continue;
        }
        // Numbers of one length are ordered as their digits are; of two at one time the later serial counts.
        let best = entries(&folder)?.into_iter().filter(|(name, _)| hand_out(name).is_some_and(|at| at <= now)).max();
        due.extend(best.map(|(_, path)| (node, path)));
    }
    due.sort();
    Ok(due)
}

fn hand_out(name: &str) -> Option<u64> {
    let (hand_out, serial) = name.strip_suffix(".grant")?.split_once('-')?;
    serial.parse::<u64>().ok()?;
    hand_out.parse().ok()
}

fn entries(folder: &Path) -> Result<Vec<(String, PathBuf)>, Failure> {
    let failure = |error: std::io::Error| Failure::file("read the stock", folder, &error);
    let mut entries = Vec::new();
    for entry in fs::read_dir(folder).map_err(failure)? {
        let entry = entry.map_err(failure)?;
        if let Ok(name) = entry.file_name().into_string() {
            entries.push((name, entry.path()));
        }
    }
    Ok(entries)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hands_out_the_last_one_whose_time_has_come() {
        let stock = tempfile::tempdir().expect("a temporary folder");
        for (node, at, serial) in [("a", 0, 1), ("a", 100, 2), ("a", 900, 3), ("b", 1000, 4)] {
            store(stock.path(), node, at, serial, &[serial as u8]).expect("stored");
        }
        std::fs::write(stock.path().join("a/note"), b"not a grant").expect("written");
        let handed_out = |now| -> Vec<(String, Vec<u8>)> {
            let due = due(stock.path(), now).expect("read");
            due.into_iter().map(|(node, path)| (node, fs::read(path).expect("there"))).collect()
        };
        assert_eq!(handed_out(50), [("a".to_owned(), vec![1])]);
        assert_eq!(handed_out(899), [("a".to_owned(), vec![2])]);
        assert_eq!(handed_out(1000), [("a".to_owned(), vec![3]), ("b".to_owned(), vec![4])]);
    }
}
