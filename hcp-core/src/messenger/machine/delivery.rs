//! Delivery on a link: what the contact lacks is sent in order, what came is stored and acknowledged, what was lost here is
//! asked back.
//!
//! An operation has a place, an epoch and a sequence number, for ever. An epoch's numbers are given out only by the opening
//! of the database that began it, so that a folder which is copied back can never give one place to two operations. The
//! receiver takes each epoch in without gaps, but for those that its sender's history has, and says how far it has it;
//! whatever lies above is sent again on every link, acknowledged or not. Ids tell what was stored before under another
//! place. Of epochs a receiver remembers the latest [`MAX_EPOCHS`]; of those before, what was acknowledged stays so.

use bytes::Bytes;
use prost::Message as _;

use super::links::{Broken, HAVE_PAGE, MAX_EPOCHS, Sync};
use super::operations::Arrived;
use super::{LinkId, Machine, Now, Output};
use crate::messenger::content::{self, Content, MARK_LEN, array};
use crate::messenger::fault;
use crate::messenger::message::{Direction, MessageId, MessageState};
use crate::messenger::store::{ContactId, Epoch, OperationRow};
use crate::store::StoreError;
use crate::wire::messenger_proto::{self as proto, frame::Body};

/// Operations that may be on their way to a contact without an acknowledgement.
const MAX_IN_FLIGHT: usize = 64;
/// Their bytes, beyond which no further one is sent.
const MAX_IN_FLIGHT_BYTES: usize = 256 * 1024;
/// Looks into the database that are as much work as an ordinary frame, which takes some and its share of a commit.
const LOOKS_PER_FRAME: usize = 16;
/// Looks that an operation takes which is given back; with it come no acknowledgement and no commit of its own.
const LOOKS_PER_RETURNED: usize = 4;
/// Operations that one `Returned` brings.
const RETURN_PAGE: usize = 64;
/// Their bytes, beyond which no further one is added.
const RETURN_BYTES: usize = 256 * 1024;

/// How many ordinary frames are as much work as this one: some have the database searched for each of many things they name.
pub(in crate::messenger) fn work(frame: &Bytes) -> f64 {
    let looks = match proto::Frame::decode(frame.clone()).ok().and_then(|frame| frame.body) {
        Some(Body::Have(have)) => have.epochs.len(),
        Some(Body::Returned(returned)) => returned.operations.len().saturating_mul(LOOKS_PER_RETURNED),
        // So many are read for it.
        Some(Body::Recall(_)) => RETURN_PAGE,
        _ => 0,
    };
    1.0 + looks as f64 / LOOKS_PER_FRAME as f64
}

impl Machine {
    /// The contact says how far it has what was written here; later on also what reached it over another link, perhaps from
    /// a life of this profile that was lost.
    pub(super) fn take_have(&mut self, id: LinkId, have: proto::Have, now: Now) -> Result<(), Broken> {
        let Some(sync) = self.links.get_mut(&id).and_then(|link| link.sync.as_mut()) else { return Ok(()) };
        if have.epochs.len() > HAVE_PAGE || sync.sent.len() + have.epochs.len() > 2 * MAX_EPOCHS {
            return Err(Broken::Protocol("more epochs than there can be"));
        }
        let contact = sync.contact;
        let (knew, asking) = (sync.knows, !sync.recalls.is_empty());
        let opening = self.openings.get(&contact).copied();
        let mut delivered = Vec::new();
        for proto::Epoch { epoch, seq } in have.epochs {
            let epoch: Epoch = array(&epoch).map_err(|_| Broken::Protocol("an epoch that is none"))?;
            let own = self.store.epoch(contact, Direction::Outgoing, &epoch)?.unwrap_or(0);
            let seq = seq.min(MAX_SEQ);
            let sent = sync.sent.entry(epoch).or_insert(0);
            *sent = (*sent).max(seq.min(own));
            // What it has is acknowledged, even if the acknowledgement was lost.
            delivered.extend(self.store.written_up_to(contact, &epoch, seq)?);
            if seq > own && opening == Some(epoch) {
                // This opening alone gives out its numbers.
                return Err(Broken::Protocol("more of an epoch than there is"));
            }
            if seq > own {
                sync.recalls.add(epoch, seq);
            }
        }
        sync.knows |= !have.more;
        if sync.knows && !knew && sync.sent.len() >= self.max_epochs {
            // The contact keeps no more of them and has forgotten the oldest: of those it lacks what it never acknowledged.
            let oldest = sync.epochs.iter().position(|epoch| sync.sent.contains_key(epoch)).unwrap_or(0);
            let named = sync.epochs.split_off(oldest);
            let forgotten = std::mem::replace(&mut sync.epochs, named);
            for epoch in forgotten.into_iter().rev() {
                if self.store.is_on_its_way(contact, &epoch)? {
                    sync.epochs.push_front(epoch);
                }
            }
        }
        let begins = sync.knows && !(knew && asking);
        self.deliver(delivered)?;
        if begins {
            self.progress(id, now);
            self.recall_next(id)?;
            self.dirty.insert(contact);
        }
        Ok(())
    }

