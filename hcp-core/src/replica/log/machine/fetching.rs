//! Loading a checkpoint: a node that lacks what nobody holds any more is offered one, checks who signed it, fetches the state
//! piece by piece, and opens its store again.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::checkpoints::Stable;
#[cfg(test)]
use super::planted::{Defect, planted};
use super::{Machine, Reading, Unlink};
use crate::replica::log::checkpoint::{Certificate, MAX_PIECES, MAX_SUMMARY, piece_hash, state_root, summary_hash};
use crate::replica::log::ledger::Ledger;
use crate::replica::log::limits::{FETCH, FETCHES};
use crate::replica::log::message::{Message, Offer};
use crate::replica::log::storage::{Checkpoint, Found, Hash, Piece, Read};
use crate::replica::place::NodeId;

/// A state that is being fetched.
#[derive(Debug)]
pub(super) struct Fetch {
    stable: Stable,
    pieces: Vec<Hash>,
    /// Asked for, from whom and when.
    asked: BTreeMap<u32, (NodeId, Duration)>,
    got: BTreeSet<u32>,
    peers: Vec<NodeId>,
}

impl Machine {
    /// Offers the checkpoint to peers that lack what it covers.
    pub(super) fn offer(&mut self) {
        let Some(stable) = &self.checkpoints.stable else { return };
        let lasts: Vec<_> = stable
            .covered
            .logs
            .iter()
            .map(|(id, log)| (*id, log.chains().map(|chain| chain.seq).max().unwrap_or_default()))
            .collect();
        let certificate = stable.checkpoint.certificate.clone();
        let offer = Offer {
            certificate: certificate.clone(),
            summary: stable.checkpoint.summary.clone(),
            pieces: stable.checkpoint.pieces.clone(),
        };
        let mut to = Vec::new();
        for (node, link) in &mut self.links {
            let lacks = lasts.iter().any(|(log, last)| {
                let known = link.known.get(log).and_then(|ends| ends.iter().map(|(seq, _)| *seq).max());
                known.unwrap_or_default() < *last
            });
            if link.heard && lacks && link.offered.as_ref() != Some(&certificate) {
                link.offered = Some(certificate.clone());
                to.push(*node);
            }
        }
        for node in to {
            self.send(node, Message::Offer(Box::new(offer.clone())));
        }
    }

    pub(super) fn take_offer(&mut self, node: NodeId, offer: &Offer) {
        let Some(certificate) = Certificate::parse(&offer.certificate) else {
            return self.unlink(node, Unlink::Forged);
        };
        let statement = certificate.statement;
        if let Some(fetch) = &mut self.fetch {
            // Who offers another one does not have this one's pieces any more.
            fetch.peers.retain(|peer| *peer != node);
            if fetch.stable.checkpoint.root == statement.root {
                fetch.peers.push(node);
                return;
            }
            if !fetch.peers.is_empty() {
                return;
            }
            self.chores.forget_states.push(fetch.stable.checkpoint.root);
            self.fetch = None;
        }
        let (pieces, rest) = offer.pieces.as_chunks::<32>();
        let fits = rest.is_empty()
            && pieces.len() <= MAX_PIECES
            && offer.summary.len() <= MAX_SUMMARY
            && statement.summary == summary_hash(&offer.summary)
            && statement.root == state_root(pieces);
        // By this node's newest manifest: who is no member any more does not count.
        let good = certificate.is_good(&self.keys, &self.manifest);
        #[cfg(test)]
        let good = good || planted(Defect::MajorityIgnored);
        if !fits || !good || self.stopped.is_some() {
            return;
        }
        let checkpoint = Checkpoint {
            root: statement.root,
            length: statement.length,
            summary: offer.summary.clone(),
            pieces: offer.pieces.clone(),
            certificate: offer.certificate.clone(),
        };
        let Some(stable) = Stable::of(&self.keys, checkpoint) else { return };
        if self.lacks(&stable.covered).next().is_none() || !self.contains_held(&stable.covered) {
            return;
        }
        self.chores.forget_states.retain(|root| *root != statement.root);
        let (asked, got) = (BTreeMap::new(), BTreeSet::new());
        self.fetch = Some(Fetch { stable, pieces: pieces.to_vec(), asked, got, peers: vec![node] });
        self.ask_pieces();
    }

