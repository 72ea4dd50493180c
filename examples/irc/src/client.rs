//! One client's connection: bytes to lines and back, at the pace that the server sets.
//!
//! Invariants: memory is bounded whatever the client does; a line is read only while the server holds fewer than its
//! share of this client's lines; a connection that shows no life ends within [`SILENCE`].

mod lines;
mod throttle;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout, timeout_at};

use self::lines::LineBuffer;
use self::throttle::{Throttle, cost};
use crate::message::{MAX_BODY, MAX_TAGS, Message};
use crate::server::client::SEND_QUEUE;
use crate::server::{Handle, Input, Shared};

/// How often a silent client is pinged: often enough that a dead circuit does not linger.
pub const PING_EVERY: Duration = Duration::from_secs(30);
/// How long a client may be silent, or take to accept what is written to it.
pub const SILENCE: Duration = Duration::from_secs(60);
/// How long a client may take to register; a slow circuit needs several round trips of seconds.
pub const REGISTRATION: Duration = Duration::from_secs(60);
/// How long the last lines of a connection may take.
pub const GOODBYE: Duration = Duration::from_secs(5);

/// Serves one client until it leaves, is silent for too long, or the server drops it.
///
/// # Cancel safety
/// Dropping the future drops the connection; the server learns of it from the queue that closes.
pub async fn connection<T: AsyncRead + AsyncWrite + Unpin>(handle: Handle, mut stream: T) {
    let Ok(_slot) = Arc::clone(&handle.slots).try_acquire_owned() else {
        return refuse(&mut stream, "the server is full; try again later").await;
    };
    let id = handle.next_id();
    let (out, lines) = mpsc::channel(SEND_QUEUE);
    let shared = Arc::new(Shared::new());
    if handle.input.send(Input::Open { id, out, shared: Arc::clone(&shared) }).await.is_err() {
        return refuse(&mut stream, STOPS).await;
    }
    let gone = Gone { handle: handle.clone(), id };
    let last_heard = Instant::now();
    let mut connection = Connection { handle, id, stream, lines, shared, last_heard, pinged: false, answered: false };
    let reason = connection.run().await;
    gone.tell(reason.clone()).await;
    connection.say_goodbye(&reason).await;
    if !connection.answered {
        // It came while the server stopped, which has not looked at it any more.
        refuse(&mut connection.stream, STOPS).await;
    }
}

/// Tells somebody who is not served why. One who hears nothing would take the address for dead.
async fn refuse(stream: &mut (impl AsyncWrite + Unpin), why: &str) {
    let goodbye = format!("ERROR :Closing link: {why}\r\n");
    let _ = timeout(GOODBYE, async {
        stream.write_all(goodbye.as_bytes()).await?;
        stream.shutdown().await
    })
    .await;
}

/// Tells the server that a connection has ended, also when its task is aborted.
struct Gone {
    handle: Handle,
    id: u64,
}

impl Gone {
    async fn tell(self, reason: String) {
        let _ = self.handle.input.send(Input::Gone { id: self.id, reason }).await;
        std::mem::forget(self);
    }
}

impl Drop for Gone {
    fn drop(&mut self) {
        let gone = Input::Gone { id: self.id, reason: "Connection lost".into() };
        if let Err(mpsc::error::TrySendError::Full(gone)) = self.handle.input.try_send(gone) {
            let input = self.handle.input.clone();
            if let Ok(runtime) = tokio::runtime::Handle::try_current() {
                runtime.spawn(async move { input.send(gone).await });
            }
        }
    }
}

struct Connection<T> {
    handle: Handle,
    id: u64,
    stream: T,
    lines: mpsc::Receiver<Bytes>,
    shared: Arc<Shared>,
    last_heard: Instant,
    pinged: bool,
    /// Something was written.
    answered: bool,
}

