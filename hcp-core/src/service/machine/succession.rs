//! Points of others: the secrets that this node holds, and the points that it has taken over.
//!
//! A point is taken over once, and belongs to its successor then, who hands it on when it leaves. What this node has claimed it
//! says in its record, before it establishes anything; what another holder has claimed it forgets. Secrets are used only while
//! it is known that their owner lived a short while ago, and only with all marks that the owner had made when it gave them.

use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use super::{Machine, NotEstablished, Notice, Output, Place, Slot};
use crate::identity::OnionAddress;
use crate::network::onion::{PointId, PointSecrets, RelayId, Tag};
use crate::service::gossip::{Answer, Entrust, Message, Record, Tags};
use crate::service::tuning::{
    FORGOTTEN, MAX_CLAIMS, MAX_HANDED_ON, MAX_HELD, MAX_TAGS, MAX_TAKEN, MAX_TAKEN_OF_ONE, POINT_INTRODUCTIONS,
    TAKEN_LIFE, TAKEOVER_RETRY, TAKEOVER_TRIES, TAKEOVER_WINDOW,
};

/// Somebody else's point whose secrets this node holds.
#[derive(Debug)]
pub(super) struct Held {
    relay: RelayId,
    secrets: PointSecrets,
    holders: Vec<OnionAddress>,
    origin: Origin,
    tags: Vec<Tag>,
    /// How many marks the owner had when it gave the secrets.
    before: usize,
    /// Which run of the owner's.
    incarnation: u64,
    since: Duration,
    /// Promised to keep away until then.
    away: Duration,
    /// The owner has let go of it.
    released: bool,
    /// Since when it could be taken over.
    ready: Option<Duration>,
}

impl Held {
    /// Whether it can still be brought up to date.
    pub(super) fn is_current(&self) -> bool {
        !self.released
    }

    /// How many marks are here.
    pub(super) fn count(&self) -> u32 {
        u32::try_from(self.tags.len()).unwrap_or(u32::MAX)
    }
}

/// Where a point comes from, by the records of whoever entrusted it. Only what somebody may have a descriptor with is worth a
/// place among those taken over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Origin {
    /// It was neither announced nor claimed.
    Nowhere,
    /// Its owner has announced it.
    Announced,
    /// Its owner has claimed it before, and hands it on to this node alone.
    HandedOn,
}

impl Origin {
    fn of(point: &PointId, holders: &[OnionAddress], me: OnionAddress, record: Option<&Record>) -> Self {
        let announced = |record: &Record| record.points.iter().any(|announced| announced.id == *point);
        match record {
            Some(record) if announced(record) => Self::Announced,
            Some(record) if holders == [me] && record.taken.contains(point) => Self::HandedOn,
            _ => Self::Nowhere,
        }
    }

    /// How many of this kind are taken over from one member.
    fn most_of_one(self) -> usize {
        match self {
            Self::Nowhere => 0,
            Self::Announced => MAX_TAKEN_OF_ONE,
            Self::HandedOn => MAX_HANDED_ON,
        }
    }
}

/// What this node did for a death.
#[derive(Debug, Default)]
pub(super) struct Death {
    points: usize,
    gave_up: usize,
}

