//! What a seed decides beforehand: who meets whom over which network, what they do, what breaks, how it ends.

use std::time::Duration;

use rand::RngExt;
use rand::rngs::StdRng;

use super::cast::Server;
use super::network::Line;
use crate::session::{MAX_LANES, MAX_MESSAGE, Priority, SESSION_GROWTH};

/// How much a run moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Size {
    Small,
    Middle,
    /// Many and long messages, beyond windows.
    Large,
    /// The higher classes never rest, and bulk waits.
    Saturated,
}

/// One session.
#[derive(Debug)]
pub(super) struct SessionPlan {
    pub(super) anonymous: bool,
    /// Who answers, which is not always who was dialled.
    pub(super) server: Server,
    /// What is dialled is the service.
    pub(super) service: bool,
    pub(super) lanes: usize,
    /// Lanes that may be dialled in all.
    pub(super) lane_budget: usize,
    /// From when on the replica shows another key to who comes new.
    pub(super) renews: Option<Duration>,
    /// The side that opens more streams than the other takes in time.
    pub(super) crowd: Option<usize>,
    /// What the windows of each side may grow by together.
    pub(super) growth: [u64; 2],
    pub(super) begins: Duration,
    pub(super) line: Line,
    pub(super) size: Size,
    /// What each side opens, and when.
    pub(super) opens: [Vec<(Duration, StreamPlan)>; 2],
    pub(super) drains: Vec<(Duration, usize)>,
    pub(super) close: Option<(Duration, usize, u32)>,
    pub(super) faults: Vec<(Duration, Fault)>,
}

/// What one side does with a stream.
#[derive(Clone, Debug)]
pub(super) struct StreamPlan {
    pub(super) priority: Priority,
    pub(super) lengths: Vec<usize>,
    /// Ends its direction after its last message, and not only when all do.
    pub(super) finishes: bool,
    /// How long it takes to take a message.
    pub(super) pace: Duration,
    /// Goes away after so many messages.
    pub(super) ends_after: Option<(usize, Leaving)>,
    /// The longest pause between two messages.
    pub(super) gap: Duration,
}

/// How an application leaves a stream early.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Leaving {
    Resets,
    Releases,
}

/// What breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    Stall { towards: usize, lasts: Duration },
    LongStall { towards: usize },
    Pause { side: usize, lasts: Duration },
    Cut,
    SilentCut,
    HalfCut { towards: usize },
    Tamper { towards: usize },
    LaneCut,
    SilentLaneCut,
    LaneStall { towards: usize, lasts: Duration },
    LaneTamper { towards: usize },
    LaneBeyond,
    Replay { lane: bool },
    Garbage,
    SilentStranger,
    Forge,
}

/// When everybody comes to an end.
pub(super) const SETTLES: Duration = Duration::from_secs(12);
/// Streams of a crowd: more than a session holds, and few enough that they come and go before any is read.
const CROWD: usize = 72;

fn chance(rng: &mut StdRng, of: u32) -> bool {
    rng.random_range(0..of) == 0
}

fn millis(rng: &mut StdRng, range: std::ops::Range<u64>) -> Duration {
    Duration::from_millis(rng.random_range(range))
}

/// The sessions of a run.
pub(super) fn sessions(rng: &mut StdRng) -> Vec<SessionPlan> {
    let count = if chance(rng, 12) { rng.random_range(2..=3) } else { 1 };
    (0..count).map(|_| SessionPlan::new(rng)).collect()
}

impl SessionPlan {
    fn new(rng: &mut StdRng) -> Self {
        let size = match rng.random_range(0..1_000) {
            0..850 => Size::Small,
            850..980 => Size::Middle,
            980..990 => Size::Large,
            _ => Size::Saturated,
        };
        let service = chance(rng, 2);
        let server = match (service, rng.random_range(0..120)) {
            (false, 0) => Server::Stranger,
            (false, _) => Server::Node,
            (true, 0) => Server::Expired,
            (true, 1) => Server::Withdrawn,
            (true, 2) => Server::Stranger,
            (true, _) => Server::Replica(rng.random_range(0..2)),
        };
        let crowd = (size == Size::Small && chance(rng, 150)).then(|| rng.random_range(0..2));
        let fills = (size == Size::Small && crowd.is_none() && chance(rng, 150)).then(|| rng.random_range(0..2));
        let mut opens = [0, 1].map(|side| {
            if crowd == Some(side) {
                Self::crowd(rng)
            } else if fills == Some(side) {
                Self::full_windows(rng)
            } else {
                Self::opens(rng, size, side)
            }
        });
        let bulk = opens.iter().flatten().any(|(_, stream)| stream.priority == Priority::Bulk);
        let lanes =
            if bulk && size != Size::Saturated && !chance(rng, 4) { rng.random_range(1..=MAX_LANES) } else { 0 };
        let lanes = if size == Size::Small { lanes.min(2) } else { lanes };
        let mut plan = Self {
            anonymous: chance(rng, 3),
            server,
            service,
            lanes,
            lane_budget: if lanes > 0 && chance(rng, 2) { lanes + rng.random_range(1..=MAX_LANES) } else { lanes },
            renews: (service && lanes > 0 && chance(rng, 3)).then(|| millis(rng, 0..4_000)),
            crowd,
            growth: [0, 1].map(|_| if chance(rng, 2) { SESSION_GROWTH } else { rng.random_range(300_000..700_000) }),
            begins: millis(rng, 0..500),
            line: line(rng, size),
            size,
            opens: Default::default(),
            drains: Self::drains(rng),
            close: None,
            faults: Vec::new(),
        };
        if crowd.is_some() {
            // Fast enough that all have come before the first is taken.
            plan.line = Line { rate: plan.line.rate.max(500), delay: plan.line.delay / 4, ..plan.line };
        }
        if fills.is_some() {
            // Windows are all that holds the streams up.
            plan.line = Line { rate: 20_000, capacity: 8 << 20, grain: 65_536, ..plan.line };
        }
        opens.iter_mut().for_each(|opens| opens.sort_by_key(|(at, _)| *at));
        plan.opens = opens;
        if chance(rng, 10) {
            let code = if chance(rng, 2) { 0 } else { rng.random_range(0..2_000) };
            plan.close = Some((millis(rng, 500..12_000), rng.random_range(0..2), code));
        }
        plan.add_faults(rng, bulk);
        plan
    }

