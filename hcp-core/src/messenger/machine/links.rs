//! Links: streams with peers, from their first frame to their end.
//!
//! The dialler speaks first and says where it stands; the other side answers. When both say that they are contacts, they tell
//! each other what they have, and messages flow. Of several links between the same two, the side with the lower address
//! chooses the newest, says so with `Use`, and ends the others; the other side follows.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::{Duration, Instant};

use bytes::Bytes;
use prost::Message as _;

use super::{LinkId, Machine, Now, Output, standing};
use crate::identity::OnionAddress;
use crate::messenger::contact::{Availability, ContactState, MAX_CONTACTS, MAX_PENDING, Presence};
use crate::messenger::event::{EventKind, LiveKey};
use crate::messenger::fault;
use crate::messenger::message::Direction;
use crate::messenger::store::{ContactId, ContactRow, Epoch, RowKind};
use crate::messenger::text::{Name, Text};
use crate::store::StoreError;
use crate::wire::messenger_proto::standing::Stand;
use crate::wire::messenger_proto::{self as proto, frame::Body};

/// How long a peer may take to say where it stands, and a link may last between two who are no contacts.
const HELLO_DEADLINE: Duration = Duration::from_secs(20);
/// How long a contact may take to say what it has, and to acknowledge what was sent when nothing else is acknowledged. The
/// session's keepalive notices a dead peer before that; this notices one that lives and does nothing.
const PROGRESS_DEADLINE: Duration = Duration::from_secs(60);
/// The longest frame, in bytes: what was asked back comes in frames of this size at most.
pub(in crate::messenger) const MAX_FRAME: usize = 320 * 1024;
/// Epochs that one `Have` names at the most: each costs the receiver a look into its database.
pub(super) const HAVE_PAGE: usize = 1024;
/// Epochs of a contact that are remembered, the latest: an honest one begins one for every start of its messenger after which
/// it sends something. Each is named whenever the two connect. A contact that hears of so many knows that those which it
/// began before are forgotten.
pub(super) const MAX_EPOCHS: usize = 16 * 1024;
/// How often a peer may say on one link where it stands.
const MAX_STANDINGS: u32 = 8;
/// How long contacts must have talked for a lost link to be no failure.
const USEFUL: Duration = Duration::from_secs(60);
/// Links that may lie between two at once; two when both dial at once, more only while dead ones are not noticed yet.
const MAX_LINKS: usize = 4;

/// One stream with a peer.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) peer: OnionAddress,
    dialled: bool,
    /// What was said last on it.
    said: Option<Stand>,
    /// What was heard last on it.
    heard: Option<Stand>,
    pub(super) sync: Option<Sync>,
    deadline: Instant,
    since: Instant,
    /// How often the peer has said where it stands.
    standings: u32,
}

/// A link between contacts.
#[derive(Debug)]
pub(super) struct Sync {
    pub(super) contact: ContactId,
    /// How far the contact has own epochs, as it said, and as was sent since.
    pub(super) sent: HashMap<Epoch, u64>,
    /// It has said all of it.
    pub(super) knows: bool,
    /// Epochs that may hold something to be sent, oldest first.
    pub(super) epochs: VecDeque<Epoch>,
    /// Sent and not acknowledged, with their bytes.
    pub(super) in_flight: VecDeque<(Epoch, u64, usize)>,
    /// What is to be acknowledged.
    pub(super) acks: BTreeMap<Epoch, u64>,
    /// Epochs of which the contact has more than this side.
    pub(super) recalls: Recalls,
    /// It was chosen by the side that chooses.
    chosen: bool,
}

/// Epochs that are asked back, one after the other, and up to where.
#[derive(Debug, Default)]
pub(super) struct Recalls {
    order: VecDeque<Epoch>,
    until: HashMap<Epoch, u64>,
    /// Behind which number the first one was asked for last.
    asked: u64,
}

