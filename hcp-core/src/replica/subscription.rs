//! Reading the log in causal order, from a frontier on and then as it grows.
//!
//! A subscription reads from disk as it goes, so that a slow one costs no memory and delays nobody.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use tokio::sync::watch;

use super::application::{Applied, RestoreError, StateMachine, Turn};
use super::error::SubscribeError;
use super::frontier::Frontier;
use super::head::Head;
use super::{Command, Shared};
use crate::replica::log::ledger;
use crate::replica::log::limits::PAGE;
use crate::replica::log::machine::{Covered, Delivery, ReadError, Reader};
use crate::replica::log::storage::{Branch, Checkpoint, Found, Payloads, Position, Read, Row};
use crate::replica::log::store::Store;
use crate::replica::log::vector::{Split, Spot, Write, Writer};
use crate::replica::place::{LogId, Place};
use crate::store::StoreError;

/// What a [`Subscription`] delivers.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Event {
    /// A checkpoint stands for what came before: what was made of entries until now gives way to the state that
    /// [`StateMachine::checkpoint`] made of these bytes.
    State(Bytes),
    /// A node has begun a new run; its earlier ones have ended.
    Began(LogId),
    /// An entry.
    Entry(Applied),
    /// A member was found to have written twice in one place: spots that are kept are to be [renamed](Split::rename). May come
    /// again for the same place.
    Split(Split),
    /// Everything that was stored when the subscription was made has been delivered.
    CaughtUp,
}

/// Delivers every entry once, an entry behind all that its author had seen.
///
/// What a subscriber has been handed counts as seen by what it appends afterwards.
pub struct Subscription {
    shared: Arc<Shared>,
    head: watch::Receiver<Head>,
    frontier: Frontier,
    cursor: Option<Cursor>,
    /// The opening of the store that was read last, and the one that was tried last.
    opening: Option<u64>,
    tried: Option<u64>,
    /// Logs that are known to fork.
    forked: BTreeSet<LogId>,
    /// Until here [`Event::CaughtUp`] is owed.
    catch_up: Option<Position>,
    ready: VecDeque<(Position, Option<Event>, Mark)>,
    /// The last position of which everything was handed out.
    delivered: Arc<AtomicU64>,
    ended: bool,
}

/// Where it reads.
struct Cursor {
    opening: u64,
    reader: Reader,
    after: Position,
    pruned: u64,
    certificate: Option<Bytes>,
    /// Branches that the frontier calls by a name which the reader does not know yet.
    aliases: BTreeMap<(LogId, Branch), Writer>,
}

/// What handing something out does to the frontier.
enum Mark {
    Nothing,
    Entry(Writer, u64, u32),
    Segment(Writer, u64),
    State(Frontier),
    Split(Split),
}

/// Why reading does not go on as it is.
enum Stuck {
    /// The store was shut down: it is opened again, or never.
    Closed,
    /// The server that the store is kept in cannot be reached.
    Away,
    Failed(SubscribeError),
}

impl From<StoreError> for Stuck {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Closed => Self::Closed,
            error if error.is_away() => Self::Away,
            error => Self::Failed(error.into()),
        }
    }
}

impl Subscription {
    pub(super) fn new(
        shared: Arc<Shared>,
        head: watch::Receiver<Head>,
        from: Frontier,
        delivered: Arc<AtomicU64>,
    ) -> Self {
        let catch_up = Some(head.borrow().position);
        Self {
            shared,
            head,
            frontier: from,
            cursor: None,
            opening: None,
            tried: None,
            forked: BTreeSet::new(),
            catch_up,
            ready: VecDeque::new(),
            delivered,
            ended: false,
        }
    }

    /// How far this subscription has been read: where another one goes on.
    pub fn frontier(&self) -> &Frontier {
        &self.frontier
    }

