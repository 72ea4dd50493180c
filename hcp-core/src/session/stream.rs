//! One stream as this side sees it: cutting and assembling messages, credit in both directions, its end.
//!
//! A message is paid for when it is queued, before anybody knows how it will be cut: for as many frames as there can be.
//! Those that it did not need are given back when its last one goes.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use super::assembly::Assembly;
use super::bulk::{BulkReceiver, BulkSender};
use super::limits::{CUT, FRAME_COST, LEAST_CUT, UNHEARD_BULK, frame_cost};
#[cfg(test)]
use super::planted::{Defect, planted};
use super::window::ReceiveWindow;
use super::{ConnId, MAX_MESSAGE, MAX_STREAM_WINDOW, PRIMARY, Priority, SessionError, StreamId};
use crate::wire::session_proto as proto;
use crate::wire::{FLAG_FIN, FLAG_MORE, Frame, FrameKind, HEADER_LEN, MAX_BATCH, PLACE_LEN, RECORD, Received};

/// What sending a message of this length costs of the window at the most; what it did not need comes back as
/// [`Event::Refunded`](super::Event::Refunded).
pub(crate) fn cost(length: usize) -> u64 {
    length as u64 + FRAME_COST * (frames(length) + spare_frames(length)) as u64
}

/// Frames that a message takes when each is as long as can be.
fn frames(length: usize) -> usize {
    length.div_ceil(CUT).max(1)
}

/// Frames that are paid for beyond those, for pieces that end with their record: one where the message begins, and one for
/// each batch, in front of which other frames may stand.
fn spare_frames(length: usize) -> usize {
    if length <= LEAST_CUT { 0 } else { 1 + length.div_ceil(MAX_BATCH) }
}

/// What waits to be sent.
#[derive(Debug)]
enum Outgoing {
    /// What is left of a message, and how many frames more are paid for.
    Message {
        rest: Bytes,
        paid: usize,
    },
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
    /// What of it is paid for and waits.
    queued: u64,
    /// What the pieces cost that have gone of a message of which more are to go.
    going: u64,
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
            queued: 0,
            going: 0,
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

    /// What this stream has of the session's pool: growth of its window, and room for the message under way.
    pub(super) fn pooled(&self) -> u64 {
        self.window.growth() + self.partial.ahead()
    }

    pub(super) fn resent(&self) -> u64 {
        self.bulk.as_ref().map_or(0, |(sender, _)| sender.resent())
    }

    /// Whether both directions have ended, as far as the peer knows too.
    pub(super) fn has_ended(&self) -> bool {
        #[cfg(test)]
        if planted(Defect::OverEarly) {
            return self.receiving == Direction::Ended && self.sending == Direction::Ended;
        }
        let acknowledged = self.bulk.as_ref().is_none_or(|(sender, _)| sender.is_acknowledged() && !self.answer_due);
        self.receiving == Direction::Ended && self.sending == Direction::Ended && acknowledged
    }

    /// What takes memory and is no message yet, in bytes.
    pub(super) fn assembling(&self) -> usize {
        self.partial.room() + self.bulk.as_ref().map_or(0, |(_, receiver)| receiver.ahead_bytes())
    }

    /// Whether something came that the application has yet to take.
    pub(super) fn is_held(&self) -> bool {
        self.window.held() > 0
    }

    /// Queues a message; the caller has checked credit and length. Nothing follows FIN.
    pub(super) fn queue(&mut self, message: Bytes) {
        if self.sending == Direction::Open {
            self.allowance = self.allowance.saturating_sub(cost(message.len()));
            self.queued += cost(message.len());
            let paid = frames(message.len()) + spare_frames(message.len());
            self.outgoing.push_back(Outgoing::Message { rest: message, paid });
        }
    }

