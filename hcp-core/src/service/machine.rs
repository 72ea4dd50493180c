//! What a node of a replicated service decides: no I/O, no clock and no randomness of its own.
//!
//! The driver tells it what happened ([`Input`]) with both clocks, and carries out what it answers ([`Output`]). Time is
//! CLOCK_BOOTTIME, which goes on while a machine is suspended: all of what follows rests on that.
//!
//! # What is decided
//!
//! - **Liveness** ([`liveness`]): every peer is heard every half second. Who is silent is sought through the others, who pass
//!   on its signed pulses, so that nobody can say of somebody else that it lives. Delays follow measured round trips; who was
//!   wrongly declared dead gets a longer one for a while. Having been asleep says nothing of others.
//! - **Points** ([`points`]): so many of its own as fit into a descriptor with everybody's, at relays of their own; rotation;
//!   whatever replaces a point is published before the point goes. Nothing of this outlives the process: after a restart a
//!   node could not know that its points were not taken over, so it makes new ones.
//! - **Succession** ([`succession`]): the secrets of each point go to at most two successors, in memory, with the marks of what
//!   was accepted. When the owner is dead, restarted or has let go, the first of them establishes the point. Who leaves hands on
//!   what it has taken over, as it does its own.
//! - **Listing and publishing** ([`listing`], [`publishing`]): the same from the same records on every node; one publisher for
//!   each period by rendezvous hashing, the next one when it is silent or does not confirm.
//! - **Checks** ([`checking`]): a point that is not at its relay is not listed.
//! - **Probes** ([`probing`]): whose points do not answer is left out.
//!
//! # Fencing
//!
//! A relay gives a point to whoever establishes it last, so an owner that takes back what a successor has would cost clients.
//! An owner never establishes a point again after it was not heard, for half of the takeover delay, by somebody who has its
//! secrets: what was heard is echoed, and the moment at which the echoed heartbeat was sent is what counts. A point that
//! closes without such a silence is established again only once every holder has promised, since, to keep away for one
//! takeover delay, and within half of that; otherwise it is given up for one at another relay. What a successor loses it
//! gives up. What was claimed by one successor, another one never takes, but from its own hands, which have let go of it then:
//! claims are in signed records and reach everybody.
//! Only when a split parts the two successors from each other and from the owner, each takes the point, and the relay gives
//! it to the later; then what one has answered, the relay could replay to the other.
//!
//! # What a hostile member can do
//!
//! It is listed, so clients reach it: a share of new connections is its to drop. It can announce points that are not there until
//! their relays have said so ([`checking`]), and not answer at those that are until probes have told ([`probing`] says how long
//! that takes), and two that vouch for each other stay listed. It
//! cannot get more places than others, announce a point without knowing its secrets, speak for others, or keep a dead one
//! alive. As a successor it can take over the points that it was given without need, or not when there is need; then the
//! other successor waits for its claim before it acts. Who takes points of a node that it has just said it hears is given no
//! others by that node for a while; who feigns not to hear it is. If it publishes, it can upload whatever it likes and lock others out
//! until the period ends; the manifest says who may.

mod checking;
mod interface;
mod listing;
mod liveness;
#[cfg(test)]
pub(super) mod planted;
mod points;
mod probing;
mod publishing;
mod status;
mod succession;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::time::Duration;

#[cfg(feature = "testing")]
use rand::RngExt as _;
use rand::SeedableRng;
use rand::rngs::StdRng;

use self::checking::Checking;
pub(crate) use self::interface::{Input, NotEstablished, Notice, Output, Place, Slot, UploadId};
use self::liveness::Peer;
use self::points::Point;
use self::probing::Probing;
use self::publishing::Publishing;
pub(crate) use self::status::{Problem, Status};
use self::succession::Taken;
use super::gossip::{Message, Pulse, Record, Sign, SignedRecord};
use super::roster::{Role, Roster};
use super::tuning::{ASLEEP, GATHERING, LEAVING, MAX_POINTS, STOPPING, THOROUGH, TICK};
use crate::identity::OnionAddress;
#[cfg(feature = "testing")]
use crate::network::onion::PointSecrets;
use crate::network::onion::{DirectoryView, Period, PointId};

/// What a node is told once.
pub(crate) struct Config {
    pub(crate) service: OnionAddress,
    /// This node's own address; a member of the roster.
    pub(crate) me: OnionAddress,
    /// Signs with the key of `me`.
    pub(crate) sign: Sign,
    pub(crate) roster: Roster,
}

