//! A node: an identity on a network, which dials peers and accepts them.
//!
//! The node owns its listener and all its sessions; dropping the last handle ends them. Streams are routed to handlers by
//! the name of their protocol; each protocol says whether it serves diallers that stay anonymous.

mod channel;
mod driver;
mod router;
mod session;
mod stream;

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};

use self::router::Router;
pub use self::router::{Access, Handler};
pub use self::session::{OpenError, Session};
pub use self::stream::{RecvError, SendError, Stream, StreamSender};
use crate::error::ErrorKind;
use crate::identity::{Identity, OnionAddress};
use crate::network::{DialError, HCP_PORT, Incoming, ListenError, Listener, ListenerStatus, Network};
use crate::session::{Acceptor, Credentials, Dial, Dialler, Keepalive, Machine, SessionError};

/// Accepted connections whose dialler has not proved itself yet. One more displaces the oldest, so that strangers who say
/// nothing lock nobody out.
pub const MAX_HANDSHAKES: usize = 32;
/// Sessions that a node accepts at once; with the limits of a session this bounds a node's memory.
pub const MAX_SESSIONS: usize = 1024;
/// The longest timeout of a keepalive; a session that may be silent for longer is not being watched.
pub const MAX_KEEPALIVE: Duration = Duration::from_secs(24 * 60 * 60);
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
    router: Arc<Router>,
    keepalive: Keepalive,
    status: watch::Receiver<ListenerStatus>,
    /// Owns the sessions that this node dialled.
    dialled: Mutex<JoinSet<()>>,
    /// Owns the accept loop, which owns the accepted sessions.
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
        NodeBuilder { identity, network, router: Router::default(), keepalive: Keepalive::default(), duplicate: None }
    }

    /// The node's own address.
    pub fn address(&self) -> OnionAddress {
        self.inner.identity.address()
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

    /// Opens a session with whoever holds the key of `address`, and proves to them who this node is.
    ///
    /// # Errors
    /// [`ConnectError`] says in which phase it failed.
    ///
    /// # Cancel safety
    /// Dropping the future abandons the attempt.
    pub async fn connect(&self, address: OnionAddress) -> Result<Session, ConnectError> {
        self.connect_as(address, Dialler::Identity(self.inner.identity.clone())).await
    }

    /// Opens a session without showing who this node is. The peer can open no streams in it.
    ///
    /// # Errors
    /// As [`Self::connect`].
    ///
    /// # Cancel safety
    /// As [`Self::connect`].
    pub async fn connect_anonymously(&self, address: OnionAddress) -> Result<Session, ConnectError> {
        self.connect_as(address, Dialler::Anonymous).await
    }

    async fn connect_as(&self, address: OnionAddress, me: Dialler) -> Result<Session, ConnectError> {
        // To a service, an anonymous dialler is nobody: it serves nothing that could tell who it is.
        let router = match &me {
            Dialler::Anonymous => Arc::new(Router::default()),
            Dialler::Identity(_) => Arc::clone(&self.inner.router),
        };
        let transport = self.inner.network.dial(address, HCP_PORT).await?;
        let unix_now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let dial = Dial { target: address, me, known: None, keepalive: self.inner.keepalive, lanes: 0, unix_now };
        let machine = Machine::dial(dial, tokio::time::Instant::now())?;
        let (session, drive) = driver::establish(machine, transport, router).await?;
        let mut dialled = self.inner.dialled.lock().unwrap_or_else(PoisonError::into_inner);
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
    keepalive: Keepalive,
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
    /// a ping per interval and session.
    #[must_use]
    pub fn keepalive(mut self, interval: Duration, timeout: Duration) -> Self {
        self.keepalive = Keepalive { interval, timeout };
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
        if let Some(protocol) = self.duplicate {
            return Err(BindError::Protocol(protocol));
        }
        let Keepalive { interval, timeout } = self.keepalive;
        if interval.is_zero() || interval >= timeout || timeout > MAX_KEEPALIVE {
            return Err(BindError::Keepalive);
        }
        let listener = self.network.listen(&self.identity, &[HCP_PORT]).await?;
        let status = listener.status();
        let router = Arc::new(self.router);
        let acceptor = Acceptor::new(&Credentials::Identity(self.identity.clone()), self.keepalive)?;
        let mut accepting = JoinSet::new();
        accepting.spawn(accept_all(listener, acceptor, Arc::clone(&router)));
        let inner = Inner {
            identity: self.identity,
            network: self.network,
            router,
            keepalive: self.keepalive,
            status,
            dialled: Mutex::new(JoinSet::new()),
            _accepting: accepting,
        };
        Ok(Node { inner: Arc::new(inner) })
    }
}

async fn accept_all(mut listener: Listener, acceptor: Arc<Acceptor>, router: Arc<Router>) {
    let mut handshakes: VecDeque<(AbortHandle, Weak<()>)> = VecDeque::new();
    let mut sessions = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(_) = sessions.join_next() => continue,
        };
        let Some(Incoming { stream, .. }) = accepted else { return };
        handshakes.retain(|(_, pending)| pending.strong_count() > 0);
        if handshakes.len() >= MAX_HANDSHAKES
            && let Some((oldest, _)) = handshakes.pop_front()
        {
            oldest.abort();
        }
        if sessions.len() >= MAX_SESSIONS {
            continue;
        }
        let pending = Arc::new(());
        let watched = Arc::downgrade(&pending);
        let (acceptor, router) = (Arc::clone(&acceptor), Arc::clone(&router));
        let handshake = sessions.spawn(async move {
            let mut stream = stream;
            let machine = match driver::accept(&acceptor, &mut stream).await {
                Ok(Some(machine)) => machine,
                Ok(None) => return,
                Err(error) => return tracing::debug!(%error, "a dialler failed the handshake"),
            };
            match driver::establish(machine, stream, router).await {
                Ok((session, drive)) => {
                    drop(pending);
                    drive.await;
                    drop(session);
                }
                Err(error) => tracing::debug!(%error, "a dialler failed the handshake"),
            }
        });
        handshakes.push_back((handshake, watched));
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
            Self::Protocol(_) | Self::Keepalive => ErrorKind::InvalidInput,
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
