//! What must hold in the end, and when that is.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use super::{Node, Sim, has_failed};
use crate::messenger::contact::ContactState;
use crate::messenger::content::{Content, What};
use crate::messenger::machine::transfers::is_open;
use crate::messenger::message::{Direction, MessageId, MessageState};
use crate::messenger::store::{OperationRow, TransferRow};
use crate::messenger::transfer::{TransferFailure, TransferId, TransferState};

impl Sim {
    /// The operations that either of the two holds, each with who wrote it.
    pub(super) fn held(&self) -> BTreeSet<(usize, MessageId)> {
        let of = |node: usize| {
            let rows = self.operations(node).into_iter();
            rows.map(move |row| (if row.direction == Direction::Outgoing { node } else { 1 - node }, row.id))
        };
        of(0).chain(of(1)).collect()
    }

    /// How many epochs the two remember no more.
    pub(super) fn forgotten(&self) -> u64 {
        let count = |node: usize, direction| {
            let contact = self.contact(node);
            contact.map_or(0, |contact| self.store(node).count_epochs(contact.id, direction).unwrap())
        };
        let of = |writer: usize| {
            count(writer, Direction::Outgoing).saturating_sub(count(1 - writer, Direction::Incoming)) as u64
        };
        of(0) + of(1)
    }

    pub(super) fn at_rest(&self) -> bool {
        (0..2).all(|node| {
            let machine = self.machine(node);
            let waits = |row: &OperationRow| matches!(row.state, MessageState::Queued | MessageState::Written);
            let is_fetched = |row: &TransferRow| row.direction == Direction::Incoming;
            let links: Vec<_> = machine.links.values().filter_map(|link| link.sync.as_ref()).collect();
            let Some(contact) = self.contact(node).filter(|row| row.state == ContactState::Accepted) else {
                return false;
            };
            let open = machine.store().open_transfers(contact.id).unwrap();
            links.len() == 1
                && links.iter().all(|sync| sync.knows && sync.recalls.is_empty())
                && !self.operations(node).iter().any(waits)
                && !open.iter().any(|row| is_fetched(row) && row.state == TransferState::Running)
        })
    }

    /// What both hold, for whoever looks for what is wrong.
    pub(super) fn describe(&self) -> String {
        let states = (0..2).map(|node| {
            let Some(contact) = self.contact(node) else { return "knows nobody".to_owned() };
            let store = self.store(node);
            let own = store.epochs(contact.id, Direction::Outgoing).unwrap();
            let theirs = store.epochs(contact.id, Direction::Incoming).unwrap();
            let rows = self.operations(node);
            let waiting: Vec<_> = rows.iter().filter(|row| row.state != MessageState::Delivered).collect();
            let waiting: Vec<_> = waiting.iter().map(|row| (row.state, row.is_text)).collect();
            let open = store.open_transfers(contact.id).unwrap();
            let open: Vec<_> = open.iter().map(|row| (row.id, row.direction, row.state)).collect();
            format!(
                "{:?}, {waiting:?}, open {open:?}, fetches {:?}, own {own:?}, theirs {theirs:?}, {:?}",
                contact.state,
                self.nodes[node].fetches,
                self.machine(node).links
            )
        });
        states.collect::<Vec<_>>().join("; ")
    }

    /// Whatever must hold in the end.
    pub(super) fn check(&self) -> Result<(), String> {
        for node in 0..2 {
            self.check_operations(node)?;
            self.check_texts(node)?;
            self.check_offers(&self.nodes[node])?;
        }
        self.check_transfers()?;
        match self.violations.first() {
            Some(reason) => Err(format!("an honest side is said to have sent {reason}")),
            None => Ok(()),
        }
    }

    /// Both have whatever a node has written, and none of it is lost.
    fn check_operations(&self, writer: usize) -> Result<(), String> {
        let written: Vec<_> =
            self.operations(writer).into_iter().filter(|row| row.direction == Direction::Outgoing).collect();
        let arrived = self.operations(1 - writer).into_iter().filter(|row| row.direction == Direction::Incoming);
        let arrived: BTreeSet<_> = arrived.map(|row| row.id).collect();
        let delivered = written.iter().filter(|row| row.state == MessageState::Delivered);
        let delivered: BTreeSet<_> = delivered.map(|row| row.id).collect();
        if delivered != arrived {
            return Err(format!(
                "of what {writer} wrote, {} are only at the sender and {} only at the receiver",
                delivered.difference(&arrived).count(),
                arrived.difference(&delivered).count()
            ));
        }
        if written.iter().any(|row| row.state == MessageState::Cancelled && !self.taken_back.contains(&row.id)) {
            return Err("something was taken back by nobody".into());
        }
        let ids: BTreeSet<_> = written.iter().map(|row| row.id).collect();
        if self.kept.iter().any(|(by, id)| *by == writer && !ids.contains(id)) {
            return Err("something is lost that one of the two held all the time".into());
        }
        let Node { written, restored, .. } = &self.nodes[writer];
        if !restored && written.iter().any(|(_, id)| !ids.contains(id)) {
            return Err("something that was written is lost".into());
        }
        Ok(())
    }

