//! What the world does with entries, and that their order does not matter.

use std::collections::BTreeMap;

use hcp_core::replica::{Past, Stamp, Writer};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::*;
use crate::entry::Flag;

fn log(node: u8, run: u8) -> LogId {
    LogId { node: NodeId([node; 32]), incarnation: Incarnation([run; 16]) }
}

fn nick(name: &str) -> Nick {
    Nick::parse(name).expect("a valid nickname")
}

fn channel(name: &str) -> ChannelName {
    ChannelName::parse(name).expect("a valid channel name")
}

/// One node's side of a split: what it wrote and what it has seen.
struct Author {
    log: LogId,
    seen: BTreeMap<LogId, u64>,
    /// How far its clock is ahead.
    skew: u64,
}

#[derive(Clone, Debug)]
struct Logged {
    write: Write,
    entry: Entry,
}

impl Author {
    fn new(log: LogId, skew: u64) -> Self {
        Self { log, seen: BTreeMap::new(), skew }
    }

    fn write(&mut self, now: u64, entry: Entry) -> Logged {
        let past: Past = self.seen.iter().map(|(log, seq)| (*log, *seq)).collect();
        let seq = self.seen.entry(self.log).or_default();
        *seq += 1;
        let spot = Spot { writer: Writer::trunk(self.log), seq: *seq, index: 0 };
        Logged {
            write: Write { spot, stamp: Stamp { millis: now + self.skew, counter: 0 }, past, instead: None },
            entry,
        }
    }

    fn sync(&mut self, other: &BTreeMap<LogId, u64>) {
        for (log, seq) in other {
            let mine = self.seen.entry(*log).or_default();
            *mine = (*mine).max(*seq);
        }
    }
}

impl World {
    fn feed(&mut self, logged: &Logged) -> Vec<Change> {
        self.apply(&logged.write, &logged.entry.clone().encode())
    }

    /// Everything that must be equal on all nodes, in a fixed order.
    fn snapshot(&self) -> String {
        let mut lines: Vec<String> = self
            .users
            .iter()
            .map(|(id, u)| {
                format!(
                    "{id:?} {:?} {} {} {} {:?} {:?}",
                    u.log,
                    u.claimed,
                    u.shown,
                    u.is_invisible(),
                    u.away(),
                    u.channels
                )
            })
            .collect();
        let used = self.channels.iter().filter(|(_, channel)| !channel.creations.is_empty() || !channel.is_empty());
        lines.extend(used.map(|(name, channel)| format!("{name:?} {}", channel.snapshot())));
        lines.extend(self.nicks.iter().map(|(name, claims)| format!("{name:?} {:?}", claims.holder())));
        lines.sort();
        lines.join("\n")
    }
}

fn connect(user: u64, name: &str) -> Entry {
    Entry::Connect { user, nick: nick(name), username: "~u".into(), realname: String::new() }
}

fn join(user: u64, name: &str, standing: Standing) -> Entry {
    Entry::Join { user, channel: channel(name), standing }
}

/// Two nodes that started and know each other; each has one user in `#c`, which the first created.
fn pair() -> (World, Author, Author, ChannelId) {
    let (mut a, mut b) = (Author::new(log(1, 1), 0), Author::new(log(2, 1), 0));
    let mut world = World::new(a.log, 10);
    let id = ChannelId::new(&a.log, 0);
    let mut feed = |logged: Logged| drop(world.feed(&logged));
    feed(a.write(1, Entry::Start));
    feed(b.write(1, Entry::Start));
    feed(a.write(2, connect(0, "ann")));
    feed(b.write(2, connect(0, "bob")));
    feed(a.write(3, join(0, "#c", Standing::Creator(0))));
    b.sync(&a.seen);
    feed(b.write(4, join(0, "#c", Standing::Member(id))));
    a.sync(&b.seen);
    world.restore(b.log);
    (world, a, b, id)
}

