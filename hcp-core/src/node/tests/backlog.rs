//! What applications have sent and peers do not read: bounded for all sessions of a node together, and given back by
//! whichever way a stream, a session or a node ends.

use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::sync::watch;
use tokio::time::Instant;

use super::*;
use crate::network::BoxedTransport;
use crate::session::CLOSE_BUSY;

const BRIEF: &str = "test/brief/1";
/// At least what a full window of messages keeps, and at most.
const WINDOW: std::ops::RangeInclusive<usize> = 560_000..=655_360;

/// Takes one message, and then no interest.
async fn brief(mut stream: Stream, _session: Session) {
    let _ = stream.recv().await;
}

fn backlog(node: &Node) -> usize {
    node.stats().bytes_backlog as usize
}

/// Waits until nothing is kept of what was sent.
async fn empties(ledger: &Ledger) {
    let empty = async {
        while ledger.total() > 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    timeout(Duration::from_secs(20), empty).await.expect("nothing is kept");
}

/// A network whose connections to one address carry nothing more once that is said, as if its node read nothing more; they
/// are lost when who says so is dropped.
#[derive(Debug)]
struct Stalling {
    network: Arc<dyn Network>,
    whom: OnionAddress,
    stalled: watch::Receiver<bool>,
}

impl Network for Stalling {
    fn dial(&self, address: OnionAddress, port: u16) -> BoxFuture<'_, Result<BoxedTransport, DialError>> {
        Box::pin(async move {
            let mut far = self.network.dial(address, port).await?;
            if address != self.whom {
                return Ok(far);
            }
            let (near, mut middle) = tokio::io::duplex(1024);
            let mut stalled = self.stalled.clone();
            tokio::spawn(async move {
                tokio::select! {
                    _ = tokio::io::copy_bidirectional(&mut middle, &mut far) => return,
                    () = becomes(&mut stalled, true) => {}
                }
                becomes(&mut stalled, false).await;
            });
            Ok(Box::new(near) as BoxedTransport)
        })
    }

    fn listen<'a>(&'a self, identity: &'a Identity, ports: &'a [u16]) -> BoxFuture<'a, Result<Listener, ListenError>> {
        self.network.listen(identity, ports)
    }
}

async fn becomes(watched: &mut watch::Receiver<bool>, so: bool) {
    let _ = watched.wait_for(|is| *is == so).await;
}

/// A node that has a session with a peer that reads nothing more, and a window of messages and one of bulk to send there.
struct Stuck {
    network: Arc<dyn Network>,
    near: Node,
    /// That of `near`, which may go.
    ledger: Arc<Ledger>,
    session: Session,
    live: Stream,
    bulk: Stream,
    stalled: watch::Sender<bool>,
    /// Goes on being there.
    _far: Node,
}

impl Stuck {
    async fn new(limit: usize) -> Self {
        let network = memory();
        let far = builder(&network).bind().await.unwrap();
        let (stalled, watched) = watch::channel(false);
        let stalling = Stalling { network: Arc::clone(&network), whom: far.address(), stalled: watched };
        let mut near = builder(&(Arc::new(stalling) as Arc<dyn Network>))
            .keepalive(Duration::from_secs(100), Duration::from_secs(300))
            .lanes(0);
        near.backlog = limit;
        let near = near.bind().await.unwrap();
        let session = near.connect(far.address()).await.unwrap();
        echoes(&session).await;
        // It arrives, and is not acknowledged as nobody takes it; messages do not even arrive.
        let bulk = fill_with(&session, Priority::Bulk).await;
        stalled.send_replace(true);
        let live = fill(&session).await;
        let ledger = Arc::clone(&near.inner.backlog);
        let kept = backlog(&near);
        assert!((2 * WINDOW.start()..=2 * WINDOW.end()).contains(&kept), "{kept}");
        Self { network, near, ledger, session, live, bulk, stalled, _far: far }
    }
}

