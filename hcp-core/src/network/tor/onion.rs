//! The onion service of a replicated address on Arti's circuits: introduction points, rendezvous, descriptors. It decides
//! nothing: which points there are, when one is taken over and what is uploaded when is `service`'s.
//!
//! It holds no identity key and no blinded private key: blinded public keys and subcredentials come from the public address,
//! and certificates on descriptor-signing keys were made elsewhere.
//!
//! Invariants: the service ends with its listener or with its backend, whichever goes first, and then no point of it is up
//! and no upload goes on; every circuit is of Arti's pool for onion services, with the vanguards that the network is
//! configured for (Lite unless it says otherwise); the keys of points and the marks of introductions there are in memory
//! only, so that what was introduced before a restart can be replayed to nobody after it.
//!
//! No proof of work: the code for it that Arti links is LGPL. A flood of introductions is met by the relays' rate limit
//! ([`OnionOptions::introduction_rate`], which whoever launches the service says), by bounded queues in which the oldest makes room, and by a point's end after its
//! share of introductions.

mod certificate;
mod check;
mod descriptor;
#[cfg(test)]
mod fuzz;
mod point;
mod queue;
mod rendezvous;
mod replay;
mod upload;
mod view;

#[cfg(test)]
#[cfg(all(feature = "testing", unix))]
mod tests;

use std::collections::HashSet;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use futures::future::BoxFuture;
use futures::{FutureExt as _, StreamExt as _};
use tokio::sync::{Semaphore, mpsc, watch};
use tor_circmgr::hspool::HsCircPool;
use tor_hscrypto::pk::{HsId, HsIdKey};
use tor_netdir::NetDirProvider;
use tor_rtcompat::PreferredRuntime;

use self::descriptor::Revisions;
use self::queue::Queue;
use self::rendezvous::{Context, Introduction, Meeting};
use self::replay::Logs;
use super::circuits::answer;
use super::served::Front;
use super::{AbortOnDrop, Inner, TorNetwork};
use crate::identity::OnionAddress;
use crate::network::onion::{
    Checked, DirectoryView, EstablishError, MAX_ESTABLISHED, OnionBackend, OnionCounts, Point, PointId, PointSecrets,
    RelayId, Tag, Upload, UploadReport,
};
use crate::network::{
    ACCEPT_QUEUE, Hosting, Incoming, IntroductionRate, ListenError, Listener, ListenerStatus, OnionPart, check_ports,
};

/// What an application may say of its service.
#[derive(Clone, Debug, Default)]
pub(crate) struct OnionOptions {
    /// How many introductions relays pass on to each point; default: as many as the consensus says.
    pub(crate) introduction_rate: Option<IntroductionRate>,
}

/// A service that runs.
pub(crate) struct OnionService {
    shared: Arc<Shared>,
    _tasks: [AbortOnDrop; 2],
}

impl OnionService {
    /// Launches the service; it has no points yet, and nothing is uploaded.
    ///
    /// What the status of the listener is, the caller says. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// When this process serves the address already, or the ports or options make no sense.
    pub(crate) fn launch(
        network: &TorNetwork,
        service: OnionAddress,
        ports: &[u16],
        options: OnionOptions,
    ) -> Result<(Listener, Arc<Self>, watch::Sender<ListenerStatus>), ListenError> {
        check_ports(ports)?;
        let network = &network.inner;
        let address = *service.public_key();
        let identity =
            HsIdKey::try_from(HsId::from(address)).map_err(|_| ListenError::Launch("the address is no key".into()))?;
        if options.introduction_rate.is_some_and(|rate| rate.per_second == 0 || rate.burst < rate.per_second) {
            return Err(ListenError::Launch("the rate of introductions makes no sense".into()));
        }
        let directory: Arc<dyn NetDirProvider> = network.client.dirmgr().map_err(|e| ListenError::Launch(e.into()))?;
        let pool = network.client.hs_circ_pool().map_err(|e| ListenError::Launch(e.into()))?;

        let (incoming, accepted) = mpsc::channel(ACCEPT_QUEUE);
        if !network.served.claim(address, Front { ports: ports.into(), incoming: incoming.downgrade() }) {
            return Err(ListenError::InUse);
        }
        let context = Arc::new(Context::new(pool, Arc::clone(&directory)));
        let shared = Arc::new(Shared {
            network: Arc::clone(network),
            address,
            identity,
            directory,
            view: watch::Sender::new(DirectoryView::default()),
            context,
            introductions: Arc::new(Queue::new(MAX_WAITING)),
            logs: Logs::default(),
            points: Arc::new(Semaphore::new(MAX_ESTABLISHED)),
            revisions: Revisions::default(),
            introduction_rate: options.introduction_rate,
            incoming: Mutex::new(Some(incoming)),
            over: watch::Sender::new(false),
        });
        shared.look();

        let meetings = {
            let context = Arc::clone(&shared.context);
            Arc::clone(&shared.introductions).stream().map(move |next| Meeting::new(next, Arc::clone(&context)))
        };
        let answer = answer(meetings, address, Arc::clone(&network.served), Arc::clone(&network.circuits));
        let watching = view::watch(Arc::downgrade(&shared), shared.directory.events());
        let (status, watched) = watch::channel(ListenerStatus::Starting);
        let listener = Listener::new(accepted, watched, Withdraw(Arc::clone(&shared)));
        let tasks = [AbortOnDrop::spawn(answer), AbortOnDrop::spawn(watching)];
        Ok((listener, Arc::new(Self { shared, _tasks: tasks }), status))
    }

