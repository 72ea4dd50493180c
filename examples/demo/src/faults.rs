//! The fault suite: what stock clients and our own see of a replicated service while things go wrong with its nodes.
//!
//! A node is a process of which nothing is known but what it prints. Every connect is recorded, and held to the rules that
//! `judge` states; a rule that is broken makes the suite fail.

mod attempt;
mod case;
mod clients;
mod clock;
mod judge;
mod load;
pub mod namespaces;
mod report;
pub mod soak;
mod stage;

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

pub use self::attempt::{Attempt, Kind, Knowledge};
pub use self::case::Case;
pub(crate) use self::clients::{ArtiClients, IRC, TorClients};
pub use self::clients::{Clients, Connect, HcpClients, Protocol, Ticket, Wanted};
pub use self::judge::Rules;
use self::judge::{Evidence, is_excused, is_lost, judge, p95};
use self::load::{Made, attribute, make, schedule};
use self::namespaces::Namespaces;
pub use self::report::{CaseReport, Report};
pub use self::stage::{PERIOD, Stage, period_now, start_tor};
use crate::{Launch, Material, Result, Timeline, seconds};

/// What to run.
#[derive(Clone, Debug)]
pub struct Options {
    /// Connects of each kind of client in each case.
    pub connects: usize,
    /// Services of how many nodes.
    pub nodes: Vec<usize>,
    /// Which cases, in which order.
    pub cases: Vec<Case>,
    /// What they are held to.
    pub rules: Rules,
    /// How HCP's own client speaks with the service.
    pub protocol: Protocol,
    /// How long nodes may take to be healthy.
    pub patience: Duration,
    /// Where `faults.md` and `faults.json` go.
    pub out: Option<PathBuf>,
}

/// Runs the suite; needs to be [inside](namespaces::enter) when a case cuts links.
///
/// # Errors
/// When a rule was broken, or the suite cannot go on.
pub async fn run(program: &Path, options: &Options) -> Result<()> {
    let timeline = Timeline::default();
    let started = Instant::now();
    let first_period = period_now(PERIOD);
    let inside = options.cases.iter().any(|case| case.needs_namespaces());
    let most = options.nodes.iter().copied().max().ok_or("no number of nodes is given")?;
    let mut namespaces = if inside { Some(Namespaces::make(most).await?) } else { None };
    let tor = start_tor(inside, timeline).await?;
    let mut report = Report::default();
    let clients = Clients::start(&tor, options.connects, options.protocol).await?;
    timeline.say("the clients are up");
    let mut learned = false;
    for nodes in &options.nodes {
        let folder = tempfile::tempdir()?;
        let mut stage =
            Stage::make(program, folder.path(), (&tor, PERIOD), *nodes, namespaces.take(), options.patience).await?;
        let mut healthy = None;
        for case in &options.cases {
            let mut run = Run { stage: &mut stage, clients: &clients, timeline, options, learned: &mut learned };
            let found = run.case(*case, healthy.as_ref()).await;
            if *case == Case::Healthy {
                healthy = Some(Kind::ALL.map(|kind| (kind, p95(&found.attempts, kind))).into());
            }
            if !found.broken.is_empty()
                && let Some(out) = &options.out
            {
                stage.keep_logs(out, &format!("{nodes}-{case:?}"))?;
            }
            report.cases.push(found);
            report.seconds = started.elapsed().as_secs_f64();
            report.periods = usize::try_from(period_now(PERIOD) - first_period)? + 1;
            write(&report, options.out.as_deref())?;
        }
        namespaces = stage.leave();
    }
    if options.rules == Rules::All && report.periods < PERIODS {
        report.broken.push(format!("the suite saw {} time periods, {PERIODS} are wanted", report.periods));
    }
    write(&report, options.out.as_deref())?;
    crate::timeline::print(&report.markdown());
    match report.broken() {
        0 => Ok(()),
        broken => Err(format!("{broken} rules were broken").into()),
    }
}

fn write(report: &Report, out: Option<&Path>) -> Result<()> {
    let Some(out) = out else { return Ok(()) };
    std::fs::create_dir_all(out)?;
    std::fs::write(out.join("faults.md"), report.markdown())?;
    std::fs::write(out.join("faults.json"), serde_json::to_vec_pretty(report)?)?;
    Ok(())
}

