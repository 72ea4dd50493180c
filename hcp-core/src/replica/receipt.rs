//! What becomes of an appended entry: durable here, then held by others.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use futures::FutureExt;
use futures::future::{BoxFuture, Shared};
use tokio::sync::{oneshot, watch};

use super::peers::Peers;
use super::place::{NodeId, Place};
use super::subscription::AppendId;
use crate::error::ErrorKind;
use crate::store::StoreError;

/// Follows one appended entry. Cheap to clone.
#[derive(Clone)]
pub struct Receipt {
    id: AppendId,
    place: Shared<BoxFuture<'static, Result<Place, ReceiptError>>>,
    receipts: watch::Receiver<BTreeMap<NodeId, u64>>,
    peers: watch::Receiver<Peers>,
}

impl Receipt {
    pub(super) fn new(
        id: AppendId,
        place: oneshot::Receiver<Result<Place, ReceiptError>>,
        receipts: watch::Receiver<BTreeMap<NodeId, u64>>,
        peers: watch::Receiver<Peers>,
    ) -> Self {
        let place = async move { place.await.unwrap_or(Err(ReceiptError::Closed)) }.boxed().shared();
        Self { id, place, receipts, peers }
    }

    /// Names the entry in a subscription of this process.
    pub fn id(&self) -> AppendId {
        self.id
    }

    /// Waits until the entry is on this node's disk.
    ///
    /// # Errors
    /// [`ReceiptError`]; the entry may or may not be on disk when it says `Closed`.
    ///
    /// # Cancel safety
    /// Cancel-safe.
    pub async fn durable(&self) -> Result<Place, ReceiptError> {
        self.place.clone().await
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
        let seq = self.durable().await?.seq;
        let (mut receipts, mut peers) = (self.receipts.clone(), self.peers.clone());
        loop {
            let wanted = wanted(&peers.borrow_and_update());
            let holding = receipts.borrow_and_update().values().filter(|held| **held >= seq).count();
            if holding >= wanted {
                return Ok(holding);
            }
            tokio::select! {
                changed = receipts.changed() => changed.map_err(|_| ReceiptError::Closed)?,
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

/// Why an entry did not get where a [`Receipt`] was asked to see it.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReceiptError {
    /// The log cannot be written.
    #[error("the log cannot be written: {0}")]
    Store(#[source] Arc<StoreError>),
    /// The replica was shut down before.
    #[error("the replica was shut down")]
    Closed,
}

impl ReceiptError {
    /// What a caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Store(error) => error.kind(),
            Self::Closed => ErrorKind::Closed,
        }
    }
}
