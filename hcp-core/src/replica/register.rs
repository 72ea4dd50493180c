//! A value that several nodes may write: later writes supersede what their author had seen, concurrent ones
//! are kept and every node shows the same one.

use super::place::{Past, Place, Stamp};

/// The facts about a write that decide which write wins.
#[derive(Clone, Debug)]
pub struct Write {
    /// Where the writing entry stands.
    pub place: Place,
    /// Its clock reading; breaks ties between concurrent writes only.
    pub stamp: Stamp,
    /// What its author had seen.
    pub past: Past,
}

impl Write {
    /// Whether this write supersedes one at `earlier`: its author had seen it, or wrote it before in the same segment or log.
    fn supersedes(&self, earlier: &Place) -> bool {
        if self.place.log == earlier.log { *earlier < self.place } else { self.past.has_seen(earlier) }
    }
}

/// A multi-value register.
///
/// Feed it writes in causal order. Two nodes that applied the same writes, in whatever causal order, show the same value.
#[derive(Clone, Debug)]
pub struct Register<T> {
    /// The writes that no other write supersedes; never more than one for each log.
    values: Vec<(Stamp, Place, T)>,
}

impl<T> Default for Register<T> {
    fn default() -> Self {
        Self { values: Vec::new() }
    }
}

impl<T> Register<T> {
    /// Applies a write.
    pub fn write(&mut self, write: &Write, value: T) {
        self.values.retain(|(_, place, _)| !write.supersedes(place));
        self.values.push((write.stamp, write.place, value));
    }

    /// The value that every node shows: the one with the highest stamp, then the highest place. `None` before the first write.
    pub fn value(&self) -> Option<&T> {
        self.newest().map(|(_, _, value)| value)
    }

    /// Stamp and place of the shown value.
    pub fn written(&self) -> Option<(Stamp, Place)> {
        self.newest().map(|(stamp, place, _)| (*stamp, *place))
    }

    /// How many concurrent values are held.
    pub fn concurrent(&self) -> usize {
        self.values.len()
    }

    fn newest(&self) -> Option<&(Stamp, Place, T)> {
        self.values.iter().max_by_key(|(stamp, place, _)| (*stamp, *place))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replica::{Incarnation, LogId, NodeId};

    fn log(n: u8) -> LogId {
        LogId { node: NodeId([n; 32]), incarnation: Incarnation([n; 16]) }
    }

    fn write(n: u8, seq: u64, millis: u64, seen: &[(u8, u64)]) -> Write {
        Write {
            place: Place { log: log(n), seq, index: 0 },
            stamp: Stamp { millis, counter: 0 },
            past: seen.iter().map(|(n, seq)| (log(*n), *seq)).collect(),
        }
    }

    #[test]
    fn a_write_supersedes_what_its_author_had_seen_whatever_the_clocks_say() {
        let mut register = Register::default();
        register.write(&write(1, 1, 900, &[]), "fast clock");
        register.write(&write(2, 1, 100, &[(1, 1)]), "slow clock");
        assert_eq!(register.value(), Some(&"slow clock"));
        assert_eq!(register.concurrent(), 1);
    }

    #[test]
    fn concurrent_writes_resolve_alike_in_either_order() {
        let (a, b) = (write(1, 1, 100, &[]), write(2, 1, 200, &[]));
        let (mut one, mut two) = (Register::default(), Register::default());
        one.write(&a, 'a');
        one.write(&b, 'b');
        two.write(&b, 'b');
        two.write(&a, 'a');
        assert_eq!(one.value(), two.value());
        assert_eq!((one.concurrent(), one.value()), (2, Some(&'b')));
    }

    #[test]
    fn a_later_entry_of_one_log_supersedes_an_earlier_one_of_the_same_segment() {
        let mut register = Register::default();
        let mut second = write(1, 1, 100, &[]);
        second.place.index = 1;
        register.write(&write(1, 1, 100, &[]), 1);
        register.write(&second, 2);
        assert_eq!((register.concurrent(), register.value()), (1, Some(&2)));
    }
}
