//! What only shows with limits that are set lower than those that a node has.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;

use super::*;
use crate::identity::delegation::{OwnerCertificate, OwnerKey, Round, SessionKey, Validity};
use crate::network::MemoryNetwork;
use crate::session::MAX_STREAMS;

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
    let mut stream = session.open(DEAF).await.unwrap();
    while timeout(Duration::from_secs(1), stream.send(vec![1; 50_000])).await.is_ok_and(|sent| sent.is_ok()) {}
    stream
}

async fn echoes(session: &Session) {
    let mut stream = session.open(ECHO).await.unwrap();
    stream.send("hello").await.unwrap();
    assert_eq!(stream.recv().await.unwrap().unwrap(), "hello");
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
    // Two windows that nobody reads, and most of a third.
    let (first, _second, mut third) = (fill(&session).await, fill(&session).await, fill(&session).await);
    let mut echoing = session.open(ECHO).await.unwrap();
    let large = vec![0; 60_000];
    assert!(timeout(Duration::from_secs(60), echoing.send(large.clone())).await.is_err(), "there is no room for it");
    // A send that was given up has taken nothing.
    drop(first);
    timeout(Duration::from_secs(1), echoing.send(large.clone())).await.expect("there is room again").unwrap();
    assert_eq!(echoing.recv().await.unwrap().unwrap(), large);
    // What is credited comes back, too: far more than the budget passes in all.
    for _ in 0..3 * BUDGET / large.len() {
        timeout(Duration::from_secs(60), echoing.send(large.clone())).await.expect("credit frees the budget").unwrap();
        assert_eq!(echoing.recv().await.unwrap().unwrap(), large);
    }
    assert!(timeout(Duration::from_secs(1), third.send(vec![0; 500_000])).await.is_err());
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
    // It does once its driver is gone, a moment after its end is told. The time is virtual.
    let gone = async {
        while far.stats().sessions_open == 3 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    timeout(Duration::from_secs(10), gone).await.unwrap();
    echoes(&near.connect_anonymously(far.address()).await.unwrap()).await;
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
