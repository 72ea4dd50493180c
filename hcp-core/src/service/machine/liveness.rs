//! Who lives: by what is heard directly, and by pulses that others pass on.
//!
//! Nobody is dead who was heard within the takeover delay by this node, or within half of it by somebody who is linked with
//! both. A pulse counts only if it is later than every one known, and only its member can make it: a peer can keep pulses
//! back, and cannot make the dead live. Which run of its process this is a member says itself where there is a link with it;
//! what others have from a run with a later clock counts only where there is none.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use super::succession::{Death, Held};
use super::{Machine, Notice, Output};
use crate::identity::OnionAddress;
use crate::network::onion::{PointDescription, PointId};
use crate::service::gossip::{Echo, Heartbeat, Message, Pulse, Record, SignedRecord};
use crate::service::tuning::{
    ANSWER, CLOSED, CLOSED_ROUND_TRIPS, DEAD, DEAD_AT_MOST, DEAD_ROUND_TRIPS, FIRST_ROUND_TRIP, HEARTBEAT, HYSTERESIS,
    HYSTERESIS_LASTS, LEFT_OUT, MAX_SEEKING, MAX_SIGHTINGS, REDIAL, SUSPECT, SUSPECT_ROUND_TRIPS, TAKEN_LIFE,
};

/// How a peer stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Life {
    /// Not heard since this node started.
    Unknown,
    Alive,
    Dead,
}

/// Another member, as this node sees it.
#[derive(Debug)]
pub(super) struct Peer {
    member: OnionAddress,
    pub(super) life: Life,
    linked: bool,
    /// When the last link was lost, and whether an attempt to make a new one has failed since.
    closed: Option<Duration>,
    dial_failed: bool,
    /// When it was heard last.
    heard: Option<Duration>,
    /// The same, or when this node last woke: its silence is counted from there.
    counted: Duration,
    /// When a later pulse of it was passed on last.
    sighted: Option<Duration>,
    /// Which run of its process is the latest that is known.
    run: Option<u64>,
    /// What it has said itself on the present link.
    stated: Option<u64>,
    /// The latest pulse of that run, to be passed on.
    pulse: Option<Pulse>,
    /// Its last heartbeat, to be echoed: what it said, and when it came.
    echo: Option<(u64, Duration)>,
    /// It has heard this node at this time or later; the same as it said so on the present link.
    acked: Option<Duration>,
    confirmed: Option<Duration>,
    /// When it took what it had said was not to be taken.
    usurped: Option<Duration>,
    pub(super) round_trip: Option<Duration>,
    /// How far its wall clock is ahead, in milliseconds.
    pub(super) skew: Option<i64>,
    /// When it turned out to have lived all the time while it was held for dead.
    flapped: Option<Duration>,
    record: Option<SignedRecord>,
    /// When its points became known.
    pub(super) introduced: Option<Duration>,
    /// What it seeks, and which records it was given of those.
    seeks: BTreeSet<OnionAddress>,
    passed: BTreeMap<OnionAddress, (u64, u64)>,
    answered: Duration,
    redialled: Duration,
    /// Points of its own whose secrets this node holds.
    pub(super) held: BTreeMap<PointId, Held>,
    /// How sure it is that its points do not answer.
    pub(super) doubt: f64,
    /// A probe, this node's or a peer's, has arrived there in this run of it.
    pub(super) reached: bool,
    pub(super) left_out: Option<Duration>,
    /// When doubt was dropped last because another run of it began.
    pub(super) forgiven: Option<Duration>,
    pub(super) told: Duration,
    /// When a probe of its reached this node last.
    pub(super) probed: Option<Duration>,
    /// When something was published in a hurry because of it.
    pub(super) urged: Vec<Duration>,
    /// When relays were asked for its points.
    pub(super) checked: Vec<Duration>,
    /// The last points of its that were not there, and when relays said so last.
    pub(super) missing: Vec<(PointDescription, Duration)>,
}

