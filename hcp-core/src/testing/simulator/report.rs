//! What happened in simulated runs: how often each thing, and a digest of all of it in order.

use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

macro_rules! happenings {
    ($($name:ident $text:literal,)*) => {
        /// Something that is counted.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub(super) enum Happened { $($name,)* }

        const NAMES: &[&str] = &[$($text,)*];
    };
}

happenings! {
    Sessions "sessions begun",
    Established "sides established",
    AnonymousDiallers "diallers that stay anonymous",
    Services "sessions with a service of two replicas",
    ControlStreams "control streams opened",
    LiveStreams "live streams opened",
    BulkStreams "bulk streams opened",
    OpensRefused "streams that could not be opened",
    Messages "messages received",
    EmptyMessages "messages of 0 bytes received",
    LongestMessages "messages of the greatest length received",
    Bytes "bytes received in messages",
    Credits "credits received",
    Growths "windows grown",
    HalfCloses "directions ended while the other went on",
    Finished "ends of directions received",
    Resets "streams reset by an application",
    Rejections "streams reset at once by an application",
    ResetsReceived "resets received",
    NeverServed "streams that a draining peer never served",
    Releases "streams whose reader went away",
    SlowReaders "streams read slowly",
    Drains "sessions drained by one side",
    DoubleDrains "sessions drained by both sides",
    EarlyDrains "drains while streams were still to be opened",
    Drained "drains that came to their end",
    ClosedMidway "sessions closed in the middle",
    Splits "writes split by the network",
    Merges "writes merged by the network",
    Blocked "writers held up by a full network",
    Stalls "directions stalled",
    LongStalls "directions stalled beyond the keepalive",
    Pauses "sides paused",
    Cuts "primaries cut",
    SilentCuts "primaries cut without a sign",
    HalfCuts "primaries cut in one direction without a sign",
    HandshakeCuts "primaries cut before the session was established",
    Tampered "primaries with a byte changed",
    EndedByKeepalive "sides that ended by the keepalive",
    EndedByLoss "sides that ended by a lost connection",
    EndedByTls "sides that ended because of TLS",
    EndedByPeer "sides closed by the peer",
    LaneDials "lanes dialled",
    LanesJoined "lanes joined",
    LaneCuts "lanes cut",
    SilentLaneCuts "lanes cut without a sign",
    LaneStalls "lanes stalled",
    LanesTampered "lanes with a byte changed",
    LanesEnded "ends of lanes told",
    LaneDialsCut "lanes cut before they joined",
    OtherReplicas "lanes that reached another replica",
    LanesGivenUp "lanes given up after other replicas",
    FramesResent "bulk frames sent again",
    LanesStolen "lanes offered to another session",
    Replays "connections replayed by a stranger",
    Garbage "strangers that sent garbage",
    SilentStrangers "strangers that said nothing",
    WrongServers "dials that reached somebody else",
    BadDelegations "dials that reached an expired delegation",
    WithdrawnDelegations "dials that reached a withdrawn delegation",
}

/// What happened in one run, or in several.
#[derive(Clone)]
pub struct Report {
    counts: [u64; NAMES.len()],
    hasher: DefaultHasher,
    virtual_time: Duration,
}

impl Default for Report {
    fn default() -> Self {
        Self { counts: [0; NAMES.len()], hasher: DefaultHasher::new(), virtual_time: Duration::ZERO }
    }
}

impl Report {
    /// Each thing that is counted, with how often it happened.
    pub fn counts(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        NAMES.iter().copied().zip(self.counts)
    }

    /// A digest of everything that happened, in its order and with its times. Two runs of one seed have the same.
    pub fn digest(&self) -> u64 {
        self.hasher.finish()
    }

    /// How much virtual time passed.
    pub fn virtual_time(&self) -> Duration {
        self.virtual_time
    }

    /// Adds the counts and the time of another report.
    pub fn add(&mut self, other: &Self) {
        self.counts.iter_mut().zip(other.counts).for_each(|(sum, count)| *sum += count);
        self.virtual_time += other.virtual_time;
        other.digest().hash(&mut self.hasher);
    }

    pub(super) fn happened(&mut self, what: Happened) {
        self.happened_times(what, 1);
    }

    pub(super) fn happened_times(&mut self, what: Happened, times: u64) {
        self.counts[what as usize] += times;
    }

    /// Notes something for the digest.
    pub(super) fn log(&mut self, at: Duration, what: impl Hash) {
        at.as_nanos().hash(&mut self.hasher);
        what.hash(&mut self.hasher);
    }

    pub(super) fn ended(&mut self, at: Duration) {
        self.virtual_time = at;
        (at.as_nanos(), self.counts).hash(&mut self.hasher);
    }
}

impl fmt::Debug for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.counts()).finish()
    }
}

/// A line for each thing, and the virtual time.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, count) in self.counts() {
            writeln!(f, "{count:>12}  {name}")?;
        }
        write!(f, "{:>12}  hours of virtual time", self.virtual_time.as_secs() / 3_600)
    }
}
