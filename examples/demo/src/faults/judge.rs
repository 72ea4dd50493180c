//! The rules that every case is held to.

use std::collections::BTreeMap;
use std::time::Duration;

use super::attempt::{Attempt, Kind, Knowledge};
use super::case::Case;
use super::load::SETTLED;
use crate::percentile;

/// Which rules apply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rules {
    /// All of them.
    All,
    /// Those that a busy machine and a few connects can be held to: success, and the worst time.
    Worst,
}

/// What a case came to, as far as rules ask for it.
#[derive(Clone, Debug)]
pub(super) struct Evidence<'a> {
    /// The case.
    pub(super) case: Case,
    /// What was tried.
    pub(super) attempts: &'a [Attempt],
    /// How long after its fault the takeover was complete, by round; none where the nodes never said so.
    pub(super) takeovers: &'a [Option<Duration>],
    /// How many clients each node accepted.
    pub(super) accepted: &'a [usize],
}

/// No connect takes longer, but for those that [`is_excused`] says.
pub(super) const WORST: Duration = Duration::from_secs(15);

/// Longer than a connect takes of which no introduction was lost, and shorter than clients wait for one that was: on the
/// suite's network C tor some 6 s, Arti some 12 s.
pub(super) const LOST: Duration = Duration::from_secs(4);

/// Takeover is complete by then.
pub(super) const TAKEOVER: Duration = Duration::from_secs(10);

/// How many times the healthy p95 that of a case may be, once things have settled.
const FACTOR: u32 = 2;

/// The part of all runs of an even service in which chance makes it look uneven.
const UNEVEN_BY_CHANCE: f64 = 1e-4;

/// Whether a connect may take longer than [`WORST`]: a stock client's introduction can have reached a node that had vanished
/// without a word, and nobody can answer it any more. After the takeover that cannot be.
pub(super) fn is_excused(evidence: &Evidence<'_>, attempt: &Attempt) -> bool {
    let takeover = evidence.takeovers.get(attempt.round).copied().flatten();
    attempt.kind.is_stock() && evidence.case.is_silent() && takeover.is_some_and(|end| attempt.begun < end)
}

/// Whether the introduction of a connect seems to have been lost with a silent node: nothing but the time that it took tells.
pub(super) fn is_lost(evidence: &Evidence<'_>, attempt: &Attempt) -> bool {
    attempt.kind.is_stock() && evidence.case.is_silent() && attempt.took > LOST
}

/// Every rule that is broken, in words; none is well.
pub(super) fn judge(evidence: &Evidence<'_>, healthy: Option<&BTreeMap<Kind, Duration>>, rules: Rules) -> Vec<String> {
    let mut broken = Vec::new();
    for attempt in evidence.attempts {
        let who = format!(
            "{} ({:?}), begun {:.1} s after the fault",
            attempt.kind.title(),
            attempt.knowledge,
            attempt.begun.as_secs_f64()
        );
        if let Some(error) = &attempt.error {
            broken.push(format!("{who}: failed after {:.1} s: {error}", attempt.took.as_secs_f64()));
            continue;
        }
        if is_excused(evidence, attempt) {
            continue;
        }
        let took = attempt.took.as_secs_f64();
        if attempt.took > WORST {
            broken.push(format!("{who}: took {took:.1} s"));
        } else if rules == Rules::All && is_lost(evidence, attempt) {
            broken.push(format!("{who}: took {took:.1} s, as if its introduction had been lost after the takeover"));
        }
    }
    if evidence.case.is_taken_over() {
        for takeover in evidence.takeovers {
            match takeover {
                None => broken.push("the nodes never said that the takeover was complete".into()),
                Some(end) if *end > TAKEOVER => {
                    broken.push(format!("takeover was complete after {:.1} s", end.as_secs_f64()));
                }
                Some(_) => {}
            }
        }
    }
    if rules == Rules::Worst {
        return broken;
    }
    if evidence.case == Case::Healthy {
        let served = evidence.attempts.iter().filter(|attempt| attempt.error.is_none()).count();
        let told: usize = evidence.accepted.iter().sum();
        if told < served {
            broken.push(format!("nodes told of {told} clients only, where {served} were served"));
        }
        broken.extend(uneven(evidence.accepted));
    } else if let Some(healthy) = healthy {
        for (kind, usual) in healthy {
            let late = p95(evidence.attempts, *kind);
            if late > FACTOR * *usual {
                broken.push(format!(
                    "{}: p95 of what began {} s or more after the fault is {:.2} s, more than {FACTOR} times the healthy {:.2} s",
                    kind.title(),
                    SETTLED.as_secs(),
                    late.as_secs_f64(),
                    usual.as_secs_f64()
                ));
            }
        }
    } else {
        broken.push("there is no healthy case to compare with".into());
    }
    broken
}

