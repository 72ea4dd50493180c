//! The two ends of a bulk stream's direction: frames with places, which travel by different connections, arrive in any
//! order, and are sent again when the connection that had them ends (protocol.md, section 8).

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;

use super::limits::{FRAME_COST, frame_cost};
#[cfg(test)]
use super::planted::{Defect, planted};
use super::{ConnId, PRIMARY, SessionError};
use crate::wire::{FLAG_FIN, FLAG_MORE, Frame, Received};

/// A frame that was sent and is not known to have arrived.
#[derive(Debug)]
struct Sent {
    by: ConnId,
    /// What it cost of the window.
    cost: u64,
    /// Whether a message ends with it.
    ends: bool,
    /// Kept while it may have to be sent again: the primary loses nothing, or the session ends with it.
    frame: Option<Frame>,
}

/// The sending end.
#[derive(Debug, Default)]
pub(super) struct BulkSender {
    /// The place of the first frame that is not known to have arrived.
    acknowledged: u64,
    sent: VecDeque<Sent>,
    /// What those cost.
    unacknowledged: u64,
    /// What the frames cost that have arrived of a message that has not yet: they share its memory with the others.
    arriving: u64,
    /// Places that were on a lane that ended.
    again: BTreeSet<u64>,
    resent: u64,
}

impl BulkSender {
    /// How many frames have been sent, each counted once.
    pub(super) fn places(&self) -> u64 {
        self.acknowledged + self.sent.len() as u64
    }

    pub(super) fn resent(&self) -> u64 {
        self.resent
    }

    pub(super) fn is_acknowledged(&self) -> bool {
        self.sent.is_empty()
    }

    /// What the frames cost that are not known to have arrived.
    pub(super) fn unacknowledged(&self) -> u64 {
        self.unacknowledged
    }

    /// Gives a new frame its place and notes by which connection it goes.
    pub(super) fn first_time(&mut self, by: ConnId, mut frame: Frame) -> Frame {
        frame.place = self.places();
        self.note(by, &frame);
        frame
    }

    fn note(&mut self, by: ConnId, frame: &Frame) {
        let cost = frame_cost(frame);
        let ends = frame.flags & FLAG_MORE == 0;
        let sent = Sent { by, cost, ends, frame: (by != PRIMARY).then(|| frame.clone()) };
        match usize::try_from(frame.place - self.acknowledged).ok().and_then(|index| self.sent.get_mut(index)) {
            Some(known) => *known = sent,
            None => {
                self.unacknowledged += cost;
                self.sent.push_back(sent);
            }
        }
    }

    /// The length of the next frame that has to be sent again, without its headers.
    pub(super) fn next_again(&self) -> Option<usize> {
        let place = self.again.first()?;
        self.sent_at(*place)?.frame.as_ref().map(|frame| frame.payload.len())
    }

    /// The next frame that has to be sent again.
    pub(super) fn again(&mut self, by: ConnId) -> Option<Frame> {
        let place = self.again.pop_first()?;
        let frame = self.sent_at(place)?.frame.clone()?;
        self.note(by, &frame);
        self.resent += 1;
        Some(frame)
    }

    /// Notes that a lane is gone: what it had is sent again.
    pub(super) fn lost(&mut self, lane: ConnId) {
        for (index, sent) in self.sent.iter().enumerate() {
            if sent.by == lane {
                self.again.insert(self.acknowledged + index as u64);
            }
        }
    }

    /// Sends nothing again any more, and keeps nothing for it.
    pub(super) fn abandon(&mut self) {
        self.sent.iter_mut().for_each(|sent| sent.frame = None);
        self.again.clear();
    }

    /// Takes the peer's word that it has all frames before `received`, and forgets them; what the messages cost of which it has
    /// the last one now.
    pub(super) fn acknowledge(&mut self, received: u64) -> Result<u64, SessionError> {
        if received < self.acknowledged || received > self.places() {
            return Err(SessionError::OutOfPlace("an acknowledgement"));
        }
        let mut arrived = 0;
        // No further than what was sent, whose number is a usize.
        for sent in self.sent.drain(..(received - self.acknowledged) as usize) {
            self.unacknowledged -= sent.cost;
            self.arriving += sent.cost;
            if sent.ends {
                arrived += std::mem::take(&mut self.arriving);
            }
        }
        self.acknowledged = received;
        self.again = self.again.split_off(&received);
        Ok(arrived)
    }

    fn sent_at(&self, place: u64) -> Option<&Sent> {
        place
            .checked_sub(self.acknowledged)
            .and_then(|index| usize::try_from(index).ok())
            .and_then(|i| self.sent.get(i))
    }
}

/// The receiving end: puts frames in order.
#[derive(Debug, Default)]
pub(super) struct BulkReceiver {
    /// Frames received without a gap.
    next: u64,
    /// Those behind a gap; what they cost of the window bounds them, and of FIN there is one.
    ahead: BTreeMap<u64, (u8, Bytes)>,
    ahead_bytes: usize,
    end: Option<u64>,
}

impl BulkReceiver {
    /// Frames received without a gap.
    pub(super) fn received(&self) -> u64 {
        self.next
    }

    /// What the frames behind a gap take, in bytes.
    pub(super) fn ahead_bytes(&self) -> usize {
        self.ahead_bytes
    }

