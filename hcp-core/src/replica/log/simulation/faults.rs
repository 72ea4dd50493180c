//! What breaks, and how it is mended.

use std::time::Duration;

use rand::RngExt;
use rand::rngs::StdRng;

use super::{Checked, Event, Input, World};
use crate::identity::manifest::SoftwareVersion;
use crate::replica::log::machine::{Refusal, Stop, Unlink};

/// Something that breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// A process dies: what was not synced is gone.
    Crash,
    /// A process dies in the middle of a write that reached the disk all the same, or in part.
    Torn,
    /// All processes die.
    Blackout,
    /// A process dies, and comes back with the disk of an earlier time.
    Backup,
    /// A disk is lost; the process comes back with an empty one.
    LostDisk,
    /// A node never comes back.
    Gone,
    /// The nodes are in two parts that do not hear each other.
    Split,
    /// The honest nodes are in two parts that hear of each other only what liars say.
    TwoFaced,
    /// One node hears nobody.
    Isolate,
    /// Links break, again and again.
    Flap,
    SlowDisk,
    FullDisk,
    /// A clock jumps by minutes.
    Clock,
    /// The owner removes a node, and takes it back later.
    Remove,
}

const ALL: [Fault; 14] = [
    Fault::Crash,
    Fault::Torn,
    Fault::Blackout,
    Fault::Backup,
    Fault::LostDisk,
    Fault::Gone,
    Fault::Split,
    Fault::TwoFaced,
    Fault::Isolate,
    Fault::Flap,
    Fault::SlowDisk,
    Fault::FullDisk,
    Fault::Clock,
    Fault::Remove,
];

impl Fault {
    pub(super) fn random(rng: &mut StdRng) -> Self {
        ALL[rng.random_range(0..ALL.len())]
    }

    fn name(self) -> &'static str {
        match self {
            Self::Crash => "crashes",
            Self::Torn => "crashes in the middle of a write",
            Self::Blackout => "crashes of all nodes",
            Self::Backup => "restored backups",
            Self::LostDisk => "disks lost",
            Self::Gone => "nodes that never come back",
            Self::Split => "splits",
            Self::TwoFaced => "splits with liars between",
            Self::Isolate => "nodes cut off",
            Self::Flap => "links that flap",
            Self::SlowDisk => "slow disks",
            Self::FullDisk => "full disks",
            Self::Clock => "clocks that jump",
            Self::Remove => "members removed",
        }
    }
}

impl World {
    /// An honest node, for whom it may be bad luck.
    fn victim(&mut self) -> usize {
        let honest = self.nodes.len() - if self.plan.hostile { self.plan.liars } else { 0 };
        self.rng.random_range(0..honest)
    }

