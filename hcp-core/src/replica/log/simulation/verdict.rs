//! What must hold all the time, and what at the end.

use super::{Checked, World};
use crate::replica::log::limits::{MAX_HASHES, RECENT, WINDOW};

impl World {
    /// After every step of a node.
    pub(super) fn check_bounds(&self, node: usize) -> Checked {
        let Some(machine) = self.nodes[node].machine.as_ref() else { return Ok(()) };
        let sizes = machine.sizes();
        if sizes.held_bytes as u64 > WINDOW {
            return Err(format!("node {node} holds back {} bytes", sizes.held_bytes));
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
