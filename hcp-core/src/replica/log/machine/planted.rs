//! Defects that a test plants in machines, to see that the simulation notices them. One thread has one at a time.

use std::cell::Cell;

/// What is broken on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::replica::log) enum Defect {
    /// Two segments at one place prove nothing.
    ForkIgnored,
    /// What was applied of a closed log is not covered.
    CoverForgotten,
    /// A segment of a closed log is never taken, whoever needs it.
    DemandIgnored,
    /// A segment counts as durable once it is on its way to the disk.
    DurableEarly,
    /// A segment is applied whether what it names is here or not.
    DependenciesIgnored,
    /// A branch is called by whatever this node took in first.
    NamesOfItsOwn,
    /// Whoever signed it.
    SignatureIgnored,
    /// A process that starts goes on in the log that it wrote before.
    IncarnationKept,
    /// The clock follows whatever it sees.
    ClockDragged,
    /// What others wrote is not passed on.
    RelayForgotten,
    /// Nobody is told that a writer has another name now.
    SplitUntold,
    /// An author has seen what its last segment names, and nothing before.
    VectorForgotten,
    /// A peer sends as much as it likes.
    CreditIgnored,
    /// What is lacking is never asked for.
    NeedForgotten,
    /// More than half of the members suffice for a checkpoint, though one of them may lie.
    HalfSuffices,
    /// A member signs what does not contain what it signed before.
    VotesForgotten,
    /// A branch stays that begins where a checkpoint has another one.
    BranchKept,
    /// What stands beside a checkpoint is not kept for those who do not know that it does.
    BesideForgotten,
    /// A checkpoint is loaded whoever signed it.
    MajorityIgnored,
    /// What a checkpoint covers is taken again when it comes again.
    PrunedAgain,
    /// Entries go into one segment though something was handed to the application between them.
    CutForgotten,
    /// What is appended again goes behind the batch that deletes where it stood.
    CopiesLate,
}

thread_local! {
    static PLANTED: Cell<Option<Defect>> = const { Cell::new(None) };
}

/// Has all machines of this thread carry a defect, or none.
pub(in crate::replica::log) fn plant(defect: Option<Defect>) {
    PLANTED.set(defect);
}

/// Whether machines of this thread carry this defect.
pub(in crate::replica::log) fn planted(defect: Defect) -> bool {
    PLANTED.get() == Some(defect)
}
