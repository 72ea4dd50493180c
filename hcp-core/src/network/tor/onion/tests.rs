//! Nodes at one address on the private Tor network, with Arti's and C tor's clients.

use std::collections::HashSet;
use std::sync::Weak;
use std::time::{Duration, Instant};

use tempfile::TempDir;
use tokio::io::{AsyncBufRead, AsyncBufReadExt as _, AsyncRead, AsyncWrite, AsyncWriteExt as _, BufReader};
use tokio::task::JoinSet;
use tor_cell::relaycell::hs::AuthKeyType;
use tor_cell::relaycell::hs::intro_payload::{IntroduceHandshakePayload, OnionKey};
use tor_cell::relaycell::msg::{AnyRelayMsg, Body as _, Introduce1};
use tor_linkspec::CircTarget as _;
use tor_netdir::Timeliness;
use tor_proto::client::circuit::handshake::hs_ntor::{HsNtorClientState, HsNtorServiceInfo};
use tor_proto::{MetaCellDisposition, MsgHandler, TargetHop};

use super::certificate::tests::material;
use super::*;
use crate::identity::Identity;
use crate::network::Network as _;
use crate::network::onion::{Period, PointDescription};
use crate::network::tor::circuits::MAX_STREAMS_PER_CIRCUIT;
use crate::testing::{PrivateTorNetwork, socks_connect_isolated};

const PORT: u16 = 6667;

