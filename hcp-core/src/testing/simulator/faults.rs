//! What breaks.

use std::time::Duration;

use super::ledger::Checked;
use super::network::Pipe;
use super::plan::{Fault, SETTLES};
use super::report::Happened;
use super::wires::End;
use super::{Happening, World};

/// How long it may take to find out that a primary is cut: a handshake or a keepalive, after what is on its way and the
/// pauses that a run may have.
const FOUND_OUT: Duration = Duration::from_secs(45);
/// Longer than a keepalive waits.
const LONG: Duration = Duration::from_secs(25);

impl World {
    pub(super) fn break_something(&mut self, session: usize, fault: usize) -> Checked {
        let Some((_, what)) = self.sessions[session].plan.faults.get(fault).copied() else { return Ok(()) };
        let Some(primary) = self.sessions[session].primary else { return Ok(()) };
        let over = self.sessions[session].sides.iter().any(|side| side.ended.is_some());
        match what {
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
                self.hurt_for_good(session, primary);
                self.cut(primary);
            }
            Fault::SilentCut if !over => {
                self.report.happened(Happened::SilentCuts);
                self.hurt_for_good(session, primary);
                self.wires[primary].pipes.iter_mut().for_each(Pipe::vanish);
            }
            Fault::HalfCut { towards } if !over => {
                self.report.happened(Happened::HalfCuts);
                self.hurt_for_good(session, primary);
                self.wires[primary].pipes[towards].vanish();
            }
            Fault::Tamper { towards } if !over => {
                if self.wires[primary].pipes[towards].tamper(&mut self.rng) {
                    self.report.happened(Happened::Tampered);
                    self.hurt(session, primary);
                } else {
                    self.try_again(session, fault);
                }
            }
            Fault::LaneBeyond if !over => {
                let dialled = self.dial_beyond(session)?;
                if !dialled {
                    self.try_again(session, fault);
                }
            }
            Fault::Forge if !over => {
                let shown = self.forge(session)?;
                if !shown {
                    self.try_again(session, fault);
                }
            }
            Fault::Replay { lane } => return self.replay(session, lane),
            Fault::Garbage => return self.garbage(session),
            Fault::SilentStranger => return self.silent_stranger(session),
            Fault::LaneBeyond | Fault::Forge => {}
            _ if !over && self.sessions[session].plan.lanes > 0 && !self.break_lane(session, what) => {
                self.try_again(session, fault)
            }
            _ => {}
        }
        Ok(())
    }

    /// There was nothing yet that could break so.
    fn try_again(&mut self, session: usize, fault: usize) {
        if self.now < SETTLES {
            self.after(Duration::from_millis(70), Happening::Break { session, fault });
        }
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

    /// Breaks a lane; `false` when there is none that can break so.
    fn break_lane(&mut self, session: usize, fault: Fault) -> bool {
        let Some(wire) = self.some_lane(session) else { return false };
        let joins = matches!(self.wires[wire].ends[0], End::Dialling(..));
        let done = match fault {
            Fault::LaneTamper { towards } => {
                if !self.wires[wire].pipes[towards].tamper(&mut self.rng) {
                    return false;
                }
                Happened::LanesTampered
            }
            Fault::LaneStall { towards, lasts } => {
                self.stall(wire, towards, lasts);
                Happened::LaneStalls
            }
            Fault::SilentLaneCut => {
                self.wires[wire].pipes.iter_mut().for_each(Pipe::vanish);
                Happened::SilentLaneCuts
            }
            _ => {
                self.cut(wire);
                if joins { Happened::LaneDialsCut } else { Happened::LaneCuts }
            }
        };
        self.wires[wire].hurt = true;
        self.report.happened(done);
        true
    }

    /// A primary is cut, which its keepalive finds out if nothing else does.
    fn hurt_for_good(&mut self, session: usize, wire: usize) {
        self.hurt(session, wire);
        self.sessions[session].ends_by.get_or_insert(self.now + FOUND_OUT);
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
        self.at(until, Happening::Timer { session, side });
    }

    /// Both ends lose the connection, each when what still arrives has arrived.
    pub(super) fn cut(&mut self, wire: usize) {
        for end in 0..2 {
            self.wires[wire].pipes[end].cut(self.now, &mut self.rng);
            self.expect(wire, end);
        }
    }
}
