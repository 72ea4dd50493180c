//! Checkpoints: what members sign of a state that stands for everything before a place, and when that is enough.
//!
//! A statement names the segment that asked for it, whose past is what it covers; so all honest members who sign make the
//! same one.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::keys::Keys;
use super::ledger::is_member;
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

    /// Whether more than half of the members of this manifest signed.
    pub(crate) fn is_good(&self, keys: &Keys, manifest: &Manifest) -> bool {
        let message = signed(keys.service_key(), &self.statement.hash());
        let counts = |(node, signature): &(&NodeId, &[u8; SIGNATURE])| {
            is_member(manifest, node) && (keys.verify)(node, &message, signature)
        };
        is_majority(self.signatures.iter().filter(counts).count(), manifest)
    }
}

pub(crate) fn is_majority(count: usize, manifest: &Manifest) -> bool {
    count * 2 > manifest.contents().members().len()
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
