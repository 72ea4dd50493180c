//! Connections and who is at their ends.

use super::cast::{Cast, Server, UNIX_NOW};
use super::ledger::{Checked, violated};
use super::network::{Line, Pipe};
use super::report::Happened;
use super::side::{Ended, Session};
use super::{Happening, World};
use crate::session::forger::Forger;
use crate::session::{
    Accepted, Accepting, ConnId, Dial, Dialler, Keepalive, LaneDialling, Machine, PRIMARY, SessionError,
};

/// A connection: the dialler's end, then the acceptor's.
#[derive(Debug)]
pub(super) struct Wire {
    /// Whose it is; strangers belong to nobody.
    pub(super) session: Option<usize>,
    pub(super) lane: Option<usize>,
    /// The server shows another key to all but this lane's session by now.
    pub(super) renewed: bool,
    /// A lane that the dialler's own machine does not want.
    pub(super) beyond: bool,
    pub(super) server: Server,
    pub(super) ends: [End; 2],
    /// Towards each end.
    pub(super) pipes: [Pipe; 2],
    /// Something was changed on the way, or it broke.
    pub(super) hurt: bool,
}

/// Who is at an end of a connection.
#[derive(Debug)]
pub(super) enum End {
    /// A session, with this number of the connection.
    Session(usize, ConnId),
    Accepting(Box<Accepting>),
    Dialling(usize, Box<LaneDialling>),
    /// Sends what it has sent and expects nothing.
    Stranger,
    /// Shows what somebody else has shown.
    Forger(Box<Forger>),
    Nobody,
}

impl World {
    pub(super) fn wire(&mut self, line: Line, dialler: End, server: Server) -> Result<usize, super::Violation> {
        let now = self.instant();
        let acceptor = Cast::of_all().and_then(|cast| cast.acceptor(server));
        let Some(Ok(accepting)) = acceptor.map(|acceptor| Accepting::new(acceptor, now)) else {
            return violated("a server that cannot accept");
        };
        Ok(self.wire_to(line, dialler, server, accepting))
    }

    pub(super) fn wire_to(&mut self, line: Line, dialler: End, server: Server, accepting: Accepting) -> usize {
        let wire = self.wires.len();
        let ends = [dialler, End::Accepting(Box::new(accepting))];
        let pipes = [Pipe::new(line), Pipe::new(line)];
        let (renewed, beyond, hurt) = (false, false, false);
        self.wires.push(Wire { session: None, lane: None, renewed, beyond, server, ends, pipes, hurt });
        self.set_deadline(wire, 1);
        wire
    }

    pub(super) fn set_deadline(&mut self, wire: usize, end: usize) {
        let due = match &self.wires[wire].ends[end] {
            End::Accepting(accepting) => accepting.poll_timeout(),
            End::Dialling(_, dialling) => dialling.poll_timeout(),
            _ => None,
        };
        if let Some(due) = due {
            self.at(due.saturating_duration_since(self.start), Happening::Deadline { wire, end });
        }
    }

    /// Dials a session's primary.
    pub(super) fn dial(&mut self, session: usize) -> Checked {
        let now = self.instant();
        let Some(cast) = Cast::of_all() else { return violated("no cast") };
        let plan = &self.sessions[session].plan;
        let (server, line, growth) = (plan.server, plan.line, plan.growth[0]);
        let dial = Dial {
            target: if plan.service { cast.service } else { cast.node },
            me: if plan.anonymous { Dialler::Anonymous } else { Dialler::Identity(cast.dialler.clone()) },
            known: None,
            keepalive: Keepalive::default(),
            lanes: plan.lanes,
            unix_now: UNIX_NOW,
            floors: cast.floors(),
        };
        self.report.happened(Happened::Sessions);
        self.report.happened_times(Happened::AnonymousDiallers, plan.anonymous.into());
        self.report.happened_times(Happened::Services, plan.service.into());
        let imposter = match server {
            Server::Stranger => Some(Happened::WrongServers),
            Server::Expired => Some(Happened::BadDelegations),
            Server::Withdrawn => Some(Happened::WithdrawnDelegations),
            Server::Node | Server::Replica(_) | Server::Renewed => None,
        };
        if let Some(what) = imposter {
            self.report.happened(what);
            self.sessions[session].imposter = true;
        }
        let mut machine = match Machine::dial(dial, now) {
            Ok(machine) => machine,
            Err(error) => return violated(format!("cannot dial: {error}")),
        };
        machine.limit_growth(growth);
        let wire = self.wire(line, End::Session(session, PRIMARY), server)?;
        self.wires[wire].session = Some(session);
        let it = &mut self.sessions[session];
        it.primary = Some(wire);
        it.sides[0].machine = Some(Box::new(machine));
        it.sides[0].wires.insert(PRIMARY, wire);
        self.pump(session, 0)
    }

