//! One machine, told by hand what happens.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::*;
use crate::identity::{DiscoveryKey, Identity};
use crate::network::onion::{PeriodView, PointDescription, RelayId, UploadReport};
use crate::service::gossip::{Answer, Echo, Entrust, Heartbeat, Tags};
use crate::service::tuning::{
    COLLISION, MAX_DOUBT, MAX_HELD, POINT_LIFE, PROBE, PROMISES, REACHED, RETIRING, REUPLOAD, TAKEOVER_WINDOW,
};

const WALL: u64 = 1_790_000_000;

fn address(seed: u8) -> OnionAddress {
    Identity::from_seed(&[seed; 32]).address()
}

fn period(after: u64) -> Period {
    // The one that holds the wall clock's present.
    Period { number: (WALL - 43_200) / 86_400 + after, length: 1_440, offset: 43_200 }
}

fn unsigned() -> Sign {
    Arc::new(|_| [0; 64])
}

struct Harness {
    machine: Machine,
    now: Duration,
    wall: u64,
    peers: Vec<OnionAddress>,
    counts: BTreeMap<OnionAddress, u64>,
    /// What the machine last sent to each.
    sent: BTreeMap<OnionAddress, u64>,
    /// Peers that are heard from.
    alive: Vec<OnionAddress>,
    relays: u8,
    outputs: Vec<Output>,
    up: BTreeMap<Slot, RelayId>,
    uploads: Vec<(Duration, usize)>,
}

impl Harness {
    fn new(peers: u8) -> Self {
        let peers: Vec<_> = (0..peers).map(|peer| address(20 + peer)).collect();
        let me = address(10);
        let members = peers.iter().copied().chain([me]).map(|member| (member, Role::Publisher));
        let config = Config { service: address(1), me, sign: unsigned(), roster: Roster::new(members).unwrap() };
        let now = Duration::from_secs(5_000);
        let machine = Machine::new(config, now, WALL * 1_000, [3; 32]);
        let mut harness = Self {
            machine,
            now,
            wall: WALL * 1_000,
            alive: peers.clone(),
            peers,
            counts: BTreeMap::new(),
            sent: BTreeMap::new(),
            relays: 0,
            outputs: Vec::new(),
            up: BTreeMap::new(),
            uploads: Vec::new(),
        };
        harness.tell(Input::Material((0..3).map(period).collect()));
        let directories: Vec<_> = (0..6).map(|index| RelayId([200 + index; 32])).collect();
        let views = [0, 1].map(|after| PeriodView { period: period(after), directories: directories.clone() });
        harness.tell(Input::View(DirectoryView { periods: views.to_vec() }));
        for peer in harness.peers.clone() {
            harness.tell(Input::LinkUp(peer));
        }
        harness
    }

    fn tell(&mut self, input: Input) {
        self.machine.handle(self.now, self.wall, input);
        while let Some(output) = self.machine.poll_output() {
            match &output {
                Output::Establish { slot, place, .. } => {
                    let relay = match place {
                        Place::At(relay) => *relay,
                        Place::Choose { .. } => {
                            self.relays += 1;
                            RelayId([self.relays; 32])
                        }
                    };
                    self.up.insert(*slot, relay);
                    self.machine.handle(self.now, self.wall, Input::Established { slot: *slot, relay });
                }
                Output::Withdraw(slot) => {
                    self.up.remove(slot);
                }
                Output::Upload { upload, listings, .. } => {
                    self.uploads.push((self.now, listings.iter().map(|(_, points)| points.len()).sum()));
                    let accepted = listings.iter().flat_map(|(at, _)| at.iter().copied()).collect();
                    let report = UploadReport { accepted, ..UploadReport::default() };
                    self.machine.handle(self.now, self.wall, Input::Uploaded { upload: *upload, report });
                }
                Output::Send(to, Message::Heartbeat(heartbeat)) => {
                    self.sent.insert(*to, heartbeat.sent);
                    continue;
                }
                _ => {}
            }
            self.outputs.push(output);
        }
    }

    fn beat(&mut self, peer: OnionAddress) {
        let count = self.counts.entry(peer).or_default();
        *count += 1;
        let heartbeat = Heartbeat {
            sent: *count,
            echo: self.sent.get(&peer).map(|sent| Echo { sent: *sent, held: self.now.as_millis() as u64 - sent }),
            wall: self.wall,
            pulse: Pulse::sign(address(1), peer, 1, *count, &unsigned()),
            seeking: Vec::new(),
            sightings: Vec::new(),
        };
        self.tell(Input::Message(peer, Message::Heartbeat(heartbeat)));
    }