    /// Ends this side's direction. The end is a frame of its own, never part of a message.
    pub(super) fn finish(&mut self) {
        if self.sending == Direction::Open {
            self.sending = Direction::Ending;
            #[cfg(test)]
            if planted(Defect::FinOvertakes) {
                return self.outgoing.push_front(Outgoing::Fin);
            }
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

    /// Whether the next frame fits into `room`, what is left of a batch.
    pub(super) fn fits(&self, room: usize) -> bool {
        match self.bulk.as_ref().and_then(|(sender, _)| sender.next_again()) {
            Some(content) => self.head_len() + content <= room,
            None => self.next_content(room).is_some(),
        }
    }

    fn head_len(&self) -> usize {
        HEADER_LEN + if self.bulk.is_some() { PLACE_LEN } else { 0 }
    }

    /// How much of what waits goes into the next frame, in the `room` that is left of a batch; nothing while it has to wait for
    /// the next batch.
    ///
    /// Frames end with their records where that can be: then a full batch needs no padding, and a receiver finds frames whole
    /// in the records that it opens.
    fn next_content(&self, room: usize) -> Option<usize> {
        let room = room.checked_sub(self.head_len())?;
        let (rest, paid) = match self.outgoing.front()? {
            Outgoing::Message { rest, paid } => (rest.len(), *paid),
            Outgoing::Fin => return Some(0),
        };
        let to_records_end = (room + self.head_len() - 1) % RECORD + 1;
        let piece = to_records_end.checked_sub(self.head_len()).filter(|piece| *piece > 0);
        match piece {
            Some(piece) if rest <= piece => Some(rest),
            // One frame more than if it were cut at its longest, if that is paid for.
            Some(piece) if rest > LEAST_CUT && frames(rest - piece) < paid => Some(piece),
            _ => Some(rest.min(CUT)).filter(|content| *content <= room),
        }
    }

    /// The next frame, which goes by this connection into the `room` that is left of its batch; and what of the message's cost
    /// is given back with it.
    pub(super) fn next_frame(&mut self, by: ConnId, room: usize) -> Option<(Frame, u64)> {
        if let Some(frame) = self.bulk.as_mut().and_then(|(sender, _)| sender.again(by)) {
            return Some((frame, 0));
        }
        let content = self.next_content(room)?;
        let (flags, payload, refund) = match self.outgoing.front_mut()? {
            Outgoing::Message { rest, paid } => {
                let payload = rest.split_to(content);
                *paid = paid.saturating_sub(1);
                let (left, refund) = (!rest.is_empty(), FRAME_COST * *paid as u64);
                if left { (FLAG_MORE, payload, 0) } else { (0, payload, refund) }
            }
            Outgoing::Fin => {
                self.sending = Direction::Ended;
                (FLAG_FIN, Bytes::new(), 0)
            }
        };
        if flags & FLAG_MORE == 0 {
            self.outgoing.pop_front();
        }
        self.allowance += refund;
        let frame =
            Frame::new(if self.bulk.is_some() { FrameKind::Bulk } else { FrameKind::Data }, flags, self.id, payload);
        self.queued = self.queued.saturating_sub(frame_cost(&frame) + refund);
        #[cfg(test)]
        if planted(Defect::FrameDropped) && frame.payload.len() >= CUT && !self.outgoing.is_empty() {
            return self.next_frame(by, room);
        }
        let frame = match &mut self.bulk {
            Some((sender, _)) => sender.first_time(by, frame),
            None => frame,
        };
        Some((frame, refund))
    }

    /// What this side lets go of as this frame goes. A message is kept whole until its last piece has gone, as its pieces share
    /// its memory; bulk until it is acknowledged.
    pub(super) fn let_go(&mut self, frame: &Frame) -> u64 {
        if frame.kind != FrameKind::Data {
            return 0;
        }
        self.going += frame_cost(frame);
        if frame.flags & FLAG_MORE != 0 { 0 } else { std::mem::take(&mut self.going) }
    }

    /// Drops what waits to be sent, or might have to be sent again.
    pub(super) fn abandon(&mut self) {
        self.outgoing = VecDeque::new();
        self.queued = 0;
        if let Some((sender, _)) = &mut self.bulk {
            sender.abandon();
        }
    }

    /// Notes that a lane is gone: what it had is sent again.
    pub(super) fn lane_lost(&mut self, lane: ConnId) {
        #[cfg(test)]
        if planted(Defect::LaneFramesForgotten) {
            return;
        }
        if let Some((sender, _)) = &mut self.bulk {
            sender.lost(lane);
        }
    }

    /// Takes in DATA or BULK, counted against the window, and delivers the messages that it completes; whether it ended the
    /// peer's direction. May take room for a message out of `pool`.
    pub(super) fn receive(
        &mut self,
        frame: Received<'_>,
        pool: &mut u64,
        deliver: &mut dyn FnMut(Bytes),
    ) -> Result<bool, SessionError> {
        self.heard = true;
        let is_bulk = frame.kind() == FrameKind::Bulk;
        if is_bulk != self.bulk.is_some() {
            return Err(SessionError::OutOfPlace("DATA and BULK"));
        }
        let fin = frame.flags() & FLAG_FIN != 0;
        let frame_cost = frame.payload.len() as u64 + FRAME_COST;
        let Some((_, receiver)) = &mut self.bulk else {
            if self.receiving == Direction::Ended {
                return Err(SessionError::OutOfPlace("data after the end of a stream"));
            }
            if !fin {
                self.window.receive(frame_cost)?;
            }
            return self.assemble(frame.flags(), frame.payload, pool, deliver);
        };
        if receiver.is_known(frame.place(), frame.flags())? {
            #[cfg(test)]
            if planted(Defect::DuplicatesDelivered) && !fin {
                self.assemble(frame.flags(), frame.payload, pool, deliver)?;
            }
            return Ok(false);
        }
        if !fin {
            self.window.receive(frame_cost)?;
        }
        #[cfg(test)]
        if planted(Defect::OrderOfArrival) {
            let frame = frame.into_frame();
            receiver.insert(frame.clone());
            while receiver.next().is_some() {}
            let finished = self.assemble(frame.flags, Cow::Borrowed(&frame.payload), pool, deliver)?;
            self.answer_due |= finished;
            return Ok(finished);
        }
        let mut finished = false;
        match receiver.pass(frame) {
            Ok((flags, payload)) => finished |= self.assemble(flags, payload, pool, deliver)?,
            Err(frame) => receiver.insert(frame.into_frame()),
        }
        while let Some((flags, payload)) = self.bulk.as_mut().and_then(|(_, receiver)| receiver.next()) {
            finished |= self.assemble(flags, Cow::Borrowed(&payload), pool, deliver)?;
        }
        self.answer_due |= finished;
        Ok(finished)
    }

    /// Puts a frame that is in order to its message; whether it was the end.
    fn assemble(
        &mut self,
        flags: u8,
        payload: Cow<'_, [u8]>,
        pool: &mut u64,
        deliver: &mut dyn FnMut(Bytes),
    ) -> Result<bool, SessionError> {
        if flags & FLAG_FIN != 0 {
            if self.partial_cost > 0 {
                return Err(SessionError::OutOfPlace("the end of a stream inside a message"));
            }
            self.receiving = Direction::Ended;
            return Ok(true);
        }
        if self.partial.len() + payload.len() > MAX_MESSAGE {
            return Err(SessionError::Limit("message length"));
        }
        // At most a window, which fits.
        self.partial_cost += payload.len() as u32 + FRAME_COST as u32;
        if flags & FLAG_MORE != 0 {
            self.partial.push(&payload, pool);
            return Ok(false);
        }
        self.untaken.push_back(std::mem::take(&mut self.partial_cost));
        deliver(self.partial.finish(payload, pool));
        Ok(false)
    }

    /// Notes that the application took its next message. May take growth out of `pool`.
    pub(super) fn consume(&mut self, now: Instant, round_trip: Option<Duration>, pool: &mut u64) {
        if let Some(cost) = self.untaken.pop_front() {
            let round_trip = if self.receiving == Direction::Ended { None } else { round_trip };
            if let Some(credit) = self.window.consume(now, cost.into(), round_trip, pool) {
                #[cfg(test)]
                let credit = match credit {
                    _ if planted(Defect::CreditNeverReturned) => 0,
                    credit if planted(Defect::CreditTwice) => 2 * credit,
                    credit => credit,
                };
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

    /// Takes the peer's CREDIT in; what the messages cost that it acknowledges to the end.
    ///
    /// What waits here, and of bulk what may have to be sent again, counts against the largest window: or a peer that gives
    /// credit, and neither reads nor acknowledges, could have this side keep whatever its application sends.
    pub(super) fn credit(&mut self, credit: &proto::Credit) -> Result<u64, SessionError> {
        self.heard = true;
        let (arrived, kept) = match &mut self.bulk {
            Some((sender, _)) => (sender.acknowledge(credit.received)?, sender.unacknowledged()),
            None if credit.received == 0 => (0, 0),
            None => return Err(SessionError::OutOfPlace("an acknowledgement")),
        };
        let allowance = self.allowance.checked_add(credit.bytes);
        let out = allowance.and_then(|allowance| allowance.checked_add(self.queued + kept));
        if out.is_none_or(|out| out > MAX_STREAM_WINDOW) {
            return Err(SessionError::Limit("credit"));
        }
        self.allowance += credit.bytes;
        Ok(arrived)
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
