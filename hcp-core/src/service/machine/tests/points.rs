//! A node's own introduction points: who gets their secrets, when they come back, and when they give way.

use super::*;

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
    assert!((1..=6).contains(&moved), "{moved}");
    assert!(COLLISION < Duration::from_secs(10));
}

#[test]
fn each_node_keeps_as_many_points_as_fit_into_a_descriptor() {
    for (peers, points) in [(0, 3), (2, 3), (5, 3), (6, 2), (9, 2), (10, 1), (19, 1), (99, 1)] {
        assert_eq!(Harness::new(peers).machine.target(), points, "{peers} peers");
    }
}

/// A network may have no more relays than that.
#[test]
fn points_of_others_keep_a_nodes_own_from_no_relay() {
    let mut harness = settled();
    let peer = harness.peers[0];
    super::give_up_points(&mut harness, peer, true);
    let taken = RelayId([160; 32]);
    assert!(harness.up.values().any(|at| *at == taken));
    let own = RelayId([1; 32]);
    harness.take();
    harness.tell(Input::RelayGone(own));
    harness.pass(Duration::from_secs(1));
    let outputs = harness.take();
    let places: Vec<_> = outputs
        .iter()
        .filter_map(|output| match output {
            Output::Establish { place: Place::Choose { none_of }, .. } => Some(none_of),
            _ => None,
        })
        .collect();
    let [none_of] = places[..] else { panic!("one point moves") };
    let (first, last) = (none_of.first().unwrap(), none_of.last().unwrap());
    assert!(first.contains(&own) && first.contains(&taken));
    assert!(last.contains(&own) && !last.contains(&taken));
}

fn chosen(outputs: &[Output]) -> Vec<Vec<std::collections::HashSet<RelayId>>> {
    let chosen = outputs.iter().filter_map(|output| match output {
        Output::Establish { place: Place::Choose { none_of }, .. } => Some(none_of.clone()),
        _ => None,
    });
    chosen.collect()
}

/// Announces a point of a peer with a lower address at the relay of the newest one here.
fn collide(harness: &mut Harness, version: u64) -> RelayId {
    let lower = harness.peers.iter().copied().find(|peer| *peer < address(10));
    let peer = lower.expect("the seeds were chosen so");
    let newest = harness.machine.announced().into_iter().max_by_key(|point| point.slot);
    let relay = newest.and_then(points::Point::description).expect("it announces some").relay;
    harness.record(peer, version, vec![PointSecrets::from_bytes(&[version as u8; 64]).describe(relay)]);
    relay
}

fn announces(harness: &Harness, relay: RelayId) -> bool {
    harness.machine.announced().iter().any(|point| point.description().is_some_and(|at| at.relay == relay))
}

#[test]
fn a_point_at_a_peers_relay_gives_way_to_one_where_nobody_else_is() {
    let mut harness = settled();
    harness.pass(Duration::from_secs(60));
    harness.take();
    let relay = collide(&mut harness, 1);
    harness.pass(COLLISION - Duration::from_secs(1));
    assert!(announces(&harness, relay) && chosen(&harness.take()).is_empty(), "the peer may have just come");
    harness.pass(Duration::from_secs(5));
    let outputs = harness.take();
    let [none_of] = &chosen(&outputs)[..] else { panic!("one point is replaced") };
    assert!(none_of.iter().all(|not| not.contains(&relay)), "rather nowhere than there");
    assert!(!announces(&harness, relay) && harness.machine.announced().len() == 3);
    let gone = outputs.iter().any(|output| matches!(output, Output::Withdraw(_)));
    assert!(!gone && harness.up.len() == 4, "directories still list it");
}

#[test]
fn who_comes_to_a_service_that_is_published_makes_way_for_everybody() {
    let mut harness = Harness::new(4);
    harness.pass(Duration::from_secs(2));
    harness.take();
    let peer = harness.peers.iter().copied().find(|peer| *peer > address(10)).expect("the seeds were chosen so");
    let relay = *harness.up.values().last().unwrap();
    let at = harness.wall / 1_000;
    let publication = Publication { period: period(0), set: [9; 32], rotation: 0, at, left_out: Vec::new() };
    let point = PointSecrets::from_bytes(&[1; 64]).describe(relay);
    harness.record_of(peer, 1, vec![point], vec![publication]);
    harness.pass(Duration::from_secs(2));
    assert_eq!(chosen(&harness.take()).len(), 1);
    assert!(!announces(&harness, relay) && harness.machine.announced().len() == 3);
}

#[test]
fn two_points_at_one_relay_do_not_stay_there() {
    let mut harness = settled();
    harness.pass(Duration::from_secs(60));
    harness.twins = 1;
    harness.tell(Input::RelayGone(RelayId([1; 32])));
    harness.pass(Duration::from_secs(10));
    let relays: BTreeSet<_> = harness.machine.announced().iter().filter_map(|point| point.description()).collect();
    let relays: BTreeSet<_> = relays.iter().map(|point| point.relay).collect();
    assert!(harness.twins == 0 && relays.len() == 3, "{relays:?}");
}

#[test]
fn a_point_at_a_peers_relay_stays_where_no_other_is_left() {
    let mut harness = settled();
    harness.pass(Duration::from_secs(60));
    harness.take();
    harness.crowded = true;
    let relay = collide(&mut harness, 1);
    harness.pass(COLLISION + Duration::from_secs(15));
    assert_eq!(chosen(&harness.take()).len(), 1, "that is not tried all the time");
    assert!(announces(&harness, relay) && harness.up.len() == 3);
}

#[test]
fn a_peer_that_follows_moves_points_ever_more_seldom() {
    let mut harness = settled();
    harness.pass(Duration::from_secs(60));
    harness.take();
    let mut moved = 0;
    for version in 1..=240 {
        collide(&mut harness, version);
        harness.pass(Duration::from_secs(30));
        moved += chosen(&harness.take()).len();
    }
    assert!((2..=10).contains(&moved), "{moved} in two hours");
    // What it crowded out in the end is let go in its time, and what has happened often does so seldom.
    harness.pass(RETIRING);
    harness.take();
    let mut again = 0;
    for version in 241..=480 {
        collide(&mut harness, version);
        harness.pass(Duration::from_secs(30));
        again += chosen(&harness.take()).len();
    }
    assert!((1..=4).contains(&again), "{again} in two more hours");
}

#[test]
fn a_point_that_was_used_so_often_is_replaced() {
    let mut harness = settled();
    let used = *harness.up.keys().next().unwrap();
    let introduce = |harness: &mut Harness, from: u32, to: u32| {
        for number in from..to {
            let mut tag = [0; 32];
            tag[..4].copy_from_slice(&number.to_be_bytes());
            harness.tell(Input::Introduced { slot: used, tag });
        }
        harness.pass(Duration::from_secs(2));
        harness.take();
    };
    introduce(&mut harness, 0, POINT_INTRODUCTIONS.0 - 1);
    assert_eq!(harness.up.len(), 3);
    introduce(&mut harness, POINT_INTRODUCTIONS.0 - 1, POINT_INTRODUCTIONS.1);
    assert_eq!(harness.up.len(), 4, "the old one stays for those who have an older descriptor");
    assert!(harness.up.contains_key(&used));
    assert!(!harness.machine.announced().iter().any(|point| point.slot == used));
}