#[tokio::test(start_paused = true)]
async fn the_session_that_has_the_most_to_send_is_ended_when_all_have_too_much() {
    const LIMIT: usize = 3_000_000;
    let network = memory();
    let mut near = builder(&network).lanes(0);
    near.backlog = LIMIT;
    let near = near.bind().await.unwrap();
    let (mut peers, mut sessions, mut deaf) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..5 {
        let peer = builder(&network).bind().await.unwrap();
        sessions.push(near.connect(peer.address()).await.unwrap());
        peers.push(peer);
    }
    let (greedy, honest) = (sessions.remove(0), sessions.remove(0));
    let mut greedy_ends = peers[0].events();
    // Three with a window each that nobody reads; one that does all right.
    for session in &sessions {
        deaf.push(fill_with(session, Priority::Bulk).await);
    }
    let mut useful = honest.open_with(ECHO, Priority::Bulk).await.unwrap();
    let mut streams = Vec::new();
    while near.stats().sessions_evicted == 0 {
        assert!(streams.len() < MAX_STREAMS as usize, "it was ended");
        assert!(backlog(&near) <= LIMIT, "{}", backlog(&near));
        streams.push(fill_with(&greedy, Priority::Bulk).await);
    }
    assert!(streams.len() > 1, "the others had too much by themselves");
    assert!(matches!(greedy.closed().await, SessionError::Evicted));
    loop {
        if let NodeEvent::SessionEnded { error, .. } = greedy_ends.next().await.unwrap() {
            assert!(matches!(error, SessionError::ClosedByPeer(CLOSE_BUSY)), "{error:?}");
            break;
        }
    }
    assert_eq!(streams[0].send("more").await, Err(SendError::Closed));
    // What it had is given back while its streams are still held, and nobody else is harmed.
    let kept = backlog(&near);
    assert!((3 * WINDOW.start()..=3 * WINDOW.end()).contains(&kept), "{kept}");
    for session in sessions.iter().chain([&honest]) {
        assert!(session.closed().now_or_never().is_none());
        echoes(session).await;
    }
    // A megabyte, of which a quarter of the window that it grows to may be acknowledged late.
    let large = vec![7; 50_000];
    for _ in 0..20 {
        useful.send(large.clone()).await.unwrap();
        assert_eq!(useful.recv().await.unwrap().unwrap(), large);
    }
    assert_eq!(near.stats().sessions_evicted, 1);
    drop((streams, deaf, useful, sessions, greedy, honest));
    has_at_most(&near, 0).await;
    assert_eq!(backlog(&near), 0);
}

#[tokio::test(start_paused = true)]
async fn what_a_stream_had_to_send_is_given_back_with_it() {
    let stuck = Stuck::new(NODE_BACKLOG).await;
    drop(stuck.live);
    drop(stuck.bulk);
    empties(&stuck.ledger).await;
    assert!(stuck.session.closed().now_or_never().is_none(), "the session goes on");
}

#[tokio::test(start_paused = true)]
async fn what_a_stream_had_to_send_is_given_back_when_the_peer_resets_it() {
    let network = memory();
    let far = builder(&network).protocol(BRIEF, Access::Anyone, brief).bind().await.unwrap();
    let near = builder(&network).lanes(0).bind().await.unwrap();
    let session = near.connect(far.address()).await.unwrap();
    for priority in [Priority::Live, Priority::Bulk] {
        let mut stream = session.open_with(BRIEF, priority).await.unwrap();
        let mut sent = 0;
        while stream.send(vec![1; 50_000]).await.is_ok() {
            sent += 1;
        }
        assert!(sent > 0);
        empties(&near.inner.backlog).await;
        assert!(stream.recv().await.is_err());
    }
    echoes(&session).await;
}

