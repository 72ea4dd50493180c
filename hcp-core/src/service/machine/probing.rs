//! Probes: a node dials the service as a client would, and whoever is reached says so over gossip.
//!
//! That is what shows that a node's session key can be reached: the nonce of the probe is known to nobody else. Doubt about a
//! member grows with every probe that should have arrived there and did not, and is gone with one that arrived, this node's
//! or a peer's. Whoever is in doubt beyond [`MAX_DOUBT`] is left out of this node's descriptors for a while, if it publishes;
//! less than half of all, and the worst first, so that a publisher whose own way is blocked leaves nobody out in earnest.
//!
//! Nobody is doubted whom the current descriptor does not list: an upload may be a minute away, in which newcomers are sought by
//! twenty probes. Who does not answer, and is listed in the descriptor of the next period only, shows when that is the current one.
//!
//! A probe goes where a client would go, so that a member that never answers is left out after some seven times as many probes
//! of one publisher as there are members: within minutes while it is new to others, who then probe more often. A new run of it
//! gets another chance, once in [`LEFT_OUT`]. Two hostile members that vouch for each other are never left out.

use std::collections::BTreeMap;
use std::time::Duration;

use rand::RngExt;

use super::{Machine, Output};
use crate::identity::OnionAddress;
use crate::service::gossip::{Message, Nonce};
use crate::service::tuning::{
    DOUBT_AFTER, EAGER_FOR, EAGER_PROBE, LEFT_OUT, MAX_DOUBT, MAX_LEFT_OUT, PROBE, PROBE_ANSWER, PROBING,
};

/// This node's own probes.
#[derive(Debug, Default)]
pub(super) struct Probing {
    next: Duration,
    pending: BTreeMap<Nonce, Pending>,
    /// When a peer's probe reached this node.
    reached: Option<Duration>,
}

#[derive(Debug)]
struct Pending {
    since: Duration,
    /// The peers that could have been reached.
    reachable: Vec<OnionAddress>,
    /// How many members could have been reached in all.
    listed: usize,
}

impl Machine {
    pub(super) fn probe(&mut self) {
        let now = self.now;
        self.probing.pending.retain(|_, pending| now.saturating_sub(pending.since) < PROBING);
        self.pardon();
        if now < self.probing.next || self.stopping.is_some() || !self.gathered {
            return;
        }
        let listed = |peer: &super::Peer| {
            peer.is_alive() && peer.record().is_some_and(|record| !record.points.is_empty() && !record.stopping)
        };
        // Who has just begun wants to know soon whether it is reached, and nobody can see to that alone.
        let can_be_found = self.view.periods.iter().any(|view| self.latest(&view.period).is_some());
        let young = |peer: &super::Peer| peer.introduced.is_some_and(|at| now.saturating_sub(at) < EAGER_FOR);
        let unknown = !can_be_found || self.peers.values().any(|peer| listed(peer) && !peer.reached && young(peer));
        let pause = if unknown { EAGER_PROBE } else { PROBE };
        self.probing.next = now + pause.mul_f64(self.rng.random_range(0.75..1.25));
        if !can_be_found {
            return;
        }
        if !self.peers.values().any(listed) {
            return;
        }
        let nonce: Nonce = self.rng.random();
        let (reachable, listed) = self.reachable();
        self.probing.pending.insert(nonce, Pending { since: now, reachable, listed });
        self.outputs.push_back(Output::Probe(nonce));
    }

    /// A member's probe came through the service's address.
    pub(super) fn probe_heard(&mut self, prober: OnionAddress, nonce: Nonce) {
        let now = self.now;
        if prober == self.me {
            self.probe_came_back(nonce);
            return;
        }
        let Some(peer) = self.peers.get_mut(&prober).filter(|peer| peer.is_linked()) else { return };
        // Whoever got a probe can send it on to others.
        if peer.probed.is_none_or(|probed| now.saturating_sub(probed) >= PROBE_ANSWER) {
            peer.probed = Some(now);
            self.send(prober, Message::Heard(nonce));
        }
    }

