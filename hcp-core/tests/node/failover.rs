//! Services of which a replica fails: the next session is with another one.

use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures::future::BoxFuture;
use hcp_core::error::ErrorKind;
use hcp_core::identity::delegation::{PublicKey, ReplicaCredentials, Validity};
use hcp_core::identity::{Identity, OnionAddress};
use hcp_core::network::{BoxedTransport, DialError, ListenError, Listener, Network};
use hcp_core::node::{Backoff, DialAs, Node};
use tokio::time::{Instant, timeout};

use super::harness::{echoes, memory, soon};
use super::services::Owner;

/// Where a dial ends.
enum Place {
    At(Arc<dyn Network>),
    /// At somebody who says nothing.
    Nowhere,
}

/// A network on which each dial goes where the test says.
struct Places {
    own: Arc<dyn Network>,
    plan: Box<dyn Fn(usize) -> Place + Send + Sync>,
    /// Of each dial, whether it was isolated.
    dials: Mutex<Vec<bool>>,
    silent: Mutex<Vec<BoxedTransport>>,
}

impl Places {
    /// `plan` gets the number of the dial, from 0.
    fn new(plan: impl Fn(usize) -> Place + Send + Sync + 'static) -> Arc<Self> {
        let (dials, silent) = (Mutex::default(), Mutex::default());
        Arc::new(Self { own: memory(), plan: Box::new(plan), dials, silent })
    }

    fn isolated(&self) -> Vec<bool> {
        self.dials.lock().unwrap().clone()
    }

    fn go(&self, address: OnionAddress, port: u16, isolated: bool) -> BoxFuture<'_, Result<BoxedTransport, DialError>> {
        let nth = {
            let mut dials = self.dials.lock().unwrap();
            dials.push(isolated);
            dials.len() - 1
        };
        Box::pin(async move {
            match (self.plan)(nth) {
                Place::At(network) => network.dial(address, port).await,
                Place::Nowhere => {
                    let (near, far) = tokio::io::duplex(1024);
                    self.silent.lock().unwrap().push(Box::new(far));
                    Ok(Box::new(near) as BoxedTransport)
                }
            }
        })
    }
}

impl fmt::Debug for Places {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Places")
    }
}

impl Network for Places {
    fn dial(&self, address: OnionAddress, port: u16) -> BoxFuture<'_, Result<BoxedTransport, DialError>> {
        self.go(address, port, false)
    }

    fn dial_isolated(&self, address: OnionAddress, port: u16) -> BoxFuture<'_, Result<BoxedTransport, DialError>> {
        self.go(address, port, true)
    }

    fn listen<'a>(&'a self, identity: &'a Identity, ports: &'a [u16]) -> BoxFuture<'a, Result<Listener, ListenError>> {
        self.own.listen(identity, ports)
    }
}

/// Two replicas of a service, each at a place of its own.
struct Pair {
    owner: Owner,
    places: [Arc<dyn Network>; 2],
    credentials: [ReplicaCredentials; 2],
}

impl Pair {
    fn new() -> Self {
        let owner = Owner::new();
        let credentials = [owner.credentials(1, 1), owner.credentials(1, 1)];
        Self { owner, places: [memory(), memory()], credentials }
    }

    async fn start(&self, which: usize) -> Node {
        self.owner.replica(&self.places[which], self.credentials[which].clone()).await
    }

    fn key(&self, which: usize) -> Option<PublicKey> {
        Some(self.credentials[which].session_key().public_key())
    }

    fn address(&self) -> OnionAddress {
        self.owner.service.address()
    }

    /// A dialler whose dials go to the replicas of the list, and from its end on to the last.
    async fn dialler(&self, list: &'static [usize]) -> (Node, Arc<Places>) {
        let places = self.places.clone();
        dialler(Places::new(move |nth| Place::At(Arc::clone(&places[list[nth.min(list.len() - 1)]])))).await
    }
}

async fn dialler(places: Arc<Places>) -> (Node, Arc<Places>) {
    (Node::builder(Identity::generate(), Arc::clone(&places) as _).bind().await.unwrap(), places)
}

fn everybody() -> [DialAs; 3] {
    [DialAs::Node, DialAs::Anonymous, DialAs::Identity(Identity::generate())]
}

