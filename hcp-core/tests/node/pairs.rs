//! Two nodes and the sessions between them: which one goes on, and how the others end.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures::future::BoxFuture;
use hcp_core::identity::{Identity, OnionAddress};
use hcp_core::network::{BoxedTransport, DialError, ListenError, Listener, Network};
use hcp_core::node::{DialledBy, OpenError, RecvError, Session};
use hcp_core::session::{Peer, SessionError};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::harness::{
    COUNT, ECHO, Lanes, Route, WHO, client, echoes, eventually, memory, server, serving, soon, two_identities,
};

#[tokio::test(start_paused = true)]
async fn all_who_connect_to_a_peer_share_one_session_whoever_dialled_it() {
    let plain = memory();
    let network = Lanes::new(&plain, |_| Route::Unreachable);
    let far = server(&plain).await;
    let near = serving(Identity::generate(), &(Arc::clone(&network) as Arc<dyn Network>)).bind().await.unwrap();
    let connects: Vec<_> = (0..10).map(|_| near.connect(far.address())).collect();
    let sessions: Vec<Session> = futures::future::try_join_all(connects).await.unwrap();
    assert_eq!(network.dials.load(Ordering::SeqCst), 1);
    assert!(sessions.iter().all(|session| session.dialled_by() == DialledBy::Us));
    eventually("the other side has it", || far.stats().sessions_open == 1).await;
    let back = far.connect(near.address()).await.unwrap();
    assert_eq!((back.dialled_by(), back.peer()), (DialledBy::Peer, Peer::Address(near.address())));
    echoes(&back, "the other way").await;
    assert_eq!((near.stats().sessions_dialled, far.stats().sessions_dialled), (1, 0));
    // It lives as long as one of the handles.
    drop(sessions);
    drop(back);
    eventually("it ends with its last handle", || near.stats().sessions_open + far.stats().sessions_open == 0).await;
    assert_eq!(near.connect(far.address()).await.unwrap().dialled_by(), DialledBy::Us);
}

#[tokio::test(start_paused = true)]
async fn giving_up_a_connect_leaves_the_others_theirs() {
    let network = memory();
    let (near, far) = (client(&network).await, server(&network).await);
    let first = tokio::spawn({
        let (near, address) = (near.clone(), far.address());
        async move { near.connect(address).await.map(drop) }
    });
    tokio::task::yield_now().await;
    let second = near.connect(far.address());
    first.abort();
    echoes(&soon(second).await.unwrap(), "here").await;
}

/// A network on which every byte takes a while, different for each connection.
#[derive(Debug)]
struct Slow {
    network: Arc<dyn Network>,
    seed: AtomicUsize,
}

impl Network for Slow {
    fn dial(&self, address: OnionAddress, port: u16) -> BoxFuture<'_, Result<BoxedTransport, DialError>> {
        let mut random = StdRng::seed_from_u64(self.seed.fetch_add(1, Ordering::SeqCst) as u64);
        Box::pin(async move {
            tokio::time::sleep(Duration::from_millis(random.random_range(0..300))).await;
            let far = self.network.dial(address, port).await?;
            let (near, middle) = tokio::io::duplex(256 * 1024);
            let (far_reader, far_writer) = tokio::io::split(far);
            let (near_reader, near_writer) = tokio::io::split(middle);
            for (reader, writer) in [
                (Box::new(far_reader) as Box<dyn tokio::io::AsyncRead + Send + Unpin>, Box::new(near_writer) as _),
                (Box::new(near_reader) as _, Box::new(far_writer) as Box<dyn tokio::io::AsyncWrite + Send + Unpin>),
            ] {
                tokio::spawn(late(reader, writer, Duration::from_millis(random.random_range(1..400))));
            }
            Ok(Box::new(near) as BoxedTransport)
        })
    }

    fn listen<'a>(&'a self, identity: &'a Identity, ports: &'a [u16]) -> BoxFuture<'a, Result<Listener, ListenError>> {
        self.network.listen(identity, ports)
    }
}

async fn late(
    mut reader: Box<dyn tokio::io::AsyncRead + Send + Unpin>,
    mut writer: Box<dyn tokio::io::AsyncWrite + Send + Unpin>,
    delay: Duration,
) {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(n @ 1..) = reader.read(&mut buffer).await {
        tokio::time::sleep(delay).await;
        if writer.write_all(&buffer[..n]).await.is_err() || writer.flush().await.is_err() {
            return;
        }
    }
    let _ = writer.shutdown().await;
}

