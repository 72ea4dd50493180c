//! The task that writes: batches that wait together go into one transaction, again and again until the server has it.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio_postgres::Transaction;
use tokio_postgres::binary_copy::BinaryCopyInWriter;
use tokio_postgres::types::Type;

use super::super::{GROUP_BYTES, size};
use super::session::{Server, Session};
use crate::replica::log::storage::{Batch, Outcome, Row};
use crate::replica::place::LogId;
use crate::store::StoreError;

/// Why the last batch was not stored, or is not yet.
pub(super) type Failure = Arc<Mutex<Option<Arc<StoreError>>>>;

/// What the task is asked to do.
#[derive(Debug)]
pub(super) enum Job {
    Write(Box<Batch>, oneshot::Sender<Outcome>),
    Stop,
}

/// A server that went away is looked for again after so long, and then twice as long, up to [`PATIENCE`].
const AGAIN: Duration = Duration::from_millis(50);
const PATIENCE: Duration = Duration::from_secs(2);
/// What takes longer is said to, and goes on. It is given up after so long once the store is to be shut down.
const SILENT: Duration = Duration::from_secs(10);

/// What [`Writer`] does with an error.
enum Failed {
    /// The server went away; whether it has the batch is to be asked.
    Away(StoreError),
    Full(StoreError),
    Broken(StoreError),
}

#[derive(Debug)]
pub(super) struct Writer {
    server: Server,
    session: Option<Session>,
    run: i64,
    /// The number of the last group that the server is known to have.
    group: i64,
    logs: BTreeMap<LogId, i64>,
    failure: Failure,
    stop: watch::Receiver<bool>,
    broken: bool,
}

impl Writer {
    pub(super) fn new(
        server: Server,
        session: Session,
        run: i64,
        failure: Failure,
        stop: watch::Receiver<bool>,
    ) -> Self {
        Self { server, session: Some(session), run, group: 0, logs: BTreeMap::new(), failure, stop, broken: false }
    }

    /// Runs until it is stopped or nobody can ask any more.
    pub(super) async fn run(mut self, mut jobs: mpsc::Receiver<Job>) {
        while let Some(Job::Write(batch, reply)) = jobs.recv().await {
            let mut bytes = size(&batch);
            let (mut group, mut stop) = (vec![(batch, reply)], false);
            while bytes < GROUP_BYTES && !stop {
                match jobs.try_recv() {
                    Ok(Job::Write(batch, reply)) => {
                        bytes += size(&batch);
                        group.push((batch, reply));
                    }
                    Ok(Job::Stop) => stop = true,
                    Err(_) => break,
                }
            }
            self.carry_out(group).await;
            if stop {
                return;
            }
        }
    }

    async fn carry_out(&mut self, group: Vec<(Box<Batch>, oneshot::Sender<Outcome>)>) {
        let batches: Vec<&Batch> = group.iter().map(|(batch, _)| &**batch).collect();
        let together = self.commit(&batches).await;
        let alone = group.len() > 1 && together == Outcome::Full;
        for (batch, reply) in group {
            // What is small may still fit. Nobody may wait any more, which is fine.
            let _ = reply.send(if alone { self.commit(&[&batch]).await } else { together });
        }
    }

    /// Carries out some batches in one transaction; waits for the server while it is away.
    async fn commit(&mut self, batches: &[&Batch]) -> Outcome {
        let mut pause = AGAIN;
        loop {
            if self.broken {
                return Outcome::Broken;
            }
            let failed = match self.attempt_or_stop(batches).await {
                Ok(()) => {
                    self.note(None);
                    return Outcome::Done;
                }
                Err(failed) => failed,
            };
            self.logs.clear();
            match failed {
                Failed::Full(error) => {
                    tracing::warn!(%error, "the log cannot be written for want of room");
                    self.note(Some(error));
                    return Outcome::Full;
                }
                Failed::Broken(error) => {
                    tracing::error!(%error, "the log cannot be written any more");
                    self.broken = true;
                    self.note(Some(error));
                }
                Failed::Away(error) => {
                    tracing::warn!(%error, "the log's server is away");
                    self.note(Some(error));
                    self.session = None;
                    let stopped = self.stop.wait_for(|stop| *stop);
                    if tokio::time::timeout(pause, stopped).await.is_ok() {
                        self.broken = true;
                    }
                    pause = (pause * 2).min(PATIENCE);
                }
            }
        }
    }

    /// Says so when the server does not answer, and waits on, but not for ever once the store is to be shut down.
    async fn attempt_or_stop(&mut self, batches: &[&Batch]) -> Result<(), Failed> {
        let (failure, mut stop) = (Arc::clone(&self.failure), self.stop.clone());
        let mut attempt = pin!(self.attempt(batches));
        if let Ok(done) = tokio::time::timeout(SILENT, &mut attempt).await {
            return done;
        }
        tracing::warn!("the log's server does not answer");
        note(&failure, Some(StoreError::Silent));
        let given_up = async {
            let _ = stop.wait_for(|stop| *stop).await;
            tokio::time::sleep(SILENT).await;
        };
        tokio::select! {
            done = attempt => done,
            () = given_up => Err(Failed::Broken(StoreError::Silent)),
        }
    }

