//! Links between nodes: latency, order, loss, silence, and who dials whom again.

use std::time::Duration;

use rand::RngExt;

use super::{Checked, NodeEvent, World, between};
use crate::service::gossip::Message;
use crate::service::machine::Input;
use crate::service::tuning::MAX_MESSAGE;

/// Two nodes.
#[derive(Debug)]
pub(super) struct Pair {
    latency: Duration,
    /// Numbers the link that each of the two believes to have; the one with the lower index first.
    ends: [Option<u64>; 2],
    /// When the last message towards each of the two arrives.
    last: [Duration; 2],
    /// Nothing passes.
    pub(super) blocked: bool,
    /// When it last began to pass again.
    joined: Duration,
}

impl Pair {
    pub(super) fn new(latency: Duration) -> Self {
        Self { latency, ends: [None; 2], last: [Duration::ZERO; 2], blocked: false, joined: Duration::ZERO }
    }
}

fn pair(one: usize, two: usize) -> (usize, usize) {
    (one.min(two), one.max(two))
}

impl World {
    fn passes(&self, from: usize, to: usize) -> bool {
        !self.pairs[&pair(from, to)].blocked && !self.nodes[from].cut && !self.nodes[to].cut
    }

    /// Whether two nodes are parted, or were until lately.
    pub(super) fn parted(&self, one: usize, two: usize) -> bool {
        let found = &self.pairs[&pair(one, two)];
        found.blocked || (found.joined > Duration::ZERO && self.now - found.joined < Duration::from_secs(25))
    }

    pub(super) fn send(&mut self, from: usize, to: usize, message: Message) -> Checked {
        let message = if self.plan.bytes {
            let bytes = message.encode();
            if bytes.len() > MAX_MESSAGE {
                return Err(format!("a message of {} bytes", bytes.len()));
            }
            let Some(machine) = self.nodes[to].machine.as_ref() else { return Ok(()) };
            let decoded = Message::decode(&bytes, super::service(), machine.roster());
            decoded.map_err(|error| format!("what a machine says cannot be read: {error}"))?
        } else {
            message
        };
        let messages = if self.is_hostile(from) { self.corrupt(from, to, message) } else { vec![message] };
        let passes = self.passes(from, to);
        let jitter = between(&mut self.rng, 0, 60);
        let pair = self.pairs.get_mut(&pair(from, to)).unwrap();
        let Some(link) = pair.ends[usize::from(from > to)] else { return Ok(()) };
        if !passes {
            // The bytes of a link are in order: once some are lost, the rest never arrives.
            pair.ends[usize::from(to > from)] = pair.ends[usize::from(to > from)].filter(|end| *end != link);
            return Ok(());
        }
        let side = usize::from(to > from);
        for message in messages {
            let arrives = (self.now + pair.latency + jitter).max(pair.last[side] + Duration::from_micros(1));
            pair.last[side] = arrives;
            let what = NodeEvent::Arrived { from, link, message: Box::new(message) };
            let life = self.nodes[to].life;
            self.entries += 1;
            self.calendar.insert((arrives, self.entries), super::Event::Node { node: to, life, what });
        }
        Ok(())
    }

    pub(super) fn arrived(&mut self, node: usize, from: usize, link: u64, message: Message) -> Checked {
        let pair = &self.pairs[&pair(node, from)];
        if pair.ends[usize::from(node > from)] != Some(link) {
            return Ok(());
        }
        let from = self.nodes[from].address;
        self.feed(node, Input::Message(from, message))
    }

    pub(super) fn dial(&mut self, node: usize, to: usize) {
        if self.nodes[node].machine.is_none() || self.pairs[&pair(node, to)].ends[usize::from(node > to)].is_some() {
            return;
        }
        let passes = self.passes(node, to);
        let target = &self.nodes[to];
        let wait = if target.machine.is_none() && passes {
            // Its introduction points are gone.
            between(&mut self.rng, 200, 800)
        } else if !passes || target.frozen.is_some() {
            between(&mut self.rng, 8_000, 12_000)
        } else {
            between(&mut self.rng, 300, 1_500)
        };
        self.at_node(self.now + wait, node, NodeEvent::DialDone { to });
    }

