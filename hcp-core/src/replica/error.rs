//! Why operations on a replica fail.

use std::sync::Arc;

use crate::error::ErrorKind;
use crate::identity::manifest::SoftwareVersion;
use crate::replica::log::machine::Unlink;
use crate::replica::log::wire::MAX_ENTRY;
use crate::store::StoreError;

/// Why a replica writes nothing more. What was durable stays so, and can be read until the replica is shut down.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Stopped {
    /// The store failed.
    #[error("the log cannot be written: {0}")]
    Store(#[source] Arc<StoreError>),
    /// What the store holds is not what was written.
    #[error("the log is damaged: {0}")]
    Damaged(String),
    /// Another process with this node's key has begun a run: a copy of the node, or of its disk.
    #[error("another process runs this node; stop one of the two")]
    Superseded,
    /// A manifest names this node no more.
    #[error("this node is no member any more by the newest manifest")]
    Removed,
}

impl Stopped {
    /// What a caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Store(error) => error.kind(),
            Self::Damaged(_) => ErrorKind::Storage,
            Self::Superseded => ErrorKind::InUse,
            Self::Removed => ErrorKind::Refused,
        }
    }
}

/// Why [`ReplicaBuilder::open`](super::ReplicaBuilder::open) failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenReplicaError {
    /// The manifest does not name this node, by its log key.
    #[error("the manifest does not name this node")]
    NotAMember,
    /// The owner key that was given did not sign the manifest.
    #[error("the manifest is not what this owner key signed")]
    ForeignManifest,
    /// This version is below the lowest that the manifest allows.
    #[error("this node runs version {software}, and the manifest allows none below {lowest}: update the program")]
    TooOld {
        /// What this node runs.
        software: SoftwareVersion,
        /// The lowest that may be run.
        lowest: SoftwareVersion,
    },
    /// The store cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// What the store holds is not what was written.
    #[error("the log is damaged: {0}")]
    Damaged(String),
    /// The checkpoint in the store holds another application's state.
    #[error(transparent)]
    State(#[from] super::RestoreError),
}

impl OpenReplicaError {
    /// What a caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::NotAMember | Self::TooOld { .. } => ErrorKind::InvalidInput,
            Self::ForeignManifest => ErrorKind::Authentication,
            Self::Store(error) => error.kind(),
            Self::Damaged(_) => ErrorKind::Storage,
            Self::State(error) => error.kind(),
        }
    }
}

/// Why [`Replica::append`](super::Replica::append) failed.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AppendError {
    /// The entry is longer than [`MAX_ENTRY`].
    #[error("entry of {length} bytes exceeds the limit of {MAX_ENTRY}")]
    TooLong {
        /// Its length, in bytes.
        length: usize,
    },
    /// There is no room on the disk. It is tried again every second; once there is room, entries are taken again.
    #[error("there is no room on the disk; nothing that was durable is lost")]
    Full,
    /// Nothing more is written here.
    #[error(transparent)]
    Stopped(#[from] Stopped),
    /// The replica was shut down.
    #[error("the replica was shut down")]
    Closed,
}

impl AppendError {
    /// What a caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::TooLong { .. } => ErrorKind::InvalidInput,
            Self::Full => ErrorKind::LimitExceeded,
            Self::Stopped(why) => why.kind(),
            Self::Closed => ErrorKind::Closed,
        }
    }
}

/// Why an entry did not get where a [`Receipt`](super::Receipt) was asked to see it.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReceiptError {
    /// There is no room on the disk. The entry is kept in memory and becomes durable when there is room, unless the process
    /// ends before.
    #[error("there is no room on the disk; the entry waits for it")]
    Full,
    /// The entry is not on this node's own disk yet; it may still get there.
    #[error("the entry is not on this node's disk yet")]
    NotYetDurable,
    /// Nothing more is written here.
    #[error(transparent)]
    Stopped(#[from] Stopped),
    /// The replica was shut down before.
    #[error("the replica was shut down")]
    Closed,
}

impl ReceiptError {
    /// What a caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Full => ErrorKind::LimitExceeded,
            Self::NotYetDurable => ErrorKind::TimedOut,
            Self::Stopped(why) => why.kind(),
            Self::Closed => ErrorKind::Closed,
        }
    }
}

/// Why [`Replica::adopt`](super::Replica::adopt) refuses a manifest.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AdoptError {
    /// It is another service's, or this service's owner key did not sign it.
    #[error("the manifest is not what this service's owner key signed")]
    Foreign,
    /// A newer one counts already, or this one itself.
    #[error("a manifest of version {counts} counts already, which this one does not supersede")]
    Older {
        /// Version of the manifest that counts.
        counts: u64,
    },
    /// Nothing more is written here.
    #[error(transparent)]
    Stopped(#[from] Stopped),
    /// The replica was shut down.
    #[error("the replica was shut down")]
    Closed,
}

impl AdoptError {
    /// What a caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Foreign => ErrorKind::Authentication,
            Self::Older { .. } => ErrorKind::InvalidInput,
            Self::Stopped(why) => why.kind(),
            Self::Closed => ErrorKind::Closed,
        }
    }
}

/// Why a [`Subscription`](super::Subscription) ended.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SubscribeError {
    /// The store cannot be read.
    #[error("the log cannot be read: {0}")]
    Store(#[source] Arc<StoreError>),
    /// What the store holds is not what was written.
    #[error("the log is damaged: {0}")]
    Damaged(String),
}

impl SubscribeError {
    /// What a caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Store(error) => error.kind(),
            Self::Damaged(_) => ErrorKind::Storage,
        }
    }
}

impl From<StoreError> for SubscribeError {
    fn from(error: StoreError) -> Self {
        Self::Store(Arc::new(error))
    }
}

/// Why there is no link with a peer, as the two have found out when they spoke last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LinkRefusal {
    /// It serves another service, or shows another log key than the manifest has for its address.
    #[error("the peer serves another service, or is not who the manifest says")]
    Foreign,
    /// It is no member by the newest manifest.
    #[error("the peer is no member by the newest manifest")]
    NotMember,
    /// It runs a version below the lowest that this node's manifest allows.
    #[error("the peer runs a version below the lowest that the manifest allows: it is to be updated")]
    PeerTooOld,
    /// This node runs a version below the lowest that the peer's manifest allows.
    #[error("this node runs a version below the lowest that the peer's manifest allows: update the program")]
    TooOld,
    /// It broke a rule of the protocol, or sends more than a peer may.
    #[error("the peer broke the replication protocol")]
    Broken,
    /// It takes too little of what it is sent.
    #[error("the peer does not take what it is sent")]
    Slow,
}

impl From<Unlink> for LinkRefusal {
    fn from(why: Unlink) -> Self {
        match why {
            Unlink::Foreign => Self::Foreign,
            Unlink::NotMember => Self::NotMember,
            Unlink::PeerTooOld => Self::PeerTooOld,
            Unlink::TooOld => Self::TooOld,
            Unlink::Forged | Unlink::Credit | Unlink::Flood | Unlink::Order => Self::Broken,
        }
    }
}
