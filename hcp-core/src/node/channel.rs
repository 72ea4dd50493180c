//! What a stream's handle and its session's driver share: commands one way, what came in the other way, credit, and the
//! end of the handle.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use tokio::sync::{Notify, Semaphore, mpsc, oneshot};

use crate::session::StreamId;

/// What handles ask of the driver.
#[derive(Debug)]
pub(super) enum Command {
    Open { protocol: String, commands: mpsc::Sender<Self>, reply: oneshot::Sender<Option<Channel>> },
    Send { stream: StreamId, message: Bytes },
    Finish { stream: StreamId },
    Consumed { stream: StreamId },
    Shutdown,
}

/// What the driver tells a stream.
#[derive(Debug)]
pub(super) enum Inbound {
    Message(Bytes),
    Finished,
    Reset(u32),
}

/// The handle's side of a stream. Dropping it tells the driver.
#[derive(Debug)]
pub(super) struct Channel {
    pub(super) id: StreamId,
    pub(super) commands: mpsc::Sender<Command>,
    /// What may still be sent, in bytes of payload and frame costs; closed when nothing may be any more.
    pub(super) credit: Arc<Semaphore>,
    /// Bounded by the window, which the machine enforces.
    pub(super) inbox: mpsc::UnboundedReceiver<Inbound>,
    /// This side has ended its direction.
    pub(super) finished: Arc<AtomicBool>,
    pub(super) dropped: Arc<Dropped>,
}

impl Drop for Channel {
    fn drop(&mut self) {
        let end = if self.finished.load(Ordering::Acquire) { End::Finished } else { End::Abandoned };
        self.dropped.push(self.id, end);
    }
}

/// Streams whose handle was dropped, for the driver to see to; each once, so bounded by the streams that are open.
#[derive(Debug, Default)]
pub(super) struct Dropped {
    streams: Mutex<Vec<(StreamId, End)>>,
    notify: Notify,
}

/// How a stream's handle left it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// This side had ended its direction: what was sent still goes out.
    Finished,
    /// It was abandoned.
    Abandoned,
}

impl Dropped {
    /// Waits until handles may have been dropped. Cancel-safe.
    pub(super) async fn wait(&self) {
        self.notify.notified().await;
    }

    /// Takes those that were dropped.
    pub(super) fn take(&self) -> Vec<(StreamId, End)> {
        std::mem::take(&mut *self.streams.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn push(&self, stream: StreamId, end: End) {
        self.streams.lock().unwrap_or_else(PoisonError::into_inner).push((stream, end));
        self.notify.notify_one();
    }
}
