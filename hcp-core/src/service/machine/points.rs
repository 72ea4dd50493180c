//! This node's own introduction points: how many, where, how long; who may succeed; what happens when one closes.
//!
//! A point is announced while it is established and one of the newest; it is let go only when a descriptor without it is
//! out. A point that was given up is never established again here.

mod parting;
mod retiring;

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::time::Duration;

use rand::RngExt;

use super::{Machine, NotEstablished, Output, Place, Slot};
use crate::identity::OnionAddress;
use crate::network::onion::{PointDescription, PointId, PointSecrets, RelayId, Tag};
use crate::service::gossip::{Answer, Entrust, Message, Tags, prove_point};
use crate::service::tuning::{
    AVOIDED, ESTABLISHING, MARKS, MAX_AVOIDED, MAX_HOLDERS, MAX_TAGS, POINT_INTRODUCTIONS, POINT_LIFE, POINT_RETRY,
    POINT_RETRY_AT_MOST, PROMISES, SUCCESSOR_GONE,
};

/// One of this node's points.
#[derive(Debug)]
pub(super) struct Point {
    pub(super) slot: Slot,
    secrets: PointSecrets,
    id: PointId,
    place: Option<(PointDescription, [u8; 64])>,
    state: State,
    born: Duration,
    life: Duration,
    introductions: u32,
    /// Another one is to stand in its place.
    old: bool,
    /// A successor has it, or is about to: not listed any more, and over when its circuit closes.
    ceded: bool,
    /// It is to stand in that one's place, once it is established.
    instead_of: Option<PointId>,
    /// Since when a peer has one at its relay, and this one is to make way.
    beside: Option<Duration>,
    /// Somebody who has its secrets may have held this node for dead: it is never established again.
    fenced: bool,
    tags: Vec<Tag>,
    holders: BTreeMap<OnionAddress, Holder>,
    /// Since when it is not announced, and since when no descriptor lists it.
    unannounced: Option<Duration>,
    unlisted: Option<Duration>,
}

#[derive(Debug)]
enum State {
    Establishing {
        since: Duration,
        until: Option<Duration>,
    },
    Up,
    /// It has closed, and the holders are asked.
    Asking {
        since: Duration,
        nonce: u64,
        promised: BTreeMap<OnionAddress, Duration>,
    },
}

/// Somebody who was given a point's secrets.
#[derive(Debug)]
struct Holder {
    since: Duration,
    /// Marks sent on the present link.
    sent: usize,
    /// The secrets are there on the present link.
    current: bool,
    /// Since when it has no link or is dead.
    gone: Option<Duration>,
}

/// What concerns all points together.
#[derive(Debug, Default)]
pub(super) struct Tending {
    failures: u32,
    retry: Duration,
    avoided: VecDeque<(RelayId, Duration)>,
    parting: parting::Parting,
    replaced: Option<Duration>,
    /// Marks since some were passed on, and when that was.
    marks: usize,
    marked: Duration,
}

impl Point {
    pub(super) fn is_up(&self) -> bool {
        matches!(self.state, State::Up)
    }

    pub(super) fn description(&self) -> Option<PointDescription> {
        self.place.map(|(description, _)| description)
    }

    pub(super) fn proof(&self) -> Option<[u8; 64]> {
        self.place.map(|(_, proof)| proof)
    }

    fn relay(&self) -> Option<RelayId> {
        self.place.map(|(description, _)| description.relay)
    }

    fn is_fresh(&self) -> bool {
        !self.old && !self.ceded && self.instead_of.is_none()
    }
}

impl Machine {
    /// The points that a descriptor is to list: the newest, and older ones while there are too few.
    pub(super) fn announced(&self) -> Vec<&Point> {
        if matches!(self.stopping, Some(super::Stopping::Leaving(_) | super::Stopping::Stopped)) {
            return Vec::new();
        }
        let mut up: Vec<_> = self.points.iter().filter(|point| point.is_up() && !point.ceded).collect();
        up.sort_by_key(|point| (point.old, point.slot));
        up.truncate(self.target());
        up
    }

