//! Sessions that are dialled again whenever they have ended.

use std::sync::Arc;
use std::time::Duration;

use hcp_core::node as core;

use crate::cancellation::{Cancellation, unless_cancelled};
use crate::error::HcpError;
use crate::identity::Identity;
use crate::running::Running;
use crate::session::Session;

/// How long to wait between attempts to reach a peer.
///
/// Each wait is drawn evenly between half and all of its bound, which begins with the first wait and doubles with every
/// failure up to the longest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, uniffi::Object)]
#[uniffi::export(Eq)]
pub struct Backoff {
    pub(crate) inner: core::Backoff,
}

#[uniffi::export]
impl Backoff {
    /// Waits from `first` to `longest`. Shorter waits find a peer that came back sooner and cost a dial each; over Tor a dial
    /// takes several circuits.
    ///
    /// # Errors
    /// `InvalidInput` when `first` is below `minBackoff` or above `longest`, or that is above `maxBackoff`.
    #[uniffi::constructor]
    pub fn new(first: Duration, longest: Duration) -> Result<Arc<Self>, HcpError> {
        Ok(Arc::new(Self { inner: core::Backoff::new(first, longest)? }))
    }

    /// The bound of the first wait.
    pub fn first(&self) -> Duration {
        self.inner.first()
    }

    /// The bound of the longest wait.
    pub fn longest(&self) -> Duration {
        self.inner.longest()
    }
}

/// As whom a node dials.
#[derive(Clone, Debug, uniffi::Enum)]
pub enum DialAs {
    /// As the node itself; all who do so share one session with a peer.
    Node,
    /// As nobody in particular, which is the default towards services.
    Anonymous,
    /// As somebody else, such as an identity made for this one peer.
    Identity(Arc<Identity>),
}

impl From<DialAs> for core::DialAs {
    fn from(me: DialAs) -> Self {
        match me {
            DialAs::Node => Self::Node,
            DialAs::Anonymous => Self::Anonymous,
            DialAs::Identity(identity) => Self::Identity(identity.inner.clone()),
        }
    }
}

/// The core's handle, which ends the dialling when it is dropped.
pub(crate) type Dialling = Running<Arc<core::Maintained>>;

/// A session that is dialled again whenever it has ended, until [`stop`](Self::stop) or the node's `shutdown`, even when no
/// handle is left.
#[derive(Debug, uniffi::Object)]
pub struct Maintained {
    inner: Arc<Dialling>,
}

#[uniffi::export(async_runtime = "tokio")]
impl Maintained {
    /// Waits for a live session. One that has ended and was not noticed yet to have may be returned.
    ///
    /// # Errors
    /// `Cancelled`; `Closed` once it was stopped.
    #[uniffi::method(default(cancellation = None))]
    pub async fn session(&self, cancellation: Option<Arc<Cancellation>>) -> Result<Arc<Session>, HcpError> {
        let maintained = self.inner.value().ok_or_else(stopped)?;
        let session = unless_cancelled(cancellation, self.inner.unless_ended(maintained.session())).await?;
        session.map(Session::shared).ok_or_else(stopped)
    }

    /// Waits for a live session other than `last`: the one in which to go on after `last` has ended. Whether it is with another
    /// replica of a service shows in `Session.replica` of the two.
    ///
    /// # Errors
    /// `Cancelled`; `Closed` once it was stopped.
    #[uniffi::method(default(cancellation = None))]
    pub async fn after(
        &self,
        last: Arc<Session>,
        cancellation: Option<Arc<Cancellation>>,
    ) -> Result<Arc<Session>, HcpError> {
        let maintained = self.inner.value().ok_or_else(stopped)?;
        let after = self.inner.unless_ended(maintained.after(&last.inner));
        unless_cancelled(cancellation, after).await?.map(Session::shared).ok_or_else(stopped)
    }

    /// The live session, if there is one now.
    pub fn current(&self) -> Option<Arc<Session>> {
        self.inner.value()?.current().map(Session::shared)
    }

    /// Ends the dialling; the session goes on as long as other handles hold it.
    pub fn stop(&self) {
        drop(self.inner.end());
    }
}

impl Maintained {
    pub(crate) fn shared(inner: Arc<Dialling>) -> Arc<Self> {
        Arc::new(Self { inner })
    }
}

fn stopped() -> HcpError {
    HcpError::closed("the session is not kept any more")
}
