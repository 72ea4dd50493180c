//! What a node can truthfully say of itself and of the service.

use std::time::Duration;

use super::{Machine, Role};
use crate::identity::OnionAddress;
use crate::network::onion::Period;
use crate::service::tuning::{PROBE, REACHED, SKEW};

/// How things stand, as this node sees them.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Status {
    /// Clients reach this node: its own points are established, and a peer's probe reached it lately. Alone, only its points
    /// can tell.
    pub(crate) reachable: bool,
    /// What is wrong, the worst first.
    pub(crate) problems: Vec<Problem>,
    /// This node's points that are established and announced, and how many it wants.
    pub(crate) points: usize,
    pub(crate) wanted: usize,
    /// Points of others that it serves in their place.
    pub(crate) taken: usize,
    /// How long ago a peer's probe reached this node.
    pub(crate) last_probe: Option<Duration>,
    pub(crate) periods: Vec<PeriodStatus>,
    /// Until when this node's material lasts, in whole hours from now; nothing if it holds none for the present.
    pub(crate) material_hours: Option<u64>,
    pub(crate) peers: Vec<PeerStatus>,
}

/// How the descriptor of one period stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PeriodStatus {
    pub(crate) period: Period,
    /// Whose turn it is to publish.
    pub(crate) publisher: Option<OnionAddress>,
    /// Who has published last.
    pub(crate) published_by: Option<OnionAddress>,
    /// How long ago, as far as this node knows.
    pub(crate) age: Option<Duration>,
    /// Whether directories have what they should.
    pub(crate) current: bool,
}

/// How another member stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PeerStatus {
    pub(crate) member: OnionAddress,
    pub(crate) alive: bool,
    pub(crate) linked: bool,
    pub(crate) stopping: bool,
    pub(crate) points: usize,
    pub(crate) round_trip: Option<Duration>,
    /// How far its clock is ahead, in milliseconds.
    pub(crate) skew: Option<i64>,
    /// Its points do not answer this node's probes.
    pub(crate) doubted: bool,
}

/// Something that is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub(crate) enum Problem {
    /// No introduction point is established.
    NoPoints,
    /// No peer's probe has reached this node lately.
    NotReached,
    /// A publisher leaves this node out because its points do not answer.
    LeftOut,
    /// The consensus says nothing yet.
    NoView,
    /// Nobody who lives can publish for a period that clients use.
    NoPublisher(Period),
    /// Directories do not have what they should.
    NotPublished(Period),
    /// This node is to publish and holds no material for a period that clients use.
    NoMaterial(Period),
    /// A member has taken over points of this node although it heard it, and is entrusted with none for a while.
    Usurped(OnionAddress),
    /// Fewer points than wanted.
    FewPoints,
    /// No other member is there.
    Alone,
    /// This clock or most of the others' is wrong: so many milliseconds ahead of theirs.
    Clock(i64),
}

impl Machine {
    /// How things stand.
    pub(crate) fn status(&self) -> Status {
        let points = self.count_up();
        let last_probe = self.reached();
        let alone = !self.peers.values().any(super::Peer::is_alive);
        let reached = last_probe.is_some_and(|ago| ago < REACHED);
        let periods: Vec<_> = self.view.periods.iter().map(|view| self.period_status(view.period)).collect();
        let peers: Vec<_> = self.peers.iter().map(|(member, peer)| peer.status(*member)).collect();
        let problems = self.problems(points, alone, reached, &periods);
        Status {
            reachable: points > 0 && (alone || reached),
            problems,
            points,
            wanted: self.target(),
            taken: self.count_taken(),
            last_probe,
            periods,
            material_hours: self.material_hours(),
            peers,
        }
    }

    fn problems(&self, points: usize, alone: bool, reached: bool, periods: &[PeriodStatus]) -> Vec<Problem> {
        let mut problems = Vec::new();
        let mut note = |wrong: bool, problem| {
            if wrong {
                problems.push(problem);
            }
        };
        note(points == 0, Problem::NoPoints);
        // A node that has just started was not probed yet.
        let young = self.now.saturating_sub(self.started) < PROBE * 2;
        note(!alone && !reached && !young, Problem::NotReached);
        note(self.is_left_out(), Problem::LeftOut);
        note(self.view.periods.is_empty(), Problem::NoView);
        let is_publisher = self.roster.role(&self.me) == Some(Role::Publisher);
        for status in periods {
            note(status.publisher.is_none() && self.gathered, Problem::NoPublisher(status.period));
            note(!status.current, Problem::NotPublished(status.period));
            note(is_publisher && !self.material.contains(&status.period), Problem::NoMaterial(status.period));
        }
        for (member, peer) in &self.peers {
            note(peer.is_usurper(self.now), Problem::Usurped(*member));
        }
        note(points < self.target() && points > 0, Problem::FewPoints);
        note(alone && self.roster.len() > 1, Problem::Alone);
        if let Some(skew) = self.own_skew() {
            note(skew.unsigned_abs() > SKEW.as_millis() as u64, Problem::Clock(skew));
        }
        problems
    }

    /// How far this node's clock is ahead of what most of the others say.
    fn own_skew(&self) -> Option<i64> {
        let alive = self.peers.values().filter(|peer| peer.is_alive());
        let mut skews: Vec<_> = alive.filter_map(|peer| peer.skew).collect();
        skews.sort_unstable();
        skews.get(skews.len() / 2).map(|theirs| theirs.saturating_neg())
    }

    fn period_status(&self, period: Period) -> PeriodStatus {
        let (published_by, age, current) = self.published(&period);
        PeriodStatus { period, publisher: self.order(&period).first().copied(), published_by, age, current }
    }

    fn material_hours(&self) -> Option<u64> {
        let wall = self.wall / 1_000;
        let mut until = self.view.periods.iter().map(|view| view.period).min_by_key(Period::start)?;
        if !self.material.contains(&until) {
            return None;
        }
        // What is missing in between ends it.
        while let Some(next) = until.next().filter(|next| self.material.contains(next)) {
            until = next;
        }
        Some(until.end().saturating_sub(wall) / 3_600)
    }
}

impl super::Peer {
    fn status(&self, member: OnionAddress) -> PeerStatus {
        PeerStatus {
            member,
            alive: self.is_alive(),
            linked: self.is_linked(),
            stopping: self.is_stopping(),
            points: self.record().map_or(0, |record| record.points.len()),
            round_trip: self.round_trip,
            skew: self.skew,
            doubted: self.doubt >= crate::service::tuning::MAX_DOUBT,
        }
    }
}
