//! Values that several nodes may write: later writes supersede what their author had seen, concurrent ones are kept, and
//! every node shows the same.

use std::collections::BTreeMap;

use crate::replica::log::vector::{Split, Spot, Write};
use crate::replica::place::Stamp;

/// A multi-value register.
///
/// Feed it writes in causal order. Two nodes that applied the same writes, in whatever causal order, hold the same values and
/// show the same one of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Register<T> {
    /// The writes that no other write supersedes, in the order of their spots.
    values: Vec<(Spot, Stamp, T)>,
}

impl<T> Default for Register<T> {
    fn default() -> Self {
        Self { values: Vec::new() }
    }
}

impl<T> Register<T> {
    /// Applies a write.
    pub fn write(&mut self, write: &Write, value: T) {
        self.values.retain(|(spot, ..)| !write.supersedes(spot));
        let at = self.values.partition_point(|(spot, ..)| *spot < write.spot);
        self.values.insert(at, (write.spot, write.stamp, value));
    }

    /// Renames what a fork gave other names.
    pub fn split(&mut self, split: &Split) {
        self.rename(|spot| split.rename(spot));
    }

    /// Gives every spot the name that `rename` has for it.
    pub fn rename(&mut self, mut rename: impl FnMut(&mut Spot)) {
        self.values.iter_mut().for_each(|(spot, ..)| rename(spot));
        self.values.sort_unstable_by_key(|(spot, ..)| *spot);
    }

    /// The value that every node shows: the one with the highest stamp, then the highest spot. `None` before the first write.
    pub fn value(&self) -> Option<&T> {
        self.newest().map(|(_, _, value)| value)
    }

    /// Stamp and spot of the shown value.
    pub fn written(&self) -> Option<(Stamp, Spot)> {
        self.newest().map(|(spot, stamp, _)| (*stamp, *spot))
    }

    /// All concurrent values with what [`FromIterator`] takes, for a state that is stored: in one order.
    pub fn values(&self) -> impl ExactSizeIterator<Item = (Spot, Stamp, &T)> {
        self.values.iter().map(|(spot, stamp, value)| (*spot, *stamp, value))
    }

    fn newest(&self) -> Option<&(Spot, Stamp, T)> {
        self.values.iter().max_by_key(|(spot, stamp, _)| (*stamp, *spot))
    }
}

impl<T> FromIterator<(Spot, Stamp, T)> for Register<T> {
    /// Takes what [`values`](Self::values) gave.
    fn from_iter<I: IntoIterator<Item = (Spot, Stamp, T)>>(values: I) -> Self {
        let mut values: Vec<_> = values.into_iter().collect();
        values.sort_unstable_by_key(|(spot, ..)| *spot);
        Self { values }
    }
}

/// A set in which what was added while somebody else removed it stays.
///
/// Feed it writes in causal order. A removal takes away what its author had seen; two nodes that applied the same writes, in
/// whatever causal order, hold the same set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Set<T> {
    /// For each element the additions that nothing has removed or repeated.
    elements: BTreeMap<T, Vec<Spot>>,
}

impl<T> Default for Set<T> {
    fn default() -> Self {
        Self { elements: BTreeMap::new() }
    }
}

impl<T: Ord> Set<T> {
    /// Adds an element.
    pub fn insert(&mut self, write: &Write, element: T) {
        let added = self.elements.entry(element).or_default();
        added.retain(|spot| !write.supersedes(spot));
        let at = added.partition_point(|spot| *spot < write.spot);
        added.insert(at, write.spot);
    }

    /// Removes an element, as far as the author of the write had seen it added.
    pub fn remove(&mut self, write: &Write, element: &T) {
        if let Some(added) = self.elements.get_mut(element) {
            added.retain(|spot| !write.supersedes(spot));
            if added.is_empty() {
                self.elements.remove(element);
            }
        }
    }

    /// Renames what a fork gave other names.
    pub fn split(&mut self, split: &Split) {
        for added in self.elements.values_mut() {
            added.iter_mut().for_each(|spot| split.rename(spot));
            added.sort_unstable();
        }
    }

    /// Whether an element is in it.
    pub fn contains(&self, element: &T) -> bool {
        self.elements.contains_key(element)
    }

    /// The elements, in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &T> {
        self.elements.keys()
    }

    /// The elements with the spots at which they were added, for a state that is stored: what [`FromIterator`] takes.
    pub fn additions(&self) -> impl Iterator<Item = (&T, Spot)> {
        self.elements.iter().flat_map(|(element, added)| added.iter().map(move |spot| (element, *spot)))
    }
}

