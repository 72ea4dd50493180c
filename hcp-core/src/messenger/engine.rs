//! The one thread that owns a profile's database: it takes what applications ask and what links bring, one transaction after
//! the other, and carries out what follows once it is on disk.

mod room;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, oneshot, watch};

use self::room::Room;
use super::event::{Cursor, Event, EventKind, EventsError, Live};
use super::fault;
use super::files;
use super::link::Paces;
use super::machine::{LinkId, Machine, Now, Output, Served};
use super::profile::Profile;
use super::store::{ContactId, EventRow, RowKind, message_state, transfer_state};
use super::transfer::TransferId;
use crate::identity::OnionAddress;
use crate::node::Session;
use crate::store::StoreError;

/// Inputs that may wait for the engine; whoever brings more waits. With the longest frame this is 20 MiB.
const INPUT_QUEUE: usize = 64;
/// Bytes of frames that may wait for a slow peer: what can be on its way, and one answer to what a contact asks back.
const OUTBOX_BYTES: usize = 1024 * 1024;
/// Frames that are taken in with one transaction.
const BATCH: usize = 64;

/// What the engine is asked to do.
pub(super) enum Input {
    /// Something of an application's.
    Job(Box<dyn FnOnce(&mut Engine) + Send>),
    /// A stream with a peer is open.
    LinkUp { id: LinkId, peer: OnionAddress, dialled: bool, link: LinkHandle },
    /// A frame came.
    Frame { id: LinkId, bytes: Bytes },
    /// A stream is gone.
    LinkDown { id: LinkId },
    /// Nobody was reached.
    DialFailed(OnionAddress),
    /// A deadline has passed.
    Timeout,
    /// Close the profile.
    Stop,
}

/// The engine's side of a link.
pub(super) struct LinkHandle {
    /// What it sends; dropping it ends the link once that has gone out.
    pub(super) outbox: mpsc::Sender<Bytes>,
    /// Bytes in the outbox.
    pub(super) waiting: Arc<AtomicUsize>,
    pub(super) session: Session,
}

/// What the engine has others do.
#[derive(Debug)]
pub(super) enum Errand {
    /// Dial a contact.
    Dial(OnionAddress),
    /// Stop dialling a contact with whom there is no link.
    StopDial(OnionAddress),
    /// Fetch a file over a session.
    Fetch(TransferId, Session),
    /// Stop fetching a file.
    Abort(TransferId),
}

/// Works on one profile.
pub(super) struct Engine {
    machine: Machine,
    links: HashMap<LinkId, LinkHandle>,
    readers: Vec<Weak<Live>>,
    /// Ends the serving of a file when it is dropped.
    serving: HashMap<TransferId, oneshot::Sender<()>>,
    /// While online: who dials and fetches.
    errands: Option<mpsc::UnboundedSender<Errand>>,
    timeout: watch::Sender<Option<Instant>>,
    room: Room,
}

/// The engine has stopped, or the profile is being closed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stopped;

/// How others reach the engine.
#[derive(Clone, Debug)]
pub(super) struct Inputs {
    queue: mpsc::Sender<Input>,
    timeout: watch::Receiver<Option<Instant>>,
    paces: Arc<Paces>,
    /// Ends when the profile is closed.
    running: watch::Receiver<()>,
}

impl Inputs {
    /// Without an engine: what is handed in is there to be looked at.
    #[cfg(test)]
    pub(super) fn without_engine() -> (Self, mpsc::Receiver<Input>) {
        let (queue, inputs) = mpsc::channel(INPUT_QUEUE);
        let (timeout, running) = (watch::channel(None).1, watch::channel(()).1);
        (Self { queue, timeout, paces: Arc::default(), running }, inputs)
    }

    /// Starts the engine's thread.
    pub(super) fn start(profile: Profile) -> Self {
        let (queue, inputs) = mpsc::channel(INPUT_QUEUE);
        let (timeout_tx, timeout) = watch::channel(None);
        let (running_tx, running) = watch::channel(());
        let Profile { identity, store, folder } = profile;
        let engine = Engine {
            machine: Machine::new(identity.address(), store, rand::random()),
            links: HashMap::new(),
            readers: Vec::new(),
            serving: HashMap::new(),
            errands: None,
            timeout: timeout_tx,
            room: Room::in_folder(folder),
        };
        let thread = std::thread::Builder::new().name("hcp-messenger".into());
        let spawned = thread.spawn(move || {
            engine.run(inputs);
            drop(running_tx);
        });
        if let Err(error) = spawned {
            // The queue is closed then, and every call says so.
            tracing::error!(%error, "cannot start the messenger's thread");
        }
        Self { queue, timeout, paces: Arc::default(), running }
    }

