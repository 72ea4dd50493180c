//! What this node writes: entries are collected, cut into segments and signed.
//!
//! All entries of a segment have seen the same: what the application was handed before them. So a segment is cut before
//! anything of another log counts as handed.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use bytes::Bytes;
use rand::RngExt;

#[cfg(test)]
use super::planted::{Defect, planted};
use super::{AppendId, Machine, Output, Refusal, Stop};
use crate::identity::manifest::Manifest;
use crate::replica::log::entry::{self, Entry};
use crate::replica::log::ledger::{Slot, is_member};
use crate::replica::log::limits::{CUT, MAX_PENDING, MAX_UNHANDED};
use crate::replica::log::storage::{Branch, Position};
use crate::replica::log::vector::Writer;
use crate::replica::log::wire::{Head, MAX_DEPENDENCIES, MAX_ENTRY, MAX_PAYLOAD, Segment, Tip};
use crate::replica::place::{Incarnation, LogId};

/// Own entries that wait for their segment, and what this node is about to say that it has seen.
#[derive(Debug, Default)]
pub(super) struct Appending {
    pending: Vec<(Option<AppendId>, Entry)>,
    bytes: usize,
    /// When the first of them came.
    since: Option<Duration>,
    /// Cut now, even without entries.
    force: bool,
    /// Newly seen since the last own segment.
    fresh: BTreeMap<(LogId, Branch), Tip>,
    /// Delivered and not yet handed to the application.
    unhanded: VecDeque<(Position, Tip, Branch)>,
    handed: Position,
}

impl Machine {
    pub(super) fn append(&mut self, id: AppendId, entry: Bytes) {
        let why = if entry.len() > MAX_ENTRY {
            Some(Refusal::TooLong)
        } else if self.stopped.is_some() {
            Some(Refusal::Stopped)
        } else if self.is_full() {
            Some(Refusal::Full)
        } else if self.appending.bytes + self.staged_bytes() > MAX_PENDING {
            Some(Refusal::Busy)
        } else {
            None
        };
        match why {
            Some(why) => self.outputs.push_back(Output::Refused { id, why }),
            None => self.add(Some(id), Entry::Plain(entry)),
        }
    }

    /// Appends an entry of a kind that this version does not know, as a later one would.
    #[cfg(test)]
    pub(in crate::replica::log) fn append_of_tomorrow(&mut self, kind: u16, body: Bytes) {
        self.add_system(Entry::Unknown { kind, body });
        self.cut();
        self.act();
    }

    /// Adds an entry of the log's own kinds.
    pub(super) fn add_system(&mut self, entry: Entry) {
        self.add(None, entry);
    }

    fn add(&mut self, id: Option<AppendId>, entry: Entry) {
        let room = MAX_PAYLOAD - entry::SALT;
        if self.appending.bytes + entry.len() > room {
            self.cut();
        }
        self.appending.bytes += entry.len();
        self.appending.since.get_or_insert(self.now);
        self.appending.pending.push((id, entry));
    }

    fn staged_bytes(&self) -> usize {
        self.staged
            .iter()
            .filter(|staged| staged.row.log == self.own)
            .map(|staged| super::staging::row_cost(&staged.row))
            .sum()
    }

    pub(super) fn refuse_pending(&mut self) {
        self.appending.bytes = 0;
        self.appending.since = None;
        for (id, _) in std::mem::take(&mut self.appending.pending) {
            if let Some(id) = id {
                self.outputs.push_back(Output::Refused { id, why: Refusal::Stopped });
            }
        }
    }

    /// The application has seen everything up to here; what it appended before had not.
    pub(super) fn handed(&mut self, position: Position) {
        self.appending.handed = position.max(self.appending.handed);
        self.take_handed();
    }

    pub(super) fn has_handed_everything(&self) -> bool {
        self.appending.unhanded.is_empty()
    }

    /// Whether this node's next segment comes behind another one.
    pub(super) fn has_seen(&self, tip: &Tip, writer: &Writer) -> bool {
        let Some(log) = self.ledger.logs.get(&tip.log) else { return false };
        let fresh = self.appending.fresh.range((tip.log, Branch(0))..=(tip.log, Branch(u32::MAX)));
        let mut fresh = fresh.filter(|(_, last)| last.seq >= tip.seq);
        let own = self.ledger.logs.get(&self.own).map(|log| log.chain(Branch(0)));
        tip.log == self.own
            || own.is_some_and(|chain| chain.seen.reaches(writer, tip.seq))
            || fresh.any(|((_, on), _)| log.writer_of(tip.log, *on, tip.seq) == *writer)
    }

    /// Cuts what is pending, so that what comes next stands by itself.
    pub(super) fn cut_pending(&mut self) {
        if !self.appending.pending.is_empty() {
            self.cut();
        }
    }

    fn take_handed(&mut self) {
        while let Some((position, tip, branch)) = self.appending.unhanded.front().copied()
            && position <= self.appending.handed
        {
            self.appending.unhanded.pop_front();
            let between = !self.appending.pending.is_empty();
            #[cfg(test)]
            let between = between && !planted(Defect::CutForgotten);
            if between {
                self.cut();
            }
            self.appending.fresh.insert((tip.log, branch), tip);
        }
    }