impl<T: Ord> FromIterator<(T, Spot)> for Set<T> {
    /// Takes what [`additions`](Self::additions) gave.
    fn from_iter<I: IntoIterator<Item = (T, Spot)>>(additions: I) -> Self {
        let mut set = Self::default();
        for (element, spot) in additions {
            set.elements.entry(element).or_default().push(spot);
        }
        set.elements.values_mut().for_each(|added| added.sort_unstable());
        set
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replica::log::vector::Writer;
    use crate::replica::place::{Incarnation, LogId, NodeId};

    fn log(n: u8) -> LogId {
        LogId { node: NodeId([n; 32]), incarnation: Incarnation([n; 16]) }
    }

    fn write(n: u8, seq: u64, millis: u64, seen: &[(u8, u64)]) -> Write {
        Write {
            spot: Spot { writer: Writer::trunk(log(n)), seq, index: 0 },
            stamp: Stamp { millis, counter: 0 },
            past: seen.iter().map(|(n, seq)| (log(*n), *seq)).collect(),
            instead: None,
        }
    }

    #[test]
    fn a_write_supersedes_what_its_author_had_seen_whatever_the_clocks_say() {
        let mut register = Register::default();
        register.write(&write(1, 1, 900, &[]), "fast clock");
        register.write(&write(2, 1, 100, &[(1, 1)]), "slow clock");
        assert_eq!(register.value(), Some(&"slow clock"));
        assert_eq!(register.values().len(), 1);
    }

    #[test]
    fn concurrent_writes_resolve_alike_in_either_order() {
        let (a, b) = (write(1, 1, 100, &[]), write(2, 1, 200, &[]));
        let (mut one, mut two) = (Register::default(), Register::default());
        one.write(&a, 'a');
        one.write(&b, 'b');
        two.write(&b, 'b');
        two.write(&a, 'a');
        assert_eq!(one, two);
        assert_eq!((one.values().len(), one.value()), (2, Some(&'b')));
        let restored: Register<char> = one.values().map(|(spot, stamp, value)| (spot, stamp, *value)).collect();
        assert_eq!(restored, one);
    }

    #[test]
    fn a_later_entry_of_one_segment_supersedes_an_earlier_one() {
        let mut register = Register::default();
        let mut second = write(1, 1, 100, &[]);
        second.spot.index = 1;
        register.write(&write(1, 1, 100, &[]), 1);
        register.write(&second, 2);
        assert_eq!((register.values().len(), register.value()), (1, Some(&2)));
    }

    #[test]
    fn what_is_appended_again_takes_the_place_of_its_first_copy() {
        let mut register = Register::default();
        let first = write(1, 1, 100, &[]);
        register.write(&first, 'a');
        register.write(&write(2, 1, 50, &[]), 'b');
        let again = Write { instead: Some(first.spot), ..write(3, 1, 100, &[]) };
        register.write(&again, 'a');
        assert_eq!((register.values().len(), register.value()), (2, Some(&'a')));
        assert_eq!(again.first(), first.spot);
    }

    #[test]
    fn what_is_added_while_it_is_removed_elsewhere_stays() {
        let (add, other) = (write(1, 1, 100, &[]), write(2, 1, 100, &[]));
        let removal = write(3, 1, 900, &[(1, 1)]);
        for order in [[0, 1, 2], [0, 2, 1], [1, 0, 2]] {
            let mut set = Set::default();
            for what in order {
                match what {
                    0 => set.insert(&add, "x"),
                    1 => set.insert(&other, "x"),
                    _ => set.remove(&removal, &"x"),
                }
            }
            assert!(set.contains(&"x"), "{order:?}");
            assert_eq!(set.additions().map(|(_, spot)| spot).collect::<Vec<_>>(), [other.spot]);
        }
        let mut set = Set::default();
        set.insert(&add, "x");
        set.remove(&removal, &"x");
        assert_eq!(set, Set::default());
    }

    #[test]
    fn a_fork_renames_what_stands_behind_it() {
        let mut register = Register::default();
        register.write(&write(1, 3, 100, &[]), 'a');
        let split = Split { from: Writer::trunk(log(1)), at: 2, name: [9; 32] };
        register.split(&split);
        let (spot, ..) = register.values().next().unwrap();
        assert_eq!(spot.writer, Writer { log: log(1), branch: [9; 32] });
        assert_eq!(Spot::from_bytes(&spot.to_bytes()), spot);
    }
}
