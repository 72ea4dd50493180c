//! Strangers, and what they try.

use rand::RngExt;

use super::World;
use super::ledger::Checked;
use super::report::Happened;

/// How much garbage is sent: more than an acceptor reads before it gives up.
const GARBAGE: usize = 600;

impl World {
    /// A stranger says again what a dialler has said, to the same server.
    pub(super) fn replay(&mut self, session: usize, lane: bool) -> Checked {
        let of_session = |wire: &super::wires::Wire| wire.session == Some(session) && wire.lane.is_some() == lane;
        let Some(wire) = self.wires.iter().find(|wire| of_session(wire)) else { return Ok(()) };
        let (said, server) = (wire.pipes[1].recorded.clone(), wire.server);
        self.report.happened(Happened::Replays);
        self.stranger(self.sessions[session].plan.line, server, &said)
    }

    pub(super) fn garbage(&mut self, session: usize) -> Checked {
        let mut says = vec![0; self.rng.random_range(1..GARBAGE)];
        self.rng.fill(&mut says[..]);
        let plan = &self.sessions[session].plan;
        let (line, server) = (plan.line, plan.server);
        self.report.happened(Happened::Garbage);
        self.stranger(line, server, &says)
    }

    pub(super) fn silent_stranger(&mut self, session: usize) -> Checked {
        let plan = &self.sessions[session].plan;
        let (line, server) = (plan.line, plan.server);
        self.report.happened(Happened::SilentStrangers);
        self.stranger(line, server, &[])
    }

    /// The session that a lane of another is offered to.
    pub(super) fn thief_of(&mut self, owner: usize) -> Option<usize> {
        let others: Vec<usize> = (0..self.sessions.len())
            .filter(|it| *it != owner && self.sessions[*it].sides[1].machine.is_some())
            .collect();
        if others.is_empty() || self.rng.random_range(0..3) > 0 {
            return None;
        }
        Some(others[self.rng.random_range(0..others.len())])
    }
}
