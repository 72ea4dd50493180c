//! Between machines and what surrounds them: events up to applications, bytes down to wires, ends to both.

use super::ledger::{Checked, violated};
use super::plan::{Leaving, SessionPlan, Size, StreamPlan};
use super::report::Happened;
use super::side::{Ended, Handle, Over};
use super::{Happening, PROTOCOL, World};
use crate::session::{
    CLOSE_PROTOCOL, CLOSE_SHUTDOWN, ConnId, Event, MAX_MESSAGE, MAX_STREAMS, PRIMARY, Peer, Priority, RESET_BUSY,
    RESET_DRAINING, SessionError, StreamId, message_cost,
};

/// What one [`Machine::poll_output`](crate::session::Machine::poll_output) gives at the most: what it collects and one more
/// batch, each record of TLS with 22 bytes around it.
const MOST_OUTPUT: usize = 2 * 65_536 + 1_024;
/// Streams of both sides that one side may hold, those included that are over and not yet taken.
const MOST_HELD: usize = 2 * MAX_STREAMS as usize;

impl World {
    /// Carries events up and bytes down until there are none.
    pub(super) fn pump(&mut self, session: usize, side: usize) -> Checked {
        let it = &self.sessions[session].sides[side];
        if it.paused_until > self.now {
            // Its time to wake is on the calendar.
            return Ok(());
        }
        loop {
            let told = self.tell(session, side)?;
            let written = self.write_out(session, side)?;
            if !told && !written {
                break;
            }
        }
        self.see_to_close(session, side)?;
        self.see_to_lanes(session, side);
        self.see_to_memory(session, side)?;
        self.see_to_growth(session, side);
        self.set_timer(session, side);
        Ok(())
    }

    fn set_timer(&mut self, session: usize, side: usize) {
        let start = self.start;
        let it = &mut self.sessions[session].sides[side];
        let due = it.machine.as_ref().and_then(|machine| machine.poll_timeout());
        let Some(due) = due.map(|due| due.saturating_duration_since(start)) else { return };
        if it.timer.is_none_or(|timer| due < timer) {
            it.timer = Some(due);
            self.at(due, Happening::Timer { session, side });
        }
    }

    /// A machine's time may have come, or a side wakes after a pause.
    pub(super) fn wake(&mut self, session: usize, side: usize) -> Checked {
        let now = self.instant();
        let it = &mut self.sessions[session].sides[side];
        it.timer = None;
        if it.paused_until > self.now {
            let until = it.paused_until;
            it.timer = Some(until);
            self.at(until, Happening::Timer { session, side });
            return Ok(());
        }
        if let Some(machine) = &mut it.machine
            && machine.poll_timeout().is_some_and(|due| due <= now)
            && let Err(error) = machine.handle_timeout(now)
        {
            return self.fail(session, side, error);
        }
        self.pump(session, side)
    }

    /// Takes a machine's events.
    fn tell(&mut self, session: usize, side: usize) -> Result<bool, super::Violation> {
        let mut any = false;
        while let Some(event) =
            self.sessions[session].sides[side].machine.as_mut().and_then(|machine| machine.poll_event())
        {
            any = true;
            self.tell_one(session, side, event)?;
        }
        Ok(any)
    }