#[tokio::test(start_paused = true)]
async fn a_kept_session_goes_on_with_another_replica_after_its_own_has_failed() {
    for me in everybody() {
        let pair = Pair::new();
        let (failing, other) = (pair.start(0).await, pair.start(1).await);
        let (near, places) = pair.dialler(&[0, 0, 0, 1]).await;
        let kept = near.maintain_as(pair.address(), me, Backoff::default());
        let first = soon(kept.session()).await;
        assert_eq!(first.replica(), pair.key(0));
        drop(failing);
        soon(first.closed()).await;
        // It is back before anybody dials, and answers twice.
        let back = pair.start(0).await;
        let second = timeout(Duration::from_secs(2), kept.after(&first)).await.unwrap();
        assert_eq!(second.replica(), pair.key(1));
        echoes(&second, "here").await;
        assert_eq!(places.isolated(), [false, true, true, true]);
        assert_eq!((near.stats().sessions_dialled, other.stats().sessions_accepted), (2, 1));
        drop(back);
    }
}

#[tokio::test(start_paused = true)]
async fn the_replica_that_failed_is_taken_when_it_alone_answers() {
    let pair = Pair::new();
    let failing = pair.start(0).await;
    let (near, places) = pair.dialler(&[0]).await;
    let first = near.connect(pair.address()).await.unwrap();
    drop(failing);
    soon(first.closed()).await;
    let _back = pair.start(0).await;
    let second = near.connect(pair.address()).await.unwrap();
    assert_eq!(second.replica(), first.replica());
    echoes(&second, "here").await;
    assert_eq!(places.isolated(), [false, true, true, true, true]);
    // A session that ends in order tells nothing against its replica.
    second.shutdown().await;
    near.connect(pair.address()).await.unwrap();
    assert_eq!(places.isolated().len(), 6);
    assert!(!places.isolated()[5]);
}

#[tokio::test(start_paused = true)]
async fn a_failure_is_forgotten_after_a_while_and_is_nothing_to_other_identities() {
    let pair = Pair::new();
    let failing = pair.start(0).await;
    let (near, places) = pair.dialler(&[0]).await;
    let first = near.connect(pair.address()).await.unwrap();
    drop(failing);
    soon(first.closed()).await;
    let _back = pair.start(0).await;
    near.connect_anonymously(pair.address()).await.unwrap();
    near.connect_as(pair.address(), &Identity::generate()).await.unwrap();
    assert_eq!(places.isolated(), [false, false, false]);
    tokio::time::sleep(Duration::from_secs(121)).await;
    near.connect(pair.address()).await.unwrap();
    assert_eq!(places.isolated(), [false; 4]);
}

#[tokio::test(start_paused = true)]
async fn a_handshake_that_nobody_answers_is_begun_elsewhere_after_five_seconds() {
    let pair = Pair::new();
    let _there = pair.start(0).await;
    let there = Arc::clone(&pair.places[0]);
    let (near, places) =
        dialler(Places::new(move |nth| if nth == 0 { Place::Nowhere } else { Place::At(Arc::clone(&there)) })).await;
    let start = Instant::now();
    let session = near.connect_anonymously(pair.address()).await.unwrap();
    assert_eq!(start.elapsed().as_secs(), 5);
    echoes(&session, "here").await;
    assert_eq!(places.isolated(), [false, true]);

    let (near, places) = dialler(Places::new(|_| Place::Nowhere)).await;
    let error = near.connect_anonymously(pair.address()).await.unwrap_err();
    assert_eq!((error.kind(), start.elapsed().as_secs()), (ErrorKind::TimedOut, 5 + 25));
    assert_eq!(places.isolated(), [false, true]);
}

#[tokio::test(start_paused = true)]
async fn a_delegation_that_has_ended_is_told_at_once_and_the_next_dial_may_meet_another_replica() {
    let mut pair = Pair::new();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let past = Validity::new(now - 80_000, now - 40_000).unwrap();
    pair.credentials[0] = pair.owner.credentials_for(1, 1, past);
    let _both = (pair.start(0).await, pair.start(1).await);
    let (near, places) = pair.dialler(&[0, 1]).await;
    let error = near.connect_anonymously(pair.address()).await.unwrap_err();
    assert_eq!((error.kind(), places.isolated()), (ErrorKind::Authentication, vec![false]));
    let session = near.connect_anonymously(pair.address()).await.unwrap();
    assert_eq!((session.replica(), places.isolated()), (pair.key(1), vec![false, false]));
}
