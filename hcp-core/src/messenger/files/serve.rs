//! The sender's side of `hcp/file/1`: sends pieces in their order, and hears how many the receiver holds.

use std::future;
use std::path::PathBuf;

use bytes::Bytes;
use prost::Message;
use tokio::time::timeout;

use super::LOST_AFTER;
use super::pieces::PieceList;
use super::source::{Source, SourceError};
use crate::messenger::fault;
use crate::node::{Stream, StreamSender};
use crate::wire::file_proto::{Fetch, FromReceiver, FromSender, Refusal, from_receiver, from_sender};

/// A receiver's question, read from its stream and not answered yet.
#[derive(Debug)]
pub(in crate::messenger) struct Asked {
    stream: Stream,
    transfer: [u8; 16],
    first: u32,
}

/// How serving a file ended.
#[derive(Debug, thiserror::Error)]
pub(in crate::messenger) enum ServeEnd {
    /// The receiver says that it holds everything.
    #[error("the receiver holds the whole file")]
    Delivered,
    /// The file is gone or was changed; the receiver was told.
    #[error("the file is gone, or was changed")]
    SourceChanged,
    /// The receiver is gone, or silent; it may come back.
    #[error("the receiver is gone")]
    PeerGone,
    /// The receiver does not keep to the protocol.
    #[error("the receiver broke the protocol: {0}")]
    Violation(&'static str),
    /// The file cannot be read now.
    #[error("the offered file cannot be read: {0}")]
    Io(#[source] std::io::Error),
}

/// Reads what a stream asks for.
///
/// # Errors
/// [`ServeEnd`]; the stream is abandoned then.
///
/// # Cancel safety
/// Dropping the future abandons the stream.
pub(in crate::messenger) async fn asked(mut stream: Stream) -> Result<Asked, ServeEnd> {
    match receive(&mut stream, true).await? {
        from_receiver::Body::Fetch(Fetch { transfer, first_piece }) => {
            let transfer = transfer[..].try_into().map_err(|_| ServeEnd::Violation("malformed id"))?;
            Ok(Asked { stream, transfer, first: first_piece })
        }
        from_receiver::Body::Held(_) => Err(ServeEnd::Violation("no question first")),
    }
}

impl Asked {
    /// The id of the transfer that is asked for.
    pub(in crate::messenger) fn transfer(&self) -> [u8; 16] {
        self.transfer
    }

    /// Answers that there is no such file for the receiver.
    ///
    /// # Cancel safety
    /// Dropping the future abandons the stream.
    pub(in crate::messenger) async fn refuse(mut self) {
        refuse(&mut self.stream, Refusal::Unknown).await;
    }

    /// Answers with the file, until the receiver holds it. `progress` gets the bytes that the receiver says it holds, ever
    /// more of them.
    ///
    /// # Cancel safety
    /// Dropping the future abandons the stream.
    pub(in crate::messenger) async fn serve<F>(
        mut self,
        path: PathBuf,
        list: PieceList,
        progress: impl FnMut(u64) -> F,
    ) -> ServeEnd
    where
        F: Future<Output = ()>,
    {
        if self.first >= list.layout().count() {
            return ServeEnd::Violation("a piece beyond the last");
        }
        let mut sender = self.stream.sender();
        let end = tokio::select! {
            end = send_file(&mut sender, path, list.clone(), self.first) => end,
            end = follow(&mut self.stream, &list, self.first, progress) => end,
        };
        match end {
            Ok(()) => self.stream.finish().await,
            Err(ServeEnd::SourceChanged) => refuse(&mut self.stream, Refusal::Changed).await,
            Err(_) => {}
        }
        end.err().unwrap_or(ServeEnd::Delivered)
    }
}

/// Sends everything from a piece on; ends only when that fails or the receiver does not confirm it in time.
async fn send_file(sender: &mut StreamSender, path: PathBuf, list: PieceList, first: u32) -> Result<(), ServeEnd> {
    let mut source = Source::open(path, list.clone(), first).await.map_err(source_end)?;
    send(sender, from_sender::Body::Pieces(list.to_bytes().into())).await?;
    loop {
        let (next, chunks) = source.next().await.map_err(source_end)?;
        if chunks.is_empty() {
            break;
        }
        for chunk in chunks {
            send(sender, from_sender::Body::Chunk(chunk)).await?;
        }
        fault::point("piece sent");
        source = next;
    }
    sender.finish().await;
    // The last word is the receiver's.
    let _ = timeout(LOST_AFTER, future::pending::<()>()).await;
    Err(ServeEnd::PeerGone)
}

/// Hears what the receiver holds, until it is all.
async fn follow<F>(
    stream: &mut Stream,
    list: &PieceList,
    first: u32,
    mut progress: impl FnMut(u64) -> F,
) -> Result<(), ServeEnd>
where
    F: Future<Output = ()>,
{
    let layout = list.layout();
    let mut held = first;
    while held < layout.count() {
        let from_receiver::Body::Held(now) = receive(stream, false).await? else {
            return Err(ServeEnd::Violation("a second question"));
        };
        if now.pieces <= held || now.pieces > layout.count() {
            return Err(ServeEnd::Violation("pieces held"));
        }
        held = now.pieces;
        fault::point("piece held there, not noted");
        progress(layout.start(held)).await;
    }
    Ok(())
}

async fn receive(stream: &mut Stream, deadline: bool) -> Result<from_receiver::Body, ServeEnd> {
    let received = if deadline {
        timeout(LOST_AFTER, stream.recv()).await.map_err(|_| ServeEnd::PeerGone)?
    } else {
        stream.recv().await
    };
    let message: Bytes = received.ok().flatten().ok_or(ServeEnd::PeerGone)?;
    let message = FromReceiver::decode(message).map_err(|_| ServeEnd::Violation("malformed message"))?;
    message.body.ok_or(ServeEnd::Violation("unknown message"))
}

async fn send(sender: &mut StreamSender, body: from_sender::Body) -> Result<(), ServeEnd> {
    let message = FromSender { body: Some(body) }.encode_to_vec();
    match timeout(LOST_AFTER, sender.send(message)).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(_)) | Err(_) => Err(ServeEnd::PeerGone),
    }
}

/// Whether the receiver still hears it changes nothing here.
async fn refuse(stream: &mut Stream, refusal: Refusal) {
    let body = from_sender::Body::Refused(refusal.into());
    if send(&mut stream.sender(), body).await.is_ok() {
        stream.finish().await;
    }
}

fn source_end(error: SourceError) -> ServeEnd {
    match error {
        SourceError::Changed | SourceError::NotAFile | SourceError::TooLarge { .. } => ServeEnd::SourceChanged,
        SourceError::Io(error) => ServeEnd::Io(error),
    }
}
