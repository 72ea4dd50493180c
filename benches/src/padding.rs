//! What hiding lengths costs: bytes on the wire for each byte that an application sends or receives.

use std::sync::Arc;
use std::time::Duration;

use hcp_core::identity::Identity;
use hcp_core::network::{MemoryNetwork, Network};
use hcp_core::node::Node;
use hcp_core::session::Priority;

use crate::Failure;
use crate::measure::Ratio;
use crate::peers::{Counter, Counting, HcpPeer, Order, Peer, serve_orders};
use crate::report::{Report, number};

const GROUP: &str = "padding";
/// So long after its last answer nothing more of a pattern is under way, in simulated time.
const SETTLED: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const MIB: u64 = 1 << 20;

/// A pattern of messages.
#[derive(Clone, Copy, Debug)]
enum Pattern {
    /// One message each way, and again.
    Turns(u64, usize),
    /// All at once.
    Burst(u64, usize),
    Transfer(u64),
}

/// Measures with a runtime of its own, in simulated time.
///
/// # Errors
/// The first that a session returns.
pub fn run(report: &mut Report) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build()?;
    runtime.block_on(async {
        let (network, counter) = Counting::new(MemoryNetwork::new());
        let network: Arc<dyn Network> = Arc::new(network);
        let server = serve_orders(Node::builder(Identity::generate(), Arc::clone(&network))).bind().await?;
        let client = Node::builder(Identity::generate(), network).lanes(0).bind().await?;
        let session = client.connect(server.address()).await?;
        let set_up = settled(&counter).await;
        let kib = |bytes: u64| Ratio::exact(bytes as f64 / 1024.0);
        report.value(GROUP, "a session's beginning, both ways", kib(set_up), "KiB", None, String::new());
        tokio::time::sleep(MINUTE - SETTLED).await;
        let idle = settled(&counter).await - set_up;
        report.value(GROUP, "an idle minute, both ways", kib(idle), "KiB", None, String::new());

        for (what, priority, pattern) in [
            ("20 bytes and 20 back, 100 times", Priority::Live, Pattern::Turns(100, 20)),
            ("200 bytes and 200 back, 100 times", Priority::Live, Pattern::Turns(100, 200)),
            ("900 bytes and 900 back, 100 times", Priority::Live, Pattern::Turns(100, 900)),
            ("2,000 bytes and 2,000 back, 100 times", Priority::Live, Pattern::Turns(100, 2000)),
            ("20,000 bytes and 20,000 back, 100 times", Priority::Live, Pattern::Turns(100, 20_000)),
            ("100 messages of 200 bytes at once", Priority::Live, Pattern::Burst(100, 200)),
            ("1 MiB, live", Priority::Live, Pattern::Transfer(MIB)),
            ("64 MiB, live", Priority::Live, Pattern::Transfer(64 * MIB)),
            ("1 MiB, bulk", Priority::Bulk, Pattern::Transfer(MIB)),
            ("64 MiB, bulk", Priority::Bulk, Pattern::Transfer(64 * MIB)),
        ] {
            let before = settled(&counter).await;
            let mut peer = HcpPeer::new(session.clone(), priority, Vec::new()).await?;
            let order = Order::LEN as u64;
            let payload = order
                + match pattern {
                    Pattern::Turns(count, length) => {
                        peer.round_trips(count, length).await?;
                        2 * count * length as u64
                    }
                    Pattern::Burst(count, length) => {
                        peer.messages(count, length).await?;
                        count * length as u64 + 1
                    }
                    Pattern::Transfer(bytes) => {
                        peer.transfer(bytes).await?;
                        bytes + 1
                    }
                };
            let wire = settled(&counter).await - before;
            let note = format!("{} of {} KiB", number(wire as f64 / 1024.0), number(payload as f64 / 1024.0));
            report.ratio(GROUP, what, Ratio::exact(wire as f64 / payload as f64), None, note);
        }
        Ok(())
    })
}

/// What was counted once nothing is under way any more.
async fn settled(counter: &Counter) -> u64 {
    tokio::time::sleep(SETTLED).await;
    counter.bytes()
}
