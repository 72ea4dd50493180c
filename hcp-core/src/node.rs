//! A node: an identity on a network, which dials peers and accepts them.
//!
//! The node owns its listener and all its sessions; dropping the last handle ends them. Streams are routed to handlers by
//! the name of their protocol; each protocol says whether it serves diallers that stay anonymous.

mod accept;
mod backlog;
mod channel;
mod dial;
mod driver;
mod event;
mod failure;
mod ledger;
mod pipe;
mod places;
mod reconnect;
mod registry;
mod router;
mod service;
mod session;
mod sessions;
mod stream;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::{Mutex as AsyncMutex, watch};
use tokio::task::JoinSet;

pub use self::backlog::NODE_BACKLOG;
use self::backlog::SEND_BUDGET;
pub use self::dial::DialAs;
use self::dial::{Established, Path};
use self::driver::{Environment, Lanes};
pub use self::event::{DialledBy, EVENT_QUEUE, NodeEvent, NodeEvents, NodeStats};
use self::event::{Telling, count};
use self::failure::Failure;
use self::ledger::Ledger;
pub use self::ledger::NODE_MEMORY;
pub use self::reconnect::{Backoff, BackoffError, HEALTHY_SESSION, MAX_BACKOFF, MIN_BACKOFF, Maintained};
use self::router::Router;
pub use self::router::{Access, Handler};
use self::service::Present;
pub use self::service::{RenewError, Service};
pub use self::session::{OpenError, Session};
use self::sessions::{LaneHost, LaneTable, Sessions};
pub use self::stream::{RecvError, SendError, Stream, StreamSender};
use crate::error::ErrorKind;
use crate::identity::delegation::{ReplicaCredentials, SerialFloors};
use crate::identity::{DiscoveryPublicKey, Identity, OnionAddress};
use crate::network::{DialError, HCP_PORT, ListenError, Listener, ListenerStatus, Network, Restrict};
use crate::session::{Acceptor, Credentials, Dial, Dialler, Keepalive, MAX_LANES, SessionError};

/// Accepted connections whose dialler has not proved itself yet, for each listener; at 100 KiB each. One more displaces the
/// oldest that has said nothing, so that strangers who say nothing lock nobody out, or else any of them.
pub const MAX_HANDSHAKES: usize = 64;
/// Accepted sessions that each address of a node has at once, its own and those of services, which take some 30 KiB each while
/// they are idle. Beyond that the oldest in which nothing is open makes room, or else peers are told that the address is busy.
/// Those at one address take no place from those at another, and sessions that the node dialled take none.
pub const MAX_SESSIONS: usize = 1024;
/// The longest timeout of a keepalive; a session that may be silent for longer is not being watched.
pub const MAX_KEEPALIVE: Duration = Duration::from_secs(24 * 60 * 60);
/// Lanes of a session while a bulk stream is open, unless the application says otherwise: enough to double what one Tor circuit
/// carries.
const DEFAULT_LANES: usize = 2;
/// Reset code: nobody serves the protocol.
pub const RESET_UNKNOWN_PROTOCOL: u32 = 1;
/// Reset code: the protocol does not serve anonymous diallers.
pub const RESET_ANONYMOUS: u32 = 2;
/// Reset code: too many streams of the session are being served already.
pub const RESET_BUSY: u32 = 4;
/// Reset code: the stream's handle was dropped.
pub const RESET_DROPPED: u32 = 3;

/// An identity on a network. Cheap to clone.
#[derive(Clone)]
pub struct Node {
    inner: Arc<Inner>,
}

struct Inner {
    identity: Identity,
    network: Arc<dyn Network>,
    keepalive: Keepalive,
    lanes: usize,
    send_budget: usize,
    floors: SerialFloors,
    /// For sessions that this node dials as itself.
    router: Arc<Router>,
    sessions: Arc<Sessions>,
    telling: Arc<Telling>,
    /// What peers make the node hold.
    ledger: Arc<Ledger>,
    /// What the node keeps of what its applications have sent.
    backlog: Arc<Ledger>,
    status: watch::Receiver<ListenerStatus>,
    /// Changes who finds the own address.
    restrict: Option<Restrict>,
    /// Held by whoever dials an address, so that the others wait for what comes of it.
    gates: Mutex<HashMap<OnionAddress, Weak<AsyncMutex<()>>>>,
    /// What is shown at the addresses of services.
    services: Vec<Present>,
    /// Owns the sessions that this node dialled.
    dialled: Mutex<JoinSet<()>>,
    /// Owns the accept loops, which own the accepted sessions.
    _accepting: JoinSet<()>,
}

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Node").field("network", &self.inner.network).finish_non_exhaustive()
    }
}

