//! What must hold when a stream, a drain or a run has come to its end.

use super::World;
use super::ledger::{Checked, Flow, violated};
use super::side::{Ended, Over};
use super::wires::End;
use crate::session::{Priority, SessionError, StreamId};

impl World {
    /// A bulk stream that is over for a side has arrived whole at the other's machine; of any stream that is over, what this
    /// side was to receive has come.
    pub(super) fn closed_streams_are_complete(&self, session: usize, side: usize, stream: StreamId) -> Checked {
        let it = &self.sessions[session];
        let Some(handle) = it.sides[side].handles.get(&stream) else { return Ok(()) };
        let there = it.sides[1 - side].handles.get(&stream);
        for (id, from, flow) in it.ledger.flows().filter(|(id, ..)| *id == stream) {
            let arrived = from != side || handle.priority == Priority::Bulk;
            let left = match from == side {
                true => there.is_some_and(|there| there.released || there.over.is_some()),
                false => handle.released,
            };
            // Arrived messages may wait behind a pause of their reader's side.
            let waits = from == side && it.sides[1 - side].paused_until > self.now;
            if arrived && !left && !waits && !flow.is_complete() {
                return violated(format!("stream {id} is over and incomplete"));
            }
        }
        Ok(())
    }

    /// Nothing is open any more on a side that has drained.
    pub(super) fn all_is_over(&self, session: usize, side: usize) -> Checked {
        match self.sessions[session].sides[side].handles.iter().find(|(_, handle)| handle.over.is_none()) {
            Some((stream, _)) => violated(format!("drained while stream {stream} is open")),
            None => Ok(()),
        }
    }

    /// When nothing happens any more.
    pub(super) fn verdict(&self) -> Checked {
        for (number, it) in self.sessions.iter().enumerate() {
            for (side, this) in it.sides.iter().enumerate() {
                let Some(ended) = &this.ended else {
                    return violated(format!("session {number} never ended for side {side}"));
                };
                if it.ends_by.is_some_and(|by| this.ended_at > by) {
                    return violated(format!("session {number} side {side} was late for a primary that was cut"));
                }
                let waited = matches!(ended, Ended::Failed(SessionError::HandshakeTimedOut));
                if it.imposter && !it.hurt && side == 0 && waited {
                    return violated("an imposter was waited for and not refused");
                }
            }
            if !it.hurt && !it.imposter && !it.has_drained() {
                return violated(format!("session {number} ended without a drain, and nothing happened to it"));
            }
            for (stream, from, flow) in it.ledger.flows() {
                self.is_accounted_for(number, stream, from, flow)?;
            }
        }
        let left =
            self.wires.iter().flat_map(|wire| &wire.ends).find(|end| !matches!(end, End::Nobody | End::Stranger));
        left.map_or(Ok(()), |end| violated(format!("somebody is left at a connection: {end:?}")))
    }

    /// What is missing of a flow was given up by somebody, and both know.
    fn is_accounted_for(&self, session: usize, stream: StreamId, from: usize, flow: &Flow) -> Checked {
        let it = &self.sessions[session];
        let [sender, receiver] = [from, 1 - from].map(|side| it.sides[side].handles.get(&stream));
        let abandoned = |handle: Option<&super::Handle>| {
            handle.is_some_and(|handle| matches!(handle.over, Some(Over::Abandoned | Over::Reset(_))))
        };
        let given_up = abandoned(sender) || abandoned(receiver) || receiver.is_some_and(|handle| handle.released);
        if given_up || (flow.finished && !flow.misses()) {
            return Ok(());
        }
        // Nobody gave it up: then the session was ended by more than a drain, which both sides have been told.
        if it.has_drained() && !it.hurt {
            return violated(format!("stream {stream} is incomplete after a drain"));
        }
        Ok(())
    }

    /// What a run that does not end waits for.
    pub(super) fn unfinished(&self) -> String {
        let mut waits = Vec::new();
        for (number, it) in self.sessions.iter().enumerate() {
            for (side, this) in it.sides.iter().enumerate().filter(|(_, this)| this.ended.is_none()) {
                let open = this.handles.iter().filter(|(_, handle)| handle.over.is_none());
                let open: Vec<String> = open
                    .map(|(id, handle)| {
                        let super::Handle { priority, credit, finished, peer_finished, acts, .. } = handle;
                        let (left, next) = (handle.lengths.len(), handle.lengths.front());
                        format!(
                            "stream {id} ({priority:?}): {left} to send, the next {next:?} of {credit}, acts {acts}, \
                             finished {finished}/{peer_finished}"
                        )
                    })
                    .collect();
                waits.push(format!("session {number} side {side} (drained {}): {open:?}", this.drained));
            }
        }
        waits.join("; ")
    }
}
