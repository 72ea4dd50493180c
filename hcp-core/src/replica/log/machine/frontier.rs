//! What a node says that it holds, and what it makes of what others say.

use std::collections::{BTreeMap, BTreeSet};

use super::Machine;
use crate::replica::log::ledger::Log;
use crate::replica::log::limits::{MAX_DEPTH, MAX_SAID, RELAY, RESEND};
use crate::replica::log::message::{Frontier, MAX_TIPS, Message};
use crate::replica::log::storage::{Branch, Hash};
use crate::replica::log::wire::{MAX_DEPENDENCIES, Tip};
use crate::replica::place::{LogId, NodeId};

/// What a peer has said that it holds of one log.
#[derive(Debug, Default)]
pub(super) struct Said {
    /// The furthest that it named.
    last: (u64, Hash),
    /// How far it has each chain that is held here, as far as it said so, with what these came from.
    chains: BTreeMap<Branch, u64>,
    /// Ends that are not held here, or not known to be.
    others: BTreeSet<(u64, Hash)>,
}

impl Said {
    /// The furthest number that the peer named.
    pub(super) fn last(&self) -> u64 {
        self.last.0
    }

    /// The peer has what stands there, and all before it.
    fn raise(&mut self, log: &Log, on: Branch, seq: u64) {
        let (mut at, mut seq) = (on, seq);
        loop {
            let has = self.chains.entry(at).or_default();
            if *has >= seq {
                return;
            }
            *has = seq;
            let Some((parent, from)) = log.get(at).and_then(|chain| Some((chain.parent()?, chain.from))) else {
                return;
            };
            (at, seq) = (parent, from - 1);
        }
    }
}

impl Machine {
    /// Tells a peer what is held durably and has changed since it was told.
    pub(super) fn tell_frontier(&mut self, node: NodeId) {
        let direct: BTreeSet<NodeId> = self.links.keys().copied().collect();
        let Some(link) = self.links.get_mut(&node) else { return };
        let first = link.told_direct.is_empty();
        let changed = self.durable.iter().filter(|(place, end)| link.told.get(place) != Some(end));
        let mut tips: Vec<Tip> =
            changed.map(|((log, _), (seq, hash))| Tip { log: *log, seq: *seq, hash: *hash }).collect();
        tips.extend(std::mem::take(&mut link.again));
        let new = (link.told_direct != direct).then(|| direct.iter().copied().collect());
        if tips.is_empty() && new.is_none() && !first {
            return;
        }
        if !tips.is_empty() {
            link.told.clone_from(&self.durable);
        }
        link.told_direct = direct;
        let mut direct = new;
        let mut parts: Vec<Vec<Tip>> = tips.chunks(MAX_TIPS).map(<[Tip]>::to_vec).collect();
        if parts.is_empty() {
            parts.push(Vec::new());
        }
        for tips in parts {
            self.send(node, Message::Frontier(Frontier { tips, direct: direct.take() }));
        }
    }

    pub(super) fn take_frontier(&mut self, node: NodeId, frontier: Frontier) {
        let now = self.now;
        let Some(link) = self.links.get_mut(&node) else { return };
        // Of a full one the rest is behind it: what it does not name is looked at with that, or a little later.
        let whole = frontier.tips.len() < MAX_TIPS;
        if whole && (!link.heard || frontier.direct.is_some()) {
            link.due = self.durable.keys().copied().collect();
        }
        let first = !std::mem::replace(&mut link.heard, true);
        if let Some(direct) = frontier.direct {
            link.direct = direct.into_iter().collect();
        }
        if first && whole {
            // What it wrote in earlier runs it may have lost, and then others lack it as well.
            let earlier: Vec<_> = self.durable.keys().filter(|(log, _)| log.node == node).copied().collect();
            self.links.values_mut().for_each(|link| link.due.extend(&earlier));
        }
        let logs: BTreeSet<LogId> = frontier.tips.iter().map(|tip| tip.log).collect();
        for tip in &frontier.tips {
            self.note_said(node, tip);
        }
        for log in logs {
            let all = (log, Branch(0))..=(log, Branch(u32::MAX));
            let Some(link) = self.links.get(&node) else { return };
            let sent = link.sent.range(all.clone());
            let has: Vec<_> = sent
                .filter(|((_, branch), (seq, _))| self.reached(link, &log, *branch) >= *seq)
                .map(|(place, _)| *place)
                .collect();
            let Some(link) = self.links.get_mut(&node) else { return };
            for place in &has {
                link.sent.remove(place);
            }
            link.sent.range_mut(all.clone()).for_each(|(_, sent)| sent.1 = now);
            if whole {
                link.due.extend(self.durable.range(all).map(|(place, _)| *place));
            }
        }
    }

