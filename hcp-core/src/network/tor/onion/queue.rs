//! A bounded queue in which the oldest makes room for the newest: in a flood, who came last still waits for an answer, and
//! who came first has given up the soonest.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::Stream;
use tokio::sync::Notify;

/// A queue for one consumer.
pub(super) struct Queue<T> {
    waiting: Mutex<VecDeque<T>>,
    limit: usize,
    ready: Notify,
    displaced: AtomicU64,
}

impl<T: Send + 'static> Queue<T> {
    pub(super) fn new(limit: usize) -> Self {
        Self { waiting: Mutex::default(), limit, ready: Notify::new(), displaced: AtomicU64::new(0) }
    }

    /// Adds an item; never waits.
    pub(super) fn push(&self, item: T) {
        let oldest = {
            let mut waiting = self.lock();
            let oldest = if waiting.len() >= self.limit { waiting.pop_front() } else { None };
            waiting.push_back(item);
            oldest
        };
        if oldest.is_some() {
            self.displaced.fetch_add(1, Ordering::Relaxed);
        }
        self.ready.notify_one();
    }

    /// How many made room for others.
    pub(super) fn displaced(&self) -> u64 {
        self.displaced.load(Ordering::Relaxed)
    }

    /// What is in the queue, oldest first; never ends.
    pub(super) fn stream(self: Arc<Self>) -> impl Stream<Item = T> + Send {
        futures::stream::unfold(self, |queue| async move {
            let item = queue.pop().await;
            Some((item, queue))
        })
    }

    async fn pop(&self) -> T {
        loop {
            if let Some(item) = self.lock().pop_front() {
                return item;
            }
            // Remembers a push that came in between.
            self.ready.notified().await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<T>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use futures::{FutureExt as _, StreamExt as _};

    use super::*;

    #[tokio::test]
    async fn the_oldest_makes_room_and_the_rest_come_in_order() {
        let queue = Arc::new(Queue::new(3));
        (0..5).for_each(|i| queue.push(i));
        assert_eq!(queue.displaced(), 2);
        let mut items = Box::pin(Arc::clone(&queue).stream());
        for expected in 2..5 {
            assert_eq!(items.next().await, Some(expected));
        }
        assert!(items.next().now_or_never().is_none());
    }

    #[tokio::test]
    async fn whoever_waits_is_woken() {
        let queue = Arc::new(Queue::new(3));
        let mut items = Box::pin(Arc::clone(&queue).stream());
        let waiting = tokio::spawn(async move { items.next().await });
        tokio::task::yield_now().await;
        queue.push(7);
        assert_eq!(tokio::time::timeout(std::time::Duration::from_secs(10), waiting).await.unwrap().unwrap(), Some(7));
    }
}
