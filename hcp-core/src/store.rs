//! Opening SQLite databases: one process at a time, fully synchronous, with migrations.

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use data_encoding::HEXLOWER;
use rusqlite::{Connection, ErrorCode, OpenFlags};
use zeroize::Zeroizing;

use crate::error::ErrorKind;

/// A database that no other process has open. The lock goes with it.
#[derive(Debug)]
pub(crate) struct Database {
    pub(crate) connection: Connection,
    /// Dropped once the connection is closed.
    _log: Option<EmptyLog>,
    #[cfg(feature = "replica")]
    path: PathBuf,
    _lock: Option<File>,
}

/// Leaves an empty write-ahead log beside a database that is closed. SQLite does not tell whose log it finds: a copy that is
/// laid over what a killed process left would be read with the log of that. With this, the copy has a log, too.
#[derive(Debug)]
struct EmptyLog(PathBuf);

impl Drop for EmptyLog {
    fn drop(&mut self) {
        // What SQLite has left, because it could not put it into the database, stays.
        let _ = private().create_new(true).open(&self.0);
    }
}

/// The write-ahead log of a database.
pub(crate) fn log_of(path: &Path) -> PathBuf {
    let mut log = path.as_os_str().to_owned();
    log.push("-wal");
    log.into()
}

impl Database {
    /// Opens or makes the database at `path` and brings it to the newest of `migrations`, each of which is run once.
    #[cfg(feature = "replica")]
    pub(crate) fn open(path: &Path, migrations: &[&str]) -> Result<Self, StoreError> {
        Self::open_with(path, None, migrations)
    }

    /// Opens or makes the database at `path`, encrypted under a key, and brings it to the newest of `migrations`.
    #[cfg(feature = "messenger")]
    pub(crate) fn open_encrypted(path: &Path, key: &[u8; 32], migrations: &[&str]) -> Result<Self, StoreError> {
        Self::open_with(path, Some(key), migrations)
    }

    fn open_with(path: &Path, key: Option<&[u8; 32]>, migrations: &[&str]) -> Result<Self, StoreError> {
        let mut lock_path = path.as_os_str().to_owned();
        lock_path.push(".lock");
        let lock = lock(Path::new(&lock_path))?;
        // SQLite gives its other files the mode of this one.
        drop(private().open(path)?);
        let mut connection = Connection::open(path)?;
        if let Some(key) = key {
            unlock(&connection, key)?;
        }
        connection.pragma_update(None, "journal_mode", "WAL")?;
        // What a commit reported must survive a power cut.
        connection.pragma_update(None, "synchronous", "FULL")?;
        migrate(&mut connection, migrations)?;
        Ok(Self {
            connection,
            _log: Some(EmptyLog(log_of(path))),
            #[cfg(feature = "replica")]
            path: path.to_owned(),
            _lock: Some(lock),
        })
    }

    /// A database that lives in memory, for simulations.
    #[cfg(all(test, feature = "messenger"))]
    pub(crate) fn in_memory(migrations: &[&str]) -> Result<Self, StoreError> {
        let mut connection = Connection::open_in_memory()?;
        migrate(&mut connection, migrations)?;
        Ok(Self {
            connection,
            _log: None,
            #[cfg(feature = "replica")]
            path: PathBuf::new(),
            _lock: None,
        })
    }

    /// A further connection that only reads.
    #[cfg(feature = "replica")]
    pub(crate) fn reader(&self) -> Result<Connection, StoreError> {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        Ok(Connection::open_with_flags(&self.path, flags)?)
    }
}

/// Writes a copy of an encrypted database, under the same key, to a file that is not there yet. The database may be open: the
/// copy has what was committed when it began, and others go on meanwhile.
#[cfg(feature = "messenger")]
pub(crate) fn copy_encrypted(from: &Path, key: &[u8; 32], to: &Path) -> Result<(), StoreError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(from, flags)?;
    unlock(&connection, key)?;
    // SQLite fills an empty file; made here, so that only its owner can read it.
    let copy = private().create_new(true).open(to)?;
    let name = to.to_str().ok_or(io::ErrorKind::InvalidFilename).map_err(io::Error::from)?;
    connection.execute("VACUUM INTO ?1", [name])?;
    copy.sync_all()?;
    Ok(private().truncate(true).open(log_of(to))?.sync_all()?)
}