    /// A segment is about to be delivered.
    pub(super) fn note_unhanded(&mut self, position: Position, tip: Tip, branch: Branch) {
        if tip.log == self.own {
            return;
        }
        if self.appending.unhanded.len() >= MAX_UNHANDED {
            // What was handed is rounded down: this log's earlier place counts as handed with the later one.
            let same = |(_, other, on): &(Position, Tip, Branch)| (other.log, *on) == (tip.log, branch);
            if let Some(at) = self.appending.unhanded.iter().rposition(same) {
                self.appending.unhanded.remove(at);
            }
        }
        self.appending.unhanded.push_back((position, tip, branch));
    }

    /// Says at the next cut that this was seen, whatever the application was handed; what is pending had not seen it.
    pub(super) fn claim(&mut self, tip: Tip, branch: Branch) {
        self.cut_pending();
        self.appending.fresh.insert((tip.log, branch), tip);
        self.appending.force = true;
    }

    pub(super) fn cut_at(&self) -> Option<Duration> {
        self.appending.since.map(|since| since + CUT)
    }

    pub(super) fn cut_if_due(&mut self) {
        if self.appending.force || self.cut_at().is_some_and(|at| self.now >= at) {
            self.cut();
        }
    }

    /// Makes a segment of what is pending, behind others without entries where one cannot name all that was newly seen.
    pub(super) fn cut(&mut self) {
        if self.stopped.is_some() {
            return;
        }
        let begins = !self.ledger.logs.contains_key(&self.own);
        let fresh = std::mem::take(&mut self.appending.fresh);
        let mut resolved: Vec<(Tip, Branch)> = if begins {
            self.ledger.tips().collect()
        } else {
            fresh.into_iter().map(|((_, branch), tip)| (tip, branch)).collect()
        };
        resolved.retain(|(tip, _)| tip.log != self.own && tip.seq > 0);
        // A run's first segment ends the node's earlier ones.
        resolved.sort_unstable_by_key(|(tip, branch)| (tip.log.node != self.own.node, *tip, *branch));
        resolved.dedup_by_key(|(tip, _)| *tip);
        let pending = std::mem::take(&mut self.appending.pending);
        (self.appending.bytes, self.appending.since, self.appending.force) = (0, None, false);
        let mut rest = resolved;
        while rest.len() > MAX_DEPENDENCIES {
            let next = rest.split_off(MAX_DEPENDENCIES);
            self.write_segment(std::mem::replace(&mut rest, next), Vec::new());
        }
        self.write_segment(rest, pending);
    }

    fn write_segment(&mut self, mut resolved: Vec<(Tip, Branch)>, pending: Vec<(Option<AppendId>, Entry)>) {
        resolved.sort_unstable();
        let (ids, entries): (Vec<_>, Vec<Entry>) = pending.into_iter().unzip();
        let ids = (0..).zip(ids).filter_map(|(index, id)| id.map(|id| (id, index))).collect();
        let chain = self.ledger.logs.get(&self.own).map(|log| log.chain(Branch(0)));
        let (seq, previous) = chain.map_or((1, [0; 32]), |chain| (chain.seq + 1, chain.hash));
        let head = Head {
            log: self.own,
            seq,
            previous,
            stamp: self.clock.read(UNIX_EPOCH + Duration::from_millis(self.wall)),
            manifest: self.manifest.contents().version(),
            system: entries.iter().any(Entry::is_system),
            dependencies: resolved.iter().map(|(tip, _)| *tip).collect(),
            payload_root: [0; 32],
        };
        let payload = entry::payload(self.rng.random(), &entries);
        let keys = self.keys.clone();
        let segment = Segment::make(head, payload, |tip| (keys.sign)(&tip.signed(keys.service_key())));
        self.stage(Arc::new(segment), &entries, Slot::Extends(Branch(0)), &resolved, ids, None);
    }

    /// Begins a run of the node's log: its first segment names all that is held.
    pub(super) fn begin(&mut self) {
        if !is_member(&self.manifest, &self.own.node) {
            self.stop(Stop::Removed);
            return;
        }
        let known = self.ledger.manifest().is_some_and(|known| !self.manifest.supersedes(known));
        if !known {
            let bytes = self.manifest.to_bytes();
            self.add_system(Entry::Manifest(bytes.into()));
        }
        self.cut();
    }

    /// Goes on in a new log, since the old one is closed.
    pub(super) fn begin_again(&mut self) {
        self.own = LogId { node: self.own.node, incarnation: Incarnation(self.rng.random()) };
        // What was pending has seen what it had seen, and goes first.
        self.begin();
        let nodes: Vec<_> = self.links.keys().copied().collect();
        for node in nodes {
            self.greet(node);
        }
    }

    pub(super) fn given_manifest(&mut self, manifest: Manifest) {
        if self.stopped.is_none() && manifest.supersedes(&self.manifest) {
            let bytes = manifest.to_bytes();
            self.add_system(Entry::Manifest(bytes.into()));
            self.appending.force = true;
        }
    }

    /// A newer manifest is in the log.
    pub(super) fn manifest_applied(&mut self, manifest: Manifest) {
        if !manifest.supersedes(&self.manifest) {
            return;
        }
        self.manifest = manifest.clone();
        self.outputs.push_back(Output::Manifest(manifest));
        let gone: Vec<_> = self.links.keys().filter(|node| !is_member(&self.manifest, node)).copied().collect();
        for node in gone {
            self.unlink(node, super::Unlink::NotMember);
        }
        if !is_member(&self.manifest, &self.own.node) {
            self.stop(Stop::Removed);
        }
    }
}
