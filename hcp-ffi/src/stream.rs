//! A stream as the foreign languages hold it: one handle, of which calls may overlap.
//!
//! The core's stream is either at rest in `State` or lent to the one call that receives. So it can be ended at any time,
//! whoever still holds the handle.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hcp_core::node as core;
use tokio::sync::Mutex as AsyncMutex;

use crate::cancellation::{Cancellation, unless_cancelled};
use crate::error::HcpError;
use crate::session::Priority;

/// An ordered flow of messages to and from a peer.
///
/// Sending and receiving may overlap; calls of the same kind take turns. Dropping the handle (`close` in Kotlin) abandons
/// the stream; after [`finish`](Self::finish) what was sent still goes out.
#[derive(uniffi::Object)]
pub struct Stream {
    state: Mutex<State>,
    turn: AsyncMutex<()>,
    ended: Cancellation,
    sender: Arc<StreamSender>,
    priority: Priority,
}

enum State {
    Resting(core::Stream),
    /// A call receives with it.
    Lent,
    Ended,
}

#[uniffi::export(async_runtime = "tokio")]
impl Stream {
    /// What goes first when the session has more to send than its connection takes; the side that opened it has said.
    pub fn priority(&self) -> Priority {
        self.priority
    }

    /// Sends a message of at most `maxMessage` bytes; waits while the peer's window is full.
    ///
    /// # Errors
    /// `InvalidInput` when the message is too long, `Closed` when the stream is, `Cancelled`; nothing of the message was
    /// sent then.
    #[uniffi::method(default(cancellation = None))]
    pub async fn send(&self, message: Vec<u8>, cancellation: Option<Arc<Cancellation>>) -> Result<(), HcpError> {
        self.unless_ended(self.sender.send(message, cancellation)).await
    }

    /// Waits for the next message; none when the peer has ended its direction.
    ///
    /// # Errors
    /// `Refused` when the peer does not serve the protocol, or not to anonymous diallers; `LimitExceeded` when it serves
    /// too many streams already; `Closed` when the stream was reset or its session ended; `Cancelled`, and then no
    /// message is lost.
    #[uniffi::method(default(cancellation = None))]
    pub async fn recv(&self, cancellation: Option<Arc<Cancellation>>) -> Result<Option<Vec<u8>>, HcpError> {
        let recv = async {
            let _turn = self.turn.lock().await;
            let mut lent = self.lend()?;
            Ok::<_, HcpError>(lent.stream().recv().await?.map(Vec::from))
        };
        self.unless_ended(async { unless_cancelled(cancellation, recv).await? }).await
    }

    /// Ends this side's direction once what was sent before has gone out.
    pub async fn finish(&self) {
        self.sender.finish().await;
    }

    /// A handle for sending only; the stream ends without it.
    pub fn sender(&self) -> Arc<StreamSender> {
        Arc::clone(&self.sender)
    }
}

impl Stream {
    pub(crate) fn shared(inner: core::Stream) -> Arc<Self> {
        let priority = inner.priority().into();
        let sender = Arc::new(StreamSender { inner: AsyncMutex::new(inner.sender()) });
        let state = Mutex::new(State::Resting(inner));
        Arc::new(Self { state, turn: AsyncMutex::new(()), ended: Cancellation::unused(), sender, priority })
    }

    /// Drops the core's stream, though handles remain.
    pub(crate) fn end(&self) {
        let last = std::mem::replace(&mut *self.state(), State::Ended);
        self.ended.cancel();
        drop(last);
    }

    /// Takes the stream for a call; only for the one whose turn it is.
    fn lend(&self) -> Result<Lent<'_>, HcpError> {
        let mut state = self.state();
        match std::mem::replace(&mut *state, State::Lent) {
            State::Resting(stream) => Ok(Lent { home: self, stream: Some(stream) }),
            other => {
                *state = other;
                Err(ended())
            }
        }
    }

    async fn unless_ended<T>(&self, work: impl Future<Output = Result<T, HcpError>>) -> Result<T, HcpError> {
        tokio::select! {
            biased;
            () = self.ended.cancelled() => Err(ended()),
            done = work => done,
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stream").finish_non_exhaustive()
    }
}

/// The core's stream while a call receives with it; goes home afterwards, however the call ends.
struct Lent<'a> {
    home: &'a Stream,
    stream: Option<core::Stream>,
}

impl Lent<'_> {
    fn stream(&mut self) -> &mut core::Stream {
        self.stream.as_mut().expect("it is taken out on drop only")
    }
}

impl Drop for Lent<'_> {
    fn drop(&mut self) {
        let mut state = self.home.state();
        if let (State::Lent, Some(stream)) = (&*state, self.stream.take()) {
            *state = State::Resting(stream);
        }
    }
}

/// The sending half of a [`Stream`], which lives no longer than that.
#[derive(Debug, uniffi::Object)]
pub struct StreamSender {
    inner: AsyncMutex<core::StreamSender>,
}

#[uniffi::export(async_runtime = "tokio")]
impl StreamSender {
    /// As `Stream.send`.
    ///
    /// # Errors
    /// As `Stream.send`.
    #[uniffi::method(default(cancellation = None))]
    pub async fn send(&self, message: Vec<u8>, cancellation: Option<Arc<Cancellation>>) -> Result<(), HcpError> {
        unless_cancelled(cancellation, async { Ok(self.inner.lock().await.send(message).await?) }).await?
    }

    /// As `Stream.finish`.
    pub async fn finish(&self) {
        self.inner.lock().await.finish().await;
    }
}

fn ended() -> HcpError {
    HcpError::closed("the stream has ended")
}
