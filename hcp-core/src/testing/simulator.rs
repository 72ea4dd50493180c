//! Sessions under a seeded network in virtual time, and what must hold of them whatever breaks.
//!
//! A run takes its seed and nothing else: who meets whom, what they send and how they read, what the network does to
//! connections and when. TLS is real and its randomness its own, but nothing that a run does or notes depends on it.
//!
//! What must hold:
//!
//! - What is received on a stream is what was sent, in order and once; a stream that ended is complete.
//! - Whatever is missing at the end, both sides were told: by a reset, an error, or the end of the session.
//! - A session that nothing happened to that could end it does all its work and ends in order, within a bounded time; a
//!   lane that dies is nothing that could end it.
//! - After a drain everything that was open has ended, and nothing was served that came behind it.
//! - No message waits behind more than a bounded amount of a lower class, and no class starves.
//! - What a peer may have out stays within windows, and what these grow by within the session's pool; what a machine holds
//!   stays within what was allowed.
//! - A side that refuses a stream for want of room holds as many as may be, and never more; of lanes no more than may be live.
//! - What a dialler says of a session that it holds arrives; a lane finds its session under the key that this began with.
//! - Strangers, replayed connections, proofs of other connections, stolen lanes and wrong servers get nothing.
//!
//! ```
//! use hcp_core::testing::Simulation;
//!
//! let report = Simulation::new(7).run().unwrap_or_else(|failure| panic!("{failure}"));
//! println!("{report}");
//! ```

mod attacks;
mod cast;
mod events;
mod faults;
mod lanes;
mod ledger;
mod network;
mod plan;
mod report;
mod side;
#[cfg(test)]
mod tests;
mod verdict;
mod wires;

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::time::Instant;

use self::cast::Cast;
use self::ledger::{Checked, Violation, content, violated};
use self::plan::{Leaving, SETTLES};
use self::report::Happened;
pub use self::report::Report;
use self::side::{Handle, Over, Session};
use self::wires::Wire;
use crate::session::{Priority, StreamId, message_cost};

/// The name of the protocol of all streams.
const PROTOCOL: &str = "hcp/simulated/1";

/// Things that may happen at one instant; more never end.
const BUSY: u32 = 10_000;

/// A simulation of sessions, all of it decided by a seed.
#[derive(Clone, Copy, Debug)]
pub struct Simulation {
    seed: u64,
}

/// Something that must hold did not.
#[derive(Clone, Debug)]
pub struct SimulationError {
    seed: u64,
    at: Duration,
    reason: String,
}

impl SimulationError {
    /// The seed that shows it again.
    pub fn seed(&self) -> u64 {
        self.seed
    }
}

impl fmt::Display for SimulationError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { seed, at, reason } = self;
        write!(f, "seed {seed}, after {at:?} of virtual time: {reason}")
    }
}

impl std::error::Error for SimulationError {}

impl Simulation {
    /// The simulation of a seed.
    pub fn new(seed: u64) -> Self {
        Self { seed }
    }

    /// Runs it to its end.
    ///
    /// # Errors
    /// [`SimulationError`] names the seed and what did not hold.
    pub fn run(&self) -> Result<Report, SimulationError> {
        let mut world = World::new(self.seed);
        match world.live() {
            Ok(()) => Ok(world.report),
            Err(Violation(reason)) => Err(SimulationError { seed: self.seed, at: world.now, reason }),
        }
    }
}

/// Something that happens at its time.
#[derive(Clone, Copy, Debug, Hash)]
enum Happening {
    /// The dialler of a session dials.
    Begin(usize),
    /// Something has arrived at an end of a wire.
    Arrival {
        wire: usize,
        end: usize,
    },
    /// A machine's own time has come.
    Timer {
        session: usize,
        side: usize,
    },
    /// A handshake may have taken too long.
    Deadline {
        wire: usize,
        end: usize,
    },
    /// An application opens its next stream, sends its next message, takes one.
    Open {
        session: usize,
        side: usize,
    },
    Act {
        session: usize,
        side: usize,
        stream: StreamId,
    },
    Read {
        session: usize,
        side: usize,
        stream: StreamId,
    },
    DialLane {
        session: usize,
        tries: usize,
    },
    Drain {
        session: usize,
        side: usize,
    },
    Close {
        session: usize,
        side: usize,
    },
    Break {
        session: usize,
        fault: usize,
    },
    /// Everybody says what is left to say and ends.
    Settle,
}

