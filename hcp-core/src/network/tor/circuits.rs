//! The circuits that clients build to the services of a network.
//!
//! They belong to the network, not to a service: an accepted stream lives on when its listener is dropped or its
//! service is launched anew.
//!
//! Invariants: each address has places of its own, so that a flood at a public one does not cut off the others; a
//! circuit without a stream ends after a while.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::BoxStream;
use futures::{FutureExt as _, Stream, StreamExt as _};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::timeout;
use tor_cell::relaycell::msg::{Connected, End, EndReason};
use tor_circmgr::ServiceOnionServiceDataTunnel;
use tor_hsservice::{RendRequest, StreamRequest};
use tor_proto::client::stream::DataStream;
use tor_proto::stream::{IncomingStream, IncomingStreamRequest};
use tracing::debug;

use super::served::Served;
use crate::network::{BoxedTransport, Incoming, Transport};

/// Open circuits; they end with the set.
#[derive(Default)]
pub(super) struct Circuits {
    tasks: Mutex<JoinSet<()>>,
    /// The places of an address live as long as circuits to it, whoever serves it meanwhile.
    places: Mutex<HashMap<[u8; 32], Weak<Semaphore>>>,
}

impl Circuits {
    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) -> AbortHandle {
        let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        while tasks.try_join_next().is_some() {}
        tasks.spawn(task)
    }

    /// A place for one more circuit to the address; none when it has too many.
    fn place(&self, address: [u8; 32]) -> Option<OwnedSemaphorePermit> {
        let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        let own = places.get(&address).and_then(Weak::upgrade).unwrap_or_else(|| {
            places.retain(|_, places| places.strong_count() > 0);
            let own = Arc::new(Semaphore::new(MAX_CIRCUITS));
            places.insert(address, Arc::downgrade(&own));
            own
        });
        own.try_acquire_owned().ok()
    }
}

/// A client that asks for a rendezvous.
pub(super) trait Rendezvous: Send + 'static {
    /// Meets the client; gives the streams that it opens.
    ///
    /// The circuit to it lives as long as what this gives, and as those of its streams that were neither accepted nor refused.
    fn meet(self) -> BoxFuture<'static, Result<BoxStream<'static, ClientStream>, BoxedError>>;
}

impl Rendezvous for RendRequest {
    fn meet(self) -> BoxFuture<'static, Result<BoxStream<'static, ClientStream>, BoxedError>> {
        async move { Ok(self.accept().await?.map(ClientStream::Arti).boxed()) }.boxed()
    }
}

/// A stream that a client asks for.
pub(super) enum ClientStream {
    /// At a service of Arti's.
    Arti(StreamRequest),
    /// At a service of this library's, with the circuit that it came on.
    Own(IncomingStream, Arc<ServiceOnionServiceDataTunnel>),
}

impl ClientStream {
    /// The virtual port that it is for; none when it is no stream to a port.
    ///
    /// The address that it names does not matter, as in C tor: it says nothing that the circuit does not say.
    fn port(&self) -> Option<u16> {
        let request = match self {
            Self::Arti(request) => request.request(),
            Self::Own(stream, _) => stream.request(),
        };
        match request {
            IncomingStreamRequest::Begin(begin) => Some(begin.port()),
            _ => None,
        }
    }

    async fn accept(self) -> Result<DataStream, BoxedError> {
        let connected = Connected::new_empty();
        Ok(match self {
            Self::Arti(request) => request.accept(connected).await?,
            Self::Own(stream, _) => stream.accept_data(connected).await?,
        })
    }

    /// Refuses it for the reason that every refusal has.
    async fn refuse(self) -> Result<(), BoxedError> {
        let end = End::new_with_reason(EndReason::DONE);
        match self {
            Self::Arti(request) => request.reject(end).await?,
            Self::Own(stream, _) => stream.reject(end).await?,
        }
        Ok(())
    }

    fn close_circuit(self) {
        match self {
            Self::Arti(request) => {
                let _ = request.shutdown_circuit();
            }
            Self::Own(_, circuit) => circuit.terminate(),
        }
    }
}

/// Answers the clients that ask for a rendezvous, until the service ends.
///
/// Nobody waits for a turn: a client names the relay to meet at, and one that names relays that never answer would keep
/// all others waiting. When too many are under way, the oldest is given up.
pub(super) async fn answer(
    requests: impl Stream<Item = impl Rendezvous> + Send,
    address: [u8; 32],
    served: Arc<Served>,
    circuits: Arc<Circuits>,
) {
    let mut pending = Pending::default();
    let mut requests = std::pin::pin!(requests);
    while let Some(request) = requests.next().await {
        pending.make_room(MAX_PENDING);
        let Some(place) = circuits.place(address) else {
            debug!("too many circuits; a client is left without an answer");
            continue;
        };
        let served = Arc::clone(&served);
        pending.push(|turn| {
            circuits.spawn(async move {
                let met = timeout(RENDEZVOUS_DEADLINE, request.meet()).await;
                drop(turn);
                match met {
                    Ok(Ok(streams)) => serve(streams, &address, &served).await,
                    Ok(Err(error)) => debug!(%error, "a rendezvous failed"),
                    Err(_) => debug!("a rendezvous took too long"),
                }
                drop(place);
            })
        });
    }
}

/// Tasks that have not got anywhere yet, oldest first.
#[derive(Default)]
struct Pending(VecDeque<(AbortHandle, Weak<()>)>);

impl Pending {
    /// Adds a task; it is pending until it drops what it is given.
    fn push(&mut self, spawn: impl FnOnce(Arc<()>) -> AbortHandle) {
        let turn = Arc::new(());
        let watched = Arc::downgrade(&turn);
        self.0.push_back((spawn(turn), watched));
    }