    /// Waits for the next event, also for a server that is away; `None` when the replica was shut down.
    ///
    /// # Errors
    /// [`SubscribeError`] when the log cannot be read.
    ///
    /// # Cancel safety
    /// Cancel-safe: nothing is lost or repeated.
    pub async fn next(&mut self) -> Result<Option<Event>, SubscribeError> {
        loop {
            // A page has thousands of entries: whoever reads them does not keep others from their turn.
            tokio::task::coop::consume_budget().await;
            while let Some((position, event, mark)) = self.ready.pop_front() {
                self.take(mark);
                let last = self.ready.front().is_none_or(|(next, ..)| *next != position);
                self.delivered
                    .fetch_max(if last { position.0 } else { position.0.saturating_sub(1) }, Ordering::AcqRel);
                if let Some(event) = event {
                    return Ok(Some(event));
                }
            }
            if self.ended {
                return Ok(None);
            }
            match self.read_on().await {
                Ok(Some(event)) => return Ok(Some(event)),
                Ok(None) => {}
                Err(Stuck::Away) => tokio::time::sleep(AWAY).await,
                Err(Stuck::Closed) => self.wait_for_another_opening().await,
                Err(Stuck::Failed(error)) => return Err(error),
            }
        }
    }

    fn take(&mut self, mark: Mark) {
        match mark {
            Mark::Nothing => {}
            Mark::Entry(writer, seq, index) => self.frontier.take(writer, seq, Some(index)),
            Mark::Segment(writer, seq) => self.frontier.take(writer, seq, None),
            Mark::State(frontier) => self.frontier = frontier,
            Mark::Split(split) => self.frontier.split(&split),
        }
    }

    /// Makes something ready, or waits until there is something.
    async fn read_on(&mut self) -> Result<Option<Event>, Stuck> {
        let head = self.head.borrow_and_update().clone();
        if head.pruned % 2 == 1 {
            // A checkpoint takes the place of rows at this moment.
            drop(head);
            self.wait().await;
            return Ok(None);
        }
        let Some(store) = head.ground.store.clone() else {
            self.ended = true;
            return Ok(None);
        };
        self.tried = Some(head.ground.opening);
        let Some(cursor) = self.cursor.as_mut().filter(|cursor| cursor.opening == head.ground.opening) else {
            self.begin(&head, &*store).await?;
            return Ok(None);
        };
        if cursor.pruned != head.pruned {
            self.follow_checkpoint(&head, &*store).await?;
            return Ok(None);
        }
        if self.catch_up.is_some_and(|until| cursor.after >= until) {
            self.catch_up = None;
            return Ok(Some(Event::CaughtUp));
        }
        if cursor.after >= head.position {
            self.delivered.fetch_max(cursor.after.0, Ordering::AcqRel);
            self.shared.tell_handed();
            drop((store, head));
            self.wait().await;
            return Ok(None);
        }
        let rows = store.scan(cursor.after, PAGE, Payloads::Wanted).await?;
        if self.head.borrow().pruned != head.pruned {
            return Ok(None);
        }
        let nothing = rows.iter().all(|row| row.position > head.position);
        for row in rows.into_iter().filter(|row| row.position <= head.position) {
            if !self.unpack(&row)? {
                return Ok(None);
            }
        }
        if nothing && let Some(cursor) = &mut self.cursor {
            // What stood there went with a checkpoint, all of which was read.
            cursor.after = head.position;
        }
        Ok(None)
    }

    async fn wait(&mut self) {
        if self.head.changed().await.is_err() {
            self.ended = true;
        }
    }

    async fn wait_for_another_opening(&mut self) {
        let tried = self.tried;
        if self.head.wait_for(|head| Some(head.ground.opening) != tried).await.is_err() {
            self.ended = true;
        }
    }

    /// Begins where the store does.
    async fn begin(&mut self, head: &Head, store: &dyn Store) -> Result<(), Stuck> {
        let again = self.opening.is_some_and(|opening| opening != head.ground.opening);
        let checkpoint = store.opened().await?.checkpoint;
        let covered = checkpoint.as_ref().map(|checkpoint| self.covered(checkpoint)).transpose()?;
        let mut frontier = self.frontier.clone();
        let mut state = None;
        if let (Some(checkpoint), Some(covered)) = (&checkpoint, &covered) {
            if again || !frontier.agrees_with(covered) {
                state = match read_state(store, checkpoint).await {
                    Ok(state) => Some((state, Frontier::at(covered))),
                    // Meanwhile another one took its place, and its state is gone.
                    Err(_) if self.head.borrow().pruned != head.pruned => return Ok(()),
                    Err(error) => return Err(error.into()),
                };
            }
            frontier.forget_over(covered);
        }
        if self.head.borrow().pruned != head.pruned {
            return Ok(());
        }
        // Nothing waits from here on: who is dropped before has begun nothing.
        self.opening = Some(head.ground.opening);
        self.frontier = frontier;
        if again && self.catch_up.is_some() {
            self.catch_up = Some(head.position);
        }
        if let Some((state, frontier)) = state {
            self.ready.push_back((Position(0), Some(Event::State(state)), Mark::State(frontier)));
        }
        self.cursor = Some(Cursor {
            opening: head.ground.opening,
            reader: Reader::new(self.shared.keys.clone(), covered.as_ref(), self.forked.clone()),
            after: Position(0),
            pruned: head.pruned,
            certificate: checkpoint.map(|checkpoint| checkpoint.certificate),
            aliases: BTreeMap::new(),
        });
        Ok(())
    }

