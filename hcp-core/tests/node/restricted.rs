//! Nodes that only some clients find.

use std::sync::Arc;

use hcp_core::error::ErrorKind;
use hcp_core::identity::{DiscoveryKey, Identity};
use hcp_core::network::{DialError, ListenError, LocalNetwork, MAX_DISCOVERY_CLIENTS, MemoryNetwork, Network};
use hcp_core::node::{BindError, ConnectError, Node};

use super::harness::{client, echoes, serving};

#[tokio::test(start_paused = true)]
async fn a_restricted_node_is_found_by_its_clients_alone() {
    let (network, key) = (MemoryNetwork::new(), DiscoveryKey::generate());
    let plain: Arc<dyn Network> = Arc::new(network.clone());
    let clients = [DiscoveryKey::generate().public_key(), key.public_key()];
    let far = serving(Identity::generate(), &plain).restricted_to(clients).bind().await.unwrap();
    let dialler = async |network: MemoryNetwork| client(&(Arc::new(network) as Arc<dyn Network>)).await;

    let listed = dialler(network.clone().with_discovery_key(far.address(), &key)).await;
    echoes(&listed.connect(far.address()).await.unwrap(), "found").await;
    let other = DiscoveryKey::generate();
    for stranger in [network.clone(), network.clone().with_discovery_key(far.address(), &other)] {
        let error = dialler(stranger).await.connect(far.address()).await.unwrap_err();
        assert!(matches!(error, ConnectError::Dial(DialError::Restricted)), "{error:?}");
        assert_eq!(error.kind(), ErrorKind::Authentication);
    }
    assert_eq!(far.stats().sessions_accepted, 1);
}

#[tokio::test(start_paused = true)]
async fn who_finds_a_node_can_be_changed_while_it_runs() {
    let network = MemoryNetwork::new();
    let plain: Arc<dyn Network> = Arc::new(network.clone());
    let far = serving(Identity::generate(), &plain).bind().await.unwrap();
    let keys = [DiscoveryKey::generate(), DiscoveryKey::generate()];
    let found = async |network: MemoryNetwork| {
        let dialler = client(&(Arc::new(network) as Arc<dyn Network>)).await;
        match dialler.connect(far.address()).await {
            Ok(_) => true,
            Err(error) => {
                assert!(matches!(error, ConnectError::Dial(DialError::Restricted)), "{error:?}");
                false
            }
        }
    };
    let with = |key: &DiscoveryKey| network.clone().with_discovery_key(far.address(), key);
    assert!(found(network.clone()).await, "everybody, at first");
    far.restrict_to([keys[0].public_key()]).unwrap();
    assert_eq!((found(network.clone()).await, found(with(&keys[0])).await), (false, true));
    far.restrict_to([keys[1].public_key()]).unwrap();
    assert_eq!((found(with(&keys[0])).await, found(with(&keys[1])).await), (false, true));
    assert!(matches!(far.restrict_to([]), Err(ListenError::Clients)));
    assert!(found(with(&keys[1])).await, "what is refused changes nothing");

    let folder = tempfile::tempdir().unwrap();
    let local: Arc<dyn Network> = Arc::new(LocalNetwork::new(folder.path()).unwrap());
    let there = serving(Identity::generate(), &local).bind().await.unwrap();
    assert!(matches!(there.restrict_to([keys[0].public_key()]), Err(ListenError::CannotRestrict)));
}

#[tokio::test(start_paused = true)]
async fn a_restriction_that_cannot_be_had_is_refused() {
    let bind = async |network: Arc<dyn Network>, clients: usize| {
        let clients = (0..clients).map(|_| DiscoveryKey::generate().public_key());
        Node::builder(Identity::generate(), network).restricted_to(clients).bind().await.map(drop)
    };
    for (clients, fits) in [(0, false), (1, true), (MAX_DISCOVERY_CLIENTS, true), (MAX_DISCOVERY_CLIENTS + 1, false)] {
        let bound = bind(Arc::new(MemoryNetwork::new()), clients).await;
        assert_eq!(bound.is_ok(), fits, "{clients}");
        assert!(fits || matches!(bound, Err(BindError::Listen(ListenError::Clients))), "{bound:?}");
    }
    let folder = tempfile::tempdir().unwrap();
    let bound = bind(Arc::new(LocalNetwork::new(folder.path()).unwrap()), 1).await;
    assert!(matches!(bound, Err(BindError::Listen(ListenError::CannotRestrict))), "{bound:?}");
}
