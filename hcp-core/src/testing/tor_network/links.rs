//! Links that take time: what relays would be like that are not on one machine.
//!
//! A relay advertises a port of ours and listens on another; what comes to ours is carried there, later. So every hop of a
//! circuit takes that long in each direction, as Tor's windows see it too.

use std::net::{SocketAddr, TcpListener};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

/// A link: where it begins, and where it ends.
pub(super) type Link = (TcpListener, SocketAddr);

/// Links that are served on a thread of their own, until dropped.
#[derive(Debug)]
pub(super) struct DelayedLinks {
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl DelayedLinks {
    pub(super) fn serve(links: Vec<Link>, one_way: Duration) -> std::io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (stop, stopped) = oneshot::channel::<()>();
        let thread = std::thread::Builder::new().name("delayed links".into()).spawn(move || {
            for link in links {
                runtime.spawn(accept(link, one_way));
            }
            // Whether told or forgotten, it is over.
            let _ = runtime.block_on(stopped);
        })?;
        Ok(Self { stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for DelayedLinks {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // It ends what it carried, and has nothing to tell.
            let _ = thread.join();
        }
    }
}

async fn accept((listener, to): Link, one_way: Duration) {
    let listener = match listener.set_nonblocking(true).and_then(|()| tokio::net::TcpListener::from_std(listener)) {
        Ok(listener) => listener,
        Err(error) => return tracing::error!(%error, "a link of the private network cannot be served"),
    };
    loop {
        let Ok((near, _)) = listener.accept().await else {
            tokio::time::sleep(ACCEPT_PAUSE).await;
            continue;
        };
        tokio::spawn(async move {
            let far = TcpStream::connect(to).await?;
            near.set_nodelay(true)?;
            far.set_nodelay(true)?;
            let (near_read, near_write) = near.into_split();
            let (far_read, far_write) = far.into_split();
            tokio::spawn(carry(near_read, far_write, one_way));
            tokio::spawn(carry(far_read, near_write, one_way));
            std::io::Result::Ok(())
        });
    }
}

async fn carry(
    mut from: impl AsyncRead + Send + Unpin + 'static,
    mut to: impl AsyncWrite + Send + Unpin,
    one_way: Duration,
) {
    let (sender, mut under_way) = mpsc::channel::<(Instant, Vec<u8>)>(UNDER_WAY);
    tokio::spawn(async move {
        let mut buffer = vec![0; READ];
        while let Ok(n @ 1..) = from.read(&mut buffer).await {
            if sender.send((Instant::now() + one_way, buffer[..n].to_vec())).await.is_err() {
                return;
            }
        }
    });
    while let Some((due, bytes)) = under_way.recv().await {
        tokio::time::sleep_until(due).await;
        if to.write_all(&bytes).await.is_err() {
            return;
        }
    }
    // The other side sees the end; an error means that it has gone already.
    let _ = to.shutdown().await;
}

/// Bytes read at once.
const READ: usize = 16 * 1024;

/// Reads that may be under way on one link and direction: 8 MiB, more than any window of Tor's lets out.
const UNDER_WAY: usize = 512;

/// The wait after a failed accept, so that a lasting cause does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::Ipv4Addr;

    use super::*;

    #[test]
    fn bytes_arrive_whole_and_late_in_both_directions() {
        let [begin, end] = std::array::from_fn(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap());
        let (address, to) = (begin.local_addr().unwrap(), end.local_addr().unwrap());
        let one_way = Duration::from_millis(100);
        let links = DelayedLinks::serve(vec![(begin, to)], one_way).unwrap();
        let echo = std::thread::spawn(move || {
            let (mut stream, _) = end.accept().unwrap();
            let mut bytes = vec![0; 100_000];
            stream.read_exact(&mut bytes).unwrap();
            stream.write_all(&bytes).unwrap();
            assert_eq!(stream.read(&mut bytes).unwrap(), 0, "the end is carried too");
        });
        let start = std::time::Instant::now();
        let mut stream = std::net::TcpStream::connect(address).unwrap();
        let sent: Vec<u8> = (0..100_000_u32).map(|n| n as u8).collect();
        stream.write_all(&sent).unwrap();
        let mut back = vec![0; sent.len()];
        stream.read_exact(&mut back).unwrap();
        assert!(start.elapsed() >= 2 * one_way);
        assert_eq!(back, sent);
        drop(stream);
        echo.join().unwrap();
        drop(links);
        assert!(std::net::TcpStream::connect(address).is_err(), "dropping them ends them");
    }
}
