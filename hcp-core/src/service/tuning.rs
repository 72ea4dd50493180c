//! Every number that the replicated service is tuned by, each with its reason.
//!
//! What must hold between them is checked when the crate is compiled, at the end.

use std::time::Duration;

use crate::network::onion::MAX_ESTABLISHED;

// ---- Members and messages ----

/// Members of one service. A full mesh of more would spend more on heartbeats than on users.
pub(crate) const MAX_MEMBERS: usize = 128;
/// The longest message: a record with everything that it may hold, and a full batch of marks, fit.
pub(crate) const MAX_MESSAGE: usize = 16 * 1024;
/// Points that one member announces; what a descriptor lists of one never exceeds it.
pub(crate) const MAX_POINTS: usize = 3;
/// Points that one descriptor may list (rend-spec-v3: clients read no more).
pub(crate) const MAX_LISTED: usize = 20;
/// Periods that a record says material is held for: two are current at a time, the others are about to be.
pub(crate) const MAX_HOLDS: usize = 8;
/// Publications that a record holds: of the current periods, and those just past.
pub(crate) const MAX_PUBLICATIONS: usize = 4;
/// Members that a publisher may leave out. Of few members less than half (see `machine::probing`).
pub(crate) const MAX_LEFT_OUT: usize = 16;
/// Points that a node says it has taken over, the latest: what one successor has claimed, another leaves alone, also when it was
/// lost since.
pub(crate) const MAX_CLAIMS: usize = 60;
/// Points that a node has taken over and keeps: three of each of eight members. Each costs an idle circuit, and a place among
/// those that the backend has up at once, of which its own points must always get theirs; so the oldest is let go beyond that.
pub(crate) const MAX_TAKEN: usize = 24;
/// Of those, points that one member announced itself, the latest: those of its last two runs, or those that it was about to
/// retire too. Who restarts again and again leaves room for the points of others.
pub(crate) const MAX_TAKEN_OF_ONE: usize = 2 * MAX_POINTS;
/// Members that one heartbeat seeks. When more are silent at once it is this node that is cut off.
pub(crate) const MAX_SEEKING: usize = 16;
/// Pulses that one heartbeat passes on; each costs its receiver a signature's check.
pub(crate) const MAX_SIGHTINGS: usize = 8;
/// Marks in one message: 8 KiB.
pub(crate) const MAX_TAGS: usize = 256;
/// How often marks are passed on, unless [`MAX_TAGS`] wait: what strangers introduce, at whatever rate, must not fill the stream on
/// which heartbeats travel. A mark under way is one that a successor does not know.
pub(crate) const MARKS: Duration = Duration::from_millis(100);
/// Successors of a point: whoever holds its secrets can take a node's users, so few do; with two, the loss of two nodes of
/// three at once still leaves one.
pub(crate) const MAX_HOLDERS: usize = 2;
/// Points of others that a node hands on to one member when it leaves: what it took over from two.
pub(crate) const MAX_HANDED_ON: usize = 2 * MAX_POINTS;
/// Points of one member whose secrets are held: those announced, as many that are being retired, and what it hands on.
pub(crate) const MAX_HELD: usize = 2 * MAX_POINTS + MAX_HANDED_ON;

// ---- Liveness ----