    fn tell_one(&mut self, session: usize, side: usize, event: Event) -> Checked {
        let now = self.now;
        if !self.sessions[session].sides[side].established && !matches!(event, Event::Established(_)) {
            return violated("an event before the session was established");
        }
        match event {
            Event::Established(peer) => self.established(session, side, peer),
            Event::Opened { stream, protocol, priority, credit } => {
                self.report.log(now, ("opened", session, side, stream, credit));
                if protocol != PROTOCOL {
                    return violated("a protocol that was not asked for");
                }
                self.opened(session, side, stream, priority, credit)
            }
            Event::Message { stream, message } => self.message(session, side, stream, &message),
            Event::Finished(stream) => {
                self.report.log(now, ("finished", session, side, stream));
                self.report.happened(Happened::Finished);
                let Some(handle) = self.sessions[session].sides[side].handles.get_mut(&stream) else {
                    return violated("the end of a stream that is not there");
                };
                if handle.over.is_some() || handle.peer_finished {
                    return violated(format!("stream {stream} ended twice"));
                }
                handle.peer_finished = true;
                let released = handle.released;
                let flow = self.sessions[session].ledger.flow(stream, 1 - side)?;
                flow.end_seen = true;
                if !flow.is_complete() && !released {
                    return violated(format!("stream {stream} ended before it was complete"));
                }
                Ok(())
            }
            Event::Credit { stream, bytes } => self.credit(session, side, stream, bytes),
            Event::Refunded { stream, bytes } => self.refunded(session, side, stream, bytes),
            Event::Gone { .. } => Ok(()),
            Event::Reset { stream, code } => {
                self.report.log(now, ("reset", session, side, stream, code));
                self.report.happened(match code {
                    RESET_DRAINING => Happened::NeverServed,
                    RESET_BUSY => Happened::BusyResets,
                    _ => Happened::ResetsReceived,
                });
                let held = self.sessions[session].sides[1 - side].most_held;
                if code == RESET_BUSY && held < MOST_HELD {
                    return violated(format!(
                        "stream {stream} was refused for want of room by who held {held} at the most"
                    ));
                }
                self.over(session, side, stream, Over::Reset(code))
            }
            Event::Closed { stream } => {
                self.report.log(now, ("closed", session, side, stream));
                self.over(session, side, stream, Over::Closed)?;
                self.closed_streams_are_complete(session, side, stream)
            }
            Event::LaneEnded(lane) => {
                self.report.log(now, ("lane ended", session, side, lane));
                self.report.happened(Happened::LanesEnded);
                if let Some(wire) = self.sessions[session].sides[side].wires.remove(&lane) {
                    self.shut(wire, side);
                }
                Ok(())
            }
            Event::Draining => {
                self.report.log(now, ("draining", session, side));
                let it = &mut self.sessions[session];
                it.sides[side].draining = true;
                if it.sides[side].drains && it.sides[1 - side].drains {
                    self.report.happened(Happened::DoubleDrains);
                }
                Ok(())
            }
            Event::Drained => {
                self.report.log(now, ("drained", session, side));
                self.report.happened(Happened::Drained);
                self.all_is_over(session, side)?;
                let it = &mut self.sessions[session].sides[side];
                it.drained = true;
                it.closing = true;
                if let Some(machine) = &mut it.machine {
                    machine.close(CLOSE_SHUTDOWN);
                }
                Ok(())
            }
        }
    }

    fn established(&mut self, session: usize, side: usize, peer: Peer) -> Checked {
        self.report.log(self.now, ("established", session, side));
        self.report.happened(Happened::Established);
        let Some(cast) = super::Cast::of_all() else { return violated("no cast") };
        let it = &mut self.sessions[session];
        let expected = match side {
            0 if it.plan.service => Peer::Address(cast.service),
            0 => Peer::Address(cast.node),
            _ if it.plan.anonymous => Peer::Anonymous,
            _ => Peer::Address(cast.dialler.address()),
        };
        if it.imposter {
            return violated("a session with somebody who may not answer");
        }
        if std::mem::replace(&mut it.sides[side].established, true) || peer != expected {
            return violated("established twice, or with somebody else");
        }
        Ok(())
    }

    fn opened(&mut self, session: usize, side: usize, stream: StreamId, priority: Priority, credit: u64) -> Checked {
        let it = &mut self.sessions[session];
        let asked = it.sides[1 - side].handles.get(&stream).map(|handle| (handle.ours, handle.priority));
        if asked != Some((true, priority)) || it.sides[side].handles.contains_key(&stream) {
            return violated(format!("stream {stream} was opened otherwise than asked for"));
        }
        if it.sides[side].drains && !it.sides[side].closing {
            return violated(format!("stream {stream} was served by a side that drains"));
        }
        let plan = StreamPlan::new(&mut self.rng, it.plan.size, Some(priority));
        let plan = match it.plan.size {
            // Answers would take what the streams that matter here are to fill.
            Size::Saturated => StreamPlan { lengths: Vec::new(), ends_after: None, finishes: true, ..plan },
            _ => plan,
        };
        let plan = match self.sessions[session].plan.crowd {
            Some(crowd) if crowd != side => SessionPlan::late_reader(),
            _ => plan,
        };
        if !plan.pace.is_zero() {
            self.report.happened(Happened::SlowReaders);
        }
        let it = &mut self.sessions[session].sides[side];
        it.handles.insert(stream, Handle::new(plan, false, credit));
        let held = it.count_held();
        if held > MOST_HELD {
            return violated(format!("{held} streams are held"));
        }
        self.acts(session, side, stream, std::time::Duration::ZERO);
        Ok(())
    }

