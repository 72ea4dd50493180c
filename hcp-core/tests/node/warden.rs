//! A warden, whoever asks it, and nodes that keep themselves in grants.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, UNIX_EPOCH};

use futures::future::BoxFuture;
use hcp_core::error::ErrorKind;
use hcp_core::identity::delegation::{OwnerCertificate, OwnerKey, Validity};
use hcp_core::identity::manifest::{Contents, Manifest, Member, Role};
use hcp_core::identity::{Identity, LogKey, OnionAddress, ReplicaSeed, RevisionSeed};
use hcp_core::network::{
    BoxedTransport, DialError, HCP_PORT, Hosting, IntroductionRate, ListenError, Listener, MemoryNetwork, Network,
};
use hcp_core::node::{Access, Node, RecvError, Session, Stream};
use hcp_core::owner::{
    Book, Grant, Holdings, Horizon, IdentitySigner, Owner, PeriodClock, Recipient, Request, Step, Stock, certify,
};
use hcp_core::service::{self, Launched, ReplicatedService, ServiceEvent, ServiceOptions, WARDEN_PROTOCOL, Warden};
use tempfile::TempDir;

use super::harness::soon;

const HOUR: u64 = 3_600;

#[tokio::test(start_paused = true)]
async fn a_member_gets_what_is_due_for_it_one_after_the_other() {
    let mut estate = Estate::new().await;
    let steps = estate.schedule(now(), 8, 4).await;
    let mine: Vec<&Step> = steps.iter().filter(|step| step.grant.node() == estate.address(0)).collect();
    steps.iter().for_each(|step| estate.store(step, step.hand_out));
    let warden = estate.warden().await;
    let member = estate.dialler(0).await;
    let ask = async |above| estate.ask(&member, &warden, above).await.unwrap();
    let bytes = |step: &Step| [&[0][..], &step.grant.to_bytes()].concat();
    let nothing = |next: u64| [&[1][..], &next.to_be_bytes()].concat();

    assert_eq!(ask(0).await, bytes(mine[0]));
    assert_eq!(ask(mine[0].grant.serial()).await, nothing(mine[1].hand_out), "the second is not due");
    assert!(mine[1].hand_out > now());
    // Its time comes, and that of the third.
    for step in &mine[1..3] {
        estate.remove(step, step.hand_out);
        estate.store(step, now() - 1);
    }
    for pair in mine[..3].windows(2) {
        assert_eq!(ask(pair[0].grant.serial()).await, bytes(pair[1]));
    }
    assert_eq!(ask(mine[2].grant.serial()).await, nothing(mine[3].hand_out));
    assert_eq!(ask(u64::MAX).await, nothing(mine[3].hand_out));
    // The other member has its own.
    let other = estate.dialler(1).await;
    let theirs = steps.iter().find(|step| step.grant.node() == estate.address(1)).unwrap();
    assert_eq!(estate.ask(&other, &warden, 0).await.unwrap(), bytes(theirs));
}

#[tokio::test(start_paused = true)]
async fn what_has_ended_is_not_handed_out() {
    let mut estate = Estate::new().await;
    let ended = estate.schedule(now() - 20 * HOUR, 4, 2).await;
    ended.iter().for_each(|step| estate.store(step, step.hand_out));
    let warden = estate.warden().await;
    let member = estate.dialler(0).await;
    assert_eq!(estate.ask(&member, &warden, 0).await.unwrap(), [1, 0, 0, 0, 0, 0, 0, 0, 0]);
    let steps = estate.schedule(now(), 4, 1).await;
    estate.store(&steps[0], 0);
    assert_eq!(estate.ask(&member, &warden, 0).await.unwrap()[1..], *steps[0].grant.to_bytes());
}