struct World {
    rng: StdRng,
    start: Instant,
    now: Duration,
    calendar: BTreeMap<(Duration, u64), Happening>,
    entries: u64,
    sessions: Vec<Session>,
    wires: Vec<Wire>,
    report: Report,
}

impl World {
    fn new(seed: u64) -> Self {
        Self {
            rng: StdRng::seed_from_u64(seed),
            start: Instant::now(),
            now: Duration::ZERO,
            calendar: BTreeMap::new(),
            entries: 0,
            sessions: Vec::new(),
            wires: Vec::new(),
            report: Report::default(),
        }
    }

    fn instant(&self) -> Instant {
        self.start + self.now
    }

    fn at(&mut self, when: Duration, what: Happening) {
        self.entries += 1;
        self.calendar.insert((when.max(self.now), self.entries), what);
    }

    fn after(&mut self, wait: Duration, what: Happening) {
        self.at(self.now + wait, what);
    }

    /// Up to this long, decided by the seed.
    fn moment(&mut self, most: Duration) -> Duration {
        most.mul_f64(self.rng.random_range(0.0..1.0))
    }

    fn live(&mut self) -> Checked {
        self.begin();
        let deadline = SETTLES + self.patience();
        let mut busy = 0;
        while let Some(((when, _), what)) = self.calendar.pop_first() {
            busy = if when > self.now { 0 } else { busy + 1 };
            if busy > BUSY {
                return violated(format!("time stands still: {}", self.unfinished()));
            }
            self.now = when;
            if when > deadline {
                return violated(format!("not over in time: {}", self.unfinished()));
            }
            self.report.log(when, what);
            self.happen(what)?;
        }
        self.verdict()?;
        self.report.ended(self.now);
        Ok(())
    }

    /// What all sessions may take to end once they are told to.
    fn patience(&self) -> Duration {
        let least = self.sessions.iter().map(|session| session.plan.line.rate).min().unwrap_or(1);
        let lengths = self.sessions.iter().flat_map(|session| session.plan.opens.iter().flatten());
        let bytes: u64 = lengths.flat_map(|(_, stream)| &stream.lengths).map(|length| *length as u64 + 4_096).sum();
        // What the acceptor answers is as much again, resent frames and padding come on top.
        Duration::from_secs(240) + Duration::from_millis(16 * bytes / least)
    }

    fn begin(&mut self) {
        for (session, plan) in plan::sessions(&mut self.rng).into_iter().enumerate() {
            self.at(plan.begins, Happening::Begin(session));
            for (side, opens) in plan.opens.iter().enumerate() {
                opens.iter().for_each(|(when, _)| self.at(*when, Happening::Open { session, side }));
            }
            for (when, side) in &plan.drains {
                self.at(*when, Happening::Drain { session, side: *side });
            }
            if let Some((when, side, _)) = plan.close {
                self.at(when, Happening::Close { session, side });
            }
            for (fault, (when, _)) in plan.faults.iter().enumerate() {
                self.at(*when, Happening::Break { session, fault });
            }
            self.sessions.push(Session::new(plan));
        }
        self.at(SETTLES, Happening::Settle);
    }