    fn message(&mut self, session: usize, side: usize, stream: StreamId, message: &[u8]) -> Checked {
        let now = self.now;
        self.report.log(now, ("message", session, side, stream, message.len()));
        let it = &mut self.sessions[session];
        let by_primary = !it.had_lanes;
        let delivered = it.primary.map_or(0, |wire| self.wires[wire].pipes[side].delivered);
        let Some(handle) = it.sides[side].handles.get_mut(&stream) else {
            return violated(format!("a message on stream {stream}, which is not there"));
        };
        if handle.over.is_some() || handle.released {
            return violated(format!("a message on stream {stream}, which is over"));
        }
        let in_time = by_primary || handle.priority != Priority::Bulk;
        it.ledger.comes(stream, 1 - side, message, delivered, in_time)?;
        handle.unread.push_back(message_cost(message.len()));
        let pace = if it.sides[side].settles { std::time::Duration::ZERO } else { handle.pace };
        let reads = std::mem::replace(&mut handle.reads, true);
        self.report.happened(Happened::Messages);
        self.report.happened_times(Happened::Bytes, message.len() as u64);
        match message.len() {
            0 => self.report.happened(Happened::EmptyMessages),
            MAX_MESSAGE => self.report.happened(Happened::LongestMessages),
            _ => {}
        }
        if !reads {
            self.after(pace, Happening::Read { session, side, stream });
        }
        Ok(())
    }

    fn credit(&mut self, session: usize, side: usize, stream: StreamId, bytes: u64) -> Checked {
        self.report.log(self.now, ("credit", session, side, stream, bytes));
        self.report.happened(Happened::Credits);
        let it = &mut self.sessions[session];
        let Some(handle) = it.sides[side].handles.get_mut(&stream).filter(|handle| handle.over.is_none()) else {
            return violated("credit for a stream that is over");
        };
        handle.credit += bytes;
        if it.ledger.grants(stream, side, bytes, it.plan.growth[1 - side])? {
            self.report.happened(Happened::Growths);
        }
        self.acts(session, side, stream, std::time::Duration::ZERO);
        Ok(())
    }

    /// What the sender did not need it may spend again. The ledger goes on with what a message costs at the most: what it
    /// allows is too much rather than too little, and a sender that spends too much its peer refuses.
    fn refunded(&mut self, session: usize, side: usize, stream: StreamId, bytes: u64) -> Checked {
        self.report.log(self.now, ("refunded", session, side, stream, bytes));
        self.report.happened(Happened::Refunds);
        let Some(handle) = self.sessions[session].sides[side].handles.get_mut(&stream) else {
            return violated("a refund for a stream that is not there");
        };
        handle.credit += bytes;
        self.acts(session, side, stream, std::time::Duration::ZERO);
        Ok(())
    }

    fn over(&mut self, session: usize, side: usize, stream: StreamId, how: Over) -> Checked {
        let Some(handle) = self.sessions[session].sides[side].handles.get_mut(&stream) else {
            return violated(format!("the end of stream {stream}, which is not there"));
        };
        if handle.over.is_some() {
            return violated(format!("stream {stream} was over before"));
        }
        handle.over = Some(how);
        if let Some((_, Leaving::Resets)) = handle.ends_after {
            handle.ends_after = None;
        }
        self.sessions[session].ledger.flow(stream, 1 - side)?.over = true;
        Ok(())
    }

    /// Hands bytes to the wires that take some.
    fn write_out(&mut self, session: usize, side: usize) -> Result<bool, super::Violation> {
        let now = self.instant();
        let conns: Vec<(ConnId, usize)> =
            self.sessions[session].sides[side].wires.iter().map(|(conn, wire)| (*conn, *wire)).collect();
        let mut any = false;
        for (conn, wire) in conns {
            let Some(machine) = &mut self.sessions[session].sides[side].machine else { return Ok(false) };
            if !machine.has_output(conn) {
                continue;
            }
            if !self.wires[wire].pipes[1 - side].has_room() {
                self.report.happened(Happened::Blocked);
                continue;
            }
            let mut out = Vec::new();
            machine.poll_output(now, conn, &mut out);
            if out.is_empty() || out.len() > MOST_OUTPUT {
                return violated(format!("output of {} bytes where some was announced", out.len()));
            }
            any = true;
            self.write(wire, side, &out);
        }
        Ok(any)
    }

