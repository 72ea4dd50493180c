//! Handshakes per second. Bare TLS has HCP's profile; where the dialler shows who it is, both sides of bare TLS show a key:
//! there always the same one, here another each time.

use std::cell::RefCell;
use std::sync::Arc;

use futures::{StreamExt as _, TryStreamExt as _};
use hcp_core::identity::{Identity, OnionAddress};
use hcp_core::network::{MemoryNetwork, Network};
use hcp_core::node::{Node, Session};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::mpsc;

use crate::Failure;
use crate::measure::{Turns, timed};
use crate::peers::{Authentication, BareTls, IrohPair, TcpNetwork, far};
use crate::report::{Goal, Report, number};
use crate::streams::note;

const TURNS: usize = 11;
const HANDSHAKES: usize = 200;
/// Handshakes under way at once: enough to keep both ends busy, and less than what a node takes.
const AT_ONCE: usize = 8;
/// What a connection in memory holds in each direction: as much as that of [`MemoryNetwork`].
const PIPE: usize = 64 * 1024;

/// How a dialler of this library's presents itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Dialler {
    Anonymous,
    Identified,
}

/// Two nodes.
struct Nodes {
    near: Node,
    far: OnionAddress,
    _far: Node,
    /// One for each handshake of a turn, as diallers are: no key has been seen before, and no session replaces another.
    throw_away: RefCell<Vec<Identity>>,
}

impl Nodes {
    async fn on(network: Arc<dyn Network>) -> Result<Self, Failure> {
        let builder = Node::builder(Identity::generate(), Arc::clone(&network));
        let far = far(async { Ok(builder.bind().await?) }).await?;
        let near = Node::builder(Identity::generate(), network).bind().await?;
        Ok(Self { near, far: far.address(), _far: far, throw_away: RefCell::default() })
    }

    /// Makes the identities of a turn.
    fn prepare(&self) {
        *self.throw_away.borrow_mut() = (0..HANDSHAKES).map(|_| Identity::generate()).collect();
    }

    async fn connect(&self, dialler: Dialler) -> Result<Session, Failure> {
        Ok(match dialler {
            Dialler::Anonymous => self.near.connect_anonymously(self.far).await?,
            Dialler::Identified => {
                let identity = self.throw_away.borrow_mut().pop().ok_or("more handshakes than identities")?;
                self.near.connect_as(self.far, &identity).await?
            }
        })
    }
}

/// Measures in memory and over loopback.
///
/// # Errors
/// The first that any protocol returns.
pub async fn run(report: &mut Report) -> Result<(), Failure> {
    in_memory(report).await?;
    over_tcp(report).await
}

const OURS: [(Dialler, &str); 2] = [(Dialler::Anonymous, "anonymous dialler"), (Dialler::Identified, "known dialler")];
const BARE: [Authentication; 2] = [Authentication::Server, Authentication::Both];

async fn in_memory(report: &mut Report) -> Result<(), Failure> {
    let nodes = Nodes::on(Arc::new(MemoryNetwork::new())).await?;
    let mut bare = Vec::new();
    for authentication in BARE {
        let tls = BareTls::new(authentication)?;
        let (sender, mut incoming) = mpsc::channel(AT_ONCE);
        let acceptor = tls.clone();
        far(async {
            tokio::spawn(async move {
                while let Some(stream) = incoming.recv().await {
                    let acceptor = acceptor.clone();
                    tokio::spawn(
                        async move { linger(acceptor.accept::<tokio::io::DuplexStream>(stream).await?).await },
                    );
                }
            });
            Ok(())
        })
        .await?;
        bare.push((tls, sender));
    }
    let turns = Turns::take(TURNS, 4, async |way| match way {
        0 | 1 => {
            nodes.prepare();
            timed(repeat(|| nodes.connect(OURS[way].0), end_session)).await
        }
        _ => {
            let (tls, sender) = &bare[way - 2];
            let connect = async || {
                let (near, far) = tokio::io::duplex(PIPE);
                sender.send(far).await?;
                tls.connect(near).await
            };
            timed(repeat(connect, end_stream)).await
        }
    })
    .await?;
    rows(report, "in memory", &turns);
    Ok(())
}