    fn happen(&mut self, what: Happening) -> Checked {
        match what {
            Happening::Begin(session) => self.dial(session),
            Happening::Arrival { wire, end } => self.arrive(wire, end),
            Happening::Timer { session, side } => self.wake(session, side),
            Happening::Deadline { wire, end } => self.deadline(wire, end),
            Happening::Open { session, side } => self.open(session, side),
            Happening::Act { session, side, stream } => self.act(session, side, stream),
            Happening::Read { session, side, stream } => self.read(session, side, stream),
            Happening::DialLane { session, tries } => self.dial_lane(session, tries),
            Happening::Drain { session, side } => self.drain(session, side),
            Happening::Close { session, side } => self.close(session, side),
            Happening::Break { session, fault } => self.break_something(session, fault),
            Happening::Settle => self.settle(),
        }
    }

    fn open(&mut self, session: usize, side: usize) -> Checked {
        let now = self.instant();
        let it = &mut self.sessions[session].sides[side];
        let (Some(machine), true) = (&mut it.machine, it.established) else {
            if it.ended.is_none() && !it.settles {
                // Not there yet.
                self.after(Duration::from_millis(500), Happening::Open { session, side });
            }
            return Ok(());
        };
        let Some(plan) = it.opens.pop_front() else { return Ok(()) };
        let priority = plan.priority;
        let Some((stream, credit)) = machine.open(now, PROTOCOL, priority) else {
            if !it.draining && !it.drains && !it.closing {
                // There is no room until others end.
                self.report.happened(Happened::OpensDelayed);
                it.opens.push_front(plan);
                self.after(Duration::from_millis(200), Happening::Open { session, side });
            } else {
                self.report.happened(Happened::OpensRefused);
            }
            return Ok(());
        };
        it.handles.insert(stream, Handle::new(plan, true, credit));
        it.count_held();
        if it.draining || it.drains {
            return violated("a stream was opened in a session that drains");
        }
        self.sessions[session].ledger.opened(stream, priority);
        self.report.happened(match priority {
            Priority::Control => Happened::ControlStreams,
            Priority::Live => Happened::LiveStreams,
            Priority::Bulk => Happened::BulkStreams,
        });
        self.acts(session, side, stream, Duration::ZERO);
        self.pump(session, side)
    }

    /// Puts a stream's next message on the calendar.
    fn acts(&mut self, session: usize, side: usize, stream: StreamId, wait: Duration) {
        if let Some(handle) = self.sessions[session].sides[side].handles.get_mut(&stream)
            && !handle.acts
            && handle.over.is_none()
            && !handle.finished
        {
            handle.acts = true;
            self.after(wait, Happening::Act { session, side, stream });
        }
    }

    /// An application sends its next message, or ends its direction, or leaves.
    fn act(&mut self, session: usize, side: usize, stream: StreamId) -> Checked {
        let now = self.instant();
        let Some(wire) = self.sessions[session].primary else { return Ok(()) };
        let it = &mut self.sessions[session];
        let Some(machine) = &mut it.sides[side].machine else { return Ok(()) };
        let Some(handle) = it.sides[side].handles.get_mut(&stream).filter(|handle| handle.over.is_none()) else {
            return Ok(());
        };
        handle.acts = false;
        let settles = it.sides[side].settles;
        if let Some(leaving) = handle.leaves() {
            handle.ends_after = None;
            match leaving {
                Leaving::Resets => {
                    machine.reset(stream, 1_024);
                    handle.over = Some(Over::Abandoned);
                    it.ledger.flow(stream, 1 - side)?.over = true;
                    let untouched = handle.taken == 0 && !handle.ours;
                    self.report.happened(if untouched { Happened::Rejections } else { Happened::Resets });
                    return self.pump(session, side);
                }
                Leaving::Releases => {
                    machine.release(now, stream);
                    handle.released = true;
                    for cost in std::mem::take(&mut handle.unread) {
                        it.ledger.takes(stream, 1 - side, cost)?;
                    }
                    it.ledger.flow(stream, 1 - side)?.released = true;
                    self.report.happened(Happened::Releases);
                }
            }
        }
        match handle.lengths.front().copied() {
            Some(length) if message_cost(length) <= handle.credit => {
                handle.lengths.pop_front();
                handle.credit -= message_cost(length);
                let (offset, message) = content(&mut self.rng, length);
                let written = self.wires[wire].pipes[1 - side].written;
                it.ledger.sends(stream, side, offset, length, written)?;
                machine.send(stream, message);
                let gap = if settles { Duration::ZERO } else { handle.gap };
                let wait = self.moment(gap);
                self.acts(session, side, stream, wait);
            }
            // Credit brings it back.
            Some(_) => {}
            None if handle.finishes || settles => {
                handle.finished = true;
                machine.finish(stream);
                it.ledger.flow(stream, side)?.finished = true;
                if !handle.peer_finished {
                    self.report.happened(Happened::HalfCloses);
                }
            }
            None => {}
        }
        self.pump(session, side)
    }

