//! Which points are asked for, and what becomes of those that are not there.

use super::*;
use crate::network::onion::Checked;
use crate::service::tuning::{CHECKS_OF_ONE, CHECKS_OF_ONE_IN, UPLOAD};

/// Points at relays of these numbers.
fn at(relays: [u8; 3]) -> Vec<PointDescription> {
    relays.map(|relay| PointSecrets::from_bytes(&[relay; 64]).describe(RelayId([relay; 32]))).to_vec()
}

/// What a run of some time shows.
#[derive(Default)]
struct Seen {
    /// Relays that were asked, how often.
    asked: BTreeMap<u8, usize>,
    /// The relays of the points that the last upload of the first period lists.
    listed: BTreeSet<u8>,
}

/// Lets time pass in which relays know all points but those at some relays.
fn pass(harness: &mut Harness, span: Duration, unknown: &[u8]) -> Seen {
    let (mut seen, end) = (Seen::default(), harness.now + span);
    while harness.now < end {
        harness.step(Duration::from_millis(250));
        for output in harness.take() {
            match output {
                Output::Check(point) => {
                    let relay = point.relay.0[0];
                    *seen.asked.entry(relay).or_default() += 1;
                    let answer = if unknown.contains(&relay) { Checked::NotThere } else { Checked::There };
                    harness.tell(Input::Checked { point, answer });
                }
                Output::Upload { period: of, listings, .. } if of == period(0) => {
                    seen.listed =
                        listings.iter().flat_map(|(_, points)| points).map(|point| point.relay.0[0]).collect();
                }
                _ => {}
            }
        }
    }
    seen
}

#[test]
fn a_point_that_its_relay_does_not_know_is_not_listed_until_it_does() {
    let mut harness = settled();
    let [one, other] = [harness.peers[0], harness.peers[1]];
    harness.record(one, 1, at([201, 202, 203]));
    harness.record(other, 1, at([211, 212, 213]));
    let seen = pass(&mut harness, UPLOAD * 3, &[201, 202, 203, 211]);
    assert!(!seen.listed.is_empty() && [201, 202, 203, 211].iter().all(|relay| !seen.listed.contains(relay)));
    assert!(seen.listed.contains(&212) && seen.listed.contains(&213), "{:?}", seen.listed);
    assert!(seen.asked[&201] > 3 && seen.asked[&201] < 20, "{:?}", seen.asked);
    assert_eq!(seen.asked[&212], 1);
    // Its owner has established it anew.
    let seen = pass(&mut harness, Duration::from_secs(10 * 60), &[201, 202, 203]);
    assert!(seen.listed.contains(&211) && !seen.listed.contains(&201), "{:?}", seen.listed);
}

#[test]
fn garbage_is_not_listed_whoever_else_there_is() {
    for others in [0, 1] {
        let mut harness = settled();
        let [peer, other] = [harness.peers[0], harness.peers[1]];
        if others == 1 {
            harness.record(other, 1, at([211, 212, 213]));
        }
        harness.record(peer, 1, at([201, 202, 203]));
        let seen = pass(&mut harness, UPLOAD * 2, &[]);
        assert!(seen.listed.contains(&201));
        harness.record(peer, 2, at([221, 222, 223]));
        let unknown = [221, 222, 223];
        for _ in 0..240 {
            let seen = pass(&mut harness, Duration::from_secs(1), &unknown);
            assert!(unknown.iter().all(|relay| !seen.listed.contains(relay)), "{:?}", seen.listed);
        }
    }
}

/// However fast its points change: none of them is known to be there.
#[test]
fn who_was_seen_to_lie_is_listed_with_what_is_known_to_be_there() {
    let mut harness = settled();
    let [peer, other] = [harness.peers[0], harness.peers[1]];
    harness.record(other, 1, at([211, 212, 213]));
    let garbage: Vec<u8> = (100..200).collect();
    let points = |turn: u64| at([0, 10, 20].map(|of| 100 + of + (turn % 80) as u8));
    for turn in 1..=10 {
        harness.record(peer, turn, points(turn));
        pass(&mut harness, Duration::from_secs(1), &garbage);
    }
    let mut uploads = 0;
    for turn in 11..=300 {
        harness.record(peer, turn, points(turn));
        let seen = pass(&mut harness, Duration::from_secs(1), &garbage);
        uploads += usize::from(!seen.listed.is_empty());
        assert!(seen.listed.iter().all(|relay| !garbage.contains(relay)), "{:?}", seen.listed);
    }
    assert!(uploads < 10, "{uploads} uploads in five minutes");
    // It thinks better of it.
    harness.record(peer, 301, at([201, 202, 203]));
    let seen = pass(&mut harness, UPLOAD * 2, &garbage);
    assert!(seen.listed.contains(&201) && seen.listed.contains(&211), "{:?}", seen.listed);
}