    /// A checkpoint may have come: it is taken over, or begun with.
    async fn follow_checkpoint(&mut self, head: &Head, store: &dyn Store) -> Result<(), Stuck> {
        let checkpoint = store.opened().await?.checkpoint;
        let covered = checkpoint.as_ref().map(|checkpoint| self.covered(checkpoint)).transpose()?;
        let Some(cursor) = &mut self.cursor else { return Ok(()) };
        cursor.pruned = head.pruned;
        let (Some(checkpoint), Some(covered)) = (checkpoint, covered) else { return Ok(()) };
        if cursor.certificate.as_ref() == Some(&checkpoint.certificate) {
            return Ok(());
        }
        cursor.certificate = Some(checkpoint.certificate);
        if cursor.reader.has(&covered) {
            cursor.reader.adopt(&covered);
            self.frontier.forget_over(&covered);
        } else {
            // Some of what was not read yet is gone.
            self.cursor = None;
        }
        Ok(())
    }

    fn covered(&self, checkpoint: &Checkpoint) -> Result<Covered, Stuck> {
        let damaged = || Stuck::Failed(SubscribeError::Damaged("a stored checkpoint".to_owned()));
        Covered::of(&self.shared.keys, checkpoint).ok_or_else(damaged)
    }

    /// `false` when reading has to begin again.
    fn unpack(&mut self, row: &Row) -> Result<bool, Stuck> {
        let Some(cursor) = &mut self.cursor else { return Ok(false) };
        let taken = match cursor.reader.row(row) {
            Ok(taken) => taken,
            Err(ReadError::Forks(log)) => {
                self.forked.insert(log);
                self.cursor = None;
                return Ok(false);
            }
            Err(ReadError::Content(error)) => {
                return Err(Stuck::Failed(SubscribeError::Damaged(error.to_string())));
            }
        };
        cursor.after = row.position;
        let Some((delivery, splits)) = taken else {
            self.ready.push_back((row.position, None, Mark::Nothing));
            return Ok(true);
        };
        for split in splits {
            self.ready.push_back((row.position, Some(Event::Split(split)), Mark::Split(split)));
        }
        let begins = Writer { log: row.log, branch: row.hash };
        if self.frontier.knows(&begins) {
            cursor.aliases.insert((row.log, row.branch), begins);
        }
        let name = cursor.aliases.get(&(row.log, row.branch)).copied().unwrap_or(delivery.writer);
        self.unpack_delivery(&delivery, name);
        Ok(true)
    }

    /// `name` is what the frontier calls the writer.
    fn unpack_delivery(&mut self, delivery: &Delivery, name: Writer) {
        let (position, seq) = (delivery.position, delivery.seq);
        let Some(handed) = self.frontier.of(&name, seq) else {
            self.ready.push_back((position, None, Mark::Nothing));
            return;
        };
        if seq == 1 && handed == 0 {
            self.ready.push_back((position, Some(Event::Began(delivery.writer.log)), Mark::Nothing));
        }
        for item in delivery.items.iter().filter(|item| item.spot.index >= handed) {
            let place = Place { log: item.spot.writer.log, seq, index: item.spot.index };
            let mut applied = applied(delivery, item);
            applied.append = self.shared.append_at(&place);
            let mark = Mark::Entry(name, seq, item.spot.index);
            self.ready.push_back((position, Some(Event::Entry(applied)), mark));
        }
        // The last entry of a segment ends it.
        match self.ready.back_mut() {
            Some((at, Some(Event::Entry(_)), mark)) if *at == position => *mark = Mark::Segment(name, seq),
            _ => self.ready.push_back((position, None, Mark::Segment(name, seq))),
        }
    }
}