/// What came of a message that was sent at once on whatever session there was.
async fn ask(session: &Session) -> &'static str {
    let Ok(mut stream) = session.open(ECHO).await else { return "not opened" };
    if stream.send("hello").await.is_err() {
        return "not sent";
    }
    match stream.recv().await {
        Ok(Some(answer)) => {
            assert_eq!(answer, "hello");
            "answered"
        }
        // Told apart from a loss: the peer has not served it.
        Err(RecvError::Draining) => "never served",
        other => panic!("lost: {other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn both_may_dial_at_once_and_end_with_one_session_and_nothing_is_lost() {
    let mut outcomes = std::collections::BTreeMap::<&str, u32>::new();
    let mut doubles = 0;
    for seed in 0..60 {
        let network: Arc<dyn Network> = Arc::new(Slow { network: memory(), seed: AtomicUsize::new(seed * 1000) });
        let [low, high] = two_identities();
        let low = serving(low, &network).bind().await.unwrap();
        let high = serving(high, &network).bind().await.unwrap();
        let mut random = StdRng::seed_from_u64(seed as u64);
        let pause = Duration::from_millis(random.random_range(0..400));
        let (first, second) = tokio::join!(low.connect(high.address()), async {
            tokio::time::sleep(pause).await;
            high.connect(low.address()).await
        });
        let (first, second) = (first.unwrap(), second.unwrap());
        let (one, other) = tokio::join!(ask(&first), ask(&second));
        *outcomes.entry(one).or_default() += 1;
        *outcomes.entry(other).or_default() += 1;
        doubles += u32::from(low.stats().sessions_dialled + high.stats().sessions_dialled == 2);
        // Held all the time, so that neither ends for want of use: one ends because it was replaced.
        eventually(&format!("one session is left, seed {seed}"), || {
            low.stats().sessions_open == 1 && high.stats().sessions_open == 1
        })
        .await;
        let (kept_low, kept_high) =
            (low.connect(high.address()).await.unwrap(), high.connect(low.address()).await.unwrap());
        assert_ne!(kept_low.dialled_by(), kept_high.dialled_by(), "it is the same one, seed {seed}");
        assert_eq!((ask(&kept_low).await, ask(&kept_high).await), ("answered", "answered"), "seed {seed}");
        assert_eq!((low.stats().sessions_open, high.stats().sessions_open), (1, 1));
    }
    assert!(doubles >= 10, "both have dialled in {doubles} of 60 runs");
    assert!(outcomes["answered"] >= 60, "{outcomes:?}");
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_has_lost_a_session_unnoticed_is_heard_at_once_whichever_side_it_is() {
    for restarted in [0, 1] {
        let identities = two_identities();
        let (staying, restarting) = (identities[1 - restarted].clone(), identities[restarted].clone());
        let here = memory();
        let staying = serving(staying, &here).bind().await.unwrap();
        // The first life listens elsewhere, so that the second can listen while the first is not known to be dead.
        let first_life = serving(restarting.clone(), &Elsewhere::listening(&here)).bind().await.unwrap();
        let lost = first_life.connect(staying.address()).await.unwrap();
        echoes(&lost, "before").await;
        let second_life = serving(restarting, &here).bind().await.unwrap();
        let again = second_life.connect(staying.address()).await.unwrap();
        echoes(&again, "after").await;
        let from_staying = staying.connect(second_life.address()).await.unwrap();
        let mut stream = from_staying.open(WHO).await.unwrap();
        assert_eq!(stream.recv().await.unwrap().unwrap(), staying.address().to_string());
        eventually("it is the second life that answers", || second_life.stats().sessions_open == 1).await;
        let handled = second_life.connect(staying.address()).await.unwrap();
        assert_eq!(handled.stats().open_streams, 1, "restarted {restarted}");
    }
}

/// Dials one network and listens on a network of its own.
#[derive(Debug)]
struct Elsewhere {
    dial: Arc<dyn Network>,
    listen: Arc<dyn Network>,
}

impl Elsewhere {
    fn listening(dial: &Arc<dyn Network>) -> Arc<dyn Network> {
        Arc::new(Self { dial: Arc::clone(dial), listen: memory() })
    }
}

impl Network for Elsewhere {
    fn dial(&self, address: OnionAddress, port: u16) -> BoxFuture<'_, Result<BoxedTransport, DialError>> {
        self.dial.dial(address, port)
    }

    fn listen<'a>(&'a self, identity: &'a Identity, ports: &'a [u16]) -> BoxFuture<'a, Result<Listener, ListenError>> {
        self.listen.listen(identity, ports)
    }
}

