//! Accepting: from a listener's connections to sessions, and to lanes of those.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};

use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, timeout};

use super::MAX_HANDSHAKES;
use super::driver::{self, Environment, LINGER, Lanes};
use super::event::count;
use super::pipe::{Pipe, READ_BUFFER, Step};
use super::places::Places;
use super::sessions::Offer;
use crate::network::{BoxedTransport, Incoming, Listener};
use crate::session::{Accepted, Accepting, Acceptor, CLOSE_BUSY, Event, Formerly, Machine, PRIMARY, SessionError};

/// Accepts until the listener stops, each connection under what `present` holds by then. Dropping the future ends all that
/// it has accepted, which is `max_sessions` at a time at the most: each listener has places of its own, so that strangers at a
/// service's address keep nobody from the node's own.
pub(super) async fn accept_all(
    mut listener: Listener,
    present: watch::Receiver<Arc<Acceptor>>,
    environment: Environment,
    max_sessions: usize,
) {
    let places = Arc::new(Places::new(max_sessions));
    let mut handshakes: Vec<(AbortHandle, Weak<Pending>)> = Vec::new();
    let mut tasks = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(_) = tasks.join_next() => continue,
        };
        let Some(Incoming { stream, .. }) = accepted else { break };
        handshakes.retain(|(_, pending)| pending.strong_count() > 0);
        if handshakes.len() >= MAX_HANDSHAKES {
            handshakes.remove(displaced(&handshakes)).0.abort();
            count(&environment.telling.counts.handshakes_displaced);
            count(&environment.telling.counts.handshakes_failed);
        }
        let pending = Arc::new(Pending::default());
        let watched = Arc::downgrade(&pending);
        let acceptor = Arc::clone(&present.borrow());
        let handshake = tasks.spawn(serve(acceptor, environment.clone(), Arc::clone(&places), stream, pending));
        handshakes.push((handshake, watched));
    }
    // Who is served goes on being served.
    while tasks.join_next().await.is_some() {}
}

/// A connection whose handshake is under way.
#[derive(Debug, Default)]
struct Pending {
    /// Whether anything has come on it.
    spoke: AtomicBool,
}

/// Which handshake makes room for another: the oldest of those that have said nothing; when all have, any, so that who dials
/// in the middle of a flood has a chance that the flood cannot take away.
fn displaced(handshakes: &[(AbortHandle, Weak<Pending>)]) -> usize {
    let silent =
        |pending: &Weak<Pending>| pending.upgrade().is_none_or(|pending| !pending.spoke.load(Ordering::Relaxed));
    let oldest = handshakes.iter().position(|(_, pending)| silent(pending));
    oldest.unwrap_or_else(|| rand::random_range(0..handshakes.len()))
}

/// Serves a connection, whatever it turns out to be.
async fn serve(
    acceptor: Arc<Acceptor>,
    mut environment: Environment,
    places: Arc<Places>,
    transport: BoxedTransport,
    pending: Arc<Pending>,
) {
    let Lanes::Accepted(host) = &mut environment.lanes else { return };
    let former = Arc::clone(&host.table) as Arc<dyn Formerly>;
    let (accepted, pipe) = match shake(&acceptor, former, transport, &pending).await {
        Ok(accepted) => accepted,
        Err(error) => {
            count(&environment.telling.counts.handshakes_failed);
            return tracing::debug!(%error, "a dialler failed the handshake");
        }
    };
    match accepted {
        Accepted::Session(machine) => {
            host.acceptor = acceptor;
            serve_session(machine, pipe, environment, &places, pending).await;
        }
        Accepted::Lane(request) => {
            if let Err(Offer { request, pipe }) = host.offer(Offer { request: Box::new(request), pipe }) {
                count(&environment.telling.counts.lanes_failed);
                let mut words = Some(request.refuse());
                let _ = timeout(LINGER, pipe.finish(|out| out.extend(words.take().unwrap_or_default()))).await;
            }
        }
    }
}

async fn serve_session(
    mut machine: Box<Machine>,
    pipe: Pipe,
    environment: Environment,
    places: &Places,
    pending: Arc<Pending>,
) {
    // Only what has established both is handed out as a session.
    let (Some(Event::Established(peer)), Some(id)) = (machine.poll_event(), machine.session_id()) else {
        return tracing::error!("an accepted session is not established");
    };
    let Some(_place) = places.take().await else {
        count(&environment.telling.counts.sessions_refused);
        machine.close(CLOSE_BUSY);
        let words = pipe.finish(|out| machine.poll_output(Instant::now(), PRIMARY, out));
        let _ = timeout(LINGER, words).await;
        return;
    };
    drop(pending);
    let (session, drive) = driver::start(machine, pipe, peer, id, environment);
    places.note(&session.shared);
    drive.await;
    // For want of use the dialler ends a session; here it only makes room.
    drop(session);
}

/// Runs the handshake, within the acceptor's deadline.
async fn shake(
    acceptor: &Arc<Acceptor>,
    former: Arc<dyn Formerly>,
    transport: BoxedTransport,
    pending: &Pending,
) -> Result<(Accepted, Pipe), SessionError> {
    let mut accepting = Accepting::knowing(acceptor, former, Instant::now())?;
    let mut pipe = Pipe::new(transport);
    let mut input = vec![0; READ_BUFFER];
    let error = loop {
        let deadline = accepting.poll_timeout();
        let moved = match pipe.step(&mut input, deadline, |out| accepting.poll_output(out)).await? {
            Step::Read(n) => {
                pending.spoke.store(true, Ordering::Relaxed);
                accepting.handle_input(Instant::now(), &input[..n])
            }
            Step::Wrote => Ok(None),
            Step::Deadline => accepting.handle_timeout(Instant::now()).map(|()| None),
        };
        match moved {
            Ok(Some(accepted)) => return Ok((accepted, pipe)),
            Ok(None) => {}
            Err(error) => break error,
        }
    };
    let _ = timeout(LINGER, pipe.finish(|out| accepting.poll_output(out))).await;
    Err(error)
}
