//! The handle: what an application launches, and what it holds while the service runs.

use std::fmt;
use std::sync::Arc;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;

use super::clock::{boottime, unix_now, wall};
use super::driver::{Driver, Event, acquaint, roster_of};
use super::grants;
use super::links::Links;
use super::machine::{Config, Machine};
use super::probe::{PROBE_PROTOCOL, Probed};
use super::roster::Roster;
use super::status::{ServiceEvent, ServiceStatus, Teller};
use super::warden::fetching::Fetching;
use crate::error::ErrorKind;
use crate::identity::{Identity, OnionAddress};
use crate::network::{ACCEPT_QUEUE, HCP_PORT, Incoming, IntroductionRate, ListenError, Listener, Network, OnionPart};
use crate::node::{Access, Handler, Node, Service, Session, Stream};
use crate::owner::Holdings;

/// A service's address, served by this node together with the other members; dropping it withdraws this node's part at once,
/// [`shutdown`](Self::shutdown) in order.
pub struct ReplicatedService {
    service: OnionAddress,
    events: mpsc::Sender<Event>,
    status: watch::Receiver<ServiceStatus>,
    holdings: watch::Receiver<Arc<Holdings>>,
    teller: Teller,
    renewals: mpsc::Sender<oneshot::Sender<()>>,
    driving: JoinSet<()>,
    /// Ends with this handle.
    _keeping: JoinSet<()>,
}

/// What an application may say of its service, with defaults that fit most.
#[derive(Clone, Copy, Debug)]
pub struct ServiceOptions {
    introduction_rate: Option<IntroductionRate>,
}

impl ServiceOptions {
    /// How many introductions relays pass on to each introduction point of this node, up to three of them; by default
    /// [`IntroductionRate::default`]. A lower rate makes floods cheaper for the nodes, and has clients wait, or try other points,
    /// when many come at once; none has everything pass. On networks without introduction points it says nothing.
    #[must_use]
    pub fn introduction_rate(mut self, rate: impl Into<Option<IntroductionRate>>) -> Self {
        self.introduction_rate = rate.into();
        self
    }
}

impl Default for ServiceOptions {
    fn default() -> Self {
        Self { introduction_rate: Some(IntroductionRate::default()) }
    }
}

/// What [`ReplicatedService::launch`] gives: the parts that go into a node, and what starts the service once that is bound.
#[derive(Debug)]
pub struct Launched {
    /// Connections to the plain ports, HCP's own excepted.
    pub listener: Listener,
    /// Sessions at the service's address: give it protocols, and to [`NodeBuilder::service`](crate::node::NodeBuilder::service).
    pub endpoint: Service,
    /// What the members tell each other: register it on the node for [`PROTOCOL`](super::PROTOCOL), for identified diallers.
    pub gossip: Gossip,
    /// Starts the service.
    pub starter: Starter,
}

/// Serves the streams on which members gossip.
#[derive(Clone)]
pub struct Gossip(Option<(Arc<Links>, watch::Receiver<Roster>)>);

/// A service that is launched and not yet started.
pub struct Starter {
    identity: OnionAddress,
    holdings: Holdings,
    part: Option<(OnionPart, Machine, Arc<Links>, watch::Sender<Roster>)>,
    events: mpsc::Sender<Event>,
    inputs: mpsc::Receiver<Event>,
    splitting: JoinSet<()>,
    wardens: Vec<OnionAddress>,
}

impl ReplicatedService {
    /// Prepares this node's part in the service that `holdings` speak for: `ports` are served as plain streams, and
    /// [`HCP_PORT`] with sessions. `identity` is this node's own, a member by the manifest among the holdings.
    ///
    /// Where the manifest [restricts](crate::identity::manifest::Contents::restricted_to) the service, only its clients and the
    /// members find it, and a manifest that comes with a later grant changes who does. The node finds the other members with
    /// the key that its seed gives.
    ///
    /// # Errors
    /// [`LaunchError`].
    ///
    /// # Cancel safety
    /// Dropping the future withdraws what was launched.
    pub async fn launch(
        network: &dyn Network,
        identity: &Identity,
        holdings: Holdings,
        ports: &[u16],
    ) -> Result<Launched, LaunchError> {
        Self::launch_with(network, identity, holdings, ports, ServiceOptions::default()).await
    }

