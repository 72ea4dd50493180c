//! Loading a checkpoint: a node that lacks what nobody holds any more is offered one, checks who signed it, fetches the state
//! piece by piece, and opens its store again.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::checkpoints::{Origin, Stable};
use super::frontier::Said;
use super::links::{Link, Via};
#[cfg(test)]
use super::planted::{Defect, planted};
use super::{Machine, Reading, Unlink};
use crate::replica::log::checkpoint::{
    Certificate, MAX_PIECES, MAX_SUMMARY, is_enough, is_true, piece_hash, state_root, summary_hash,
};
use crate::replica::log::ledger::is_member;
use crate::replica::log::limits::{APART, FETCH, FETCH_KEPT, FETCHES, MAX_FETCHED, OFFER, SILENT};
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
    /// Who offers it; when a piece came from each, or since when it does.
    peers: BTreeMap<NodeId, Duration>,
    /// Since when nobody does.
    alone: Option<Duration>,
}

impl Machine {
    /// Tells a peer which checkpoint is held durably.
    pub(super) fn tell_checkpoint(&mut self, node: NodeId) {
        let holds = self.holds();
        let pending = self.is_checkpoint_pending();
        let Some(link) = self.links.get_mut(&node) else { return };
        if !pending && link.told_holds != Some(holds) {
            link.told_holds = Some(holds);
            self.send(node, Message::Holds(holds));
        }
    }

