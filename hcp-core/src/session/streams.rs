//! The streams of one session: their numbers, who may send next, what waits to be told, and when one is over.
//!
//! Streams that the dialler opens are odd, the acceptor's even; a number is used once. A stream that is over stays only
//! while the application has yet to take what came on it.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use super::limits::MAX_HELD;
#[cfg(test)]
use super::planted::{Defect, planted};
use super::schedule::{CLASSES, Schedule};
use super::stream::Stream;
use super::{ConnId, Event, Priority, SESSION_GROWTH, SessionError, StreamId};
use crate::wire::session_proto as proto;
use crate::wire::{Frame, FrameKind, Received};

/// All streams of a session.
#[derive(Debug)]
pub(super) struct Streams {
    all: BTreeMap<StreamId, Stream>,
    /// Streams with something to send, by class; each stands here at most once.
    sending: [VecDeque<StreamId>; CLASSES],
    schedule: Schedule,
    /// Streams with a CREDIT to send; each stands here at most once.
    crediting: VecDeque<StreamId>,
    /// What is left of [`SESSION_GROWTH`], which room for messages under way is taken out of too.
    pool: u64,
    /// Of streams that are gone.
    resent: u64,
}

impl Default for Streams {
    fn default() -> Self {
        Self {
            all: BTreeMap::new(),
            sending: Default::default(),
            schedule: Schedule::default(),
            crediting: VecDeque::new(),
            pool: SESSION_GROWTH,
            resent: 0,
        }
    }
}

impl Streams {
    /// Whether one more can be held.
    pub(super) fn has_room(&self) -> bool {
        #[cfg(test)]
        if planted(Defect::HeldUnbounded) {
            return true;
        }
        self.all.len() < MAX_HELD
    }

    pub(super) fn insert(&mut self, now: Instant, id: StreamId, ours: bool, priority: Priority, credit: u64) {
        self.all.insert(id, Stream::new(id, ours, priority, credit, now));
        self.see_to_credit(id);
    }

    /// Has windows grow by less than they might, in all.
    #[cfg(feature = "testing")]
    pub(super) fn limit_growth(&mut self, bytes: u64) {
        self.pool = self.pool.saturating_sub(SESSION_GROWTH.saturating_sub(bytes));
    }

    /// What windows may still grow by.
    #[cfg(feature = "testing")]
    pub(super) fn growth_left(&self) -> u64 {
        self.pool
    }

    /// Streams that are open, of those that this side opened or of the others.
    pub(super) fn open(&self, ours: bool) -> usize {
        self.all.values().filter(|stream| stream.is_ours() == ours && !stream.over).count()
    }

    pub(super) fn any_open(&self) -> bool {
        self.all.values().any(|stream| !stream.over)
    }

    pub(super) fn any_bulk_open(&self) -> bool {
        self.all.values().any(|stream| stream.priority() == Priority::Bulk && !stream.over)
    }

    /// What takes memory and is no message yet, in bytes.
    pub(super) fn assembling(&self) -> usize {
        self.all.values().map(Stream::assembling).sum()
    }

    pub(super) fn resent(&self) -> u64 {
        self.resent + self.all.values().map(Stream::resent).sum::<u64>()
    }

    /// A stream that is not over.
    fn live(&mut self, id: StreamId) -> Option<&mut Stream> {
        self.all.get_mut(&id).filter(|stream| !stream.over)
    }

    pub(super) fn queue(&mut self, id: StreamId, message: Bytes) {
        if let Some(stream) = self.live(id) {
            stream.queue(message);
            self.see_to_sending(id);
        }
    }

    pub(super) fn finish(&mut self, id: StreamId) {
        if let Some(stream) = self.live(id) {
            stream.finish();
            self.see_to_sending(id);
        }
    }

    /// Forgets a stream; `false` when it was over.
    pub(super) fn remove(&mut self, id: StreamId) -> bool {
        let Some(stream) = self.all.remove(&id) else { return false };
        // Or who opens and resets streams while nothing goes out would make them grow.
        if stream.in_send_queue {
            self.sending[stream.priority() as usize].retain(|other| *other != id);
        }
        if stream.in_credit_queue {
            self.crediting.retain(|other| *other != id);
        }
        self.pool += stream.pooled();
        self.resent += stream.resent();
        !stream.over
    }

