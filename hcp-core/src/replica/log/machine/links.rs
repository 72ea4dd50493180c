//! Links: who may speak, what it may send, what it confirms.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use super::checks::Held;
use super::frontier::Said;
#[cfg(test)]
use super::planted::{Defect, planted};
use super::{Machine, Output, Unlink};
use crate::replica::log::ledger::is_member;
use crate::replica::log::limits::{ANSWERS, FREE_BURST, FREE_RATE, OFFER, TALK, WINDOW};
use crate::replica::log::message::{Hello, Message, Offer, Receipt};
use crate::replica::log::storage::{Branch, Hash, Range};
use crate::replica::log::wire::Tip;
use crate::replica::place::{LogId, NodeId};

/// A link: one that comes later with the same node is another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Via {
    pub(super) node: NodeId,
    number: u64,
}

/// What is known of a peer for as long as a link lasts.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) via: Via,
    /// The log that the peer writes, once it has said so.
    pub(super) log: Option<LogId>,
    /// The peer has said what it holds.
    pub(super) heard: bool,
    /// What it said of each log, and how many ends of that are not known here.
    pub(super) said: BTreeMap<LogId, Said>,
    pub(super) strange: usize,
    /// What it was told, and what it is to be told although the end that it was told is further.
    pub(super) told: BTreeMap<(LogId, Branch), (u64, Hash)>,
    pub(super) again: BTreeSet<Tip>,
    /// With whom it says that it is linked.
    pub(super) direct: BTreeSet<NodeId>,
    pub(super) told_direct: BTreeSet<NodeId>,
    /// What was sent to it and is in none of its frontiers, and when there was progress.
    pub(super) sent: BTreeMap<(LogId, Branch), (u64, Duration)>,
    /// What it lacks that its authors or others should push, since when.
    pub(super) lag: BTreeMap<LogId, (u64, Duration)>,
    pub(super) late: BTreeSet<LogId>,
    /// What may have to be pushed to it: only this is looked at between two rounds of frontiers.
    pub(super) due: BTreeSet<(LogId, Branch)>,
    /// Bytes that may be sent to it.
    pub(super) allowed: u64,
    /// Bytes that it may send, and those that it may be given back.
    window: u64,
    owed: u64,
    pub(super) reading: bool,
    /// Its credit does not suffice for the next segment.
    pub(super) blocked: bool,
    /// Nothing is read for it before.
    pub(super) pause: Duration,
    /// What it asked for, and what it will for what it is sent; so many of the first are being read.
    pub(super) needs: VecDeque<Range>,
    pub(super) reading_needs: usize,
    /// The statement of the checkpoint that it was offered, and when.
    pub(super) offered: Option<(Hash, Duration)>,
    /// That of the one that it holds, and since when it says so.
    pub(super) holds: Option<(Hash, Duration)>,
    pub(super) told_holds: Option<Hash>,
    /// Pieces that are being read for it.
    pub(super) fetching: usize,
    /// An offer that came too early behind the one before.
    early: Option<Box<Offer>>,
    receipts_due: BTreeMap<LogId, Tip>,
}

/// How much a peer says that costs no credit, over all its links: a new one costs it little.
#[derive(Debug)]
pub(super) struct Talk {
    /// How many more messages may come, and when that was counted.
    free: f64,
    /// How many receipts, messages of credit and requests for further pieces may come beside those, for what was sent to it.
    answers: f64,
    counted: Duration,
    /// When an offer was looked at.
    offered: Option<Duration>,
}

impl Link {
    fn new(via: Via) -> Self {
        Self {
            via,
            log: None,
            heard: false,
            said: BTreeMap::new(),
            strange: 0,
            told: BTreeMap::new(),
            again: BTreeSet::new(),
            direct: BTreeSet::new(),
            told_direct: BTreeSet::new(),
            sent: BTreeMap::new(),
            lag: BTreeMap::new(),
            late: BTreeSet::new(),
            due: BTreeSet::new(),
            allowed: WINDOW,
            window: WINDOW,
            owed: 0,
            reading: false,
            blocked: false,
            pause: Duration::ZERO,
            needs: VecDeque::new(),
            reading_needs: 0,
            offered: None,
            holds: None,
            told_holds: None,
            fetching: 0,
            early: None,
            receipts_due: BTreeMap::new(),
        }
    }
}

impl Talk {
    fn new(now: Duration) -> Self {
        Self { free: FREE_BURST, answers: 0.0, counted: now, offered: None }
    }