/// The state of one node.
pub(crate) struct Machine {
    service: OnionAddress,
    me: OnionAddress,
    sign: Sign,
    roster: Roster,
    rng: StdRng,
    /// CLOCK_BOOTTIME, and the wall clock in milliseconds since 1970, at the last input.
    now: Duration,
    wall: u64,
    started: Duration,
    /// When to look at everything.
    due: Duration,
    /// Something has changed since everything was looked at; when to do so all the same.
    changed: bool,
    thorough: Duration,
    peers: BTreeMap<OnionAddress, Peer>,
    points: Vec<Point>,
    tending: points::Tending,
    taken: Vec<Taken>,
    /// Deaths for which something may be left to do.
    deaths: BTreeMap<OnionAddress, succession::Death>,
    /// What this node has taken over, the oldest first, also when it has lost it since.
    claims: VecDeque<PointId>,
    view: DirectoryView,
    material: BTreeSet<Period>,
    publishing: BTreeMap<Period, Publishing>,
    listed: publishing::Listed,
    probing: Probing,
    checking: Checking,
    /// What is said of this node.
    record: Option<SignedRecord>,
    incarnation: u64,
    pulses: u64,
    /// The latest, made once for everybody.
    pulse: Option<Pulse>,
    heartbeat_at: Duration,
    /// Whom this node did not hear at the last heartbeat.
    unheard: Vec<OnionAddress>,
    gathered: bool,
    stopping: Option<Stopping>,
    outputs: VecDeque<Output>,
    next_id: u64,
    /// Points that nobody has, announced in the place of this node's own: what a hostile member would do.
    #[cfg(feature = "testing")]
    garbage: Vec<PointSecrets>,
}

/// How far a clean stop has come.
#[derive(Clone, Copy, Debug)]
enum Stopping {
    /// Until others have published without this node.
    Republishing(Duration),
    /// The points are gone.
    Leaving(Duration),
    Stopped,
}

impl Machine {
    /// Begins a run of the node. The seed must be unpredictable outside of tests: the secrets of points come from it.
    pub(crate) fn new(config: Config, now: Duration, wall: u64, seed: [u8; 32]) -> Self {
        let Config { service, me, sign, roster } = config;
        let mut machine = Self {
            service,
            me,
            sign,
            roster,
            rng: StdRng::from_seed(seed),
            now,
            wall,
            started: now,
            due: now,
            changed: true,
            thorough: now,
            peers: BTreeMap::new(),
            points: Vec::new(),
            tending: points::Tending::default(),
            taken: Vec::new(),
            deaths: BTreeMap::new(),
            claims: VecDeque::new(),
            view: DirectoryView::default(),
            material: BTreeSet::new(),
            publishing: BTreeMap::new(),
            listed: publishing::Listed::default(),
            probing: Probing::default(),
            checking: Checking::default(),
            record: None,
            incarnation: wall,
            pulses: 0,
            pulse: None,
            heartbeat_at: now,
            unheard: Vec::new(),
            gathered: false,
            stopping: None,
            outputs: VecDeque::new(),
            next_id: 0,
            #[cfg(feature = "testing")]
            garbage: Vec::new(),
        };
        machine.meet_members();
        machine
    }

    /// Takes what happened.
    pub(crate) fn handle(&mut self, now: Duration, wall: u64, input: Input) {
        self.notice_time(now, wall);
        match input {
            Input::Tick => {}
            Input::LinkUp(member) => self.link_up(member),
            Input::LinkDown(member) => self.link_down(member),
            Input::DialFailed(member) => self.dial_failed(member),
            Input::Message(member, message) => self.receive(member, message),
            Input::Established { slot, relay } => self.established(slot, relay),
            Input::EstablishFailed { slot, why } => self.establish_failed(slot, why),
            Input::Closed(slot) => self.closed(slot),
            Input::Introduced { slot, tag } => self.introduced(slot, tag),
            Input::View(view) => {
                self.view = view;
                self.hasten();
            }
            Input::RelayGone(relay) => self.relay_gone(relay),
            Input::Material(material) => {
                self.material = material;
                self.hasten();
            }
            Input::Uploaded { upload, report } => self.uploaded(upload, &report),
            Input::ProbeHeard { prober, nonce } => self.probe_heard(prober, nonce),
            Input::Checked { point, answer } => self.checked(&point, answer),
            Input::Roster(roster) => {
                self.roster = roster;
                self.meet_members();
                self.hasten();
            }
            Input::Shutdown => {
                if self.stopping.is_none() {
                    self.stopping = Some(Stopping::Republishing(self.now));
                    self.hasten();
                    self.act();
                }
            }
        }
        if self.now >= self.due {
            self.act();
        }
    }

