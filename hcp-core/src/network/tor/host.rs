//! Hosting onion services: launching, answering, withdrawing.
//!
//! Invariants: a service has a key store of its own, in memory, that ends with it; streams that were handed out
//! outlive the service; nothing is told of one that has stopped.

use std::str::FromStr as _;
use std::sync::Arc;

use arti_client::config::{CfgPathResolver, Reconfigure};
use data_encoding::HEXLOWER;
use futures::{Stream, StreamExt as _};
use tokio::sync::{mpsc, watch};
use tokio::time::sleep;
use tor_hscrypto::pk::{HsClientDescEncKey, HsIdKeypair};
use tor_hsservice::config::restricted_discovery::HsClientNickname;
use tor_hsservice::config::{OnionServiceConfig, OnionServiceConfigBuilder};
use tor_hsservice::status::{OnionServiceStatus, Problem, State};
use tor_hsservice::{HsIdKeypairSpecifier, HsNickname, OnionService, RendRequest, RunningOnionService};
use tor_keymgr::{ArtiEphemeralKeystore, KeyMgr, KeyMgrBuilder, KeystoreSelector};
use tor_llcrypto::pk::curve25519;
use tor_llcrypto::pk::ed25519::ExpandedKeypair;

use super::circuits::{MAX_STREAMS_PER_CIRCUIT, answer};
use super::served::Front;
use super::{AbortOnDrop, Inner};
use crate::identity::{DiscoveryPublicKey, Identity};
use crate::network::{ACCEPT_QUEUE, ListenError, Listener, ListenerStatus, check_clients, check_ports};

type BoxedError = Box<dyn std::error::Error + Send + Sync>;

/// An onion service of this process. Dropping it withdraws the service; streams and circuits that clients have stay.
pub(super) struct Service {
    status: watch::Sender<ListenerStatus>,
    _tasks: [AbortOnDrop; 2],
    _running: Arc<RunningOnionService>,
    _claim: Claim,
}

impl Service {
    /// Launches a service; the listener owns it. With `clients`, only who has the key of one of them can find it.
    ///
    /// Dropping the future withdraws what was launched.
    pub(super) async fn launch(
        network: &Arc<Inner>,
        identity: &Identity,
        ports: &[u16],
        clients: Option<&[DiscoveryPublicKey]>,
    ) -> Result<Listener, ListenError> {
        check_ports(ports)?;
        clients.map_or(Ok(()), check_clients)?;
        let address = *identity.address().public_key();
        let (incoming, accepted) = mpsc::channel(ACCEPT_QUEUE);
        if !network.served.claim(address, Front { ports: ports.into(), incoming: incoming.downgrade() }) {
            return Err(ListenError::InUse);
        }
        let claim = Claim { network: Arc::clone(network), address };
        while let Some(wait) = network.served.must_wait(&address) {
            sleep(wait).await;
        }
        // Names a folder that the next start removes; it must not tell the address.
        let nickname = HsNickname::new("service".to_owned() + &HEXLOWER.encode(&rand::random::<[u8; 8]>()));
        let nickname = nickname.map_err(|error| ListenError::Launch(error.into()))?;
        let (running, requests) = start(network, identity, &nickname, clients).map_err(ListenError::Launch)?;

        let (status, watched) = watch::channel(ListenerStatus::Starting);
        let answer = answer(requests, address, Arc::clone(&network.served), Arc::clone(&network.circuits));
        let stopped = status.clone();
        let answer = async move {
            answer.await;
            // Nobody dropped the service, for that would have ended this task: Arti gave up, and so does the listener.
            stopped.send_replace(ListenerStatus::Stopped);
            drop(incoming);
        };
        let report = report(running.status_events(), status.clone());
        let tasks = [AbortOnDrop::spawn(answer), AbortOnDrop::spawn(report)];
        let served = Arc::downgrade(&running);
        let restrict = Arc::new(move |clients: &[DiscoveryPublicKey]| {
            check_clients(clients)?;
            let served = served.upgrade().ok_or_else(|| ListenError::Launch("the service has stopped".into()))?;
            let config = config(nickname.clone(), Some(clients)).map_err(ListenError::Launch)?;
            let changed = served.reconfigure(config, Reconfigure::AllOrNothing);
            changed.map_err(|error| ListenError::Launch(error.into()))
        });
        let service = Self { status, _tasks: tasks, _running: running, _claim: claim };
        Ok(Listener::new(accepted, watched, service).restricted_by(restrict))
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.status.send_replace(ListenerStatus::Stopped);
    }
}

/// An address is this service's alone.
struct Claim {
    network: Arc<Inner>,
    address: [u8; 32],
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.network.served.release(&self.address);
    }
}

/// Has Arti launch a service; gives it and what clients ask of it.
fn start(
    network: &Inner,
    identity: &Identity,
    nickname: &HsNickname,
    clients: Option<&[DiscoveryPublicKey]>,
) -> Result<(Arc<RunningOnionService>, impl Stream<Item = RendRequest> + Send + use<>), BoxedError> {
    let keys = keys(nickname, identity)?;
    let client = &network.client;
    let launched = OnionService::builder()
        .config(config(nickname.clone(), clients)?)
        .keymgr(keys)
        .state_dir(network.services.clone())
        .build()?
        .launch(
            client.runtime().clone(),
            client.dirmgr()?,
            client.hs_circ_pool()?,
            Arc::new(CfgPathResolver::default()),
        )?;
    launched.ok_or_else(|| "the service is disabled".into())
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

/// Translates Arti's view of a service until the service ends.
async fn report(mut statuses: impl Stream<Item = OnionServiceStatus> + Unpin, told: watch::Sender<ListenerStatus>) {
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
        // A service that has stopped may have one more status to tell before this task is aborted.
        told.send_if_modified(|old| {
            let changed = *old != ListenerStatus::Stopped && *old != new;
            if changed {
                *old = new;
            }
            changed
        });
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
