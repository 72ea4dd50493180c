//! Defects that a test plants in machines, to see that the simulation notices them. One thread has one at a time.

use std::cell::Cell;

/// What is broken on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::service) enum Defect {
    /// Nobody is ever held for dead.
    DeathUnnoticed,
    /// Nothing is taken over.
    NothingTaken,
    /// A node that slept holds everybody else for silent.
    SleepForgotten,
    /// A point that closed is established again, whoever may have it.
    FenceForgotten,
    /// The marks of what was accepted are not passed on.
    MarksKept,
    /// A successor establishes a point without the marks that it was given.
    MarksIgnored,
    /// Every publisher holds itself for the only one.
    EverybodyPublishes,
    /// Nobody publishes after the first time.
    PublishedOnce,
    /// The limit on uploads is not kept.
    NoUploadLimit,
    /// A node publishes before it knows the others' points.
    NotGathered,
    /// A member's points are all listed, however many.
    ShareForgotten,
    /// Whatever secrets are given are kept.
    EverythingHeld,
    /// Points stay where others are.
    PartingForgotten,
    /// Who comes later is not listed.
    NewcomersIgnored,
    /// A stopping node takes its points away at once.
    RetireBeforePublish,
    /// What relays say of points is not heard.
    ChecksForgotten,
}

thread_local! {
    static PLANTED: Cell<Option<Defect>> = const { Cell::new(None) };
}

/// Has all machines of this thread carry a defect, or none.
pub(in crate::service) fn plant(defect: Option<Defect>) {
    PLANTED.set(defect);
}

/// Whether machines of this thread carry this defect.
pub(super) fn planted(defect: Defect) -> bool {
    PLANTED.get() == Some(defect)
}
