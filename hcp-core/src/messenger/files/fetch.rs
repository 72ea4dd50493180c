//! The receiver's side of `hcp/file/1`: takes chunks, has them written, and says what it holds.

use std::sync::Arc;

use bytes::Bytes;
use prost::Message;
use tokio::time::timeout;

use super::blocking::blocking;
use super::pieces::PieceList;
use super::sink::{Sink, SinkError};
use super::{BATCH, CHUNK, LOST_AFTER};
use crate::node::{RecvError, Stream};
use crate::wire::file_proto::{Fetch, FromReceiver, FromSender, Held, Refusal, from_receiver, from_sender};

/// How fetching a file ended.
#[derive(Debug, thiserror::Error)]
pub(in crate::messenger) enum FetchEnd {
    /// The file is whole, verified, synced and in its place.
    #[error("the file is complete")]
    Complete,
    /// The sender is gone, or silent; fetching can go on later.
    #[error("the sender is gone")]
    PeerGone,
    /// What was held had been changed on this side's disk. Progress was told what is left of it; fetching can go on at once.
    #[error("the partial file was changed by somebody else")]
    Damaged,
    /// The sender's file is gone or was changed.
    #[error("the sender's file is gone, or was changed")]
    SourceChanged,
    /// What came is not what was offered, or breaks the protocol.
    #[error("the sender sends something else: {0}")]
    Mismatch(&'static str),
    /// The sender has no such file for us.
    #[error("the sender refuses the file")]
    Refused,
    /// It cannot be written.
    #[error(transparent)]
    Disk(SinkError),
}

/// Fetches a file over a stream that was opened for `hcp/file/1`, into an open sink.
///
/// `progress` gets the bytes that are verified and synced: first those that were held before, which may be fewer than the
/// caller thought, then ever more. Fetching waits for it, so that a checkpoint can be committed.
///
/// # Cancel safety
/// Dropping the future abandons the stream and leaves a partial file that fetching goes on with; or the complete file,
/// which [`Sink::open`] finds.
pub(in crate::messenger) async fn fetch<F>(
    stream: Stream,
    transfer: [u8; 16],
    sink: Sink,
    progress: impl FnMut(u64) -> F,
) -> FetchEnd
where
    F: Future<Output = ()>,
{
    let mut fetching = Fetching { stream, told: sink.held(), progress };
    match fetching.run(transfer, sink).await {
        Ok(()) => FetchEnd::Complete,
        Err(end) => end,
    }
}

struct Fetching<P> {
    stream: Stream,
    /// Bytes that progress and the sender know to be held.
    told: u64,
    progress: P,
}

impl<P, F> Fetching<P>
where
    P: FnMut(u64) -> F,
    F: Future<Output = ()>,
{
    async fn run(&mut self, transfer: [u8; 16], sink: Sink) -> Result<(), FetchEnd> {
        (self.progress)(self.told).await;
        let first_piece = sink.layout().whole(sink.held());
        let fetch = Fetch { transfer: Bytes::copy_from_slice(&transfer), first_piece };
        self.tell(from_receiver::Body::Fetch(fetch)).await;
        let list = match self.receive().await? {
            from_sender::Body::Pieces(bytes) => PieceList::verify(sink.layout(), sink.root(), &bytes),
            from_sender::Body::Chunk(_) => return Err(FetchEnd::Mismatch("no list first")),
            from_sender::Body::Refused(refusal) => return Err(refused(refusal)),
        };
        let list = list.ok_or(FetchEnd::Mismatch("the list is not of the offered file"))?;
        let list = Arc::new(list);
        let mut sink = self.take_pieces(sink, &list).await?;
        let completed = blocking(move |waiting| sink.complete(Some(&list), waiting)).await;
        match completed.map_err(SinkError::from).flatten() {
            Err(SinkError::Damaged { held }) => {
                (self.progress)(held).await;
                Err(FetchEnd::Damaged)
            }
            completed => completed.map_err(disk),
        }
    }

    /// Takes everything that the sink lacks.
    async fn take_pieces(&mut self, mut sink: Sink, list: &Arc<PieceList>) -> Result<Sink, FetchEnd> {
        loop {
            let rest = sink.rest_of_piece();
            let (chunks, lost) = self.batch(rest.min(BATCH)).await?;
            // Also what came before the sender was lost counts: the job below syncs it.
            let list = Arc::clone(list);
            let written = blocking(move |_| {
                let result = sink.write(&list, &chunks).and_then(|()| if lost { sink.sync() } else { Ok(()) });
                (sink, result)
            });
            let (back, result) = written.await.map_err(|error| disk(error.into()))?;
            result.map_err(disk)?;
            sink = back;
            let done = sink.is_full();
            if sink.held() > self.told || done {
                self.told = sink.held();
                (self.progress)(self.told).await;
                let pieces = sink.layout().whole(self.told);
                self.tell(from_receiver::Body::Held(Held { pieces })).await;
            }
            if done {
                self.stream.finish().await;
                return Ok(sink);
            }
            if lost {
                return Err(FetchEnd::PeerGone);
            }
        }
    }

    /// Receives so many bytes of a piece, or what comes of them before the sender is lost.
    async fn batch(&mut self, length: u64) -> Result<(Vec<Bytes>, bool), FetchEnd> {
        let mut chunks = Vec::with_capacity((BATCH / CHUNK) as usize);
        let mut rest = length;
        while rest > 0 {
            let chunk = match self.receive().await {
                Ok(from_sender::Body::Chunk(chunk)) => chunk,
                Ok(from_sender::Body::Refused(refusal)) => return Err(refused(refusal)),
                Ok(from_sender::Body::Pieces(_)) => return Err(FetchEnd::Mismatch("a second list")),
                Err(FetchEnd::PeerGone) => return Ok((chunks, true)),
                Err(end) => return Err(end),
            };
            if chunk.len() as u64 != rest.min(CHUNK) {
                return Err(FetchEnd::Mismatch("a chunk of another length"));
            }
            rest -= chunk.len() as u64;
            chunks.push(chunk);
        }
        Ok((chunks, false))
    }

    async fn receive(&mut self) -> Result<from_sender::Body, FetchEnd> {
        let message = match timeout(LOST_AFTER, self.stream.recv()).await {
            Ok(Ok(Some(message))) => message,
            Ok(Err(RecvError::UnknownProtocol | RecvError::AnonymousRefused)) => return Err(FetchEnd::Refused),
            Ok(Ok(None) | Err(_)) | Err(_) => return Err(FetchEnd::PeerGone),
        };
        let message = FromSender::decode(message).map_err(|_| FetchEnd::Mismatch("a malformed message"))?;
        message.body.ok_or(FetchEnd::Mismatch("an unknown message"))
    }

    /// Whether it went out shows when the answer is received, with the reason if not.
    async fn tell(&mut self, body: from_receiver::Body) {
        let message = FromReceiver { body: Some(body) }.encode_to_vec();
        let _ = timeout(LOST_AFTER, self.stream.send(message)).await;
    }
}

fn refused(refusal: i32) -> FetchEnd {
    match Refusal::try_from(refusal) {
        Ok(Refusal::Unknown) => FetchEnd::Refused,
        Ok(Refusal::Changed) => FetchEnd::SourceChanged,
        Err(_) => FetchEnd::Mismatch("an unknown refusal"),
    }
}

fn disk(error: SinkError) -> FetchEnd {
    match error {
        SinkError::Mismatch => FetchEnd::Mismatch("a piece is not that of the list"),
        error => FetchEnd::Disk(error),
    }
}
