//! What a node says that it holds, and what it makes of what others say.

use std::collections::{BTreeMap, BTreeSet};

use super::Machine;
use crate::replica::log::limits::{RELAY, RESEND};
use crate::replica::log::message::{Frontier, Message};
use crate::replica::log::storage::{Branch, Hash};
use crate::replica::log::wire::Tip;
use crate::replica::place::{LogId, NodeId};

impl Machine {
    /// Tells a peer what is held durably and has changed since it was told.
    pub(super) fn tell_frontier(&mut self, node: NodeId) {
        let held = self.durable_tips();
        let direct: BTreeSet<NodeId> = self.links.keys().copied().collect();
        let Some(link) = self.links.get_mut(&node) else { return };
        let first = link.told_direct.is_empty();
        let mut tips = Vec::new();
        for (log, ends) in &held {
            if link.told.get(log) != Some(ends) {
                tips.extend(ends.iter().map(|(seq, hash)| Tip { log: *log, seq: *seq, hash: *hash }));
            }
        }
        let new = (link.told_direct != direct).then(|| direct.iter().copied().collect());
        if tips.is_empty() && new.is_none() && !first {
            return;
        }
        (link.told, link.told_direct) = (held, direct);
        // A log's tips go in one message.
        let mut parts: Vec<Vec<Tip>> = vec![Vec::new()];
        for tip in tips {
            if let Some(part) = parts.last_mut()
                && (part.len() < TIPS || part.last().is_some_and(|last| last.log == tip.log))
            {
                part.push(tip);
            } else {
                parts.push(vec![tip]);
            }
        }
        let mut direct = new;
        for tips in parts {
            self.send(node, Message::Frontier(Frontier { tips, direct: direct.take() }));
        }
    }

    fn durable_tips(&self) -> BTreeMap<LogId, Vec<(u64, Hash)>> {
        let mut tips: BTreeMap<LogId, Vec<(u64, Hash)>> = BTreeMap::new();
        for ((log, _), end) in &self.durable {
            tips.entry(*log).or_default().push(*end);
        }
        tips
    }

    pub(super) fn take_frontier(&mut self, node: NodeId, frontier: Frontier) {
        let now = self.now;
        let Some(link) = self.links.get_mut(&node) else { return };
        link.heard = true;
        if let Some(direct) = frontier.direct {
            link.direct = direct.into_iter().collect();
        }
        let mut news: BTreeMap<LogId, Vec<(u64, Hash)>> = BTreeMap::new();
        for tip in frontier.tips {
            news.entry(tip.log).or_default().push((tip.seq, tip.hash));
        }
        for (log, ends) in news {
            let most = ends.iter().map(|(seq, _)| *seq).max().unwrap_or_default();
            for ((_, _), sent) in link.sent.range_mut((log, Branch(0))..=(log, Branch(u32::MAX))) {
                sent.1 = now;
            }
            link.sent.retain(|(of, _), (seq, _)| *of != log || *seq > most);
            link.known.insert(log, ends);
        }
    }

    /// Every half second: tells what has changed, and sees what peers lack for too long.
    pub(super) fn beacons(&mut self) {
        let nodes: Vec<NodeId> = self.links.keys().copied().collect();
        for node in nodes {
            self.tell_frontier(node);
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
        link.sent.retain(|_, (_, since)| now.saturating_sub(*since) < RESEND);
    }

    /// How far a peer is known to hold a chain.
    pub(super) fn reached(&self, link: &super::links::Link, id: &LogId, branch: Branch) -> u64 {
        let (Some(log), Some(known)) = (self.ledger.logs.get(id), link.known.get(id)) else { return 0 };
        let Some(chain) = log.get(branch) else { return 0 };
        if log.chains().count() == 1 {
            // Whether it is the same up to there the peer finds out: what follows would not fit.
            return match known.iter().max() {
                Some((seq, hash)) if *seq == chain.seq && *hash != chain.hash => seq - 1,
                Some((seq, _)) => (*seq).min(chain.seq),
                None => 0,
            };
        }
        let mut reached = 0;
        for (seq, hash) in known {
            let on = log
                .ends_in(*seq, hash)
                .or_else(|| self.hashes.at(id, *seq).iter().find(|(other, _)| other == hash).map(|(_, on)| *on));
            reached = reached.max(match on {
                Some(on) => log.common(on, branch, *seq),
                // Something that is not held here: it has at least what stands before the first fork.
                None => (*seq).min(chain.first_cut().map_or(0, |cut| cut - 1)),
            });
        }
        reached
    }
}

/// Tips in one message: 45 KB, below a frame.
const TIPS: usize = 512;