impl Peer {
    pub(super) fn new(member: OnionAddress, now: Duration) -> Self {
        Self {
            member,
            life: Life::Unknown,
            linked: false,
            closed: None,
            dial_failed: false,
            heard: None,
            counted: now,
            sighted: None,
            run: None,
            stated: None,
            pulse: None,
            echo: None,
            acked: None,
            confirmed: None,
            usurped: None,
            round_trip: None,
            skew: None,
            flapped: None,
            record: None,
            introduced: None,
            seeks: BTreeSet::new(),
            passed: BTreeMap::new(),
            answered: Duration::ZERO,
            redialled: now,
            held: BTreeMap::new(),
            doubt: 0.0,
            reached: false,
            left_out: None,
            forgiven: None,
            told: Duration::ZERO,
            probed: None,
            urged: Vec::new(),
            checked: Vec::new(),
            missing: Vec::new(),
        }
    }

    pub(super) fn is_linked(&self) -> bool {
        self.linked
    }

    pub(super) fn is_alive(&self) -> bool {
        self.life == Life::Alive
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.record().is_some_and(|record| record.stopping)
    }

    pub(super) fn record(&self) -> Option<&Arc<Record>> {
        self.record.as_ref().map(SignedRecord::record)
    }

    pub(super) fn run(&self) -> Option<u64> {
        self.run
    }

    pub(super) fn acked(&self) -> Option<Duration> {
        self.acked
    }

    pub(super) fn heard(&self) -> Option<Duration> {
        self.heard
    }

    /// Whether it has said itself that it is another run.
    fn states_another(&self, incarnation: u64) -> bool {
        self.stated.is_some_and(|run| run != incarnation)
    }

    /// What was known of another run of its process counts no more; whether it had points that may be listed.
    fn forget_run(&mut self, incarnation: u64, now: Duration) -> bool {
        self.pulse = None;
        self.acked = None;
        self.flapped = None;
        self.reached = false;
        self.forgive(now);
        if self.record().is_none_or(|record| record.incarnation == incarnation) {
            return false;
        }
        self.introduced = None;
        self.record.take().is_some_and(|record| !record.record().points.is_empty())
    }

    /// Another run may answer where the last one did not. One that says again and again that it has just begun does not get out
    /// of doubt by that.
    fn forgive(&mut self, now: Duration) {
        if self.forgiven.is_none_or(|at| now.saturating_sub(at) >= LEFT_OUT) {
            self.forgiven = Some(now);
            self.doubt = 0.0;
            self.left_out = None;
        }
    }

    /// Whether what it has said on the present link shows that it cannot hold this node for dead: whatever it says next it says
    /// after that.
    fn hears_me(&self, now: Duration) -> bool {
        self.confirmed.is_some_and(|at| now.saturating_sub(at) <= self.plain_delay() / 2)
    }

    /// Whether it took a point of this node lately although it heard it.
    pub(super) fn is_usurper(&self, now: Duration) -> bool {
        self.usurped.is_some_and(|at| now.saturating_sub(at) < TAKEN_LIFE)
    }

    fn measured(&self) -> Duration {
        self.round_trip.unwrap_or(FIRST_ROUND_TRIP)
    }

    fn suspect_after(&self) -> Duration {
        (self.measured() * SUSPECT_ROUND_TRIPS).max(SUSPECT).min(self.plain_delay())
    }

    /// The takeover delay before hysteresis: what the other side is sure to wait, unless it sees a closed link.
    pub(super) fn plain_delay(&self) -> Duration {
        (self.measured() * DEAD_ROUND_TRIPS).clamp(DEAD, DEAD_AT_MOST)
    }

    /// The takeover delay.
    pub(super) fn delay(&self, now: Duration) -> Duration {
        let lately = self.flapped.is_some_and(|flapped| now.saturating_sub(flapped) < HYSTERESIS_LASTS);
        let factor = if lately { HYSTERESIS } else { 1 };
        (self.plain_delay() * factor).min(DEAD_AT_MOST)
    }