#[test]
fn a_user_of_an_ended_run_leaves() {
    let (mut world, _, b, _) = pair();
    let mut again = Author::new(log(2, 2), 0);
    again.sync(&b.seen);
    let changes = world.feed(&again.write(9, Entry::Start));
    assert!(matches!(&changes[..], [Change::Gone { mask, .. }] if mask == "bob!~u@onion"), "{changes:?}");
    assert!(!world.is_taken(&nick("bob")));
    assert!(world.feed(&again.write(10, connect(0, "bob"))).is_empty(), "its node is not live yet");
    assert!(matches!(world.restore(again.log)[..], [Change::Returned { .. }]));
}

#[test]
fn a_lapse_hides_users_and_a_return_restores_them() {
    let (mut world, _, b, _) = pair();
    let bob = UserId::new(&b.log, 0);
    let hidden = world.lapse(b.log.node);
    assert!(matches!(&hidden[..], [Change::Gone { user, channels, .. }] if *user == bob && channels.len() == 1));
    assert!(world.find("bob").is_none() && !world.is_taken(&nick("bob")));
    assert_eq!(world.restore(b.log), [Change::Returned { user: bob }]);
    assert!(world.channel(&Folded::of("#C")).is_some_and(|c| c.is_member(bob)));
    assert!(world.find("BOB").is_some());
}

/// Of a node that wrote twice in one place, each branch is a writer of its own, and knows nothing of the other.
#[test]
fn what_a_user_says_of_itself_on_two_branches_shows_alike_everywhere() {
    let (_, _, mut b, _) = pair();
    let bob = UserId::new(&b.log, 0);
    let away = |message: &str| Entry::Away { user: 0, message: Some(message.into()) };
    let (one, mut other) = (b.write(9, away("here")), b.write(9, away("there")));
    let mut spot = one.write.spot.to_bytes();
    // The branch, behind node and incarnation.
    spot[48] ^= 1;
    (other.write.spot, other.write.past) = (Spot::from_bytes(&spot), one.write.past.clone());
    let worlds = [[&one, &other], [&other, &one]].map(|order| {
        let (mut world, ..) = pair();
        order.into_iter().for_each(|logged| drop(world.feed(logged)));
        world
    });
    assert_eq!(worlds[0].to_bytes(), worlds[1].to_bytes());
    assert!(worlds[0].user(bob).is_some_and(|bob| bob.away().is_some()));
}

#[test]
fn the_older_claim_on_a_nickname_wins_and_the_other_user_becomes_a_guest() {
    let (mut world, mut a, mut b, _) = pair();
    let (late, early) = (a.write(20, connect(1, "eve")), b.write(19, connect(1, "Eve")));
    world.feed(&late);
    let loser = UserId::new(&a.log, 1);
    let changes = world.feed(&early);
    assert!(matches!(&changes[0], Change::Renamed { user, to, .. } if *user == loser && *to == Nick::guest(loser)));
    assert_eq!(world.find("eve").map(|(id, _)| id), Some(UserId::new(&b.log, 1)));
    assert_eq!(world.find(Nick::guest(loser).as_str()).map(|(id, _)| id), Some(loser));
}

#[test]
fn a_claim_that_had_seen_the_holder_takes_the_name_of_a_lapsed_user() {
    let (mut world, mut a, b, _) = pair();
    world.lapse(b.log.node);
    world.feed(&a.write(30, connect(1, "bob")));
    assert_eq!(world.find("bob").map(|(id, _)| id), Some(UserId::new(&a.log, 1)));
    world.restore(b.log);
    assert_eq!(world.user(UserId::new(&b.log, 0)).map(|u| u.nick().is_guest()), Some(true));
}

