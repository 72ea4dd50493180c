//! The thread that writes: batches that wait together go into one transaction; what nobody points at any more goes when
//! nothing waits.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use rusqlite::{Connection, OptionalExtension, Transaction, params};
use tokio::sync::mpsc::error::TryRecvError;
use tokio::sync::{mpsc, oneshot};

use super::super::{GROUP_BYTES, size};
use crate::replica::log::storage::{Batch, Checkpoint, Outcome, Piece, Position, Row, UpTo};
use crate::replica::place::LogId;
use crate::store::{Database, StoreError};

/// Why the last batch was not stored.
pub(super) type Failure = Arc<Mutex<Option<Arc<StoreError>>>>;

/// What the thread is asked to do.
#[derive(Debug)]
pub(super) enum Job {
    Write(Box<Batch>, oneshot::Sender<Outcome>),
    /// Let go of the database.
    Stop,
}

/// Bytes of payloads or pieces that go in one transaction: a batch that comes meanwhile waits no longer than for its own.
const SWEEP_BYTES: usize = 4 * 1024 * 1024;
/// Payloads or pieces that go in one transaction.
const SWEEP_ROWS: usize = 512;

#[derive(Debug)]
pub(super) struct Writer {
    database: Database,
    tables: Tables,
    failure: Failure,
    broken: bool,
    /// There may be something that nobody points at.
    unswept: bool,
    /// It is worth a try to remove it now.
    sweeping: bool,
}

/// What is known of the tables' numbers.
#[derive(Debug, Default)]
struct Tables {
    logs: BTreeMap<LogId, i64>,
    payload: i64,
}

impl Writer {
    pub(super) fn new(mut database: Database, failure: Failure) -> Result<Self, StoreError> {
        let last: Option<i64> = database.connection.query_row("SELECT max(id) FROM payloads", [], |row| row.get(0))?;
        let tables = Tables { payload: last.unwrap_or(0), ..Tables::default() };
        // A state that no checkpoint took up before the end of the last run.
        let forget = |connection: &mut Connection| -> Result<(), StoreError> {
            let within = connection.transaction()?;
            let lost = "SELECT id FROM states WHERE root NOT IN (SELECT root FROM checkpoint)";
            within.execute(&format!("INSERT INTO doomed_states {lost}"), [])?;
            within.execute(&format!("DELETE FROM states WHERE id IN ({lost})"), [])?;
            Ok(within.commit()?)
        };
        match forget(&mut database.connection) {
            // It is read all the same, and goes another time.
            Ok(()) | Err(StoreError::Full) => {}
            Err(error) => return Err(error),
        }
        Ok(Self { database, tables, failure, broken: false, unswept: true, sweeping: true })
    }

    /// Runs until it is stopped or nobody can ask any more.
    pub(super) fn run(mut self, mut jobs: mpsc::Receiver<Job>) {
        let mut next = None;
        loop {
            let job = match next.take().map_or_else(|| jobs.try_recv(), Ok) {
                Ok(job) => Some(job),
                Err(TryRecvError::Empty) if self.sweeping => {
                    self.sweep();
                    continue;
                }
                Err(TryRecvError::Empty) => jobs.blocking_recv(),
                Err(TryRecvError::Disconnected) => None,
            };
            let Some(Job::Write(batch, reply)) = job else { return };
            let mut bytes = size(&batch);
            let mut group = vec![(batch, reply)];
            while bytes < GROUP_BYTES {
                match jobs.try_recv() {
                    Ok(Job::Write(batch, reply)) => {
                        bytes += size(&batch);
                        group.push((batch, reply));
                    }
                    Ok(Job::Stop) => {
                        next = Some(Job::Stop);
                        break;
                    }
                    Err(_) => break,
                }
            }
            self.carry_out(group);
        }
    }

    fn carry_out(&mut self, group: Vec<(Box<Batch>, oneshot::Sender<Outcome>)>) {
        let together = self.commit(&mut group.iter().map(|(batch, _)| &**batch));
        if group.len() > 1 && together == Outcome::Full {
            // What is small may still fit.
            for (batch, reply) in group {
                let _ = reply.send(self.commit(&mut std::iter::once(&*batch)));
            }
            return;
        }
        for (_, reply) in group {
            // Nobody waits any more: fine.
            let _ = reply.send(together);
        }
    }

