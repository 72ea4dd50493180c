//! One stream of a session over loopback, and of bare tokio-rustls; `make bench-wire` prints the ratios.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use hcp_benches::Failure;
use hcp_benches::peers::{BareTls, HcpPeer, Peer};
use hcp_core::session::Priority;

const TRANSFER: u64 = 16 << 20;
const MESSAGES: u64 = 5000;

fn sessions(criterion: &mut Criterion) {
    if let Err(error) = try_sessions(criterion) {
        panic!("cannot set the peers up: {error}");
    }
}

fn try_sessions(criterion: &mut Criterion) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut live = runtime.block_on(HcpPeer::over_tcp(Priority::Live))?;
    let mut bulk = runtime.block_on(HcpPeer::over_tcp(Priority::Bulk))?;
    let mut tls = runtime.block_on(BareTls::peer())?;
    let peers: [(&str, &mut dyn Peer); 3] =
        [("hcp, live", &mut live), ("hcp, bulk", &mut bulk), ("tokio-rustls", &mut tls)];
    for (name, peer) in peers {
        let mut work = |what: &str, amount: Throughput, work: &dyn Fn(&mut dyn Peer) -> Result<(), Failure>| {
            let mut group = criterion.benchmark_group(what);
            group.throughput(amount).sample_size(20);
            group.bench_function(name, |b| {
                b.iter(|| {
                    if let Err(error) = work(peer) {
                        panic!("the peer failed: {error}");
                    }
                });
            });
        };
        work("transfer", Throughput::Bytes(TRANSFER), &|peer| runtime.block_on(peer.transfer(TRANSFER)));
        work("round trip", Throughput::Elements(1), &|peer| runtime.block_on(peer.round_trips(1, 200)));
        work("messages", Throughput::Elements(MESSAGES), &|peer| runtime.block_on(peer.messages(MESSAGES, 64)));
    }
    Ok(())
}

criterion_group!(benches, sessions);
criterion_main!(benches);