#[test]
fn a_log_that_connects_without_end_is_passed_over_beyond_a_limit() {
    let (mut world, mut a, _, _) = pair();
    for user in 1..=MAX_USERS as u64 {
        world.feed(&a.write(5, connect(user, &format!("n{user}"))));
    }
    assert_eq!(world.users_of(a.log).len(), MAX_USERS);
    assert!(world.find(&format!("n{MAX_USERS}")).is_none());
    world.feed(&a.write(6, Entry::Quit { user: 0, reason: String::new() }));
    world.feed(&a.write(7, connect(0, "again")));
    assert!(world.find("again").is_some() && world.find("bob").is_some());
}

#[test]
fn an_entry_speaks_only_for_users_of_its_own_log() {
    let (mut world, _, mut b, _) = pair();
    // The number of ann, who is user 0 of the other log.
    world.feed(&b.write(9, Entry::Quit { user: 0, reason: String::new() }));
    assert!(world.find("ann").is_some() && world.find("bob").is_none());
}

#[test]
fn of_two_creations_that_meet_the_older_ones_operators_survive_and_both_histories() {
    let (mut a, mut b) = (Author::new(log(1, 1), 0), Author::new(log(2, 1), 0));
    let mut world = World::new(a.log, 10);
    let (ca, cb) = (ChannelId::new(&a.log, 7), ChannelId::new(&b.log, 7));
    let said = |id, text: &str| Entry::Text {
        user: 0,
        target: Target::Channel(channel("#c"), id),
        kind: TextKind::Privmsg,
        text: text.into(),
        tags: String::new(),
    };
    for logged in [
        b.write(1, Entry::Start),
        b.write(2, connect(0, "bob")),
        b.write(5, join(0, "#c", Standing::Creator(7))),
        b.write(6, said(cb, "from b")),
    ] {
        world.feed(&logged);
    }
    world.restore(b.log);
    world.feed(&a.write(1, Entry::Start));
    world.feed(&a.write(2, connect(0, "ann")));
    let changes = world.feed(&a.write(4, join(0, "#c", Standing::Creator(7))));
    world.feed(&a.write(7, said(ca, "from a")));
    let (ann, bob) = (UserId::new(&a.log, 0), UserId::new(&b.log, 0));
    let deop = vec![ModeChange::Operator(bob, false)];
    assert!(
        changes.iter().any(|c| matches!(c, Change::Modes { by: None, changes, .. } if *changes == deop)),
        "{changes:?}"
    );
    let channel = world.channel(&Folded::of("#c")).expect("the channel exists");
    assert!(channel.is_operator(ann) && !channel.is_operator(bob));
    let texts: Vec<_> = channel.history(10).iter().map(|said| said.text.clone()).collect();
    assert_eq!(texts, ["from b", "from a"]);
}

#[test]
fn a_creation_that_had_seen_the_empty_channel_begins_with_nothing_of_it() {
    let (mut world, mut a, mut b, id) = pair();
    let c = || channel("#c");
    let topic = Entry::Topic { user: 0, channel: c(), creation: id, by: "ann".into(), text: "old".into() };
    world.feed(&a.write(5, topic));
    world.feed(&a.write(6, Entry::Part { user: 0, channel: c(), reason: String::new() }));
    b.sync(&a.seen);
    world.feed(&b.write(7, Entry::Part { user: 0, channel: c(), reason: String::new() }));
    assert!(world.channel(&Folded::of("#c")).is_some_and(|c| c.is_empty() && c.topic().is_some() && c.left() == 7));
    world.feed(&b.write(8, join(0, "#c", Standing::Creator(1))));
    assert!(world.channel(&Folded::of("#c")).is_some_and(|c| c.topic().is_none()));
}

#[test]
fn a_node_whose_run_was_passed_over_is_told_and_can_start_it_anew() {
    let (mut lost, mut now) = (Author::new(log(1, 1), 100), Author::new(log(1, 2), 0));
    let mut world = World::new(now.log, 10);
    world.feed(&now.write(1, Entry::Start));
    world.feed(&now.write(2, connect(0, "ann")));
    assert!(world.is_current(&now.log));
    // A run of before the disk was lost turns up; its clock was ahead.
    let changes = world.feed(&lost.write(1, Entry::Start));
    assert!(!world.is_current(&now.log) && matches!(changes[..], [Change::Gone { .. }]));
    now.sync(&lost.seen);
    world.feed(&now.write(3, Entry::Start));
    assert!(world.is_current(&now.log));
}

