//! What the server knows of one connected client.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{Semaphore, mpsc};
use tokio::time::Instant;

use super::line::Caps;
use crate::message::{Message, ParseMessageError};
use crate::names::{ChannelId, Folded, Nick, UserId};
use crate::world::change::Said;

/// Lines of one client that the server holds; more are left unread in its connection.
pub(crate) const LINES_IN_FLIGHT: usize = 16;
/// Lines that wait to be written to one client. With [`SEND_QUEUE_BYTES`] it bounds what a slow client costs.
pub(crate) const SEND_QUEUE: usize = 4096;
/// Bytes that wait to be written to one client.
pub(crate) const SEND_QUEUE_BYTES: usize = 1024 * 1024;
/// Channels that one client may create at once, and how long it waits for each further one: the log holds every name.
const CREATIONS: u32 = 20;
const CREATION_EVERY: Duration = Duration::from_secs(10);

/// The number of a connection, unique in this process.
pub(crate) type ClientId = u64;

/// What the connection's task and the server share.
#[derive(Debug)]
pub(crate) struct Shared {
    /// One permit for each further line that the connection may hand over.
    pub(crate) credits: Semaphore,
    /// Bytes in the send queue.
    pub(crate) queued: AtomicUsize,
    /// Whether the client completed its registration.
    pub(crate) registered: AtomicBool,
}

impl Shared {
    pub(crate) fn new() -> Self {
        Self {
            credits: Semaphore::new(LINES_IN_FLIGHT),
            queued: AtomicUsize::new(0),
            registered: AtomicBool::new(false),
        }
    }
}

/// How far a client has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// It has not sent all that registration needs.
    New,
    /// Its entry is on its way.
    Connecting,
    /// It is a user.
    Registered,
}

/// An echo that waits for its message to be applied and confirmed.
#[derive(Debug)]
pub(super) struct Echo {
    pub(super) token: u64,
    pub(super) spoken: Option<Spoken>,
    pub(super) confirmed: bool,
}

/// A message that was applied, and its target as it is shown. Its echo becomes a line when it is sent: the sender may have been
/// told of another nickname since.
#[derive(Debug)]
pub(super) struct Spoken {
    pub(super) target: String,
    pub(super) said: Arc<Said>,
}

/// A connected client.
#[derive(Debug)]
pub(crate) struct Client {
    out: mpsc::Sender<Bytes>,
    pub(super) shared: Arc<Shared>,
    pub(crate) phase: Phase,
    pub(crate) caps: Caps,
    /// Whether it began to negotiate capabilities and has not ended.
    pub(crate) negotiating: bool,
    /// The nickname it asked for before it was registered.
    pub(crate) wanted: Option<Nick>,
    /// Username and real name, once it sent USER.
    pub(crate) named: Option<(String, String)>,
    /// Its number in this log, and its id.
    pub(crate) nonce: u64,
    pub(crate) user: Option<UserId>,
    pub(crate) invited: HashSet<ChannelId>,
    /// The channels whose lines it gets.
    pub(crate) rooms: HashSet<Folded>,
    pub(super) pending: VecDeque<Result<Message, ParseMessageError>>,
    /// Entries of its own that must be applied before its next line is looked at.
    pub(super) waiting: usize,
    /// Entries of its own that were not applied yet.
    pub(super) unapplied: usize,
    /// Whether it is in the list of those whose next line is tried again.
    pub(super) stalled: bool,
    pub(super) echoes: VecDeque<Echo>,
    /// When it may create [`CREATIONS`] channels at once again.
    creations_full_at: Instant,
}

impl Client {
    pub(super) fn new(out: mpsc::Sender<Bytes>, shared: Arc<Shared>) -> Self {
        Self {
            out,
            shared,
            phase: Phase::New,
            caps: Caps::default(),
            negotiating: false,
            wanted: None,
            named: None,
            nonce: 0,
            user: None,
            invited: HashSet::new(),
            rooms: HashSet::new(),
            pending: VecDeque::new(),
            waiting: 0,
            unapplied: 0,
            stalled: false,
            echoes: VecDeque::new(),
            creations_full_at: Instant::now(),
        }
    }

    /// Whether it may create a channel now; counts it if so.
    pub(crate) fn may_create(&mut self, now: Instant) -> bool {
        let full_at = self.creations_full_at.max(now) + CREATION_EVERY;
        let allowed = full_at <= now + CREATION_EVERY * CREATIONS;
        if allowed {
            self.creations_full_at = full_at;
        }
        allowed
    }

    /// Lines and bytes that the send queue has room for.
    pub(super) fn room(&self) -> (usize, usize) {
        let queued = self.shared.queued.load(Ordering::Relaxed);
        (self.out.capacity(), SEND_QUEUE_BYTES.saturating_sub(queued))
    }

    /// Queues a line.
    ///
    /// # Errors
    /// When the queue is full: the client reads too slowly and has to go.
    pub(super) fn send(&self, bytes: Bytes) -> Result<(), SlowClient> {
        let len = bytes.len();
        let queued = self.shared.queued.fetch_add(len, Ordering::Relaxed);
        if queued + len > SEND_QUEUE_BYTES {
            return Err(SlowClient);
        }
        match self.out.try_send(bytes) {
            // A closed queue belongs to a connection whose end is about to be reported.
            Ok(()) | Err(mpsc::error::TrySendError::Closed(_)) => Ok(()),
            Err(mpsc::error::TrySendError::Full(_)) => Err(SlowClient),
        }
    }
}

/// The client's send queue is full.
#[derive(Debug)]
pub(super) struct SlowClient;
