//! Making a ledger of stored rows: when a node opens its store, and when it makes a checkpoint.
//!
//! What a fork takes (the hashes at every place, and what each segment named) is remembered for the logs that may need it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use super::Delivery;
use super::recovery::OpenError;
use crate::replica::log::entry::{self, Entry};
use crate::replica::log::keys::Keys;
use crate::replica::log::ledger::{Change, Ledger, Log, Slot};
use crate::replica::log::storage::{Branch, Hash, Row};
use crate::replica::log::vector::{Split, Vector};
use crate::replica::log::wire::{Head, Tip};
use crate::replica::place::LogId;

/// A ledger that takes rows.
#[derive(Clone, Debug)]
pub(super) struct Replay {
    pub(super) ledger: Ledger,
    /// Of which logs places are remembered; of all if it is none.
    only: Option<BTreeSet<LogId>>,
    standing: HashMap<(LogId, u64), Vec<(Hash, Branch)>>,
    named: HashMap<LogId, Vec<Named>>,
    /// What authors had seen where the ledger began.
    base: BTreeMap<LogId, Arc<Vector>>,
    /// Segments that stand on what no checkpoint has: whoever names them names nothing.
    pub(super) beside: BTreeSet<Tip>,
    /// Rows of such.
    pub(super) rows_beside: BTreeMap<Tip, Branch>,
}

/// What one segment named, and where it stands.
#[derive(Clone, Debug)]
struct Named {
    seq: u64,
    branch: Branch,
    resolved: Vec<(Tip, Branch)>,
}

/// How the branches of logs that forked are numbered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Branches {
    /// As the rows say; one that cannot be does not count.
    AsStored,
    /// Anew.
    Anew,
}

/// What a row that was applied gave.
#[derive(Debug)]
pub(super) struct Taken {
    pub(super) head: Head,
    pub(super) entries: Vec<Entry>,
    pub(super) delivery: Delivery,
    pub(super) splits: Vec<Split>,
}

/// What became of a row.
#[derive(Debug)]
pub(super) enum Replayed {
    Applied(Box<Taken>),
    /// A checkpoint stands for it, or it does not count any more, or something that it needs does not.
    Void,
}

impl Replay {
    pub(super) fn new(ledger: Ledger, only: Option<BTreeSet<LogId>>) -> Self {
        let base = ledger.logs.iter().filter(|(_, log)| !log.is_final());
        let base = base.filter_map(|(id, log)| Some((*id, Arc::clone(&log.chains().next()?.seen)))).collect();
        Self {
            ledger,
            only,
            standing: HashMap::new(),
            named: HashMap::new(),
            base,
            beside: BTreeSet::new(),
            rows_beside: BTreeMap::new(),
        }
    }

    pub(super) fn row(&mut self, keys: &Keys, row: &Row, branches: Branches) -> Result<Replayed, OpenError> {
        let head = Head::parse(&row.header)?;
        if self.is_void(&row.log, row.seq) {
            return Ok(Replayed::Void);
        }
        let needed = head.before();
        let stands_beside = |tip: &Tip| {
            let log = self.ledger.logs.get(&tip.log);
            self.beside.contains(tip) || log.is_some_and(|log| !log.is_final() && log.is_beside_settled(tip))
        };
        if needed.as_ref().is_some_and(stands_beside) {
            // It may stay in the store: what is stored from now on must not pass for what follows it.
            if let Some(log) = self.ledger.logs.get_mut(&row.log) {
                log.skip_numbers(Branch(row.branch.0.saturating_add(1)));
            }
            let tip = Tip { log: row.log, seq: row.seq, hash: row.hash };
            self.beside.insert(tip);
            self.rows_beside.insert(tip, row.branch);
            return Ok(Replayed::Void);
        }
        if needed.iter().any(|tip| !self.has(tip)) {
            return Ok(Replayed::Void);
        }
        let lacking: Vec<Tip> = head.dependencies.iter().filter(|tip| !self.has(tip)).copied().collect();
        match branches {
            // When it was stored everything was there; what is not any more has turned out to count no more.
            Branches::AsStored => self.beside.extend(lacking),
            Branches::Anew if !lacking.is_empty() => return Ok(Replayed::Void),
            Branches::Anew => {}
        }
        let entries = match &row.payload {
            Some(payload) => entry::entries(payload)?,
            None if row.system => return Err(OpenError::Payload),
            None => Vec::new(),
        };
        // A checkpoint that covers a place says what stands there, whatever else was seen to.
        let counts = |tip: &&Tip| !self.beside.contains(*tip) || self.is_void(&tip.log, tip.seq);
        let counting = head.dependencies.iter().filter(counts);
        let resolved: Vec<(Tip, Branch)> = counting.map(|tip| (*tip, self.on(tip))).collect();
        let Some(mut slot) = self.slot(&head) else { return Ok(Replayed::Void) };
        if branches == Branches::AsStored
            && let Slot::Extends(branch) = slot
            && let Some(log) = self.ledger.logs.get_mut(&head.log)
            && branch != row.branch
            && head.seq == log.settled + 1
        {
            log.renumber(row.branch);
            slot = Slot::Extends(row.branch);
        }
        if branches == Branches::AsStored
            && let Slot::Forks { .. } = slot
            && let Some(log) = self.ledger.logs.get_mut(&head.log)
        {
            // Those between were of branches that do not count any more.
            log.skip_numbers(row.branch);
        }
        let branch = match &slot {
            Slot::Extends(branch) => *branch,
            // Behind all that are there.
            Slot::Forks { .. } => self.ledger.logs.get(&head.log).map_or(Branch(0), Log::next_branch),
        };
        if branches == Branches::AsStored && branch != row.branch {
            return Ok(Replayed::Void);
        }
        let applied = self.ledger.apply(keys, &head, row.hash, &entries, slot, &resolved);
        if self.remembers(&row.log) {
            self.standing.entry((row.log, row.seq)).or_default().push((row.hash, applied.branch));
            let named = Named { seq: row.seq, branch: applied.branch, resolved };
            self.named.entry(row.log).or_default().push(named);
        }
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
        Ok(Replayed::Applied(Box::new(Taken { head, entries, delivery, splits })))
    }

