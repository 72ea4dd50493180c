//! Which session of two peers goes on, as a state machine without I/O.
//!
//! Of two sides the one with the lower address chooses, so that the two never choose differently whatever order the network
//! brings things in. Both open new streams in the newest session that is not being drained.

use std::collections::HashMap;

use crate::identity::OnionAddress;

/// Sessions with one identity that may exist at once. Two when both dial at the same time; more only while dead ones are not
/// noticed yet, and while long streams keep sessions open that others have replaced.
pub(super) const MAX_PER_PEER: usize = 4;

/// The established sessions of one address with identified peers.
///
/// `I` names a session, `T` is whatever reaches it.
#[derive(Debug)]
pub(super) struct Registry<I, T> {
    me: OnionAddress,
    peers: HashMap<OnionAddress, Vec<Entry<I, T>>>,
}

/// A session, as it stands in the list of its peer's sessions from the oldest to the newest.
#[derive(Debug)]
struct Entry<I, T> {
    id: I,
    handle: T,
    /// One of the two sides opens no more streams in it.
    draining: bool,
}

/// What is to be done when a session has begun.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Verdict<T> {
    /// Sessions that this side drains, since another goes on.
    pub(super) drain: Vec<T>,
    /// Sessions that this side ends, since there are too many with the peer.
    pub(super) end: Vec<T>,
}

impl<I: Copy + Eq, T: Clone> Registry<I, T> {
    /// No sessions yet, of this address.
    pub(super) fn new(me: OnionAddress) -> Self {
        Self { me, peers: HashMap::new() }
    }

    /// A session was established. `known` is the session that the peer, who dialled, said it holds.
    pub(super) fn began(&mut self, peer: OnionAddress, id: I, known: Option<I>, handle: T) -> Verdict<T> {
        let mut verdict = Verdict { drain: Vec::new(), end: Vec::new() };
        // Both ends of a session with itself are here, and each is its own.
        if peer == self.me {
            return verdict;
        }
        let chooses = self.me < peer;
        let entries = self.peers.entry(peer).or_default();
        let current = entries.iter().rev().find(|entry| !entry.draining).map(|entry| entry.id);
        let mut new = Entry { id, handle, draining: false };
        if chooses && current.is_some() {
            if current == known {
                // The peer dialled before the other session had reached it.
                new.draining = true;
                verdict.drain.push(new.handle.clone());
            } else {
                for entry in entries.iter_mut().filter(|entry| !entry.draining) {
                    entry.draining = true;
                    verdict.drain.push(entry.handle.clone());
                }
            }
        }
        entries.push(new);
        while entries.len() > MAX_PER_PEER {
            // The current one stays, however old it is.
            let oldest = entries.iter().position(|entry| entry.draining).unwrap_or(0);
            verdict.end.push(entries.remove(oldest).handle);
        }
        verdict
    }

    /// One of the two sides drains the session.
    pub(super) fn drains(&mut self, peer: OnionAddress, id: I) {
        for entry in self.peers.get_mut(&peer).into_iter().flatten().filter(|entry| entry.id == id) {
            entry.draining = true;
        }
    }

    /// A session has ended.
    pub(super) fn ended(&mut self, peer: OnionAddress, id: I) {
        if let Some(entries) = self.peers.get_mut(&peer) {
            entries.retain(|entry| entry.id != id);
            if entries.is_empty() {
                self.peers.remove(&peer);
            }
        }
    }

    /// The session with the peer in which new streams are opened.
    pub(super) fn current(&self, peer: OnionAddress) -> Option<(I, &T)> {
        let entry = self.peers.get(&peer)?.iter().rev().find(|entry| !entry.draining)?;
        Some((entry.id, &entry.handle))
    }
}

#[cfg(test)]
mod tests;
