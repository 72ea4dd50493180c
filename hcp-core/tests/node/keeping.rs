//! Keeping a session, and what a node tells of itself.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use hcp_core::error::ErrorKind;
use hcp_core::identity::Identity;
use hcp_core::network::Network;
use hcp_core::node::{Backoff, DialledBy, EVENT_QUEUE, NodeEvent};
use hcp_core::session::{Peer, SessionError};

use super::harness::{Lanes, Route, client, echoes, eventually, memory, server, serving, soon};

fn backoff() -> Backoff {
    Backoff::new(Duration::from_secs(1), Duration::from_secs(60)).unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_kept_session_comes_back_when_the_peer_does() {
    let plain = memory();
    let again = Arc::clone(&plain);
    // After a failure, dials share nothing with those before.
    let network = Lanes::new(&plain, move |_| Route::To(Arc::clone(&again)));
    let dials = || network.dials.load(Ordering::SeqCst) + network.isolated();
    let near = client(&(Arc::clone(&network) as Arc<dyn Network>)).await;
    let identity = Identity::generate();
    let kept = near.maintain(identity.address(), backoff());
    assert!(tokio::time::timeout(Duration::from_secs(600), kept.session()).await.is_err());
    assert!(kept.current().is_none());
    // Waits of 1, 2, 4, … up to 60 s, each at least half of that.
    let tried = dials();
    assert!((12..=30).contains(&tried), "{tried} dials in ten minutes");

    for life in 0..3 {
        let far = serving(identity.clone(), &plain).bind().await.unwrap();
        let session = tokio::time::timeout(Duration::from_secs(61), kept.session()).await.unwrap();
        echoes(&session, "here").await;
        // Kept although nobody else holds it, and long enough for waits to begin anew.
        drop(session);
        tokio::time::sleep(Duration::from_secs(3600)).await;
        assert_eq!((far.stats().sessions_accepted, kept.current().is_some()), (1, true), "life {life}");
        drop(far);
        let before = dials();
        tokio::time::sleep(Duration::from_secs(10)).await;
        assert!((2..=6).contains(&(dials() - before)), "soon again, and not all the time");
    }
    drop(kept);
    let before = dials();
    tokio::time::sleep(Duration::from_secs(3600)).await;
    assert_eq!(dials(), before);
}

#[tokio::test(start_paused = true)]
async fn a_kept_session_that_is_drained_is_followed_by_another_at_once() {
    let network = memory();
    let (near, far) = (client(&network).await, server(&network).await);
    let kept = near.maintain(far.address(), backoff());
    let first = kept.session().await;
    tokio::time::sleep(Duration::from_secs(20)).await;
    assert!(first.drain(Duration::from_secs(1)).await);
    let second = tokio::time::timeout(Duration::from_millis(100), kept.session()).await.unwrap();
    echoes(&second, "here").await;
    assert_eq!(near.stats().sessions_dialled, 2);
}

#[tokio::test(start_paused = true)]
async fn a_node_tells_what_happens_to_it() {
    let network = memory();
    let (near, far) = (client(&network).await, server(&network).await);
    let (mut nears, mut fars) = (near.events(), far.events());
    let nobody = Identity::generate().address();
    near.connect(nobody).await.unwrap_err();
    let failed = nears.next().await.unwrap();
    assert!(
        matches!(&failed, NodeEvent::DialFailed { address, kind: ErrorKind::Unreachable, reason }
            if *address == nobody && !reason.contains(&nobody.to_string())),
        "{failed:?}"
    );
    let session = near.connect(far.address()).await.unwrap();
    let (of_near, of_far) = (nears.next().await.unwrap(), soon(fars.next()).await.unwrap());
    assert!(matches!(of_near, NodeEvent::SessionBegan { peer: Peer::Address(peer), dialled_by: DialledBy::Us }
        if peer == far.address()));
    assert!(matches!(of_far, NodeEvent::SessionBegan { peer: Peer::Address(peer), dialled_by: DialledBy::Peer }
        if peer == near.address()));
    session.shutdown().await;
    let (of_near, of_far) = (nears.next().await.unwrap(), soon(fars.next()).await.unwrap());
    assert!(matches!(of_near, NodeEvent::SessionEnded { error: SessionError::Shutdown, .. }), "{of_near:?}");
    assert!(matches!(of_far, NodeEvent::SessionEnded { error: SessionError::ClosedByPeer(0), .. }), "{of_far:?}");
    let stats = near.stats();
    assert_eq!((stats.dials_failed, stats.sessions_dialled, stats.sessions_open), (1, 1, 0));
    assert_eq!((far.stats().sessions_accepted, far.stats().sessions_open), (1, 0));
    drop((near, session));
    assert!(soon(nears.next()).await.is_none());
}

#[tokio::test(start_paused = true)]
async fn a_slow_reader_of_events_is_told_how_many_it_missed() {
    let network = memory();
    let near = client(&network).await;
    let mut events = near.events();
    let nobody = Identity::generate().address();
    for _ in 0..EVENT_QUEUE + 10 {
        near.connect(nobody).await.unwrap_err();
    }
    assert!(matches!(events.next().await, Some(NodeEvent::Missed { count: 10 })));
    for _ in 0..EVENT_QUEUE {
        assert!(matches!(events.next().await, Some(NodeEvent::DialFailed { .. })));
    }
}

#[tokio::test(start_paused = true)]
async fn a_session_counts_what_it_does() {
    let network = memory();
    let (near, far) = (client(&network).await, server(&network).await);
    let session = near.connect(far.address()).await.unwrap();
    echoes(&session, "counted").await;
    eventually("the ping that measures the round trip comes back", || session.round_trip().is_some()).await;
    let stats = session.stats();
    assert!(stats.bytes_sent >= 1024 && stats.bytes_received >= 1024 && stats.padding_sent > 0, "{stats:?}");
    assert!(stats.frames_sent >= 2 && stats.frames_received >= 1 && stats.lanes == 0, "{stats:?}");
}