    /// As [`launch`](Self::launch), with other options than the default ones.
    ///
    /// # Errors
    /// [`LaunchError`].
    ///
    /// # Cancel safety
    /// Dropping the future withdraws what was launched.
    pub async fn launch_with(
        network: &dyn Network,
        identity: &Identity,
        holdings: Holdings,
        ports: &[u16],
        options: ServiceOptions,
    ) -> Result<Launched, LaunchError> {
        let service = holdings.recipient().service();
        if ports.contains(&HCP_PORT) {
            return Err(LaunchError::Listen(ListenError::InvalidPorts));
        }
        let credentials = holdings.credentials(unix_now()).ok_or(LaunchError::NoDelegation)?;
        let manifest = holdings.manifest().ok_or(LaunchError::NoDelegation)?;
        let roster = roster_of(manifest).ok_or(LaunchError::TooManyMembers)?;
        let me = identity.address();
        if !roster.contains(&me) {
            return Err(LaunchError::NotAMember);
        }
        let all: Vec<u16> = ports.iter().copied().chain([HCP_PORT]).collect();
        acquaint(network, manifest, &holdings.discovery_key());
        let (listener, part) = network.host(service, &all, options.introduction_rate).await?.into_parts();
        if part.is_none() && roster.clients().is_some() {
            return Err(LaunchError::Listen(ListenError::CannotRestrict));
        }
        let mut splitting = JoinSet::new();
        let (sessions, plain) = split(listener, &mut splitting);
        let (events, inputs) = mpsc::channel(EVENTS);
        let (roster_sender, roster_watch) = watch::channel(roster.clone());
        let probed = Probed { service, events: events.clone(), roster: roster_watch.clone() };
        let endpoint = Service::new(sessions, credentials).protocol(PROBE_PROTOCOL, Access::Anyone, probed);
        let links = Links::new(service, events.clone(), roster_watch.clone());
        let part = part.map(|part| {
            let signer = identity.clone();
            let sign = Arc::new(move |message: &[u8]| signer.sign(message));
            let machine = Machine::new(Config { service, me, sign, roster }, boottime(), wall(), rand::random());
            (part, machine, Arc::clone(&links), roster_sender)
        });
        let gossip = Gossip(part.is_some().then_some((links, roster_watch)));
        let starter = Starter { identity: me, holdings, part, events, inputs, splitting, wardens: Vec::new() };
        Ok(Launched { listener: plain, endpoint, gossip, starter })
    }

    /// The service's address.
    pub fn address(&self) -> OnionAddress {
        self.service
    }

    /// Watches how the service stands, as far as this node knows.
    pub fn status(&self) -> watch::Receiver<ServiceStatus> {
        self.status.clone()
    }

    /// Watches what the owner has granted: a later manifest names other members, or clients, and an application that has to do
    /// with them follows it.
    pub fn holdings(&self) -> watch::Receiver<Arc<Holdings>> {
        self.holdings.clone()
    }

    /// What happens from now on; who falls behind misses the oldest.
    pub fn events(&self) -> tokio::sync::broadcast::Receiver<ServiceEvent> {
        self.teller.listen()
    }

    /// Looks for new grants in the folder of the holdings now, which happens by itself every quarter of a minute.
    ///
    /// # Cancel safety
    /// Cancel-safe.
    pub async fn renew(&self) {
        let (done, renewed) = oneshot::channel();
        if self.renewals.send(done).await.is_ok() {
            let _ = renewed.await;
        }
    }

    /// Makes this node behave badly, to see what the others make of it.
    ///
    /// # Cancel safety
    /// Cancel-safe.
    #[cfg(feature = "testing")]
    pub async fn misbehave(&self, what: Misbehaviour) {
        let _ = self.events.send(Event::Misbehave(what)).await;
    }

    /// Leaves in order: the others publish without this node before its introduction points go. Takes some seconds; at most
    /// 16.
    ///
    /// # Cancel safety
    /// Dropping the future withdraws everything at once.
    pub async fn shutdown(mut self) {
        if self.events.send(Event::Shutdown).await.is_ok() {
            let _ = self.driving.join_next().await;
        }
    }
}

/// How a node of a service behaves badly; for tests.
#[cfg(feature = "testing")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Misbehaviour {
    /// It says and hears nothing on its streams with the other members, and serves clients as before: they hold it for dead.
    Mute,
    /// It talks again.
    Unmute,
    /// It announces introduction points that nobody has in the place of its own.
    AnnounceGarbage,
}

