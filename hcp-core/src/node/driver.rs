//! Joins a session's machine with its transport and its streams; one task a session.

use std::collections::HashMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::channel::{Channel, Command, Dropped, End, Inbound};
use super::router::Router;
use super::session::{Session, SessionInner};
use super::stream::Stream;
use super::{RESET_BUSY, RESET_DROPPED};
use crate::network::BoxedTransport;
use crate::session::{
    Accepted, Accepting, Acceptor, CLOSE_PROTOCOL, CLOSE_SHUTDOWN, Event, HANDSHAKE_TIMEOUT, MAX_STREAMS, Machine,
    PRIMARY, Peer, Priority, SessionError, StreamId,
};

/// Commands that may wait for a session's driver; senders wait beyond it.
const COMMAND_QUEUE: usize = 64;
/// Bytes read from the transport at once.
const READ_BUFFER: usize = 32 * 1024;
/// Handlers of one session that run at once. Twice the streams that may be open: a peer that resets and opens in turn
/// finds the handlers of the streams before still busy.
const MAX_HANDLERS: usize = 2 * MAX_STREAMS as usize;
/// How long the last bytes of a session may take to go out, and its handlers to finish with what has come in.
const LINGER: Duration = Duration::from_secs(5);

/// A stream's ends inside the driver.
struct Attached {
    inbox: mpsc::UnboundedSender<Inbound>,
    credit: Arc<Semaphore>,
}

impl Drop for Attached {
    fn drop(&mut self) {
        // Whoever waits for credit must not wait for ever.
        self.credit.close();
    }
}

struct Driver {
    machine: Machine,
    reader: ReadHalf<BoxedTransport>,
    writer: WriteHalf<BoxedTransport>,
    input: Vec<u8>,
    output: Vec<u8>,
    /// How much of `output` the transport has taken.
    written: usize,
    flushed: bool,
    streams: HashMap<StreamId, Attached>,
    dropped: Arc<Dropped>,
    router: Arc<Router>,
    peer: Option<Peer>,
    handlers: JoinSet<()>,
}

/// Waits for a dialler's first words. The caller stops it when it takes too long to hear.
pub(super) async fn accept(
    acceptor: &Arc<Acceptor>,
    transport: &mut BoxedTransport,
) -> Result<Option<Machine>, SessionError> {
    let mut accepting = Accepting::new(acceptor, Instant::now())?;
    let (mut input, mut output) = (vec![0; READ_BUFFER], Vec::new());
    loop {
        let deadline = accepting.poll_timeout();
        let read = tokio::select! {
            read = transport.read(&mut input) => read,
            () = sleep_until(deadline) => {
                accepting.handle_timeout(Instant::now())?;
                continue;
            }
        };
        let Ok(n @ 1..) = read else { return Err(SessionError::Lost) };
        let outcome = match accepting.handle_input(Instant::now(), &input[..n]) {
            Ok(Some(Accepted::Session(machine))) => return Ok(Some(*machine)),
            Ok(Some(Accepted::Lane(request))) => {
                output = request.refuse();
                Some(Ok(None))
            }
            Ok(None) => None,
            Err(error) => Some(Err(error)),
        };
        accepting.poll_output(&mut output);
        let sent = async {
            transport.write_all(&output).await?;
            transport.flush().await
        };
        if !matches!(tokio::time::timeout(HANDSHAKE_TIMEOUT, sent).await, Ok(Ok(()))) {
            return Err(SessionError::Lost);
        }
        output.clear();
        if let Some(outcome) = outcome {
            return outcome;
        }
    }
}