impl<T: AsyncRead + AsyncWrite + Unpin> Connection<T> {
    /// Runs until the connection ends; says why.
    async fn run(&mut self) -> String {
        let mut buffer = LineBuffer::default();
        let mut throttle = Throttle::new(Instant::now());
        let mut outgoing = Vec::new();
        let registration = Instant::now() + REGISTRATION;
        let mut held_until = Instant::now();
        // Whether the buffer may hold a whole line.
        let mut more = false;
        let shared = Arc::clone(&self.shared);
        loop {
            let holding = held_until > Instant::now();
            let may_read = !holding && self.shared.credits.available_permits() > 0;
            if more && may_read {
                match buffer.next_line() {
                    Some(line) => {
                        // Bytes without an end of line are no life: they would hold a connection for nothing.
                        self.last_heard = Instant::now();
                        self.pinged = false;
                        if let Ok(permit) = self.shared.credits.try_acquire() {
                            permit.forget();
                        }
                        // The buffer passes over a line that is too long at this length.
                        let len = line.as_ref().map_or(MAX_TAGS + MAX_BODY, Vec::len);
                        let line = line.and_then(|line| Message::parse(&line));
                        held_until = throttle.take(Instant::now(), cost(len, &line));
                        if self.handle.input.send(Input::Line { id: self.id, line }).await.is_err() {
                            return "The server stops".into();
                        }
                        continue;
                    }
                    None => more = false,
                }
            }
            let ping_at = self.last_heard + if self.pinged { SILENCE } else { PING_EVERY };
            tokio::select! {
                received = self.lines.recv_many(&mut outgoing, WRITE_BATCH) => {
                    if received == 0 {
                        return "Dropped by the server".into();
                    }
                    if let Err(reason) = self.write(&mut outgoing).await {
                        return reason;
                    }
                }
                read = self.stream.read(buffer.space()), if may_read && !more => {
                    match read {
                        Ok(0) => return "Connection closed".into(),
                        Ok(len) => {
                            buffer.filled(len);
                            more = true;
                        }
                        Err(_) => return "Connection lost".into(),
                    }
                }
                () = tokio::time::sleep_until(held_until), if holding => {}
                permit = shared.credits.acquire(), if !holding && !may_read => drop(permit),
                () = tokio::time::sleep_until(ping_at) => {
                    // Unread lines are life, too.
                    if more || !may_read {
                        self.last_heard = Instant::now();
                    } else if self.pinged {
                        return "Ping timeout".into();
                    } else {
                        self.pinged = true;
                        outgoing.push(Bytes::from(format!(":{0} PING :{0}\r\n", self.handle.name)));
                        self.shared.queued.fetch_add(outgoing[0].len(), Ordering::Relaxed);
                        if let Err(reason) = self.write(&mut outgoing).await {
                            return reason;
                        }
                    }
                }
                () = tokio::time::sleep_until(registration), if !self.is_registered() => {
                    return "Registration timeout".into();
                }
            }
        }
    }

    fn is_registered(&self) -> bool {
        self.shared.registered.load(Ordering::Relaxed)
    }

    async fn write(&mut self, lines: &mut Vec<Bytes>) -> Result<(), String> {
        let deadline = Instant::now() + SILENCE;
        let len: usize = lines.iter().map(Bytes::len).sum();
        let joined = match &lines[..] {
            [line] => line.clone(),
            lines => lines.concat().into(),
        };
        lines.clear();
        self.answered = true;
        let result = timeout_at(deadline, async {
            self.stream.write_all(&joined).await?;
            self.stream.flush().await
        })
        .await;
        self.shared.queued.fetch_sub(len, Ordering::Relaxed);
        match result {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err("Connection lost".into()),
            Err(_) => Err("Write timeout".into()),
        }
    }

    /// Writes what is still queued, the server's last word included.
    async fn say_goodbye(&mut self, reason: &str) {
        let mut outgoing = Vec::new();
        let _ = timeout(GOODBYE, async {
            while self.lines.recv_many(&mut outgoing, WRITE_BATCH).await > 0 {
                if self.write(&mut outgoing).await.is_err() {
                    return;
                }
            }
            if self.answered {
                let _ = self.stream.shutdown().await;
            }
        })
        .await;
        tracing::debug!(reason, "a client left");
    }
}

/// What clients are told when the server ends.
pub(crate) const STOPS: &str = "The server process stops; connect again";

/// Lines that are written at once.
const WRITE_BATCH: usize = 64;
