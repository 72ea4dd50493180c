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
/// Of what one peer asked for, so much waits to be read for it; more it asks for again.
pub(crate) const MAX_QUEUED_NEEDS: usize = 4_096;
/// So many places are read at once.
pub(crate) const NEEDS_AT_ONCE: usize = 64;
/// How many segments before the one that is needed are asked for at the most; it doubles from one on.
pub(crate) const MAX_BACK: u32 = 256;
/// Bytes that one link may have under way, held back here and on their way to the disk, with what segments cost beside their
/// bytes: two of the longest at least, and of what all members together may take, its share.
pub(crate) const WINDOW: u64 = 1024 * 1024;
/// Bytes of segments that were written last and are kept in memory, so that pushing them reads nothing.
pub(crate) const RECENT: usize = 2 * 1024 * 1024;
/// Places whose hashes are kept in memory: what dependencies name is nearly always among the last.
pub(crate) const MAX_HASHES: usize = 16_384;
/// Places in one read of hashes.
pub(crate) const READ_HASHES: usize = 512;
/// Bytes of one page.
pub(crate) const PAGE: usize = 512 * 1024;
/// Bytes of one page that is read for a peer, which is hashed and queued in one go while what others say waits.
pub(crate) const PEER_PAGE: usize = 128 * 1024;
/// Messages that cost no credit: so many a second in the long run, and so many at once; a peer that sends more loses its
/// link.
pub(crate) const FREE_RATE: f64 = 200.0;
pub(crate) const FREE_BURST: f64 = 2_000.0;
/// And so many more for each message that was sent to it and took its credit.
pub(crate) const ANSWERS: f64 = 2.0;
/// What a peer without a link has said is remembered for so long: by then it might say as much as anybody again.
pub(crate) const TALK: Duration = Duration::from_secs(10);
/// Open logs that one node may have without others' having seen them: a run each; more are a fault or an attack.
pub(crate) const MAX_RUNS: usize = 16;
/// Delivered segments that the application may be behind before what it has seen is rounded down.
pub(crate) const MAX_UNHANDED: usize = 4_096;
/// Logs for which it is remembered how far back was asked: those that wait always are.
pub(crate) const MAX_BACKS: usize = 1_024;
/// Ends of logs that a peer says to hold, that are not known here and are remembered: more than honest ones ever have when
/// they meet. What is forgotten is sent to it once in vain.
pub(crate) const MAX_SAID: usize = 4_096;
/// Branches on branches that are gone through to see how far a peer has one: more is a faulty author's doing, and is sent
/// once in vain.
pub(crate) const MAX_DEPTH: usize = 64;
/// Requests of one member for checkpoints whose votes are kept: the last ones, as the newest may be of no use to whoever is
/// slow to sign.
pub(crate) const MAX_ASKED: usize = 4;
/// A member's request is made into a state once so many times as long has passed as its last one took, for each member: all
/// requests together take half of the time at the most, whatever one member asks.
pub(crate) const FOLD_REST: u32 = 2;
/// Some round trips at the least: whoever asks ever anew, and has the members' votes move each time, would otherwise leave no
/// time in which another's request can find them all in its past.
pub(crate) const MIN_FOLD_REST: Duration = Duration::from_secs(2);
/// But after so long in any case.
pub(crate) const MAX_FOLD_REST: Duration = Duration::from_secs(3_600);
/// Pieces of a state that one peer is asked for at once: enough to keep a link busy, and below its credit.
pub(crate) const FETCHES: usize = 4;
/// Pieces of a state that are asked for and not on disk yet: some megabytes, however slow the disk is.
pub(crate) const MAX_FETCHED: usize = 32;
/// A piece that does not come for so long is asked for again; who sends none at all meanwhile does not count as offering any.
/// Less than offers of one peer are apart, so that nobody has others' fetching given up again and again by offering this and
/// that.
pub(crate) const FETCH: Duration = Duration::from_secs(5);
/// What was fetched of a state that nobody offers any more is kept for so long: by then a link that broke is there again.
pub(crate) const FETCH_KEPT: Duration = Duration::from_secs(60);
/// A peer that offered a state and sent no piece has no other one's fetching given up for so long: what is lost by that is
/// little beside what is fetched in that time.
pub(crate) const SILENT: Duration = Duration::from_secs(600);
/// A peer that holds another checkpoint for so long, and is older, is offered the newer one: it could not make it itself. It
/// takes what it lacks nothing of after half of that.
pub(crate) const APART: Duration = Duration::from_secs(5);
/// A checkpoint is offered again after so long; of one peer an offer is looked at after half of that.
pub(crate) const OFFER: Duration = Duration::from_secs(12);
/// A full disk is tried again after so long.
pub(crate) const FULL: Duration = Duration::from_secs(1);
