//! Many seeds, and what is broken on purpose.

use super::{Counts, Defect, run};
use crate::seeds::number;

fn seeds(default: u64) -> Vec<u64> {
    match number("HCP_SEED") {
        Some(seed) => vec![seed],
        None => (0..number("HCP_SEEDS").unwrap_or(default)).collect(),
    }
}

impl Counts {
    fn add(&mut self, mut other: Self) {
        for ((_, sum), (_, more)) in self.each().into_iter().zip(other.each()) {
            *sum += *more;
        }
    }

    fn each(&mut self) -> [(&'static str, &mut u64); 19] {
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
        ]
    }
}

#[test]
fn nothing_is_lost_or_shown_twice_whatever_breaks() {
    let mut total = Counts::default();
    for seed in seeds(150) {
        let (result, counts) = run(seed, Defect::None);
        if let Err(reason) = result {
            panic!("seed {seed}: {reason} (HCP_SEED={seed} runs it alone): {counts:?}");
        }
        total.add(counts);
    }
    println!("{total:?}");
    if std::env::var_os("HCP_SEED").is_none() {
        for (what, count) in total.each() {
            assert!(*count > 0, "{what} never happened");
        }
    }
}

#[test]
fn the_invariants_notice_what_is_broken_on_purpose() {
    use Defect::{CursorLost, EndsUnread, EpochsRepeat, NoRecall, NotAtomic};
    for defect in [NotAtomic, EpochsRepeat, NoRecall, CursorLost, EndsUnread] {
        assert!((0..400).any(|seed| run(seed, defect).0.is_err()), "{defect:?} goes unnoticed");
    }
}