/// How often the machine looks at everything that depends on time. A quarter of the shortest delay that it measures.
pub(crate) const TICK: Duration = Duration::from_millis(250);
/// How often it looks at points and descriptors though nothing has changed: what there depends on time is minutes long.
pub(crate) const THOROUGH: Duration = Duration::from_secs(1);
/// How often a peer is told that this node lives: three fit into the shortest silence that raises suspicion.
pub(crate) const HEARTBEAT: Duration = Duration::from_millis(500);
/// The shortest silence after which others are asked whether they hear a peer.
pub(crate) const SUSPECT: Duration = Duration::from_millis(1_500);
/// The same in round trips: a lost cell on a slow circuit is sent again within a few.
pub(crate) const SUSPECT_ROUND_TRIPS: u32 = 6;
/// The takeover delay: the shortest silence after which a peer is dead. It leaves most of the ten seconds that a takeover may
/// take to the circuits that must be built.
pub(crate) const DEAD: Duration = Duration::from_secs(3);
/// The same in round trips.
pub(crate) const DEAD_ROUND_TRIPS: u32 = 10;
/// However slow the circuits are and however often a peer was wrongly declared dead, this much silence is death: with the time
/// that a takeover needs, clients are served again within ten seconds.
pub(crate) const DEAD_AT_MOST: Duration = Duration::from_secs(6);
/// How long a peer may take to come back after its link has closed. A killed process closes its links at once, so this is
/// shorter than a silence; a circuit that broke is replaced in that time, or others still hear the peer.
pub(crate) const CLOSED: Duration = Duration::from_secs(1);
/// The same in round trips.
pub(crate) const CLOSED_ROUND_TRIPS: u32 = 3;
/// A round trip that is assumed before one was measured: that of a Tor circuit of six hops on a good day.
pub(crate) const FIRST_ROUND_TRIP: Duration = Duration::from_millis(300);
/// Who was declared dead and was alive all the time gets this factor on its delay.
pub(crate) const HYSTERESIS: u32 = 2;
/// For so long.
pub(crate) const HYSTERESIS_LASTS: Duration = Duration::from_secs(10 * 60);
/// A gap between two looks at the clock after which this node was asleep, and what it did not hear says nothing of others.
pub(crate) const ASLEEP: Duration = Duration::from_millis(1_000);
/// A link that has been silent for so long is made anew: its circuit may be gone without a sign.
pub(crate) const REDIAL: Duration = Duration::from_secs(9);
/// Shortest time between two answers to one peer that seeks somebody, so that nobody is made to talk without end.
pub(crate) const ANSWER: Duration = Duration::from_millis(200);
/// A clock further off than this is reported: a consensus lives for hours, but revisions and certificates suffer.
pub(crate) const SKEW: Duration = Duration::from_secs(30);

// ---- Points ----

/// How long a point lives, at random between the two: C tor's INTRO_POINT_LIFETIME_MIN_SECONDS and _MAX_SECONDS. A relay that
/// watches one sees a service for no longer.
pub(crate) const POINT_LIFE: (Duration, Duration) = (Duration::from_secs(18 * 3_600), Duration::from_secs(24 * 3_600));
/// Introductions after which a point is replaced, at random between the two; C tor's are twice as many. Each leaves a mark of
/// 32 bytes at its node and at both successors.
pub(crate) const POINT_INTRODUCTIONS: (u32, u32) = (8_192, 16_384);
/// A point that is not listed any more lives on for clients with older descriptors: as long as these are kept
/// (rend-spec-v3: descriptor-lifetime, 180 minutes).
pub(crate) const RETIRING: Duration = Duration::from_secs(3 * 3_600);
/// When nobody confirms a descriptor without it for so long, it is let go all the same.
pub(crate) const RETIRING_AT_MOST: Duration = Duration::from_secs(6 * 3_600);
/// Points being retired; the oldest goes beyond that, so that rotation under a flood costs bounded circuits. All may be there that
/// successors have claimed, and some that made way for peers'.
pub(crate) const MAX_RETIRING: usize = MAX_POINTS + 2;
/// The first wait after a point could not be established; it doubles.
pub(crate) const POINT_RETRY: Duration = Duration::from_secs(1);
/// The longest.
pub(crate) const POINT_RETRY_AT_MOST: Duration = Duration::from_secs(60);
/// When nothing was heard of an establishment for so long, it has failed; the backend's own deadline is shorter.
pub(crate) const ESTABLISHING: Duration = Duration::from_secs(60);
/// Relays at which a point was lost or refused, which are not chosen again for a while.
pub(crate) const MAX_AVOIDED: usize = 16;
/// For how long.
pub(crate) const AVOIDED: Duration = Duration::from_secs(10 * 60);
/// A point so young has just come, and makes way for a peer's at the same relay; of two that stand there for so long, one does.
pub(crate) const COLLISION: Duration = Duration::from_secs(8);
/// How often it moves in a row: a peer that follows must not keep it moving.
pub(crate) const COLLISIONS: u32 = 6;
/// Points at whose relays peers have some are replaced a second time after so long; it doubles.
pub(crate) const PARTING: Duration = Duration::from_secs(20);
/// And at least so often; after so long without it, it has happened one time less.
pub(crate) const PARTING_AT_MOST: Duration = Duration::from_secs(2 * 3_600);
/// How long the answers of all holders may take when a point has closed; then it is given up for another one.
pub(crate) const PROMISES: Duration = Duration::from_secs(2);
/// A point some of whose successors are gone for so long is replaced by one with others, if there are others.
pub(crate) const SUCCESSOR_GONE: Duration = Duration::from_secs(120);

