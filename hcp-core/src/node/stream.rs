//! A stream as an application holds it: whole messages in order, with backpressure.

use std::fmt;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use tokio::sync::{Semaphore, mpsc};

use super::backlog::Backlog;
use super::channel::{Channel, Command, End, locked};
use super::{RESET_ANONYMOUS, RESET_BUSY, RESET_UNKNOWN_PROTOCOL};
use crate::error::ErrorKind;
use crate::session::{MAX_MESSAGE, Priority, RESET_DRAINING, StreamId, message_cost};

/// The sending half of a [`Stream`], which lives no longer than that.
pub struct StreamSender {
    id: StreamId,
    commands: mpsc::Sender<Command>,
    credit: Arc<Semaphore>,
    /// Shared by all streams of the session.
    backlog: Arc<Backlog>,
    /// Shared by all handles of the stream.
    finished: Arc<Mutex<bool>>,
}

/// An ordered flow of messages to and from a peer.
///
/// What has come in and was not taken is at most [`STREAM_WINDOW`](crate::session::STREAM_WINDOW) bytes, and grows to
/// [`MAX_STREAM_WINDOW`](crate::session::MAX_STREAM_WINDOW) while the application keeps up. Dropping it abandons the stream;
/// after [`Self::finish`] what was sent still goes out.
pub struct Stream {
    channel: Channel,
    sender: StreamSender,
    ended: Option<Result<(), RecvError>>,
}

impl Stream {
    pub(super) fn new(channel: Channel) -> Self {
        let sender = StreamSender {
            id: channel.id,
            commands: channel.commands.clone(),
            credit: Arc::clone(&channel.credit),
            backlog: Arc::clone(&channel.shared.backlog),
            finished: Arc::clone(&channel.finished),
        };
        Self { channel, sender, ended: None }
    }

    /// What goes first when the session has more to send than its connection takes; the side that opened it has said.
    pub fn priority(&self) -> Priority {
        self.channel.priority
    }

    /// Sends a message of at most [`MAX_MESSAGE`] bytes; waits while the peer's window is full, or while the
    /// session has 64 MiB under way.
    ///
    /// # Errors
    /// [`SendError`]; nothing of the message was sent then.
    ///
    /// # Cancel safety
    /// Cancel-safe: the message was handed over whole, or not at all.
    pub async fn send(&mut self, message: impl Into<Bytes>) -> Result<(), SendError> {
        self.sender.send(message).await
    }

    /// Waits for the next message; `None` when the peer has ended its direction.
    ///
    /// # Errors
    /// [`RecvError`] when the stream was reset or its session ended.
    ///
    /// # Cancel safety
    /// Cancel-safe: no message is lost.
    pub async fn recv(&mut self) -> Result<Option<Bytes>, RecvError> {
        if let Some(ended) = self.ended {
            return ended.map(|()| None);
        }
        match self.channel.inbox.next().await {
            Ok(message) => {
                // This is what gives the peer credit for more.
                self.channel.shared.signals.tell(|told| told.consumed.push(self.channel.id));
                Ok(Some(message))
            }
            Err(end) => {
                let ended = match end {
                    End::Finished => Ok(()),
                    End::Reset(code) => Err(RecvError::from_code(code)),
                    End::SessionEnded => Err(RecvError::SessionEnded),
                };
                self.ended = Some(ended);
                ended.map(|()| None)
            }
        }
    }

    /// Ends this side's direction once what was sent before has gone out.
    ///
    /// # Cancel safety
    /// Cancel-safe.
    pub async fn finish(&mut self) {
        self.sender.finish().await;
    }

    /// Lets more be sent than the peer has allowed.
    #[cfg(test)]
    pub(super) fn grant_for_tests(&self, bytes: usize) {
        self.sender.credit.add_permits(bytes);
    }

    /// A second handle for sending, so that one task may send while another receives.
    ///
    /// The stream ends with the [`Stream`] itself, whatever happens to this handle.
    #[must_use]
    pub fn sender(&self) -> StreamSender {
        StreamSender {
            id: self.sender.id,
            commands: self.sender.commands.clone(),
            credit: Arc::clone(&self.sender.credit),
            backlog: Arc::clone(&self.sender.backlog),
            finished: Arc::clone(&self.sender.finished),
        }
    }
}

