//! What breaks.

use std::time::Duration;

use super::World;
use super::ledger::Checked;
use super::plan::Fault;
use super::report::Happened;
use super::wires::End;

/// Longer than a keepalive waits.
const LONG: Duration = Duration::from_secs(25);

impl World {
    pub(super) fn break_something(&mut self, session: usize, fault: usize) -> Checked {
        let Some((_, fault)) = self.sessions[session].plan.faults.get(fault).copied() else { return Ok(()) };
        let Some(primary) = self.sessions[session].primary else { return Ok(()) };
        let over = self.sessions[session].sides.iter().any(|side| side.ended.is_some());
        match fault {
            Fault::Stall { towards, lasts } if !over => {
                self.report.happened(Happened::Stalls);
                self.stall(primary, towards, lasts);
            }
            Fault::LongStall { towards } if !over => {
                self.report.happened(Happened::LongStalls);
                self.hurt(session, primary);
                self.stall(primary, towards, LONG);
            }
            Fault::Pause { side, lasts } if !over => {
                self.report.happened(Happened::Pauses);
                self.pause(session, side, lasts);
            }
            Fault::Cut if !over => {
                let early = !self.sessions[session].sides[0].established;
                self.report.happened(if early { Happened::HandshakeCuts } else { Happened::Cuts });
                self.hurt(session, primary);
                self.cut(primary);
            }
            Fault::SilentCut if !over => {
                self.report.happened(Happened::SilentCuts);
                self.hurt(session, primary);
                self.wires[primary].pipes.iter_mut().for_each(super::network::Pipe::vanish);
            }
            Fault::HalfCut { towards } if !over => {
                self.report.happened(Happened::HalfCuts);
                self.hurt(session, primary);
                self.wires[primary].pipes[towards].vanish();
            }
            Fault::Tamper { towards } if !over => {
                if self.wires[primary].pipes[towards].tamper(&mut self.rng) {
                    self.report.happened(Happened::Tampered);
                    self.hurt(session, primary);
                }
            }
            Fault::Replay { lane } => return self.replay(session, lane),
            Fault::Garbage => return self.garbage(session),
            Fault::SilentStranger => return self.silent_stranger(session),
            _ => self.break_lane(session, fault),
        }
        Ok(())
    }

    /// A lane of a session, or one that it dials.
    fn some_lane(&mut self, session: usize) -> Option<usize> {
        let of_session = |wire: &super::wires::Wire| {
            wire.session == Some(session)
                && wire.lane.is_some()
                && matches!(wire.ends[0], End::Session(..) | End::Dialling(..))
        };
        let lanes: Vec<usize> = (0..self.wires.len()).filter(|wire| of_session(&self.wires[*wire])).collect();
        if lanes.is_empty() { None } else { Some(lanes[rand::RngExt::random_range(&mut self.rng, 0..lanes.len())]) }
    }

    fn break_lane(&mut self, session: usize, fault: Fault) {
        let Some(wire) = self.some_lane(session) else { return };
        self.wires[wire].hurt = true;
        if matches!(self.wires[wire].ends[0], End::Dialling(..)) {
            self.report.happened(Happened::LaneDialsCut);
            return self.cut(wire);
        }
        match fault {
            Fault::LaneCut => {
                self.report.happened(Happened::LaneCuts);
                self.cut(wire);
            }
            Fault::SilentLaneCut => {
                self.report.happened(Happened::SilentLaneCuts);
                self.wires[wire].pipes.iter_mut().for_each(super::network::Pipe::vanish);
            }
            Fault::LaneStall { towards, lasts } => {
                self.report.happened(Happened::LaneStalls);
                self.stall(wire, towards, lasts);
            }
            Fault::LaneTamper { towards } => {
                if self.wires[wire].pipes[towards].tamper(&mut self.rng) {
                    self.report.happened(Happened::LanesTampered);
                }
            }
            _ => {}
        }
    }

    fn hurt(&mut self, session: usize, wire: usize) {
        self.sessions[session].hurt = true;
        self.wires[wire].hurt = true;
    }

    fn stall(&mut self, wire: usize, towards: usize, lasts: Duration) {
        self.wires[wire].pipes[towards].stall(self.now + lasts);
    }

    fn pause(&mut self, session: usize, side: usize, lasts: Duration) {
        let until = self.now + lasts;
        let it = &mut self.sessions[session].sides[side];
        it.paused_until = it.paused_until.max(until);
        self.at(until, super::Happening::Timer { session, side });
    }

    /// Both ends lose the connection, each when what still arrives has arrived.
    fn cut(&mut self, wire: usize) {
        for end in 0..2 {
            self.wires[wire].pipes[end].cut(self.now, &mut self.rng);
            self.expect(wire, end);
        }
    }
}
