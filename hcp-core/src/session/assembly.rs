//! Puts the frames of one message together, with one copy at its end: how long it is shows only there.

use bytes::Bytes;

/// Parts shorter than this are put together as they come, so that many small ones do not cost many times their length.
const SMALL: usize = 4 * 1024;

/// The beginning of a message.
#[derive(Debug, Default)]
pub(super) struct Assembly {
    parts: Vec<Bytes>,
    /// Small parts behind the last large one.
    tail: Vec<u8>,
    length: usize,
}

impl Assembly {
    pub(super) fn len(&self) -> usize {
        self.length
    }

    pub(super) fn push(&mut self, part: Bytes) {
        self.length += part.len();
        if part.len() < SMALL {
            self.tail.extend_from_slice(&part);
            return;
        }
        if !self.tail.is_empty() {
            self.parts.push(std::mem::take(&mut self.tail).into());
        }
        self.parts.push(part);
    }

    /// The message that `last` ends.
    pub(super) fn finish(self, last: Bytes) -> Bytes {
        if self.length == 0 {
            return last;
        }
        let mut message = Vec::with_capacity(self.length + last.len());
        self.parts.iter().for_each(|part| message.extend_from_slice(part));
        message.extend_from_slice(&self.tail);
        message.extend_from_slice(&last);
        message.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_any_length_come_out_in_order() {
        let lengths = [0, 1, 5_000, 4_095, 4_096, 0, 3, 20_000, 7];
        let parts = lengths.map(|length| (0..length).map(|i| (i % 251) as u8).collect::<Bytes>());
        for last in 0..parts.len() {
            let mut assembly = Assembly::default();
            parts[..last].iter().for_each(|part| assembly.push(part.clone()));
            assert_eq!(assembly.len(), lengths[..last].iter().sum::<usize>());
            assert_eq!(assembly.finish(parts[last].clone()), parts[..=last].concat());
        }
    }
}