/// Runs the handshake. The future that comes with the session drives it and must be polled as long as the session lives;
/// it ends by itself when every handle is gone.
pub(super) async fn establish(
    machine: Machine,
    transport: BoxedTransport,
    router: Arc<Router>,
) -> Result<(Session, impl Future<Output = ()> + Send + 'static), SessionError> {
    let (reader, writer) = tokio::io::split(transport);
    let mut driver = Driver {
        machine,
        reader,
        writer,
        input: vec![0; READ_BUFFER],
        output: Vec::new(),
        written: 0,
        flushed: true,
        streams: HashMap::new(),
        dropped: Arc::default(),
        router,
        peer: None,
        handlers: JoinSet::new(),
    };
    let (commands, mut queue) = mpsc::channel(COMMAND_QUEUE);
    let (round_trip_tx, round_trip) = watch::channel(None);
    let (ended_tx, ended) = watch::channel(None);
    let handle = move |peer, commands| Session {
        inner: Arc::new(SessionInner { peer, commands, round_trip: round_trip.clone(), ended: ended.clone() }),
    };
    let peer = loop {
        driver.dispatch(Some(&commands), &handle);
        if let Some(peer) = driver.peer {
            break peer;
        }
        if let Err(error) = driver.turn(None).await {
            driver.finish(&error).await;
            return Err(error);
        }
    };
    let weak = commands.downgrade();
    let session = handle(peer, commands);
    let drive = async move {
        let error = loop {
            driver.dispatch(weak.upgrade().as_ref(), &handle);
            if let Err(error) = driver.turn(Some(&mut queue)).await {
                break error;
            }
            round_trip_tx.send_if_modified(|current| {
                let new = driver.machine.stats().round_trip;
                std::mem::replace(current, new) != new
            });
        };
        // What came together with the end was received all the same.
        driver.dispatch(weak.upgrade().as_ref(), &handle);
        driver.finish(&error).await;
        ended_tx.send_replace(Some(error));
    };
    Ok((session, drive))
}

impl Driver {
    /// Waits for one thing to happen and handles it.
    async fn turn(&mut self, queue: Option<&mut mpsc::Receiver<Command>>) -> Result<(), SessionError> {
        if self.written == self.output.len() {
            self.output.clear();
            self.written = 0;
            self.machine.poll_output(Instant::now(), PRIMARY, &mut self.output);
        }
        let pending = self.written < self.output.len();
        let deadline = self.machine.poll_timeout();
        tokio::select! {
            read = self.reader.read(&mut self.input) => match read {
                Ok(0) | Err(_) => Err(SessionError::Lost),
                Ok(n) => self.machine.handle_input(Instant::now(), PRIMARY, &self.input[..n]),
            },
            sent = transmit(&mut self.writer, &self.output[self.written..]), if pending || !self.flushed => match sent {
                Ok(Some(n)) => {
                    self.written += n;
                    self.flushed = false;
                    Ok(())
                }
                Ok(None) => {
                    self.flushed = true;
                    Ok(())
                }
                Err(_) => Err(SessionError::Lost),
            },
            () = sleep_until(deadline) => self.machine.handle_timeout(Instant::now()),
            () = self.dropped.wait() => {
                self.see_to_dropped();
                Ok(())
            }
            commands = receive(queue) => {
                // A handle dropped before a command was given makes room for it.
                self.see_to_dropped();
                commands.into_iter().try_for_each(|command| self.handle_command(command))
            }
        }
    }

    fn see_to_dropped(&mut self) {
        for (stream, end) in self.dropped.take() {
            match end {
                End::Abandoned => self.machine.reset(stream, RESET_DROPPED),
                End::Finished => self.machine.release(Instant::now(), stream),
            }
            self.streams.remove(&stream);
        }
    }

    fn handle_command(&mut self, command: Command) -> Result<(), SessionError> {
        match command {
            Command::Open { protocol, commands, reply } => {
                let opened = self.machine.open(Instant::now(), &protocol, Priority::Live);
                let opened = opened.map(|(id, credit)| self.attach(id, credit, commands));
                // Dropped unread, the stream resets itself.
                let _ = reply.send(opened);
            }
            Command::Send { stream, message } => self.machine.send(stream, message),
            Command::Finish { stream } => self.machine.finish(stream),
            Command::Consumed { stream } => self.machine.consumed(Instant::now(), stream),
            Command::Shutdown => return Err(SessionError::Shutdown),
        }
        Ok(())
    }

    fn attach(&mut self, id: StreamId, credit: u64, commands: mpsc::Sender<Command>) -> Channel {
        let (inbox, received) = mpsc::unbounded_channel();
        let credit =
            Arc::new(Semaphore::new(usize::try_from(credit).unwrap_or(usize::MAX).min(Semaphore::MAX_PERMITS)));
        self.streams.insert(id, Attached { inbox, credit: Arc::clone(&credit) });
        let dropped = Arc::clone(&self.dropped);
        Channel { id, commands, credit, inbox: received, finished: Arc::default(), dropped }
    }