impl Node {
    /// Starts describing a node.
    pub fn builder(identity: Identity, network: Arc<dyn Network>) -> NodeBuilder {
        NodeBuilder {
            identity,
            network,
            router: Router::default(),
            services: Vec::new(),
            keepalive: Keepalive::default(),
            lanes: DEFAULT_LANES,
            floors: SerialFloors::default(),
            memory: NODE_MEMORY,
            backlog: NODE_BACKLOG,
            send_budget: SEND_BUDGET,
            max_sessions: MAX_SESSIONS,
            clients: None,
            duplicate: None,
        }
    }

    /// The node's own address.
    pub fn address(&self) -> OnionAddress {
        self.inner.identity.address()
    }

    /// Where it dials and is dialled.
    pub(crate) fn network(&self) -> &dyn Network {
        self.inner.network.as_ref()
    }

    /// Whether strangers can reach the node.
    pub fn status(&self) -> watch::Receiver<ListenerStatus> {
        self.inner.status.clone()
    }

    /// Waits until strangers can reach the node; `false` when it stopped before.
    ///
    /// # Cancel safety
    /// Cancel-safe.
    pub async fn reachable(&self) -> bool {
        self.inner
            .status
            .clone()
            .wait_for(|status| matches!(status, ListenerStatus::Reachable | ListenerStatus::Stopped))
            .await
            .is_ok_and(|status| *status == ListenerStatus::Reachable)
    }

    /// The session with whoever holds the key of `address`, or speaks for it: the one that exists, whoever dialled it, or a
    /// new one, to which this node proves who it is. It is shared by all who connect to the address.
    ///
    /// A session whose peer has vanished is found dead by the keepalive, and given out until then. Where it was with a replica of
    /// a service, the next is with another one, if one answers within a few dials.
    ///
    /// # Errors
    /// [`ConnectError`] says in which phase it failed.
    ///
    /// # Cancel safety
    /// Dropping the future abandons the attempt; others who wait for the same address then dial themselves.
    pub async fn connect(&self, address: OnionAddress) -> Result<Session, ConnectError> {
        if let Some(session) = self.inner.sessions.current(address) {
            return Ok(session);
        }
        let gate = self.gate(address);
        let dialled = async {
            let _turn = gate.lock().await;
            let path = self.inner.sessions.failure(address).into();
            self.dial(address, Dialler::Identity(self.inner.identity.clone()), true, path).await
        };
        tokio::select! {
            biased;
            session = self.inner.sessions.wait(address) => Ok(session),
            // It may have been drained at once in favour of another.
            dialled = dialled => dialled.map(|session| self.inner.sessions.current(address).unwrap_or(session)),
        }
    }

    /// Opens a new session without showing who this node is. The peer can open no streams in it.
    ///
    /// # Errors
    /// As [`Self::connect`].
    ///
    /// # Cancel safety
    /// Dropping the future abandons the attempt.
    pub async fn connect_anonymously(&self, address: OnionAddress) -> Result<Session, ConnectError> {
        self.dial(address, Dialler::Anonymous, false, Path::Usual).await
    }

    /// As [`Self::connect_anonymously`], sharing nothing with other dials: at a service on many nodes chance decides anew which
    /// of them answers.
    pub(crate) async fn connect_apart(&self, address: OnionAddress) -> Result<Session, ConnectError> {
        self.dial(address, Dialler::Anonymous, false, Path::Apart).await
    }

    /// Opens a new session as somebody else, such as an identity made for this one peer. The peer can open no streams in it,
    /// and nothing connects it with this node.
    ///
    /// A peer keeps one session for an identity: of two that are open at once it may drain the first.
    ///
    /// # Errors
    /// As [`Self::connect`].
    ///
    /// # Cancel safety
    /// Dropping the future abandons the attempt.
    pub async fn connect_as(&self, address: OnionAddress, identity: &Identity) -> Result<Session, ConnectError> {
        self.dial(address, Dialler::Identity(identity.clone()), false, Path::Usual).await
    }

