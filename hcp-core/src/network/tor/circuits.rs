//! The circuits that clients build to the services of a network.
//!
//! They belong to the network, not to a service: an accepted stream lives on when its listener is dropped or its
//! service is launched anew.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::{Stream, StreamExt as _};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tor_cell::relaycell::msg::{Connected, End, EndReason};
use tor_hsservice::{RendRequest, StreamRequest};
use tor_proto::stream::IncomingStreamRequest;
use tracing::debug;

use super::served::Served;
use crate::network::Incoming;

/// Open circuits; they end with the set.
pub(super) struct Circuits {
    tasks: Mutex<JoinSet<()>>,
    places: Arc<Semaphore>,
}

impl Circuits {
    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        while tasks.try_join_next().is_some() {}
        tasks.spawn(task);
    }
}

impl Default for Circuits {
    fn default() -> Self {
        Self { tasks: Mutex::default(), places: Arc::new(Semaphore::new(MAX_CIRCUITS)) }
    }
}

/// Answers the clients that ask for a rendezvous, until the service ends.
pub(super) async fn answer(
    requests: impl Stream<Item = RendRequest> + Send,
    address: [u8; 32],
    served: Arc<Served>,
    circuits: Arc<Circuits>,
) {
    let pending = Arc::new(Semaphore::new(MAX_PENDING));
    let mut requests = std::pin::pin!(requests);
    while let Some(request) = requests.next().await {
        let Ok(turn) = Arc::clone(&pending).acquire_owned().await else { return };
        let Ok(place) = Arc::clone(&circuits.places).try_acquire_owned() else {
            debug!("too many circuits; a client is left without an answer");
            continue;
        };
        let served = Arc::clone(&served);
        circuits.spawn(async move {
            let met = timeout(RENDEZVOUS_DEADLINE, request.accept()).await;
            drop(turn);
            match met {
                Ok(Ok(streams)) => serve(streams, &address, &served).await,
                Ok(Err(error)) => debug!(%error, "a rendezvous failed"),
                Err(_) => debug!("a rendezvous took too long"),
            }
            drop(place);
        });
    }
}

/// Serves the streams of one circuit; the circuit lives as long as this does.
///
/// A port that nobody serves is refused the way C tor refuses it.
async fn serve(mut streams: impl Stream<Item = StreamRequest> + Unpin, address: &[u8; 32], served: &Served) {
    while let Some(stream) = streams.next().await {
        let port = match stream.request() {
            IncomingStreamRequest::Begin(begin) => begin.port(),
            _ => {
                let _ = stream.shutdown_circuit();
                return;
            }
        };
        let Some(place) = served.place(address, port) else {
            let refused = stream.reject(End::new_with_reason(EndReason::DONE));
            if timeout(REPLY_DEADLINE, refused).await.is_err() {
                return;
            }
            continue;
        };
        match timeout(REPLY_DEADLINE, stream.accept(Connected::new_empty())).await {
            Ok(Ok(stream)) => {
                place.send(Incoming { port, stream: Box::new(stream) });
            }
            Ok(Err(error)) => debug!(%error, "a stream could not be accepted"),
            Err(_) => return,
        }
    }
}

/// Longer than any client waits for its rendezvous.
const RENDEZVOUS_DEADLINE: Duration = Duration::from_secs(60);

/// A circuit that takes no cell for so long is dead.
const REPLY_DEADLINE: Duration = Duration::from_secs(30);

/// Rendezvous under way at once; each builds a circuit, and more would only slow each other down.
const MAX_PENDING: usize = 64;

/// Circuits open at once; an idle one costs some 50 kB, so that a flood costs at most 400 MB.
const MAX_CIRCUITS: usize = 8192;