    /// Carries out some batches in one transaction.
    fn commit(&mut self, batches: &mut dyn Iterator<Item = &Batch>) -> Outcome {
        if self.broken {
            return Outcome::Broken;
        }
        let done = commit(&mut self.database.connection, &mut self.tables, batches);
        let (failed, outcome) = match done {
            Ok(forgot) => {
                self.unswept |= forgot;
                self.sweeping = self.unswept;
                (None, Outcome::Done)
            }
            Err(error) => {
                self.tables.logs.clear();
                // Only what was taken back as a whole may be tried again.
                let full = matches!(error, StoreError::Full) && self.database.connection.is_autocommit();
                self.broken = !full;
                if full {
                    tracing::warn!(%error, "the log cannot be written for want of room");
                    // The file beside the database is written from its beginning again, and needs no room.
                    let _ = self.database.connection.execute_batch("PRAGMA wal_checkpoint(PASSIVE)");
                } else {
                    tracing::error!(%error, "the log cannot be written any more");
                }
                (Some(Arc::new(error)), if full { Outcome::Full } else { Outcome::Broken })
            }
        };
        *self.failure.lock().unwrap_or_else(PoisonError::into_inner) = failed;
        outcome
    }

    /// Removes some of what nobody points at any more.
    fn sweep(&mut self) {
        match sweep(&mut self.database.connection) {
            Ok(more) => (self.sweeping, self.unswept) = (more, more),
            // Another time, when a batch has found room.
            Err(error) => {
                self.sweeping = false;
                tracing::debug!(%error, "what was pruned from the log stays for now");
            }
        }
    }
}

/// Says whether something was forgotten.
fn commit(
    connection: &mut Connection,
    tables: &mut Tables,
    batches: &mut dyn Iterator<Item = &Batch>,
) -> Result<bool, StoreError> {
    let mut forgot = false;
    let within = connection.transaction()?;
    for batch in batches {
        for position in &batch.forget_positions {
            forget_position(&within, *position)?;
        }
        for row in &batch.rows {
            tables.insert(&within, row)?;
        }
        for piece in &batch.pieces {
            insert_piece(&within, piece)?;
        }
        if let Some(checkpoint) = &batch.checkpoint {
            set_checkpoint(&within, checkpoint)?;
        }
        for root in &batch.forget_states {
            within
                .prepare_cached("INSERT INTO doomed_states SELECT id FROM states WHERE root = ?1")?
                .execute([root])?;
            within.prepare_cached("DELETE FROM states WHERE root = ?1")?.execute([root])?;
        }
        for up_to in &batch.forget_rows {
            tables.forget(&within, up_to)?;
        }
        forgot |=
            !(batch.forget_positions.is_empty() && batch.forget_states.is_empty() && batch.forget_rows.is_empty());
    }
    within.commit()?;
    Ok(forgot)
}

impl Tables {
    fn insert(&mut self, within: &Transaction<'_>, row: &Row) -> Result<(), StoreError> {
        let log = self.log(within, &row.log)?;
        let payload = match &row.payload {
            Some(bytes) => {
                self.payload += 1;
                within
                    .prepare_cached("INSERT INTO payloads VALUES (?1, ?2)")?
                    .execute(params![self.payload, &bytes[..]])?;
                Some(self.payload)
            }
            None => None,
        };
        within.prepare_cached("INSERT INTO segments VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)")?.execute(params![
            integer(row.position.0),
            log,
            integer(row.seq),
            row.branch.0,
            row.system,
            payload,
            row.hash,
            &row.signature[..],
            &row.header[..],
        ])?;
        Ok(())
    }

    /// The number of a log, which gets one if it has none.
    fn log(&mut self, within: &Transaction<'_>, log: &LogId) -> Result<i64, StoreError> {
        if let Some(id) = self.logs.get(log) {
            return Ok(*id);
        }
        let id = match log_id(within, log)? {
            Some(id) => id,
            None => {
                within
                    .prepare_cached("INSERT INTO logs (node, incarnation) VALUES (?1, ?2)")?
                    .execute(params![log.node.0, log.incarnation.0])?;
                within.last_insert_rowid()
            }
        };
        self.logs.insert(*log, id);
        Ok(id)
    }