    pub(super) fn break_something(&mut self, index: usize) -> Checked {
        let fault = self.plan.faults[index];
        let victim = self.victim();
        let me = self.cast.nodes[victim];
        let writing = self.nodes[victim].writing.as_ref();
        let own = writing.is_some_and(|writing| writing.what.rows.iter().any(|row| row.log.node == me));
        if fault == Fault::Torn && !own && !self.healed {
            // In the middle of a write of its own.
            self.after(Duration::from_millis(3), Event::Fault(index));
            return Ok(());
        }
        self.counts.note(fault.name());
        self.liar.victims.insert(index, victim);
        match fault {
            Fault::Crash => self.crash(victim, Torn::Lost),
            Fault::Torn => {
                let torn = if self.rng.random_bool(0.5) { Torn::There } else { Torn::Part };
                self.crash(victim, torn);
            }
            Fault::Blackout => (0..self.nodes.len()).for_each(|node| self.crash(node, Torn::Lost)),
            Fault::Backup => self.liar.backup = Some((victim, self.nodes[victim].disk.clone())),
            Fault::LostDisk => {
                self.crash(victim, Torn::Lost);
                self.nodes[victim].disk = super::Disk::default();
                self.note_restored(victim);
            }
            Fault::Gone => {
                if self.nodes.iter().all(|node| !node.gone) {
                    self.crash(victim, Torn::Lost);
                    self.nodes[victim].gone = true;
                }
            }
            Fault::Split => {
                let half = self.rng.random_range(1..self.nodes.len());
                self.part(|one, two| (one < half) != (two < half));
            }
            Fault::TwoFaced => {
                let honest = self.nodes.len() - if self.plan.hostile { self.plan.liars } else { 0 };
                let half = self.rng.random_range(1..honest);
                self.part(|one, two| one < half && (half..honest).contains(&two));
                self.liar.withholds = true;
            }
            Fault::Isolate => self.part(|one, two| one == victim || two == victim),
            Fault::Flap => {
                for (one, two) in self.pairs.keys().copied().collect::<Vec<_>>() {
                    if self.rng.random_bool(0.5) {
                        self.cut(one, two);
                    }
                }
            }
            Fault::SlowDisk => self.nodes[victim].latency = Duration::from_millis(400),
            Fault::FullDisk => self.nodes[victim].disk.set_full(true),
            Fault::Clock => {
                let jump = self.rng.random_range(-200_000..200_000);
                self.nodes[victim].skew += jump;
                self.latest_skew = self.latest_skew.max(self.nodes[victim].skew.max(0).unsigned_abs());
            }
            Fault::Remove => {
                let manifest = self.cast.publish(|node| node != victim, SoftwareVersion::new(0, 0, 9));
                self.oracle.removed(victim);
                self.tell_somebody(manifest, victim)?;
            }
        }
        let delay = super::between(&mut self.rng, 1_000, 2_500);
        self.after(delay, Event::Heal(index));
        Ok(())
    }

    pub(super) fn mend(&mut self, index: usize) -> Checked {
        let victim = self.liar.victims.get(&index).copied().unwrap_or_default();
        match self.plan.faults[index] {
            Fault::Crash | Fault::Torn | Fault::LostDisk => self.start(victim)?,
            Fault::Gone => {}
            Fault::Blackout => {
                for node in 0..self.nodes.len() {
                    let delay = super::between(&mut self.rng, 0, 1_500);
                    self.after(delay, Event::Start { node });
                }
            }
            Fault::Backup => {
                if let Some((node, disk)) = self.liar.backup.take() {
                    self.crash(node, Torn::Lost);
                    self.nodes[node].disk = disk;
                    self.note_restored(node);
                    self.start(node)?;
                }
            }
            Fault::Split | Fault::TwoFaced | Fault::Isolate => self.join(),
            Fault::Flap | Fault::Clock => {}
            Fault::SlowDisk => self.nodes[victim].latency = Duration::from_millis(3),
            Fault::FullDisk => self.nodes[victim].disk.set_full(false),
            Fault::Remove => {
                let manifest = self.cast.publish(|_| true, SoftwareVersion::new(0, 1, 0));
                self.nodes[victim].manifest = manifest;
                self.oracle.removed(victim);
                self.tell_somebody(manifest, victim)?;
                // The owner gives it the manifest that has it again.
                self.crash(victim, Torn::Lost);
                self.start(victim)?;
            }
        }
        Ok(())
    }

    fn tell_somebody(&mut self, manifest: usize, not: usize) -> Checked {
        let told = self.cast.manifests[manifest].clone();
        for node in 0..self.nodes.len() {
            if node != not && !self.is_hostile(node) {
                self.nodes[node].manifest = manifest;
                if self.nodes[node].machine.is_some() {
                    return self.tell(node, Input::Manifest(told));
                }
            }
        }
        Ok(())
    }

    fn part(&mut self, apart: impl Fn(usize, usize) -> bool) {
        for (one, two) in self.pairs.keys().copied().collect::<Vec<_>>() {
            if apart(one, two) {
                self.cut(one, two);
                if let Some(pair) = self.pairs.get_mut(&(one, two)) {
                    pair.parted = true;
                }
            }
        }
    }

    fn join(&mut self) {
        for pair in self.pairs.values_mut() {
            pair.parted = false;
        }
    }