    /// Texts are shown once, and in order.
    fn check_texts(&self, writer: usize) -> Result<(), String> {
        let (sender, receiver) = (&self.nodes[writer], &self.nodes[1 - writer]);
        let arrived = self.operations(1 - writer).into_iter();
        let arrived: Vec<_> = arrived.filter(|row| row.direction == Direction::Incoming && row.is_text).collect();
        let shown: HashSet<_> = receiver.shown.iter().copied().collect();
        if shown.len() != receiver.shown.len() {
            return Err("something was shown twice".into());
        }
        if shown != arrived.iter().map(|row| row.id).collect() {
            return Err("something that arrived was not shown".into());
        }
        // In the order in which they were written, within each life of a sender that was restored.
        let places: BTreeMap<_, _> = arrived.iter().enumerate().map(|(place, row)| (row.id, place)).collect();
        let mut last: BTreeMap<u64, usize> = BTreeMap::new();
        for (life, id) in &sender.written {
            let Some(place) = places.get(id) else { continue };
            let life = if sender.restored { *life } else { 0 };
            if last.insert(life, *place).is_some_and(|before| before > *place) {
                return Err("something arrived before what was written before it".into());
            }
        }
        Ok(())
    }

    /// Offers are shown once; those that were declined for another one need not be.
    fn check_offers(&self, node: &Node) -> Result<(), String> {
        let shown: BTreeSet<_> = node.offers.iter().copied().collect();
        if shown.len() != node.offers.len() {
            return Err("an offer was shown twice".into());
        }
        let rows = node.machine.as_ref().unwrap().store().transfers(usize::MAX >> 1).unwrap();
        match rows.iter().find(|row| row.state != TransferState::Declined && !shown.contains(&row.id)) {
            Some(row) => Err(format!("a transfer that is {:?} was not shown", row.state)),
            None => Ok(()),
        }
    }

    /// Of each transfer both know the same end, or both none.
    fn check_transfers(&self) -> Result<(), String> {
        let [here, there] = [0, 1].map(|node| {
            let rows = self.store(node).transfers(usize::MAX >> 1).unwrap().into_iter();
            let unsent = self.unsent_offers(node);
            rows.filter(|row| !unsent.contains(&row.id)).map(|row| (row.id, row)).collect::<BTreeMap<_, _>>()
        });
        if !here.keys().eq(there.keys()) {
            return Err("an offer is known to one of the two".into());
        }
        // Who said what of which; both have the same operations by now.
        let mut ends: BTreeMap<TransferId, Vec<TransferState>> = BTreeMap::new();
        for row in self.operations(0) {
            if let Some(Content { what: What::End { transfer, outcome }, .. }) = Content::decode(&row.content).unwrap()
            {
                ends.entry(transfer).or_default().push(outcome.state());
            }
        }
        for (row, other) in here.values().zip(there.values()) {
            let ends = ends.get(&row.id).map(Vec::as_slice).unwrap_or_default();
            let sender = if row.direction == Direction::Outgoing { 0 } else { 1 };
            let told = format!("{:?} at one and {:?} at the other, ends {ends:?}", row.state, other.state);
            if row.direction == other.direction {
                return Err("a transfer goes both ways".into());
            }
            for state in [row.state, other.state] {
                // Both may have ended it, each before it heard the other.
                let fits = match state {
                    state if is_open(state) => ends.is_empty(),
                    // Who is told of it hears that it was cancelled.
                    TransferState::Failed(TransferFailure::Removed) => ends.contains(&TransferState::Cancelled),
                    state => ends.contains(&state),
                };
                if !fits {
                    return Err(format!("a transfer is {told}"));
                }
                if state == TransferState::Done && !self.complete.contains(&row.id) {
                    return Err("a file counts as complete that never was".into());
                }
            }
            // Who has ended it refuses it, perhaps before that is heard of.
            let refused = ends.contains(&TransferState::Failed(TransferFailure::SourceChanged))
                && !ends.iter().any(|end| matches!(end, TransferState::Cancelled | TransferState::Declined));
            if refused && !self.changed.contains(&row.id) && !self.nodes[sender].restored {
                return Err(format!("a file that was there was not served: it is {told}"));
            }
        }
        Ok(())
    }

    /// The transfers that a node offered and took back before that went out.
    fn unsent_offers(&self, node: usize) -> BTreeSet<TransferId> {
        let rows = self.operations(node).into_iter().filter(|row| has_failed(row.state));
        let offered = rows.filter_map(|row| match Content::decode(&row.content).unwrap()?.what {
            What::Offer(offered) => Some(offered.transfer),
            _ => None,
        });
        offered.collect()
    }

    /// All operations between the two that a node has.
    fn operations(&self, node: usize) -> Vec<OperationRow> {
        self.contact(node).map(|contact| self.store(node).operations(contact.id)).unwrap_or_default()
    }
}
