//! Networks around other networks: one counts bytes, one takes time.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use hcp_core::identity::{Identity, OnionAddress};
use hcp_core::network::{BoxedTransport, DialError, ListenError, Listener, Network};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::sync::mpsc;
use tokio::time::Instant;

/// Bytes that went through, in both directions.
#[derive(Clone, Debug, Default)]
pub struct Counter(Arc<AtomicU64>);

impl Counter {
    pub fn bytes(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    fn add(&self, bytes: usize) {
        self.0.fetch_add(bytes as u64, Ordering::Relaxed);
    }
}

/// A network that counts what its dialled connections carry.
pub struct Counting<N> {
    inner: N,
    counter: Counter,
}

impl<N> Counting<N> {
    pub fn new(inner: N) -> (Self, Counter) {
        let counter = Counter::default();
        (Self { inner, counter: counter.clone() }, counter)
    }
}

/// A network whose connections take a while, the same in both directions.
pub struct Delayed<N> {
    inner: N,
    one_way: Duration,
}

impl<N> Delayed<N> {
    pub fn new(inner: N, one_way: Duration) -> Self {
        Self { inner, one_way }
    }
}

impl<N: Network> Network for Counting<N> {
    fn dial(&self, address: OnionAddress, port: u16) -> BoxFuture<'_, Result<BoxedTransport, DialError>> {
        async move {
            let stream = self.inner.dial(address, port).await?;
            Ok(Box::new(Counted { stream, counter: self.counter.clone() }) as BoxedTransport)
        }
        .boxed()
    }

    fn listen<'a>(&'a self, identity: &'a Identity, ports: &'a [u16]) -> BoxFuture<'a, Result<Listener, ListenError>> {
        self.inner.listen(identity, ports)
    }
}

impl<N: Network> Network for Delayed<N> {
    fn dial(&self, address: OnionAddress, port: u16) -> BoxFuture<'_, Result<BoxedTransport, DialError>> {
        async move { Ok(Box::new(delayed(self.inner.dial(address, port).await?, self.one_way)) as BoxedTransport) }
            .boxed()
    }

    fn listen<'a>(&'a self, identity: &'a Identity, ports: &'a [u16]) -> BoxFuture<'a, Result<Listener, ListenError>> {
        self.inner.listen(identity, ports)
    }
}

impl<N> fmt::Debug for Counting<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Counting").finish_non_exhaustive()
    }
}

impl<N> fmt::Debug for Delayed<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Delayed").field("one_way", &self.one_way).finish_non_exhaustive()
    }
}

/// An end of `stream` that hears and is heard later.
pub fn delayed(stream: impl AsyncRead + AsyncWrite + Send + 'static, one_way: Duration) -> tokio::io::DuplexStream {
    /// What a direction of the end itself holds.
    const PIPE: usize = 64 * 1024;
    let (near, far) = tokio::io::duplex(PIPE);
    let (near_read, near_write) = tokio::io::split(far);
    let (far_read, far_write) = tokio::io::split(stream);
    tokio::spawn(carry(near_read, far_write, one_way));
    tokio::spawn(carry(far_read, near_write, one_way));
    near
}

async fn carry(mut from: impl AsyncRead + Send + Unpin + 'static, mut to: impl AsyncWrite + Unpin, one_way: Duration) {
    // Each entry is one read; what is under way is bounded by the delay and by what the ends have to say.
    let (sender, mut under_way) = mpsc::unbounded_channel::<(Instant, Vec<u8>)>();
    tokio::spawn(async move {
        let mut buffer = vec![0; 16 * 1024];
        while let Ok(n @ 1..) = from.read(&mut buffer).await {
            if sender.send((Instant::now() + one_way, buffer[..n].to_vec())).is_err() {
                return;
            }
        }
    });
    while let Some((due, bytes)) = under_way.recv().await {
        tokio::time::sleep_until(due).await;
        if to.write_all(&bytes).await.is_err() || to.flush().await.is_err() {
            return;
        }
    }
    let _ = to.shutdown().await;
}

struct Counted {
    stream: BoxedTransport,
    counter: Counter,
}

impl AsyncRead for Counted {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buffer))?;
        self.counter.add(buffer.filled().len() - before);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Counted {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.stream).poll_write(cx, bytes))?;
        self.counter.add(written);
        Poll::Ready(Ok(written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