    /// How fast peers' frames are read.
    pub(super) fn paces(&self) -> &Paces {
        &self.paces
    }

    /// Hands something in; `false` when the profile is closed.
    pub(super) async fn send(&self, input: Input) -> bool {
        self.queue.send(input).await.is_ok()
    }

    /// Has the engine do something, and waits for what comes of it.
    pub(super) async fn call<R: Send + 'static>(
        &self,
        job: impl FnOnce(&mut Engine) -> R + Send + 'static,
    ) -> Result<R, Stopped> {
        let (reply, answer) = oneshot::channel();
        let job = Box::new(move |engine: &mut Engine| {
            // Nobody waits any more: it is done all the same.
            let _ = reply.send(job(engine));
        });
        self.queue.send(Input::Job(job)).await.map_err(|_| Stopped)?;
        tokio::select! {
            biased;
            answer = answer => answer.map_err(|_| Stopped),
            // A job that came in while the engine went stays in the queue, unanswered.
            () = self.stopped() => Err(Stopped),
        }
    }

    /// Closes the profile, and waits until it is closed.
    pub(super) async fn stop(&self) {
        let _ = self.queue.send(Input::Stop).await;
        self.stopped().await;
    }

    /// Waits until the profile is closed.
    pub(super) async fn stopped(&self) {
        let mut running = self.running.clone();
        while running.changed().await.is_ok() {}
    }

    /// Tells that a stream is gone, from wherever that is noticed.
    pub(super) fn tell_down(&self, id: LinkId) {
        let Err(TrySendError::Full(input)) = self.queue.try_send(Input::LinkDown { id }) else { return };
        // Without a runtime there is no network, and so no link, either.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            let queue = self.queue.clone();
            runtime.spawn(async move { queue.send(input).await });
        }
    }

    /// When the engine has to be told that a deadline has passed.
    pub(super) fn timeout(&self) -> watch::Receiver<Option<Instant>> {
        self.timeout.clone()
    }
}

impl Engine {
    fn run(mut self, mut inputs: mpsc::Receiver<Input>) {
        self.discard_left();
        while let Some(input) = inputs.blocking_recv() {
            match input {
                Input::Job(job) => job(&mut self),
                Input::Stop => return,
                first => {
                    let mut batch = vec![first];
                    let mut after = None;
                    while batch.len() < BATCH {
                        match inputs.try_recv() {
                            Ok(input @ (Input::Job(_) | Input::Stop)) => {
                                after = Some(input);
                                break;
                            }
                            Ok(input) => batch.push(input),
                            Err(_) => break,
                        }
                    }
                    self.take_in(batch);
                    match after {
                        Some(Input::Job(job)) => job(&mut self),
                        Some(_) => return,
                        None => {}
                    }
                }
            }
            self.set_timeout();
        }
    }

    /// Makes a change in a transaction of its own, and carries out what follows.
    pub(super) fn change<R, E: From<StoreError>>(
        &mut self,
        change: impl FnOnce(&mut Machine, Now) -> Result<R, E>,
    ) -> Result<R, E> {
        let now = now();
        self.machine.store().begin()?;
        let result = change(&mut self.machine, now);
        if result.is_err() {
            self.machine.store().rollback();
            self.machine.abandon(now);
            self.carry_out(now);
            return result;
        }
        if let Err(error) = self.machine.finish(now).and_then(|()| self.machine.store().commit()) {
            self.fail(&error, now);
            return Err(error.into());
        }
        self.carry_out(now);
        result
    }

    /// What the database says.
    pub(super) fn machine(&self) -> &Machine {
        &self.machine
    }

    /// Goes online with somebody who runs errands, or offline.
    pub(super) fn set_online(&mut self, errands: Option<mpsc::UnboundedSender<Errand>>) -> Result<(), StoreError> {
        // Whatever was left of an earlier time.
        let now = now();
        self.machine.go_offline(now);
        self.carry_out(now);
        self.links.clear();
        self.errands = errands;
        if self.errands.is_some() { self.change(|machine, now| machine.go_online(now)) } else { Ok(()) }
    }