    fn count(&mut self, now: Duration, message: &Message) -> bool {
        if matches!(message, Message::Receipt(_) | Message::Credit(_) | Message::Fetch { .. }) && self.answers >= 1.0 {
            self.answers -= 1.0;
            return true;
        }
        let passed = now.saturating_sub(self.counted).as_secs_f64();
        self.counted = now;
        self.free = (self.free + passed * FREE_RATE).min(FREE_BURST) - 1.0;
        self.free >= 0.0
    }

    /// Something was sent to the peer that it may answer, with a receipt and with credit.
    fn earn(&mut self) {
        self.answers = (self.answers + ANSWERS).min(FREE_BURST);
    }
}

/// Whether a message is paid for with the receiver's credit.
fn costs(message: &Message) -> bool {
    matches!(message, Message::Segment(_) | Message::Piece(_))
}

impl Machine {
    pub(super) fn link_up(&mut self, node: NodeId) {
        if node == self.own.node || !is_member(&self.manifest, &node) {
            self.outputs.push_back(Output::Unlink(node, Unlink::NotMember));
            return;
        }
        self.drop_held_from(node);
        self.linked += 1;
        self.links.insert(node, Link::new(Via { node, number: self.linked }));
        self.greet(node);
        self.tell_frontier(node);
    }

    /// The link for whose sake something was begun, unless it is gone: nothing of that is a later one's.
    pub(super) fn link_of(&mut self, via: Via) -> Option<&mut Link> {
        self.links.get_mut(&via.node).filter(|link| link.via == via)
    }

    pub(super) fn link_down(&mut self, node: NodeId) {
        self.links.remove(&node);
        self.drop_held_from(node);
    }

    pub(super) fn unlink(&mut self, node: NodeId, why: Unlink) {
        if self.links.remove(&node).is_some() {
            self.drop_held_from(node);
            self.outputs.push_back(Output::Unlink(node, why));
        }
    }

    pub(super) fn send(&mut self, node: NodeId, message: Message) {
        if costs(&message)
            && let Some(talk) = self.talks.get_mut(&node)
        {
            talk.earn();
        }
        self.outputs.push_back(Output::Send(node, message));
    }

    /// Says who this is and which log it writes.
    pub(super) fn greet(&mut self, node: NodeId) {
        let contents = self.manifest.contents();
        let hello = Hello {
            service: *self.keys.service_key(),
            node: self.own.node,
            incarnation: self.own.incarnation,
            software: self.software,
            lowest: contents.lowest_software_version(),
            manifest: contents.version(),
        };
        self.send(node, Message::Hello(hello));
    }

    pub(super) fn receive(&mut self, node: NodeId, message: Message) {
        let now = self.now;
        let Some(link) = self.links.get(&node) else { return };
        if !costs(&message) && !self.talks.entry(node).or_insert_with(|| Talk::new(now)).count(now, &message) {
            return self.unlink(node, Unlink::Flood);
        }
        if link.log.is_none() && !matches!(message, Message::Hello(_)) {
            return self.unlink(node, Unlink::Order);
        }
        match message {
            Message::Hello(hello) => self.take_hello(node, &hello),
            Message::Frontier(frontier) => self.take_frontier(node, frontier),
            Message::Segment(segment) => {
                if self.charge(node, segment.cost() as u64) {
                    self.receive_segment(node, segment);
                }
            }
            Message::Receipt(receipt) => self.take_receipt(node, &receipt),
            Message::Credit(bytes) => {
                if let Some(link) = self.links.get_mut(&node) {
                    link.allowed = link.allowed.saturating_add(bytes).min(WINDOW);
                    link.blocked = false;
                }
            }
            Message::Need(need) => self.take_need(node, need),
            Message::Offer(offer) => self.take_offer_in_turn(node, offer),
            Message::Holds(statement) => {
                if let Some(link) = self.links.get_mut(&node) {
                    link.holds = Some((statement, now));
                }
            }
            Message::Fetch { root, index } => self.take_fetch(node, root, index),
            Message::Piece(piece) => {
                if self.charge(node, super::fetching::piece_cost(&piece)) {
                    self.take_piece(node, piece);
                }
            }
        }
    }