#[tokio::test(start_paused = true)]
async fn what_a_session_had_to_send_is_given_back_when_it_goes_silent_is_lost_or_its_node_is_dropped() {
    // Its handles are held all the while.
    let silent = Stuck::new(NODE_BACKLOG).await;
    assert!(matches!(silent.session.closed().await, SessionError::Silent));
    empties(&silent.ledger).await;

    let lost = Stuck::new(NODE_BACKLOG).await;
    drop(lost.stalled);
    assert!(matches!(lost.session.closed().await, SessionError::Lost));
    empties(&lost.ledger).await;

    let dropped = Stuck::new(NODE_BACKLOG).await;
    drop(dropped.near);
    assert!(matches!(dropped.session.closed().await, SessionError::Lost));
    empties(&dropped.ledger).await;
}

#[tokio::test(start_paused = true)]
async fn what_a_session_had_to_send_is_given_back_when_the_peer_closes_it() {
    let network = memory();
    let (far, near) = (builder(&network).bind().await.unwrap(), builder(&network).lanes(0).bind().await.unwrap());
    let session = near.connect(far.address()).await.unwrap();
    let _bulk = fill_with(&session, Priority::Bulk).await;
    assert!(WINDOW.contains(&backlog(&near)));
    far.connect(near.address()).await.unwrap().shutdown().await;
    assert!(matches!(session.closed().await, SessionError::ClosedByPeer(_)));
    empties(&near.inner.backlog).await;
}

#[tokio::test(start_paused = true)]
async fn what_a_session_says_at_its_end_counts_until_it_is_said_or_given_up() {
    let stuck = Stuck::new(NODE_BACKLOG).await;
    let began = Instant::now();
    assert!(timeout(Duration::from_secs(4), stuck.session.shutdown()).await.is_err(), "nothing is read of it");
    let kept = backlog(&stuck.near);
    assert!((2 * WINDOW.start()..=2 * WINDOW.end()).contains(&kept), "{kept}");
    assert!(matches!(stuck.session.closed().await, SessionError::Shutdown));
    empties(&stuck.ledger).await;
    assert!(began.elapsed() < Duration::from_secs(6), "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_session_that_is_slow_to_end_makes_room_before_others_are_ended() {
    let stuck = Stuck::new(2_000_000).await;
    let far = builder(&stuck.network).bind().await.unwrap();
    let other = stuck.near.connect(far.address()).await.unwrap();
    let (began, slow) = (Instant::now(), stuck.session.clone());
    let ended = tokio::spawn(async move { slow.shutdown().await });
    let _first = fill_with(&other, Priority::Bulk).await;
    assert!(!ended.is_finished());
    let _second = fill_with(&other, Priority::Bulk).await;
    ended.await.unwrap();
    assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
    let kept = backlog(&stuck.near);
    assert!((2 * WINDOW.start()..=2 * WINDOW.end()).contains(&kept), "{kept}");
    assert!(other.closed().now_or_never().is_none());
    echoes(&other).await;
    assert_eq!(stuck.near.stats().sessions_evicted, 1);
}

#[tokio::test(start_paused = true)]
async fn whoever_waits_to_send_is_told_when_the_session_ends_and_leaves_nothing() {
    let network = memory();
    let far = builder(&network).bind().await.unwrap();
    let mut near = builder(&network).lanes(0);
    near.send_budget = 700_000;
    let near = near.bind().await.unwrap();
    let session = near.connect(far.address()).await.unwrap();
    let _bulk = fill_with(&session, Priority::Bulk).await;
    // For want of the session's budget, not of credit.
    let mut echoing = session.open(ECHO).await.unwrap();
    let given_up = timeout(Duration::from_secs(1), echoing.send(vec![0; 100_000])).await;
    assert!(given_up.is_err());
    let kept = backlog(&near);
    assert!(WINDOW.contains(&kept), "who was given up has taken nothing: {kept}");
    let waiting = tokio::spawn(async move { echoing.send(vec![0; 100_000]).await });
    tokio::task::yield_now().await;
    drop(far);
    assert_eq!(timeout(Duration::from_secs(1), waiting).await.unwrap().unwrap(), Err(SendError::Closed));
    empties(&near.inner.backlog).await;
}