impl Recalls {
    pub(super) fn is_empty(&self) -> bool {
        self.order.is_empty()
    }

    /// Has an epoch asked back, up to here at the least.
    pub(super) fn add(&mut self, epoch: Epoch, until: u64) {
        match self.until.entry(epoch) {
            Entry::Occupied(mut entry) => *entry.get_mut() = until.max(*entry.get()),
            Entry::Vacant(entry) => {
                entry.insert(until);
                self.order.push_back(epoch);
            }
        }
    }

    /// The first one is asked for, behind this number.
    pub(super) fn ask(&mut self, after: u64) {
        self.asked = after;
    }

    /// Behind which number the answer that is awaited begins.
    pub(super) fn asked(&self) -> u64 {
        self.asked
    }

    /// The one that is asked for now.
    pub(super) fn first(&self) -> Option<(Epoch, u64)> {
        let epoch = self.order.front()?;
        Some((*epoch, *self.until.get(epoch)?))
    }

    /// The one that was asked for is over.
    pub(super) fn pop(&mut self) {
        if let Some(epoch) = self.order.pop_front() {
            self.until.remove(&epoch);
        }
    }
}

impl Link {
    /// When it is given up.
    pub(super) fn deadline(&self) -> Instant {
        self.deadline
    }
}

impl Sync {
    /// Whether something is awaited from the contact.
    fn waits(&self) -> bool {
        !self.knows || !self.in_flight.is_empty() || !self.recalls.is_empty()
    }
}

/// A peer broke the protocol, or the database failed.
#[derive(Debug)]
pub(super) enum Broken {
    Protocol(&'static str),
    /// There is no room for what came; the contact sends it again.
    Full,
    /// What came builds on what is forgotten by now; the contact hears on the next link what is remembered.
    Forgotten,
    Store(StoreError),
}

impl From<StoreError> for Broken {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl Machine {
    /// A stream with a peer is open.
    pub(in crate::messenger) fn link_up(
        &mut self,
        id: LinkId,
        peer: OnionAddress,
        dialled: bool,
        now: Now,
    ) -> Result<(), StoreError> {
        let deadline = now.instant + HELLO_DEADLINE;
        self.links.insert(
            id,
            Link { peer, dialled, said: None, heard: None, sync: None, deadline, since: now.instant, standings: 0 },
        );
        if dialled {
            self.dialling.attempted(&peer);
        }
        let contact = self.store.contact(&peer)?;
        let wanted = self.online && contact.as_ref().is_some_and(|contact| super::wants_session(contact.state));
        let crowded = self.links.values().filter(|link| link.peer == peer).count() > MAX_LINKS;
        if (dialled && !wanted) || crowded || !self.online {
            self.drop_link(id, now);
            return Ok(());
        }
        self.dialling.connected(&peer);
        if let Some(contact) = contact.filter(|_| dialled) {
            self.say(id, true, standing::stand(contact.state), Some(&contact))?;
        }
        Ok(())
    }

    /// A stream is gone.
    pub(in crate::messenger) fn link_down(&mut self, id: LinkId, now: Now) {
        self.drop_link(id, now);
    }

    /// A frame came.
    ///
    /// A frame that breaks the protocol ends its link and nothing else.
    pub(in crate::messenger) fn handle_frame(&mut self, id: LinkId, bytes: &[u8], now: Now) -> Result<(), StoreError> {
        if !self.links.contains_key(&id) {
            return Ok(());
        }
        match self.take_frame(id, bytes, now) {
            Ok(()) => Ok(()),
            Err(Broken::Store(error)) => Err(error),
            Err(Broken::Protocol(reason)) => {
                tracing::warn!(reason, "a peer broke the messenger's protocol");
                #[cfg(test)]
                self.violations.push(reason);
                self.drop_link(id, now);
                Ok(())
            }
            Err(Broken::Full | Broken::Forgotten) => {
                self.drop_link(id, now);
                Ok(())
            }
        }
    }

