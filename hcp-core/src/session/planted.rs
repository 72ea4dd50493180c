//! Defects that a test plants in sessions, to see that the simulator notices them. One thread has one at a time.

use std::cell::Cell;

/// What is broken on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Defect {
    /// What a dead lane had is not sent again.
    LaneFramesForgotten,
    /// A bulk frame that has come before is taken again.
    DuplicatesDelivered,
    /// Bulk is put together in the order in which it arrives.
    OrderOfArrival,
    /// A frame with content is never sent.
    FrameDropped,
    /// What was taken is not given back.
    CreditNeverReturned,
    /// What was taken is given back twice.
    CreditTwice,
    /// The end of a stream goes before what waits.
    FinOvertakes,
    /// A stream is over for who has not heard that all arrived.
    OverEarly,
    /// Drained is told at once.
    DrainAtOnce,
    /// Streams that a draining peer does not serve are forgotten and nobody is told.
    NeverServedUntold,
    /// A lower class waits until the higher ones rest.
    LowerStarve,
    /// Lower classes go first.
    PrioritiesReversed,
    /// A reset is not told.
    ResetUntold,
    /// The end of the primary is not told.
    LossUntold,
    /// A silent peer is never given up.
    KeepaliveAsleep,
    /// A silent peer is given up long after its time.
    KeepaliveSlow,
    /// A peer that is silent for a moment is given up.
    KeepaliveHasty,
    /// Bulk that was delivered stays.
    DeliveredHeld,
    /// Output goes on as long as there is some.
    OutputUnbounded,
    /// A lane may join any session.
    ForeignLaneTaken,
    /// A lane may lead to another replica.
    OtherReplicaTaken,
    /// Whoever answers is whom was dialled.
    AnyServerTaken,
    /// Any number of lanes may live.
    LanesUnbounded,
    /// Any number of streams is held.
    HeldUnbounded,
    /// A stream is refused although there is room.
    BusyHasty,
    /// A stream for which there is no room is forgotten and nobody is told.
    BusyUntold,
    /// What the dialler says of a session that it holds is not heard.
    KnownUnheard,
    /// Everybody is shown the key of now.
    FormerKeyForgotten,
    /// A dialler's proof is none of its connection.
    ProofUnbound,
    /// Windows grow whatever the others of the session have grown by.
    PoolUnbounded,
    /// A stream that crossed DRAIN is served.
    ServedWhileDraining,
}

thread_local! {
    static PLANTED: Cell<Option<Defect>> = const { Cell::new(None) };
}

/// Has all sessions of this thread carry a defect, or none.
#[cfg(feature = "testing")]
pub(crate) fn plant(defect: Option<Defect>) {
    PLANTED.set(defect);
}

/// Whether sessions of this thread carry this defect.
pub(super) fn planted(defect: Defect) -> bool {
    PLANTED.get() == Some(defect)
}
