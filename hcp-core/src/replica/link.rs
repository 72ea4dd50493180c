//! A link between two replicas: one stream on which both say what they hold and push what the other lacks.
//!
//! Reading never waits for writing, so two sides with much to give cannot block each other. What a node wrote itself it
//! pushes at once; what others wrote it passes on when the peer still lacks it two seconds later, since the author usually
//! pushes it too.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use prost::Message;
use tokio::sync::watch;
use tokio::time::Instant;

use super::Shared;
use super::engine::{Head, Input, MAX_LOGS, SEGMENT_OVERHEAD};
use super::peers::Member;
use super::place::{Incarnation, LogId};
use super::segment::{Segment, Tip, sign_receipt, verify_receipt};
use super::segments::Position;
use crate::node::{RecvError, SendError, Stream, StreamSender};
use crate::store::StoreError;
use crate::wire::replica_proto::{self as proto, link_message::Kind};

/// How often a node says what it holds, when that has changed.
const BEACON: Duration = Duration::from_millis(500);
/// How often it does although nothing has changed.
const IDLE_BEACONS: u32 = 20;
/// What others wrote is passed on after this many beacons: longer than the author's own push and the peer's next frontier
/// take over Tor.
const RELAY_BEACONS: usize = 4;
/// How long the peer's hello may take.
const HELLO_TIMEOUT: Duration = Duration::from_secs(20);
/// What was sent and is not acknowledged by a frontier for this long is sent again.
const RESEND_AFTER: Duration = Duration::from_secs(10);