    /// Lets time pass in steps of a quarter second; those who live are heard.
    fn pass(&mut self, time: Duration) {
        let until = self.now + time;
        while self.now < until {
            self.step(Duration::from_millis(250));
        }
    }

    fn step(&mut self, by: Duration) {
        self.now += by;
        self.wall += by.as_millis() as u64;
        for peer in self.alive.clone() {
            self.beat(peer);
        }
        self.tell(Input::Tick);
    }

    /// Hours, with a look now and then; nobody is asked whether anybody lives.
    fn pass_alone(&mut self, time: Duration) {
        assert!(self.alive.is_empty());
        let until = self.now + time;
        while self.now < until {
            self.step(Duration::from_secs(20).min(until - self.now));
        }
    }

    fn take(&mut self) -> Vec<Output> {
        std::mem::take(&mut self.outputs)
    }

    fn record(&mut self, peer: OnionAddress, version: u64, points: Vec<PointDescription>) {
        let record = Record {
            incarnation: 1,
            version,
            points,
            holds: Vec::new(),
            publications: Vec::new(),
            taken: Vec::new(),
            stopping: false,
        };
        let signed = SignedRecord::sign(address(1), peer, record, &[], &unsigned());
        self.tell(Input::Message(peer, Message::Record(signed)));
    }
}

/// Two peers, and points whose secrets both have.
fn settled() -> Harness {
    let mut harness = Harness::new(2);
    harness.pass(Duration::from_secs(5));
    assert_eq!(harness.up.len(), 3);
    harness
}

fn asked(outputs: &[Output]) -> Vec<(OnionAddress, PointId, u64)> {
    let asked = outputs.iter().filter_map(|output| match output {
        Output::Send(to, Message::Ask { point, nonce }) => Some((*to, *point, *nonce)),
        _ => None,
    });
    asked.collect()
}

fn established_at(outputs: &[Output]) -> Vec<(RelayId, Option<Duration>)> {
    let at = outputs.iter().filter_map(|output| match output {
        Output::Establish { place: Place::At(relay), until, .. } => Some((*relay, *until)),
        _ => None,
    });
    at.collect()
}

#[test]
fn secrets_go_to_two_successors_and_no_more() {
    let mut harness = Harness::new(4);
    harness.pass(Duration::from_secs(130));
    let mut holders: BTreeMap<PointId, BTreeSet<OnionAddress>> = BTreeMap::new();
    for output in harness.take() {
        if let Output::Send(to, Message::Entrust(entrust)) = output {
            holders.entry(entrust.secrets.id()).or_default().insert(to);
        }
    }
    assert_eq!(holders.len(), 3);
    assert!(holders.values().all(|to| to.len() == 2));
}

#[test]
fn a_point_that_closes_is_established_again_only_when_all_holders_promise() {
    let mut harness = settled();
    let (slot, relay) = harness.up.iter().next().map(|(slot, relay)| (*slot, *relay)).unwrap();
    harness.take();
    harness.up.remove(&slot);
    harness.tell(Input::Closed(slot));
    let questions = asked(&harness.take());
    assert_eq!(questions.len(), 2);
    let answer = Answer::KeepsAway(3_000);
    let (first, point, nonce) = questions[0];
    harness.tell(Input::Message(first, Message::Promise { point, nonce, answer }));
    assert!(established_at(&harness.take()).is_empty());
    // Not by an answer to another question.
    let (second, ..) = questions[1];
    harness.tell(Input::Message(second, Message::Promise { point, nonce: nonce ^ 1, answer }));
    assert!(established_at(&harness.take()).is_empty());
    harness.tell(Input::Message(second, Message::Promise { point, nonce, answer }));
    let until = harness.now + Duration::from_millis(1_500);
    assert_eq!(established_at(&harness.take()), [(relay, Some(until))]);
}

#[test]
fn a_point_that_was_taken_or_whose_holders_are_silent_is_given_up() {
    for answer in [Some(Answer::Taken), None] {
        let mut harness = settled();
        let (slot, relay) = harness.up.iter().next().map(|(slot, relay)| (*slot, *relay)).unwrap();
        harness.take();
        harness.up.remove(&slot);
        harness.tell(Input::Closed(slot));
        for (holder, point, nonce) in asked(&harness.take()) {
            if let Some(answer) = answer {
                harness.tell(Input::Message(holder, Message::Promise { point, nonce, answer }));
            }
        }
        harness.pass(PROMISES + Duration::from_secs(2));
        assert!(established_at(&harness.take()).is_empty());
        assert_eq!(harness.up.len(), 3, "another one stands elsewhere");
        assert!(!harness.up.values().any(|at| *at == relay));
    }
}

