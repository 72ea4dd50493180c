//! Over a private Tor network of real relays: once as fast as this machine is, where only its cores limit anything, and
//! once with links that take time, where Tor's windows do, as on the public network.
//!
//! Every connection has circuits of its own, so that no turn profits from the one before.

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::FutureExt as _;
use futures::future::BoxFuture;
use hcp_core::identity::{Identity, OnionAddress};
use hcp_core::network::tor::TorNetwork;
use hcp_core::network::{BoxedTransport, DialError, HCP_PORT, ListenError, Listener, ListenerStatus, Network};
use hcp_core::node::Node;
use hcp_core::session::{MAX_LANES, Priority};
use hcp_core::testing::PrivateTorNetwork;
use tokio::sync::{mpsc, watch};

use crate::Failure;
use crate::measure::{Ratio, Turns, quantile};
use crate::peers::{BytesPeer, HcpPeer, Peer, serve_orders};
use crate::report::{Goal, Report, rate, time};

const TURNS: usize = 5;
/// Two networks: what the group is called, how long a link takes, bytes of one transfer.
const NETWORKS: [(&str, Duration, u64); 2] =
    [("tor", Duration::ZERO, 8 << 20), ("tor, 20 ms a link", Duration::from_millis(20), 6 << 20)];
/// What is sent before the clock is read, so that windows are open.
const WARM_UP: u64 = 512 * 1024;
const PINGS: usize = 15;
const PING_LENGTH: usize = 64;
/// Everything that has to come about does so within this.
const DEADLINE: Duration = Duration::from_secs(120);
/// What the design allows a control message beyond twice the idle round trip.
const ALLOWANCE: f64 = 0.05;

/// Starts the networks, one after the other, and measures.
///
/// # Errors
/// When a network does not come up or a transfer fails.
pub fn run(report: &mut Report) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    for (group, link_delay, bytes) in NETWORKS {
        runtime.block_on(async {
            let testnet = PrivateTorNetwork::builder().link_delay(link_delay).start().await?;
            let folder = tempfile::tempdir()?;
            let world = World::on(&testnet, folder.path()).await?;
            world.throughput(report, group, bytes).await?;
            world.control(report, group).await
        })?;
    }
    Ok(())
}

/// Two Tor clients: one serves, one dials.
struct World {
    dialler: TorNetwork,
    /// Dial without lanes, and with as many as there may be.
    one: Node,
    many: Node,
    hcp: OnionAddress,
    bare: OnionAddress,
    _server: Node,
    _listener: tokio::task::JoinHandle<()>,
}

/// The ways in which bytes travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Bare,
    Live,
    Bulk,
    Lanes,
}

const WAYS: [Way; 4] = [Way::Bare, Way::Live, Way::Bulk, Way::Lanes];

impl World {
    async fn on(testnet: &PrivateTorNetwork, folder: &Path) -> Result<Self, Failure> {
        let join = |name: &str| {
            TorNetwork::builder(folder.join(name).join("state"), folder.join(name).join("cache"))
                .private_network(testnet.description().network())
                .bootstrap()
        };
        let (server, dialler) = tokio::try_join!(join("server"), join("dialler"))?;

        let identity = Identity::generate();
        let bare = identity.address();
        let mut listener = server.listen(&identity, &[HCP_PORT]).await?;
        let server: Arc<dyn Network> = Arc::new(server);
        let server = serve_orders(Node::builder(Identity::generate(), server)).bind().await?;
        let reachable = async { listener.reachable().await && server.reachable().await };
        if !within(reachable).await? {
            return Err("a service did not become reachable".into());
        }
        let listening = tokio::spawn(async move {
            while let Some(incoming) = listener.accept().await {
                tokio::spawn(BytesPeer::serve(incoming.stream));
            }
        });

        let isolating: Arc<dyn Network> = Arc::new(Isolating(dialler.clone()));
        let one = Node::builder(Identity::generate(), Arc::clone(&isolating)).lanes(0).bind().await?;
        let many = Node::builder(Identity::generate(), isolating).lanes(MAX_LANES).bind().await?;
        let hcp = server.address();
        Ok(Self { dialler, one, many, hcp, bare, _server: server, _listener: listening })
    }

    async fn session(&self, way: Way, priority: Priority) -> Result<HcpPeer, Failure> {
        let node = if way == Way::Lanes { &self.many } else { &self.one };
        let session = within(node.connect_anonymously(self.hcp)).await??;
        HcpPeer::new(session, priority, Vec::new()).await
    }

    /// A connection with all that belongs to it, through which something has gone already.
    async fn warm(&self, way: Way) -> Result<Box<dyn Peer>, Failure> {
        if way == Way::Bare {
            let stream = within(self.dialler.isolated().dial(self.bare, HCP_PORT)).await??;
            let mut peer = BytesPeer::new(stream);
            within(peer.transfer(WARM_UP)).await??;
            return Ok(Box::new(peer));
        }
        let priority = if way == Way::Live { Priority::Live } else { Priority::Bulk };
        let mut peer = self.session(way, priority).await?;
        within(peer.transfer(WARM_UP)).await??;
        if way == Way::Lanes {
            within(all_lanes(&peer)).await?;
            within(peer.transfer(WARM_UP)).await??;
        }
        Ok(Box::new(peer))
    }