    /// Whether the frame at this place has come before. One behind the end of the stream is an error.
    pub(super) fn is_known(&self, place: u64, flags: u8) -> Result<bool, SessionError> {
        if place < self.next || self.ahead.contains_key(&place) {
            return Ok(true);
        }
        let behind_the_end = self.end.is_some_and(|end| place >= end);
        let ends_too_early =
            flags & FLAG_FIN != 0 && self.ahead.last_key_value().is_some_and(|(last, _)| *last > place);
        if behind_the_end || ends_too_early || place == u64::MAX {
            return Err(SessionError::OutOfPlace("a frame behind the end of a stream"));
        }
        Ok(false)
    }

    /// Takes in a frame that is not known.
    pub(super) fn insert(&mut self, frame: Frame) {
        if frame.flags & FLAG_FIN != 0 {
            self.end = Some(frame.place);
        }
        self.ahead_bytes += weight(frame.flags, &frame.payload);
        self.ahead.insert(frame.place, (frame.flags, frame.payload));
    }

    /// Takes in the next frame in order, with none waiting behind a gap; gives it back where that is not so.
    pub(super) fn pass<'a>(&mut self, frame: Received<'a>) -> Result<(u8, Cow<'a, [u8]>), Received<'a>> {
        if frame.place() != self.next || !self.ahead.is_empty() {
            return Err(frame);
        }
        if frame.flags() & FLAG_FIN != 0 {
            self.end = Some(frame.place());
        }
        #[cfg(test)]
        if planted(Defect::DeliveredHeld) {
            self.ahead_bytes += frame.payload.len();
        }
        self.next += 1;
        Ok((frame.flags(), frame.payload))
    }

    /// The next frame in order: flags and content.
    pub(super) fn next(&mut self) -> Option<(u8, Bytes)> {
        let frame = self.ahead.remove(&self.next)?;
        #[cfg(test)]
        if planted(Defect::DeliveredHeld) {
            self.next += 1;
            return Some(frame);
        }
        self.ahead_bytes -= weight(frame.0, &frame.1);
        self.next += 1;
        Some(frame)
    }
}

/// What a frame takes that waits behind a gap: what it costs, as an empty one is not nothing.
fn weight(flags: u8, payload: &Bytes) -> usize {
    if flags & FLAG_FIN != 0 { 0 } else { payload.len() + FRAME_COST as usize }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::FrameKind;

    fn frame(place: u64, flags: u8) -> Frame {
        Frame { place, ..Frame::new(FrameKind::Bulk, flags, 1, Bytes::from(place.to_string())) }
    }

    #[test]
    fn what_a_lost_lane_had_is_sent_again_and_what_arrived_is_not() {
        let mut sender = BulkSender::default();
        for (by, flags) in [(1, 0), (2, FLAG_MORE), (1, 0), (2, FLAG_MORE), (0, 0)] {
            sender.first_time(by, frame(0, flags));
        }
        let cost = 1 + FRAME_COST;
        assert_eq!(sender.acknowledge(1).unwrap(), cost);
        sender.lost(1);
        assert_eq!(sender.again(2).map(|frame| frame.place), Some(2), "0 has arrived, 1 went by the other lane");
        assert!(sender.again(2).is_none());
        sender.lost(2);
        assert_eq!(sender.acknowledge(2).unwrap(), 0, "its message is kept for what is left of it");
        let places: Vec<u64> = std::iter::from_fn(|| sender.again(PRIMARY)).map(|frame| frame.place).collect();
        assert_eq!(places, [2, 3]);
        assert_eq!(sender.resent(), 3);
        assert!(sender.acknowledge(1).is_err() && sender.acknowledge(6).is_err());
        // Each has one byte. One that was sent again costs what it did.
        assert_eq!(sender.unacknowledged(), 3 * cost);
        assert_eq!(sender.acknowledge(5).unwrap(), 4 * cost);
        assert!(sender.is_acknowledged() && sender.unacknowledged() == 0);
    }

    #[test]
    fn frames_come_out_in_order_and_once() {
        let mut receiver = BulkReceiver::default();
        for place in [2, 0, 3] {
            assert!(!receiver.is_known(place, 0).unwrap());
            receiver.insert(frame(place, 0));
        }
        assert_eq!(receiver.ahead_bytes(), 3 * (1 + FRAME_COST as usize));
        let mut seen: Vec<_> = std::iter::from_fn(|| receiver.next()).map(|(_, content)| content).collect();
        assert!(receiver.is_known(0, 0).unwrap() && receiver.is_known(3, 0).unwrap());
        receiver.insert(frame(1, 0));
        seen.extend(std::iter::from_fn(|| receiver.next()).map(|(_, content)| content));
        assert_eq!(seen, ["0", "1", "2", "3"]);
        assert_eq!(receiver.ahead_bytes(), 0);
    }

    #[test]
    fn a_stream_ends_once_and_nothing_lies_behind_its_end() {
        let mut receiver = BulkReceiver::default();
        receiver.insert(frame(5, 0));
        assert!(receiver.is_known(4, FLAG_FIN).is_err());
        receiver.insert(frame(6, FLAG_FIN));
        assert!(receiver.is_known(6, FLAG_FIN).unwrap());
        assert!(receiver.is_known(7, FLAG_FIN).is_err() && receiver.is_known(7, 0).is_err());
        assert!(!receiver.is_known(1, 0).unwrap());
    }
}