#[tokio::test(flavor = "multi_thread")]
async fn nodes_share_an_address_and_one_takes_over_the_points_of_another() {
    let testnet = testnet().await;
    let identity = Identity::generate();
    let address = identity.address();
    let (mut a, mut b, (dialler, _home), tor) = tokio::join!(
        Node::launch("a", testnet, &identity),
        Node::launch("b", testnet, &identity),
        joined(testnet),
        testnet.start_client(),
    );
    let tor = tor.unwrap();
    a.establish(2, &HashSet::new()).await;
    b.establish(2, &a.relays()).await;
    assert_eq!(a.relays().union(&b.relays()).count(), 4, "each on a relay of its own");

    let merged = [a.descriptions(), b.descriptions()].concat();
    a.upload_everywhere(&identity, &merged).await;

    // Each client comes to one of four points at random: that 40 miss the points of one node happens once in 10^12 runs.
    let arti = async |name: &str| {
        let stream = within(60, dialler.dial_isolated(address, PORT)).await.unwrap_or_else(|e| panic!("{name}: {e}"));
        greeting(stream).await
    };
    let c_tor = async |name: &str| {
        let stream = socks_connect_isolated(tor.socks_addr(), &address.to_string(), PORT, name).await;
        greeting(stream.unwrap_or_else(|e| panic!("{name}: {e}: {}", tor.log()))).await
    };
    let (mut by_arti, mut by_c_tor) = (HashSet::new(), HashSet::new());
    for n in 0..40 {
        if by_arti.len() < 2 {
            by_arti.insert(arti("healthy").await);
        }
        if by_c_tor.len() < 2 {
            by_c_tor.insert(c_tor(&format!("healthy-{n}")).await);
        }
    }
    assert_eq!((by_arti.len(), by_c_tor.len()), (2, 2), "{by_arti:?} {by_c_tor:?}");
    let refused = within(60, dialler.dial_isolated(address, 80)).await;
    assert!(matches!(refused, Err(crate::network::DialError::NotFound)));

    let mut kept = loop {
        let stream = within(60, dialler.dial_isolated(address, PORT)).await.unwrap();
        let mut stream = BufReader::new(stream);
        if line(&mut stream).await == "a" {
            break stream;
        }
    };

    // Too late, B leaves A's points alone.
    let (secrets, point) = &a.points[0];
    let late = b.service.establish(point.description.relay, secrets.clone(), vec![], Box::new(|| false));
    assert!(matches!(within(20, late).await, Err(EstablishError::Failed)));

    // B takes over what A has, while A is up and the descriptor stays.
    let before = b.service.counts();
    let mut lost = Vec::new();
    let start = Instant::now();
    for (secrets, mut point) in std::mem::take(&mut a.points) {
        let mut seen = Vec::new();
        while let Ok(mark) = point.accepted.try_recv() {
            seen.push(mark);
        }
        let taken = b.service.establish(point.description.relay, secrets.clone(), seen, Box::new(|| true));
        b.points.push((secrets, within(20, taken).await.unwrap()));
        lost.push(point);
    }
    println!("took over two points in {:.2} s", start.elapsed().as_secs_f64());
    for n in 0..8 {
        assert_eq!(arti("taken over").await, "b");
        assert_eq!(c_tor(&format!("taken-over-{n}")).await, "b");
    }
    for mut point in lost {
        // That the relay has given its circuit up, A hears at once or with the next cell that passes the same relays.
        within(120, point.closed.wait_for(|closed| *closed)).await.unwrap();
        println!("heard of it after {:.2} s", start.elapsed().as_secs_f64());
    }
    // Whom A had met stays with it.
    kept.write_all(b"still here\n").await.unwrap();
    kept.flush().await.unwrap();
    assert_eq!(line(&mut kept).await, "still here");
    let counts = b.service.counts();
    assert!(counts.introductions >= before.introductions + 16, "{counts:?}");
    assert_eq!((counts.replays, counts.displaced, counts.malformed), (0, 0, 0), "{counts:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_introduced_is_answered_once_also_by_a_successor() {
    let testnet = testnet().await;
    let identity = Identity::generate();
    let (mut a, b, (client, _home)) =
        tokio::join!(Node::launch("a", testnet, &identity), Node::launch("b", testnet, &identity), joined(testnet),);
    a.establish(1, &HashSet::new()).await;
    let (secrets, mut point) = a.points.remove(0);

    let introduction = introduction(&client, &identity, a.period(), &point.description);
    introduce(&client, point.description.relay, introduction.clone()).await;
    let mark = within(20, point.accepted.recv()).await.unwrap();
    eventually(30, || a.service.counts().met == 1).await;
    // The same cell again, as the relay or whoever watched the client could send it.
    introduce(&client, point.description.relay, introduction.clone()).await;
    eventually(20, || a.service.counts().replays == 1).await;
    assert_eq!(a.service.counts().introductions, 1);

    // Even when the circuit is another.
    let relay = point.description.relay;
    drop(point);
    let again = within(20, a.service.establish(relay, secrets.clone(), vec![], Box::new(|| true))).await.unwrap();
    introduce(&client, relay, introduction.clone()).await;
    eventually(20, || a.service.counts().replays == 2).await;

    let mut taken = within(20, b.service.establish(relay, secrets, vec![mark], Box::new(|| true))).await.unwrap();
    introduce(&client, relay, introduction).await;
    eventually(20, || b.service.counts().replays == 1).await;
    let new = self::introduction(&client, &identity, a.period(), &taken.description);
    introduce(&client, relay, new).await;
    assert_ne!(within(20, taken.accepted.recv()).await.unwrap(), mark);
    eventually(30, || b.service.counts().met == 1).await;
    let counts = b.service.counts();
    assert_eq!((counts.introductions, counts.replays), (1, 1), "{counts:?}");
    assert_eq!((a.service.counts().introductions, a.service.counts().met), (1, 1));
    drop(again);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_passes_on_no_more_introductions_than_it_was_asked_to() {
    let testnet = testnet().await;
    let identity = Identity::generate();
    let rate = IntroductionRate { per_second: 1, burst: 2 };
    let (mut a, (client, _home)) = tokio::join!(Node::launch_limited("a", testnet, &identity, rate), joined(testnet));
    a.establish(1, &HashSet::new()).await;
    let point = a.points[0].1.description;
    let start = Instant::now();
    let all = (0..16).map(|_| is_passed_on(&client, point.relay, introduction(&client, &identity, a.period(), &point)));
    let passed = futures::future::join_all(all).await.into_iter().filter(|passed| *passed).count();
    let most = 3 + start.elapsed().as_secs() as usize;
    assert!((1..=most).contains(&passed), "{passed} in {:?}", start.elapsed());
    assert!(passed < 16, "all came so slowly that nothing was to be limited");
    eventually(20, || a.service.counts().introductions == passed as u64).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_circuit_with_too_many_streams_is_closed_and_no_other() {
    let testnet = testnet().await;
    let identity = Identity::generate();
    let address = identity.address();
    let (mut a, (dialler, _home)) = tokio::join!(Node::launch("a", testnet, &identity), joined(testnet));
    a.establish(1, &HashSet::new()).await;
    a.upload_everywhere(&identity, &a.descriptions()).await;
    let mut other = BufReader::new(within(60, dialler.dial_isolated(address, PORT)).await.unwrap());
    assert_eq!(line(&mut other).await, "a");
    let mut streams = Vec::new();
    for _ in 0..MAX_STREAMS_PER_CIRCUIT {
        let mut stream = BufReader::new(within(60, dialler.dial(address, PORT)).await.unwrap());
        assert_eq!(line(&mut stream).await, "a");
        streams.push(stream);
    }
    let met = a.service.counts().met;
    assert_eq!(met, 2, "all of one dialler travel on one circuit");
    // It may succeed in the end, on a circuit of its own.
    let _more = within(60, dialler.dial(address, PORT)).await;
    for mut stream in streams {
        let mut text = String::new();
        assert!(matches!(within(60, stream.read_line(&mut text)).await, Ok(0) | Err(_)), "{text:?}");
    }
    other.write_all(b"still here\n").await.unwrap();
    other.flush().await.unwrap();
    assert_eq!(line(&mut other).await, "still here");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_refuses_what_is_not_newer_and_the_upload_says_so() {
    let testnet = testnet().await;
    let identity = Identity::generate();
    let (mut a, mut b) = tokio::join!(Node::launch("a", testnet, &identity), Node::launch("b", testnet, &identity));
    a.establish(1, &HashSet::new()).await;
    b.establish(1, &HashSet::new()).await;
    // A's clock is half a minute ahead.
    for _ in 0..30 {
        a.revision(a.period());
    }
    a.upload_everywhere(&identity, &a.descriptions()).await;
    for view in b.periods() {
        let upload = Upload {
            material: material(&identity, view.period, [2; 32]),
            not_before: 0,
            clients: None,
            listings: vec![(view.directories.clone(), b.descriptions())],
        };
        let report = within(60, b.service.upload(upload)).await;
        if view.period == a.period() {
            assert_eq!(sorted(report.refused), view.directories);
            assert!(report.accepted.is_empty() && report.failed.is_empty());
        }
    }
    // By a later revision it is taken, each directory with a list of its own.
    let in_a_minute = std::time::UNIX_EPOCH.elapsed().unwrap().as_secs() + 60;
    let directories = b.periods().into_iter().find(|view| view.period == a.period()).unwrap().directories;
    let (first, rest) = directories.split_first().unwrap();
    let both = [a.descriptions(), b.descriptions()].concat();
    let upload = Upload {
        material: material(&identity, a.period(), [2; 32]),
        not_before: in_a_minute,
        clients: None,
        listings: vec![(vec![*first], both), (rest.to_vec(), b.descriptions())],
    };
    let report = within(60, b.service.upload(upload)).await;
    assert_eq!(sorted(report.accepted), directories);

    // What cannot be signed, encoded or reached is not uploaded.
    let failed = async |material, directories: Vec<RelayId>, points| {
        let upload = Upload { material, not_before: 0, clients: None, listings: vec![(directories.clone(), points)] };
        let report = within(60, b.service.upload(upload)).await;
        assert_eq!(sorted(report.failed), directories);
    };
    let period = a.period();
    failed(material(&Identity::generate(), period, [2; 32]), directories.clone(), b.descriptions()).await;
    let other = Period { number: period.number + 9, ..period };
    failed(material(&identity, other, [2; 32]), directories.clone(), b.descriptions()).await;
    failed(material(&identity, period, [2; 32]), directories.clone(), vec![]).await;
    failed(material(&identity, period, [2; 32]), directories.clone(), vec![b.descriptions()[0]; 21]).await;
    let material_now = material(&identity, period, [2; 32]);
    let listings = vec![(directories, b.descriptions())];
    let nobody = Upload { material: material_now, not_before: 0, clients: Some([].into()), listings };
    assert!(within(60, b.service.upload(nobody)).await.accepted.is_empty());
    failed(material(&identity, period, [2; 32]), vec![RelayId([1; 32])], b.descriptions()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_ends_with_its_listener_or_its_backend_and_leaves_nothing() {
    let testnet = testnet().await;
    let identity = Identity::generate();
    let mut node = Node::launch("node", testnet, &identity).await;
    let again = || OnionService::launch(&node.network, identity.address(), &[PORT], OnionOptions::default());
    assert!(matches!(again(), Err(ListenError::InUse)));
    let elsewhere = node.network.host(Identity::generate().address(), &[PORT], None).await.unwrap();
    assert!(elsewhere.into_parts().1.is_some_and(|part| !part.backend.view().borrow().periods.is_empty()));
    assert!(matches!(node.network.host(identity.address(), &[], None).await, Err(ListenError::InvalidPorts)));
    let nobody = IntroductionRate { per_second: 0, burst: 0 };
    let nobody = OnionOptions { introduction_rate: Some(nobody) };
    let refused = OnionService::launch(&node.network, Identity::generate().address(), &[PORT], nobody);
    assert!(matches!(refused, Err(ListenError::Launch(_))));
    node.establish(1, &HashSet::new()).await;
    let (secrets, mut point) = node.points.remove(0);
    let relay = point.description.relay;
    let unknown =
        node.service.establish(RelayId([1; 32]), PointSecrets::from_bytes(&[3; 64]), vec![], Box::new(|| true)).await;
    assert!(matches!(unknown, Err(EstablishError::NotListed)));
    assert!(node.service.is_listed(relay) && !node.service.is_listed(RelayId([1; 32])));

    // The listener goes.
    node.echo.shutdown().await;
    within(10, point.closed.wait_for(|closed| *closed)).await.unwrap();
    assert!(matches!(
        node.service.establish(relay, secrets, vec![], Box::new(|| true)).await,
        Err(EstablishError::Failed)
    ));
    let (listener, second, _status) =
        OnionService::launch(&node.network, identity.address(), &[PORT], OnionOptions::default()).unwrap();

    // The backend goes, with an establishment under way.
    let secrets = PointSecrets::from_bytes(&[4; 64]);
    let under_way = tokio::spawn(second.establish(relay, secrets, vec![], Box::new(|| true)));
    let left = [Arc::downgrade(&node.service.shared), Arc::downgrade(&second.shared)];
    drop((second, point));
    let outcome = within(10, under_way).await.unwrap();
    assert!(outcome.is_err() || *outcome.unwrap().closed.borrow());
    drop(listener);
    drop(node.service);
    eventually(10, || left.iter().all(|service: &Weak<Shared>| service.strong_count() == 0)).await;
}

/// One of the nodes at an address; it greets each client with its name, and returns what it sends.
struct Node {
    service: Arc<OnionService>,
    network: TorNetwork,
    echo: JoinSet<()>,
    points: Vec<(PointSecrets, Point)>,
    _home: TempDir,
}

impl Node {
    /// The relays are asked to limit introductions, far above what comes here.
    async fn launch(name: &'static str, testnet: &PrivateTorNetwork, identity: &Identity) -> Self {
        Self::launch_limited(name, testnet, identity, IntroductionRate { per_second: 100, burst: 200 }).await
    }

    async fn launch_limited(
        name: &'static str,
        testnet: &PrivateTorNetwork,
        identity: &Identity,
        rate: IntroductionRate,
    ) -> Self {
        let (network, home) = joined(testnet).await;
        let options = OnionOptions { introduction_rate: Some(rate) };
        let (mut listener, service, _status) =
            OnionService::launch(&network, identity.address(), &[PORT], options).unwrap();
        let mut echo = JoinSet::new();
        echo.spawn(async move {
            while let Some(mut incoming) = listener.accept().await {
                assert_eq!(incoming.port, PORT);
                tokio::spawn(async move {
                    incoming.stream.write_all(format!("{name}\n").as_bytes()).await?;
                    incoming.stream.flush().await?;
                    let (mut from, mut to) = tokio::io::split(incoming.stream);
                    tokio::io::copy(&mut from, &mut to).await
                });
            }
        });
        let mut view = service.view();
        within(60, view.wait_for(|view| !view.periods.is_empty())).await.unwrap();
        Self { service, network, echo, points: Vec::new(), _home: home }
    }

    /// Establishes points at relays of their own, none of `not`.
    async fn establish(&mut self, number: usize, not: &HashSet<RelayId>) {
        for _ in 0..number {
            let not = not.union(&self.relays()).copied().collect();
            let relay = self.service.choose(&not).unwrap();
            let mut secrets = [0; PointSecrets::LEN];
            secrets.fill_with(rand::random);
            let secrets = PointSecrets::from_bytes(&secrets);
            let start = Instant::now();
            let point =
                within(60, self.service.establish(relay, secrets.clone(), vec![], Box::new(|| true))).await.unwrap();
            println!("a point took {:.2} s", start.elapsed().as_secs_f64());
            self.points.push((secrets, point));
        }
    }

    fn relays(&self) -> HashSet<RelayId> {
        self.points.iter().map(|(_, point)| point.description.relay).collect()
    }

    fn descriptions(&self) -> Vec<PointDescription> {
        self.points.iter().map(|(_, point)| point.description).collect()
    }

    fn periods(&self) -> Vec<crate::network::onion::PeriodView> {
        self.service.view().borrow().periods.clone()
    }

    /// The period that clients ask for.
    fn period(&self) -> Period {
        let netdir = self.service.shared.directory.netdir(Timeliness::Timely).unwrap();
        super::view::own_period(&netdir.hs_time_period())
    }

    async fn upload_everywhere(&self, identity: &Identity, points: &[PointDescription]) {
        let mut accepted = 0;
        for view in self.periods() {
            let upload = Upload {
                material: material(identity, view.period, [1; 32]),
                not_before: 0,
                clients: None,
                listings: vec![(view.directories.clone(), points.to_vec())],
            };
            let start = Instant::now();
            let report = within(60, self.service.upload(upload)).await;
            println!("an upload to {} took {:.2} s", report.accepted.len(), start.elapsed().as_secs_f64());
            assert_eq!(sorted(report.accepted), view.directories);
            assert!(report.refused.is_empty() && report.failed.is_empty());
            accepted += view.directories.len();
        }
        assert!(accepted > 0);
    }

    /// Uses up a revision.
    fn revision(&self, period: Period) {
        let now = std::time::SystemTime::now();
        let netdir = self.service.shared.directory.netdir(Timeliness::Timely).unwrap();
        let params = netdir.hs_all_time_periods();
        let params = params.iter().find(|params| super::view::own_period(&params.time_period()) == period).unwrap();
        let since_start = now.duration_since(params.start_of_shard_rand_period()).unwrap();
        self.service.shared.revisions.next(period, &[9; 32], since_start).unwrap();
    }
}

/// What a client sends that waits at some relay; nobody is there when the service comes.
fn introduction(client: &TorNetwork, identity: &Identity, period: Period, point: &PointDescription) -> Introduce1 {
    let directory = client.inner.client.dirmgr().unwrap();
    let netdir = directory.netdir(Timeliness::Timely).unwrap();
    let meeting = netdir.relays().next().unwrap();
    let key = HsIdKey::try_from(HsId::from(*identity.address().public_key())).unwrap();
    let (_, subcredential) = key.compute_blinded_key(super::view::arti_period(period).unwrap()).unwrap();
    let session_id = tor_llcrypto::pk::ed25519::PublicKey::from_bytes(&point.id.0).unwrap();
    let ntor = tor_llcrypto::pk::curve25519::PublicKey::from(point.ntor);
    let service = HsNtorServiceInfo::new(ntor.into(), session_id.into(), subcredential);
    let payload = IntroduceHandshakePayload::new(
        rand::random::<[u8; 20]>().into(),
        OnionKey::NtorOnionKey(*meeting.ntor_onion_key()),
        meeting.linkspecs().unwrap(),
        None,
    );
    let introduce1 = |encrypted| Introduce1::new(AuthKeyType::ED25519_SHA3_256, point.id.0.to_vec(), encrypted);
    let (mut header, mut body) = (Vec::new(), Vec::new());
    introduce1(vec![]).encode_onto(&mut header).unwrap();
    tor_bytes::Writer::write(&mut body, &payload).unwrap();
    let state = HsNtorClientState::new(&mut rand::rng(), service);
    introduce1(state.client_send_intro(&header, &body).unwrap())
}

/// Sends it, and the relay says that it passed it on.
async fn introduce(client: &TorNetwork, relay: RelayId, introduction: Introduce1) {
    assert!(is_passed_on(client, relay, introduction).await, "the relay knows no such point");
}

/// Sends it, on a circuit of its own as relays demand; whether the relay says that it passed it on.
async fn is_passed_on(client: &TorNetwork, relay: RelayId, introduction: Introduce1) -> bool {
    struct Acknowledged(Option<tokio::sync::oneshot::Sender<bool>>);

    impl MsgHandler for Acknowledged {
        fn handle_msg(&mut self, message: AnyRelayMsg) -> tor_proto::Result<MetaCellDisposition> {
            let AnyRelayMsg::IntroduceAck(answer) = message else { panic!("the relay answers something else") };
            let _ = self.0.take().unwrap().send(answer.success().is_ok());
            Ok(MetaCellDisposition::ConversationFinished)
        }
    }

    let directory = client.inner.client.dirmgr().unwrap();
    let pool = client.inner.client.hs_circ_pool().unwrap();
    let netdir = directory.netdir(Timeliness::Timely).unwrap();
    let target = super::view::relay(&netdir, relay).unwrap();
    let tunnel = within(30, pool.get_or_launch_client_intro(&netdir, target)).await.unwrap();
    let (sender, acknowledged) = tokio::sync::oneshot::channel();
    let handler = Acknowledged(Some(sender));
    tunnel.start_conversation(Some(introduction.into()), handler, TargetHop::LastHop).await.unwrap();
    within(30, acknowledged).await.unwrap()
}

async fn testnet() -> &'static PrivateTorNetwork {
    let filter = tracing_subscriber::EnvFilter::from_default_env();
    let _ = tracing_subscriber::fmt().with_env_filter(filter).with_test_writer().try_init();
    PrivateTorNetwork::shared().await.unwrap()
}

async fn joined(testnet: &PrivateTorNetwork) -> (TorNetwork, TempDir) {
    let home = tempfile::tempdir().unwrap();
    let builder = TorNetwork::builder(home.path().join("state"), home.path().join("cache"));
    (within(60, builder.private_network(testnet.description().network()).bootstrap()).await.unwrap(), home)
}

async fn greeting(stream: impl AsyncRead + AsyncWrite + Unpin) -> String {
    line(&mut BufReader::new(stream)).await
}

async fn line(stream: &mut (impl AsyncBufRead + Unpin)) -> String {
    let mut line = String::new();
    within(60, stream.read_line(&mut line)).await.unwrap();
    line.trim().to_owned()
}

fn sorted(mut relays: Vec<RelayId>) -> Vec<RelayId> {
    relays.sort();
    relays
}

#[track_caller]
fn within<T>(seconds: u64, future: impl Future<Output = T>) -> impl Future<Output = T> {
    let place = std::panic::Location::caller();
    async move {
        let result = tokio::time::timeout(Duration::from_secs(seconds), future).await;
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
