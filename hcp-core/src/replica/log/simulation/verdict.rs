//! What must hold all the time, and what at the end.

use super::faults::Fault;
use super::{Checked, World};
use crate::replica::log::limits::{MAX_HASHES, RECENT, WINDOW};
use crate::replica::log::machine::{Input, Machine};

impl World {
    /// After every step of a node.
    pub(super) fn check_bounds(&self, node: usize) -> Checked {
        let Some(machine) = self.nodes[node].machine.as_ref() else { return Ok(()) };
        let sizes = machine.sizes();
        if sizes.held_bytes as u64 > WINDOW {
            return Err(format!("node {node} holds back {} bytes", sizes.held_bytes));
        }
        if sizes.unstored > WINDOW {
            return Err(format!("node {node} keeps {} bytes of one peer's that are on no disk", sizes.unstored));
        }
        if sizes.hashes > MAX_HASHES || sizes.recent > RECENT + 600 * 1024 {
            return Err(format!("node {node} keeps {} hashes and {} recent bytes", sizes.hashes, sizes.recent));
        }
        Ok(())
    }

    /// Every honest node writes once more: nobody stalls.
    pub(super) fn last_words(&mut self) {
        if !self.plan.last_words {
            return;
        }
        for node in 0..self.nodes.len() {
            if !self.is_hostile(node)
                && !self.nodes[node].gone
                && let Err(reason) = self.append(node)
            {
                self.failed = Some(reason);
            }
        }
    }

    /// Who asks for one more checkpoint, if enough nodes are there that sign what is so.
    fn ask_last_of(&self) -> Option<usize> {
        let members = self.nodes.len();
        let honest = |node: &usize| !self.is_hostile(*node) && !self.nodes[*node].gone;
        let there = (0..members).filter(honest).count().saturating_sub(self.forgetful());
        let enough = there > (members + (members - 1) / 3) / 2;
        (0..members).find(honest).filter(|_| enough && self.plan.retention > 0.0)
    }

    /// How many may have signed what they do not remember, since their disk was lost or rolled back, and may not sign for long.
    fn forgetful(&self) -> usize {
        let forgets = |fault: &&Fault| matches!(fault, Fault::Backup | Fault::LostDisk);
        self.plan.faults.iter().filter(forgets).count()
    }

    /// Asks for one more checkpoint where that must come to be.
    pub(super) fn ask_last(&mut self) {
        let Some(node) = self.ask_last_of() else { return };
        if let Err(reason) = self.tell(node, Input::Retain) {
            self.failed = Some(reason);
        }
        let asked = |machine: &Machine| Some((machine.log(), machine.ledger().logs.get(&machine.log())?.last()));
        self.asked_last = self.nodes[node].machine.as_ref().and_then(asked);
    }

    /// When everything has been well for a while.
    pub(super) fn verdict(&mut self) -> Checked {
        let stays = |node: &usize| !self.is_hostile(*node) && !self.nodes[*node].gone;
        let honest: Vec<usize> = (0..self.nodes.len()).filter(stays).collect();
        for node in &honest {
            if let Some(why) = self.nodes[*node].stopped {
                return Err(format!("node {node} has stopped: {why}"));
            }
        }
        let first = &self.nodes[honest[0]].application;
        for (index, known) in self.oracle.entries.iter().enumerate() {
            let id = super::EntryId(index as u64 + 1);
            let kept = known.holders.iter().any(|holder| honest.contains(holder));
            if kept && let Some(node) = honest.iter().find(|node| !self.nodes[**node].application.applied.contains(id))
            {
                return Err(format!(
                    "entry {} of node {} at {:?} is held by {:?} and missing at node {node}",
                    id.0, known.author, known.place, known.holders
                ));
            }
        }
        for node in &honest[1..] {
            let other = &self.nodes[*node].application;
            if let Some(id) = first.applied.differs(&other.applied) {
                let author = self.oracle.known(id).map(|known| known.author);
                return Err(format!(
                    "entry {} of node {author:?} is not at both of node {} and node {node}",
                    id.0, honest[0]
                ));
            }
            if first.registers != other.registers {
                return Err(format!("node {} and node {node} are in different states", honest[0]));
            }
        }
        for node in &honest {
            let Some(machine) = self.nodes[*node].machine.as_ref() else { return Err(format!("node {node} is down")) };
            for (log, known) in &machine.ledger().logs {
                let author = self.cast.index(&log.node).unwrap_or_default();
                if known.forked && !self.is_hostile(author) {
                    return Err(format!("a log of node {author}, which is honest, has forked"));
                }
                let kinds = [
                    (known.forked, "logs forked"),
                    (known.chains().count() > 1, "logs with branches"),
                    (known.ended, "logs ended"),
                    (known.removed, "logs of removed members"),
                ];
                kinds.iter().filter(|(is, _)| *is).for_each(|(_, what)| self.counts.note(what));
            }
        }
        let holds = |node: &usize| self.nodes[*node].machine.as_ref().map(Machine::holds);
        // Of two checkpoints one is newer as long as no more than may lie do so, or forget what they have signed.
        let lying = self.forgetful() + if self.plan.hostile { self.plan.liars } else { 0 };
        if lying <= (self.nodes.len() - 1) / 3
            && let Some(node) = honest.iter().find(|node| holds(node) != holds(&honest[0]))
        {
            return Err(format!("node {} and node {node} hold different checkpoints", honest[0]));
        }
        if let Some((log, seq)) = self.asked_last {
            let held = self.nodes[honest[0]].machine.as_ref().and_then(|machine| machine.status().checkpoint);
            if held.is_none_or(|held| held.log != log || held.seq < seq) {
                return Err("no checkpoint is made any more".to_owned());
            }
        }
        let last = self.oracle.entries.len() - if self.plan.last_words { honest.len() } else { 0 };
        for known in &self.oracle.entries[last..] {
            if known.place.is_none() {
                return Err(format!("node {} cannot write", known.author));
            }
        }
        self.counts.add_to("entries", self.oracle.entries.len() as u64);
        Ok(())
    }
}
