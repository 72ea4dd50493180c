//! What is measured or looked at in one course of events, where seeds would not get to it.

use std::time::Duration;

use super::application::EntryId;
use super::faults::Torn;
use super::plan::Plan;
use super::{Checked, Event, World};
use crate::identity::manifest::SoftwareVersion;
use crate::replica::log::entry::{self, Entry};
use crate::replica::log::limits::WINDOW;
use crate::replica::log::machine::Input;
use crate::replica::log::machine::status::Status;

impl World {
    fn begin(plan: Plan, up: impl IntoIterator<Item = usize>) -> Self {
        let mut world = Self::new(7, plan);
        for node in up {
            world.at(world.now, Event::Start { node });
        }
        world.run_for(Duration::from_secs(3)).expect("nodes start");
        world
    }

    fn run_for(&mut self, span: Duration) -> Checked {
        let end = self.now + span;
        while let Some(std::cmp::Reverse((when, _, slot))) = self.calendar.peek().copied()
            && when <= end
        {
            self.calendar.pop();
            self.pass(when, slot)?;
        }
        self.now = end;
        Ok(())
    }

    fn status(&self, node: usize) -> Status {
        self.nodes[node].machine.as_ref().expect("it runs").status()
    }

    fn has(&self, node: usize, ids: &[EntryId]) -> bool {
        ids.iter().all(|id| self.nodes[node].application.applied.contains(*id))
    }

    fn set_parted(&mut self, one: usize, two: usize, parted: bool) {
        self.pairs.get_mut(&(one, two)).expect("every pair is there").parted = parted;
        self.cut(one, two);
    }

    /// One entry of one node after the other; how long each took to every other one of these nodes, in order.
    fn write_in_turn(&mut self, nodes: usize, count: usize) -> (Vec<EntryId>, Vec<Duration>) {
        self.handed = Some(Vec::new());
        let mut written = Vec::new();
        for turn in 0..count {
            let id = self.append_bytes(turn % nodes, 200).expect("it is taken");
            written.push((id, self.now));
            self.run_for(Duration::from_millis(25)).expect("nothing fails");
        }
        self.run_for(Duration::from_secs(1)).expect("nothing fails");
        let handed = self.handed.take().unwrap_or_default();
        let mut took: Vec<Duration> = Vec::new();
        for (id, at) in &written {
            let last =
                handed.iter().filter(|(node, other, _)| *node < nodes && other == id).map(|(.., when)| *when).max();
            took.push(last.expect("it arrives") - *at);
        }
        took.sort_unstable();
        (written.into_iter().map(|(id, _)| id).collect(), took)
    }
}

/// What so many of a thousand are below.
fn quantile(sorted: &[Duration], per_mille: usize) -> Duration {
    sorted[(sorted.len() - 1) * per_mille / 1_000]
}

#[test]
fn a_node_that_was_away_catches_up_and_the_others_stay_as_quick() {
    let mut world = World::begin(Plan { rate: Some(400_000), ..Plan::quiet(4) }, 0..3);
    let mut missed = Vec::new();
    for _ in 0..8 {
        missed.extend(world.write_in_turn(3, 500).0);
    }
    let (ids, before) = world.write_in_turn(3, 400);
    missed.extend(ids);
    world.at(world.now, Event::Start { node: 3 });
    let began = world.now;
    let (ids, during) = world.write_in_turn(3, 400);
    missed.extend(ids);
    while !world.has(3, &missed) {
        let behind = world.status(0).peers.iter().map(|peer| peer.lacks.unwrap_or_default()).max();
        assert!(world.now < began + Duration::from_secs(120), "it still lacks {behind:?} segments");
        world.run_for(Duration::from_millis(500)).unwrap();
    }
    let all = |took: &[Duration]| [500, 900, 990].map(|per_mille| quantile(took, per_mille));
    println!(
        "{} segments in {:?}; {:?} before, {:?} during",
        missed.len(),
        world.now - began,
        all(&before),
        all(&during)
    );
    for (before, during) in all(&before).into_iter().zip(all(&during)) {
        assert!(during < before * 2, "{before:?} became {during:?}");
    }
}

#[test]
fn two_nodes_with_much_to_give_finish_over_a_narrow_pipe() {
    // 64 KiB under way on a round trip of 200 ms.
    let mut world = World::begin(Plan { rate: Some(64 * 1024 * 5), ..Plan::quiet(2) }, 0..0);
    world.pairs.get_mut(&(0, 1)).expect("one pair").parted = true;
    for node in 0..2 {
        world.at(world.now, Event::Start { node });
    }
    world.run_for(Duration::from_secs(2)).unwrap();
    let mut ids = Vec::new();
    for turn in 0..2_000 {
        ids.push(world.append_bytes(turn % 2, 10_000).unwrap());
        world.run_for(Duration::from_millis(25)).unwrap();
    }
    world.run_for(Duration::from_secs(2)).unwrap();
    assert!(!world.has(0, &ids) && !world.has(1, &ids));
    world.set_parted(0, 1, false);
    let began = world.now;
    while !(world.has(0, &ids) && world.has(1, &ids)) {
        let status = (world.status(0).peers, world.status(1).peers);
        assert!(world.now < began + Duration::from_secs(300), "it does not end: {status:?}");
        world.run_for(Duration::from_secs(1)).unwrap();
    }
    // The bounds of what a machine keeps are checked at every step; this is what waits for the pipe.
    println!("10 MB each way in {:?}, and {} bytes waited at the most", world.now - began, world.most_queued);
    assert!(world.most_queued as u64 <= WINDOW + 128 * 1024, "{} bytes waited", world.most_queued);
}

