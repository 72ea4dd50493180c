//! What breaks, and how it is healed.

use std::time::Duration;

use rand::RngExt;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;

use super::{Checked, Event, NodeEvent, World, between};
use crate::network::onion::{Period, RelayId};
use crate::service::machine::Input;

/// Whom it hits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Target {
    Anybody,
    /// Whoever publishes.
    Publisher,
}

/// What happens at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// A process is killed, and started again in the end.
    Kill(Target, Duration),
    /// It is stopped, and goes on in the end. Its boottime goes on.
    Freeze(Target, Duration),
    /// A node reaches nothing.
    Cut(Target, Duration),
    /// A live node reaches no other one, but relays and clients: it is wrongly declared dead.
    Isolate(Target, Duration),
    /// Two sides.
    Split(Duration),
    /// Two nodes do not reach each other.
    Pair(Duration),
    /// A clean stop, and a start in the end.
    Stop(Target, Duration),
    /// All are stopped and started, one after the other.
    Roll,
    /// Two of all, killed or frozen.
    Two(Duration),
    /// A process is killed and is back before anybody holds it for dead.
    Restart,
    /// Circuits of points break.
    Circuits,
    /// A relay is gone, and the consensus learns of it.
    Relay,
    /// Other directories.
    Ring,
    /// The next period.
    Period,
    /// Links break and come back, again and again.
    Flap(Duration),
}

/// Between two of a rolling restart.
const STEP: Duration = Duration::from_secs(70);

impl Fault {
    /// Something at random.
    pub(super) fn random(rng: &mut StdRng) -> Self {
        let lasts = Duration::from_millis(rng.random_range(3_000..45_000));
        let target = if rng.random_bool(0.5) { Target::Publisher } else { Target::Anybody };
        match rng.random_range(0..16) {
            0 => Self::Kill(target, lasts),
            1 => Self::Kill(Target::Publisher, lasts),
            2 | 3 => Self::Freeze(target, lasts),
            4 => Self::Cut(target, lasts),
            5 => Self::Isolate(target, lasts),
            6 => Self::Split(lasts),
            7 => Self::Pair(lasts),
            8 => Self::Stop(target, lasts),
            9 => Self::Roll,
            10 => Self::Two(lasts),
            11 => Self::Restart,
            12 => Self::Circuits,
            13 => {
                if rng.random_bool(0.5) {
                    Self::Relay
                } else {
                    Self::Flap(lasts)
                }
            }
            14 => Self::Ring,
            _ => Self::Period,
        }
    }

    pub(super) fn lasts(self) -> Duration {
        match self {
            Self::Kill(_, lasts) | Self::Freeze(_, lasts) | Self::Cut(_, lasts) | Self::Isolate(_, lasts) => lasts,
            Self::Split(lasts) | Self::Pair(lasts) | Self::Two(lasts) | Self::Flap(lasts) => lasts,
            Self::Stop(_, lasts) => lasts + Duration::from_secs(17),
            Self::Roll => STEP * 5,
            Self::Restart => Duration::from_millis(700),
            Self::Circuits | Self::Relay | Self::Ring | Self::Period => Duration::ZERO,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Kill(Target::Publisher, _) => "publishers killed",
            Self::Kill(..) => "nodes killed",
            Self::Freeze(Target::Publisher, _) => "publishers frozen",
            Self::Freeze(..) => "nodes frozen",
            Self::Cut(..) => "nodes cut off",
            Self::Isolate(..) => "nodes parted from their peers only",
            Self::Split(_) => "splits",
            Self::Pair(_) => "pairs parted",
            Self::Stop(..) => "nodes stopped",
            Self::Roll => "rolling restarts",
            Self::Two(_) => "two nodes lost at once",
            Self::Restart => "nodes killed and started at once",
            Self::Circuits => "circuits of points broken",
            Self::Relay => "relays lost",
            Self::Ring => "changes of the ring",
            Self::Period => "changes of the period",
            Self::Flap(_) => "links that flap",
        }
    }
}

impl World {
    fn target(&mut self, target: Target) -> usize {
        let publisher = (0..self.nodes.len()).find_map(|node| {
            let status = self.nodes[node].machine.as_ref()?.status();
            status.periods.first()?.publisher.map(|member| self.index(member))
        });
        match (target, publisher) {
            (Target::Publisher, Some(publisher)) => publisher,
            // Node 0 may be the one that lies.
            _ => self.rng.random_range(usize::from(self.plan.hostile)..self.nodes.len()),
        }
    }

