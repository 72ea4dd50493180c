//! The streams of a driver: what goes on between the machine and the handles.

use std::sync::Arc;

use tokio::sync::{Semaphore, mpsc, oneshot};

use super::Driver;
use crate::node::backlog::Share;
use crate::node::channel::{Channel, Command, End, Inbox, Left, Opened, Standing};
use crate::node::session::Session;
use crate::node::stream::Stream;
use crate::node::{RESET_BUSY, RESET_DROPPED};
use crate::session::{CLOSE_SHUTDOWN, Event, MAX_STREAMS, Priority, RESET_DRAINING, SessionError, StreamId};
use tokio::time::Instant;

/// Handlers of one session that run at once. Twice the streams that may be open: a peer that resets and opens in turn
/// finds the handlers of the streams before still busy.
const MAX_HANDLERS: usize = 2 * MAX_STREAMS as usize;

/// A stream's ends inside the driver.
pub(super) struct Attached {
    /// `None` once its handle was dropped.
    inbox: Option<Arc<Inbox>>,
    credit: Arc<Semaphore>,
    /// Taken from the application, and not gone: its part of the session's backlog.
    out: Share,
    /// The machine has told its last event.
    over: bool,
}

impl Attached {
    /// Hands its part of the backlog on.
    pub(super) fn leave_to(&mut self, share: &mut Share) {
        share.absorb(&mut self.out);
    }

    /// Throws away what has come in.
    pub(super) fn clear(&self) {
        if let Some(inbox) = &self.inbox {
            inbox.clear();
        }
    }

    fn end(&self, end: End) {
        if let Some(inbox) = &self.inbox {
            inbox.end(end);
        }
    }
}

impl Drop for Attached {
    fn drop(&mut self) {
        // Whoever waits for credit must not wait for ever.
        self.credit.close();
        self.end(End::SessionEnded);
    }
}

impl Driver {
    pub(super) fn handle_command(&mut self, command: Command, now: Instant) -> Result<(), SessionError> {
        match command {
            Command::Open { protocol, priority, commands, reply } => {
                self.open(&protocol, priority, commands, reply, now);
            }
            Command::Send { stream, message, mut share } => {
                if let Some(attached) = self.streams.get_mut(&stream) {
                    attached.out.absorb(&mut share);
                    self.machine.send(stream, message);
                }
            }
            Command::Finish { stream } => self.machine.finish(stream),
            Command::Shutdown => {
                self.drain_code = CLOSE_SHUTDOWN;
                return Err(SessionError::Shutdown);
            }
        }
        Ok(())
    }

    fn open(
        &mut self,
        protocol: &str,
        priority: Priority,
        commands: mpsc::Sender<Command>,
        reply: oneshot::Sender<Opened>,
        now: Instant,
    ) {
        let draining = !matches!(*self.shared.standing.borrow(), Standing::Open);
        // Nothing is opened then, as nobody would end it.
        let opened = if draining { None } else { self.machine.open(now, protocol, priority) };
        let opened = match opened {
            Some((id, credit)) => Opened::Stream(self.attach(id, priority, credit, commands)),
            None if draining => Opened::Draining,
            None => Opened::TooMany,
        };
        // Dropped unread, the stream resets itself.
        let _ = reply.send(opened);
    }

    fn attach(&mut self, id: StreamId, priority: Priority, credit: u64, commands: mpsc::Sender<Command>) -> Channel {
        let credit = usize::try_from(credit).unwrap_or(usize::MAX).min(Semaphore::MAX_PERMITS);
        let credit = Arc::new(Semaphore::new(credit));
        let inbox = Arc::new(Inbox::new(Arc::clone(&self.shared.holder)));
        let attached = Attached {
            inbox: Some(Arc::clone(&inbox)),
            credit: Arc::clone(&credit),
            out: self.shared.backlog.nothing(),
            over: false,
        };
        self.streams.insert(id, attached);
        let shared = Arc::clone(&self.shared);
        Channel { id, priority, commands, credit, inbox, finished: Arc::default(), shared }
    }

    /// A stream's handle was dropped.
    pub(super) fn leave(&mut self, stream: StreamId, left: Left, now: Instant) {
        let Some(attached) = self.streams.get_mut(&stream) else { return };
        attached.inbox = None;
        let over = attached.over;
        match left {
            Left::Abandoned if !over => self.machine.reset(stream, RESET_DROPPED),
            // What was sent still goes out; nobody wants what comes.
            _ => self.machine.release(now, stream),
        }
        if over || left == Left::Abandoned {
            self.streams.remove(&stream);
        }
    }

    /// Hands the machine's events to those concerned.
    pub(super) fn dispatch(&mut self, now: Instant) {
        while let Some(event) = self.machine.poll_event() {
            match event {
                Event::Established(_) => {}
                Event::Opened { stream, protocol, priority, credit } => self.serve(stream, &protocol, priority, credit),
                Event::Message { stream, message } => {
                    if let Some(inbox) = self.streams.get(&stream).and_then(|attached| attached.inbox.as_ref()) {
                        self.delivered += message.len();
                        inbox.push(message);
                    }
                }
                Event::Finished(stream) => {
                    if let Some(attached) = self.streams.get(&stream) {
                        attached.end(End::Finished);
                    }
                }
                Event::Credit { stream, bytes } => {
                    if let Some(attached) = self.streams.get(&stream) {
                        // The machine holds the sum below the largest window.
                        attached.credit.add_permits(usize::try_from(bytes).unwrap_or(0));
                    }
                }
                Event::Refunded { stream, bytes } => {
                    if let Some(attached) = self.streams.get_mut(&stream) {
                        attached.out.give_back(bytes);
                        attached.credit.add_permits(usize::try_from(bytes).unwrap_or(0));
                    }
                }
                Event::Gone { stream, bytes } => {
                    if let Some(attached) = self.streams.get_mut(&stream) {
                        attached.out.give_back(bytes);
                    }
                }
                Event::Reset { stream, code } => {
                    if let Some(attached) = self.streams.remove(&stream) {
                        attached.end(End::Reset(code));
                    }
                }
                Event::Closed { stream } => {
                    if let Some(attached) = self.streams.get_mut(&stream) {
                        attached.over = true;
                        attached.out.give_back(u64::MAX);
                        if attached.inbox.is_none() {
                            self.streams.remove(&stream);
                        }
                    }
                }
                Event::LaneEnded(id) => self.forget_lane(id, now),
                Event::Draining => self.drains(),
                Event::Drained => self.drained = true,
            }
        }
    }

    /// Finds a handler for a stream that the peer has opened.
    fn serve(&mut self, stream: StreamId, protocol: &str, priority: Priority, credit: u64) {
        let handler = match self.environment.router.route(protocol, self.shared.peer) {
            Ok(handler) => handler,
            Err(code) => return self.machine.reset(stream, code),
        };
        if self.handlers.len() >= MAX_HANDLERS {
            return self.machine.reset(stream, RESET_BUSY);
        }
        // Without a handle left there is none to give, and the session drains.
        let Some(commands) = self.commands.upgrade() else { return self.machine.reset(stream, RESET_DRAINING) };
        let handle = Stream::new(self.attach(stream, priority, credit, commands.clone()));
        let session = Session { commands, shared: Arc::clone(&self.shared) };
        self.handlers.spawn(handler.serve(handle, session));
    }
}