async fn over_tcp(report: &mut Report) -> Result<(), Failure> {
    let nodes = Nodes::on(Arc::new(TcpNetwork::new())).await?;
    let mut bare = Vec::new();
    for authentication in BARE {
        let tls = BareTls::new(authentication)?;
        let acceptor = tls.clone();
        let address = far(async move {
            let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await?;
            let address = listener.local_addr()?;
            tokio::spawn(async move {
                while let Ok((stream, _)) = listener.accept().await {
                    let acceptor = acceptor.clone();
                    tokio::spawn(async move {
                        stream.set_nodelay(true)?;
                        linger(acceptor.accept(stream).await?).await
                    });
                }
            });
            Ok(address)
        })
        .await?;
        bare.push((tls, address));
    }
    let iroh = IrohPair::new().await?;
    let turns = Turns::take(TURNS, 5, async |way| match way {
        0 | 1 => {
            nodes.prepare();
            timed(repeat(|| nodes.connect(OURS[way].0), end_session)).await
        }
        4 => timed(repeat(|| iroh.connect(), async |connection| drop(connection))).await,
        _ => {
            let (tls, address) = &bare[way - 2];
            let connect = async || {
                let stream = TcpStream::connect(address).await?;
                stream.set_nodelay(true)?;
                tls.connect(stream).await
            };
            timed(repeat(connect, end_stream)).await
        }
    })
    .await?;
    rows(report, "over loopback", &turns);
    let rates = [1, 4].map(|way| format!("{}/s", number(HANDSHAKES as f64 / turns.median(way))));
    report.ratio(GROUP, "over loopback, known dialler, vs iroh", turns.speed(1, 4), None, note(&turns, [1, 4], &rates));
    Ok(())
}

const GROUP: &str = "handshakes";

fn rows(report: &mut Report, place: &str, turns: &Turns) {
    let others = ["bare rustls, server's key", "bare rustls, both sides' keys"];
    // The last shows what it costs to be known, all told; it does more than the peer does.
    for (ours, theirs, goal) in [(0, 0, Some(Goal::AtLeast(0.9))), (1, 1, Some(Goal::AtLeast(0.9))), (1, 0, None)] {
        let what = format!("{place}, {}, vs {}", OURS[ours].1, others[theirs]);
        let rates = [ours, theirs + 2].map(|way| format!("{}/s", number(HANDSHAKES as f64 / turns.median(way))));
        report.ratio(GROUP, what, turns.speed(ours, theirs + 2), goal, note(turns, [ours, theirs + 2], &rates));
    }
}

/// Makes connections, a few at once, and ends each as soon as it stands.
async fn repeat<T>(connect: impl AsyncFn() -> Result<T, Failure>, end: impl AsyncFn(T)) -> Result<(), Failure> {
    futures::stream::iter(0..HANDSHAKES)
        .map(|_| async {
            end(connect().await?).await;
            Ok(())
        })
        .buffer_unordered(AT_ONCE)
        .try_collect()
        .await
}

async fn end_session(session: Session) {
    // Its driver says goodbye by itself.
    drop(session);
}

async fn end_stream(mut stream: impl AsyncWrite + Unpin) {
    // The other end may be gone already.
    let _ = stream.shutdown().await;
}

/// Reads until the other side ends.
async fn linger(mut stream: impl AsyncRead + AsyncWrite + Unpin) -> Result<(), Failure> {
    use tokio::io::AsyncReadExt as _;
    let mut rest = [0; 1];
    while stream.read(&mut rest).await? > 0 {}
    Ok(stream.shutdown().await?)
}
