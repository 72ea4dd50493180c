//! When a node asks its wardens, and what becomes of what they hand out.
//!
//! Invariants: what is handed out is verified as a file would be, and put where `import` puts it, before anything counts; no
//! answer makes a node ask more often than every [`SOONEST`], nor more than [`AT_A_TIME`] times in a row.

use std::sync::Arc;
use std::time::Duration;

use rand::RngExt as _;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::sleep;

use super::codec::{Answer, Question};
use super::{FetchError, ask};
use crate::identity::OnionAddress;
use crate::node::Node;
use crate::owner::{Holdings, Import};
use crate::service::clock::unix_now;
use crate::service::status::{ServiceEvent, Teller};

/// What a node needs to keep itself in grants.
pub(in crate::service) struct Fetching {
    pub(in crate::service) node: Node,
    /// At least one; the next is asked when one has failed.
    pub(in crate::service) wardens: Vec<OnionAddress>,
    pub(in crate::service) held: watch::Receiver<Arc<Holdings>>,
    /// Asks for the folder to be read again.
    pub(in crate::service) renewals: mpsc::Sender<oneshot::Sender<()>>,
    pub(in crate::service) teller: Teller,
}

/// What came of a round of questions.
struct Fetched {
    grants: usize,
    next: Option<u64>,
}

impl Fetching {
    /// Asks for as long as the service runs: when the warden has said that something will be due, and every [`AT_LATEST`].
    pub(in crate::service) async fn run(self) {
        let mut failures: u32 = 0;
        for warden in self.wardens.iter().cycle() {
            // The same one goes on being asked while it answers.
            while let Some(wait) = self.turn(*warden, &mut failures).await {
                sleep(wait).await;
            }
            sleep(backoff(failures)).await;
        }
    }

    /// Asks one warden; how long to wait before it is asked again, none when it failed.
    async fn turn(&self, warden: OnionAddress, failures: &mut u32) -> Option<Duration> {
        match self.fetch(warden).await {
            Ok(Fetched { grants, next }) => {
                *failures = 0;
                if grants > 0 {
                    self.teller.event(ServiceEvent::Fetched { warden, grants });
                }
                let wait = next.map_or(AT_LATEST, |at| Duration::from_secs(at.saturating_sub(unix_now())));
                // Not all at the same second, which would show who belongs together.
                let jitter = Duration::from_secs_f64(rand::rng().random_range(0.0..JITTER.as_secs_f64()));
                Some(wait.clamp(SOONEST, AT_LATEST) + jitter)
            }
            Err(error) => {
                *failures = failures.saturating_add(1);
                tracing::warn!(%error, "nothing was fetched from a warden");
                let (kind, reason) = (error.kind(), error.to_string());
                self.teller.event(ServiceEvent::FetchFailed { warden, kind, reason });
                None
            }
        }
    }

    /// Takes in what is due, one grant after the other.
    async fn fetch(&self, warden: OnionAddress) -> Result<Fetched, FetchError> {
        let mut grants = 0;
        while grants < AT_A_TIME {
            let held = Arc::clone(&self.held.borrow());
            let question = Question { service: held.recipient().service(), above: held.newest_serial() };
            let grant = match ask(&self.node, warden, question).await? {
                Answer::Grant(grant) => grant,
                Answer::Nothing { next } => return Ok(Fetched { grants, next }),
                Answer::Unknown => return Err(FetchError::Unknown),
                Answer::Later => return Err(FetchError::Later),
            };
            let import = move || -> Result<Import, FetchError> {
                let now = unix_now();
                let mut holdings = held.reopen(now)?;
                Ok(holdings.import(&grant, now)?)
            };
            match tokio::task::spawn_blocking(import).await {
                Ok(Ok(Import::Taken)) => grants += 1,
                Ok(Ok(Import::Held)) => return Err(FetchError::Stale),
                Ok(Err(error)) => return Err(error),
                // The runtime is shutting down.
                Err(_) => return Ok(Fetched { grants, next: None }),
            }
            let (done, renewed) = oneshot::channel();
            if self.renewals.send(done).await.is_err() || renewed.await.is_err() {
                return Ok(Fetched { grants, next: None });
            }
        }
        // There may be more; the next round sees.
        Ok(Fetched { grants, next: Some(0) })
    }
}

/// How long nobody is asked after so many failures in a row.
fn backoff(failures: u32) -> Duration {
    let wait = SOONEST * 2_u32.saturating_pow(failures.saturating_sub(1).min(8));
    wait.min(RETRY_AT_LATEST).mul_f64(rand::rng().random_range(0.8..1.2))
}

/// Between two questions, but for those that follow a grant: a warden that says something is due and hands out nothing must
/// not be asked without end.
const SOONEST: Duration = Duration::from_secs(15);
/// The owner may have put something into the stock, such as a manifest without somebody.
const AT_LATEST: Duration = Duration::from_secs(60 * 60);
/// Between two tries when none succeeds: half of the shortest time for which a step of a schedule is handed out before it
/// begins, a quarter of an hour.
const RETRY_AT_LATEST: Duration = Duration::from_secs(450);
/// How much later than at the time that the warden said a node asks, at most.
const JITTER: Duration = Duration::from_secs(60);
/// Grants in a row: as many as a node holds at a time.
const AT_A_TIME: usize = Holdings::MAX_GRANTS;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_are_repeated_less_and_less_often_and_never_for_too_long() {
        let mut last = Duration::ZERO;
        for failures in 1..100 {
            let wait = backoff(failures);
            assert!(wait >= SOONEST.mul_f64(0.8) && wait <= RETRY_AT_LATEST.mul_f64(1.2), "{wait:?}");
            assert!(wait >= last.mul_f64(0.6));
            last = wait;
        }
        assert!(last >= RETRY_AT_LATEST.mul_f64(0.8));
    }
}
