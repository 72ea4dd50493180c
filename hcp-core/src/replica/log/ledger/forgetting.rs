//! What a checkpoint lets go of: logs that are closed, and of which everybody who still writes has seen everything.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Ledger, Log};
use crate::replica::place::{LogId, NodeId};

impl Ledger {
    /// Settles everything that is in, and forgets what is over and done with, and was so where the checkpoint before this one ends.
    ///
    /// Not what is so here only: of two checkpoints that were made beside each other one covers more than the other, and a log
    /// that is over in the one need not be in the other, where runs are covered that began without having seen it.
    pub(crate) fn settle(&mut self, before: Option<&Self>) {
        let was_over =
            |id: &LogId| before.is_some_and(|before| before.logs.get(id).is_some_and(|log| before.is_over(id, log)));
        let done: BTreeMap<LogId, u64> =
            self.logs.iter().filter(|(id, log)| was_over(id) && self.is_over(id, log)).map(over).collect();
        self.forget_again();
        self.forget(&done);
        self.forget_said();
        self.logs.values_mut().for_each(Log::settle);
    }

    /// Of what stands where it was first, nothing is to be remembered, whichever copy came first.
    fn forget_again(&mut self) {
        for (log, places) in &mut self.again {
            if let Some(log) = self.logs.get(log) {
                places.retain(|(seq, _)| !log.reaches(*seq));
            }
        }
        self.again.retain(|_, places| !places.is_empty());
    }

    /// Takes over what a checkpoint settles, here where more than it covers is in.
    pub(crate) fn adopt(&mut self, covered: &Self) {
        let new = covered.forgotten.iter().filter(|(log, _)| !self.forgotten.contains_key(log));
        let new = new.map(|(log, seq)| (*log, *seq)).collect();
        self.forget(&new);
        for (id, settled) in &covered.logs {
            if let Some(log) = self.logs.get_mut(id)
                && settled.settled > log.settled
            {
                (log.settled, log.settled_hash) = (settled.settled, settled.settled_hash);
            }
        }
    }

    fn forget(&mut self, done: &BTreeMap<LogId, u64>) {
        if done.is_empty() {
            return;
        }
        self.logs.retain(|log, _| !done.contains_key(log));
        Arc::make_mut(&mut self.forgotten).extend(done);
        self.again.retain(|log, _| !done.contains_key(log));
        for log in self.logs.values_mut() {
            log.forget(|log| done.contains_key(log));
        }
    }

    /// Whether every member has an open log that has seen all of this one and that it is closed.
    fn is_over(&self, id: &LogId, log: &Log) -> bool {
        let closings = self.closings(id, log);
        if log.is_open() || closings.is_empty() {
            return false;
        }
        // What a log says that is over and done with, everybody has seen.
        let all_know = closings.iter().any(|(writer, _)| self.is_forgotten(&writer.log));
        let Some(manifest) = self.manifest() else { return false };
        let ends: Vec<_> = log.tips(*id).map(|(tip, branch)| (log.writer_of(*id, branch, tip.seq), tip.seq)).collect();
        let has_seen = |other: &Log| {
            other.chains().any(|chain| {
                ends.iter().all(|(writer, seq)| chain.seen.reaches(writer, *seq))
                    && (all_know || closings.iter().any(|(writer, seq)| chain.seen.reaches(writer, *seq)))
            })
        };
        let of = |node: &NodeId| {
            let mut open = self.open_logs_of(*node).peekable();
            // Who has a log has an open one, or is away.
            let away = open.peek().is_none() && self.logs.keys().any(|log| log.node == *node);
            !away && open.all(|log| log == *id || self.logs.get(&log).is_some_and(has_seen))
        };
        manifest.contents().members().iter().all(|member| of(&NodeId(*member.log_key().as_bytes())))
    }
}

fn over((id, log): (&LogId, &Log)) -> (LogId, u64) {
    (*id, log.chains().map(|chain| chain.seq).max().unwrap_or_default())
}
