//! What strangers and hostile peers cannot do to a node.

use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use hcp_core::identity::{Identity, OnionAddress};
use hcp_core::network::{BoxedTransport, DialError, HCP_PORT, ListenError, Listener, Network};
use hcp_core::node::{MAX_HANDSHAKES, Session};
use hcp_core::session::{HANDSHAKE_TIMEOUT, MAX_STREAMS, STREAM_WINDOW};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, timeout};

use super::harness::{DEAF, client, echoes, eventually, memory, server, soon};

/// The first bytes of an honest dialler.
async fn client_hello() -> Vec<u8> {
    let network = memory();
    let identity = Identity::generate();
    let mut listener = network.listen(&identity, &[HCP_PORT]).await.unwrap();
    let dialler = client(&network).await;
    let dialling = tokio::spawn(async move { dialler.connect(identity.address()).await.map(drop) });
    let mut stream = listener.accept().await.unwrap().stream;
    let mut hello = vec![0; 16 * 1024];
    let n = stream.read(&mut hello).await.unwrap();
    dialling.abort();
    hello.truncate(n);
    // A record of TLS, whole.
    assert_eq!((hello[0], n - 5), (22, usize::from(u16::from_be_bytes([hello[3], hello[4]]))));
    hello
}

#[tokio::test(start_paused = true)]
async fn a_flood_of_silent_handshakes_displaces_itself_and_nobody_else() {
    let network = memory();
    let (far, near) = (server(&network).await, client(&network).await);
    let before = near.connect(far.address()).await.unwrap();
    eventually("it is accepted", || far.stats().sessions_open == 1).await;
    let mut strangers = Vec::new();
    for _ in 0..20 * MAX_HANDSHAKES {
        strangers.push(network.dial(far.address(), HCP_PORT).await.unwrap());
    }
    let other = client(&network).await;
    let after = other.connect(far.address()).await.unwrap();
    echoes(&before, "a session from before").await;
    echoes(&after, "one from after").await;
    let displaced = far.stats().handshakes_displaced;
    assert!((19 * MAX_HANDSHAKES as u64..=20 * MAX_HANDSHAKES as u64).contains(&displaced), "{displaced}");
    // Those that are left end by their deadline.
    tokio::time::sleep(HANDSHAKE_TIMEOUT + Duration::from_secs(10)).await;
    assert_eq!(far.stats().handshakes_failed, 20 * MAX_HANDSHAKES as u64);
}

