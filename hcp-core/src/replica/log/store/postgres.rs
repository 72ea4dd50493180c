//! A log's store in a schema of a PostgreSQL server, which may be on another machine, go away and come again.
//!
//! Two shapes: one server for all nodes, with a role and a schema for each, so that none can rewrite another's log; and a
//! server for each node. Both look the same from here.
//!
//! Invariants: a batch is carried out once, also when the answer to its commit was lost with the connection: each carries a
//! number, which goes with it and is asked for before it is given again. Whoever opens a log takes it from who had it open,
//! whose batches are refused from then on.

mod reading;
pub(crate) mod schema;
mod session;
#[cfg(test)]
mod tests;
mod writing;

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;

use self::session::Pool;
pub(crate) use self::session::Server;
use self::writing::{Failure, Job, Writer};
use super::{READ_QUEUE, Store, WRITE_QUEUE};
use crate::identity::OnionAddress;
use crate::replica::log::storage::{Batch, Found, Opened, Outcome, Payloads, Position, Read, Row};
use crate::replica::place::NodeId;
use crate::store::StoreError;

/// Connections that read pages of segments, and those that look things up: few, as a server has not many.
const READERS: usize = 3;

/// A log in a PostgreSQL server. See [`Store`].
///
/// While the server is away, batches wait and reads fail.
pub(crate) struct PostgresStore {
    writes: mpsc::Sender<Job>,
    pages: Pool,
    lookups: Pool,
    failure: Failure,
    stopping: watch::Sender<bool>,
    writer: JoinHandle<()>,
}

impl PostgresStore {
    /// Opens or makes the log of a node in a service.
    ///
    /// # Errors
    /// [`StoreError`]; a log of another node or service is refused, and a server that does not sync.
    ///
    /// # Cancel safety
    /// A call that is dropped may have taken the log from who had it open.
    pub(crate) async fn open(server: Server, service: &OnionAddress, node: &NodeId) -> Result<Self, StoreError> {
        let mut session = server.connect().await?;
        schema::migrate(&mut session, server.schema()).await?;
        let run = schema::claim(&session, service, node).await?;
        schema::forget_lost_states(&session).await?;
        let failure = Arc::new(Mutex::new(None));
        let (stopping, stop) = watch::channel(false);
        let (writes, jobs) = mpsc::channel(WRITE_QUEUE);
        let writer = Writer::new(server.clone(), session, run, Arc::clone(&failure), stop);
        let writer = tokio::spawn(writer.run(jobs));
        let (pages, lookups) = (Pool::new(server.clone(), READERS, READ_QUEUE), Pool::new(server, 1, READ_QUEUE));
        Ok(Self { writes, pages, lookups, failure, stopping, writer })
    }

    /// Reads, unless the store is shut down before.
    async fn answer<T>(&self, reading: impl Future<Output = Result<T, StoreError>>) -> Result<T, StoreError> {
        let mut stopping = self.stopping.subscribe();
        tokio::select! {
            answer = reading => answer,
            _ = stopping.wait_for(|stopping| *stopping) => Err(StoreError::Closed),
        }
    }

    async fn look_up(&self, what: Read) -> Result<Found, StoreError> {
        match what {
            Read::Hashes(places) => reading::hashes(&*self.lookups.take().await?, &places).await,
            Read::Piece { root, index } => reading::piece(&*self.lookups.take().await?, &root, index).await,
            Read::Rows { ranges, bytes, payloads } => {
                reading::rows(&*self.pages.take().await?, &ranges, bytes, payloads).await
            }
        }
    }
}

impl Store for PostgresStore {
    fn write(&self, batch: Box<Batch>) -> BoxFuture<'_, Outcome> {
        async move {
            let (reply, outcome) = oneshot::channel();
            if self.writes.send(Job::Write(batch, reply)).await.is_err() {
                return Outcome::Broken;
            }
            outcome.await.unwrap_or(Outcome::Broken)
        }
        .boxed()
    }

    fn read(&self, what: Read) -> BoxFuture<'_, Found> {
        async move {
            self.answer(self.look_up(what)).await.unwrap_or_else(|error| {
                tracing::warn!(%error, "the log cannot be read");
                Found::Failed
            })
        }
        .boxed()
    }

    fn opened(&self) -> BoxFuture<'_, Result<Opened, StoreError>> {
        self.answer(async { reading::opened(&*self.lookups.take().await?).await }).boxed()
    }

    fn scan(&self, after: Position, bytes: usize, payloads: Payloads) -> BoxFuture<'_, Result<Vec<Row>, StoreError>> {
        self.answer(async move { reading::scan(&*self.pages.take().await?, after, bytes, payloads).await }).boxed()
    }

    fn payload(&self, position: Position) -> BoxFuture<'_, Result<Option<Bytes>, StoreError>> {
        self.answer(async move { reading::payload_at(&*self.lookups.take().await?, position).await }).boxed()
    }

    fn failure(&self) -> Option<Arc<StoreError>> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn shutdown(&self) -> BoxFuture<'_, ()> {
        async move {
            self.pages.end();
            self.lookups.end();
            self.stopping.send_replace(true);
            let _ = self.writes.send(Job::Stop).await;
            self.writes.closed().await;
        }
        .boxed()
    }
}

impl Drop for PostgresStore {
    fn drop(&mut self) {
        self.writer.abort();
    }
}

impl fmt::Debug for PostgresStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresStore").finish_non_exhaustive()
    }
}
