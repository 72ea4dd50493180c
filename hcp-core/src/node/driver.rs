//! Joins a session's machine with its transport and its streams; one task a session.

use std::collections::HashMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::router::Router;
use super::session::{Session, SessionInner};
use super::stream::{Inbound, Stream};
use crate::network::BoxedTransport;
use crate::session::{Event, Machine, Peer, SessionError, StreamId};

/// Commands that may wait for a session's driver; senders wait beyond it.
const COMMAND_QUEUE: usize = 64;
/// Bytes read from the transport at once.
const READ_BUFFER: usize = 32 * 1024;
/// The close code of an orderly end.
const CLOSE_SHUTDOWN: u32 = 0;
/// The close code that tells a peer that it broke the protocol.
const CLOSE_ERROR: u32 = 1;
/// How long the last bytes of a session may take to go out.
const LINGER: Duration = Duration::from_secs(5);

/// What handles ask of the driver.
#[derive(Debug)]
pub(super) enum Command {
    Open { protocol: String, commands: mpsc::Sender<Self>, reply: oneshot::Sender<Option<Stream>> },
    Send { stream: StreamId, message: Bytes },
    Finish { stream: StreamId },
    Reset { stream: StreamId, code: u32 },
    Consumed { stream: StreamId, length: usize },
    Shutdown,
}

/// A stream's ends inside the driver.
struct Attached {
    inbox: mpsc::UnboundedSender<Inbound>,
    credit: Arc<Semaphore>,
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
    router: Arc<Router>,
    peer: Option<Peer>,
    handlers: JoinSet<()>,
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
        router,
        peer: None,
        handlers: JoinSet::new(),
    };
    let (commands, mut queue) = mpsc::channel(COMMAND_QUEUE);
    let peer = loop {
        driver.dispatch(&commands);
        if let Some(peer) = driver.peer {
            break peer;
        }
        if let Err(error) = driver.turn(None).await {
            driver.finish(&error).await;
            return Err(error);
        }
    };
    let (round_trip_tx, round_trip) = watch::channel(None);
    let (ended_tx, ended) = watch::channel(None);
    let weak = commands.downgrade();
    let drive = async move {
        let error = loop {
            // Without a handle nobody can use the session any more.
            let Some(commands) = weak.upgrade() else { break SessionError::Shutdown };
            driver.dispatch(&commands);
            drop(commands);
            if let Err(error) = driver.turn(Some(&mut queue)).await {
                break error;
            }
            round_trip_tx.send_if_modified(|current| {
                let new = driver.machine.round_trip();
                std::mem::replace(current, new) != new
            });
        };
        driver.finish(&error).await;
        ended_tx.send_replace(Some(error));
    };
    Ok((Session { inner: Arc::new(SessionInner { peer, commands, round_trip, ended }) }, drive))
}

impl Driver {
    /// Waits for one thing to happen and handles it.
    async fn turn(&mut self, queue: Option<&mut mpsc::Receiver<Command>>) -> Result<(), SessionError> {
        if self.written == self.output.len() {
            self.output.clear();
            self.written = 0;
            self.machine.poll_output(&mut self.output);
        }
        let pending = self.written < self.output.len();
        let deadline = self.machine.poll_timeout();
        tokio::select! {
            read = self.reader.read(&mut self.input) => match read {
                Ok(0) | Err(_) => Err(SessionError::Lost),
                Ok(n) => self.machine.handle_input(Instant::now(), &self.input[..n]),
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
            commands = receive(queue) => commands.into_iter().try_for_each(|command| self.handle_command(command)),
        }
    }

    fn handle_command(&mut self, command: Command) -> Result<(), SessionError> {
        match command {
            Command::Open { protocol, commands, reply } => {
                let opened = self.machine.open(&protocol).map(|(id, credit)| self.attach(id, credit, commands));
                // Dropped unread, the stream resets itself.
                let _ = reply.send(opened);
            }
            Command::Send { stream, message } => self.machine.send(stream, message),
            Command::Finish { stream } => self.machine.finish(stream),
            Command::Reset { stream, code } => {
                self.machine.reset(stream, code);
                self.detach(stream, None);
            }
            Command::Consumed { stream, length } => self.machine.consumed(stream, length),
            Command::Shutdown => return Err(SessionError::Shutdown),
        }
        Ok(())
    }

    fn attach(&mut self, id: StreamId, credit: u64, commands: mpsc::Sender<Command>) -> Stream {
        let (inbox, received) = mpsc::unbounded_channel();
        let credit =
            Arc::new(Semaphore::new(usize::try_from(credit).unwrap_or(usize::MAX).min(Semaphore::MAX_PERMITS)));
        self.streams.insert(id, Attached { inbox, credit: Arc::clone(&credit) });
        Stream::new(id, commands, credit, received)
    }

    /// Ends a stream's handle: it receives `last`, and can send no more.
    fn detach(&mut self, id: StreamId, last: Option<Inbound>) {
        if let Some(attached) = self.streams.remove(&id) {
            if let Some(last) = last {
                let _ = attached.inbox.send(last);
            }
            attached.credit.close();
        }
    }

    /// Hands the machine's events to those concerned.
    fn dispatch(&mut self, commands: &mpsc::Sender<Command>) {
        while self.handlers.try_join_next().is_some() {}
        while let Some(event) = self.machine.poll_event() {
            match event {
                Event::Established(peer) => self.peer = Some(peer),
                Event::Opened { stream, protocol, credit } => {
                    let peer = self.peer.unwrap_or(Peer::Anonymous);
                    match self.router.route(&protocol, peer) {
                        Ok(handler) => {
                            let handle = self.attach(stream, credit, commands.clone());
                            self.handlers.spawn(handler.serve(handle, peer));
                        }
                        Err(code) => self.machine.reset(stream, code),
                    }
                }
                Event::Message { stream, message } => {
                    if let Some(attached) = self.streams.get(&stream) {
                        let _ = attached.inbox.send(Inbound::Message(message));
                    }
                }
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
                Event::Reset { stream, code } => self.detach(stream, Some(Inbound::Reset(code))),
            }
        }
    }

    /// Sends what can still be sent, with a deadline, and lets go of everything.
    async fn finish(&mut self, error: &SessionError) {
        match error {
            SessionError::Shutdown => self.machine.close(CLOSE_SHUTDOWN),
            SessionError::Lost | SessionError::Silent | SessionError::ClosedByPeer(_) => {}
            _ => self.machine.close(CLOSE_ERROR),
        }
        self.handlers.shutdown().await;
        if !matches!(error, SessionError::Lost | SessionError::Silent) {
            let last_words = async {
                loop {
                    self.writer.write_all(&self.output[self.written..]).await?;
                    self.output.clear();
                    self.written = 0;
                    self.machine.poll_output(&mut self.output);
                    if self.output.is_empty() {
                        return self.writer.shutdown().await;
                    }
                }
            };
            let _ = tokio::time::timeout(LINGER, last_words).await;
        }
        for (_, attached) in self.streams.drain() {
            attached.credit.close();
        }
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

async fn sleep_until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
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