/// Entries that three nodes write across splits, with restarts, clashes and one node that writes nonsense; and whether a disk
/// was lost.
fn scenario(rng: &mut StdRng) -> (Vec<Logged>, bool) {
    let mut authors: Vec<Author> = (1..=3).map(|n| Author::new(log(n, 1), rng.random_range(0..30))).collect();
    let mut logged: Vec<Logged> = authors.iter_mut().map(|author| author.write(1, Entry::Start)).collect();
    let mut creations = vec![ChannelId::new(&log(1, 1), 0)];
    let mut people = vec![UserId::new(&log(1, 1), 0)];
    let mut lost = false;
    for now in 2..90 {
        let at = rng.random_range(0..authors.len());
        if rng.random_bool(0.25) {
            let other = authors[rng.random_range(0..authors.len())].seen.clone();
            authors[at].sync(&other);
            continue;
        }
        if rng.random_bool(0.03) {
            let author = &mut authors[at];
            author.log.incarnation = Incarnation([now as u8; 16]);
            if rng.random_bool(0.3) {
                author.seen.clear();
                lost = true;
            }
            logged.push(author.write(now, Entry::Start));
            continue;
        }
        let user = rng.random_range(0..3);
        let name = ["#x", "#y"][rng.random_range(0..2)];
        let creation = creations[rng.random_range(0..creations.len())];
        let target = people[rng.random_range(0..people.len())];
        let on = rng.random_bool(0.5);
        let entry = match rng.random_range(0..14) {
            0 | 1 => {
                people.push(UserId::new(&authors[at].log, user));
                connect(user, ["ann", "bob", "Bob"][rng.random_range(0..3)])
            }
            2 => Entry::Nick { user, nick: nick(["ann", "bob", "cat", "guest-00000000"][rng.random_range(0..4)]) },
            3 => Entry::Quit { user, reason: String::new() },
            4 => {
                creations.push(ChannelId::new(&authors[at].log, now));
                join(user, name, Standing::Creator(now))
            }
            5 | 6 => join(user, name, if on { Standing::Member(creation) } else { Standing::Reviver(creation) }),
            7 => Entry::Part { user, channel: channel(name), reason: String::new() },
            8 => Entry::Kick { user, channel: channel(name), target, reason: String::new() },
            9 => Entry::Topic { user, channel: channel(name), creation, by: "x".into(), text: now.to_string() },
            10 | 11 => {
                let changes = vec![match rng.random_range(0..5) {
                    0 => ModeChange::Flag(Flag::Moderated, on),
                    1 => ModeChange::Key(on.then(|| now.to_string())),
                    2 => ModeChange::Limit(on.then_some(now as u32)),
                    3 => ModeChange::Operator(target, on),
                    _ => ModeChange::Voice(target, on),
                }];
                Entry::Mode { user, channel: channel(name), creation, changes }
            }
            12 => Entry::Away { user, message: on.then(|| now.to_string()) },
            _ => Entry::Text {
                user,
                target: Target::Channel(channel(name), creation),
                kind: TextKind::Privmsg,
                text: now.to_string(),
                tags: String::new(),
            },
        };
        logged.push(authors[at].write(now, entry));
    }
    (logged, lost)
}

/// A random order in which every entry comes after those that its author had seen.
fn causal_order(logged: &[Logged], rng: &mut StdRng) -> Vec<Logged> {
    let mut left: Vec<&Logged> = logged.iter().collect();
    let mut ordered = Vec::new();
    while !left.is_empty() {
        let ready: Vec<usize> = (0..left.len())
            .filter(|at| {
                left.iter().enumerate().all(|(o, other)| o == *at || !seen(&left[*at].write, &other.write.spot))
            })
            .collect();
        ordered.push(left.remove(ready[rng.random_range(0..ready.len())]).clone());
    }
    ordered
}