/// Who holds the secrets of an honest point can announce it at another relay.
#[test]
fn a_point_that_is_announced_elsewhere_too_is_not_taken_for_that_one() {
    let mut harness = settled();
    let [one, other] = [harness.peers[0], harness.peers[1]];
    harness.record(one, 1, at([201, 202, 203]));
    let stolen = PointSecrets::from_bytes(&[201; 64]).describe(RelayId([231; 32]));
    harness.record(other, 1, vec![stolen]);
    pass(&mut harness, UPLOAD, &[231]);
    harness.record(other, 2, at([211, 212, 213]));
    let seen = pass(&mut harness, UPLOAD * 2, &[231]);
    assert!(seen.listed.contains(&201) && seen.listed.contains(&211), "{:?}", seen.listed);
}

/// Then somebody floods them all while this node has just begun.
#[test]
fn more_than_half_of_the_members_are_not_left_out_whatever_relays_say() {
    let mut harness = settled();
    let [one, other] = [harness.peers[0], harness.peers[1]];
    harness.record(one, 1, at([201, 202, 203]));
    harness.record(other, 1, at([211, 212, 213]));
    let unknown: Vec<u8> = (200..220).collect();
    let seen = pass(&mut harness, UPLOAD * 3, &unknown);
    assert!([201, 211].iter().all(|relay| seen.listed.contains(relay)), "{:?}", seen.listed);
}

/// A relay says of a point that is flooded what it says of one that is not there.
#[test]
fn what_was_there_is_not_asked_for_again() {
    let mut harness = settled();
    let [one, other] = [harness.peers[0], harness.peers[1]];
    harness.record(one, 1, at([201, 202, 203]));
    harness.record(other, 1, at([211, 212, 213]));
    let seen = pass(&mut harness, UPLOAD, &[]);
    assert_eq!(seen.asked[&201], 1);
    let seen = pass(&mut harness, Duration::from_secs(3_600), &[201, 202, 203]);
    assert!(!seen.asked.contains_key(&201), "{:?}", seen.asked);
}

/// What a relay says of a node's own point, it says to the others, too.
#[test]
fn a_nodes_own_point_that_its_relay_denies_is_not_listed() {
    let mut harness = Harness::new(2);
    harness.step(Duration::from_millis(250));
    let own: Vec<u8> = harness.up.values().map(|relay| relay.0[0]).collect();
    let [one, other] = [harness.peers[0], harness.peers[1]];
    harness.record(one, 1, at([201, 202, 203]));
    harness.record(other, 1, at([211, 212, 213]));
    let seen = pass(&mut harness, UPLOAD * 3, &own[..1]);
    assert!(!seen.listed.contains(&own[0]) && seen.listed.contains(&own[1]), "{:?} of {own:?}", seen.listed);
}

/// A relay that does not answer holds up the other points of its member, and nobody else's.
#[test]
fn one_point_of_each_member_is_asked_for_at_a_time() {
    let mut harness = settled();
    let [one, other] = [harness.peers[0], harness.peers[1]];
    harness.record(one, 1, at([201, 202, 203]));
    harness.record(other, 1, at([211, 212, 213]));
    let asked = |harness: &mut Harness| {
        harness.pass(Duration::from_secs(2));
        let outputs = harness.take().into_iter();
        outputs
            .filter_map(|output| if let Output::Check(point) = output { Some(point) } else { None })
            .filter(|point| point.relay.0[0] > 200)
            .collect::<Vec<_>>()
    };
    let first = asked(&mut harness);
    let of = |point: &PointDescription| point.relay.0[0] / 10;
    assert_eq!(first.iter().map(of).collect::<BTreeSet<_>>(), BTreeSet::from([20, 21]));
    assert_eq!(first.len(), 2);
    harness.tell(Input::Checked { point: first[1], answer: Checked::There });
    let next = asked(&mut harness);
    assert_eq!(next.iter().map(of).collect::<Vec<_>>(), [of(&first[1])], "the other one waits for its answer");
}

#[test]
fn a_member_whose_points_change_all_the_time_makes_nobody_build_circuits_all_the_time() {
    let mut harness = settled();
    let peer = harness.peers[0];
    let mut asked = 0;
    for turn in 0..120_u64 {
        let relay = 100 + (turn % 100) as u8;
        harness.record(peer, turn + 1, at([relay, relay + 10, relay + 20]));
        asked += pass(&mut harness, Duration::from_secs(1), &[]).asked.values().sum::<usize>();
    }
    let most = CHECKS_OF_ONE * (120 / CHECKS_OF_ONE_IN.as_secs() as usize + 1);
    assert!(asked > CHECKS_OF_ONE && asked <= most, "{asked} checks in two minutes");
}