    /// How long it may stay away after its link has closed.
    fn closed_delay(&self, now: Duration, i_dial: bool) -> Duration {
        let first = (self.measured() * CLOSED_ROUND_TRIPS).max(CLOSED);
        let wait = match (i_dial, self.dial_failed) {
            (true, true) => first,
            // An attempt that neither succeeds nor fails says nothing yet.
            (true, false) => self.delay(now),
            // It would have come back by now.
            (false, _) => first * 2,
        };
        wait.min(self.delay(now))
    }

    fn silent_for(&self, now: Duration) -> Duration {
        now.saturating_sub(self.counted)
    }
}

impl Machine {
    pub(super) fn link_up(&mut self, member: OnionAddress) {
        let Some(peer) = self.peers.get_mut(&member) else { return };
        peer.linked = true;
        peer.stated = None;
        peer.confirmed = None;
        peer.closed = None;
        peer.dial_failed = false;
        peer.echo = None;
        peer.redialled = self.now;
        peer.passed.clear();
        peer.seeks.clear();
        let held = peer.held.iter().filter(|(_, held)| held.is_current()).map(|(id, held)| (*id, held.count()));
        let held: Vec<_> = held.collect();
        if let Some(record) = self.record.clone() {
            self.send(member, Message::Record(record));
        }
        self.send(member, Message::Held(held));
        self.heartbeat_at = self.now;
        self.hasten();
    }

    pub(super) fn link_down(&mut self, member: OnionAddress) {
        let now = self.now;
        let Some(peer) = self.peers.get_mut(&member).filter(|peer| peer.linked) else { return };
        peer.linked = false;
        peer.stated = None;
        peer.confirmed = None;
        peer.dial_failed = false;
        peer.closed = Some(now);
        peer.seeks.clear();
        self.hasten();
    }

    pub(super) fn dial_failed(&mut self, member: OnionAddress) {
        if let Some(peer) = self.peers.get_mut(&member).filter(|peer| !peer.linked) {
            peer.dial_failed = true;
            self.hasten();
        }
    }

    /// A member said something of itself, over a stream with it: it lives, whatever it says and whichever run of it this is. What it
    /// entrusts must not be taken from it because of a death before.
    pub(super) fn heard(&mut self, member: OnionAddress) {
        let now = self.now;
        let Some(peer) = self.peers.get_mut(&member) else { return };
        peer.heard = Some(now);
        peer.counted = now;
        if peer.life == Life::Dead {
            peer.life = Life::Alive;
            peer.flapped = Some(now);
            tracing::info!("a member is there again");
            self.outputs.push_back(Output::Notice(Notice::Returned(member)));
            self.hasten();
        }
    }

    pub(super) fn heard_heartbeat(&mut self, from: OnionAddress, heartbeat: Heartbeat) {
        let (now, wall) = (self.now, self.wall);
        if heartbeat.pulse.member() != from {
            return;
        }
        self.state_run(from, heartbeat.pulse.place().0);
        self.see(&heartbeat.pulse);
        for pulse in &heartbeat.sightings {
            if pulse.member() != self.me && self.see(pulse) {
                let peer = self.peers.get_mut(&pulse.member());
                peer.expect("a pulse is seen of a peer only").sighted = Some(now);
            }
        }
        let peer = self.peers.get_mut(&from).expect("who is linked is a peer");
        peer.echo = Some((heartbeat.sent, now));
        if let Some(Echo { sent, held }) = heartbeat.echo {
            let sent = Duration::from_millis(sent);
            let held = Duration::from_millis(held);
            // What was not sent yet cannot be echoed.
            if sent <= now && held <= now - sent {
                peer.acked = peer.acked.max(Some(sent));
                peer.confirmed = peer.confirmed.max(Some(sent));
                let measured = now - sent - held;
                peer.round_trip = Some(peer.round_trip.map_or(measured, |old| (old * 7 + measured) / 8));
            }
        }
        let ahead = i128::from(heartbeat.wall) + (peer.measured() / 2).as_millis() as i128 - i128::from(wall);
        peer.skew = Some(i64::try_from(ahead).unwrap_or(if ahead < 0 { i64::MIN } else { i64::MAX }));
        peer.seeks = heartbeat.seeking.into_iter().collect();
        let answers = !peer.seeks.is_empty() && now.saturating_sub(peer.answered) >= ANSWER;
        if answers {
            peer.answered = now;
            self.answer(from);
        }
    }

