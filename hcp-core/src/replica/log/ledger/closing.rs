//! Which logs are closed, and by what: a function of the segments that were applied, in whatever order.
//!
//! A log is closed when two of its segments stand at one place, when a later run of its node has begun that knew of it, and
//! when a manifest without its node is newer than the one it began under.

use super::super::entry::Fork;
use super::super::keys::Keys;
use super::super::vector::Writer;
use super::super::wire::Head;
use super::{Change, Ledger, is_member};
use crate::identity::manifest::Manifest;
use crate::replica::place::{LogId, NodeId};

impl Ledger {
    /// A new run ends those of the same node that it names.
    pub(super) fn close_ended(&mut self, head: &Head, writer: Writer, changes: &mut Vec<Change>) {
        let named = head.dependencies.iter().map(|tip| tip.log).filter(|log| log.node == head.log.node);
        for log in named {
            self.close(log, writer, head.seq, changes, |log| log.ended = true);
        }
    }

    /// Takes the proof of a fork, if it is one.
    pub(super) fn close_forked(
        &mut self,
        keys: &Keys,
        fork: &Fork,
        writer: Writer,
        seq: u64,
        changes: &mut Vec<Change>,
    ) {
        let log = fork.one.log;
        let known = self.logs.get(&log).is_some_and(|log| log.forked && log.closers.contains_key(&writer));
        if known || !is_proven(keys, fork) {
            return;
        }
        // The proof may come before anything of the log.
        if !self.is_forgotten(&log) {
            self.logs.entry(log).or_insert_with(|| super::Log::begun(0));
        }
        self.close(log, writer, seq, changes, |log| log.forked = true);
    }

    /// Takes a manifest, if it is the owner's; the newest counts, whatever came first.
    pub(super) fn take_manifest(
        &mut self,
        keys: &Keys,
        bytes: &[u8],
        writer: Writer,
        seq: u64,
        changes: &mut Vec<Change>,
    ) {
        if self.manifests.iter().any(|manifest| manifest.to_bytes() == bytes) {
            return;
        }
        let Ok(manifest) = Manifest::signed_by(keys.service, keys.owner, bytes) else { return };
        let at = self.manifests.partition_point(|known| manifest.supersedes(known));
        let newest = at == self.manifests.len();
        self.manifests.insert(at, manifest.clone());
        if self.manifests.len() > MAX_MANIFESTS {
            self.manifests.remove(0);
        }
        if newest {
            changes.push(Change::Manifest(manifest));
        }
        let logs: Vec<LogId> = self.logs.keys().copied().collect();
        for log in logs {
            if self.is_removed(&log) {
                self.close(log, writer, seq, changes, |log| log.removed = true);
            }
        }
    }

    pub(super) fn close_removed_log(&mut self, log: LogId, changes: &mut Vec<Change>) {
        if self.is_removed(&log)
            && let Some(known) = self.logs.get_mut(&log)
            && !known.removed
        {
            let was_open = known.is_open();
            known.removed = true;
            if was_open {
                changes.push(Change::Closed(log));
            }
        }
    }

    fn is_removed(&self, log: &LogId) -> bool {
        let Some(began) = self.logs.get(log).map(|log| log.began) else { return false };
        self.manifests.iter().any(|manifest| lacks(manifest, &log.node) && manifest.contents().version() > began)
    }

    fn close(
        &mut self,
        id: LogId,
        writer: Writer,
        seq: u64,
        changes: &mut Vec<Change>,
        why: impl FnOnce(&mut super::Log),
    ) {
        let Some(log) = self.logs.get_mut(&id) else { return };
        let was_open = log.is_open();
        why(log);
        let first = log.closers.entry(writer).or_insert(seq);
        *first = seq.min(*first);
        if was_open {
            changes.push(Change::Closed(id));
        }
    }
}

fn lacks(manifest: &Manifest, node: &NodeId) -> bool {
    !is_member(manifest, node)
}

/// Whether the author of the log signed both segments.
pub(crate) fn is_proven(keys: &Keys, fork: &Fork) -> bool {
    let (one, other) = (fork.one, fork.other());
    let signed = |tip: &super::Tip, signature| (keys.verify)(&tip.log.node, &tip.signed(keys.service_key()), signature);
    one.hash != other.hash && signed(&one, &fork.one_signature) && signed(&other, &fork.other_signature)
}

/// Manifests that are remembered, so that a log whose node was once no member stays closed: an owner changes members some
/// times a year.
const MAX_MANIFESTS: usize = 64;