/// What a fault did.
struct Struck {
    /// Who is dead by it.
    dead: Vec<usize>,
    /// How long after it the takeover was complete, where that is known already.
    takeover: Option<Duration>,
}

/// What a case needs.
struct Run<'a> {
    stage: &'a mut Stage,
    clients: &'a Clients,
    timeline: Timeline,
    options: &'a Options,
    /// Whether Arti knows this network's circuits.
    learned: &'a mut bool,
}

impl Run<'_> {
    /// Runs one case. What goes wrong with the case itself is a broken rule, and the suite goes on.
    async fn case(&mut self, case: Case, healthy: Option<&BTreeMap<Kind, Duration>>) -> CaseReport {
        let (nodes, since) = (self.stage.size(), Instant::now());
        let mut found = CaseReport {
            nodes,
            case: case.title(),
            period: period_now(PERIOD),
            takeovers: Vec::new(),
            accepted: Vec::new(),
            attempts: Vec::new(),
            lost: Vec::new(),
            broken: Vec::new(),
        };
        let mut made = Vec::new();
        let mut takeovers = Vec::new();
        let mut warming = Vec::new();
        if let Err(error) = self.rounds(case, &mut made, &mut takeovers, &mut warming, &mut found.broken).await {
            found.broken.push(format!("the case could not be run to its end: {error}"));
        }
        let mut accepted = self.stage.accepted(since);
        accepted.retain(|(at, _)| !warming.iter().any(|span| span.contains(at)));
        found.accepted = (0..nodes).map(|node| accepted.iter().filter(|(_, of)| *of == node).count()).collect();
        found.attempts = attribute(made, accepted);
        let evidence = Evidence { case, attempts: &found.attempts, takeovers: &takeovers, accepted: &found.accepted };
        found.broken.extend(judge(&evidence, healthy, self.options.rules));
        let lost = |attempt: &Attempt| is_lost(&evidence, attempt) && is_excused(&evidence, attempt);
        let lost = found.attempts.iter().enumerate().filter(|(_, attempt)| lost(attempt)).map(|(index, _)| index);
        found.lost = lost.collect();
        found.takeovers = takeovers.iter().map(|end| report::rounded(*end)).collect();
        self.timeline.say(format!(
            "{nodes} nodes, {}: {} connects, {} rules broken, in {}",
            case.title(),
            found.attempts.len(),
            found.broken.len(),
            seconds(since.elapsed())
        ));
        for broken in found.broken.iter().take(TOLD) {
            self.timeline.say(format!("  {broken}"));
        }
        found
    }

    async fn rounds(
        &mut self,
        case: Case,
        made: &mut Vec<Made>,
        takeovers: &mut Vec<Option<Duration>>,
        warming: &mut Vec<Range<Instant>>,
        broken: &mut Vec<String>,
    ) -> Result<()> {
        let mut since = Instant::now();
        self.heal(broken).await?;
        if !*self.learned {
            self.clients.learn(&self.stage.cluster.address).await?;
            *self.learned = true;
        }
        let rounds = case.rounds(self.stage.size());
        let odd = self.prepare(case, broken).await?;
        let mut scheduled = VecDeque::new();
        for round in 0..rounds {
            if round > 0 {
                self.heal(broken).await?;
            }
            if scheduled.is_empty() {
                // Clients that know the service know it as it was before this fault, or before the first of those that are one.
                let all = self.options.connects;
                let wanted = if case.is_one_fault() {
                    Wanted { connects: all, rounds }
                } else {
                    Wanted { connects: all * (round + 1) / rounds - all * round / rounds, rounds: 1 }
                };
                let tickets = self.clients.tickets(&self.stage.cluster.address, wanted).await?;
                scheduled.extend(schedule(tickets, wanted.rounds));
                warming.push(since..Instant::now());
            }
            let tickets = scheduled.pop_front().unwrap_or_default();
            let before = Instant::now();
            let Struck { dead, takeover } = self.strike(case, round, odd).await?;
            // What takes time to be done is done at its beginning, but for what has only begun when it is seen to be done.
            let fault = if case.is_seen_first() { Instant::now() } else { before };
            let makes = make(round, fault, tickets);
            let stage = &mut *self.stage;
            let meanwhile = async {
                match case {
                    // A stop takes its time, and so does the start after it.
                    Case::Stop => stage.stop(dead[0]).await?,
                    Case::Rolling => stage.restart(dead[0], Launch::default()).await?,
                    _ => {}
                }
                Ok::<_, Box<dyn std::error::Error + Send + Sync>>(if case.is_taken_over() && takeover.is_none() {
                    stage.wait_takeover(&dead, fault).await
                } else {
                    takeover
                })
            };
            let (all, takeover) = tokio::join!(makes, meanwhile);
            made.extend(all?);
            takeovers.push(takeover?);
            since = Instant::now();
        }
        Ok(())
    }

    /// What has to be so before clients are made ready; the node that is not like the others.
    async fn prepare(&mut self, case: Case, broken: &mut Vec<String>) -> Result<Option<usize>> {
        let launch = match case {
            Case::Fast => Launch { variables: clock::off_by("+90s")?, ..Launch::default() },
            Case::Slow => Launch { variables: clock::off_by("-90s")?, ..Launch::default() },
            Case::Bare => Launch { material: Material::Withheld, ..Launch::default() },
            _ => return Ok(None),
        };
        let odd = self.stage.victim(&[]);
        let has_wrong_clock = !launch.variables.is_empty();
        self.stage.restart(odd, launch).await?;
        self.settle(broken).await;
        if has_wrong_clock && !self.stage.process(odd)?.maps()?.contains(clock::LIBRARY) {
            return Err("the node does not run with libfaketime".into());
        }
        Ok(Some(odd))
    }

    /// Does what the case is about.
    async fn strike(&mut self, case: Case, round: usize, odd: Option<usize>) -> Result<Struck> {
        let stage = &mut *self.stage;
        let victim = match case {
            Case::Publisher => stage.publisher(),
            Case::Bare => match (stage.publisher(), odd) {
                (publisher, Some(odd)) if publisher == odd => stage.victim(&[odd]),
                (publisher, _) => publisher,
            },
            Case::Rolling => round,
            Case::Healthy | Case::Fast | Case::Slow => 0,
            // Who publishes lists points of its own that are there, whatever it tells the others.
            Case::Garbage => stage.victim(&[stage.publisher()]),
            _ => stage.victim(&[]),
        };
        let mut struck = Struck { dead: vec![victim], takeover: None };
        match case {
            Case::Healthy | Case::Fast | Case::Slow => struck.dead.clear(),
            // These go on while clients connect.
            Case::Stop | Case::Rolling => {}
            Case::Kill | Case::Publisher | Case::Bare => stage.kill(victim).await?,
            Case::Freeze => stage.freeze(victim).await?,
            Case::Cut => stage.cut(victim).await?,
            Case::Two => {
                let other = stage.victim(&[victim]);
                stage.kill(victim).await?;
                stage.kill(other).await?;
                struck.dead.push(other);
            }
            Case::Mute => {
                let told = Instant::now();
                stage.tell(victim, "fault mute").await?;
                stage.wait_declared_dead(victim, told).await?;
            }
            Case::Garbage => {
                let told = Instant::now();
                stage.tell(victim, "fault garbage").await?;
                stage.wait_published(told).await?;
            }
            Case::Thaw => {
                let frozen = Instant::now();
                stage.freeze(victim).await?;
                struck.takeover = stage.wait_takeover(&[victim], frozen).await;
                stage.thaw(victim).await?;
                struck
                    .takeover
                    .ok_or("the nodes never said that the takeover was complete, so there is nothing to thaw after")?;
            }
        }
        Ok(struck)
    }

    async fn heal(&mut self, broken: &mut Vec<String>) -> Result<()> {
        let healed = self.stage.heal().await;
        self.stage.wait_rested().await;
        match healed {
            Ok(()) => Ok(()),
            // The nodes run: what clients see is still worth seeing.
            Err(error) if error.to_string().starts_with("not healthy") => {
                broken.push(error.to_string());
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    async fn settle(&mut self, broken: &mut Vec<String>) {
        if let Err(error) = self.stage.wait_healthy().await {
            broken.push(error.to_string());
        }
    }
}

/// The suite as a whole has to see that many.
const PERIODS: usize = 3;

/// How many broken rules of a case are told at once; the report has all.
const TOLD: usize = 5;