    /// Keeps a session with whoever holds the key of `address`, or speaks for it, until the returned handle is dropped:
    /// connects, and connects again whenever the session has ended.
    pub fn maintain(&self, address: OnionAddress, backoff: Backoff) -> Maintained {
        self.maintain_as(address, DialAs::Node, backoff)
    }

    /// Keeps a session as [`Self::maintain`] does, and dials as somebody: towards a service best [`DialAs::Anonymous`].
    ///
    /// That sessions follow each other at once tells the peer that they are probably of the same dialler.
    pub fn maintain_as(&self, address: OnionAddress, me: DialAs, backoff: Backoff) -> Maintained {
        let node = self.clone();
        let dial = move |failure: Option<Failure>| {
            let (node, me) = (node.clone(), me.clone());
            async move {
                match me {
                    // What has failed is known to all who connect as the node.
                    DialAs::Node => node.connect(address).await,
                    DialAs::Anonymous => node.dial(address, Dialler::Anonymous, false, failure.into()).await,
                    DialAs::Identity(identity) => {
                        node.dial(address, Dialler::Identity(identity), false, failure.into()).await
                    }
                }
            }
        };
        Maintained::start(dial, backoff, rand::random::<f64>)
    }

    /// Has the node speak for a service under other credentials than it does, such as those of the owner's next round, while
    /// it goes on serving: whoever connects from now on is shown these.
    ///
    /// Sessions that exist go on as they are, and the lanes that join them later are shown the key with which they began. So
    /// that key stays in memory until the last of them has ended.
    ///
    /// # Errors
    /// [`RenewError`].
    pub fn renew(&self, credentials: ReplicaCredentials) -> Result<(), RenewError> {
        credentials.check(dial::unix_now())?;
        let service = credentials.service();
        let mut listeners = self.inner.services.iter().filter(|present| present.address() == service).peekable();
        if listeners.peek().is_none() {
            return Err(RenewError::NotServed);
        }
        let acceptor = Acceptor::new(&Credentials::Replica(credentials), self.inner.keepalive)?;
        listeners.for_each(|present| present.replace(Arc::clone(&acceptor)));
        Ok(())
    }

    /// Hides the node's own address from everybody but these clients from now on, whoever could find it before; see
    /// [`NodeBuilder::restricted_to`]. It takes until the network has heard of it, over Tor a minute; sessions that exist go
    /// on, and who has found the address before can dial it as long as it remembers how.
    ///
    /// # Errors
    /// [`ListenError::CannotRestrict`], and [`ListenError::Clients`] for a number of clients that cannot be; nothing has changed.
    pub fn restrict_to(&self, clients: impl IntoIterator<Item = DiscoveryPublicKey>) -> Result<(), ListenError> {
        let restrict = self.inner.restrict.as_ref().ok_or(ListenError::CannotRestrict)?;
        restrict(&clients.into_iter().collect::<Vec<_>>())
    }

    /// What happens to the node from now on.
    pub fn events(&self) -> NodeEvents {
        self.inner.telling.listen()
    }

    /// What the node has done since it was bound, and what it holds now.
    pub fn stats(&self) -> NodeStats {
        self.inner.telling.stats(&self.inner.ledger, &self.inner.backlog)
    }

    /// The lock of those who dial an address.
    fn gate(&self, address: OnionAddress) -> Arc<AsyncMutex<()>> {
        let mut gates = self.inner.gates.lock().unwrap_or_else(PoisonError::into_inner);
        gates.retain(|_, gate| gate.strong_count() > 0);
        if let Some(gate) = gates.get(&address).and_then(Weak::upgrade) {
            return gate;
        }
        let gate = Arc::default();
        gates.insert(address, Arc::downgrade(&gate));
        gate
    }

    async fn dial(
        &self,
        address: OnionAddress,
        me: Dialler,
        shared: bool,
        path: Path,
    ) -> Result<Session, ConnectError> {
        match self.try_dial(address, me, shared, path).await {
            Ok(session) => Ok(session),
            Err(error) => {
                count(&self.inner.telling.counts.dials_failed);
                let event = NodeEvent::DialFailed { address, kind: error.kind(), reason: error.to_string() };
                self.inner.telling.tell(event);
                Err(error)
            }
        }
    }

