//! Values that change, and a way to wait until they do.

use std::sync::Arc;

use hcp_core::network::ListenerStatus as CoreStatus;
use hcp_core::network::tor::BootstrapProgress as CoreProgress;
use tokio::sync::{Mutex, watch};

use crate::cancellation::{Cancellation, unless_cancelled};
use crate::error::HcpError;

/// Whether strangers can reach a node.
#[derive(Clone, Debug, PartialEq, Eq, uniffi::Enum)]
#[non_exhaustive]
pub enum ListenerStatus {
    /// Launched, not yet announced.
    Starting,
    /// Announced: the network says that the address can be dialled.
    Reachable,
    /// The network reports a problem; the text says which, without addresses.
    Broken(String),
    /// Gone for good.
    Stopped,
}

impl From<CoreStatus> for ListenerStatus {
    fn from(status: CoreStatus) -> Self {
        match status {
            CoreStatus::Starting => Self::Starting,
            CoreStatus::Reachable => Self::Reachable,
            CoreStatus::Broken(problem) => Self::Broken(problem),
            CoreStatus::Stopped => Self::Stopped,
            other => Self::Broken(format!("{other:?}")),
        }
    }
}

/// How well the Tor network can be used.
#[derive(Clone, Debug, PartialEq, Eq, uniffi::Record)]
pub struct BootstrapProgress {
    /// 0 to 100; 100 is ready to use.
    pub percent: u8,
    /// What is going on or going wrong, on one line.
    pub text: String,
}

impl From<CoreProgress> for BootstrapProgress {
    fn from(progress: CoreProgress) -> Self {
        Self { percent: progress.percent, text: progress.text }
    }
}

/// What both kinds of watch are made of.
#[derive(Debug)]
struct Watched<T> {
    current: watch::Receiver<T>,
    /// Has its own idea of what was seen.
    changes: Mutex<watch::Receiver<T>>,
}

impl<T: Clone> Watched<T> {
    fn new(mut receiver: watch::Receiver<T>) -> Self {
        receiver.mark_changed();
        Self { current: receiver.clone(), changes: Mutex::new(receiver) }
    }

    fn current(&self) -> T {
        self.current.borrow().clone()
    }

    async fn next(&self, cancellation: Option<Arc<Cancellation>>) -> Result<Option<T>, HcpError> {
        unless_cancelled(cancellation, async {
            let mut changes = self.changes.lock().await;
            changes.changed().await.ok().map(|()| changes.borrow_and_update().clone())
        })
        .await
    }
}

/// Watches whether strangers can reach a node.
#[derive(Debug, uniffi::Object)]
pub struct StatusWatch(Watched<CoreStatus>);

impl StatusWatch {
    pub(crate) fn shared(receiver: watch::Receiver<CoreStatus>) -> Arc<Self> {
        Arc::new(Self(Watched::new(receiver)))
    }
}

#[uniffi::export(async_runtime = "tokio")]
impl StatusWatch {
    /// The status now.
    pub fn current(&self) -> ListenerStatus {
        self.0.current().into()
    }

    /// The status at the first call; after it, waits until it has changed. None when the node has ended.
    ///
    /// # Errors
    /// `Cancelled`.
    #[uniffi::method(default(cancellation = None))]
    pub async fn next(&self, cancellation: Option<Arc<Cancellation>>) -> Result<Option<ListenerStatus>, HcpError> {
        Ok(self.0.next(cancellation).await?.map(Into::into))
    }
}

/// Watches how well the Tor network can be used; it may get worse again.
#[derive(Debug, uniffi::Object)]
pub struct ProgressWatch(Watched<CoreProgress>);

impl ProgressWatch {
    pub(crate) fn shared(receiver: watch::Receiver<CoreProgress>) -> Arc<Self> {
        Arc::new(Self(Watched::new(receiver)))
    }
}

#[uniffi::export(async_runtime = "tokio")]
impl ProgressWatch {
    /// The progress now.
    pub fn current(&self) -> BootstrapProgress {
        self.0.current().into()
    }

    /// The progress at the first call; after it, waits until it has changed. None when the network has been left.
    ///
    /// # Errors
    /// `Cancelled`.
    #[uniffi::method(default(cancellation = None))]
    pub async fn next(&self, cancellation: Option<Arc<Cancellation>>) -> Result<Option<BootstrapProgress>, HcpError> {
        Ok(self.0.next(cancellation).await?.map(Into::into))
    }
}