/// The p95 of the connects of one kind that succeeded and began when things had settled.
///
/// Without those of diallers that may hold a circuit to a node that stands still: nothing but time tells that it does. They
/// are held to the worst time.
pub(super) fn p95(attempts: &[Attempt], kind: Kind) -> Duration {
    let of_kind = attempts
        .iter()
        .filter(|attempt| attempt.kind == kind && attempt.knowledge != Knowledge::Connected && attempt.error.is_none());
    let took: Vec<_> = of_kind.filter(|attempt| attempt.begun >= SETTLED).map(|attempt| attempt.took).collect();
    percentile(&took, 95)
}

/// Says so when clients are not spread evenly over the nodes.
fn uneven(accepted: &[usize]) -> Option<String> {
    let chance = chance_of(accepted)?;
    (chance < UNEVEN_BY_CHANCE)
        .then(|| format!("clients per node are {accepted:?}: by chance that is so with p = {chance:.1e}"))
}

/// The chance that an even service is this uneven or more (Pearson's chi-square); none without clients.
fn chance_of(accepted: &[usize]) -> Option<f64> {
    let total: usize = accepted.iter().sum();
    if total == 0 || accepted.len() < 2 {
        return None;
    }
    let expected = total as f64 / accepted.len() as f64;
    let statistic: f64 = accepted.iter().map(|count| (*count as f64 - expected).powi(2) / expected).sum();
    Some(survival(statistic, accepted.len() - 1))
}

/// The chance that chi-square with these degrees of freedom exceeds `x` (Abramowitz and Stegun, 26.4.4 and 26.4.5).
fn survival(x: f64, degrees: usize) -> f64 {
    let (mut sum, mut term, first) = if degrees.is_multiple_of(2) {
        (0.0, (-x / 2.0).exp(), 2)
    } else {
        (normal_tails(x.sqrt()), 2.0 * normal_density(x.sqrt()) * x.sqrt(), 3)
    };
    for degree in (first..=degrees).step_by(2) {
        sum += term;
        term *= x / degree as f64;
    }
    sum
}

/// The chance that a normal value is farther from zero than `z` (Abramowitz and Stegun, 26.2.17; the error is below 1e-7).
fn normal_tails(z: f64) -> f64 {
    const B: [f64; 5] = [0.319_381_530, -0.356_563_782, 1.781_477_937, -1.821_255_978, 1.330_274_429];
    let t = 1.0 / (1.0 + 0.231_641_9 * z);
    let sum: f64 = B.iter().rev().fold(0.0, |sum, b| (sum + b) * t);
    2.0 * normal_density(z) * sum
}