#[test]
fn after_a_silence_of_half_the_delay_no_old_point_is_established_again() {
    let mut harness = settled();
    // It sleeps: both clocks go on, and what was heard before is echoed as soon as it wakes.
    harness.now += Duration::from_millis(1_700);
    harness.wall += 1_700;
    for peer in harness.peers.clone() {
        harness.beat(peer);
    }
    harness.take();
    let slots: Vec<_> = harness.up.keys().copied().collect();
    for slot in slots {
        harness.up.remove(&slot);
        harness.tell(Input::Closed(slot));
    }
    harness.pass(Duration::from_secs(3));
    let outputs = harness.take();
    assert!(asked(&outputs).is_empty() && established_at(&outputs).is_empty());
    assert_eq!(harness.up.len(), 3);
}

#[test]
fn a_node_alone_establishes_its_point_again_where_it_was() {
    let mut harness = Harness::new(0);
    harness.pass_alone(Duration::from_secs(3));
    let (slot, relay) = harness.up.iter().next().map(|(slot, relay)| (*slot, *relay)).unwrap();
    harness.take();
    harness.tell(Input::Closed(slot));
    assert_eq!(established_at(&harness.take()), [(relay, None)]);
}

#[test]
fn points_are_replaced_in_time_and_published_before_they_go() {
    let mut harness = Harness::new(0);
    harness.pass_alone(Duration::from_secs(60));
    let first: Vec<_> = harness.up.keys().copied().collect();
    assert_eq!(first.len(), 3);
    harness.take();
    let began = harness.now;
    harness.pass_alone(POINT_LIFE.1);
    let withdrawn: BTreeMap<_, _> = first.iter().map(|slot| (*slot, harness.up.contains_key(slot))).collect();
    harness.pass_alone(RETIRING + Duration::from_secs(200));
    assert!(first.iter().all(|slot| !harness.up.contains_key(slot)), "{withdrawn:?}");
    assert_eq!(harness.machine.status().points, 3);
    // Renewed at least every two hours, and never more than once a minute and period.
    let hours = (harness.now - began).as_secs() / 3_600;
    let uploads = harness.uploads.iter().filter(|(at, _)| *at > began).count() as u64;
    assert!(uploads >= hours && uploads <= 2 * 2 * hours, "{uploads} uploads in {hours} hours");
    assert!(harness.uploads.iter().all(|(_, points)| (1..=3).contains(points)));
    assert!(REUPLOAD.0 >= Duration::from_secs(3_600));
}

#[test]
fn a_status_tells_the_truth() {
    let mut alone = Harness::new(0);
    alone.pass_alone(Duration::from_secs(30));
    assert!(alone.machine.status().reachable, "only its points can tell");
    let hours = alone.machine.status().material_hours.unwrap();
    assert!((48..=72).contains(&hours), "{hours}");

    let mut harness = settled();
    harness.pass(PROBE * 3);
    let status = harness.machine.status();
    assert!(!status.reachable && status.problems.contains(&Problem::NotReached));
    let (peer, me) = (harness.peers[0], address(10));
    harness.tell(Input::Message(peer, Message::Reached(me)));
    let status = harness.machine.status();
    assert!(status.reachable && !status.problems.contains(&Problem::NotReached));
    harness.pass(REACHED + Duration::from_secs(1));
    assert!(!harness.machine.status().reachable, "that was long ago");
    harness.tell(Input::Message(peer, Message::Reached(me)));
    for slot in harness.up.keys().copied().collect::<Vec<_>>() {
        harness.tell(Input::Closed(slot));
    }
    let status = harness.machine.status();
    assert!(!status.reachable && status.problems.contains(&Problem::NoPoints));
    harness.tell(Input::Material(BTreeSet::new()));
    let status = harness.machine.status();
    assert!(status.problems.contains(&Problem::NoMaterial(period(0))) && status.material_hours.is_none());
    assert!(!status.problems.iter().any(|problem| matches!(problem, Problem::Clock(_))));
    harness.wall += 90_000;
    for peer in harness.peers.clone() {
        let wall = harness.wall;
        harness.wall -= 90_000;
        let (now, count) = (harness.now, harness.counts[&peer] + 1);
        let heartbeat = Heartbeat {
            sent: 0,
            echo: None,
            wall: harness.wall,
            pulse: Pulse::sign(address(1), peer, 1, count, &unsigned()),
            seeking: Vec::new(),
            sightings: Vec::new(),
        };
        harness.machine.handle(now, wall, Input::Message(peer, Message::Heartbeat(heartbeat)));
        harness.wall = wall;
    }
    let clock = harness.machine.status().problems.into_iter().find_map(|problem| match problem {
        Problem::Clock(ahead) => Some(ahead),
        _ => None,
    });
    assert!(clock.is_some_and(|ahead| (85_000..95_000).contains(&ahead)), "{clock:?}");
}

