//! What peers lack is pushed: what this node wrote at once, what others wrote when nobody better will.
//!
//! Segments go in the order in which this node took them in, so that on a link dependencies go before dependents. What was
//! written lately is in memory; the rest is read in pages, one at a time for each peer, and not much more than it has credit for.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use rand::RngExt;

use super::checks::Held;
use super::holding::Why;
use super::links::{Link, Via};
#[cfg(test)]
use super::planted::{Defect, planted};
use super::{Machine, Reading};
use crate::replica::log::limits::{BEACON, MAX_BACK, MAX_NEEDS, MAX_QUEUED_NEEDS, NEED, NEEDS_AT_ONCE, PEER_PAGE};
use crate::replica::log::message::{Message, Need};
use crate::replica::log::storage::{Branch, Found, Payloads, Range, Read, Row};
use crate::replica::log::wire::{Segment, Tip};
use crate::replica::place::{LogId, NodeId};

impl Machine {
    pub(super) fn pump_all(&mut self) {
        let nodes: Vec<NodeId> = self.links.keys().copied().collect();
        for node in nodes {
            self.pump(node);
        }
    }

    /// Sends a peer what it lacks, as far as its credit goes.
    fn pump(&mut self, node: NodeId) {
        let Some(link) = self.links.get(&node) else { return };
        if !link.heard || link.log.is_none() || link.reading || link.blocked || self.now < link.pause {
            return;
        }
        let ranges = self.lacking(node);
        if ranges.is_empty() {
            return;
        }
        let mut rows: Vec<(Arc<Row>, Arc<Segment>)> = Vec::new();
        for range in &ranges {
            if self.recent.get(range.log, range.branch, range.from).is_none() {
                let Some(link) = self.links.get_mut(&node) else { return };
                link.reading = true;
                let (via, bytes) = (link.via, PEER_PAGE.min(link.allowed as usize));
                self.read(Read::Rows { ranges, bytes, payloads: Payloads::Wanted }, Reading::Push(via));
                return;
            }
            let found = (range.from..=range.to).map_while(|seq| self.recent.get(range.log, range.branch, seq).cloned());
            rows.extend(found);
        }
        rows.sort_unstable_by_key(|(row, _)| row.position);
        for (row, segment) in rows {
            if !self.push(node, &row, segment) {
                return;
            }
        }
    }

    /// What a peer lacks and this node should push now.
    fn lacking(&mut self, node: NodeId) -> Vec<Range> {
        let Some(link) = self.links.get_mut(&node) else { return Vec::new() };
        let mut due = std::mem::take(&mut link.due);
        let mut ranges = Vec::new();
        due.retain(|(log, branch)| {
            let range = self.lacking_of(node, log, *branch);
            ranges.extend(range);
            range.is_some()
        });
        if let Some(link) = self.links.get_mut(&node) {
            link.due = due;
        }
        ranges
    }

    fn lacking_of(&self, node: NodeId, log: &LogId, branch: Branch) -> Option<Range> {
        let link = self.links.get(&node)?;
        let (seq, _) = *self.durable.get(&(*log, branch))?;
        if link.log == Some(*log) {
            return None;
        }
        let sent = link.sent.get(&(*log, branch)).map_or(0, |(seq, _)| *seq);
        #[cfg(test)]
        if planted(Defect::RelayForgotten) && log.node != self.own.node {
            return None;
        }
        let reached = sent.max(self.reached(link, log, branch));
        if reached >= seq || !(log.node == self.own.node || self.is_mine_to_push(link, log, branch)) {
            return None;
        }
        let known = self.ledger.logs.get(log)?;
        let (settled, first) = (known.settled, known.get(branch)?.from);
        // What is not held any more is in the checkpoint, which the peer is offered.
        let from = reached.max(first - 1) + 1;
        (reached >= settled && from <= seq).then_some(Range { log: *log, branch, from, to: seq })
    }