    /// Sends what the contact lacks, then what waits, as far as the limits of what is on its way allow.
    pub(super) fn pump(&mut self, id: LinkId, contact: ContactId, now: Now) -> Result<(), StoreError> {
        let opening = self.openings.get(&contact).copied();
        let Some(sync) = self.links.get_mut(&id).and_then(|link| link.sync.as_mut()) else { return Ok(()) };
        // It may have begun on another link.
        if let Some(opening) = opening.filter(|opening| !sync.epochs.contains(opening)) {
            sync.epochs.push_back(opening);
        }
        let idle = sync.in_flight.is_empty();
        let mut frames = Vec::new();
        while sync.knows && sync.has_room() {
            let Some(epoch) = sync.epochs.front().copied() else { break };
            let sent = sync.sent.get(&epoch).copied().unwrap_or(0);
            let rows = self.store.placed(contact, Direction::Outgoing, &epoch, sent, 1)?;
            match rows.into_iter().next() {
                Some((seq, row)) => {
                    sync.note_sent(epoch, seq, row.content.len());
                    frames.push(operation(epoch, sent, seq, row));
                }
                // The epoch of this opening goes on; of an older one all is sent that there is.
                None if opening == Some(epoch) && sync.epochs.len() == 1 => break,
                None if opening == Some(epoch) => sync.epochs.rotate_left(1),
                None => drop(sync.epochs.pop_front()),
            }
        }
        // What was lost comes back first: some of what waits may be among it, and what is new belongs behind it.
        let caught_up = sync.knows && sync.recalls.is_empty();
        let mut waiting = caught_up && sync.has_room() && sync.epochs.iter().all(|epoch| opening == Some(*epoch));
        while waiting {
            let Some(row) = self.store.queued(contact, 0, 1)?.pop() else { break };
            let epoch = self.opening(contact);
            let seq = self.store.epoch(contact, Direction::Outgoing, &epoch)?.unwrap_or(0) + 1;
            self.store.set_epoch(contact, Direction::Outgoing, &epoch, seq)?;
            self.store.place_operation(row.position, epoch, seq, MessageState::Written)?;
            self.tell_state(&row, MessageState::Written)?;
            let Some(sync) = self.links.get_mut(&id).and_then(|link| link.sync.as_mut()) else { break };
            if !sync.epochs.contains(&epoch) {
                sync.epochs.push_back(epoch);
            }
            sync.note_sent(epoch, seq, row.content.len());
            waiting = sync.has_room();
            frames.push(operation(epoch, seq - 1, seq, row));
        }
        if !frames.is_empty() {
            fault::point("operations placed, not committed");
            self.outputs.push(Output::Passed("operations placed, not sent"));
            if idle {
                self.progress(id, now);
            }
        }
        for frame in frames {
            self.send(id, frame);
        }
        Ok(())
    }