#[tokio::test(start_paused = true)]
async fn strangers_get_nothing_and_nobody_what_is_anothers() {
    let mut estate = Estate::new().await;
    let steps = estate.schedule(now(), 8, 4).await;
    let (mine, theirs) = (&steps[0], &steps[1]);
    assert_eq!((mine.grant.node(), theirs.grant.node()), (estate.address(0), estate.address(1)));
    estate.store(mine, 0);
    let warden = estate.warden().await;

    let stranger = Node::builder(Identity::generate(), estate.network()).bind().await.unwrap();
    assert_eq!(estate.ask(&stranger, &warden, 0).await.unwrap(), [2]);
    // A member too, as long as there is nothing for it; and of another service.
    let (member, other) = (estate.dialler(0).await, estate.dialler(1).await);
    assert_eq!(estate.ask(&other, &warden, 0).await.unwrap(), [2]);
    let elsewhere = [&[1][..], Identity::generate().address().public_key(), &[0; 8]].concat();
    assert_eq!(raw(&member, &warden, elsewhere).await.unwrap(), [2]);
    let session = stranger.connect_anonymously(warden.address()).await.unwrap();
    let mut stream = session.open(WARDEN_PROTOCOL).await.unwrap();
    assert_eq!(soon(stream.recv()).await, Err(RecvError::AnonymousRefused));

    // Another's grant in a member's folder, and one under another serial: whoever put it there, it stays there.
    let serial = mine.grant.serial();
    for (name, grant) in [(serial + 1, &theirs.grant), (serial + 2, &mine.grant)] {
        let path = estate.folder(0).join(format!("{:020}-{name:020}.grant", 0));
        std::fs::write(path, grant.to_bytes()).unwrap();
    }
    let nothing = [1, 0, 0, 0, 0, 0, 0, 0, 0];
    assert_eq!(estate.ask(&member, &warden, serial).await.unwrap(), nothing);
    assert_eq!(estate.ask(&member, &warden, 0).await.unwrap()[1..], *mine.grant.to_bytes(), "what is its own");
    assert_eq!(estate.ask(&other, &warden, 0).await.unwrap(), [2]);
}