    /// A probe of this node's arrived at a member.
    pub(super) fn probe_arrived(&mut self, at: OnionAddress, nonce: Nonce) {
        let Some(pending) = self.probing.pending.remove(&nonce) else { return };
        self.missed_elsewhere(Some(at), &pending);
        if let Some(peer) = self.peers.get_mut(&at) {
            peer.doubt = 0.0;
            peer.reached = true;
        }
        let linked: Vec<_> =
            self.peers.iter().filter(|(_, peer)| peer.is_linked()).map(|(member, _)| *member).collect();
        for member in linked {
            self.send(member, Message::Reached(at));
        }
    }

    /// A probe of this node's arrived here: that shows nobody that this node can be reached, but others were missed.
    fn probe_came_back(&mut self, nonce: Nonce) {
        if let Some(pending) = self.probing.pending.remove(&nonce) {
            self.missed_elsewhere(None, &pending);
        }
    }

    /// A probe that could have gone to anybody who was listed went to one, or to this node itself.
    fn missed_elsewhere(&mut self, except: Option<OnionAddress>, pending: &Pending) {
        for member in pending.reachable.iter().filter(|member| Some(**member) != except) {
            if let Some(peer) = self.peers.get_mut(member).filter(|peer| peer.is_alive()) {
                peer.doubt += 1.0 / pending.listed.max(1) as f64;
            }
        }
    }

    /// A peer says whom its probe reached.
    pub(super) fn probe_told(&mut self, by: OnionAddress, member: OnionAddress) {
        let now = self.now;
        let Some(teller) = self.peers.get_mut(&by) else { return };
        // Of what reached this node it knows itself.
        if member == self.me && teller.probed.is_none_or(|probed| now.saturating_sub(probed) > PROBING) {
            return;
        }
        // No more often than it may probe, so that a flood is nothing.
        if now.saturating_sub(teller.told) < EAGER_PROBE / 2 {
            return;
        }
        teller.told = now;
        if member == self.me {
            self.probing.reached = Some(now);
        } else if member != by
            && let Some(peer) = self.peers.get_mut(&member)
        {
            peer.doubt = 0.0;
            peer.reached = true;
        }
    }

    /// Members whose points do not answer, the worst first; never half of all.
    pub(super) fn unanswering(&self) -> Vec<OnionAddress> {
        let alive = self.peers.values().filter(|peer| peer.is_alive()).count();
        let mut doubted: Vec<_> = self
            .peers
            .iter()
            .filter(|(_, peer)| peer.is_alive() && peer.doubt >= MAX_DOUBT)
            .map(|(member, peer)| (*member, peer.doubt))
            .collect();
        doubted.sort_by(|(one, a), (two, b)| b.total_cmp(a).then(one.cmp(two)));
        doubted.truncate(MAX_LEFT_OUT.min(alive / 2));
        doubted.into_iter().map(|(member, _)| member).collect()
    }

    /// Who was left out long enough is tried again.
    fn pardon(&mut self) {
        let now = self.now;
        for peer in self.peers.values_mut() {
            if peer.doubt < MAX_DOUBT {
                peer.left_out = None;
            } else if now.saturating_sub(*peer.left_out.get_or_insert(now)) >= LEFT_OUT {
                peer.left_out = None;
                peer.doubt = DOUBT_AFTER;
            }
        }
    }

    /// How long ago a peer's probe reached this node.
    pub(super) fn reached(&self) -> Option<Duration> {
        self.probing.reached.map(|at| self.now.saturating_sub(at))
    }

    /// How long ago doubt about a member was dropped because it had begun anew.
    #[cfg(test)]
    pub(in crate::service) fn forgiven_for(&self, member: OnionAddress) -> Option<Duration> {
        Some(self.now.saturating_sub(self.peers.get(&member)?.forgiven?))
    }
}