    /// An application takes its next message.
    fn read(&mut self, session: usize, side: usize, stream: StreamId) -> Checked {
        let now = self.instant();
        let it = &mut self.sessions[session];
        let settles = it.sides[side].settles;
        let Some(handle) = it.sides[side].handles.get_mut(&stream) else { return Ok(()) };
        handle.reads = false;
        let Some(cost) = handle.unread.pop_front() else { return Ok(()) };
        handle.taken += 1;
        it.ledger.takes(stream, 1 - side, cost)?;
        if let Some(machine) = &mut it.sides[side].machine {
            machine.consumed(now, stream);
        }
        let (more, pace, leaves) = (!handle.unread.is_empty(), handle.pace, handle.leaves().is_some());
        if more {
            handle.reads = true;
            let pace = if settles { Duration::ZERO } else { pace };
            self.after(pace, Happening::Read { session, side, stream });
        }
        if leaves {
            self.acts_at_once(session, side, stream);
        }
        self.pump(session, side)
    }

    /// Has an application look at a stream even when it has nothing more to send on it.
    fn acts_at_once(&mut self, session: usize, side: usize, stream: StreamId) {
        if let Some(handle) = self.sessions[session].sides[side].handles.get_mut(&stream)
            && handle.over.is_none()
        {
            self.after(Duration::ZERO, Happening::Act { session, side, stream });
        }
    }

    fn drain(&mut self, session: usize, side: usize) -> Checked {
        let now = self.instant();
        let settled = self.now >= SETTLES;
        let it = &mut self.sessions[session].sides[side];
        let Some(machine) = it.machine.as_mut().filter(|_| it.established) else {
            if it.ended.is_none() {
                self.after(Duration::from_millis(500), Happening::Drain { session, side });
            }
            return Ok(());
        };
        if it.drains || it.draining {
            return Ok(());
        }
        machine.drain(now);
        it.drains = true;
        if !settled && !it.opens.is_empty() {
            self.report.happened(Happened::EarlyDrains);
        }
        self.report.happened(Happened::Drains);
        self.pump(session, side)
    }

    fn close(&mut self, session: usize, side: usize) -> Checked {
        let Some((_, _, code)) = self.sessions[session].plan.close else { return Ok(()) };
        let it = &mut self.sessions[session];
        let this = &mut it.sides[side];
        let Some(machine) = this.machine.as_mut().filter(|_| this.established && !this.closing) else {
            return Ok(());
        };
        machine.close(code);
        this.closing = true;
        it.hurt = true;
        self.report.happened(Happened::ClosedMidway);
        self.pump(session, side)
    }

    /// Everybody sends what is left at once, reads at once, and ends.
    fn settle(&mut self) -> Checked {
        for session in 0..self.sessions.len() {
            for side in 0..2 {
                let it = &mut self.sessions[session].sides[side];
                it.settles = true;
                it.opens.clear();
                let streams: Vec<StreamId> = it.handles.keys().copied().collect();
                for stream in streams {
                    self.acts(session, side, stream, Duration::ZERO);
                }
            }
            let drained = self.sessions[session].sides.iter().any(|side| side.drains);
            if !drained {
                // Who was to drain had ended, or never began.
                self.drain(session, 0)?;
            }
        }
        Ok(())
    }
}
