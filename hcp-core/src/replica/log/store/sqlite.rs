//! A log's store in one SQLite database: a thread that writes, one that reads pages for peers, one that reads for the application,
//! one that looks things up. So no application that reads the newest waits for a peer that fetches a million entries.
//!
//! Invariants: a batch's outcome is said when its transaction was synced; a read is one short transaction; nothing is
//! written after a commit of which nobody knows whether it is there.

#[cfg(test)]
mod full;
#[cfg(test)]
mod killed;
#[cfg(test)]
pub(in crate::replica) mod power;
mod reading;
mod schema;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod workload;
mod writing;

use std::fmt;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use rusqlite::{Connection, Transaction};
use tokio::sync::{mpsc, oneshot, watch};

use self::writing::{Failure, Job, Writer};
use super::{READ_QUEUE, Store, WRITE_QUEUE};
use crate::identity::OnionAddress;
use crate::replica::log::storage::{Batch, Found, Opened, Outcome, Payloads, Position, Read, Row};
use crate::replica::place::NodeId;
use crate::store::{Database, StoreError};

/// How a database is used.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tuning {
    /// Pages of 4 KiB that gather in the write-ahead log before they are copied into the database. More make large appends
    /// cheaper, and the file beside the database larger.
    pub(crate) checkpoint_pages: u32,
    /// Pages of 4 KiB that the database may have; it counts as full beyond. `None`: as many as the disk has room for.
    pub(crate) max_pages: Option<u32>,
    /// A commit is said to be durable without having been synced.
    #[cfg(test)]
    pub(crate) unsynced: bool,
}

impl Default for Tuning {
    fn default() -> Self {
        Self {
            checkpoint_pages: 4_000,
            max_pages: None,
            #[cfg(test)]
            unsynced: false,
        }
    }
}

/// A log in a SQLite database. See [`Store`].
pub(crate) struct SqliteStore {
    writes: mpsc::Sender<Job>,
    pages: mpsc::Sender<Question>,
    scans: mpsc::Sender<Question>,
    lookups: mpsc::Sender<Question>,
    failure: Failure,
    /// Every thread holds a receiver.
    threads: watch::Sender<()>,
}

/// What a reading thread is asked; `None` ends it.
type Question = Option<Box<dyn FnOnce(&mut Connection) + Send>>;

impl SqliteStore {
    /// Opens or makes the log of a node in a service. Blocks.
    ///
    /// # Errors
    /// [`StoreError`]; a database of another node or service is refused.
    pub(crate) fn open(path: &Path, service: &OnionAddress, node: &NodeId, tuning: Tuning) -> Result<Self, StoreError> {
        let database = Database::open(path, schema::MIGRATIONS)?;
        schema::tune(&database.connection, tuning)?;
        schema::claim(&database.connection, service, node)?;
        let (page_reader, scan_reader, lookup_reader) = (database.reader()?, database.reader()?, database.reader()?);
        let failure = Arc::new(Mutex::new(None));
        let writer = Writer::new(database, Arc::clone(&failure))?;
        let (threads, alive) = watch::channel(());
        let (writes, jobs) = mpsc::channel(WRITE_QUEUE);
        spawn("hcp-log-write", alive.clone(), move || writer.run(jobs))?;
        let pages = reader("hcp-log-pages", alive.clone(), page_reader)?;
        let scans = reader("hcp-log-scans", alive.clone(), scan_reader)?;
        let lookups = reader("hcp-log-lookups", alive, lookup_reader)?;
        Ok(Self { writes, pages, scans, lookups, failure, threads })
    }

    /// Has a reading thread answer in one transaction.
    async fn ask<T: Send + 'static>(
        &self,
        queue: &mpsc::Sender<Question>,
        question: impl FnOnce(&Transaction<'_>) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (reply, answer) = oneshot::channel();
        let question = move |connection: &mut Connection| {
            // Nobody waits any more: nothing is read.
            if !reply.is_closed() {
                let answer = connection.transaction().map_err(StoreError::from).and_then(|within| question(&within));
                let _ = reply.send(answer);
            }
        };
        queue.send(Some(Box::new(question))).await.map_err(|_| StoreError::Closed)?;
        answer.await.map_err(|_| StoreError::Closed)?
    }

    async fn look_up(&self, what: Read) -> Found {
        let queue = if matches!(what, Read::Rows { .. }) { &self.pages } else { &self.lookups };
        self.ask(queue, move |within| reading::find(within, &what)).await.unwrap_or_else(|error| {
            tracing::warn!(%error, "the log cannot be read");
            Found::Failed
        })
    }
}

impl Store for SqliteStore {
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
        self.look_up(what).boxed()
    }

    fn opened(&self) -> BoxFuture<'_, Result<Opened, StoreError>> {
        self.ask(&self.lookups, reading::opened).boxed()
    }

    fn scan(&self, after: Position, bytes: usize, payloads: Payloads) -> BoxFuture<'_, Result<Vec<Row>, StoreError>> {
        self.ask(&self.scans, move |within| reading::scan(within, after, bytes, payloads)).boxed()
    }

    fn payload(&self, position: Position) -> BoxFuture<'_, Result<Option<Bytes>, StoreError>> {
        self.ask(&self.lookups, move |within| reading::payload_at(within, position)).boxed()
    }

    fn failure(&self) -> Option<Arc<StoreError>> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn shutdown(&self) -> BoxFuture<'_, ()> {
        async move {
            // Whoever has ended already takes none, which is fine. The writer goes last and folds its files into one.
            let _ = self.pages.send(None).await;
            let _ = self.scans.send(None).await;
            let _ = self.lookups.send(None).await;
            let _ = self.writes.send(Job::Stop).await;
            self.threads.closed().await;
        }
        .boxed()
    }
}

impl fmt::Debug for SqliteStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqliteStore").finish_non_exhaustive()
    }
}

/// Starts a thread that answers questions until it is ended or nobody can ask any more.
fn reader(
    name: &str,
    alive: watch::Receiver<()>,
    mut connection: Connection,
) -> Result<mpsc::Sender<Question>, StoreError> {
    let (ask, mut questions) = mpsc::channel::<Question>(READ_QUEUE);
    spawn(name, alive, move || {
        while let Some(Some(question)) = questions.blocking_recv() {
            question(&mut connection);
        }
    })?;
    Ok(ask)
}

fn spawn(name: &str, alive: watch::Receiver<()>, run: impl FnOnce() + Send + 'static) -> Result<(), StoreError> {
    let run = move || {
        run();
        drop(alive);
    };
    std::thread::Builder::new().name(name.to_owned()).spawn(run)?;
    Ok(())
}