    /// Whether a checkpoint covers all that the one does that is held.
    fn contains_held(&self, covered: &Ledger) -> bool {
        let Some(held) = &self.checkpoints.stable else { return true };
        held.covered.logs.iter().all(|(id, log)| {
            let last = log.chains().map(|chain| chain.seq).max().unwrap_or_default();
            covered.is_forgotten(id) || covered.logs.get(id).is_some_and(|log| log.reaches(last))
        })
    }

    /// Asks for the next pieces, and again for those that do not come.
    pub(super) fn ask_pieces(&mut self) {
        let now = self.now;
        let Some(fetch) = &mut self.fetch else { return };
        fetch.peers.retain(|node| self.links.contains_key(node));
        fetch.asked.retain(|_, (node, at)| fetch.peers.contains(node) && now.saturating_sub(*at) < FETCH);
        if fetch.peers.is_empty() {
            self.chores.forget_states.push(fetch.stable.checkpoint.root);
            self.fetch = None;
            return;
        }
        let mut ask = Vec::new();
        for index in 0..fetch.pieces.len() as u32 {
            if fetch.asked.len() >= FETCHES {
                break;
            }
            if !fetch.got.contains(&index) && !fetch.asked.contains_key(&index) {
                let turn = index as usize + now.as_secs() as usize;
                let node = fetch.peers[turn % fetch.peers.len()];
                fetch.asked.insert(index, (node, now));
                ask.push((node, index));
            }
        }
        let root = fetch.stable.checkpoint.root;
        let whole = fetch.got.len() == fetch.pieces.len();
        for (node, index) in ask {
            self.send(node, Message::Fetch { root, index });
        }
        if whole && let Some(fetch) = self.fetch.take() {
            // Meanwhile it may have come by itself.
            if self.lacks(&fetch.stable.covered).next().is_some() {
                self.install(fetch.stable);
            }
        }
    }

    pub(super) fn take_fetch(&mut self, node: NodeId, root: Hash, index: u32) {
        let held = self.checkpoints.stable.as_ref().is_some_and(|stable| stable.checkpoint.root == root);
        let Some(link) = self.links.get_mut(&node) else { return };
        if held && link.fetching < FETCHES {
            link.fetching += 1;
            self.read(Read::Piece { root, index }, Reading::Piece { node, root, index });
        }
    }

    pub(super) fn found_piece(&mut self, node: NodeId, root: Hash, index: u32, found: Found) {
        let Some(link) = self.links.get_mut(&node) else { return };
        link.fetching -= 1;
        let Found::Piece(Some(bytes)) = found else { return };
        let piece = Piece { root, index, bytes };
        // Without credit it is not sent; the peer asks again.
        if let Some(left) = link.allowed.checked_sub(piece_cost(&piece)) {
            link.allowed = left;
            self.send(node, Message::Piece(piece));
        }
    }

    pub(super) fn take_piece(&mut self, node: NodeId, piece: Piece) {
        self.give_back(node, piece_cost(&piece));
        let Some(fetch) = &mut self.fetch else { return };
        let expected = fetch.pieces.get(piece.index as usize);
        let asked = fetch.asked.get(&piece.index).is_some_and(|(from, _)| *from == node);
        if piece.root != fetch.stable.checkpoint.root || !asked {
            return;
        }
        if expected != Some(&piece_hash(&piece.bytes)) {
            return self.unlink(node, Unlink::Forged);
        }
        fetch.asked.remove(&piece.index);
        fetch.got.insert(piece.index);
        self.chores.pieces.push(piece);
        self.ask_pieces();
    }
}

/// What a piece costs on a link.
pub(super) fn piece_cost(piece: &Piece) -> u64 {
    (piece.bytes.len() + crate::replica::log::wire::OVERHEAD) as u64
}