    /// What a contact may fetch; with something that ends when it may not any more. Whoever was served before ends.
    pub(super) fn serve(
        &mut self,
        peer: OnionAddress,
        id: TransferId,
    ) -> Result<Option<(Served, oneshot::Receiver<()>)>, StoreError> {
        let served = self.change(|machine, now| machine.serve(peer, id, now))?;
        Ok(served.map(|served| {
            let (serving, ended) = oneshot::channel();
            self.serving.insert(id, serving);
            (served, ended)
        }))
    }

    fn session(&self, id: LinkId) -> Option<Session> {
        self.links.get(&id).map(|link| link.session.clone())
    }

    /// A reader of events behind a cursor.
    pub(super) fn subscribe(&mut self, after: Cursor) -> Result<Arc<Live>, EventsError> {
        self.check_cursor(after)?;
        let live = Arc::new(Live::default());
        for (key, kind) in self.machine.presences()? {
            live.put(key, kind);
        }
        self.readers.retain(|reader| reader.strong_count() > 0);
        self.readers.push(Arc::downgrade(&live));
        Ok(live)
    }

    /// The next events behind a cursor.
    pub(super) fn events(&mut self, after: Cursor, limit: usize) -> Result<Vec<Event>, EventsError> {
        self.check_cursor(after)?;
        let mut last = after.0;
        loop {
            let rows = self.machine.store().events(last, limit)?;
            let Some(row) = rows.last() else { return Ok(Vec::new()) };
            last = row.cursor;
            let mut events = Vec::with_capacity(rows.len());
            for row in rows {
                if let Some(kind) = self.event(row)? {
                    events.push(Event { cursor: Cursor(row.cursor), kind });
                }
            }
            // All of them may be about somebody who is forgotten by now, which is not the end.
            if !events.is_empty() {
                return Ok(events);
            }
        }
    }

    /// The newest cursor.
    pub(super) fn cursor(&self) -> Result<Cursor, EventsError> {
        Ok(Cursor(self.machine.store().cursors()?.1))
    }

    fn check_cursor(&self, cursor: Cursor) -> Result<(), EventsError> {
        let (oldest, newest) = self.machine.store().cursors()?;
        // One of a life of the profile that was lost may lie between, and what was told there since is not behind it.
        if cursor.0 == oldest || self.machine.store().has_cursor(cursor.0)? {
            return Ok(());
        }
        Err(EventsError::UnknownCursor { cursor, oldest: Cursor(oldest), newest: Cursor(newest) })
    }

    fn event(&self, row: EventRow) -> Result<Option<EventKind>, StoreError> {
        let store = self.machine.store();
        let position = u64::try_from(row.subject).unwrap_or(0);
        let message = |machine: &Machine| machine.message_view(&machine.store().operation(position)?);
        Ok(match row.kind {
            RowKind::Contact => {
                let contact = store.known_contact(ContactId::from_number(row.subject))?;
                contact.map(|contact| EventKind::Contact(self.machine.contact_view(contact)))
            }
            RowKind::MessageReceived => message(&self.machine)?.map(EventKind::MessageReceived),
            RowKind::MessageWritten => message(&self.machine)?.map(EventKind::MessageWritten),
            RowKind::MessageState => {
                let operation = store.operation(position)?;
                let contact = store.contact_by_id(operation.contact)?.address;
                Some(EventKind::MessageState { id: operation.id, contact, state: message_state(row.state)? })
            }
            RowKind::TransferOffered => {
                Some(EventKind::TransferOffered(self.machine.transfer_view(store.transfer_at(position)?)?))
            }
            RowKind::TransferState => {
                let transfer = store.transfer_at(position)?;
                let contact = store.contact_by_id(transfer.contact)?.address;
                Some(EventKind::TransferState { id: transfer.id, contact, state: transfer_state(row.state)? })
            }
        })
    }

