//! A disk that forgets what was not synced.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::replica::log::checkpoint::{piece_hash, state_root};
use crate::replica::log::entry::{self, Entry};
use crate::replica::log::machine::{Config, Delivery, Machine, OpenError, Recovery};
use crate::replica::log::storage::{Batch, Branch, Checkpoint, Found, Hash, Opened, Payloads, Position, Read, Row};
use crate::replica::log::vector::Split;
use crate::replica::place::LogId;

/// What a node has on disk, all of it synced.
#[derive(Clone, Debug, Default)]
pub(in crate::replica::log) struct Disk {
    rows: BTreeMap<Position, Arc<Row>>,
    places: BTreeMap<(LogId, u64, Branch, Hash), Arc<Row>>,
    checkpoint: Option<Checkpoint>,
    pieces: BTreeMap<Hash, BTreeMap<u32, bytes::Bytes>>,
    full: bool,
}

/// The length of pieces here: short, so that there are several.
const PIECE_LENGTH: usize = 600;

/// A batch on its way to the disk.
#[derive(Debug)]
pub(super) struct Writing {
    pub(super) what: Batch,
}

impl Disk {
    pub(in crate::replica::log) fn write(&mut self, batch: &Batch) {
        for position in &batch.forget_positions {
            if let Some(row) = self.rows.remove(position) {
                self.places.remove(&(row.log, row.seq, row.branch, row.hash));
            }
        }
        for row in &batch.rows {
            self.rows.insert(row.position, Arc::clone(row));
            self.places.insert((row.log, row.seq, row.branch, row.hash), Arc::clone(row));
        }
        for piece in &batch.pieces {
            self.pieces.entry(piece.root).or_default().insert(piece.index, piece.bytes.clone());
        }
        if let Some(checkpoint) = &batch.checkpoint {
            self.checkpoint = Some(checkpoint.clone());
        }
        for root in &batch.forget_states {
            self.pieces.remove(root);
        }
        for up_to in &batch.forget_rows {
            let gone: Vec<_> = self
                .places
                .range((up_to.log, 0, Branch(0), [0; 32])..=(up_to.log, up_to.seq, Branch(u32::MAX), [0xff; 32]))
                .map(|(key, row)| (*key, row.position))
                .collect();
            for (key, position) in gone {
                self.places.remove(&key);
                self.rows.remove(&position);
            }
        }
    }

    /// Stores a state in pieces, and returns their hashes.
    pub(super) fn seal(&mut self, state: &[u8]) -> Vec<Hash> {
        let pieces: Vec<bytes::Bytes> = state.chunks(PIECE_LENGTH).map(bytes::Bytes::copy_from_slice).collect();
        let hashes: Vec<Hash> = pieces.iter().map(|piece| piece_hash(piece)).collect();
        self.pieces.insert(state_root(&hashes), (0..).zip(pieces).collect());
        hashes
    }

    /// The state at the checkpoint.
    pub(super) fn state(&self) -> Result<Option<Vec<u8>>, String> {
        let Some(checkpoint) = &self.checkpoint else { return Ok(None) };
        let pieces = self.pieces.get(&checkpoint.root).ok_or("the state of the checkpoint is gone")?;
        let hashes: Vec<Hash> = pieces.values().map(|piece| piece_hash(piece)).collect();
        let whole = state_root(&hashes) == checkpoint.root;
        if whole { Ok(Some(pieces.values().flatten().copied().collect())) } else { Err("a state in parts".to_owned()) }
    }

    pub(super) fn set_full(&mut self, full: bool) {
        self.full = full;
    }

    pub(super) fn is_full(&self) -> bool {
        self.full
    }

    pub(in crate::replica::log) fn rows(&self) -> impl Iterator<Item = &Arc<Row>> {
        self.rows.values()
    }

    pub(in crate::replica::log) fn read(&self, what: &Read) -> Found {
        match what {
            Read::Hashes(places) => {
                let at = |(log, seq): &(LogId, u64)| {
                    let range = (*log, *seq, Branch(0), [0; 32])..=(*log, *seq, Branch(u32::MAX), [0xff; 32]);
                    self.places.range(range).map(|((_, _, branch, _), row)| (row.hash, *branch)).collect()
                };
                Found::Hashes(places.iter().map(at).collect())
            }
            Read::Rows { ranges, bytes, payloads } => {
                let mut rows: Vec<Arc<Row>> = Vec::new();
                for range in ranges {
                    let on = (range.log, range.from, Branch(0), [0; 32])
                        ..=(range.log, range.to, Branch(u32::MAX), [0xff; 32]);
                    let of = self.places.range(on).filter(|((_, _, branch, _), _)| *branch == range.branch);
                    rows.extend(of.map(|(_, row)| Arc::clone(row)).take(500));
                }
                rows.sort_unstable_by_key(|row| row.position);
                let mut used = 0;
                let fits = |row: &Arc<Row>| {
                    let begins = used < *bytes || used == 0;
                    used += row.header.len() + row.payload.as_ref().map_or(0, bytes::Bytes::len);
                    begins
                };
                rows = rows.into_iter().take_while(fits).collect();
                if *payloads == Payloads::OfSystem {
                    rows = rows.iter().map(|row| Arc::new(without(row))).collect();
                }
                Found::Rows(rows)
            }
            Read::Piece { root, index } => {
                Found::Piece(self.pieces.get(root).and_then(|pieces| pieces.get(index)).cloned())
            }
        }
    }

    /// Opens what is there; the application reads it again.
    pub(super) fn open(&self, config: Config, now: Duration, wall: u64, seed: [u8; 32]) -> Result<Opening, OpenError> {
        let mut recovery = Recovery::new(config, Opened { checkpoint: self.checkpoint.clone() })?;
        let mut deliveries = Vec::new();
        for row in self.rows.values() {
            deliveries.extend(recovery.row(row)?);
        }
        let again = recovery.appended_again().cloned().collect();
        Ok((recovery.finish(now, wall, seed), deliveries, again))
    }

    pub(super) fn payloads(&self) -> impl Iterator<Item = bytes::Bytes> + '_ {
        self.rows.values().filter_map(|row| row.payload.clone())
    }

    /// The application's entries on this disk.
    pub(super) fn bodies(&self) -> impl Iterator<Item = bytes::Bytes> + '_ {
        self.rows.values().filter_map(|row| row.payload.as_ref()).flat_map(|payload| {
            entry::entries(payload).unwrap_or_default().into_iter().filter_map(|entry| match entry {
                Entry::Plain(body) | Entry::Again { body, .. } => Some(body),
                _ => None,
            })
        })
    }
}

fn without(row: &Row) -> Row {
    Row { payload: row.payload.clone().filter(|_| row.system), ..row.clone() }
}

/// A machine that goes on, what the application is given anew, and the bodies that were appended again.
type Opening = (Machine, Vec<(Delivery, Vec<Split>)>, Vec<bytes::Bytes>);