/// A point that this node has taken over.
#[derive(Debug)]
pub(super) struct Taken {
    pub(super) slot: Slot,
    owner: OnionAddress,
    origin: Origin,
    id: PointId,
    relay: RelayId,
    secrets: PointSecrets,
    tags: Vec<Tag>,
    holders: Vec<OnionAddress>,
    state: TakenState,
    tries: u32,
    since: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum TakenState {
    Establishing,
    Waiting(Duration),
    Up,
}

impl Taken {
    pub(super) fn relay(&self) -> RelayId {
        self.relay
    }
}

impl Machine {
    /// Somebody gives this node the secrets of a point.
    pub(super) fn entrusted(&mut self, from: OnionAddress, entrust: Entrust) {
        let now = self.now;
        if self.stopping.is_some() || !entrust.holders.contains(&self.me) {
            return;
        }
        let id = entrust.secrets.id();
        self.state_run(from, entrust.incarnation);
        let Some(peer) = self.peers.get_mut(&from) else { return };
        if entrust.before > POINT_INTRODUCTIONS.1 || self.claims.contains(&id) {
            return;
        }
        let incarnation = entrust.incarnation;
        if let Some(held) = peer.held.get_mut(&id) {
            held.holders = entrust.holders;
            held.incarnation = incarnation;
            return;
        }
        #[cfg(test)]
        let full = peer.held.len() >= MAX_HELD && !super::planted::planted(super::planted::Defect::EverythingHeld);
        #[cfg(not(test))]
        let full = peer.held.len() >= MAX_HELD;
        if full {
            // The owner rotates: what it gave first is what it needs least.
            let oldest = peer.held.iter().min_by_key(|(_, held)| held.since).map(|(id, _)| *id);
            if let Some(oldest) = oldest {
                peer.held.remove(&oldest);
            }
        }
        let origin = Origin::of(&id, &entrust.holders, self.me, peer.record().map(AsRef::as_ref));
        let held = Held {
            relay: entrust.relay,
            secrets: entrust.secrets,
            holders: entrust.holders,
            origin,
            tags: Vec::new(),
            before: entrust.before as usize,
            incarnation,
            since: now,
            away: Duration::ZERO,
            released: false,
            ready: None,
        };
        peer.held.insert(id, held);
    }

    pub(super) fn heard_tags(&mut self, from: OnionAddress, tags: Tags) {
        let Some(peer) = self.peers.get_mut(&from) else { return };
        let Some(held) = peer.held.get_mut(&tags.point) else { return };
        // What is here already came on an earlier link.
        let known = held.tags.len().saturating_sub(tags.first as usize);
        if tags.first as usize > held.tags.len() {
            return;
        }
        held.tags.extend(tags.tags.into_iter().skip(known));
        if held.tags.len() > POINT_INTRODUCTIONS.1 as usize {
            // An owner replaces its points before that. Without all marks nothing can be taken over.
            peer.held.remove(&tags.point);
        }
    }

    /// An owner asks whether its point is still its own.
    pub(super) fn asked(&mut self, from: OnionAddress, point: PointId, nonce: u64) {
        let now = self.now;
        let claimed = self.claims.contains(&point);
        let Some(peer) = self.peers.get_mut(&from) else { return };
        let answer = if claimed {
            Answer::Taken
        } else {
            // The owner asks, so it has come back to it.
            let delay = peer.plain_delay();
            if let Some(held) = peer.held.get_mut(&point) {
                held.away = now + delay;
            }
            Answer::KeepsAway(delay.as_millis() as u32)
        };
        self.send(from, Message::Promise { point, nonce, answer });
    }

    pub(super) fn released(&mut self, from: OnionAddress, point: PointId) {
        let Some(peer) = self.peers.get_mut(&from) else { return };
        if let Some(held) = peer.held.get_mut(&point) {
            held.released = true;
            self.hasten();
        }
    }

    pub(super) fn forget(&mut self, from: OnionAddress, point: PointId) {
        if let Some(peer) = self.peers.get_mut(&from) {
            peer.held.remove(&point);
        }
    }

    /// A member has claimed points. If they were given to both, they are not this node's to take. How many this node has lost by
    /// that.
    pub(super) fn heard_claims(&mut self, member: OnionAddress, claimed: &[PointId]) -> usize {
        let ceded = self.cede(member, claimed);
        self.trace(member);
        for peer in self.peers.values_mut() {
            peer.held.retain(|id, held| !(claimed.contains(id) && held.holders.contains(&member)));
        }
        // Both have claimed: the better one goes on.
        let me = self.me;
        let yields: Vec<_> = self
            .taken
            .iter()
            .filter(|taken| taken.state != TakenState::Up && claimed.contains(&taken.id))
            .filter(|taken| taken.holders.contains(&member) && first(&taken.id, &[member, me]) == Some(member))
            .map(|taken| taken.slot)
            .collect();
        for slot in yields {
            self.outputs.push_back(Output::Withdraw(slot));
            self.taken.retain(|taken| taken.slot != slot);
        }
        ceded
    }