    fn forget(&mut self, within: &Transaction<'_>, up_to: &UpTo) -> Result<(), StoreError> {
        let Some(log) = log_id(within, &up_to.log)? else { return Ok(()) };
        let range = params![log, integer(up_to.seq)];
        within
            .prepare_cached(
                "INSERT INTO doomed_payloads SELECT payload FROM segments
                 WHERE log = ?1 AND seq <= ?2 AND payload IS NOT NULL",
            )?
            .execute(range)?;
        within.prepare_cached("DELETE FROM segments WHERE log = ?1 AND seq <= ?2")?.execute(range)?;
        let gone = within
            .prepare_cached("DELETE FROM logs WHERE id = ?1 AND NOT EXISTS (SELECT 1 FROM segments WHERE log = ?1)")?
            .execute([log])?;
        if gone > 0 {
            self.logs.remove(&up_to.log);
        }
        Ok(())
    }
}

fn forget_position(within: &Transaction<'_>, position: Position) -> Result<(), StoreError> {
    let position = integer(position.0);
    within
        .prepare_cached(
            "INSERT INTO doomed_payloads SELECT payload FROM segments WHERE position = ?1 AND payload IS NOT NULL",
        )?
        .execute([position])?;
    within.prepare_cached("DELETE FROM segments WHERE position = ?1")?.execute([position])?;
    Ok(())
}

fn insert_piece(within: &Transaction<'_>, piece: &Piece) -> Result<(), StoreError> {
    within.prepare_cached("INSERT OR IGNORE INTO states (root) VALUES (?1)")?.execute([piece.root])?;
    within
        .prepare_cached(
            "INSERT OR REPLACE INTO pieces (state, number, bytes) SELECT id, ?2, ?3 FROM states WHERE root = ?1",
        )?
        .execute(params![piece.root, piece.index, &piece.bytes[..]])?;
    Ok(())
}

fn set_checkpoint(within: &Transaction<'_>, checkpoint: &Checkpoint) -> Result<(), StoreError> {
    within.prepare_cached("INSERT OR REPLACE INTO checkpoint VALUES (1, ?1, ?2, ?3, ?4, ?5)")?.execute(params![
        checkpoint.root,
        integer(checkpoint.length),
        &checkpoint.summary[..],
        &checkpoint.pieces[..],
        &checkpoint.certificate[..],
    ])?;
    Ok(())
}

/// Removes a slice of what nobody points at, and says whether there may be more.
fn sweep(connection: &mut Connection) -> Result<bool, StoreError> {
    let within = connection.transaction()?;
    let mut taken = 0;
    {
        let mut statement = within.prepare_cached(
            "SELECT doomed_payloads.id, length(bytes) FROM doomed_payloads LEFT JOIN payloads USING (id) LIMIT ?1",
        )?;
        let mut rows = statement.query([SWEEP_ROWS as i64])?;
        let (mut doomed, mut bytes) = (Vec::new(), 0);
        while bytes < SWEEP_BYTES
            && let Some(row) = rows.next()?
        {
            doomed.push(row.get::<_, i64>(0)?);
            bytes += row.get::<_, Option<usize>>(1)?.unwrap_or(0);
        }
        drop(rows);
        for id in doomed {
            within.prepare_cached("DELETE FROM payloads WHERE id = ?1")?.execute([id])?;
            within.prepare_cached("DELETE FROM doomed_payloads WHERE id = ?1")?.execute([id])?;
            taken += 1;
        }
    }
    if taken == 0 {
        let state: Option<i64> =
            within.query_row("SELECT id FROM doomed_states LIMIT 1", [], |row| row.get(0)).optional()?;
        if let Some(state) = state {
            taken = within.execute(
                "DELETE FROM pieces WHERE id IN (SELECT id FROM pieces WHERE state = ?1 LIMIT ?2)",
                params![state, (SWEEP_BYTES / crate::replica::log::storage::PIECE) as i64],
            )?;
            if taken == 0 {
                taken = within.execute("DELETE FROM doomed_states WHERE id = ?1", [state])?;
            }
        }
    }
    within.commit()?;
    Ok(taken > 0)
}

/// The number under which a log is held.
pub(super) fn log_id(connection: &Connection, log: &LogId) -> Result<Option<i64>, StoreError> {
    let mut statement = connection.prepare_cached("SELECT id FROM logs WHERE node = ?1 AND incarnation = ?2")?;
    Ok(statement.query_row(params![log.node.0, log.incarnation.0], |row| row.get(0)).optional()?)
}

/// SQLite's integers are signed; no log gets near that many segments, and a look-up beyond finds nothing.
pub(super) fn integer(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