    fn opens(rng: &mut StdRng, size: Size, side: usize) -> Vec<(Duration, StreamPlan)> {
        if size == Size::Saturated {
            return if side == 0 { Self::saturation(rng) } else { Vec::new() };
        }
        let most = match size {
            Size::Small => 2,
            Size::Middle => 6,
            _ => 4,
        };
        if size == Size::Small && chance(rng, 120) {
            // More than a session allows at once; those that find no room wait for those that end.
            return (0..60).map(|_| (millis(rng, 2_000..2_300), StreamPlan::new(rng, size, None))).collect();
        }
        let count = rng.random_range(0..=most);
        (0..count).map(|_| (millis(rng, 0..9_000), StreamPlan::new(rng, size, None))).collect()
    }

    /// Streams that are over long before what came on them is taken, more than may be held.
    fn crowd(rng: &mut StdRng) -> Vec<(Duration, StreamPlan)> {
        let stream = |length| StreamPlan {
            priority: Priority::Live,
            lengths: vec![length],
            finishes: true,
            pace: Duration::ZERO,
            ends_after: None,
            gap: Duration::ZERO,
        };
        (0..CROWD).map(|_| (millis(rng, 1_000..1_300), stream(rng.random_range(1..200)))).collect()
    }

    /// Streams with more to send than their windows take at first.
    fn full_windows(rng: &mut StdRng) -> Vec<(Duration, StreamPlan)> {
        let stream = |priority| StreamPlan {
            priority,
            lengths: vec![100_000; 25],
            finishes: true,
            pace: Duration::ZERO,
            ends_after: None,
            gap: Duration::ZERO,
        };
        [Priority::Live, Priority::Control].map(|priority| (millis(rng, 1_000..3_000), stream(priority))).into()
    }

    /// What the other side of a crowd does with a stream of it.
    pub(super) fn late_reader() -> StreamPlan {
        StreamPlan {
            priority: Priority::Live,
            lengths: Vec::new(),
            finishes: true,
            pace: Duration::from_secs(9),
            ends_after: None,
            gap: Duration::ZERO,
        }
    }

    /// Live streams that have more to send than the line takes, a control stream that speaks now and then, and a little bulk.
    fn saturation(rng: &mut StdRng) -> Vec<(Duration, StreamPlan)> {
        let stream = |priority, lengths: Vec<usize>, gap| StreamPlan {
            priority,
            lengths,
            finishes: true,
            pace: Duration::ZERO,
            ends_after: None,
            gap,
        };
        let heavy = if chance(rng, 2) { Priority::Live } else { Priority::Bulk };
        let light = if heavy == Priority::Live { Priority::Bulk } else { Priority::Live };
        let mut opens: Vec<_> = (0..6)
            .map(|_| {
                (Duration::from_secs(1), stream(heavy, vec![rng.random_range(200_000..300_000); 3], Duration::ZERO))
            })
            .collect();
        opens.push((Duration::from_secs(2), stream(light, vec![1_000; 3], Duration::from_secs(1))));
        opens.push((Duration::from_secs(2), stream(Priority::Control, vec![100; 3], Duration::from_secs(1))));
        opens
    }

    fn drains(rng: &mut StdRng) -> Vec<(Duration, usize)> {
        let at = if chance(rng, 6) { millis(rng, 1_000..11_000) } else { SETTLES };
        let side = rng.random_range(0..2);
        if chance(rng, 4) {
            let later = at + millis(rng, 0..300);
            vec![(at, side), (if chance(rng, 2) { at } else { later }, 1 - side)]
        } else {
            vec![(at, side)]
        }
    }

