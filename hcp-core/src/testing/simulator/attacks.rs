//! Strangers, and what they try.

use rand::RngExt;

use super::World;
use super::cast::Cast;
use super::ledger::{Checked, Violation, violated};
use super::report::Happened;
use super::wires::End;
use crate::session::Dialler;
use crate::session::forger::Forger;

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

    /// Who has seen a dialler's proof, as a server has, shows it on a connection of its own to the same address; `false` while
    /// there is none to be seen.
    pub(super) fn forge(&mut self, session: usize) -> Result<bool, Violation> {
        let Some(cast) = Cast::of_all() else { return violated("no cast") };
        let it = &self.sessions[session];
        let Some(machine) = it.sides[0].machine.as_ref().filter(|_| it.sides[0].established) else { return Ok(false) };
        let target = if it.plan.service { cast.service } else { cast.node };
        let proof = machine.proof_again(&Dialler::Identity(cast.dialler.clone()), &target);
        let Ok(forger) = proof.and_then(Forger::new) else { return violated("no proof can be made") };
        let (line, server) = (it.plan.line, it.plan.server);
        let another = it.plan.service && self.rng.random_range(0..2) == 0;
        let server = if another { Cast::other_replica(server) } else { server };
        let wire = self.wire(line, End::Forger(Box::new(forger)), server)?;
        self.forger_speaks(wire, &[]);
        Ok(true)
    }

    /// What a forger has to say when it has heard this.
    pub(super) fn forger_speaks(&mut self, wire: usize, heard: &[u8]) {
        let mut out = Vec::new();
        if let End::Forger(forger) = &mut self.wires[wire].ends[0] {
            forger.handle_input(heard);
            forger.poll_output(&mut out);
        }
        self.write(wire, 0, &out);
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
