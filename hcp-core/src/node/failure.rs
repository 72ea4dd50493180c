//! What is known of a session that has failed, so that the next dial meets somebody else.
//!
//! It stays with who dialled: were it shared between a node and the throw-away identities as which it dials, a service could
//! tell that they belong together from whom they avoid.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::Instant;

use super::channel::Shared;
use super::event::DialledBy;
use crate::identity::OnionAddress;
use crate::identity::delegation::{Delegation, PublicKey};
use crate::session::SessionError;

/// How long a failure is remembered: a replica that has come back by then is as good as another.
const REMEMBERED: Duration = Duration::from_secs(120);

/// A session that this side dialled has failed, and with it, where the address is a service's, the replica that it was with.
#[derive(Clone, Copy, Debug)]
pub(super) struct Failure {
    replica: Option<PublicKey>,
}

impl Failure {
    /// What the end of a session says; nothing where it is no failure of the other side, or that side had dialled.
    pub(super) fn of(session: &Shared, error: &SessionError) -> Option<Self> {
        let failed = matches!(error, SessionError::Lost | SessionError::Silent);
        (failed && session.dialled_by == DialledBy::Us)
            .then(|| Self { replica: session.delegation.as_ref().map(Delegation::session_key) })
    }

    /// Whether it was the replica that holds this delegation.
    pub(super) fn is_of(&self, delegation: Option<&Delegation>) -> bool {
        self.replica.is_some() && self.replica == delegation.map(Delegation::session_key)
    }
}

/// The last failure of each peer, for a while.
#[derive(Debug, Default)]
pub(super) struct Failures(HashMap<OnionAddress, (Failure, Instant)>);

impl Failures {
    /// Notes a failure, and forgets those that are old: there are no more than sessions that failed within [`REMEMBERED`].
    pub(super) fn note(&mut self, peer: OnionAddress, failure: Failure) {
        let now = Instant::now();
        self.0.retain(|_, (_, since)| now.saturating_duration_since(*since) < REMEMBERED);
        self.0.insert(peer, (failure, now));
    }

    /// The last failure of a peer that has not been reached since.
    pub(super) fn of(&self, peer: OnionAddress) -> Option<Failure> {
        let (failure, since) = self.0.get(&peer)?;
        (since.elapsed() < REMEMBERED).then_some(*failure)
    }

    /// A session with the peer has begun.
    pub(super) fn forget(&mut self, peer: OnionAddress) {
        self.0.remove(&peer);
    }
}
