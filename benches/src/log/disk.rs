//! The disk that everything is measured on, and what it can do without any log.

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Instant;

use rusqlite::Connection;
use tempfile::TempDir;

use crate::Failure;
use crate::peers::noise;

/// What a segment of the log holds at most, about.
const PIECE: usize = 256 * 1024;
/// Pieces that are committed together.
const TOGETHER: usize = 4;
/// As `statfs` tells it.
const TMPFS: rustix::fs::FsWord = 0x0102_1994;

/// A folder on a real disk, below which measurements have folders of their own.
#[derive(Clone, Debug)]
pub struct Place(PathBuf);

impl Place {
    /// # Errors
    /// When the folder is not there, or in memory: nothing in it is durable.
    pub fn new(folder: PathBuf) -> Result<Self, Failure> {
        if rustix::fs::statfs(&folder)?.f_type == TMPFS {
            return Err(format!("{} is in memory (tmpfs); name one on a disk: --folder PATH", folder.display()).into());
        }
        Ok(Self(folder))
    }

    /// # Errors
    /// When it cannot be made.
    pub fn folder(&self) -> Result<TempDir, Failure> {
        Ok(tempfile::Builder::new().prefix("bench-log-").tempdir_in(&self.0)?)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }
}

/// Appends so many bytes to a file in pieces, each synced, in seconds.
///
/// # Errors
/// When it cannot be written.
pub fn bare_file(folder: &Path, bytes: usize) -> Result<f64, Failure> {
    let piece = noise(PIECE * TOGETHER);
    let path = folder.join("bare-file");
    let mut file = File::create(&path)?;
    let start = Instant::now();
    let mut left = bytes;
    while left > 0 {
        let length = left.min(piece.len());
        file.write_all(&piece[..length])?;
        file.sync_data()?;
        left -= length;
    }
    let took = start.elapsed().as_secs_f64();
    drop(file);
    std::fs::remove_file(path)?;
    Ok(took)
}

/// Commits so many bytes to a SQLite database as the log does, in rows of the size of segments, and nothing else, in seconds.
///
/// # Errors
/// When it cannot be written.
pub fn bare_sqlite(folder: &Path, bytes: usize) -> Result<f64, Failure> {
    let piece = noise(PIECE);
    let folder = folder.join("bare-sqlite");
    std::fs::create_dir(&folder)?;
    let mut database = Connection::open(folder.join("db"))?;
    database.pragma_update(None, "journal_mode", "WAL")?;
    database.pragma_update(None, "synchronous", "FULL")?;
    // As the log has it.
    database.pragma_update(None, "wal_autocheckpoint", 4_000)?;
    database.execute_batch("CREATE TABLE pieces (id INTEGER PRIMARY KEY, bytes BLOB NOT NULL)")?;
    let start = Instant::now();
    let mut left = bytes;
    while left > 0 {
        let within = database.transaction()?;
        for _ in 0..TOGETHER {
            let length = left.min(piece.len());
            within.prepare_cached("INSERT INTO pieces (bytes) VALUES (?1)")?.execute([&piece[..length]])?;
            left -= length;
        }
        within.commit()?;
    }
    let took = start.elapsed().as_secs_f64();
    drop(database);
    std::fs::remove_dir_all(folder)?;
    Ok(took)
}