    /// What is to be done next.
    pub(crate) fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When to be told [`Input::Tick`].
    pub(crate) fn poll_timeout(&self) -> Duration {
        self.due
    }

    /// Signs with the key of this node's own address.
    pub(crate) fn signer(&self) -> Sign {
        self.sign.clone()
    }

    /// The members, as the manifest last had them.
    pub(crate) fn roster(&self) -> &Roster {
        &self.roster
    }

    /// Takes both clocks. Whatever a sleep means is noticed before anything that was queued meanwhile is acted upon.
    fn notice_time(&mut self, now: Duration, wall: u64) {
        let slept = now.saturating_sub(self.now.max(self.due));
        self.now = self.now.max(now);
        self.wall = wall;
        if slept > ASLEEP {
            tracing::info!("this node was asleep");
            self.woke(slept);
        }
        self.fence();
    }

    /// Something has changed that others should hear of soon; a moment later, so that what changes together goes together.
    fn hasten(&mut self) {
        self.changed = true;
        self.due = self.due.min(self.now + HASTE);
    }

    /// Looks at everything that depends on time or on several things at once.
    fn act(&mut self) {
        self.judge();
        self.succeed();
        if std::mem::take(&mut self.changed) || self.now >= self.thorough {
            self.thorough = self.now + THOROUGH;
            self.gather();
            if self.stopping.is_none() {
                self.tend_points();
            }
            self.say_record();
            self.publish();
            self.retire_points();
            self.say_record();
            self.entrust();
            self.probe();
            self.check();
        }
        self.pass_marks();
        self.heartbeat();
        self.stop();
        // Heartbeats on time: what they echo is what fencing goes by.
        let due = (self.now + TICK).min(self.heartbeat_at);
        self.due = self.marks_wait().map_or(due, |marks| marks.min(due));
    }

    /// Knows all members, and nobody else.
    fn meet_members(&mut self) {
        let (me, now) = (self.me, self.now);
        for (member, _) in self.roster.iter().filter(|(member, _)| *member != me) {
            self.peers.entry(member).or_insert_with(|| Peer::new(member, now));
        }
        let gone: Vec<_> = self.peers.keys().filter(|peer| !self.roster.contains(peer)).copied().collect();
        for member in gone {
            // Its points stand in the descriptors.
            self.urge(member);
            self.peers.remove(&member);
            self.withdraw_trust(member);
        }
    }

    /// A node that starts publishes nothing before it knows the points of the others, or knows that it cannot. Who was heard and
    /// has died since is not waited for: it is its points that a new descriptor has to leave out.
    fn gather(&mut self) {
        if self.gathered {
            return;
        }
        let target = self.target();
        let ready = |peer: &Peer| peer.is_alive() && peer.record().is_some_and(|record| record.points.len() >= target);
        let own = self.points.iter().filter(|point| point.is_up()).count();
        #[cfg(test)]
        let target = if planted::planted(planted::Defect::NotGathered) { 0 } else { target };
        #[cfg(test)]
        let ready = |peer: &Peer| target == 0 || ready(peer);
        let died = |peer: &Peer| peer.life == liveness::Life::Dead && peer.heard().is_some();
        let complete = own >= target && self.peers.values().all(|peer| ready(peer) || died(peer));
        if complete || self.now.saturating_sub(self.started) >= GATHERING {
            self.gathered = true;
            self.hasten();
        }
    }

    /// How many points each node keeps.
    fn target(&self) -> usize {
        (self.roster.max_listed() / self.roster.len().max(1)).clamp(1, MAX_POINTS)
    }

    /// Says of this node what has changed, to everybody.
    fn say_record(&mut self) {
        let points = self.announced();
        let version = self.record.as_ref().map_or(0, |signed| signed.record().version);
        let mut record = Record {
            incarnation: self.incarnation,
            version,
            points: points.iter().filter_map(|point| point.description()).collect(),
            holds: self.holds(),
            publications: self.own_publications(),
            taken: self.claims.iter().copied().collect(),
            stopping: self.stopping.is_some(),
        };
        if self.record.as_ref().is_some_and(|signed| **signed.record() == record) {
            return;
        }
        record.version = version + 1;
        let proofs: Vec<_> = points.iter().filter_map(|point| point.proof()).collect();
        #[cfg(feature = "testing")]
        let proofs = self.lie(&mut record, proofs);
        let signed = SignedRecord::sign(self.service, self.me, record, &proofs, &self.sign);
        for (member, peer) in &self.peers {
            if peer.is_linked() {
                self.outputs.push_back(Output::Send(*member, Message::Record(signed.clone())));
            }
        }
        self.record = Some(signed);
    }

