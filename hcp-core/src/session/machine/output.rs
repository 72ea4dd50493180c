//! What a session sends next, connection by connection.

use std::io::{self, Write};

use tokio::time::Instant;

use super::super::connection::Batch;
use super::super::limits::OUTPUT_HIGH_WATER;
#[cfg(test)]
use super::super::planted::{Defect, planted};
use super::super::{CLOSE_SHUTDOWN, ConnId, PRIMARY};
use super::{Machine, State, close_frame};
use crate::wire::MAX_BATCH;

impl Machine {
    /// Appends bytes for the transport of `conn` to `out`, until `out` holds about 64 KiB. To be called with what the
    /// transport has taken removed, so that little waits in front of what is urgent.
    pub(crate) fn poll_output(&mut self, _now: Instant, conn: ConnId, out: &mut Vec<u8>) {
        if let State::Dialling { first, .. } = &mut self.state {
            out.append(first);
            return;
        }
        if self.established.is_none() {
            // Whom it reached was not whom it dialled: nothing more is said.
            return;
        }
        loop {
            let Some(connection) = self.connection(conn) else { return };
            connection.flush(out);
            let full = out.len() >= OUTPUT_HIGH_WATER;
            #[cfg(test)]
            let full = full && !planted(Defect::OutputUnbounded);
            if full || !self.fill(conn) {
                break;
            }
        }
        self.see_to_drained();
    }

    /// Writes what [`Self::poll_output`] would give to a transport that takes as much as it can: one batch at the most. `false`
    /// when there is none.
    ///
    /// # Errors
    /// Those of the transport; when it takes nothing more for now, only if it has taken nothing at all.
    pub(crate) fn write_to(&mut self, conn: ConnId, transport: &mut dyn Write) -> io::Result<bool> {
        if self.established.is_none() {
            return Ok(false);
        }
        if !self.connection(conn).is_some_and(|connection| connection.wants_write()) && !self.fill(conn) {
            self.see_to_drained();
            return Ok(false);
        }
        self.see_to_drained();
        let mut wrote = false;
        while let Some(connection) = self.connection(conn).filter(|connection| connection.wants_write()) {
            match connection.write_to(transport) {
                Ok(()) => wrote = true,
                Err(error) if wrote && error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        Ok(wrote)
    }

    /// Whether [`Self::poll_output`] would give something.
    #[cfg(any(test, feature = "testing"))]
    pub(crate) fn has_output(&self, conn: ConnId) -> bool {
        if let State::Dialling { first, .. } = &self.state {
            return conn == PRIMARY && !first.is_empty();
        }
        let connection = if conn == PRIMARY { Some(&self.primary) } else { self.lanes.get(&conn) };
        let Some(connection) = connection.filter(|_| self.established.is_some()) else { return false };
        let frames = connection.is_open()
            && (connection.queued() > 0
                || (conn == PRIMARY && self.streams.has_credit())
                || self.streams.may_send(conn, self.uses_lanes()));
        let close = conn == PRIMARY && matches!(self.state, State::Closing(_));
        connection.wants_write() || frames || close
    }

    /// Whether bulk goes by lanes.
    fn uses_lanes(&self) -> bool {
        !self.lanes.is_empty() && matches!(self.state, State::Established)
    }

    /// Hands the next batch of a connection to TLS; `false` when there is none.
    fn fill(&mut self, conn: ConnId) -> bool {
        let lanes = self.uses_lanes();
        let abrupt = matches!(self.state, State::Closing(code) if code != CLOSE_SHUTDOWN);
        let mut batch = Batch::default();
        let Some(connection) = self.connection(conn).filter(|connection| connection.is_open()) else { return false };
        if !abrupt && connection.next_queued(&mut batch) {
            self.fill_with_credit(conn, &mut batch);
            while let Some(frame) = self.streams.next_frame(conn, lanes, batch.room(), &mut self.events) {
                batch.push(frame);
            }
        }
        if batch.is_empty() {
            return conn == PRIMARY && self.say_close();
        }
        // A batch that TLS does not take cannot be sent otherwise either: TLS has ended, which input or its lack tells.
        self.connection(conn).is_some_and(|connection| connection.write(&batch).is_ok())
    }

    fn fill_with_credit(&mut self, conn: ConnId, batch: &mut Batch) {
        while conn == PRIMARY && batch.room() >= MAX_CREDIT_FRAME {
            let Some(frame) = self.streams.next_credit(&mut self.events) else { return };
            batch.push(frame);
        }
    }

    /// Says CLOSE when it is time; `true` when it did.
    fn say_close(&mut self) -> bool {
        let State::Closing(code) = self.state else { return false };
        self.primary.write_close(close_frame(code));
        self.state = State::Closed;
        true
    }
}

/// Room that a CREDIT takes at most: header and payload.
const MAX_CREDIT_FRAME: usize = 10 + 64;
const _: () = assert!(OUTPUT_HIGH_WATER < MAX_BATCH);
