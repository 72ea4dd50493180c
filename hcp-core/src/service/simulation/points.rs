//! Relays, which give a point to whoever establishes it last, and directories, which take later revisions only.

use std::collections::HashSet;
use std::time::Duration;

use rand::RngExt;
use rand::seq::{IndexedRandom, SliceRandom};

use super::{Checked, Event, NodeEvent, World, between, relay};
use crate::network::onion::{
    Checked as Answer, Period, PointDescription, PointId, PointSecrets, RelayId, Tag, UploadReport,
};
use crate::service::gossip::Nonce;
use crate::service::machine::{Input, NotEstablished, Place, Slot, UploadId};

/// A point at its relay.
#[derive(Debug)]
pub(super) struct Registration {
    pub(super) relay: RelayId,
    pub(super) node: usize,
    pub(super) life: u64,
    pub(super) slot: Slot,
}

/// A point at its node.
#[derive(Debug)]
pub(super) struct SlotSim {
    point: PointId,
    pub(super) seen: HashSet<Tag>,
}

/// What a directory has of a period.
#[derive(Clone, Debug)]
pub(super) struct Directory {
    pub(super) revision: u64,
    pub(super) points: Vec<PointDescription>,
}

/// For how long a successor goes on trying to take what it has claimed.
const TRIED_AGAIN: Duration = Duration::from_secs(10);

/// What it takes a successor to try once more what failed: its own wait, and a circuit.
const ONCE_MORE: Duration = Duration::from_secs(3);

impl World {
    pub(super) fn establish(
        &mut self,
        node: usize,
        slot: Slot,
        place: Place,
        secrets: &PointSecrets,
        seen: Vec<Tag>,
        until: Option<Duration>,
    ) {
        let id = secrets.id();
        let at = match place {
            Place::At(relay) => {
                let what =
                    if self.owners.get(&id) == Some(&node) { "points re-established" } else { "takeovers begun" };
                self.counts.note(what);
                Some(relay)
            }
            Place::Choose { none_of } => {
                self.owners.insert(id, node);
                let now = self.now;
                self.choices.retain(|(_, _, until)| *until > now);
                let chosen = |at: &RelayId| self.choices.iter().any(|(by, relay, _)| (*by, relay) == (node, at));
                let all: Vec<_> = (0..self.plan.relays).map(relay).filter(|relay| !chosen(relay)).collect();
                none_of.iter().find_map(|not| {
                    let free: Vec<_> = all.iter().filter(|relay| !not.contains(relay)).collect();
                    free.choose(&mut self.rng).map(|relay| **relay)
                })
            }
        };
        self.nodes[node].slots.insert(slot, SlotSim { point: id, seen: seen.into_iter().collect() });
        let Some(at) = at else {
            self.input_at(self.now, node, Input::EstablishFailed { slot, why: NotEstablished::NoRelay });
            return;
        };
        let takes = if self.slow_relays.contains(&at) && self.owners.get(&id) == Some(&node) {
            between(&mut self.rng, 4_000, 12_000)
        } else {
            between(&mut self.rng, 250, 1_800)
        };
        self.choices.push((node, at, self.now + takes));
        let what = NodeEvent::Establish { slot, relay: at, until, result: takes / 4 };
        self.at_node(self.now + takes * 3 / 4, node, what);
    }

    pub(super) fn establish_at_relay(
        &mut self,
        node: usize,
        slot: Slot,
        relay: RelayId,
        until: Option<Duration>,
        result: Duration,
    ) -> Checked {
        let Some(found) = self.nodes[node].slots.get(&slot) else { return Ok(()) };
        let point = found.point;
        let late = until.is_some_and(|until| self.boottime(node) > until);
        let fails = self.nodes[node].cut || self.dead_relays.contains(&relay) || late || self.rng.random_bool(0.01);
        if fails {
            let wait = if late { Duration::ZERO } else { between(&mut self.rng, 500, 3_000) };
            self.nodes[node].slots.remove(&slot);
            self.counts.note("establishments failed");
            if self.owners.get(&point) != Some(&node) {
                // A takeover that has to be tried again is late by so much, which clients may notice.
                self.disturbed += wait + ONCE_MORE;
            }
            self.input_at(self.now + wait, node, Input::EstablishFailed { slot, why: NotEstablished::Failed });
            return Ok(());
        }
        self.input_at(self.now + result, node, Input::Established { slot, relay });
        if self.is_hostile(node) && self.owners.get(&point) == Some(&node) {
            // It announces what is not there.
            self.counts.note("points that are none");
            return Ok(());
        }
        let life = self.nodes[node].life;
        if let Some(before) = self.relays.insert(point, Registration { relay, node, life, slot }) {
            self.displaced(point, node, &before)?;
            let notice = self.now + between(&mut self.rng, 20, 300);
            if self.nodes[before.node].life == before.life {
                self.nodes[before.node].slots.remove(&before.slot);
                self.input_at(notice, before.node, Input::Closed(before.slot));
            }
        }
        if self.owners.get(&point) != Some(&node) {
            self.counts.note("points taken over");
        }
        Ok(())
    }

    /// One node gets a point that another one had.
    fn displaced(&mut self, point: PointId, by: usize, before: &Registration) -> Checked {
        let owner = self.owners[&point];
        let lives = self.nodes[before.node].life == before.life && before.node != by;
        if !lives {
            return Ok(());
        }
        if by == owner {
            return Err("an owner takes back what a successor has".into());
        }
        if before.node == owner {
            if !self.serves(owner) {
                return Ok(());
            }
            self.counts.note("points taken from a live node");
            // It was begun while the owner slept, and may have been tried again since.
            let just_back = self.nodes[owner].resumed.is_some_and(|at| self.now - at < TRIED_AGAIN);
            if self.parted(by, owner) || just_back {
                return Ok(());
            }
            return Err(format!("node {by} takes a point of node {owner}, which lives"));
        }
        if self.parted(by, before.node) {
            self.counts.note("points of both sides of a split");
            return Ok(());
        }
        Err("two successors take one point".into())
    }

