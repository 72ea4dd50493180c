//! Reading what a store holds in the order in which it was taken in, beside the machine: what subscriptions deliver.
//!
//! A reader begins where the checkpoint ends and takes every row behind, once. It says of each what the machine said when it
//! delivered it, as long as it takes over every checkpoint before rows that this one stands for are gone.

use std::collections::BTreeSet;

use super::Delivery;
use super::recovery::OpenError;
use super::replay::{Branches, Replay, Replayed};
use crate::replica::log::keys::Keys;
use crate::replica::log::ledger::{Ledger, is_member};
use crate::replica::log::storage::{Checkpoint, Row};
use crate::replica::log::summary;
use crate::replica::log::vector::{Split, Vector, Writer};
use crate::replica::log::wire::Tip;
use crate::replica::place::{LogId, NodeId};

/// Takes rows.
#[derive(Debug)]
pub(crate) struct Reader {
    keys: Keys,
    replay: Replay,
    /// Logs of which every place is remembered, since they fork.
    forked: BTreeSet<LogId>,
}

/// Where a checkpoint ends.
#[derive(Debug)]
pub(crate) struct Covered(Ledger);

/// Why a row was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ReadError {
    /// Begin again with a reader that knows it.
    #[error("a log that was not known to fork")]
    Forks(LogId),
    #[error(transparent)]
    Content(#[from] OpenError),
}

impl Reader {
    /// Begins where a checkpoint ends, or at the beginning.
    pub(crate) fn new(keys: Keys, covered: Option<&Covered>, forked: BTreeSet<LogId>) -> Self {
        let ledger = covered.map_or_else(Ledger::default, |covered| covered.0.clone());
        Self { keys, replay: Replay::new(ledger, Some(forked.clone())), forked }
    }

    /// Takes the next row. Nothing comes of one that does not count any more.
    pub(crate) fn row(&mut self, row: &Row) -> Result<Option<(Delivery, Vec<Split>)>, ReadError> {
        match self.replay.row(&self.keys, row, Branches::AsStored)? {
            Replayed::Applied(taken) => Ok(Some((taken.delivery, taken.splits))),
            Replayed::Void => {
                let tip = Tip { log: row.log, seq: row.seq, hash: row.hash };
                let counts_no_more = self.replay.is_void(&row.log, row.seq) || self.replay.beside.contains(&tip);
                let known = self.forked.contains(&row.log) || !self.replay.ledger.logs.contains_key(&row.log);
                if counts_no_more || known { Ok(None) } else { Err(ReadError::Forks(row.log)) }
            }
        }
    }

    /// Whether everything that a checkpoint covers was read.
    pub(crate) fn has(&self, covered: &Covered) -> bool {
        let ledger = &self.replay.ledger;
        covered.0.logs.iter().all(|(id, log)| {
            let last = log.chains().map(|chain| chain.seq).max().unwrap_or_default();
            ledger.is_forgotten(id) || ledger.logs.get(id).is_some_and(|log| log.reaches(last))
        })
    }

    /// Takes over what a checkpoint settles, all of which was read.
    pub(crate) fn adopt(&mut self, covered: &Covered) {
        self.replay.ledger.adopt(&covered.0);
    }
}

impl Covered {
    /// `None` when the checkpoint is damaged.
    pub(crate) fn of(keys: &Keys, checkpoint: &Checkpoint) -> Option<Self> {
        summary::decode(&checkpoint.summary, keys).map(Self)
    }

    /// Whether the newest manifest in it names this node.
    pub(crate) fn has_member(&self, node: &NodeId) -> bool {
        self.0.manifest().is_some_and(|manifest| is_member(manifest, node))
    }

    /// Everything that it covers, of logs that are not over.
    pub(crate) fn vector(&self) -> Vector {
        Vector(self.parts().map(|(writer, _, to)| (writer, to)).collect())
    }

    /// Whether a vector has everything that it covers. What is over was seen by whoever has seen the rest.
    pub(crate) fn is_in(&self, vector: &Vector) -> bool {
        self.parts().all(|(writer, _, to)| vector.reaches(&writer, to))
    }

    /// Whether a vector has something of a log of which nothing counts any more but what is covered.
    pub(crate) fn leaves_out(&self, vector: &Vector) -> bool {
        vector.0.iter().any(|(writer, seq)| match (self.0.forgotten.get(&writer.log), self.0.logs.get(&writer.log)) {
            (Some(last), _) => seq > last,
            (None, Some(log)) if log.is_final() => {
                !log.chains().flat_map(|chain| chain.parts(writer.log)).any(|(of, _, to)| of == *writer && *seq <= to)
            }
            _ => false,
        })
    }

    pub(crate) fn is_over(&self, log: &LogId) -> bool {
        self.0.is_forgotten(log)
    }

    /// How far it covers a log.
    pub(crate) fn reaches(&self, log: &LogId) -> u64 {
        let last = |log: &crate::replica::log::ledger::Log| log.chains().map(|chain| chain.seq).max();
        let over = self.0.forgotten.get(log).copied();
        over.or_else(|| self.0.logs.get(log).and_then(last)).unwrap_or_default()
    }

    fn parts(&self) -> impl Iterator<Item = (Writer, u64, u64)> + '_ {
        self.0.logs.iter().flat_map(|(id, log)| log.chains().flat_map(|chain| chain.parts(*id)))
    }
}