    async fn try_dial(
        &self,
        address: OnionAddress,
        me: Dialler,
        shared: bool,
        path: Path,
    ) -> Result<Session, ConnectError> {
        let inner = &self.inner;
        // Somebody who is not this node serves nothing that could tell who it is.
        let router = if shared { Arc::clone(&inner.router) } else { Arc::default() };
        let sessions = shared.then(|| Arc::clone(&inner.sessions));
        let dial = Dial {
            target: address,
            me,
            known: None,
            keepalive: inner.keepalive,
            lanes: inner.lanes,
            floors: inner.floors.clone(),
            unix_now: dial::unix_now(),
        };
        let Established { machine, pipe, peer, id } =
            dial::reach(inner.network.as_ref(), dial, sessions.as_ref(), path).await?;
        let environment = Environment {
            router,
            sessions,
            telling: Arc::clone(&inner.telling),
            ledger: Arc::clone(&inner.ledger),
            backlog: Arc::clone(&inner.backlog),
            send_budget: inner.send_budget,
            floors: inner.floors.clone(),
            lanes: Lanes::Dialled { network: Arc::clone(&inner.network), target: address },
        };
        let (session, drive) = driver::start(machine, pipe, peer, id, environment);
        let mut dialled = inner.dialled.lock().unwrap_or_else(PoisonError::into_inner);
        while dialled.try_join_next().is_some() {}
        dialled.spawn(drive);
        Ok(session)
    }
}

/// Describes a node before it is bound.
#[derive(Debug)]
pub struct NodeBuilder {
    identity: Identity,
    network: Arc<dyn Network>,
    router: Router,
    services: Vec<Service>,
    keepalive: Keepalive,
    lanes: usize,
    floors: SerialFloors,
    memory: usize,
    backlog: usize,
    send_budget: usize,
    max_sessions: usize,
    clients: Option<Vec<DiscoveryPublicKey>>,
    duplicate: Option<String>,
}

impl NodeBuilder {
    /// Serves streams of `protocol` with `handler`, for peers that `access` admits.
    #[must_use]
    pub fn protocol(mut self, protocol: &str, access: Access, handler: impl Handler) -> Self {
        if !self.router.insert(protocol, access, handler) {
            self.duplicate = Some(protocol.to_owned());
        }
        self
    }

    /// When silent sessions are probed and given up: by default after 5 s and 15 s. Shorter notices death sooner and costs
    /// a ping per interval and session. Sessions at the services that the node serves stay as by default, so that strangers
    /// cannot tell one replica from the others.
    #[must_use]
    pub fn keepalive(mut self, interval: Duration, timeout: Duration) -> Self {
        self.keepalive = Keepalive { interval, timeout };
        self
    }

    /// How many lanes a session that this node dialled gets once a bulk stream is open in it: 2 by default, at most
    /// [`MAX_LANES`]. They stay as long as the session. More carry files faster; over Tor each takes circuits of its own to be built.
    #[must_use]
    pub fn lanes(mut self, lanes: usize) -> Self {
        self.lanes = lanes;
        self
    }

    /// What is known of the delegations of services, empty by default. An application that keeps it from run to run refuses
    /// delegations that were withdrawn before.
    #[must_use]
    pub fn floors(mut self, floors: SerialFloors) -> Self {
        self.floors = floors;
        self
    }

    /// Hides the node's own address from everybody who has the key of none of these clients: who knows the address does not
    /// learn how to reach it, but can see that it was up lately. 1 to
    /// [`MAX_DISCOVERY_CLIENTS`](crate::network::MAX_DISCOVERY_CLIENTS) clients, on a network that can do so. By default everybody finds it.
    #[must_use]
    pub fn restricted_to(mut self, clients: impl IntoIterator<Item = DiscoveryPublicKey>) -> Self {
        self.clients = Some(clients.into_iter().collect());
        self
    }

    /// Serves a service's address as well; each as often as it is called.
    #[must_use]
    pub fn service(mut self, service: Service) -> Self {
        self.services.push(service);
        self
    }