    pub(super) fn withdraw(&mut self, node: usize, slot: Slot) -> Checked {
        let Some(found) = self.nodes[node].slots.remove(&slot) else { return Ok(()) };
        let point = found.point;
        let life = self.nodes[node].life;
        let here = |at: &Registration| (at.node, at.life, at.slot) == (node, life, slot);
        if !self.relays.get(&point).is_some_and(here) {
            return Ok(());
        }
        self.withdrawn(node, point)?;
        self.at(self.now + Duration::from_millis(80), Event::Unregister { point, node, life, slot });
        Ok(())
    }

    /// A process is gone, and its circuits with it, as soon as relays notice.
    pub(super) fn end_process(&mut self, node: usize) {
        let life = self.nodes[node].life;
        let points: Vec<_> = self
            .relays
            .iter()
            .filter(|(_, at)| at.node == node && at.life == life)
            .map(|(id, at)| (*id, at.slot))
            .collect();
        for (point, slot) in points {
            let wait = if self.nodes[node].cut { Duration::from_secs(100) } else { between(&mut self.rng, 20, 400) };
            self.at(self.now + wait, Event::Unregister { point, node, life, slot });
        }
        self.drop_links(node);
        let state = &mut self.nodes[node];
        state.life += 1;
        state.machine = None;
        state.frozen = None;
        state.stopping = None;
        state.inbox.clear();
        state.slots.clear();
        state.uploads.clear();
        state.backoff.clear();
    }

    /// The circuit of a point breaks.
    pub(super) fn break_point(&mut self, point: PointId) {
        let Some(at) = self.relays.remove(&point) else { return };
        if self.nodes[at.node].life == at.life {
            let notice = self.now + between(&mut self.rng, 20, 300);
            self.nodes[at.node].slots.remove(&at.slot);
            self.input_at(notice, at.node, Input::Closed(at.slot));
        }
    }

    pub(super) fn upload(
        &mut self,
        node: usize,
        upload: UploadId,
        period: Period,
        not_before: u64,
        listings: Vec<(Vec<RelayId>, Vec<PointDescription>)>,
    ) -> Checked {
        self.counts.note("uploads");
        self.check_listings(node, &listings)?;
        let now = self.now;
        self.nodes[node].uploaded.push((now, period));
        // What the backend does: later than every one of the period before it, and no earlier than it was told.
        let wall = self.wall(node) / 1_000;
        let last = self.nodes[node].revisions.entry(period).or_default();
        let revision = wall.max(not_before).max(*last + 1);
        *last = revision;
        self.nodes[node].uploads.insert(upload, (period, revision, listings));
        let arrives = self.now + between(&mut self.rng, 300, 1_500);
        self.at_node(arrives, node, NodeEvent::UploadNow { upload });
        self.check_uploads(node, period)
    }

    pub(super) fn upload_arrives(&mut self, node: usize, upload: UploadId) {
        let Some((period, revision, listings)) = self.nodes[node].uploads.remove(&upload) else { return };
        let mut report = UploadReport::default();
        for (directories, points) in listings {
            for at in directories {
                if self.nodes[node].cut || self.rng.random_bool(0.03) {
                    report.failed.push(at);
                    continue;
                }
                let newer = self.directories.get(&(at, period)).is_none_or(|has| has.revision < revision);
                if newer {
                    self.directories.insert((at, period), Directory { revision, points: points.clone() });
                    report.accepted.push(at);
                } else {
                    self.counts.note("uploads refused by a directory");
                    report.refused.push(at);
                }
            }
        }
        let wait = if self.nodes[node].cut { 10_000 } else { 300 };
        let wait = between(&mut self.rng, 50, wait);
        self.input_at(self.now + wait, node, Input::Uploaded { upload, report });
    }

    /// A member dials the service as clients do.
    pub(super) fn probe(&mut self, node: usize, nonce: Nonce) {
        self.counts.note("probes");
        let prober = self.nodes[node].address;
        let mut points = self.fetch().filter(|_| !self.nodes[node].cut).unwrap_or_default();
        points.shuffle(&mut self.rng);
        let reached = points.iter().find_map(|point| self.at_point(point)).filter(|(at, _)| self.serves(*at));
        if let Some((at, _)) = reached {
            self.counts.note("probes answered");
            self.input_at(self.now + Duration::from_secs(1), at, Input::ProbeHeard { prober, nonce });
        }
    }

    /// A node asks a relay for a point.
    pub(super) fn ask_relay(&mut self, node: usize, point: PointDescription) {
        let answer = match self.at_point(&point) {
            _ if self.nodes[node].cut || self.dead_relays.contains(&point.relay) => Answer::Unknown,
            Some(_) => Answer::There,
            None => {
                self.counts.note("points that relays do not know");
                Answer::NotThere
            }
        };
        let wait = between(&mut self.rng, 100, 1_500);
        self.input_at(self.now + wait, node, Input::Checked { point, answer });
    }

    /// The node that has a point at its relay, if one has.
    pub(super) fn at_point(&self, point: &PointDescription) -> Option<(usize, Slot)> {
        let at = self.relays.get(&point.id).filter(|at| at.relay == point.relay)?;
        (self.nodes[at.node].life == at.life).then_some((at.node, at.slot))
    }
}
