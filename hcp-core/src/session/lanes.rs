//! Joining lanes to a session (protocol.md, section 6).

use tokio::time::Instant;

use super::accepting::Joining;
#[cfg(test)]
use super::planted::{Defect, planted};
use super::{ConnId, JoinRequest, Lane, LaneDialling, MAX_LANES, Machine, SessionError};

impl Machine {
    /// How many lanes more than live now are worth having; the caller subtracts those that it is dialling.
    pub(crate) fn lanes_wanted(&self) -> usize {
        if self.is_established() && self.streams().any_bulk_open() {
            self.lane_goal.saturating_sub(self.lanes.len())
        } else {
            0
        }
    }

    /// Begins a lane on the dialler's side.
    pub(crate) fn lane_dialling(&mut self, now: Instant) -> Result<LaneDialling, SessionError> {
        let (Some(secrets), Some(server_key)) = (self.secrets(), self.server_key()) else {
            return Err(SessionError::OutOfPlace("a lane before the session"));
        };
        let number = self.last_lane.checked_add(1).ok_or(SessionError::Limit("lane numbers"))?;
        self.last_lane = number;
        LaneDialling::new(secrets, server_key, number, now)
    }

    /// Takes a lane into use on the dialler's side.
    pub(crate) fn add_lane(&mut self, now: Instant, lane: Lane) -> Result<ConnId, SessionError> {
        let Lane { number, connection, session, rest, ended } = lane;
        if self.session_id() != Some(session) || !self.is_established() {
            return Err(SessionError::OutOfPlace("a lane of another session"));
        }
        if self.lanes.len() >= MAX_LANES || self.lanes.contains_key(&number) {
            return Err(SessionError::Limit("lanes"));
        }
        self.lanes.insert(number, *connection);
        self.begin_lane(now, number, &rest, ended)?;
        Ok(number)
    }

    /// Takes a lane into use on the acceptor's side, or gives it back to be refused. What came behind JOIN is taken in;
    /// what is wrong with it comes out of the next call, as with a session's first bytes.
    pub(crate) fn join(&mut self, now: Instant, request: JoinRequest) -> Result<ConnId, JoinRequest> {
        let Joining { connection, join, server_key, .. } = &*request.0;
        let number = join.number;
        let fits = self.is_established()
            && !self.is_dialler()
            && self.session_id() == Some(join.session)
            && self.server_key() == Some(*server_key)
            && self.secrets().is_some_and(|secrets| secrets.fits(join, connection.tls()));
        #[cfg(test)]
        let fits = fits || planted(Defect::ForeignLaneTaken);
        let full = self.lanes.len() >= MAX_LANES;
        #[cfg(test)]
        let full = full && !planted(Defect::LanesUnbounded);
        if !fits || full || !self.use_number(number) {
            return Err(request);
        }
        let Joining { connection, rest, ended, .. } = *request.0;
        self.lanes.insert(number, connection);
        if let Err(error) = self.begin_lane(now, number, &rest, ended) {
            self.defer(now, error);
        }
        Ok(number)
    }

    fn begin_lane(&mut self, now: Instant, number: ConnId, rest: &[u8], ended: bool) -> Result<(), SessionError> {
        self.handle_frames(now, number)?;
        if ended {
            self.end_lane(number);
            return Ok(());
        }
        self.handle_input(now, number, rest)
    }

    /// Notes a lane's number; `false` when it was used before. What is remembered is bounded: a dialler whose lanes end so
    /// often gets no more of them.
    fn use_number(&mut self, number: ConnId) -> bool {
        self.used_lanes.len() < MAX_LANE_NUMBERS && self.used_lanes.insert(number)
    }
}

/// Lanes that one session may have had: one a minute for a month and more.
const MAX_LANE_NUMBERS: usize = 65_536;
