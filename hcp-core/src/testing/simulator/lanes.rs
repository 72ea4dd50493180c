//! Lanes: dialled when a machine wants them or when it must not, to the right replica or another, before and after the
//! owner's next round.

use std::sync::Arc;

use rand::RngExt;

use super::cast::{Cast, Server};
use super::ledger::{Checked, Violation, violated};
use super::network::Line;
use super::plan;
use super::report::Happened;
use super::side::Side;
use super::wires::{End, Wire};
use super::{Happening, World};
use crate::session::{Accepting, Acceptor, Formerly, JoinRequest, Lane, LaneError, LaneHint, MAX_LANES};

/// How often a lane that reached another replica is dialled again.
const LANE_TRIES: usize = 2;

/// What a renewed server knows of before.
#[derive(Debug)]
struct Before {
    hint: LaneHint,
    acceptor: Arc<Acceptor>,
}

impl Formerly for Before {
    fn acceptor_of(&self, hint: &LaneHint) -> Option<Arc<Acceptor>> {
        (self.hint == *hint).then(|| Arc::clone(&self.acceptor))
    }
}

impl World {
    /// Has a session dial the lanes that it wants.
    pub(super) fn see_to_lanes(&mut self, session: usize, side: usize) {
        let it = &mut self.sessions[session];
        let Some(machine) = it.sides[side].machine.as_ref().filter(|_| side == 0 && it.plan.lane_budget > 0) else {
            return;
        };
        if machine.lanes_wanted() > it.dialling {
            it.dialling += 1;
            it.plan.lane_budget -= 1;
            let wait = self.moment(std::time::Duration::from_secs(1));
            self.after(wait, Happening::DialLane { session, tries: 0 });
        }
    }

    pub(super) fn dial_lane(&mut self, session: usize, tries: usize) -> Checked {
        let now = self.instant();
        let it = &mut self.sessions[session];
        let (size, service, server) = (it.plan.size, it.plan.service, it.plan.server);
        let Some(machine) = it.sides[0].machine.as_mut().filter(|machine| machine.lanes_wanted() > 0) else {
            it.dialling -= 1;
            return Ok(());
        };
        let dialling = match machine.lane_dialling(now) {
            Ok(dialling) => dialling,
            Err(error) => return violated(format!("cannot dial a lane: {error}")),
        };
        self.report.happened(Happened::LaneDials);
        let line = plan::lane_line(&mut self.rng, size);
        let other = service && self.rng.random_range(0..4) == 0;
        let server = if other { Cast::other_replica(server) } else { server };
        let end = End::Dialling(session, Box::new(dialling));
        let it = &self.sessions[session];
        let renewed = !other && it.plan.renews.is_some_and(|at| at <= self.now);
        let held = it.sides[1].machine.as_ref().and_then(|machine| machine.session_id());
        let wire = match held.filter(|_| renewed) {
            Some(id) => self.wire_to_renewed(line, end, server, id.lane_hint())?,
            None => self.wire(line, end, server)?,
        };
        self.begin_lane(wire, session, tries);
        Ok(())
    }

    fn begin_lane(&mut self, wire: usize, session: usize, tries: usize) {
        self.wires[wire].session = Some(session);
        self.wires[wire].lane = Some(tries);
        self.set_deadline(wire, 0);
        self.flush_dialling(wire);
    }

    /// A dialler asks for one more lane than may live; `false` when fewer live.
    pub(super) fn dial_beyond(&mut self, session: usize) -> Result<bool, Violation> {
        let now = self.instant();
        let it = &mut self.sessions[session];
        let full = |side: &Side| side.machine.as_ref().is_some_and(|machine| machine.stats().lanes == MAX_LANES);
        let Some(machine) = it.sides.iter().all(full).then(|| it.sides[0].machine.as_mut()).flatten() else {
            return Ok(false);
        };
        // The session may be about to end.
        let Ok(dialling) = machine.lane_dialling(now) else { return Ok(false) };
        let (size, server) = (it.plan.size, it.plan.server);
        let line = plan::lane_line(&mut self.rng, size);
        let wire = self.wire(line, End::Dialling(session, Box::new(dialling)), server)?;
        self.wires[wire].beyond = true;
        self.begin_lane(wire, session, 0);
        Ok(true)
    }

