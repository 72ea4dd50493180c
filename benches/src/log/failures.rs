//! What each does when one and when two of three nodes die.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use super::Run;
use super::cluster::{Cluster, Victim};
use super::others::{NAMES, start};
use crate::Failure;
use crate::measure::Ratio;
use crate::report::{Report, number, time};

/// Clients that write one entry after the other, whatever happens.
const CLIENTS: usize = 16;
/// How long they do before somebody dies, and after.
const BEFORE: Duration = Duration::from_secs(3);
const AFTER: Duration = Duration::from_secs(10);
/// A client that was told of an error tries again after this.
const PAUSE: Duration = Duration::from_millis(10);

/// Who dies, of whom.
const CASES: [(usize, &str, &[Victim]); 9] = [
    (0, "one node dies", &[Victim::Follower]),
    (0, "the node that is written at dies", &[Victim::Leader]),
    (0, "two nodes die", &[Victim::Follower, Victim::Follower]),
    (0, "the node that is written at and another die", &[Victim::Follower, Victim::Leader]),
    (1, "the leader dies", &[Victim::Leader]),
    (1, "the leader and another node die", &[Victim::Follower, Victim::Leader]),
    (2, "a standby dies", &[Victim::Follower]),
    (2, "both standbys die", &[Victim::Follower, Victim::Follower]),
    (2, "the primary dies", &[Victim::Leader]),
];

/// Goes through all cases, each with nodes of its own.
///
/// # Errors
/// When nodes cannot be started or killed.
pub async fn run(report: &mut Report, run: &Run) -> Result<(), Failure> {
    for (which, what, victims) in CASES {
        let cluster = start(run, which).await?;
        let seen = watch(&cluster, victims).await?;
        let after = match seen.again {
            Some(again) => format!("a write that began afterwards was done after {}", time(again.as_secs_f64())),
            None => "no write that began afterwards was done: writes stop".to_owned(),
        };
        let before = number(seen.before as f64 / BEFORE.as_secs_f64() * AFTER.as_secs_f64());
        let what = format!("{}: {what}: writes in the next 10 s", NAMES[which]);
        let note = format!("at the pace of before {before}; {after}");
        report.value("failures", what, Ratio::exact(seen.after as f64), "", None, note);
    }
    Ok(())
}

/// What clients saw.
struct Seen {
    before: usize,
    after: usize,
    /// When the first write was done that began after the death.
    again: Option<Duration>,
}

async fn watch(cluster: &Arc<dyn Cluster>, victims: &[Victim]) -> Result<Seen, Failure> {
    let done = Arc::new(Mutex::new(Vec::<(Instant, Instant)>::new()));
    let mut clients = JoinSet::new();
    for _ in 0..CLIENTS {
        let (cluster, done) = (Arc::clone(cluster), Arc::clone(&done));
        clients.spawn(async move {
            loop {
                let began = Instant::now();
                match cluster.write().await {
                    Ok(()) => {
                        done.lock().unwrap_or_else(PoisonError::into_inner).push((began, Instant::now()));
                    }
                    Err(_) => tokio::time::sleep(PAUSE).await,
                }
            }
        });
    }
    tokio::time::sleep(BEFORE).await;
    let first = Instant::now();
    let mut died = first;
    for victim in victims {
        died = cluster.kill(*victim).await?;
    }
    tokio::time::sleep_until((died + AFTER).into()).await;
    clients.shutdown().await;
    let done = std::mem::take(&mut *done.lock().unwrap_or_else(PoisonError::into_inner));
    let start = first.checked_sub(BEFORE).unwrap_or(first);
    Ok(Seen {
        before: done.iter().filter(|(_, ended)| (start..first).contains(ended)).count(),
        // A client may still have had its answer from the dead.
        after: done.iter().filter(|(began, ended)| *began >= died && *ended < died + AFTER).count(),
        again: done.iter().filter(|(began, _)| *began >= died).map(|(_, ended)| *ended - died).min(),
    })
}
