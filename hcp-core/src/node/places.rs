//! Places for the sessions that one address accepts. When all are taken, one in which nothing is open makes room.

use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::{Instant, timeout};

use super::channel::{Shared, Standing};
use super::driver::LINGER;
use crate::session::CLOSE_BUSY;

/// How old a session is at the least that makes room: whoever dials opens a stream right behind its proof, a round trip over
/// Tor later at the most.
const SETTLED: Duration = Duration::from_secs(5);

/// The places of one address.
#[derive(Debug)]
pub(super) struct Places {
    free: Semaphore,
    /// Who has one, oldest first.
    taken: Mutex<Vec<(Instant, Weak<Shared>)>>,
}

impl Places {
    pub(super) fn new(count: usize) -> Self {
        Self { free: Semaphore::new(count), taken: Mutex::default() }
    }

    /// A place for one session more, until it is dropped; for which the oldest session without a stream is ended when there is
    /// no other. Strangers that only stay connected keep nobody out so. `None` when there is none of that kind either.
    ///
    /// Cancel-safe.
    pub(super) async fn take(&self) -> Option<SemaphorePermit<'_>> {
        if let Ok(place) = self.free.try_acquire() {
            return Some(place);
        }
        if !self.make_room() {
            return None;
        }
        // It has some time for its last words, and its handlers for theirs.
        timeout(3 * LINGER, self.free.acquire()).await.ok()?.ok()
    }

    /// Notes who has a place.
    pub(super) fn note(&self, session: &Arc<Shared>) {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        taken.retain(|(_, session)| session.upgrade().is_some_and(|session| !session.has_ended()));
        taken.push((Instant::now(), Arc::downgrade(session)));
    }

    /// Ends the oldest session in which nothing is open; `false` when there is none.
    fn make_room(&self) -> bool {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let idle = |(since, session): &(Instant, Weak<Shared>)| {
            since.elapsed() >= SETTLED && session.upgrade().is_some_and(|session| session.is_idle())
        };
        let Some(at) = taken.iter().position(idle) else { return false };
        let (_, session) = taken.remove(at);
        if let Some(session) = session.upgrade() {
            session.signals.tell(|told| told.end = Some(CLOSE_BUSY));
        }
        true
    }
}

impl Shared {
    fn has_ended(&self) -> bool {
        matches!(*self.standing.borrow(), Standing::Ended(_))
    }

    /// Whether it lives and no stream is open in it.
    fn is_idle(&self) -> bool {
        let open = self.stats.lock().unwrap_or_else(PoisonError::into_inner).open_streams;
        open == 0 && !self.has_ended()
    }
}
