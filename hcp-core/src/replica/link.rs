//! A link between two nodes: one stream, read by one half and written by the other, neither of which waits for the other.
//!
//! Invariants: what was read and not handled is one message for each link and [`INBOX`] for all together; what waits to be
//! sent is bounded by the peer's credit and, beyond that, by [`MAX_QUEUED`], after which the link ends. What steers the log
//! goes before segments, so that backfill delays no receipt.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use crate::node::{RecvError, SendError, Stream, StreamSender};
use crate::replica::log::limits::WINDOW;
use crate::replica::log::message::Message;
use crate::replica::log::wire::OVERHEAD;
use crate::replica::place::NodeId;

/// Messages of all links that wait for the driver: it takes them one by one, in no time, and a link waits when there is no
/// room.
pub(super) const INBOX: usize = 64;
/// Bytes that wait to be sent on one link: all that credit allows, an offer, and frontiers for some minutes of a peer that
/// takes nothing.
const MAX_QUEUED: usize = 2 * WINDOW as usize + 1024 * 1024;
/// How long what was queued may take to go out when this node ends a link, so that the peer is told why.
const LINGER: Duration = Duration::from_secs(2);

/// What links tell the driver.
#[derive(Debug)]
pub(super) enum FromLink {
    /// The receiver hears of the link's end, however it comes.
    Up {
        node: NodeId,
        link: u64,
        outbox: Outbox,
        lasts: oneshot::Receiver<()>,
    },
    Message {
        node: NodeId,
        link: u64,
        message: Message,
    },
}

/// Why a link ended.
#[derive(Debug, thiserror::Error)]
pub(super) enum LinkEnd {
    #[error("the link's stream failed: {0}")]
    Recv(#[from] RecvError),
    #[error("the link's stream failed: {0}")]
    Send(#[from] SendError),
    #[error("the peer closed the link")]
    Closed,
    #[error("the peer broke the replication protocol: {0}")]
    Protocol(#[from] crate::replica::log::MessageError),
    #[error("this node ended the link")]
    Ended,
}

/// What is to be sent on a link. The link ends with it.
#[derive(Debug)]
pub(super) struct Outbox {
    steering: mpsc::UnboundedSender<Message>,
    content: mpsc::UnboundedSender<Message>,
    queued: Arc<AtomicUsize>,
    ended: Arc<AtomicBool>,
}

impl Outbox {
    /// Queues a message; `false` when the peer takes too little.
    pub(super) fn push(&self, message: Message) -> bool {
        let size = size(&message);
        if self.queued.fetch_add(size, Ordering::Relaxed) + size > MAX_QUEUED {
            return false;
        }
        let content = matches!(message, Message::Segment(_) | Message::Piece(_) | Message::Offer(_));
        let queue = if content { &self.content } else { &self.steering };
        // A link that has ended says so by itself.
        let _ = queue.send(message);
        true
    }
}

impl Drop for Outbox {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
    }
}

/// Runs a link until it breaks or its outbox is dropped.
pub(super) async fn run(inbox: &mpsc::Sender<FromLink>, mut stream: Stream, node: NodeId, link: u64) -> LinkEnd {
    let (steering, steers) = mpsc::unbounded_channel();
    let (content, contents) = mpsc::unbounded_channel();
    let (queued, ended) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
    let outbox = Outbox { steering, content, queued: Arc::clone(&queued), ended: Arc::clone(&ended) };
    let sender = stream.sender();
    // Dropped with this future.
    let (_lasts, ended_by_drop) = oneshot::channel();
    if inbox.send(FromLink::Up { node, link, outbox, lasts: ended_by_drop }).await.is_err() {
        return LinkEnd::Ended;
    }
    tokio::select! {
        end = read(inbox, &mut stream, node, link) => end,
        end = write(sender, steers, contents, &queued, &ended) => end.unwrap_or_else(LinkEnd::Send),
    }
}

async fn read(inbox: &mpsc::Sender<FromLink>, stream: &mut Stream, node: NodeId, link: u64) -> LinkEnd {
    loop {
        let bytes = match stream.recv().await {
            Ok(Some(bytes)) => bytes,
            Ok(None) => return LinkEnd::Closed,
            Err(error) => return error.into(),
        };
        let message = match Message::decode(&bytes) {
            Ok(Some(message)) => message,
            // A kind of later versions.
            Ok(None) => continue,
            Err(error) => return error.into(),
        };
        if inbox.send(FromLink::Message { node, link, message }).await.is_err() {
            return LinkEnd::Ended;
        }
    }
}

async fn write(
    mut sender: StreamSender,
    mut steers: mpsc::UnboundedReceiver<Message>,
    mut contents: mpsc::UnboundedReceiver<Message>,
    queued: &AtomicUsize,
    ended: &AtomicBool,
) -> Result<LinkEnd, SendError> {
    loop {
        let message = tokio::select! {
            biased;
            Some(message) = steers.recv() => message,
            Some(message) = contents.recv(), if !ended.load(Ordering::Relaxed) => message,
            else => break,
        };
        sender.send(message.encode()).await?;
        queued.fetch_sub(size(&message), Ordering::Relaxed);
    }
    // The peer learns why from what was said last, before the stream is gone.
    let _ = tokio::time::timeout(LINGER, sender.finish()).await;
    tokio::time::sleep(LINGER).await;
    Ok(LinkEnd::Ended)
}

/// About what a message takes in memory.
fn size(message: &Message) -> usize {
    match message {
        Message::Segment(segment) => segment.cost(),
        Message::Piece(piece) => piece.bytes.len() + OVERHEAD,
        Message::Offer(offer) => offer.certificate.len() + offer.summary.len() + offer.pieces.len() + OVERHEAD,
        Message::Frontier(frontier) => {
            size_of_val(&frontier.tips[..])
                + frontier.direct.as_ref().map_or(0, |nodes| size_of_val(&nodes[..]))
                + OVERHEAD
        }
        _ => OVERHEAD,
    }
}