    fn take_frame(&mut self, id: LinkId, bytes: &[u8], now: Now) -> Result<(), Broken> {
        if bytes.len() > MAX_FRAME {
            return Err(Broken::Protocol("a frame that is too long"));
        }
        let frame = proto::Frame::decode(bytes).map_err(|_| Broken::Protocol("a frame that is none"))?;
        // One of a later version.
        let Some(body) = frame.body else { return Ok(()) };
        let Some(link) = self.links.get_mut(&id) else { return Ok(()) };
        match (body, &mut link.sync) {
            (Body::Hello(hello), _) if link.heard.is_none() => self.hear(id, true, hello, now),
            (Body::Standing(standing), _) if link.heard.is_some() => self.hear(id, false, standing, now),
            (Body::Hello(_) | Body::Standing(_), _) => Err(Broken::Protocol("a greeting out of turn")),
            (Body::Use(_), Some(sync)) => {
                let contact = sync.contact;
                if self.me < link.peer {
                    return Err(Broken::Protocol("a choice by the side that follows"));
                }
                self.choose(id, contact);
                Ok(())
            }
            (Body::Have(have), Some(_)) => self.take_have(id, have, now),
            (Body::Operation(operation), Some(sync)) => {
                let contact = sync.contact;
                self.take_operation(id, contact, operation, now)
            }
            (Body::Ack(ack), Some(_)) => self.take_ack(id, &ack, now),
            (Body::Recall(recall), Some(sync)) => {
                let contact = sync.contact;
                self.take_recall(id, contact, &recall)
            }
            (Body::Returned(returned), Some(_)) => self.take_returned(id, returned, now),
            (Body::Availability(availability), Some(sync)) => {
                let contact = sync.contact;
                self.set_presence(contact, presence(availability.status()))?;
                Ok(())
            }
            // This side has ended the relation while these were on their way.
            (_, None) if link.heard.is_some() => Ok(()),
            (_, None) => Err(Broken::Protocol("something before the greeting")),
        }
    }

    /// A peer says where it stands.
    fn hear(&mut self, id: LinkId, hello: bool, said: proto::Standing, now: Now) -> Result<(), Broken> {
        let Some(link) = self.links.get_mut(&id) else { return Ok(()) };
        let theirs = said.stand();
        link.heard = Some(theirs);
        link.standings += 1;
        if link.standings > MAX_STANDINGS {
            return Err(Broken::Protocol("a change of mind too many"));
        }
        let (peer, dialled) = (link.peer, link.dialled);
        let refused = |_| Broken::Protocol("a name or greeting that is refused");
        let name = Name::new(&said.name).map_err(refused)?;
        let greeting = Text::greeting(&said.greeting).map_err(refused)?;

        let row = self.store.contact(&peer)?;
        let asks = matches!(theirs, Stand::Asking | Stand::Accepted);
        let mine = row.as_ref().and_then(shown);
        let takes_room = asks && mine.is_none_or(|state| !in_inbox_or_list(state));
        let busy = takes_room && !self.has_room(row.as_ref(), now)?;
        let meeting = standing::meet(mine, theirs, busy);
        let row = match (row, meeting.state) {
            (None, Some(state)) => Some(self.store.insert_contact(&peer, state)?),
            (row, _) => row,
        };
        if let Some(mut row) = row {
            let before = (row.state, row.name.clone(), row.greeting.clone());
            if row.state == ContactState::Blocked {
                row.shadow |= meeting.state == Some(ContactState::Pending);
            } else {
                row.state = meeting.state.unwrap_or(row.state);
            }
            // Nothing that somebody says who is blocked is shown.
            let heard = asks && row.state != ContactState::Blocked;
            if heard {
                name.as_str().clone_into(&mut row.name);
            }
            if heard && row.state != ContactState::Accepted && !greeting.as_str().is_empty() {
                greeting.as_str().clone_into(&mut row.greeting);
            }
            // Written for a blocked peer, too, which cannot tell then by the time it takes.
            self.store.update_contact(&row)?;
            let moved = before.0 != row.state || meeting.state == Some(ContactState::Pending);
            let renamed = (before.1, before.2) != (row.name.clone(), row.greeting.clone());
            // Strangers cannot fill the list of events by calling themselves one thing after the other.
            let told = moved || renamed && (row.state == ContactState::Accepted || self.requests.take(now.instant));
            if row.state != ContactState::Blocked && told {
                self.store.insert_event(RowKind::Contact, row.id.number(), 0)?;
            }
            if before.0 != row.state {
                self.contact_moved(&row)?;
                fault::point("standing taken, not committed");
                self.outputs.push(Output::Passed("standing committed, not sent"));
            }
            if hello && !dialled {
                self.say(id, true, meeting.answer, Some(&row))?;
            }
            // At once: what follows on this link may build on it.
            self.attend(row.id, now)?;
        } else if hello && !dialled {
            self.say(id, true, meeting.answer, None)?;
        }
        Ok(())
    }

