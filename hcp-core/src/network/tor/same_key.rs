//! A shared address in its first form: every node holds the service's key and launches an ordinary onion service.
//!
//! It is here because it is what stock Tor offers, and is meant to be deleted once a publisher that merges the
//! introduction points of all nodes exists. What is wrong with it:
//!
//! - Every node holds the identity key, so that whoever captures one node owns the address for ever.
//! - The last upload wins: one descriptor lists the introduction points of one node, so that all clients go there.
//! - When that node dies, its descriptor stays with the directories for up to three hours. Clients find dead
//!   introduction points until another node calls [`SameKeyService::relaunch`].
//! - Of two nodes that upload within the same second, or of two whose clocks differ, the one with the later clock wins
//!   and the other is refused. It stays [`Starting`](crate::network::ListenerStatus::Starting) for minutes.

use std::fmt;
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::TorNetwork;
use super::host::Service;
use crate::identity::Identity;
use crate::network::{ListenError, Listener};

/// An onion service whose key other nodes hold too, and that can take the address over from them.
pub struct SameKeyService {
    /// The listener owns the service.
    service: Weak<Service>,
    turn: Semaphore,
}

impl SameKeyService {
    /// Serves `ports` at the identity's address until the [`Listener`] is dropped.
    ///
    /// # Errors
    /// As [`Network::listen`](crate::network::Network::listen).
    ///
    /// # Cancel safety
    /// Dropping the future withdraws what was launched.
    pub async fn launch(
        network: &TorNetwork,
        identity: &Identity,
        ports: &[u16],
    ) -> Result<(Listener, Self), ListenError> {
        let (listener, service) = Service::launch(&network.inner, identity, ports, None).await?;
        Ok((listener, Self { service: Arc::downgrade(&service), turn: Semaphore::new(1) }))
    }

    /// Launches the service anew, so that it uploads its descriptor again and clients come to this node.
    ///
    /// Connections that clients have through it go on. Returns once the descriptor is uploaded; launches again, up to
    /// three times, when that takes longer than 30 s. Calls at the same time take turns.
    ///
    /// # Errors
    /// When the listener was dropped, or the network refuses to launch the service or to take its descriptor.
    ///
    /// # Cancel safety
    /// Not cancel-safe: dropping the future may leave the service down until the next call.
    pub async fn relaunch(&self) -> Result<(), ListenError> {
        let _turn = self.turn.acquire().await.map_err(|e| ListenError::Launch(e.into()))?;
        for _ in 0..UPLOADS {
            let service =
                self.service.upgrade().ok_or_else(|| ListenError::Launch("the listener was dropped".into()))?;
            service.down();
            service.up().await?;
            if timeout(UPLOAD_DEADLINE, service.reachable()).await.is_ok_and(|reachable| reachable) {
                return Ok(());
            }
        }
        Err(ListenError::Launch("the directories did not take the descriptor".into()))
    }
}

impl fmt::Debug for SameKeyService {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SameKeyService").finish_non_exhaustive()
    }
}

/// An upload takes a second on a private network and ten on the public one; Arti repeats one that is refused for being
/// no newer than another node's, unchanged, for five minutes.
const UPLOAD_DEADLINE: Duration = Duration::from_secs(30);
const UPLOADS: usize = 3;
