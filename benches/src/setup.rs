//! How many round trips it takes until a session stands, and until a first answer has come. Time is simulated, so the
//! figures are exact.

use std::sync::Arc;
use std::time::Duration;

use hcp_core::identity::Identity;
use hcp_core::network::{MemoryNetwork, Network};
use hcp_core::node::Node;
use hcp_core::session::Priority;
use tokio::time::Instant;

use crate::Failure;
use crate::measure::Ratio;
use crate::peers::{Authentication, BareTls, BytesPeer, Delayed, HcpPeer, Peer, delayed, serve_orders};
use crate::report::{Goal, Report};

/// One way. Far above what computing takes, which simulated time does not see anyway.
const ONE_WAY: Duration = Duration::from_secs(1);

/// Measures with a runtime of its own.
///
/// # Errors
/// The first that any protocol returns.
pub fn run(report: &mut Report) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build()?;
    let (ours, bare) = runtime.block_on(async { Ok::<_, Failure>((ours().await?, bare().await?)) })?;
    let bare = bare.map(trips);
    for ((what, took), bare) in ["established", "first answer"].into_iter().zip(ours.map(trips)).zip(bare) {
        // One for the handshake, and one more for a question and its answer; the transport's own are not in it.
        let goal = if what == "established" { 1.0 } else { 2.0 };
        let what = format!("round trips until {what}");
        let goal = Some(Goal::AtMost(goal));
        report.value("set-up", what, Ratio::exact(took), "", goal, format!("bare rustls: {bare}"));
    }
    Ok(())
}

fn trips(took: Duration) -> f64 {
    took.as_secs_f64() / (2.0 * ONE_WAY.as_secs_f64())
}

async fn ours() -> Result<[Duration; 2], Failure> {
    let network: Arc<dyn Network> = Arc::new(Delayed::new(MemoryNetwork::new(), ONE_WAY));
    let server = serve_orders(Node::builder(Identity::generate(), Arc::clone(&network))).bind().await?;
    let client = Node::builder(Identity::generate(), network).bind().await?;
    let start = Instant::now();
    let session = client.connect(server.address()).await?;
    let established = start.elapsed();
    HcpPeer::new(session, Priority::Live, vec![server, client]).await?.round_trips(1, 1).await?;
    Ok([established, start.elapsed()])
}

async fn bare() -> Result<[Duration; 2], Failure> {
    let tls = BareTls::new(Authentication::Both)?;
    let (near, far) = tokio::io::duplex(64 * 1024);
    let acceptor = tls.clone();
    tokio::spawn(async move { BytesPeer::serve(acceptor.accept(far).await?).await });
    let start = Instant::now();
    let stream = tls.connect(delayed(near, ONE_WAY)).await?;
    let established = start.elapsed();
    BytesPeer::new(stream).round_trips(1, 1).await?;
    Ok([established, start.elapsed()])
}
