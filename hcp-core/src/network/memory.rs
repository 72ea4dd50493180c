//! Addresses inside one process: for tests, under real or paused time.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::sync::{mpsc, watch};

use super::{
    ACCEPT_QUEUE, BoxedTransport, DialError, Incoming, ListenError, Listener, ListenerStatus, Network, check_clients,
    check_ports,
};
use crate::identity::{DiscoveryKey, DiscoveryPublicKey, Identity, OnionAddress};

/// Bytes that one direction of a connection holds.
const PIPE: usize = 64 * 1024;

type Services = HashMap<(OnionAddress, u16), Served>;

#[derive(Clone)]
struct Served {
    incoming: mpsc::Sender<Incoming>,
    /// Whoever else dials it is refused; nobody is where this is empty.
    clients: Arc<[DiscoveryPublicKey]>,
}

/// A network inside this process. Cheap to clone; clones are the same network.
#[derive(Clone, Default)]
pub struct MemoryNetwork {
    services: Arc<Mutex<Services>>,
    /// Of this handle alone.
    keys: BTreeMap<OnionAddress, DiscoveryPublicKey>,
}

impl MemoryNetwork {
    /// A network without services.
    pub fn new() -> Self {
        Self::default()
    }

    /// The same network for somebody who dials `address` with a discovery key.
    #[must_use]
    pub fn with_discovery_key(mut self, address: OnionAddress, key: &DiscoveryKey) -> Self {
        self.keys.insert(address, key.public_key());
        self
    }

    fn services(&self) -> MutexGuard<'_, Services> {
        self.services.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for MemoryNetwork {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryNetwork").field("services", &self.services().len()).finish()
    }
}

impl Network for MemoryNetwork {
    fn dial(&self, address: OnionAddress, port: u16) -> BoxFuture<'_, Result<BoxedTransport, DialError>> {
        async move {
            let service = self.services().get(&(address, port)).cloned().ok_or(DialError::NotFound)?;
            let listed = self.keys.get(&address).is_some_and(|key| service.clients.contains(key));
            if !service.clients.is_empty() && !listed {
                return Err(DialError::Restricted);
            }
            let (near, far) = tokio::io::duplex(PIPE);
            let incoming = Incoming { port, stream: Box::new(far) };
            service.incoming.send(incoming).await.map_err(|_| DialError::NotFound)?;
            Ok(Box::new(near) as BoxedTransport)
        }
        .boxed()
    }

    fn listen<'a>(&'a self, identity: &'a Identity, ports: &'a [u16]) -> BoxFuture<'a, Result<Listener, ListenError>> {
        let listener = self.listen_now(identity.address(), ports, &[]);
        async move { listener }.boxed()
    }

    fn listen_restricted<'a>(
        &'a self,
        identity: &'a Identity,
        ports: &'a [u16],
        clients: &'a [DiscoveryPublicKey],
    ) -> BoxFuture<'a, Result<Listener, ListenError>> {
        let listener = check_clients(clients).and_then(|()| self.listen_now(identity.address(), ports, clients));
        async move { listener }.boxed()
    }
}

impl MemoryNetwork {
    fn listen_now(
        &self,
        address: OnionAddress,
        ports: &[u16],
        clients: &[DiscoveryPublicKey],
    ) -> Result<Listener, ListenError> {
        check_ports(ports)?;
        let mut services = self.services();
        if ports.iter().any(|port| services.contains_key(&(address, *port))) {
            return Err(ListenError::InUse);
        }
        let (sender, incoming) = mpsc::channel(ACCEPT_QUEUE);
        for port in ports {
            services.insert((address, *port), Served { incoming: sender.clone(), clients: clients.into() });
        }
        let (status, watched) = watch::channel(ListenerStatus::Reachable);
        let guard = Withdraw { network: self.clone(), address, ports: ports.to_vec(), _status: status };
        Ok(Listener::new(incoming, watched, guard))
    }
}

struct Withdraw {
    network: MemoryNetwork,
    address: OnionAddress,
    ports: Vec<u16>,
    _status: watch::Sender<ListenerStatus>,
}

impl Drop for Withdraw {
    fn drop(&mut self) {
        let mut services = self.network.services();
        for port in &self.ports {
            services.remove(&(self.address, *port));
        }
    }
}