/// Applies one scenario in two orders; whether the worlds end equal.
fn converge(seed: u64, apply: impl Fn(&mut World, usize, &Logged)) -> Result<World, String> {
    let mut rng = StdRng::seed_from_u64(seed);
    let (logged, lost) = scenario(&mut rng);
    let [one, two] = [(); 2].map(|()| {
        let mut world = World::new(log(1, 1), 4);
        causal_order(&logged, &mut rng).iter().enumerate().for_each(|(at, logged)| apply(&mut world, at, logged));
        world
    });
    let (first, second) = (one.snapshot(), two.snapshot());
    if first != second {
        return Err(format!("seed {seed}\n{}", difference(&first, &second)));
    }
    let bytes = one.to_bytes();
    if !lost && bytes != two.to_bytes() {
        return Err(format!("seed {seed}: equal worlds with different bytes"));
    }
    let mut restored = World::new(log(1, 1), 4);
    restored.replace(&bytes).map_err(|error| format!("seed {seed}: {error}"))?;
    if restored.to_bytes() != bytes || restored.snapshot() != first {
        return Err(format!("seed {seed}: a world that is another one when it is restored"));
    }
    Ok(one)
}

/// What a restored world makes of the rest of the log.
#[test]
fn a_world_that_goes_on_from_a_checkpoint_ends_as_one_that_applied_everything() {
    let start = rand::random::<u64>() >> 1;
    println!("seeds from {start}");
    for seed in start..start + 500 {
        let mut rng = StdRng::seed_from_u64(seed);
        let (logged, _) = scenario(&mut rng);
        let (mut whole, mut half) = (World::new(log(1, 1), 4), World::new(log(1, 1), 4));
        let half_way = logged.len() / 2;
        for (at, logged) in logged.iter().enumerate() {
            whole.feed(logged);
            half.feed(logged);
            if at == half_way {
                let bytes = half.to_bytes();
                half = World::new(log(2, 1), 4);
                half.replace(&bytes).expect("is a world");
            }
        }
        assert_eq!(whole.to_bytes(), half.to_bytes(), "seed {seed}");
        assert_eq!(whole.snapshot(), half.snapshot(), "seed {seed}");
    }
}

#[test]
fn bytes_that_are_no_world_change_nothing() {
    let (mut world, ..) = pair();
    let bytes = world.to_bytes();
    let seed = rand::random::<u64>();
    println!("seed {seed}");
    let mut rng = StdRng::seed_from_u64(seed);
    let mut refused = 0;
    for _ in 0..20_000 {
        let mut wrong = bytes.clone();
        match rng.random_range(0..3) {
            0 => wrong.truncate(rng.random_range(0..bytes.len())),
            1 => wrong.push(0),
            _ => {
                let at = rng.random_range(0..bytes.len());
                wrong[at] = rng.random();
            }
        }
        let mut other = World::new(log(2, 1), 4);
        refused += u32::from(other.replace(&wrong).is_err());
    }
    assert!(refused > 10_000, "{refused}");
    assert!(world.replace(&bytes[..bytes.len() - 1]).is_err());
    assert_eq!(world.to_bytes(), bytes);
}