    /// A member's record may tell where points come from that it has entrusted.
    fn trace(&mut self, member: OnionAddress) {
        let me = self.me;
        let Some(peer) = self.peers.get_mut(&member) else { return };
        let record = peer.record().cloned();
        for (id, held) in peer.held.iter_mut().filter(|(_, held)| held.origin == Origin::Nowhere) {
            held.origin = Origin::of(id, &held.holders, me, record.as_deref());
        }
    }

    /// Takes over what is this node's to take, and lets go of what nobody needs any more.
    pub(super) fn succeed(&mut self) {
        self.forget_old();
        self.retry_taken();
        #[cfg(test)]
        if super::planted::planted(super::planted::Defect::NothingTaken) {
            return;
        }
        if self.stopping.is_some() {
            return;
        }
        let (now, me) = (self.now, self.me);
        let lives = |member: &OnionAddress| self.peers.get(member).is_some_and(|peer| peer.is_alive());
        let mut mine = Vec::new();
        let mut waiting = Vec::new();
        for (owner, peer) in &self.peers {
            let dead = peer.life == super::liveness::Life::Dead;
            let lately = peer.heard().is_some_and(|heard| now.saturating_sub(heard) <= TAKEOVER_WINDOW);
            for (id, held) in &peer.held {
                let orphaned = (dead && lately) || held.released || peer.run() != Some(held.incarnation);
                if !orphaned || held.origin == Origin::Nowhere || held.away > now || held.tags.len() < held.before {
                    waiting.push((*owner, *id, None));
                    continue;
                }
                let since = held.ready.unwrap_or(now);
                waiting.push((*owner, *id, Some(since)));
                let alive: Vec<_> =
                    held.holders.iter().filter(|holder| **holder == me || lives(holder)).copied().collect();
                // Who should be first may have lost the secrets.
                let patient = now.saturating_sub(since) < peer.plain_delay();
                if held.released || first(id, &alive) == Some(me) || !patient {
                    mine.push((*owner, *id));
                }
            }
        }
        for (owner, id, ready) in waiting {
            if let Some(held) = self.peers.get_mut(&owner).and_then(|peer| peer.held.get_mut(&id)) {
                held.ready = ready;
            }
        }
        let mut slots = Vec::new();
        for (owner, id) in mine {
            if let Some(held) = self.peers.get_mut(&owner).and_then(|peer| peer.held.remove(&id)) {
                slots.push(self.claim(owner, id, held));
            }
        }
        if !slots.is_empty() {
            tracing::info!(count = slots.len(), "takes over points");
            // Others hear of the claims before they are acted upon.
            self.say_record();
        }
        slots.into_iter().for_each(|slot| self.establish_taken(slot));
        self.settle_deaths();
    }

    /// Tells of the deaths for which nothing is left to do.
    fn settle_deaths(&mut self) {
        let settled: Vec<_> = self.deaths.keys().filter(|member| !self.is_at_work_for(member)).copied().collect();
        for member in settled {
            if let Some(Death { points, gave_up }) = self.deaths.remove(&member) {
                self.outputs.push_back(Output::Notice(Notice::TookOver { member, points, gave_up }));
            }
        }
    }

    fn is_at_work_for(&self, member: &OnionAddress) -> bool {
        let waits = |held: &Held| held.ready.is_some();
        self.peers.get(member).is_some_and(|peer| peer.held.values().any(waits))
            || self.taken.iter().any(|taken| taken.owner == *member && taken.state != TakenState::Up)
    }

