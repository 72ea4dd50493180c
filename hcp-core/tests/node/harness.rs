//! Nodes and networks for the tests.

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use hcp_core::identity::{Identity, OnionAddress};
use hcp_core::network::{BoxedTransport, DialError, ListenError, Listener, MemoryNetwork, Network};
use hcp_core::node::{Access, Node, NodeBuilder, Session, Stream};
use hcp_core::session::Priority;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

pub(crate) const ECHO: &str = "test/echo/1";
pub(crate) const WHO: &str = "test/who/1";
pub(crate) const MEMBERS: &str = "test/members/1";
pub(crate) const COUNT: &str = "test/count/1";
pub(crate) const DEAF: &str = "test/deaf/1";

/// Sends everything back.
pub(crate) async fn echo(mut stream: Stream, _session: Session) {
    while let Ok(Some(message)) = stream.recv().await {
        if stream.send(message).await.is_err() {
            return;
        }
    }
    stream.finish().await;
}

/// Says who dialled.
pub(crate) async fn who(mut stream: Stream, session: Session) {
    let name = session.peer().address().map_or_else(|| "anonymous".to_owned(), |address| address.to_string());
    let _ = stream.send(name).await;
    let _ = stream.recv().await;
}

/// Expects numbered messages, and says in the end how many came.
pub(crate) async fn count(mut stream: Stream, _session: Session) {
    let mut next = 0u32;
    while let Ok(Some(message)) = stream.recv().await {
        assert_eq!(message[..4], next.to_be_bytes(), "messages come in order, each once");
        next += 1;
    }
    let _ = stream.send(next.to_be_bytes().to_vec()).await;
    stream.finish().await;
}

/// Never reads.
pub(crate) async fn deaf(_stream: Stream, session: Session) {
    session.closed().await;
}

pub(crate) fn serving(identity: Identity, network: &Arc<dyn Network>) -> NodeBuilder {
    Node::builder(identity, Arc::clone(network))
        .protocol(ECHO, Access::Anyone, echo)
        .protocol(WHO, Access::Anyone, who)
        .protocol(MEMBERS, Access::Identified, who)
        .protocol(COUNT, Access::Anyone, count)
        .protocol(DEAF, Access::Anyone, deaf)
}

pub(crate) async fn server(network: &Arc<dyn Network>) -> Node {
    serving(Identity::generate(), network).bind().await.unwrap()
}

pub(crate) async fn client(network: &Arc<dyn Network>) -> Node {
    Node::builder(Identity::generate(), Arc::clone(network)).bind().await.unwrap()
}

pub(crate) fn memory() -> Arc<dyn Network> {
    Arc::new(MemoryNetwork::new())
}

/// Two identities, the one with the lower address first.
pub(crate) fn two_identities() -> [Identity; 2] {
    let mut two = [Identity::generate(), Identity::generate()];
    two.sort_by_key(Identity::address);
    two
}

/// Waits for something to become so.
pub(crate) async fn eventually(what: &str, mut so: impl FnMut() -> bool) {
    let waiting = async {
        while !so() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    assert!(tokio::time::timeout(Duration::from_secs(60), waiting).await.is_ok(), "{what}");
}

/// Fails when something takes longer than a minute.
pub(crate) async fn soon<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(60), what).await.expect("it takes no minute")
}

/// Sends so many numbered messages of a length as bulk, and checks that they all came.
pub(crate) async fn send_bulk(session: &Session, messages: u32, length: usize) {
    let mut stream = session.open_with(COUNT, Priority::Bulk).await.unwrap();
    send_numbered(&mut stream, messages, length).await;
}

pub(crate) async fn send_numbered(stream: &mut Stream, messages: u32, length: usize) {
    for number in 0..messages {
        let message = [&number.to_be_bytes()[..], &vec![number as u8; length - 4]].concat();
        stream.send(message).await.unwrap();
    }
    stream.finish().await;
    assert_eq!(stream.recv().await.unwrap().unwrap()[..], messages.to_be_bytes());
    assert_eq!(stream.recv().await.unwrap(), None);
}

