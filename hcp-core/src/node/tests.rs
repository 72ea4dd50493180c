//! What only shows with limits that are set lower than those that a node has.

mod backlog;
mod places;

use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;

use super::*;
use crate::identity::delegation::{OwnerCertificate, OwnerKey, Round, SessionKey, Validity};
use crate::network::MemoryNetwork;
use crate::session::{MAX_STREAMS, Priority};

const DEAF: &str = "test/deaf/1";
const ECHO: &str = "test/echo/1";

async fn deaf(_stream: Stream, session: Session) {
    session.closed().await;
}

async fn echo(mut stream: Stream, _session: Session) {
    while let Ok(Some(message)) = stream.recv().await {
        let _ = stream.send(message).await;
    }
}

fn builder(network: &Arc<dyn Network>) -> NodeBuilder {
    Node::builder(Identity::generate(), Arc::clone(network)).protocol(DEAF, Access::Anyone, deaf).protocol(
        ECHO,
        Access::Anyone,
        echo,
    )
}

fn memory() -> Arc<dyn Network> {
    Arc::new(MemoryNetwork::new())
}

/// Sends until nothing more goes out.
async fn fill(session: &Session) -> Stream {
    fill_with(session, Priority::Live).await
}

async fn fill_with(session: &Session, priority: Priority) -> Stream {
    let mut stream = session.open_with(DEAF, priority).await.unwrap();
    while timeout(Duration::from_secs(1), stream.send(vec![1; 50_000])).await.is_ok_and(|sent| sent.is_ok()) {}
    stream
}

async fn echoes(session: &Session) {
    let mut stream = session.open(ECHO).await.unwrap();
    stream.send("hello").await.unwrap();
    assert_eq!(stream.recv().await.unwrap().unwrap(), "hello");
}

