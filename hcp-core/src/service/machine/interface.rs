//! What a machine is told and what it answers.

use std::collections::{BTreeSet, HashSet};
use std::time::Duration;

use crate::identity::OnionAddress;
use crate::network::onion::{
    Checked, DirectoryView, Period, PointDescription, PointSecrets, RelayId, Tag, UploadReport,
};
use crate::service::gossip::{Message, Nonce};
use crate::service::roster::Roster;

/// Names an introduction point that this process establishes; never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Slot(pub(crate) u64);

/// Names one upload.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct UploadId(pub(crate) u64);

/// What happened.
#[derive(Debug)]
pub(crate) enum Input {
    /// [`Machine::poll_timeout`] is due, and nothing else happened.
    Tick,
    /// There is a stream with a member now; one that was there before is gone.
    LinkUp(OnionAddress),
    LinkDown(OnionAddress),
    /// An attempt to dial a member came to nothing.
    DialFailed(OnionAddress),
    /// What came from a member, decoded; in the order in which it came.
    Message(OnionAddress, Message),
    /// The point is there, at this relay.
    Established {
        slot: Slot,
        relay: RelayId,
    },
    /// It is not, and will not be.
    EstablishFailed {
        slot: Slot,
        why: NotEstablished,
    },
    /// An established point's circuit has closed, unless [`Output::Withdraw`] did it.
    Closed(Slot),
    /// An introduction was accepted.
    Introduced {
        slot: Slot,
        tag: Tag,
    },
    /// What the consensus says has changed, or is known for the first time.
    View(DirectoryView),
    /// The consensus does not list a relay any more; for those of [`Machine::relays`], whenever the consensus changes.
    RelayGone(RelayId),
    /// The periods for which this node holds material now.
    Material(BTreeSet<Period>),
    Uploaded {
        upload: UploadId,
        report: UploadReport,
    },
    /// Somebody reached this node's session key through the service's address and said that it probes for that member.
    ProbeHeard {
        prober: OnionAddress,
        nonce: Nonce,
    },
    /// What a relay said of a point, for [`Output::Check`].
    Checked {
        point: PointDescription,
        answer: Checked,
    },
    /// The manifest has changed.
    Roster(Roster),
    /// Leave in order; [`Output::Stopped`] is the last thing.
    Shutdown,
}

/// Why a point was not established.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NotEstablished {
    /// There is no relay to choose.
    NoRelay,
    /// The consensus does not list the relay.
    NotListed,
    /// The relay could not be reached, refused, or did not answer before [`Output::Establish`]'s `until`.
    Failed,
}

/// What is to be done, in this order.
#[derive(Debug)]
pub(crate) enum Output {
    /// Establish a point. Answered by [`Input::Established`] or [`Input::EstablishFailed`].
    Establish {
        slot: Slot,
        place: Place,
        secrets: PointSecrets,
        /// Introductions with these marks are not answered.
        seen: Vec<Tag>,
        /// By CLOCK_BOOTTIME: nothing may be sent to the relay after this. Look at the clock right before.
        until: Option<Duration>,
    },
    /// Tear a point down, or stop establishing it; nothing more is to be said of the slot.
    Withdraw(Slot),
    /// Sign and upload a descriptor.
    Upload { upload: UploadId, period: Period, not_before: u64, listings: Vec<(Vec<RelayId>, Vec<PointDescription>)> },
    /// Send to a member with which there is a link; if there is none any more, drop it.
    Send(OnionAddress, Message),
    /// Close the link with a member, if there is one, and make a new one.
    Redial(OnionAddress),
    /// Dial the service in fresh isolation and say to whoever answers: this member probes, with this nonce. Who was reached
    /// says so with [`Message::Heard`], or by [`Input::ProbeHeard`] if it is this node.
    Probe(Nonce),
    /// Ask the relay of a member's point whether it is there. Answered by [`Input::Checked`].
    Check(PointDescription),
    /// Something that whoever watches the service may want to know.
    Notice(Notice),
    /// The points are gone and the last messages are out: the process may end.
    Stopped,
}

/// What happened in the service, as this node sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Notice {
    /// A member is held for dead.
    Died(OnionAddress),
    /// It is heard again.
    Returned(OnionAddress),
    /// This node has done all that it has to do for a death.
    TookOver {
        member: OnionAddress,
        /// Points that it established.
        points: usize,
        /// Those that it could not.
        gave_up: usize,
    },
    /// A descriptor was uploaded by this node, and at least half of the directories took it.
    Published {
        period: Period,
        listed: Vec<OnionAddress>,
        points: usize,
        accepted: usize,
        refused: usize,
        failed: usize,
    },
}

/// Where a point is to be.
#[derive(Debug)]
pub(crate) enum Place {
    /// At a relay that [`choose`](crate::network::onion::OnionBackend::choose) finds outside of the first of these sets, or else
    /// of the next, and so on.
    Choose {
        none_of: Vec<HashSet<RelayId>>,
    },
    At(RelayId),
}