    /// A peer holds a segment and what stands before it.
    fn note_said(&mut self, node: NodeId, tip: &Tip) {
        let Some(link) = self.links.get_mut(&node) else { return };
        let log = self.ledger.logs.get(&tip.log);
        let known = link.said.contains_key(&tip.log);
        if self.ledger.is_forgotten(&tip.log)
            || (!known && log.is_none() && link.said.len() >= self.ledger.logs.len() + MAX_DEPENDENCIES)
        {
            return;
        }
        let said = link.said.entry(tip.log).or_default();
        said.last = said.last.max((tip.seq, tip.hash));
        if let Some(log) = log
            && let Some(on) = self.hashes.stands_on(log, tip)
        {
            return said.raise(log, on, tip.seq);
        }
        if log.is_none_or(|log| log.count() <= 1) {
            // Of one chain the furthest end is enough.
            let before = said.others.len();
            said.others = said.others.split_off(&(tip.seq, [0; 32]));
            link.strange -= before - said.others.len();
        }
        if link.strange < MAX_SAID && said.others.insert((tip.seq, tip.hash)) {
            link.strange += 1;
        }
    }

    /// A segment was taken in: peers may have named it before.
    pub(super) fn note_taken(&mut self, tip: &Tip, on: Branch) {
        let Some(log) = self.ledger.logs.get(&tip.log) else { return };
        for link in self.links.values_mut() {
            if let Some(said) = link.said.get_mut(&tip.log)
                && said.others.remove(&(tip.seq, tip.hash))
            {
                link.strange -= 1;
                said.raise(log, on, tip.seq);
            }
        }
    }

    /// A peer sent what is durable here: of a log that forked it may not know how far this node has that branch.
    pub(super) fn note_sent_in_vain(&mut self, node: NodeId, tip: &Tip, branch: Branch) {
        let Some(log) = self.ledger.logs.get(&tip.log) else { return };
        let durable = self.durable.get(&(tip.log, log.owner(branch, tip.seq))).is_some_and(|(seq, _)| *seq >= tip.seq);
        if let Some(link) = self.links.get_mut(&node)
            && log.count() > 1
            && durable
            && link.again.len() < MAX_TIPS
        {
            link.again.insert(*tip);
        }
    }

    /// Every half second: tells what has changed, and sees what peers lack for too long.
    pub(super) fn beacons(&mut self) {
        let nodes: Vec<NodeId> = self.links.keys().copied().collect();
        for node in nodes {
            self.tell_frontier(node);
            self.tell_checkpoint(node);
            self.note_lag(node);
        }
    }

    fn note_lag(&mut self, node: NodeId) {
        let now = self.now;
        let Some(link) = self.links.get(&node) else { return };
        let mut lag = BTreeMap::new();
        for ((log, branch), (seq, _)) in &self.durable {
            let reached = self.reached(link, log, *branch);
            if reached < *seq {
                let since = match link.lag.get(log) {
                    Some((before, since)) if *before >= reached => *since,
                    _ => now,
                };
                lag.insert(*log, (reached, since));
            }
        }
        let Some(link) = self.links.get_mut(&node) else { return };
        link.late =
            lag.iter().filter(|(_, (_, since))| now.saturating_sub(*since) >= RELAY).map(|(log, _)| *log).collect();
        link.lag = lag;
        link.due = self.durable.keys().copied().collect();
        let strange = &mut link.strange;
        link.said.retain(|log, said| {
            let over = self.ledger.is_forgotten(log);
            *strange -= if over { said.others.len() } else { 0 };
            !over
        });
        link.sent.retain(|_, (_, since)| now.saturating_sub(*since) < RESEND);
    }

    /// How far a peer is known to hold a chain.
    pub(super) fn reached(&self, link: &super::links::Link, id: &LogId, branch: Branch) -> u64 {
        let (Some(log), Some(said)) = (self.ledger.logs.get(id), link.said.get(id)) else { return 0 };
        let Some(chain) = log.get(branch) else { return 0 };
        if log.count() == 1 {
            // Whether it is the same up to there the peer finds out: what follows would not fit.
            let (seq, hash) = said.last;
            return if seq == chain.seq && hash != chain.hash { seq - 1 } else { seq.min(chain.seq) };
        }
        let (mut at, mut reached, mut limit) = (branch, 0, chain.seq);
        for _ in 0..MAX_DEPTH {
            if let Some(has) = said.chains.get(&at) {
                reached = limit.min(*has);
                break;
            }
            let Some((parent, from)) = log.get(at).and_then(|chain| Some((chain.parent()?, chain.from))) else { break };
            (at, limit) = (parent, limit.min(from - 1));
        }
        // Of something that is not held here the peer has at least what stands before the first fork.
        let other = said.others.last().map_or(0, |(seq, _)| *seq);
        reached.max(other.min(chain.first_cut().map_or(0, |cut| cut - 1)))
    }
}
