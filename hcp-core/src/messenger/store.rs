//! The profile's database: what is known of contacts, operations, transfers and events, and nothing about when or why.
//!
//! Changes are made between [`Store::begin`] and [`Store::commit`]; what was not committed never happened.

mod contacts;
mod events;
mod operations;
mod transfers;

use std::cell::Cell;
use std::fmt;
use std::path::Path;

use rusqlite::{Connection, params};

pub(super) use self::contacts::{ContactId, ContactRow};
pub(super) use self::events::{EventRow, RowKind, subject};
pub(super) use self::operations::{Epoch, OperationRow, Written, message_state, number as message_number};
pub(super) use self::transfers::{NewTransfer, TransferRow, number as transfer_number, transfer_state};
use super::text::Name;
use crate::identity::{DatabaseKey, Identity};
use crate::store::{Database, StoreError};

/// The database of one profile, held by one process.
pub(super) struct Store {
    database: Database,
    key: DatabaseKey,
    /// Whether this opening has told an event, and whether it had when this transaction began.
    told: Cell<bool>,
    told_before: Cell<bool>,
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Store([redacted])")
    }
}

impl Store {
    fn of(database: Database, key: DatabaseKey) -> Self {
        Self { database, key, told: Cell::default(), told_before: Cell::default() }
    }

    /// Makes the database, with the identity in it.
    pub(super) fn create(path: &Path, key: &DatabaseKey, identity: &Identity, name: &Name) -> Result<Self, StoreError> {
        let database = Database::open_encrypted(path, key.encryption(), MIGRATIONS)?;
        let store = Self::of(database, key.clone());
        store.write_profile(identity, name)?;
        Ok(store)
    }

    /// Opens the database and reads the identity.
    pub(super) fn open(path: &Path, key: &DatabaseKey) -> Result<(Self, Identity), StoreError> {
        let database = Database::open_encrypted(path, key.encryption(), MIGRATIONS)?;
        let store = Self::of(database, key.clone());
        let identity = store.identity()?;
        Ok((store, identity))
    }

    #[cfg(test)]
    pub(super) fn in_memory(identity: &Identity) -> Self {
        let database = Database::in_memory(MIGRATIONS).unwrap();
        let store = Self::of(database, DatabaseKey::generate());
        store.write_profile(identity, &Name::new("").unwrap()).unwrap();
        store
    }

    /// A copy of what is committed, as of a folder that was copied away.
    #[cfg(test)]
    pub(super) fn copy(&self) -> Self {
        let mut database = Database::in_memory(&[]).unwrap();
        let backup = rusqlite::backup::Backup::new(self.connection(), &mut database.connection).unwrap();
        backup.run_to_completion(10_000, std::time::Duration::ZERO, None).unwrap();
        drop(backup);
        Self::of(database, self.key.clone())
    }

    pub(super) fn begin(&self) -> Result<(), StoreError> {
        self.told_before.set(self.told.get());
        Ok(self.connection().execute_batch("BEGIN IMMEDIATE")?)
    }

    pub(super) fn commit(&self) -> Result<(), StoreError> {
        Ok(self.connection().execute_batch("COMMIT")?)
    }

    /// Forgets everything since [`Self::begin`]; does nothing when SQLite has forgotten it by itself.
    pub(super) fn rollback(&self) {
        self.told.set(self.told_before.get());
        if !self.connection().is_autocommit()
            && let Err(error) = self.connection().execute_batch("ROLLBACK")
        {
            tracing::error!(%error, "cannot roll back");
        }
    }

    /// The key of the database.
    pub(super) fn key(&self) -> &DatabaseKey {
        &self.key
    }

    /// Marks what this profile wrote, so that it knows it again when a contact gives it back.
    pub(super) fn marking(&self) -> &[u8; 32] {
        self.key.marking()
    }

    pub(super) fn name(&self) -> Result<String, StoreError> {
        Ok(self.connection().query_row("SELECT name FROM profile", [], |row| row.get(0))?)
    }

    pub(super) fn set_name(&self, name: &Name) -> Result<(), StoreError> {
        self.connection().execute("UPDATE profile SET name = ?1", [name.as_str()])?;
        Ok(())
    }

    fn write_profile(&self, identity: &Identity, name: &Name) -> Result<(), StoreError> {
        let key = identity.expanded_secret_key();
        self.connection()
            .execute("INSERT INTO profile (id, identity, name) VALUES (1, ?1, ?2)", params![&key[..], name.as_str()])?;
        Ok(())
    }

    fn identity(&self) -> Result<Identity, StoreError> {
        let read = self.connection().query_row("SELECT identity FROM profile", [], |row| row.get::<_, [u8; 64]>(0));
        let key = zeroize::Zeroizing::new(read?);
        Identity::from_expanded_secret_key(&key).map_err(|_| StoreError::Damaged("the identity is no key"))
    }

