//! What the applications of a session have sent and this side has yet to let go of: what has not gone out, and bulk that the
//! peer has not acknowledged.
//!
//! Sending waits while a session has too much of it; when all sessions of the node together have, the one that has the most
//! is ended. Each message is taken before it is handed to the driver, and whatever becomes of it, it is given back: what is
//! dropped is.

use std::sync::Arc;

use tokio::sync::Semaphore;

use super::MAX_SESSIONS;
use super::ledger::Holder;
use crate::session::STREAM_WINDOW;

/// Bytes that a session may have taken from its applications and not let go of, all streams together: what has not gone out,
/// and bulk that the peer has not acknowledged. What a peer that allows more than it reads can make this side keep.
pub(super) const SEND_BUDGET: usize = 64 * 1024 * 1024;

/// The same of a node, all sessions together, in bytes; 640 MiB. So an address whose places are all taken by peers who each load
/// one thing at the pace of a first window is served; ten sessions at their own bound of 64 MiB are too much.
pub const NODE_BACKLOG: usize = MAX_SESSIONS * STREAM_WINDOW as usize;

/// The account of a session.
#[derive(Debug)]
pub(super) struct Backlog {
    /// What of the session's budget is free.
    free: Semaphore,
    holder: Arc<Holder>,
}

impl Backlog {
    /// That of a session that may have so much, and whose part in the node's is `holder`.
    pub(super) fn new(budget: usize, holder: Arc<Holder>) -> Arc<Self> {
        Arc::new(Self { free: Semaphore::new(budget), holder })
    }

    /// Waits until there is room for so much, and takes it; `None` when the session has ended. Cancel-safe.
    pub(super) async fn take(self: &Arc<Self>, bytes: u32) -> Option<Share> {
        self.free.acquire_many(bytes).await.ok()?.forget();
        let bytes = bytes as usize;
        self.holder.hold(bytes);
        Some(Share { backlog: Arc::clone(self), bytes })
    }

    /// A share of nothing.
    pub(super) fn nothing(self: &Arc<Self>) -> Share {
        Share { backlog: Arc::clone(self), bytes: 0 }
    }

    /// Lets nothing more be taken: whoever waits for room is told.
    pub(super) fn close(&self) {
        self.free.close();
    }
}

/// A part of a session's backlog, given back when it is dropped.
#[derive(Debug)]
pub(super) struct Share {
    backlog: Arc<Backlog>,
    bytes: usize,
}

impl Share {
    /// Takes over all of another share of the same session.
    pub(super) fn absorb(&mut self, other: &mut Self) {
        self.bytes += std::mem::take(&mut other.bytes);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    /// Gives so much back, at most what there is.
    pub(super) fn give_back(&mut self, bytes: u64) {
        let bytes = usize::try_from(bytes).unwrap_or(usize::MAX).min(self.bytes);
        self.bytes -= bytes;
        // First, so that whoever gets the room finds the node's account without it.
        self.backlog.holder.release(bytes);
        self.backlog.free.add_permits(bytes);
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.give_back(u64::MAX);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::super::ledger::Ledger;
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_is_taken_counts_until_it_is_given_back_and_once() {
        let ledger = Ledger::new(1_000);
        let backlog = Backlog::new(100, ledger.holder(&Arc::default()));
        let (mut all, mut first) = (backlog.nothing(), backlog.take(60).await.unwrap());
        all.absorb(&mut first);
        drop(first);
        assert_eq!(ledger.total(), 60);
        assert!(timeout(Duration::from_secs(1), backlog.take(41)).await.is_err(), "there is no room");
        assert_eq!(ledger.total(), 60, "who was given up has taken nothing");
        all.give_back(1);
        let second = backlog.take(41).await.unwrap();
        all.give_back(u64::MAX);
        all.give_back(10);
        assert_eq!(ledger.total(), 41);
        drop((all, second));
        assert_eq!(ledger.total(), 0);
        assert!(backlog.take(100).await.is_some(), "all of it is free, and no more");
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_waits_for_room_is_told_when_the_session_ends() {
        let ledger = Ledger::new(1_000);
        let backlog = Backlog::new(100, ledger.holder(&Arc::default()));
        let share = backlog.take(100).await.unwrap();
        let waiting = tokio::spawn({
            let backlog = Arc::clone(&backlog);
            async move { backlog.take(1).await.is_none() }
        });
        tokio::task::yield_now().await;
        backlog.close();
        assert!(waiting.await.unwrap());
        drop(share);
        assert!(backlog.take(1).await.is_none());
        assert_eq!(ledger.total(), 0);
    }
}
