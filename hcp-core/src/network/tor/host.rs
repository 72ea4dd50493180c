//! Hosting onion services: launching, answering, withdrawing.
//!
//! Invariants: a service has a key store of its own, in memory, that ends with it; streams that were handed out
//! outlive the service; its status tells of the launch that runs, never of an earlier one.

use std::str::FromStr as _;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use arti_client::config::CfgPathResolver;
use arti_client::{ErrorKind as ArtiErrorKind, HasKind as _};
use futures::{Stream, StreamExt as _};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep};
use tor_hscrypto::pk::{HsClientDescEncKey, HsIdKeypair};
use tor_hsservice::config::restricted_discovery::HsClientNickname;
use tor_hsservice::config::{OnionServiceConfig, OnionServiceConfigBuilder};
use tor_hsservice::status::{OnionServiceStatus, Problem, State};
use tor_hsservice::{HsIdKeypairSpecifier, HsNickname, OnionService, RunningOnionService};
use tor_keymgr::{ArtiEphemeralKeystore, KeyMgr, KeyMgrBuilder, KeystoreSelector};
use tor_llcrypto::pk::curve25519;
use tor_llcrypto::pk::ed25519::ExpandedKeypair;

use super::circuits::{MAX_STREAMS_PER_CIRCUIT, answer};
use super::served::Front;
use super::{AbortOnDrop, Inner};
use crate::identity::{DiscoveryPublicKey, Identity};
use crate::network::{ACCEPT_QUEUE, Incoming, ListenError, Listener, ListenerStatus, check_clients, check_ports};

type BoxedError = Box<dyn std::error::Error + Send + Sync>;

/// An onion service of this process.
pub(super) struct Service {
    network: Arc<Inner>,
    address: [u8; 32],
    config: OnionServiceConfig,
    keys: Arc<KeyMgr>,
    status: watch::Sender<ListenerStatus>,
    run: Mutex<Run>,
}

/// What a service is doing.
enum Run {
    /// Between two launches.
    Down(Queue),
    Up(Queue, Launch),
    /// The listener is gone, or Arti gave up.
    Over,
}

/// The registry holds it weakly, so that circuits that outlive the service do not keep its listener waiting.
type Queue = mpsc::Sender<Incoming>;

/// One launch of the service; dropping it gives up the introduction points.
struct Launch {
    id: u64,
    _tasks: [AbortOnDrop; 2],
    _service: Arc<RunningOnionService>,
}

impl Service {
    /// Launches a service; the listener owns it. With `clients`, only who has the key of one of them can find it.
    pub(super) async fn launch(
        network: &Arc<Inner>,
        identity: &Identity,
        ports: &[u16],
        clients: Option<&[DiscoveryPublicKey]>,
    ) -> Result<(Listener, Arc<Self>), ListenError> {
        check_ports(ports)?;
        clients.map_or(Ok(()), check_clients)?;
        let failed = |e: BoxedError| ListenError::Launch(e);
        let address = *identity.address().public_key();
        // Names a folder that the next start removes; it must not tell the address.
        let nickname =
            HsNickname::new("service".to_owned() + &data_encoding::HEXLOWER.encode(&rand::random::<[u8; 8]>()))
                .map_err(|e| failed(e.into()))?;
        let keys = keys(&nickname, identity).map_err(failed)?;
        let config = config(nickname, clients).map_err(failed)?;

        let (incoming, accepted) = mpsc::channel(ACCEPT_QUEUE);
        if !network.served.claim(address, Front { ports: ports.into(), incoming: incoming.downgrade() }) {
            return Err(ListenError::InUse);
        }
        let (status, watch) = watch::channel(ListenerStatus::Starting);
        let service = Arc::new(Self {
            network: Arc::clone(network),
            address,
            config,
            keys,
            status,
            run: Mutex::new(Run::Down(incoming)),
        });
        let listener = Listener::new(accepted, watch, Withdraw(Arc::clone(&service)));
        service.up().await?;
        Ok((listener, service))
    }