    /// An operation of the contact's.
    pub(super) fn take_operation(
        &mut self,
        id: LinkId,
        contact: ContactId,
        operation: proto::Operation,
        now: Now,
    ) -> Result<(), Broken> {
        let arrived = check(&operation)?;
        let epoch: Epoch = array(&operation.epoch).map_err(|_| Broken::Protocol("an epoch that is none"))?;
        let known = self.store.epoch(contact, Direction::Incoming, &epoch)?;
        let (seq, has) = (operation.seq, known.unwrap_or(0));
        if operation.after >= seq || seq > MAX_SEQ {
            return Err(Broken::Protocol("an operation out of order"));
        }
        if operation.after > has {
            // On an old link, perhaps, while a newer one has brought what came behind it.
            let forgets = known.is_none() && self.store.count_epochs(contact, Direction::Incoming)? >= self.max_epochs;
            return Err(if forgets { Broken::Forgotten } else { Broken::Protocol("an operation out of order") });
        }
        if seq > has {
            if !self.room {
                return Err(Broken::Full);
            }
            let row = self.store.contact_by_id(contact)?;
            if known.is_none() && self.store.count_epochs(contact, Direction::Incoming)? >= self.max_epochs {
                self.store.forget_epoch(contact)?;
            }
            self.store.set_epoch(contact, Direction::Incoming, &epoch, seq)?;
            self.receive(&row, Direction::Incoming, (epoch, seq), arrived, now)?;
            fault::point("operation stored, not committed");
            self.outputs.push(Output::Passed("operation committed, not acknowledged"));
        }
        if let Some(sync) = self.links.get_mut(&id).and_then(|link| link.sync.as_mut()) {
            sync.acks.insert(epoch, seq.max(has));
        }
        Ok(())
    }

    /// The contact has stored what was sent: on this link, or on another one that was faster.
    pub(super) fn take_ack(&mut self, id: LinkId, ack: &proto::Ack, now: Now) -> Result<(), Broken> {
        let Some(sync) = self.links.get_mut(&id).and_then(|link| link.sync.as_mut()) else { return Ok(()) };
        let contact = sync.contact;
        let epoch: Epoch = array(&ack.epoch).map_err(|_| Broken::Protocol("an epoch that is none"))?;
        let own = self.store.epoch(contact, Direction::Outgoing, &epoch)?;
        let (Some(sent), Some(own)) = (sync.sent.get_mut(&epoch), own) else {
            return Err(Broken::Protocol("an acknowledgement of what was not sent"));
        };
        if ack.seq > own && self.openings.get(&contact) == Some(&epoch) {
            // This opening alone gives out its numbers.
            return Err(Broken::Protocol("an acknowledgement of what was not sent"));
        }
        // More than there is here is from a life of this profile that was lost, and asked back when the contact says so.
        let seq = ack.seq.min(own);
        *sent = seq.max(*sent);
        sync.in_flight.retain(|(other, other_seq, _)| *other != epoch || *other_seq > seq);
        let delivered = self.store.written_up_to(contact, &epoch, seq)?;
        self.deliver(delivered)?;
        fault::point("acknowledgement stored, not committed");
        self.outputs.push(Output::Passed("acknowledgement committed"));
        self.progress(id, now);
        self.dirty.insert(contact);
        Ok(())
    }

    /// The contact asks for what it wrote itself, and lost.
    pub(super) fn take_recall(&mut self, id: LinkId, contact: ContactId, recall: &proto::Recall) -> Result<(), Broken> {
        let epoch: Epoch = array(&recall.epoch).map_err(|_| Broken::Protocol("an epoch that is none"))?;
        let after = recall.after.min(MAX_SEQ);
        let mut bytes = 0;
        let mut operations = Vec::new();
        for (seq, row) in self.store.placed(contact, Direction::Incoming, &epoch, after, RETURN_PAGE)? {
            bytes += row.content.len();
            if bytes > RETURN_BYTES && !operations.is_empty() {
                break;
            }
            operations.push(encode(epoch, seq - 1, seq, row));
        }
        self.outputs.push(Output::Passed("lost operations asked for, not given back"));
        self.send(id, Body::Returned(proto::Returned { epoch: recall.epoch.clone(), operations }));
        Ok(())
    }

