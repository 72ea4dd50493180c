//! Keeping a session with a peer: dialling again when it has ended, with growing, jittered waits.

use std::fmt;
use std::future::Future;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::failure::Failure;
use super::{ConnectError, Session};
use crate::error::ErrorKind;
use crate::session::{CLOSE_REPLACED, SessionError};

/// The shortest first wait: a peer that cannot be reached must not cost a busy loop.
pub const MIN_BACKOFF: Duration = Duration::from_millis(10);
/// The longest wait that may be configured: who waits longer is not keeping a session.
pub const MAX_BACKOFF: Duration = Duration::from_secs(60 * 60);
/// A session that lived this long was a success, after which waits begin anew. Shorter ones count as failures, so that a peer
/// which accepts and hangs up is not dialled without pause.
pub const HEALTHY_SESSION: Duration = Duration::from_secs(10);

/// How long to wait between attempts to reach a peer.
///
/// Each wait is drawn evenly between half and all of its bound, so that many who lost the same peer do not come back at the
/// same moment. The bound begins with the first wait and doubles with every failure up to the longest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    first: Duration,
    longest: Duration,
}

impl Backoff {
    /// Waits from `first` to `longest`. Shorter waits find a peer that came back sooner and cost a dial each; over Tor a dial
    /// takes several circuits.
    ///
    /// # Errors
    /// [`BackoffError`] when `first` is below [`MIN_BACKOFF`] or above `longest`, or that is above [`MAX_BACKOFF`].
    pub fn new(first: Duration, longest: Duration) -> Result<Self, BackoffError> {
        if first < MIN_BACKOFF || first > longest || longest > MAX_BACKOFF {
            return Err(BackoffError);
        }
        Ok(Self { first, longest })
    }

    /// The bound of the first wait.
    pub fn first(&self) -> Duration {
        self.first
    }

    /// The bound of the longest wait.
    pub fn longest(&self) -> Duration {
        self.longest
    }
}

impl Default for Backoff {
    /// From one second to one minute.
    fn default() -> Self {
        Self { first: Duration::from_secs(1), longest: Duration::from_secs(60) }
    }
}

/// The waits of a [`Backoff`] cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the first wait must be at least 10 ms and at most the longest, and that at most an hour")]
pub struct BackoffError;

impl BackoffError {
    /// What a caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        ErrorKind::InvalidInput
    }
}

/// A session that is dialled again whenever it has ended, until this is dropped.
///
/// While this lives the session is kept although nobody else holds it. Dropping it ends the dialling; the session goes on as
/// long as other handles hold it.
///
/// After a failure of the session with one replica of a service, the next is with another one, if one answers within a few
/// dials. What was under way on the streams of the old session is for their protocols to take up again: see [`after`](Self::after).
#[must_use = "dropping it ends the dialling"]
pub struct Maintained {
    session: watch::Receiver<Option<Session>>,
    _task: JoinSet<()>,
}

impl Maintained {
    /// Keeps what `dial` gives, which is told how the session before has failed. `random` gives numbers from 0 to 1.
    pub(super) fn start<D, F>(dial: D, backoff: Backoff, random: impl FnMut() -> f64 + Send + 'static) -> Self
    where
        D: Fn(Option<Failure>) -> F + Send + Sync + 'static,
        F: Future<Output = Result<Session, ConnectError>> + Send + 'static,
    {
        let (live, session) = watch::channel(None);
        let mut task = JoinSet::new();
        task.spawn(keep(dial, Waits::new(backoff), random, live));
        Self { session, _task: task }
    }

    /// Waits for a live session. One that has ended and was not noticed yet to have may be returned.
    ///
    /// # Cancel safety
    /// Cancel-safe.
    pub async fn session(&self) -> Session {
        self.wait(|_| true).await
    }

    /// Waits for a live session other than `last`: the one in which to go on after `last` has ended. Whether it is with another
    /// replica of the service shows in [`Session::replica`] of the two.
    ///
    /// # Cancel safety
    /// Cancel-safe.
    pub async fn after(&self, last: &Session) -> Session {
        self.wait(|live| live.shared.id != last.shared.id).await
    }

    async fn wait(&self, fits: impl Fn(&Session) -> bool) -> Session {
        let mut session = self.session.clone();
        loop {
            let live = session.wait_for(|live| live.as_ref().is_some_and(&fits)).await;
            if let Some(live) = live.ok().and_then(|session| session.clone()) {
                return live;
            }
            // The task that dials ends only with this, or with the runtime.
            std::future::pending::<()>().await;
        }
    }

    /// The live session, if there is one now.
    pub fn current(&self) -> Option<Session> {
        self.session.borrow().clone()
    }
}

impl fmt::Debug for Maintained {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Maintained").field("session", &*self.session.borrow()).finish_non_exhaustive()
    }
}