    pub(super) fn begin_fault(&mut self, index: usize) -> Checked {
        let fault = self.plan.faults[index];
        self.counts.note(fault.name());
        self.base = self.healed;
        self.disturbed = self.now;
        self.broken = true;
        self.at(self.now + fault.lasts(), Event::Heal(index));
        match fault {
            Fault::Kill(target, _) => {
                let node = self.target(target);
                self.hit.push(node);
                self.end_process(node);
            }
            Fault::Freeze(target, _) => {
                let node = self.target(target);
                self.freeze(node);
            }
            Fault::Cut(target, _) => {
                let node = self.target(target);
                self.hit.push(node);
                self.cut(node, true);
            }
            Fault::Isolate(target, _) => {
                let node = self.target(target);
                self.hit.push(node);
                self.part(&[node], true);
            }
            Fault::Split(_) => {
                let mut all: Vec<_> = (0..self.nodes.len()).collect();
                all.shuffle(&mut self.rng);
                all.truncate(self.nodes.len() / 2);
                self.hit.clone_from(&all);
                self.part(&all, true);
            }
            Fault::Pair(_) => {
                let mut all: Vec<_> = (0..self.nodes.len()).collect();
                all.shuffle(&mut self.rng);
                self.hit = all[..2].to_vec();
                self.block(all[0], all[1], true);
            }
            Fault::Stop(target, _) => {
                let node = self.target(target);
                self.hit.push(node);
                return self.shut_down(node);
            }
            Fault::Roll => {
                self.rolling = true;
                for node in 0..self.nodes.len().min(5) {
                    let at = self.now + STEP * node as u32;
                    self.at(at, Event::Stop(node));
                }
            }
            Fault::Two(_) => {
                let one = self.target(Target::Publisher);
                let two = (one + self.rng.random_range(1..self.nodes.len())) % self.nodes.len();
                for node in [one, two] {
                    if self.rng.random_bool(0.5) {
                        self.freeze(node);
                    } else {
                        self.hit.push(node);
                        self.end_process(node);
                    }
                }
            }
            Fault::Restart => {
                let node = self.target(Target::Anybody);
                self.hit.push(node);
                self.end_process(node);
            }
            Fault::Circuits => {
                let mut points: Vec<_> = self.relays.keys().copied().collect();
                points.sort_unstable();
                points.shuffle(&mut self.rng);
                points.truncate(1);
                points.into_iter().for_each(|point| self.break_point(point));
            }
            Fault::Relay => self.lose_relay(),
            Fault::Ring => {
                self.ring += 2;
                self.tell_view();
            }
            Fault::Period => self.next_period(),
            Fault::Flap(_) => {
                let node = self.target(Target::Anybody);
                self.flap(node);
            }
        }
        Ok(())
    }

    pub(super) fn heal_fault(&mut self, index: usize) -> Checked {
        self.disturbed = self.now;
        self.healed = self.now;
        self.broken = false;
        self.rolling = false;
        let hit = std::mem::take(&mut self.hit);
        match self.plan.faults[index] {
            Fault::Split(_) | Fault::Isolate(..) => self.part(&hit, false),
            Fault::Pair(_) => self.block(hit[0], hit[1], false),
            Fault::Cut(..) => self.cut(hit[0], false),
            Fault::Kill(..) | Fault::Stop(..) | Fault::Two(_) | Fault::Restart => {
                for node in hit {
                    if self.nodes[node].machine.is_none() {
                        self.at_node(self.now, node, NodeEvent::Start);
                    }
                }
            }
            _ => {}
        }
        for node in 0..self.nodes.len() {
            if self.nodes[node].frozen.is_some() {
                self.thaw(node)?;
            }
        }
        Ok(())
    }

    fn freeze(&mut self, node: usize) {
        if self.nodes[node].machine.is_some() {
            self.nodes[node].frozen = Some(self.now);
        }
    }

    fn thaw(&mut self, node: usize) -> Checked {
        self.counts.note("nodes thawed");
        self.nodes[node].frozen = None;
        for what in std::mem::take(&mut self.nodes[node].inbox) {
            self.node_event(node, what)?;
        }
        self.node_event(node, NodeEvent::Tick)
    }

    fn cut(&mut self, node: usize, cut: bool) {
        self.nodes[node].cut = cut;
        self.part(&[node], cut);
    }

    /// Parts some from all others, or joins them again.
    fn part(&mut self, some: &[usize], parted: bool) {
        for one in some {
            for other in (0..self.nodes.len()).filter(|other| !some.contains(other)) {
                self.block(*one, other, parted);
            }
        }
    }

    pub(super) fn shut_down(&mut self, node: usize) -> Checked {
        self.nodes[node].stopping = Some(self.now);
        self.feed(node, Input::Shutdown)
    }

    /// One step of a rolling restart.
    pub(super) fn step_stop(&mut self, node: usize) -> Checked {
        // One step is one fault.
        self.base = self.disturbed;
        self.disturbed = self.now;
        self.nodes[node].comes_back = true;
        self.shut_down(node)
    }

    fn lose_relay(&mut self) {
        let mut used: Vec<RelayId> = self.relays.values().map(|at| at.relay).collect();
        used.sort_unstable();
        let Some(relay) = used.get(self.rng.random_range(0..used.len().max(1))).copied() else { return };
        self.dead_relays.insert(relay);
        let mut points: Vec<_> = self.relays.iter().filter(|(_, at)| at.relay == relay).map(|(id, _)| *id).collect();
        points.sort_unstable();
        points.into_iter().for_each(|point| self.break_point(point));
        for node in 0..self.nodes.len() {
            let at = self.now + between(&mut self.rng, 1_000, 30_000);
            self.input_at(at, node, Input::RelayGone(relay));
        }
    }

    fn next_period(&mut self) {
        // Clients go on at the same moment: both were published before.
        let next = |period: &Period| Period { number: period.number + 1, ..*period };
        self.periods = self.periods.iter().map(next).collect();
        self.tell_view();
    }

    fn tell_view(&mut self) {
        let view = self.view();
        for node in 0..self.nodes.len() {
            let at = self.now + between(&mut self.rng, 0, 4_000);
            self.input_at(at, node, Input::View(view.clone()));
        }
    }

    fn flap(&mut self, node: usize) {
        let other = (node + 1) % self.nodes.len();
        self.close_link(node, other);
    }
}
