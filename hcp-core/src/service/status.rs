//! What a node tells of its service: how it stands, and what happens.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{broadcast, watch};

use super::clock::unix_now;
use super::machine::{self, Machine, Notice};
use crate::error::ErrorKind;
use crate::identity::OnionAddress;
use crate::network::onion::OnionCounts;
use crate::network::{ListenerStatus, OnionPart, Period};
use crate::owner::Holdings;

/// How a service stands, as far as this node knows.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct ServiceStatus {
    /// Clients reach this node: its introduction points are established, and a probe of another member reached its session key
    /// lately. A node that is alone has only its points to go by. On a network without onion services it is always so.
    pub reachable: bool,
    /// What is wrong, the worst first.
    pub problems: Vec<ServiceProblem>,
    /// This node's introduction points that are established.
    pub points: usize,
    /// How many it wants.
    pub points_wanted: usize,
    /// Points of members that died, which this node serves in their place.
    pub points_taken: usize,
    /// How long ago a probe of another member reached this node.
    pub last_probe: Option<Duration>,
    /// The descriptors of the time periods that clients use now.
    pub descriptors: Vec<DescriptorStatus>,
    /// The other members.
    pub members: Vec<MemberStatus>,
    /// Hours for which this node can speak for the service without a further grant.
    pub speaks_hours: Option<u64>,
    /// Hours for which it can publish without a further grant; none when it cannot now.
    pub publishes_hours: Option<u64>,
    /// What has happened at its introduction points.
    pub counts: ServiceCounts,
}

/// What has happened at this node's introduction points since the launch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ServiceCounts {
    /// Introductions that were new.
    pub introductions: u64,
    /// Introductions that had come before, and were not answered again.
    pub replays: u64,
    /// Introductions that made room for newer ones.
    pub displaced: u64,
    /// Clients that were met.
    pub met: u64,
    /// Clients that could not be met.
    pub missed: u64,
}

/// How the descriptor of a time period stands.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct DescriptorStatus {
    /// The period.
    pub period: Period,
    /// Whose turn it is to publish: a member's own address.
    pub publisher: Option<OnionAddress>,
    /// Who has published last.
    pub published_by: Option<OnionAddress>,
    /// How long ago.
    pub age: Option<Duration>,
    /// The directories have what they should.
    pub current: bool,
}

/// How another member stands.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct MemberStatus {
    /// Its own address.
    pub address: OnionAddress,
    /// It has been heard lately, directly or through others.
    pub alive: bool,
    /// There is a stream with it.
    pub linked: bool,
    /// Introduction points that it announces.
    pub points: usize,
    /// The smoothed round trip.
    pub round_trip: Option<Duration>,
    /// How far its clock is ahead of this node's, in milliseconds.
    pub clock_ahead: Option<i64>,
    /// Its points do not answer this node's probes.
    pub doubted: bool,
}

/// Something that is wrong with a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ServiceProblem {
    /// No introduction point is established.
    NoPoints,
    /// No probe of another member has reached this node lately.
    NotReached,
    /// A publisher leaves this node out, as its points do not answer.
    LeftOut,
    /// The directory of the network says nothing yet.
    NoDirectory,
    /// No live member can publish the descriptor of a period.
    NoPublisher(Period),
    /// The directories do not have the descriptor that they should.
    NotPublished(Period),
    /// This node is a publisher and was granted nothing for a period.
    NoMaterial(Period),
    /// A member, by its own address, has taken over introduction points of this node within the last three hours although it
    /// had just confirmed that it heard it. It is out of order or lies: its operator, or a manifest without it, can end that.
    Usurped(OnionAddress),
    /// Fewer introduction points than wanted.
    FewPoints,
    /// No other member can be reached.
    Alone,
    /// This clock differs from most others': so many milliseconds ahead.
    Clock(i64),
    /// Less than [`LOW_HOURS`] until this node needs a further grant.
    GrantEnds,
}

/// When [`ServiceProblem::GrantEnds`] begins to be told, in hours: enough for an owner's machine that connects once a day.
pub const LOW_HOURS: u64 = 12;

/// What happened in a service.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ServiceEvent {
    /// A member is not heard any more; its introduction points are taken over.
    Died(OnionAddress),
    /// It is heard again.
    Returned(OnionAddress),
    /// This node has done all that it has to do for a death.
    TookOver {
        /// Who died.
        member: OnionAddress,
        /// Introduction points that this node established in its place.
        points: usize,
        /// Those that it could not.
        gave_up: usize,
    },
    /// A descriptor was uploaded by this node.
    Published {
        /// The time period.
        period: Period,
        /// Whom it lists.
        listed: Vec<OnionAddress>,
        /// How many introduction points they have in it together.
        points: usize,
        /// Directories that took it.
        accepted: usize,
        /// Directories that hold one as new or newer.
        refused: usize,
        /// Directories that could not be reached.
        failed: usize,
    },
    /// A warden has handed out grants, which were taken in.
    Fetched {
        /// The warden's own address.
        warden: OnionAddress,
        /// How many.
        grants: usize,
    },
    /// Nothing came of asking a warden; the next one is asked, or this one again, after a while.
    FetchFailed {
        /// The warden's own address.
        warden: OnionAddress,
        /// What can be done about it.
        kind: ErrorKind,
        /// What went wrong, for people.
        reason: String,
    },
}

/// Tells whoever watches.
#[derive(Clone)]
pub(super) struct Teller {
    status: Arc<watch::Sender<ServiceStatus>>,
    events: broadcast::Sender<ServiceEvent>,
    last: Arc<Mutex<Duration>>,
}

