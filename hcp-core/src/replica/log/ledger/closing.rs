//! Which logs are closed, and by what: a function of the segments that were applied, in whatever order.
//!
//! A log is closed when two of its segments stand at one place, when a later run of its node has begun that knew of it, and
//! when a manifest without its node is newer than the one it began under. Where that was said is noted, of each chain of
//! segments the first place: who has seen one of them knows that the log is closed.

use std::collections::BTreeMap;

use super::super::entry::Fork;
use super::super::keys::Keys;
use super::super::storage::Branch;
use super::super::vector::{Vector, Writer};
use super::super::wire::Head;
use super::manifests::manifest_hash;
use super::{Change, Ledger, Log};
use crate::identity::manifest::Manifest;
use crate::replica::place::LogId;

/// Places in the log, of which no two stand on one chain of segments.
pub(crate) type Places = BTreeMap<Writer, u64>;

/// Where something is said that closes logs.
pub(super) struct Here {
    writer: Writer,
    seq: u64,
    /// This segment, and what stands before it in its log.
    path: Vector,
}

impl Here {
    /// Whether the same was said before this on the way to it.
    fn is_late(&self, places: &Places) -> bool {
        places.iter().any(|(writer, seq)| self.path.reaches(writer, *seq))
    }

    /// Notes this place, unless the same was said before: so whatever came first, the same places are noted.
    pub(super) fn note(&self, places: &mut Places) {
        if !self.is_late(places) {
            places.insert(self.writer, self.seq);
        }
    }
}

impl Ledger {
    pub(super) fn here(&self, head: &Head, branch: Branch, writer: Writer) -> Here {
        let mut path = Vector::default();
        if let Some(log) = self.logs.get(&head.log) {
            log.raise(&mut path, head.log, branch, head.seq);
        }
        Here { writer, seq: head.seq, path }
    }

    /// A new run ends those of the same node that it names.
    pub(super) fn close_ended(&mut self, head: &Head, here: &Here, changes: &mut Vec<Change>) {
        let named = head.dependencies.iter().map(|tip| tip.log).filter(|log| log.node == head.log.node);
        for log in named {
            self.close(log, here, changes, |log| log.ended = true);
        }
    }

    /// Takes the proof of a fork, if it is one.
    pub(super) fn close_forked(&mut self, keys: &Keys, fork: &Fork, here: &Here, changes: &mut Vec<Change>) {
        let log = fork.one.log;
        let known = self.logs.get(&log).is_some_and(|log| log.forked && here.is_late(&log.closers));
        if known || !is_proven(keys, fork) {
            return;
        }
        // The proof may come before anything of the log.
        if !self.is_forgotten(&log) {
            self.logs.entry(log).or_insert_with(Log::unknown);
        }
        self.close(log, here, changes, |log| log.forked = true);
    }

    /// Takes a manifest, if it is the owner's; the newest counts, whatever came first.
    pub(super) fn take_manifest(&mut self, keys: &Keys, bytes: &[u8], here: &Here, changes: &mut Vec<Change>) {
        let hash = manifest_hash(bytes);
        if self.manifests.note(&hash, here) {
            return;
        }
        let Ok(manifest) = Manifest::signed_by(keys.service, keys.owner, bytes) else { return };
        if self.manifests.take(&manifest, hash, here) {
            changes.push(Change::Manifest(manifest));
        }
        self.close_removed(changes);
    }

    /// Closes the logs whose nodes a manifest has removed, and no others: a later one may show that one of them began under it.
    pub(super) fn close_removed(&mut self, changes: &mut Vec<Change>) {
        let changed = |(id, log): (&LogId, &Log)| {
            let removed = self.manifests.removing(id, log.began).is_some();
            (log.removed != removed).then_some((*id, removed))
        };
        let changed: Vec<(LogId, bool)> = self.logs.iter().filter_map(changed).collect();
        for (id, removed) in changed {
            if let Some(log) = self.logs.get_mut(&id) {
                if removed && log.is_open() {
                    changes.push(Change::Closed(id));
                }
                log.removed = removed;
            }
        }
    }

    /// Where it was said that a log is closed.
    pub(super) fn closings(&self, id: &LogId, log: &Log) -> Vec<(Writer, u64)> {
        let removing = self.manifests.removing(id, log.began).into_iter().flatten();
        log.closers.iter().chain(removing).map(|(writer, seq)| (*writer, *seq)).collect()
    }

    /// Forgets what was said in logs that are over and done with, but for one place of each kind: everybody has seen that one.
    /// Only where a checkpoint ends, so that it does not depend on what came first.
    pub(super) fn forget_said(&mut self) {
        let forgotten = &self.forgotten;
        for places in self.manifests.told.values_mut().chain(self.logs.values_mut().map(|log| &mut log.closers)) {
            let over = places.iter().find(|(writer, _)| forgotten.contains_key(&writer.log));
            if let Some((writer, seq)) = over.map(|(writer, seq)| (*writer, *seq)) {
                *places = BTreeMap::from([(writer, seq)]);
            }
        }
    }

    fn close(&mut self, id: LogId, here: &Here, changes: &mut Vec<Change>, why: impl FnOnce(&mut Log)) {
        let Some(log) = self.logs.get_mut(&id) else { return };
        if log.is_open() {
            changes.push(Change::Closed(id));
        }
        why(log);
        here.note(&mut log.closers);
    }
}

/// Whether the author of the log signed both segments.
pub(crate) fn is_proven(keys: &Keys, fork: &Fork) -> bool {
    let (one, other) = (fork.one, fork.other());
    let signed = |tip: &super::Tip, signature| (keys.verify)(&tip.log.node, &tip.signed(keys.service_key()), signature);
    one.hash != other.hash && signed(&one, &fork.one_signature) && signed(&other, &fork.other_signature)
}
