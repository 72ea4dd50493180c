//! The sessions of a node: which one to use with a peer, and which driver takes a lane.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, mpsc};

use super::channel::{Command, Shared, Standing};
use super::failure::{Failure, Failures};
use super::pipe::Pipe;
use super::registry::{Registry, Verdict};
use super::session::Session;
use crate::identity::OnionAddress;
use crate::session::{Acceptor, CLOSE_REPLACED, Formerly, JoinRequest, LaneHint, MAX_LANES, SessionId};

/// Lanes that may wait for a session's driver; others are refused.
pub(super) const LANE_QUEUE: usize = MAX_LANES;

/// A connection that asks to be a lane, as it is handed to the driver of the session that it names.
pub(super) struct Offer {
    pub(super) request: Box<JoinRequest>,
    pub(super) pipe: Pipe,
}

/// Reaches a session without keeping it alive.
#[derive(Clone, Debug)]
pub(super) struct WeakSession {
    pub(super) commands: mpsc::WeakSender<Command>,
    pub(super) shared: Arc<Shared>,
}

impl WeakSession {
    /// The session, if it lives and takes new streams.
    fn usable(&self) -> Option<Session> {
        let open = matches!(*self.shared.standing.borrow(), Standing::Open);
        let commands = self.commands.upgrade().filter(|_| open)?;
        Some(Session { commands, shared: Arc::clone(&self.shared) })
    }
}

/// The sessions of one address with identified peers.
#[derive(Debug)]
pub(super) struct Sessions {
    registry: Mutex<Registry<SessionId, WeakSession>>,
    failures: Mutex<Failures>,
    changed: Notify,
}

impl Sessions {
    pub(super) fn new(me: OnionAddress) -> Arc<Self> {
        Arc::new(Self { registry: Mutex::new(Registry::new(me)), failures: Mutex::default(), changed: Notify::new() })
    }

    /// The session with a peer in which new streams are opened.
    pub(super) fn current(&self, peer: OnionAddress) -> Option<Session> {
        self.registry().current(peer).and_then(|(_, session)| session.usable())
    }

    /// The id of [`Self::current`].
    pub(super) fn current_id(&self, peer: OnionAddress) -> Option<SessionId> {
        self.current(peer).map(|session| session.shared.id)
    }

    /// Waits for a session with a peer. Cancel-safe.
    pub(super) async fn wait(&self, peer: OnionAddress) -> Session {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            // Registered before looking, so that nothing is missed in between.
            changed.as_mut().enable();
            if let Some(session) = self.current(peer) {
                return session;
            }
            changed.await;
        }
    }

    /// Notes that a session with a peer has failed.
    pub(super) fn failed(&self, peer: OnionAddress, failure: Failure) {
        self.failures().note(peer, failure);
    }

    /// How the last session with a peer has failed, where that was a moment ago.
    pub(super) fn failure(&self, peer: OnionAddress) -> Option<Failure> {
        self.failures().of(peer)
    }

    /// Takes an established session in until the returned guard is dropped, and drains those that it replaces.
    pub(super) fn enter(
        self: &Arc<Self>,
        peer: OnionAddress,
        known: Option<SessionId>,
        session: WeakSession,
    ) -> Entered {
        let id = session.shared.id;
        self.failures().forget(peer);
        let Verdict { drain, end } = self.registry().began(peer, id, known, session);
        for replaced in drain {
            replaced.shared.standing.send_if_modified(Standing::drain);
            replaced.shared.signals.tell(|told| told.drain = Some(CLOSE_REPLACED));
        }
        for ended in end {
            ended.shared.standing.send_if_modified(Standing::drain);
            ended.shared.signals.tell(|told| told.end = Some(CLOSE_REPLACED));
        }
        self.changed.notify_waiters();
        Entered { sessions: Arc::clone(self), peer, id }
    }

    fn failures(&self) -> MutexGuard<'_, Failures> {
        self.failures.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn registry(&self) -> MutexGuard<'_, Registry<SessionId, WeakSession>> {
        self.registry.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A session's place among those of its peer.
#[derive(Debug)]
pub(super) struct Entered {
    sessions: Arc<Sessions>,
    peer: OnionAddress,
    id: SessionId,
}

impl Entered {
    /// One of the two sides drains the session.
    pub(super) fn drains(&self) {
        self.sessions.registry().drains(self.peer, self.id);
        self.sessions.changed.notify_waiters();
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        self.sessions.registry().ended(self.peer, self.id);
        self.sessions.changed.notify_waiters();
    }
}

/// Which driver takes a lane, and which key the lane is shown: those of the sessions that a node has accepted. A key that is
/// shown no more to others lives as long as a session here does.
#[derive(Debug, Default)]
pub(super) struct LaneTable {
    takers: Mutex<HashMap<LaneHint, Taker>>,
}

/// Whoever takes the lanes of a session.
#[derive(Debug)]
struct Taker {
    driver: mpsc::Sender<Offer>,
    acceptor: Arc<Acceptor>,
}

impl LaneTable {
    /// Takes lanes for a session until the returned guard is dropped.
    fn enter(self: &Arc<Self>, id: SessionId, acceptor: Arc<Acceptor>) -> (LanesTaken, mpsc::Receiver<Offer>) {
        let (driver, offers) = mpsc::channel(LANE_QUEUE);
        let hint = id.lane_hint();
        self.takers().insert(hint, Taker { driver, acceptor });
        (LanesTaken { table: Arc::clone(self), hint }, offers)
    }

    /// Hands a connection to the session that it names, or back.
    fn offer(&self, offer: Offer) -> Result<(), Offer> {
        let hint = offer.request.session_id().lane_hint();
        let driver = self.takers().get(&hint).map(|taker| taker.driver.clone());
        match driver {
            Some(driver) => driver.try_send(offer).map_err(mpsc::error::TrySendError::into_inner),
            None => Err(offer),
        }
    }

    fn takers(&self) -> MutexGuard<'_, HashMap<LaneHint, Taker>> {
        self.takers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Formerly for LaneTable {
    fn acceptor_of(&self, hint: &LaneHint) -> Option<Arc<Acceptor>> {
        self.takers().get(hint).map(|taker| Arc::clone(&taker.acceptor))
    }
}

/// The table as the sessions see it that one acceptor has accepted.
#[derive(Clone, Debug)]
pub(super) struct LaneHost {
    pub(super) table: Arc<LaneTable>,
    pub(super) acceptor: Arc<Acceptor>,
}

impl LaneHost {
    /// Takes lanes for a session until the returned guard is dropped.
    pub(super) fn enter(&self, id: SessionId) -> (LanesTaken, mpsc::Receiver<Offer>) {
        self.table.enter(id, Arc::clone(&self.acceptor))
    }

    /// Hands a connection to the session that it names, or back.
    pub(super) fn offer(&self, offer: Offer) -> Result<(), Offer> {
        self.table.offer(offer)
    }
}

/// A session's place in the table.
#[derive(Debug)]
pub(super) struct LanesTaken {
    table: Arc<LaneTable>,
    hint: LaneHint,
}

impl Drop for LanesTaken {
    fn drop(&mut self) {
        self.table.takers().remove(&self.hint);
    }
}

impl Standing {
    /// Goes from open to draining; whether it did.
    pub(super) fn drain(&mut self) -> bool {
        let open = matches!(self, Self::Open);
        if open {
            *self = Self::Draining;
        }
        open
    }
}
