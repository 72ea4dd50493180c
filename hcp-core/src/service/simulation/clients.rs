//! Clients: with a fresh descriptor, or with one that they have cached.

use std::collections::HashSet;
use std::time::Duration;

use rand::RngExt;
use rand::seq::{IndexedRandom, SliceRandom};

use super::{Checked, World};
use crate::network::onion::{PointDescription, PointId, Tag};
use crate::service::machine::Input;

/// How long after a fault clients must not notice it any more.
const SERVED: Duration = Duration::from_secs(10);

/// How long a node has for telling its successors of an introduction.
const TOLD: Duration = Duration::from_secs(2);

#[derive(Debug, Default)]
pub(super) struct Clients {
    /// A descriptor and when it was fetched.
    cached: Option<(Vec<PointDescription>, Duration)>,
    /// Introductions that were accepted when nothing was wrong, for whoever replays them.
    accepted: Vec<(PointId, Tag, Duration)>,
    served: Vec<u64>,
}

/// What became of one introduction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Try {
    Served,
    /// The relay knows no such point.
    Unknown,
    /// It went to a node that does not answer.
    Lost,
}

impl World {
    /// Somebody connects; somebody else replays what was sent before.
    pub(super) fn client(&mut self) -> Checked {
        self.replay()?;
        let due = self.now.saturating_sub(self.disturbed) >= SERVED;
        let fresh = self.fetch();
        let Some(fresh) = fresh else {
            return if due { Err("no directory has a descriptor".into()) } else { Ok(()) };
        };
        if self.rng.random_bool(0.5) {
            self.connect(fresh, due, "fresh clients served")?;
        } else if let Some((points, fetched)) = self.clients.cached.clone() {
            // Since it was fetched one thing happened, or none.
            let valid = due && fetched >= self.base;
            self.connect(points, valid, "cached clients served")?;
        }
        let calm = !self.broken && self.now - self.healed >= Duration::from_secs(90);
        let between_steps = self.rolling && self.now.saturating_sub(self.disturbed) >= Duration::from_secs(45);
        if calm || between_steps || self.clients.cached.is_none() {
            self.clients.cached = self.fetch().map(|points| (points, self.now));
        }
        Ok(())
    }

    pub(super) fn fetch(&mut self) -> Option<Vec<PointDescription>> {
        let period = self.periods[0];
        let ring = self.ring_of(&period);
        let mut order = ring;
        order.shuffle(&mut self.rng);
        order.iter().find_map(|at| self.directories.get(&(*at, period))).map(|has| has.points.clone())
    }

    fn connect(&mut self, mut points: Vec<PointDescription>, due: bool, what: &'static str) -> Checked {
        points.shuffle(&mut self.rng);
        let lies = |point: &&PointDescription| self.owners.get(&point.id).is_some_and(|owner| self.is_hostile(*owner));
        let hostile = points.iter().filter(lies).count();
        // Nodes avoid each other's relays, but not for ever: one that is gone may have had points of two.
        let gone = points.iter().filter(|point| self.dead_relays.contains(&point.relay)).count();
        let mut tries = 0;
        for point in points {
            tries += 1;
            match self.introduce(&point)? {
                Try::Served => {
                    self.counts.note(what);
                    if due && tries > 1 + gone.max(1) + hostile {
                        return Err(format!("a client was served at its point number {tries}"));
                    }
                    return Ok(());
                }
                Try::Unknown => self.counts.note("introductions to no point"),
                Try::Lost => {
                    self.counts.note("introductions lost");
                    if due {
                        return Err("a client's introduction went to a node that does not answer".into());
                    }
                }
            }
        }
        if due { Err("a client was served by nobody".into()) } else { Ok(()) }
    }

    fn introduce(&mut self, point: &PointDescription) -> Result<Try, String> {
        let Some((node, slot)) = self.at_point(point) else { return Ok(Try::Unknown) };
        if !self.serves(node) {
            return Ok(Try::Lost);
        }
        let tag: Tag = self.rng.random();
        let Some(found) = self.nodes[node].slots.get_mut(&slot) else { return Ok(Try::Unknown) };
        found.seen.insert(tag);
        let calm = !self.broken && self.now - self.healed >= Duration::from_secs(40);
        if calm && self.owners.get(&point.id) == Some(&node) {
            self.clients.accepted.push((point.id, tag, self.now));
        }
        self.clients.served.resize(self.nodes.len(), 0);
        self.clients.served[node] += 1;
        self.feed(node, Input::Introduced { slot, tag })?;
        Ok(Try::Served)
    }

    /// Something happens: what was accepted just before may not have been told.
    pub(super) fn forget_untold(&mut self) {
        let now = self.now;
        self.clients.accepted.retain(|(_, _, at)| *at + TOLD <= now);
    }

    /// A relay sends an old introduction again to whoever has the point now.
    fn replay(&mut self) -> Checked {
        let old = |(point, _, at): &&(PointId, Tag, Duration)| {
            // Its node had time to tell.
            *at + TOLD <= self.now && self.relays.contains_key(point)
        };
        let old: Vec<_> = self.clients.accepted.iter().filter(old).collect();
        let Some((point, tag, _)) = old.choose(&mut self.rng).copied().copied() else { return Ok(()) };
        let at = &self.relays[&point];
        let (node, slot) = (at.node, at.slot);
        let Some(found) = self.nodes[node].slots.get(&slot).filter(|_| self.serves(node)) else { return Ok(()) };
        let known = found.seen.contains(&tag);
        let successor = self.owners.get(&point) != Some(&node);
        self.counts.note(if successor { "replays to a successor" } else { "replays to an owner" });
        if known { Ok(()) } else { Err("a replayed introduction is answered".into()) }
    }

    /// How many nodes have served somebody.
    pub(super) fn served_by(&self) -> HashSet<usize> {
        self.clients.served.iter().enumerate().filter(|(_, count)| **count > 0).map(|(node, _)| node).collect()
    }
}
