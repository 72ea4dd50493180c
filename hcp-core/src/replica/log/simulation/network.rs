//! Links between pairs of nodes: what goes over one arrives in order, until it breaks.

use std::time::Duration;

use rand::RngExt;

use super::{Checked, Event, Input, World};
use crate::replica::log::machine::Unlink;
use crate::replica::log::message::Message;
use crate::replica::place::NodeId;

/// Two nodes and what is between them.
#[derive(Debug)]
pub(super) struct Pair {
    latency: Duration,
    /// The link that is there, if any.
    link: Option<u64>,
    /// When the last message of each direction arrives: of the lower node, of the higher one.
    last: [Duration; 2],
    pub(super) parted: bool,
    /// Until when each direction is taken, where links have a rate.
    taken: [Duration; 2],
}

impl Pair {
    pub(super) fn new(latency: Duration) -> Self {
        Self { latency, link: None, last: [Duration::ZERO; 2], parted: false, taken: [Duration::ZERO; 2] }
    }
}

impl World {
    /// One of two dials the other, unless they are linked.
    pub(super) fn dial(&mut self, one: usize, two: usize) {
        let up = self.nodes[one].machine.is_some() && self.nodes[two].machine.is_some();
        let latency = self.pairs[&(one, two)].latency;
        let pair = self.pairs.get_mut(&(one, two)).expect("every pair is there");
        if pair.link.is_some() {
            return;
        }
        if !up || pair.parted {
            if up {
                self.counts.note("dials failed");
                self.after(Duration::from_millis(700), Event::Dial { one, two });
            }
            return;
        }
        self.links += 1;
        let link = self.links;
        pair.link = Some(link);
        (pair.last, pair.taken) = ([self.now + latency; 2], [self.now; 2]);
        self.counts.note("links made");
        for (node, with) in [(one, two), (two, one)] {
            self.after(latency, Event::LinkUp { node, with, link });
        }
    }

    fn is_current(&self, node: usize, with: usize, link: u64) -> bool {
        self.pairs[&(node.min(with), node.max(with))].link == Some(link)
    }

    pub(super) fn see_link_up(&mut self, node: usize, with: usize, link: u64) -> Checked {
        if !self.is_current(node, with, link) {
            return Ok(());
        }
        let peer = self.cast.nodes[with];
        self.tell(node, Input::LinkUp(peer))
    }

    pub(super) fn see_link_down(&mut self, node: usize, with: usize, link: u64) -> Checked {
        let pair = &self.pairs[&(node.min(with), node.max(with))];
        if pair.link.is_some_and(|now| now != link) {
            return Ok(());
        }
        let peer = self.cast.nodes[with];
        self.tell(node, Input::LinkDown(peer))
    }

    /// Breaks the link of a pair; what is on its way is lost.
    pub(super) fn cut(&mut self, one: usize, two: usize) {
        let (one, two) = (one.min(two), one.max(two));
        let pair = self.pairs.get_mut(&(one, two)).expect("every pair is there");
        let Some(link) = pair.link.take() else { return };
        self.counts.note("links lost");
        for (node, with) in [(one, two), (two, one)] {
            self.at(self.now, Event::LinkDown { node, with, link });
        }
        let delay = super::between(&mut self.rng, 100, 900);
        self.after(delay, Event::Dial { one, two });
    }

    pub(super) fn send(&mut self, from: usize, to: NodeId, message: Message) -> Checked {
        let Some(to) = self.cast.index(&to) else { return Ok(()) };
        let messages = if self.is_hostile(from) { self.twist(from, to, message) } else { vec![message] };
        for message in messages {
            self.put(from, to, message)?;
        }
        Ok(())
    }

    /// Puts a message on the link.
    pub(super) fn put(&mut self, from: usize, to: usize, message: Message) -> Checked {
        let slow = if self.plan.delays && self.rng.random_bool(0.1) { 400 } else { 20 };
        let jitter = super::between(&mut self.rng, 0, slow);
        if slow > 20 {
            self.counts.note("messages delayed");
        }
        let message = if self.plan.bytes { self.through_bytes(message)? } else { message };
        let pair = self.pairs.get_mut(&(from.min(to), from.max(to))).expect("every pair is there");
        let Some(link) = pair.link else { return Ok(()) };
        let direction = usize::from(from > to);
        let last = &mut pair.last[direction];
        let begun = match self.plan.rate {
            Some(rate) => {
                let taken = &mut pair.taken[direction];
                *taken = (*taken).max(self.now) + Duration::from_secs_f64(bytes_of(&message) as f64 / rate as f64);
                let waiting = (*taken - self.now).as_secs_f64() * rate as f64;
                self.most_queued = self.most_queued.max(waiting as usize);
                *taken
            }
            None => self.now,
        };
        let when = (begun + pair.latency + jitter).max(*last);
        *last = when;
        self.at(when, Event::Message { from, to, link, message });
        Ok(())
    }

    pub(super) fn arrive(&mut self, from: usize, to: usize, link: u64, message: Message) -> Checked {
        if !self.is_current(from, to, link) {
            self.counts.note("messages lost with their link");
            return Ok(());
        }
        if self.plan.hostile {
            self.overhear(from, to, &message);
        }
        let peer = self.cast.nodes[from];
        self.tell(to, Input::Message(peer, message))
    }

    pub(super) fn unlink(&mut self, node: usize, with: NodeId, why: Unlink) -> Checked {
        let Some(with) = self.cast.index(&with) else { return Ok(()) };
        let gone = |node: usize| self.nodes[node].stopped.is_some();
        let fair = self.is_hostile(with)
            || self.is_hostile(node)
            || gone(node)
            || gone(with)
            || matches!(why, Unlink::NotMember | Unlink::TooOld | Unlink::PeerTooOld);
        if !fair {
            return Err(format!("node {node} ends the link with node {with}, which is honest: {why}"));
        }
        self.counts.note(super::faults::unlinked(why));
        self.cut(node, with);
        Ok(())
    }

    /// What is left of a message when it has been written and read.
    fn through_bytes(&mut self, message: Message) -> Result<Message, String> {
        self.counts.note("messages through bytes");
        let read = Message::decode(&message.encode()).map_err(|error| format!("{error}: {message:?}"))?;
        read.ok_or_else(|| "a message that is skipped".to_owned())
    }
}

/// About how long a message is.
fn bytes_of(message: &Message) -> usize {
    match message {
        Message::Segment(segment) => segment.header.len() + segment.payload.len() + 69,
        Message::Piece(piece) => piece.bytes.len() + 37,
        Message::Frontier(frontier) => 100 + frontier.tips.len() * 88,
        Message::Offer(offer) => offer.certificate.len() + offer.summary.len() + offer.pieces.len() + 9,
        _ => 160,
    }
}