    /// A stranger connects.
    pub(super) fn stranger(&mut self, line: Line, server: Server, says: &[u8]) -> Checked {
        let wire = self.wire(line, End::Stranger, server)?;
        self.write(wire, 0, says);
        Ok(())
    }

    /// Whoever is at `end` writes to the other.
    pub(super) fn write(&mut self, wire: usize, end: usize, bytes: &[u8]) {
        if !bytes.is_empty() {
            let segments = self.wires[wire].pipes[1 - end].write(self.now, bytes, &mut self.rng);
            self.report.happened_times(Happened::Splits, segments as u64 - 1);
            self.expect(wire, 1 - end);
        }
    }

    /// Puts the next arrival at an end on the calendar.
    pub(super) fn expect(&mut self, wire: usize, end: usize) {
        let pipe = &mut self.wires[wire].pipes[end];
        if let Some(due) = pipe.due()
            && pipe.scheduled.is_none_or(|scheduled| due < scheduled)
        {
            pipe.scheduled = Some(due);
            self.at(due, Happening::Arrival { wire, end });
        }
    }

    /// Whoever was at an end is gone: the other learns it when all else has arrived.
    pub(super) fn shut(&mut self, wire: usize, end: usize) {
        self.wires[wire].ends[end] = End::Nobody;
        self.wires[wire].pipes[1 - end].end(self.now);
        self.expect(wire, 1 - end);
    }

    pub(super) fn arrive(&mut self, wire: usize, end: usize) -> Checked {
        self.wires[wire].pipes[end].scheduled = None;
        if let End::Session(session, _) = self.wires[wire].ends[end] {
            let until = self.sessions[session].sides[end].paused_until;
            if until > self.now {
                self.wires[wire].pipes[end].stall(until);
            }
        }
        let arrived = self.wires[wire].pipes[end].read(self.now);
        self.report.happened_times(Happened::Merges, (arrived.segments > 1).into());
        self.report.log(self.now, (wire, end, arrived.bytes.len()));
        if !arrived.bytes.is_empty() {
            self.feed(wire, end, &arrived.bytes)?;
            // There is room for the other side.
            if let End::Session(session, _) = self.wires[wire].ends[1 - end] {
                self.pump(session, 1 - end)?;
            }
        }
        if arrived.ended {
            return self.lose(wire, end);
        }
        self.expect(wire, end);
        Ok(())
    }

    /// Bytes for who is at an end.
    fn feed(&mut self, wire: usize, end: usize, bytes: &[u8]) -> Checked {
        let now = self.instant();
        match &mut self.wires[wire].ends[end] {
            End::Session(session, conn) => {
                let (session, conn) = (*session, *conn);
                if end == 0 && self.sessions.len() > 1 && !self.sessions[session].sides[0].established {
                    self.name_another(session);
                }
                let Some(machine) = &mut self.sessions[session].sides[end].machine else { return Ok(()) };
                match machine.handle_input(now, conn, bytes) {
                    Ok(()) => self.pump(session, end),
                    Err(error) => self.fail(session, end, error),
                }
            }
            End::Accepting(accepting) => {
                let accepted = accepting.handle_input(now, bytes);
                let mut out = Vec::new();
                accepting.poll_output(&mut out);
                self.write(wire, end, &out);
                match accepted {
                    Ok(None) => Ok(()),
                    Ok(Some(Accepted::Session(machine))) => self.accepted(wire, machine),
                    Ok(Some(Accepted::Lane(request))) => self.asked_to_join(wire, request),
                    Err(error) => self.not_accepted(wire, error),
                }
            }
            End::Dialling(session, dialling) => {
                let session = *session;
                match dialling.handle_input(now, bytes) {
                    Ok(None) => Ok(()),
                    Ok(Some(lane)) => self.lane_dialled(wire, session, lane),
                    Err(error) => self.no_lane(wire, session, &error),
                }
            }
            End::Forger(_) => {
                self.forger_speaks(wire, bytes);
                Ok(())
            }
            End::Stranger | End::Nobody => Ok(()),
        }
    }

