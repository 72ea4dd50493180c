//! The warden over a session: a node asks a machine of the owner's for what was made for it in advance.
//!
//! The node dials the warden's own address as itself, and its address, which the session has proved, says whose grants it may
//! have: no question names another node. It gets what is due and not what comes later, one grant for each question, and takes
//! it in as it would a file. Section 18 of `docs/protocol.md` has the bytes. The warden keeps no state of anybody; what it
//! hands out its [`Stock`] decides.
//!
//! [`ask`] is the node's side of one stream, [`codec`] what goes over it, `fetching` when a node asks.

mod codec;
pub(super) mod fetching;
#[cfg(feature = "testing")]
pub(crate) mod fuzz;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use self::codec::{Answer, Question};
use super::clock::unix_now;
use crate::error::ErrorKind;
use crate::identity::OnionAddress;
use crate::node::{ConnectError, Handler, Node, OpenError, RecvError, SendError, Session, Stream};
use crate::owner::{HandOut, ImportError, Stock};
use crate::session::Priority;

/// The protocol on which a warden hands out grants; at its own address, for identified diallers.
pub const WARDEN_PROTOCOL: &str = "hcp/warden/1";

/// Serves a stock to the nodes for which there is something in it. Register it on a node for [`WARDEN_PROTOCOL`], for
/// identified diallers.
#[derive(Clone)]
pub struct Warden {
    stock: Arc<Stock>,
    /// Those who read from the disk.
    looking: Arc<Semaphore>,
}

impl Warden {
    /// Hands out what is in `stock`, where another process may put more meanwhile.
    pub fn new(stock: Stock) -> Self {
        Self { stock: Arc::new(stock), looking: Arc::new(Semaphore::new(MAX_LOOKING)) }
    }

    async fn answer(&self, node: OnionAddress, question: Question) -> Answer {
        let Ok(_turn) = Arc::clone(&self.looking).try_acquire_owned() else { return Answer::Later };
        let stock = Arc::clone(&self.stock);
        let look = move || stock.hand_out(question.service, node, question.above, unix_now());
        match tokio::task::spawn_blocking(look).await {
            Ok(Ok(HandOut::Grant(grant))) => Answer::Grant(grant),
            Ok(Ok(HandOut::Nothing { next })) => Answer::Nothing { next },
            Ok(Ok(HandOut::Unknown)) => Answer::Unknown,
            Ok(Err(error)) => {
                tracing::error!(%error, "nothing can be handed out");
                Answer::Later
            }
            // The runtime is shutting down.
            Err(_) => Answer::Later,
        }
    }
}

impl Handler for Warden {
    fn serve(&self, mut stream: Stream, session: Session) -> BoxFuture<'static, ()> {
        let warden = self.clone();
        let serve = async move {
            // Registered for anybody, it would still know nobody.
            let Some(node) = session.peer().address() else { return };
            let Ok(Some(question)) = stream.recv().await else { return };
            // Whoever asks something else gets a reset.
            let Some(question) = Question::decode(&question) else { return };
            let answer = warden.answer(node, question).await;
            if stream.send(answer.encode()).await.is_ok() {
                stream.finish().await;
                // The stream lives until the other side has ended it, too, so that the answer is not taken for a reset.
                let _ = stream.recv().await;
            }
        };
        timeout(SERVING, serve).map(drop).boxed()
    }
}

impl fmt::Debug for Warden {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Warden").finish_non_exhaustive()
    }
}

/// Asks a warden once for what comes after the serial `above`.
async fn ask(node: &Node, warden: OnionAddress, question: Question) -> Result<Answer, FetchError> {
    let asked = async {
        let session = node.connect(warden).await?;
        let mut stream = session.open_with(WARDEN_PROTOCOL, Priority::Control).await?;
        stream.send(question.encode()).await?;
        stream.finish().await;
        let answer = stream.recv().await?.ok_or(FetchError::Malformed)?;
        Answer::decode(&answer).ok_or(FetchError::Malformed)
    };
    timeout(ASKING, asked).await.unwrap_or(Err(FetchError::TimedOut))
}

/// Why nothing was fetched from a warden.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum FetchError {
    /// The warden cannot be reached.
    #[error("cannot reach the warden: {0}")]
    Connect(#[from] ConnectError),
    /// There is no stream with the warden.
    #[error("no stream with the warden: {0}")]
    Open(#[from] OpenError),
    /// The question did not go out.
    #[error("the warden was not asked: {0}")]
    Send(#[from] SendError),
    /// The answer did not come.
    #[error("the warden did not answer: {0}")]
    Receive(#[from] RecvError),
    /// The answer did not come in time.
    #[error("the warden did not answer in time")]
    TimedOut,
    /// The answer is none that a warden gives.
    #[error("the warden answered something that makes no sense")]
    Malformed,
    /// The warden has nothing for this node, and never had.
    #[error("the warden knows nothing of this node: is it the right warden, and is its stock the owner's?")]
    Unknown,
    /// The warden is busy, or cannot read its stock.
    #[error("the warden can hand out nothing now")]
    Later,
    /// What it handed out is not taken.
    #[error("what the warden handed out is not taken: {0}")]
    Import(#[from] ImportError),
    /// It handed out again what is held already.
    #[error("the warden hands out what this node holds already")]
    Stale,
    /// The grants that are held cannot be read.
    #[error("the node's grants cannot be read: {0}")]
    Holdings(#[from] crate::owner::HoldingsError),
}

impl FetchError {
    /// What a caller can do about it.
    pub(crate) fn kind(&self) -> ErrorKind {
        match self {
            Self::Connect(error) => error.kind(),
            Self::Open(error) => error.kind(),
            Self::Send(error) => error.kind(),
            Self::Receive(error) => error.kind(),
            Self::TimedOut => ErrorKind::TimedOut,
            Self::Malformed | Self::Stale => ErrorKind::ProtocolViolation,
            Self::Unknown => ErrorKind::Refused,
            Self::Later => ErrorKind::LimitExceeded,
            Self::Import(error) => error.kind(),
            Self::Holdings(error) => error.kind(),
        }
    }
}

/// Who asks when so many are being served is told to come later: each reads folders and some grants, which a disk does in
/// milliseconds.
const MAX_LOOKING: usize = 4;
/// The longest that a stream lives at the warden: a grant is some hundred KiB, which takes seconds over Tor.
const SERVING: Duration = Duration::from_secs(120);
/// The longest that a node waits: a dial over Tor may take most of a minute.
const ASKING: Duration = Duration::from_secs(180);
