//! Puts the frames of one message together: each is copied once, to where the message will be.
//!
//! How long a message is shows only at its end, so room is made ahead for one like the last on its stream. That is the peer's
//! to choose, so what is ahead of what came is taken out of the session's pool, and there is none when that is empty.

use std::borrow::Cow;

use bytes::Bytes;

use crate::wire::{MAX_BATCH, owned};

/// Room is made ahead for at most so many times what came, so that a short beginning does not hold much.
const AHEAD: usize = 8;

/// The beginning of a message.
#[derive(Debug)]
pub(super) struct Assembly {
    message: Vec<u8>,
    /// What of the session's pool is in the room behind it.
    ahead: u64,
    /// How long the last message of several frames was.
    last: usize,
}

impl Default for Assembly {
    fn default() -> Self {
        Self { message: Vec::new(), ahead: 0, last: MAX_BATCH }
    }
}

impl Assembly {
    pub(super) fn len(&self) -> usize {
        self.message.len()
    }

    /// What it takes of memory.
    pub(super) fn room(&self) -> usize {
        self.message.capacity()
    }

    /// What it has of the session's pool.
    pub(super) fn ahead(&self) -> u64 {
        self.ahead
    }

    pub(super) fn push(&mut self, part: &[u8], pool: &mut u64) {
        let length = self.len() + part.len();
        if length > self.message.capacity() {
            *pool += std::mem::take(&mut self.ahead);
            let wished = self.last.min(AHEAD * length).saturating_sub(length);
            let granted = usize::try_from(*pool).unwrap_or(usize::MAX).min(wished);
            self.message.reserve_exact(part.len() + granted);
            self.ahead = (self.message.capacity() - length) as u64;
            *pool = pool.saturating_sub(self.ahead);
        }
        self.message.extend_from_slice(part);
    }

    /// The message that `last` ends. What the assembly had of the pool goes back there.
    pub(super) fn finish(&mut self, last: Cow<'_, [u8]>, pool: &mut u64) -> Bytes {
        if self.message.is_empty() {
            return owned(last);
        }
        self.push(&last, pool);
        *pool += std::mem::take(&mut self.ahead);
        let mut message = std::mem::take(&mut self.message);
        self.last = message.len();
        // It may wait for long, and counts as what it has.
        message.shrink_to_fit();
        message.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LENGTHS: [usize; 9] = [0, 1, 5_000, 4_095, 4_096, 0, 3, 20_000, 7];

    fn parts() -> [Vec<u8>; LENGTHS.len()] {
        LENGTHS.map(|length| (0..length).map(|i| (i % 251) as u8).collect())
    }

    #[test]
    fn parts_of_any_length_come_out_in_order_whatever_the_pool() {
        let parts = parts();
        for full in [0, 1_000, 1 << 20] {
            let (mut assembly, mut pool) = (Assembly::default(), full);
            for last in 0..parts.len() {
                parts[..last].iter().for_each(|part| assembly.push(part, &mut pool));
                assert_eq!(assembly.len(), LENGTHS[..last].iter().sum::<usize>());
                let message = assembly.finish(Cow::Borrowed(&parts[last]), &mut pool);
                assert_eq!(message, parts[..=last].concat());
                assert_eq!((pool, assembly.room()), (full, 0), "what was ahead is given back");
            }
        }
    }

    #[test]
    fn what_is_ahead_of_what_came_is_in_the_pool_and_within_it() {
        let (mut assembly, mut pool) = (Assembly::default(), 1 << 20);
        assembly.push(&[1; 300_000], &mut pool);
        assembly.finish(Cow::Borrowed(&[1; 200_000]), &mut pool);
        for full in [0, 1_000, 100_000, 1 << 20] {
            let (mut pool, mut came) = (full, 0);
            for length in [1, 10_000, 30_000, 0, 1, 300_000, 150_000] {
                assembly.push(&vec![1; length], &mut pool);
                came += length;
                assert_eq!(full - pool, assembly.ahead());
                assert!(assembly.room() <= came + assembly.ahead() as usize, "{} for {came}", assembly.room());
                assert!(assembly.room() <= came.max(AHEAD * came.min(500_000)), "little came");
            }
            assembly.finish(Cow::Borrowed(&[]), &mut pool);
            assembly.last = 500_000;
        }
    }
}