    /// Brings the service up; one that was up before keeps its introduction points.
    ///
    /// Cancelling leaves it down.
    pub(super) async fn up(self: &Arc<Self>) -> Result<(), ListenError> {
        while let Some(wait) = self.network.served.must_wait(&self.address) {
            sleep(wait).await;
        }
        let deadline = Instant::now() + RELEASE_DEADLINE;
        loop {
            match self.start() {
                // The tasks of the previous launch have not ended yet.
                Err(e) if e.is_in_use() && Instant::now() < deadline => sleep(RELEASE_POLL).await,
                result => return result.map_err(|e| ListenError::Launch(e.0)),
            }
        }
    }

    /// Takes the service down; streams and circuits that clients have stay.
    pub(super) fn down(&self) {
        let mut run = self.run();
        *run = match std::mem::replace(&mut *run, Run::Over) {
            Run::Up(queue, _) => {
                self.network.served.ended(&self.address);
                self.status.send_replace(ListenerStatus::Starting);
                Run::Down(queue)
            }
            other => other,
        };
    }

    /// Waits until strangers can reach the service; `false` when it stopped before.
    pub(super) async fn reachable(&self) -> bool {
        let mut status = self.status.subscribe();
        let settled = |s: &ListenerStatus| matches!(s, ListenerStatus::Reachable | ListenerStatus::Stopped);
        status.wait_for(settled).await.is_ok_and(|s| *s == ListenerStatus::Reachable)
    }

    /// Ends the service and its listener.
    fn end(&self) {
        *self.run() = Run::Over;
        self.status.send_replace(ListenerStatus::Stopped);
    }

    /// Ends the service when it is still the given launch that runs.
    fn crashed(&self, launch: u64) {
        let mut run = self.run();
        if matches!(&*run, Run::Up(_, running) if running.id == launch) {
            *run = Run::Over;
            self.status.send_replace(ListenerStatus::Stopped);
        }
    }

    /// Tells how the given launch is doing, when it is still the one that runs.
    fn note(&self, launch: u64, new: ListenerStatus) {
        let run = self.run();
        if matches!(&*run, Run::Up(_, running) if running.id == launch) {
            self.status.send_if_modified(|old| {
                let changed = *old != new;
                *old = new;
                changed
            });
        }
    }

    fn start(self: &Arc<Self>) -> Result<(), StartError> {
        let mut run = self.run();
        let Run::Down(queue) = &*run else { return Err(StartError::new("the service is over")) };
        let launch = self.arti_launch()?;
        *run = Run::Up(queue.clone(), launch);
        Ok(())
    }

    fn arti_launch(self: &Arc<Self>) -> Result<Launch, StartError> {
        let client = &self.network.client;
        let (service, requests) = OnionService::builder()
            .config(self.config.clone())
            .keymgr(Arc::clone(&self.keys))
            .state_dir(self.network.services.clone())
            .build()
            .map_err(StartError::from_arti)?
            .launch(
                client.runtime().clone(),
                client.dirmgr().map_err(StartError::new)?,
                client.hs_circ_pool().map_err(StartError::new)?,
                Arc::new(CfgPathResolver::default()),
            )
            .map_err(StartError::from_arti)?
            .ok_or_else(|| StartError::new("the service is disabled"))?;

        let id = rand::random();
        let owner = Arc::downgrade(self);
        let answer =
            answer(requests, self.address, Arc::clone(&self.network.served), Arc::clone(&self.network.circuits));
        let answer = async move {
            answer.await;
            // Nobody dropped the launch, for that would have ended this task.
            if let Some(service) = owner.upgrade() {
                service.crashed(id);
            }
        };
        let report = report(service.status_events(), Arc::downgrade(self), id);
        Ok(Launch { id, _tasks: [AbortOnDrop::spawn(answer), AbortOnDrop::spawn(report)], _service: service })
    }

    fn run(&self) -> MutexGuard<'_, Run> {
        self.run.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.network.served.release(&self.address);
    }
}

