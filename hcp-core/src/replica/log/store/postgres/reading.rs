//! What is read. A page is found by its keys first, so that the server sends no more than is wanted.

use std::sync::Arc;

use bytes::Bytes;

use super::session::Session;
use super::writing::integer;
use crate::replica::log::storage::{Branch, Checkpoint, Found, Hash, Opened, Payloads, Position, Range, Row};
use crate::replica::place::{Incarnation, LogId, NodeId};
use crate::store::StoreError;

/// What a segment weighs in a page at least, so that a page's keys are bounded by its bytes.
const LEAST: usize = 64;
/// A segment's bytes in a page; $1 is whether payloads are wanted.
const OCTETS: &str =
    "octet_length(header)::bigint + CASE WHEN system OR $1 THEN coalesce(octet_length(payload), 0) ELSE 0 END";

pub(super) async fn hashes(session: &Session, places: &[(LogId, u64)]) -> Result<Found, StoreError> {
    let nodes: Vec<&[u8]> = places.iter().map(|(log, _)| &log.node.0[..]).collect();
    let incarnations: Vec<&[u8]> = places.iter().map(|(log, _)| &log.incarnation.0[..]).collect();
    let seqs: Vec<i64> = places.iter().map(|(_, seq)| integer(*seq)).collect();
    let sql = "SELECT at, hash, branch
               FROM unnest($1::bytea[], $2::bytea[], $3::bigint[]) WITH ORDINALITY AS asked (n, i, s, at)
               JOIN logs ON node = n AND incarnation = i JOIN segments ON log = id AND seq = s ORDER BY at, branch";
    let mut found = vec![Vec::new(); places.len()];
    for row in session.query(sql, &[&nodes, &incarnations, &seqs]).await? {
        let at = row.try_get::<_, i64>(0)? as usize;
        found[at - 1].push((array(&row, 1)?, Branch(unsigned(&row, 2)? as u32)));
    }
    Ok(Found::Hashes(found))
}

pub(super) async fn piece(session: &Session, root: &Hash, index: u32) -> Result<Found, StoreError> {
    let sql = "SELECT bytes FROM pieces WHERE root = $1 AND number = $2";
    let row = session.query_opt(sql, &[&&root[..], &i64::from(index)]).await?;
    Ok(Found::Piece(row.map(|row| bytes(&row, 0)).transpose()?))
}

pub(super) async fn opened(session: &Session) -> Result<Opened, StoreError> {
    let sql = "SELECT root, length, summary, pieces, certificate FROM checkpoint";
    let Some(row) = session.query_opt(sql, &[]).await? else { return Ok(Opened::default()) };
    let checkpoint = Checkpoint {
        root: array(&row, 0)?,
        length: unsigned(&row, 1)?,
        summary: bytes(&row, 2)?,
        pieces: bytes(&row, 3)?,
        certificate: bytes(&row, 4)?,
    };
    Ok(Opened { checkpoint: Some(checkpoint) })
}

pub(super) async fn payload_at(session: &Session, position: Position) -> Result<Option<Bytes>, StoreError> {
    let sql = "SELECT payload FROM segments WHERE position = $1";
    let Some(row) = session.query_opt(sql, &[&integer(position.0)]).await? else { return Ok(None) };
    Ok(row.try_get::<_, Option<Vec<u8>>>(0)?.map(Bytes::from))
}

pub(super) async fn scan(
    session: &Session,
    after: Position,
    limit: usize,
    payloads: Payloads,
) -> Result<Vec<Row>, StoreError> {
    let sql = format!("SELECT position, {OCTETS} FROM segments WHERE position > $2 ORDER BY position LIMIT $3");
    let wanted = payloads == Payloads::Wanted;
    let keys = session.query(&sql, &[&wanted, &integer(after.0), &keys_of(limit)]).await?;
    let mut page = Page { limit, ..Page::default() };
    for key in keys {
        page.push(key.try_get(0)?, unsigned(&key, 1)?);
    }
    fetch(session, &page.positions, wanted).await
}

