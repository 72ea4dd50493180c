//! One stream as this side sees it: cutting and assembling messages, credit in both directions, its end.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use super::assembly::Assembly;
use super::bulk::{BulkReceiver, BulkSender};
use super::limits::{CUT, FRAME_COST, UNHEARD_BULK};
use super::window::ReceiveWindow;
use super::{ConnId, MAX_MESSAGE, MAX_STREAM_WINDOW, PRIMARY, Priority, SessionError, StreamId};
use crate::wire::session_proto as proto;
use crate::wire::{FLAG_FIN, FLAG_MORE, Frame, FrameKind, HEADER_LEN, PLACE_LEN};

/// What sending a message of this length costs of the window.
pub(crate) fn cost(length: usize) -> u64 {
    length as u64 + FRAME_COST * length.div_ceil(CUT).max(1) as u64
}

/// What waits to be sent.
#[derive(Debug)]
enum Outgoing {
    Message(Bytes),
    Fin,
}

/// How far one direction has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Direction {
    Open,
    /// This side: FIN is queued.
    Ending,
    /// FIN was sent, or received without a gap.
    Ended,
}

/// One stream.
#[derive(Debug)]
pub(super) struct Stream {
    id: StreamId,
    ours: bool,
    priority: Priority,
    /// Both ends of a bulk stream's order.
    bulk: Option<(BulkSender, BulkReceiver)>,
    /// Whether the peer has shown that it knows the stream.
    heard: bool,

    /// What may still be queued, in bytes of payload and frame costs.
    allowance: u64,
    outgoing: VecDeque<Outgoing>,
    sending: Direction,

    window: ReceiveWindow,
    /// What each message cost that the application has yet to take, in their order.
    untaken: VecDeque<u32>,
    partial: Assembly,
    /// What the frames of the message under way cost; nothing between messages.
    partial_cost: u32,
    receiving: Direction,
    /// The application will take nothing more.
    released: bool,

    /// Credit that the next CREDIT gives, and whether one has to go even without.
    due: u64,
    answer_due: bool,
    /// Whether the stream stands in the queue for CREDIT, and in that for sending.
    pub(super) in_credit_queue: bool,
    pub(super) in_send_queue: bool,
    /// Whether both directions have ended and that was told.
    pub(super) over: bool,
}

/// What a frame completed.
#[derive(Debug, Default)]
pub(super) struct Received {
    pub(super) messages: Vec<Bytes>,
    pub(super) finished: bool,
}

impl Stream {
    pub(super) fn new(id: StreamId, ours: bool, priority: Priority, allowance: u64, now: Instant) -> Self {
        let bulk = priority == Priority::Bulk;
        Self {
            id,
            ours,
            priority,
            bulk: bulk.then(Default::default),
            heard: false,
            allowance,
            outgoing: VecDeque::new(),
            sending: Direction::Open,
            window: ReceiveWindow::new(now),
            untaken: VecDeque::new(),
            partial: Assembly::default(),
            partial_cost: 0,
            receiving: Direction::Open,
            released: false,
            due: 0,
            // Who opened a bulk stream waits for a sign that it is known.
            answer_due: bulk && !ours,
            in_credit_queue: false,
            in_send_queue: false,
            over: false,
        }
    }

    pub(super) fn is_ours(&self) -> bool {
        self.ours
    }

    pub(super) fn priority(&self) -> Priority {
        self.priority
    }

    /// What this stream has of the session's growth of windows.
    pub(super) fn growth(&self) -> u64 {
        self.window.growth()
    }

    pub(super) fn resent(&self) -> u64 {
        self.bulk.as_ref().map_or(0, |(sender, _)| sender.resent())
    }

    /// Whether both directions have ended, as far as the peer knows too.
    pub(super) fn has_ended(&self) -> bool {
        let acknowledged = self.bulk.as_ref().is_none_or(|(sender, _)| sender.is_acknowledged() && !self.answer_due);
        self.receiving == Direction::Ended && self.sending == Direction::Ended && acknowledged
    }