#[tokio::test(start_paused = true)]
async fn who_asks_nonsense_is_reset_and_others_are_served() {
    let mut estate = Estate::new().await;
    let steps = estate.schedule(now(), 8, 4).await;
    estate.store(&steps[0], 0);
    let warden = estate.warden().await;
    let member = estate.dialler(0).await;
    let good = estate.question(0);
    let nonsense = [
        vec![],
        vec![1],
        good[..40].to_vec(),
        [&good[..], &[0]].concat(),
        [&[2], &good[1..]].concat(),
        vec![1; 400_000],
    ];
    for question in nonsense {
        let len = question.len();
        let answer = raw(&member, &warden, question).await;
        assert!(matches!(answer, Err(RecvError::Reset(_))), "{len} bytes: {answer:?}");
    }
    // Many who say nothing at all do not stand in the way, and are let go.
    let session = member.connect(warden.address()).await.unwrap();
    let mut silent = Vec::new();
    for _ in 0..8 {
        silent.push(session.open(WARDEN_PROTOCOL).await.unwrap());
    }
    assert_eq!(estate.ask(&member, &warden, 0).await.unwrap()[1..], *steps[0].grant.to_bytes());
    for mut stream in silent {
        let ended = tokio::time::timeout(Duration::from_secs(600), stream.recv()).await.unwrap();
        assert!(matches!(ended, Err(RecvError::Reset(_))), "{ended:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_node_fetches_by_itself_and_takes_nothing_in_that_is_not_good() {
    let mut estate = Estate::new().await;
    let steps = estate.schedule(now(), 8, 4).await;
    let mine: Vec<&Step> = steps.iter().filter(|step| step.grant.node() == estate.address(0)).collect();
    let theirs = steps.iter().find(|step| step.grant.node() == estate.address(1)).unwrap();
    mine.iter().take(2).for_each(|step| estate.store(step, 0));
    let honest = estate.warden().await;

    let hand = |bytes: &[u8]| [&[0][..], bytes].concat();
    let mut forged = mine[1].grant.to_bytes().to_vec();
    *forged.last_mut().unwrap() ^= 1;
    let lies = [
        (Some(vec![]), ErrorKind::ProtocolViolation),
        (Some(vec![9; 100]), ErrorKind::ProtocolViolation),
        (Some(hand(&vec![0; Grant::MAX_LEN + 1])), ErrorKind::ProtocolViolation),
        (Some(hand(b"garbage")), ErrorKind::ProtocolViolation),
        (Some(hand(&theirs.grant.to_bytes())), ErrorKind::Authentication),
        (Some(hand(&forged)), ErrorKind::Authentication),
        // What it holds already.
        (Some(hand(&mine[0].grant.to_bytes())), ErrorKind::ProtocolViolation),
        (Some(vec![2]), ErrorKind::Refused),
        (Some(vec![3]), ErrorKind::LimitExceeded),
        (None, ErrorKind::TimedOut),
    ];
    let mut wardens = Vec::new();
    for (answer, _) in &lies {
        wardens.push(liar(&estate, answer.clone()).await);
    }
    let nobody = Identity::generate().address();
    let deaf = Node::builder(Identity::generate(), estate.network()).bind().await.unwrap();
    let all: Vec<_> = wardens.iter().map(Node::address).chain([deaf.address(), nobody, honest.address()]).collect();

    let mut holdings = estate.holdings(0);
    holdings.import(&mine[0].grant.to_bytes(), now()).unwrap();
    let before = holdings.left(now()).speaks_until.unwrap();
    let (node, replica) = estate.serve(0, holdings, all.clone()).await;
    let (mut held, mut events) = (replica.holdings(), replica.events());
    let expected = lies.iter().map(|(_, kind)| *kind).chain([ErrorKind::Refused, ErrorKind::Unreachable]);
    for (kind, asked) in expected.zip(&all) {
        let event = tokio::time::timeout(Duration::from_secs(3_600), events.recv()).await.unwrap().unwrap();
        let ServiceEvent::FetchFailed { warden, kind: failed, reason } = event else { panic!("{event:?}") };
        assert_eq!((warden, failed), (*asked, kind), "{reason}");
        assert_eq!(held.borrow().left(now()).speaks_until, Some(before), "{reason}");
    }
    let event = tokio::time::timeout(Duration::from_secs(3_600), events.recv()).await.unwrap().unwrap();
    assert_eq!(event, ServiceEvent::Fetched { warden: honest.address(), grants: 1 });
    let after = held.borrow_and_update().left(now()).speaks_until.unwrap();
    assert!(after > before, "{after} is not later than {before}");
    let on_disk = estate.holdings(0);
    assert_eq!(on_disk.left(now()).speaks_until, Some(after));
    assert!(on_disk.problems().is_empty(), "{:?}", on_disk.problems());

    // What is put into the stock later comes within the hour, the next one that is due at its time.
    estate.store(mine[2], 0);
    let event = tokio::time::timeout(Duration::from_secs(3_700), events.recv()).await.unwrap().unwrap();
    assert_eq!(event, ServiceEvent::Fetched { warden: honest.address(), grants: 1 });
    replica.shutdown().await;
    drop(node);
}

/// Remembers at which rate of introductions services are hosted.
#[derive(Debug)]
struct Hosts {
    network: Arc<dyn Network>,
    rates: Mutex<Vec<Option<IntroductionRate>>>,
}

impl Network for Hosts {
    fn dial(&self, address: OnionAddress, port: u16) -> BoxFuture<'_, Result<BoxedTransport, DialError>> {
        self.network.dial(address, port)
    }

    fn listen<'a>(&'a self, identity: &'a Identity, ports: &'a [u16]) -> BoxFuture<'a, Result<Listener, ListenError>> {
        self.network.listen(identity, ports)
    }

    fn host<'a>(
        &'a self,
        service: OnionAddress,
        ports: &'a [u16],
        rate: Option<IntroductionRate>,
    ) -> BoxFuture<'a, Result<Hosting, ListenError>> {
        self.rates.lock().unwrap().push(rate);
        self.network.host(service, ports, rate)
    }
}

