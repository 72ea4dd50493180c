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
            if self.connection().execute(sql, [i64::try_from(MAX_EVENTS).unwrap_or(i64::MAX)])? > 0 {
                self.connection().execute("UPDATE profile SET events_forgotten = 1", [])?;
            }
        }
        Ok(())
    }

    /// Begins a stretch of cursors that no other opening has: of a profile that was restored some are known to readers that
    /// another life of it gave out, and a reader must not take what is new now for what it has read. That of the very first
    /// event is no exception: a copy that had told nothing yet has other lives, too.
    fn begin_cursors(&self) -> Result<(), StoreError> {
        let skipped = i64::from(rand::random::<u32>());
        let sql = "UPDATE sqlite_sequence SET seq = seq + ?1 WHERE name = 'events'";
        if self.connection().execute(sql, [skipped])? == 0 {
            let sql = "INSERT INTO sqlite_sequence (name, seq) VALUES ('events', ?1)";
            self.connection().execute(sql, [skipped])?;
        }
        Ok(())
    }

    pub(in crate::messenger) fn events(&self, after: u64, limit: usize) -> Result<Vec<EventRow>, StoreError> {
        let sql = "SELECT cursor, kind, subject, state FROM events WHERE cursor > ?1 ORDER BY cursor LIMIT ?2";
        let (after, limit) = (i64::try_from(after).unwrap_or(i64::MAX), i64::try_from(limit).unwrap_or(i64::MAX));
        let mut statement = self.connection().prepare_cached(sql)?;
        statement.query_map([after, limit], read)?.collect::<Result<Result<Vec<_>, _>, _>>()?
    }

    /// Whether an event has this cursor. Of those that another life of this profile gave out, none here has one, but by a
    /// chance in billions.
    pub(in crate::messenger) fn has_cursor(&self, cursor: u64) -> Result<bool, StoreError> {
        let Ok(cursor) = i64::try_from(cursor) else { return Ok(false) };
        let sql = "SELECT EXISTS (SELECT 1 FROM events WHERE cursor = ?1)";
        Ok(self.connection().prepare_cached(sql)?.query_row([cursor], |row| row.get(0))?)
    }

    /// The oldest cursor that can be read on from, zero while every event is here; and the newest one, zero while there is
    /// none.
    pub(in crate::messenger) fn cursors(&self) -> Result<(u64, u64), StoreError> {
        let sql = "SELECT iif(events_forgotten, coalesce((SELECT min(cursor) FROM events) - 1, 0), 0),
            coalesce((SELECT max(cursor) FROM events), 0) FROM profile";
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::Identity;

    fn tell(store: &Store, count: usize) -> Vec<u64> {
        let told = |_| {
            store.insert_event(RowKind::Contact, 1, 0).unwrap();
            store.cursors().unwrap().1
        };
        (0..count).map(told).collect()
    }

    #[test]
    fn no_cursor_of_a_life_that_was_lost_is_known_in_another() {
        for before in [0, 1, 3] {
            let mut store = Store::in_memory(&Identity::from_seed(&[1; 32]));
            let mut known = tell(&store, before);
            let lost = tell(&store.copy(), 5);
            // Restored, and opened again and again.
            for _ in 0..10 {
                store = store.copy();
                known.extend(tell(&store, 3));
            }
            assert_eq!(store.cursors().unwrap().0, 0, "everything can be read from the start");
            assert!(known.iter().all(|cursor| store.has_cursor(*cursor).unwrap()));
            assert!(!lost.iter().any(|cursor| store.has_cursor(*cursor).unwrap()));
            assert!(!store.has_cursor(u64::MAX).unwrap());
        }
    }

    #[test]
    fn once_events_are_forgotten_the_start_is_no_place_to_read_on_from() {
        let store = Store::in_memory(&Identity::from_seed(&[1; 32]));
        tell(&store, 1);
        let many = format!(
            "WITH RECURSIVE numbers (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < {MAX_EVENTS})
            INSERT INTO events (kind, subject, state) SELECT 0, 1, 0 FROM numbers"
        );
        store.connection().execute_batch(&many).unwrap();
        assert_eq!(store.cursors().unwrap().0, 0);
        let newest = *tell(&store, 1024).last().unwrap();
        let oldest = store.cursors().unwrap().0;
        assert!(oldest > 0 && oldest < newest);
        assert_eq!(store.events(oldest, 1).unwrap()[0].cursor, oldest + 1);
        assert_eq!(store.copy().cursors().unwrap(), (oldest, newest));
    }
}
