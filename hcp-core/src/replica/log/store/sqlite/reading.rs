//! What is read, each within one short transaction.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use rusqlite::{Connection, OptionalExtension, Transaction, params};

use super::writing::{integer, log_id};
use crate::replica::log::storage::{Branch, Checkpoint, Found, Hash, Opened, Payloads, Position, Range, Read, Row};
use crate::replica::place::{Incarnation, LogId, NodeId};
use crate::store::StoreError;

/// What a row has beside its payload; the log is joined in.
const COLUMNS: &str = "position, node, incarnation, seq, branch, hash, header, signature, system, payload";
/// Places that are looked up ahead for all ranges of a read together.
const AHEAD: usize = 512;

pub(super) fn find(within: &Transaction<'_>, what: &Read) -> Result<Found, StoreError> {
    Ok(match what {
        Read::Hashes(places) => {
            Found::Hashes(places.iter().map(|(log, seq)| hashes(within, log, *seq)).collect::<Result<_, _>>()?)
        }
        Read::Rows { ranges, bytes, payloads } => Found::Rows(rows(within, ranges, *bytes, *payloads)?),
        Read::Piece { root, index } => Found::Piece(piece(within, root, *index)?),
    })
}

pub(super) fn opened(within: &Transaction<'_>) -> Result<Opened, StoreError> {
    let sql = "SELECT root, length, summary, pieces, certificate FROM checkpoint";
    let checkpoint = within.query_row(sql, [], |row| {
        Ok(Checkpoint {
            root: row.get(0)?,
            length: row.get(1)?,
            summary: bytes(row, 2)?,
            pieces: bytes(row, 3)?,
            certificate: bytes(row, 4)?,
        })
    });
    Ok(Opened { checkpoint: checkpoint.optional()? })
}

pub(super) fn scan(
    within: &Transaction<'_>,
    after: Position,
    limit: usize,
    payloads: Payloads,
) -> Result<Vec<Row>, StoreError> {
    let sql = format!(
        "SELECT {COLUMNS} FROM segments JOIN logs ON logs.id = segments.log WHERE position > ?1 ORDER BY position"
    );
    let mut statement = within.prepare_cached(&sql)?;
    let mut found = statement.query([integer(after.0)])?;
    let mut page = Page::new(limit, payloads);
    while page.has_room()
        && let Some(row) = found.next()?
    {
        page.push(within, row)?;
    }
    Ok(page.rows)
}

pub(super) fn payload_at(within: &Transaction<'_>, position: Position) -> Result<Option<Bytes>, StoreError> {
    let sql = "SELECT payload FROM segments WHERE position = ?1";
    let id: Option<Option<i64>> =
        within.prepare_cached(sql)?.query_row([integer(position.0)], |row| row.get(0)).optional()?;
    match id.flatten() {
        Some(id) => payload(within, id),
        None => Ok(None),
    }
}

fn hashes(within: &Connection, log: &LogId, seq: u64) -> Result<Vec<(Hash, Branch)>, StoreError> {
    let sql = "SELECT hash, branch FROM segments JOIN logs ON logs.id = segments.log
               WHERE node = ?1 AND incarnation = ?2 AND seq = ?3 ORDER BY branch";
    let mut statement = within.prepare_cached(sql)?;
    let params = params![log.node.0, log.incarnation.0, integer(seq)];
    let found = statement.query_map(params, |row| Ok((row.get(0)?, Branch(row.get(1)?))))?;
    Ok(found.collect::<Result<_, _>>()?)
}

fn piece(within: &Connection, root: &Hash, index: u32) -> Result<Option<Bytes>, StoreError> {
    let sql = "SELECT bytes FROM pieces JOIN states ON states.id = pieces.state WHERE root = ?1 AND number = ?2";
    let mut statement = within.prepare_cached(sql)?;
    Ok(statement.query_row(params![root, index], |row| bytes(row, 0)).optional()?)
}