// ---- Takeover ----

/// Nothing is taken over from a node that was heard last so long ago: whoever was asleep must not act on what it knew.
pub(crate) const TAKEOVER_WINDOW: Duration = Duration::from_secs(60);
/// How often taking one over is tried.
pub(crate) const TAKEOVER_TRIES: u32 = 4;
/// The wait between two tries.
pub(crate) const TAKEOVER_RETRY: Duration = Duration::from_secs(1);
/// A point that was taken over is listed nowhere any more, and is let go when the last descriptor with it has expired.
pub(crate) const TAKEN_LIFE: Duration = Duration::from_secs(3 * 3_600);
/// What is known of a dead node's points is forgotten after this.
pub(crate) const FORGOTTEN: Duration = Duration::from_secs(10 * 60);

// ---- Publishing ----

/// How long a node that starts waits for points of the others before it publishes: an early descriptor with few points stays
/// in clients' caches for hours.
pub(crate) const GATHERING: Duration = Duration::from_secs(20);
/// A set that differs from what is published must stay the same for so long, unless somebody has died.
pub(crate) const SETTLED: Duration = Duration::from_secs(5);
/// A set that never stays the same for so long is published all the same: one member whose points come and go must not keep
/// the others from being found.
pub(crate) const UNSETTLED_AT_MOST: Duration = Duration::from_secs(20);
/// Sets of before by which another's publication is recognised: one every four seconds for as long as an upload is held back.
pub(crate) const MAX_REMEMBERED: usize = 16;
/// Between two uploads of one period, unless a node fails.
pub(crate) const UPLOAD: Duration = Duration::from_secs(60);
/// Between two when a node fails: revisions count in seconds, and two within one second collide.
pub(crate) const URGENT_UPLOAD: Duration = Duration::from_secs(2);
/// Uploads because of failures within [`UPLOAD`], so that a flapping node does not make a flood.
pub(crate) const URGENT_UPLOADS: usize = 6;
/// Failures of one member that are urgent within so many times [`UPLOAD`]: one that fails again when it has just come back is as
/// dead as another, and one that does so without end costs no more uploads than the changes of any other.
pub(crate) const URGES: usize = 3;
/// When to upload anew though nothing has changed, at random between the two: C tor's HS_NEXT_UPLOAD_TIME_MIN and _MAX.
pub(crate) const REUPLOAD: (Duration, Duration) = (Duration::from_secs(60 * 60), Duration::from_secs(120 * 60));
/// A publication older than this has not been renewed by whose turn it is.
pub(crate) const PUBLICATION_LIFE: Duration = Duration::from_secs(150 * 60);
/// The first wait after an upload that no directory took; it doubles up to [`UPLOAD`].
pub(crate) const UPLOAD_RETRY: Duration = Duration::from_secs(5);
/// The longest wait for directories that did not take what others took.
pub(crate) const STRAGGLERS_AT_MOST: Duration = Duration::from_secs(30 * 60);
/// When nothing was heard of an upload for so long, it has failed; the backend's own deadline is shorter.
pub(crate) const UPLOADING: Duration = Duration::from_secs(120);
/// How long the next publisher waits for the confirmation of the one before it when nobody has died: what the latter's own
/// limit may hold back, an upload, and some.
pub(crate) const UNCONFIRMED: Duration = Duration::from_secs(90);
/// The same when somebody has died.
pub(crate) const UNCONFIRMED_URGENT: Duration = Duration::from_secs(10);
/// The longest that a publisher whose turn it is not holds back after what it published was replaced: two that see different
/// things must not overwrite each other without end. When somebody has died it holds back for [`UNCONFIRMED`] at most.
pub(crate) const UNCONFIRMED_AT_MOST: Duration = Duration::from_secs(30 * 60);
/// Who is not overwritten for so long has nobody who sees other things.
pub(crate) const UNCONTESTED: Duration = Duration::from_secs(5 * 60);
/// How far a revision may lead this node's clock, in seconds: more than two clocks of which one is 90 s early and the other
/// 90 s late are apart, and less than a member could use to lock others out.
pub(crate) const MAX_LEAD: u64 = 240;
/// How much later the next revision is after directories have refused one, in seconds, at random between the two; when most
/// of them go on refusing, the lead doubles, beyond [`MAX_LEAD`].
pub(crate) const REFUSED_LEAD: (u64, u64) = (20, 50);
/// The longest lead: directories forget a descriptor after three hours, and clocks that are off by more than a day find no
/// consensus.
pub(crate) const REFUSED_LEAD_AT_MOST: u64 = 86_400;
/// What others say they have uploaded is believed when it is so many times as far ahead as what this node knows of.
pub(crate) const KNOWN_LEAD: u64 = 4;

