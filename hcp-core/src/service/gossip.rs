//! What the members of a service tell each other on `hcp/service/1`: one message, decoded into what can be acted upon.
//!
//! A [`Message`] that was decoded is well-formed: it names members only, its signatures hold, the keys of its points are
//! keys, and nothing in it is longer than [`tuning`](super::tuning) allows. Whoever sent it may still lie about itself, and
//! about nobody else: what it passes on of others, [`SignedRecord`]s and [`Pulse`]s, carries their signatures.

mod codec;
#[cfg(feature = "testing")]
pub(crate) mod fuzz;
mod record;
#[cfg(test)]
mod tests;

use std::fmt;

pub(crate) use self::record::{Pulse, Record, Sign, SignedRecord, prove_point};
use super::roster::Roster;
use crate::identity::OnionAddress;
use crate::network::onion::{Period, PointDescription, PointId, PointSecrets, RelayId, Tag};

/// What belongs to one probe: at random, so that only who was reached can know it.
pub(crate) type Nonce = [u8; 16];

/// What one member says to another.
#[derive(Clone, Debug)]
pub(crate) enum Message {
    Heartbeat(Heartbeat),
    /// What a member says of itself; the sender may only pass it on.
    Record(SignedRecord),
    Entrust(Entrust),
    Tags(Tags),
    /// Points of the receiver's whose secrets the sender holds, and how many marks of each; said once after a link was made.
    Held(Vec<(PointId, u32)>),
    /// The sender's point has closed: will the receiver keep away from it?
    Ask {
        point: PointId,
        nonce: u64,
    },
    Promise {
        point: PointId,
        nonce: u64,
        answer: Answer,
    },
    /// The sender has let go of its point: it is the receiver's now.
    Release(PointId),
    /// The receiver forgets the secrets of the sender's point.
    Forget(PointId),
    /// A probe of the receiver's arrived at the sender.
    Heard(Nonce),
    /// A probe of the sender's arrived at that member.
    Reached(OnionAddress),
}

/// What is sent all the time.
#[derive(Clone, Debug)]
pub(crate) struct Heartbeat {
    /// The sender's boottime in milliseconds; it means nothing to the receiver, who echoes it.
    pub(crate) sent: u64,
    pub(crate) echo: Option<Echo>,
    /// The sender's wall clock in milliseconds since 1970.
    pub(crate) wall: u64,
    /// The sender's own.
    pub(crate) pulse: Pulse,
    pub(crate) seeking: Vec<OnionAddress>,
    pub(crate) sightings: Vec<Pulse>,
}

/// What the receiver of a heartbeat sent last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Echo {
    pub(crate) sent: u64,
    /// How long ago it came, in milliseconds.
    pub(crate) held: u64,
}

/// The secrets of a point of the sender's.
#[derive(Clone, Debug)]
pub(crate) struct Entrust {
    pub(crate) relay: RelayId,
    pub(crate) secrets: PointSecrets,
    /// Everybody who is given them.
    pub(crate) holders: Vec<OnionAddress>,
    /// How many marks follow that were made before.
    pub(crate) before: u32,
}

/// Marks of introductions that were accepted at a point, in order.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Tags {
    pub(crate) point: PointId,
    /// The place of the first.
    pub(crate) first: u32,
    pub(crate) tags: Vec<Tag>,
}

/// Whether a successor keeps away from a point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// For so many milliseconds from when it says so.
    KeepsAway(u32),
    /// It has taken the point over, or is about to.
    Taken,
}

/// A descriptor that directories have taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Publication {
    pub(crate) period: Period,
    /// Of what it lists (`machine::listing`).
    pub(crate) set: [u8; 32],
    /// How many times the subsets were moved on.
    pub(crate) rotation: u32,
    /// The second that its revision stands for, since 1970.
    pub(crate) at: u64,
    /// Members that are not listed because their points do not answer, in order.
    pub(crate) left_out: Vec<OnionAddress>,
}

/// Bytes that are no message of this protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum GossipError {
    /// Longer than [`MAX_MESSAGE`](super::tuning::MAX_MESSAGE).
    #[error("a message that is too long")]
    TooLong,
    /// Not the protobuf that it should be.
    #[error("a malformed message")]
    Malformed,
    /// A list longer than allowed, or a number out of its range.
    #[error("a message beyond its limits: {0}")]
    Limit(&'static str),
    /// A key or a point that is none.
    #[error("a point that is none")]
    Point,
    /// A signature that does not fit.
    #[error("a signature that does not fit")]
    Signature,
    /// Of somebody who is no member here; the manifests may differ for a while.
    #[error("a message of somebody who is no member")]
    Stranger,
}

impl fmt::Debug for Tags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tags").field("first", &self.first).field("count", &self.tags.len()).finish()
    }
}