    /// Takes a pulse; whether it is later than every one known.
    fn see(&mut self, pulse: &Pulse) -> bool {
        let (now, (incarnation, _)) = (self.now, pulse.place());
        let Some(peer) = self.peers.get(&pulse.member()) else { return false };
        let stale = peer.pulse.as_ref().is_some_and(|known| known.place() >= pulse.place());
        if stale || peer.run > Some(incarnation) || peer.states_another(incarnation) {
            return false;
        }
        let restarted = peer.run.is_some_and(|run| run != incarnation);
        self.note_run(pulse.member(), incarnation);
        let Some(peer) = self.peers.get_mut(&pulse.member()) else { return false };
        let was = peer.life;
        peer.pulse = Some(pulse.clone());
        peer.life = Life::Alive;
        if was == Life::Dead && !restarted {
            peer.flapped = Some(now);
        }
        if was == Life::Dead {
            self.outputs.push_back(Output::Notice(Notice::Returned(pulse.member())));
        }
        if was != Life::Alive {
            tracing::info!("a member is there");
            self.hasten();
        }
        true
    }

    /// A member says that this is its run. That counts also when it is an earlier one than was known: its clock was set back
    /// between the two.
    pub(super) fn state_run(&mut self, member: OnionAddress, incarnation: u64) {
        if let Some(peer) = self.peers.get_mut(&member).filter(|peer| peer.linked) {
            peer.stated = Some(incarnation);
        }
        self.note_run(member, incarnation);
    }

    /// A member has said, or signed, that this is its run.
    fn note_run(&mut self, member: OnionAddress, incarnation: u64) {
        let Some(peer) = self.peers.get_mut(&member) else { return };
        if peer.run == Some(incarnation) {
            return;
        }
        let known = peer.run.replace(incarnation).is_some();
        // Who was held for dead is not listed any more: that it begins again is no second failure.
        let listed = self.listed.members.contains_key(&member);
        if known && peer.forget_run(incarnation, self.now) && listed {
            self.urge(member);
        }
        self.hasten();
    }

    /// Tells a member what is known of those whom it seeks.
    fn answer(&mut self, to: OnionAddress) {
        let heartbeat = self.heartbeat_to(to, &self.unheard);
        self.send(to, Message::Heartbeat(heartbeat));
        let Some(peer) = self.peers.get(&to) else { return };
        let newer: Vec<SignedRecord> = peer
            .seeks
            .iter()
            .filter(|sought| **sought != to)
            .filter_map(|sought| self.peers.get(sought)?.record.clone())
            .filter(|record| peer.passed.get(&record.member()) < Some(&place(record)))
            .collect();
        for record in newer {
            if let Some(peer) = self.peers.get_mut(&to) {
                peer.passed.insert(record.member(), place(&record));
            }
            self.send(to, Message::Record(record));
        }
    }

