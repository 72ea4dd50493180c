//! What the log makes of the owner's manifests: which is the newest, and whose logs are closed by one that lacks their node.
//!
//! A function of the manifests that were applied, in whatever order, and no longer than there were ever members: whatever is
//! remembered of a manifest was so from when it was applied first, as "the newest of all" and "the newest that lacks a node"
//! only ever pass to later ones.

use std::collections::{BTreeMap, BTreeSet};

use super::super::storage::Hash;
use super::super::vector::Split;
use super::closing::{Here, Places};
use super::is_member;
use crate::identity::manifest::Manifest;
use crate::replica::place::{LogId, NodeId};

/// A manifest by its version, and the hash of its bytes.
pub(crate) type ManifestId = (u64, Hash);

#[derive(Clone, Debug, Default)]
pub(crate) struct Manifests {
    pub(crate) newest: Option<Manifest>,
    /// The newest, and those that `members` names, with where they stand.
    pub(crate) told: BTreeMap<ManifestId, Places>,
    /// All nodes that were ever members, each with the newest manifest that lacks it.
    pub(crate) members: BTreeMap<NodeId, Option<ManifestId>>,
    /// Others that are the owner's and say nothing any more; so that they are not looked at again.
    past: BTreeSet<Hash>,
}

/// What tells one manifest from another.
pub(crate) fn manifest_hash(bytes: &[u8]) -> Hash {
    blake3::derive_key(MANIFEST_CONTEXT, bytes)
}

impl Manifests {
    /// Notes that a manifest stands here, too; whether that is all there is to know of it.
    pub(super) fn note(&mut self, hash: &Hash, here: &Here) -> bool {
        match self.told.iter_mut().find(|((_, known), _)| known == hash) {
            Some((_, places)) => here.note(places),
            None => return self.past.contains(hash),
        }
        true
    }

    /// Takes one that was not noted; whether it is the newest.
    pub(super) fn take(&mut self, manifest: &Manifest, hash: Hash, here: &Here) -> bool {
        let contents = manifest.contents();
        let members: BTreeSet<_> = contents.members().iter().map(|one| NodeId(*one.log_key().as_bytes())).collect();
        let (id, last) = ((contents.version(), hash), self.last());
        for node in &members {
            // No other one has it so far.
            self.members.entry(*node).or_insert(last);
        }
        for (_, lacking) in self.members.iter_mut().filter(|(node, _)| !members.contains(node)) {
            *lacking = (*lacking).max(Some(id));
        }
        here.note(self.told.entry(id).or_default());
        let named: BTreeSet<ManifestId> = self.members.values().flatten().copied().chain(self.last()).collect();
        self.told.retain(|id, _| named.contains(id));
        if !named.contains(&id) && self.past.len() < MAX_PAST {
            self.past.insert(hash);
        }
        let Some(newest) = &self.newest else {
            self.newest = Some(manifest.clone());
            return true;
        };
        let supersedes = manifest.supersedes(newest);
        // The same may be signed twice, with other bytes.
        let same = !supersedes && !newest.supersedes(manifest);
        if supersedes || (same && manifest.to_bytes() < newest.to_bytes()) {
            self.newest = Some(manifest.clone());
        }
        supersedes
    }

    /// The one of the highest version.
    fn last(&self) -> Option<ManifestId> {
        self.told.last_key_value().map(|(id, _)| *id)
    }

    /// The newest that lacks a log's node, with where it stands, if it is newer than the one under which the log began; or if the
    /// one that counts lacks the node, whatever the log says that it began under: who has a later one says it with its first
    /// segment.
    pub(super) fn removing(&self, log: &LogId, began: u64) -> Option<&Places> {
        let lacking = self.members.get(&log.node).copied().unwrap_or_else(|| self.last())?;
        let is_out = || self.newest.as_ref().is_some_and(|newest| !is_member(newest, &log.node));
        self.told.get(&lacking).filter(|_| lacking.0 > began || is_out())
    }

    pub(super) fn split(&mut self, split: &Split) {
        self.told.values_mut().for_each(|places| split.rename_place(places));
    }
}

/// Manifests that say nothing any more and are known by their hashes; a further one costs a signature each time.
const MAX_PAST: usize = 1_024;
const MANIFEST_CONTEXT: &str = "HCP/1 manifest in a log";