/// Gives a connection the key of its database.
fn unlock(connection: &Connection, key: &[u8; 32]) -> Result<(), StoreError> {
    // A raw key, which SQLCipher takes as it is; the passphrase was stretched when its key file was opened.
    let digits = Zeroizing::new(HEXLOWER.encode(key));
    let raw = Zeroizing::new(format!("x'{}'", *digits));
    // Says nothing on standard error, where it would report a damaged database to whoever looks.
    connection.pragma_update(None, "cipher_log_level", "NONE")?;
    connection.pragma_update(None, "key", raw.as_str())?;
    // Nothing of a query may spill into a file in the clear.
    connection.pragma_update(None, "temp_store", "MEMORY")?;
    Ok(())
}

/// Brings a database to the newest of `migrations`, each of which is run once.
fn migrate(connection: &mut Connection, migrations: &[&str]) -> Result<(), StoreError> {
    // A handful of migrations, which fits.
    let known = migrations.len() as u32;
    let found: u32 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    if found > known {
        return Err(StoreError::TooNew { found, known });
    }
    // Nothing is written then, so that what is on a full disk can be opened.
    if found == known {
        return Ok(());
    }
    let transaction = connection.transaction()?;
    for migration in &migrations[found as usize..] {
        transaction.execute_batch(migration)?;
    }
    transaction.pragma_update(None, "user_version", known)?;
    transaction.commit()?;
    Ok(())
}

/// Opens or makes a file that only its owner can read.
pub(crate) fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.create(true).truncate(false).write(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options
}

fn lock(path: &Path) -> Result<File, StoreError> {
    let file = private().open(path)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(StoreError::InUse),
        Err(TryLockError::Error(error)) => Err(error.into()),
    }
}

/// Why a database cannot be opened, read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// Another process has it open.
    #[error("the database is in use by another process")]
    InUse,
    /// The disk is full; nothing that was committed is lost.
    #[error("the disk is full; free some space and start again, nothing committed is lost")]
    Full,
    /// The database was written by a newer version of this library.
    #[error("the database has format {found}, this version knows {known}: use the newer version")]
    TooNew {
        /// Format of the database.
        found: u32,
        /// Newest format that this version knows.
        known: u32,
    },
    /// The stored bytes are not what was written.
    #[error("the database is damaged: {0}")]
    Damaged(&'static str),
    /// It was shut down.
    #[error("the database was shut down")]
    Closed,
    /// Anything else that SQLite reports.
    #[error("the database failed: {0}")]
    Sqlite(#[source] rusqlite::Error),
    /// The PostgreSQL server refuses, or cannot be reached.
    #[cfg(feature = "postgres")]
    #[error("the database server failed: {0}")]
    Postgres(#[source] tokio_postgres::Error),
    /// The PostgreSQL server does not answer.
    #[cfg(feature = "postgres")]
    #[error("the database server does not answer")]
    Silent,
    /// The PostgreSQL server is configured to report what would not survive a power cut.
    #[cfg(feature = "postgres")]
    #[error("the database server does not sync what it commits (fsync is off)")]
    Unsynced,
    /// The file system refused.
    #[error("cannot open the database: {0}")]
    Io(#[source] io::Error),
}

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        match error.sqlite_error_code() {
            Some(ErrorCode::DiskFull) => Self::Full,
            Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt) => Self::Damaged("not a valid database"),
            _ => Self::Sqlite(error),
        }
    }
}

#[cfg(feature = "postgres")]
impl From<tokio_postgres::Error> for StoreError {
    fn from(error: tokio_postgres::Error) -> Self {
        match error.code() {
            Some(&tokio_postgres::error::SqlState::DISK_FULL) => Self::Full,
            _ => Self::Postgres(error),
        }
    }
}

impl From<io::Error> for StoreError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::Full,
            _ => Self::Io(error),
        }
    }
}