/// Sends a text and expects it back.
pub(crate) async fn echoes(session: &Session, text: &'static str) {
    let mut stream = session.open(ECHO).await.unwrap();
    stream.send(text).await.unwrap();
    assert_eq!(stream.recv().await.unwrap(), Some(Bytes::from(text)));
}

/// What becomes of an isolated dial.
#[derive(Clone)]
pub(crate) enum Route {
    To(Arc<dyn Network>),
    Unreachable,
    /// The connection ends once so many bytes have gone either way.
    CutAfter(Arc<dyn Network>, u64),
}

/// A network whose isolated dials go where the test says.
pub(crate) struct Lanes {
    plain: Arc<dyn Network>,
    route: Box<dyn Fn(usize) -> Route + Send + Sync>,
    pub(crate) dials: AtomicUsize,
    pub(crate) isolated: AtomicUsize,
    /// Bytes that went over isolated connections.
    pub(crate) carried: Arc<AtomicU64>,
}

impl Lanes {
    /// `route` gets the number of the isolated dial, from 0.
    pub(crate) fn new(plain: &Arc<dyn Network>, route: impl Fn(usize) -> Route + Send + Sync + 'static) -> Arc<Self> {
        Arc::new(Self {
            plain: Arc::clone(plain),
            route: Box::new(route),
            dials: AtomicUsize::new(0),
            isolated: AtomicUsize::new(0),
            carried: Arc::default(),
        })
    }

    pub(crate) fn isolated(&self) -> usize {
        self.isolated.load(Ordering::SeqCst)
    }

    pub(crate) fn carried(&self) -> u64 {
        self.carried.load(Ordering::SeqCst)
    }
}

impl fmt::Debug for Lanes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Lanes")
    }
}

impl Network for Lanes {
    fn dial(&self, address: OnionAddress, port: u16) -> BoxFuture<'_, Result<BoxedTransport, DialError>> {
        self.dials.fetch_add(1, Ordering::SeqCst);
        self.plain.dial(address, port)
    }

    fn dial_isolated(&self, address: OnionAddress, port: u16) -> BoxFuture<'_, Result<BoxedTransport, DialError>> {
        let (network, limit) = match (self.route)(self.isolated.fetch_add(1, Ordering::SeqCst)) {
            Route::To(network) => (network, u64::MAX),
            Route::CutAfter(network, bytes) => (network, bytes),
            Route::Unreachable => return Box::pin(async { Err(DialError::NotFound) }),
        };
        let carried = Arc::clone(&self.carried);
        Box::pin(async move {
            let far = network.dial(address, port).await?;
            let (near, middle) = tokio::io::duplex(64 * 1024);
            tokio::spawn(relay(middle, far, limit, carried));
            Ok(Box::new(near) as BoxedTransport)
        })
    }

    fn listen<'a>(&'a self, identity: &'a Identity, ports: &'a [u16]) -> BoxFuture<'a, Result<Listener, ListenError>> {
        self.plain.listen(identity, ports)
    }
}

/// Carries bytes both ways until one side ends or the limit is reached; then drops both, as a network does that fails.
pub(crate) async fn relay(near: tokio::io::DuplexStream, far: BoxedTransport, limit: u64, carried: Arc<AtomicU64>) {
    let (mut near_reader, mut near_writer) = tokio::io::split(near);
    let (mut far_reader, mut far_writer) = tokio::io::split(far);
    let gone = AtomicU64::new(0);
    let copy = async |reader: &mut (dyn tokio::io::AsyncRead + Send + Unpin),
                      writer: &mut (dyn tokio::io::AsyncWrite + Send + Unpin)| {
        let mut buffer = vec![0; 8 * 1024];
        while let Ok(n @ 1..) = reader.read(&mut buffer).await {
            carried.fetch_add(n as u64, Ordering::SeqCst);
            if gone.fetch_add(n as u64, Ordering::SeqCst) + n as u64 > limit
                || writer.write_all(&buffer[..n]).await.is_err()
                || writer.flush().await.is_err()
            {
                return;
            }
        }
    };
    tokio::select! {
        () = copy(&mut near_reader, &mut far_writer) => {}
        () = copy(&mut far_reader, &mut near_writer) => {}
    }
}
