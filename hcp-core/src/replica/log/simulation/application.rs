//! The application of every node, and what is known of each entry from outside.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use bytes::Bytes;

use super::cast::Cast;
use super::{Checked, Counts};
use crate::identity::fields::Fields;
use crate::replica::log::ledger::{Item, Turn};
use crate::replica::log::machine::Delivery;
use crate::replica::log::storage::Position;
use crate::replica::log::vector::{Split, Spot, Write, Writer};
use crate::replica::log::wire::{put_log, take_log};
use crate::replica::place::{LogId, Place, Stamp};

/// Names an entry, whoever wrote it; from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct EntryId(pub(super) u64);

/// What is known of an entry from outside.
#[derive(Clone, Debug)]
pub(super) struct Known {
    pub(super) author: usize,
    /// What its author's application had applied.
    seen: Seen,
    /// Where it is durable.
    pub(super) place: Option<Place>,
    pub(super) holders: BTreeSet<usize>,
    pub(super) refused: bool,
}

/// A set of entries.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Seen(Vec<u64>);

impl Seen {
    pub(super) fn insert(&mut self, id: EntryId) -> bool {
        let (word, bit) = (id.0 as usize / 64, id.0 % 64);
        if self.0.len() <= word {
            self.0.resize(word + 1, 0);
        }
        let new = self.0[word] & (1 << bit) == 0;
        self.0[word] |= 1 << bit;
        new
    }

    fn remove(&mut self, id: EntryId) {
        if let Some(word) = self.0.get_mut(id.0 as usize / 64) {
            *word &= !(1 << (id.0 % 64));
        }
    }

    pub(super) fn contains(&self, id: EntryId) -> bool {
        self.0.get(id.0 as usize / 64).is_some_and(|word| word & (1 << (id.0 % 64)) != 0)
    }

    /// The first entry of this set that is in neither of two others.
    fn beyond(&self, other: &Self, but: &Self) -> Option<EntryId> {
        let word = |set: &Self, at: usize| set.0.get(at).copied().unwrap_or(0);
        let left = |at: usize| self.0[at] & !word(other, at) & !word(but, at);
        let at = (0..self.0.len()).find(|at| left(*at) != 0)?;
        let left = left(at);
        Some(EntryId(at as u64 * 64 + u64::from(left.trailing_zeros())))
    }

    pub(super) fn differs(&self, other: &Self) -> Option<EntryId> {
        let none = Self::default();
        self.beyond(other, &none).or_else(|| other.beyond(self, &none))
    }
}

/// Everything that was written.
#[derive(Debug, Default)]
pub(super) struct Oracle {
    pub(super) entries: Vec<Known>,
    by_log: HashMap<LogId, Vec<EntryId>>,
    /// Entries that their authors append again elsewhere: who had seen them there may come before them.
    pub(super) moved: Seen,
}

impl Oracle {
    pub(super) fn write(&mut self, author: usize, application: &Application) -> EntryId {
        let seen = application.handed.clone();
        self.entries.push(Known { author, seen, place: None, holders: BTreeSet::new(), refused: false });
        EntryId(self.entries.len() as u64)
    }

    /// An entry that a liar makes by itself.
    pub(super) fn invent(&mut self, author: usize) -> EntryId {
        let nobody = BTreeSet::new();
        self.entries.push(Known { author, seen: Seen::default(), place: None, holders: nobody, refused: false });
        EntryId(self.entries.len() as u64)
    }

    pub(super) fn known(&self, id: EntryId) -> Option<&Known> {
        self.entries.get((id.0 as usize).checked_sub(1)?)
    }

    pub(super) fn durable(&mut self, id: EntryId, node: usize, place: Place) {
        if let Some(known) = self.entries.get_mut(id.0 as usize - 1) {
            known.place = Some(place);
            known.holders.insert(node);
            self.by_log.entry(place.log).or_default().push(id);
        }
    }

    pub(super) fn refused(&mut self, id: EntryId) {
        if let Some(known) = self.entries.get_mut(id.0 as usize - 1) {
            known.refused = true;
        }
    }

    /// What a member wrote whom the owner has removed counts only as far as somebody else had seen it.
    pub(super) fn removed(&mut self, node: usize) {
        for (index, known) in self.entries.iter().enumerate() {
            if known.author == node {
                self.moved.insert(EntryId(index as u64 + 1));
            }
        }
    }