    /// The contact gives back what was written here once.
    pub(super) fn take_returned(&mut self, id: LinkId, returned: proto::Returned, now: Now) -> Result<(), Broken> {
        let Some(sync) = self.links.get_mut(&id).and_then(|link| link.sync.as_mut()) else { return Ok(()) };
        let contact = sync.contact;
        let Some((epoch, until)) = sync.recalls.first().filter(|(epoch, _)| returned.epoch == epoch[..]) else {
            return Err(Broken::Protocol("something given back that was not asked for"));
        };
        if !self.room {
            return Err(Broken::Full);
        }
        let mut last = sync.recalls.asked();
        let row = self.store.contact_by_id(contact)?;
        let known = self.store.epoch(contact, Direction::Outgoing, &epoch)?;
        let mut has = known.unwrap_or(0);
        // What a contact can invent, that is: own ones are as many as there were openings.
        let room = known.is_some() || self.store.count_recalled(contact)? < MAX_EPOCHS;
        let mut honest = room && !returned.operations.is_empty();
        for operation in returned.operations.iter().take_while(|_| room) {
            let arrived = check(operation)?;
            let mark = content::mark(self.store.marking(), &row.address, arrived.id, arrived.content);
            // Not from here, whatever the contact says.
            if operation.seq <= last || operation.seq > until || arrived.mark != mark {
                honest = false;
                break;
            }
            last = operation.seq;
            // Another link has brought it meanwhile.
            if last <= has {
                continue;
            }
            has = last;
            self.store.set_recalled(contact, &epoch, has)?;
            self.receive(&row, Direction::Outgoing, (epoch, has), arrived, now)?;
            fault::point("lost operation stored, not committed");
            self.outputs.push(Output::Passed("lost operation committed, nothing more asked for"));
        }
        // On another link the contact may speak in a later life of its own, which lacks this.
        let links = self.links.values_mut().filter_map(|link| link.sync.as_mut());
        for sync in links.filter(|sync| sync.contact == contact && !sync.epochs.contains(&epoch)) {
            sync.epochs.push_front(epoch);
        }
        if let Some(sync) = self.links.get_mut(&id).and_then(|link| link.sync.as_mut()) {
            sync.sent.insert(epoch, has);
            if !honest || has >= until {
                sync.recalls.pop();
            }
        }
        self.progress(id, now);
        self.recall_next(id)?;
        // Once all is back, what waits can go.
        self.dirty.insert(contact);
        Ok(())
    }

    /// Whether something is still to come back that was written here and lost.
    pub(super) fn is_catching_up(&self, contact: ContactId) -> bool {
        let links = self.links.values().filter_map(|link| link.sync.as_ref());
        links.filter(|sync| sync.contact == contact).any(|sync| !sync.knows || !sync.recalls.is_empty())
    }

    fn recall_next(&mut self, id: LinkId) -> Result<(), StoreError> {
        let Some(sync) = self.links.get_mut(&id).and_then(|link| link.sync.as_mut()) else { return Ok(()) };
        let (contact, Some((epoch, _))) = (sync.contact, sync.recalls.first()) else { return Ok(()) };
        let after = self.store.epoch(contact, Direction::Outgoing, &epoch)?.unwrap_or(0);
        sync.recalls.ask(after);
        self.send(id, Body::Recall(proto::Recall { epoch: epoch.to_vec().into(), after }));
        Ok(())
    }

    fn deliver(&mut self, rows: Vec<OperationRow>) -> Result<(), StoreError> {
        for row in rows {
            self.set_message_state(&row, MessageState::Delivered)?;
        }
        Ok(())
    }
}

impl Sync {
    fn has_room(&self) -> bool {
        let bytes: usize = self.in_flight.iter().map(|(_, _, bytes)| bytes).sum();
        self.in_flight.len() < MAX_IN_FLIGHT && bytes < MAX_IN_FLIGHT_BYTES
    }

    fn note_sent(&mut self, epoch: Epoch, seq: u64, bytes: usize) {
        self.sent.insert(epoch, seq);
        self.in_flight.push_back((epoch, seq, bytes));
    }
}

/// Checks the parts of an operation, whoever wrote it.
fn check(operation: &proto::Operation) -> Result<Arrived<'_>, Broken> {
    let id = MessageId(array(&operation.id).map_err(|_| Broken::Protocol("an id that is none"))?);
    if operation.mark.len() != MARK_LEN {
        return Err(Broken::Protocol("a mark that is none"));
    }
    let read = Content::decode(&operation.content).map_err(|_| Broken::Protocol("a content that breaks a limit"))?;
    Ok(Arrived { id, mark: &operation.mark, content: &operation.content, read })
}

fn operation(epoch: Epoch, after: u64, seq: u64, row: OperationRow) -> Body {
    Body::Operation(encode(epoch, after, seq, row))
}

fn encode(epoch: Epoch, after: u64, seq: u64, row: OperationRow) -> proto::Operation {
    let (epoch, id) = (epoch.to_vec().into(), row.id.0.to_vec().into());
    proto::Operation { epoch, seq, id, mark: row.mark.into(), content: row.content.into(), after }
}

/// Sequence numbers fit the database's.
const MAX_SEQ: u64 = i64::MAX as u64 - 1;