    fn connection(&self) -> &Connection {
        &self.database.connection
    }
}

const MIGRATIONS: &[&str] = &[
    "
CREATE TABLE profile (
  id INTEGER PRIMARY KEY CHECK (id = 1),
  identity BLOB NOT NULL,
  name TEXT NOT NULL
);
CREATE TABLE contacts (
  contact INTEGER PRIMARY KEY AUTOINCREMENT,
  address BLOB NOT NULL UNIQUE,
  petname TEXT NOT NULL,
  name TEXT NOT NULL,
  greeting TEXT NOT NULL,
  state INTEGER NOT NULL,
  -- Of a blocked one: it has asked since, and counts for itself as somebody whose request waits.
  shadow INTEGER NOT NULL
);
-- The highest sequence number: given out, of own epochs; stored, of the contact's.
CREATE TABLE epochs (
  number INTEGER PRIMARY KEY AUTOINCREMENT,
  contact INTEGER NOT NULL REFERENCES contacts,
  outgoing INTEGER NOT NULL,
  epoch BLOB NOT NULL,
  seq INTEGER NOT NULL,
  UNIQUE (contact, outgoing, epoch)
);
CREATE TABLE operations (
  position INTEGER PRIMARY KEY AUTOINCREMENT,
  contact INTEGER NOT NULL REFERENCES contacts,
  outgoing INTEGER NOT NULL,
  id BLOB NOT NULL,
  epoch BLOB,
  seq INTEGER,
  mark BLOB NOT NULL,
  content BLOB NOT NULL,
  text INTEGER NOT NULL,
  millis INTEGER NOT NULL,
  state INTEGER NOT NULL,
  UNIQUE (contact, outgoing, id),
  UNIQUE (contact, outgoing, epoch, seq)
);
CREATE INDEX operations_by_id ON operations (id);
CREATE INDEX operations_queued ON operations (contact, position) WHERE state = 0;
CREATE INDEX operations_written ON operations (contact, epoch, seq) WHERE state = 1;
CREATE INDEX texts ON operations (contact, position) WHERE text;
CREATE TABLE transfers (
  position INTEGER PRIMARY KEY AUTOINCREMENT,
  transfer BLOB NOT NULL UNIQUE,
  contact INTEGER NOT NULL REFERENCES contacts,
  outgoing INTEGER NOT NULL,
  name TEXT NOT NULL,
  size INTEGER NOT NULL,
  root BLOB NOT NULL,
  pieces BLOB,
  path BLOB,
  done INTEGER NOT NULL,
  state INTEGER NOT NULL
);
CREATE INDEX transfers_by_contact ON transfers (contact, state);
CREATE TABLE events (
  cursor INTEGER PRIMARY KEY AUTOINCREMENT,
  kind INTEGER NOT NULL,
  subject INTEGER NOT NULL,
  state INTEGER NOT NULL
);
",
    "
-- Ends that came before the offers that they end.
CREATE TABLE ends (
  contact INTEGER NOT NULL REFERENCES contacts,
  transfer BLOB NOT NULL,
  outgoing INTEGER NOT NULL,
  state INTEGER NOT NULL,
  PRIMARY KEY (contact, transfer, outgoing)
) WITHOUT ROWID;
",
    "
-- Where incomplete files are to be saved no more, until they are deleted.
CREATE TABLE discards (path BLOB PRIMARY KEY) WITHOUT ROWID;
-- Of an own epoch: the contact gave it back, after it was lost here.
ALTER TABLE epochs ADD COLUMN recalled INTEGER NOT NULL DEFAULT 0;
-- Whether old events were deleted. Until now the first one had the number one.
ALTER TABLE profile ADD COLUMN events_forgotten INTEGER NOT NULL DEFAULT 0;
UPDATE profile SET events_forgotten = 1 WHERE (SELECT min(cursor) FROM events) > 1;
",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_of_a_profile_of_before_are_read_from_the_start_as_long_as_all_are_there() {
        for (oldest, start) in [(1_u64, 0), (5, 4)] {
            let folder = tempfile::tempdir().unwrap();
            let (path, key) = (folder.path().join("profile.db"), DatabaseKey::generate());
            let before = Database::open_encrypted(&path, key.encryption(), &MIGRATIONS[..2]).unwrap();
            let before = Store::of(before, key.clone());
            before.write_profile(&Identity::from_seed(&[1; 32]), &Name::new("").unwrap()).unwrap();
            for cursor in oldest..oldest + 3 {
                before.connection().execute("INSERT INTO events VALUES (?1, 0, 1, 0)", [cursor]).unwrap();
            }
            drop(before);
            let (store, _) = Store::open(&path, &key).unwrap();
            assert_eq!(store.cursors().unwrap(), (start, oldest + 2));
        }
    }
}