#[test]
fn who_is_silent_is_dead_in_time_and_who_is_sighted_is_not() {
    let mut harness = settled();
    let [gone, other] = [harness.peers[0], harness.peers[1]];
    harness.alive.retain(|peer| *peer != gone);
    let alive =
        |harness: &Harness| harness.machine.status().peers.iter().find(|peer| peer.member == gone).unwrap().alive;
    harness.pass(Duration::from_millis(2_750));
    assert!(alive(&harness));
    harness.pass(Duration::from_millis(500));
    assert!(!alive(&harness));
    // It is heard of again, by somebody else.
    let count = harness.counts[&gone];
    let sighting = |count| Pulse::sign(address(1), gone, 1, count, &unsigned());
    for later in 1..20 {
        let own = harness.counts[&other] + 1;
        harness.counts.insert(other, own);
        let heartbeat = Heartbeat {
            sent: own,
            echo: None,
            wall: harness.wall,
            pulse: Pulse::sign(address(1), other, 1, own, &unsigned()),
            seeking: Vec::new(),
            sightings: vec![sighting(count + later)],
        };
        harness.tell(Input::Message(other, Message::Heartbeat(heartbeat)));
        harness.pass(Duration::from_millis(1_000));
        assert!(alive(&harness), "sighted a second ago");
    }
    // The same pulse again and again is no life.
    harness.pass(Duration::from_secs(7));
    assert!(!alive(&harness));
}

#[test]
fn nothing_is_taken_over_without_all_marks_or_after_too_long() {
    let secrets = PointSecrets::from_bytes(&[9; 64]);
    let id = secrets.id();
    let entrust = |me| Entrust {
        incarnation: 1,
        relay: RelayId([99; 32]),
        secrets: secrets.clone(),
        holders: vec![me],
        before: 2,
    };
    let me = address(10);
    for marks in [1, 2] {
        let mut harness = settled();
        let owner = harness.peers[0];
        harness.tell(Input::Message(owner, Message::Entrust(entrust(me))));
        let tags = Tags { point: id, first: 0, tags: vec![[5; 32]; marks] };
        harness.tell(Input::Message(owner, Message::Tags(tags)));
        harness.alive.retain(|peer| *peer != owner);
        harness.take();
        harness.pass(Duration::from_secs(10));
        let taken = established_at(&harness.take());
        assert_eq!(taken.len(), usize::from(marks == 2));
    }
    // Asleep for longer than it could know of anybody.
    let mut harness = settled();
    let owner = harness.peers[0];
    harness.tell(Input::Message(owner, Message::Entrust(Entrust { before: 0, ..entrust(me) })));
    harness.alive.retain(|peer| *peer != owner);
    harness.now += TAKEOVER_WINDOW;
    harness.take();
    harness.pass(Duration::from_secs(10));
    assert!(established_at(&harness.take()).is_empty());
}

#[test]
fn who_leaves_hands_on_what_it_has_taken_over_with_all_marks() {
    let mut harness = settled();
    let (owner, other, me) = (harness.peers[0], harness.peers[1], address(10));
    let secrets = PointSecrets::from_bytes(&[9; 64]);
    let (id, relay) = (secrets.id(), RelayId([99; 32]));
    let entrust = Entrust { incarnation: 1, relay, secrets, holders: vec![me], before: 1 };
    harness.tell(Input::Message(owner, Message::Entrust(entrust)));
    harness.tell(Input::Message(owner, Message::Tags(Tags { point: id, first: 0, tags: vec![[5; 32]] })));
    harness.alive.retain(|peer| *peer != owner);
    harness.pass(Duration::from_secs(10));
    let taken = *harness.up.iter().find(|(_, at)| **at == relay).expect("taken over").0;
    harness.tell(Input::Introduced { slot: taken, tag: [6; 32] });
    harness.take();
    harness.tell(Input::Shutdown);
    harness.pass(Duration::from_secs(20));
    let outputs = harness.take();
    let place = |wanted: &dyn Fn(&Output) -> bool| outputs.iter().position(wanted).expect("said");
    let withdrawn = place(&|output| matches!(output, Output::Withdraw(slot) if *slot == taken));
    let entrusted = place(&|output| {
        let Output::Send(to, Message::Entrust(entrust)) = output else { return false };
        *to == other && entrust.secrets.id() == id && entrust.holders == [other] && entrust.before == 2
    });
    let marked = place(&|output| {
        let Output::Send(to, Message::Tags(tags)) = output else { return false };
        *to == other && tags.point == id && tags.first == 0 && tags.tags == [[5; 32], [6; 32]]
    });
    let released =
        place(&|output| matches!(output, Output::Send(to, Message::Release(of)) if (*to, *of) == (other, id)));
    assert!(withdrawn < entrusted && entrusted < marked && marked < released, "nobody has it twice");
}

