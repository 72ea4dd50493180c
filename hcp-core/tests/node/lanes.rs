//! Lanes: what they carry, what happens when they die, and when they cannot be had.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::future::BoxFuture;
use hcp_core::identity::{Identity, OnionAddress};
use hcp_core::network::{BoxedTransport, DialError, HCP_PORT, ListenError, Listener, LocalNetwork, Network};
use hcp_core::node::{Node, NodeEvent};
use hcp_core::session::{MAX_LANES, Priority};

use super::harness::{COUNT, Lanes, Route, echoes, eventually, memory, relay, send_bulk, send_numbered, server, soon};

async fn dialler(network: &Arc<Lanes>, lanes: usize) -> Node {
    let network = Arc::clone(network) as Arc<dyn Network>;
    Node::builder(Identity::generate(), network).lanes(lanes).bind().await.unwrap()
}

#[tokio::test]
async fn bulk_travels_on_lanes_and_messages_do_not() {
    let plain = memory();
    let target = Arc::clone(&plain);
    let network = Lanes::new(&plain, move |_| Route::To(Arc::clone(&target)));
    let (server, client) = (server(&plain).await, dialler(&network, 2).await);
    let session = client.connect(server.address()).await.unwrap();
    echoes(&session, "no lane for this").await;
    assert_eq!(network.isolated(), 0);

    let mut bulk = session.open_with(COUNT, Priority::Bulk).await.unwrap();
    assert_eq!(bulk.priority(), Priority::Bulk);
    eventually("two lanes join", || session.stats().lanes == 2 && server.stats().lanes_joined == 2).await;
    soon(send_numbered(&mut bulk, 200, 60_000)).await;
    assert!(network.carried() > 200 * 60_000 / 2, "most of it went on lanes: {}", network.carried());
    assert_eq!((network.isolated(), session.stats().frames_resent), (2, 0));
}

#[tokio::test]
async fn a_lane_that_dies_in_the_middle_of_a_transfer_loses_and_repeats_nothing() {
    let plain = memory();
    let target = Arc::clone(&plain);
    // Lanes that die young are not replaced at once: what is left goes on the primary.
    let network = Lanes::new(&plain, move |nth| match nth {
        0 => Route::CutAfter(Arc::clone(&target), 1_000_000),
        1 => Route::CutAfter(Arc::clone(&target), 3_000_000),
        _ => Route::To(Arc::clone(&target)),
    });
    let (server, client) = (server(&plain).await, dialler(&network, 2).await);
    let mut events = client.events();
    let session = client.connect(server.address()).await.unwrap();
    let mut bulk = session.open_with(COUNT, Priority::Bulk).await.unwrap();
    eventually("two lanes join", || session.stats().lanes == 2 && server.stats().lanes_joined == 2).await;
    soon(send_numbered(&mut bulk, 300, 60_000)).await;
    let stats = session.stats();
    assert!(stats.frames_resent > 0 && stats.lanes == 0, "{stats:?}");
    eventually("what was lost with lanes has arrived, and is kept no more", || client.stats().bytes_backlog == 0).await;
    let (mut began, mut ended) = (0, 0);
    while began + ended < 4 {
        match soon(events.next()).await.unwrap() {
            NodeEvent::LaneBegan { peer } if peer.address() == Some(server.address()) => began += 1,
            NodeEvent::LaneEnded { peer } if peer.address() == Some(server.address()) => ended += 1,
            _ => {}
        }
    }
    assert_eq!((began, ended), (2, 2));
    echoes(&session, "and the session lives").await;
}

#[tokio::test(start_paused = true)]
async fn a_session_goes_on_without_lanes_that_cannot_be_dialled_and_tries_again_later() {
    let plain = memory();
    let target = Arc::clone(&plain);
    let network =
        Lanes::new(&plain, move |nth| if nth < 2 { Route::Unreachable } else { Route::To(Arc::clone(&target)) });
    let (server, client) = (server(&plain).await, dialler(&network, 1).await);
    let session = client.connect(server.address()).await.unwrap();
    let mut bulk = session.open_with(COUNT, Priority::Bulk).await.unwrap();
    send_bulk(&session, 50, 60_000).await;
    assert_eq!((network.isolated(), client.stats().lanes_failed), (1, 1));
    tokio::time::sleep(Duration::from_secs(29)).await;
    assert_eq!(network.isolated(), 1, "not at once");
    tokio::time::sleep(Duration::from_secs(40)).await;
    assert_eq!((network.isolated(), session.stats().lanes), (3, 1));
    send_numbered(&mut bulk, 50, 60_000).await;
}

#[tokio::test(start_paused = true)]
async fn a_node_that_wants_no_lanes_dials_none_and_too_many_are_refused() {
    let plain = memory();
    let network = Lanes::new(&plain, |_| Route::Unreachable);
    let (server, client) = (server(&plain).await, dialler(&network, 0).await);
    let session = client.connect(server.address()).await.unwrap();
    send_bulk(&session, 20, 60_000).await;
    assert_eq!(network.isolated(), 0);
    assert!(Node::builder(Identity::generate(), plain).lanes(MAX_LANES + 1).bind().await.is_err());
}