/// A node that could not keep what it had written writes it again elsewhere; others have it already.
#[test]
fn what_is_appended_again_is_said_once_and_counts_from_there() {
    let (mut world, mut a, mut b, id) = pair();
    let target = Target::Channel(channel("#c"), id);
    let text = Entry::Text { user: 0, target, kind: TextKind::Privmsg, text: "hi".into(), tags: String::new() };
    let said = b.write(10, text);
    let topic =
        b.write(11, Entry::Topic { user: 0, channel: channel("#c"), creation: id, by: "bob".into(), text: "t".into() });
    assert_eq!(world.feed(&said).len(), 1);
    world.feed(&topic);
    let mut again = Author::new(log(2, 2), 0);
    again.sync(&b.seen);
    for old in [&said, &topic] {
        let mut new = again.write(20, old.entry.clone());
        (new.write.instead, new.write.stamp) = (Some(old.write.spot), old.write.stamp);
        let changes = world.apply_again(&new.write, &new.entry.encode());
        assert!(changes.is_empty(), "{changes:?}");
    }
    let state = world.channel(&Folded::of("#c")).expect("is there");
    assert_eq!((state.history(9).len(), state.topic().map(|topic| topic.text.as_str())), (1, Some("t")));
    // Who has seen the second copy, and not the first, supersedes it.
    a.seen.remove(&b.log);
    a.sync(&again.seen);
    let entry = Entry::Topic { user: 0, channel: channel("#c"), creation: id, by: "ann".into(), text: "u".into() };
    world.feed(&a.write(12, entry));
    assert_eq!(world.channel(&Folded::of("#c")).and_then(|c| c.topic()).map(|topic| topic.text.as_str()), Some("u"));
}

fn difference(one: &str, two: &str) -> String {
    let only = |a: &str, b: &str, mark| {
        a.lines().filter(|line| !b.lines().any(|other| other == *line)).map(|line| format!("{mark} {line}\n")).collect()
    };
    let (first, second): (String, String) = (only(one, two, '-'), only(two, one, '+'));
    first + &second
}

/// A join took the place of one that a kick had lost against, and lost against it.
#[test]
fn a_join_that_takes_a_user_out_of_a_channel_does_so_in_every_order() {
    let seed = 7_116_563_121_608_572_838;
    converge(seed, |world, _, logged| drop(world.feed(logged))).unwrap_or_else(|error| panic!("{error}"));
}

#[test]
fn worlds_that_applied_the_same_entries_in_different_orders_are_equal() {
    let start = rand::random::<u64>() >> 1;
    println!("seeds from {start}");
    let (mut clashes, mut meetings, mut users) = (0, 0, 0);
    for seed in start..start + 1500 {
        let world =
            converge(seed, |world, _, logged| drop(world.feed(logged))).unwrap_or_else(|error| panic!("{error}"));
        clashes += world.nicks.values().filter(|claims| claims.claimants().count() > 1).count();
        let occupied = world.channels.values().filter(|channel| channel.members().next().is_some()).count();
        assert_eq!(world.occupied_channels(), occupied, "seed {seed}");
        meetings += world.channels.values().filter(|channel| channel.creations.len() > 1).count();
        users += world.users.len();
    }
    println!("{users} users, {clashes} nickname clashes, {meetings} channels created twice");
    assert!(clashes > 50 && meetings > 50 && users > 500, "the scenarios test too little");
}

#[test]
fn the_same_check_catches_a_topic_that_goes_by_arrival() {
    let caught = (0..200).filter(|seed| {
        let outcome = converge(*seed, |world, at, logged| {
            let mut logged = logged.clone();
            if matches!(logged.entry, Entry::Topic { .. }) {
                logged.write.stamp.millis = at as u64;
            }
            world.feed(&logged);
        });
        outcome.is_err()
    });
    assert!(caught.count() > 0);
}

#[test]
fn hostile_bytes_change_nothing_and_crash_nothing() {
    let seed = rand::random::<u64>();
    println!("seed {seed}");
    let mut rng = StdRng::seed_from_u64(seed);
    let (mut world, _, mut b, _) = pair();
    for _ in 0..5000 {
        let mut bytes = join(0, "#c", Standing::Creator(rng.random())).encode().to_vec();
        for _ in 0..rng.random_range(0..4) {
            let at = rng.random_range(0..bytes.len());
            bytes[at] = rng.random();
        }
        let write = b.write(50, Entry::Start).write;
        world.apply(&write, &bytes);
    }
    assert!(world.find("ann").is_some());
}
