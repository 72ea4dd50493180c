//! Noise and yamux over TCP, the way libp2p joins them: XX, messages of at most 65,535 bytes behind a length of two.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures::future::poll_fn;
use futures::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use snow::TransportState;
use tokio::net::TcpStream;
use tokio_util::compat::{Compat, FuturesAsyncReadCompatExt as _, TokioAsyncReadCompatExt as _};
use yamux::{Config, Connection, Mode};

use super::{BytesPeer, tcp};
use crate::Failure;

/// The longest message of Noise, and what its tag takes of it.
const MAX_MESSAGE: usize = 65_535;
const TAG: usize = 16;
const LENGTH: usize = 2;

/// The cipher of the transport.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cipher {
    /// libp2p's.
    ChaChaPoly,
    /// The one that TLS takes here.
    AesGcm,
}

/// Both ends of a connection.
pub struct NoisePair;

impl NoisePair {
    /// A connection whose other end serves all streams.
    pub async fn peer(cipher: Cipher) -> Result<BytesPeer<Compat<yamux::Stream>>, Failure> {
        let address = tcp::serve(move |stream| async move {
            let mut far = Connection::new(handshake(stream, cipher, false).await?, Config::default(), Mode::Server);
            while let Some(stream) = poll_fn(|cx| far.poll_next_inbound(cx)).await {
                tokio::spawn(BytesPeer::serve(stream?.compat()));
            }
            Ok(())
        })
        .await?;
        let near = handshake(tcp::connect(address).await?, cipher, true).await?;
        let mut near = Connection::new(near, Config::default(), Mode::Client);
        let stream = poll_fn(|cx| near.poll_new_outbound(cx)).await?;
        // A connection moves only while it is polled; it ends with its streams, or with the runtime.
        tokio::spawn(async move { while let Some(Ok(_)) = poll_fn(|cx| near.poll_next_inbound(cx)).await {} });
        Ok(BytesPeer::new(stream.compat()))
    }
}

async fn handshake(stream: TcpStream, cipher: Cipher, initiator: bool) -> Result<Noise, Failure> {
    let mut stream = stream.compat();
    let pattern = match cipher {
        Cipher::ChaChaPoly => "Noise_XX_25519_ChaChaPoly_SHA256",
        Cipher::AesGcm => "Noise_XX_25519_AESGCM_SHA256",
    };
    let keys = snow::Builder::new(pattern.parse()?).generate_keypair()?;
    let builder = snow::Builder::new(pattern.parse()?).local_private_key(&keys.private)?;
    let mut state = if initiator { builder.build_initiator()? } else { builder.build_responder()? };
    let mut buffer = vec![0; MAX_MESSAGE];
    while !state.is_handshake_finished() {
        if state.is_my_turn() {
            let length = state.write_message(&[], &mut buffer)?;
            stream.write_all(&u16::try_from(length)?.to_be_bytes()).await?;
            stream.write_all(&buffer[..length]).await?;
            stream.flush().await?;
        } else {
            let mut length = [0; LENGTH];
            stream.read_exact(&mut length).await?;
            let message = &mut buffer[..usize::from(u16::from_be_bytes(length))];
            stream.read_exact(message).await?;
            state.read_message(message, &mut vec![0; MAX_MESSAGE])?;
        }
    }
    Ok(Noise {
        stream,
        state: state.into_transport_mode()?,
        incoming: vec![0; LENGTH + MAX_MESSAGE],
        filled: 0,
        plain: vec![0; MAX_MESSAGE],
        plain_at: 0,
        plain_end: 0,
        outgoing: Vec::with_capacity(MAX_MESSAGE),
        sealed: vec![0; LENGTH + MAX_MESSAGE],
        sealed_at: 0,
        sealed_end: 0,
    })
}

/// An encrypted byte stream. Writes are gathered up to a whole message, and sealed then or when flushed.
struct Noise {
    stream: Compat<TcpStream>,
    state: TransportState,
    incoming: Vec<u8>,
    filled: usize,
    plain: Vec<u8>,
    plain_at: usize,
    plain_end: usize,
    outgoing: Vec<u8>,
    sealed: Vec<u8>,
    sealed_at: usize,
    sealed_end: usize,
}

impl Noise {
    /// Hands what is sealed to the transport.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.sealed_at < self.sealed_end {
            let sent = &self.sealed[self.sealed_at..self.sealed_end];
            match ready!(Pin::new(&mut self.stream).poll_write(cx, sent))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                n => self.sealed_at += n,
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Seals what was gathered; what was sealed before has gone.
    fn seal(&mut self) -> io::Result<()> {
        let length = self.state.write_message(&self.outgoing, &mut self.sealed[LENGTH..]).map_err(io::Error::other)?;
        self.sealed[..LENGTH].copy_from_slice(&(length as u16).to_be_bytes());
        self.outgoing.clear();
        self.sealed_at = 0;
        self.sealed_end = LENGTH + length;
        Ok(())
    }
}

impl AsyncRead for Noise {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        loop {
            if this.plain_at < this.plain_end {
                let n = buffer.len().min(this.plain_end - this.plain_at);
                buffer[..n].copy_from_slice(&this.plain[this.plain_at..this.plain_at + n]);
                this.plain_at += n;
                return Poll::Ready(Ok(n));
            }
            let wanted = match this.filled {
                0..LENGTH => LENGTH,
                _ => LENGTH + usize::from(u16::from_be_bytes([this.incoming[0], this.incoming[1]])),
            };
            if this.filled >= LENGTH && this.filled >= wanted {
                let sealed = &this.incoming[LENGTH..wanted];
                this.plain_end = this.state.read_message(sealed, &mut this.plain).map_err(io::Error::other)?;
                this.plain_at = 0;
                this.incoming.copy_within(wanted..this.filled, 0);
                this.filled -= wanted;
                continue;
            }
            match ready!(Pin::new(&mut this.stream).poll_read(cx, &mut this.incoming[this.filled..]))? {
                0 => return Poll::Ready(Ok(0)),
                n => this.filled += n,
            }
        }
    }
}

impl AsyncWrite for Noise {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.outgoing.len() == MAX_MESSAGE - TAG {
            ready!(this.poll_send(cx))?;
            this.seal()?;
        }
        let n = bytes.len().min(MAX_MESSAGE - TAG - this.outgoing.len());
        this.outgoing.extend_from_slice(&bytes[..n]);
        Poll::Ready(Ok(n))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_send(cx))?;
        if !this.outgoing.is_empty() {
            this.seal()?;
            ready!(this.poll_send(cx))?;
        }
        Pin::new(&mut this.stream).poll_flush(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.as_mut().poll_flush(cx))?;
        Pin::new(&mut self.get_mut().stream).poll_close(cx)
    }
}
