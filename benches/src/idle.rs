//! Memory of sessions that do nothing: how much a process grows by that holds both ends of many. Each measurement has a
//! process of its own, as an allocator does not give back what others freed.

use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use hcp_core::identity::Identity;
use hcp_core::network::Network;
use hcp_core::node::Node;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::io::AsyncReadExt as _;
use tokio::net::{TcpListener, TcpStream};

use crate::Failure;
use crate::measure::{Ratio, Turns, quantile};
use crate::peers::{Authentication, BareTls, IrohPair, TcpNetwork, far};
use crate::report::{Report, number};

/// The argument with which this program measures one kind and prints bytes.
pub const ARGUMENT: &str = "idle";
/// Sessions before the first look, so that what is made once is made.
const BEFORE: usize = 20;
const SESSIONS: usize = 500;
const TURNS: usize = 3;
const KINDS: [&str; 3] = ["hcp", "rustls", "iroh"];
/// Both ends of each have a file open.
const FILES: u64 = 4 * (SESSIONS + BEFORE) as u64;
/// Time for handshakes to be over at both ends; keepalive has begun then.
const SETTLE: Duration = Duration::from_secs(8);

/// Measures each kind in processes of their own.
///
/// # Errors
/// When a process fails.
pub async fn run(report: &mut Report) -> Result<(), Failure> {
    let program = std::env::current_exe()?;
    let turns = Turns::take(TURNS, KINDS.len(), async |way| {
        let output = Command::new(&program).args([ARGUMENT, KINDS[way]]).output()?;
        if !output.status.success() {
            return Err(String::from_utf8_lossy(&output.stderr).into());
        }
        Ok(String::from_utf8(output.stdout)?.trim().parse::<f64>()?)
    })
    .await?;
    for (way, kind) in KINDS.into_iter().enumerate() {
        let what = format!("{kind}: an idle session, both ends");
        let sizes = turns.all(way);
        let quantiles = [0.5, 0.25, 0.75].map(|part| quantile(sizes, part) / 1024.0);
        let [median, low, high] = quantiles;
        let note = format!("{} sessions, transport without the kernel's part", number(SESSIONS as f64));
        report.value("memory", what, Ratio { median, low, high }, "KiB", None, note);
    }
    Ok(())
}

/// What one kind takes, in bytes for both ends of one session.
///
/// # Errors
/// When sessions cannot be made.
pub async fn measure(kind: &str) -> Result<f64, Failure> {
    let limit = getrlimit(Resource::Nofile);
    let wanted = limit.maximum.unwrap_or(u64::MAX).min(FILES).max(limit.current.unwrap_or(0));
    setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), maximum: limit.maximum })?;
    match kind {
        "hcp" => hcp().await,
        "rustls" => rustls().await,
        "iroh" => iroh().await,
        _ => Err("no such kind".into()),
    }
}

async fn grow<T>(make: impl AsyncFn() -> Result<T, Failure>) -> Result<f64, Failure> {
    let mut held = Vec::with_capacity(BEFORE + SESSIONS);
    let mut before = 0;
    for made in 0..BEFORE + SESSIONS {
        if made == BEFORE {
            tokio::time::sleep(SETTLE).await;
            before = resident()?;
        }
        held.push(make().await?);
    }
    tokio::time::sleep(SETTLE).await;
    let grown = resident()?.saturating_sub(before);
    drop(held);
    Ok(grown as f64 / SESSIONS as f64)
}

async fn hcp() -> Result<f64, Failure> {
    let network: Arc<dyn Network> = Arc::new(TcpNetwork::new());
    let server = Node::builder(Identity::generate(), Arc::clone(&network));
    let server = far(async { Ok(server.bind().await?) }).await?;
    let client = Node::builder(Identity::generate(), network).bind().await?;
    grow(async || Ok(client.connect_anonymously(server.address()).await?)).await
}

async fn rustls() -> Result<f64, Failure> {
    let tls = BareTls::new(Authentication::Server)?;
    let acceptor = tls.clone();
    let address = far(async {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let address = listener.local_addr()?;
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let acceptor = acceptor.clone();
                tokio::spawn(async move { Ok::<_, Failure>(acceptor.accept(stream).await?.read_u8().await?) });
            }
        });
        Ok(address)
    })
    .await?;
    grow(async || {
        let mut stream = tls.connect(TcpStream::connect(address).await?).await?;
        Ok(tokio::spawn(async move { stream.read_u8().await }))
    })
    .await
}

async fn iroh() -> Result<f64, Failure> {
    let pair = IrohPair::new().await?;
    grow(|| pair.connect()).await
}

/// Bytes of this process that are in memory.
pub(crate) fn resident() -> Result<usize, Failure> {
    let statm = std::fs::read_to_string("/proc/self/statm")?;
    let pages: usize = statm.split(' ').nth(1).ok_or("no second field")?.parse()?;
    Ok(pages * rustix::param::page_size())
}