    pub(super) fn heard_record(&mut self, from: OnionAddress, record: SignedRecord) {
        let (now, member) = (self.now, record.member());
        let Some(peer) = self.peers.get_mut(&member) else { return };
        let (known, new) = (peer.record.as_ref().map(place), place(&record));
        // Of its run a member knows best, even when its clock was set back.
        let other_run = known.is_some_and(|(incarnation, _)| incarnation != new.0);
        let stale = if member == from && other_run { false } else { known >= Some(new) };
        if stale || (member != from && (peer.run > Some(new.0) || peer.states_another(new.0))) {
            return;
        }
        if member == from {
            self.state_run(member, new.0);
        } else {
            self.note_run(member, new.0);
        }
        let Some(peer) = self.peers.get_mut(&member) else { return };
        if !record.record().points.is_empty() && peer.introduced.is_none() {
            peer.introduced = Some(now);
        }
        let stops = record.record().stopping && !peer.is_stopping();
        peer.record = Some(record.clone());
        if stops {
            self.urge(member);
        }
        let ceded = self.heard_claims(member, &record.record().taken);
        if ceded > 0 && member == from {
            self.judge_claim(member);
        }
        self.avoid_collision(member, &record.record().points);
        self.hasten();
        // Those who do not hear it themselves.
        let seekers: Vec<_> = self
            .peers
            .iter()
            .filter(|(_, peer)| peer.linked && peer.seeks.contains(&member))
            .map(|(m, _)| *m)
            .collect();
        for seeker in seekers {
            if seeker != from
                && let Some(peer) = self.peers.get_mut(&seeker)
            {
                peer.passed.insert(member, place(&record));
                self.send(seeker, Message::Record(record.clone()));
            }
        }
    }

    /// A member says that it has taken over points of this node. Who has just confirmed that it hears this node did so without
    /// need: it is given no others for as long as it may keep these.
    fn judge_claim(&mut self, member: OnionAddress) {
        let now = self.now;
        let Some(peer) = self.peers.get_mut(&member).filter(|peer| peer.hears_me(now)) else { return };
        tracing::warn!("a member has taken over points of this node although it hears it");
        peer.usurped = Some(now);
        self.withdraw_trust(member);
    }

    /// This node was asleep: silence before that is nobody's.
    pub(super) fn woke(&mut self, slept: Duration) {
        for peer in self.peers.values_mut() {
            peer.counted = self.now;
            peer.closed = peer.closed.map(|_| self.now);
        }
        #[cfg(test)]
        if super::planted::planted(super::planted::Defect::SleepForgotten) {
            for peer in self.peers.values_mut() {
                peer.counted = peer.heard.unwrap_or_default();
            }
            return;
        }
        if slept <= DEAD / 2 {
            return;
        }
        // Others may have taken over what this node could: it has to be given the secrets anew.
        for peer in self.peers.values_mut() {
            peer.held.clear();
        }
        let linked: Vec<_> = self.peers.iter().filter(|(_, peer)| peer.linked).map(|(member, _)| *member).collect();
        for member in linked {
            self.send(member, Message::Held(Vec::new()));
        }
    }

    /// Decides who is dead.
    pub(super) fn judge(&mut self) {
        let (now, me) = (self.now, self.me);
        #[cfg(test)]
        if super::planted::planted(super::planted::Defect::DeathUnnoticed) {
            return;
        }
        let mut died = Vec::new();
        let mut redial = Vec::new();
        for (member, peer) in &mut self.peers {
            if peer.linked && peer.silent_for(now) >= REDIAL && now.saturating_sub(peer.redialled) >= REDIAL {
                peer.redialled = now;
                redial.push(*member);
            }
            if peer.life != Life::Alive {
                continue;
            }
            let wait = match peer.closed {
                Some(closed) => {
                    let wait = peer.closed_delay(now, me < *member);
                    if now.saturating_sub(closed) < wait && peer.silent_for(now) < peer.delay(now) {
                        continue;
                    }
                    wait.min(peer.delay(now) / 2)
                }
                None if peer.silent_for(now) < peer.delay(now) => continue,
                None => peer.delay(now) / 2,
            };
            if peer.sighted.is_some_and(|sighted| now.saturating_sub(sighted) < wait) {
                continue;
            }
            peer.life = Life::Dead;
            died.push((*member, peer.record().is_some_and(|record| !record.points.is_empty())));
        }
        self.outputs.extend(redial.into_iter().map(Output::Redial));
        for (member, listed) in died {
            tracing::warn!("a member is held for dead");
            self.outputs.push_back(Output::Notice(Notice::Died(member)));
            self.deaths.insert(member, Death::default());
            if listed {
                self.urge(member);
            }
        }
    }