/// Why a link ended.
#[derive(Debug, thiserror::Error)]
pub(super) enum LinkError {
    #[error("the link's stream failed: {0}")]
    Recv(#[from] RecvError),
    #[error("the link's stream failed: {0}")]
    Send(#[from] SendError),
    #[error("the peer closed the link")]
    Closed,
    #[error("the peer broke the replication protocol: {0}")]
    Protocol(&'static str),
    #[error("the peer belongs to another service, or its log key is not the one configured for its address")]
    Foreign,
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("the replica was shut down")]
    Stopped,
}

type Frontier = Arc<BTreeMap<LogId, Tip>>;

/// Runs a link until it breaks.
pub(super) async fn run(shared: Arc<Shared>, mut stream: Stream, peer: Member) -> LinkError {
    let hello = proto::LinkHello {
        service: Bytes::copy_from_slice(shared.service.public_key()),
        node: Bytes::copy_from_slice(&shared.log.node.0),
        incarnation: Bytes::copy_from_slice(&shared.log.incarnation.0),
    };
    let mut sender = stream.sender();
    let greeting = async {
        send(&mut sender, Kind::Hello(hello)).await?;
        match receive(&mut stream).await? {
            Kind::Hello(hello) => check_hello(&shared, &peer, &hello),
            _ => Err(LinkError::Protocol("no hello")),
        }
    };
    let incarnation = match tokio::time::timeout(HELLO_TIMEOUT, greeting).await {
        Ok(Ok(incarnation)) => incarnation,
        Ok(Err(error)) => return error,
        Err(_) => return LinkError::Protocol("no hello in time"),
    };
    let _live = shared.links.link_up(peer.node, incarnation);
    let (frontier, watched) = watch::channel(None);
    let peer_log = LogId { node: peer.node, incarnation };
    let writer = Writer::new(Arc::clone(&shared), sender, peer_log, watched);
    let end = tokio::select! {
        end = read_all(&shared, &mut stream, peer, frontier) => end,
        end = writer.run() => end,
    };
    match end {
        Ok(never) => match never {},
        Err(error) => error,
    }
}

fn check_hello(shared: &Shared, peer: &Member, hello: &proto::LinkHello) -> Result<Incarnation, LinkError> {
    if hello.service != shared.service.public_key()[..] || hello.node != peer.node.0[..] {
        return Err(LinkError::Foreign);
    }
    let incarnation = hello.incarnation[..].try_into().map_err(|_| LinkError::Protocol("hello"))?;
    Ok(Incarnation(incarnation))
}

async fn send(sender: &mut StreamSender, kind: Kind) -> Result<(), LinkError> {
    Ok(sender.send(proto::LinkMessage { kind: Some(kind) }.encode_to_vec()).await?)
}

/// The next message of a kind that this version knows.
async fn receive(stream: &mut Stream) -> Result<Kind, LinkError> {
    loop {
        let message = stream.recv().await?.ok_or(LinkError::Closed)?;
        let message = proto::LinkMessage::decode(message).map_err(|_| LinkError::Protocol("malformed message"))?;
        if let Some(kind) = message.kind {
            return Ok(kind);
        }
    }
}

async fn read_all(
    shared: &Arc<Shared>,
    stream: &mut Stream,
    peer: Member,
    frontier: watch::Sender<Option<Frontier>>,
) -> Result<std::convert::Infallible, LinkError> {
    loop {
        match receive(stream).await? {
            Kind::Hello(_) => return Err(LinkError::Protocol("a second hello")),
            Kind::Frontier(message) => {
                if message.tips.len() > 2 * MAX_LOGS {
                    return Err(LinkError::Protocol("a frontier of too many logs"));
                }
                let tips: Option<BTreeMap<_, _>> =
                    message.tips.iter().map(|tip| Tip::from_proto(tip).map(|tip| (tip.log, tip))).collect();
                let tips = tips.ok_or(LinkError::Protocol("frontier"))?;
                frontier.send_replace(Some(Arc::new(tips)));
            }
            Kind::Segment(wire) => {
                let segment = Segment::parse(wire).map_err(|_| LinkError::Protocol("malformed segment"))?;
                // Held already: most duplicates cost no signature check.
                if shared.head.borrow().tips.get(&segment.log).is_some_and(|tip| tip.hash == segment.hash) {
                    continue;
                }
                if !shared.is_author(&segment.log.node) {
                    return Err(LinkError::Protocol("a segment of a stranger"));
                }
                segment.verify(&shared.service).map_err(|_| LinkError::Protocol("a forged segment"))?;
                let room = Arc::clone(&shared.room).acquire_many_owned(room_for(&segment)).await;
                let input = Input::Segment(Box::new(segment), room.map_err(|_| LinkError::Stopped)?);
                shared.inputs.send(input).await.map_err(|_| LinkError::Stopped)?;
            }
            Kind::Receipt(receipt) => {
                let tip = verify_receipt(&receipt, &shared.service, &peer.node)
                    .ok_or(LinkError::Protocol("a forged receipt"))?;
                if tip.log != shared.log {
                    continue;
                }
                // A receipt counts for what we wrote there, not for what the peer says stands there.
                let reader = Arc::clone(&shared.reader);
                let held = blocking(move || reader.hash_at(&tip.log, tip.seq)).await?;
                if held == Some(tip.hash) {
                    shared.note_receipt(peer.node, tip.seq);
                }
            }
        }
    }
}

/// The writing half of a link.
struct Writer {
    shared: Arc<Shared>,
    sender: StreamSender,
    peer_log: LogId,
    frontier: watch::Receiver<Option<Frontier>>,
    head: watch::Receiver<Head>,
    /// What the peer said that it holds.
    known: Frontier,
    /// What was sent on this link and is not yet in a frontier of the peer's.
    sent: BTreeMap<LogId, Sent>,
    /// What others wrote is passed on up to here.
    relay: Position,
    /// Where this node stood at the last beacons, the oldest first.
    earlier: [Position; RELAY_BEACONS],
    /// What the peer was told last that this node holds.
    told: Frontier,
    receipted: u64,
}

/// The highest segment of a log that was sent, and since when the peer's frontier of that log stands still.
struct Sent {
    seq: u64,
    since: Instant,
}

impl Writer {
    fn new(
        shared: Arc<Shared>,
        sender: StreamSender,
        peer_log: LogId,
        frontier: watch::Receiver<Option<Frontier>>,
    ) -> Self {
        let head = shared.head.clone();
        Self {
            shared,
            sender,
            peer_log,
            frontier,
            head,
            known: Arc::default(),
            sent: BTreeMap::new(),
            relay: 0,
            earlier: [0; RELAY_BEACONS],
            told: Arc::default(),
            receipted: 0,
        }
    }

    async fn run(mut self) -> Result<std::convert::Infallible, LinkError> {
        self.send_frontier().await?;
        // Nothing is pushed before the peer has said what it holds.
        self.frontier.wait_for(Option::is_some).await.map_err(|_| LinkError::Closed)?;
        self.take_frontier();
        self.relay = self.head.borrow().last;
        self.earlier = [self.relay; RELAY_BEACONS];
        let mut beacon = tokio::time::interval(BEACON);
        beacon.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut idle = 0;
        loop {
            self.push_lacking().await?;
            self.push_own().await?;
            self.send_receipt().await?;
            tokio::select! {
                changed = self.head.changed() => changed.map_err(|_| LinkError::Stopped)?,
                changed = self.frontier.changed() => {
                    changed.map_err(|_| LinkError::Closed)?;
                    self.take_frontier();
                }
                _ = beacon.tick() => {
                    self.relay = self.earlier[0];
                    self.earlier.rotate_left(1);
                    self.earlier[RELAY_BEACONS - 1] = self.head.borrow().last;
                    idle += 1;
                    if idle >= IDLE_BEACONS || self.has_news() {
                        idle = 0;
                        self.send_frontier().await?;
                    }
                }
            }
        }
    }

    /// Whether this node holds more than it last told.
    fn has_news(&self) -> bool {
        let tips = &self.head.borrow().tips;
        !Arc::ptr_eq(tips, &self.told) && **tips != *self.told
    }

    async fn send_frontier(&mut self) -> Result<(), LinkError> {
        self.told = Arc::clone(&self.head.borrow().tips);
        let tips = self.told.values().map(|tip| tip.to_proto()).collect();
        send(&mut self.sender, Kind::Frontier(proto::Frontier { tips })).await
    }

    fn take_frontier(&mut self) {
        let Some(new) = self.frontier.borrow_and_update().clone() else { return };
        let now = Instant::now();
        let known = &self.known;
        self.sent.retain(|log, sent| {
            let after = tip_seq(&new, log);
            if after > tip_seq(known, log) {
                sent.since = now;
            }
            after < sent.seq && now - sent.since <= RESEND_AFTER
        });
        self.known = new;
    }

    /// The highest segment of a log that the peer holds or was sent.
    fn reached(&self, log: &LogId) -> u64 {
        self.sent.get(log).map_or(0, |sent| sent.seq).max(tip_seq(&self.known, log))
    }

    /// Sends, in the order of this node's log, what the peer lacks of what may be passed on.
    async fn push_lacking(&mut self) -> Result<(), LinkError> {
        let tips = Arc::clone(&self.head.borrow().tips);
        let mut from: Option<Position> = None;
        for (log, tip) in tips.iter() {
            let next = self.reached(log) + 1;
            if *log == self.peer_log || next > tip.seq {
                continue;
            }
            let (reader, log) = (Arc::clone(&self.shared.reader), *log);
            if let Some(pos) = blocking(move || reader.position(&log, next)).await? {
                from = Some(from.map_or(pos, |from| from.min(pos)));
            }
        }
        let Some(mut after) = from.map(|pos| pos - 1) else { return Ok(()) };
        while after < self.relay {
            let (reader, until) = (Arc::clone(&self.shared.reader), self.relay);
            let page = blocking(move || reader.after(after, until)).await?;
            let Some((last, _)) = page.last() else { return Ok(()) };
            after = *last;
            for (_, segment) in page {
                self.push(segment).await?;
            }
            // However long this takes, the peer's own writers wait for these.
            self.send_receipt().await?;
            if self.has_news() {
                self.send_frontier().await?;
            }
        }
        Ok(())
    }

    /// Sends what this node wrote itself.
    async fn push_own(&mut self) -> Result<(), LinkError> {
        let log = self.shared.log;
        loop {
            let (reached, tip) = (self.reached(&log), tip_seq(&self.head.borrow_and_update().tips, &log));
            if reached >= tip {
                return Ok(());
            }
            let reader = Arc::clone(&self.shared.reader);
            for (_, segment) in blocking(move || reader.of_log(&log, reached)).await? {
                self.push(segment).await?;
            }
        }
    }

    async fn push(&mut self, segment: Segment) -> Result<(), LinkError> {
        if segment.log == self.peer_log || segment.seq <= self.reached(&segment.log) {
            return Ok(());
        }
        let sent = Sent { seq: segment.seq, since: Instant::now() };
        self.sent.entry(segment.log).and_modify(|sent| sent.seq = segment.seq).or_insert(sent);
        send(&mut self.sender, Kind::Segment(segment.wire)).await
    }

    /// Tells the peer how much of its log is durable here.
    async fn send_receipt(&mut self) -> Result<(), LinkError> {
        let tip = self.head.borrow().tips.get(&self.peer_log).copied();
        if let Some(tip) = tip.filter(|tip| tip.seq > self.receipted) {
            self.receipted = tip.seq;
            let receipt = sign_receipt(&self.shared.key, &self.shared.service, &tip);
            send(&mut self.sender, Kind::Receipt(receipt)).await?;
        }
        Ok(())
    }
}

/// What a segment takes of the engine's room; bounded by the limits of a segment, which fit.
fn room_for(segment: &Segment) -> u32 {
    (segment.wire.header.len() + segment.wire.payload.len() + SEGMENT_OVERHEAD) as u32
}

fn tip_seq(tips: &BTreeMap<LogId, Tip>, log: &LogId) -> u64 {
    tips.get(log).map_or(0, |tip| tip.seq)
}

async fn blocking<T: Send + 'static>(
    read: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, LinkError> {
    Ok(tokio::task::spawn_blocking(read).await.map_err(|_| LinkError::Stopped)??)
}
