//! Who was away while much was written comes up to date, and those who stayed hardly notice.
//!
//! They are nodes in one process on one machine. So that the one who comes back takes nothing from the others but what it has them
//! do, it has threads of its own; where figures count, also processors of its own and a disk of its own, in memory.

use std::collections::HashMap;
use std::fmt;
use std::ops::Range;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hcp_core::network::LocalNetwork;
use hcp_core::replica::{Event, Frontier, Replica, Storage, Subscription};
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, MissedTickBehavior};

use crate::harness::{Cluster, Running};
use crate::load::{Author, Counts, Reading, counts_of, text_of};

/// Bytes of an entry.
const ENTRY: usize = 200;
/// Who stays appends as often.
const PACE: Duration = Duration::from_millis(10);
/// Entries that are written at once while somebody is away.
const AT_ONCE: usize = 5_000;
/// Whoever wrote what was missed.
const BULK: Author = (9, 0);
/// A million entries are written and fetched in that time, or something is wrong.
const LONG: Duration = Duration::from_secs(1_800);

fn entry(author: Author, number: u64) -> String {
    format!("{:<ENTRY$}", text_of(&Counts::from([(author, number)])))
}

/// When something happened to which entry.
type Times = Arc<Mutex<HashMap<(Author, u64), Instant>>>;

/// Appends at a steady pace, and notes when each entry is durable.
async fn pace(replica: Replica, author: Author, committed: Times) {
    let mut pace = tokio::time::interval(PACE);
    pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut waiting = JoinSet::new();
    for number in 1.. {
        pace.tick().await;
        let receipt = replica.append(entry(author, number)).await.unwrap();
        let committed = Arc::clone(&committed);
        waiting.spawn(async move {
            receipt.durable().await.unwrap();
            committed.lock().unwrap().insert((author, number), Instant::now());
        });
        while waiting.try_join_next().is_some() {}
    }
}

/// Notes when each entry of somebody is applied.
async fn note(mut subscription: Subscription, author: Author, applied: Times) {
    while let Some(event) = subscription.next().await.unwrap() {
        let Event::Entry(entry) = event else { continue };
        let counts = counts_of(&String::from_utf8_lossy(&entry.entry));
        if let Some(number) = counts.get(&author) {
            applied.lock().unwrap().insert((author, *number), Instant::now());
        }
    }
}

/// Two nodes that write and read what the other writes.
struct Pair {
    committed: Times,
    applied: Times,
    tasks: Vec<JoinHandle<()>>,
}

impl Pair {
    fn start(running: &[Running]) -> Self {
        let (committed, applied) = (Times::default(), Times::default());
        let mut tasks = Vec::new();
        for (at, from, to) in [(0_u8, &running[0], &running[1]), (1, &running[1], &running[0])] {
            let reader = to.replica.subscribe(Frontier::start());
            tasks.push(tokio::spawn(note(reader, (at, 0), Arc::clone(&applied))));
            tasks.push(tokio::spawn(pace(from.replica.clone(), (at, 0), Arc::clone(&committed))));
        }
        Self { committed, applied, tasks }
    }

    /// From commit to application elsewhere, of all that was committed from `since` to `until`.
    async fn latency(&self, since: Instant, until: Instant) -> Latency {
        let committed: Vec<_> = {
            let committed = self.committed.lock().unwrap();
            committed.iter().filter(|(_, at)| (since..until).contains(at)).map(|(entry, at)| (*entry, *at)).collect()
        };
        self.read(committed.iter().map(|(entry, _)| *entry).collect()).await;
        let applied = self.applied.lock().unwrap();
        let mut took: Vec<_> =
            committed.iter().map(|(entry, at)| applied[entry].saturating_duration_since(*at)).collect();
        took.sort_unstable();
        let paced = 2.0 * (until - since).as_secs_f64() / PACE.as_secs_f64();
        assert!(took.len() > 20, "{} entries are too few to tell", took.len());
        let written = took.len() as f64 / paced;
        Latency { half: took[took.len() / 2], most: took[took.len() * 99 / 100], written }
    }

    /// Waits until entries are read where they were not written.
    async fn read(&self, entries: Vec<(Author, u64)>) {
        let all = async {
            while !entries.iter().all(|entry| self.applied.lock().unwrap().contains_key(entry)) {
                tokio::time::sleep(PACE).await;
            }
        };
        tokio::time::timeout(LONG, all).await.expect("what is committed is applied");
    }

    /// Waits until both read as fast as is written.
    async fn keeps_up(&self) {
        let committed: Vec<_> = self.committed.lock().unwrap().keys().copied().collect();
        self.read(committed).await;
    }
}

/// How long entries took: half of them less than the first, and 99 of 100 less than the second.
#[derive(Clone, Copy, Debug)]
struct Latency {
    half: Duration,
    most: Duration,
    /// Of all entries that were to be written, the part that was.
    written: f64,
}

impl fmt::Display for Latency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.1?} and {:.1?}", self.half, self.most)
    }
}

/// What those who stayed saw of the other's return.
struct Figures {
    entries: u64,
    wrote: Duration,
    caught_up: Duration,
    before: Latency,
    during: Latency,
    after: Latency,
}

impl Figures {
    /// 99 of 100 entries take less when nobody is away.
    fn usual(&self) -> Duration {
        self.before.most.min(self.after.most)
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { entries, wrote, caught_up, before, during, after } = self;
        write!(
            f,
            "{entries} entries in {wrote:.1?}; back and up to date in {caught_up:.1?}; from commit to application elsewhere, \
             half and 99 of 100: before {before}, meanwhile {during}, afterwards {after}"
        )
    }
}

