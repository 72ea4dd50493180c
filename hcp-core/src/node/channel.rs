//! What the handles of a session and its streams share with the session's driver: commands one way, what came in the other
//! way, credit, and what became of handles.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;

use bytes::Bytes;
use futures::task::AtomicWaker;
use tokio::sync::{Notify, Semaphore, mpsc, oneshot, watch};

use super::backlog::{Backlog, Share};
use super::event::DialledBy;
use super::ledger::{Eviction, Holder};
use crate::identity::delegation::{Delegation, SerialFloors};
use crate::session::{Peer, Priority, SessionError, SessionId, SessionStats, StreamId};

/// What handles ask of the driver, in the order in which they ask.
#[derive(Debug)]
pub(super) enum Command {
    Open { protocol: String, priority: Priority, commands: mpsc::Sender<Self>, reply: oneshot::Sender<Opened> },
    Send { stream: StreamId, message: Bytes, share: Share },
    Finish { stream: StreamId },
    Shutdown,
}

/// The answer to [`Command::Open`].
#[derive(Debug)]
pub(super) enum Opened {
    Stream(Channel),
    TooMany,
    Draining,
}

/// How a session stands.
#[derive(Clone, Debug)]
pub(super) enum Standing {
    Open,
    /// One of the two sides opens no more streams.
    Draining,
    Ended(SessionError),
}

/// What all handles of a session share with its driver.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) id: SessionId,
    pub(super) peer: Peer,
    pub(super) dialled_by: DialledBy,
    /// What the acceptor showed of its right to speak for a service.
    pub(super) delegation: Option<Delegation>,
    /// What the node knows of withdrawn delegations.
    pub(super) floors: SerialFloors,
    pub(super) standing: watch::Sender<Standing>,
    pub(super) stats: Mutex<SessionStats>,
    pub(super) signals: Signals,
    /// What the peer makes this side hold.
    pub(super) holder: Arc<Holder>,
    /// What applications have sent and this side has yet to let go of.
    pub(super) backlog: Arc<Backlog>,
    /// Whether either is too much.
    pub(super) eviction: Arc<Eviction>,
}

/// What handles tell the driver without waiting. Bounded by the streams that are open and by what has come in.
#[derive(Debug, Default)]
pub(super) struct Signals {
    told: Mutex<Told>,
    waker: AtomicWaker,
}

/// What was told since the driver looked last.
#[derive(Debug, Default)]
pub(super) struct Told {
    /// Streams whose handle was dropped.
    pub(super) dropped: Vec<(StreamId, Left)>,
    /// Streams of which the next message was taken, as often as that was so.
    pub(super) consumed: Vec<StreamId>,
    /// The session is to be drained and then closed with this code.
    pub(super) drain: Option<u32>,
    /// The session is to be closed at once with this code.
    pub(super) end: Option<u32>,
}

/// How a stream's handle left it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Left {
    /// This side had ended its direction: what was sent still goes out.
    Finished,
    /// It was abandoned.
    Abandoned,
}

impl Signals {
    /// Takes what was told; `waker` is woken when there is more.
    pub(super) fn take(&self, waker: &Waker) -> Told {
        self.waker.register(waker);
        std::mem::take(&mut *self.told())
    }

    pub(super) fn tell(&self, tell: impl FnOnce(&mut Told)) {
        tell(&mut self.told());
        self.waker.wake();
    }

    fn told(&self) -> MutexGuard<'_, Told> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Told {
    pub(super) fn is_empty(&self) -> bool {
        self.dropped.is_empty() && self.consumed.is_empty() && self.drain.is_none() && self.end.is_none()
    }
}

/// The handle's side of a stream. Dropping it tells the driver.
#[derive(Debug)]
pub(super) struct Channel {
    pub(super) id: StreamId,
    pub(super) priority: Priority,
    pub(super) commands: mpsc::Sender<Command>,
    /// What may still be sent, in bytes of payload and frame costs; closed when nothing may be any more.
    pub(super) credit: Arc<Semaphore>,
    pub(super) inbox: Arc<Inbox>,
    /// Whether this side has ended its direction; commands for the stream are handed over while it is locked, so that none
    /// comes behind the end.
    pub(super) finished: Arc<Mutex<bool>>,
    pub(super) shared: Arc<Shared>,
}

impl Drop for Channel {
    fn drop(&mut self) {
        let finished = *locked(&self.finished);
        let left = if finished { Left::Finished } else { Left::Abandoned };
        self.shared.signals.tell(|told| told.dropped.push((self.id, left)));
        self.inbox.clear();
    }
}

pub(super) fn locked(finished: &Mutex<bool>) -> MutexGuard<'_, bool> {
    finished.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What came in on a stream and was not taken. Bounded by the window, which the machine enforces.
#[derive(Debug)]
pub(super) struct Inbox {
    queue: Mutex<Queue>,
    filled: Notify,
    holder: Arc<Holder>,
}

#[derive(Debug, Default)]
struct Queue {
    messages: VecDeque<Bytes>,
    end: Option<End>,
}

/// How a stream's incoming direction ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    Finished,
    Reset(u32),
    SessionEnded,
}

impl Inbox {
    pub(super) fn new(holder: Arc<Holder>) -> Self {
        Self { queue: Mutex::default(), filled: Notify::new(), holder }
    }

    pub(super) fn push(&self, message: Bytes) {
        self.holder.hold(weight(&message));
        self.queue().messages.push_back(message);
        self.filled.notify_one();
    }

    /// Notes the end. What came before it is still there to be taken, unless the stream was reset.
    pub(super) fn end(&self, end: End) {
        if matches!(end, End::Reset(_)) {
            self.clear();
        }
        self.queue().end.get_or_insert(end);
        self.filled.notify_one();
    }

    /// Throws away what nobody will take.
    pub(super) fn clear(&self) {
        let messages = std::mem::take(&mut self.queue().messages);
        self.holder.release(messages.iter().map(weight).sum());
    }

    /// Waits for the next message, or the end. Cancel-safe.
    pub(super) async fn next(&self) -> Result<Bytes, End> {
        loop {
            let filled = self.filled.notified();
            {
                let mut queue = self.queue();
                if let Some(message) = queue.messages.pop_front() {
                    self.holder.release(weight(&message));
                    return Ok(message);
                }
                if let Some(end) = queue.end {
                    return Err(end);
                }
            }
            filled.await;
        }
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Inbox {
    fn drop(&mut self) {
        self.clear();
    }
}

/// What a message that waits counts as: its bytes and what it takes to keep it.
fn weight(message: &Bytes) -> usize {
    message.len() + 64
}