#[tokio::test(start_paused = true)]
async fn a_flood_of_handshakes_that_have_begun_cannot_keep_everybody_else_out() {
    const DIALS: usize = 40;
    let hello = client_hello().await;
    let network = memory();
    let (far, near) = (server(&network).await, client(&network).await);
    let before = near.connect(far.address()).await.unwrap();
    eventually("it is accepted", || far.stats().sessions_open == 1).await;
    let mut strangers = Vec::new();
    let mut stranger = async || {
        let mut stream = network.dial(far.address(), HCP_PORT).await.unwrap();
        // The place may have gone to another already.
        let _ = stream.write_all(&hello).await;
        strangers.push(stream);
    };
    for _ in 0..20 * MAX_HANDSHAKES {
        stranger().await;
    }
    // While half as many come as there are places, each dialler has some six chances in ten.
    let mut served = 0;
    for _ in 0..DIALS {
        let (other, address) = (client(&network).await, far.address());
        let dialling = tokio::spawn(async move { other.connect(address).await.map(|_| other) });
        for _ in 0..MAX_HANDSHAKES / 2 {
            stranger().await;
        }
        served += usize::from(dialling.await.unwrap().is_ok());
    }
    assert!(served >= DIALS / 5, "{served} of {DIALS} were served");
    echoes(&before, "a session from before").await;
    // Nothing is left of them but what may be under way at once.
    let stats = far.stats();
    let strangers = (20 * MAX_HANDSHAKES + DIALS * MAX_HANDSHAKES / 2) as u64;
    assert!(stats.handshakes_displaced >= strangers - MAX_HANDSHAKES as u64, "{stats:?}");
    tokio::time::sleep(HANDSHAKE_TIMEOUT + Duration::from_secs(10)).await;
    assert!(far.stats().handshakes_failed >= strangers, "{:?}", far.stats());
    soon(client(&network).await.connect(far.address())).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_handshake_that_trickles_ends_at_its_deadline() {
    let hello = client_hello().await;
    let network = memory();
    let far = server(&network).await;
    // Whole and then silent, or a byte a second.
    for trickle in [false, true] {
        let stream = network.dial(far.address(), HCP_PORT).await.unwrap();
        let (mut reader, mut writer) = tokio::io::split(stream);
        let began = Instant::now();
        let hello = hello.clone();
        let writing = tokio::spawn(async move {
            if !trickle {
                let _ = writer.write_all(&hello).await;
                std::future::pending::<()>().await;
            }
            for byte in hello {
                if writer.write_all(&[byte]).await.is_err() {
                    return;
                }
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        });
        let mut answer = Vec::new();
        let _ = timeout(Duration::from_secs(600), reader.read_to_end(&mut answer)).await.expect("the server hangs up");
        let took = began.elapsed();
        assert!((HANDSHAKE_TIMEOUT..HANDSHAKE_TIMEOUT + Duration::from_secs(6)).contains(&took), "{took:?}");
        assert_eq!(answer.is_empty(), trickle, "the whole hello is answered");
        writing.abort();
    }
}

/// Fills a stream that nobody reads until its window is full.
async fn fill(session: &Session) -> hcp_core::node::Stream {
    let mut stream = session.open(DEAF).await.unwrap();
    while timeout(Duration::from_secs(1), stream.send(vec![1; 50_000])).await.is_ok_and(|sent| sent.is_ok()) {}
    stream
}

#[tokio::test(start_paused = true)]
async fn streams_that_are_never_read_hold_their_windows_and_harm_no_other_session() {
    let network = memory();
    let (far, greedy, modest) = (server(&network).await, client(&network).await, client(&network).await);
    let session = greedy.connect(far.address()).await.unwrap();
    let mut streams = Vec::new();
    for _ in 0..MAX_STREAMS {
        streams.push(fill(&session).await);
    }
    let held = far.stats().bytes_held;
    let bound = u64::from(MAX_STREAMS) * STREAM_WINDOW;
    assert!(held > bound * 9 / 10 && held <= bound, "{held} of {bound}");
    let other = modest.connect(far.address()).await.unwrap();
    echoes(&other, "unharmed").await;
    // The session itself lives, too: what it holds is given back with its streams.
    drop(streams);
    eventually("nothing is held", || far.stats().bytes_held == 0).await;
    echoes(&session, "and so is this").await;
}

#[tokio::test(start_paused = true)]
async fn what_came_on_a_stream_is_gone_when_its_sender_resets_it() {
    let network = memory();
    let (far, near) = (server(&network).await, client(&network).await);
    let session = near.connect(far.address()).await.unwrap();
    let stream = fill(&session).await;
    assert!(far.stats().bytes_held > 500_000);
    drop(stream);
    eventually("nothing is held", || far.stats().bytes_held == 0).await;
}

/// A network that delivers what it is told to, for a while.
#[derive(Debug)]
struct Cut {
    network: Arc<dyn Network>,
    after: usize,
}

impl Network for Cut {
    fn dial(&self, address: OnionAddress, port: u16) -> BoxFuture<'_, Result<BoxedTransport, DialError>> {
        Box::pin(async move {
            let mut far = self.network.dial(address, port).await?;
            let (near, mut middle) = tokio::io::duplex(1024);
            let after = self.after;
            tokio::spawn(async move {
                let mut buffer = [0; 1024];
                let mut left = after;
                loop {
                    tokio::select! {
                        read = middle.read(&mut buffer) => {
                            let Ok(n @ 1..) = read else { return };
                            if n > left || far.write_all(&buffer[..n]).await.is_err() {
                                return;
                            }
                            left -= n;
                        }
                        read = far.read_u8() => {
                            let Ok(byte) = read else { return };
                            if middle.write_all(&[byte]).await.is_err() {
                                return;
                            }
                        }
                    }
                }
            });
            Ok(Box::new(near) as BoxedTransport)
        })
    }

    fn listen<'a>(&'a self, identity: &'a Identity, ports: &'a [u16]) -> BoxFuture<'a, Result<Listener, ListenError>> {
        self.network.listen(identity, ports)
    }
}

#[tokio::test(start_paused = true)]
async fn connections_that_break_at_any_point_leave_nothing_behind() {
    let network = memory();
    let far = server(&network).await;
    let mut broken = 0;
    for after in (0..6_000).step_by(500) {
        let near = client(&(Arc::new(Cut { network: Arc::clone(&network), after }) as Arc<dyn Network>)).await;
        if let Ok(session) = soon(near.connect(far.address())).await {
            let Ok(mut stream) = session.open(DEAF).await else { continue };
            while soon(stream.send(vec![0; 1_000])).await.is_ok() {}
            soon(session.closed()).await;
        }
        broken += 1;
    }
    assert!(broken > 8, "{broken}");
    eventually("all sessions are over", || far.stats().sessions_open == 0 && far.stats().bytes_held == 0).await;
    echoes(&client(&network).await.connect(far.address()).await.unwrap(), "as if nothing was").await;
}