    /// Looks at an offer, which is dear, unless one came just before.
    fn take_offer_in_turn(&mut self, node: NodeId, offer: Box<Offer>) {
        let now = self.now;
        let Some(talk) = self.talks.get_mut(&node) else { return };
        if talk.offered.is_some_and(|at| now.saturating_sub(at) < OFFER / 2) {
            if let Some(link) = self.links.get_mut(&node) {
                link.early = Some(offer);
            }
            return;
        }
        talk.offered = Some(now);
        self.take_offer(node, &offer);
    }

    /// Looks at offers that came too early, and forgets how much those said who say nothing.
    pub(super) fn take_early_offers(&mut self) {
        let early = self.links.iter_mut().filter_map(|(node, link)| Some((*node, link.early.take()?)));
        for (node, offer) in early.collect::<Vec<_>>() {
            self.take_offer_in_turn(node, offer);
        }
        let (now, links) = (self.now, &self.links);
        self.talks.retain(|node, talk| links.contains_key(node) || now.saturating_sub(talk.counted) < TALK);
    }

    fn take_hello(&mut self, node: NodeId, hello: &Hello) {
        let lowest = self.manifest.contents().lowest_software_version();
        let why = if hello.service != *self.keys.service_key() || hello.node != node {
            Some(Unlink::Foreign)
        } else if hello.software < lowest {
            Some(Unlink::PeerTooOld)
        } else if self.software < hello.lowest {
            Some(Unlink::TooOld)
        } else {
            None
        };
        if let Some(why) = why {
            return self.unlink(node, why);
        }
        let log = LogId { node, incarnation: hello.incarnation };
        if let Some(link) = self.links.get_mut(&node) {
            link.log = Some(log);
        }
        if let Some((seq, hash)) = self.durable.get(&(log, Branch(0))) {
            let tip = Tip { log, seq: *seq, hash: *hash };
            self.note_receipt_due(tip);
            self.send_receipts();
        }
    }

    /// Takes from a peer's credit; `false` when it had none.
    fn charge(&mut self, node: NodeId, cost: u64) -> bool {
        let Some(link) = self.links.get_mut(&node) else { return false };
        #[cfg(test)]
        if planted(Defect::CreditIgnored) {
            return true;
        }
        match link.window.checked_sub(cost) {
            Some(left) => {
                link.window = left;
                true
            }
            None => {
                self.unlink(node, Unlink::Credit);
                false
            }
        }
    }

    /// What a peer sent takes no room any more.
    pub(super) fn give_back(&mut self, node: NodeId, cost: u64) {
        let Some(link) = self.links.get_mut(&node) else { return };
        // What came over an earlier link of this peer's is in no credit of this one.
        link.owed = (link.owed + cost).min(WINDOW - link.window);
        if link.owed >= WINDOW / 4 {
            let owed = std::mem::take(&mut link.owed);
            link.window += owed;
            self.send(node, Message::Credit(owed));
        }
    }

    /// Something of a peer's own is durable here.
    pub(super) fn note_receipt_due(&mut self, tip: Tip) {
        if let Some(link) = self.links.get_mut(&tip.log.node) {
            link.receipts_due.insert(tip.log, tip);
        }
    }

    pub(super) fn send_receipts(&mut self) {
        let due: Vec<(NodeId, Tip)> = self
            .links
            .iter_mut()
            .filter(|(_, link)| link.log.is_some())
            .flat_map(|(node, link)| std::mem::take(&mut link.receipts_due).into_values().map(|tip| (*node, tip)))
            .collect();
        for (node, tip) in due {
            let signature = (self.keys.sign)(&tip.receipted(self.keys.service_key()));
            self.send(node, Message::Receipt(Receipt { tip, signature }));
        }
    }

    fn take_receipt(&mut self, node: NodeId, receipt: &Receipt) {
        let tip = receipt.tip;
        let known = self.receipts.get(&(tip.log, node)).is_some_and(|seq| *seq >= tip.seq);
        if tip.log.node != self.own.node || known {
            return;
        }
        if !(self.keys.verify)(&node, &tip.receipted(self.keys.service_key()), &receipt.signature) {
            return self.unlink(node, Unlink::Forged);
        }
        // It counts for what this node wrote there, not for what the peer says stands there.
        if !matches!(self.held(&tip), Held::Yes(_)) {
            return;
        }
        let seq = self.receipts.entry((tip.log, node)).or_default();
        if tip.seq > *seq {
            *seq = tip.seq;
            self.outputs.push_back(Output::Replicated { log: tip.log, by: node, seq: tip.seq });
        }
    }
}
