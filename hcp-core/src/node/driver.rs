//! Joins a session's machine with its transports and its streams; one task a session.
//!
//! The task polls the primary connection and the lanes in turn, a few reads and one batch of each at a time, so that none
//! starves the others.

mod end;
mod lanes;
mod streams;

use std::collections::HashMap;
use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, Sleep};

use self::end::Obituary;
use self::lanes::{LaneDials, Taking};
use self::streams::Attached;
use super::backlog::Backlog;
use super::channel::{Command, Shared, Standing};
use super::event::{DialledBy, Telling};
use super::ledger::{Eviction, Ledger};
use super::pipe::Pipe;
use super::router::Router;
use super::session::Session;
use super::sessions::{Entered, LaneHost, Sessions, WeakSession};
use crate::identity::OnionAddress;
use crate::identity::delegation::SerialFloors;
use crate::network::Network;
use crate::session::{CLOSE_SHUTDOWN, ConnId, Machine, PRIMARY, Peer, SessionError, SessionId, StreamId};

/// Commands that may wait for a session's driver; senders wait beyond it.
const COMMAND_QUEUE: usize = 64;
/// How long the last bytes of a session may take to go out, and its handlers to finish with what has come in.
pub(super) const LINGER: Duration = Duration::from_secs(5);

/// How often a connection is read before others have their turn; each time gives one record of TLS at the most.
const READS: usize = 4;
/// Bytes of messages that are delivered before those who wait for them have their turn, while all of it is still in the
/// processor's cache: a fast peer would have megabytes lie about first.
const DELIVERED_AT_ONCE: usize = 128 * 1024;
/// Turns after which what a session has done is shown to whoever asks, if it never rests meanwhile.
const SHOWN_AFTER: u32 = 64;

/// What the sessions of a listener, or those that a node dials, have in common.
#[derive(Clone, Debug)]
pub(super) struct Environment {
    pub(super) router: Arc<Router>,
    /// Where sessions with identified peers are entered; `None` for those that nobody is to find again.
    pub(super) sessions: Option<Arc<Sessions>>,
    pub(super) telling: Arc<Telling>,
    /// What peers make the node hold.
    pub(super) ledger: Arc<Ledger>,
    /// What the node keeps of what its applications have sent.
    pub(super) backlog: Arc<Ledger>,
    pub(super) floors: SerialFloors,
    /// Bytes of the latter that a session may have.
    pub(super) send_budget: usize,
    pub(super) lanes: Lanes,
}

/// Where a session's lanes come from.
#[derive(Clone, Debug)]
pub(super) enum Lanes {
    /// This side dials them.
    Dialled { network: Arc<dyn Network>, target: OnionAddress },
    /// The peer dials them, and the accept loop hands them on.
    Accepted(LaneHost),
}

impl Environment {
    fn dialled_by(&self) -> DialledBy {
        match self.lanes {
            Lanes::Dialled { .. } => DialledBy::Us,
            Lanes::Accepted(_) => DialledBy::Peer,
        }
    }
}

/// A connection of the session.
struct Connection {
    id: ConnId,
    pipe: Pipe,
    since: Instant,
}

struct Driver {
    /// Large, and what drives it is moved about.
    machine: Box<Machine>,
    /// The primary is the first; lanes follow.
    connections: Vec<Connection>,
    /// Whose turn it is to be looked at first.
    turn: usize,
    timer: Pin<Box<Sleep>>,
    queue: mpsc::Receiver<Command>,
    commands: mpsc::WeakSender<Command>,
    /// What was taken out of the queue; empty between turns.
    taken: Vec<Command>,
    /// All handles are gone: the queue is closed.
    unwatched: bool,
    streams: HashMap<StreamId, Attached>,
    handlers: JoinSet<()>,
    /// Connections that say their last words.
    closing: JoinSet<()>,
    lane_dials: LaneDials,
    lanes_taken: Option<Taking>,
    environment: Environment,
    shared: Arc<Shared>,
    entered: Option<Entered>,
    /// What of the holder's account stands for the machine.
    machine_held: usize,
    /// Bytes of messages since others had their turn.
    delivered: usize,
    /// Turns since its statistics were shown.
    unshown: u32,
    /// No stream is left, and it is this side's turn to close.
    drained: bool,
    /// The code to close with once no stream is left.
    drain_code: u32,
    /// When a drain that nobody watches is given up.
    drain_deadline: Option<Instant>,
    obituary: Obituary,
}

