//! Several tries at one connection: when the first takes unusually long, another begins beside it, and the first that succeeds
//! wins.
//!
//! A replica that hangs says nothing, so only time tells, and how much time is much differs between networks: the wait is
//! learned from tries that succeeded. At most [`UNDER_WAY`] tries are under way at once and at most [`TRIES`] are begun; when
//! another is due, the oldest makes room. From the third on the waits double, so that on a link on which everything is slow a
//! try soon has all the time that it needs. Where many dial at once, further tries are no more than a share of the dials
//! ([`Crowd`]): what is slow because there is too much of it must not be answered with more.

use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::task::Poll;
use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use super::{DialError, DialPhase};

/// Tries under way at once: with one of three replicas hung, all of them meet it once in 27 dials.
pub(super) const UNDER_WAY: usize = 3;
/// Tries of one dial: the last begins after 17 times the first wait, or later if waits are short of the deadline.
pub(super) const TRIES: usize = 8;
/// Tries that may fail, rather than hang, before the dial fails: one for a stale descriptor and one for bad luck.
const FAILURES: usize = 3;
/// The wait before anything was learned: longer than most connections to an onion service take on the public network.
const FIRST_WAIT: Duration = Duration::from_secs(4);
/// Shorter waits begin tries that a moment's load would have made needless.
const SHORTEST_WAIT: Duration = Duration::from_millis(1500);
/// Who needs longer than this as a rule is better served by a second try than by patience.
const LONGEST_WAIT: Duration = Duration::from_secs(8);

/// Further tries of all dials together: so many, and a quarter of the dials under way besides. If a replica hangs, a quarter
/// is overtaken at a time, within a second each.
const SPARE: usize = 8;
/// How soon a dial whose further try found no room asks again.
const NO_ROOM: Duration = Duration::from_millis(250);

/// Why a try failed, and whether another one can do better.
#[derive(Debug)]
pub(super) enum Failed {
    /// Every try would.
    For(DialError),
    /// This one did.
    Once(DialError),
}

/// How long tries take that succeed, as far as is known.
#[derive(Debug, Default)]
pub(super) struct Pace(Mutex<Option<Learned>>);

/// A smoothed time and its smoothed deviation, as for TCP's retransmissions (RFC 6298).
#[derive(Clone, Copy, Debug)]
struct Learned {
    time: Duration,
    deviation: Duration,
}

impl Pace {
    /// Notes how long a try took that succeeded.
    pub(super) fn learn(&self, took: Duration) {
        let mut learned = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *learned = Some(match *learned {
            None => Learned { time: took, deviation: took / 2 },
            Some(Learned { time, deviation }) => {
                Learned { time: (time * 7 + took) / 8, deviation: (deviation * 3 + time.abs_diff(took)) / 4 }
            }
        });
    }

    /// After what time a try takes unusually long.
    pub(super) fn wait(&self) -> Duration {
        match *self.0.lock().unwrap_or_else(PoisonError::into_inner) {
            None => FIRST_WAIT,
            Some(Learned { time, deviation }) => (time + deviation * 4).clamp(SHORTEST_WAIT, LONGEST_WAIT),
        }
    }
}

/// All dials that share a guard, and their further tries.
#[derive(Debug, Default)]
pub(super) struct Crowd {
    dials: AtomicUsize,
    further: AtomicUsize,
}

/// One of a [`Crowd`], for as long as it lives.
#[derive(Debug)]
pub(super) struct Member<'a>(&'a AtomicUsize);

impl Crowd {
    /// A dial that begins.
    pub(super) fn dial(&self) -> Member<'_> {
        self.dials.fetch_add(1, Ordering::Relaxed);
        Member(&self.dials)
    }

    /// A further try, if there is room for it.
    pub(super) fn further(&self) -> Option<Member<'_>> {
        let room = SPARE + self.dials.load(Ordering::Relaxed) / 4;
        let more = |count: usize| (count < room).then_some(count + 1);
        self.further.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).ok().map(|_| Member(&self.further))
    }
}