#[tokio::test(start_paused = true)]
async fn the_acceptor_sends_bulk_on_the_dialler_s_lanes_too() {
    let plain = memory();
    let target = Arc::clone(&plain);
    let network = Lanes::new(&plain, move |_| Route::To(Arc::clone(&target)));
    let (server, client) = (server(&plain).await, dialler(&network, MAX_LANES).await);
    let session = client.connect(server.address()).await.unwrap();
    let mut bulk = session.open_with(super::harness::ECHO, Priority::Bulk).await.unwrap();
    eventually("all lanes join", || session.stats().lanes == MAX_LANES && server.stats().lanes_joined == 4).await;
    let mut sender = bulk.sender();
    let sending = tokio::spawn(async move {
        for number in 0..200u32 {
            sender.send([&number.to_be_bytes()[..], &[7; 60_000]].concat()).await.unwrap();
        }
        sender.finish().await;
    });
    for number in 0..200u32 {
        assert_eq!(bulk.recv().await.unwrap().unwrap()[..4], number.to_be_bytes());
    }
    assert_eq!(bulk.recv().await.unwrap(), None);
    sending.await.unwrap();
    assert!(network.carried() > 200 * 60_000 * 3 / 2, "most of both directions: {}", network.carried());
}

#[tokio::test]
async fn lanes_work_over_loopback() {
    let folder = tempfile::tempdir().unwrap();
    let plain: Arc<dyn Network> = Arc::new(LocalNetwork::new(folder.path()).unwrap());
    let target = Arc::clone(&plain);
    let network = Lanes::new(&plain, move |nth| match nth {
        0 => Route::CutAfter(Arc::clone(&target), 2_000_000),
        _ => Route::To(Arc::clone(&target)),
    });
    let (server, client) = (server(&plain).await, dialler(&network, 3).await);
    let session = client.connect(server.address()).await.unwrap();
    let mut bulk = session.open_with(COUNT, Priority::Bulk).await.unwrap();
    eventually("three lanes join", || session.stats().lanes == 3 && server.stats().lanes_joined == 3).await;
    let (_, ()) = tokio::join!(soon(send_numbered(&mut bulk, 400, 60_000)), async {
        for _ in 0..50 {
            echoes(&session, "between").await;
        }
    });
    assert!(session.stats().frames_resent > 0 && session.stats().lanes == 2, "{:?}", session.stats());
}

/// A dial, as a network sees it.
struct Dialled {
    address: OnionAddress,
    port: u16,
    /// Whether it may share nothing with any other: over Tor, that it gets circuits of its own.
    alone: bool,
    /// Bytes that its connection has carried, both ways.
    carried: Arc<AtomicU64>,
}

/// A network that notes what each dial asks for.
struct Recording {
    plain: Arc<dyn Network>,
    dials: Mutex<Vec<Dialled>>,
}

impl Recording {
    async fn reach(&self, address: OnionAddress, port: u16, alone: bool) -> Result<BoxedTransport, DialError> {
        let carried = Arc::<AtomicU64>::default();
        self.dials.lock().unwrap().push(Dialled { address, port, alone, carried: Arc::clone(&carried) });
        let far = self.plain.dial(address, port).await?;
        let (near, middle) = tokio::io::duplex(64 * 1024);
        tokio::spawn(relay(middle, far, u64::MAX, carried));
        Ok(Box::new(near) as BoxedTransport)
    }
}

impl fmt::Debug for Recording {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Recording")
    }
}

impl Network for Recording {
    fn dial(&self, address: OnionAddress, port: u16) -> BoxFuture<'_, Result<BoxedTransport, DialError>> {
        Box::pin(self.reach(address, port, false))
    }

    fn dial_isolated(&self, address: OnionAddress, port: u16) -> BoxFuture<'_, Result<BoxedTransport, DialError>> {
        Box::pin(self.reach(address, port, true))
    }

    fn listen<'a>(&'a self, identity: &'a Identity, ports: &'a [u16]) -> BoxFuture<'a, Result<Listener, ListenError>> {
        self.plain.listen(identity, ports)
    }
}

#[tokio::test]
async fn every_lane_has_a_dial_of_its_own_that_shares_nothing_with_its_session_or_another() {
    const LANES: usize = 3;
    let plain = memory();
    let network = Arc::new(Recording { plain: Arc::clone(&plain), dials: Mutex::default() });
    let server = server(&plain).await;
    let client = Node::builder(Identity::generate(), Arc::clone(&network) as Arc<dyn Network>).lanes(LANES);
    let client = client.bind().await.unwrap();
    // As itself, and as nobody, with whom no lane is shared either.
    for sessions in 1..=2 {
        let session = match sessions {
            1 => client.connect(server.address()).await.unwrap(),
            _ => client.connect_anonymously(server.address()).await.unwrap(),
        };
        echoes(&session, "no lane for this").await;
        assert_eq!(network.dials.lock().unwrap().len(), (sessions - 1) * (1 + LANES) + 1);
        let mut bulk = session.open_with(COUNT, Priority::Bulk).await.unwrap();
        eventually("all lanes join", || session.stats().lanes == LANES).await;
        soon(send_numbered(&mut bulk, 200, 60_000)).await;

        let dials = network.dials.lock().unwrap();
        let alone: Vec<bool> = dials.iter().map(|dialled| dialled.alone).collect();
        assert_eq!(alone, [false, true, true, true].repeat(sessions));
        assert!(dials.iter().all(|dialled| (dialled.address, dialled.port) == (server.address(), HCP_PORT)));
        for Dialled { alone, carried, .. } in &dials[(sessions - 1) * (1 + LANES)..] {
            let carried = carried.load(Ordering::SeqCst);
            // A lane has its share of twelve million bytes, and the session's own connection what is left of the control.
            assert!(if *alone { carried > 500_000 } else { carried < 2_000_000 }, "alone: {alone}, {carried} bytes");
        }
        assert_eq!(server.stats().lanes_joined, (sessions * LANES) as u64);
    }
}