    fn claim(&mut self, owner: OnionAddress, id: PointId, held: Held) -> Slot {
        let slot = self.next_slot();
        self.claims.push_back(id);
        self.taken.push(Taken {
            slot,
            owner,
            origin: held.origin,
            id,
            relay: held.relay,
            secrets: held.secrets,
            tags: held.tags,
            holders: held.holders,
            state: TakenState::Establishing,
            tries: 1,
            since: self.now,
        });
        let origin = held.origin;
        self.crowd_out(origin.most_of_one(), |taken| taken.owner == owner && taken.origin == origin);
        self.crowd_out(MAX_TAKEN, |_| true);
        while self.claims.len() > MAX_CLAIMS {
            // What is still here must not be forgotten for the sake of what somebody gave up since.
            let gone = self.claims.iter().position(|id| self.taken.iter().all(|taken| taken.id != *id));
            self.claims.remove(gone.unwrap_or(0));
        }
        slot
    }

    /// Lets go of the oldest until so many are left of some that were taken over.
    fn crowd_out(&mut self, most: usize, of: impl Fn(&Taken) -> bool) {
        let mut some: Vec<_> =
            self.taken.iter().filter(|taken| of(taken)).map(|taken| (taken.since, taken.slot)).collect();
        some.sort_unstable();
        some.truncate(some.len().saturating_sub(most));
        for (_, slot) in some {
            self.outputs.push_back(Output::Withdraw(slot));
            self.taken.retain(|taken| taken.slot != slot);
        }
    }

    fn establish_taken(&mut self, slot: Slot) {
        let Some(taken) = self.taken.iter_mut().find(|taken| taken.slot == slot) else { return };
        taken.state = TakenState::Establishing;
        let seen = taken.tags.clone();
        #[cfg(test)]
        let seen = if super::planted::planted(super::planted::Defect::MarksIgnored) { Vec::new() } else { seen };
        let (place, secrets) = (Place::At(taken.relay), taken.secrets.clone());
        self.outputs.push_back(Output::Establish { slot, place, secrets, seen, until: None });
    }

    fn retry_taken(&mut self) {
        let now = self.now;
        let due: Vec<_> = self
            .taken
            .iter()
            .filter(|taken| matches!(taken.state, TakenState::Waiting(until) if until <= now))
            .map(|taken| taken.slot)
            .collect();
        for slot in due {
            self.next_id += 1;
            let fresh = Slot(self.next_id);
            if let Some(taken) = self.taken.iter_mut().find(|taken| taken.slot == slot) {
                taken.slot = fresh;
                taken.tries += 1;
            }
            self.establish_taken(fresh);
        }
    }

    /// Whether the slot is of a point that was taken over.
    pub(super) fn taken_established(&mut self, slot: Slot) -> bool {
        let Some(taken) = self.taken.iter_mut().find(|taken| taken.slot == slot) else { return false };
        taken.state = TakenState::Up;
        let owner = taken.owner;
        self.note_done(owner, |death| death.points += 1);
        true
    }

    fn note_done(&mut self, owner: OnionAddress, count: impl FnOnce(&mut Death)) {
        self.deaths.get_mut(&owner).map(count);
        self.hasten();
    }

    pub(super) fn taken_failed(&mut self, slot: Slot, why: NotEstablished) -> bool {
        let now = self.now;
        let Some(index) = self.taken.iter().position(|taken| taken.slot == slot) else { return false };
        let taken = &mut self.taken[index];
        if why == NotEstablished::Failed && taken.tries < TAKEOVER_TRIES {
            taken.state = TakenState::Waiting(now + TAKEOVER_RETRY);
        } else {
            let owner = self.taken.swap_remove(index).owner;
            self.note_done(owner, |death| death.gave_up += 1);
        }
        true
    }