    /// Offers the checkpoint to peers that lack what it covers, or do not come to hold it themselves.
    pub(super) fn offer(&mut self) {
        if self.is_checkpoint_pending() {
            return;
        }
        let (now, holds, held) = (self.now, self.holds(), self.checkpoints.since);
        let Some(stable) = &self.checkpoints.stable else { return };
        let lasts: Vec<_> = stable.covered.logs.iter().map(|(id, log)| (*id, log.last())).collect();
        let offer = Offer {
            certificate: stable.checkpoint.certificate.clone(),
            summary: stable.checkpoint.summary.clone(),
            pieces: stable.checkpoint.pieces.clone(),
        };
        let mut to = Vec::new();
        for (node, link) in &mut self.links {
            let lacks = lasts.iter().any(|(log, last)| link.said.get(log).map_or(0, Said::last) < *last);
            let apart = link.is_apart(&holds, held, now, APART);
            let offered = link.offered.is_some_and(|(what, at)| what == holds && now.saturating_sub(at) < OFFER);
            if link.heard && (lacks || apart) && !offered {
                link.offered = Some((holds, now));
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
        if let Some(fetch) = &mut self.fetch
            && fetch.stable.checkpoint.root == statement.root
        {
            fetch.peers.entry(node).or_insert(self.now);
            fetch.alone = None;
            return self.ask_pieces();
        }
        // Who offers another one does not have this one's pieces any more.
        self.lose_offerer(&node);
        if self.stopped.is_some() || statement.hash() == self.holds() {
            return;
        }
        let (pieces, rest) = offer.pieces.as_chunks::<32>();
        let fits = rest.is_empty()
            && pieces.len() <= MAX_PIECES
            && offer.summary.len() <= MAX_SUMMARY
            && statement.summary == summary_hash(&offer.summary)
            && statement.root == state_root(pieces);
        if !fits {
            return;
        }
        // By this node's newest manifest: who is no member any more vouches for nothing.
        let good = is_true(&certificate.signers(&self.keys, |node| is_member(&self.manifest, node)), &self.manifest);
        #[cfg(test)]
        let good = good || planted(Defect::MajorityIgnored);
        if !good {
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
        let enough = stable.covered.manifest().is_some_and(|covered| {
            is_enough(&certificate.signers(&self.keys, |node| is_member(covered, node)), covered)
        });
        #[cfg(test)]
        let enough = enough || planted(Defect::MajorityIgnored);
        if !enough {
            return;
        }
        let (holds, held) = (self.holds(), self.checkpoints.since);
        let apart = self.links.get(&node).is_some_and(|link| link.is_apart(&holds, held, self.now, APART / 2));
        // What is all here it makes itself, unless something has kept it from that.
        if !(apart || self.lacks(&stable.covered).next().is_some()) || !self.is_newer(&stable) {
            return;
        }
        if let Some(fetch) = &self.fetch {
            // Of two the newer, unless it is known only from somebody who does not give what it offers.
            let better = stable.is_newer_than(&fetch.stable) || fetch.alone.is_some();
            if !better || self.silent.contains_key(&node) {
                return;
            }
        }
        self.give_up_fetch();
        let (asked, got, peers) = (BTreeMap::new(), BTreeSet::new(), [(node, self.now)].into());
        self.fetch = Some(Fetch { stable, pieces: pieces.to_vec(), asked, got, peers, alone: None });
        self.ask_pieces();
    }

    fn give_up_fetch(&mut self) {
        if let Some(fetch) = self.fetch.take() {
            self.chores.forget_states.push(fetch.stable.checkpoint.root);
        }
    }

    /// Somebody does not offer any more what is being fetched; how many pieces it owes.
    fn lose_offerer(&mut self, node: &NodeId) -> usize {
        let Some(fetch) = &mut self.fetch else { return 0 };
        let asked = fetch.asked.len();
        fetch.asked.retain(|_, (from, _)| from != node);
        fetch.peers.remove(node);
        asked - fetch.asked.len()
    }

    /// Loses those who are gone, and those from whom nothing has come for so long though they were asked.
    fn lose_silent_offerers(&mut self) {
        let now = self.now;
        self.silent.retain(|_, since| now.saturating_sub(*since) < SILENT);
        let Some(fetch) = &mut self.fetch else { return };
        let late = |at: &Duration| now.saturating_sub(*at) >= FETCH;
        let lost: BTreeSet<NodeId> = fetch
            .peers
            .iter()
            .filter(|(node, last)| {
                let waits = fetch.asked.values().any(|(from, at)| from == *node && late(at));
                !self.links.contains_key(node) || (waits && late(last))
            })
            .map(|(node, _)| *node)
            .collect();
        for node in lost {
            if self.lose_offerer(&node) > 0 {
                self.silent.insert(node, now);
            }
        }
        if let Some(fetch) = &mut self.fetch {
            fetch.asked.retain(|_, (_, at)| !late(at));
        }
    }

    /// The root of the state that is being fetched.
    pub(super) fn fetched_state(&self) -> Option<Hash> {
        self.fetch.as_ref().map(|fetch| fetch.stable.checkpoint.root)
    }

    /// Whether a checkpoint is newer than the one that is held.
    fn is_newer(&self, stable: &Stable) -> bool {
        self.checkpoints.stable.as_ref().is_none_or(|held| stable.is_newer_than(held))
    }

    /// Asks for the next pieces, and again for those that do not come.
    pub(super) fn ask_pieces(&mut self) {
        self.lose_silent_offerers();
        let unstored = self.unstored_pieces();
        let (now, pending) = (self.now, self.is_checkpoint_pending());
        let Some(fetch) = &mut self.fetch else { return };
        if fetch.peers.is_empty() && now.saturating_sub(*fetch.alone.get_or_insert(now)) >= FETCH_KEPT {
            return self.give_up_fetch();
        }
        // Those who did not give what they had offered are asked only when nobody else is there.
        let spoken = |node: &&NodeId| !self.silent.contains_key(*node);
        let any = !fetch.peers.keys().any(|node| spoken(&node));
        let able: Vec<NodeId> = fetch.peers.keys().filter(|node| any || spoken(node)).copied().collect();
        let mut owed: BTreeMap<NodeId, usize> = BTreeMap::new();
        fetch.asked.values().for_each(|(node, _)| *owed.entry(*node).or_default() += 1);
        let mut ask = Vec::new();
        for index in 0..fetch.pieces.len() as u32 {
            if unstored + fetch.asked.len() >= MAX_FETCHED {
                break;
            }
            if fetch.got.contains(&index) || fetch.asked.contains_key(&index) {
                continue;
            }
            let turn = index as usize + now.as_secs() as usize;
            let turns = (0..able.len()).map(|next| able[(turn + next) % able.len()]);
            let least = turns.min_by_key(|node| owed.get(node).copied().unwrap_or_default());
            let Some(node) = least.filter(|node| owed.get(node).is_none_or(|owed| *owed < FETCHES)) else { break };
            *owed.entry(node).or_default() += 1;
            fetch.asked.insert(index, (node, now));
            ask.push((node, index));
        }
        let root = fetch.stable.checkpoint.root;
        let whole = fetch.got.len() == fetch.pieces.len() && !pending;
        for (node, index) in ask {
            self.send(node, Message::Fetch { root, index });
        }
        if whole && let Some(fetch) = self.fetch.take() {
            // Meanwhile it may have come by itself.
            if self.is_newer(&fetch.stable) {
                self.install(fetch.stable, Origin::Fetched);
            } else {
                self.chores.forget_states.push(root);
            }
        }
    }

    pub(super) fn take_fetch(&mut self, node: NodeId, root: Hash, index: u32) {
        let held = self.checkpoints.stable.as_ref().is_some_and(|stable| stable.checkpoint.root == root);
        let Some(link) = self.links.get_mut(&node) else { return };
        if held && link.fetching < FETCHES {
            link.fetching += 1;
            let via = link.via;
            self.read(Read::Piece { root, index }, Reading::Piece { via, root, index });
        }
    }

    pub(super) fn found_piece(&mut self, via: Via, root: Hash, index: u32, found: Found) {
        let Some(link) = self.link_of(via) else { return };
        link.fetching = link.fetching.saturating_sub(1);
        let Found::Piece(Some(bytes)) = found else { return };
        let piece = Piece { root, index, bytes };
        // Without credit it is not sent; the peer asks again.
        if let Some(left) = link.allowed.checked_sub(piece_cost(&piece)) {
            link.allowed = left;
            self.send(via.node, Message::Piece(piece));
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
        fetch.peers.insert(node, self.now);
        self.silent.remove(&node);
        self.chores.pieces.push(piece);
        self.ask_pieces();
    }
}

impl Link {
    /// Whether the peer has held another checkpoint than this node's for so long, which has held it since then.
    fn is_apart(&self, holds: &Hash, held: Duration, now: Duration, long: Duration) -> bool {
        self.holds.is_some_and(|(other, since)| other != *holds && now.saturating_sub(since.max(held)) >= long)
    }
}

/// What a piece costs on a link.
pub(super) fn piece_cost(piece: &Piece) -> u64 {
    (piece.bytes.len() + crate::replica::log::wire::OVERHEAD) as u64
}
