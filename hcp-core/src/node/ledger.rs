//! What a node keeps, all sessions together: when it is too much, the session that holds the most is ended.
//!
//! A node has two ledgers: of what peers make it hold, and of what its applications have sent (`backlog`). A session has an
//! account in each, and is ended once, whichever is full.

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
    eviction: Arc<Eviction>,
}

/// Whether a session has to end for what it holds, in whichever ledger.
#[derive(Debug, Default)]
pub(super) struct Eviction {
    due: AtomicBool,
    told: Notify,
}

impl Ledger {
    pub(super) fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self { limit, total: AtomicUsize::new(0), evicted: AtomicUsize::new(0), holders: Mutex::default() })
    }

    /// Opens the account of the session that `eviction` ends.
    pub(super) fn holder(self: &Arc<Self>, eviction: &Arc<Eviction>) -> Arc<Holder> {
        let holder =
            Arc::new(Holder { ledger: Arc::clone(self), held: AtomicUsize::new(0), eviction: Arc::clone(eviction) });
        let mut holders = self.holders.lock().unwrap_or_else(PoisonError::into_inner);
        holders.retain(|holder| holder.strong_count() > 0);
        holders.push(Arc::downgrade(&holder));
        holder
    }

    pub(super) fn total(&self) -> usize {
        self.total.load(Ordering::Relaxed)
    }

    /// Sessions that were ended for what they hold here.
    pub(super) fn evictions(&self) -> usize {
        self.evicted.load(Ordering::Relaxed)
    }

    /// Ends sessions, the greediest first, until what the others hold is within the limit.
    fn evict(&self) {
        let holders: Vec<_> = {
            let holders = self.holders.lock().unwrap_or_else(PoisonError::into_inner);
            holders.iter().filter_map(Weak::upgrade).collect()
        };
        // As it is now: others go on holding and releasing meanwhile.
        let staying = holders.into_iter().filter(|holder| !holder.eviction.is_due());
        let mut staying: Vec<_> = staying.map(|holder| (holder.held(), holder)).collect();
        staying.sort_by_key(|(held, _)| *held);
        let mut total: usize = staying.iter().map(|(held, _)| held).sum();
        while total > self.limit
            && let Some((held, greediest)) = staying.pop()
        {
            total -= held;
            if greediest.eviction.mark() {
                self.evicted.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

impl Holder {
    /// Notes that so many bytes more are held for the session.
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
}

impl Drop for Holder {
    fn drop(&mut self) {
        self.ledger.total.fetch_sub(self.held(), Ordering::Relaxed);
    }
}

impl Eviction {
    /// Whether the session has to end.
    pub(super) fn is_due(&self) -> bool {
        self.due.load(Ordering::Acquire)
    }

    /// Waits until the session has to end. Cancel-safe.
    pub(super) async fn due(&self) {
        loop {
            // It is told from here on, so that nothing is missed in between.
            let told = self.told.notified();
            if self.is_due() {
                return;
            }
            told.await;
        }
    }

    /// Has the session end; `false` when it had to before.
    fn mark(&self) -> bool {
        let first = !self.due.swap(true, Ordering::AcqRel);
        if first {
            self.told.notify_waiters();
        }
        first
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Accounts of so many sessions, and what ends those.
    fn accounts(ledger: &Arc<Ledger>, count: usize) -> (Vec<Arc<Holder>>, Vec<Arc<Eviction>>) {
        let evictions: Vec<_> = (0..count).map(|_| Arc::default()).collect();
        (evictions.iter().map(|eviction| ledger.holder(eviction)).collect(), evictions)
    }

    fn due(evictions: &[Arc<Eviction>]) -> Vec<bool> {
        evictions.iter().map(|eviction| eviction.is_due()).collect()
    }

    #[test]
    fn the_greediest_session_is_ended_when_all_hold_too_much_and_no_other() {
        let ledger = Ledger::new(100);
        let (holders, evictions) = accounts(&ledger, 3);
        holders[0].hold(30);
        holders[1].hold(50);
        holders[2].hold(20);
        assert_eq!(due(&evictions), [false; 3]);
        holders[2].hold(1);
        assert_eq!(due(&evictions), [false, true, false]);
        // While it is going, what it holds is no reason to end another.
        holders[0].hold(10);
        assert_eq!(due(&evictions), [false, true, false]);
        assert_eq!((ledger.total(), ledger.evictions()), (111, 1));
    }

    #[test]
    fn what_is_released_or_dropped_counts_no_more() {
        let ledger = Ledger::new(100);
        let (mut holders, _evictions) = accounts(&ledger, 2);
        holders[0].hold(60);
        holders[0].release(20);
        holders[1].hold(40);
        drop(holders.remove(0));
        assert_eq!(ledger.total(), 40);
        holders[0].hold(60);
        assert_eq!(ledger.evictions(), 0);
    }

    #[test]
    fn a_session_that_one_ledger_ends_counts_once_and_is_no_candidate_in_the_other() {
        let (incoming, outgoing) = (Ledger::new(100), Ledger::new(100));
        let (first, second) = (Arc::default(), Arc::default());
        let accounts = |ledger: &Arc<Ledger>| [ledger.holder(&first), ledger.holder(&second)];
        let (came, sent) = (accounts(&incoming), accounts(&outgoing));
        came[0].hold(101);
        assert!(first.is_due() && !second.is_due());
        sent[0].hold(90);
        sent[1].hold(20);
        assert!(!second.is_due(), "what the first holds goes with it");
        sent[1].hold(81);
        assert!(second.is_due());
        assert_eq!((incoming.evictions(), outgoing.evictions()), (1, 1));
    }
}