    pub(super) fn replicated(&mut self, log: LogId, by: usize, seq: u64) {
        let Some(ids) = self.by_log.get(&log) else { return };
        // The last ones first: what came before was confirmed before.
        for id in ids.iter().rev() {
            let known = &mut self.entries[id.0 as usize - 1];
            if known.place.is_some_and(|place| place.seq <= seq) && !known.holders.insert(by) {
                break;
            }
        }
    }

    /// A node's disk is another one now: what it has is what is on it.
    pub(super) fn restored(&mut self, node: usize, has: &Seen) {
        for (index, known) in self.entries.iter_mut().enumerate() {
            if !has.contains(EntryId(index as u64 + 1)) {
                known.holders.remove(&node);
            }
        }
    }
}

/// What one node's application holds.
#[derive(Clone, Debug, Default)]
pub(super) struct Application {
    pub(super) applied: Seen,
    /// What counts as handed to whoever appends.
    handed: Seen,
    waiting: Vec<(Position, Vec<EntryId>)>,
    taken: Position,
    pub(super) registers: BTreeMap<u8, BTreeMap<Spot, (Stamp, EntryId)>>,
    last: Position,
    /// There are checkpoints.
    pub(super) retention: bool,
}

impl Application {
    pub(super) fn deliver(
        &mut self,
        delivery: &Delivery,
        (honest, latest, runs): (usize, u64, &[Option<LogId>]),
        oracle: &Oracle,
        cast: &Cast,
        counts: &mut Counts,
    ) -> Checked {
        let author = cast.index(&delivery.writer.log.node);
        // Closed logs are covered at once, whatever the application was handed.
        let trusted = if self.retention { honest } else { usize::MAX };
        let open = |spot: &Spot| spot.writer != delivery.writer && runs.contains(&Some(spot.writer.log));
        if delivery.position <= self.last {
            return Err("positions do not ascend".to_owned());
        }
        if delivery.stamp.millis > latest && author.is_some_and(|author| author < honest) {
            return Err("an honest node's clock was dragged along".to_owned());
        }
        self.last = delivery.position;
        let mut ids = Vec::new();
        for item in &delivery.items {
            let Some((id, register)) = decode(&item.body) else { return Err("an entry that nobody wrote".to_owned()) };
            let Some(known) = oracle.known(id) else { return Err("an entry that nobody wrote is applied".to_owned()) };
            if Some(known.author) != author {
                return Err(format!("an entry of node {} is applied as one of {author:?}", known.author));
            }
            let new = self.applied.insert(id);
            match item.turn {
                Turn::First if !new => return Err(format!("entry {} is applied twice", id.0)),
                Turn::Repeated => counts.note("entries that came again"),
                Turn::First => {}
            }
            if let Some(lacking) = known.seen.beyond(&self.applied, &oracle.moved) {
                let other = oracle.known(lacking).map(|known| (known.author, known.place));
                return Err(format!(
                    "entry {} of node {author:?} is applied before {} of {other:?}, which its author had seen",
                    id.0, lacking.0
                ));
            }
            // Of who forked a checkpoint may leave something out.
            if known.author < trusted {
                ids.push(id);
            }
            let facts = facts(delivery, item);
            let values = self.registers.entry(register).or_default();
            for (spot, (_, old)) in values.iter() {
                let sure = oracle.known(*old).is_some_and(|old| old.author < honest) && known.author < honest;
                let sure = sure && !oracle.moved.contains(id);
                if sure && facts.past.has_seen(spot) && !known.seen.contains(*old) && open(spot) {
                    return Err(format!("entry {} supersedes {}, which its author had not seen", id.0, old.0));
                }
                // Who has seen an entry where it counts no more has not seen it where it was appended again.
                let elsewhere = |place: Place| oracle.moved.contains(*old) && place.log != spot.writer.log;
                let elsewhere = oracle.known(*old).and_then(|old| old.place).is_some_and(elsewhere);
                if known.seen.contains(*old) && !elsewhere && !facts.supersedes(spot) {
                    let old = (old.0, oracle.known(*old).map(|old| (old.author, old.place)), spot);
                    return Err(format!(
                        "entry {} of {author:?}, {:?}, does not supersede {old:?}, which its author had seen; its past is {:?}",
                        id.0, facts.spot, facts.past
                    ));
                }
            }
            values.retain(|spot, _| !facts.supersedes(spot));
            if !values.is_empty() {
                counts.note("concurrent writes");
            }
            values.insert(item.spot, (delivery.stamp, id));
        }
        self.waiting.push((delivery.position, ids));
        Ok(())
    }