    /// Ends a side that has closed, once its last words are out.
    fn see_to_close(&mut self, session: usize, side: usize) -> Checked {
        let it = &mut self.sessions[session].sides[side];
        let out = it.closing && it.machine.as_ref().is_some_and(|machine| !machine.has_output(PRIMARY));
        if out {
            it.ended = Some(Ended::Closed);
            it.ended_at = self.now;
            self.leave(session, side);
        }
        Ok(())
    }

    /// The session has ended for one side.
    pub(super) fn fail(&mut self, session: usize, side: usize, error: SessionError) -> Checked {
        // What came together with the end was received all the same.
        self.tell(session, side)?;
        self.report.log(self.now, ("failed", session, side, error.to_string()));
        let it = &self.sessions[session];
        let in_order = it.sides[1 - side].drained && matches!(error, SessionError::ClosedByPeer(CLOSE_SHUTDOWN));
        let by_itself = it.sides[side].closing && matches!(error, SessionError::Lost | SessionError::ClosedByPeer(_));
        if !it.hurt && !it.imposter && !in_order && !by_itself {
            return violated(format!("side {side} ended though nothing happened to it: {error}"));
        }
        self.report.happened_times(Happened::EndedByKeepalive, matches!(error, SessionError::Silent).into());
        self.report.happened_times(Happened::EndedByLoss, matches!(error, SessionError::Lost).into());
        self.report.happened_times(Happened::EndedByTls, matches!(error, SessionError::Tls(_)).into());
        self.report.happened_times(Happened::EndedByPeer, matches!(error, SessionError::ClosedByPeer(_)).into());
        let now = self.instant();
        let imposter = self.sessions[session].imposter;
        let it = &mut self.sessions[session].sides[side];
        let quiet = matches!(error, SessionError::Lost | SessionError::Silent);
        if let Some(machine) = &mut it.machine {
            if !quiet && !matches!(error, SessionError::ClosedByPeer(_)) {
                machine.close(CLOSE_PROTOCOL);
            }
            let mut out = Vec::new();
            machine.poll_output(now, PRIMARY, &mut out);
            if imposter && side == 0 && !out.is_empty() {
                return violated("something was said to who may not answer");
            }
            if let (Some(wire), false) = (it.wires.get(&PRIMARY).copied(), quiet) {
                self.write(wire, side, &out);
            }
        }
        let it = &mut self.sessions[session].sides[side];
        it.ended = Some(if it.closing { Ended::Closed } else { Ended::Failed(error) });
        it.ended_at = self.now;
        self.leave(session, side);
        Ok(())
    }

    /// Lets go of a machine and its wires.
    fn leave(&mut self, session: usize, side: usize) {
        let it = &mut self.sessions[session].sides[side];
        if let Some(machine) = it.machine.take() {
            let resent = machine.stats().frames_resent;
            self.report.happened_times(Happened::FramesResent, resent);
        }
        for wire in std::mem::take(&mut it.wires).into_values() {
            self.shut(wire, side);
        }
    }

    /// Notes once when a side's windows have grown as far as they may together.
    fn see_to_growth(&mut self, session: usize, side: usize) {
        let it = &mut self.sessions[session].sides[side];
        let spent = it.machine.as_ref().is_some_and(|machine| machine.growth_left() == 0);
        if spent && !it.spent {
            it.spent = true;
            self.report.happened(Happened::PoolsSpent);
        }
    }

    /// What a machine holds is within what its peer was allowed.
    fn see_to_memory(&self, session: usize, side: usize) -> Checked {
        let it = &self.sessions[session];
        let Some(machine) = &it.sides[side].machine else { return Ok(()) };
        let (held, may_hold) = (machine.held_for_streams() as u64, it.ledger.may_hold(side));
        if held > may_hold {
            return violated(format!("{held} bytes are held, and {may_hold} are allowed"));
        }
        Ok(())
    }
}