impl StoreError {
    /// What a caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::InUse => ErrorKind::InUse,
            Self::Full => ErrorKind::LimitExceeded,
            Self::TooNew { .. } => ErrorKind::InvalidInput,
            Self::Closed => ErrorKind::Closed,
            #[cfg(feature = "postgres")]
            Self::Postgres(error) if error.is_closed() => ErrorKind::Unreachable,
            #[cfg(feature = "postgres")]
            Self::Postgres(_) => ErrorKind::Storage,
            #[cfg(feature = "postgres")]
            Self::Silent => ErrorKind::TimedOut,
            #[cfg(feature = "postgres")]
            Self::Unsynced => ErrorKind::InvalidInput,
            Self::Damaged(_) | Self::Sqlite(_) | Self::Io(_) => ErrorKind::Storage,
        }
    }

    /// Whether what the database is kept in is away, and may come again by itself.
    #[cfg(feature = "postgres")]
    pub(crate) fn is_away(&self) -> bool {
        match self {
            Self::Postgres(error) => match error.code() {
                // Class 08 is connections, 53 resources, 57 the operator's doing, 58 the server's system, 40 transactions.
                Some(code) => {
                    ["08", "53", "57", "58", "40"].iter().any(|class| code.code().starts_with(class))
                        || *code == tokio_postgres::error::SqlState::INTERNAL_ERROR
                }
                // Nothing that the server said.
                None => true,
            },
            Self::Silent => true,
            _ => false,
        }
    }

    /// Whether what the database is kept in is away, and may come again by itself: a file does not.
    #[cfg(all(feature = "replica", not(feature = "postgres")))]
    pub(crate) fn is_away(&self) -> bool {
        false
    }
}

#[cfg(all(test, feature = "replica"))]
mod tests {
    use super::*;

    #[test]
    fn a_copy_that_is_laid_over_what_a_killed_process_left_is_read_as_it_was_copied() {
        let folder = tempfile::tempdir().unwrap();
        let (path, copy) = (folder.path().join("a.db"), folder.path().join("copy"));
        let rows = |database: &Database| -> i64 {
            database.connection.query_row("SELECT count(*) FROM t", [], |row| row.get(0)).unwrap()
        };
        let first = Database::open(&path, &["CREATE TABLE t (x)"]).unwrap();
        first.connection.execute("INSERT INTO t VALUES (1)", []).unwrap();
        drop(first);
        std::fs::create_dir(&copy).unwrap();
        for file in ["a.db", "a.db-wal", "a.db.lock"] {
            std::fs::copy(folder.path().join(file), copy.join(file)).unwrap();
        }
        let second = Database::open(&path, &["CREATE TABLE t (x)"]).unwrap();
        second.connection.execute("INSERT INTO t VALUES (2)", []).unwrap();
        second.connection.execute("CREATE TABLE u (x)", []).unwrap();
        // As a process that is killed leaves it: the log is not in the database yet, and stays.
        let log = std::fs::read(log_of(&path)).unwrap();
        assert!(!log.is_empty());
        drop(second);
        std::fs::write(log_of(&path), log).unwrap();
        for file in std::fs::read_dir(&copy).unwrap() {
            let file = file.unwrap();
            std::fs::copy(file.path(), folder.path().join(file.file_name())).unwrap();
        }
        assert_eq!(rows(&Database::open(&path, &["CREATE TABLE t (x)"]).unwrap()), 1);
    }

    #[test]
    fn a_second_opening_is_refused_while_the_first_lives() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.db");
        let first = Database::open(&path, &["CREATE TABLE t (x)"]).unwrap();
        assert!(matches!(Database::open(&path, &[]), Err(StoreError::InUse)));
        drop(first);
        assert!(matches!(Database::open(&path, &[]), Err(StoreError::TooNew { found: 1, known: 0 })));
        Database::open(&path, &["CREATE TABLE t (x)", "CREATE TABLE u (x)"]).unwrap();
    }

    #[test]
    fn a_file_that_is_no_database_is_named_damaged() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.db");
        std::fs::write(&path, [7; 4096]).unwrap();
        assert!(matches!(Database::open(&path, &[]), Err(StoreError::Damaged(_))));
    }
}