    /// Whether a request can be taken in; makes room in the list for somebody new.
    fn has_room(&mut self, row: Option<&ContactRow>, now: Now) -> Result<bool, StoreError> {
        let token = self.requests.take(now.instant);
        let pending = self.store.count_contacts(Some(ContactState::Pending))?;
        if !token || pending >= MAX_PENDING {
            return Ok(false);
        }
        if row.and_then(shown).is_some() || self.store.count_contacts(None)? < MAX_CONTACTS {
            return Ok(true);
        }
        match row {
            None => self.store.forget_contact(),
            // Who is blocked has a place, for which nobody goes, and is told what somebody new would be told.
            Some(_) => self.store.can_forget_contact(),
        }
    }

    /// Says where this side stands.
    fn say(&mut self, id: LinkId, hello: bool, stand: Stand, row: Option<&ContactRow>) -> Result<(), StoreError> {
        let shown = matches!(stand, Stand::Asking | Stand::Accepted);
        let name = if shown { self.store.name()? } else { String::new() };
        let greeting = row.filter(|_| stand == Stand::Asking).map(|row| row.greeting.clone()).unwrap_or_default();
        let standing = proto::Standing { stand: stand.into(), name, greeting };
        if let Some(link) = self.links.get_mut(&id) {
            link.said = Some(stand);
        }
        self.send(id, if hello { Body::Hello(standing) } else { Body::Standing(standing) });
        Ok(())
    }

    /// Brings the links with a contact to where the two stand, and sends what waits.
    pub(super) fn attend(&mut self, contact: ContactId, now: Now) -> Result<(), StoreError> {
        let row = self.store.contact_by_id(contact)?;
        self.dialling.want(row.address, self.online && super::wants_session(row.state), now.instant);
        let links: Vec<LinkId> =
            self.links.iter().filter(|(_, link)| link.peer == row.address).map(|(id, _)| *id).collect();
        for id in links {
            self.attend_link(id, &row, now)?;
        }
        if let Some(main) = self.main_link(contact) {
            self.pump(main, contact, now)?;
            self.start_fetches(main, contact)?;
        }
        Ok(())
    }

