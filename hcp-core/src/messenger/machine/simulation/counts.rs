//! What happens in a simulation, counted: a fault that never happened proves nothing.

/// How often each fault happened.
#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) frames: u64,
    pub(super) cuts: u64,
    pub(super) unnoticed: u64,
    pub(super) crashes_before_commit: u64,
    pub(super) crashes_after_commit: u64,
    pub(super) disk_errors: u64,
    pub(super) backups: u64,
    pub(super) restores: u64,
    /// Runs in which each of the two was restored.
    pub(super) both_restored: u64,
    pub(super) simultaneous: u64,
    pub(super) cancelled: u64,
    pub(super) recalled: u64,
    pub(super) sent: u64,
    pub(super) offers: u64,
    pub(super) accepted: u64,
    pub(super) declined: u64,
    pub(super) files_cancelled: u64,
    pub(super) files_done: u64,
    pub(super) files_changed: u64,
    /// Times that one of the two took the other off its list.
    pub(super) parted: u64,
    /// Epochs that one of the two had forgotten in the end.
    pub(super) forgotten: u64,
}

impl Counts {
    pub(super) fn add(&mut self, mut other: Self) {
        for ((_, sum), (_, more)) in self.each().into_iter().zip(other.each()) {
            *sum += *more;
        }
    }

    pub(super) fn each(&mut self) -> [(&'static str, &mut u64); 21] {
        let Self {
            frames,
            cuts,
            unnoticed,
            crashes_before_commit,
            crashes_after_commit,
            disk_errors,
            backups,
            restores,
            both_restored,
            simultaneous,
            cancelled,
            recalled,
            sent,
            offers,
            accepted,
            declined,
            files_cancelled,
            files_done,
            files_changed,
            parted,
            forgotten,
        } = self;
        [
            ("frames", frames),
            ("cuts", cuts),
            ("unnoticed", unnoticed),
            ("crashes_before_commit", crashes_before_commit),
            ("crashes_after_commit", crashes_after_commit),
            ("disk_errors", disk_errors),
            ("backups", backups),
            ("restores", restores),
            ("both_restored", both_restored),
            ("simultaneous", simultaneous),
            ("cancelled", cancelled),
            ("recalled", recalled),
            ("sent", sent),
            ("offers", offers),
            ("accepted", accepted),
            ("declined", declined),
            ("files_cancelled", files_cancelled),
            ("files_done", files_done),
            ("files_changed", files_changed),
            ("parted", parted),
            ("forgotten", forgotten),
        ]
    }
}
