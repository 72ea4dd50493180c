//! The Tor network against real relays: a private network of the system's `tor` that all tests of the run share.

#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use hcp_core::error::ErrorKind;
use hcp_core::identity::delegation::{OwnerCertificate, OwnerKey, Validity};
use hcp_core::identity::manifest::{Contents, Manifest, Member, Role};
use hcp_core::identity::{DiscoveryKey, DiscoveryPublicKey, Identity, LogKey, OnionAddress, ReplicaSeed, RevisionSeed};
use hcp_core::network::tor::{BootstrapError, TorNetwork, TorNetworkBuilder};
use hcp_core::network::{DialError, DialPhase, HCP_PORT, ListenError, Listener, ListenerStatus, Network};
use hcp_core::node::{Access, Node};
use hcp_core::owner::{
    Book, Grant, Holdings, Horizon, IdentitySigner, Owner, PeriodClock, Recipient, Request, certify,
};
use hcp_core::service::{self, Launched, ReplicatedService};
use hcp_core::testing::{
    PrivateTorDescription, PrivateTorNetwork, SocksError, StartError, TESTNET_VARIABLE, socks_connect,
    socks_connect_isolated,
};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::task::JoinHandle;
use tokio::time::timeout;

#[tokio::test(flavor = "multi_thread")]
async fn bootstrap_reports_progress_up_to_ready() {
    let home = home();
    let builder = builder(&home, testnet().await);
    let mut progress = builder.progress();
    let seen = tokio::spawn(async move {
        let mut seen = vec![progress.borrow_and_update().clone()];
        while progress.changed().await.is_ok() {
            seen.push(progress.borrow_and_update().clone());
            if seen.last().unwrap().text == "ready" {
                break;
            }
        }
        seen
    });
    let network = within(60, builder.bootstrap()).await.unwrap();
    let seen = within(10, seen).await.unwrap();
    assert_eq!(seen[0].percent, 0);
    assert_eq!(seen.last().unwrap().percent, 100, "{seen:?}");
    assert!(seen.len() > 2, "{seen:?}");
    assert_eq!(network.progress().borrow().text, "ready");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_state_directory_serves_one_network_at_a_time() {
    let home = home();
    let testnet = testnet().await;
    let network = within(60, builder(&home, testnet).bootstrap()).await.unwrap();
    let second = within(60, builder(&home, testnet).bootstrap()).await.unwrap_err();
    assert!(matches!(second, BootstrapError::StateLocked), "{second:?}");
    assert_eq!(second.kind(), ErrorKind::InUse);

    // Far below its own deadline of 10 s.
    within(5, network.shutdown()).await;
    within(60, builder(&home, testnet).bootstrap()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn arti_and_c_tor_clients_reach_the_named_ports_and_no_other() {
    let testnet = testnet().await;
    let ((server, _a), (client, _b), tor) = tokio::join!(joined(testnet), joined(testnet), client(testnet));
    let identity = Identity::generate();
    let address = identity.address();
    let _echo = echo("server", reachable(server.listen(&identity, &[HCP_PORT, 6667]).await.unwrap()).await);

    for port in [HCP_PORT, 6667] {
        let start = Instant::now();
        let stream = within(200, client.dial(address, port)).await.unwrap();
        println!("dial of port {port}: {:.2} s", start.elapsed().as_secs_f64());
        assert_eq!(converse(stream).await, format!("server {port}"));
        let stream = socks_connect(tor.socks_addr(), &address.to_string(), port).await.unwrap();
        assert_eq!(converse(stream).await, format!("server {port}"));
    }

    let refused = within(200, client.dial(address, 80)).await.err().unwrap();
    assert!(matches!(refused, DialError::NotFound), "{refused:?}");
    let refused = socks_connect(tor.socks_addr(), &address.to_string(), 80).await.unwrap_err();
    assert!(matches!(refused, SocksError::Refused { .. }), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn dialling_an_address_that_nobody_serves_says_so() {
    let testnet = testnet().await;
    let ((network, _home), tor) = tokio::join!(joined(testnet), client(testnet));
    let address = Identity::generate().address();
    // The second time, Arti must not mistake its own limit on fetches for an answer.
    for _ in 0..2 {
        let error = within(60, network.dial(address, HCP_PORT)).await.err().unwrap();
        assert!(matches!(error, DialError::NotFound), "{error:?}");
        assert_eq!(error.to_string(), "nobody serves this address and port");
    }
    let error = socks_connect_isolated(tor.socks_addr(), &address.to_string(), HCP_PORT, "nobody").await.unwrap_err();
    assert!(matches!(error, SocksError::Refused { code: 0xf0 }), "{error:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_try_to_connect_ends_at_its_deadline() {
    let home = home();
    let deadline = Duration::from_millis(1);
    let network = within(60, builder(&home, testnet().await).connect_deadline(deadline).bootstrap()).await.unwrap();
    let error = within(10, network.dial(Identity::generate().address(), HCP_PORT)).await.err().unwrap();
    assert!(matches!(error, DialError::TimedOut { phase: DialPhase::Connect }), "{error:?}");
}

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

#[tokio::test(flavor = "multi_thread")]
async fn dials_to_one_address_share_a_circuit_and_isolated_ones_do_not_wait_for_it() {
    let testnet = testnet().await;
    let ((server, _a), (client, _b)) = tokio::join!(joined(testnet), joined(testnet));
    let identity = Identity::generate();
    let _echo = echo("server", reachable(server.listen(&identity, &[HCP_PORT]).await.unwrap()).await);
    let mut times = Vec::new();
    for _ in 0..3 {
        let start = Instant::now();
        let stream = within(200, client.dial(identity.address(), HCP_PORT)).await.unwrap();
        times.push(start.elapsed());
        assert_eq!(converse(stream).await, format!("server {HCP_PORT}"));
    }
    // The descriptor and the circuit of the first are there for the others: what is left is one round trip.
    println!(
        "first {:.3} s, then {:.3} s, {:.3} s",
        times[0].as_secs_f64(),
        times[1].as_secs_f64(),
        times[2].as_secs_f64()
    );
    assert!(times[1..].iter().all(|time| *time < times[0]), "{times:?}");
    let stream = within(200, client.dial_isolated(identity.address(), HCP_PORT)).await.unwrap();
    assert_eq!(converse(stream).await, format!("server {HCP_PORT}"));
}

#[tokio::test(flavor = "multi_thread")]
async fn one_network_serves_two_addresses_and_each_only_once() {
    let testnet = testnet().await;
    let ((server, home), (client, _b)) = tokio::join!(joined(testnet), joined(testnet));
    let (one, two) = (Identity::generate(), Identity::generate());
    let (first, second) = tokio::join!(server.listen(&one, &[HCP_PORT]), server.listen(&two, &[HCP_PORT]));
    assert!(matches!(server.listen(&one, &[80]).await, Err(ListenError::InUse)));
    assert!(matches!(server.listen(&two, &[]).await, Err(ListenError::InvalidPorts)));
    assert!(matches!(server.listen(&two, &[80, 81, 80]).await, Err(ListenError::InvalidPorts)));

    let _first = echo("one", reachable(first.unwrap()).await);
    let _second = echo("two", reachable(second.unwrap()).await);
    for (identity, name) in [(&one, "one"), (&two, "two")] {
        let stream = within(200, client.isolated().dial(identity.address(), HCP_PORT)).await.unwrap();
        assert_eq!(converse(stream).await, format!("{name} {HCP_PORT}"));
    }
    for identity in [&one, &two] {
        assert_no_key_on_disk(home.path(), identity);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_listener_is_withdrawn_and_a_new_one_is_found_by_old_clients() {
    let testnet = testnet().await;
    let ((server, _a), (client, _b)) = tokio::join!(joined(testnet), joined(testnet));
    let identity = Identity::generate();
    let echoing = echo("first", reachable(server.listen(&identity, &[HCP_PORT]).await.unwrap()).await);
    let mut stream = within(200, client.dial(identity.address(), HCP_PORT)).await.unwrap();

    echoing.abort();
    assert!(within(10, echoing).await.unwrap_err().is_cancelled());
    let error = within(200, client.dial(identity.address(), HCP_PORT)).await.err().unwrap();
    assert!(matches!(error.kind(), ErrorKind::Unreachable | ErrorKind::TimedOut), "{error:?}");
    // Its handler ended with the listener's task; the circuit did not.
    let mut rest = Vec::new();
    let _ = within(60, stream.read_to_end(&mut rest)).await;

    let _echo = echo("second", reachable(server.listen(&identity, &[HCP_PORT]).await.unwrap()).await);
    let stream = within(200, client.dial(identity.address(), HCP_PORT)).await.unwrap();
    assert_eq!(converse(stream).await, format!("second {HCP_PORT}"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_can_be_launched_anew_within_the_second_in_which_it_was_dropped_and_connections_go_on() {
    let testnet = testnet().await;
    let ((server, _a), tor) = tokio::join!(joined(testnet), client(testnet));
    let identity = Identity::generate();
    let address = identity.address().to_string();
    let mut first = reachable(server.listen(&identity, &[HCP_PORT]).await.unwrap()).await;
    let mut status = first.status();
    let dialled = socks_connect(tor.socks_addr(), &address, HCP_PORT);
    let (near, far) = within(200, async { tokio::join!(dialled, first.accept()) }).await;
    let (mut near, mut far) = (near.unwrap_or_else(|e| panic!("{e}: {}", tor.log())), far.unwrap().stream);

    drop(first);
    assert_eq!(*status.borrow_and_update(), ListenerStatus::Stopped);
    // Directories refuse what is no newer, by whole seconds, and Arti repeats it unchanged for minutes.
    let _echo = echo("anew", reachable(server.listen(&identity, &[HCP_PORT]).await.unwrap()).await);
    assert_eq!(fresh_client(testnet, &identity.address()).await, format!("anew {HCP_PORT}"));

    far.write_all(b"still here").await.unwrap();
    far.flush().await.unwrap();
    let mut heard = [0; 10];
    within(60, near.read_exact(&mut heard)).await.unwrap();
    assert_eq!(&heard, b"still here");
    // The client's circuit leads to whoever serves the address now.
    let stream = socks_connect(tor.socks_addr(), &address, HCP_PORT).await;
    assert_eq!(converse(stream.unwrap_or_else(|e| panic!("{e}: {}", tor.log()))).await, format!("anew {HCP_PORT}"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_or_old_tor_is_named_on_one_line_with_what_to_do() {
    let error = PrivateTorNetwork::builder().tor("/nonexistent/tor").start().await.unwrap_err();
    assert!(matches!(error, StartError::TorMissing { .. }), "{error:?}");
    assert_eq!(
        error.to_string(),
        "`/nonexistent/tor` was not found: install Tor 0.4.8 or later (on Debian and Ubuntu: apt-get install tor)"
    );

    let folder = home();
    let old = folder.path().join("tor");
    std::fs::write(&old, "#!/bin/sh\necho 'Tor version 0.4.7.16.'\n").unwrap();
    assert!(Command::new("chmod").arg("+x").arg(&old).status().unwrap().success());
    let error = PrivateTorNetwork::builder().tor(&old).start().await.unwrap_err();
    assert!(matches!(error, StartError::TorTooOld { .. }), "{error:?}");
    assert!(error.to_string().contains("is version 0.4.7.16: install Tor 0.4.8 or later"), "{error}");
    assert_eq!(error.to_string().lines().count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_network_ends_with_its_owner_even_when_that_is_killed() {
    let mut owner = tokio::process::Command::new(env!("CARGO_BIN_EXE_hcp-testnet"))
        .args(["--", "sh", "-c", &format!("echo ${TESTNET_VARIABLE}; cat")])
        .env_remove(TESTNET_VARIABLE)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    within(150, BufReader::new(owner.stdout.as_mut().unwrap()).read_line(&mut line)).await.unwrap();
    let description = PrivateTorDescription::load(line.trim()).unwrap();
    let ids: Vec<u32> = std::fs::read_dir(description.directory())
        .unwrap()
        .filter_map(|entry| std::fs::read_to_string(entry.unwrap().path().join("pid")).ok()?.trim().parse().ok())
        .collect();
    assert_eq!(ids.len(), 8);
    assert!(ids.iter().all(|id| runs(*id)));

    owner.kill().await.unwrap();
    eventually(10, || !ids.iter().any(|id| runs(*id)) && !description.directory().exists()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_testnet_command_forwards_the_exit_code_and_passes_the_description() {
    let testnet = testnet().await;
    let attached = PrivateTorNetwork::attach(testnet.description_file()).unwrap();
    assert_eq!(attached.description(), testnet.description());
    assert!(PrivateTorNetwork::attach("/nonexistent").is_err());

    let status = Command::new(env!("CARGO_BIN_EXE_hcp-testnet"))
        .args(["--", "sh", "-c", &format!("test -s \"${TESTNET_VARIABLE}\" && exit 42")])
        .env(TESTNET_VARIABLE, testnet.description_file())
        .status()
        .unwrap();
    assert_eq!(status.code(), Some(42));
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

async fn testnet() -> &'static PrivateTorNetwork {
    let filter = tracing_subscriber::EnvFilter::from_default_env();
    let _ = tracing_subscriber::fmt().with_env_filter(filter).with_test_writer().try_init();
    PrivateTorNetwork::shared().await.unwrap()
}

fn home() -> TempDir {
    tempfile::tempdir().unwrap()
}

fn builder(home: &TempDir, testnet: &PrivateTorNetwork) -> TorNetworkBuilder {
    TorNetwork::builder(home.path().join("state"), home.path().join("cache"))
        .private_network(testnet.description().network())
}

async fn joined(testnet: &PrivateTorNetwork) -> (TorNetwork, TempDir) {
    let home = home();
    (within(60, builder(&home, testnet).bootstrap()).await.unwrap(), home)
}

async fn client(testnet: &PrivateTorNetwork) -> hcp_core::testing::TorClientProcess {
    testnet.start_client().await.unwrap()
}

async fn reachable(listener: Listener) -> Listener {
    assert!(within(60, listener.reachable()).await, "{listener:?}");
    listener
}

/// Greets every connection with `name` and its port, then returns what it sends.
fn echo(name: &'static str, mut listener: Listener) -> JoinHandle<()> {
    tokio::spawn(async move {
        let mut handlers = tokio::task::JoinSet::new();
        while let Some(mut incoming) = listener.accept().await {
            handlers.spawn(async move {
                incoming.stream.write_all(format!("{name} {}\n", incoming.port).as_bytes()).await?;
                incoming.stream.flush().await?;
                let mut buffer = [0; 512];
                loop {
                    let length = incoming.stream.read(&mut buffer).await?;
                    if length == 0 {
                        return std::io::Result::Ok(());
                    }
                    incoming.stream.write_all(&buffer[..length]).await?;
                    incoming.stream.flush().await?;
                }
            });
        }
    })
}

/// Reads the greeting and checks that the echo works.
async fn converse(stream: impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin) -> String {
    let mut stream = BufReader::new(stream);
    let greeting = greeting(&mut stream).await;
    ping(&mut stream).await;
    greeting
}

async fn greeting(stream: &mut (impl tokio::io::AsyncBufRead + Unpin)) -> String {
    let mut line = String::new();
    within(60, stream.read_line(&mut line)).await.unwrap();
    line.trim().to_owned()
}

async fn ping<S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin>(stream: &mut BufReader<S>) {
    let sent = format!("{:x}\n", rand_word());
    stream.write_all(sent.as_bytes()).await.unwrap();
    stream.flush().await.unwrap();
    let mut line = String::new();
    within(60, stream.read_line(&mut line)).await.unwrap();
    assert_eq!(line, sent);
}

fn rand_word() -> u64 {
    use std::hash::BuildHasher as _;
    std::hash::RandomState::new().hash_one(0)
}

/// What greets a C tor client that never heard of the address.
async fn fresh_client(testnet: &PrivateTorNetwork, address: &OnionAddress) -> String {
    let client = client(testnet).await;
    let proxy: SocketAddr = client.socks_addr();
    let stream = socks_connect(proxy, &address.to_string(), HCP_PORT).await;
    converse(stream.unwrap_or_else(|e| panic!("{e}: {}", client.log()))).await
}

fn assert_no_key_on_disk(folder: &Path, identity: &Identity) {
    assert_not_on_disk(folder, &[&identity.expanded_secret_key()[..32], b"PRIVATE KEY"]);
}

fn assert_not_on_disk(folder: &Path, needles: &[&[u8]]) {
    let mut files = 0;
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            files += 1;
            let bytes = std::fs::read(&path).unwrap();
            for needle in needles {
                assert!(!bytes.windows(needle.len()).any(|w| w == *needle), "a key in {}", path.display());
            }
            assert!(!path.to_string_lossy().contains("keystore"), "{}", path.display());
        }
    }
    assert!(files > 3, "the directory must be the one that the network uses");
}

fn runs(id: u32) -> bool {
    std::fs::read_to_string(format!("/proc/{id}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
}

#[track_caller]
fn within<T>(seconds: u64, future: impl Future<Output = T>) -> impl Future<Output = T> {
    let place = std::panic::Location::caller();
    async move {
        let result = timeout(Duration::from_secs(seconds), future).await;
        result.unwrap_or_else(|_| panic!("not done within {seconds} s at {place}"))
    }
}

/// Waits for a condition that nothing announces.
async fn eventually(seconds: u64, condition: impl Fn() -> bool) {
    within(seconds, async {
        let mut tick = tokio::time::interval(Duration::from_millis(20));
        while !condition() {
            tick.tick().await;
        }
    })
    .await;
}
