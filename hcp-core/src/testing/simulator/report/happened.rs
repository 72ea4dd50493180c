//! What is counted, and what it is called.

macro_rules! happenings {
    ($($name:ident $text:literal,)*) => {
        /// Something that is counted.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub(in crate::testing::simulator) enum Happened { $($name,)* }

        /// What each is called, in their order.
        pub(super) const NAMES: &[&str] = &[$($text,)*];
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
    OpensDelayed "streams that waited for room",
    OpensRefused "streams that could not be opened any more",
    Messages "messages received",
    EmptyMessages "messages of 0 bytes received",
    LongestMessages "messages of the greatest length received",
    Bytes "bytes received in messages",
    Credits "credits received",
    Refunds "refunds of frames not needed",
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
