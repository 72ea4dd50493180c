//! Contacts and delivery as a state machine: no network, no clock, no randomness of its own; the database is handed in.
//!
//! Invariants: what counts is in the database, and everything else can be forgotten at any moment ([`Machine::forget`]);
//! outputs are carried out only when the transaction that made them is committed; of several links with a contact one is
//! sent on, and each link is complete in itself, so that it does not matter which.

mod contacts;
mod delivery;
mod dialling;
mod inbox;
mod links;
mod operations;
mod standing;
mod transfers;

#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use bytes::Bytes;
use rand::SeedableRng;
use rand::rngs::StdRng;

pub(super) use self::delivery::work;
use self::dialling::Dialling;
use self::inbox::Bucket;
pub(super) use self::links::MAX_FRAME;
use self::links::{Link, MAX_EPOCHS};
pub(super) use self::operations::Refused;
pub(super) use self::transfers::{Offer, Served};
use super::contact::{Availability, Contact, ContactState, Presence};
use super::event::{EventKind, LiveKey};
use super::message::Message;
use super::store::{ContactId, ContactRow, Epoch, OperationRow, Store, TransferRow};
use super::text::Name;
use super::transfer::{Transfer, TransferId};
use crate::identity::OnionAddress;
use crate::store::StoreError;

/// Names one stream of `hcp/messenger/1` inside this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct LinkId(pub(super) u64);

/// A moment, by both clocks.
#[derive(Clone, Copy, Debug)]
pub(super) struct Now {
    /// For deadlines.
    pub(super) instant: Instant,
    /// For showing, in milliseconds since 1970.
    pub(super) millis: u64,
}

/// What is to be done once the transaction is committed.
pub(super) enum Output {
    /// Send a frame.
    Send(LinkId, Bytes),
    /// End a link once what was sent has gone out.
    Close(LinkId),
    /// Dial somebody.
    Dial(OnionAddress),
    /// Stop dialling somebody.
    StopDial(OnionAddress),
    /// Tell readers something that is not kept.
    Live(LiveKey, EventKind),
    /// Fetch a file over the session of a link.
    Fetch(TransferId, LinkId),
    /// Stop fetching or serving a file.
    Abort(TransferId),
    /// Delete what there is of a file that would have been saved here.
    Discard(PathBuf),
    /// A fault point after the commit, before anything is carried out.
    Passed(&'static str),
}

/// The state of one profile.
#[derive(Debug)]
pub(super) struct Machine {
    store: Store,
    rng: StdRng,
    availability: Availability,
    online: bool,
    links: BTreeMap<LinkId, Link>,
    /// Epochs of a contact that are remembered; simulations remember fewer.
    max_epochs: usize,
    /// The epochs that began with this opening of the database. They outlast a step that failed: of what was rolled back
    /// nothing has gone out.
    openings: HashMap<ContactId, Epoch>,
    presences: HashMap<ContactId, Presence>,
    dialling: Dialling,
    /// Limits requests from strangers.
    requests: Bucket,
    /// Incoming files that are being fetched, and over which link.
    fetching: BTreeMap<TransferId, LinkId>,
    /// How much of outgoing files the contacts have, as they say.
    served: BTreeMap<TransferId, u64>,
    /// Contacts that may have something to be sent or told.
    dirty: BTreeSet<ContactId>,
    outputs: Vec<Output>,
    /// When to want sessions anew, after a step that failed.
    retry_at: Option<Instant>,
    /// When a step failed last, and how many have in a row.
    failed: Option<(Instant, u32)>,
    /// Whether the disk has room for what contacts write.
    room: bool,
    me: OnionAddress,
    /// How peers broke the protocol.
    #[cfg(test)]
    violations: Vec<&'static str>,
}

impl Machine {
    /// Starts to work on a database. The seed must be unpredictable outside of tests: epochs and ids come from it.
    pub(super) fn new(me: OnionAddress, store: Store, seed: [u8; 32]) -> Self {
        Self {
            store,
            rng: StdRng::from_seed(seed),
            availability: Availability::default(),
            online: false,
            links: BTreeMap::new(),
            max_epochs: MAX_EPOCHS,
            openings: HashMap::new(),
            presences: HashMap::new(),
            dialling: Dialling::default(),
            requests: Bucket::default(),
            fetching: BTreeMap::new(),
            served: BTreeMap::new(),
            dirty: BTreeSet::new(),
            outputs: Vec::new(),
            retry_at: None,
            failed: None,
            room: true,
            me,
            #[cfg(test)]
            violations: Vec::new(),
        }
    }

    pub(super) fn store(&self) -> &Store {
        &self.store
    }

    /// Wants sessions with everybody anew, after a step that failed.
    fn want_anew(&mut self, now: Now) -> Result<(), StoreError> {
        self.dialling.clear();
        for contact in self.store.contacts()? {
            self.dialling.want(contact.address, wants_session(contact.state), now.instant);
        }
        for link in self.links.values() {
            self.dialling.connected(&link.peer);
        }
        self.retry_at = None;
        Ok(())
    }

    /// Finishes a step: sends what can be sent. Its outputs are carried out once the transaction is committed.
    pub(super) fn finish(&mut self, now: Now) -> Result<(), StoreError> {
        while let Some(contact) = self.dirty.pop_first() {
            self.attend(contact, now)?;
        }
        self.send_acks();
        if self.online && self.retry_at.is_some_and(|at| at <= now.instant) {
            self.want_anew(now)?;
        }
        if self.online {
            for address in self.dialling.due(now.instant) {
                self.outputs.push(Output::Dial(address));
            }
        }
        Ok(())
    }