/// Makes an established machine a session. The future drives it and must be polled as long as the session lives; it ends by
/// itself when a dialled session's handles are gone.
pub(super) fn start(
    machine: Box<Machine>,
    pipe: Pipe,
    peer: Peer,
    id: SessionId,
    environment: Environment,
) -> (Session, impl Future<Output = ()> + Send + 'static) {
    let (commands, queue) = mpsc::channel(COMMAND_QUEUE);
    let dialled_by = environment.dialled_by();
    let eviction = Arc::<Eviction>::default();
    let shared = Arc::new(Shared {
        id,
        peer,
        dialled_by,
        delegation: machine.delegation().cloned(),
        floors: environment.floors.clone(),
        standing: watch::Sender::new(Standing::Open),
        stats: Mutex::new(machine.stats()),
        signals: Default::default(),
        holder: environment.ledger.holder(&eviction),
        backlog: Backlog::new(environment.send_budget, environment.backlog.holder(&eviction)),
        eviction,
    });
    let session = Session { commands, shared: Arc::clone(&shared) };
    let weak = WeakSession { commands: session.commands.downgrade(), shared: Arc::clone(&shared) };
    let lanes_taken = match &environment.lanes {
        Lanes::Dialled { .. } => None,
        Lanes::Accepted(host) => Some(Taking::new(host, id)),
    };
    let obituary = Obituary::new(Arc::clone(&shared), Arc::clone(&environment.telling));
    let entered = match (&environment.sessions, peer.address()) {
        (Some(sessions), Some(address)) => Some(sessions.enter(address, machine.known(), weak)),
        _ => None,
    };
    let driver = Driver {
        machine,
        connections: vec![Connection { id: PRIMARY, pipe, since: Instant::now() }],
        turn: 0,
        timer: Box::pin(tokio::time::sleep(Duration::ZERO)),
        queue,
        commands: session.commands.downgrade(),
        taken: Vec::new(),
        unwatched: false,
        streams: HashMap::new(),
        handlers: JoinSet::new(),
        closing: JoinSet::new(),
        lane_dials: LaneDials::default(),
        lanes_taken,
        environment,
        shared,
        entered,
        machine_held: 0,
        delivered: 0,
        unshown: 0,
        drained: false,
        drain_code: CLOSE_SHUTDOWN,
        drain_deadline: None,
        obituary,
    };
    (session, driver.run())
}

impl Driver {
    async fn run(mut self) {
        let shared = Arc::clone(&self.shared);
        let mut evicted = pin!(shared.eviction.due());
        let error = loop {
            let turned = std::future::poll_fn(|cx| {
                if shared.eviction.is_due() {
                    return Poll::Ready(Err(SessionError::Evicted));
                }
                let turned = self.poll(cx);
                if turned.is_pending() && evicted.as_mut().poll(cx).is_ready() {
                    return Poll::Ready(Err(SessionError::Evicted));
                }
                turned
            });
            if let Err(error) = turned.await {
                break error;
            }
        };
        // What came together with the end was received all the same.
        self.dispatch(Instant::now());
        self.show();
        self.finish(error).await;
    }

