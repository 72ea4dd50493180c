//! Where a log is kept: what every store does, whatever it is made of. The rules of what it stores are in
//! [`storage`](super::storage).
//!
//! Invariants: every queue of a store is bounded, and whoever asks waits beyond; look-ups never wait behind pages of
//! segments, nor reads behind writes.

#[cfg(test)]
mod contract;
pub(crate) mod memory;
#[cfg(feature = "postgres")]
pub(crate) mod postgres;
pub(crate) mod recovery;
pub(crate) mod sqlite;
#[cfg(test)]
mod workload;

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use futures::future::BoxFuture;

use super::storage::{Batch, Found, MAX_READS, Opened, Outcome, Payloads, Position, Read, Row};
use crate::store::StoreError;

/// A log's store, opened by one node of one service, which nobody else has open.
///
/// Shut it down before it is opened again; of one that is dropped nobody hears what became of what was queued.
pub(crate) trait Store: fmt::Debug + Send + Sync {
    /// Carries out a batch, behind those whose outcome was said before.
    ///
    /// Batches that wait together become durable together, each as a whole or not at all. After [`Outcome::Broken`] every
    /// batch has that outcome, and [`failure`](Self::failure) says why.
    ///
    /// # Cancel safety
    /// A call that is dropped may have queued its batch, which then is carried out.
    fn write(&self, batch: Box<Batch>) -> BoxFuture<'_, Outcome>;

    /// Reads.
    ///
    /// # Cancel safety
    /// Cancel-safe.
    fn read(&self, what: Read) -> BoxFuture<'_, Found>;

    /// What the store holds beside segments.
    ///
    /// # Cancel safety
    /// Cancel-safe.
    fn opened(&self) -> BoxFuture<'_, Result<Opened, StoreError>>;

    /// A page of all segments behind a position, in the order of their positions: as many as begin within so many bytes of
    /// headers and payloads, at least one, and none at the end.
    ///
    /// # Cancel safety
    /// Cancel-safe.
    fn scan(&self, after: Position, bytes: usize, payloads: Payloads) -> BoxFuture<'_, Result<Vec<Row>, StoreError>>;

    /// The payload of the segment at a position, which a page was read without.
    ///
    /// # Cancel safety
    /// Cancel-safe.
    fn payload(&self, position: Position) -> BoxFuture<'_, Result<Option<Bytes>, StoreError>>;

    /// Why the last batch that was not stored was not; the last batch that was stored clears it.
    fn failure(&self) -> Option<Arc<StoreError>>;

    /// Carries out what was queued, and lets go of what the store is kept in.
    ///
    /// # Cancel safety
    /// Cancel-safe: the store is shut down all the same.
    fn shutdown(&self) -> BoxFuture<'_, ()>;
}

/// Batches that may wait: the machine's one, and states that are sealed beside it piece by piece.
const WRITE_QUEUE: usize = 16;
/// Bytes after which no further batch is committed together with those before it, so that none waits for long.
const GROUP_BYTES: usize = 4 * 1024 * 1024;
/// Reads that may wait: all that the machine has, and those of whoever opens.
const READ_QUEUE: usize = MAX_READS + 16;

/// What a batch brings, in bytes.
fn size(batch: &Batch) -> usize {
    let rows = batch.rows.iter().map(|row| row.header.len() + row.payload.as_ref().map_or(0, Bytes::len));
    let pieces = batch.pieces.iter().map(|piece| piece.bytes.len());
    rows.sum::<usize>() + pieces.sum::<usize>()
}
