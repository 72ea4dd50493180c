//! The server's view of the replicated log: entries to append without waiting, and one queue of what happened.
//!
//! Invariant: an event is handed to the server only when it asks, for what has been handed out counts as seen by what is
//! appended afterwards. The server applies each event and queues what it wrote before it asks for the next.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use hcp_core::error::ErrorKind;
use hcp_core::replica::{
    AppendError, AppendId, Event, Frontier, Incarnation, LogId, NodeId, PeerState, Peers, Receipt, ReceiptError,
    Replica, RestoreError, Split, Stopped, SubscribeError, Subscription, Turn, Write,
};
use tokio::sync::watch;

/// What happened to the log.
#[derive(Debug)]
pub(crate) enum LogEvent {
    /// An entry is durable here; own entries of this run come in the order of their appends.
    Entry { write: Write, entry: Bytes, turn: Turn, own: bool },
    /// A state stands for everything before.
    State(Bytes),
    /// A node wrote twice in one place.
    Split(Split),
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
    /// Nothing more is written.
    #[error(transparent)]
    Stopped(#[from] Stopped),
    /// It cannot be read.
    #[error(transparent)]
    Read(#[from] SubscribeError),
    /// It holds the state of something else than this server.
    #[error(transparent)]
    State(#[from] RestoreError),
    /// It was shut down.
    #[error("the replicated log was shut down")]
    Closed,
}

impl LogFailure {
    /// What a caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Stopped(error) => error.kind(),
            Self::Read(error) => error.kind(),
            Self::State(error) => error.kind(),
            Self::Closed => ErrorKind::Closed,
        }
    }
}

impl From<AppendError> for LogFailure {
    fn from(error: AppendError) -> Self {
        match error {
            AppendError::Stopped(why) => Self::Stopped(why),
            // An entry is far below the limit of the log: its fields have limits of their own. Whoever appends waits for room.
            _ => Self::Closed,
        }
    }
}

impl From<ReceiptError> for LogFailure {
    fn from(error: ReceiptError) -> Self {
        match error {
            ReceiptError::Stopped(why) => Self::Stopped(why),
            _ => Self::Closed,
        }
    }
}

/// A subscription and what came of reading it.
type Read = (Subscription, Result<Option<Event>, SubscribeError>);

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
    /// The last entry that was appended, and the last one that was before the server began anew.
    appended: Option<AppendId>,
    forgotten: Option<AppendId>,
}

impl Log {
    pub(crate) fn new(replica: Replica) -> Self {
        let mut peers = replica.peers();
        peers.mark_changed();
        Self {
            reading: read(replica.subscribe(Frontier::start())),
            peers,
            replica,
            known: BTreeMap::new(),
            peer_events: VecDeque::new(),
            unconfirmed: VecDeque::new(),
            appended: None,
            forgotten: None,
        }
    }

    /// Reads from the beginning, and knows nothing of what was appended.
    pub(crate) fn begin_anew(&mut self) {
        *self = Self { forgotten: self.appended, appended: self.appended, ..Self::new(self.replica.clone()) };
    }

    pub(crate) fn own(&self) -> LogId {
        self.replica.log()
    }

    pub(crate) fn replica(&self) -> Replica {
        self.replica.clone()
    }

    /// How many live nodes have lower keys than this one: who has the lowest speaks for all, and the next ones where it does not.
    pub(crate) fn rank(&self) -> usize {
        let own = self.replica.node();
        self.known.iter().filter(|(node, state)| state.live && **node < own).count()
    }

    /// Asks for a checkpoint; whether it could.
    pub(crate) fn retain(&self) -> bool {
        matches!(tokio::task::unconstrained(self.replica.retain()).now_or_never(), Some(Ok(())))
    }

    /// Appends an entry if the log takes it at once; whether it did.
    pub(crate) fn try_append(&mut self, entry: &Bytes, confirm: Option<u64>) -> Result<bool, LogFailure> {
        // A task that has used up its turn is told to wait even where there is room: the entry would then come behind events that
        // its writer had not seen.
        match tokio::task::unconstrained(self.replica.append(entry.clone())).now_or_never() {
            Some(Err(AppendError::Full)) | None => Ok(false),
            Some(receipt) => {
                self.appended(receipt?, confirm);
                Ok(true)
            }
        }
    }

    /// Follows an entry that was appended, if its confirmation was asked for.
    pub(crate) fn appended(&mut self, receipt: Receipt, confirm: Option<u64>) {
        self.appended = Some(receipt.id());
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
                    Some(receipt) => confirmed(&self.replica, &receipt).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                (subscription, event) = &mut self.reading => {
                    self.reading = read(subscription);
                    match event? {
                        Some(Event::Entry(applied)) => {
                            let own = applied.append.is_some() && applied.append > self.forgotten;
                            let (write, entry, turn) = (applied.write, applied.entry, applied.turn);
                            return Ok(LogEvent::Entry { write, entry, turn, own });
                        }
                        Some(Event::State(state)) => return Ok(LogEvent::State(state)),
                        Some(Event::Split(split)) => return Ok(LogEvent::Split(split)),
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
                why = self.replica.stopped() => return Err(why.map_or(LogFailure::Closed, LogFailure::Stopped)),
            }
        }
    }

    fn note_peers(&mut self) {
        for (node, state) in self.peers.borrow_and_update().iter() {
            let run = |state: &PeerState| state.incarnation.filter(|_| state.live);
            let before = self.known.insert(node, state);
            if before.is_none_or(|before| run(&before) != run(&state)) {
                self.peer_events.push_back(LogEvent::Peer { node, run: run(&state) });
            }
        }
    }
}

impl fmt::Debug for Log {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Log").field("replica", &self.replica).finish_non_exhaustive()
    }
}

/// Appends an entry, however long the disk is full. Cancel-safe.
pub(crate) async fn append_with_room(replica: &Replica, entry: Bytes) -> Result<Receipt, AppendError> {
    loop {
        match replica.append(entry.clone()).await {
            Err(AppendError::Full) => replica.room().await,
            appended => return appended,
        }
    }
}

/// Waits until another live node, if there is one, holds an entry, however long the disk is full. Cancel-safe.
async fn confirmed(replica: &Replica, receipt: &Receipt) -> Result<usize, ReceiptError> {
    loop {
        match receipt.replicated_to_live(1).await {
            Err(ReceiptError::Full) => replica.room().await,
            held => return held,
        }
    }
}

fn read(mut subscription: Subscription) -> BoxFuture<'static, Read> {
    async move {
        let event = subscription.next().await;
        (subscription, event)
    }
    .boxed()
}