/// Withdraws a service with its listener.
struct Withdraw(Arc<Service>);

impl Drop for Withdraw {
    fn drop(&mut self) {
        self.0.end();
    }
}

struct StartError(BoxedError, Option<ArtiErrorKind>);

impl StartError {
    fn new(e: impl Into<BoxedError>) -> Self {
        Self(e.into(), None)
    }

    fn from_arti(e: tor_hsservice::StartupError) -> Self {
        let kind = e.kind();
        Self(e.into(), Some(kind))
    }

    fn is_in_use(&self) -> bool {
        self.1 == Some(ArtiErrorKind::LocalResourceAlreadyInUse)
    }
}

fn config(nickname: HsNickname, clients: Option<&[DiscoveryPublicKey]>) -> Result<OnionServiceConfig, BoxedError> {
    let mut config = OnionServiceConfigBuilder::default();
    config.nickname(nickname).max_concurrent_streams_per_circuit(MAX_STREAMS_PER_CIRCUIT);
    if let Some(clients) = clients {
        let restricted = config.restricted_discovery();
        restricted.enabled(true);
        for (number, client) in clients.iter().enumerate() {
            let key = HsClientDescEncKey::from(curve25519::PublicKey::from(*client.as_bytes()));
            // Seen by nobody; Arti wants them to differ.
            let name = HsClientNickname::from_str(&format!("client{number}"))?;
            restricted.static_keys().access().push((name, key));
        }
    }
    Ok(config.build()?)
}

/// Makes a key store in memory that holds the identity's key.
///
/// Arti derives from it blinded keys, from which the identity key could be computed; they too stay in memory.
fn keys(nickname: &HsNickname, identity: &Identity) -> Result<Arc<KeyMgr>, BoxedError> {
    let key = ExpandedKeypair::from_secret_key_bytes(*identity.expanded_secret_key())
        .ok_or("the identity is no valid ed25519 key")?;
    let store =
        KeyMgrBuilder::default().primary_store(Box::new(ArtiEphemeralKeystore::new("memory".into()))).build()?;
    let place = HsIdKeypairSpecifier::new(nickname.clone());
    store.insert::<HsIdKeypair>(HsIdKeypair::from(key), &place, KeystoreSelector::Primary, false)?;
    Ok(Arc::new(store))
}

/// Translates Arti's view of one launch of a service until the service ends.
async fn report(mut statuses: impl Stream<Item = OnionServiceStatus> + Unpin, service: Weak<Service>, launch: u64) {
    while let Some(status) = statuses.next().await {
        let new = match status.state() {
            State::Running | State::DegradedReachable => ListenerStatus::Reachable,
            // Arti bootstraps before every republication too, while the previous descriptor still holds; it says that
            // it is shut down before it begins.
            State::Shutdown | State::Bootstrapping => continue,
            // Every upload succeeded, yet the directory knows one time period only, as that of a young network does.
            State::DegradedUnreachable if status.current_problem().is_none() => ListenerStatus::Reachable,
            State::Recovering => ListenerStatus::Broken("the introduction points are being replaced".into()),
            State::DegradedUnreachable => ListenerStatus::Broken("the descriptor could not be uploaded".into()),
            _ => ListenerStatus::Broken(problem(status.current_problem()).into()),
        };
        // A launch that was taken down may have one more status to tell before its task is aborted.
        let Some(service) = service.upgrade() else { return };
        service.note(launch, new);
    }
}

/// Names a problem without the addresses and relays in it.
fn problem(problem: Option<&Problem>) -> &'static str {
    match problem {
        Some(Problem::DescriptorUpload(_)) => "the descriptor could not be uploaded",
        Some(Problem::Ipt(_)) => "the introduction points could not be established",
        Some(Problem::Runtime(_)) => "the service failed",
        _ => "the service is not working",
    }
}

/// How long the tasks of a previous run may take to end.
const RELEASE_DEADLINE: Duration = Duration::from_secs(10);
const RELEASE_POLL: Duration = Duration::from_millis(20);