    /// Ends the oldest task when `limit` of them are pending.
    fn make_room(&mut self, limit: usize) {
        self.0.retain(|(_, turn)| turn.strong_count() > 0);
        if self.0.len() >= limit
            && let Some((oldest, _)) = self.0.pop_front()
        {
            oldest.abort();
        }
    }
}

/// Serves the streams of one circuit; the circuit lives as long as this does, which is until it has been idle for long.
///
/// A port that nobody serves is refused the way C tor refuses it.
async fn serve(mut streams: impl Stream<Item = ClientStream> + Unpin, address: &[u8; 32], served: &Served) {
    let (open, idle) = watch::channel(0);
    let open = Arc::new(open);
    let mut idle = std::pin::pin!(idle_for(IDLE_DEADLINE, idle));
    loop {
        let stream = tokio::select! {
            stream = streams.next() => stream,
            () = &mut idle => return debug!("a circuit was idle for too long"),
        };
        let Some(stream) = stream else { return };
        let Some(port) = stream.port() else { return stream.close_circuit() };
        let Some(place) = served.place(address, port) else {
            if timeout(REPLY_DEADLINE, stream.refuse()).await.is_err() {
                return;
            }
            continue;
        };
        match timeout(REPLY_DEADLINE, stream.accept()).await {
            Ok(Ok(stream)) => {
                place.send(Incoming { port, stream: Box::new(Counted::new(stream, &open)) });
            }
            Ok(Err(error)) => debug!(%error, "a stream could not be accepted"),
            Err(_) => return,
        }
    }
}

/// Waits until nothing has been open for so long; `open` tells how many streams are.
async fn idle_for(deadline: Duration, mut open: watch::Receiver<usize>) {
    loop {
        if *open.borrow_and_update() > 0 {
            if open.changed().await.is_err() {
                return;
            }
        } else if !matches!(timeout(deadline, open.changed()).await, Ok(Ok(()))) {
            return;
        }
    }
}

/// A stream that is counted as open until it is dropped.
struct Counted {
    stream: BoxedTransport,
    open: Arc<watch::Sender<usize>>,
}

impl Counted {
    fn new(stream: impl Transport, open: &Arc<watch::Sender<usize>>) -> Self {
        open.send_modify(|open| *open += 1);
        Self { stream: Box::new(stream), open: Arc::clone(open) }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.open.send_modify(|open| *open -= 1);
    }
}

impl AsyncRead for Counted {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Counted {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// A rendezvous takes a few seconds on the public network; clients begin another one before this is over.
const RENDEZVOUS_DEADLINE: Duration = Duration::from_secs(20);

/// A circuit that takes no cell for so long is dead.
const REPLY_DEADLINE: Duration = Duration::from_secs(30);

type BoxedError = Box<dyn std::error::Error + Send + Sync>;

/// A program opens one stream per session and lane; C tor clients put all connections of one application on a circuit.
/// Beyond this the circuit is closed.
pub(super) const MAX_STREAMS_PER_CIRCUIT: u32 = 32;

/// Rendezvous under way at once: so many that nobody who takes three seconds is displaced by less than 170 requests a
/// second, and a fourth of the circuits that may be open.
const MAX_PENDING: usize = 512;

/// Circuits open at once, to each address. An idle one costs some 50 kB: a flood at both addresses of a node, its own and
/// the shared one, costs some 205 MB, less than the memory limit of 256 MiB at which Arti would close circuits.
const MAX_CIRCUITS: usize = 2048;

/// A client that comes back later builds a new circuit, in seconds.
const IDLE_DEADLINE: Duration = Duration::from_secs(180);

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_oldest_pending_task_makes_room_and_those_that_got_on_stay() {
        let mut pending = Pending::default();
        let mut tasks = JoinSet::new();
        // The first task is not pending any more.
        pending.push(|turn| {
            drop(turn);
            tasks.spawn(std::future::pending::<()>())
        });
        for _ in 0..2 {
            pending.push(|turn| {
                tasks.spawn(async move {
                    std::future::pending::<()>().await;
                    drop(turn);
                })
            });
        }
        let oldest = pending.0[1].0.id();
        pending.make_room(3);
        assert_eq!(pending.0.len(), 2);
        pending.make_room(2);
        assert_eq!(pending.0.len(), 1);
        let ended = tasks.join_next().await.unwrap().unwrap_err();
        assert_eq!(ended.id(), oldest);
        assert_eq!(tasks.len(), 2);
    }

    #[test]
    fn a_flood_at_one_address_leaves_places_at_another() {
        let circuits = Circuits::default();
        let mut flood: Vec<_> = std::iter::from_fn(|| circuits.place([1; 32])).collect();
        assert_eq!(flood.len(), MAX_CIRCUITS);
        assert!(circuits.place([2; 32]).is_some());
        assert!(circuits.place([1; 32]).is_none());
        flood.pop();
        assert!(circuits.place([1; 32]).is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn a_circuit_is_idle_only_when_its_last_stream_has_been_closed_for_long() {
        let deadline = Duration::from_secs(1);
        let (open, watched) = watch::channel(0);
        let open = Arc::new(open);
        let mut idle = std::pin::pin!(idle_for(deadline, watched));
        let counted = || Counted::new(tokio::io::duplex(1).0, &open);
        let (first, second) = (counted(), counted());
        assert!(timeout(deadline * 5, &mut idle).await.is_err());
        drop(first);
        assert!(timeout(deadline * 5, &mut idle).await.is_err());
        drop(second);
        assert!(timeout(deadline / 2, &mut idle).await.is_err());
        // One that comes and goes begins the wait anew.
        drop(counted());
        assert!(timeout(deadline * 3 / 4, &mut idle).await.is_err());
        assert!(timeout(deadline / 2, &mut idle).await.is_ok());
    }
}