    /// Own streams above `last` and not over, which a peer that drains will never serve.
    pub(super) fn own_above(&self, last: StreamId) -> Vec<StreamId> {
        let above = self.all.range(last.saturating_add(1)..);
        above.filter(|(_, stream)| stream.is_ours() && !stream.over).map(|(id, _)| *id).collect()
    }

    /// Takes in DATA or BULK.
    pub(super) fn receive(
        &mut self,
        now: Instant,
        frame: Received<'_>,
        round_trip: Option<Duration>,
        events: &mut VecDeque<Event>,
    ) -> Result<(), SessionError> {
        let id = frame.stream();
        let Some(stream) = self.all.get_mut(&id).filter(|stream| !stream.over) else { return Ok(()) };
        let released = stream.is_released();
        let finished = stream.receive(frame, &mut self.pool, &mut |message| {
            if !released {
                events.push_back(Event::Message { stream: id, message });
            }
        })?;
        if released {
            self.take_all(now, id, round_trip);
        }
        if finished {
            events.push_back(Event::Finished(id));
        }
        self.see_to_sending(id);
        self.see_to_credit(id);
        self.see_to_end(id, events);
        Ok(())
    }

    /// Takes in CREDIT.
    pub(super) fn credit(
        &mut self,
        id: StreamId,
        credit: &proto::Credit,
        events: &mut VecDeque<Event>,
    ) -> Result<(), SessionError> {
        let Some(stream) = self.live(id) else { return Ok(()) };
        gone(id, stream.credit(credit)?, events);
        if credit.bytes > 0 {
            events.push_back(Event::Credit { stream: id, bytes: credit.bytes });
        }
        self.see_to_sending(id);
        self.see_to_end(id, events);
        Ok(())
    }

    /// Notes that the application took the next message of a stream; whether credit is to be given.
    pub(super) fn consumed(&mut self, now: Instant, id: StreamId, round_trip: Option<Duration>) -> bool {
        let Some(stream) = self.all.get_mut(&id) else { return false };
        stream.consume(now, round_trip, &mut self.pool);
        self.see_to_credit(id);
        self.forget(id);
        self.all.get(&id).is_some_and(Stream::credit_due)
    }

    /// Notes that the application will take nothing more of a stream.
    pub(super) fn release(&mut self, now: Instant, id: StreamId) {
        if let Some(stream) = self.all.get_mut(&id) {
            stream.release();
            self.take_all(now, id, None);
            self.see_to_credit(id);
            self.forget(id);
        }
    }

    fn take_all(&mut self, now: Instant, id: StreamId, round_trip: Option<Duration>) {
        if let Some(stream) = self.all.get_mut(&id) {
            while stream.has_untaken() {
                stream.consume(now, round_trip, &mut self.pool);
            }
        }
    }

    /// Notes that a lane is gone, or that the last one is: what it had goes elsewhere.
    pub(super) fn lane_lost(&mut self, lane: ConnId) {
        let ids: Vec<StreamId> = self.all.keys().copied().collect();
        for id in ids {
            if let Some(stream) = self.all.get_mut(&id) {
                stream.lane_lost(lane);
            }
            self.see_to_sending(id);
        }
    }

    /// Whether a CREDIT has to go.
    #[cfg(any(test, feature = "testing"))]
    pub(super) fn has_credit(&self) -> bool {
        let has_credit = |id: &StreamId| self.all.get(id).is_some_and(|stream| stream.credit_due() && !stream.over);
        self.crediting.iter().any(has_credit)
    }

    /// The next CREDIT that has to go.
    pub(super) fn next_credit(&mut self, events: &mut VecDeque<Event>) -> Option<Frame> {
        while let Some(id) = self.crediting.pop_front() {
            let Some(stream) = self.all.get_mut(&id) else { continue };
            stream.in_credit_queue = false;
            if stream.credit_due() && !stream.over {
                let frame = stream.take_credit();
                self.see_to_end(id, events);
                return Some(frame);
            }
        }
        None
    }

