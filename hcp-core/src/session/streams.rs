//! The streams of one session: assembling messages, credit in both directions, half-close.
//!
//! Streams that the dialler opens are odd, the acceptor's even; a number is used once.

use std::collections::{BTreeMap, VecDeque};

use bytes::{Bytes, BytesMut};

use super::{FRAME_COST, MAX_MESSAGE, STREAM_WINDOW, SessionError};
use crate::wire::{FLAG_FIN, FLAG_MORE, Frame, FrameKind, MAX_PAYLOAD};

/// The number of a stream in its session.
pub(crate) type StreamId = u32;

/// One stream as this side sees it.
#[derive(Debug, Default)]
pub(crate) struct StreamState {
    /// What may still be sent, in bytes of payload and frame costs.
    pub(crate) send_credit: u64,
    /// What has come in and was not yet consumed.
    unconsumed: u64,
    /// What was consumed and not yet given back as credit.
    returnable: u64,
    partial: BytesMut,
    outgoing: VecDeque<Frame>,
    peer_finished: bool,
    finished: bool,
}

/// What a DATA frame completed.
#[derive(Debug, Default)]
pub(crate) struct Received {
    pub(crate) message: Option<Bytes>,
    pub(crate) finished: bool,
}

/// What sending a message costs of the window.
pub(crate) fn cost(length: usize) -> u64 {
    length as u64 + FRAME_COST * length.div_ceil(MAX_PAYLOAD).max(1) as u64
}

impl StreamState {
    fn new(send_credit: u64) -> Self {
        Self { send_credit, ..Self::default() }
    }

    /// Queues a message; the caller has checked credit and length.
    pub(crate) fn queue(&mut self, id: StreamId, mut message: Bytes) {
        self.send_credit = self.send_credit.saturating_sub(cost(message.len()));
        loop {
            let payload = message.split_to(message.len().min(MAX_PAYLOAD));
            let flags = if message.is_empty() { 0 } else { FLAG_MORE };
            self.outgoing.push_back(Frame { kind: FrameKind::Data, flags, stream: id, payload });
            if message.is_empty() {
                return;
            }
        }
    }

    /// Ends this side's direction. The end is a flag on an empty frame, never part of a message.
    pub(crate) fn finish(&mut self, id: StreamId) {
        if !self.finished {
            self.finished = true;
            self.outgoing.push_back(Frame {
                kind: FrameKind::Data,
                flags: FLAG_FIN,
                stream: id,
                payload: Bytes::new(),
            });
        }
    }

    /// Takes a DATA frame in.
    pub(crate) fn receive(&mut self, frame: Frame) -> Result<Received, SessionError> {
        if self.peer_finished {
            return Err(SessionError::OutOfPlace("data after the end of a stream"));
        }
        if frame.flags & FLAG_FIN != 0 {
            if !frame.payload.is_empty() || !self.partial.is_empty() || frame.flags & FLAG_MORE != 0 {
                return Err(SessionError::OutOfPlace("the end of a stream inside a message"));
            }
            self.peer_finished = true;
            return Ok(Received { message: None, finished: true });
        }
        self.unconsumed += frame.payload.len() as u64 + FRAME_COST;
        if self.unconsumed + self.returnable > STREAM_WINDOW {
            return Err(SessionError::Limit("stream window"));
        }
        if self.partial.len() + frame.payload.len() > MAX_MESSAGE {
            return Err(SessionError::Limit("message length"));
        }
        let more = frame.flags & FLAG_MORE != 0;
        if more && frame.payload.len() < MAX_PAYLOAD {
            return Err(SessionError::OutOfPlace("a short frame inside a message"));
        }
        let message = if self.partial.is_empty() && !more {
            Some(frame.payload)
        } else {
            self.partial.extend_from_slice(&frame.payload);
            (!more).then(|| self.partial.split().freeze())
        };
        Ok(Received { message, finished: false })
    }

    /// Notes that the application took a message of `length` bytes; returns credit to announce, in big steps.
    pub(crate) fn consume(&mut self, length: usize) -> Option<u64> {
        let cost = cost(length).min(self.unconsumed);
        self.unconsumed -= cost;
        self.returnable += cost;
        (self.returnable >= STREAM_WINDOW / 4).then(|| std::mem::take(&mut self.returnable))
    }

    /// Both directions have ended and nothing waits to be sent.
    fn is_over(&self) -> bool {
        self.peer_finished && self.finished && self.outgoing.is_empty()
    }
}

/// All streams of a session, and whose turn it is to send.
#[derive(Debug, Default)]
pub(crate) struct Streams {
    open: BTreeMap<StreamId, StreamState>,
    turn: StreamId,
}

impl Streams {
    pub(crate) fn insert(&mut self, id: StreamId, send_credit: u64) {
        self.open.insert(id, StreamState::new(send_credit));
    }

    pub(crate) fn get(&mut self, id: StreamId) -> Option<&mut StreamState> {
        self.open.get_mut(&id)
    }

    pub(crate) fn remove(&mut self, id: StreamId) -> bool {
        self.open.remove(&id).is_some()
    }

    pub(crate) fn count(&self, parity: StreamId) -> usize {
        self.open.keys().filter(|id| **id % 2 == parity).count()
    }

    /// Forgets the stream if both sides have ended it.
    pub(crate) fn reap(&mut self, id: StreamId) {
        if self.open.get(&id).is_some_and(StreamState::is_over) {
            self.open.remove(&id);
        }
    }

    /// The next data frame, one stream after the other.
    pub(crate) fn next_frame(&mut self) -> Option<Frame> {
        let ready = |(id, stream): (&StreamId, &StreamState)| (!stream.outgoing.is_empty()).then_some(*id);
        let id = self
            .open
            .range(self.turn.saturating_add(1)..)
            .find_map(ready)
            .or_else(|| self.open.range(..=self.turn).find_map(ready))?;
        self.turn = id;
        let frame = self.open.get_mut(&id)?.outgoing.pop_front();
        self.reap(id);
        frame
    }
}