#[test]
fn an_older_version_keeps_and_passes_on_entries_of_a_newer_one() {
    let mut world = World::begin(Plan::quiet(3), 0..0);
    let (old, new) = (SoftwareVersion::new(0, 1, 0), SoftwareVersion::new(0, 2, 0));
    world.cast.software = vec![new, old, new];
    // The two newer ones have only the older one between them.
    world.pairs.get_mut(&(0, 2)).expect("every pair is there").parted = true;
    for node in 0..3 {
        world.at(world.now, Event::Start { node });
    }
    world.run_for(Duration::from_secs(4)).unwrap();
    let body = bytes::Bytes::from_static(b"of tomorrow");
    let (now, wall) = (world.now, world.wall(0));
    world.nodes[0].machine.as_mut().unwrap().handle(now, wall, Input::Tick);
    world.nodes[0].machine.as_mut().unwrap().append_of_tomorrow(999, body.clone());
    world.drain(0).unwrap();
    let plain = world.append_bytes(0, 20).unwrap();
    world.run_for(Duration::from_secs(6)).unwrap();
    let holds = |world: &World, node: usize| {
        let unknown = Entry::Unknown { kind: 999, body: body.clone() };
        world.nodes[node]
            .disk
            .payloads()
            .any(|payload| entry::entries(&payload).is_ok_and(|all| all.contains(&unknown)))
    };
    assert!((0..3).all(|node| holds(&world, node) && world.has(node, &[plain])));
    // It takes nothing from whoever makes a checkpoint.
    world.tell(1, Input::Retain).unwrap();
    world.run_for(Duration::from_secs(10)).unwrap();
    assert!((0..3).all(|node| world.status(node).checkpoint.is_some()));
    // Now everybody runs the newer one, but for one that is refused by name.
    let manifest = world.cast.publish(|_| true, new);
    let told = world.cast.manifests[manifest].clone();
    world.tell(0, Input::Manifest(told)).unwrap();
    world.run_for(Duration::from_secs(6)).unwrap();
    world.set_parted(0, 1, false);
    world.run_for(Duration::from_secs(3)).unwrap();
    assert!(world.counts.0.contains_key("unlinked: too old"), "{:?}", world.counts);
    world.crash(1, Torn::Lost);
    world.cast.software[1] = new;
    world.at(world.now, Event::Start { node: 1 });
    world.run_for(Duration::from_secs(4)).unwrap();
    let last = world.append_bytes(1, 20).unwrap();
    world.run_for(Duration::from_secs(6)).unwrap();
    assert!((0..3).all(|node| world.has(node, &[last])));
}

#[test]
fn a_node_says_who_lags_and_whose_clock_is_ahead() {
    let mut world = World::begin(Plan::quiet(3), 0..0);
    (world.nodes[1].skew, world.latest_skew) = (3_600_000, 3_600_000);
    for node in 0..3 {
        world.at(world.now, Event::Start { node });
    }
    world.run_for(Duration::from_secs(3)).unwrap();
    world.append_bytes(1, 20).unwrap();
    world.run_for(Duration::from_secs(3)).unwrap();
    let status = world.status(0);
    assert_eq!(status.ahead, [world.cast.nodes[1]]);
    assert!(status.forked.is_empty() && status.stopped.is_none() && status.too_large.is_none());
    assert_eq!(status.peers.iter().map(|peer| (peer.lacks, peer.leads)).collect::<Vec<_>>(), [(Some(0), 0); 2]);
    // A disk that is full takes nothing: what came is not held.
    world.nodes[2].disk.set_full(true);
    for _ in 0..10 {
        world.append_bytes(0, 20).unwrap();
        world.run_for(Duration::from_millis(100)).unwrap();
    }
    world.run_for(Duration::from_secs(5)).unwrap();
    let lags = |status: &Status, node| status.peers.iter().find(|peer| peer.node == node).copied().unwrap();
    let peer = lags(&world.status(0), world.cast.nodes[2]);
    assert!(peer.lacks >= Some(10) && peer.stalls > Duration::from_secs(3), "{peer:?}");
    let peer = lags(&world.status(2), world.cast.nodes[0]);
    assert!(world.status(2).full && peer.leads >= 10, "{peer:?}");
    world.nodes[2].disk.set_full(false);
    world.run_for(Duration::from_secs(5)).unwrap();
    assert_eq!(lags(&world.status(0), world.cast.nodes[2]).lacks, Some(0));
}
