//! What must hold all the time, and what at the end.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::{Checked, World};
use crate::network::onion::{Period, PointDescription, PointId, RelayId};
use crate::service::machine::Problem;
use crate::service::tuning::{
    MAX_HELD, MAX_LISTED, MAX_POINTS, MAX_RETIRING, MAX_TAKEN, POINT_INTRODUCTIONS, STOPPING, UPLOAD, URGENT_UPLOADS,
};

/// Until a member that has said that it is another run is found out once more: others probe it often for two minutes, and there
/// is an upload.
const FOUND_OUT_AGAIN: Duration = Duration::from_secs(300);

impl World {
    /// Every second.
    pub(super) fn check(&mut self) -> Checked {
        let peers = self.nodes.len() - 1;
        for node in &self.nodes {
            let Some(machine) = node.machine.as_ref() else { continue };
            let kept = machine.kept();
            let most = 2 * MAX_POINTS + 2 * MAX_RETIRING;
            if kept.own > most {
                return Err(format!("{} points of its own are kept", kept.own));
            }
            let others = peers * MAX_HELD + MAX_TAKEN;
            if kept.others > others {
                return Err(format!("{} points of others are kept", kept.others));
            }
            if kept.tags > (most + others) * (POINT_INTRODUCTIONS.1 as usize + 1) {
                return Err(format!("{} marks are kept", kept.tags));
            }
            if kept.held_of_one > MAX_HELD {
                return Err(format!("{} points of one member are held", kept.held_of_one));
            }
            if kept.outputs > 0 {
                return Err("outputs are left".into());
            }
        }
        Ok(())
    }

    /// What a node uploads: nobody gets more than its share.
    pub(super) fn check_listings(&self, node: usize, listings: &[(Vec<RelayId>, Vec<PointDescription>)]) -> Checked {
        for (_, points) in listings {
            if points.len() > MAX_LISTED {
                return Err(format!("a descriptor lists {} points", points.len()));
            }
            let distinct: BTreeSet<_> = points.iter().map(|point| point.id).collect();
            if distinct.len() < points.len() {
                return Err("a point is listed twice".into());
            }
            let mut shares: BTreeMap<usize, usize> = BTreeMap::new();
            for point in points {
                let Some(owner) = self.owners.get(&point.id) else { return Err("a point of nobody is listed".into()) };
                *shares.entry(*owner).or_default() += 1;
            }
            let share = (MAX_LISTED / shares.len().max(1)).clamp(1, MAX_POINTS);
            if let Some((_, most)) = shares.iter().find(|(_, count)| **count > share) {
                return Err(format!("a member has {most} points listed where {share} are its share"));
            }
        }
        let machine = self.nodes[node].machine.as_ref();
        let early = self.now - self.nodes[node].started < Duration::from_secs(60);
        let alive = machine.map_or(0, |machine| machine.status().peers.iter().filter(|peer| peer.alive).count());
        let listed: BTreeSet<_> =
            listings.iter().flat_map(|(_, points)| points).filter_map(|point| self.owners.get(&point.id)).collect();
        if early && !self.broken && !self.plan.hostile && self.plan.faults.is_empty() && listed.len() < alive {
            return Err("a node publishes before it knows the others' points".into());
        }
        Ok(())
    }

    /// The uploads of one node and period.
    pub(super) fn check_uploads(&mut self, node: usize, period: Period) -> Checked {
        let now = self.now;
        let uploads: Vec<_> = self.nodes[node]
            .uploaded
            .iter()
            .filter(|(at, of)| *of == period && now - *at < UPLOAD)
            .map(|(at, _)| *at)
            .collect();
        if uploads.len() > URGENT_UPLOADS + 1 {
            return Err(format!("{} uploads in one minute", uploads.len()));
        }
        // One that changes its mind costs uploads, within the other bound.
        let calm = !self.broken && !self.plan.hostile && now - self.healed >= Duration::from_secs(150);
        if calm && uploads.len() > 1 {
            return Err(format!("{} uploads in one minute though nothing has failed", uploads.len()));
        }
        Ok(())
    }

    /// A node lets go of a point that its relay still has.
    pub(super) fn withdrawn(&mut self, node: usize, point: PointId) -> Checked {
        let Some(stops) = self.nodes[node].stopping else { return Ok(()) };
        self.counts.note("points let go by a node that stops");
        if self.now - stops >= STOPPING || self.owners.get(&point) != Some(&node) {
            return Ok(());
        }
        let others = (0..self.nodes.len()).any(|other| other != node && self.serves(other));
        let period = self.periods[0];
        let ring = self.ring_of(&period);
        let listing = ring.iter().filter(|at| {
            let has = self.directories.get(&(**at, period));
            has.is_some_and(|has| has.points.iter().any(|listed| listed.id == point))
        });
        if others && !self.broken_otherwise() && listing.count() * 2 > ring.len() {
            return Err("a point is taken away while descriptors list it".into());
        }
        Ok(())
    }

    /// Whether something else is wrong than a node's stop.
    fn broken_otherwise(&self) -> bool {
        self.nodes.iter().any(|node| node.cut || node.frozen.is_some())
    }