/// Threads for some nodes, on some of this process's processors.
fn threads(on: Option<Range<usize>>) -> Runtime {
    let mut builder = Builder::new_multi_thread();
    if let Some(on) = on {
        let list: Vec<_> = processors()[on].iter().map(usize::to_string).collect();
        // Threads that these start are there, too.
        builder.on_thread_start(move || {
            let thread = std::fs::read_link("/proc/thread-self").unwrap();
            let mut command = Command::new("taskset");
            command.args(["-cp", &list.join(",")]).arg(thread.file_name().unwrap()).stdout(Stdio::null());
            assert!(command.status().expect("util-linux is there").success());
        });
    }
    builder.worker_threads(2).enable_all().build().unwrap()
}

/// The processors that this process may use.
fn processors() -> Vec<usize> {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let list = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:")).unwrap();
    let ranges = list.split(',').map(|range| {
        let (first, last) = range.trim().split_once('-').unwrap_or((range.trim(), range.trim()));
        first.parse().unwrap()..=last.parse().unwrap()
    });
    ranges.flatten().collect()
}

/// Runs on the threads of `elsewhere`.
async fn there<T: Send + 'static>(elsewhere: &Handle, what: impl Future<Output = T> + Send + 'static) -> T {
    elsewhere.spawn(what).await.unwrap()
}

async fn is_away_for(entries: u64, quiet: Duration, elsewhere: Handle, disk: tempfile::TempDir) -> Figures {
    let folder = tempfile::tempdir().unwrap();
    let mut cluster = Cluster::new(3);
    cluster.network = Arc::new(LocalNetwork::new(folder.path().join("ports")).unwrap());
    let at = |folder: &Path, node: usize| Some(Storage::sqlite(folder.join(format!("{node}.db"))));
    for (node, machine) in cluster.machines.iter_mut().enumerate() {
        machine.storage = at(if node == 2 { disk.path() } else { folder.path() }, node);
    }
    let cluster = Arc::new(cluster);
    let start_third = || {
        let cluster = Arc::clone(&cluster);
        there(&elsewhere, async move { cluster.start(2).await })
    };
    let running = vec![cluster.start(0).await, cluster.start(1).await];
    let third = start_third().await;
    for node in running.iter().chain([&third]) {
        node.linked_with(2).await;
    }
    there(&elsewhere, third.stop()).await;

    let pair = Pair::start(&running);
    let began = Instant::now();
    for first in (1..=entries).step_by(AT_ONCE) {
        let mut last = None;
        for number in first..=entries.min(first + AT_ONCE as u64 - 1) {
            last = Some(running[0].replica.append(entry(BULK, number)).await.unwrap());
        }
        // Nobody gets further behind than a link holds.
        last.unwrap().replicated(1).await.unwrap();
    }
    let wrote = began.elapsed();

    pair.keeps_up().await;
    let since = Instant::now();
    tokio::time::sleep(quiet).await;
    let before = pair.latency(since, Instant::now()).await;

    let since = Instant::now();
    let back = start_third().await;
    let mut all: Counts = [(BULK, entries)].into();
    for (author, number) in pair.committed.lock().unwrap().keys() {
        let most = all.entry(*author).or_default();
        *most = number.max(most).to_owned();
    }
    let replica = back.replica.clone();
    let read = there(&elsewhere, async move {
        let mut reading = Reading::start(replica.subscribe(Frontier::start()));
        tokio::time::timeout(LONG, reading.read(&all)).await
    });
    read.await.expect("who was away comes up to date");
    let until = Instant::now();
    let during = pair.latency(since, until).await;
    let calm = Instant::now();
    tokio::time::sleep(quiet).await;
    let after = pair.latency(calm, Instant::now()).await;
    pair.tasks.iter().for_each(JoinHandle::abort);
    there(&elsewhere, back.stop()).await;
    for node in running {
        node.stop().await;
    }
    Figures { entries, wrote, caught_up: until - since, before, during, after }
}

#[test]
fn who_comes_back_to_many_entries_hardly_delays_the_others() {
    let (here, elsewhere) = (threads(None), threads(None));
    let away = is_away_for(20_000, Duration::from_secs(2), elsewhere.handle().clone(), tempfile::tempdir().unwrap());
    let figures = here.block_on(away);
    eprintln!("{figures}");
    // Other tests run beside this one: only what stands still for its sake is beyond that.
    assert!(figures.during.most <= figures.usual() * 4 + Duration::from_millis(500), "{figures}");
}

/// Run by name, as a release build and with the machine for itself.
#[test]
#[ignore = "takes minutes, and measures"]
fn who_comes_back_to_a_million_entries_does_not_double_the_others_latency() {
    let count = processors().len();
    assert!(count > 1, "who comes back needs a processor of its own");
    let (here, elsewhere) = (threads(Some(0..count / 2)), threads(Some(count / 2..count)));
    let disk = tempfile::tempdir_in("/dev/shm").unwrap();
    let away = is_away_for(1_000_000, Duration::from_secs(15), elsewhere.handle().clone(), disk);
    // This thread is on any processor.
    let figures = here.block_on(here.spawn(away)).unwrap();
    eprintln!("{figures}");
    assert!(figures.during.most <= figures.usual() * 2, "{figures}");
    // Whoever stands still writes nothing that could be late.
    assert!(figures.during.written > 0.8, "{figures}");
}