impl Teller {
    /// `decides`: there is a machine, whose word on reachability counts.
    pub(super) fn new(decides: bool) -> (Self, watch::Receiver<ServiceStatus>) {
        let (status, watched) = watch::channel(ServiceStatus { reachable: !decides, ..ServiceStatus::default() });
        let teller = Self { status: Arc::new(status), events: broadcast::Sender::new(EVENTS), last: Arc::default() };
        (teller, watched)
    }

    pub(super) fn listen(&self) -> broadcast::Receiver<ServiceEvent> {
        self.events.subscribe()
    }

    /// Tells how things stand, at most every [`STATUS_INTERVAL`] unless reachability changed.
    pub(super) fn tell(&self, now: Duration, machine: &Machine, part: &OnionPart, holdings: &Holdings) {
        {
            let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
            if now < *last + STATUS_INTERVAL {
                return;
            }
            *last = now;
        }
        let status = status(machine.status(), part.backend.counts(), holdings);
        let listener = listener_status(&status);
        part.status.send_if_modified(|told| {
            let is_new = *told != listener;
            *told = listener;
            is_new
        });
        self.status.send_if_modified(|told| {
            let is_new = *told != status;
            *told = status;
            is_new
        });
    }

    /// Tells what happened, beside what the machine notices.
    pub(super) fn event(&self, event: ServiceEvent) {
        // Nobody may be listening.
        let _ = self.events.send(event);
    }

    /// Tells what happened.
    pub(super) fn notice(&self, notice: Notice) {
        // Nobody may be listening.
        let _ = self.events.send(match notice {
            Notice::Died(member) => ServiceEvent::Died(member),
            Notice::Returned(member) => ServiceEvent::Returned(member),
            Notice::TookOver { member, points, gave_up } => ServiceEvent::TookOver { member, points, gave_up },
            Notice::Published { period, listed, points, accepted, refused, failed } => {
                ServiceEvent::Published { period, listed, points, accepted, refused, failed }
            }
        });
    }
}

impl fmt::Debug for Teller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Teller").finish_non_exhaustive()
    }
}

fn status(machine: machine::Status, counts: OnionCounts, holdings: &Holdings) -> ServiceStatus {
    let now = unix_now();
    let left = holdings.left(now);
    let hours = |until: Option<u64>| until.map(|until| until.saturating_sub(now) / 3600);
    let (speaks_hours, publishes_hours) = (hours(left.speaks_until), hours(left.publishes_until));
    let mut problems: Vec<_> = machine.problems.into_iter().filter_map(problem).collect();
    if speaks_hours.is_none_or(|hours| hours < LOW_HOURS) {
        problems.push(ServiceProblem::GrantEnds);
    }
    ServiceStatus {
        reachable: machine.reachable,
        problems,
        points: machine.points,
        points_wanted: machine.wanted,
        points_taken: machine.taken,
        last_probe: machine.last_probe,
        descriptors: machine
            .periods
            .into_iter()
            .map(|period| DescriptorStatus {
                period: period.period,
                publisher: period.publisher,
                published_by: period.published_by,
                age: period.age,
                current: period.current,
            })
            .collect(),
        members: machine
            .peers
            .into_iter()
            .map(|peer| MemberStatus {
                address: peer.member,
                alive: peer.alive,
                linked: peer.linked,
                points: peer.points,
                round_trip: peer.round_trip,
                clock_ahead: peer.skew,
                doubted: peer.doubted,
            })
            .collect(),
        speaks_hours,
        publishes_hours,
        counts: ServiceCounts {
            introductions: counts.introductions,
            replays: counts.replays,
            displaced: counts.displaced,
            met: counts.met,
            missed: counts.missed,
        },
    }
}

fn problem(problem: machine::Problem) -> Option<ServiceProblem> {
    Some(match problem {
        machine::Problem::NoPoints => ServiceProblem::NoPoints,
        machine::Problem::NotReached => ServiceProblem::NotReached,
        machine::Problem::LeftOut => ServiceProblem::LeftOut,
        machine::Problem::NoView => ServiceProblem::NoDirectory,
        machine::Problem::NoPublisher(period) => ServiceProblem::NoPublisher(period),
        machine::Problem::NotPublished(period) => ServiceProblem::NotPublished(period),
        machine::Problem::NoMaterial(period) => ServiceProblem::NoMaterial(period),
        machine::Problem::Usurped(member) => ServiceProblem::Usurped(member),
        machine::Problem::FewPoints => ServiceProblem::FewPoints,
        machine::Problem::Alone => ServiceProblem::Alone,
        machine::Problem::Clock(skew) => ServiceProblem::Clock(skew),
    })
}

/// Names the worst problem without addresses.
fn listener_status(status: &ServiceStatus) -> ListenerStatus {
    if status.reachable {
        return ListenerStatus::Reachable;
    }
    ListenerStatus::Broken(
        match status.problems.first() {
            Some(ServiceProblem::NoPoints) => "no introduction point is established",
            Some(ServiceProblem::NotReached) => "no other member has reached this node lately",
            Some(ServiceProblem::LeftOut) => "this node is left out of the descriptor, as its points do not answer",
            Some(ServiceProblem::NoDirectory) => "the directory of the network is not known yet",
            Some(ServiceProblem::NoPublisher(_) | ServiceProblem::NoMaterial(_)) => "nobody can publish the descriptor",
            Some(ServiceProblem::NotPublished(_)) => "the directories do not have the descriptor yet",
            _ => return ListenerStatus::Starting,
        }
        .into(),
    )
}

/// Status is for people and metrics.
const STATUS_INTERVAL: Duration = Duration::from_millis(250);
/// Who reads events falls behind by so many before it misses some.
const EVENTS: usize = 256;