    /// Whether a frame waits that may go by this connection.
    #[cfg(any(test, feature = "testing"))]
    pub(super) fn may_send(&self, by: ConnId, lanes: bool) -> bool {
        (0..CLASSES).any(|class| self.next_of(class, by, lanes).is_some())
    }

    /// The next frame for this connection, of at most `room` bytes.
    pub(super) fn next_frame(
        &mut self,
        by: ConnId,
        lanes: bool,
        room: usize,
        events: &mut VecDeque<Event>,
    ) -> Option<Frame> {
        let next: [Option<usize>; CLASSES] = std::array::from_fn(|class| self.next_of(class, by, lanes));
        let ready = next.map(|index| index.is_some());
        let class = self.schedule.turn(ready)?;
        let index = next[class]?;
        let id = *self.sending[class].get(index)?;
        if !self.all.get(&id)?.fits(room) {
            return None;
        }
        self.sending[class].remove(index);
        let stream = self.all.get_mut(&id)?;
        stream.in_send_queue = false;
        let (frame, refund) = stream.next_frame(by, room)?;
        gone(id, stream.let_go(&frame), events);
        if refund > 0 {
            events.push_back(Event::Refunded { stream: id, bytes: refund });
        }
        self.schedule.sent(class, frame.encoded_len(), ready);
        self.see_to_sending(id);
        self.see_to_end(id, events);
        Some(frame)
    }

    /// Where in a class's queue the next stream stands that may send by this connection.
    fn next_of(&self, class: usize, by: ConnId, lanes: bool) -> Option<usize> {
        let may_send = |id: &StreamId| self.all.get(id).is_some_and(|stream| stream.may_send(by, lanes));
        self.sending[class].iter().position(may_send)
    }

    /// How many streams stand in the queues.
    #[cfg(test)]
    pub(super) fn queued(&self) -> usize {
        self.sending.iter().map(VecDeque::len).sum::<usize>() + self.crediting.len()
    }

    /// Drops what waits to be sent, or might have to be sent again.
    pub(super) fn abandon(&mut self) {
        self.sending = Default::default();
        self.crediting.clear();
        self.all.values_mut().for_each(Stream::abandon);
    }

    fn see_to_sending(&mut self, id: StreamId) {
        if let Some(stream) = self.all.get_mut(&id)
            && !stream.in_send_queue
            && stream.has_outgoing()
        {
            stream.in_send_queue = true;
            self.sending[stream.priority() as usize].push_back(id);
        }
    }

    fn see_to_credit(&mut self, id: StreamId) {
        if let Some(stream) = self.live(id)
            && !stream.in_credit_queue
            && stream.credit_due()
        {
            stream.in_credit_queue = true;
            self.crediting.push_back(id);
        }
    }

    /// Tells once when a stream is over.
    fn see_to_end(&mut self, id: StreamId, events: &mut VecDeque<Event>) {
        if let Some(stream) = self.live(id)
            && stream.has_ended()
        {
            stream.over = true;
            events.push_back(Event::Closed { stream: id });
            self.forget(id);
        }
    }

    /// Forgets a stream that is over and of which nothing is held.
    fn forget(&mut self, id: StreamId) {
        if self.all.get(&id).is_some_and(|stream| stream.over && !stream.is_held()) {
            self.remove(id);
        }
    }

    /// The frame that opens a stream.
    pub(super) fn open_frame(id: StreamId, protocol: &str, priority: Priority) -> Frame {
        let priority = match priority {
            Priority::Control => proto::Priority::Control,
            Priority::Live => proto::Priority::Live,
            Priority::Bulk => proto::Priority::Bulk,
        };
        let open = proto::Open { protocol: protocol.to_owned(), priority: priority.into() };
        Frame::control(FrameKind::Open, id, &open)
    }
}

/// Tells that a stream has let go of what cost so much.
fn gone(id: StreamId, bytes: u64, events: &mut VecDeque<Event>) {
    match events.back_mut() {
        _ if bytes == 0 => {}
        Some(Event::Gone { stream, bytes: before }) if *stream == id => *before += bytes,
        _ => events.push_back(Event::Gone { stream: id, bytes }),
    }
}
