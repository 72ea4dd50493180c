//! How soon a fresh client is served after a node dies or stands still: this library beside what others do for the same.
//!
//! Every client begins at the moment of the fault, without a descriptor, and tries again whenever it fails, as a person would.
//! Half are stock Arti clients, half are C tor.

mod contender;
mod plot;
mod same_key;

use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use hcp_core::testing::PrivateTorNetwork;
use serde::Serialize;
use tokio::task::JoinSet;
use tokio::time::Instant;

use self::contender::PERIOD;
pub use self::contender::{Contender, Fault, Fleet, Programs, Way};
pub use self::plot::{Line, Panel, draw};
pub use self::same_key::serve as serve_same_key;
use crate::faults::{ArtiClients, TorClients};
use crate::{Result, Timeline};

/// What to run.
#[derive(Clone, Debug)]
pub struct Options {
    /// The programs of the contenders.
    pub programs: Programs,
    /// Which contenders.
    pub ways: Vec<Way>,
    /// How often each fault strikes.
    pub rounds: usize,
    /// Clients of each kind, each time.
    pub clients: usize,
    /// How long a client tries.
    pub cap: Duration,
    /// Where `failover.md`, `failover.json` and `failover.svg` go.
    pub out: PathBuf,
}

/// What one client saw.
#[derive(Clone, Debug, Serialize)]
struct Sample {
    contender: &'static str,
    fault: &'static str,
    client: &'static str,
    /// Seconds from the fault to the first bytes of the service; none when that took too long.
    served: Option<f64>,
}

/// Runs it.
///
/// # Errors
/// When a contender does not come up.
pub async fn run(options: &Options) -> Result<()> {
    let timeline = Timeline::default();
    timeline
        .say("starting a private Tor network on loopback, with the time periods that Onionbalance takes for granted");
    let tor = PrivateTorNetwork::builder().time_period(PERIOD).start().await?;
    let network = tor.description().network();
    let arti = ArtiClients::start(&network).await?;
    // A quarter of that many processes are for fresh clients.
    let ctor = TorClients::start(&tor, 4 * options.clients).await?;
    let clients = std::sync::Arc::new((arti, ctor));
    let mut samples = Vec::new();
    let mut learned = false;
    for way in &options.ways {
        for fault in [Fault::Kill, Fault::Freeze] {
            for _ in 0..options.rounds {
                // A new one each time: what was struck may not come back, or not as it was.
                timeline.say(format!("starting: {}", way.title()));
                let mut contender = Contender::start(*way, &options.programs, &tor).await?;
                if !std::mem::replace(&mut learned, true) {
                    clients.0.learn(contender.address()).await?;
                }
                let found = strike(&mut contender, *way, fault, &clients, options).await?;
                timeline.say(format!("{}, {}: {}", way.title(), fault.title(), summary(&found)));
                samples.extend(found);
                write(&samples, options)?;
            }
        }
    }
    crate::timeline::print(&table(&samples, options));
    Ok(())
}

fn write(samples: &[Sample], options: &Options) -> Result<()> {
    std::fs::create_dir_all(&options.out)?;
    std::fs::write(options.out.join("failover.md"), table(samples, options))?;
    std::fs::write(options.out.join("failover.json"), serde_json::to_vec_pretty(samples)?)?;
    std::fs::write(options.out.join("failover.svg"), picture(samples, options))?;
    Ok(())
}

async fn strike(
    contender: &mut Contender,
    way: Way,
    fault: Fault,
    clients: &std::sync::Arc<(ArtiClients, TorClients)>,
    options: &Options,
) -> Result<Vec<Sample>> {
    let address = contender.address().to_owned();
    clients.1.forget_all(&address).await?;
    let at = Instant::now();
    contender.strike(fault).await?;
    let mut trying = JoinSet::new();
    for index in 0..2 * options.clients {
        let (clients, address, until) = (std::sync::Arc::clone(clients), address.clone(), at + options.cap);
        trying.spawn(async move {
            let is_arti = index % 2 == 0;
            let served = if is_arti {
                clients.0.until_served(index / 2, &address, until).await
            } else {
                clients.1.until_served(index / 2, &address, until).await
            };
            (if is_arti { "Arti" } else { "C tor" }, served)
        });
    }
    let mut samples = Vec::new();
    while let Some(end) = trying.join_next().await {
        let (client, served) = end?;
        let served = served.map(|when| ((when - at).as_secs_f64() * 1000.0).round() / 1000.0);
        samples.push(Sample { contender: way.title(), fault: fault.title(), client, served });
    }
    Ok(samples)
}

/// The value below which `percent` of the samples lie; none when that one was never served.
fn at_percent(served: &[Option<f64>], percent: usize) -> Option<f64> {
    let mut sorted: Vec<f64> = served.iter().map(|served| served.unwrap_or(f64::INFINITY)).collect();
    sorted.sort_by(f64::total_cmp);
    let rank = (sorted.len() * percent).div_ceil(100);
    sorted.get(rank.saturating_sub(1)).copied().filter(|seconds| seconds.is_finite())
}

fn summary(samples: &[Sample]) -> String {
    let served: Vec<_> = samples.iter().map(|sample| sample.served).collect();
    let show =
        |percent| at_percent(&served, percent).map_or_else(|| "never".into(), |seconds| format!("{seconds:.1} s"));
    let count = served.iter().flatten().count();
    format!("{count}/{} served; p50 {}, p95 {}, worst {}", served.len(), show(50), show(95), show(100))
}

fn table(samples: &[Sample], options: &Options) -> String {
    let mut text = format!(
        "Time from the fault to a fresh client served. Each client begins at the fault, without a descriptor, and tries again \
         whenever it fails, for at most {} s. The node that published last is the one that fails.\n\n\
         | service | fault | client | served | p50 | p95 | worst |\n|---|---|---|---|---|---|---|\n",
        options.cap.as_secs()
    );
    for way in &options.ways {
        for fault in [Fault::Kill, Fault::Freeze] {
            for client in ["Arti", "C tor"] {
                let of = |sample: &&Sample| {
                    sample.contender == way.title() && sample.fault == fault.title() && sample.client == client
                };
                let served: Vec<_> = samples.iter().filter(of).map(|sample| sample.served).collect();
                let show = |percent| {
                    at_percent(&served, percent).map_or_else(|| "never".into(), |seconds| format!("{seconds:.1} s"))
                };
                let _ = writeln!(
                    text,
                    "| {} | {} | {client} | {}/{} | {} | {} | {} |",
                    way.title(),
                    fault.title(),
                    served.iter().flatten().count(),
                    served.len(),
                    show(50),
                    show(95),
                    show(100)
                );
            }
        }
    }
    text
}

fn picture(samples: &[Sample], options: &Options) -> String {
    let panel = |fault: Fault| {
        let line = |way: &Way| {
            let of = |sample: &&Sample| sample.contender == way.title() && sample.fault == fault.title();
            let served = samples.iter().filter(of).map(|sample| sample.served).collect();
            Line { name: way.title().into(), served }
        };
        let title = format!("after {} of the node that published last", fault.title());
        Panel { title, lines: options.ways.iter().map(line).collect() }
    };
    draw(&[panel(Fault::Kill), panel(Fault::Freeze)], options.cap.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_was_never_served_counts_as_slower_than_all_others() {
        let served = [Some(1.0), None, Some(3.0), Some(2.0)];
        assert_eq!(at_percent(&served, 50), Some(2.0));
        assert_eq!(at_percent(&served, 75), Some(3.0));
        assert_eq!(at_percent(&served, 95), None);
        assert_eq!(at_percent(&[], 50), None);
    }
}
