//! One transport connection of a session: TLS around frames and padding, keepalive, round trip.
//!
//! Plaintext goes from TLS into the decoder and from frames into TLS without a buffer between; so do TLS's records from and
//! to a transport that lets itself be polled.

use std::collections::VecDeque;
use std::io::{self, BufRead, IoSlice, Read, Write};

use bytes::Bytes;
use tokio::time::Instant;

use super::limits::MAX_ANSWERS;
#[cfg(test)]
use super::planted::{Defect, planted};
use super::roundtrip::RoundTrip;
use super::{Keepalive, SessionError, tls};
use crate::wire::{Decoder, FIRST_FLIGHT, Frame, FrameKind, MAX_BATCH, Received, ZEROS, class, padme};

/// Bytes and frames that went over a connection.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Traffic {
    pub(super) bytes_sent: u64,
    pub(super) bytes_received: u64,
    pub(super) frames_sent: u64,
    pub(super) frames_received: u64,
    pub(super) padding_sent: u64,
}

impl Traffic {
    pub(super) fn add(&mut self, other: &Self) {
        self.bytes_sent += other.bytes_sent;
        self.bytes_received += other.bytes_received;
        self.frames_sent += other.frames_sent;
        self.frames_received += other.frames_received;
        self.padding_sent += other.padding_sent;
    }
}

/// What [`Connection::read`] has taken in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Taken {
    /// There was nothing yet.
    Nothing,
    Some,
    /// Something, and the peer has ended TLS: what came before can still be read.
    End,
}

/// Notes how reading failed, which TLS's own refusal cannot be told from otherwise.
struct Noting<'a> {
    from: &'a mut dyn Read,
    failed: Option<io::ErrorKind>,
}

impl Read for Noting<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.from.read(into).inspect_err(|error| self.failed = Some(error.kind()))
    }
}

/// What a connection's last batch will be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Writing {
    Open,
    /// CLOSE and close_notify have been handed to TLS.
    Closed,
}

/// One connection.
#[derive(Debug)]
pub(super) struct Connection {
    tls: rustls::Connection,
    decoder: Decoder,
    /// Frames that concern the connection or begin and end streams; they go first.
    control: VecDeque<Frame>,
    writing: Writing,
    last_heard: Instant,
    /// The ping that waits for its answer.
    pinged: Option<(Instant, [u8; 8])>,
    last_ping: Option<Instant>,
    pings: u64,
    round_trip: RoundTrip,
    traffic: Traffic,
}

/// Frames that go to TLS together.
#[derive(Debug, Default)]
pub(super) struct Batch {
    frames: Vec<Frame>,
    length: usize,
    bulk: bool,
}

impl Batch {
    /// Bytes that still fit.
    pub(super) fn room(&self) -> usize {
        MAX_BATCH.saturating_sub(self.length)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    pub(super) fn push(&mut self, frame: Frame) {
        self.length += frame.encoded_len();
        self.bulk |= frame.kind == FrameKind::Bulk;
        self.frames.push(frame);
    }

    fn padded(&self) -> usize {
        if self.bulk { padme(self.length) } else { class(self.length) }
    }
}

impl Connection {
    pub(super) fn new(mut tls: rustls::Connection, now: Instant) -> Self {
        // What is handed to TLS is bounded here, one batch at a time.
        tls.set_buffer_limit(None);
        Self {
            tls,
            decoder: Decoder::default(),
            control: VecDeque::new(),
            writing: Writing::Open,
            last_heard: now,
            pinged: None,
            last_ping: None,
            pings: 0,
            round_trip: RoundTrip::default(),
            traffic: Traffic::default(),
        }
    }

    pub(super) fn tls(&self) -> &rustls::Connection {
        &self.tls
    }

    pub(super) fn traffic(&self) -> &Traffic {
        &self.traffic
    }

    /// What a frame takes that has not come whole, in bytes.
    pub(super) fn partial(&self) -> usize {
        self.decoder.partial()
    }

    pub(super) fn round_trip(&self) -> &RoundTrip {
        &self.round_trip
    }