    /// Bytes that have come and are no message yet.
    pub(super) fn assembling(&self) -> usize {
        self.partial.len() + self.bulk.as_ref().map_or(0, |(_, receiver)| receiver.ahead_bytes())
    }

    /// Whether something came that the application has yet to take.
    pub(super) fn is_held(&self) -> bool {
        self.window.held() > 0
    }

    /// Queues a message; the caller has checked credit and length. Nothing follows FIN.
    pub(super) fn queue(&mut self, message: Bytes) {
        if self.sending == Direction::Open {
            self.allowance = self.allowance.saturating_sub(cost(message.len()));
            self.outgoing.push_back(Outgoing::Message(message));
        }
    }

    /// Ends this side's direction. The end is a frame of its own, never part of a message.
    pub(super) fn finish(&mut self) {
        if self.sending == Direction::Open {
            self.sending = Direction::Ending;
            self.outgoing.push_back(Outgoing::Fin);
        }
    }

    /// Whether a frame waits that may go by this connection.
    pub(super) fn may_send(&self, by: ConnId, lanes: bool) -> bool {
        let Some((sender, _)) = &self.bulk else { return by == PRIMARY && !self.outgoing.is_empty() };
        let known = !self.ours || self.heard;
        let way = match (by, lanes) {
            (PRIMARY, false) => true,
            (PRIMARY, true) => !known && sender.places() < UNHEARD_BULK,
            _ => known,
        };
        way && (!self.outgoing.is_empty() || sender.next_again().is_some())
    }

    /// Whether anything waits to be sent, by whatever connection.
    pub(super) fn has_outgoing(&self) -> bool {
        !self.outgoing.is_empty() || self.bulk.as_ref().is_some_and(|(sender, _)| sender.next_again().is_some())
    }

    /// How long the next frame is with its headers.
    pub(super) fn next_len(&self) -> usize {
        let place = if self.bulk.is_some() { PLACE_LEN } else { 0 };
        let again = self.bulk.as_ref().and_then(|(sender, _)| sender.next_again());
        let content = again.unwrap_or_else(|| match self.outgoing.front() {
            Some(Outgoing::Message(message)) => message.len().min(CUT),
            Some(Outgoing::Fin) | None => 0,
        });
        HEADER_LEN + place + content
    }

    /// The next frame, which goes by this connection.
    pub(super) fn next_frame(&mut self, by: ConnId) -> Option<Frame> {
        if let Some(frame) = self.bulk.as_mut().and_then(|(sender, _)| sender.again(by)) {
            return Some(frame);
        }
        let (flags, payload) = match self.outgoing.front_mut()? {
            Outgoing::Message(message) => {
                let payload = message.split_to(message.len().min(CUT));
                (if message.is_empty() { 0 } else { FLAG_MORE }, payload)
            }
            Outgoing::Fin => {
                self.sending = Direction::Ended;
                (FLAG_FIN, Bytes::new())
            }
        };
        if flags & FLAG_MORE == 0 {
            self.outgoing.pop_front();
        }
        Some(match &mut self.bulk {
            Some((sender, _)) => sender.first_time(by, Frame::new(FrameKind::Bulk, flags, self.id, payload)),
            None => Frame::new(FrameKind::Data, flags, self.id, payload),
        })
    }

    /// Notes that a lane is gone: what it had is sent again.
    pub(super) fn lane_lost(&mut self, lane: ConnId) {
        if let Some((sender, _)) = &mut self.bulk {
            sender.lost(lane);
        }
    }

