//! One side of a session: its machine and the application above it.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use super::ledger::Unread;
use super::plan::{Leaving, SessionPlan, StreamPlan};
use crate::session::{ConnId, Machine, Priority, SessionError, SessionId, StreamId};

/// One session and the two who hold it.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) plan: SessionPlan,
    /// The dialler, then the acceptor.
    pub(super) sides: [Side; 2],
    pub(super) ledger: super::ledger::Ledger,
    /// The primary's wire, once dialled.
    pub(super) primary: Option<usize>,
    /// Lanes being dialled.
    pub(super) dialling: usize,
    pub(super) had_lanes: bool,
    /// Lanes that have joined.
    pub(super) lanes_joined: usize,
    /// The session that the dialler's PROOF names.
    pub(super) named: Option<SessionId>,
    /// Something happened that may end it.
    pub(super) hurt: bool,
    /// By when both sides have to know.
    pub(super) ends_by: Option<Duration>,
    /// Whoever answers the dialler is not who may.
    pub(super) imposter: bool,
}

/// One side.
#[derive(Debug, Default)]
pub(super) struct Side {
    pub(super) machine: Option<Box<Machine>>,
    pub(super) wires: BTreeMap<ConnId, usize>,
    pub(super) handles: BTreeMap<StreamId, Handle>,
    pub(super) opens: VecDeque<StreamPlan>,
    /// The most streams that it has held at once.
    pub(super) most_held: usize,
    /// All that windows may grow by was given.
    pub(super) spent: bool,
    pub(super) established: bool,
    /// This side has called for it; no stream is left, and it has closed.
    pub(super) drains: bool,
    pub(super) draining: bool,
    pub(super) drained: bool,
    /// This side has said that it closes.
    pub(super) closing: bool,
    pub(super) ended: Option<Ended>,
    pub(super) ended_at: Duration,
    pub(super) timer: Option<Duration>,
    pub(super) paused_until: Duration,
    pub(super) settles: bool,
}

/// How a session ended for one side. Its application knows.
#[derive(Debug)]
pub(super) enum Ended {
    /// It closed the session itself.
    Closed,
    Failed(SessionError),
}

/// A stream as one application holds it.
#[derive(Debug)]
pub(super) struct Handle {
    pub(super) ours: bool,
    pub(super) priority: Priority,
    pub(super) credit: u64,
    pub(super) lengths: VecDeque<usize>,
    pub(super) finishes: bool,
    pub(super) finished: bool,
    pub(super) peer_finished: bool,
    pub(super) gap: Duration,
    pub(super) unread: Unread,
    pub(super) pace: Duration,
    pub(super) taken: usize,
    pub(super) ends_after: Option<(usize, Leaving)>,
    pub(super) released: bool,
    pub(super) over: Option<Over>,
    /// Whether its next message, or its next reading, is on the calendar.
    pub(super) acts: bool,
    pub(super) reads: bool,
}

/// How a stream ended for one side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Over {
    /// Both directions have ended.
    Closed,
    /// This side abandoned it.
    Abandoned,
    /// The peer did.
    Reset(u32),
}

impl Handle {
    pub(super) fn new(plan: StreamPlan, ours: bool, credit: u64) -> Self {
        let StreamPlan { priority, lengths, finishes, pace, ends_after, gap } = plan;
        Self {
            ours,
            priority,
            credit,
            lengths: lengths.into(),
            finishes,
            finished: false,
            peer_finished: false,
            gap,
            unread: Unread::new(),
            pace,
            taken: 0,
            ends_after,
            released: false,
            over: None,
            acts: false,
            reads: false,
        }
    }

    /// Whether the stream is open, or has come to its end with messages that were not taken.
    fn is_held(&self) -> bool {
        match self.over {
            None => true,
            Some(Over::Closed) => !self.released && !self.unread.is_empty(),
            Some(Over::Abandoned | Over::Reset(_)) => false,
        }
    }

    /// Whether the application leaves the stream now.
    pub(super) fn leaves(&self) -> Option<Leaving> {
        self.ends_after.filter(|(after, _)| self.taken >= *after && self.over.is_none()).map(|(_, leaving)| leaving)
    }
}

impl Side {
    /// Notes how many streams are held, when there is one more.
    pub(super) fn count_held(&mut self) -> usize {
        let held = self.handles.values().filter(|handle| handle.is_held()).count();
        self.most_held = self.most_held.max(held);
        held
    }
}

impl Session {
    pub(super) fn new(mut plan: SessionPlan) -> Self {
        let mut sides: [Side; 2] = Default::default();
        for (side, opens) in sides.iter_mut().zip(&mut plan.opens) {
            side.opens = opens.iter().map(|(_, stream)| stream.clone()).collect();
        }
        Self {
            plan,
            sides,
            ledger: Default::default(),
            primary: None,
            dialling: 0,
            had_lanes: false,
            lanes_joined: 0,
            named: None,
            hurt: false,
            ends_by: None,
            imposter: false,
        }
    }

    /// Whether either side closed because all streams were over.
    pub(super) fn has_drained(&self) -> bool {
        self.sides.iter().any(|side| side.drained)
    }
}
