//! Points at whose relays peers, or this node itself, have others: of those a descriptor lists one, so whoever has such points
//! is met by fewer clients.
//!
//! Until something was published they move at once; afterwards another one is established first, elsewhere, and listed. Whoever
//! has come to a service that is published makes way for those that are listed; else, if that lasts, of two nodes the one with
//! the higher address does. Nothing happens where no other relay is left, and it happens less and less often, so that a peer that
//! follows does not keep points moving.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

#[cfg(test)]
use super::super::planted::{Defect, planted};
use super::super::{Machine, Output};
use super::Point;
use crate::identity::OnionAddress;
use crate::network::onion::{PointDescription, RelayId};
use crate::service::gossip::Message;
use crate::service::tuning::{COLLISION, COLLISIONS, MAX_RETIRING, PARTING, PARTING_AT_MOST, SETTLED};

/// How often that has happened.
#[derive(Debug, Default)]
pub(super) struct Parting {
    /// Moves of young points in a row.
    collisions: u32,
    /// How often others were established, and when that was last; what lies long back counts less.
    times: u32,
    at: Duration,
}

impl Machine {
    /// Has others established that are to stand in for points at whose relays peers have some.
    pub(super) fn part_from_peers(&mut self) {
        #[cfg(test)]
        if planted(Defect::PartingForgotten) {
            return;
        }
        let (me, now, published) = (self.me, self.now, self.has_seen_publication());
        if self.points.iter().all(|point| now.saturating_sub(point.born) >= COLLISION) {
            self.tending.parting.collisions = 0;
        }
        // Whose points are listed, as far as that goes.
        let (target, left_out) = (self.target(), self.unanswering());
        let mut theirs: HashMap<RelayId, OnionAddress> = HashMap::new();
        for (member, peer) in self.peers.iter().filter(|(member, peer)| peer.is_alive() && !left_out.contains(member)) {
            let record = peer.record().filter(|record| !record.stopping);
            for point in record.into_iter().flat_map(|record| record.points.iter().take(target)) {
                let lowest = theirs.entry(point.relay).or_insert(*member);
                *lowest = *member.min(lowest);
            }
        }
        let replaced: HashSet<_> = self.points.iter().filter_map(|point| point.instead_of).collect();
        // Those that began together may have come to the same relay.
        let fresh: Vec<_> = self.points.iter().filter(|point| point.is_up() && point.is_fresh()).collect();
        let has_older =
            |point: &&&Point| fresh.iter().any(|other| other.relay() == point.relay() && other.slot < point.slot);
        let twins: HashSet<_> = fresh.iter().filter(has_older).map(|point| point.id).collect();
        let mut beside = Vec::new();
        for point in self.points.iter_mut().filter(|point| point.is_up() && point.is_fresh()) {
            if twins.contains(&point.id) {
                beside.extend((!replaced.contains(&point.id)).then_some(point.id));
                continue;
            }
            // Once all peers have said where they are.
            let has_come = published && (COLLISION / 4..COLLISION).contains(&now.saturating_sub(point.born));
            let other = point.relay().and_then(|relay| theirs.get(&relay));
            if other.is_none_or(|other| me < *other && !has_come) {
                point.beside = None;
                continue;
            }
            let since = *point.beside.get_or_insert(now);
            if (has_come || now.saturating_sub(since) >= COLLISION) && !replaced.contains(&point.id) {
                beside.push(point.id);
            }
        }
        let since = now.saturating_sub(self.tending.parting.at);
        if beside.is_empty() && self.tending.parting.times > 0 && since >= PARTING_AT_MOST {
            self.tending.parting.times -= 1;
            self.tending.parting.at = now;
        }
        // What is replaced lives on for those who have an older descriptor, and nothing else goes earlier for its sake.
        let retiring = self.points.iter().filter(|point| point.is_up() && point.unannounced.is_some()).count();
        beside.truncate(MAX_RETIRING.saturating_sub(retiring + replaced.len()));
        if beside.is_empty() {
            return;
        }
        let doublings = self.tending.parting.times.saturating_sub(1);
        let pause = PARTING.saturating_mul(2_u32.saturating_pow(doublings)).min(PARTING_AT_MOST);
        if self.tending.parting.times > 0 && since < pause {
            return;
        }
        self.tending.parting.at = now;
        self.tending.parting.times = self.tending.parting.times.saturating_add(1);
        tracing::debug!(points = beside.len(), "peers have points at the relays of some here, which are replaced");
        for point in beside {
            self.establish_new(Some(point));
        }
    }

    /// A young point that a peer has a point beside moves, while no directory is likely to list it.
    pub(in crate::service::machine) fn avoid_collision(&mut self, peer: OnionAddress, theirs: &[PointDescription]) {
        let now = self.now;
        if peer > self.me || self.tending.parting.collisions >= COLLISIONS || self.has_seen_publication() {
            return;
        }
        let beside = self.points.iter_mut().find(|point| {
            let young = now.saturating_sub(point.born) < SETTLED;
            point.is_up() && point.is_fresh() && young && theirs.iter().any(|other| Some(other.relay) == point.relay())
        });
        let Some(slot) = beside.map(|point| point.slot) else { return };
        self.tending.parting.collisions += 1;
        self.outputs.push_back(Output::Withdraw(slot));
        // Its relay is as good as any other when the peer has left it.
        let Some(point) = self.remove(slot) else { return };
        for holder in point.holders.into_keys() {
            self.send(holder, Message::Forget(point.id));
        }
    }

    /// Whether some publication is known: directories may list this node's points.
    fn has_seen_publication(&self) -> bool {
        self.is_uploading() || self.view.periods.iter().any(|view| self.latest(&view.period).is_some())
    }
}