    pub(super) fn dial_done(&mut self, node: usize, to: usize) -> Checked {
        if self.pairs[&pair(node, to)].ends[usize::from(node > to)].is_some() {
            return Ok(());
        }
        let good = self.passes(node, to)
            && self.nodes[to].machine.is_some()
            && self.nodes[to].frozen.is_none()
            && !self.rng.random_bool(0.03);
        if !good {
            self.counts.note("dials failed");
            let backoff = self.nodes[node].backoff.entry(to).or_insert(Duration::from_millis(250));
            let wait = *backoff;
            *backoff = (wait * 2).min(Duration::from_secs(5));
            let again = self.now + wait.mul_f64(self.rng.random_range(0.5..1.0));
            self.at_node(again, node, NodeEvent::Dial { to });
            let member = self.nodes[to].address;
            return self.feed(node, Input::DialFailed(member));
        }
        self.nodes[node].backoff.remove(&to);
        self.links += 1;
        let link = self.links;
        let latency = self.pairs[&pair(node, to)].latency;
        self.at_node(self.now + latency, to, NodeEvent::LinkUp { with: node, link });
        self.link_is_up(node, to, link)
    }

    pub(super) fn link_is_up(&mut self, node: usize, with: usize, link: u64) -> Checked {
        if self.nodes[node].machine.is_none() {
            return Ok(());
        }
        self.counts.note("link ends made");
        let pair = self.pairs.get_mut(&pair(node, with)).unwrap();
        pair.ends[usize::from(node > with)] = Some(link);
        let member = self.nodes[with].address;
        self.feed(node, Input::LinkUp(member))
    }

    /// A node ends its link with another one, which hears of it if it can.
    pub(super) fn close_link(&mut self, node: usize, with: usize) {
        let passes = self.passes(node, with);
        let found = self.pairs.get_mut(&pair(node, with)).unwrap();
        let (link, latency) = (found.ends[usize::from(node > with)], found.latency);
        let Some(link) = link else { return };
        self.at_node(self.now, node, NodeEvent::LinkDown { with, link });
        // Without a word it is a keepalive that ends it.
        let later = if passes { latency } else { between(&mut self.rng, 5_000, 20_000) };
        self.at_node(self.now + later, with, NodeEvent::LinkDown { with: node, link });
    }

    pub(super) fn link_is_down(&mut self, node: usize, with: usize, link: u64) -> Checked {
        let end = &mut self.pairs.get_mut(&pair(node, with)).unwrap().ends[usize::from(node > with)];
        if end.is_some_and(|end| end != link) || self.nodes[node].machine.is_none() {
            return Ok(());
        }
        *end = None;
        let member = self.nodes[with].address;
        if self.nodes[node].address < member {
            let wait = between(&mut self.rng, 125, 250);
            self.at_node(self.now + wait, node, NodeEvent::Dial { to: with });
        }
        self.feed(node, Input::LinkDown(member))
    }

    /// A link passes nothing any more, or does again: what was on it is lost.
    pub(super) fn block(&mut self, one: usize, two: usize, blocked: bool) {
        let found = self.pairs.get_mut(&pair(one, two)).unwrap();
        if found.blocked == blocked {
            return;
        }
        found.blocked = blocked;
        found.joined = self.now;
        let ends = found.ends;
        for (side, (node, with)) in
            [(pair(one, two).0, pair(one, two).1), (pair(one, two).1, pair(one, two).0)].into_iter().enumerate()
        {
            if let Some(link) = ends[side] {
                let wait = between(&mut self.rng, 3_000, 20_000);
                self.at_node(self.now + wait, node, NodeEvent::LinkDown { with, link });
            }
        }
    }

    /// A process is gone, and the other ends of its links with it.
    pub(super) fn drop_links(&mut self, node: usize) {
        for with in (0..self.nodes.len()).filter(|with| *with != node) {
            let passes = self.passes(node, with);
            let found = self.pairs.get_mut(&pair(node, with)).unwrap();
            found.ends[usize::from(node > with)] = None;
            let (theirs, latency) = (found.ends[usize::from(with > node)], found.latency);
            if let Some(link) = theirs {
                let wait = if passes { latency } else { between(&mut self.rng, 5_000, 20_000) };
                self.at_node(self.now + wait, with, NodeEvent::LinkDown { with: node, link });
            }
        }
    }
}