    /// Does once whatever can be done now; pending when that is nothing.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), SessionError>> {
        let now = Instant::now();
        let mut moved = self.poll_told(cx, now)?;
        moved |= self.poll_commands(cx, now)?;
        moved |= self.poll_lanes(cx, now)?;
        moved |= self.poll_input(cx, now)?;
        while let Poll::Ready(Some(_)) = self.handlers.poll_join_next(cx) {}
        while let Poll::Ready(Some(_)) = self.closing.poll_join_next(cx) {}
        self.dispatch(now);
        moved |= self.poll_output(cx, now)?;
        self.dispatch(now);
        if self.drained {
            return Poll::Ready(Err(SessionError::Shutdown));
        }
        moved |= self.poll_timer(cx, now)?;
        self.account();
        self.unshown += 1;
        if !moved || self.unshown >= SHOWN_AFTER {
            self.show();
        }
        if !moved || self.delivered >= DELIVERED_AT_ONCE {
            self.delivered = 0;
            if moved {
                // Goes on behind those whom it has woken.
                cx.waker().wake_by_ref();
            }
            return Poll::Pending;
        }
        Poll::Ready(Ok(()))
    }

    fn poll_told(&mut self, cx: &mut Context<'_>, now: Instant) -> Result<bool, SessionError> {
        let told = self.shared.signals.take(cx.waker());
        let moved = !told.is_empty();
        for stream in told.consumed {
            self.machine.consumed(now, stream);
        }
        for (stream, left) in told.dropped {
            self.leave(stream, left, now);
        }
        if let Some(code) = told.drain {
            self.drain(code, now);
        }
        match told.end {
            Some(code) => {
                self.drain_code = code;
                Err(SessionError::Shutdown)
            }
            None => Ok(moved),
        }
    }

    fn poll_commands(&mut self, cx: &mut Context<'_>, now: Instant) -> Result<bool, SessionError> {
        if self.unwatched {
            return Ok(false);
        }
        let mut commands = std::mem::take(&mut self.taken);
        let polled = self.queue.poll_recv_many(cx, &mut commands, COMMAND_QUEUE);
        let handled = commands.drain(..).try_for_each(|command| self.handle_command(command, now));
        // The room that it has is for the next time; of an idle session, a few hundred bytes.
        self.taken = commands;
        handled?;
        match polled {
            Poll::Pending => Ok(false),
            Poll::Ready(0) => {
                // Nobody can use it any more. What is still under way goes out; what the peer has open may end.
                self.unwatched = true;
                self.drain_deadline = Some(now + LINGER);
                self.drain(CLOSE_SHUTDOWN, now);
                Ok(true)
            }
            Poll::Ready(_) => Ok(true),
        }
    }

    fn poll_input(&mut self, cx: &mut Context<'_>, now: Instant) -> Result<bool, SessionError> {
        let mut moved = false;
        let count = self.connections.len();
        self.turn = self.turn.wrapping_add(1);
        for offset in 0..count {
            let Connection { id, pipe, .. } = &mut self.connections[(self.turn + offset) % count];
            let mut reader = pipe.reader(cx);
            for _ in 0..READS {
                if !self.machine.read_from(now, *id, &mut reader)? {
                    break;
                }
                moved = true;
            }
        }
        Ok(moved)
    }

    fn poll_output(&mut self, cx: &mut Context<'_>, now: Instant) -> Result<bool, SessionError> {
        let mut moved = false;
        let mut lost = Vec::new();
        let count = self.connections.len();
        for offset in 0..count {
            let Connection { id, pipe, .. } = &mut self.connections[(self.turn + offset) % count];
            match pipe.poll_write_by(cx, |transport| self.machine.write_to(*id, transport)) {
                Poll::Pending => {}
                Poll::Ready(Ok(())) => moved = true,
                Poll::Ready(Err(_)) => lost.push(*id),
            }
        }
        moved |= !lost.is_empty();
        lost.into_iter().try_for_each(|id| self.lose(id, now))?;
        Ok(moved)
    }

    /// A transport has ended: with the primary the session, with a lane the lane.
    fn lose(&mut self, id: ConnId, now: Instant) -> Result<(), SessionError> {
        self.machine.handle_lost(now, id)?;
        if id == PRIMARY {
            return Err(SessionError::Lost);
        }
        self.forget_lane(id, now);
        Ok(())
    }

    fn poll_timer(&mut self, cx: &mut Context<'_>, now: Instant) -> Result<bool, SessionError> {
        let lane_retry = self.lane_retry();
        let deadlines = [self.machine.poll_timeout(), self.drain_deadline, lane_retry];
        let Some(deadline) = deadlines.into_iter().flatten().min() else { return Ok(false) };
        // A deadline that moves away lets the timer fire early, which is cheaper than to set it anew each time.
        if deadline < self.timer.deadline() || self.timer.is_elapsed() {
            self.timer.as_mut().reset(deadline);
        }
        if self.timer.as_mut().poll(cx).is_pending() {
            return Ok(false);
        }
        if self.drain_deadline.is_some_and(|deadline| deadline <= now) {
            return Err(SessionError::Shutdown);
        }
        if self.machine.poll_timeout().is_some_and(|deadline| deadline <= now) {
            self.machine.handle_timeout(now)?;
        }
        Ok(true)
    }

    /// Opens no more streams and closes with `code` once there are none.
    fn drain(&mut self, code: u32, now: Instant) {
        self.drain_code = code;
        self.machine.drain(now);
        self.drains();
    }

    /// One of the two sides drains.
    fn drains(&mut self) {
        self.shared.standing.send_if_modified(Standing::drain);
        if let Some(entered) = &self.entered {
            entered.drains();
        }
    }

    /// Counts what the machine holds.
    fn account(&mut self) {
        let held = self.machine.held();
        let holder = &self.shared.holder;
        if held > self.machine_held {
            holder.hold(held - self.machine_held);
        } else if held < self.machine_held {
            holder.release(self.machine_held - held);
        }
        self.machine_held = held;
    }

    /// Shows how the session stands to whoever asks.
    fn show(&mut self) {
        self.unshown = 0;
        *self.shared.stats.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = self.machine.stats();
    }
}
