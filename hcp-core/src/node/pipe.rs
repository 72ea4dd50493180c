//! A transport and what is on its way into it.

use std::io::{self, Read, Write};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::time::Instant;

use crate::network::BoxedTransport;
use crate::session::SessionError;

/// Bytes read from a transport at once during a handshake: more than either side sends in it.
pub(super) const READ_BUFFER: usize = 8 * 1024;

/// A transport of which one task polls both directions.
pub(super) struct Pipe {
    transport: BoxedTransport,
    output: Vec<u8>,
    /// How much of `output` the transport has taken.
    written: usize,
    unflushed: bool,
}

/// What a pipe did.
#[derive(Debug)]
pub(super) enum Step {
    /// So many bytes were read.
    Read(usize),
    /// Something was written or flushed.
    Wrote,
    /// The deadline passed.
    Deadline,
}

impl Pipe {
    pub(super) fn new(transport: BoxedTransport) -> Self {
        Self { transport, output: Vec::new(), written: 0, unflushed: false }
    }

    /// The transport as something to read from; [`io::ErrorKind::WouldBlock`] where it is pending.
    pub(super) fn reader<'a>(&'a mut self, cx: &'a mut Context<'_>) -> impl Read + 'a {
        Polled { transport: &mut self.transport, cx }
    }

    /// Writes once, what a handshake left and then by `write`, and flushes when there is no more. Pending also when there is
    /// nothing to do.
    pub(super) fn poll_write_by(
        &mut self,
        cx: &mut Context<'_>,
        write: impl FnOnce(&mut dyn Write) -> io::Result<bool>,
    ) -> Poll<io::Result<()>> {
        while self.written < self.output.len() {
            ready!(self.poll_write_once(cx))?;
        }
        self.output = Vec::new();
        self.written = 0;
        match write(&mut Polled { transport: &mut self.transport, cx }) {
            Ok(true) => {
                self.unflushed = true;
                Poll::Ready(Ok(()))
            }
            Ok(false) => {
                if self.unflushed {
                    ready!(Pin::new(&mut self.transport).poll_flush(cx))?;
                    self.unflushed = false;
                }
                Poll::Pending
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Poll::Pending,
            Err(error) => Poll::Ready(Err(error)),
        }
    }

    fn poll_write_once(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match ready!(Pin::new(&mut self.transport).poll_write(cx, &self.output[self.written..]))? {
            0 => Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
            n => {
                self.written += n;
                self.unflushed = true;
                Poll::Ready(Ok(()))
            }
        }
    }

    /// Reads once. An end is an error.
    pub(super) fn poll_read(&mut self, cx: &mut Context<'_>, into: &mut [u8]) -> Poll<io::Result<usize>> {
        let mut into = ReadBuf::new(into);
        ready!(Pin::new(&mut self.transport).poll_read(cx, &mut into))?;
        match into.filled().len() {
            0 => Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into())),
            n => Poll::Ready(Ok(n)),
        }
    }

    /// Writes once, and flushes once there is no more. `fill` is asked for more when all was taken, so that little waits in
    /// front of what is urgent. Pending also when there is nothing to do.
    pub(super) fn poll_write(&mut self, cx: &mut Context<'_>, fill: impl FnOnce(&mut Vec<u8>)) -> Poll<io::Result<()>> {
        if self.written == self.output.len() {
            self.output.clear();
            self.written = 0;
            fill(&mut self.output);
        }
        if self.output.is_empty() {
            if !self.unflushed {
                return Poll::Pending;
            }
            ready!(Pin::new(&mut self.transport).poll_flush(cx))?;
            self.unflushed = false;
            // An idle connection keeps no room for output.
            self.output = Vec::new();
            return Poll::Ready(Ok(()));
        }
        self.poll_write_once(cx)
    }

    /// Waits until one thing has happened. Cancel-safe.
    pub(super) async fn step(
        &mut self,
        into: &mut [u8],
        deadline: Option<Instant>,
        mut fill: impl FnMut(&mut Vec<u8>),
    ) -> Result<Step, SessionError> {
        let moved = std::future::poll_fn(|cx| {
            if let Poll::Ready(written) = self.poll_write(cx, &mut fill) {
                return Poll::Ready(written.map(|()| Step::Wrote));
            }
            self.poll_read(cx, into).map_ok(Step::Read)
        });
        let passed = async {
            match deadline {
                Some(deadline) => tokio::time::sleep_until(deadline).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            step = moved => step.map_err(|_| SessionError::Lost),
            () = passed => Ok(Step::Deadline),
        }
    }

    /// Writes what is left and what `fill` gives until that is nothing, ends this side's direction, and waits for the
    /// other's end: closing a transport with unread input may discard what is still under way to the peer.
    pub(super) async fn finish(mut self, mut fill: impl FnMut(&mut Vec<u8>)) -> io::Result<()> {
        loop {
            self.transport.write_all(&self.output[self.written..]).await?;
            self.output.clear();
            self.written = 0;
            fill(&mut self.output);
            if self.output.is_empty() {
                break;
            }
        }
        self.transport.shutdown().await?;
        let mut rest = vec![0; 4096];
        while std::future::poll_fn(|cx| self.poll_read(cx, &mut rest)).await.is_ok() {}
        Ok(())
    }
}

/// A transport that is polled whenever it is read or written.
struct Polled<'a, 'b> {
    transport: &'a mut BoxedTransport,
    cx: &'a mut Context<'b>,
}

impl Read for Polled<'_, '_> {
    /// Fills as much as there is: some transports give a few hundred bytes at a time.
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let mut into = ReadBuf::new(into);
        while into.remaining() > 0 {
            let before = into.filled().len();
            match Pin::new(&mut self.transport).poll_read(self.cx, &mut into) {
                Poll::Ready(Ok(())) if into.filled().len() == before => break,
                Poll::Ready(Ok(())) => {}
                // What came before counts; the end or the error is still there when it is read next.
                _ if before > 0 => break,
                Poll::Ready(Err(error)) => return Err(error),
                Poll::Pending => return Err(io::ErrorKind::WouldBlock.into()),
            }
        }
        Ok(into.filled().len())
    }
}

impl Write for Polled<'_, '_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        would_block(Pin::new(&mut self.transport).poll_write(self.cx, bytes))
    }

    fn write_vectored(&mut self, slices: &[io::IoSlice<'_>]) -> io::Result<usize> {
        would_block(Pin::new(&mut self.transport).poll_write_vectored(self.cx, slices))
    }

    fn flush(&mut self) -> io::Result<()> {
        would_block(Pin::new(&mut self.transport).poll_flush(self.cx))
    }
}

fn would_block<T>(poll: Poll<io::Result<T>>) -> io::Result<T> {
    match poll {
        Poll::Ready(result) => result,
        Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
    }
}