    /// Takes in some of what `from` has, so that [`Self::next_frame`] may have something.
    pub(super) fn read(&mut self, now: Instant, from: &mut dyn Read) -> Result<Taken, SessionError> {
        let mut from = Noting { from, failed: None };
        match self.tls.read_tls(&mut from) {
            // The end; and after the peer's close_notify TLS takes nothing more.
            Ok(0) => return Err(SessionError::Lost),
            Ok(_) => self.last_heard = now,
            Err(_) => {
                return match from.failed {
                    Some(io::ErrorKind::WouldBlock) => Ok(Taken::Nothing),
                    Some(_) => Err(SessionError::Lost),
                    None => Err(SessionError::Limit("TLS buffer")),
                };
            }
        }
        let state = self.tls.process_new_packets().map_err(tls::failed)?;
        tls::check_profile(&self.tls)?;
        Ok(if state.peer_has_closed() { Taken::End } else { Taken::Some })
    }

    /// The next frame that has come whole. To be called after each [`Self::read`] until there is none.
    pub(super) fn next_frame(&mut self) -> Result<Option<Frame>, SessionError> {
        self.next_but(|frame| Ok(Some(frame.into_frame())))
    }

    /// As [`Self::next_frame`], but for those that `handle` takes where they were read.
    pub(super) fn next_but(
        &mut self,
        mut handle: impl FnMut(Received<'_>) -> Result<Option<Frame>, SessionError>,
    ) -> Result<Option<Frame>, SessionError> {
        // An error means that there is no more for now, or that TLS has ended, which `read` tells.
        while let Ok(chunk @ [_, ..]) = self.tls.reader().into_first_chunk() {
            let (mut rest, mut left) = (chunk, None);
            let decoded = loop {
                match self.decoder.next(&mut rest) {
                    Ok(Some(frame)) => {
                        self.traffic.frames_received += 1;
                        match handle(frame) {
                            Ok(None) => {}
                            handled => break handled.map(|frame| left = frame),
                        }
                    }
                    Ok(None) => break Ok(()),
                    Err(error) => break Err(error.into()),
                }
            };
            let taken = chunk.len() - rest.len();
            self.tls.reader().consume(taken);
            self.traffic.bytes_received += taken as u64;
            decoded?;
            if left.is_some() {
                return Ok(left);
            }
        }
        Ok(None)
    }

    /// Queues a frame that goes before all streams'.
    pub(super) fn queue(&mut self, frame: Frame) {
        if self.writing == Writing::Open {
            self.control.push_back(frame);
        }
    }

    /// Frames that wait to be sent before all streams'.
    #[cfg(any(test, feature = "testing"))]
    pub(super) fn queued(&self) -> usize {
        self.control.len()
    }

    /// Moves queued frames into the batch; whether all fitted.
    pub(super) fn next_queued(&mut self, batch: &mut Batch) -> bool {
        while self.control.front().is_some_and(|frame| frame.encoded_len() <= batch.room()) {
            self.control.pop_front().into_iter().for_each(|frame| batch.push(frame));
        }
        self.control.is_empty()
    }

    /// Hands a batch to TLS, padded. An empty one is nothing.
    pub(super) fn write(&mut self, batch: &Batch) -> Result<(), SessionError> {
        self.write_padded(batch, batch.padded())
    }

    /// Hands the first frame of this side to TLS, padded to a flight of its own.
    pub(super) fn write_first(&mut self, frame: Frame) -> Result<(), SessionError> {
        let mut batch = Batch::default();
        batch.push(frame);
        let padded = FIRST_FLIGHT.max(batch.length);
        self.write_padded(&batch, padded)
    }

    fn write_padded(&mut self, batch: &Batch, padded: usize) -> Result<(), SessionError> {
        if batch.frames.is_empty() || self.writing == Writing::Closed {
            return Ok(());
        }
        let heads: Vec<_> = batch.frames.iter().map(Frame::head).collect();
        let mut slices = Vec::with_capacity(2 * heads.len() + 1);
        for (head, frame) in heads.iter().zip(&batch.frames) {
            slices.push(IoSlice::new(head.as_ref()));
            if !frame.payload.is_empty() {
                slices.push(IoSlice::new(&frame.payload));
            }
        }
        let padding = padded - batch.length;
        if padding > 0 {
            slices.push(IoSlice::new(&ZEROS[..padding]));
        }
        let written = self.tls.writer().write_vectored(&slices);
        if written.ok() != Some(padded) {
            return Err(SessionError::Limit("TLS buffer"));
        }
        self.traffic.bytes_sent += padded as u64;
        self.traffic.padding_sent += padding as u64;
        self.traffic.frames_sent += batch.frames.len() as u64;
        Ok(())
    }

    /// Says CLOSE and ends TLS; nothing is sent after it.
    pub(super) fn write_close(&mut self, close: Frame) {
        self.control.clear();
        let mut batch = Batch::default();
        batch.push(close);
        // The connection is over either way.
        let _ = self.write(&batch);
        self.end_tls();
    }

    /// Ends TLS; nothing is sent after it.
    pub(super) fn end_tls(&mut self) {
        if self.writing == Writing::Open {
            self.tls.send_close_notify();
            self.writing = Writing::Closed;
        }
        self.control.clear();
    }

    pub(super) fn is_open(&self) -> bool {
        self.writing == Writing::Open
    }

    /// Whether TLS has bytes for the transport.
    pub(super) fn wants_write(&self) -> bool {
        self.tls.wants_write()
    }

    /// Writes once of what TLS has for the transport.
    pub(super) fn write_to(&mut self, out: &mut dyn Write) -> io::Result<()> {
        match self.tls.write_tls(out)? {
            0 => Err(io::ErrorKind::WriteZero.into()),
            _ => Ok(()),
        }
    }

    /// Appends what TLS has for the transport to `out`.
    pub(super) fn flush(&mut self, out: &mut Vec<u8>) {
        while self.tls.wants_write() {
            // Writing to a Vec cannot fail.
            if self.tls.write_tls(out).is_err() {
                return;
            }
        }
    }

    /// Asks for the round trip, unless an answer is due already.
    pub(super) fn ping(&mut self, now: Instant) {
        if self.pinged.is_none() && self.is_open() {
            self.pings += 1;
            let asked = self.pings.to_be_bytes();
            self.pinged = Some((now, asked));
            self.last_ping = Some(now);
            self.queue(Frame::new(FrameKind::Ping, 0, 0, Bytes::copy_from_slice(&asked)));
        }
    }

    pub(super) fn last_ping(&self) -> Option<Instant> {
        self.last_ping
    }

    pub(super) fn handle_ping(&mut self, ping: Frame) -> Result<(), SessionError> {
        self.check_answers()?;
        self.queue(Frame { kind: FrameKind::Pong, ..ping });
        Ok(())
    }

    pub(super) fn handle_pong(&mut self, now: Instant, pong: &Frame) -> Result<(), SessionError> {
        match self.pinged.take() {
            Some((asked_at, asked)) if pong.payload == asked[..] => {
                self.round_trip.measured(now.saturating_duration_since(asked_at));
                Ok(())
            }
            _ => Err(SessionError::OutOfPlace("an answer to no ping")),
        }
    }

    /// Fails when more waits for the peer than one that reads would let wait.
    pub(super) fn check_answers(&self) -> Result<(), SessionError> {
        if self.control.len() >= MAX_ANSWERS {
            return Err(SessionError::Limit("answers that it does not read"));
        }
        Ok(())
    }

    /// Pings a silent peer, gives up a dead one.
    pub(super) fn handle_timeout(&mut self, now: Instant, keepalive: &Keepalive) -> Result<(), SessionError> {
        let timeout = keepalive.timeout;
        #[cfg(test)]
        let timeout = match timeout {
            _ if planted(Defect::KeepaliveHasty) => keepalive.interval,
            _ if planted(Defect::KeepaliveAsleep) => return Ok(()),
            timeout if planted(Defect::KeepaliveSlow) => 5 * timeout,
            timeout => timeout,
        };
        if now >= self.last_heard + timeout {
            return Err(SessionError::Silent);
        }
        if now >= self.last_heard + keepalive.interval {
            self.ping(now);
        }
        Ok(())
    }

    /// When [`Self::handle_timeout`] has something to do.
    pub(super) fn poll_timeout(&self, keepalive: &Keepalive) -> Instant {
        let silence = match self.pinged {
            // One that has ended here asks for nothing any more.
            None if self.is_open() => keepalive.interval.min(keepalive.timeout),
            _ => keepalive.timeout,
        };
        #[cfg(test)]
        let silence = if planted(Defect::KeepaliveSlow) { 5 * silence } else { silence };
        self.last_heard + silence
    }
}
