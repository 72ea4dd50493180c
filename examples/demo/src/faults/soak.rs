//! Half an hour in which something goes wrong every 20 s, while HCP's own dialler connects all the time.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use hcp_core::identity::OnionAddress;
use serde::Serialize;
use tokio::task::JoinSet;

use super::clients::{HcpClients, Protocol};
use super::namespaces::Namespaces;
use super::stage::{PERIOD, Stage, start_tor};
use crate::{Launch, Result, Timeline, percentile, seconds};

/// What to run.
#[derive(Clone, Debug)]
pub struct Options {
    /// How long.
    pub lasts: Duration,
    /// How HCP's own client speaks with the service.
    pub protocol: Protocol,
    /// How long nodes may take to be healthy.
    pub patience: Duration,
    /// Where `soak.json` goes.
    pub out: Option<PathBuf>,
}

/// What it came to.
#[derive(Clone, Debug, Default, Serialize)]
struct Report {
    faults: usize,
    connects: usize,
    /// Connects that failed, and tries that did before their connect succeeded.
    failed: Vec<String>,
    tries_failed: Vec<String>,
    /// What was done, and when.
    events: Vec<String>,
    /// In seconds.
    p50: f64,
    worst: f64,
    /// Seconds since the start, and MiB resident of the node that is never killed.
    memory: Vec<(f64, f64)>,
    broken: Vec<String>,
}

const NODES: usize = 3;

/// This one is frozen and cut off, but never killed, so that its memory tells something.
const OLD: usize = 0;

/// Runs it; needs to be [inside](super::namespaces::enter).
///
/// # Errors
/// When a connect failed or memory grew.
pub async fn run(program: &Path, options: &Options) -> Result<()> {
    let timeline = Timeline::default();
    let namespaces = Namespaces::make(NODES).await?;
    let tor = start_tor(true, timeline).await?;
    let folder = tempfile::tempdir()?;
    let mut stage =
        Stage::make(program, folder.path(), (&tor, PERIOD), NODES, Some(namespaces), options.patience).await?;
    stage.heal().await?;
    timeline.say("all nodes are up");
    let clients = Arc::new(HcpClients::start(&tor.description().network(), options.protocol).await?);
    let address: OnionAddress = stage.cluster.address.parse()?;
    let over = Arc::new(AtomicBool::new(false));
    let mut dialling = JoinSet::new();
    for _ in 0..DIALLERS {
        dialling.spawn(dial(Arc::clone(&clients), address, Arc::clone(&over)));
    }
    let mut report = Report::default();
    let started = Instant::now();
    let end = strike(&mut stage, &mut report, started, options.lasts, timeline).await;
    over.store(true, Ordering::Relaxed);
    let mut took = Vec::new();
    while let Some(dialled) = dialling.join_next().await {
        for connect in dialled?? {
            report.connects += 1;
            let mut told = connect.errors.iter().map(|(at, error)| {
                format!("{:.0} s after the start: {error}", at.saturating_duration_since(started).as_secs_f64())
            });
            match connect.took {
                Some(time) => {
                    report.tries_failed.extend(told);
                    took.push(time);
                }
                None => report.failed.extend(told.next_back()),
            }
        }
    }
    report.p50 = percentile(&took, 50).as_secs_f64();
    report.worst = percentile(&took, 100).as_secs_f64();
    judge(&mut report);
    if let Err(error) = end {
        report.broken.push(format!("it could not be run to its end: {error}"));
    }
    if let Some(out) = &options.out {
        std::fs::create_dir_all(out)?;
        std::fs::write(out.join("soak.json"), serde_json::to_vec_pretty(&report)?)?;
    }
    timeline.say(format!(
        "{} faults, {} connects by HCP's dialler, {} failed, {} tries had to be made again; p50 {}, worst {}",
        report.faults,
        report.connects,
        report.failed.len(),
        report.tries_failed.len(),
        seconds(percentile(&took, 50)),
        seconds(percentile(&took, 100)),
    ));
    for broken in &report.broken {
        timeline.say(format!("  {broken}"));
    }
    if report.broken.is_empty() { Ok(()) } else { Err("the soak found something".into()) }
}

/// One connect of a person who does not give up at once.
#[derive(Debug, Default)]
struct Connect {
    /// From its first try to the first bytes; none when that took too long.
    took: Option<Duration>,
    /// Tries that failed.
    errors: Vec<(Instant, String)>,
}