    /// Of what others wrote, each peer gets a log from its author; or from one of those that it is linked with, or else
    /// from whoever sees that it does not come. An author that writes another log by now may have lost the one before with its
    /// disk, and is passed over if it lacks it. Nobody else is: who has just got something has not said so yet.
    fn is_mine_to_push(&self, link: &Link, log: &LogId, branch: Branch) -> bool {
        if link.late.contains(log) || link.direct.is_empty() {
            return true;
        }
        let author = link.direct.get(&log.node);
        if author.is_some() && !self.has_lost(log, branch) {
            return false;
        }
        let rest = || link.direct.iter().filter(|node| Some(*node) != author);
        let share = log.incarnation.0.iter().map(|byte| usize::from(*byte)).sum::<usize>() % rest().count().max(1);
        rest().nth(share).is_none_or(|node| *node == self.own.node)
    }

    /// A log's author writes another one by now, and does not say that it holds what is durable here of this one.
    fn has_lost(&self, log: &LogId, branch: Branch) -> bool {
        let Some(author) = self.links.get(&log.node).filter(|link| link.heard) else { return false };
        let here = self.durable.get(&(*log, branch)).map_or(0, |(seq, _)| *seq);
        author.log.is_some_and(|now| now != *log) && self.reached(author, log, branch) < here
    }

    /// `false` when there is no credit left.
    fn push(&mut self, node: NodeId, row: &Row, segment: Arc<Segment>) -> bool {
        let now = self.now;
        let Some(link) = self.links.get_mut(&node) else { return false };
        let Some(left) = link.allowed.checked_sub(segment.cost() as u64) else {
            link.blocked = true;
            return false;
        };
        link.allowed = left;
        let sent = link.sent.entry((row.log, row.branch)).or_insert((0, now));
        sent.0 = row.seq.max(sent.0);
        self.send_beside(node, &segment);
        self.send(node, Message::Segment(segment));
        true
    }

    pub(super) fn found_push(&mut self, via: Via, found: Found) {
        let (node, again) = (via.node, self.now + BEACON);
        let Some(link) = self.link_of(via) else { return };
        link.reading = false;
        let rows = match found {
            Found::Rows(rows) if !rows.is_empty() => rows,
            // Nothing comes of asking again at once.
            _ => {
                link.pause = again;
                return;
            }
        };
        for row in rows {
            // It may have been sent meanwhile, or the peer may have said that it has it.
            let Some(link) = self.links.get(&node) else { return };
            let sent = link.sent.get(&(row.log, row.branch)).map_or(0, |(seq, _)| *seq);
            if sent.max(self.reached(link, &row.log, row.branch)) >= row.seq {
                continue;
            }
            let Some(segment) = segment_of(&row) else { continue };
            if !self.push(node, &row, Arc::new(segment)) {
                return;
            }
        }
    }

    /// Asks for what segments here lack.
    pub(super) fn ask_needs(&mut self) {
        #[cfg(test)]
        if planted(Defect::NeedForgotten) {
            return;
        }
        let now = self.now;
        let linked: Vec<NodeId> = self.links.iter().filter(|(_, link)| link.heard).map(|(node, _)| *node).collect();
        if linked.is_empty() {
            return;
        }
        // What is needed by what each has sent, and what waits for it.
        let mut wanted: BTreeMap<NodeId, BTreeMap<Tip, Vec<Tip>>> = BTreeMap::new();
        for (tip, waiting) in &self.held.waiting {
            if let Why::Missing(missing) = &waiting.why
                && now.saturating_sub(waiting.asked) >= NEED
            {
                for needed in missing.iter().filter(|needed| !self.held.contains(needed)) {
                    wanted.entry(waiting.from).or_default().entry(*needed).or_default().push(*tip);
                }
            }
        }
        let mut turns: VecDeque<_> = wanted.into_iter().map(|(from, needs)| (from, needs.into_iter())).collect();
        // One of each in turn, so that nobody's needs push out another's.
        if !turns.is_empty() {
            turns.rotate_left(self.rng.random_range(0..turns.len()));
        }
        let mut counts: BTreeMap<NodeId, usize> = BTreeMap::new();
        while let Some((from, mut needs)) = turns.pop_front() {
            let Some((tip, waiting)) = needs.next() else { continue };
            turns.push_back((from, needs));
            // Who sent what needs it has it, or else anybody may.
            let sender = linked.contains(&from) && self.rng.random_bool(0.7);
            let node = if sender { from } else { linked[self.rng.random_range(0..linked.len())] };
            let count = counts.entry(node).or_default();
            *count += 1;
            if *count > MAX_NEEDS {
                if counts.len() == linked.len() && counts.values().all(|count| *count > MAX_NEEDS) {
                    return;
                }
                continue;
            }
            let back = self.held.back_for(tip.log);
            self.send(node, Message::Need(Need { tip, back }));
            // What nothing was asked for is asked for in the next round.
            for tip in waiting {
                if let Some(waiting) = self.held.waiting.get_mut(&tip) {
                    waiting.asked = now;
                }
            }
        }
    }

