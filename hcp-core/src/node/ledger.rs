//! What peers make a node hold, all sessions together: when it is too much, the session that holds the most is ended.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use tokio::sync::Notify;

/// Bytes that all peers of a node together may make it hold: received, and not taken by the application. Four sessions at
/// their own bound of 64 MiB; a thousand sessions that each hold a few messages stay below it as well.
pub const NODE_MEMORY: usize = 256 * 1024 * 1024;

/// The node's account.
#[derive(Debug)]
pub(super) struct Ledger {
    limit: usize,
    total: AtomicUsize,
    evicted: AtomicUsize,
    holders: Mutex<Vec<Weak<Holder>>>,
}

/// One session's account. What it holds leaves the node's account when it is dropped.
#[derive(Debug)]
pub(super) struct Holder {
    ledger: Arc<Ledger>,
    held: AtomicUsize,
    evicted: AtomicBool,
    evict: Notify,
}

impl Ledger {
    pub(super) fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self { limit, total: AtomicUsize::new(0), evicted: AtomicUsize::new(0), holders: Mutex::default() })
    }

    /// Opens a session's account.
    pub(super) fn holder(self: &Arc<Self>) -> Arc<Holder> {
        let holder = Arc::new(Holder {
            ledger: Arc::clone(self),
            held: AtomicUsize::new(0),
            evicted: AtomicBool::new(false),
            evict: Notify::new(),
        });
        let mut holders = self.holders.lock().unwrap_or_else(PoisonError::into_inner);
        holders.retain(|holder| holder.strong_count() > 0);
        holders.push(Arc::downgrade(&holder));
        holder
    }

    pub(super) fn total(&self) -> usize {
        self.total.load(Ordering::Relaxed)
    }

    pub(super) fn evictions(&self) -> usize {
        self.evicted.load(Ordering::Relaxed)
    }

    /// Ends sessions, the greediest first, until what the others hold is within the limit.
    fn evict(&self) {
        let holders: Vec<_> = {
            let holders = self.holders.lock().unwrap_or_else(PoisonError::into_inner);
            holders.iter().filter_map(Weak::upgrade).collect()
        };
        let mut staying: Vec<_> = holders.into_iter().filter(|holder| !holder.is_evicted()).collect();
        staying.sort_by_key(|holder| holder.held());
        let mut held: usize = staying.iter().map(|holder| holder.held()).sum();
        while held > self.limit
            && let Some(greediest) = staying.pop()
        {
            held -= greediest.held().min(held);
            greediest.mark();
        }
    }
}

impl Holder {
    /// Notes that the peer made this side hold so many bytes more.
    pub(super) fn hold(&self, bytes: usize) {
        self.held.fetch_add(bytes, Ordering::Relaxed);
        if self.ledger.total.fetch_add(bytes, Ordering::Relaxed) + bytes > self.ledger.limit {
            self.ledger.evict();
        }
    }

    /// Notes that so many bytes are held no more.
    pub(super) fn release(&self, bytes: usize) {
        self.held.fetch_sub(bytes, Ordering::Relaxed);
        self.ledger.total.fetch_sub(bytes, Ordering::Relaxed);
    }

    pub(super) fn held(&self) -> usize {
        self.held.load(Ordering::Relaxed)
    }

    /// Whether the session has to end.
    pub(super) fn is_evicted(&self) -> bool {
        self.evicted.load(Ordering::Relaxed)
    }

    /// Waits until the session has to end. Cancel-safe.
    pub(super) async fn evicted(&self) {
        while !self.is_evicted() {
            self.evict.notified().await;
        }
    }

    fn mark(&self) {
        if !self.evicted.swap(true, Ordering::Relaxed) {
            self.ledger.evicted.fetch_add(1, Ordering::Relaxed);
            self.evict.notify_one();
        }
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        self.ledger.total.fetch_sub(self.held(), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_greediest_session_is_ended_when_all_hold_too_much_and_no_other() {
        let ledger = Ledger::new(100);
        let holders: Vec<_> = (0..3).map(|_| ledger.holder()).collect();
        holders[0].hold(30);
        holders[1].hold(50);
        holders[2].hold(20);
        assert!(holders.iter().all(|holder| !holder.is_evicted()));
        holders[2].hold(1);
        assert_eq!([0, 1, 2].map(|i| holders[i].is_evicted()), [false, true, false]);
        // While it is going, what it holds is no reason to end another.
        holders[0].hold(10);
        assert_eq!([0, 1, 2].map(|i| holders[i].is_evicted()), [false, true, false]);
        assert_eq!((ledger.total(), ledger.evictions()), (111, 1));
    }

    #[test]
    fn what_is_released_or_dropped_counts_no_more() {
        let ledger = Ledger::new(100);
        let (first, second) = (ledger.holder(), ledger.holder());
        first.hold(60);
        first.release(20);
        second.hold(40);
        drop(first);
        assert_eq!(ledger.total(), 40);
        second.hold(60);
        assert_eq!(ledger.evictions(), 0);
    }
}
