//! Why no grants were made.

use thiserror::Error;

use crate::error::ErrorKind;
use crate::identity::OnionAddress;
use crate::identity::delegation::IssueError;
use crate::owner::signer::SignError;

/// Why no grants were made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum MakeError {
    /// No hours or rounds, or too many.
    #[error("a horizon has 1 to 8784 hours and 1 to 1200 rounds, and no more rounds than hours")]
    Horizon,
    /// The signer, the manifest, the book and the requests are not all of one service.
    #[error("the signer, the manifest, the book and the requests are not all of one service")]
    ForeignService,
    /// The owner certificate is not for this owner key, or not of this service.
    #[error("the owner certificate is not what the service's identity signed for this owner key")]
    ForeignCertificate,
    /// The owner certificate ends before the horizon does.
    #[error("the owner certificate ends before the grants would; certify the owner key anew")]
    CertificateEnds,
    /// A node's request is for a network with other time periods.
    #[error("a node's request is for another length of time periods than the service's network has")]
    OtherClock(OnionAddress),
    /// Two requests are of one node.
    #[error("two requests are of one node; give the newer one")]
    Twice(OnionAddress),
    /// The owner has revoked the node.
    #[error("the node is revoked and gets no grants")]
    Revoked(OnionAddress),
    /// The manifest does not name the node.
    #[error("the manifest does not name the node as a member")]
    NotAMember(OnionAddress),
    /// The request has not as many unused session keys as there are rounds.
    #[error("the request has too few session keys that were not used before; ask the node for a new request")]
    SessionKeysUsedUp(OnionAddress),
    /// The node is to publish in a time period that its request has no key for.
    #[error("the request has no key for a time period in which the node must publish; ask it for a new one with more")]
    PeriodsMissing(OnionAddress),
    /// The book would grow beyond its limits.
    #[error("the book holds as many nodes or grants as it can; let some end, or make fewer in advance")]
    TooMuch,
    /// The signer did not sign.
    #[error(transparent)]
    Sign(#[from] SignError),
    /// A delegation cannot be.
    #[error(transparent)]
    Issue(#[from] IssueError),
}

impl MakeError {
    /// What a caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Sign(error) => error.kind(),
            Self::Issue(error) => error.kind(),
            Self::TooMuch => ErrorKind::LimitExceeded,
            _ => ErrorKind::InvalidInput,
        }
    }

    /// The node whose request is at fault, if it is one's.
    pub fn node(&self) -> Option<OnionAddress> {
        match self {
            Self::OtherClock(node)
            | Self::Twice(node)
            | Self::Revoked(node)
            | Self::NotAMember(node)
            | Self::SessionKeysUsedUp(node)
            | Self::PeriodsMissing(node) => Some(*node),
            _ => None,
        }
    }
}
