//! The work over any byte stream, with messages cut by a length of four bytes.

use std::io::ErrorKind;

use futures::future::BoxFuture;
use futures::{FutureExt as _, SinkExt as _, StreamExt as _};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio_util::codec::{Framed, LengthDelimitedCodec};

use super::{Order, PIECE, Peer, noise};
use crate::Failure;

/// A byte stream whose other end runs [`BytesPeer::serve`].
pub struct BytesPeer<S> {
    stream: S,
    piece: ::bytes::Bytes,
}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> BytesPeer<S> {
    pub fn new(stream: S) -> Self {
        Self { stream, piece: noise(PIECE) }
    }

    /// Does what it is asked until the stream ends.
    pub async fn serve(mut stream: S) -> Result<(), Failure> {
        let mut buffer = vec![0; PIECE];
        loop {
            let mut order = [0; Order::LEN];
            match stream.read_exact(&mut order).await {
                Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(()),
                read => read?,
            };
            match Order::from_bytes(order)? {
                Order::Transfer(mut left) => {
                    while left > 0 {
                        let most = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
                        match stream.read(&mut buffer[..most]).await? {
                            0 => return Err("the stream ended inside a transfer".into()),
                            n => left -= n as u64,
                        }
                    }
                    stream.write_all(&[1]).await?;
                }
                Order::RoundTrips { count, length } => {
                    let echo = buffer.get_mut(..length as usize).ok_or("too long an echo")?;
                    for _ in 0..count {
                        stream.read_exact(echo).await?;
                        stream.write_all(echo).await?;
                        stream.flush().await?;
                    }
                }
                Order::Messages(count) => {
                    let mut framed = Framed::new(&mut stream, LengthDelimitedCodec::new());
                    for _ in 0..count {
                        framed.next().await.ok_or("the stream ended between messages")??;
                    }
                    // Nothing follows before the answer, so nothing can have been read too far.
                    stream.write_all(&[1]).await?;
                }
            }
            stream.flush().await?;
        }
    }

    async fn answer(&mut self) -> Result<(), Failure> {
        self.stream.read_exact(&mut [0]).await?;
        Ok(())
    }
}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Peer for BytesPeer<S> {
    fn transfer(&mut self, bytes: u64) -> BoxFuture<'_, Result<(), Failure>> {
        async move {
            self.stream.write_all(&Order::Transfer(bytes).to_bytes()).await?;
            let mut left = bytes;
            while left > 0 {
                let length = left.min(PIECE as u64) as usize;
                self.stream.write_all(&self.piece[..length]).await?;
                left -= length as u64;
            }
            self.stream.flush().await?;
            self.answer().await
        }
        .boxed()
    }

    fn round_trips(&mut self, count: u64, length: usize) -> BoxFuture<'_, Result<(), Failure>> {
        async move {
            let order = Order::RoundTrips { count, length: u32::try_from(length)? };
            self.stream.write_all(&order.to_bytes()).await?;
            let mut back = vec![0; length];
            for _ in 0..count {
                self.stream.write_all(&self.piece[..length]).await?;
                self.stream.flush().await?;
                self.stream.read_exact(&mut back).await?;
            }
            Ok(())
        }
        .boxed()
    }

    fn messages(&mut self, count: u64, length: usize) -> BoxFuture<'_, Result<(), Failure>> {
        async move {
            self.stream.write_all(&Order::Messages(count).to_bytes()).await?;
            let message = self.piece.slice(..length);
            let mut framed = Framed::new(&mut self.stream, LengthDelimitedCodec::new());
            for _ in 0..count {
                framed.feed(message.clone()).await?;
            }
            futures::SinkExt::<::bytes::Bytes>::flush(&mut framed).await?;
            self.answer().await
        }
        .boxed()
    }
}
