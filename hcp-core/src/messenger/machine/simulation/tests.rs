//! Many seeds, and what is broken on purpose.

use super::{Counts, Defect, run};
use crate::seeds::number;

fn seeds(default: u64) -> Vec<u64> {
    match number("HCP_SEED") {
        Some(seed) => vec![seed],
        None => (0..number("HCP_SEEDS").unwrap_or(default)).collect(),
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
    use Defect::{CursorLost, EndsTakenBack, EndsUnread, EpochsRepeat, NoRecall, NotAtomic};
    for defect in [NotAtomic, EpochsRepeat, NoRecall, CursorLost, EndsUnread, EndsTakenBack] {
        assert!((0..400).any(|seed| run(seed, defect).0.is_err()), "{defect:?} goes unnoticed");
    }
}
