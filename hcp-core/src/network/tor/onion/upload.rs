//! Uploading descriptors to the directories of a period.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures::{StreamExt as _, stream};
use tokio::time::timeout;
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

/// Uploads what each directory should have; all of them at once, each within [`DEADLINE`].
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
    let mut outcomes =
        stream::iter(tasks).map(|(directory, text)| publisher.send(directory, text)).buffer_unordered(MAX_UPLOADS);
    while let Some((directory, outcome)) = outcomes.next().await {
        match outcome {
            Outcome::Accepted => report.accepted.push(directory),
            Outcome::Refused => report.refused.push(directory),
            Outcome::Failed => report.failed.push(directory),
        }
    }
    drop(outcomes);
    report
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

/// All directories of both periods at once, of which there are eight each, or twelve as some networks have it.
const MAX_UPLOADS: usize = 32;
