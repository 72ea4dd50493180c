//! The last messages of a channel.
//!
//! Invariant: what is kept is a function of the set of messages inserted, not of their order: the newest by stamp, as
//! many as both limits allow. For that the newest one dropped is remembered, and nothing older than it gets in again.

use std::collections::BTreeMap;
use std::sync::Arc;

use hcp_core::replica::{Spot, Stamp};

use super::change::Said;

/// Bytes of text and tags that one channel keeps, so that long messages cannot cost a hundred times what short ones do.
const MAX_BYTES: usize = 64 * 1024;

#[derive(Debug, Default)]
pub(super) struct History {
    messages: BTreeMap<(Stamp, Spot), Arc<Said>>,
    bytes: usize,
    dropped: Option<(Stamp, Spot)>,
}

impl History {
    /// Inserts a message, keeping at most `limit`.
    pub(super) fn insert(&mut self, said: Arc<Said>, limit: usize) {
        let key = (said.stamp, said.place);
        if limit == 0 || self.dropped.is_some_and(|dropped| key <= dropped) {
            return;
        }
        self.bytes += said.size();
        if let Some(same) = self.messages.insert(key, said) {
            self.bytes -= same.size();
        }
        while self.messages.len() > limit || self.bytes > MAX_BYTES {
            let Some((key, said)) = self.messages.pop_first() else { return };
            self.bytes -= said.size();
            self.dropped = Some(key);
        }
    }

    /// An empty history in which nothing gets that is not newer than this.
    pub(super) fn beginning_behind(dropped: Option<(Stamp, Spot)>) -> Self {
        Self { dropped, ..Self::default() }
    }

    /// Gives every spot the name that `rename` has for it.
    pub(super) fn rename(&mut self, rename: &impl Fn(&mut Spot)) {
        if let Some((_, spot)) = &mut self.dropped {
            rename(spot);
        }
        let messages = std::mem::take(&mut self.messages).into_iter();
        let renamed = |((stamp, mut spot), said): ((Stamp, Spot), Arc<Said>)| {
            rename(&mut spot);
            let said = if said.place == spot { said } else { Arc::new(Said { place: spot, ..(*said).clone() }) };
            ((stamp, spot), said)
        };
        self.messages = messages.map(renamed).collect();
    }

    /// The newest message that is not kept any more.
    pub(super) fn dropped(&self) -> Option<(Stamp, Spot)> {
        self.dropped
    }

    pub(super) fn iter(&self) -> impl ExactSizeIterator<Item = &Arc<Said>> {
        self.messages.values()
    }
}

#[cfg(test)]
mod tests {
    use hcp_core::replica::{Incarnation, LogId, NodeId, Writer};

    use super::*;
    use crate::entry::TextKind;

    fn said(seq: u64, len: usize) -> Arc<Said> {
        let log = LogId { node: NodeId([1; 32]), incarnation: Incarnation([1; 16]) };
        Arc::new(Said {
            place: Spot { writer: Writer::trunk(log), seq, index: 0 },
            stamp: Stamp { millis: seq, counter: 0 },
            time: Default::default(),
            source: String::new(),
            claimed: String::new(),
            kind: TextKind::Privmsg,
            text: "x".repeat(len),
            tags: String::new(),
        })
    }

    fn kept(order: &[(u64, usize)], limit: usize) -> Vec<u64> {
        let mut history = History::default();
        for (seq, len) in order {
            history.insert(said(*seq, *len), limit);
        }
        history.iter().map(|said| said.place.seq).collect()
    }

    #[test]
    fn keeps_the_newest_within_the_limit() {
        assert_eq!(kept(&[(1, 1), (3, 1), (2, 1)], 2), [2, 3]);
        assert_eq!(kept(&[(1, 1)], 0), [0; 0]);
    }

    #[test]
    fn what_is_kept_does_not_depend_on_the_order_even_at_the_byte_limit() {
        let (a, b, c) = ((1, 10), (2, MAX_BYTES - 100), (3, 200));
        for order in [[a, b, c], [a, c, b], [b, a, c], [b, c, a], [c, a, b], [c, b, a]] {
            assert_eq!(kept(&order, 200), [3], "{order:?}");
        }
    }
}
