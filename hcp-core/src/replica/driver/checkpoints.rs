//! Checkpoints, as far as they are the driver's: the copy of the application's state that they are made of, and the store that is
//! opened again behind one.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt as _;
use futures::stream::FuturesUnordered;

use super::{Done, Driver, Opened, open};
use crate::replica::application::Copy;
use crate::replica::error::{OpenReplicaError, Stopped};
use crate::replica::head::Ground;
use crate::replica::log::checkpoint::{Certificate, piece_hash, state_root};
use crate::replica::log::machine::{self, Covered, Input, Unfold};
use crate::replica::log::storage::{Batch, Checkpoint, Hash, Outcome, PIECE, Piece};
use crate::replica::log::wire::Tip;
use crate::replica::status::Disk;
use crate::replica::subscription::read_state;
use crate::store::StoreError;

impl Driver {
    /// Who signed a checkpoint holds what it covers.
    pub(super) fn note_covered(&self, checkpoint: &Checkpoint) {
        let keys = &self.opening.config.keys;
        let (Some(covered), Some(certificate)) =
            (Covered::of(keys, checkpoint), Certificate::parse(&checkpoint.certificate))
        else {
            return;
        };
        // Whoever gave this node the checkpoint may have put more to the signatures that it needs.
        let others = certificate.signers(keys, |node| *node != keys.node && covered.has_member(node)).len();
        let own = self.machine.log();
        self.told.held.send_modify(|held| {
            let mut logs: Vec<_> = held.receipts.keys().map(|(log, _)| *log).chain([own]).collect();
            logs.dedup();
            for log in logs {
                held.covered.insert(log, (covered.reaches(&log), others));
            }
        });
    }

    pub(super) async fn unfold(&mut self, unfold: Unfold) {
        // What is read is not for a copy that is not there.
        let checkpoint = match unfold {
            Unfold::Checkpoint if self.copy.is_some() => Some(self.state_at_checkpoint().await),
            _ => None,
        };
        let Some(copy) = &mut self.copy else { return };
        let error = match checkpoint {
            None => copy.go_back().err().map(|error| error.to_string()),
            Some(Ok(state)) => copy.go_back_to(state).err().map(|error| error.to_string()),
            Some(Err(error)) => Some(error.to_string()),
        };
        if let Some(error) = error {
            tracing::error!(%error, "this node makes no more checkpoints until it is started again");
            self.copy = None;
        }
    }

    /// The state at the checkpoint that is held, if one is; waits for a server that is away. To go on from nothing where
    /// there is a checkpoint would be to sign another state than everybody else.
    async fn state_at_checkpoint(&mut self) -> Result<Option<Bytes>, StoreError> {
        let store = Arc::clone(&self.store);
        let read = async || match store.opened().await?.checkpoint {
            Some(checkpoint) => read_state(&*store, &checkpoint).await.map(Some),
            None => Ok(None),
        };
        loop {
            match read().await {
                Err(error) if self.will_pass(&error).await => {}
                read => return read,
            }
        }
    }

    /// Waits a little where the store may come again by itself, and says so; `false` where it does not, or when the replica
    /// is to be shut down.
    async fn will_pass(&mut self, error: &StoreError) -> bool {
        let disk = match error {
            StoreError::Full => Disk::Full,
            error if error.is_away() => Disk::Away,
            _ => return false,
        };
        tracing::warn!(%error, "the log waits for what it is kept in");
        self.told.head.send_modify(|head| head.full = disk == Disk::Full);
        self.told.status.send_modify(|status| status.disk = disk);
        let mut closing = self.shared.closing.subscribe();
        tokio::time::timeout(AGAIN, closing.wait_for(|closing| *closing)).await.is_err()
    }

    /// Has the copy's state stored, piece by piece.
    pub(super) fn seal(&mut self, asked: Tip) {
        let Some(state) = self.copy.as_mut().and_then(Copy::lend) else { return };
        let store = Arc::clone(&self.store);
        let sealing = async move {
            let made = tokio::task::spawn_blocking(move || {
                let bytes = Bytes::from(state.checkpoint());
                let pieces: Vec<Bytes> =
                    (0..bytes.len()).step_by(PIECE).map(|at| bytes.slice(at..bytes.len().min(at + PIECE))).collect();
                let hashes: Vec<Hash> = pieces.iter().map(|piece| piece_hash(piece)).collect();
                (state, bytes, pieces, hashes)
            });
            let Ok((state, bytes, pieces, hashes)) = made.await else { return Done::NotSealed };
            let root = state_root(&hashes);
            let mut index = 0;
            for some in pieces.chunks(PIECES) {
                let some = some.iter().map(|bytes| {
                    index += 1;
                    Piece { root, index: index - 1, bytes: bytes.clone() }
                });
                let batch = Batch { pieces: some.collect(), ..Batch::default() };
                loop {
                    match store.write(Box::new(batch.clone())).await {
                        Outcome::Done => break,
                        Outcome::Full => tokio::time::sleep(FULL).await,
                        Outcome::Broken => return Done::NotSealed,
                    }
                }
            }
            Done::Sealed { asked, length: bytes.len() as u64, pieces: hashes, state, bytes }
        };
        self.work.push(sealing.boxed());
    }

    /// Opens the store again, since a checkpoint took the place of what was held.
    pub(super) async fn reload(&mut self) {
        tracing::info!("a checkpoint was loaded; opening the log again");
        while self.machine.poll_output().is_some() {}
        self.links.clear();
        self.work = FuturesUnordered::new();
        self.writing = false;
        self.held_up.clear();
        self.store.shutdown().await;
        let mut factory = self.copy.take().map(Copy::into_factory);
        let opened = loop {
            match open(&self.opening, factory, self.began, self.delivered).await {
                Ok(opened) => break opened,
                Err((again, OpenReplicaError::Store(error))) => {
                    factory = again;
                    if !self.will_pass(&error).await {
                        return self.stop(Stopped::Store(Arc::new(error)));
                    }
                }
                Err((_, error)) => return self.stop(Stopped::Damaged(error.to_string())),
            }
        };
        let Opened { store, machine, position, copy } = opened;
        (self.store, self.machine) = (store, machine);
        self.copy = copy.unwrap_or_else(|(_, error)| {
            tracing::error!(%error, "this node makes no more checkpoints until it is started again");
            None
        });
        self.delivered = position;
        let (store, own) = (Some(Arc::clone(&self.store)), self.machine.log());
        self.told.head.send_modify(|head| {
            head.ground = Ground { opening: head.ground.opening + 1, store };
            head.pruned += head.pruned % 2;
            (head.position, head.own, head.full) = (position, own, false);
        });
        let again: Vec<_> = self.waiting.iter().map(|(id, waiting)| (*id, waiting.entry.clone())).collect();
        for (id, entry) in again {
            self.tell(Input::Append { id: machine::AppendId(id.0), entry });
        }
    }
}

/// Pieces of a state in one batch: 2 MiB.
const PIECES: usize = 16;
/// How long to wait with a state for room on the disk.
const FULL: Duration = Duration::from_secs(1);
/// How long a store is left alone that could not be opened or read.
const AGAIN: Duration = Duration::from_millis(500);
