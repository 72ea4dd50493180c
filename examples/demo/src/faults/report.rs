//! What the suite found, as Markdown for people and JSON for programs.

use std::fmt::Write as _;
use std::time::Duration;

use serde::Serialize;

use super::attempt::{Attempt, Kind, Knowledge};
use super::load::SETTLED;
use crate::percentile;

/// What one case came to.
#[derive(Clone, Debug, Serialize)]
pub struct CaseReport {
    /// How many nodes.
    pub nodes: usize,
    /// What went wrong.
    pub case: &'static str,
    /// The time period that it began in.
    pub period: u64,
    /// How long after its fault the takeover was complete, by round, in seconds; none where the nodes never said so.
    pub takeovers: Vec<Option<f64>>,
    /// How many clients each node accepted.
    pub accepted: Vec<usize>,
    /// Every connect.
    pub attempts: Vec<Attempt>,
    /// The connects that took as long as if their introduction had been lost with a silent node: which of `attempts`.
    pub lost: Vec<usize>,
    /// The rules that were broken.
    pub broken: Vec<String>,
}

/// What the suite came to.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Report {
    /// Every case, in order.
    pub cases: Vec<CaseReport>,
    /// The rules for the suite as a whole that were broken.
    pub broken: Vec<String>,
    /// How long it took, in seconds.
    pub seconds: f64,
    /// How many time periods it saw.
    pub periods: usize,
}

impl Report {
    /// How many rules were broken.
    pub fn broken(&self) -> usize {
        self.broken.len() + self.cases.iter().map(|case| case.broken.len()).sum::<usize>()
    }

    /// Tables and lists.
    pub fn markdown(&self) -> String {
        let mut text = String::from(HEAD);
        for case in &self.cases {
            for kind in Kind::ALL {
                let _ = writeln!(text, "{}", row(case, kind.title(), |a| a.kind == kind && !holds_circuit(a)));
            }
            let _ = writeln!(text, "{}", row(case, "HCP with a circuit", holds_circuit));
        }
        let _ = writeln!(
            text,
            "\n{} connects in {:.0} minutes, over {} time periods.",
            self.cases.iter().map(|case| case.attempts.len()).sum::<usize>(),
            self.seconds / 60.0,
            self.periods
        );
        text.push_str("\n### Connects of stock clients whose introduction was lost with a silent node\n\n");
        let lost: Vec<_> =
            self.cases.iter().flat_map(|case| case.lost.iter().map(move |index| (case, *index))).collect();
        if lost.is_empty() {
            text.push_str("None.\n");
        }
        for (case, index) in lost {
            let Some(attempt) = case.attempts.get(index) else { continue };
            let _ = writeln!(
                text,
                "- {} nodes, {}: {} begun {:.1} s after the fault, took {:.1} s",
                case.nodes,
                case.case,
                attempt.kind.title(),
                attempt.begun.as_secs_f64(),
                attempt.took.as_secs_f64()
            );
        }
        text.push_str("\n### Rules that were broken\n\n");
        if self.broken() == 0 {
            text.push_str("None.\n");
        }
        for broken in &self.broken {
            let _ = writeln!(text, "- {broken}");
        }
        for case in &self.cases {
            for broken in &case.broken {
                let _ = writeln!(text, "- {} nodes, {}: {broken}", case.nodes, case.case);
            }
        }
        text
    }
}

/// Such clients are held to other rules, so they have a row of their own.
fn holds_circuit(attempt: &Attempt) -> bool {
    attempt.knowledge == Knowledge::Connected
}

fn row(case: &CaseReport, title: &str, is_of_row: impl Fn(&Attempt) -> bool) -> String {
    let of_kind: Vec<_> = case.attempts.iter().filter(|attempt| is_of_row(attempt)).collect();
    let failed = of_kind.iter().filter(|attempt| attempt.error.is_some()).count();
    let times = |late: bool| -> String {
        let served = of_kind.iter().filter(|attempt| attempt.error.is_none() && (attempt.begun >= SETTLED) == late);
        let took: Vec<_> = served.map(|attempt| attempt.took).collect();
        if took.is_empty() {
            return "-".into();
        }
        [50, 95, 100].map(|percent| format!("{:.2}", percentile(&took, percent).as_secs_f64())).join(" / ")
    };
    let lost = case.lost.iter().filter(|index| case.attempts.get(**index).is_some_and(&is_of_row)).count();
    let takeover = case
        .takeovers
        .iter()
        .flatten()
        .copied()
        .fold(None, |worst: Option<f64>, end| Some(worst.map_or(end, |worst| worst.max(end))));
    format!(
        "| {} | {} | {} | {}/{} | {} | {} | {} | {} | {} |",
        case.nodes,
        case.case,
        title,
        of_kind.len() - failed,
        of_kind.len(),
        times(false),
        times(true),
        lost,
        takeover.map_or_else(|| "-".into(), |end| format!("{end:.1}")),
        case.accepted.iter().map(ToString::to_string).collect::<Vec<_>>().join("/"),
    )
}

/// In seconds, rounded for people.
pub(super) fn rounded(duration: Option<Duration>) -> Option<f64> {
    duration.map(|duration| (duration.as_secs_f64() * 1000.0).round() / 1000.0)
}

const HEAD: &str = "\
Seconds, as p50 / p95 / worst; half of the clients are fresh, the others have the descriptor\ncached; half of HCP's others hold a circuit to a node as well, perhaps to the one that fails.

| nodes | case | client | served | begun < 10 s after the fault | begun later | lost with a silent node | takeover | by node |
|---|---|---|---|---|---|---|---|---|
";
