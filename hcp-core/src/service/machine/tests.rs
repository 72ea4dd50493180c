//! One machine, told by hand what happens.

use std::collections::BTreeMap;

use super::*;
use crate::identity::{DiscoveryKey, Identity};
use crate::network::onion::{PeriodView, PointDescription, RelayId, UploadReport};
use crate::service::gossip::{Answer, Echo, Entrust, Heartbeat, Publication, Tags};
use crate::service::tuning::{
    COLLISION, EAGER_PROBE, HYSTERESIS_LASTS, MARKS, MAX_DOUBT, MAX_HELD, MAX_TAKEN, MAX_TAKEN_OF_ONE,
    POINT_INTRODUCTIONS, POINT_LIFE, PROBE, PROMISES, REACHED, RETIRING, REUPLOAD, TAKEOVER_WINDOW,
};

mod checking;
mod harness;
mod points;
mod publishing;
mod trust;

use self::harness::{Harness, address, period, unsigned};

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
    assert!(!harness.machine.status().reachable, "no probe of it came here");
    harness.pass(EAGER_PROBE);
    harness.tell(Input::ProbeHeard { prober: peer, nonce: [1; 16] });
    harness.tell(Input::Message(peer, Message::Reached(me)));
    let status = harness.machine.status();
    assert!(status.reachable && !status.problems.contains(&Problem::NotReached));
    harness.pass(REACHED + Duration::from_secs(1));
    assert!(!harness.machine.status().reachable, "that was long ago");
    harness.tell(Input::ProbeHeard { prober: peer, nonce: [2; 16] });
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

