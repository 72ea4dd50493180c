//! Many sessions at once over loopback, on several threads, with lanes that break and streams that are given up.

use std::sync::Arc;
use std::time::Duration;

use hcp_core::identity::{Identity, OnionAddress};
use hcp_core::network::{LocalNetwork, Network};
use hcp_core::node::{Node, Session};
use hcp_core::session::Priority;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::harness::{COUNT, Lanes, Route, eventually, server};

const CLIENTS: u64 = 6;
const STREAMS: u64 = 12;

async fn one_stream(session: Session, seed: u64) -> u64 {
    let mut random = StdRng::seed_from_u64(seed);
    let priority = [Priority::Control, Priority::Live, Priority::Bulk][random.random_range(0..3)];
    let mut stream = session.open_with(COUNT, priority).await.unwrap();
    let (messages, given_up) = (random.random_range(1..60u32), random.random_bool(0.25));
    let mut sent = 0;
    for number in 0..messages {
        let length = if random.random_bool(0.1) { 400_000 } else { random.random_range(0..20_000) };
        let message = [&number.to_be_bytes()[..], &vec![1; length]].concat();
        sent += message.len() as u64;
        // A send that is given up is as if it had never been.
        while tokio::time::timeout(Duration::from_micros(random.random_range(1..2_000)), stream.send(message.clone()))
            .await
            .map(|sent| sent.unwrap())
            .is_err()
        {}
        if given_up && number == messages / 2 {
            return sent;
        }
    }
    stream.finish().await;
    assert_eq!(stream.recv().await.unwrap().unwrap()[..], messages.to_be_bytes(), "seed {seed}");
    assert_eq!(stream.recv().await.unwrap(), None);
    sent
}

async fn one_client(plain: Arc<dyn Network>, address: OnionAddress, seed: u64) -> (u64, u64) {
    let target = Arc::clone(&plain);
    let network = Lanes::new(&plain, move |nth| match nth {
        0 | 1 => Route::CutAfter(Arc::clone(&target), 100_000 + seed % 7 * 50_000),
        _ => Route::To(Arc::clone(&target)),
    });
    let node = Node::builder(Identity::generate(), network as Arc<dyn Network>).lanes(3).bind().await.unwrap();
    let session = node.connect(address).await.unwrap();
    let streams = (0..STREAMS).map(|i| tokio::spawn(one_stream(session.clone(), seed * STREAMS + i)));
    let sent = futures::future::try_join_all(streams).await.unwrap().into_iter().sum();
    let resent = session.stats().frames_resent;
    assert!(session.drain(Duration::from_secs(30)).await, "everything was over");
    eventually("nothing is kept of what was sent", || node.stats().bytes_backlog == 0).await;
    (sent, resent)
}

#[allow(clippy::print_stderr, reason = "a test's output is shown when it fails")]
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_crowd_is_served_and_leaves_nothing_behind() {
    let seed: u64 =
        std::env::var("HCP_SEED").map_or_else(|_| rand::random_range(0..1 << 32), |seed| seed.parse().unwrap());
    eprintln!("HCP_SEED={seed}");
    let folder = tempfile::tempdir().unwrap();
    let plain: Arc<dyn Network> = Arc::new(LocalNetwork::new(folder.path()).unwrap());
    let far = server(&plain).await;
    let clients = (0..CLIENTS).map(|i| tokio::spawn(one_client(Arc::clone(&plain), far.address(), seed + i)));
    let all = tokio::time::timeout(Duration::from_secs(120), futures::future::try_join_all(clients)).await;
    let all = all.expect("it takes no two minutes").unwrap();
    let (sent, resent) = all.into_iter().fold((0, 0), |(a, b), (c, d)| (a + c, b + d));
    assert!(sent > 1_000_000 && resent > 0, "{sent} bytes, {resent} frames again");
    eventually("nothing is held", || {
        let stats = far.stats();
        stats.bytes_held == 0 && stats.bytes_backlog == 0 && stats.sessions_open == 0
    })
    .await;
    assert_eq!(far.stats().sessions_accepted, CLIENTS);
}
