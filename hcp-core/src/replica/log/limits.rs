//! How much of everything: each bound with its reason.

use std::time::Duration;

/// Own entries wait so long for others before a segment is cut: a signature and a commit for many, and no more delay than
/// anybody notices.
pub(crate) const CUT: Duration = Duration::from_millis(20);
/// Bytes of own entries that may wait for their segment or for the disk; writers wait beyond.
pub(crate) const MAX_PENDING: usize = 4 * 1024 * 1024;
/// How often a node says what it holds, when that has changed.
pub(crate) const BEACON: Duration = Duration::from_millis(500);
/// What others wrote is passed on to a peer that is linked with the author when it lacks it for so long: longer than the
/// author's own push and the peer's next frontier take over Tor.
pub(crate) const RELAY: Duration = Duration::from_secs(2);
/// What was sent and is in no frontier of the peer's for so long is sent again.
pub(crate) const RESEND: Duration = Duration::from_secs(10);
/// A segment that lacks something asks for it after so long: by then it would have come by itself.
pub(crate) const NEED: Duration = Duration::from_millis(1_500);
/// A segment that lacks something for so long is dropped, and comes again: it holds room that others could use.
pub(crate) const HELD: Duration = Duration::from_secs(15);
/// Requests for something lacking that go to one peer in one round of half a second.
pub(crate) const MAX_NEEDS: usize = 8;
/// How many segments before the one that is needed are asked for at the most; it doubles from one on.
pub(crate) const MAX_BACK: u32 = 256;
/// Bytes that one link may have under way and held back here, with what segments cost beside their bytes: two of the
/// longest at least, and of what all members together may take, its share.
pub(crate) const WINDOW: u64 = 1024 * 1024;
/// Bytes of segments that were written last and are kept in memory, so that pushing them reads nothing.
pub(crate) const RECENT: usize = 2 * 1024 * 1024;
/// Places whose hashes are kept in memory: what dependencies name is nearly always among the last.
pub(crate) const MAX_HASHES: usize = 16_384;
/// Places in one read of hashes.
pub(crate) const READ_HASHES: usize = 512;
/// Bytes of one page.
pub(crate) const PAGE: usize = 512 * 1024;
/// Messages that cost no credit: so many a second in the long run, and so many at once; a peer that sends more loses its
/// link.
pub(crate) const FREE_RATE: f64 = 200.0;
pub(crate) const FREE_BURST: f64 = 2_000.0;
/// Open logs that one node may have without others' having seen them: a run each; more are a fault or an attack.
pub(crate) const MAX_RUNS: usize = 16;
/// Delivered segments that the application may be behind before what it has seen is rounded down.
pub(crate) const MAX_UNHANDED: usize = 4_096;
/// Segments that do not count, and are remembered for whoever names them: a faulty member's, between two checkpoints.
pub(crate) const MAX_BESIDE: usize = 1_024;
/// Branches in which such a segment is looked for.
pub(crate) const MAX_BESIDE_BRANCHES: u32 = 8;
/// Requests for checkpoints whose votes are kept.
pub(crate) const MAX_ASKED: usize = 8;
/// Pieces of a state that are asked for at once: enough to keep a link busy, and below its credit.
pub(crate) const FETCHES: usize = 4;
/// A piece that does not come for so long is asked of somebody else.
pub(crate) const FETCH: Duration = Duration::from_secs(5);
/// A full disk is tried again after so long.
pub(crate) const FULL: Duration = Duration::from_secs(1);