    /// When nothing has happened for a while.
    pub(super) fn verdict(&mut self) -> Checked {
        let live: Vec<_> = (0..self.nodes.len()).filter(|node| self.serves(*node) && !self.is_hostile(*node)).collect();
        if live.is_empty() {
            return Err("nobody is left".into());
        }
        let periods = self.periods.clone();
        for period in &periods {
            self.judge_period(*period, &live)?;
        }
        for node in &live {
            let status = self.nodes[*node].machine.as_ref().unwrap().status();
            if self.plan.quiet >= Duration::from_secs(100) && !status.reachable {
                return Err(format!("node {node} does not know that it can be reached: {status:?}"));
            }
            let grave = |problem: &&Problem| match problem {
                Problem::NoMaterial(_) => false,
                Problem::Clock(_) => !self.plan.skewed,
                // Nobody else is suspected.
                Problem::Usurped(member) => !self.plan.hostile || *member != self.nodes[0].address,
                // Who says different things to different nodes makes them disagree.
                Problem::NotPublished(_) => !self.plan.hostile,
                _ => true,
            };
            if let Some(problem) = status.problems.iter().find(grave) {
                return Err(format!("node {node} complains of {problem:?}"));
            }
        }
        if self.plan.quiet >= Duration::from_secs(100) && !self.plan.hostile {
            let machines = live.iter().filter_map(|node| self.nodes[*node].machine.as_ref());
            let relays: Vec<_> = machines.flat_map(|machine| machine.announced_relays()).collect();
            let different: BTreeSet<_> = relays.iter().collect();
            if different.len() < relays.len() {
                return Err(format!("{} points share {} relays", relays.len(), different.len()));
            }
        }
        if self.plan.clients && self.nodes.len() <= 5 {
            let served = self.served_by();
            if live.iter().any(|node| !served.contains(node)) {
                return Err("a node has served nobody".into());
            }
        }
        Ok(())
    }

    /// Whether the member that lies has lately said to somebody that it has just begun, which counts once in a long time.
    fn is_forgiven(&self) -> bool {
        let liar = self.nodes[0].address;
        let machines = self.nodes[1..].iter().filter_map(|node| node.machine.as_ref());
        machines.filter_map(|machine| machine.forgiven_for(liar)).any(|ago| ago < FOUND_OUT_AGAIN)
    }

    fn judge_period(&mut self, period: Period, live: &[usize]) -> Checked {
        let ring = self.ring_of(&period);
        let (mut complete, mut missing) = (0, 0);
        let mut anywhere: BTreeSet<usize> = BTreeSet::new();
        for at in &ring {
            let Some(has) = self.directories.get(&(*at, period)) else { continue };
            let mut listed = BTreeSet::new();
            let mut good = true;
            for point in &has.points {
                let owner = self.owners[&point.id];
                let there = self.relays.get(&point.id).is_some_and(|at| self.serves(at.node));
                good &= there || self.is_hostile(owner);
                missing += usize::from(self.is_hostile(owner) && self.at_point(point).is_none());
                listed.insert(owner);
            }
            anywhere.extend(&listed);
            let all = self.nodes.len() > MAX_LISTED || live.iter().all(|node| listed.contains(node));
            // Probes go where clients go, which is by the current period.
            let lies = self.plan.hostile && listed.contains(&0) && period == self.periods[0];
            if lies && self.plan.quiet >= Duration::from_secs(600) && !self.is_forgiven() {
                return Err("who announces what is not there is still listed".into());
            }
            complete += usize::from(good && all);
        }
        // What nobody has is listed by who missed the last uploads, at the most.
        if missing * 2 > ring.len() && self.plan.quiet >= Duration::from_secs(600) {
            return Err(format!("{missing} points that are not there are listed"));
        }
        if complete * 2 < ring.len() {
            return Err(format!("{complete} of {} directories have what they should", ring.len()));
        }
        if let Some(node) = live.iter().find(|node| !anywhere.contains(node)) {
            return Err(format!("node {node} is listed nowhere"));
        }
        let mut publishers = BTreeSet::new();
        for node in live {
            let status = self.nodes[*node].machine.as_ref().unwrap().status();
            let Some(found) = status.periods.iter().find(|found| found.period == period) else {
                return Err("a node does not see a period".into());
            };
            if !found.current && !self.plan.hostile {
                return Err(format!("node {node} does not hold what is published for what is to be listed"));
            }
            publishers.insert(found.publisher);
        }
        if publishers.len() != 1 || publishers.contains(&None) {
            return Err(format!("{} publishers of one period", publishers.len()));
        }
        let lately = |at: Duration| self.now - at < Duration::from_secs(60);
        let uploaders: BTreeSet<_> = (0..self.nodes.len())
            .filter(|node| self.nodes[*node].uploaded.iter().any(|(at, of)| *of == period && lately(*at)))
            .collect();
        if uploaders.len() > 1 && !self.plan.hostile {
            return Err(format!("{} nodes upload one period", uploaders.len()));
        }
        Ok(())
    }
}