    async fn attempt(&mut self, batches: &[&Batch]) -> Result<(), Failed> {
        let next = self.group + 1;
        if self.session.is_none() {
            let session = self.server.connect().await.map_err(failed)?;
            // Whether the answer to a commit was lost, and whether another run began. The commit may still be under way on the
            // connection that was lost: whoever locks the row waits for it.
            let sql = "SELECT run, batch FROM owner FOR UPDATE";
            let row = session.query_one(sql, &[]).await.map_err(|error| failed(error.into()))?;
            let (run, batch): (i64, i64) = (row.get(0), row.get(1));
            if run != self.run {
                return Err(Failed::Broken(StoreError::InUse));
            }
            self.session = Some(session);
            if batch == next {
                self.group = next;
                return Ok(());
            }
        }
        let Some(session) = &mut self.session else { return Err(Failed::Broken(StoreError::Closed)) };
        match write(session, &mut self.logs, (self.run, next), batches).await {
            Ok(()) => {
                self.group = next;
                Ok(())
            }
            Err(error) if session.is_closed() => Err(Failed::Away(error)),
            Err(error) => Err(failed(error)),
        }
    }

    fn note(&self, failure: Option<StoreError>) {
        note(&self.failure, failure);
    }
}

fn note(at: &Failure, failure: Option<StoreError>) {
    *at.lock().unwrap_or_else(PoisonError::into_inner) = failure.map(Arc::new);
}

fn failed(error: StoreError) -> Failed {
    match error {
        StoreError::Full => Failed::Full(error),
        _ if error.is_away() => Failed::Away(error),
        _ => Failed::Broken(error),
    }
}

async fn write(
    session: &mut Session,
    logs: &mut BTreeMap<LogId, i64>,
    (run, group): (i64, i64),
    batches: &[&Batch],
) -> Result<(), StoreError> {
    let within = session.client.transaction().await?;
    if within.execute("UPDATE owner SET batch = $2 WHERE run = $1", &[&run, &group]).await? == 0 {
        return Err(StoreError::InUse);
    }
    for batch in batches {
        let positions: Vec<i64> = batch.forget_positions.iter().map(|position| integer(position.0)).collect();
        if !positions.is_empty() {
            within.execute("DELETE FROM segments WHERE position = ANY($1)", &[&positions]).await?;
        }
        copy_rows(&within, logs, &batch.rows).await?;
        for piece in &batch.pieces {
            let sql = "INSERT INTO pieces VALUES ($1, $2, $3) ON CONFLICT (root, number) DO UPDATE SET bytes = $3";
            within.execute(sql, &[&&piece.root[..], &i64::from(piece.index), &&piece.bytes[..]]).await?;
        }
        if let Some(new) = &batch.checkpoint {
            within.execute("DELETE FROM checkpoint", &[]).await?;
            let (root, length) = (&new.root[..], integer(new.length));
            let values: [&(dyn tokio_postgres::types::ToSql + Sync); 5] =
                [&root, &length, &&new.summary[..], &&new.pieces[..], &&new.certificate[..]];
            within.execute("INSERT INTO checkpoint VALUES (1, $1, $2, $3, $4, $5)", &values).await?;
        }
        for root in &batch.forget_states {
            within.execute("DELETE FROM pieces WHERE root = $1", &[&&root[..]]).await?;
        }
        for up_to in &batch.forget_rows {
            let log = "(SELECT id FROM logs WHERE node = $1 AND incarnation = $2)";
            let (node, incarnation) = (&up_to.log.node.0[..], &up_to.log.incarnation.0[..]);
            let sql = format!("DELETE FROM segments WHERE log = {log} AND seq <= $3");
            within.execute(&sql, &[&node, &incarnation, &integer(up_to.seq)]).await?;
            let sql =
                format!("DELETE FROM logs WHERE id = {log} AND NOT EXISTS (SELECT 1 FROM segments WHERE log = id)");
            within.execute(&sql, &[&node, &incarnation]).await?;
            logs.remove(&up_to.log);
        }
    }
    Ok(within.commit().await?)
}

async fn copy_rows(
    within: &Transaction<'_>,
    logs: &mut BTreeMap<LogId, i64>,
    rows: &[Arc<Row>],
) -> Result<(), StoreError> {
    if rows.is_empty() {
        return Ok(());
    }
    for row in rows {
        if let Entry::Vacant(unknown) = logs.entry(row.log) {
            let sql = "INSERT INTO logs (node, incarnation) VALUES ($1, $2)
                       ON CONFLICT (node, incarnation) DO UPDATE SET node = excluded.node RETURNING id";
            let (node, incarnation) = (&row.log.node.0[..], &row.log.incarnation.0[..]);
            unknown.insert(within.query_one(sql, &[&node, &incarnation]).await?.try_get(0)?);
        }
    }
    let sink = within
        .copy_in(
            "COPY segments (position, log, seq, branch, system, hash, signature, header, payload) FROM STDIN BINARY",
        )
        .await?;
    const INTEGER: Type = Type::INT8;
    const BYTES: Type = Type::BYTEA;
    let types = [INTEGER, INTEGER, INTEGER, INTEGER, Type::BOOL, BYTES, BYTES, BYTES, BYTES];
    let mut writer = pin!(BinaryCopyInWriter::new(sink, &types));
    for row in rows {
        let log = logs.get(&row.log).copied();
        writer
            .as_mut()
            .write(&[
                &integer(row.position.0),
                &log,
                &integer(row.seq),
                &i64::from(row.branch.0),
                &row.system,
                &&row.hash[..],
                &&row.signature[..],
                &&row.header[..],
                &row.payload.as_deref(),
            ])
            .await?;
    }
    writer.finish().await?;
    Ok(())
}

/// PostgreSQL's integers are signed; no log gets near that many segments, and a look-up beyond finds nothing.
pub(super) fn integer(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
