//! Events in the database: what happened to which row, in order. What they say is read from the rows.

use rusqlite::{Row, params};

use super::Store;
use crate::messenger::event::MAX_EVENTS;
use crate::store::StoreError;

/// What an event is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::messenger) enum RowKind {
    Contact,
    MessageReceived,
    MessageWritten,
    MessageState,
    TransferOffered,
    TransferState,
}

/// An event as it is stored.
#[derive(Clone, Copy, Debug)]
pub(in crate::messenger) struct EventRow {
    pub(in crate::messenger) cursor: u64,
    pub(in crate::messenger) kind: RowKind,
    /// The row it is about.
    pub(in crate::messenger) subject: i64,
    /// The state's number, where the event tells one.
    pub(in crate::messenger) state: u8,
}

/// A row's number as the subject of an event; row numbers are small.
pub(in crate::messenger) fn subject(position: u64) -> i64 {
    i64::try_from(position).unwrap_or(i64::MAX)
}

impl Store {
    pub(in crate::messenger) fn insert_event(&self, kind: RowKind, subject: i64, state: u8) -> Result<(), StoreError> {
        if !self.told.replace(true) {
            self.begin_cursors()?;
        }
        let sql = "INSERT INTO events (kind, subject, state) VALUES (?1, ?2, ?3)";
        self.connection().prepare_cached(sql)?.execute(params![kind as u8, subject, state])?;
        let cursor = self.connection().last_insert_rowid();
        // Now and then, so that not every event costs a deletion.
        if cursor % 1024 == 0 {
            let sql =
                "DELETE FROM events WHERE cursor <= (SELECT cursor FROM events ORDER BY cursor DESC LIMIT 1 OFFSET ?1)";
            self.connection().execute(sql, [i64::try_from(MAX_EVENTS).unwrap_or(i64::MAX)])?;
        }
        Ok(())
    }

    /// Begins a stretch of cursors that no other opening has: of a profile that was restored some are known to readers that
    /// another life of it gave out, and a reader must not take what is new now for what it has read.
    fn begin_cursors(&self) -> Result<(), StoreError> {
        let sql = "UPDATE sqlite_sequence SET seq = seq + ?1 WHERE name = 'events'";
        // The very first is number one, behind which nothing can be missing.
        self.connection().execute(sql, [i64::from(rand::random::<u32>())])?;
        Ok(())
    }

    pub(in crate::messenger) fn events(&self, after: u64, limit: usize) -> Result<Vec<EventRow>, StoreError> {
        let sql = "SELECT cursor, kind, subject, state FROM events WHERE cursor > ?1 ORDER BY cursor LIMIT ?2";
        let (after, limit) = (i64::try_from(after).unwrap_or(i64::MAX), i64::try_from(limit).unwrap_or(i64::MAX));
        let mut statement = self.connection().prepare_cached(sql)?;
        statement.query_map([after, limit], read)?.collect::<Result<Result<Vec<_>, _>, _>>()?
    }

    /// The oldest cursor that can be read on from, and the newest one.
    pub(in crate::messenger) fn cursors(&self) -> Result<(u64, u64), StoreError> {
        let sql = "SELECT coalesce(min(cursor) - 1, 0), coalesce(max(cursor), 0) FROM events";
        Ok(self.connection().query_row(sql, [], |row| Ok((row.get(0)?, row.get(1)?)))?)
    }
}

fn read(row: &Row<'_>) -> rusqlite::Result<Result<EventRow, StoreError>> {
    let kind: u8 = row.get(1)?;
    let Some(kind) = KINDS.into_iter().find(|other| *other as u8 == kind) else {
        return Ok(Err(StoreError::Damaged("an event has no kind")));
    };
    Ok(Ok(EventRow { cursor: row.get(0)?, kind, subject: row.get(2)?, state: row.get(3)? }))
}

/// Their numbers are on disk.
const KINDS: [RowKind; 6] = [
    RowKind::Contact,
    RowKind::MessageReceived,
    RowKind::MessageWritten,
    RowKind::MessageState,
    RowKind::TransferOffered,
    RowKind::TransferState,
];