    /// Takes in what links brought, in one transaction.
    fn take_in(&mut self, batch: Vec<Input>) {
        let now = now();
        let mut opened = Vec::new();
        self.machine.set_room(self.room.there_is(now.instant));
        let taken = self.machine.store().begin().and_then(|()| {
            for input in batch {
                match input {
                    Input::LinkUp { id, peer, dialled, link } => {
                        self.links.insert(id, link);
                        opened.push(id);
                        self.machine.link_up(id, peer, dialled, now)?;
                    }
                    Input::Frame { id, bytes } => self.machine.handle_frame(id, &bytes, now)?,
                    Input::LinkDown { id } => {
                        self.links.remove(&id);
                        self.machine.link_down(id, now);
                    }
                    Input::DialFailed(address) => self.machine.dial_failed(&address, now),
                    Input::Timeout => self.machine.handle_timeout(now),
                    Input::Job(_) | Input::Stop => {}
                }
            }
            self.machine.finish(now)?;
            self.machine.store().commit()
        });
        if let Err(error) = taken {
            for id in opened {
                self.links.remove(&id);
            }
            return self.fail(&error, now);
        }
        self.carry_out(now);
    }

    /// A transaction failed: nothing of it has happened, and all links begin anew.
    fn fail(&mut self, error: &StoreError, now: Now) {
        tracing::error!(%error, "the profile's database failed; all links are closed and will be made anew");
        self.machine.store().rollback();
        self.machine.forget(now);
        self.links.clear();
        self.carry_out(now);
    }

    /// Does what follows from a committed transaction.
    fn carry_out(&mut self, _now: Now) {
        let outputs = self.machine.take_outputs();
        for output in &outputs {
            if let Output::Passed(name) = output {
                fault::point(name);
            }
        }
        self.readers.retain(|reader| {
            reader.upgrade().is_some_and(|live| {
                live.wake();
                true
            })
        });
        for output in outputs {
            match output {
                Output::Passed(_) => {}
                Output::Send(id, frame) => {
                    let length = frame.len();
                    if let Some(link) = self.links.get(&id)
                        && (link.waiting.fetch_add(length, Ordering::AcqRel) > OUTBOX_BYTES
                            || link.outbox.try_send(frame).is_err())
                    {
                        // A peer that does not read; its end of the link is noticed by the link itself.
                        tracing::debug!("a link takes no more frames");
                        self.links.remove(&id);
                    }
                }
                Output::Close(id) => drop(self.links.remove(&id)),
                Output::Live(key, kind) => {
                    for reader in self.readers.iter().filter_map(Weak::upgrade) {
                        reader.put(key, kind.clone());
                    }
                }
                Output::Dial(address) => self.run_errand(Errand::Dial(address)),
                Output::StopDial(address) => self.run_errand(Errand::StopDial(address)),
                Output::Fetch(id, link) => match self.session(link) {
                    Some(session) => self.run_errand(Errand::Fetch(id, session)),
                    None => tracing::debug!("the link for a file is gone"),
                },
                Output::Abort(id) => {
                    self.serving.remove(&id);
                    self.run_errand(Errand::Abort(id));
                }
                Output::Discard(path) => self.discard(&path),
            }
        }
    }

    /// Deletes what a process that was killed has left of files that were over.
    fn discard_left(&self) {
        match self.machine.store().discards() {
            Ok(left) => left.iter().for_each(|path| self.discard(path)),
            Err(error) => tracing::error!(%error, "the profile's database failed"),
        }
    }

    /// Deletes what there is of a file that is over, and notes that it is gone: what has its name later is somebody else's.
    fn discard(&self, path: &Path) {
        let store = self.machine.store();
        // By now it may be that of another transfer, when it could not be deleted before.
        let taken = store.is_saving_to(path);
        if matches!(taken, Ok(false))
            && let Err(error) = files::discard(path)
        {
            return tracing::warn!(%error, "cannot delete an incomplete file");
        }
        if let Err(error) = taken.and_then(|_| store.remove_discard(path)) {
            tracing::error!(%error, "the profile's database failed");
        }
    }

    fn run_errand(&self, errand: Errand) {
        if let Some(errands) = &self.errands {
            // Whoever ran errands goes offline just now.
            let _ = errands.send(errand);
        }
    }

    fn set_timeout(&self) {
        // Also when it is the same: whoever keeps the time waits for a word after each deadline.
        self.timeout.send_replace(self.machine.poll_timeout());
    }
}

fn now() -> Now {
    let millis = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis());
    Now { instant: Instant::now(), millis: u64::try_from(millis).unwrap_or(u64::MAX) }
}
