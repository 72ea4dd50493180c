//! What a session does with each frame that comes.

use prost::Message;
use tokio::time::Instant;

#[cfg(test)]
use super::super::planted::{Defect, planted};
use super::super::{
    ConnId, MAX_PROTOCOL_NAME, MAX_STREAMS, PRIMARY, Priority, RESET_BUSY, RESET_DRAINING, SessionError, StreamId,
};
use super::{Event, Machine, State};
use crate::wire::session_proto as proto;
use crate::wire::{Frame, FrameKind};

impl Machine {
    /// Handles all frames that have come whole on a connection.
    pub(in crate::session) fn handle_frames(&mut self, now: Instant, conn: ConnId) -> Result<(), SessionError> {
        while !self.is_closed() {
            if let State::Dialling { .. } = self.state {
                let Some(hello) = self.primary.next_frame()? else { return Ok(()) };
                self.handle_hello(now, &hello)?;
                continue;
            }
            let round_trip = self.primary.round_trip().smoothed();
            let known = self.known_streams();
            let Self { primary, lanes, streams, events, .. } = self;
            let connection = if conn == PRIMARY { Some(primary) } else { lanes.get_mut(&conn) };
            let Some(connection) = connection else { return Ok(()) };
            // What streams carry is most of all there is, and is handled where it was read.
            let frame = connection.next_but(|frame| match frame.kind() {
                FrameKind::Data if conn != PRIMARY => Err(SessionError::OutOfPlace("a frame on a lane")),
                FrameKind::Data | FrameKind::Bulk => {
                    known.check(frame.stream())?;
                    streams.receive(now, frame, round_trip, events).map(|()| None)
                }
                _ => Ok(Some(frame.into_frame())),
            })?;
            let Some(frame) = frame else { return Ok(()) };
            self.handle_frame(now, conn, frame)?;
        }
        Ok(())
    }

    fn handle_frame(&mut self, now: Instant, conn: ConnId, frame: Frame) -> Result<(), SessionError> {
        let for_lanes =
            matches!(frame.kind, FrameKind::Ping | FrameKind::Pong | FrameKind::Close | FrameKind::Optional(_));
        if conn != PRIMARY && !for_lanes {
            return Err(SessionError::OutOfPlace("a frame on a lane"));
        }
        match frame.kind {
            FrameKind::Hello | FrameKind::Proof | FrameKind::Join => {
                Err(SessionError::OutOfPlace("a second handshake"))
            }
            // Handled where they were read.
            FrameKind::Data | FrameKind::Bulk => Ok(()),
            FrameKind::Open => self.handle_open(now, &frame),
            FrameKind::Credit => self.handle_credit(now, &frame),
            FrameKind::Reset => self.handle_reset(now, &frame),
            FrameKind::Ping => {
                self.churn.count(now)?;
                self.connection(conn).map_or(Ok(()), |connection| connection.handle_ping(frame))
            }
            FrameKind::Pong => self.connection(conn).map_or(Ok(()), |connection| connection.handle_pong(now, &frame)),
            FrameKind::Drain => self.handle_drain(now, &frame),
            FrameKind::Close => self.handle_close(conn, &frame),
            FrameKind::Optional(_) => self.churn.count(now),
        }
    }

    fn handle_open(&mut self, now: Instant, frame: &Frame) -> Result<(), SessionError> {
        self.churn.count(now)?;
        self.primary.check_answers()?;
        let stream = frame.stream;
        if self.is_own_number(stream) || stream <= self.highest_peer_stream {
            return Err(SessionError::OutOfPlace("a stream number"));
        }
        if self.drain_received.is_some() {
            return Err(SessionError::OutOfPlace("a stream behind DRAIN"));
        }
        let open = proto::Open::decode(&frame.payload[..]).map_err(|_| SessionError::Malformed("open"))?;
        if open.protocol.is_empty() || open.protocol.len() > MAX_PROTOCOL_NAME {
            return Err(SessionError::Malformed("protocol name"));
        }
        if self.streams.open(false) >= MAX_STREAMS as usize {
            return Err(SessionError::Limit("open streams"));
        }
        self.highest_peer_stream = stream;
        let drains = self.drain_sent.is_some();
        #[cfg(test)]
        let drains = drains && !planted(Defect::ServedWhileDraining);
        if drains {
            // It crossed DRAIN, which tells the peer that it is not served.
            return Ok(());
        }
        let full = !self.streams.has_room();
        #[cfg(test)]
        let full = full || (planted(Defect::BusyHasty) && self.streams.open(false) > 1);
        if full {
            #[cfg(test)]
            if planted(Defect::BusyUntold) {
                return Ok(());
            }
            // The application has yet to take what came on streams that are over.
            self.primary.queue(Frame::control(FrameKind::Reset, stream, &proto::Reset { code: RESET_BUSY }));
            return Ok(());
        }
        let priority = match open.priority() {
            proto::Priority::Bulk => Priority::Bulk,
            proto::Priority::Control => Priority::Control,
            proto::Priority::Live => Priority::Live,
        };
        let credit = self.established.as_ref().map_or(0, |established| established.limits.window);
        self.streams.insert(now, stream, false, priority, credit);
        self.events.push_back(Event::Opened { stream, protocol: open.protocol, priority, credit });
        Ok(())
    }

