//! Uploading descriptors to the directories of a period.

use std::collections::HashSet;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures::{Stream, StreamExt as _, stream};
use tokio::time::{Instant, timeout, timeout_at};
use tor_dirclient::request::HsDescUploadRequest;
use tor_dirclient::{Error as DirectoryError, RequestError};
use tor_hscrypto::RevisionCounter;
use tor_linkspec::{CircTarget as _, OwnedCircTarget};
use tor_netdir::{NetDir, Timeliness};
use tracing::{debug, warn};

use super::certificate::Signer;
use super::descriptor::{Clients, Reach, build, list};
use super::{Shared, view};
use crate::network::onion::{PointDescription, RelayId, Upload, UploadReport};

/// Uploads what each directory should have; all of them at once, each within [`DEADLINE`]. Once half of them have it, the others
/// have failed when they take much longer ([`straggling`]): who waits for the report has more to upload, or tries them again alone.
pub(super) async fn upload(service: &Arc<Shared>, upload: &Upload) -> UploadReport {
    let mut report = UploadReport::default();
    let mut seen = HashSet::new();
    let mut tasks = Vec::new();
    let publisher = Publisher::new(service, upload);
    for (directories, points) in &upload.listings {
        let (new, twice): (Vec<_>, Vec<_>) = directories.iter().copied().partition(|relay| seen.insert(*relay));
        report.failed.extend(twice);
        match publisher.as_ref().and_then(|publisher| publisher.descriptor(points)) {
            Some(text) => tasks.extend(new.into_iter().map(|directory| (directory, Arc::clone(&text)))),
            None => report.failed.extend(new),
        }
    }
    let Some(publisher) = publisher else { return report };
    let waiting = tasks.iter().map(|(directory, _)| *directory).collect();
    let outcomes =
        stream::iter(tasks).map(|(directory, text)| publisher.send(directory, text)).buffer_unordered(MAX_UPLOADS);
    gather(waiting, outcomes, &mut report).await;
    report
}

/// Adds up what became of uploads to these directories, until all have ended or the stragglers are given up.
async fn gather(
    mut waiting: HashSet<RelayId>,
    outcomes: impl Stream<Item = (RelayId, Outcome)>,
    report: &mut UploadReport,
) {
    let mut outcomes = pin!(outcomes);
    let (count, began) = (waiting.len(), Instant::now());
    let mut until = None;
    loop {
        if until.is_none() && report.accepted.len() * 2 >= count {
            until = Some(Instant::now() + straggling(began.elapsed()));
        }
        let next = match until {
            Some(until) => timeout_at(until, outcomes.next()).await,
            None => Ok(outcomes.next().await),
        };
        let Ok(next) = next else {
            debug!(count = waiting.len(), "directories take long over an upload");
            report.failed.extend(waiting);
            return;
        };
        let Some((directory, outcome)) = next else { return };
        waiting.remove(&directory);
        match outcome {
            Outcome::Accepted => report.accepted.push(directory),
            Outcome::Refused => report.refused.push(directory),
            Outcome::Failed => report.failed.push(directory),
        }
    }
}

enum Outcome {
    Accepted,
    Refused,
    Failed,
}

/// What the descriptors of one upload have in common.
struct Publisher<'a> {
    service: &'a Arc<Shared>,
    netdir: Arc<NetDir>,
    signer: Signer,
    clients: Clients<'a>,
    revision: RevisionCounter,
    now: SystemTime,
}

impl<'a> Publisher<'a> {
    /// None when nothing can be uploaded for the period.
    fn new(service: &'a Arc<Shared>, upload: &'a Upload) -> Option<Self> {
        let (now, material) = (SystemTime::now(), &upload.material);
        let not_before = UNIX_EPOCH.checked_add(Duration::from_secs(upload.not_before))?;
        let clients = Clients::new(upload.clients.as_deref());
        if clients.is_none() {
            warn!("no descriptor is uploaded for clients that make no sense");
        }
        let clients = clients?;
        let netdir = service.directory.netdir(Timeliness::Timely).ok()?;
        let params = netdir.hs_all_time_periods();
        let Some(params) = params.iter().find(|params| view::own_period(&params.time_period()) == material.period)
        else {
            debug!("no descriptor is uploaded for a period that the consensus has not");
            return None;
        };
        let signer = Signer::new(&service.identity, material, now)
            .inspect_err(|error| warn!(%error, "a period's descriptors cannot be signed"))
            .ok()?;
        // A clock that lags so far cannot upload anything.
        let since_start = now.max(not_before).duration_since(params.start_of_shard_rand_period()).ok()?;
        let revision = service.revisions.next(material.period, &material.revision_secret, since_start)?;
        Some(Self { service, netdir, signer, clients, revision, now })
    }

    /// The descriptor that lists these points, or those of them that can be listed.
    fn descriptor(&self, points: &[PointDescription]) -> Option<Arc<str>> {
        let reach = |relay: RelayId| {
            let relay = view::relay(&self.netdir, relay)?;
            Some(Reach { link_specifiers: relay.linkspecs().ok()?, ntor: *relay.ntor_onion_key() })
        };
        let clients = &self.clients;
        if points.len() > clients.max_points() {
            warn!(points = points.len(), "too many introduction points for a descriptor");
            return None;
        }
        let listed = list(points, reach);
        if listed.is_empty() {
            debug!("no descriptor is uploaded without introduction points");
            return None;
        }
        let max_length = usize::try_from(self.netdir.params().hsdir_max_desc_size.get()).ok()?;
        build(&self.signer, &listed, clients, self.revision, self.now, max_length)
            .inspect_err(|error| warn!(%error, "a descriptor could not be built"))
            .ok()
            .map(Into::into)
    }

