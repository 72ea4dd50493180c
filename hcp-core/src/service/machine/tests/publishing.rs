//! When a descriptor is uploaded, and by whom.

use super::*;
use crate::service::gossip::Publication;
use crate::service::tuning::{DEAD_AT_MOST, UNCONFIRMED, UNCONFIRMED_URGENT, UNSETTLED_AT_MOST, UPLOAD, URGENT_UPLOAD};

impl Harness {
    fn uploads_since(&self, since: Duration) -> usize {
        self.uploads.iter().filter(|(at, _)| *at >= since).count()
    }
}

fn points(turn: u64) -> Vec<PointDescription> {
    (0..3)
        .map(|index| {
            let mut bytes = [index + 1; 64];
            bytes[..8].copy_from_slice(&turn.to_be_bytes());
            PointSecrets::from_bytes(&bytes).describe(RelayId([240 + index; 32]))
        })
        .collect()
}

#[test]
fn a_member_whose_points_change_all_the_time_keeps_nothing_from_being_published() {
    let mut harness = settled();
    let peer = harness.peers[0];
    harness.pass(Duration::from_secs(20));
    let began = harness.now;
    for turn in 1..=60 {
        harness.record(peer, turn, points(turn));
        harness.pass(Duration::from_secs(4));
        let last = harness.uploads.last().map_or(began, |(at, _)| began.max(*at));
        assert!(harness.now - last < UPLOAD + UNSETTLED_AT_MOST + Duration::from_secs(8), "turn {turn}");
    }
    // Two periods, each as often as the limit allows.
    let uploads = harness.uploads_since(began);
    assert!((4..=10).contains(&uploads), "{uploads} uploads in four minutes");
}

/// Two peers of which one is the first publisher of a period, this node the second.
fn second() -> (Harness, OnionAddress, Period) {
    let (peer, period) = (0..2)
        .find_map(|index| {
            let mut harness = Harness::new(2);
            let peer = harness.peers[index];
            harness.publishes(peer, 1, Vec::new());
            harness.pass(GATHERING + Duration::from_secs(1));
            let first = |period: &Period| harness.machine.order(period).first() == Some(&peer);
            [period(0), period(1)].into_iter().find(first).map(|period| (index, period))
        })
        .expect("each is the first of some period as likely as this node");
    let harness = Harness::new(2);
    let peer = harness.peers[peer];
    (harness, peer, period)
}

impl Harness {
    /// A peer says that it is a publisher, with one point, and what it has uploaded.
    fn publishes(&mut self, peer: OnionAddress, version: u64, publications: Vec<Publication>) {
        let record = Record {
            incarnation: self.run_of(peer),
            version,
            points: points(1_000),
            holds: vec![period(0), period(1)],
            publications,
            taken: Vec::new(),
            stopping: false,
        };
        let signed = SignedRecord::sign(address(1), peer, record, &[], &unsigned());
        self.tell(Input::Message(peer, Message::Record(signed)));
    }

    /// Lets time pass until this node uploads the period, and says how long that took.
    fn until_upload(&mut self, period: Period, at_most: Duration) -> Option<Duration> {
        let began = self.now;
        self.take();
        while self.now - began < at_most {
            self.pass(Duration::from_millis(250));
            let is_one = |output: &Output| matches!(output, Output::Upload { period: of, .. } if *of == period);
            if self.take().iter().any(is_one) {
                return Some(self.now - began);
            }
        }
        None
    }
}

#[test]
fn who_stands_in_for_somebody_that_never_publishes_does_so_as_fast_every_time() {
    let (mut harness, peer, period) = second();
    harness.publishes(peer, 1, Vec::new());
    let other = harness.peers.iter().copied().find(|other| *other != peer).unwrap();
    harness.record(other, 1, points(7));
    harness.pass(Duration::from_secs(300));
    for _ in 0..3 {
        harness.alive.retain(|alive| *alive != other);
        // The longest silence before death, and what the other may take.
        let took = harness.until_upload(period, Duration::from_secs(600));
        assert!(
            took.is_some_and(|took| took <= DEAD_AT_MOST + UNCONFIRMED_URGENT + Duration::from_secs(1)),
            "{took:?}"
        );
        harness.alive.push(other);
        let took = harness.until_upload(period, Duration::from_secs(600));
        assert!(took.is_some_and(|took| took < UNCONFIRMED + UPLOAD), "{took:?}");
        harness.pass(UPLOAD);
    }
}

#[test]
fn two_that_see_different_things_overwrite_each_other_less_and_less_often() {
    let (mut harness, peer, period) = second();
    harness.publishes(peer, 1, Vec::new());
    harness.pass(Duration::from_secs(300));
    let mut waits = Vec::new();
    for version in 2..6 {
        let (set, at) = ([9; 32], harness.wall / 1_000 + 1);
        assert_ne!(set, harness.machine.wanted(&period));
        harness.publishes(peer, version, vec![Publication { period, set, rotation: 0, at, left_out: Vec::new() }]);
        waits.push(harness.until_upload(period, Duration::from_secs(3_000)).expect("in the end"));
        harness.pass(Duration::from_secs(2));
    }
    assert!(waits.windows(2).all(|pair| pair[1] > pair[0]), "{waits:?}");
    assert!(waits[3] >= UNCONFIRMED * 4, "{waits:?}");
}