    fn add_faults(&mut self, rng: &mut StdRng, bulk: bool) {
        let count = match rng.random_range(0..10) {
            0..4 => 0,
            4..8 => 1,
            _ => 2,
        };
        for _ in 0..count {
            let at = millis(rng, 0..12_000);
            let (side, lasts) = (rng.random_range(0..2), millis(rng, 100..4_000));
            let lanes = if self.lanes > 0 && bulk { 32 } else { 20 };
            let fault = match rng.random_range(0..lanes) {
                0..4 => Fault::Stall { towards: side, lasts },
                4..7 => Fault::Pause { side, lasts },
                7..10 => Fault::Cut,
                10 => Fault::SilentCut,
                11 => Fault::HalfCut { towards: side },
                12 => Fault::LongStall { towards: side },
                13..15 => Fault::Tamper { towards: side },
                15..17 => Fault::Replay { lane: self.lanes > 0 },
                17..19 => Fault::Garbage,
                19 => Fault::SilentStranger,
                20..26 => Fault::LaneCut,
                26..28 => Fault::SilentLaneCut,
                28..30 => Fault::LaneStall { towards: side, lasts: lasts * if chance(rng, 3) { 10 } else { 1 } },
                _ => Fault::LaneTamper { towards: side },
            };
            self.faults.push((at, fault));
        }
        if !self.anonymous && chance(rng, 12) {
            self.faults.push((millis(rng, 500..9_000), Fault::Forge));
        }
        if self.lanes == MAX_LANES {
            match rng.random_range(0..4) {
                0 | 1 => self.faults.push((millis(rng, 1_000..9_000), Fault::LaneBeyond)),
                2 => {
                    // Lanes that come and go, more in all than may live at once.
                    self.lane_budget += MAX_LANES;
                    let cuts = [0; MAX_LANES].map(|_| (millis(rng, 2_000..8_000), Fault::LaneCut));
                    self.faults.extend(cuts);
                }
                _ => {}
            }
        }
    }
}

impl StreamPlan {
    /// What a side sends on a stream, and how it reads; on a stream of the other's with that one's priority.
    pub(super) fn new(rng: &mut StdRng, size: Size, priority: Option<Priority>) -> Self {
        let priority = priority.unwrap_or_else(|| match rng.random_range(0..10) {
            0..3 => Priority::Control,
            3..6 => Priority::Live,
            _ => Priority::Bulk,
        });
        let most = match (size, priority) {
            (Size::Small, _) | (_, Priority::Control) => 5,
            (Size::Middle, _) => 12,
            _ => 10,
        };
        let least = if size == Size::Large && priority != Priority::Control { most / 2 } else { 0 };
        let lengths = (0..rng.random_range(least..=most)).map(|_| Self::length(rng, size, priority)).collect();
        Self {
            priority,
            lengths,
            finishes: !chance(rng, 4),
            pace: if chance(rng, 6) { millis(rng, 50..2_000) } else { Duration::ZERO },
            ends_after: chance(rng, 14).then(|| {
                let leaving = if chance(rng, 2) { Leaving::Resets } else { Leaving::Releases };
                (rng.random_range(0..4), leaving)
            }),
            gap: if chance(rng, 3) { millis(rng, 1..1_500) } else { Duration::from_millis(1) },
        }
    }

    fn length(rng: &mut StdRng, size: Size, priority: Priority) -> usize {
        let (likely, rare) = match (size, priority) {
            (_, Priority::Control) => (100, 1_000),
            (Size::Small, Priority::Bulk) => (20_000, 60_000),
            (Size::Small, _) => (500, 20_000),
            (Size::Middle, _) => (20_000, 100_000),
            _ => (200_000, MAX_MESSAGE),
        };
        match rng.random_range(0..10) {
            0 => 0,
            1 if size == Size::Large && chance(rng, 2) => MAX_MESSAGE,
            1 | 2 => rng.random_range(0..=rare),
            _ => rng.random_range(0..=likely),
        }
    }
}

fn line(rng: &mut StdRng, size: Size) -> Line {
    let delay = millis(rng, 1..400);
    Line {
        delay,
        jitter: if chance(rng, 2) { delay / 2 } else { Duration::ZERO },
        rate: match size {
            Size::Small | Size::Saturated => rng.random_range(30..2_000),
            Size::Middle => rng.random_range(500..10_000),
            Size::Large => rng.random_range(2_000..20_000),
        },
        capacity: if chance(rng, 3) { 16_384 } else { 131_072 },
        grain: match (size, rng.random_range(0..12)) {
            (Size::Small, 0) => 40,
            (Size::Small, 1..4) => 600,
            _ => 65_536,
        },
        gulp: if chance(rng, 2) { 65_536 } else { 16_384 },
    }
}

/// The network that a lane of this session gets.
pub(super) fn lane_line(rng: &mut StdRng, size: Size) -> Line {
    Line { grain: 65_536, ..line(rng, size) }
}