    /// The relays of this node's points, for [`Input::RelayGone`](super::Input::RelayGone).
    pub(crate) fn relays(&self) -> impl Iterator<Item = RelayId> + '_ {
        self.points.iter().filter_map(Point::relay)
    }

    /// Replaces what is due, and establishes what is missing.
    pub(super) fn tend_points(&mut self) {
        let now = self.now;
        let late: Vec<_> = self
            .points
            .iter()
            .filter(|point| match &point.state {
                State::Establishing { since, .. } => now.saturating_sub(*since) >= ESTABLISHING,
                State::Asking { since, .. } => now.saturating_sub(*since) >= PROMISES,
                State::Up => false,
            })
            .map(|point| point.slot)
            .collect();
        for slot in late {
            self.outputs.push_back(Output::Withdraw(slot));
            self.give_up(slot);
        }
        self.age_points();
        // What a spare was to stand in for may have gone another way: then it is one of those that are missing.
        let fresh: HashSet<_> = self.points.iter().filter(|point| point.is_fresh()).map(|point| point.id).collect();
        for point in &mut self.points {
            point.instead_of = point.instead_of.filter(|id| fresh.contains(id));
        }
        self.part_from_peers();
        let target = self.target();
        while self.points.iter().filter(|point| point.is_fresh()).count() < target && now >= self.tending.retry {
            self.establish_new(None);
        }
        // The newest are kept when there are to be fewer.
        let mut fresh: Vec<_> = self.points.iter_mut().filter(|point| point.is_fresh()).collect();
        fresh.sort_by_key(|point| std::cmp::Reverse(point.slot));
        fresh.into_iter().skip(target).for_each(|point| point.old = true);
    }

    /// Notices which points are to be replaced: too old, used too often, or with too few who could succeed.
    fn age_points(&mut self) {
        let now = self.now;
        let candidates: HashSet<_> = self.successors().collect();
        for point in &mut self.points {
            for (member, holder) in &mut point.holders {
                let there = candidates.contains(member);
                holder.gone = if there { None } else { holder.gone.or(Some(now)) };
            }
            let used_up =
                now.saturating_sub(point.born) >= point.life || point.tags.len() >= point.introductions as usize;
            point.old |= used_up;
        }
        // One at a time: each costs a descriptor.
        if self.tending.replaced.is_some_and(|replaced| now.saturating_sub(replaced) < SUCCESSOR_GONE) {
            return;
        }
        let lonely = self.points.iter_mut().find(|point| {
            let gone = |holder: &Holder| holder.gone.is_some_and(|gone| now.saturating_sub(gone) >= SUCCESSOR_GONE);
            let others = candidates.iter().any(|member| !point.holders.contains_key(member));
            point.is_up() && point.is_fresh() && others && point.holders.values().any(gone)
        });
        if let Some(point) = lonely {
            point.old = true;
            self.tending.replaced = Some(now);
        }
    }

    /// One that stands in for another goes where no other one is listed, or nowhere.
    fn establish_new(&mut self, instead_of: Option<PointId>) {
        let mut bytes = zeroize::Zeroizing::new([0; PointSecrets::LEN]);
        self.rng.fill(&mut bytes[..]);
        let secrets = PointSecrets::from_bytes(&bytes);
        let slot = self.next_slot();
        let life = self.rng.random_range(POINT_LIFE.0..POINT_LIFE.1);
        let introductions = self.rng.random_range(POINT_INTRODUCTIONS.0..POINT_INTRODUCTIONS.1);
        let now = self.now;
        self.tending.avoided.retain(|(_, since)| now.saturating_sub(*since) < AVOIDED);
        // Of points that share a relay a descriptor lists one.
        let mut listed: HashSet<_> =
            self.points.iter().filter(|point| point.is_fresh()).filter_map(Point::relay).collect();
        for record in self.peers.values().filter_map(super::Peer::record) {
            listed.extend(record.points.iter().map(|point| point.relay));
        }
        let own: HashSet<_> = self.relays().collect();
        let mut all = &listed | &own;
        all.extend(self.tending.avoided.iter().map(|(relay, _)| *relay));
        // Where there are few relays it may have taken over points at all of them, and needs some of its own all the same.
        all.extend(self.taken.iter().map(|taken| taken.relay()));
        let mut none_of = vec![all, listed];
        if instead_of.is_none() {
            none_of.push(own);
        }
        self.points.push(Point {
            slot,
            id: secrets.id(),
            secrets: secrets.clone(),
            place: None,
            state: State::Establishing { since: now, until: None },
            born: now,
            life,
            introductions,
            old: false,
            ceded: false,
            instead_of,
            beside: None,
            fenced: false,
            tags: Vec::new(),
            holders: BTreeMap::new(),
            unannounced: None,
            unlisted: None,
        });
        let place = Place::Choose { none_of };
        self.outputs.push_back(Output::Establish { slot, place, secrets, seen: Vec::new(), until: None });
    }

    pub(super) fn established(&mut self, slot: Slot, relay: RelayId) {
        if self.taken_established(slot) {
            return;
        }
        let (service, me, now) = (self.service, self.me, self.now);
        let Some(point) = self.points.iter_mut().find(|point| point.slot == slot) else { return };
        let State::Establishing { until, .. } = point.state else { return };
        if until.is_some_and(|until| now > until) {
            // Too late to be sure that nobody has taken it.
            self.outputs.push_back(Output::Withdraw(slot));
            self.give_up(slot);
            return;
        }
        if point.place.is_none() {
            let description = point.secrets.describe(relay);
            point.place = Some((description, prove_point(service, me, &description, &point.secrets)));
            point.born = now;
        }
        point.state = State::Up;
        let instead_of = point.instead_of.take();
        for replaced in self.points.iter_mut().filter(|point| Some(point.id) == instead_of) {
            replaced.old = true;
        }
        self.tending.failures = 0;
        self.hasten();
    }

    pub(super) fn establish_failed(&mut self, slot: Slot, why: NotEstablished) {
        if self.taken_failed(slot, why) {
            return;
        }
        let Some(index) = self.points.iter().position(|point| point.slot == slot) else { return };
        let needless = self.points[index].place.is_some() || self.points[index].instead_of.is_some();
        self.give_up(slot);
        if needless {
            return;
        }
        let pause = POINT_RETRY.saturating_mul(2_u32.saturating_pow(self.tending.failures)).min(POINT_RETRY_AT_MOST);
        self.tending.failures = self.tending.failures.saturating_add(1);
        if why == NotEstablished::Failed && self.tending.failures == 1 {
            // One relay that is slow says nothing of the others.
            self.hasten();
            return;
        }
        self.tending.retry = self.now + pause.mul_f64(self.rng.random_range(0.5..1.0));
    }

    /// The circuit of a point has closed.
    pub(super) fn closed(&mut self, slot: Slot) {
        if self.taken_closed(slot) {
            return;
        }
        let now = self.now;
        let nonce = self.rng.random();
        let stops = self.stopping.is_some();
        let Some(point) = self.points.iter_mut().find(|point| point.slot == slot && point.is_up()) else { return };
        let lost = point.old || point.ceded || point.fenced || stops;
        #[cfg(test)]
        if super::planted::planted(super::planted::Defect::FenceForgotten) {
            self.establish_again(slot, None);
            return;
        }
        if lost {
            self.give_up(slot);
            return;
        }
        point.state = State::Asking { since: now, nonce, promised: BTreeMap::new() };
        let (id, holders): (_, Vec<_>) = (point.id, point.holders.keys().copied().collect());
        if holders.iter().any(|holder| !self.peers.get(holder).is_some_and(super::Peer::is_linked)) {
            self.give_up(slot);
            return;
        }
        if holders.is_empty() {
            self.establish_again(slot, None);
            return;
        }
        for holder in holders {
            self.send(holder, Message::Ask { point: id, nonce });
        }
        self.hasten();
    }

    pub(super) fn promised(&mut self, from: OnionAddress, point: PointId, nonce: u64, answer: Answer) {
        let Some(point) = self.points.iter_mut().find(|own| own.id == point) else { return };
        let (slot, fenced) = (point.slot, point.fenced);
        let State::Asking { since, nonce: asked, promised } = &mut point.state else { return };
        if *asked != nonce || !point.holders.contains_key(&from) {
            return;
        }
        match answer {
            Answer::Taken => self.give_up(slot),
            Answer::KeepsAway(_) if fenced => self.give_up(slot),
            Answer::KeepsAway(millis) => {
                promised.insert(from, Duration::from_millis(u64::from(millis)));
                // A promise may be as old as the question; half of it is left for what is already on its way to the relay.
                let until = *since + promised.values().copied().min().unwrap_or_default() / 2;
                if promised.len() == point.holders.len() {
                    self.establish_again(slot, Some(until));
                }
            }
        }
    }

    fn establish_again(&mut self, slot: Slot, until: Option<Duration>) {
        let now = self.now;
        let Some(point) = self.points.iter_mut().find(|point| point.slot == slot) else { return };
        let Some(relay) = point.relay() else { return };
        if until.is_some_and(|until| until <= now) {
            self.give_up(slot);
            return;
        }
        // A slot is one attempt.
        self.next_id += 1;
        point.slot = Slot(self.next_id);
        point.state = State::Establishing { since: now, until };
        let (slot, secrets, seen) = (point.slot, point.secrets.clone(), point.tags.clone());
        self.outputs.push_back(Output::Establish { slot, place: Place::At(relay), secrets, seen, until });
    }

    /// A point is not established again, and the next one is elsewhere.
    fn give_up(&mut self, slot: Slot) {
        if let Some(relay) = self.remove(slot).and_then(|point| point.relay()) {
            self.avoid(relay);
        }
    }

    fn remove(&mut self, slot: Slot) -> Option<Point> {
        let index = self.points.iter().position(|point| point.slot == slot)?;
        self.hasten();
        Some(self.points.swap_remove(index))
    }

    fn avoid(&mut self, relay: RelayId) {
        self.tending.avoided.retain(|(avoided, _)| *avoided != relay);
        self.tending.avoided.push_back((relay, self.now));
        if self.tending.avoided.len() > MAX_AVOIDED {
            self.tending.avoided.pop_front();
        }
    }

    pub(super) fn relay_gone(&mut self, relay: RelayId) {
        for point in self.points.iter_mut().filter(|point| point.relay() == Some(relay)) {
            point.old = true;
        }
        self.hasten();
    }

    /// Keeps in mind from whom nothing was heard: they may hold this node for dead.
    pub(super) fn fence(&mut self) {
        for point in self.points.iter_mut().filter(|point| !point.fenced) {
            point.fenced = point.holders.iter().any(|(member, holder)| {
                let Some(peer) = self.peers.get(member) else { return true };
                let acked = peer.acked().unwrap_or_default().max(holder.since);
                self.now.saturating_sub(acked) > peer.plain_delay() / 2
            });
        }
    }

    /// Whoever could succeed: who is linked, lives and stays, and has not taken anything without need.
    fn successors(&self) -> impl Iterator<Item = OnionAddress> + '_ {
        let stays = |peer: &super::Peer| peer.is_linked() && peer.is_alive() && !peer.is_stopping();
        let fit = move |peer: &super::Peer| stays(peer) && !peer.is_usurper(self.now);
        self.peers.iter().filter(move |(_, peer)| fit(peer)).map(|(member, _)| *member)
    }

    /// Gives the secrets of points to those who may succeed.
    pub(super) fn entrust(&mut self) {
        let now = self.now;
        if self.stopping.is_some() {
            return;
        }
        let candidates: Vec<_> = self.successors().collect();
        let mut messages = Vec::new();
        for point in
            self.points.iter_mut().filter(|point| matches!(point.state, State::Up) && !point.old && !point.ceded)
        {
            let Some(relay) = point.relay() else { continue };
            let wanting = MAX_HOLDERS.saturating_sub(point.holders.len());
            let mut others: Vec<_> =
                candidates.iter().filter(|member| wanting > 0 && !point.holders.contains_key(member)).collect();
            others.sort_by_cached_key(|member| super::listing::score(b"successor", &point.id.0, member));
            for member in others.into_iter().take(wanting) {
                point.holders.insert(*member, Holder { since: now, sent: 0, current: false, gone: None });
                // Everybody has to know the others.
                point.holders.values_mut().for_each(|holder| holder.current = false);
            }
            let holders: Vec<_> = point.holders.keys().copied().collect();
            for (member, holder) in &mut point.holders {
                if holder.current || !candidates.contains(member) {
                    continue;
                }
                holder.current = true;
                let before = u32::try_from(point.tags.len()).unwrap_or(u32::MAX);
                let incarnation = self.incarnation;
                let entrust =
                    Entrust { incarnation, relay, secrets: point.secrets.clone(), holders: holders.clone(), before };
                messages.push((*member, Message::Entrust(entrust)));
            }
        }
        for (member, message) in messages {
            self.send(member, message);
        }
    }

    /// On a new link: what a holder still has. What it lacks it is given.
    pub(super) fn heard_held(&mut self, from: OnionAddress, points: &[(PointId, u32)]) {
        for point in &mut self.points {
            let Some(holder) = point.holders.get_mut(&from) else { continue };
            let held = points.iter().find(|(id, _)| *id == point.id);
            holder.current = held.is_some();
            holder.sent = held.map_or(0, |(_, tags)| (*tags as usize).min(point.tags.len()));
        }
        // Those of points that were given up may stay: somebody may still have a descriptor with them.
        self.hasten();
    }

    pub(super) fn introduced(&mut self, slot: Slot, tag: Tag) {
        if let Some(point) = self.points.iter_mut().find(|point| point.slot == slot) {
            point.tags.push(tag);
            self.tending.marks += 1;
            let soon = self.now + super::HASTE;
            self.due = self.due.min(soon.max(self.marks_due()));
        } else {
            self.taken_introduced(slot, tag);
        }
    }

    /// Passes on the marks of what was accepted, many at a time in a flood.
    pub(super) fn pass_marks(&mut self) {
        if self.now >= self.marks_due() {
            self.flush_tags();
        }
    }

    fn marks_due(&self) -> Duration {
        if self.tending.marks < MAX_TAGS { self.tending.marked + MARKS } else { self.now }
    }

    /// When the marks that wait are to be passed on; none when none do.
    pub(super) fn marks_wait(&self) -> Option<Duration> {
        (self.tending.marks > 0).then(|| self.marks_due())
    }

    /// Passes on all marks.
    fn flush_tags(&mut self) {
        let mut messages = Vec::new();
        for point in &mut self.points {
            for (member, holder) in &mut point.holders {
                if !holder.current || !self.peers.get(member).is_some_and(super::Peer::is_linked) {
                    continue;
                }
                #[cfg(test)]
                if super::planted::planted(super::planted::Defect::MarksKept) {
                    continue;
                }
                for tags in point.tags[holder.sent..].chunks(MAX_TAGS) {
                    let first = u32::try_from(holder.sent).unwrap_or(u32::MAX);
                    let tags = Tags { point: point.id, first, tags: tags.to_vec() };
                    holder.sent += tags.tags.len();
                    messages.push((*member, Message::Tags(tags)));
                }
            }
        }
        self.tending.marks = 0;
        if !messages.is_empty() {
            self.tending.marked = self.now;
        }
        for (member, message) in messages {
            self.send(member, message);
        }
    }

    /// A successor has claimed points, some of them this node's: so many.
    pub(super) fn cede(&mut self, holder: OnionAddress, claimed: &[PointId]) -> usize {
        let claimed = |point: &Point| claimed.contains(&point.id) && point.holders.contains_key(&holder);
        let (mut ceded, mut over) = (0, Vec::new());
        for point in self.points.iter_mut().filter(|point| claimed(point) && !point.ceded) {
            point.ceded = true;
            ceded += 1;
            if !point.is_up() {
                over.push(point.slot);
            }
        }
        for slot in over {
            self.outputs.push_back(Output::Withdraw(slot));
            self.give_up(slot);
        }
        self.hasten();
        ceded
    }

    /// A member is none any more, or is not to be trusted: whatever it was given is replaced.
    pub(super) fn withdraw_trust(&mut self, member: OnionAddress) {
        for point in self.points.iter_mut().filter(|point| point.holders.contains_key(&member)) {
            point.old = true;
        }
    }

    /// Where points are that are announced.
    #[cfg(test)]
    pub(in crate::service) fn announced_relays(&self) -> Vec<RelayId> {
        self.announced().into_iter().filter_map(Point::relay).collect()
    }

    /// How many points are established and announced.
    pub(super) fn count_up(&self) -> usize {
        self.announced().len()
    }

    /// What is kept, for bounds.
    #[cfg(test)]
    pub(super) fn kept_own(&self) -> (usize, usize) {
        (self.points.len(), self.points.iter().map(|point| point.tags.len()).sum())
    }
}
