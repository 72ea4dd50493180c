//! Opening: the store's rows make the ledger, then a new run of the node's log begins.

use std::collections::HashMap;
use std::time::{Duration, UNIX_EPOCH};

#[cfg(test)]
use super::planted::{Defect, planted};
use super::{Config, Delivery, Machine};
use crate::replica::log::entry;
use crate::replica::log::keys::Keys;
use crate::replica::log::ledger::{Change, Ledger, Slot};
use crate::replica::log::storage::{Branch, Hash, Opened, Position, Row};
use crate::replica::log::vector::{Split, Vector};
use crate::replica::log::wire::{Head, SegmentError, Tip};
use crate::replica::place::{LogId, Stamp};

/// Why a store's content makes no log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum OpenError {
    #[error("a stored segment: {0}")]
    Segment(#[from] SegmentError),
    #[error("stored segments that do not fit together")]
    Order,
}

/// Takes what a store holds, row by row.
#[derive(Debug)]
pub(crate) struct Recovery {
    keys: Keys,
    ledger: Ledger,
    position: Position,
    latest: Stamp,
    /// What stands where. Only forks need it, of which nobody knows before they come; it goes when the log is open.
    standing: HashMap<(LogId, u64), Vec<(Hash, Branch)>>,
    /// Whatever each segment named.
    named: HashMap<LogId, Vec<(u64, Branch, Vec<(Tip, Branch)>)>>,
}

impl Recovery {
    pub(crate) fn new(keys: Keys, opened: Opened) -> Result<Self, OpenError> {
        let _ = opened;
        Ok(Self {
            keys,
            ledger: Ledger::default(),
            position: Position(0),
            latest: Stamp::default(),
            standing: HashMap::new(),
            named: HashMap::new(),
        })
    }

    /// Takes the next row. With its payload, the application's entries come out of it, as they were delivered; without, only
    /// what the log itself is ruled by is needed, and none do.
    pub(crate) fn row(&mut self, row: &Row) -> Result<(Delivery, Vec<Split>), OpenError> {
        let head = Head::parse(&row.header)?;
        let entries = match &row.payload {
            Some(payload) => entry::entries(payload)?,
            None if row.system => return Err(OpenError::Order),
            None => Vec::new(),
        };
        let resolved: Vec<(Tip, Branch)> =
            head.dependencies.iter().map(|tip| (*tip, self.branch_of(tip).unwrap_or_default())).collect();
        let chains = self.ledger.logs.get(&row.log).map_or(0, |log| log.chains().count());
        let slot =
            if row.branch.0 as usize == chains && chains > 0 { self.fork(&head)? } else { Slot::Extends(row.branch) };
        let applied = self.ledger.apply(&self.keys, &head, row.hash, &entries, slot, &resolved);
        if applied.branch != row.branch || row.position <= self.position {
            return Err(OpenError::Order);
        }
        self.standing.entry((row.log, row.seq)).or_default().push((row.hash, row.branch));
        self.named.entry(row.log).or_default().push((row.seq, row.branch, resolved));
        self.position = row.position;
        self.latest = self.latest.max(head.stamp);
        let splits = applied.changes.iter().filter_map(|change| match change {
            Change::Split(split) => Some(*split),
            _ => None,
        });
        let splits = splits.collect();
        let delivery = Delivery {
            position: row.position,
            writer: applied.writer,
            seq: row.seq,
            stamp: head.stamp,
            past: applied.past,
            items: applied.items,
        };
        Ok((delivery, splits))
    }

    fn branch_of(&self, tip: &Tip) -> Option<Branch> {
        let standing = self.standing.get(&(tip.log, tip.seq))?;
        standing.iter().find(|(hash, _)| *hash == tip.hash).map(|(_, branch)| *branch)
    }

    fn fork(&self, head: &Head) -> Result<Slot, OpenError> {
        let log = self.ledger.logs.get(&head.log).ok_or(OpenError::Order)?;
        let before = match head.before() {
            Some(before) => Some(self.branch_of(&before).ok_or(OpenError::Order)?),
            None => None,
        };
        let standing = self.standing.get(&(head.log, head.seq)).ok_or(OpenError::Order)?;
        let child = |branch: &Branch| {
            before.is_none_or(|before| log.owner(*branch, head.seq - 1) == log.owner(before, head.seq - 1))
        };
        let (hash, beside) = standing.iter().find(|(_, branch)| child(branch)).ok_or(OpenError::Order)?;
        let mut seen = Vector::default();
        for (seq, branch, resolved) in self.named.get(&head.log).into_iter().flatten() {
            if *seq < head.seq && before.is_some_and(|before| log.owner(before, *seq) == *branch) {
                for (tip, on) in resolved {
                    if let Some(other) = self.ledger.logs.get(&tip.log) {
                        other.raise(&mut seen, tip.log, *on, tip.seq);
                    }
                }
            }
        }
        Ok(Slot::Forks { beside: *beside, standing: *hash, seen })
    }

    /// Begins a run. The seed must be unpredictable outside of tests: the run's name and salts come from it.
    pub(crate) fn finish(self, config: Config, now: Duration, wall: u64, seed: [u8; 32]) -> Machine {
        let mut machine = Machine::new(config, now, wall, seed);
        machine.ledger = self.ledger;
        machine.position = self.position;
        machine.durable = machine
            .ledger
            .tips()
            .filter(|(tip, _)| tip.seq > 0)
            .map(|(tip, branch)| ((tip.log, branch), (tip.seq, tip.hash)))
            .collect();
        machine.clock.see(self.latest, UNIX_EPOCH + Duration::from_millis(wall));
        if let Some(known) = machine.ledger.manifest()
            && known.supersedes(&machine.manifest)
        {
            machine.manifest = known.clone();
        }
        let closed: Vec<_> = machine.ledger.logs.keys().filter(|log| !machine.ledger.is_open(log)).copied().collect();
        machine.to_cover.extend(closed);
        #[cfg(test)]
        if planted(Defect::IncarnationKept)
            && let Some(log) = machine.ledger.open_logs_of(machine.own.node).next()
        {
            machine.own = log;
        }
        machine.begin();
        machine.act();
        machine
    }
}
