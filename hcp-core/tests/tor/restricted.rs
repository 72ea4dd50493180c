//! Who finds what is not for everybody: addresses of nodes, and services with the manifests that say so.

use std::time::{Duration, Instant};

use hcp_core::error::ErrorKind;
use hcp_core::identity::delegation::{OwnerCertificate, OwnerKey, Validity};
use hcp_core::identity::manifest::{Contents, Manifest, Member, Role};
use hcp_core::identity::{DiscoveryKey, DiscoveryPublicKey, Identity, LogKey, OnionAddress, ReplicaSeed, RevisionSeed};
use hcp_core::network::{DialError, HCP_PORT, Network};
use hcp_core::node::{Access, Node};
use hcp_core::owner::{
    Book, Grant, Holdings, Horizon, IdentitySigner, Owner, PeriodClock, Recipient, Request, certify,
};
use hcp_core::service::{self, Launched, ReplicatedService};
use hcp_core::testing::{PrivateTorNetwork, SocksError, socks_connect, socks_connect_isolated};
use tempfile::TempDir;

use super::harness::{assert_not_on_disk, builder, client, converse, echo, home, joined, reachable, testnet, within};

#[tokio::test(flavor = "multi_thread")]
async fn a_restricted_address_is_found_by_its_clients_alone() {
    let testnet = testnet().await;
    let (identity, key) = (Identity::generate(), DiscoveryKey::generate());
    let address = identity.address();
    let near = home();
    let keyed = builder(&near, testnet).discovery_key(address, key.clone()).bootstrap();
    let known = [(address, key.clone())];
    let ((server, far), client, tor, (stranger, _b)) =
        tokio::join!(joined(testnet), within(60, keyed), testnet.start_client_with(&known), joined(testnet));
    let (client, tor) = (client.unwrap(), tor.unwrap());
    let clients = [DiscoveryKey::generate().public_key(), key.public_key()];
    let listener = server.listen_restricted(&identity, &[HCP_PORT], &clients).await.unwrap();
    let _echo = echo("hidden", reachable(listener).await);

    let stream = within(200, client.dial(address, HCP_PORT)).await.unwrap();
    assert_eq!(converse(stream).await, format!("hidden {HCP_PORT}"));
    let stream = socks_connect(tor.socks_addr(), &address.to_string(), HCP_PORT).await;
    assert_eq!(converse(stream.unwrap_or_else(|e| panic!("{e}: {}", tor.log()))).await, format!("hidden {HCP_PORT}"));

    stranger.set_discovery_key(address, &DiscoveryKey::generate());
    let wrong = within(60, stranger.dial(address, HCP_PORT)).await.err().unwrap();
    stranger.remove_discovery_key(address);
    let none = within(60, stranger.dial_isolated(address, HCP_PORT)).await.err().unwrap();
    for refused in [wrong, none] {
        assert!(matches!(refused, DialError::Restricted), "{refused:?}");
        assert_eq!(refused.kind(), ErrorKind::Authentication);
    }
    // A key that comes later counts at once.
    stranger.set_discovery_key(address, &key);
    let stream = within(200, stranger.isolated().dial(address, HCP_PORT)).await.unwrap();
    assert_eq!(converse(stream).await, format!("hidden {HCP_PORT}"));
    for home in [&near, &far] {
        assert_not_on_disk(home.path(), &[key.secret_bytes().as_slice()]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_finds_a_node_changes_while_it_runs() {
    let testnet = testnet().await;
    let ((server, _a), (first, _b), (second, _c)) = tokio::join!(joined(testnet), joined(testnet), joined(testnet));
    let (identity, before, after) = (Identity::generate(), DiscoveryKey::generate(), DiscoveryKey::generate());
    let address = identity.address();
    let builder = Node::builder(identity, std::sync::Arc::new(server)).restricted_to([before.public_key()]);
    let node = builder.bind().await.unwrap();
    assert!(within(120, node.reachable()).await);
    first.set_discovery_key(address, &before);
    second.set_discovery_key(address, &after);
    within(200, first.dial(address, HCP_PORT)).await.unwrap();
    let refused = within(60, second.dial(address, HCP_PORT)).await.err().unwrap();
    assert!(matches!(refused, DialError::Restricted), "{refused:?}");

    node.restrict_to([after.public_key()]).unwrap();
    let start = Instant::now();
    let found = async {
        // Arti uploads at its own pace.
        while let Err(error) = second.isolated().dial(address, HCP_PORT).await {
            assert!(matches!(error, DialError::Restricted), "{error:?}");
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    };
    within(200, found).await;
    println!("found by another after {:.1} s", start.elapsed().as_secs_f64());
    let again = within(60, first.isolated().dial(address, HCP_PORT)).await.err().unwrap();
    assert!(matches!(again, DialError::Restricted), "{again:?}");
}

/// A replicated service with restricted discovery, whose nodes' own addresses are restricted to the members.
#[tokio::test(flavor = "multi_thread")]
async fn a_replicated_service_and_its_nodes_are_found_by_those_whom_the_manifest_names_alone() {
    let testnet = testnet().await;
    let (serving, idle) = (Place::new(), Place::new());
    let mut office = Office::new(testnet, [&serving, &idle]).await;
    let service = office.service.address();
    let own = serving.node.address();
    let (client, later) = (DiscoveryKey::generate(), DiscoveryKey::generate());
    let known = [(service, client.clone())];
    let (tor, stranger_tor, (near, _a), (stranger, _b), (far, _c)) = tokio::join!(
        testnet.start_client_with(&known),
        self::client(testnet),
        joined(testnet),
        joined(testnet),
        joined(testnet)
    );
    let tor = tor.unwrap();

    let mut holdings = serving.holdings(service);
    office.grant(1, &[client.public_key()]).await;
    holdings.import(&office.granted.to_bytes(), now()).unwrap();
    let finders = office.manifest(1, &[client.public_key()]).contents().discovery_keys().unwrap();
    let launched = ReplicatedService::launch(&far, &serving.node, holdings, &[6667]).await.unwrap();
    let Launched { listener, endpoint, gossip, starter } = launched;
    let _echo = echo("replica", listener);
    let node = Node::builder(serving.node.clone(), std::sync::Arc::new(far.clone()))
        .restricted_to(finders)
        .protocol(service::PROTOCOL, Access::Identified, gossip)
        .service(endpoint)
        .bind()
        .await
        .unwrap();
    let replica = starter.start(&node);
    let mut status = replica.status();
    let published = |status: &service::ServiceStatus| status.descriptors.iter().all(|one| one.current);
    let is_up = |status: &service::ServiceStatus| status.reachable && published(status);
    within(120, status.wait_for(is_up)).await.unwrap();

    // Clients with a key that it lists, and without.
    near.set_discovery_key(service, &client);
    let stream = within(200, near.dial(service, 6667)).await.unwrap();
    assert_eq!(converse(stream).await, "replica 6667");
    let name = service.to_string();
    let stream = socks_connect(tor.socks_addr(), &name, 6667).await;
    assert_eq!(converse(stream.unwrap_or_else(|e| panic!("{e}: {}", tor.log()))).await, "replica 6667");
    let refused = within(60, stranger.dial(service, 6667)).await.err().unwrap();
    assert!(matches!(refused, DialError::Restricted), "{refused:?}");
    assert_eq!(refused.kind(), ErrorKind::Authentication);
    stranger.set_discovery_key(service, &later);
    let refused = within(60, stranger.dial(service, 6667)).await.err().unwrap();
    assert!(matches!(refused, DialError::Restricted), "{refused:?}");
    let refused = socks_connect_isolated(stranger_tor.socks_addr(), &name, 6667, "stranger").await.unwrap_err();
    assert!(matches!(refused, SocksError::Refused { code: MISSING_CLIENT_AUTHORISATION }), "{refused:?}");
    assert_eq!(replica.status().borrow().counts.met, 2);

    // The node's own address is the members'.
    within(120, node.reachable()).await;
    let member = idle.seed.discovery_key();
    near.set_discovery_key(own, &member);
    within(200, near.dial(own, HCP_PORT)).await.unwrap();
    for key in [None, Some(&client)] {
        stranger.remove_discovery_key(own);
        key.into_iter().for_each(|key| stranger.set_discovery_key(own, key));
        let refused = within(60, stranger.dial_isolated(own, HCP_PORT)).await.err().unwrap();
        assert!(matches!(refused, DialError::Restricted), "{refused:?}");
    }

    // A later manifest names another client in the place of the first.
    office.grant(2, &[later.public_key()]).await;
    serving.holdings(service).import(&office.granted.to_bytes(), now()).unwrap();
    let (mut events, periods) = (replica.events(), status.borrow().descriptors.len());
    replica.renew().await;
    let uploaded = async {
        for _ in 0..periods {
            while !matches!(events.recv().await.unwrap(), service::ServiceEvent::Published { .. }) {}
        }
    };
    within(200, uploaded).await;
    let stream = within(200, stranger.isolated().dial(service, 6667)).await.unwrap();
    assert_eq!(converse(stream).await, "replica 6667");
    let again = within(60, testnet.start_client_with(&known)).await.unwrap();
    let refused = socks_connect_isolated(again.socks_addr(), &name, 6667, "former").await.unwrap_err();
    assert!(matches!(refused, SocksError::Refused { code: WRONG_CLIENT_AUTHORISATION }), "{refused:?}");
    within(30, replica.shutdown()).await;
}

/// C tor's codes beside those of SOCKS (proposal 304): the descriptor is encrypted for others.
const MISSING_CLIENT_AUTHORISATION: u8 = 0xf4;
const WRONG_CLIENT_AUTHORISATION: u8 = 0xf5;

/// What a node of a service has.
struct Place {
    node: Identity,
    log: LogKey,
    seed: ReplicaSeed,
    home: TempDir,
}

impl Place {
    fn new() -> Self {
        Self { node: Identity::generate(), log: LogKey::generate(), seed: ReplicaSeed::generate(), home: home() }
    }

    fn holdings(&self, service: OnionAddress) -> Holdings {
        let recipient = Recipient::new(service, self.node.address(), self.seed.clone());
        Holdings::open(self.home.path().join("grants"), recipient, now()).unwrap()
    }

    fn member(&self) -> Member {
        let member = Member::new(self.node.address(), self.log.public_key(), Role::Publisher).unwrap();
        member.with_discovery_key(self.seed.discovery_key().public_key())
    }
}

/// The owner of a service, who grants the first of its members what it asks for.
struct Office {
    service: Identity,
    key: OwnerKey,
    certificate: OwnerCertificate,
    revisions: RevisionSeed,
    book: Book,
    request: Request,
    members: Vec<Member>,
    granted: Grant,
}

impl Office {
    async fn new(testnet: &PrivateTorNetwork, places: [&Place; 2]) -> Self {
        let (service, key) = (Identity::generate(), OwnerKey::generate());
        let minutes = testnet.description().time_period_minutes();
        let clock = PeriodClock::of_minutes(u32::try_from(minutes).unwrap()).unwrap();
        let validity = Validity::new(now() - 60, now() + 7 * 86_400).unwrap();
        let signer = IdentitySigner::new(service.clone());
        let certificate = certify(&signer, key.public_key(), validity).await.unwrap();
        let first = places[0];
        let request = first.holdings(service.address()).request(&first.node, clock, 16, 60, now()).unwrap();
        let (members, revisions) = (places.map(Place::member).to_vec(), RevisionSeed::generate());
        let (mut book, rounds) = (Book::new(service.address(), clock), Horizon::new(now(), 1, 1).unwrap());
        // Something to begin with; nobody gets it.
        let manifest = Contents::new(0, members.clone()).unwrap();
        let manifest = Manifest::sign(&key, service.address(), manifest).unwrap();
        let owner =
            Owner { signer: &signer, key: &key, certificate: &certificate, revisions: &revisions, manifest: &manifest };
        let granted = owner.grant(&mut book, std::slice::from_ref(&request), rounds).await.unwrap().remove(0);
        Self { service, key, certificate, revisions, book, request, members, granted }
    }

    fn manifest(&self, version: u64, clients: &[DiscoveryPublicKey]) -> Manifest {
        let contents = Contents::new(version, self.members.clone()).unwrap();
        let contents = contents.restricted_to(clients.iter().copied()).unwrap();
        Manifest::sign(&self.key, self.service.address(), contents).unwrap()
    }

    /// Makes a grant with a manifest that restricts the service to these clients.
    async fn grant(&mut self, version: u64, clients: &[DiscoveryPublicKey]) {
        let (signer, manifest) = (IdentitySigner::new(self.service.clone()), self.manifest(version, clients));
        let Self { key, certificate, revisions, book, .. } = self;
        let owner = Owner { signer: &signer, key, certificate, revisions, manifest: &manifest };
        let requests = std::slice::from_ref(&self.request);
        self.granted = owner.grant(book, requests, Horizon::new(now(), 1, 1).unwrap()).await.unwrap().remove(0);
    }
}

/// Unix seconds.
fn now() -> u64 {
    std::time::UNIX_EPOCH.elapsed().unwrap().as_secs()
}
