//! The addresses that a network serves, and who answers for them now.
//!
//! Circuits outlive the listener they were built for; a stream on an old circuit goes to whoever serves the address by
//! then, as a client cannot tell the difference.
//!
//! Directories refuse a descriptor that is not newer, by whole seconds, than the one they have, and Arti offers a
//! refused one unchanged for five minutes. So the registry also knows when an address was last served.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::sync::mpsc;

use crate::network::Incoming;

/// The addresses that this network serves, or served a moment ago.
#[derive(Default)]
pub(super) struct Served(Mutex<HashMap<[u8; 32], Entry>>);

#[derive(Default)]
struct Entry {
    front: Option<Front>,
    /// When it was last given up.
    ended: Option<SystemTime>,
}

/// Who answers for an address.
pub(super) struct Front {
    pub(super) ports: Arc<[u16]>,
    pub(super) incoming: mpsc::WeakSender<Incoming>,
}

impl Served {
    /// Claims an address; `false` when it is served already.
    pub(super) fn claim(&self, address: [u8; 32], front: Front) -> bool {
        let mut entries = self.lock();
        entries.retain(|_, entry| entry.front.is_some() || entry.wait().is_some());
        let entry = entries.entry(address).or_default();
        let free = entry.front.is_none();
        if free {
            entry.front = Some(front);
        }
        free
    }

    /// Gives an address up.
    pub(super) fn release(&self, address: &[u8; 32]) {
        if let Some(entry) = self.lock().get_mut(address) {
            entry.front = None;
            entry.ended = Some(SystemTime::now());
        }
    }

    /// How long until a descriptor of the address is newer than those of whoever served it before.
    pub(super) fn must_wait(&self, address: &[u8; 32]) -> Option<Duration> {
        self.lock().get(address).and_then(Entry::wait)
    }

    /// A place in the queue of whoever serves `port` of `address`; none when nobody does or the queue is full.
    pub(super) fn place(&self, address: &[u8; 32], port: u16) -> Option<mpsc::OwnedPermit<Incoming>> {
        let queue = {
            let entries = self.lock();
            let front = entries.get(address)?.front.as_ref()?;
            front.incoming.upgrade().filter(|_| front.ports.contains(&port))?
        };
        queue.try_reserve_owned().ok()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<[u8; 32], Entry>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entry {
    fn wait(&self) -> Option<Duration> {
        let since = |time: SystemTime| time.duration_since(UNIX_EPOCH).unwrap_or_default();
        let (ended, now) = (since(self.ended?), since(SystemTime::now()));
        // A clock that was set back must not keep a service down.
        let same = ended.as_secs() == now.as_secs();
        same.then(|| Duration::from_secs(now.as_secs() + 1).saturating_sub(now))
    }
}