    async fn throughput(&self, report: &mut Report, group: &'static str, bytes: u64) -> Result<(), Failure> {
        let turns = Turns::take(TURNS, WAYS.len(), async |way| {
            let mut peer = self.warm(WAYS[way]).await?;
            let start = Instant::now();
            within(peer.transfer(bytes)).await??;
            Ok(start.elapsed().as_secs_f64())
        })
        .await?;
        let [bare, live, bulk, lanes] = std::array::from_fn(|way| way);
        for (what, ours, theirs, goal) in [
            ("one stream (live) vs a bare DataStream", live, bare, Some(Goal::AtLeast(0.95))),
            ("one stream (bulk) vs a bare DataStream", bulk, bare, Some(Goal::AtLeast(0.95))),
            ("bulk over lanes vs one stream (bulk)", lanes, bulk, Some(Goal::AtLeast(2.0))),
            ("bulk over lanes vs a bare DataStream", lanes, bare, None),
        ] {
            let rates = [ours, theirs].map(|way| rate(bytes as usize, turns.median(way)));
            report.ratio(group, what, turns.speed(ours, theirs), goal, rates.join(" and "));
        }
        Ok(())
    }

    /// Round trips of a control message, alone and while a bulk stream takes all it can get.
    async fn control(&self, report: &mut Report, group: &'static str) -> Result<(), Failure> {
        for (way, what) in [(Way::Lanes, "with lanes"), (Way::Bulk, "without lanes")] {
            let mut ratios = Vec::new();
            let (mut idle, mut loaded) = (Vec::new(), Vec::new());
            for _ in 0..TURNS {
                let mut bulk = self.session(way, Priority::Bulk).await?;
                let mut control = HcpPeer::new(bulk.session().clone(), Priority::Control, Vec::new()).await?;
                within(bulk.transfer(WARM_UP)).await??;
                if way == Way::Lanes {
                    within(all_lanes(&bulk)).await?;
                }
                within(control.round_trips(2, PING_LENGTH)).await??;
                let alone = pings(&mut control).await?;
                let saturating = tokio::spawn(async move { bulk.transfer(u64::MAX).await });
                // It has to fill what there is to fill first.
                tokio::time::sleep(Duration::from_secs(2)).await;
                let beside = pings(&mut control).await?;
                if saturating.is_finished() {
                    return Err("the transfer ended before the pings did".into());
                }
                saturating.abort();
                let (alone_median, beside_median) = (quantile(&alone, 0.5), quantile(&beside, 0.5));
                ratios.push(beside_median / (2.0 * alone_median + ALLOWANCE));
                idle.extend(alone);
                loaded.extend(beside);
            }
            let note = format!(
                "idle {}, then {}, 95 % below {}",
                time(quantile(&idle, 0.5)),
                time(quantile(&loaded, 0.5)),
                time(quantile(&loaded, 0.95))
            );
            let what = format!("control during a transfer {what} / (2 x idle + 50 ms)");
            // The design's goal is for sessions as they are by default, with lanes.
            let goal = (way == Way::Lanes).then_some(Goal::AtMost(1.0));
            report.ratio(group, what, Ratio::of(&ratios), goal, note);
        }
        Ok(())
    }
}

async fn pings(peer: &mut HcpPeer) -> Result<Vec<f64>, Failure> {
    let mut times = Vec::with_capacity(PINGS);
    for _ in 0..PINGS {
        let start = Instant::now();
        within(peer.round_trips(1, PING_LENGTH)).await??;
        times.push(start.elapsed().as_secs_f64());
    }
    Ok(times)
}

/// Waits until a session has all its lanes; nothing announces them one by one to whoever holds the session.
async fn all_lanes(peer: &HcpPeer) {
    while peer.session().stats().lanes < MAX_LANES {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn within<T>(future: impl Future<Output = T>) -> Result<T, Failure> {
    Ok(tokio::time::timeout(DEADLINE, future).await?)
}

/// Dials each time on circuits of its own, and cannot be dialled.
struct Isolating(TorNetwork);

impl fmt::Debug for Isolating {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Isolating").finish_non_exhaustive()
    }
}

impl Network for Isolating {
    fn dial(&self, address: OnionAddress, port: u16) -> BoxFuture<'_, Result<BoxedTransport, DialError>> {
        async move { self.0.isolated().dial(address, port).await }.boxed()
    }

    fn listen<'a>(&'a self, _: &'a Identity, _: &'a [u16]) -> BoxFuture<'a, Result<Listener, ListenError>> {
        async {
            let (sender, incoming) = mpsc::channel(1);
            let (status, watched) = watch::channel(ListenerStatus::Reachable);
            Ok(Listener::new(incoming, watched, (sender, status)))
        }
        .boxed()
    }
}