/// Waits until a node has so many sessions: their drivers are gone a moment after their end is told. The time is virtual.
async fn has_at_most(node: &Node, sessions: u64) {
    let gone = async {
        while node.stats().sessions_open > sessions {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    timeout(Duration::from_secs(20), gone).await.expect("they end");
}

#[tokio::test(start_paused = true)]
async fn the_session_that_makes_a_node_hold_the_most_is_ended_when_it_holds_too_much() {
    const LIMIT: usize = 3_000_000;
    let network = memory();
    let mut builder_of_far = builder(&network);
    builder_of_far.memory = LIMIT;
    let far = builder_of_far.bind().await.unwrap();
    let (modest, greedy) = (builder(&network).bind().await.unwrap(), builder(&network).bind().await.unwrap());
    let modest = modest.connect(far.address()).await.unwrap();
    let _held = fill(&modest).await;
    let mut events = far.events();
    let greedy = greedy.connect(far.address()).await.unwrap();
    let mut streams = Vec::new();
    while far.stats().sessions_evicted == 0 {
        assert!(streams.len() < MAX_STREAMS as usize, "it was ended");
        assert!(far.stats().bytes_held as usize <= LIMIT);
        streams.push(fill(&greedy).await);
    }
    assert!(matches!(greedy.closed().await, SessionError::ClosedByPeer(3)));
    loop {
        match events.next().await.unwrap() {
            NodeEvent::SessionEnded { error, .. } => {
                assert!(matches!(error, SessionError::Evicted));
                break;
            }
            _ => continue,
        }
    }
    // What it held is given back, and the other session is unharmed.
    assert!((far.stats().bytes_held as usize) < 700_000, "{:?}", far.stats());
    echoes(&modest).await;
    assert_eq!(far.stats().sessions_evicted, 1);
}

#[tokio::test(start_paused = true)]
async fn what_a_session_has_under_way_is_bounded_and_given_back() {
    const BUDGET: usize = 1_500_000;
    let network = memory();
    let far = builder(&network).bind().await.unwrap();
    let mut near = builder(&network);
    near.send_budget = BUDGET;
    let near = near.bind().await.unwrap();
    let session = near.connect(far.address()).await.unwrap();
    // What has gone out takes no memory, however little is read.
    let _gone = [fill(&session).await, fill(&session).await, fill(&session).await];
    // Bulk does until it is acknowledged: two windows that nobody reads, and most of a third.
    let bulk = || fill_with(&session, Priority::Bulk);
    let (first, _second, mut third) = (bulk().await, bulk().await, bulk().await);
    let mut echoing = session.open(ECHO).await.unwrap();
    let large = vec![0; 60_000];
    assert!(timeout(Duration::from_secs(60), echoing.send(large.clone())).await.is_err(), "there is no room for it");
    // A send that was given up has taken nothing.
    drop(first);
    timeout(Duration::from_secs(1), echoing.send(large.clone())).await.expect("there is room again").unwrap();
    assert_eq!(echoing.recv().await.unwrap().unwrap(), large);
    // What has gone comes back, too: far more than the budget passes in all.
    for _ in 0..3 * BUDGET / large.len() {
        timeout(Duration::from_secs(60), echoing.send(large.clone()))
            .await
            .expect("what goes frees the budget")
            .unwrap();
        assert_eq!(echoing.recv().await.unwrap().unwrap(), large);
    }
    assert!(timeout(Duration::from_secs(1), third.send(vec![0; 510_000])).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn nothing_is_sent_behind_the_end_that_another_handle_has_told() {
    let network = memory();
    let (far, near) = (builder(&network).bind().await.unwrap(), builder(&network).bind().await.unwrap());
    let session = near.connect(far.address()).await.unwrap();
    let mut stream = fill(&session).await;
    // It waits for credit, which comes once the stream's other end is dropped, if ever.
    let mut sender = stream.sender();
    let late = tokio::spawn(async move { sender.send(vec![1; 50_000]).await });
    tokio::task::yield_now().await;
    stream.finish().await;
    assert!(!late.is_finished());
    stream.grant_for_tests(100_000);
    assert_eq!(late.await.unwrap(), Err(SendError::Finished));
}

#[tokio::test(start_paused = true)]
async fn a_service_is_kept_alive_as_every_other_replica_keeps_it() {
    let network = memory();
    let service = service(&network).await;
    let address = service.credentials.service();
    let far = builder(&network).service(service).keepalive(Duration::from_millis(100), Duration::from_secs(1));
    let far = far.bind().await.unwrap();
    let near = builder(&network).keepalive(Duration::from_secs(100), Duration::from_secs(200)).bind().await.unwrap();
    let pings = async |session: Session| {
        let before = session.stats().frames_received;
        tokio::time::sleep(Duration::from_millis(4_500)).await;
        session.stats().frames_received - before
    };
    let own = near.connect(far.address()).await.unwrap();
    echoes(&own).await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(pings(own).await > 10, "the own address is kept as the node was told");
    let shared = near.connect_anonymously(address).await.unwrap();
    echoes(&shared).await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(pings(shared).await, 0, "the first ping comes after 5 s");
}

#[tokio::test(start_paused = true)]
async fn a_node_with_no_room_for_a_session_says_so_and_keeps_those_that_it_has() {
    let network = memory();
    let mut far = builder(&network);
    far.max_sessions = 3;
    let far = far.bind().await.unwrap();
    let near = builder(&network).bind().await.unwrap();
    let mut sessions = Vec::new();
    for _ in 0..3 {
        let session = near.connect_anonymously(far.address()).await.unwrap();
        echoes(&session).await;
        sessions.push(session);
    }
    let refused = near.connect_anonymously(far.address()).await.unwrap();
    assert!(matches!(refused.closed().await, SessionError::ClosedByPeer(3)));
    assert_eq!(far.stats().sessions_refused, 1);
    for session in &sessions {
        echoes(session).await;
    }
    // One that ends makes room.
    sessions.remove(0).shutdown().await;
    has_at_most(&far, 2).await;
    echoes(&near.connect_anonymously(far.address()).await.unwrap()).await;
}

#[tokio::test(start_paused = true)]
async fn a_session_in_which_nothing_is_open_makes_room_for_another() {
    let network = memory();
    let mut far = builder(&network);
    far.max_sessions = 3;
    let far = far.bind().await.unwrap();
    let near = builder(&network).bind().await.unwrap();
    let mut sessions = Vec::new();
    for _ in 0..3 {
        sessions.push(near.connect_anonymously(far.address()).await.unwrap());
    }
    // The first is of use; the other two only stay.
    let mut used = sessions[0].open(ECHO).await.unwrap();
    echoes(&sessions[0]).await;
    let refused = near.connect_anonymously(far.address()).await.unwrap();
    assert!(matches!(refused.closed().await, SessionError::ClosedByPeer(3)), "they may have just come");
    tokio::time::sleep(Duration::from_secs(6)).await;
    let mut newer = Vec::new();
    for idle in &sessions[1..] {
        let session = near.connect_anonymously(far.address()).await.unwrap();
        echoes(&session).await;
        newer.push(session);
        let ended = timeout(Duration::from_secs(20), idle.closed()).await.expect("it makes room");
        assert!(matches!(ended, SessionError::ClosedByPeer(3)), "{ended}");
    }
    used.send("still here").await.unwrap();
    assert_eq!(used.recv().await.unwrap().unwrap(), "still here");
    has_at_most(&far, 3).await;
    assert_eq!((far.stats().sessions_refused, far.stats().sessions_open), (1, 3));
}

/// A listener at the address of a service that any node may serve, with what it is served under.
async fn service(network: &Arc<dyn Network>) -> Service {
    let (identity, owner, session_key) = (Identity::generate(), OwnerKey::generate(), SessionKey::generate());
    let now = dial::unix_now();
    let validity = Validity::new(now - 3600, now + 3600).unwrap();
    let certificate = OwnerCertificate::issue(&identity, owner.public_key(), validity);
    let round = Round::new(1, 1, validity).unwrap();
    let delegation = owner.delegate(identity.address(), session_key.public_key(), round);
    let credentials = ReplicaCredentials::new(identity.address(), certificate, delegation, session_key).unwrap();
    Service::new(network.listen(&identity, &[HCP_PORT]).await.unwrap(), credentials).protocol(
        ECHO,
        Access::Anyone,
        echo,
    )
}

#[tokio::test(start_paused = true)]
async fn strangers_who_fill_the_address_of_a_service_keep_nobody_from_the_own_address_of_its_node() {
    let network = memory();
    let service = service(&network).await;
    let address = service.credentials.service();
    let mut far = builder(&network).service(service);
    far.max_sessions = 2;
    let far = far.bind().await.unwrap();
    let (member, stranger) = (builder(&network).bind().await.unwrap(), builder(&network).bind().await.unwrap());
    let dialled = far.connect(stranger.address()).await.unwrap();
    let mut filling = Vec::new();
    for _ in 0..2 {
        let session = stranger.connect_anonymously(address).await.unwrap();
        echoes(&session).await;
        filling.push(session);
    }
    let refused = stranger.connect_anonymously(address).await.unwrap();
    assert!(matches!(refused.closed().await, SessionError::ClosedByPeer(3)));
    let session = member.connect(far.address()).await.unwrap();
    for session in filling.iter().chain([&session, &dialled]) {
        echoes(session).await;
    }
    assert_eq!((far.stats().sessions_refused, far.stats().sessions_open), (1, 4));
}