    async fn send(&self, directory: RelayId, text: Arc<str>) -> (RelayId, Outcome) {
        for _ in 0..TRIES {
            match timeout(DEADLINE, self.try_send(directory, &text)).await {
                Ok(Ok(outcome)) => return (directory, outcome),
                Ok(Err(error)) => debug!(error = &*error as &dyn std::error::Error, "an upload failed"),
                Err(_) => debug!("an upload took too long"),
            }
        }
        (directory, Outcome::Failed)
    }

    async fn try_send(
        &self,
        directory: RelayId,
        text: &Arc<str>,
    ) -> Result<Outcome, Box<dyn std::error::Error + Send + Sync>> {
        let Some(target) = view::relay(&self.netdir, directory) else { return Ok(Outcome::Failed) };
        let target = OwnedCircTarget::from_circ_target(&target);
        let tunnel = self.service.pool().get_or_launch_svc_dir(&self.netdir, target).await?;
        let mut stream = tunnel.begin_dir_stream().await?;
        let request = HsDescUploadRequest::new(Arc::clone(text));
        let runtime = self.service.network.client.runtime();
        let answer = match tor_dirclient::send_request(runtime, &request, &mut stream, None).await {
            // Only this looks at what the directory answered.
            Ok(answer) => answer.into_output_string().map(drop),
            Err(DirectoryError::RequestFailed(error)) => Err(error),
            Err(error) => return Err(error.into()),
        };
        match answer {
            Ok(()) => Ok(Outcome::Accepted),
            Err(error) if matches!(error.error, RequestError::HttpStatus(REFUSED, _)) => Ok(Outcome::Refused),
            Err(error) => Err(error.into()),
        }
    }
}

/// What a directory answers to a descriptor that is not newer than the one that it has, and to one that makes no sense; the
/// latter does not come from here.
const REFUSED: u16 = 400;

/// A circuit that breaks is built anew once.
const TRIES: usize = 2;

/// For each try: a circuit of four hops and 50 kB over it take five seconds on the public network.
const DEADLINE: Duration = Duration::from_secs(20);

/// What those may take longer that are slower than half, when half of them took so long: that thrice, as a circuit may have to be
/// built anew.
fn straggling(half: Duration) -> Duration {
    (half * 3).clamp(Duration::from_secs(3), Duration::from_secs(10))
}

/// All directories of both periods at once, of which there are eight each, or twelve as some networks have it.
const MAX_UPLOADS: usize = 32;

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::time::Duration;

    use futures::stream::FuturesUnordered;
    use futures::{FutureExt as _, future};
    use tokio::time::{Instant, sleep};

    use super::{Outcome, gather};
    use crate::network::onion::{RelayId, UploadReport};

    fn relay(number: u8) -> RelayId {
        RelayId([number; 32])
    }

    /// After how many seconds each directory answers, and whether it takes the descriptor; silent ones never do.
    async fn report(directories: &[(Option<u64>, bool)]) -> (UploadReport, Duration) {
        let outcomes = FuturesUnordered::new();
        for (number, (seconds, takes)) in (0..).zip(directories) {
            let outcome = if *takes { Outcome::Accepted } else { Outcome::Refused };
            outcomes.push(match *seconds {
                Some(seconds) => async move {
                    sleep(Duration::from_secs(seconds)).await;
                    (relay(number), outcome)
                }
                .boxed(),
                None => future::pending().boxed(),
            });
        }
        let waiting: HashSet<_> = (0..).take(directories.len()).map(relay).collect();
        let (began, mut report) = (Instant::now(), UploadReport::default());
        gather(waiting, outcomes, &mut report).await;
        report.failed.sort_unstable();
        (report, began.elapsed())
    }

    #[tokio::test(start_paused = true)]
    async fn silent_directories_are_given_up_once_half_have_the_descriptor() {
        let directories = [(Some(1), true), (Some(3), true), (None, true), (None, true)];
        let (report, took) = report(&directories).await;
        assert_eq!(took, Duration::from_secs(3 + 9), "thrice as long");
        assert_eq!(report.accepted, [relay(0), relay(1)]);
        assert_eq!(report.failed, [relay(2), relay(3)]);
        for (half, seconds) in [(0, 3), (5, 15)] {
            let directories = [(Some(half), true), (None, true)];
            assert_eq!(self::report(&directories).await.1, Duration::from_secs(seconds), "at least and at most");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_answers_in_time_counts_by_the_answer() {
        let directories = [(Some(1), true), (Some(4), false), (Some(10), true), (Some(12), true)];
        let (report, took) = report(&directories).await;
        assert_eq!(took, Duration::from_secs(12));
        assert_eq!(report.accepted, [relay(0), relay(2), relay(3)]);
        assert_eq!((report.refused, report.failed), (vec![relay(1)], vec![]));
    }

    /// Less than half have it: those who take long may be what makes the service findable.
    #[tokio::test(start_paused = true)]
    async fn all_are_waited_for_while_less_than_half_have_the_descriptor() {
        let directories = [(Some(1), true), (Some(1), false), (Some(35), true), (Some(40), true)];
        let (report, took) = report(&directories).await;
        assert_eq!(took, Duration::from_secs(40));
        assert_eq!(report.accepted.len(), 3);
        let (nothing, took) = self::report(&[]).await;
        assert!(nothing.accepted.is_empty() && took.is_zero());
    }
}
