//! Who lives: by what is heard directly, and by pulses that others pass on.
//!
//! Nobody is dead who was heard within the takeover delay by this node, or within half of it by somebody who is linked with
//! both. A pulse counts only if it is later than every one known, and only its member can make it: a peer can keep pulses
//! back, and cannot make the dead live.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use super::succession::{Death, Held};
use super::{Machine, Notice, Output};
use crate::identity::OnionAddress;
use crate::network::onion::PointId;
use crate::service::gossip::{Echo, Heartbeat, Message, Pulse, Record, SignedRecord};
use crate::service::tuning::{
    ANSWER, CLOSED, CLOSED_ROUND_TRIPS, DEAD, DEAD_AT_MOST, DEAD_ROUND_TRIPS, FIRST_ROUND_TRIP, HEARTBEAT, HYSTERESIS,
    HYSTERESIS_LASTS, MAX_SEEKING, MAX_SIGHTINGS, REDIAL, SUSPECT, SUSPECT_ROUND_TRIPS,
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
    /// Its latest pulse, to be passed on; of all that are known.
    pulse: Option<Pulse>,
    /// Its last heartbeat, to be echoed: what it said, and when it came.
    echo: Option<(u64, Duration)>,
    /// It has heard this node at this time or later.
    acked: Option<Duration>,
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
    pub(super) told: Duration,
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
            pulse: None,
            echo: None,
            acked: None,
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
            told: Duration::ZERO,
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

    /// Which run of its process is the latest that is known.
    pub(super) fn incarnation(&self) -> u64 {
        self.pulse.as_ref().map_or(0, |pulse| pulse.place().0)
    }

    pub(super) fn acked(&self) -> Option<Duration> {
        self.acked
    }

    pub(super) fn heard(&self) -> Option<Duration> {
        self.heard
    }

    /// What was known of another run of its process counts no more; whether it had points that may be listed.
    fn forget_run(&mut self, incarnation: u64) -> bool {
        self.acked = None;
        self.flapped = None;
        self.doubt = 0.0;
        self.reached = false;
        self.left_out = None;
        if self.record().is_none_or(|record| record.incarnation == incarnation) {
            return false;
        }
        self.introduced = None;
        self.record.take().is_some_and(|record| !record.record().points.is_empty())
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

    /// Something came from a member.
    pub(super) fn heard(&mut self, member: OnionAddress) {
        let now = self.now;
        if let Some(peer) = self.peers.get_mut(&member) {
            peer.heard = Some(now);
            peer.counted = now;
        }
    }

    pub(super) fn heard_heartbeat(&mut self, from: OnionAddress, heartbeat: Heartbeat) {
        let (now, wall) = (self.now, self.wall);
        if heartbeat.pulse.member() != from {
            return;
        }
        self.disown_later_run(from, heartbeat.pulse.place().0);
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
        let now = self.now;
        let Some(peer) = self.peers.get_mut(&pulse.member()) else { return false };
        let known = peer.pulse.as_ref().map(Pulse::place);
        if known >= Some(pulse.place()) {
            return false;
        }
        let restarted = known.is_some_and(|(incarnation, _)| incarnation != pulse.place().0);
        let lost = restarted && peer.forget_run(pulse.place().0);
        let was = peer.life;
        peer.pulse = Some(pulse.clone());
        peer.life = Life::Alive;
        if was == Life::Dead && !restarted {
            peer.flapped = Some(now);
        }
        if was == Life::Dead {
            self.outputs.push_back(Output::Notice(Notice::Returned(pulse.member())));
        }
        if was != Life::Alive || restarted {
            tracing::info!(restarted, "a member is there");
            self.hasten();
        }
        if lost {
            self.urge();
        }
        true
    }

    /// A member says itself that its run is another one than the latest known: its clock was set back between the two.
    fn disown_later_run(&mut self, member: OnionAddress, incarnation: u64) {
        let Some(peer) = self.peers.get_mut(&member) else { return };
        if peer.pulse.as_ref().is_some_and(|pulse| pulse.place().0 > incarnation) {
            peer.pulse = None;
            if peer.forget_run(incarnation) {
                self.urge();
            }
        }
    }

    /// Tells a member what is known of those whom it seeks.
    fn answer(&mut self, to: OnionAddress) {
        let heartbeat = self.heartbeat_to(to);
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
        if stale || (member != from && new.0 < peer.incarnation()) {
            return;
        }
        if other_run && peer.forget_run(new.0) {
            self.urge();
        }
        let Some(peer) = self.peers.get_mut(&member) else { return };
        if !record.record().points.is_empty() && peer.introduced.is_none() {
            peer.introduced = Some(now);
        }
        let stops = record.record().stopping && !peer.is_stopping();
        peer.record = Some(record.clone());
        if stops {
            self.urge();
        }
        self.heard_claims(member, &record.record().taken);
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
                self.urge();
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
        for member in linked {
            let heartbeat = self.heartbeat_to(member);
            self.send(member, Message::Heartbeat(heartbeat));
        }
    }

    fn heartbeat_to(&self, to: OnionAddress) -> Heartbeat {
        let now = self.now;
        let peer = self.peers.get(&to);
        // A link that is silent says as much as none.
        let unheard = |peer: &Peer| !peer.linked || peer.silent_for(now) >= peer.suspect_after();
        let mut seeking: Vec<_> = self.peers.values().filter(|other| other.member != to && unheard(other)).collect();
        seeking.sort_by_key(|other| std::cmp::Reverse(other.heard));
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
            seeking: seeking.into_iter().take(MAX_SEEKING).map(|other| other.member).collect(),
            sightings: sightings.take(MAX_SIGHTINGS).collect(),
        }
    }
}

/// Which of two records of one member is the later.
fn place(record: &SignedRecord) -> (u64, u64) {
    (record.record().incarnation, record.record().version)
}