#[test]
fn a_directory_that_does_not_answer_holds_up_nothing_when_somebody_has_died() {
    let mut harness = settled();
    let peer = harness.peers[0];
    harness.mute = vec![RelayId([203; 32])];
    harness.record(peer, 1, points(1));
    harness.pass(Duration::from_secs(60));
    for _ in 0..600 {
        if harness.pending > 0 {
            break;
        }
        harness.pass(Duration::from_secs(1));
    }
    assert!(harness.pending > 0, "it is tried again alone");
    let (began, before) = (harness.now, harness.uploads.len());
    harness.alive.retain(|alive| *alive != peer);
    harness.pass(DEAD_AT_MOST + Duration::from_secs(2));
    assert!(harness.uploads.len() >= before + 2, "both periods, after {:?}", harness.now - began);
}

/// What failed meanwhile, and changed nothing here, does not make it be forgotten.
#[test]
fn a_directory_that_missed_an_upload_is_tried_again_though_somebody_has_failed() {
    let mut harness = settled();
    let (peer, mute) = (harness.peers[0], RelayId([203; 32]));
    harness.mute = vec![mute];
    harness.record(peer, 1, points(1));
    harness.pass(Duration::from_secs(60));
    harness.machine.urge(peer);
    harness.mute.clear();
    harness.take();
    harness.pass(UPLOAD * 4);
    let alone = |output: &Output| match output {
        Output::Upload { period, listings, .. } => listings.iter().all(|(at, _)| *at == [mute]).then_some(*period),
        _ => None,
    };
    let tried: BTreeSet<_> = harness.take().iter().filter_map(alone).collect();
    assert_eq!(tried.len(), 2, "in both periods");
}

/// One that is killed again when it has just come back is as dead as before; one that does so without end has to wait. Whether it
/// is the same run that comes back or another one does not matter.
#[test]
fn who_dies_again_and_again_is_left_out_at_once_for_a_few_times() {
    for runs in [1, 4] {
        let (mut harness, peer, period) = second();
        let mut soon = Vec::new();
        for turn in 1..=4 {
            harness.runs.insert(peer, turn.min(runs));
            harness.publishes(peer, 2 * turn, Vec::new());
            harness.pass(GATHERING + Duration::from_secs(1));
            let (set, at) = (harness.machine.wanted(&period), harness.wall / 1_000 + 1);
            let listed = Publication { period, set, rotation: 0, at, left_out: Vec::new() };
            harness.publishes(peer, 2 * turn + 1, vec![listed]);
            harness.pass(Duration::from_secs(2));
            harness.alive.retain(|alive| *alive != peer);
            soon.push(harness.until_upload(period, DEAD_AT_MOST + URGENT_UPLOAD).is_some());
            harness.alive.push(peer);
        }
        assert_eq!(soon, [true, true, true, false], "of {runs} runs");
    }
}

#[test]
fn a_clock_that_was_wrong_for_a_moment_leaves_nothing_behind() {
    let mut harness = settled();
    let peer = harness.peers[0];
    harness.pass(Duration::from_secs(60));
    let days = 40 * 86_400_000;
    (harness.wall, harness.unable) = (harness.wall + days, true);
    let uploads = harness.uploads.len();
    harness.pass(UPLOAD);
    assert!(harness.uploads.len() > uploads, "what was published counts as expired");
    (harness.wall, harness.unable) = (harness.wall - days, false);
    harness.record(peer, 1, points(1));
    harness.take();
    harness.pass(UPLOAD * 3);
    let second = |output: &Output| match output {
        Output::Upload { not_before, .. } => Some(*not_before),
        _ => None,
    };
    let last = harness.take().iter().filter_map(second).next_back().expect("there is a new set");
    assert!(last <= harness.wall / 1_000 + 60, "{} seconds ahead", last - harness.wall / 1_000);
    assert!(harness.machine.is_published());
}

#[test]
fn what_directories_took_from_a_clock_that_was_hours_ahead_is_overtaken() {
    let mut harness = Harness::new(2);
    let ahead = harness.wall / 1_000 + 2 * 3_600;
    harness.revisions = [period(0), period(1)].map(|period| (period, ahead)).into();
    harness.pass(Duration::from_secs(16 * 60));
    assert!(harness.machine.is_published());
    assert!(harness.revisions.values().all(|second| (ahead..ahead + 4 * 3_600).contains(second)));
    // And its own publication it believes.
    let uploads = harness.uploads.len();
    harness.pass(Duration::from_secs(10 * 60));
    assert_eq!(harness.uploads.len(), uploads);
}

#[test]
fn a_ring_of_directories_that_has_changed_is_uploaded_to() {
    let mut harness = Harness::new(0);
    harness.pass_alone(UPLOAD * 4);
    let began = harness.now + Duration::from_millis(1);
    harness.pass_alone(UPLOAD * 4);
    assert_eq!(harness.uploads_since(began), 0, "nothing has changed");
    // One goes, another comes.
    let directories: Vec<_> = (1..7).map(|index| RelayId([200 + index; 32])).collect();
    let views = [0, 1].map(|after| PeriodView { period: period(after), directories: directories.clone() });
    harness.take();
    harness.tell(Input::View(DirectoryView { periods: views.to_vec() }));
    harness.pass_alone(UPLOAD);
    let reached = harness.take().into_iter().filter_map(|output| match output {
        Output::Upload { period, listings, .. } => {
            Some((period, listings.into_iter().flat_map(|(at, _)| at).any(|at| at == RelayId([206; 32]))))
        }
        _ => None,
    });
    assert_eq!(reached.collect::<BTreeMap<_, _>>(), BTreeMap::from([(period(0), true), (period(1), true)]));
}