    pub(super) fn take_need(&mut self, node: NodeId, need: Need) {
        let range = self.range_of(&need);
        let Some(link) = self.links.get_mut(&node) else { return };
        if link.needs.len() < MAX_QUEUED_NEEDS {
            link.needs.extend(range);
        }
        self.answer_needs(node);
    }

    /// Where what is needed stands, with what stands before it.
    fn range_of(&mut self, need: &Need) -> Option<Range> {
        let tip = need.tip;
        let from = tip.seq.saturating_sub(u64::from(need.back.min(MAX_BACK))).max(1);
        let (branch, from) = match self.held(&tip) {
            Held::Ask => {
                self.want_hash(tip.log, tip.seq);
                return None;
            }
            Held::Yes(branch) => {
                let log = self.ledger.logs.get(&tip.log)?;
                let owner = log.owner(branch, tip.seq);
                let durable = self.durable.get(&(tip.log, owner)).map_or(0, |(seq, _)| *seq);
                let first = log.get(owner).map_or(1, |chain| chain.from).max(log.settled + 1);
                if tip.seq > durable {
                    return None;
                }
                (owner, from.max(first))
            }
            // It counts no more here, and may elsewhere.
            Held::Nothing => (self.beside.on(&tip)?, from),
            Held::No | Held::Other(..) => return None,
        };
        (from <= tip.seq).then_some(Range { log: tip.log, branch, from, to: tip.seq })
    }

    /// Queues what a segment names that counts no more: its author may have shown that to this node alone.
    fn send_beside(&mut self, node: NodeId, segment: &Segment) {
        for tip in &segment.head.dependencies {
            if let Some(branch) = self.beside.on(tip)
                && let Some(link) = self.links.get_mut(&node)
                && link.needs.len() < MAX_QUEUED_NEEDS
            {
                link.needs.push_back(Range { log: tip.log, branch, from: 1, to: tip.seq });
            }
        }
        self.answer_needs(node);
    }

    fn answer_needs(&mut self, node: NodeId) {
        let idle = |link: &&mut Link| link.reading_needs == 0 && !link.needs.is_empty();
        let Some(link) = self.links.get_mut(&node).filter(idle) else { return };
        let ranges: Vec<Range> = link.needs.iter().take(NEEDS_AT_ONCE).copied().collect();
        link.reading_needs = ranges.len();
        let via = link.via;
        self.read(Read::Rows { ranges, bytes: PEER_PAGE, payloads: Payloads::Wanted }, Reading::Need(via));
    }

    pub(super) fn found_need(&mut self, via: Via, found: Found) {
        let Some(link) = self.link_of(via) else { return };
        let rows = if let Found::Rows(rows) = found { rows } else { Vec::new() };
        let asked = std::mem::take(&mut link.reading_needs).min(link.needs.len());
        let mut left: Vec<Range> = link.needs.drain(..asked).collect();
        for row in &rows {
            for range in left.iter_mut().filter(|range| (range.log, range.branch) == (row.log, row.branch)) {
                range.from = range.from.max(row.seq + 1);
            }
        }
        // Of what nothing was found there is nothing; the rest did not fit.
        left.retain(|range| !rows.is_empty() && range.from <= range.to);
        for range in left.into_iter().rev() {
            link.needs.push_front(range);
        }
        for row in rows {
            let Some(link) = self.link_of(via) else { return };
            let Some(segment) = segment_of(&row) else { continue };
            let Some(credit) = link.allowed.checked_sub(segment.cost() as u64) else {
                // It asks again.
                link.needs.clear();
                return;
            };
            link.allowed = credit;
            self.send(via.node, Message::Segment(Arc::new(segment)));
        }
        self.answer_needs(via.node);
    }
}

fn segment_of(row: &Row) -> Option<Segment> {
    Segment::parse(row.header.clone(), &row.signature, row.payload.clone()?).ok()
}