    /// What a successor loses it gives up.
    pub(super) fn taken_closed(&mut self, slot: Slot) -> bool {
        let Some(index) = self.taken.iter().position(|taken| taken.slot == slot) else { return false };
        #[cfg(test)]
        if super::planted::planted(super::planted::Defect::FenceForgotten) {
            self.taken[index].state = TakenState::Waiting(self.now);
            return true;
        }
        self.taken.swap_remove(index);
        true
    }

    pub(super) fn taken_introduced(&mut self, slot: Slot, tag: Tag) {
        let Some(index) = self.taken.iter().position(|taken| taken.slot == slot) else { return };
        let taken = &mut self.taken[index];
        taken.tags.push(tag);
        if taken.tags.len() > POINT_INTRODUCTIONS.1 as usize {
            // Used up, as an own one would be. It is listed nowhere, so nothing takes its place.
            self.outputs.push_back(Output::Withdraw(slot));
            self.taken.swap_remove(index);
        }
    }

    /// The end of a clean stop: points of others go on to who stays, the latest first, each with all its marks. So descriptors
    /// of before a rolling restart still lead somewhere after it.
    pub(super) fn hand_on(&mut self, fit: &HashSet<OnionAddress>) {
        let mut room: BTreeMap<_, _> = fit.iter().map(|member| (*member, MAX_HANDED_ON)).collect();
        let mut taken = std::mem::take(&mut self.taken);
        taken.sort_by_key(|taken| std::cmp::Reverse(taken.since));
        for taken in taken {
            self.outputs.push_back(Output::Withdraw(taken.slot));
            let heirs: Vec<_> = room.iter().filter(|(_, left)| **left > 0).map(|(member, _)| *member).collect();
            let Some(heir) = first(&taken.id, &heirs).filter(|_| taken.state == TakenState::Up) else { continue };
            room.entry(heir).and_modify(|left| *left -= 1);
            let before = u32::try_from(taken.tags.len()).unwrap_or(u32::MAX);
            let (incarnation, relay, secrets, holders) = (self.incarnation, taken.relay, taken.secrets, vec![heir]);
            self.send(heir, Message::Entrust(Entrust { incarnation, relay, secrets, holders, before }));
            for (chunk, tags) in (0..).step_by(MAX_TAGS).zip(taken.tags.chunks(MAX_TAGS)) {
                self.send(heir, Message::Tags(Tags { point: taken.id, first: chunk, tags: tags.to_vec() }));
            }
            self.send(heir, Message::Release(taken.id));
        }
    }

    fn forget_old(&mut self) {
        let now = self.now;
        let expired: Vec<_> = self
            .taken
            .iter()
            .filter(|taken| now.saturating_sub(taken.since) >= TAKEN_LIFE)
            .map(|taken| taken.slot)
            .collect();
        for slot in expired {
            self.outputs.push_back(Output::Withdraw(slot));
            self.taken.retain(|taken| taken.slot != slot);
        }
        for peer in self.peers.values_mut() {
            let silent = peer.heard().is_none_or(|heard| now.saturating_sub(heard) >= FORGOTTEN);
            if silent {
                peer.held.clear();
            }
        }
    }

    /// How many points were taken over and are established.
    pub(super) fn count_taken(&self) -> usize {
        self.taken.iter().filter(|taken| taken.state == TakenState::Up).count()
    }

    /// How many points of others are kept, and how many marks of those.
    #[cfg(test)]
    pub(super) fn kept_of_others(&self) -> (usize, usize) {
        let held = self.peers.values().flat_map(|peer| peer.held.values());
        let tags = held.clone().map(|held| held.tags.len()).sum::<usize>();
        (held.count() + self.taken.len(), tags + self.taken.iter().map(|taken| taken.tags.len()).sum::<usize>())
    }
}

/// Which of a point's holders is the first to take it.
fn first(point: &PointId, holders: &[OnionAddress]) -> Option<OnionAddress> {
    holders.iter().min_by_key(|member| super::listing::score(b"successor", &point.0, member)).copied()
}