async fn keep<D, F>(
    dial: D,
    mut waits: Waits,
    mut random: impl FnMut() -> f64 + Send + 'static,
    live: watch::Sender<Option<Session>>,
) where
    D: Fn(Option<Failure>) -> F + Send + Sync + 'static,
    F: Future<Output = Result<Session, ConnectError>> + Send,
{
    let mut failure = None;
    loop {
        match dial(failure).await {
            Ok(session) => {
                let began = Instant::now();
                live.send_replace(Some(session.clone()));
                let why = session.draining_or_closed().await;
                live.send_replace(None);
                failure = why.as_ref().and_then(|why| Failure::of(&session.shared, why));
                drop(session);
                if began.elapsed() >= HEALTHY_SESSION {
                    waits.succeeded();
                }
                let replaced = matches!(why, None | Some(SessionError::ClosedByPeer(CLOSE_REPLACED)));
                if replaced && began.elapsed() >= waits.backoff.first {
                    // Another session with the peer goes on, which is there to be taken; or the peer ends this one in order.
                    continue;
                }
            }
            Err(error) => tracing::debug!(%error, "a session that is to be kept cannot be had"),
        }
        tokio::time::sleep(waits.next(random())).await;
    }
}

/// The waits between attempts.
#[derive(Debug)]
struct Waits {
    backoff: Backoff,
    bound: Duration,
}

impl Waits {
    fn new(backoff: Backoff) -> Self {
        Self { backoff, bound: backoff.first }
    }

    /// The next wait, for a random number from 0 to 1.
    fn next(&mut self, random: f64) -> Duration {
        let wait = self.bound.mul_f64(0.5 + random.clamp(0.0, 1.0) / 2.0);
        self.bound = (self.bound * 2).min(self.backoff.longest);
        wait
    }

    fn succeeded(&mut self) {
        self.bound = self.backoff.first;
    }
}

#[cfg(test)]
mod tests {
    use rand::rngs::StdRng;
    use rand::{RngExt, SeedableRng};

    use super::*;

    fn seconds(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    #[test]
    fn waits_double_up_to_the_longest_and_begin_anew_after_a_success() {
        let mut waits = Waits::new(Backoff::new(seconds(1), seconds(5)).expect("fits"));
        let bounds: Vec<_> = (0..5).map(|_| waits.next(1.0)).collect();
        assert_eq!(bounds, [1, 2, 4, 5, 5].map(seconds));
        waits.succeeded();
        assert_eq!(waits.next(0.0), seconds(1) / 2);
    }

    #[test]
    fn waits_are_spread_over_the_upper_half_of_their_bound() {
        let mut random = StdRng::seed_from_u64(7);
        let mut least = 1.0f64;
        let mut most = 0.0f64;
        for _ in 0..1_000 {
            let wait = Waits::new(Backoff::default()).next(random.random()).as_secs_f64();
            assert!((0.5..=1.0).contains(&wait), "{wait}");
            (least, most) = (least.min(wait), most.max(wait));
        }
        assert!(least < 0.51 && most > 0.99, "{least} {most}");
    }

    #[test]
    fn waits_that_make_no_sense_are_refused() {
        for (first, longest) in [(Duration::ZERO, seconds(1)), (seconds(2), seconds(1)), (seconds(1), seconds(3_601))] {
            assert_eq!(Backoff::new(first, longest), Err(BackoffError));
        }
        assert!(Backoff::new(MIN_BACKOFF, MAX_BACKOFF).is_ok());
    }
}