/// Segments of all ranges in the order of their positions. On one branch of a log they follow the numbers.
pub(super) async fn rows(
    session: &Session,
    ranges: &[Range],
    limit: usize,
    payloads: Payloads,
) -> Result<Found, StoreError> {
    let column = |value: fn(&Range) -> i64| ranges.iter().map(value).collect::<Vec<i64>>();
    let nodes: Vec<&[u8]> = ranges.iter().map(|range| &range.log.node.0[..]).collect();
    let incarnations: Vec<&[u8]> = ranges.iter().map(|range| &range.log.incarnation.0[..]).collect();
    let branches = column(|range| i64::from(range.branch.0));
    let (from, to) = (column(|range| integer(range.from)), column(|range| integer(range.to)));
    let sql = format!(
        "SELECT position, octets, at
         FROM unnest($2::bytea[], $3::bytea[], $4::bigint[], $5::bigint[], $6::bigint[])
             WITH ORDINALITY AS asked (n, i, b, lowest, highest, at)
         JOIN logs ON node = n AND incarnation = i
         CROSS JOIN LATERAL (
             SELECT position, {OCTETS} AS octets FROM segments
             WHERE log = id AND branch = b AND seq BETWEEN lowest AND highest ORDER BY seq LIMIT $7
         ) AS found
         ORDER BY position"
    );
    let wanted = payloads == Payloads::Wanted;
    let most = keys_of(limit);
    let keys = session.query(&sql, &[&wanted, &nodes, &incarnations, &branches, &from, &to, &most]).await?;
    let mut page = Page { limit, ..Page::default() };
    let mut counts = vec![0; ranges.len()];
    for key in keys {
        page.push(key.try_get(0)?, unsigned(&key, 1)?);
        let at = key.try_get::<_, i64>(2)? as usize - 1;
        counts[at] += 1;
        if counts[at] == most {
            // What comes next of this range was not asked for.
            break;
        }
    }
    Ok(Found::Rows(fetch(session, &page.positions, wanted).await?.into_iter().map(Arc::new).collect()))
}

/// Positions that are taken until their bytes are enough.
#[derive(Default)]
struct Page {
    positions: Vec<i64>,
    used: u64,
    limit: usize,
}

impl Page {
    fn push(&mut self, position: i64, octets: u64) {
        if self.positions.is_empty() || self.used < self.limit as u64 {
            self.positions.push(position);
            self.used += octets;
        }
    }
}

fn keys_of(limit: usize) -> i64 {
    integer((limit / LEAST) as u64 + 1)
}

async fn fetch(session: &Session, positions: &[i64], wanted: bool) -> Result<Vec<Row>, StoreError> {
    let sql = "SELECT position, node, incarnation, seq, branch, hash, header, signature, system,
                      CASE WHEN system OR $1 THEN payload END
               FROM segments JOIN logs ON id = log WHERE position = ANY($2) ORDER BY position";
    let mut rows = Vec::with_capacity(positions.len());
    for row in session.query(sql, &[&wanted, &positions]).await? {
        rows.push(Row {
            position: Position(unsigned(&row, 0)?),
            log: LogId { node: NodeId(array(&row, 1)?), incarnation: Incarnation(array(&row, 2)?) },
            seq: unsigned(&row, 3)?,
            branch: Branch(unsigned(&row, 4)? as u32),
            hash: array(&row, 5)?,
            header: bytes(&row, 6)?,
            signature: bytes(&row, 7)?,
            system: row.try_get(8)?,
            payload: row.try_get::<_, Option<Vec<u8>>>(9)?.map(Bytes::from),
        });
    }
    Ok(rows)
}

fn bytes(row: &tokio_postgres::Row, column: usize) -> Result<Bytes, StoreError> {
    Ok(Bytes::from(row.try_get::<_, Vec<u8>>(column)?))
}

fn array<const N: usize>(row: &tokio_postgres::Row, column: usize) -> Result<[u8; N], StoreError> {
    row.try_get::<_, &[u8]>(column)?.try_into().map_err(|_| StoreError::Damaged("a column of another length"))
}

fn unsigned(row: &tokio_postgres::Row, column: usize) -> Result<u64, StoreError> {
    row.try_get::<_, i64>(column)?.try_into().map_err(|_| StoreError::Damaged("a number below zero"))
}