#[tokio::test(start_paused = true)]
async fn introductions_are_limited_unless_the_application_says_otherwise() {
    let mut estate = Estate::new().await;
    let steps = estate.schedule(now(), 8, 4).await;
    let first = steps.iter().find(|step| step.grant.node() == estate.address(0)).unwrap();
    estate.holdings(0).import(&first.grant.to_bytes(), now()).unwrap();
    let hosts = Hosts { network: estate.network(), rates: Mutex::default() };
    let identity = &estate.members[0].0;
    let launch = async |options: Option<ServiceOptions>| {
        let (holdings, ports) = (estate.holdings(0), &[HCP_PORT + 1]);
        match options {
            None => ReplicatedService::launch(&hosts, identity, holdings, ports).await.unwrap(),
            Some(options) => ReplicatedService::launch_with(&hosts, identity, holdings, ports, options).await.unwrap(),
        }
    };
    let modest = IntroductionRate::new(5, 50).unwrap();
    drop(launch(None).await);
    drop(launch(Some(ServiceOptions::default().introduction_rate(modest))).await);
    drop(launch(Some(ServiceOptions::default().introduction_rate(None))).await);
    assert_eq!(*hosts.rates.lock().unwrap(), [IntroductionRate::new(25, 200), Some(modest), None]);
    assert_eq!([IntroductionRate::new(0, 10), IntroductionRate::new(10, 9)], [None, None]);
}

/// A warden that answers whatever is asked with the same, or with nothing at all.
async fn liar(estate: &Estate, answer: Option<Vec<u8>>) -> Node {
    let lie = move |mut stream: Stream, session: Session| {
        let answer = answer.clone();
        async move {
            let _ = stream.recv().await;
            match answer {
                Some(answer) => {
                    let _ = stream.send(answer).await;
                    stream.finish().await;
                }
                None => drop(session.closed().await),
            }
        }
    };
    let node = Node::builder(Identity::generate(), estate.network());
    node.protocol(WARDEN_PROTOCOL, Access::Anyone, lie).bind().await.unwrap()
}

/// Sends a question, or what is none, and gives what comes back.
async fn raw(asker: &Node, warden: &Node, question: Vec<u8>) -> Result<Vec<u8>, RecvError> {
    let session = asker.connect(warden.address()).await.unwrap();
    let mut stream = session.open(WARDEN_PROTOCOL).await.unwrap();
    stream.send(question).await.unwrap();
    let answer = soon(stream.recv()).await?;
    Ok(answer.expect("an answer comes before the end").to_vec())
}

/// A service with two members, its owner, and a stock.
struct Estate {
    network: MemoryNetwork,
    identity: Identity,
    signer: IdentitySigner,
    key: OwnerKey,
    certificate: OwnerCertificate,
    revisions: RevisionSeed,
    manifest: Manifest,
    book: Book,
    members: [(Identity, ReplicaSeed); 2],
    folder: TempDir,
}

impl Estate {
    async fn new() -> Self {
        let (identity, key) = (Identity::generate(), OwnerKey::generate());
        let signer = IdentitySigner::new(identity.clone());
        let validity = Validity::new(now() - 30 * 24 * HOUR, now() + 30 * 24 * HOUR).unwrap();
        let certificate = certify(&signer, key.public_key(), validity).await.unwrap();
        let members = [(); 2].map(|()| (Identity::generate(), ReplicaSeed::generate()));
        let listed = members.iter().map(|(node, seed)| {
            let member = Member::new(node.address(), LogKey::generate().public_key(), Role::Publisher).unwrap();
            member.with_discovery_key(seed.discovery_key().public_key())
        });
        let manifest = Manifest::sign(&key, identity.address(), Contents::new(1, listed.collect()).unwrap()).unwrap();
        Self {
            network: MemoryNetwork::new(),
            book: Book::new(identity.address(), PeriodClock::TOR),
            revisions: RevisionSeed::generate(),
            folder: tempfile::tempdir().unwrap(),
            identity,
            signer,
            key,
            certificate,
            manifest,
            members,
        }
    }