    /// Takes in DATA or BULK, counted against the window.
    pub(super) fn receive(&mut self, frame: Frame) -> Result<Received, SessionError> {
        self.heard = true;
        let is_bulk = frame.kind == FrameKind::Bulk;
        if is_bulk != self.bulk.is_some() {
            return Err(SessionError::OutOfPlace("DATA and BULK"));
        }
        let fin = frame.flags & FLAG_FIN != 0;
        if fin && (!frame.payload.is_empty() || frame.flags & FLAG_MORE != 0) {
            return Err(SessionError::OutOfPlace("the end of a stream with content"));
        }
        let frame_cost = frame.payload.len() as u64 + FRAME_COST;
        let mut received = Received::default();
        let Some((_, receiver)) = &mut self.bulk else {
            if self.receiving == Direction::Ended {
                return Err(SessionError::OutOfPlace("data after the end of a stream"));
            }
            if !fin {
                self.window.receive(frame_cost)?;
            }
            self.assemble(frame.flags, frame.payload, &mut received)?;
            return Ok(received);
        };
        if receiver.is_known(&frame)? {
            return Ok(received);
        }
        if !fin {
            self.window.receive(frame_cost)?;
        }
        match receiver.pass(frame) {
            Ok((flags, payload)) => self.assemble(flags, payload, &mut received)?,
            Err(frame) => receiver.insert(frame),
        }
        while let Some((flags, payload)) = self.bulk.as_mut().and_then(|(_, receiver)| receiver.next()) {
            self.assemble(flags, payload, &mut received)?;
        }
        self.answer_due |= received.finished;
        Ok(received)
    }

    /// Puts a frame that is in order to its message.
    fn assemble(&mut self, flags: u8, payload: Bytes, received: &mut Received) -> Result<(), SessionError> {
        if flags & FLAG_FIN != 0 {
            if self.partial_cost > 0 {
                return Err(SessionError::OutOfPlace("the end of a stream inside a message"));
            }
            self.receiving = Direction::Ended;
            received.finished = true;
            return Ok(());
        }
        if self.partial.len() + payload.len() > MAX_MESSAGE {
            return Err(SessionError::Limit("message length"));
        }
        // At most a window, which fits.
        self.partial_cost += payload.len() as u32 + FRAME_COST as u32;
        if flags & FLAG_MORE != 0 {
            self.partial.push(payload);
            return Ok(());
        }
        let message = std::mem::take(&mut self.partial).finish(payload);
        self.untaken.push_back(std::mem::take(&mut self.partial_cost));
        received.messages.push(message);
        Ok(())
    }

    /// Notes that the application took its next message. May take growth out of `pool`.
    pub(super) fn consume(&mut self, now: Instant, round_trip: Option<Duration>, pool: &mut u64) {
        if let Some(cost) = self.untaken.pop_front() {
            let round_trip = if self.receiving == Direction::Ended { None } else { round_trip };
            if let Some(credit) = self.window.consume(now, cost.into(), round_trip, pool) {
                self.due += credit;
            }
        }
    }

    /// The application will take nothing more.
    pub(super) fn release(&mut self) {
        self.released = true;
    }

    pub(super) fn is_released(&self) -> bool {
        self.released
    }

    pub(super) fn has_untaken(&self) -> bool {
        !self.untaken.is_empty()
    }

    /// Takes the peer's CREDIT in.
    pub(super) fn credit(&mut self, credit: &proto::Credit) -> Result<(), SessionError> {
        self.heard = true;
        let allowance = self.allowance.checked_add(credit.bytes).filter(|sum| *sum <= MAX_STREAM_WINDOW);
        self.allowance = allowance.ok_or(SessionError::Limit("credit"))?;
        match &mut self.bulk {
            Some((sender, _)) => sender.acknowledge(credit.received),
            None if credit.received == 0 => Ok(()),
            None => Err(SessionError::OutOfPlace("an acknowledgement")),
        }
    }

    /// Whether a CREDIT has to go. Who sends no more needs none.
    pub(super) fn credit_due(&self) -> bool {
        self.answer_due || (self.due > 0 && self.receiving != Direction::Ended)
    }

    /// The CREDIT that has to go.
    pub(super) fn take_credit(&mut self) -> Frame {
        let received = self.bulk.as_ref().map_or(0, |(_, receiver)| receiver.received());
        self.answer_due = false;
        let credit = proto::Credit { bytes: std::mem::take(&mut self.due), received };
        Frame::control(FrameKind::Credit, self.id, &credit)
    }
}
