//! How much a batch of frames is padded, so that its length says little of its content (protocol.md, section 9).

/// The most that is collected for one batch, in bytes with headers: four full frames of bulk, and the largest class.
pub(crate) const MAX_BATCH: usize = 65_536;
/// The content of a full TLS record: batches, which begin with a record, are cut into records of this length.
pub(crate) const RECORD: usize = 16_384;
/// What the first flights of both sides are padded to.
pub(crate) const FIRST_FLIGHT: usize = 1_024;
/// The classes of a batch without bulk.
const CLASSES: [usize; 4] = [1_024, 4_096, 16_384, MAX_BATCH];

/// The padded length of a batch of `length` bytes that holds nothing of BULK.
pub(crate) fn class(length: usize) -> usize {
    // A batch that is longer than the longest class is never collected; it would go as it is.
    CLASSES.into_iter().find(|class| length <= *class).unwrap_or(length)
}

/// The padded length of a batch of `length` bytes that holds something of BULK: Padmé.
pub(crate) fn padme(length: usize) -> usize {
    let Some(exponent) = length.checked_ilog2().filter(|exponent| *exponent > 0) else { return length };
    let significant = exponent.ilog2() + 1;
    let step = 1 << exponent.saturating_sub(significant);
    length.next_multiple_of(step)
}

/// Zero bytes to pad with.
pub(crate) static ZEROS: [u8; MAX_BATCH] = [0; MAX_BATCH];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_without_bulk_shows_one_of_four_lengths() {
        for length in 1..=MAX_BATCH {
            let padded = class(length);
            assert!(padded >= length && CLASSES.contains(&padded));
            assert!(CLASSES.iter().all(|class| *class >= padded || *class < length), "{length} fits a smaller class");
        }
    }

    #[test]
    fn padme_costs_at_most_an_eighth_and_keeps_full_batches() {
        // The paper's bound is 12 percent, reached at small lengths.
        for length in 1..=MAX_BATCH {
            let padded = padme(length);
            assert!(padded >= length && (padded - length) * 8 <= length, "{length} -> {padded}");
            assert_eq!(padme(padded), padded, "padding twice changes nothing");
        }
        assert_eq!((padme(MAX_BATCH), padme(9), padme(1_000), padme(16_385)), (MAX_BATCH, 10, 1_024, 17_408));
    }
}
