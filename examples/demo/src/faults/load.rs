//! Spreads connects over the time after a fault, makes them, and finds out who answered.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use super::attempt::{Attempt, Kind, Knowledge};
use super::clients::Ticket;
use crate::Result;

/// Connects that begin before this are bounded each, later ones compared with the healthy case.
pub(super) const SETTLED: Duration = Duration::from_secs(10);

/// The last connect begins this long after the fault.
const LAST: Duration = Duration::from_secs(25);

/// How much later than the client a node's word of it may come to us.
const WORD: Duration = Duration::from_millis(100);

/// A connect that was made, with its place in time.
#[derive(Clone, Debug)]
pub(super) struct Made {
    pub(super) attempt: Attempt,
    begun: Instant,
    ended: Instant,
}

/// Shares tickets out among rounds: in each, half of every sort begin before [`SETTLED`], and all are spread evenly.
pub(super) fn schedule(tickets: Vec<Ticket>, rounds: usize) -> Vec<Vec<(Duration, Ticket)>> {
    let mut sorts: BTreeMap<(Kind, Knowledge), Vec<Ticket>> = BTreeMap::new();
    for ticket in tickets {
        sorts.entry((ticket.kind, ticket.knowledge)).or_default().push(ticket);
    }
    let mut all: Vec<Vec<_>> = std::iter::repeat_with(Vec::new).take(rounds).collect();
    for tickets in sorts.into_values() {
        let phase = rand::random_range(0.0..1.0);
        for (round, times) in
            times(tickets.len(), rounds, phase).into_iter().zip(tickets).map(|(at, t)| (at.0, (at.1, t)))
        {
            all[round].push(times);
        }
    }
    all
}

/// The round and the moment of each of `count` connects.
fn times(count: usize, rounds: usize, phase: f64) -> Vec<(usize, Duration)> {
    let mut times = Vec::with_capacity(count);
    for round in 0..rounds {
        let here = (count * (round + 1)) / rounds - (count * round) / rounds;
        let early = here.div_ceil(2);
        let spread = |index: usize, of: usize, from: Duration, to: Duration| {
            from + (to - from).mul_f64((index as f64 + phase) / of as f64)
        };
        times.extend((0..early).map(|i| (round, spread(i, early, Duration::ZERO, SETTLED))));
        times.extend((0..here - early).map(|i| (round, spread(i, here - early, SETTLED, LAST))));
    }
    times
}

/// Makes the connects of one round.
pub(super) async fn make(round: usize, fault: Instant, tickets: Vec<(Duration, Ticket)>) -> Result<Vec<Made>> {
    let mut connects = JoinSet::new();
    for (at, Ticket { kind, knowledge, connect }) in tickets {
        connects.spawn(async move {
            tokio::time::sleep_until((fault + at).into()).await;
            let (begun, end) = connect().await;
            let (begun, ended) = (begun.into_std(), Instant::now());
            let attempt = Attempt {
                kind,
                knowledge,
                round,
                begun: begun.saturating_duration_since(fault),
                took: ended - begun,
                node: None,
                error: end.err().map(|error| error.to_string()),
            };
            Made { attempt, begun, ended }
        });
    }
    let mut made = Vec::with_capacity(connects.len());
    while let Some(end) = connects.join_next().await {
        made.push(end?);
    }
    Ok(made)
}

/// Gives each connect that succeeded the node whose word of a client fits it best: the last one before the client had its
/// answer, that no other connect has taken.
pub(super) fn attribute(mut made: Vec<Made>, mut accepted: Vec<(Instant, usize)>) -> Vec<Attempt> {
    made.sort_by_key(|made| made.ended);
    accepted.sort();
    for made in made.iter_mut().filter(|made| made.attempt.error.is_none()) {
        let before = |(at, _): &(Instant, usize)| *at >= made.begun && *at <= made.ended;
        // A node's word takes its way too.
        let late = |(at, _): &(Instant, usize)| *at > made.ended && *at <= made.ended + WORD;
        let word = accepted.iter().rposition(before).or_else(|| accepted.iter().position(late));
        if let Some(index) = word {
            made.attempt.node = Some(accepted.remove(index).1 + 1);
        }
    }
    made.into_iter().map(|made| made.attempt).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_of_each_round_begins_before_things_have_settled_and_nobody_is_left_out() {
        for (count, rounds) in [(50, 1), (50, 3), (10, 5), (7, 3), (1, 1), (0, 1)] {
            let times = times(count, rounds, 0.5);
            assert_eq!(times.len(), count);
            for round in 0..rounds {
                let here: Vec<_> = times.iter().filter(|time| time.0 == round).collect();
                let early = here.iter().filter(|time| time.1 < SETTLED).count();
                assert_eq!(early, here.len().div_ceil(2));
                assert!(here.iter().all(|time| time.1 < LAST));
                assert!(here.len().abs_diff(count / rounds) <= 1);
            }
        }
    }

    #[test]
    fn a_connect_is_attributed_to_the_node_that_spoke_just_before_it_was_answered() {
        let start = Instant::now();
        let at = |milliseconds| start + Duration::from_millis(milliseconds);
        let made = |begun, ended| Made {
            attempt: Attempt {
                kind: Kind::Arti,
                knowledge: Knowledge::Fresh,
                round: 0,
                begun: Duration::ZERO,
                took: Duration::ZERO,
                node: None,
                error: None,
            },
            begun: at(begun),
            ended: at(ended),
        };
        let accepted = vec![(at(590), 1), (at(480), 0), (at(2_000), 2)];
        let attempts = attribute(vec![made(0, 600), made(100, 500), made(700, 900)], accepted);
        let nodes: Vec<_> = attempts.iter().map(|attempt| attempt.node).collect();
        assert_eq!(nodes, [Some(1), Some(2), None]);
    }
}
