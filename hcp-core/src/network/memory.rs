//! Addresses inside one process: for tests, under real or paused time.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::FutureExt;
use futures::future::BoxFuture;
use rand::seq::IndexedRandom as _;
use tokio::sync::{mpsc, watch};

use super::{
    ACCEPT_QUEUE, BoxedTransport, DialError, Hosting, Incoming, IntroductionRate, ListenError, Listener,
    ListenerStatus, Network, check_clients, check_ports,
};
use crate::identity::{DiscoveryKey, DiscoveryPublicKey, Identity, OnionAddress};

/// Bytes that one direction of a connection holds.
const PIPE: usize = 64 * 1024;

/// Who serves an address and port: one, or several that share it.
type Services = HashMap<(OnionAddress, u16), Vec<Server>>;

#[derive(Clone, Debug)]
struct Server {
    id: u64,
    shared: bool,
    incoming: mpsc::Sender<Incoming>,
    /// Whoever else dials it is refused; nobody is where this is empty.
    clients: Arc<[DiscoveryPublicKey]>,
}

/// How an address and port are served.
#[derive(Clone, Copy)]
enum Serving<'a> {
    /// By one, for these clients or, where there are none, for everybody.
    Alone(&'a [DiscoveryPublicKey]),
    /// By several that share it.
    Together,
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
            let server =
                self.services().get(&(address, port)).and_then(|servers| servers.choose(&mut rand::rng()).cloned());
            let server = server.ok_or(DialError::NotFound)?;
            let listed = self.keys.get(&address).is_some_and(|key| server.clients.contains(key));
            if !server.clients.is_empty() && !listed {
                return Err(DialError::Restricted);
            }
            let (near, far) = tokio::io::duplex(PIPE);
            let incoming = Incoming { port, stream: Box::new(far) };
            server.incoming.send(incoming).await.map_err(|_| DialError::NotFound)?;
            Ok(Box::new(near) as BoxedTransport)
        }
        .boxed()
    }

    fn listen<'a>(&'a self, identity: &'a Identity, ports: &'a [u16]) -> BoxFuture<'a, Result<Listener, ListenError>> {
        let listener = self.listen_now(identity.address(), ports, Serving::Alone(&[]));
        async move { listener }.boxed()
    }

    fn listen_restricted<'a>(
        &'a self,
        identity: &'a Identity,
        ports: &'a [u16],
        clients: &'a [DiscoveryPublicKey],
    ) -> BoxFuture<'a, Result<Listener, ListenError>> {
        let alone = check_clients(clients).map(|()| Serving::Alone(clients));
        let listener = alone.and_then(|alone| self.listen_now(identity.address(), ports, alone));
        async move { listener }.boxed()
    }

    fn host<'a>(
        &'a self,
        service: OnionAddress,
        ports: &'a [u16],
        _rate: Option<IntroductionRate>,
    ) -> BoxFuture<'a, Result<Hosting, ListenError>> {
        let listener = self.listen_now(service, ports, Serving::Together);
        async move { listener.map(Hosting::new) }.boxed()
    }
}

impl MemoryNetwork {
    fn listen_now(&self, address: OnionAddress, ports: &[u16], how: Serving<'_>) -> Result<Listener, ListenError> {
        check_ports(ports)?;
        let (shared, clients) = match how {
            Serving::Alone(clients) => (false, clients.into()),
            Serving::Together => (true, [].into()),
        };
        let mut services = self.services();
        let taken = |servers: &Vec<Server>| !shared || servers.iter().any(|server| !server.shared);
        if ports.iter().any(|port| services.get(&(address, *port)).is_some_and(taken)) {
            return Err(ListenError::InUse);
        }
        let (sender, incoming) = mpsc::channel(ACCEPT_QUEUE);
        let server = Server { id: rand::random(), shared, incoming: sender, clients };
        for port in ports {
            services.entry((address, *port)).or_default().push(server.clone());
        }
        let (status, watched) = watch::channel(ListenerStatus::Reachable);
        let guard = Withdraw { network: self.clone(), address, ports: ports.to_vec(), id: server.id, _status: status };
        let network = self.clone();
        let restrict = move |clients: &[DiscoveryPublicKey]| {
            check_clients(clients)?;
            let mut services = network.services();
            let all = services.values_mut().flatten().filter(|present| present.id == server.id);
            all.for_each(|present| present.clients = clients.into());
            Ok(())
        };
        Ok(Listener::new(incoming, watched, guard).restricted_by(Arc::new(restrict)))
    }
}

struct Withdraw {
    network: MemoryNetwork,
    address: OnionAddress,
    ports: Vec<u16>,
    id: u64,
    _status: watch::Sender<ListenerStatus>,
}

impl Drop for Withdraw {
    fn drop(&mut self) {
        let mut services = self.network.services();
        for port in &self.ports {
            let place = (self.address, *port);
            if let Some(servers) = services.get_mut(&place) {
                servers.retain(|server| server.id != self.id);
                if servers.is_empty() {
                    services.remove(&place);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn those_who_share_an_address_are_all_reached_and_the_last_takes_it_with_it() {
        let network = MemoryNetwork::new();
        let identity = Identity::from_seed(&[1; 32]);
        let service = identity.address();
        let mut first = network.host(service, &[7], None).await.unwrap().into_parts().0;
        let mut second = network.host(service, &[7], None).await.unwrap().into_parts().0;
        assert!(matches!(network.listen(&identity, &[7]).await, Err(ListenError::InUse)), "not for one alone");
        let mut reached = [0, 0];
        for _ in 0..64 {
            let _stream = network.dial(service, 7).await.unwrap();
            tokio::select! {
                _ = first.accept() => reached[0] += 1,
                _ = second.accept() => reached[1] += 1,
            }
        }
        assert!(reached.iter().all(|count| *count > 0), "{reached:?}");
        drop(first);
        let _stream = network.dial(service, 7).await.unwrap();
        assert!(second.accept().await.is_some());
        drop(second);
        assert!(matches!(network.dial(service, 7).await, Err(DialError::NotFound)));
        assert!(network.listen(&identity, &[7]).await.is_ok());
        let _alone = network.listen(&identity, &[8]).await.unwrap();
        assert!(matches!(network.host(service, &[8], None).await, Err(ListenError::InUse)));
    }
}