impl Drop for Member<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Runs the tries that `launch` gives for the numbers from 0 on until one succeeds, for at most `deadline`; `wait` is after
/// what time a try takes unusually long. Where `launch` gives none there is no room for one now; the first must be given.
///
/// Cancel-safe: dropping the future drops all tries, as winning drops the others.
pub(super) async fn race<T, F>(
    wait: Duration,
    deadline: Duration,
    mut launch: impl FnMut(usize) -> Option<F>,
) -> Result<T, DialError>
where
    F: Future<Output = Result<T, Failed>>,
{
    let mut now = Instant::now();
    let (end, mut due) = (now + deadline, now);
    let mut under_way: VecDeque<Pin<Box<F>>> = VecDeque::with_capacity(UNDER_WAY);
    let (mut launched, mut failures) = (0, 0);
    loop {
        if launched < TRIES && now >= due {
            due = now + NO_ROOM;
            if let Some(begun) = launch(launched) {
                if under_way.len() == UNDER_WAY {
                    under_way.pop_front();
                }
                under_way.push_back(Box::pin(begun));
                launched += 1;
                due = now + wait * (1 << launched.saturating_sub(UNDER_WAY));
            }
        }
        let first = poll_fn(|cx| {
            for (place, tried) in under_way.iter_mut().enumerate() {
                if let Poll::Ready(outcome) = tried.as_mut().poll(cx) {
                    return Poll::Ready((place, outcome));
                }
            }
            Poll::Pending
        });
        let until = if launched < TRIES { due.min(end) } else { end };
        let outcome = timeout_at(until, first).await;
        now = Instant::now();
        match outcome {
            Ok((_, Ok(won))) => return Ok(won),
            Ok((_, Err(Failed::For(error)))) => return Err(error),
            Ok((place, Err(Failed::Once(error)))) => {
                tracing::debug!(tries = launched, %error, "a try to connect failed");
                under_way.remove(place);
                failures += 1;
                if failures < FAILURES {
                    due = now;
                } else if under_way.is_empty() {
                    return Err(error);
                }
            }
            Err(_) if now >= end => return Err(DialError::TimedOut { phase: DialPhase::Connect }),
            Err(_) => tracing::debug!(tries = launched, "a try to connect takes long; beginning another beside it"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use futures::FutureExt as _;
    use futures::future::BoxFuture;
    use tokio::time::sleep;

    use super::*;
    use crate::identity::Identity;
    use crate::network::{HCP_PORT, MemoryNetwork, Network};

    /// What becomes of a try.
    #[derive(Clone, Copy)]
    enum Try {
        Takes(u64),
        Hangs,
        Fails,
        Ends,
    }
    use Try::{Ends, Fails, Hangs, Takes};

    /// Runs tries as `plan` has them, the last one's again and again; gives the winner, the time in ms and when tries began.
    async fn run(wait: Duration, plan: &[Try]) -> (Result<usize, DialError>, u64, Vec<u64>) {
        let start = Instant::now();
        let mut began = Vec::new();
        let won = race(wait, ms(60_000), |nth| {
            began.push(start.elapsed().as_millis() as u64);
            let what = plan[nth.min(plan.len() - 1)];
            Some(async move {
                match what {
                    Takes(time) => sleep(ms(time)).await,
                    Hangs => std::future::pending().await,
                    Fails => return Err(Failed::Once(DialError::Unreachable("it fails".into()))),
                    Ends => return Err(Failed::For(DialError::NotFound)),
                }
                Ok(nth)
            })
        })
        .await;
        (won, start.elapsed().as_millis() as u64, began)
    }

    fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    #[tokio::test(start_paused = true)]
    async fn a_try_that_is_as_fast_as_usual_stays_alone() {
        let (won, took, began) = run(ms(4000), &[Takes(3900)]).await;
        assert_eq!((won.unwrap(), took, began), (0, 3900, vec![0]));
    }

    #[tokio::test(start_paused = true)]
    async fn a_try_that_hangs_is_overtaken_by_the_next() {
        let (won, took, began) = run(ms(4000), &[Hangs, Takes(600)]).await;
        assert_eq!((won.unwrap(), took, began), (1, 4600, vec![0, 4000]));
        // The first may win all the same.
        let (won, took, _) = run(ms(4000), &[Takes(4500), Takes(600)]).await;
        assert_eq!((won.unwrap(), took), (0, 4500));
    }

    #[tokio::test(start_paused = true)]
    async fn three_tries_that_hang_are_overcome_well_below_15_seconds() {
        let (won, took, began) = run(FIRST_WAIT, &[Hangs, Hangs, Hangs, Takes(700)]).await;
        assert_eq!((won.unwrap(), took, began), (3, 12_700, vec![0, 4000, 8000, 12_000]));
        let (won, took, _) = run(SHORTEST_WAIT, &[Hangs, Hangs, Hangs, Hangs, Takes(700)]).await;
        assert_eq!((won.unwrap(), took), (4, 8200));
    }

    #[tokio::test(start_paused = true)]
    async fn the_oldest_makes_room_and_waits_double_so_that_slow_links_get_through() {
        let (won, took, began) = run(ms(4000), &[Takes(25_000)]).await;
        assert_eq!(began, [0, 4000, 8000, 12_000, 20_000]);
        assert_eq!((won.unwrap(), took), (2, 33_000));
        let (won, took, began) = run(ms(4000), &[Takes(50_000)]).await;
        assert!(matches!(won, Err(DialError::TimedOut { .. })), "{won:?}");
        assert_eq!((took, began), (60_000, vec![0, 4000, 8000, 12_000, 20_000, 36_000]));
    }

    #[tokio::test(start_paused = true)]
    async fn no_more_than_three_are_under_way_and_the_deadline_holds() {
        let under_way = Arc::new(AtomicUsize::new(0));
        let most = AtomicUsize::new(0);
        let mut launched = 0;
        let start = Instant::now();
        let error = race(ms(100), ms(60_000), |_| {
            launched += 1;
            // A try begins when it is polled for the first time.
            Some(async {
                let _count = Counted::new(&under_way);
                most.fetch_max(under_way.load(Ordering::SeqCst), Ordering::SeqCst);
                std::future::pending::<Result<(), Failed>>().await
            })
        });
        let error = error.await.expect_err("all hang");
        assert!(matches!(error, DialError::TimedOut { phase: DialPhase::Connect }), "{error:?}");
        assert_eq!((start.elapsed(), launched), (ms(60_000), TRIES));
        assert_eq!((most.into_inner(), under_way.load(Ordering::SeqCst)), (UNDER_WAY, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn failures_are_tried_again_at_once_and_not_for_ever() {
        let (won, took, began) = run(ms(4000), &[Fails, Fails, Takes(600)]).await;
        assert_eq!((won.unwrap(), took, began.len()), (2, 600, 3));
        let (won, took, began) = run(ms(4000), &[Fails]).await;
        assert!(matches!(won, Err(DialError::Unreachable(_))), "{won:?}");
        assert_eq!((took, began.len()), (0, FAILURES));
        // What is still under way is waited for.
        let (won, took, _) = run(ms(4000), &[Takes(5000), Fails]).await;
        assert_eq!((won.unwrap(), took), (0, 5000));
    }

    #[tokio::test(start_paused = true)]
    async fn what_no_try_can_mend_ends_all_of_them() {
        let (won, took, _) = run(ms(4000), &[Hangs, Ends]).await;
        assert!(matches!(won, Err(DialError::NotFound)), "{won:?}");
        assert_eq!(took, 4000);
    }

    #[tokio::test(start_paused = true)]
    async fn dials_of_a_network_that_hang_are_overtaken() {
        let (network, identity) = (MemoryNetwork::new(), Identity::generate());
        let mut listener = network.listen(&identity, &[HCP_PORT]).await.expect("free");
        let dial = |nth| -> Option<BoxFuture<'_, _>> {
            if nth < 2 {
                return Some(std::future::pending().boxed());
            }
            Some(network.dial(identity.address(), HCP_PORT).map(|dialled| dialled.map_err(Failed::Once)).boxed())
        };
        let start = Instant::now();
        race(FIRST_WAIT, ms(60_000), dial).await.expect("the third is answered");
        assert_eq!(start.elapsed(), FIRST_WAIT * 2);
        assert_eq!(listener.accept().await.expect("one came").port, HCP_PORT);
    }

    /// A try that cannot begin takes the place of none.
    #[tokio::test(start_paused = true)]
    async fn without_room_the_tries_under_way_go_on_and_the_next_begins_as_soon_as_there_is_some() {
        let (crowd, start) = (Crowd::default(), Instant::now());
        let all: Vec<_> = std::iter::from_fn(|| crowd.further()).collect();
        assert_eq!(all.len(), SPARE);
        let taken = std::cell::RefCell::new(Some(all));
        let mut began = Vec::new();
        let won = race(ms(1500), ms(60_000), |nth| {
            if start.elapsed() >= ms(10_000) {
                taken.take();
            }
            let place = if nth == 0 { None } else { Some(crowd.further()?) };
            began.push(start.elapsed().as_millis() as u64);
            Some(async move {
                let _place = place;
                if nth == 0 {
                    std::future::pending().await
                } else {
                    sleep(ms(600)).await
                }
                Ok(nth)
            })
        });
        assert_eq!(won.await.expect("the second wins"), 1);
        assert_eq!(began, [0, 10_000]);
        assert_eq!(crowd.further.load(Ordering::SeqCst), 0);
    }

    #[test]
    fn further_tries_are_a_share_of_the_dials() {
        let crowd = Crowd::default();
        let dials: Vec<_> = (0..100).map(|_| crowd.dial()).collect();
        let further: Vec<_> = std::iter::from_fn(|| crowd.further()).collect();
        assert_eq!(further.len(), SPARE + 25);
        drop(dials);
        assert!(crowd.further().is_none());
        drop(further);
        assert!(crowd.further().is_some());
    }

    #[test]
    fn the_wait_follows_what_was_learned_within_bounds() {
        let pace = Pace::default();
        assert_eq!(pace.wait(), FIRST_WAIT);
        pace.learn(ms(600));
        assert_eq!(pace.wait(), ms(600 + 4 * 300));
        (0..50).for_each(|_| pace.learn(ms(600)));
        assert_eq!(pace.wait(), SHORTEST_WAIT);
        (0..50).for_each(|_| pace.learn(ms(3000)));
        assert!((ms(3000)..ms(3200)).contains(&pace.wait()), "{:?}", pace.wait());
        (0..50).for_each(|_| pace.learn(ms(30_000)));
        assert_eq!(pace.wait(), LONGEST_WAIT);
    }

    struct Counted(Arc<AtomicUsize>);

    impl Counted {
        fn new(count: &Arc<AtomicUsize>) -> Self {
            count.fetch_add(1, Ordering::SeqCst);
            Self(Arc::clone(count))
        }
    }

    impl Drop for Counted {
        fn drop(&mut self) {
            self.0.fetch_sub(1, Ordering::SeqCst);
        }
    }
}
