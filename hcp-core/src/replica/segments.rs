//! The log on disk: segments in one table, in an order in which each stands behind all that it depends on.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::place::{Incarnation, LogId, NodeId, Stamp};
use super::segment::{self, Hash, Segment, Tip};
use crate::identity::OnionAddress;
use crate::store::{Database, StoreError};
use crate::wire::replica_proto as proto;

const MIGRATIONS: &[&str] = &["
    CREATE TABLE owner (service BLOB NOT NULL, node BLOB NOT NULL);
    CREATE TABLE logs (
        id INTEGER PRIMARY KEY,
        node BLOB NOT NULL,
        incarnation BLOB NOT NULL,
        UNIQUE (node, incarnation)
    );
    CREATE TABLE segments (
        pos INTEGER PRIMARY KEY,
        log INTEGER NOT NULL REFERENCES logs,
        seq INTEGER NOT NULL,
        hash BLOB NOT NULL,
        header BLOB NOT NULL,
        signature BLOB NOT NULL,
        payload BLOB NOT NULL,
        UNIQUE (log, seq)
    );
"];
/// A page ends when it holds this many bytes of segments, so that nobody holds the whole log in memory.
const PAGE_BYTES: usize = 1024 * 1024;
const COLUMNS: &str = "pos, header, signature, payload";

/// A position in the order in which this node's disk holds segments, from 1. Positions are this node's own.
pub(super) type Position = i64;

/// The writing side; one thread owns it.
#[derive(Debug)]
pub(super) struct SegmentWriter {
    database: Database,
    logs: BTreeMap<LogId, i64>,
    next: Position,
}

/// Shared access for short reads.
#[derive(Debug)]
pub(super) struct SegmentReader(Mutex<Connection>);

impl SegmentWriter {
    /// Opens the log of `node` in `service`; another node's or service's is refused.
    pub(super) fn open(path: &Path, service: &OnionAddress, node: &NodeId) -> Result<Self, StoreError> {
        let database = Database::open(path, MIGRATIONS)?;
        let connection = &database.connection;
        let owner: Option<(Vec<u8>, Vec<u8>)> = connection
            .query_row("SELECT service, node FROM owner", [], |row| Ok((row.get(0)?, row.get(1)?)))
            .optional()?;
        match owner {
            None => {
                connection.execute("INSERT INTO owner VALUES (?1, ?2)", params![service.public_key(), node.0])?;
            }
            Some(owner) if owner == (service.public_key().to_vec(), node.0.to_vec()) => {}
            Some(_) => return Err(StoreError::Damaged("it belongs to another service or node")),
        }
        let mut logs = BTreeMap::new();
        let mut statement = connection.prepare("SELECT id, node, incarnation FROM logs")?;
        let rows = statement.query_map([], |row| Ok((log_id(row, 1)?, row.get(0)?)))?;
        for row in rows {
            let (log, id) = row?;
            logs.insert(log, id);
        }
        drop(statement);
        let last: Option<Position> = connection.query_row("SELECT max(pos) FROM segments", [], |row| row.get(0))?;
        Ok(Self { database, logs, next: last.unwrap_or(0) + 1 })
    }

    pub(super) fn reader(&self) -> Result<SegmentReader, StoreError> {
        Ok(SegmentReader(Mutex::new(self.database.reader()?)))
    }

    /// The last position in use; 0 in an empty log.
    pub(super) fn last(&self) -> Position {
        self.next - 1
    }

    /// The highest segment of each log.
    pub(super) fn tips(&self) -> Result<BTreeMap<LogId, Tip>, StoreError> {
        let mut statement = self.database.connection.prepare(
            "SELECT node, incarnation, max(seq), hash FROM segments JOIN logs ON logs.id = segments.log GROUP BY log",
        )?;
        let rows = statement.query_map([], tip)?;
        rows.map(|row| row.map(|tip| (tip.log, tip)).map_err(Into::into)).collect()
    }

    /// The latest clock reading among the highest segments of all logs.
    pub(super) fn latest_stamp(&self) -> Result<Stamp, StoreError> {
        let mut statement = self.database.connection.prepare("SELECT max(seq), header FROM segments GROUP BY log")?;
        let mut rows = statement.query([])?;
        let mut latest = Stamp::default();
        while let Some(row) = rows.next()? {
            let header: Vec<u8> = row.get(1)?;
            let stamp = segment::stamp_of(&header).ok_or(StoreError::Damaged("a stored header"))?;
            latest = latest.max(stamp);
        }
        Ok(latest)
    }

    /// The highest segment of each log but `except` among the positions after `from` up to `to`.
    pub(super) fn tips_between(&self, from: Position, to: Position, except: LogId) -> Result<Vec<Tip>, StoreError> {
        let mut statement = self.database.connection.prepare_cached(
            "SELECT node, incarnation, max(seq), hash FROM segments JOIN logs ON logs.id = segments.log
             WHERE pos > ?1 AND pos <= ?2 GROUP BY log",
        )?;
        let rows = statement.query_map(params![from, to], tip)?;
        rows.filter(|row| !matches!(row, Ok(tip) if tip.log == except)).map(|row| row.map_err(Into::into)).collect()
    }

    pub(super) fn hash_at(&self, log: &LogId, seq: u64) -> Result<Option<Hash>, StoreError> {
        hash_at(&self.database.connection, log, seq)
    }

    /// Writes segments behind all others, durably and all or none, and returns the last position.
    pub(super) fn commit(&mut self, segments: &[Segment]) -> Result<Position, StoreError> {
        let transaction = self.database.connection.transaction()?;
        let (mut next, mut new_logs) = (self.next, Vec::new());
        for segment in segments {
            let known = self.logs.get(&segment.log).copied();
            let known = known.or_else(|| new_logs.iter().find(|(log, _)| *log == segment.log).map(|(_, id)| *id));
            let log = match known {
                Some(id) => id,
                None => {
                    transaction.execute(
                        "INSERT INTO logs (node, incarnation) VALUES (?1, ?2)",
                        params![segment.log.node.0, segment.log.incarnation.0],
                    )?;
                    new_logs.push((segment.log, transaction.last_insert_rowid()));
                    transaction.last_insert_rowid()
                }
            };
            transaction.prepare_cached("INSERT INTO segments VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)")?.execute(
                params![
                    next,
                    log,
                    sql_seq(segment.seq),
                    segment.hash,
                    &segment.wire.header[..],
                    &segment.wire.signature[..],
                    &segment.wire.payload[..],
                ],
            )?;
            next += 1;
        }
        transaction.commit()?;
        self.next = next;
        self.logs.extend(new_logs);
        Ok(self.last())
    }
}

impl SegmentReader {
    /// A page of segments after a position, in order, up to `until`.
    pub(super) fn after(&self, pos: Position, until: Position) -> Result<Vec<(Position, Segment)>, StoreError> {
        let sql = format!("SELECT {COLUMNS} FROM segments WHERE pos > ?1 AND pos <= ?2 ORDER BY pos");
        self.page(&sql, params![pos, until])
    }

    /// A page of the segments of one log after `seq`, in order.
    pub(super) fn of_log(&self, log: &LogId, seq: u64) -> Result<Vec<(Position, Segment)>, StoreError> {
        let sql = format!(
            "SELECT {COLUMNS} FROM segments JOIN logs ON logs.id = segments.log
             WHERE node = ?1 AND incarnation = ?2 AND seq > ?3 ORDER BY seq"
        );
        self.page(&sql, params![log.node.0, log.incarnation.0, sql_seq(seq)])
    }

    /// The position of a segment.
    pub(super) fn position(&self, log: &LogId, seq: u64) -> Result<Option<Position>, StoreError> {
        let connection = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let sql = "SELECT pos FROM segments JOIN logs ON logs.id = segments.log
                   WHERE node = ?1 AND incarnation = ?2 AND seq = ?3";
        let mut statement = connection.prepare_cached(sql)?;
        let params = params![log.node.0, log.incarnation.0, sql_seq(seq)];
        Ok(statement.query_row(params, |row| row.get(0)).optional()?)
    }

    pub(super) fn hash_at(&self, log: &LogId, seq: u64) -> Result<Option<Hash>, StoreError> {
        hash_at(&self.0.lock().unwrap_or_else(PoisonError::into_inner), log, seq)
    }

    fn page(&self, sql: &str, params: impl rusqlite::Params) -> Result<Vec<(Position, Segment)>, StoreError> {
        let connection = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut statement = connection.prepare_cached(sql)?;
        let mut rows = statement.query(params)?;
        let (mut page, mut bytes) = (Vec::new(), 0);
        while let Some(row) = rows.next()? {
            let column = |i| row.get::<_, Vec<u8>>(i).map(Bytes::from);
            let wire = proto::Segment { header: column(1)?, signature: column(2)?, payload: column(3)? };
            bytes += wire.header.len() + wire.payload.len();
            let segment = Segment::parse(wire).map_err(|_| StoreError::Damaged("a stored segment"))?;
            page.push((row.get(0)?, segment));
            if bytes >= PAGE_BYTES {
                break;
            }
        }
        Ok(page)
    }
}

fn hash_at(connection: &Connection, log: &LogId, seq: u64) -> Result<Option<Hash>, StoreError> {
    let sql = "SELECT hash FROM segments JOIN logs ON logs.id = segments.log
               WHERE node = ?1 AND incarnation = ?2 AND seq = ?3";
    let mut statement = connection.prepare_cached(sql)?;
    let params = params![log.node.0, log.incarnation.0, sql_seq(seq)];
    Ok(statement.query_row(params, |row| row.get(0)).optional()?)
}

fn log_id(row: &Row<'_>, first: usize) -> rusqlite::Result<LogId> {
    Ok(LogId { node: NodeId(row.get(first)?), incarnation: Incarnation(row.get(first + 1)?) })
}

fn tip(row: &Row<'_>) -> rusqlite::Result<Tip> {
    let seq: i64 = row.get(2)?;
    Ok(Tip { log: log_id(row, 0)?, seq: seq.unsigned_abs(), hash: row.get(3)? })
}

/// SQLite's integers are signed; a log never gets near that many segments, and a lookup beyond finds nothing.
fn sql_seq(seq: u64) -> i64 {
    i64::try_from(seq).unwrap_or(i64::MAX)
}