    fn network(&self) -> Arc<dyn Network> {
        Arc::new(self.network.clone())
    }

    fn address(&self, member: usize) -> OnionAddress {
        self.members[member].0.address()
    }

    fn holdings(&self, member: usize) -> Holdings {
        let (node, seed) = &self.members[member];
        let recipient = Recipient::new(self.identity.address(), node.address(), seed.clone());
        Holdings::open(self.folder.path().join(format!("grants-{member}")), recipient, now()).unwrap()
    }

    /// Grants in advance: of each round one for each member.
    async fn schedule(&mut self, from: u64, hours: u32, rounds: u16) -> Vec<Step> {
        let horizon = Horizon::new(from, hours, rounds).unwrap();
        let ask = |member: usize| {
            self.holdings(member).request(&self.members[member].0, PeriodClock::TOR, 64, 20, from).unwrap()
        };
        let requests: Vec<Request> = [0, 1].map(ask).to_vec();
        let Self { signer, key, certificate, revisions, manifest, book, .. } = self;
        let owner = Owner { signer, key, certificate, revisions, manifest };
        owner.schedule(book, &requests, horizon).await.unwrap().map(Result::unwrap).collect()
    }

    fn folder(&self, member: usize) -> PathBuf {
        self.folder.path().join("stock").join(format!("member-{member}"))
    }

    /// Puts a grant into the stock, to be handed out at another time than was planned.
    fn store(&self, step: &Step, hand_out: u64) {
        let member = usize::from(step.grant.node() == self.address(1));
        let name = format!("member-{member}");
        let recipient = self.holdings(member).recipient().clone();
        let grant = Grant::verify(&recipient, &step.grant.to_bytes(), step.grant.speaks_until()).unwrap();
        Stock::new(self.folder.path().join("stock")).store(&name, &Step { hand_out, grant }).unwrap();
    }

    fn remove(&self, step: &Step, hand_out: u64) {
        let member = usize::from(step.grant.node() == self.address(1));
        let name = format!("{hand_out:020}-{:020}.grant", step.grant.serial());
        std::fs::remove_file(self.folder(member).join(name)).unwrap();
    }

    async fn warden(&self) -> Node {
        let warden = Warden::new(Stock::new(self.folder.path().join("stock")));
        let node = Node::builder(Identity::generate(), self.network());
        node.protocol(WARDEN_PROTOCOL, Access::Identified, warden).bind().await.unwrap()
    }

    async fn dialler(&self, member: usize) -> Node {
        Node::builder(self.members[member].0.clone(), self.network()).bind().await.unwrap()
    }

    fn question(&self, above: u64) -> Vec<u8> {
        [&[1][..], self.identity.address().public_key(), &above.to_be_bytes()].concat()
    }

    async fn ask(&self, asker: &Node, warden: &Node, above: u64) -> Result<Vec<u8>, RecvError> {
        raw(asker, warden, self.question(above)).await
    }

    async fn serve(&self, member: usize, holdings: Holdings, wardens: Vec<OnionAddress>) -> (Node, ReplicatedService) {
        let (identity, network) = (&self.members[member].0, self.network());
        let launched = ReplicatedService::launch(&*network, identity, holdings, &[HCP_PORT + 1]).await.unwrap();
        let Launched { listener: _, endpoint, gossip, starter, .. } = launched;
        let node = Node::builder(identity.clone(), Arc::clone(&network))
            .protocol(service::PROTOCOL, Access::Identified, gossip)
            .service(endpoint)
            .bind()
            .await
            .unwrap();
        let replica = starter.fetch_from(wardens).start(&node);
        (node, replica)
    }
}

/// Unix seconds.
fn now() -> u64 {
    UNIX_EPOCH.elapsed().unwrap().as_secs()
}