    /// A process dies; what it was writing is lost, or there though nobody knows.
    pub(super) fn crash(&mut self, node: usize, torn: Torn) {
        let this = &mut self.nodes[node];
        if this.machine.take().is_none() {
            return;
        }
        this.life += 1;
        if let Some(writing) = this.writing.take() {
            match torn {
                Torn::Lost => self.counts.note("writes lost in a crash"),
                Torn::There if !this.disk.is_full() => {
                    this.disk.write(&writing.what);
                    self.counts.note("writes there though never said to be");
                }
                Torn::There | Torn::Part => self.counts.note("torn writes"),
            }
        }
        for other in 0..self.nodes.len() {
            if other != node {
                self.cut(node, other);
            }
        }
    }

    /// Sometimes a process dies while it writes what it begins with, mostly where that is all that is left of something.
    pub(super) fn crash_soon(&mut self, node: usize, appends_again: bool) {
        if self.healed || !self.rng.random_bool(if appends_again { 0.5 } else { 0.05 }) {
            return;
        }
        self.counts.note("crashes right after opening");
        let life = self.nodes[node].life;
        let delay = super::between(&mut self.rng, 1, 30);
        self.after(delay, Event::Crash { node, life });
        self.after(delay + Duration::from_millis(300), Event::Start { node });
    }

    pub(super) fn note_restored(&mut self, node: usize) {
        let mut has = super::application::Seen::default();
        for body in self.nodes[node].disk.bodies() {
            if let Some((id, _)) = super::application::decode(&body) {
                has.insert(id);
            }
        }
        self.oracle.restored(node, &has);
    }

    /// Everything is well from now on.
    pub(super) fn heal_all(&mut self) {
        self.healed = true;
        self.join();
        for node in 0..self.nodes.len() {
            self.nodes[node].disk.set_full(false);
            self.nodes[node].latency = Duration::from_millis(3);
            self.at(self.now, Event::Start { node });
            if self.nodes[node].stopped.is_some() {
                self.crash(node, Torn::Lost);
                self.nodes[node].manifest = self.cast.manifests.len() - 1;
            }
        }
        self.tell_everybody_where_manifests_are_lost();
        for (one, two) in self.pairs.keys().copied().collect::<Vec<_>>() {
            self.after(Duration::from_millis(300), Event::Dial { one, two });
        }
    }

    /// A manifest that only a node was given which is gone, or with which nobody links that lacks it, reaches nobody: its owner
    /// has to give it to others, too.
    fn tell_everybody_where_manifests_are_lost(&mut self) {
        let count = |what| self.plan.faults.iter().filter(|fault| **fault == what).count();
        if count(Fault::Remove) + count(Fault::Gone) < 2 || count(Fault::Remove) == 0 {
            return;
        }
        let newest = self.cast.manifests.len() - 1;
        for node in 0..self.nodes.len() {
            self.nodes[node].manifest = newest;
            if self.nodes[node].machine.is_some() {
                let told = self.cast.manifests[newest].clone();
                if let Err(reason) = self.tell(node, Input::Manifest(told)) {
                    self.failed = Some(reason);
                }
            }
        }
    }
}

/// What becomes of a write in a crash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Torn {
    Lost,
    There,
    /// The store finds that a part is missing, and drops the rest.
    Part,
}

pub(super) fn refusal(why: Refusal) -> &'static str {
    match why {
        Refusal::TooLong => "entries refused: too long",
        Refusal::Busy => "entries refused: busy",
        Refusal::Full => "entries refused: disk full",
        Refusal::Stopped => "entries refused: stopped",
    }
}

pub(super) fn stop(why: Stop) -> &'static str {
    match why {
        Stop::Broken => "stops: broken store",
        Stop::Superseded => "stops: superseded",
        Stop::Removed => "stops: removed",
        Stop::Reload => "checkpoints loaded",
    }
}

pub(super) fn unlinked(why: Unlink) -> &'static str {
    match why {
        Unlink::Foreign => "unlinked: foreign",
        Unlink::NotMember => "unlinked: no member",
        Unlink::PeerTooOld | Unlink::TooOld => "unlinked: too old",
        Unlink::Forged => "unlinked: forged",
        Unlink::Credit => "unlinked: credit",
        Unlink::Flood => "unlinked: flood",
        Unlink::Order => "unlinked: order",
    }
}
