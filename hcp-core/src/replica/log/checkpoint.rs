//! Checkpoints: what members sign of a state that stands for everything before a place, and when that is enough.
//!
//! A statement names the segment that asked for it, which names the checkpoint to begin from; its past is what is covered. So
//! all honest members who sign make the same one.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::keys::Keys;
use super::ledger::is_member;
#[cfg(test)]
use super::machine::planted::{Defect, planted};
use super::storage::Hash;
use super::wire::{SIGNATURE, Tip};
use crate::identity::fields::Fields;
use crate::identity::manifest::{Contents, Manifest};
use crate::replica::place::NodeId;

/// What is signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Statement {
    /// The segment that asked, and with it everything that its author had seen.
    pub(crate) asked: Tip,
    /// Version of the newest manifest in what is covered.
    pub(crate) manifest: u64,
    /// Hash of the log's own part.
    pub(crate) summary: Hash,
    /// Root of the application's state.
    pub(crate) root: Hash,
    /// Its length in bytes.
    pub(crate) length: u64,
}

/// A statement with the signatures of members.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Certificate {
    pub(crate) statement: Statement,
    pub(crate) signatures: BTreeMap<NodeId, [u8; SIGNATURE]>,
}

impl Statement {
    pub(crate) fn to_bytes(self) -> Vec<u8> {
        let mut out = Vec::with_capacity(STATEMENT_LEN);
        out.push(LAYOUT);
        self.asked.put(&mut out);
        out.extend_from_slice(&self.manifest.to_be_bytes());
        out.extend_from_slice(&self.summary);
        out.extend_from_slice(&self.root);
        out.extend_from_slice(&self.length.to_be_bytes());
        out
    }

    fn take(fields: &mut Fields<'_>) -> Option<Self> {
        if fields.u8()? != LAYOUT {
            return None;
        }
        Some(Self {
            asked: Tip::take(fields)?,
            manifest: fields.u64()?,
            summary: fields.take()?,
            root: fields.take()?,
            length: fields.u64()?,
        })
    }

    /// Names the statement in votes.
    pub(crate) fn hash(self) -> Hash {
        blake3::derive_key(STATEMENT_CONTEXT, &self.to_bytes())
    }
}

/// What a member signs of a statement that has this hash.
pub(crate) fn signed(service: &[u8; 32], statement: &Hash) -> Vec<u8> {
    [PURPOSE, service, statement].concat()
}

impl Certificate {
    pub(crate) fn to_bytes(&self) -> Bytes {
        let mut out = self.statement.to_bytes();
        // Bounded by the members of a manifest.
        out.push(self.signatures.len() as u8);
        for (node, signature) in &self.signatures {
            out.extend_from_slice(&node.0);
            out.extend_from_slice(signature);
        }
        out.into()
    }

    /// `None` when it is malformed; whether the signatures count is [`is_good`](Self::is_good)'s.
    pub(crate) fn parse(bytes: &[u8]) -> Option<Self> {
        let mut fields = Fields::new(bytes);
        let statement = Statement::take(&mut fields)?;
        let count = usize::from(fields.u8()?);
        if count > Contents::MAX_MEMBERS {
            return None;
        }
        let mut signatures = BTreeMap::new();
        let mut last = None;
        for _ in 0..count {
            let node = NodeId(fields.take()?);
            if last.is_some_and(|last| last >= node) {
                return None;
            }
            last = Some(node);
            signatures.insert(node, fields.take()?);
        }
        fields.end()?;
        Some(Self { statement, signatures })
    }

    /// Whose signatures hold, of those that are looked at.
    pub(crate) fn signers(&self, keys: &Keys, counts: impl Fn(&NodeId) -> bool) -> Vec<NodeId> {
        let message = signed(keys.service_key(), &self.statement.hash());
        let holds = |(node, signature): &(&NodeId, &[u8; SIGNATURE])| (keys.verify)(node, &message, signature);
        self.signatures.iter().filter(|(node, _)| counts(node)).filter(holds).map(|(node, _)| *node).collect()
    }
}

/// Whether a checkpoint that these have signed stands: enough of the members of the manifest that is the newest in it, so
/// that any two sets of them have more members in common than may lie.
pub(crate) fn is_enough<'a>(signers: impl IntoIterator<Item = &'a NodeId>, covered: &Manifest) -> bool {
    let count = signers.into_iter().filter(|node| is_member(covered, node)).count();
    let members = covered.contents().members().len();
    #[cfg(test)]
    if planted(Defect::HalfSuffices) {
        return count * 2 > members;
    }
    count > (members + may_lie(covered)) / 2
}

/// Whether one of these at the least does not lie, by the newest manifest: so the state is what is said.
pub(crate) fn is_true<'a>(signers: impl IntoIterator<Item = &'a NodeId>, newest: &Manifest) -> bool {
    signers.into_iter().filter(|node| is_member(newest, node)).count() > may_lie(newest)
}

/// How many of the members of a manifest may lie: fewer than a third.
fn may_lie(manifest: &Manifest) -> usize {
    manifest.contents().members().len().saturating_sub(1) / 3
}

/// The root of a state, from the hashes of its pieces.
pub(crate) fn state_root(pieces: &[Hash]) -> Hash {
    blake3::derive_key(STATE_CONTEXT, pieces.as_flattened())
}

/// The hash of one piece of a state.
pub(crate) fn piece_hash(piece: &[u8]) -> Hash {
    blake3::derive_key(PIECE_CONTEXT, piece)
}

pub(crate) fn summary_hash(summary: &[u8]) -> Hash {
    blake3::derive_key(SUMMARY_CONTEXT, summary)
}

/// The most pieces of a state: 512 MiB, whose hashes fit into a message.
pub(crate) const MAX_PIECES: usize = 4_096;
/// The longest summary: with the hashes of the pieces it fits into a message of a stream.
pub(crate) const MAX_SUMMARY: usize = 320 * 1024;

const LAYOUT: u8 = 1;
const STATEMENT_LEN: usize = 1 + 88 + 8 + 32 + 32 + 8;
const PURPOSE: &[u8] = b"HCP/1 checkpoint\0";
const STATEMENT_CONTEXT: &str = "HCP/1 checkpoint statement";
const SUMMARY_CONTEXT: &str = "HCP/1 checkpoint summary";
const STATE_CONTEXT: &str = "HCP/1 checkpoint state";
const PIECE_CONTEXT: &str = "HCP/1 checkpoint piece";
