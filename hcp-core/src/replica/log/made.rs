//! Segments made by hand, and ledgers that take them in the order in which a test gives them.

use std::sync::Arc;

use super::entry::{self, Entry};
use super::ledger::{Applied, Ledger, Slot};
use super::simulation::cast::Cast;
use super::storage::{Branch, Position, Row};
use super::wire::{Head, Segment, Tip};
use crate::replica::place::{Incarnation, LogId, Stamp};

/// A signed segment with its entries.
pub(super) struct Made {
    pub(super) segment: Arc<Segment>,
    entries: Vec<Entry>,
}

/// A run of a node of the cast.
pub(super) fn log(cast: &Cast, node: usize, run: u8) -> LogId {
    LogId { node: cast.nodes[node], incarnation: Incarnation([run; 16]) }
}

/// The segment behind another one of its log, or its first.
pub(super) fn make(cast: &Cast, log: LogId, before: Option<&Made>, seen: &[&Made], entries: Vec<Entry>) -> Made {
    make_under(cast, 1, log, before, seen, entries)
}

/// The same of an author who knew another manifest than the first.
pub(super) fn make_under(
    cast: &Cast,
    manifest: u64,
    log: LogId,
    before: Option<&Made>,
    seen: &[&Made],
    entries: Vec<Entry>,
) -> Made {
    let mut dependencies: Vec<Tip> = seen.iter().map(|made| made.segment.tip()).collect();
    dependencies.sort_unstable();
    let keys = &cast.keys[cast.nodes.iter().position(|node| *node == log.node).unwrap()];
    let head = Head {
        log,
        seq: before.map_or(1, |made| made.segment.head.seq + 1),
        previous: before.map_or([0; 32], |made| made.segment.hash),
        stamp: Stamp { millis: 1_000_000, counter: 0 },
        manifest,
        system: entries.iter().any(Entry::is_system),
        dependencies,
        payload_root: [0; 32],
    };
    let payload = entry::payload([0; entry::SALT], &entries);
    let segment = Segment::make(head, payload, |tip| (keys.sign)(&tip.signed(keys.service_key())));
    Made { segment: Arc::new(segment), entries }
}

pub(super) fn manifest(cast: &Cast, index: usize) -> Entry {
    Entry::Manifest(cast.manifests[index].to_bytes().into())
}

pub(super) fn plain(text: &'static str) -> Entry {
    Entry::Plain(text.as_bytes().into())
}

impl Made {
    pub(super) fn row(&self, position: u64) -> Row {
        let Segment { head, hash, header, signature, payload } = &*self.segment;
        Row {
            position: Position(position),
            log: head.log,
            seq: head.seq,
            branch: Branch(0),
            hash: *hash,
            header: header.clone(),
            signature: bytes::Bytes::copy_from_slice(signature),
            payload: Some(payload.clone()),
            system: head.system,
        }
    }
}

/// Of logs that do not fork.
pub(super) fn apply(cast: &Cast, ledger: &mut Ledger, made: &Made) -> Applied {
    apply_to(cast, ledger, made, Slot::Extends(Branch(0)))
}

/// Where what it names does not fork.
pub(super) fn apply_to(cast: &Cast, ledger: &mut Ledger, made: &Made, slot: Slot) -> Applied {
    let head = &made.segment.head;
    let resolved: Vec<_> = head.dependencies.iter().map(|tip| (*tip, Branch(0))).collect();
    ledger.apply(&cast.keys[0], head, made.segment.hash, &made.entries, slot, &resolved)
}

pub(super) fn ledger_of(cast: &Cast, order: &[&Made]) -> Ledger {
    let mut ledger = Ledger::default();
    for made in order {
        apply(cast, &mut ledger, made);
    }
    ledger
}