    /// The dialler has made a connection a lane.
    pub(super) fn lane_dialled(&mut self, wire: usize, session: usize, lane: Lane) -> Checked {
        let now = self.instant();
        if self.wires[wire].server != self.sessions[session].plan.server {
            return violated("a lane to another replica");
        }
        if self.wires[wire].beyond {
            // Its own machine would not take it.
            self.wires[wire].ends[0] = End::Stranger;
            self.write(wire, 0, &lane.into_words());
            return Ok(());
        }
        let it = &mut self.sessions[session];
        it.dialling -= 1;
        let Some(machine) = &mut it.sides[0].machine else {
            self.shut(wire, 0);
            return Ok(());
        };
        match machine.add_lane(now, lane) {
            Ok(conn) => {
                it.had_lanes = true;
                it.sides[0].wires.insert(conn, wire);
                self.wires[wire].ends[0] = End::Session(session, conn);
                self.pump(session, 0)
            }
            // The session ends, or took as many by now.
            Err(_) => {
                self.shut(wire, 0);
                Ok(())
            }
        }
    }

    fn flush_dialling(&mut self, wire: usize) {
        let mut out = Vec::new();
        match &mut self.wires[wire].ends {
            [End::Dialling(_, dialling), _] => dialling.poll_output(&mut out),
            _ => return,
        }
        self.write(wire, 0, &out);
    }

    /// A connection to a server that was renewed after it had accepted the session that lives under this hint.
    fn wire_to_renewed(
        &mut self,
        line: Line,
        dialler: End,
        server: Server,
        hint: LaneHint,
    ) -> Result<usize, Violation> {
        let now = self.instant();
        let Some(cast) = Cast::of_all() else { return violated("no cast") };
        let acceptors = cast.acceptor(server).zip(cast.acceptor(Server::Renewed));
        let accepting = acceptors.map(|(former, present)| {
            Accepting::knowing(present, Arc::new(Before { hint, acceptor: Arc::clone(former) }), now)
        });
        let Some(Ok(accepting)) = accepting else { return violated("a server that cannot accept") };
        let wire = self.wire_to(line, dialler, server, accepting);
        self.wires[wire].renewed = true;
        Ok(wire)
    }

    /// A lane came to nothing.
    pub(super) fn no_lane(&mut self, wire: usize, session: usize, error: &LaneError) -> Checked {
        let Wire { lane, hurt, renewed, beyond, .. } = self.wires[wire];
        let tries = lane.unwrap_or(0);
        self.report.log(self.now, ("no lane", session, error.to_string()));
        self.shut(wire, 0);
        if matches!(error, LaneError::OtherReplica) {
            if renewed {
                return violated("a lane was not shown the key of its session");
            }
            self.report.happened(Happened::OtherReplicas);
            if tries < LANE_TRIES {
                self.after(std::time::Duration::from_millis(100), Happening::DialLane { session, tries: tries + 1 });
                return Ok(());
            }
            self.report.happened(Happened::LanesGivenUp);
        } else if !hurt && self.sessions[session].sides[1].ended.is_none() {
            return violated(format!("a lane failed though nothing happened to it: {error}"));
        }
        self.sessions[session].dialling -= usize::from(!beyond);
        Ok(())
    }

    /// A connection asks to be a lane of the session whose it is, or is offered to another.
    pub(super) fn asked_to_join(&mut self, wire: usize, request: JoinRequest) -> Checked {
        let now = self.instant();
        let Some(owner) = self.wires[wire].session else { return violated("a stranger asked for a lane") };
        let named = request.session_id();
        let session = self.thief_of(owner).unwrap_or(owner);
        let stolen = session != owner;
        let Some(machine) = &mut self.sessions[session].sides[1].machine else {
            self.write(wire, 1, &request.refuse());
            self.shut(wire, 1);
            return Ok(());
        };
        if !stolen && machine.session_id() != Some(named) {
            return violated("a lane that names another session");
        }
        match machine.join(now, request) {
            Ok(_) if stolen => violated("a session took a lane of another"),
            Ok(conn) => {
                let lanes = machine.stats().lanes;
                if lanes > MAX_LANES {
                    return violated(format!("{lanes} lanes are alive"));
                }
                let Wire { renewed, beyond, .. } = self.wires[wire];
                self.report.happened(Happened::LanesJoined);
                self.report.happened_times(Happened::LanesFormerly, renewed.into());
                let it = &mut self.sessions[session];
                it.had_lanes = true;
                it.lanes_joined += 1;
                self.report.happened_times(Happened::ManyLanes, (it.lanes_joined == MAX_LANES + 1).into());
                it.sides[1].wires.insert(conn, wire);
                self.wires[wire].ends[1] = End::Session(session, conn);
                if beyond {
                    // One had died by then. Whoever asked has no use for it.
                    self.wires[wire].hurt = true;
                    self.cut(wire);
                }
                self.pump(session, 1)
            }
            Err(request) => {
                self.report.log(self.now, ("refused", session));
                if stolen {
                    self.report.happened(Happened::LanesStolen);
                } else if self.wires[wire].beyond {
                    self.report.happened(Happened::LanesBeyond);
                }
                self.wires[wire].hurt = true;
                self.write(wire, 1, &request.refuse());
                self.shut(wire, 1);
                Ok(())
            }
        }
    }
}
