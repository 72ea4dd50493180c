//! Opening: the store's checkpoint and rows make the ledger, then a new run of the node's log begins.
//!
//! What this node wrote, and no checkpoint has, and cannot count where it stands any more, is appended again in the new run.

#[cfg(test)]
mod tests;

use std::time::{Duration, UNIX_EPOCH};

use super::beside::Beside;
use super::checkpoints::{Noted, Stable};
#[cfg(test)]
use super::planted::{Defect, planted};
use super::replay::{Branches, Replay, Replayed, Taken};
use super::{Config, Delivery, Machine};
use crate::replica::log::entry::{self, Entry};
use crate::replica::log::ledger::{Ledger, Log};
use crate::replica::log::storage::{Opened, Position, Row};
use crate::replica::log::vector::Split;
use crate::replica::log::wire::{Head, SegmentError, Tip};
use crate::replica::place::{LogId, Place, Stamp};

/// Why a store's content makes no log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum OpenError {
    #[error("a stored segment: {0}")]
    Segment(#[from] SegmentError),
    #[error("stored segments that do not fit together")]
    Order,
    #[error("a payload that is needed is not there")]
    Payload,
    #[error("a stored checkpoint that is damaged")]
    Checkpoint,
}

/// Takes what a store holds, row by row.
#[derive(Debug)]
pub(crate) struct Recovery {
    config: Config,
    replay: Replay,
    stable: Option<Stable>,
    position: Position,
    latest: Stamp,
    again: Vec<Entry>,
    void: Vec<Position>,
    /// Entries of the log's own kinds, with where they stand.
    system: Vec<Noted>,
}

impl Recovery {
    pub(crate) fn new(config: Config, opened: Opened) -> Result<Self, OpenError> {
        let stable = match opened.checkpoint {
            Some(checkpoint) => Some(Stable::of(&config.keys, checkpoint).ok_or(OpenError::Checkpoint)?),
            None => None,
        };
        let ledger = stable.as_ref().map_or_else(Ledger::default, |stable| stable.covered.clone());
        Ok(Self {
            config,
            replay: Replay::new(ledger, None),
            stable,
            position: Position(0),
            latest: Stamp::default(),
            again: Vec::new(),
            void: Vec::new(),
            system: Vec::new(),
        })
    }

    /// Whether a row's payload is needed: not only those of the log's own kinds are.
    pub(crate) fn wants_payload(&self, row: &Row) -> bool {
        row.system || (row.log.node == self.config.keys.node && self.is_lost(&row.log, row.seq))
    }

    /// Takes the next row. With its payload, the application's entries come out of it, as they were delivered; without, none
    /// do. Nothing at all comes of a row that does not count any more.
    pub(crate) fn row(&mut self, row: &Row) -> Result<Option<(Delivery, Vec<Split>)>, OpenError> {
        if row.position <= self.position {
            return Err(OpenError::Order);
        }
        self.position = row.position;
        match self.replay.row(&self.config.keys, row, Branches::AsStored)? {
            Replayed::Applied(taken) => {
                let Taken { head, entries, delivery, splits } = *taken;
                self.latest = self.latest.max(head.stamp);
                for split in &splits {
                    self.system.iter_mut().for_each(|noted| noted.split(split));
                }
                if row.system {
                    let tip = Tip { log: row.log, seq: row.seq, hash: row.hash };
                    let (writer, past) = (delivery.writer, delivery.past.vector().clone());
                    self.system.push(Noted { tip, writer, past, entries });
                }
                Ok(Some((delivery, splits)))
            }
            #[cfg(test)]
            Replayed::Void if planted(Defect::PrunedAgain) => Ok(self.as_if_new(row)),
            Replayed::Void => {
                // What stands beside a checkpoint is kept for those that do not have that checkpoint yet.
                let tip = Tip { log: row.log, seq: row.seq, hash: row.hash };
                if !self.replay.beside.contains(&tip) {
                    self.void.push(row.position);
                }
                if row.log.node == self.config.keys.node && self.is_lost(&row.log, row.seq) {
                    self.write_again(row)?;
                }
                Ok(None)
            }
        }
    }

