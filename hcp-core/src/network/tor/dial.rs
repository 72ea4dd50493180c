//! Dialling onion addresses: tries that begin from nothing beside one that takes long, and deadlines.
//!
//! The first try uses what is known from before: a descriptor, a circuit that is open. Each further one begins from nothing,
//! with a connector of its own that shares neither with any other: Arti fetches a descriptor anew only after an introduction
//! point has refused it, prefers the introduction point that worked before, and waits some eight times as long as building a
//! circuit takes for a replica that hangs. A new connector takes the introduction points in random order, and stays when it
//! succeeds. See [`hedge`](crate::network::hedge) for when tries begin.
//!
//! **Deadlines.** Arti shows two steps from outside: the rendezvous circuit, and the stream on it. Of the phases of a dial the
//! network, the stream and the session's handshake ([`Node`](crate::node::Node)) have deadlines of their own. The descriptor,
//! the introduction and the rendezvous have one together, since they are private to tor-hsclient; within them Arti's own
//! deadlines hold, which follow the time that circuits take, and another try overtakes what is stuck in any of them. What is
//! lost is only that a stuck introduction is not told from a slow directory.
//!
//! **Anonymity.** Circuits come from Arti's pool, with its vanguards, as for every onion service's client; a circuit is used
//! for one step of one try. Further tries cost more of them: a dial that takes long uses up to [`hedge::TRIES`] times the
//! circuits of one, three at a time, and so shows the guard that often that something is being dialled; whoever can make a
//! service hang can make clients build that many, and no more. A try that has lost is dropped here, while Arti still finishes
//! it on its own: if that succeeds, its circuit stays open, unused, for up to ten minutes.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arti_client::{ErrorKind as ArtiErrorKind, HasKind, TorClient, TorClientConfig};
use futures::{StreamExt as _, stream};
use tokio::time::{Instant, timeout};
use tor_circmgr::isolation::StreamIsolation;
use tor_hsclient::HsClientConnector;
use tor_hscrypto::pk::HsId;
use tor_proto::client::stream::{DataStream, StreamParameters};
use tor_rtcompat::PreferredRuntime;

use super::discovery::DiscoveryKeys;
use crate::identity::OnionAddress;
use crate::network::hedge::{self, Crowd, Failed, Pace};
use crate::network::{BoxedTransport, DialError, DialPhase};

/// How long each phase of a dial may take.
#[derive(Clone, Copy, Debug)]
pub(super) struct DialDeadlines {
    pub(super) network: Duration,
    /// All tries together.
    pub(super) connect: Duration,
}

impl Default for DialDeadlines {
    fn default() -> Self {
        Self { network: Duration::from_secs(60), connect: Duration::from_secs(60) }
    }
}

/// Knows descriptors and circuits; shares them with nobody.
type Connector = HsClientConnector<PreferredRuntime>;

/// Dials on circuits that it shares with no other dialler.
pub(super) struct Dialler {
    common: Arc<Common>,
    kept: Mutex<Kept>,
}

/// What diallers share, of which nobody outside can tell.
struct Common {
    client: Arc<TorClient<PreferredRuntime>>,
    config: TorClientConfig,
    keys: Arc<DiscoveryKeys>,
    deadlines: DialDeadlines,
    pace: Pace,
    crowd: Crowd,
}

/// The connectors for first tries, by address.
#[derive(Default)]
struct Kept {
    connectors: HashMap<OnionAddress, (Connector, u64)>,
    /// Counts uses.
    uses: u64,
}

impl Dialler {
    pub(super) fn new(
        client: Arc<TorClient<PreferredRuntime>>,
        config: TorClientConfig,
        keys: Arc<DiscoveryKeys>,
        deadlines: DialDeadlines,
    ) -> Self {
        let (pace, crowd) = (Pace::default(), Crowd::default());
        let common = Common { client, config, keys, deadlines, pace, crowd };
        Self { common: Arc::new(common), kept: Mutex::default() }
    }

    pub(super) fn isolated(&self) -> Self {
        Self { common: Arc::clone(&self.common), kept: Mutex::default() }
    }

