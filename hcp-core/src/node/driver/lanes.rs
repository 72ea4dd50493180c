//! The lanes of a driver: dialling them, taking those that the peer dials, and letting them go.

use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::{Connection, Driver, LINGER, Lanes};
use crate::network::{BoxedTransport, DialError, HCP_PORT};
use crate::node::event::{NodeEvent, count};
use crate::node::pipe::{Pipe, READ_BUFFER, Step};
use crate::node::sessions::{LaneHost, LanesTaken, Offer};
use crate::session::{ConnId, Lane, LaneDialling, LaneError, MAX_LANES, SessionError, SessionId};

/// How often a lane is dialled again because another replica answered, before the session goes on without. With two replicas
/// one of 16 sessions then stays without lanes.
const MAX_OTHER_REPLICAS: u32 = 4;
/// The wait after a lane could not be had, or was lost early.
const LANE_PAUSE: Duration = Duration::from_secs(30);
/// A lane that lived this long was worth having, and is replaced at once.
const WORTHY: Duration = Duration::from_secs(10);

/// Lanes on their way, on the dialler's side.
#[derive(Default)]
pub(super) struct LaneDials {
    steps: JoinSet<LaneStep>,
    /// How often another replica has answered in a row.
    other_replicas: u32,
    /// When the next lane may be dialled.
    not_before: Option<Instant>,
}

/// How far a lane has come.
enum LaneStep {
    Reached(BoxedTransport),
    Joined(Box<Lane>, Pipe),
    Unreachable(DialError),
    Failed(LaneError),
}

/// Lanes that the peer dials.
pub(super) struct Taking {
    offers: mpsc::Receiver<Offer>,
    _taken: LanesTaken,
}

impl Taking {
    pub(super) fn new(host: &LaneHost, id: SessionId) -> Self {
        let (taken, offers) = host.enter(id);
        Self { offers, _taken: taken }
    }
}

impl Driver {
    pub(super) fn poll_lanes(&mut self, cx: &mut Context<'_>, now: Instant) -> Result<bool, SessionError> {
        let mut moved = false;
        while let Some(Poll::Ready(Some(offer))) = self.lanes_taken.as_mut().map(|taking| taking.offers.poll_recv(cx)) {
            moved = true;
            self.take_lane(offer, now);
        }
        while let Poll::Ready(Some(step)) = self.lane_dials.steps.poll_join_next(cx) {
            moved = true;
            if let Ok(step) = step {
                self.lane_step(step, now)?;
            }
        }
        if let Lanes::Dialled { network, target } = &self.environment.lanes
            && self.lane_dials.other_replicas < MAX_OTHER_REPLICAS
            && self.lane_dials.not_before.is_none_or(|not_before| not_before <= now)
        {
            let target = *target;
            while self.lane_dials.steps.len() < self.machine.lanes_wanted() {
                moved = true;
                let network = Arc::clone(network);
                self.lane_dials.steps.spawn(async move {
                    match network.dial_isolated(target, HCP_PORT).await {
                        Ok(transport) => LaneStep::Reached(transport),
                        Err(error) => LaneStep::Unreachable(error),
                    }
                });
            }
        }
        Ok(moved)
    }

    /// When lanes may be dialled again, if they are wanted.
    pub(super) fn lane_retry(&self) -> Option<Instant> {
        let LaneDials { other_replicas, not_before, .. } = &self.lane_dials;
        let wanted = self.machine.is_dialler()
            && *other_replicas < MAX_OTHER_REPLICAS
            && self.machine.lanes_wanted() > self.lane_dials.steps.len();
        not_before.filter(|_| wanted)
    }

    fn lane_step(&mut self, step: LaneStep, now: Instant) -> Result<(), SessionError> {
        match step {
            LaneStep::Reached(transport) => {
                let dialling = self.machine.lane_dialling(now)?;
                self.lane_dials.steps.spawn(join(dialling, Pipe::new(transport)));
                return Ok(());
            }
            LaneStep::Joined(lane, pipe) => {
                let id = self.machine.add_lane(now, *lane)?;
                self.lane_dials.other_replicas = 0;
                self.lane_dials.not_before = None;
                self.lane_began(id, pipe, now);
                return Ok(());
            }
            LaneStep::Failed(LaneError::OtherReplica) => {
                tracing::debug!("another replica answered where a lane was dialled");
                self.lane_dials.other_replicas += 1;
            }
            LaneStep::Failed(LaneError::Session(error)) => {
                tracing::debug!(%error, "a lane failed its handshake");
                self.lane_dials.not_before = Some(now + LANE_PAUSE);
            }
            LaneStep::Unreachable(error) => {
                tracing::debug!(%error, "a lane cannot be dialled");
                self.lane_dials.not_before = Some(now + LANE_PAUSE);
            }
        }
        count(&self.environment.telling.counts.lanes_failed);
        Ok(())
    }

    fn take_lane(&mut self, Offer { request, pipe }: Offer, now: Instant) {
        match self.machine.join(now, *request) {
            Ok(id) => self.lane_began(id, pipe, now),
            Err(request) => {
                count(&self.environment.telling.counts.lanes_failed);
                let mut words = Some(request.refuse());
                self.let_go(pipe, move || words.take());
            }
        }
    }

    fn lane_began(&mut self, id: ConnId, pipe: Pipe, now: Instant) {
        self.connections.push(Connection { id, pipe, since: now });
        count(&self.environment.telling.counts.lanes_joined);
        self.environment.telling.tell(NodeEvent::LaneBegan { peer: self.shared.peer });
    }

    /// A lane has ended; nothing more is to be said on it.
    pub(super) fn forget_lane(&mut self, id: ConnId, now: Instant) {
        let Some(place) = self.connections.iter().position(|connection| connection.id == id) else { return };
        let Connection { since, .. } = self.connections.remove(place);
        if now.saturating_duration_since(since) < WORTHY {
            self.lane_dials.not_before = Some(now + LANE_PAUSE);
        }
        self.environment.telling.tell(NodeEvent::LaneEnded { peer: self.shared.peer });
    }

    /// Lets a connection say its last words, for a while.
    fn let_go(&mut self, pipe: Pipe, mut words: impl FnMut() -> Option<Vec<u8>> + Send + 'static) {
        if self.closing.len() >= MAX_LANES {
            return;
        }
        self.closing.spawn(async move {
            let finish = pipe.finish(|out| out.extend(words().unwrap_or_default()));
            let _ = tokio::time::timeout(LINGER, finish).await;
        });
    }
}

/// Runs a lane's handshake on the dialler's side.
async fn join(mut dialling: LaneDialling, mut pipe: Pipe) -> LaneStep {
    let mut input = vec![0; READ_BUFFER];
    loop {
        let deadline = dialling.poll_timeout();
        let moved = match pipe.step(&mut input, deadline, |out| dialling.poll_output(out)).await {
            Ok(Step::Read(n)) => dialling.handle_input(Instant::now(), &input[..n]),
            Ok(Step::Wrote) => Ok(None),
            Ok(Step::Deadline) => dialling.handle_timeout(Instant::now()).map(|()| None),
            Err(error) => Err(error.into()),
        };
        match moved {
            Ok(Some(lane)) => return LaneStep::Joined(Box::new(lane), pipe),
            Ok(None) => {}
            Err(error) => return LaneStep::Failed(error),
        }
    }
}