    /// Has a dialler name another session with the same peer that it holds, as late as can be.
    fn name_another(&mut self, session: usize) {
        let same = |other: &Session| {
            !other.plan.anonymous
                && other.plan.service == self.sessions[session].plan.service
                && other.sides[0].established
                && other.sides[0].ended.is_none()
        };
        let another =
            (0..self.sessions.len()).filter(|it| *it != session).map(|it| &self.sessions[it]).find(|it| same(it));
        let known = another.and_then(|other| other.sides[0].machine.as_ref()).and_then(|machine| machine.session_id());
        let it = &mut self.sessions[session];
        if let Some(machine) = &mut it.sides[0].machine {
            machine.set_known(known);
            // Who does not say who it is says nothing of what it holds either.
            it.named = known.filter(|_| !it.plan.anonymous);
        }
    }

    fn accepted(&mut self, wire: usize, mut machine: Box<Machine>) -> Checked {
        if matches!(self.wires[wire].ends[0], End::Forger(_)) {
            return violated("a proof of another connection was taken");
        }
        let Some(session) = self.wires[wire].session.filter(|_| self.wires[wire].lane.is_none()) else {
            return violated("a session with who never asked for one");
        };
        if machine.known() != self.sessions[session].named {
            return violated("what the dialler says of a session that it holds did not arrive");
        }
        self.report.happened_times(Happened::Known, machine.known().is_some().into());
        self.wires[wire].ends[1] = End::Session(session, PRIMARY);
        let it = &mut self.sessions[session];
        machine.limit_growth(it.plan.growth[1]);
        it.sides[1].machine = Some(machine);
        it.sides[1].wires.insert(PRIMARY, wire);
        self.pump(session, 1)
    }

    fn not_accepted(&mut self, wire: usize, error: SessionError) -> Checked {
        self.report.log(self.now, ("not accepted", wire, error.to_string()));
        let forwarded = matches!((&self.wires[wire].ends[0], &error), (End::Forger(_), SessionError::BadProof));
        self.report.happened_times(Happened::ProofsForwarded, forwarded.into());
        self.shut(wire, 1);
        let Some(session) = self.wires[wire].session else { return Ok(()) };
        if self.wires[wire].lane.is_none() {
            return self.never_accepted(session, error);
        }
        Ok(())
    }

    /// A primary was lost before it was a session for the acceptor.
    fn never_accepted(&mut self, session: usize, error: SessionError) -> Checked {
        let it = &mut self.sessions[session];
        if !it.hurt && !it.imposter {
            return violated(format!("a dialler was not accepted: {error}"));
        }
        it.sides[1].ended = Some(Ended::Failed(error));
        it.sides[1].ended_at = self.now;
        Ok(())
    }

    /// Nothing more comes to an end.
    fn lose(&mut self, wire: usize, end: usize) -> Checked {
        let now = self.instant();
        match &mut self.wires[wire].ends[end] {
            End::Session(session, conn) => {
                let (session, conn) = (*session, *conn);
                self.shut(wire, end);
                self.sessions[session].sides[end].wires.remove(&conn);
                let Some(machine) = &mut self.sessions[session].sides[end].machine else { return Ok(()) };
                match machine.handle_lost(now, conn) {
                    Ok(()) if conn == PRIMARY => violated("a session goes on without its primary"),
                    Ok(()) => self.pump(session, end),
                    Err(error) => self.fail(session, end, error),
                }
            }
            End::Accepting(_) => self.not_accepted(wire, SessionError::Lost),
            End::Dialling(session, _) => {
                let session = *session;
                self.no_lane(wire, session, &SessionError::Lost.into())
            }
            End::Stranger | End::Forger(_) => {
                self.shut(wire, end);
                Ok(())
            }
            End::Nobody => Ok(()),
        }
    }

    /// A handshake may have taken too long.
    pub(super) fn deadline(&mut self, wire: usize, end: usize) -> Checked {
        let now = self.instant();
        match &mut self.wires[wire].ends[end] {
            End::Accepting(accepting) => match accepting.handle_timeout(now) {
                Ok(()) => violated("a handshake without an end"),
                Err(error) => self.not_accepted(wire, error),
            },
            End::Dialling(session, dialling) => {
                let session = *session;
                match dialling.handle_timeout(now) {
                    Ok(()) => violated("a lane's handshake without an end"),
                    Err(error) => self.no_lane(wire, session, &error),
                }
            }
            _ => Ok(()),
        }
    }
}