    /// As [`Self::launch`], for whoever decides on introduction points and descriptors.
    pub(super) fn host(
        network: &TorNetwork,
        service: OnionAddress,
        ports: &[u16],
        options: OnionOptions,
    ) -> Result<Hosting, ListenError> {
        let (listener, backend, status) = Self::launch(network, service, ports, options)?;
        Ok(Hosting { listener, onion: Some(OnionPart { backend, status }) })
    }
}

impl OnionBackend for OnionService {
    fn view(&self) -> watch::Receiver<DirectoryView> {
        self.shared.view.subscribe()
    }

    fn choose(&self, not: &HashSet<RelayId>) -> Option<RelayId> {
        view::choose(&*self.shared.directory, not)
    }

    fn is_listed(&self, relay: RelayId) -> bool {
        view::is_listed(&*self.shared.directory, relay)
    }

    fn establish(
        &self,
        relay: RelayId,
        secrets: PointSecrets,
        seen: Vec<Tag>,
        still: Box<dyn FnOnce() -> bool + Send>,
    ) -> BoxFuture<'static, Result<Point, EstablishError>> {
        let shared = Arc::clone(&self.shared);
        async move {
            let over = shared.ended();
            tokio::select! {
                biased;
                () = over => Err(EstablishError::Failed),
                point = point::establish(&shared, relay, &secrets, &seen, still) => point,
            }
        }
        .boxed()
    }

    fn check(&self, relay: RelayId, point: PointId) -> BoxFuture<'static, Checked> {
        let shared = Arc::clone(&self.shared);
        async move {
            let over = shared.ended();
            tokio::select! {
                biased;
                () = over => Checked::Unknown,
                answer = check::check(&shared, relay, point) => answer,
            }
        }
        .boxed()
    }

    fn upload(&self, upload: Upload) -> BoxFuture<'static, UploadReport> {
        let shared = Arc::clone(&self.shared);
        async move {
            let over = shared.ended();
            tokio::select! {
                biased;
                () = over => UploadReport::default(),
                report = upload::upload(&shared, &upload) => report,
            }
        }
        .boxed()
    }

    fn counts(&self) -> OnionCounts {
        OnionCounts { displaced: self.shared.introductions.displaced(), ..self.shared.context.counters.read() }
    }
}

impl Drop for OnionService {
    fn drop(&mut self) {
        self.shared.end();
    }
}

impl fmt::Debug for OnionService {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OnionService").field("counts", &self.counts()).finish_non_exhaustive()
    }
}

/// What the parts of a service share.
struct Shared {
    network: Arc<Inner>,
    address: [u8; 32],
    identity: HsIdKey,
    directory: Arc<dyn NetDirProvider>,
    view: watch::Sender<DirectoryView>,
    context: Arc<Context>,
    introductions: Arc<Queue<Introduction>>,
    logs: Logs,
    points: Arc<Semaphore>,
    revisions: Revisions,
    introduction_rate: Option<IntroductionRate>,
    /// The registry of addresses holds it weakly; the listener ends with it.
    incoming: Mutex<Option<mpsc::Sender<Incoming>>>,
    over: watch::Sender<bool>,
}

impl Shared {
    fn pool(&self) -> &HsCircPool<PreferredRuntime> {
        &self.context.pool
    }

    /// Waits until the service has ended.
    fn ended(&self) -> impl Future<Output = ()> + Send + use<> {
        let mut over = self.over.subscribe();
        async move {
            // The sender is gone only after the service.
            let _ = over.wait_for(|over| *over).await;
        }
    }

    /// Ends the service: its points close, its uploads stop, the address is free.
    fn end(&self) {
        if !self.over.send_replace(true) {
            self.network.served.release(&self.address);
            *self.incoming.lock().unwrap_or_else(PoisonError::into_inner) = None;
        }
    }
}

/// Withdraws a service with its listener.
struct Withdraw(Arc<Shared>);

impl Drop for Withdraw {
    fn drop(&mut self) {
        self.0.end();
    }
}

/// Counts of events that happen on several threads.
#[derive(Default)]
struct Counters {
    introductions: AtomicU64,
    replays: AtomicU64,
    malformed: AtomicU64,
    met: AtomicU64,
    missed: AtomicU64,
}

impl Counters {
    fn count(counter: &AtomicU64) {
        counter.fetch_add(1, Ordering::Relaxed);
    }

    fn read(&self) -> OnionCounts {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        OnionCounts {
            introductions: read(&self.introductions),
            replays: read(&self.replays),
            displaced: 0,
            malformed: read(&self.malformed),
            met: read(&self.met),
            missed: read(&self.missed),
        }
    }
}

/// Introductions that wait for their turn, which takes microseconds: so many that none is lost while the scheduler is late by
/// 50 ms and 5,000 come in a second.
const MAX_WAITING: usize = 256;