/// Connects, again and again: every other time as a dialler that knows nothing.
async fn dial(clients: Arc<HcpClients>, address: OnionAddress, over: Arc<AtomicBool>) -> Result<Vec<Connect>> {
    let mut connects = Vec::new();
    let mut dialler = clients.dialler().await?;
    while !over.load(Ordering::Relaxed) {
        let (began, mut connect) = (Instant::now(), Connect::default());
        while connect.took.is_none() && began.elapsed() < GIVES_UP {
            let tried = Instant::now();
            let left = GIVES_UP.saturating_sub(began.elapsed());
            let error = match tokio::time::timeout(left, dialler.connect(address)).await {
                Ok(Ok(())) => {
                    connect.took = Some(began.elapsed());
                    break;
                }
                // A node that dies between the handshake and the answer ends a session that stood.
                Ok(Err(error)) => error.to_string(),
                Err(_) => "nothing came in time".into(),
            };
            connect.errors.push((tried, error));
            tokio::time::sleep(AGAIN).await;
        }
        connects.push(connect);
        if connects.len().is_multiple_of(2) {
            dialler = clients.dialler().await?;
        }
        tokio::time::sleep(PAUSE).await;
    }
    Ok(connects)
}

/// Does something bad every [`EVERY`], and undoes it half way to the next.
async fn strike(
    stage: &mut Stage,
    report: &mut Report,
    started: Instant,
    lasts: Duration,
    timeline: Timeline,
) -> Result<()> {
    let mut sampled = started;
    while started.elapsed() < lasts {
        let began = Instant::now();
        let mut victim = stage.any(&[]);
        let fault = if victim == OLD { rand::random_range(1..4) } else { rand::random_range(0..4) };
        let done = ["killed", "frozen", "cut off", "restarted"][fault];
        match fault {
            0 => {
                stage.kill(victim).await?;
                stage.start(victim, Launch::default())?;
            }
            1 => stage.freeze(victim).await?,
            2 => stage.cut(victim).await?,
            _ => {
                victim = stage.any(&[OLD]);
                stage.restart(victim, Launch::default()).await?;
            }
        }
        report.events.push(format!("{:.1} s: node {} {done}", (began - started).as_secs_f64(), victim + 1));
        report.faults += 1;
        while began.elapsed() < EVERY / 2 {
            tokio::time::sleep(POLL).await;
        }
        // It need not be healthy before the next fault: nobody waits for that elsewhere either.
        stage.undo(victim).await?;
        while began.elapsed() < EVERY {
            tokio::time::sleep(POLL).await;
        }
        if sampled.elapsed() >= SAMPLE || report.memory.is_empty() {
            sampled = Instant::now();
            let memory = stage.process(OLD)?.memory()?;
            report.memory.push((started.elapsed().as_secs_f64(), memory));
            timeline.say(format!("{} faults; node {}: {memory:.1} MiB resident", report.faults, OLD + 1));
        }
    }
    Ok(())
}

fn judge(report: &mut Report) {
    report.broken.extend(report.failed.iter().map(|failed| format!("a connect failed: {failed}")));
    if report.connects == 0 {
        report.broken.push("nobody connected".into());
    }
    match grown(&report.memory) {
        Some(more) if more > GROWTH => report.broken.push(format!("memory grew by {:.0} %", more * 100.0)),
        Some(_) => {}
        None => report.broken.push("memory was not looked at often enough to tell".into()),
    }
}

/// By how much memory in the last quarter of the time was more than in the second, as a part of it: the first is for caches to
/// fill. None without samples in both.
fn grown(memory: &[(f64, f64)]) -> Option<f64> {
    let end = memory.last().map(|(at, _)| *at).filter(|end| *end > 0.0)?;
    let quarter = |from: f64, to: f64| {
        let inside: Vec<_> =
            memory.iter().filter(|(at, _)| *at >= from * end && *at <= to * end).map(|(_, m)| *m).collect();
        (!inside.is_empty()).then(|| inside.iter().sum::<f64>() / inside.len() as f64)
    };
    let (before, after) = (quarter(0.25, 0.5)?, quarter(0.75, 1.0)?);
    Some(after / before - 1.0)
}

const DIALLERS: usize = 2;
const EVERY: Duration = Duration::from_secs(20);
const PAUSE: Duration = Duration::from_millis(500);
const AGAIN: Duration = Duration::from_millis(250);
/// A connect has failed when it was not served in this time.
const GIVES_UP: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(100);
const SAMPLE: Duration = Duration::from_secs(30);

/// The allocator's own ups and downs are smaller; what leaks with each connect or fault is not.
const GROWTH: f64 = 0.15;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_that_grows_is_told_from_memory_that_fills_up_once() {
        let samples =
            |of: fn(f64) -> f64| (0..=60).map(|n| (f64::from(n) * 30.0, of(f64::from(n)))).collect::<Vec<_>>();
        let flat = |memory: &[(f64, f64)]| grown(memory).map(|more| more <= GROWTH);
        assert_eq!(flat(&samples(|_| 80.0)), Some(true));
        assert_eq!(flat(&samples(|n| 80.0 + 20.0 * n.min(10.0) / 10.0)), Some(true));
        assert_eq!(flat(&samples(|n| 80.0 + n)), Some(false));
        assert_eq!((flat(&[]), flat(&samples(|_| 80.0)[..1])), (None, None));
    }
}