#[test]
fn what_a_peer_can_make_a_node_keep_is_bounded() {
    let mut harness = settled();
    let (owner, me) = (harness.peers[0], address(10));
    for seed in 0..200_u8 {
        let mut bytes = [seed; 64];
        bytes[0] = 1;
        let entrust = Entrust {
            incarnation: 1,
            relay: RelayId([seed; 32]),
            secrets: PointSecrets::from_bytes(&bytes),
            holders: vec![me],
            before: 0,
        };
        harness.tell(Input::Message(owner, Message::Entrust(entrust)));
    }
    assert_eq!(harness.machine.kept().held_of_one, MAX_HELD);
}

#[test]
fn who_does_not_answer_probes_is_left_out_and_never_half_of_all() {
    let mut harness = Harness::new(4);
    harness.pass(Duration::from_secs(3));
    let peers = harness.peers.clone();
    for (index, peer) in peers.iter().enumerate() {
        let secrets = PointSecrets::from_bytes(&[index as u8 + 1; 64]);
        harness.record(*peer, 1, vec![secrets.describe(RelayId([150 + index as u8; 32]))]);
    }
    assert!(harness.machine.unanswering().is_empty());
    for peer in &peers[..3] {
        harness.machine.peers.get_mut(peer).unwrap().doubt = MAX_DOUBT + f64::from(peer.public_key()[0]);
    }
    let out = harness.machine.unanswering();
    assert_eq!(out.len(), 2, "two of five at the most");
    harness.tell(Input::Message(peers[3], Message::Reached(out[0])));
    assert!(!harness.machine.unanswering().contains(&out[0]), "somebody has reached it");
}

#[test]
fn a_young_point_beside_a_peers_moves_a_few_times_only() {
    let mut harness = settled();
    let lower = harness.peers.iter().copied().find(|peer| *peer < address(10));
    let Some(peer) = lower else { panic!("the seeds were chosen so") };
    let mut moved = 0;
    for version in 1..20 {
        let secrets = PointSecrets::from_bytes(&[version as u8; 64]);
        let beside = *harness.up.values().last().unwrap();
        harness.take();
        harness.record(peer, version, vec![secrets.describe(beside)]);
        moved += harness.take().iter().filter(|output| matches!(output, Output::Withdraw(_))).count();
        harness.pass(Duration::from_millis(500));
    }
    assert!((1..=3).contains(&moved), "{moved}");
    assert!(COLLISION < Duration::from_secs(10));
}

#[test]
fn each_node_keeps_as_many_points_as_fit_into_a_descriptor() {
    for (peers, points) in [(0, 3), (2, 3), (5, 3), (6, 2), (9, 2), (10, 1), (19, 1), (99, 1)] {
        assert_eq!(Harness::new(peers).machine.target(), points, "{peers} peers");
    }
}

/// A client that is added must find the service, one that is removed must not; and nothing else may cost an upload.
#[test]
fn whoever_else_may_find_the_service_gets_a_descriptor_of_its_own() {
    let mut harness = Harness::new(0);
    harness.pass(Duration::from_secs(120));
    let roster = harness.machine.roster().clone();
    let client = |n: u8| DiscoveryKey::from_secret_bytes(&[n; 32]).public_key();
    for (clients, expected) in [(Some(1..2), true), (Some(1..2), false), (Some(1..3), true), (None, true)] {
        let before = harness.uploads.len();
        let roster = match clients.clone() {
            Some(clients) => roster.clone().restricted_to(clients.map(client)),
            None => roster.clone(),
        };
        harness.tell(Input::Roster(roster));
        harness.pass(Duration::from_secs(120));
        // One for each period.
        let uploads = harness.uploads.len() - before;
        assert_eq!(uploads, if expected { 2 } else { 0 }, "{clients:?}");
        assert!(harness.machine.is_published());
    }
}