impl Starter {
    /// Has the node fetch by itself what was made for it in advance, from the first of these wardens that answers: their own
    /// addresses. It asks when the service starts, when a warden has said that something will be due, and every hour. By default
    /// it takes in only what is put into the folder of its grants.
    ///
    /// The node dials the wardens as itself, and with the key by which members find each other.
    #[must_use]
    pub fn fetch_from(mut self, wardens: impl IntoIterator<Item = OnionAddress>) -> Self {
        self.wardens = wardens.into_iter().collect();
        self
    }

    /// Starts the service. `node` must be the one that the other parts of [`Launched`] went into.
    pub fn start(self, node: &Node) -> ReplicatedService {
        let Self { identity, holdings, part, events, inputs, splitting, wardens } = self;
        debug_assert_eq!(identity, node.address(), "the parts of a service go into the node that it was launched for");
        let service = holdings.recipient().service();
        let shown = holdings.credentials(unix_now()).map(|credentials| credentials.delegation().serial());
        for warden in &wardens {
            node.network().use_discovery_key(*warden, &holdings.discovery_key());
        }
        let (held, watched) = watch::channel(Arc::new(holdings));
        let (renewals, asked) = mpsc::channel(RENEWALS);
        let mut keeping = splitting;
        keeping.spawn(grants::keep(node.clone(), held, shown, asked));
        let (teller, status) = Teller::new(part.is_some());
        if !wardens.is_empty() {
            let (node, held, renewals) = (node.clone(), watched.clone(), renewals.clone());
            keeping.spawn(Fetching { node, wardens, held, renewals, teller: teller.clone() }.run());
        }
        let mut driving = JoinSet::new();
        if let Some((part, machine, links, roster)) = part {
            let (node, holdings, events, teller) = (node.clone(), watched.clone(), events.clone(), teller.clone());
            let driver = Driver { node, service, machine, part, holdings, links, roster, events, teller };
            driving.spawn(driver.run(inputs));
        }
        ReplicatedService { service, events, status, holdings: watched, teller, renewals, driving, _keeping: keeping }
    }
}

impl Handler for Gossip {
    fn serve(&self, stream: Stream, session: Session) -> BoxFuture<'static, ()> {
        let parts = self.0.clone();
        async move {
            let Some((links, roster)) = parts else { return };
            match session.peer().address().filter(|peer| roster.borrow().contains(peer)) {
                Some(member) => links.run(member, stream).await,
                None => tracing::warn!("somebody who is no member tried to link"),
            }
        }
        .boxed()
    }
}

/// Parts a listener into one for sessions and one for the plain ports.
fn split(mut listener: Listener, tasks: &mut JoinSet<()>) -> (Listener, Listener) {
    let status = listener.status();
    let (to_sessions, sessions) = mpsc::channel::<Incoming>(ACCEPT_QUEUE);
    let (to_plain, plain) = mpsc::channel::<Incoming>(ACCEPT_QUEUE);
    tasks.spawn(async move {
        while let Some(incoming) = listener.accept().await {
            let queue = if incoming.port == HCP_PORT { &to_sessions } else { &to_plain };
            // What is not taken is refused, as any listener does: one port must not hold up the other.
            let _ = queue.try_send(incoming);
        }
    });
    (Listener::new(sessions, status.clone(), ()), Listener::new(plain, status, ()))
}

impl fmt::Debug for ReplicatedService {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReplicatedService").finish_non_exhaustive()
    }
}

impl fmt::Debug for Starter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Starter").finish_non_exhaustive()
    }
}

impl fmt::Debug for Gossip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gossip").finish_non_exhaustive()
    }
}

/// Why [`ReplicatedService::launch`] failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LaunchError {
    /// No grant gives this node the right to speak for the service now.
    #[error("no delegation is valid now: ask the owner for a grant, and look at the clock")]
    NoDelegation,
    /// The manifest does not name this node.
    #[error("the manifest does not name this node among the members")]
    NotAMember,
    /// The manifest names more members than a service can have.
    #[error("the manifest names more members than a service can have")]
    TooManyMembers,
    /// The network refused.
    #[error(transparent)]
    Listen(#[from] ListenError),
}

impl LaunchError {
    /// What a caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::NoDelegation | Self::NotAMember => ErrorKind::Authentication,
            Self::TooManyMembers => ErrorKind::InvalidInput,
            Self::Listen(error) => error.kind(),
        }
    }
}

/// What waits for the driver: each link and each point is a task that waits when this is full.
const EVENTS: usize = 1024;
/// Each waits for its turn anyway.
const RENEWALS: usize = 4;