    /// Launches the node. Returns once it is launched; [`Node::reachable`] waits until it can be dialled.
    ///
    /// # Errors
    /// [`BindError`] for a configuration that cannot work or a network that refuses.
    ///
    /// # Cancel safety
    /// Dropping the future withdraws what was launched.
    pub async fn bind(self) -> Result<Node, BindError> {
        let refused = self.services.iter().find_map(|service| service.refused.clone());
        if let Some(protocol) = self.duplicate.or(refused) {
            return Err(BindError::Protocol(protocol));
        }
        let Keepalive { interval, timeout } = self.keepalive;
        if interval.is_zero() || interval >= timeout || timeout > MAX_KEEPALIVE {
            return Err(BindError::Keepalive);
        }
        if self.lanes > MAX_LANES {
            return Err(BindError::Lanes);
        }
        let listener = match &self.clients {
            None => self.network.listen(&self.identity, &[HCP_PORT]).await?,
            Some(clients) => self.network.listen_restricted(&self.identity, &[HCP_PORT], clients).await?,
        };
        let (status, restrict) = (listener.status(), listener.restrict());
        let (ledger, backlog) = (Ledger::new(self.memory), Ledger::new(self.backlog));
        let telling = Arc::<Telling>::default();
        let table = Arc::<LaneTable>::default();
        let mut accepting = JoinSet::new();
        let mut accept = |listener: Listener,
                          credentials: Credentials,
                          router: Arc<Router>,
                          sessions: Arc<Sessions>| {
            // All replicas of a service are alike to a stranger, who could know a node of its own again by when it pings.
            let keepalive =
                if matches!(credentials, Credentials::Replica(_)) { Keepalive::default() } else { self.keepalive };
            let present = Present::new(&credentials, keepalive)?;
            let shown = present.watch();
            let environment = Environment {
                router,
                sessions: Some(sessions),
                telling: Arc::clone(&telling),
                ledger: Arc::clone(&ledger),
                backlog: Arc::clone(&backlog),
                floors: self.floors.clone(),
                send_budget: self.send_budget,
                lanes: Lanes::Accepted(LaneHost { table: Arc::clone(&table), acceptor: Arc::clone(&shown.borrow()) }),
            };
            accepting.spawn(accept::accept_all(listener, shown, environment, self.max_sessions));
            Ok::<_, SessionError>(present)
        };
        let (router, sessions) = (Arc::new(self.router), Sessions::new(self.identity.address()));
        let own = Credentials::Identity(self.identity.clone());
        accept(listener, own, Arc::clone(&router), Arc::clone(&sessions))?;
        let mut services = Vec::with_capacity(self.services.len());
        for Service { listener, credentials, router, .. } in self.services {
            let sessions = Sessions::new(credentials.service());
            services.push(accept(listener, Credentials::Replica(credentials), Arc::new(router), sessions)?);
        }
        let inner = Inner {
            identity: self.identity,
            network: self.network,
            keepalive: self.keepalive,
            lanes: self.lanes,
            send_budget: self.send_budget,
            floors: self.floors,
            router,
            sessions,
            telling,
            ledger,
            backlog,
            status,
            restrict,
            gates: Mutex::default(),
            services,
            dialled: Mutex::new(JoinSet::new()),
            _accepting: accepting,
        };
        Ok(Node { inner: Arc::new(inner) })
    }
}

/// Why [`NodeBuilder::bind`] failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BindError {
    /// A protocol name is empty, too long or registered twice.
    #[error("protocol {0:?} is registered twice, or its name is empty or too long")]
    Protocol(String),
    /// The keepalive's interval is zero or not below its timeout, or that is beyond [`MAX_KEEPALIVE`].
    #[error("the keepalive interval must be above zero and below its timeout, and that at most a day")]
    Keepalive,
    /// More lanes than [`MAX_LANES`].
    #[error("a session has at most {MAX_LANES} lanes")]
    Lanes,
    /// The network refused.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// TLS could not be set up.
    #[error(transparent)]
    Session(#[from] SessionError),
}

impl BindError {
    /// What a caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Protocol(_) | Self::Keepalive | Self::Lanes => ErrorKind::InvalidInput,
            Self::Listen(error) => error.kind(),
            Self::Session(error) => error.kind(),
        }
    }
}

/// Why [`Node::connect`] failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// The network did not reach the address.
    #[error("cannot reach the peer: {0}")]
    Dial(#[from] DialError),
    /// The address was reached and no session came of it; the handshake has a deadline of
    /// [`HANDSHAKE_TIMEOUT`](crate::session::HANDSHAKE_TIMEOUT).
    #[error("no session with the peer: {0}")]
    Session(#[from] SessionError),
}

impl ConnectError {
    /// What a caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Dial(error) => error.kind(),
            Self::Session(error) => error.kind(),
        }
    }
}