/// What is slow once is slow again.
#[test]
fn who_was_wrongly_declared_dead_is_given_twice_as_long_for_a_while() {
    let mut harness = settled();
    let slow = harness.peers[0];
    let alive =
        |harness: &Harness| harness.machine.status().peers.iter().find(|peer| peer.member == slow).unwrap().alive;
    // A little longer than the shortest silence that is death.
    let dies = |harness: &mut Harness| {
        harness.alive.retain(|peer| *peer != slow);
        harness.pass(Duration::from_secs(4));
        let dead = !alive(harness);
        harness.alive.push(slow);
        harness.pass(Duration::from_secs(1));
        assert!(alive(harness));
        dead
    };
    assert!(dies(&mut harness));
    assert!(!dies(&mut harness) && !dies(&mut harness));
    harness.pass(HYSTERESIS_LASTS);
    assert!(dies(&mut harness));
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
        harness.record(owner, 1, vec![secrets.describe(RelayId([99; 32]))]);
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
    harness.record(owner, 1, vec![secrets.describe(RelayId([99; 32]))]);
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
    harness.record(owner, 1, vec![secrets.describe(relay)]);
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
fn marks_of_a_flood_of_introductions_are_passed_on_many_at_a_time() {
    let mut harness = settled();
    let slot = *harness.up.keys().next().unwrap();
    let began = harness.now;
    harness.take();
    for n in 0..200_u32 {
        harness.now += Duration::from_millis(5);
        harness.wall += 5;
        let mut tag = [0; 32];
        tag[..4].copy_from_slice(&n.to_be_bytes());
        harness.tell(Input::Introduced { slot, tag });
    }
    harness.pass(Duration::from_millis(250));
    let mut marks: BTreeMap<OnionAddress, Vec<usize>> = BTreeMap::new();
    for output in harness.take() {
        if let Output::Send(to, Message::Tags(tags)) = output {
            marks.entry(to).or_default().push(tags.tags.len());
        }
    }
    let most = usize::try_from((harness.now - began).as_millis() / MARKS.as_millis()).unwrap();
    assert_eq!(marks.len(), 2);
    for counts in marks.values() {
        assert_eq!(counts.iter().sum::<usize>(), 200);
        assert!(counts.len() <= most, "{counts:?}");
    }
}

#[test]
fn what_strangers_can_make_a_member_say_is_no_sign_of_its_life() {
    let mut harness = settled();
    let frozen = harness.peers[0];
    harness.alive.retain(|peer| *peer != frozen);
    // What waited in the stream while it fell silent.
    for n in 0..40 {
        let tags = Tags { point: PointId([7; 32]), first: 0, tags: vec![[n; 32]] };
        for message in [Message::Tags(tags), Message::Heard([n; 16]), Message::Reached(frozen)] {
            harness.tell(Input::Message(frozen, message));
        }
        harness.step(Duration::from_millis(250));
    }
    assert!(!harness.machine.peers[&frozen].is_alive());
}

/// Points that a member gives up one after the other, each of which it has announced if `announced`.
fn give_up_points(harness: &mut Harness, owner: OnionAddress, announced: bool) {
    let me = address(10);
    for n in 1..=60_u8 {
        let mut bytes = [n; 64];
        bytes[1..32].copy_from_slice(&owner.public_key()[1..]);
        let secrets = PointSecrets::from_bytes(&bytes);
        let (id, relay) = (secrets.id(), RelayId([100 + n; 32]));
        if announced {
            harness.record(owner, u64::from(n), vec![secrets.describe(relay)]);
        }
        let entrust = Entrust { incarnation: 1, relay, secrets, holders: vec![me], before: 0 };
        harness.tell(Input::Message(owner, Message::Entrust(entrust)));
        harness.tell(Input::Message(owner, Message::Release(id)));
        harness.pass(Duration::from_millis(250));
    }
}

#[test]
fn who_gives_up_points_without_end_takes_no_place_from_a_nodes_own_points_or_those_of_others() {
    let mut harness = Harness::new(6);
    harness.pass(Duration::from_secs(5));
    let (own, peers) = (harness.up.len(), harness.peers.clone());
    let restarting = peers[0];
    give_up_points(&mut harness, restarting, false);
    assert_eq!(harness.machine.count_taken(), 0, "nobody has a descriptor with them");
    give_up_points(&mut harness, restarting, true);
    assert_eq!(harness.machine.count_taken(), MAX_TAKEN_OF_ONE);
    assert!(harness.up.values().any(|at| *at == RelayId([160; 32])), "the latest are kept");
    assert!(!harness.up.values().any(|at| *at == RelayId([101; 32])));
    for peer in &peers[1..] {
        give_up_points(&mut harness, *peer, true);
    }
    assert_eq!(harness.machine.count_taken(), MAX_TAKEN);
    assert_eq!(harness.up.len(), own + MAX_TAKEN, "those that make room are let go");
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
fn a_new_run_is_forgiven_once_in_a_while() {
    let mut harness = settled();
    let peer = harness.peers[0];
    harness.alive.clear();
    for (run, passes, forgiven) in [(100, 0, true), (101, 10, false), (102, 3_500, false), (103, 100, true)] {
        harness.pass(Duration::from_secs(passes));
        harness.machine.peers.get_mut(&peer).unwrap().doubt = MAX_DOUBT;
        harness.machine.state_run(peer, run);
        let doubt = harness.machine.peers[&peer].doubt;
        assert_eq!(doubt == 0.0, forgiven, "run {run}: {doubt}");
    }
}

#[test]
fn a_probe_that_comes_back_casts_doubt_on_all_others() {
    let mut harness = settled();
    for (index, peer) in harness.peers.clone().into_iter().enumerate() {
        let secrets = PointSecrets::from_bytes(&[index as u8 + 1; 64]);
        harness.record(peer, 1, vec![secrets.describe(RelayId([150 + index as u8; 32]))]);
    }
    harness.take();
    harness.pass(PROBE * 4);
    let probe = |output: Output| if let Output::Probe(nonce) = output { Some(nonce) } else { None };
    let nonce = harness.take().into_iter().rev().find_map(probe).expect("members are probed");
    let doubts = |harness: &Harness| harness.machine.peers.values().map(|peer| peer.doubt).collect::<Vec<_>>();
    assert_eq!(doubts(&harness), [0.0, 0.0], "a probe of which nothing was heard says nothing");
    for nonce in [nonce, nonce, [9; 16]] {
        harness.tell(Input::ProbeHeard { prober: address(10), nonce });
    }
    assert_eq!(doubts(&harness), [1.0 / 3.0; 2], "once");
    assert!(!harness.machine.status().reachable, "nobody else has shown that");
}

/// Who comes right after an upload is listed a minute later, in which it is sought often.
#[test]
fn nobody_is_doubted_whom_no_descriptor_lists_yet() {
    let mut harness = Harness::new(2);
    let [old, new] = [harness.peers[0], harness.peers[1]];
    let points = |of: u8| {
        (0..3).map(move |index| {
            let number = of + index;
            PointSecrets::from_bytes(&[number; 64]).describe(RelayId([100 + number; 32]))
        })
    };
    harness.record(old, 1, points(1).collect());
    harness.pass(Duration::from_secs(90));
    let uploads = harness.uploads.len();
    harness.record(old, 2, points(4).collect());
    while harness.uploads.len() == uploads {
        harness.step(Duration::from_millis(250));
    }
    harness.pass(Duration::from_secs(1));
    harness.record(new, 1, points(7).collect());
    let (uploads, mut probes) = (harness.uploads.len(), 0);
    let mut doubts = [Vec::new(), Vec::new()];
    for _ in 0..4 * 120 {
        harness.step(Duration::from_millis(250));
        for output in harness.take() {
            if let Output::Probe(nonce) = output {
                probes += usize::from(harness.uploads.len() == uploads);
                harness.tell(Input::ProbeHeard { prober: address(10), nonce });
            }
        }
        doubts[usize::from(harness.uploads.len() > uploads)].push(harness.machine.peers[&new].doubt);
    }
    let [before, after] = doubts;
    assert!(probes > 10, "only {probes} probes before it is listed");
    assert!(before.iter().all(|doubt| *doubt == 0.0), "{before:?}");
    assert!(after.last() > Some(&1.0), "once it is listed: {after:?}");
}

/// Neither who says that it has begun anew, with the points that are listed, gets out of doubt, nor somebody for whom another one
/// claims to have published what nobody knows; who has begun anew with other points does.
#[test]
fn whoever_is_listed_is_sought_whatever_is_claimed() {
    let mut harness = Harness::new(2);
    let [peer, other] = [harness.peers[0], harness.peers[1]];
    let points = |of: u8| {
        [of, of + 1, of + 2].map(|number| PointSecrets::from_bytes(&[number; 64]).describe(RelayId([100 + number; 32])))
    };
    harness.record(peer, 1, points(1).to_vec());
    harness.pass(Duration::from_secs(90));
    let sought = |harness: &Harness| harness.machine.reachable().0.contains(&peer);
    assert!(sought(&harness));
    let at = harness.wall / 1_000 + 10;
    let claim = Publication { period: period(0), set: [9; 32], rotation: 0, at, left_out: Vec::new() };
    harness.record_of(other, 1, points(7).to_vec(), vec![claim]);
    assert!(sought(&harness), "somebody claims to have published");
    for (run, of, still) in [(100, 1, true), (101, 4, false)] {
        let record = Record {
            incarnation: run,
            version: 1,
            points: points(of).to_vec(),
            holds: Vec::new(),
            publications: Vec::new(),
            taken: Vec::new(),
            stopping: false,
        };
        let signed = SignedRecord::sign(address(1), peer, record, &[], &unsigned());
        harness.tell(Input::Message(peer, Message::Record(signed)));
        assert_eq!(sought(&harness), still, "run {run}");
    }
}

#[test]
fn a_member_is_not_flooded_with_answers_to_its_probe() {
    let mut harness = settled();
    let prober = harness.peers[0];
    harness.take();
    for n in 0..100 {
        harness.tell(Input::ProbeHeard { prober, nonce: [n; 16] });
        harness.step(Duration::from_millis(50));
    }
    let heard = |output: &&Output| matches!(output, Output::Send(to, Message::Heard(_)) if *to == prober);
    let answers = harness.take().iter().filter(heard).count();
    assert_eq!(answers, 5, "one a second");
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