/// Segments of all ranges in the order of their positions. On one branch of a log they follow the numbers.
fn rows(within: &Connection, ranges: &[Range], limit: usize, payloads: Payloads) -> Result<Vec<Arc<Row>>, StoreError> {
    let at_once = (AHEAD / ranges.len().max(1)).max(8);
    let mut cursors = Vec::new();
    for range in ranges {
        if let Some(log) = log_id(within, &range.log)? {
            let next = Some(range.from);
            cursors.push(Cursor { log, branch: range.branch, to: range.to, next, at_once, ahead: VecDeque::new() });
        }
    }
    let mut first = BinaryHeap::new();
    for (index, cursor) in cursors.iter_mut().enumerate() {
        first.extend(cursor.next(within)?.map(|position| Reverse((position, index))));
    }
    let sql = format!("SELECT {COLUMNS} FROM segments JOIN logs ON logs.id = segments.log WHERE position = ?1");
    let mut statement = within.prepare_cached(&sql)?;
    let mut page = Page::new(limit, payloads);
    while page.has_room()
        && let Some(Reverse((position, index))) = first.pop()
    {
        let mut found = statement.query([position])?;
        if let Some(row) = found.next()? {
            page.push(within, row)?;
        }
        first.extend(cursors[index].next(within)?.map(|position| Reverse((position, index))));
    }
    Ok(page.rows.into_iter().map(Arc::new).collect())
}

/// Goes along a range.
struct Cursor {
    log: i64,
    branch: Branch,
    to: u64,
    /// The first number that was not looked up; `None` at the end.
    next: Option<u64>,
    at_once: usize,
    ahead: VecDeque<i64>,
}

impl Cursor {
    fn next(&mut self, within: &Connection) -> Result<Option<i64>, StoreError> {
        if self.ahead.is_empty()
            && let Some(from) = self.next.take()
        {
            let sql = "SELECT position, seq FROM segments
                       WHERE log = ?1 AND seq BETWEEN ?2 AND ?3 AND branch = ?4 ORDER BY seq LIMIT ?5";
            let mut statement = within.prepare_cached(sql)?;
            let params = params![self.log, integer(from), integer(self.to), self.branch.0, self.at_once as i64];
            let mut found = statement.query(params)?;
            let mut last = None;
            while let Some(row) = found.next()? {
                self.ahead.push_back(row.get(0)?);
                last = Some(row.get::<_, u64>(1)?);
            }
            if self.ahead.len() == self.at_once {
                self.next = last.map(|last| last + 1);
            }
        }
        Ok(self.ahead.pop_front())
    }
}

/// Rows that are read until their bytes are enough.
struct Page {
    rows: Vec<Row>,
    used: usize,
    limit: usize,
    payloads: Payloads,
}

impl Page {
    fn new(limit: usize, payloads: Payloads) -> Self {
        Self { rows: Vec::new(), used: 0, limit, payloads }
    }

    fn has_room(&self) -> bool {
        self.rows.is_empty() || self.used < self.limit
    }

    fn push(&mut self, within: &Connection, row: &rusqlite::Row<'_>) -> Result<(), StoreError> {
        let system = row.get(8)?;
        let wanted = system || self.payloads == Payloads::Wanted;
        let payload = match row.get::<_, Option<i64>>(9)? {
            Some(id) if wanted => payload(within, id)?,
            _ => None,
        };
        let row = Row {
            position: Position(row.get(0)?),
            log: LogId { node: NodeId(row.get(1)?), incarnation: Incarnation(row.get(2)?) },
            seq: row.get(3)?,
            branch: Branch(row.get(4)?),
            hash: row.get(5)?,
            header: bytes(row, 6)?,
            signature: bytes(row, 7)?,
            payload,
            system,
        };
        self.used += row.header.len() + row.payload.as_ref().map_or(0, Bytes::len);
        self.rows.push(row);
        Ok(())
    }
}

fn payload(within: &Connection, id: i64) -> Result<Option<Bytes>, StoreError> {
    let mut statement = within.prepare_cached("SELECT bytes FROM payloads WHERE id = ?1")?;
    Ok(statement.query_row([id], |row| bytes(row, 0)).optional()?)
}

fn bytes(row: &rusqlite::Row<'_>, column: usize) -> rusqlite::Result<Bytes> {
    row.get::<_, Vec<u8>>(column).map(Bytes::from)
}