fn normal_density(z: f64) -> f64 {
    (-z * z / 2.0).exp() / (2.0 * std::f64::consts::PI).sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attempt(kind: Kind, begun: f64, took: f64) -> Attempt {
        Attempt {
            kind,
            knowledge: Knowledge::Fresh,
            round: 0,
            begun: Duration::from_secs_f64(begun),
            took: Duration::from_secs_f64(took),
            node: None,
            error: None,
        }
    }

    fn broken(case: Case, attempts: &[Attempt], takeover: Option<f64>, rules: Rules) -> usize {
        let takeovers = [takeover.map(Duration::from_secs_f64)];
        let healthy = Kind::ALL.map(|kind| (kind, Duration::from_secs(1))).into();
        let evidence = Evidence { case, attempts, takeovers: &takeovers, accepted: &[] };
        judge(&evidence, Some(&healthy), rules).len()
    }

    #[test]
    fn every_connect_has_to_succeed_in_every_case() {
        let mut failed = attempt(Kind::Arti, 1.0, 0.1);
        failed.error = Some("no".into());
        for case in Case::ALL {
            assert_eq!(broken(case, std::slice::from_ref(&failed), Some(4.0), Rules::All), 1, "{case:?}");
        }
    }

    #[test]
    fn only_a_stock_client_that_began_before_the_takeover_from_a_silent_node_may_be_slow() {
        let slow = |kind, begun| [attempt(kind, begun, 40.0)];
        assert_eq!(broken(Case::Freeze, &slow(Kind::Tor, 3.0), Some(4.0), Rules::All), 0);
        assert_eq!(broken(Case::Cut, &slow(Kind::Arti, 3.0), Some(4.0), Rules::All), 0);
        assert_eq!(broken(Case::Freeze, &slow(Kind::Tor, 5.0), Some(4.0), Rules::All), 1);
        assert_eq!(broken(Case::Freeze, &slow(Kind::Hcp, 3.0), Some(4.0), Rules::All), 1);
        assert_eq!(broken(Case::Kill, &slow(Kind::Tor, 3.0), Some(4.0), Rules::All), 1);
        assert_eq!(
            broken(Case::Freeze, &slow(Kind::Tor, 3.0), None, Rules::All),
            2,
            "nor when nobody said when it was"
        );
        assert_eq!(broken(Case::Freeze, &[], Some(10.1), Rules::All), 1, "nor may the takeover take long");
        assert_eq!(broken(Case::Kill, &[], Some(10.1), Rules::All), 1, "nor that from a node that was killed");
    }

    #[test]
    fn an_introduction_that_was_lost_after_the_takeover_is_noticed() {
        let waited = |kind, begun| [attempt(kind, begun, 6.5)];
        for (begun, expected) in [(3.0, 0), (5.0, 1), (20.0, 1)] {
            // One connect is its own p95, which is beside the point.
            let late = usize::from(begun >= 10.0);
            assert_eq!(broken(Case::Freeze, &waited(Kind::Tor, begun), Some(4.0), Rules::All), expected + late);
            assert_eq!(broken(Case::Kill, &waited(Kind::Tor, begun), Some(4.0), Rules::All), late);
            assert_eq!(broken(Case::Freeze, &waited(Kind::Tor, begun), Some(4.0), Rules::Worst), 0);
        }
        assert_eq!(broken(Case::Freeze, &waited(Kind::Hcp, 5.0), Some(4.0), Rules::All), 0);
    }

    #[test]
    fn nodes_tell_of_everybody_whom_they_served() {
        let attempts = [attempt(Kind::Tor, 1.0, 0.2), attempt(Kind::Arti, 2.0, 0.2)];
        let broken = |accepted: &[usize]| {
            let evidence = Evidence { case: Case::Healthy, attempts: &attempts, takeovers: &[], accepted };
            judge(&evidence, None, Rules::All).len()
        };
        assert_eq!((broken(&[1, 1]), broken(&[1, 0]), broken(&[0, 0])), (0, 1, 1));
    }

    #[test]
    fn late_connects_are_held_to_twice_the_healthy_p95_and_all_to_the_worst_time_too() {
        let mut attempts: Vec<_> = (0..100).map(|_| attempt(Kind::Tor, 12.0, 1.9)).collect();
        assert_eq!(broken(Case::Kill, &attempts, Some(4.0), Rules::All), 0);
        attempts[7].took = Duration::from_secs(90);
        assert_eq!(broken(Case::Kill, &attempts, Some(4.0), Rules::All), 1);
        assert_eq!(broken(Case::Kill, &attempts, Some(4.0), Rules::Worst), 1);
        attempts[7].took = Duration::from_secs(2);
        for attempt in attempts.iter_mut().take(10) {
            attempt.took = Duration::from_secs(3);
        }
        assert_eq!(broken(Case::Kill, &attempts, Some(4.0), Rules::All), 1);
        for attempt in &mut attempts {
            attempt.knowledge = Knowledge::Connected;
        }
        assert_eq!(broken(Case::Kill, &attempts, Some(4.0), Rules::All), 0);
        let mut ours: Vec<_> = (0..100).map(|_| attempt(Kind::Hcp, 12.0, 1.9)).collect();
        ours[7].took = Duration::from_secs(16);
        assert_eq!(broken(Case::Kill, &ours, Some(4.0), Rules::All), 1);
    }

    #[test]
    fn chi_square_is_that_of_the_tables() {
        for (degrees, critical) in [(1, 15.137), (2, 18.421), (3, 21.108), (4, 23.513), (5, 25.745)] {
            let chance = survival(critical, degrees);
            assert!((chance - 1e-4).abs() < 2e-6, "{degrees}: {chance:e}");
        }
        assert!(uneven(&[100, 100, 100]).is_none());
        assert!(uneven(&[130, 90, 80]).is_none(), "chance does that in one of 200 runs");
        assert!(uneven(&[150, 80, 70]).is_some());
        assert!(uneven(&[300, 0, 0]).is_some());
    }
}