    pub(super) async fn dial(&self, address: &OnionAddress, port: u16) -> Result<BoxedTransport, DialError> {
        let common = &self.common;
        timeout(common.deadlines.network, usable(&common.client))
            .await
            .map_err(|_| DialError::TimedOut { phase: DialPhase::Network })?;
        let _dial = common.crowd.dial();
        let tries = |nth| {
            let place = if nth == 0 { None } else { Some(common.crowd.further()?) };
            Some(async move {
                if place.is_none() {
                    let connector = self.kept().connector(*address, || common.connector())?;
                    return Ok((common.connect(&connector, address, port).await?, None));
                }
                let connector = common.connector()?;
                let stream = common.connect(&connector, address, port).await?;
                drop(place);
                Ok((stream, Some(connector)))
            })
        };
        let (stream, better) = hedge::race(common.pace.wait(), common.deadlines.connect, tries).await?;
        if let Some(connector) = better {
            self.kept().keep(*address, connector);
        }
        Ok(Box::new(stream))
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Common {
    /// A connector that knows nothing.
    fn connector(&self) -> Result<Connector, Failed> {
        let failed = |error| Failed::For(DialError::Unreachable(error));
        let circuits = self.client.hs_circ_pool().map_err(|e| failed(e.into()))?;
        // What a connector knows goes with it, so it needs no reminders to throw away what is old.
        let reminders = stream::empty().boxed();
        Connector::new(self.client.runtime().clone(), circuits, &self.config, reminders).map_err(|e| failed(e.into()))
    }

    /// One try.
    async fn connect(&self, connector: &Connector, address: &OnionAddress, port: u16) -> Result<DataStream, Failed> {
        let directory = self.client.dirmgr().map_err(failed)?;
        let directory = directory.timely_netdir().map_err(failed)?;
        let keys = self.keys.of(address);
        let began = Instant::now();
        let service = HsId::from(*address.public_key());
        let circuit = connector
            .get_or_launch_tunnel(&directory, service, keys, StreamIsolation::no_isolation())
            .await
            .map_err(failed)?;
        let took = began.elapsed();
        if took >= REUSED {
            self.pace.learn(took);
        }
        // An onion service is told nothing but the port, and answers before anything else is sent.
        let mut parameters = StreamParameters::default();
        parameters.suppress_hostname().suppress_begin_flags().optimistic(false);
        match timeout(STREAM_DEADLINE, circuit.begin_stream("", port, Some(parameters))).await {
            Ok(begun) => begun.map_err(failed),
            Err(_) => Err(Failed::Once(DialError::TimedOut { phase: DialPhase::Stream })),
        }
    }
}

impl Kept {
    /// The connector of an address, made if need be, so that dials at the same time share it.
    fn connector(
        &mut self,
        address: OnionAddress,
        make: impl FnOnce() -> Result<Connector, Failed>,
    ) -> Result<Connector, Failed> {
        let known = self.connectors.get(&address).map(|(connector, _)| connector.clone());
        let connector = known.map_or_else(make, Ok)?;
        self.keep(address, connector.clone());
        Ok(connector)
    }

    fn keep(&mut self, address: OnionAddress, connector: Connector) {
        self.uses += 1;
        self.connectors.insert(address, (connector, self.uses));
        if self.connectors.len() > MAX_KEPT
            && let Some(oldest) = self.connectors.iter().min_by_key(|(_, (_, used))| *used).map(|(address, _)| *address)
        {
            self.connectors.remove(&oldest);
        }
    }
}

/// Waits until the network can be used.
async fn usable(client: &TorClient<PreferredRuntime>) {
    let mut events = client.bootstrap_events();
    while !client.bootstrap_status().ready_for_traffic() {
        if events.next().await.is_none() {
            // Only a client that is being dropped has no more events, and this one is borrowed.
            std::future::pending::<()>().await;
        }
    }
}

/// What an error of Arti's means for a dial.
fn failed(error: impl HasKind + std::error::Error + Send + Sync + 'static) -> Failed {
    match error.kind() {
        ArtiErrorKind::OnionServiceNotFound => Failed::For(DialError::NotFound),
        ArtiErrorKind::OnionServiceMissingClientAuth | ArtiErrorKind::OnionServiceWrongClientAuth => {
            Failed::For(DialError::Restricted)
        }
        // A circuit that was kept may lead to a node that no longer serves the address; one of several replicas may be ending.
        kind if is_refusal(kind) => Failed::Once(DialError::NotFound),
        _ => Failed::Once(DialError::Unreachable(Box::new(error))),
    }
}

/// Whether the service itself said no.
///
/// Onion services end a stream to a port that they do not serve without saying why.
fn is_refusal(kind: ArtiErrorKind) -> bool {
    matches!(
        kind,
        ArtiErrorKind::RemoteStreamClosed | ArtiErrorKind::RemoteStreamError | ArtiErrorKind::RemoteConnectionRefused
    )
}

/// A circuit that comes sooner was open already; what it took teaches nothing.
const REUSED: Duration = Duration::from_millis(20);

/// One round trip over six relays, and what the service takes to accept; the same as Arti's own.
const STREAM_DEADLINE: Duration = Duration::from_secs(10);

/// Addresses whose descriptor and circuit are kept; dialling another one again fetches anew. Some 20 kB each.
const MAX_KEPT: usize = 256;