    /// Hands out what does not count any more.
    #[cfg(test)]
    fn as_if_new(&self, row: &Row) -> Option<(Delivery, Vec<Split>)> {
        use crate::replica::log::ledger::{Item, Turn};
        use crate::replica::log::vector::{Past, Spot, Writer};
        let (writer, seq) = (Writer::trunk(row.log), row.seq);
        let items = (0..).zip(entry::entries(row.payload.as_ref()?).ok()?).filter_map(|(index, entry)| match entry {
            Entry::Plain(body) => {
                Some(Item { spot: Spot { writer, seq, index }, first: None, turn: Turn::First, body })
            }
            _ => None,
        });
        let (items, past, stamp) = (items.collect(), Past::default(), Stamp::default());
        Some((Delivery { position: row.position, writer, seq, stamp, past, items }, Vec::new()))
    }

    /// Whether nothing stands for what this node wrote there.
    fn is_lost(&self, log: &LogId, seq: u64) -> bool {
        let ledger = &self.replay.ledger;
        match (ledger.forgotten.get(log), ledger.logs.get(log)) {
            (Some(last), _) => seq > *last,
            (None, Some(log)) => log.is_final() && !log.reaches(seq),
            (None, None) => false,
        }
    }

    fn write_again(&mut self, row: &Row) -> Result<(), OpenError> {
        let head = Head::parse(&row.header)?;
        let payload = row.payload.as_ref().ok_or(OpenError::Payload)?;
        for (index, entry) in (0..).zip(entry::entries(payload)?) {
            let (first, stamp, body) = match entry {
                Entry::Plain(body) => (Place { log: row.log, seq: row.seq, index }, head.stamp, body),
                Entry::Again { first, stamp, body } => (first, stamp, body),
                _ => continue,
            };
            let known = self.replay.ledger.again.get(&first.log);
            if !known.is_some_and(|known| known.contains(&(first.seq, first.index))) {
                self.again.push(Entry::Again { first, stamp, body });
            }
        }
        Ok(())
    }

    /// What this node wrote and will append again.
    #[cfg(test)]
    pub(crate) fn appended_again(&self) -> impl Iterator<Item = &bytes::Bytes> {
        self.again.iter().filter_map(|entry| match entry {
            Entry::Again { body, .. } => Some(body),
            _ => None,
        })
    }

    /// Has what is stored from now on stand behind this position, too. Whoever has read this log under an opening before, which
    /// held more, says up to which position: what comes later must not count as read.
    pub(crate) fn behind(mut self, position: Position) -> Self {
        self.position = self.position.max(position);
        self
    }

    /// The last row that was taken, or the position behind which the next ones are to stand.
    pub(crate) fn position(&self) -> Position {
        self.position
    }

    /// Begins a run. The seed must be unpredictable outside of tests: the run's name and salts come from it.
    pub(crate) fn finish(self, now: Duration, wall: u64, seed: [u8; 32]) -> Machine {
        let mut machine = Machine::new(self.config, now, wall, seed);
        machine.ledger = self.replay.ledger;
        machine.ledger.logs.values_mut().for_each(Log::renumber_if_taken);
        let rows = self.replay.rows_beside;
        machine.beside = Beside::of(self.replay.beside.into_iter().map(|tip| (tip, rows.get(&tip).copied())).collect());
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
        let ledger = &machine.ledger;
        let closed = ledger.tips().filter(|(tip, _)| !ledger.is_open(&tip.log));
        machine.to_cover = closed.map(|(tip, branch)| (tip.log, branch)).collect();
        #[cfg(test)]
        if planted(Defect::IncarnationKept)
            && let Some(log) = machine.ledger.open_logs_of(machine.own.node).next()
        {
            machine.own = log;
        }
        machine.begin();
        // A node that writes no more keeps what it would have to append again.
        if machine.stopped.is_none() {
            machine.chores.forget_positions = self.void;
            self.again.into_iter().for_each(|entry| machine.add_system(entry));
            // What takes its place goes with the batch that deletes it, or a crash between two would lose both.
            let together = true;
            #[cfg(test)]
            let together = together && !planted(Defect::CopiesLate);
            if together {
                machine.cut_pending();
            }
        }
        machine.recover_checkpoints(self.stable, &self.system);
        machine.act();
        machine
    }
}