    fn handle_credit(&mut self, now: Instant, frame: &Frame) -> Result<(), SessionError> {
        self.known_streams().check(frame.stream)?;
        let credit = proto::Credit::decode(&frame.payload[..]).map_err(|_| SessionError::Malformed("credit"))?;
        if credit.bytes == 0 {
            self.churn.count(now)?;
        }
        self.streams.credit(frame.stream, &credit, &mut self.events)
    }

    fn handle_reset(&mut self, now: Instant, frame: &Frame) -> Result<(), SessionError> {
        self.churn.count(now)?;
        let stream = frame.stream;
        self.known_streams().check(stream)?;
        let code = proto::Reset::decode(&frame.payload[..]).map_err(|_| SessionError::Malformed("reset"))?.code;
        if self.streams.remove(stream) {
            #[cfg(test)]
            if planted(Defect::ResetUntold) {
                return Ok(());
            }
            self.events.push_back(Event::Reset { stream, code });
        }
        Ok(())
    }

    fn handle_drain(&mut self, now: Instant, frame: &Frame) -> Result<(), SessionError> {
        self.churn.count(now)?;
        let last = proto::Drain::decode(&frame.payload[..]).map_err(|_| SessionError::Malformed("drain"))?.last;
        if self.drain_received.is_some() {
            return Err(SessionError::OutOfPlace("a second DRAIN"));
        }
        self.drain_received = Some(last);
        self.events.push_back(Event::Draining);
        for stream in self.streams.own_above(last) {
            self.streams.remove(stream);
            #[cfg(test)]
            if planted(Defect::NeverServedUntold) {
                continue;
            }
            self.events.push_back(Event::Reset { stream, code: RESET_DRAINING });
        }
        Ok(())
    }

    fn handle_close(&mut self, conn: ConnId, frame: &Frame) -> Result<(), SessionError> {
        let code = proto::Close::decode(&frame.payload[..]).map_err(|_| SessionError::Malformed("close"))?.code;
        if conn == PRIMARY {
            self.state = State::Closed;
            self.primary.end_tls();
            self.lanes.values_mut().for_each(super::Connection::end_tls);
            self.streams.abandon();
        }
        self.end_connection(conn, SessionError::ClosedByPeer(code))
    }

    fn is_own_number(&self, stream: StreamId) -> bool {
        (stream % 2 == 1) == self.is_dialler
    }

    fn known_streams(&self) -> KnownStreams {
        KnownStreams {
            odd_is_ours: self.is_dialler,
            next_own: self.next_stream,
            highest_peer: self.highest_peer_stream,
        }
    }
}

/// Which streams there have been.
#[derive(Clone, Copy)]
struct KnownStreams {
    odd_is_ours: bool,
    next_own: Option<StreamId>,
    highest_peer: StreamId,
}

impl KnownStreams {
    /// Fails for a stream that neither side ever opened.
    fn check(self, stream: StreamId) -> Result<(), SessionError> {
        let is_own = (stream % 2 == 1) == self.odd_is_ours;
        let known = if is_own { self.next_own.is_none_or(|next| stream < next) } else { stream <= self.highest_peer };
        if known { Ok(()) } else { Err(SessionError::OutOfPlace("a frame for a stream that was never opened")) }
    }
}