impl fmt::Debug for Subscription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subscription").field("caught_up", &self.catch_up.is_none()).finish_non_exhaustive()
    }
}

/// A subscription and the state that it keeps up to date.
///
/// For applications whose state is all that they make of the log. Others read a [`Subscription`] and apply its events
/// themselves.
#[derive(Debug)]
pub struct Follower<M> {
    subscription: Subscription,
    state: M,
}

impl<M: StateMachine> Follower<M> {
    /// Keeps a state, which is what was made of everything up to the subscription's frontier, up to date.
    pub fn new(subscription: Subscription, state: M) -> Self {
        Self { subscription, state }
    }

    /// The state.
    pub fn state(&self) -> &M {
        &self.state
    }

    /// How far the state is.
    pub fn frontier(&self) -> &Frontier {
        self.subscription.frontier()
    }

    /// Waits for the next event, applies it to the state and says what it was; `None` when the replica was shut down.
    ///
    /// # Errors
    /// [`FollowError`].
    ///
    /// # Cancel safety
    /// Cancel-safe.
    pub async fn next(&mut self) -> Result<Option<Event>, FollowError> {
        let event = self.subscription.next().await?;
        match &event {
            Some(Event::State(state)) => self.state.restore(state)?,
            Some(Event::Entry(applied)) => self.state.apply(applied),
            Some(Event::Split(split)) => self.state.split(split),
            Some(Event::Began(_) | Event::CaughtUp) | None => {}
        }
        Ok(event)
    }
}

/// Why a [`Follower`] ended.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FollowError {
    /// The log cannot be read.
    #[error(transparent)]
    Log(#[from] SubscribeError),
    /// A checkpoint holds another application's state.
    #[error(transparent)]
    State(#[from] RestoreError),
}

impl FollowError {
    /// What a caller can do about it.
    pub fn kind(&self) -> crate::error::ErrorKind {
        match self {
            Self::Log(error) => error.kind(),
            Self::State(error) => error.kind(),
        }
    }
}

/// What an application is given of an item.
pub(super) fn applied(delivery: &Delivery, item: &ledger::Item) -> Applied {
    let first = |place: Place| Spot { writer: Writer::trunk(place.log), seq: place.seq, index: place.index };
    let write = Write {
        spot: item.spot,
        stamp: item.first.map_or(delivery.stamp, |(_, stamp)| stamp),
        past: delivery.past.clone(),
        instead: item.first.map(|(place, _)| first(place)),
    };
    let turn = match item.turn {
        ledger::Turn::First => Turn::First,
        ledger::Turn::Repeated => Turn::Repeated,
    };
    Applied { write, entry: item.body.clone(), turn, append: None }
}

/// The application's state at a checkpoint.
pub(super) async fn read_state(store: &dyn Store, checkpoint: &Checkpoint) -> Result<Bytes, StoreError> {
    let mut state = Vec::new();
    for index in 0..(checkpoint.pieces.len() / 32) as u32 {
        let piece = read_piece(store, Read::Piece { root: checkpoint.root, index }).await?;
        state.extend_from_slice(&piece);
    }
    Ok(state.into())
}

async fn read_piece(store: &dyn Store, what: Read) -> Result<Bytes, StoreError> {
    for _ in 0..TRIES {
        match store.read(what.clone()).await {
            Found::Piece(Some(piece)) => return Ok(piece),
            // Says why, if it is for longer; else a server was away for a moment.
            Found::Failed => drop(store.opened().await?),
            _ => return Err(StoreError::Damaged("a piece of the state at the checkpoint is not there")),
        }
    }
    Err(StoreError::Damaged("the state at the checkpoint cannot be read"))
}

impl Shared {
    /// Says how far subscribers have read, if the driver can be told now.
    fn tell_handed(&self) {
        let _order = self.appended.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let (Some(seen), Ok(slot)) = (self.seen(), self.commands.try_reserve()) {
            slot.send(Command::Handed(seen));
        }
    }
}

/// How often a piece is read that cannot be, while other things can.
const TRIES: usize = 5;
/// How long a server that cannot be reached is left alone.
const AWAY: std::time::Duration = std::time::Duration::from_secs(1);
