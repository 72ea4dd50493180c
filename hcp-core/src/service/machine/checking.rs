//! Checks: whether the points that members announce are there.
//!
//! Every node introduces itself at each of them, as a client would, until its relay says that it is there. A relay at which nobody
//! has established the point says that at once; it would say so to clients, too, who lose a moment at each such point (C tor
//! a second). So no such point is listed, and it is asked for again. Of a member of which so many points as it may announce
//! were not there within an hour, only those are listed that are known to be there: one that announces others all the time is
//! always ahead of the answers.
//!
//! C tor's relays say the same of a point that is introduced to faster than they pass on (`hs_intropoint.c`), and so strangers
//! can have them say so of any point that is listed. So what was once there counts as there for as long as it is announced, and
//! nothing is left out when that would be all of more than half of the members: then somebody floods them while this node has
//! just begun.
//!
//! A point is what was announced as a whole: who knows an honest point's secrets and announces it at another relay does not have
//! it taken for missing. One relay that lies takes from a member that one point; its owner hears that, too, and lists what the
//! others list. Who takes a point away that was there, or does not answer at it, is not found by this, but by probes
//! ([`super::probing`]).
//!
//! All ask for themselves, and hear the same but for chance and lies; as long as they do not, they see different sets, as they
//! do whenever something changes.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use rand::RngExt;

use super::liveness::Peer;
#[cfg(test)]
use super::planted::{Defect, planted};
use super::{Machine, Output};
use crate::identity::OnionAddress;
use crate::network::onion::{Checked, PointDescription};
use crate::service::tuning::{
    CHECK_RETRY, CHECK_RETRY_AT_MOST, CHECKING, CHECKS_AT_ONCE, CHECKS_OF_ONE, CHECKS_OF_ONE_IN, LEFT_OUT, SUSPECTED,
};

/// What this node knows of points from their relays.
#[derive(Debug, Default)]
pub(super) struct Checking {
    known: BTreeMap<PointDescription, Known>,
    /// Of which members an answer is waited for: which point, since when. One of each: a relay that does not answer holds up its
    /// member's other points only.
    asked: BTreeMap<OnionAddress, (PointDescription, Duration)>,
}

#[derive(Debug, Default)]
struct Known {
    /// Whether it was ever there, or was not when its relay said so last; none before.
    there: Option<bool>,
    next: Duration,
    /// Answers in a row that were none, or no.
    in_vain: u32,
}

impl Machine {
    /// Asks for points whose turn it is.
    pub(super) fn check(&mut self) {
        if self.stopping.is_some() {
            return;
        }
        let now = self.now;
        let mut announced: BTreeMap<OnionAddress, Vec<PointDescription>> = BTreeMap::new();
        announced.insert(self.me, self.announced().iter().filter_map(|point| point.description()).collect());
        for (member, peer) in &self.peers {
            announced.extend(peer.record().map(|record| (*member, record.points.clone())));
        }
        let all: BTreeSet<&PointDescription> = announced.values().flatten().collect();
        self.checking.known.retain(|point, _| all.contains(point));
        let silent = self.checking.asked.iter().filter(|(_, (_, since))| now.saturating_sub(*since) >= CHECKING);
        for (member, point) in silent.map(|(member, (point, _))| (*member, *point)).collect::<Vec<_>>() {
            self.answered(member, point, Checked::Unknown);
        }
        let mut due = Vec::new();
        for (member, points) in announced {
            let may = self.peers.get_mut(&member).is_none_or(|peer| peer.may_be_asked_for(now));
            if !may || self.checking.asked.contains_key(&member) {
                continue;
            }
            let next =
                |point: &PointDescription| self.checking.known.get(point).map_or(Some(Duration::ZERO), Known::next);
            let first = points.iter().filter_map(|point| Some((next(point)?, *point))).min();
            due.extend(first.filter(|(next, _)| *next <= now).map(|(next, point)| (next, member, point)));
        }
        due.sort_unstable();
        for (_, member, point) in due.into_iter().take(CHECKS_AT_ONCE.saturating_sub(self.checking.asked.len())) {
            if let Some(peer) = self.peers.get_mut(&member) {
                peer.checked.push(now);
            }
            self.checking.asked.insert(member, (point, now));
            self.outputs.push_back(Output::Check(point));
        }
    }

    /// What a relay said of a point.
    pub(super) fn checked(&mut self, point: &PointDescription, answer: Checked) {
        let members = self.checking.asked.iter().filter(|(_, (asked, _))| asked == point).map(|(member, _)| *member);
        for member in members.collect::<Vec<_>>() {
            self.answered(member, *point, answer);
        }
        self.check();
    }

    fn answered(&mut self, member: OnionAddress, point: PointDescription, answer: Checked) {
        let (now, jitter) = (self.now, self.rng.random_range(0.75..1.25));
        self.checking.asked.remove(&member);
        let known = self.checking.known.entry(point).or_default();
        let before = known.there;
        match answer {
            Checked::There => known.there = Some(true),
            Checked::NotThere => known.there = known.there.or(Some(false)),
            Checked::Unknown => {}
        }
        known.in_vain = known.in_vain.saturating_add(1);
        let pause = (CHECK_RETRY * 2_u32.saturating_pow(known.in_vain - 1)).min(CHECK_RETRY_AT_MOST);
        known.next = now + pause.mul_f64(jitter);
        let is_missing = known.there == Some(false);
        if known.there != before {
            self.hasten();
        }
        if let Some(peer) = self.peers.get_mut(&member).filter(|_| is_missing) {
            let before = peer.is_suspected(now);
            peer.miss(point, now);
            // A descriptor may have gone out with such points, in a hurry.
            if peer.is_suspected(now) && !before {
                self.urge(member);
            }
        }
    }

    /// Leaves out points that are not there, unless that would be all of more than half of the members.
    pub(super) fn without_missing(&self, members: &mut BTreeMap<OnionAddress, Vec<PointDescription>>) {
        // A liar's share shows only where all are listed that it announces.
        #[cfg(test)]
        if planted(Defect::ChecksForgotten) || planted(Defect::ShareForgotten) {
            return;
        }
        let mut there = members.clone();
        for (member, points) in &mut there {
            let suspected = self.peers.get(member).is_some_and(|peer| peer.is_suspected(self.now));
            points.retain(|point| self.checking.known.get(point).and_then(|known| known.there).unwrap_or(!suspected));
        }
        there.retain(|_, points| !points.is_empty());
        if there.len() * 2 >= members.len() {
            *members = there;
        }
    }
}

impl Known {
    /// When to ask again: not at all once it was there.
    fn next(&self) -> Option<Duration> {
        (self.there != Some(true)).then_some(self.next)
    }
}

impl Peer {
    /// One whose points change all the time does not make this node build circuits all the time.
    fn may_be_asked_for(&mut self, now: Duration) -> bool {
        self.checked.retain(|at| now.saturating_sub(*at) < CHECKS_OF_ONE_IN);
        self.is_alive() && self.checked.len() < CHECKS_OF_ONE
    }

    /// One more point of its is not there; each counts once.
    fn miss(&mut self, point: PointDescription, now: Duration) {
        self.missing.retain(|(missed, _)| *missed != point);
        self.missing.push((point, now));
        let first = self.missing.len().saturating_sub(SUSPECTED);
        self.missing.drain(..first);
    }

    fn is_suspected(&self, now: Duration) -> bool {
        self.missing.len() >= SUSPECTED && self.missing.iter().all(|(_, at)| now.saturating_sub(*at) < LEFT_OUT)
    }
}