    /// Hands the machine's events to those concerned. Without `commands` no handle is left that could use a new stream.
    fn dispatch(
        &mut self,
        commands: Option<&mpsc::Sender<Command>>,
        session: &impl Fn(Peer, mpsc::Sender<Command>) -> Session,
    ) {
        while self.handlers.try_join_next().is_some() {}
        while let Some(event) = self.machine.poll_event() {
            match event {
                Event::Established(peer) => self.peer = Some(peer),
                Event::Opened { stream, protocol, credit, .. } => {
                    let peer = self.peer.unwrap_or(Peer::Anonymous);
                    match (self.router.route(&protocol, peer), commands) {
                        (Ok(_), _) if self.handlers.len() >= MAX_HANDLERS => self.machine.reset(stream, RESET_BUSY),
                        (Ok(handler), Some(commands)) => {
                            let handle = Stream::new(self.attach(stream, credit, commands.clone()));
                            self.handlers.spawn(handler.serve(handle, session(peer, commands.clone())));
                        }
                        (Ok(_), None) => self.machine.reset(stream, RESET_DROPPED),
                        (Err(code), _) => self.machine.reset(stream, code),
                    }
                }
                Event::Message { stream, message } => match self.streams.get(&stream) {
                    Some(attached) => {
                        let _ = attached.inbox.send(Inbound::Message(message));
                    }
                    // Its handle was dropped after it had ended this side's direction; nobody wants the rest.
                    None => self.machine.release(Instant::now(), stream),
                },
                Event::Finished(stream) => {
                    if let Some(attached) = self.streams.get(&stream) {
                        let _ = attached.inbox.send(Inbound::Finished);
                    }
                }
                Event::Credit { stream, bytes } => {
                    if let Some(attached) = self.streams.get(&stream) {
                        // The machine holds the sum below the window.
                        attached.credit.add_permits(usize::try_from(bytes).unwrap_or(0));
                    }
                }
                Event::Reset { stream, code } => {
                    if let Some(attached) = self.streams.remove(&stream) {
                        let _ = attached.inbox.send(Inbound::Reset(code));
                    }
                }
                // No streams are drained and no lanes dialled or taken yet.
                Event::Closed { .. } | Event::LaneEnded(_) | Event::Draining { .. } => {}
                Event::Drained => self.machine.close(CLOSE_SHUTDOWN),
            }
        }
    }

    /// Sends what can still be sent and lets handlers finish, with a deadline, and lets go of everything.
    async fn finish(&mut self, error: &SessionError) {
        let orderly = match error {
            SessionError::Shutdown => {
                self.machine.close(CLOSE_SHUTDOWN);
                true
            }
            SessionError::Lost | SessionError::Silent | SessionError::ClosedByPeer(_) => true,
            _ => {
                self.machine.close(CLOSE_PROTOCOL);
                false
            }
        };
        // Handles receive what has come in, and then the end.
        self.streams.clear();
        if !matches!(error, SessionError::Lost | SessionError::Silent) {
            let _ = tokio::time::timeout(LINGER, self.last_words()).await;
        }
        if orderly {
            let handlers = async { while self.handlers.join_next().await.is_some() {} };
            let _ = tokio::time::timeout(LINGER, handlers).await;
        }
        self.handlers.shutdown().await;
    }

    async fn last_words(&mut self) -> std::io::Result<()> {
        loop {
            self.writer.write_all(&self.output[self.written..]).await?;
            self.output.clear();
            self.written = 0;
            self.machine.poll_output(Instant::now(), PRIMARY, &mut self.output);
            if self.output.is_empty() {
                break;
            }
        }
        self.writer.shutdown().await?;
        // Closing a transport with unread input may discard what is still under way to the peer.
        while self.reader.read(&mut self.input).await? > 0 {}
        Ok(())
    }
}

async fn sleep_until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

/// Writes some of `output`, or flushes when there is none. Cancel-safe, as a single write and a flush are.
async fn transmit(writer: &mut WriteHalf<BoxedTransport>, output: &[u8]) -> std::io::Result<Option<usize>> {
    if output.is_empty() {
        return writer.flush().await.map(|()| None);
    }
    match writer.write(output).await? {
        0 => Err(std::io::ErrorKind::WriteZero.into()),
        n => Ok(Some(n)),
    }
}

/// Waits for commands and takes those that are there. Cancel-safe. All handles gone counts as a shutdown.
async fn receive(queue: Option<&mut mpsc::Receiver<Command>>) -> Vec<Command> {
    let Some(queue) = queue else { return std::future::pending().await };
    let mut commands = Vec::new();
    if queue.recv_many(&mut commands, COMMAND_QUEUE).await == 0 {
        commands.push(Command::Shutdown);
    }
    commands
}