    /// Whether a place does not count, or a checkpoint stands for it.
    pub(super) fn is_void(&self, log: &LogId, seq: u64) -> bool {
        self.ledger.is_forgotten(log) || self.ledger.logs.get(log).is_some_and(|log| seq <= log.settled)
    }

    fn remembers(&self, log: &LogId) -> bool {
        self.only.as_ref().is_none_or(|only| only.contains(log))
    }

    pub(super) fn remembers_all(&self, logs: &BTreeSet<LogId>) -> bool {
        logs.iter().all(|log| self.remembers(log))
    }

    fn has(&self, tip: &Tip) -> bool {
        if self.is_void(&tip.log, tip.seq) || self.beside.contains(tip) {
            return true;
        }
        match self.ledger.logs.get(&tip.log) {
            Some(log) if self.remembers(&tip.log) => {
                log.ends_in(tip.seq, &tip.hash).is_some() || self.branch_of(tip).is_some()
            }
            Some(log) => log.reaches(tip.seq),
            None => false,
        }
    }

    /// The branch on which a segment stands; of a log that has not forked, its only one.
    fn on(&self, tip: &Tip) -> Branch {
        let only = || self.ledger.logs.get(&tip.log).and_then(|log| log.branches().next()).map(|(branch, _)| branch);
        self.branch_of(tip).or_else(only).unwrap_or_default()
    }

    fn branch_of(&self, tip: &Tip) -> Option<Branch> {
        let log = self.ledger.logs.get(&tip.log)?;
        if log.is_final() {
            return log.ends_in(tip.seq, &tip.hash);
        }
        if tip.seq == log.settled && tip.hash == log.settled_hash {
            return log
                .branches()
                .find(|(_, chain)| (chain.from..=chain.seq).contains(&tip.seq))
                .map(|(branch, _)| branch);
        }
        let standing = self.standing.get(&(tip.log, tip.seq))?;
        standing.iter().find(|(hash, _)| *hash == tip.hash).map(|(_, branch)| *branch)
    }

    fn slot(&self, head: &Head) -> Option<Slot> {
        let Some(log) = self.ledger.logs.get(&head.log) else { return Some(Slot::Extends(Branch(0))) };
        if log.chains().next().is_none() {
            return Some(Slot::Extends(Branch(0)));
        }
        let before = head.before();
        if let Some(before) = &before
            && let Some(branch) = log.ends_in(before.seq, &before.hash)
        {
            return Some(Slot::Extends(branch));
        }
        let on = match &before {
            Some(before) => Some(self.branch_of(before)?),
            None => None,
        };
        let standing = self.standing.get(&(head.log, head.seq))?;
        let child =
            |branch: &Branch| on.is_none_or(|on| log.owner(*branch, head.seq - 1) == log.owner(on, head.seq - 1));
        let (hash, beside) = standing.iter().find(|(_, branch)| child(branch))?;
        let mut seen = self.base.get(&head.log).map(|base| (**base).clone()).unwrap_or_default();
        for named in self.named.get(&head.log).into_iter().flatten() {
            if named.seq < head.seq && on.is_some_and(|on| log.owner(on, named.seq) == named.branch) {
                for (tip, on) in &named.resolved {
                    self.ledger.raise(&mut seen, tip, *on);
                }
            }
        }
        Some(Slot::Forks { beside: *beside, standing: *hash, seen })
    }
}