    /// Tells everybody that this node lives, when it is time.
    pub(super) fn heartbeat(&mut self) {
        if self.now < self.heartbeat_at {
            return;
        }
        self.heartbeat_at = self.now + HEARTBEAT;
        self.pulses += 1;
        self.pulse = Some(Pulse::sign(self.service, self.me, self.incarnation, self.pulses, &self.sign));
        let linked: Vec<_> = self.peers.iter().filter(|(_, peer)| peer.linked).map(|(member, _)| *member).collect();
        let unheard = self.silent();
        self.unheard.clone_from(&unheard);
        for member in linked {
            let heartbeat = self.heartbeat_to(member, &unheard);
            self.send(member, Message::Heartbeat(heartbeat));
        }
    }

    /// Whom this node does not hear, the latest first.
    fn silent(&self) -> Vec<OnionAddress> {
        let now = self.now;
        // A link that is silent says as much as none.
        let unheard = |peer: &&Peer| !peer.linked || peer.silent_for(now) >= peer.suspect_after();
        let mut unheard: Vec<_> = self.peers.values().filter(unheard).collect();
        unheard.sort_by_key(|peer| std::cmp::Reverse(peer.heard));
        unheard.into_iter().map(|peer| peer.member).collect()
    }

    fn heartbeat_to(&self, to: OnionAddress, unheard: &[OnionAddress]) -> Heartbeat {
        let now = self.now;
        let peer = self.peers.get(&to);
        let sightings = peer.into_iter().flat_map(|peer| &peer.seeks).filter_map(|sought| {
            let sought = self.peers.get(sought)?;
            // What is passed on was heard on a link, or seen lately.
            sought.pulse.clone().filter(|_| sought.life == Life::Alive)
        });
        Heartbeat {
            sent: now.as_millis() as u64,
            echo: peer
                .and_then(|peer| peer.echo)
                .map(|(sent, came)| Echo { sent, held: now.saturating_sub(came).as_millis() as u64 }),
            wall: self.wall,
            pulse: self
                .pulse
                .clone()
                .unwrap_or_else(|| Pulse::sign(self.service, self.me, self.incarnation, self.pulses, &self.sign)),
            seeking: unheard.iter().copied().filter(|other| *other != to).take(MAX_SEEKING).collect(),
            sightings: sightings.take(MAX_SIGHTINGS).collect(),
        }
    }
}

/// Which of two records of one member is the later.
fn place(record: &SignedRecord) -> (u64, u64) {
    (record.record().incarnation, record.record().version)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::Identity;

    #[test]
    fn the_takeover_delay_follows_round_trips_within_bounds() {
        let now = Duration::from_secs(1_000);
        let mut peer = Peer::new(Identity::from_seed(&[1; 32]).address(), now);
        let ms = Duration::from_millis;
        for (round_trip, delay) in [(0, DEAD), (100, DEAD), (450, ms(4_500)), (5_000, DEAD_AT_MOST)] {
            peer.round_trip = Some(ms(round_trip));
            assert_eq!(peer.delay(now), delay, "{round_trip} ms");
        }
        peer.round_trip = Some(ms(100));
        peer.flapped = Some(now);
        assert_eq!(peer.delay(now), DEAD * HYSTERESIS);
        assert_eq!(peer.delay(now + HYSTERESIS_LASTS), DEAD);
    }
}