    /// From now on this node announces points that nobody has.
    #[cfg(feature = "testing")]
    pub(crate) fn announce_garbage(&mut self) {
        self.garbage = (0..MAX_POINTS).map(|_| PointSecrets::from_bytes(&self.rng.random())).collect();
        self.record = None;
        self.hasten();
    }

    #[cfg(feature = "testing")]
    fn lie(&self, record: &mut Record, proofs: Vec<[u8; 64]>) -> Vec<[u8; 64]> {
        if self.garbage.is_empty() {
            return proofs;
        }
        let lies =
            record.points.iter().zip(&self.garbage).map(|(point, secrets)| (secrets.describe(point.relay), secrets));
        let (points, proofs) = lies
            .map(|(point, secrets)| (point, super::gossip::prove_point(self.service, self.me, &point, secrets)))
            .unzip();
        record.points = points;
        proofs
    }

    /// The periods that others may expect this node to publish for.
    fn holds(&self) -> Vec<Period> {
        let is_publisher = self.roster.role(&self.me) == Some(Role::Publisher);
        if !self.gathered || !is_publisher {
            return Vec::new();
        }
        let mut holds: Vec<_> =
            self.view.periods.iter().map(|view| view.period).filter(|period| self.material.contains(period)).collect();
        holds.truncate(super::tuning::MAX_HOLDS);
        holds
    }

    /// Goes on with a clean stop.
    fn stop(&mut self) {
        match self.stopping {
            Some(Stopping::Republishing(since)) => {
                let others = self.peers.values().any(|peer| peer.is_alive() && !peer.is_stopping());
                if !others || self.is_published() || self.now.saturating_sub(since) >= STOPPING {
                    self.leave();
                    self.stopping = Some(Stopping::Leaving(self.now));
                }
            }
            Some(Stopping::Leaving(since)) if self.now.saturating_sub(since) >= LEAVING => {
                self.outputs.push_back(Output::Stopped);
                self.stopping = Some(Stopping::Stopped);
            }
            _ => {}
        }
    }

    /// What is kept, for bounds.
    #[cfg(test)]
    pub(super) fn kept(&self) -> Kept {
        let ((own, own_tags), (others, others_tags)) = (self.kept_own(), self.kept_of_others());
        let held_of_one = self.peers.values().map(|peer| peer.held.len()).max().unwrap_or(0);
        Kept { own, others, held_of_one, tags: own_tags + others_tags, outputs: self.outputs.len() }
    }

    fn next_slot(&mut self) -> Slot {
        self.next_id += 1;
        Slot(self.next_id)
    }

    fn send(&mut self, member: OnionAddress, message: Message) {
        if self.peers.get(&member).is_some_and(Peer::is_linked) {
            self.outputs.push_back(Output::Send(member, message));
        }
    }

    fn receive(&mut self, from: OnionAddress, message: Message) {
        if !self.peers.get(&from).is_some_and(Peer::is_linked) {
            return;
        }
        // A flood of introductions or of probes makes a member say these, and they may have waited behind each other while it
        // fell silent: its life it shows by what it says of itself.
        if !matches!(message, Message::Tags(_) | Message::Heard(_) | Message::Reached(_)) {
            self.heard(from);
        }
        match message {
            Message::Heartbeat(heartbeat) => self.heard_heartbeat(from, heartbeat),
            Message::Record(record) => self.heard_record(from, record),
            Message::Entrust(entrust) => self.entrusted(from, entrust),
            Message::Tags(tags) => self.heard_tags(from, tags),
            Message::Held(points) => self.heard_held(from, &points),
            Message::Ask { point, nonce } => self.asked(from, point, nonce),
            Message::Promise { point, nonce, answer } => self.promised(from, point, nonce, answer),
            Message::Release(point) => self.released(from, point),
            Message::Forget(point) => self.forget(from, point),
            Message::Heard(nonce) => self.probe_arrived(from, nonce),
            Message::Reached(member) => self.probe_told(from, member),
        }
    }
}

/// How much a machine keeps.
#[cfg(test)]
pub(super) struct Kept {
    /// Points of its own, and of others.
    pub(super) own: usize,
    pub(super) others: usize,
    pub(super) held_of_one: usize,
    pub(super) tags: usize,
    pub(super) outputs: usize,
}

impl fmt::Debug for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Machine")
            .field("peers", &self.peers.len())
            .field("points", &self.points.len())
            .field("taken", &self.taken.len())
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config").field("roster", &self.roster).finish_non_exhaustive()
    }
}

/// What changes within this is said together.
const HASTE: Duration = Duration::from_millis(20);
