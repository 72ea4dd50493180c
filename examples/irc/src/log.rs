//! The server's view of the replicated log: entries to append without waiting, and one queue of what happened.
//!
//! Invariant: an event is handed to the server only when it asks, for what has been handed out counts as seen by what is
//! appended afterwards. The server applies each event and queues what it wrote before it asks for the next.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use hcp_core::error::ErrorKind;
use hcp_core::replica::{
    AppendError, Event, Incarnation, LogId, NodeId, PeerState, Peers, Receipt, ReceiptError, Replica, StoreError,
    Subscription, Write,
};
use tokio::sync::watch;

/// What happened to the log.
#[derive(Debug)]
pub(crate) enum LogEvent {
    /// An entry is durable here; own entries of this run come in the order of their appends.
    Entry { write: Write, entry: Bytes, own: bool },
    /// A node began a new run.
    Began(LogId),
    /// All that was stored when the log was opened has been delivered.
    CaughtUp,
    /// A node is live with this run, or cannot be reached.
    Peer { node: NodeId, run: Option<Incarnation> },
    /// Another live node, if there is one, holds the entry appended with this number.
    Confirmed(u64),
}

/// Why the log cannot go on; what was confirmed before is not lost.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LogFailure {
    /// It cannot be written or read.
    #[error("{0}")]
    Store(#[from] Arc<StoreError>),
    /// It was shut down.
    #[error("the replicated log was shut down")]
    Closed,
}

impl LogFailure {
    /// What a caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Store(error) => error.kind(),
            Self::Closed => ErrorKind::Closed,
        }
    }
}

impl From<AppendError> for LogFailure {
    fn from(error: AppendError) -> Self {
        match error {
            AppendError::Store(error) => Self::Store(error),
            // An entry is far below the limit of the log: its fields have limits of their own.
            _ => Self::Closed,
        }
    }
}

impl From<ReceiptError> for LogFailure {
    fn from(error: ReceiptError) -> Self {
        match error {
            ReceiptError::Store(error) => Self::Store(error),
            _ => Self::Closed,
        }
    }
}

/// A subscription and what came of reading it.
type Read = (Subscription, Result<Option<Event>, StoreError>);

/// The log of one server.
pub(crate) struct Log {
    replica: Replica,
    /// The reading of the next event. It lives on when [`Log::next`] is dropped: a page read from disk would be read
    /// again otherwise, and under load for ever.
    reading: BoxFuture<'static, Read>,
    peers: watch::Receiver<Peers>,
    known: BTreeMap<NodeId, PeerState>,
    peer_events: VecDeque<LogEvent>,
    /// Entries of which the server wants to know when another node holds them, in the order of the log: none is held
    /// before those in front of it are.
    unconfirmed: VecDeque<(u64, Receipt)>,
}

impl Log {
    pub(crate) fn new(replica: Replica) -> Self {
        let mut peers = replica.peers();
        peers.mark_changed();
        Self {
            reading: read(replica.subscribe()),
            peers,
            replica,
            known: BTreeMap::new(),
            peer_events: VecDeque::new(),
            unconfirmed: VecDeque::new(),
        }
    }

    pub(crate) fn own(&self) -> LogId {
        self.replica.log()
    }

    pub(crate) fn replica(&self) -> Replica {
        self.replica.clone()
    }

    /// Appends an entry if the log takes it at once; whether it did.
    pub(crate) fn try_append(&mut self, entry: &Bytes, confirm: Option<u64>) -> Result<bool, LogFailure> {
        match self.replica.append(entry.clone()).now_or_never() {
            Some(receipt) => {
                self.appended(receipt?, confirm);
                Ok(true)
            }
            None => Ok(false),
        }
    }

    /// Follows an entry that was appended, if its confirmation was asked for.
    pub(crate) fn appended(&mut self, receipt: Receipt, confirm: Option<u64>) {
        if let Some(number) = confirm {
            self.unconfirmed.push_back((number, receipt));
        }
    }

    /// Whether everything whose confirmation was asked for has been confirmed.
    pub(crate) fn is_confirmed(&self) -> bool {
        self.unconfirmed.is_empty()
    }

    /// Waits for the next event. Cancel-safe.
    pub(crate) async fn next(&mut self) -> Result<LogEvent, LogFailure> {
        loop {
            if let Some(event) = self.peer_events.pop_front() {
                return Ok(event);
            }
            let front = self.unconfirmed.front().map(|(_, receipt)| receipt.clone());
            let confirmed = async {
                match front {
                    Some(receipt) => receipt.replicated_to_live(1).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                (subscription, event) = &mut self.reading => {
                    self.reading = read(subscription);
                    match event.map_err(Arc::new)? {
                        Some(Event::Entry(applied)) => {
                            let own = applied.append.is_some();
                            return Ok(LogEvent::Entry { write: applied.write, entry: applied.entry, own });
                        }
                        Some(Event::Began(log)) => return Ok(LogEvent::Began(log)),
                        Some(Event::CaughtUp) => return Ok(LogEvent::CaughtUp),
                        Some(_) => {}
                        None => return Err(LogFailure::Closed),
                    }
                }
                held = confirmed => {
                    held?;
                    if let Some((number, _)) = self.unconfirmed.pop_front() {
                        return Ok(LogEvent::Confirmed(number));
                    }
                }
                changed = self.peers.changed() => {
                    changed.map_err(|_| LogFailure::Closed)?;
                    self.note_peers();
                }
                error = self.replica.failed() => return Err(error.map_or(LogFailure::Closed, LogFailure::Store)),
            }
        }
    }

    fn note_peers(&mut self) {
        for (node, state) in self.peers.borrow_and_update().iter() {
            if self.known.insert(node, state) != Some(state) {
                let run = state.incarnation.filter(|_| state.live);
                self.peer_events.push_back(LogEvent::Peer { node, run });
            }
        }
    }
}

impl fmt::Debug for Log {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Log").field("replica", &self.replica).finish_non_exhaustive()
    }
}

fn read(mut subscription: Subscription) -> BoxFuture<'static, Read> {
    async move {
        let event = subscription.next().await;
        (subscription, event)
    }
    .boxed()
}
