//! The circuits that clients build to the services of a network.
//!
//! They belong to the network, not to a service: an accepted stream lives on when its listener is dropped or its
//! service is launched anew.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use futures::{Stream, StreamExt as _};
use tokio::sync::Semaphore;
use tokio::task::{AbortHandle, JoinSet};
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
    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) -> AbortHandle {
        let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        while tasks.try_join_next().is_some() {}
        tasks.spawn(task)
    }
}

impl Default for Circuits {
    fn default() -> Self {
        Self { tasks: Mutex::default(), places: Arc::new(Semaphore::new(MAX_CIRCUITS)) }
    }
}

/// Answers the clients that ask for a rendezvous, until the service ends.
///
/// Nobody waits for a turn: a client names the relay to meet at, and one that names relays that never answer would keep
/// all others waiting. When too many are under way, the oldest is given up.
pub(super) async fn answer(
    requests: impl Stream<Item = RendRequest> + Send,
    address: [u8; 32],
    served: Arc<Served>,
    circuits: Arc<Circuits>,
) {
    let mut pending = Pending::default();
    let mut requests = std::pin::pin!(requests);
    while let Some(request) = requests.next().await {
        pending.make_room(MAX_PENDING);
        let Ok(place) = Arc::clone(&circuits.places).try_acquire_owned() else {
            debug!("too many circuits; a client is left without an answer");
            continue;
        };
        let served = Arc::clone(&served);
        pending.push(|turn| {
            circuits.spawn(async move {
                let met = timeout(RENDEZVOUS_DEADLINE, request.accept()).await;
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

/// A rendezvous takes a few seconds on the public network; clients begin another one before this is over.
const RENDEZVOUS_DEADLINE: Duration = Duration::from_secs(20);

/// A circuit that takes no cell for so long is dead.
const REPLY_DEADLINE: Duration = Duration::from_secs(30);

/// Rendezvous under way at once: so many that nobody who takes three seconds is displaced by less than 170 requests a
/// second, and few beside the circuits that are open.
const MAX_PENDING: usize = 512;

/// Circuits open at once; an idle one costs some 50 kB, so that a flood costs at most 400 MB.
const MAX_CIRCUITS: usize = 8192;

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
}
