//! The tables, and whose they are.
//!
//! A payload has a number of its own and goes some time after its segment did, so that pruning a long log holds nobody up;
//! so do the pieces of a state. Headers are in a table of their own, which opening reads as a whole.

use rusqlite::{Connection, OptionalExtension, params};

use super::Tuning;
use crate::identity::OnionAddress;
use crate::replica::place::NodeId;
use crate::store::StoreError;

/// Each is run once.
pub(super) const MIGRATIONS: &[&str] = &["
    CREATE TABLE owner (service BLOB NOT NULL, node BLOB NOT NULL);
    CREATE TABLE logs (
        id INTEGER PRIMARY KEY,
        node BLOB NOT NULL,
        incarnation BLOB NOT NULL,
        UNIQUE (node, incarnation)
    );
    CREATE TABLE segments (
        position INTEGER PRIMARY KEY,
        log INTEGER NOT NULL REFERENCES logs,
        seq INTEGER NOT NULL,
        branch INTEGER NOT NULL,
        system INTEGER NOT NULL,
        payload INTEGER,
        hash BLOB NOT NULL,
        signature BLOB NOT NULL,
        header BLOB NOT NULL
    );
    CREATE INDEX places ON segments (log, seq);
    CREATE TABLE payloads (id INTEGER PRIMARY KEY, bytes BLOB NOT NULL);
    CREATE TABLE doomed_payloads (id INTEGER PRIMARY KEY);
    CREATE TABLE checkpoint (
        id INTEGER PRIMARY KEY CHECK (id = 1),
        root BLOB NOT NULL,
        length INTEGER NOT NULL,
        summary BLOB NOT NULL,
        pieces BLOB NOT NULL,
        certificate BLOB NOT NULL
    );
    CREATE TABLE states (id INTEGER PRIMARY KEY AUTOINCREMENT, root BLOB NOT NULL UNIQUE);
    CREATE TABLE pieces (
        id INTEGER PRIMARY KEY,
        state INTEGER NOT NULL,
        number INTEGER NOT NULL,
        bytes BLOB NOT NULL,
        UNIQUE (state, number)
    );
    CREATE TABLE doomed_states (id INTEGER PRIMARY KEY);
"];
/// The file beside the database shrinks to this after something large.
const JOURNAL_BYTES: u32 = 32 * 1024 * 1024;
/// Pages of the database that the writing side keeps in memory, in KiB.
const CACHE_KIB: i32 = 8 * 1024;

/// Sets what does not stay with a database.
pub(super) fn tune(connection: &Connection, tuning: Tuning) -> Result<(), StoreError> {
    connection.pragma_update(None, "wal_autocheckpoint", tuning.checkpoint_pages)?;
    connection.pragma_update(None, "journal_size_limit", JOURNAL_BYTES)?;
    connection.pragma_update(None, "cache_size", -CACHE_KIB)?;
    if let Some(pages) = tuning.max_pages {
        connection.pragma_update(None, "max_page_count", pages)?;
    }
    #[cfg(test)]
    if tuning.unsynced {
        connection.pragma_update(None, "synchronous", "OFF")?;
    }
    connection.set_prepared_statement_cache_capacity(32);
    Ok(())
}

/// Makes a new database this node's, and refuses another's.
pub(super) fn claim(connection: &Connection, service: &OnionAddress, node: &NodeId) -> Result<(), StoreError> {
    let owner: Option<([u8; 32], [u8; 32])> =
        connection.query_row("SELECT service, node FROM owner", [], |row| Ok((row.get(0)?, row.get(1)?))).optional()?;
    match owner {
        None => {
            connection.execute("INSERT INTO owner VALUES (?1, ?2)", params![service.public_key(), node.0])?;
            Ok(())
        }
        Some(owner) if owner == (*service.public_key(), node.0) => Ok(()),
        Some(_) => Err(StoreError::Damaged("it belongs to another service or node")),
    }
}