// ---- Stopping ----

/// How long a clean stop waits for a descriptor without this node; then its points go all the same.
pub(crate) const STOPPING: Duration = Duration::from_secs(15);
/// Between the last messages and the end, so that they go out.
pub(crate) const LEAVING: Duration = Duration::from_millis(500);

// ---- Checks ----

/// Points that relays are asked for at once, one of each member: each is a circuit.
pub(crate) const CHECKS_AT_ONCE: usize = 8;
/// A member of which so many points were not there in [`LEFT_OUT`] is listed with what is known to be there only: as many as it
/// announces, which is more than move while they are asked for.
pub(crate) const SUSPECTED: usize = MAX_POINTS;
/// When nothing was heard of one for so long, it says nothing; the backend's own deadline is shorter.
pub(crate) const CHECKING: Duration = Duration::from_secs(60);
/// A point that was refused, or whose relay did not answer, is asked for again after so long: a circuit that broke is there again
/// by then. It doubles.
pub(crate) const CHECK_RETRY: Duration = Duration::from_secs(2);
/// The longest.
pub(crate) const CHECK_RETRY_AT_MOST: Duration = Duration::from_secs(5 * 60);
/// Checks of the points of one member, twice as many as it has points,
pub(crate) const CHECKS_OF_ONE: usize = 2 * MAX_POINTS;
/// in so long.
pub(crate) const CHECKS_OF_ONE_IN: Duration = Duration::from_secs(10);

// ---- Probes ----

/// How often a node dials the service to see who answers.
pub(crate) const PROBE: Duration = Duration::from_secs(30);
/// The same while a member that is listed was not reached by anybody yet: it cannot say of itself that it is reachable.
pub(crate) const EAGER_PROBE: Duration = Duration::from_secs(3);
/// For so long after the member was heard of: one that is never reached must not keep all others probing.
pub(crate) const EAGER_FOR: Duration = Duration::from_secs(120);
/// Shortest time between two answers to one member's probes: less than between two of its probes, wherever they arrive.
pub(crate) const PROBE_ANSWER: Duration = Duration::from_secs(1);
/// When nothing was heard of a probe for so long, it says nothing.
pub(crate) const PROBING: Duration = Duration::from_secs(60);
/// How recently a probe must have reached this node for it to count as reachable. In as many nodes as there are, one probe in
/// so many arrives here, thus one in [`PROBE`]: ten miss this one with probability e^-10.
pub(crate) const REACHED: Duration = Duration::from_secs(5 * 60);
/// Doubt at which a member's points count as not answering. It grows by a probe's probability to arrive there; e^-7 is one honest
/// member in a thousand.
pub(crate) const MAX_DOUBT: f64 = 7.0;
/// Who was left out is tried again after this; a new run of it before that, but only once in so long.
pub(crate) const LEFT_OUT: Duration = Duration::from_secs(60 * 60);
/// With half of the doubt it had.
pub(crate) const DOUBT_AFTER: f64 = MAX_DOUBT / 2.0;

const _: () = {
    assert!(HEARTBEAT.as_millis() * 3 <= SUSPECT.as_millis());
    assert!(SUSPECT.as_millis() * 2 <= DEAD.as_millis());
    assert!(TICK.as_millis() * 2 <= HEARTBEAT.as_millis());
    assert!(ASLEEP.as_millis() < SUSPECT.as_millis());
    assert!(MAX_POINTS <= MAX_LISTED && MAX_HELD * (32 + 6) < MAX_MESSAGE);
    assert!(MAX_TAGS * 34 < MAX_MESSAGE);
    assert!(MARKS.as_millis() < TICK.as_millis());
    assert!(MAX_TAKEN_OF_ONE + MAX_HANDED_ON <= MAX_TAKEN && MAX_TAKEN <= MAX_CLAIMS);
    // Whatever is taken over, there are places for the points that are announced, those being retired or replaced, and some that
    // close.
    assert!(MAX_TAKEN + MAX_POINTS + 2 * MAX_RETIRING + MAX_POINTS <= MAX_ESTABLISHED);
};