    /// As [`deliver`](Self::deliver), for the copy that checkpoints are made of.
    pub(super) fn fold(&mut self, delivery: &Delivery) {
        for item in &delivery.items {
            let Some((id, register)) = decode(&item.body) else { continue };
            self.applied.insert(id);
            let facts = facts(delivery, item);
            let values = self.registers.entry(register).or_default();
            values.retain(|spot, _| !facts.supersedes(spot));
            values.insert(item.spot, (facts.stamp, id));
        }
    }

    /// The state in one form.
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::new();
        let words = self.applied.0.iter().rposition(|word| *word != 0).map_or(0, |last| last + 1);
        out.extend_from_slice(&(words as u32).to_be_bytes());
        self.applied.0[..words].iter().for_each(|word| out.extend_from_slice(&word.to_be_bytes()));
        for (register, values) in &self.registers {
            for (spot, (stamp, id)) in values {
                out.push(*register);
                put_log(&mut out, &spot.writer.log);
                out.extend_from_slice(&spot.writer.branch);
                out.extend_from_slice(&spot.seq.to_be_bytes());
                out.extend_from_slice(&spot.index.to_be_bytes());
                out.extend_from_slice(&stamp.millis.to_be_bytes());
                out.extend_from_slice(&stamp.counter.to_be_bytes());
                out.extend_from_slice(&id.0.to_be_bytes());
            }
        }
        out
    }

    pub(super) fn from_bytes(state: &[u8]) -> Option<Self> {
        let mut fields = Fields::new(state);
        let mut application = Self::default();
        for _ in 0..fields.u32()? {
            application.applied.0.push(fields.u64()?);
        }
        while let Some(register) = fields.u8() {
            let writer = Writer { log: take_log(&mut fields)?, branch: fields.take()? };
            let spot = Spot { writer, seq: fields.u64()?, index: fields.u32()? };
            let stamp = Stamp { millis: fields.u64()?, counter: fields.u32()? };
            let id = EntryId(fields.u64()?);
            application.registers.entry(register).or_default().insert(spot, (stamp, id));
        }
        application.handed = application.applied.clone();
        Some(application)
    }

    pub(super) fn split(&mut self, split: &Split) {
        for values in self.registers.values_mut() {
            *values = std::mem::take(values)
                .into_iter()
                .map(|(mut spot, value)| {
                    split.rename(&mut spot);
                    (spot, value)
                })
                .collect();
        }
    }

    pub(super) fn take(&mut self, position: Position) {
        self.taken = position.max(self.taken);
    }

    /// Hands out what was taken, and says up to where that is.
    pub(super) fn taken(&mut self) -> Position {
        let taken = self.taken;
        for (_, ids) in self.waiting.extract_if(.., |(position, _)| *position <= taken) {
            for id in ids {
                self.handed.insert(id);
            }
        }
        self.taken
    }

    /// Forgets that what these wrote was handed out.
    pub(super) fn trust(&mut self, oracle: &Oracle, honest: usize) {
        for (index, known) in oracle.entries.iter().enumerate() {
            if known.author >= honest {
                self.handed.remove(EntryId(index as u64 + 1));
            }
        }
    }

    /// When a run begins, everything that is on disk was seen.
    pub(super) fn hand_everything(&mut self) {
        self.taken = self.last;
        self.taken();
    }
}

fn facts(delivery: &Delivery, item: &Item) -> Write {
    let stamp = item.first.map_or(delivery.stamp, |(_, stamp)| stamp);
    let instead =
        item.first.map(|(first, _)| Spot { writer: Writer::trunk(first.log), seq: first.seq, index: first.index });
    Write { spot: item.spot, stamp, past: delivery.past.clone(), instead }
}

pub(super) fn encode(id: EntryId, register: u8, length: usize) -> Bytes {
    let mut entry = Vec::with_capacity(length.max(9));
    entry.extend_from_slice(&id.0.to_be_bytes());
    entry.push(register);
    entry.resize(length.max(9), 0);
    entry.into()
}

pub(super) fn decode(entry: &[u8]) -> Option<(EntryId, u8)> {
    let (id, rest) = entry.split_first_chunk()?;
    Some((EntryId(u64::from_be_bytes(*id)), *rest.first()?))
}