    /// Takes the outputs of the steps that were committed.
    pub(super) fn take_outputs(&mut self) -> Vec<Output> {
        std::mem::take(&mut self.outputs)
    }

    /// A step failed and was rolled back: forgets what it may have changed outside the database, and every link with it.
    pub(super) fn forget(&mut self, now: Now) {
        // Links that were ended are ended, and who is gone is gone.
        self.outputs.retain(|output| matches!(output, Output::Close(_) | Output::Abort(_) | Output::Live(..)));
        self.dirty.clear();
        let pause = self.pause_after_failure(now.instant);
        self.retry_at = Some(now.instant + pause);
        let links: Vec<LinkId> = self.links.keys().copied().collect();
        for link in links {
            self.drop_link(link, now);
        }
        let fetching = std::mem::take(&mut self.fetching);
        self.outputs.extend(fetching.into_keys().map(Output::Abort));
    }

    /// How long to wait after a step that failed: longer and longer, while they go on failing.
    fn pause_after_failure(&mut self, now: Instant) -> Duration {
        let before = self.failed.filter(|(at, _)| now.saturating_duration_since(*at) < 2 * RETRY_MAX);
        let row = before.map_or(0, |(_, row)| row + 1);
        self.failed = Some((now, row));
        RETRY.saturating_mul(2u32.saturating_pow(row)).min(RETRY_MAX)
    }

    /// Whether the disk has room for what contacts write.
    pub(super) fn set_room(&mut self, room: bool) {
        self.room = room;
    }

    /// A change was refused and rolled back.
    pub(super) fn abandon(&mut self, now: Now) {
        if self.outputs.is_empty() {
            self.dirty.clear();
        } else {
            // It failed half way.
            self.forget(now);
        }
    }

    /// Who is there, for a reader that begins.
    pub(super) fn presences(&self) -> Result<Vec<(LiveKey, EventKind)>, StoreError> {
        let all = self.presences.iter().map(|(contact, presence)| {
            let contact = self.store.contact_by_id(*contact)?.address;
            Ok((LiveKey::Presence(contact), EventKind::Presence { contact, presence: *presence }))
        });
        all.collect()
    }

    /// Contacts can be dialled from now on.
    pub(super) fn go_online(&mut self, now: Now) -> Result<(), StoreError> {
        self.online = true;
        self.want_anew(now)
    }

    /// All links are gone, and nobody is dialled.
    pub(super) fn go_offline(&mut self, now: Now) {
        self.online = false;
        self.dialling.clear();
        let links: Vec<LinkId> = self.links.keys().copied().collect();
        for link in links {
            self.drop_link(link, now);
        }
    }

    /// When [`Self::handle_timeout`] has something to do.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        let dial = self.online.then(|| self.dialling.next().into_iter().chain(self.retry_at).min()).flatten();
        self.links.values().map(Link::deadline).chain(dial).min()
    }

    /// Ends links that have missed a deadline. Those who are due are dialled when the step is finished.
    pub(super) fn handle_timeout(&mut self, now: Now) {
        let late: Vec<LinkId> =
            self.links.iter().filter(|(_, link)| link.deadline() <= now.instant).map(|(id, _)| *id).collect();
        for link in late {
            tracing::debug!("a link has missed its deadline");
            self.drop_link(link, now);
        }
    }

    /// An attempt to dial somebody came to nothing.
    pub(super) fn dial_failed(&mut self, address: &OnionAddress, now: Now) {
        self.dialling.attempted(address);
        if !self.links.values().any(|link| link.peer == *address) {
            self.dialling.disconnected(address, false, now.instant, &mut self.rng);
        }
    }

    pub(super) fn set_name(&mut self, name: &Name) -> Result<(), StoreError> {
        self.store.set_name(name)
    }

    pub(super) fn set_availability(&mut self, availability: Availability) {
        self.availability = availability;
        self.tell_availability();
    }

    /// A contact as the application sees it.
    pub(super) fn contact_view(&self, row: ContactRow) -> Contact {
        let presence = self.presences.get(&row.id).copied().unwrap_or_default();
        let ContactRow { address, petname, name, greeting, state, .. } = row;
        Contact { address, petname, name, greeting, state, presence }
    }

    /// A message as the application sees it; `None` when the operation is none.
    pub(super) fn message_view(&self, row: &OperationRow) -> Result<Option<Message>, StoreError> {
        operations::message(row, self.store.contact_by_id(row.contact)?.address)
    }

    /// A transfer as the application sees it.
    pub(super) fn transfer_view(&self, mut row: TransferRow) -> Result<Transfer, StoreError> {
        row.done = self.served.get(&row.id).copied().unwrap_or(row.done);
        let contact = self.store.contact_by_id(row.contact)?.address;
        Ok(transfers::view(row, contact))
    }
}

impl fmt::Debug for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Frames hold texts, and paths are nobody's business.
        f.write_str("Output([redacted])")
    }
}

/// How long after a failed step everything begins anew, at first and at the most: links that come and fail again and again
/// would cost circuits.
const RETRY: Duration = Duration::from_secs(1);
const RETRY_MAX: Duration = Duration::from_secs(60);

/// Whether a contact is dialled.
fn wants_session(state: ContactState) -> bool {
    matches!(state, ContactState::RequestQueued | ContactState::RequestSent | ContactState::Accepted)
}