    fn attend_link(&mut self, id: LinkId, row: &ContactRow, now: Now) -> Result<(), StoreError> {
        let Some(link) = self.links.get(&id) else { return Ok(()) };
        // Nothing is said before the dialler has spoken and was answered.
        let (Some(said), Some(heard)) = (link.said, link.heard) else { return Ok(()) };
        if row.state == ContactState::Blocked && (link.sync.is_some() || !row.shadow) {
            // Without a word, as a link between strangers ends.
            if link.sync.is_some() {
                self.drop_link(id, now);
            }
            return Ok(());
        }
        let stand = shown(row).map_or(Stand::None, standing::stand);
        if said != stand && said != Stand::Busy {
            self.say(id, false, stand, Some(row))?;
        }
        match (stand == Stand::Accepted && heard == Stand::Accepted, self.links.get(&id)) {
            (true, Some(link)) if link.sync.is_none() => self.begin_sync(id, row.id, now),
            // A dialler who is no contact has its answer.
            (false, Some(link)) if link.sync.is_some() || link.dialled => {
                self.drop_link(id, now);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// Both are contacts: tells what is here, so that the other sends the rest.
    fn begin_sync(&mut self, id: LinkId, contact: ContactId, now: Now) -> Result<(), StoreError> {
        let epochs = self.store.epochs(contact, Direction::Outgoing)?.into_iter().map(|(epoch, _)| epoch).collect();
        let Some(link) = self.links.get_mut(&id) else { return Ok(()) };
        link.deadline = now.instant + PROGRESS_DEADLINE;
        let leads = self.me < link.peer;
        link.sync = Some(Sync {
            contact,
            sent: HashMap::new(),
            knows: false,
            epochs,
            in_flight: VecDeque::new(),
            acks: BTreeMap::new(),
            recalls: Recalls::default(),
            chosen: false,
        });
        let have = self.store.epochs(contact, Direction::Incoming)?;
        let mut pages = have.chunks(HAVE_PAGE).peekable();
        loop {
            let page = pages.next().unwrap_or_default();
            let more = pages.peek().is_some();
            let epochs = page.iter().map(|(epoch, seq)| proto::Epoch { epoch: epoch.to_vec().into(), seq: *seq });
            self.send(id, Body::Have(proto::Have { epochs: epochs.collect(), more }));
            if !more {
                break;
            }
        }
        self.send(id, availability_frame(self.availability));
        if leads {
            self.send(id, Body::Use(proto::Use {}));
            self.choose(id, contact);
            let others: Vec<LinkId> = self.synced(contact).filter(|other| *other != id).collect();
            for other in others {
                tracing::debug!("of two links with a contact the newer one stays");
                self.drop_link(other, now);
            }
        }
        Ok(())
    }

    /// The link is the one to be sent on.
    fn choose(&mut self, id: LinkId, contact: ContactId) {
        for (other, link) in &mut self.links {
            if let Some(sync) = link.sync.as_mut().filter(|sync| sync.contact == contact) {
                sync.chosen = *other == id;
            }
        }
        self.dirty.insert(contact);
    }

    /// The link with a contact on which this side sends: the chosen one, or the newest.
    pub(super) fn main_link(&self, contact: ContactId) -> Option<LinkId> {
        let chosen =
            |id: &LinkId| self.links.get(id).and_then(|link| link.sync.as_ref()).is_some_and(|sync| sync.chosen);
        self.synced(contact).max_by_key(|id| (chosen(id), *id))
    }

    fn synced(&self, contact: ContactId) -> impl Iterator<Item = LinkId> {
        let links = self.links.iter();
        links.filter(move |(_, link)| link.sync.as_ref().is_some_and(|sync| sync.contact == contact)).map(|(id, _)| *id)
    }

    /// Sets a link's deadline anew after something came that was awaited.
    pub(super) fn progress(&mut self, id: LinkId, now: Now) {
        if let Some(link) = self.links.get_mut(&id) {
            let waits = link.sync.as_ref().is_some_and(Sync::waits);
            // A link on which nothing is awaited is watched by its session's keepalive.
            link.deadline = now.instant + if waits { PROGRESS_DEADLINE } else { Duration::from_secs(365 * 24 * 3600) };
        }
    }

    /// Lets go of a link, from whichever side it ends.
    pub(super) fn drop_link(&mut self, id: LinkId, now: Now) {
        let Some(link) = self.links.remove(&id) else { return };
        self.outputs.push(Output::Close(id));
        self.fetching.retain(|transfer, over| {
            if *over == id {
                self.outputs.push(Output::Abort(*transfer));
            }
            *over != id
        });
        if !self.links.values().any(|other| other.peer == link.peer) {
            let useful = link.sync.is_some() && now.instant.saturating_duration_since(link.since) >= USEFUL;
            self.dialling.disconnected(&link.peer, useful, now.instant, &mut self.rng);
        }
        let Some(Sync { contact, .. }) = link.sync else { return };
        if self.main_link(contact).is_some() {
            self.dirty.insert(contact);
        } else if self.presences.remove(&contact).is_some() {
            let presence = EventKind::Presence { contact: link.peer, presence: Presence::Offline };
            self.outputs.push(Output::Live(LiveKey::Presence(link.peer), presence));
        }
    }

    pub(super) fn send(&mut self, id: LinkId, body: Body) {
        let frame = proto::Frame { body: Some(body) }.encode_to_vec();
        self.outputs.push(Output::Send(id, Bytes::from(frame)));
    }

    pub(super) fn tell_availability(&mut self) {
        let links: Vec<LinkId> = self.links.iter().filter(|(_, link)| link.sync.is_some()).map(|(id, _)| *id).collect();
        for id in links {
            self.send(id, availability_frame(self.availability));
        }
    }

    /// Acknowledges what was taken in, once for everything that came together.
    pub(super) fn send_acks(&mut self) {
        let links = self.links.iter_mut().filter_map(|(id, link)| Some((*id, link.sync.as_mut()?)));
        let acks: Vec<_> = links.map(|(id, sync)| (id, sync.contact, std::mem::take(&mut sync.acks))).collect();
        for (id, contact, acks) in acks {
            // It may come from a life of the contact's profile that was lost, of which the present one should know.
            let others: Vec<LinkId> = self.synced(contact).filter(|other| *other != id && !acks.is_empty()).collect();
            for other in others {
                let epochs = acks.iter().map(|(epoch, seq)| proto::Epoch { epoch: epoch.to_vec().into(), seq: *seq });
                let have = proto::Have { epochs: epochs.collect(), more: false };
                self.send(other, Body::Have(have));
            }
            for (epoch, seq) in acks {
                self.send(id, Body::Ack(proto::Ack { epoch: epoch.to_vec().into(), seq }));
            }
        }
    }

    fn set_presence(&mut self, contact: ContactId, presence: Presence) -> Result<(), StoreError> {
        if self.presences.insert(contact, presence) != Some(presence) {
            let address = self.store.contact_by_id(contact)?.address;
            let kind = EventKind::Presence { contact: address, presence };
            self.outputs.push(Output::Live(LiveKey::Presence(address), kind));
        }
        Ok(())
    }
}

/// What a contact counts as for itself: one who is blocked as somebody unknown, who may have asked.
fn shown(row: &ContactRow) -> Option<ContactState> {
    match row.state {
        ContactState::Blocked => row.shadow.then_some(ContactState::Pending),
        state => Some(state),
    }
}

/// Whether a peer in this state counts against no limit of requests: it has asked before, or was asked.
fn in_inbox_or_list(state: ContactState) -> bool {
    match state {
        ContactState::Pending
        | ContactState::Accepted
        | ContactState::RequestQueued
        | ContactState::RequestSent
        | ContactState::Rejected
        | ContactState::Declined => true,
        ContactState::Draft | ContactState::Blocked | ContactState::RemovedByPeer | ContactState::Archived => false,
    }
}

fn presence(status: proto::availability::Status) -> Presence {
    match status {
        proto::availability::Status::Available => Presence::Available,
        proto::availability::Status::Away => Presence::Away,
        proto::availability::Status::ExtendedAway => Presence::ExtendedAway,
    }
}

fn availability_frame(availability: Availability) -> Body {
    let status = match availability {
        Availability::Available => proto::availability::Status::Available,
        Availability::Away => proto::availability::Status::Away,
        Availability::ExtendedAway => proto::availability::Status::ExtendedAway,
    };
    Body::Availability(proto::Availability { status: status.into() })
}