impl fmt::Debug for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stream").field("id", &self.sender.id).finish_non_exhaustive()
    }
}

impl StreamSender {
    /// As [`Stream::send`].
    ///
    /// # Errors
    /// As [`Stream::send`].
    ///
    /// # Cancel safety
    /// As [`Stream::send`].
    pub async fn send(&mut self, message: impl Into<Bytes>) -> Result<(), SendError> {
        let message = message.into();
        if message.len() > MAX_MESSAGE {
            return Err(SendError::TooLong { length: message.len() });
        }
        if *locked(&self.finished) {
            return Err(SendError::Finished);
        }
        // At most MAX_MESSAGE and a few frame costs, which fits.
        let cost = message_cost(message.len()) as u32;
        let credit = self.credit.acquire_many(cost).await.map_err(|_| SendError::Closed)?;
        let share = self.backlog.take(cost).await.ok_or(SendError::Closed)?;
        let slot = self.commands.reserve().await.map_err(|_| SendError::Closed)?;
        // Another handle may have ended it meanwhile.
        let finished = locked(&self.finished);
        if *finished {
            return Err(SendError::Finished);
        }
        credit.forget();
        slot.send(Command::Send { stream: self.id, message, share });
        Ok(())
    }

    /// As [`Stream::finish`].
    ///
    /// # Cancel safety
    /// Cancel-safe.
    pub async fn finish(&mut self) {
        if let Ok(slot) = self.commands.reserve().await {
            let mut finished = locked(&self.finished);
            if !std::mem::replace(&mut *finished, true) {
                slot.send(Command::Finish { stream: self.id });
            }
        }
    }
}

impl fmt::Debug for StreamSender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StreamSender").field("id", &self.id).finish_non_exhaustive()
    }
}

/// Why [`Stream::send`] failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SendError {
    /// The message is longer than [`MAX_MESSAGE`].
    #[error("message of {length} bytes exceeds the limit of {MAX_MESSAGE}")]
    TooLong {
        /// Its length, in bytes.
        length: usize,
    },
    /// This side has ended its direction.
    #[error("this side has ended the stream")]
    Finished,
    /// The stream was reset, or its session ended.
    #[error("the stream is closed")]
    Closed,
}

impl SendError {
    /// What a caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::TooLong { .. } => ErrorKind::InvalidInput,
            Self::Finished | Self::Closed => ErrorKind::Closed,
        }
    }
}

/// Why [`Stream::recv`] failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RecvError {
    /// The peer does not serve the protocol.
    #[error("the peer does not serve this protocol")]
    UnknownProtocol,
    /// The peer serves this protocol to identified diallers only.
    #[error("the peer serves this protocol to identified diallers only")]
    AnonymousRefused,
    /// The peer serves as many streams of this session as it can.
    #[error("the peer serves as many streams of this session as it can")]
    Busy,
    /// The peer was draining the session when the stream reached it, and has served nothing of it; another session with it
    /// takes the stream.
    #[error("the peer drains the session and has not served the stream")]
    Draining,
    /// The peer abandoned the stream.
    #[error("the peer reset the stream (code {0})")]
    Reset(u32),
    /// The session ended.
    #[error("the session ended")]
    SessionEnded,
}

impl RecvError {
    fn from_code(code: u32) -> Self {
        match code {
            RESET_UNKNOWN_PROTOCOL => Self::UnknownProtocol,
            RESET_ANONYMOUS => Self::AnonymousRefused,
            RESET_BUSY => Self::Busy,
            RESET_DRAINING => Self::Draining,
            code => Self::Reset(code),
        }
    }

    /// What a caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::UnknownProtocol | Self::AnonymousRefused => ErrorKind::Refused,
            Self::Busy => ErrorKind::LimitExceeded,
            Self::Draining | Self::Reset(_) | Self::SessionEnded => ErrorKind::Closed,
        }
    }
}
