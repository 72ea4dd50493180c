//! What becomes of an appended entry: durable here, then held by others.

use std::collections::BTreeMap;
use std::fmt;

use futures::FutureExt;
use futures::future::{BoxFuture, Shared};
use tokio::sync::{oneshot, watch};
use tokio::time::Instant;

use super::application::AppendId;
use super::error::ReceiptError;
use super::head::Head;
use super::peers::Peers;
use crate::replica::place::{LogId, NodeId, Place};

/// Who holds what of the logs that this process wrote.
#[derive(Clone, Debug, Default)]
pub(super) struct Held {
    /// By signed receipts.
    pub(super) receipts: BTreeMap<(LogId, NodeId), u64>,
    /// In a checkpoint, up to here, which so many others signed.
    pub(super) covered: BTreeMap<LogId, (u64, usize)>,
    /// Where entries stand that were appended again.
    pub(super) moved: BTreeMap<Place, Place>,
}

impl Held {
    /// How many others hold what stands at a place.
    fn by(&self, place: &Place) -> usize {
        let covered = self.covered.get(&place.log).filter(|(seq, _)| place.seq <= *seq).map_or(0, |(_, by)| *by);
        self.receipts_for(place).max(covered).max(self.moved.get(place).map_or(0, |now| self.receipts_for(now)))
    }

    fn receipts_for(&self, place: &Place) -> usize {
        let of = (place.log, NodeId([0; 32]))..=(place.log, NodeId([0xff; 32]));
        self.receipts.range(of).filter(|(_, seq)| **seq >= place.seq).count()
    }
}

/// Follows one appended entry. Cheap to clone.
#[derive(Clone)]
pub struct Receipt {
    id: AppendId,
    place: Shared<BoxFuture<'static, Result<Place, ReceiptError>>>,
    head: watch::Receiver<Head>,
    held: watch::Receiver<Held>,
    peers: watch::Receiver<Peers>,
}

impl Receipt {
    pub(super) fn new(
        id: AppendId,
        place: oneshot::Receiver<Result<Place, ReceiptError>>,
        head: watch::Receiver<Head>,
        held: watch::Receiver<Held>,
        peers: watch::Receiver<Peers>,
    ) -> Self {
        let place = async move { place.await.unwrap_or(Err(ReceiptError::Closed)) }.boxed().shared();
        Self { id, place, head, held, peers }
    }

    /// Names the entry in a subscription of this process.
    pub fn id(&self) -> AppendId {
        self.id
    }

    /// Waits until the entry is on this node's disk.
    ///
    /// # Errors
    /// [`ReceiptError`]. After [`ReceiptError::Full`] the entry waits for room, and so can whoever calls this again; after
    /// [`ReceiptError::Closed`] it may be on disk or not.
    ///
    /// # Cancel safety
    /// Cancel-safe.
    pub async fn durable(&self) -> Result<Place, ReceiptError> {
        let mut head = self.head.clone();
        // `false` when the replica has ended, which the place says better.
        let full = async { head.wait_for(|head| head.full).await.is_ok() };
        tokio::select! {
            biased;
            place = self.place.clone() => place,
            true = full => Err(ReceiptError::Full),
            else => self.place.clone().await,
        }
    }

    /// Waits until `k` other nodes have confirmed, by signature, that the entry is on their disks; returns how many have.
    ///
    /// Waits for ever while fewer than `k` can be reached.
    ///
    /// # Errors
    /// [`ReceiptError`].
    ///
    /// # Cancel safety
    /// Cancel-safe.
    pub async fn replicated(&self, k: usize) -> Result<usize, ReceiptError> {
        self.reach(|_| k).await
    }

    /// Waits until `k` other nodes hold the entry on their disks, or until the deadline; returns how many do by then, which
    /// may be more or less than `k`, and is 0 for a node that is alone.
    ///
    /// # Errors
    /// [`ReceiptError`], also when the entry is not on this node's own disk at the deadline:
    /// [`ReceiptError::NotYetDurable`].
    ///
    /// # Cancel safety
    /// Cancel-safe.
    pub async fn replicated_up_to(&self, k: usize, deadline: Instant) -> Result<usize, ReceiptError> {
        let place = tokio::time::timeout_at(deadline, self.durable()).await;
        let place = place.map_err(|_| ReceiptError::NotYetDurable)??;
        match tokio::time::timeout_at(deadline, self.reach(|_| k)).await {
            Ok(reached) => reached,
            Err(_) => Ok(self.held.borrow().by(&place)),
        }
    }

    /// As [`Self::replicated`], for `k` or as many peers as are live, whichever is less; that number follows the peers as
    /// they come and go. A lone node returns 0 as soon as the entry is durable.
    ///
    /// # Errors
    /// [`ReceiptError`].
    ///
    /// # Cancel safety
    /// Cancel-safe.
    pub async fn replicated_to_live(&self, k: usize) -> Result<usize, ReceiptError> {
        self.reach(|peers| k.min(peers.live())).await
    }

    async fn reach(&self, wanted: impl Fn(&Peers) -> usize) -> Result<usize, ReceiptError> {
        let place = self.durable().await?;
        let (mut held, mut peers) = (self.held.clone(), self.peers.clone());
        loop {
            let wanted = wanted(&peers.borrow_and_update());
            let holding = held.borrow_and_update().by(&place);
            if holding >= wanted {
                return Ok(holding);
            }
            tokio::select! {
                changed = held.changed() => changed.map_err(|_| ReceiptError::Closed)?,
                changed = peers.changed() => changed.map_err(|_| ReceiptError::Closed)?,
            }
        }
    }
}

impl fmt::Debug for Receipt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Receipt").field("id", &self.id).finish_non_exhaustive()
    }
}