#[tokio::test(start_paused = true)]
async fn draining_lets_open_streams_finish_and_opens_no_more() {
    let network = memory();
    let (near, far) = (client(&network).await, server(&network).await);
    let session = near.connect(far.address()).await.unwrap();
    let mut stream = session.open(COUNT).await.unwrap();
    stream.send([0, 0, 0, 0].to_vec()).await.unwrap();
    let draining = tokio::spawn({
        let session = session.clone();
        async move { session.drain(Duration::from_secs(3600)).await }
    });
    while session.open(ECHO).await.err() != Some(OpenError::Draining) {
        tokio::task::yield_now().await;
    }
    // Whoever connects now gets another.
    let other = near.connect(far.address()).await.unwrap();
    echoes(&other, "in another session").await;
    for number in 1..100u32 {
        stream.send(number.to_be_bytes().to_vec()).await.unwrap();
    }
    stream.finish().await;
    assert_eq!(stream.recv().await.unwrap().unwrap()[..], 100u32.to_be_bytes());
    assert_eq!(stream.recv().await.unwrap(), None);
    assert!(soon(draining).await.unwrap());
    assert!(matches!(session.closed().await, SessionError::Shutdown));
    echoes(&other, "which goes on").await;
}

#[tokio::test(start_paused = true)]
async fn draining_ends_at_its_deadline() {
    let network = memory();
    let (near, far) = (client(&network).await, server(&network).await);
    let session = near.connect(far.address()).await.unwrap();
    let mut stream = session.open(ECHO).await.unwrap();
    let began = tokio::time::Instant::now();
    assert!(!session.drain(Duration::from_secs(100)).await);
    assert!((100..115).contains(&began.elapsed().as_secs()), "{:?}", began.elapsed());
    assert_eq!(stream.recv().await, Err(RecvError::SessionEnded));
}

#[tokio::test(start_paused = true)]
async fn the_other_side_of_a_drain_finishes_too() {
    let network = memory();
    let [low, high] = two_identities();
    let (near, far) = (serving(low, &network).bind().await.unwrap(), serving(high, &network).bind().await.unwrap());
    let session = near.connect(far.address()).await.unwrap();
    eventually("both have it", || far.stats().sessions_open == 1).await;
    let theirs = far.connect(near.address()).await.unwrap();
    let mut stream = theirs.open(COUNT).await.unwrap();
    stream.send([0; 4].to_vec()).await.unwrap();
    eventually("the stream is there", || session.stats().open_streams == 1).await;
    let draining = tokio::spawn(async move { session.drain(Duration::from_secs(3600)).await });
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(theirs.open(ECHO).await.unwrap_err(), OpenError::Draining);
    stream.send([0, 0, 0, 1].to_vec()).await.unwrap();
    stream.finish().await;
    assert_eq!(stream.recv().await.unwrap().unwrap()[..], 2u32.to_be_bytes());
    drop(stream);
    assert!(soon(draining).await.unwrap());
    assert!(matches!(theirs.closed().await, SessionError::ClosedByPeer(0)));
}

#[tokio::test(start_paused = true)]
async fn a_throw_away_identity_makes_a_session_of_its_own_and_serves_nothing() {
    let network = memory();
    let (near, far) = (server(&network).await, server(&network).await);
    let own = near.connect(far.address()).await.unwrap();
    let somebody = Identity::generate();
    let thrown = near.connect_as(far.address(), &somebody).await.unwrap();
    let anonymous = near.connect_anonymously(far.address()).await.unwrap();
    for (session, name) in [
        (&own, near.address().to_string()),
        (&thrown, somebody.address().to_string()),
        (&anonymous, "anonymous".to_owned()),
    ] {
        let mut stream = session.open(WHO).await.unwrap();
        assert_eq!(stream.recv().await.unwrap().unwrap(), name);
    }
    assert_eq!(far.stats().sessions_open, 3);
    let back = far.connect(somebody.address()).await.unwrap();
    let mut stream = back.open(ECHO).await.unwrap();
    assert_eq!(stream.recv().await, Err(RecvError::UnknownProtocol));
}
