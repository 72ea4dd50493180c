//! What was sent and what came, stream by stream, and what must hold of it.

use std::collections::{BTreeMap, VecDeque};
use std::sync::LazyLock;

use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::session::{MAX_MESSAGE, MAX_STREAM_WINDOW, Priority, STREAM_WINDOW, StreamId, message_cost};

/// What must hold and does not.
#[derive(Clone, Debug)]
pub(super) struct Violation(pub(super) String);

pub(super) type Checked = Result<(), Violation>;

/// Fails with a reason.
pub(super) fn violated<T>(reason: impl Into<String>) -> Result<T, Violation> {
    Err(Violation(reason.into()))
}

/// The content of a message: a slice of a page that is the same in all runs, so that comparing is cheap.
pub(super) fn content(rng: &mut StdRng, length: usize) -> (usize, Bytes) {
    let offset = rng.random_range(0..PAGE - MAX_MESSAGE);
    (offset, page(offset, length))
}

fn page(offset: usize, length: usize) -> Bytes {
    static PAGES: LazyLock<Bytes> = LazyLock::new(|| {
        let mut bytes = vec![0; PAGE];
        StdRng::seed_from_u64(0).fill(&mut bytes[..]);
        bytes.into()
    });
    PAGES.slice(offset..offset + length)
}

const PAGE: usize = 1 << 20;

/// A message that was sent.
#[derive(Clone, Copy, Debug)]
struct Sent {
    offset: usize,
    length: usize,
    mark: Mark,
}

/// How the sender's primary stood when a message was handed to the machine.
#[derive(Clone, Copy, Debug)]
pub(super) struct Mark {
    /// Bytes written to the transport.
    pub(super) written: u64,
    received: Load,
}

/// What messages of a class, and of those before it, come to.
#[derive(Clone, Copy, Debug, Default)]
struct Load {
    /// On the wire at the most, for this class and those that go before it.
    weight: u64,
    /// Frames of this class alone.
    frames: u64,
}

/// One direction of a stream.
#[derive(Debug)]
pub(super) struct Flow {
    class: usize,
    sent: Vec<Sent>,
    pub(super) received: usize,
    /// The sender's application has ended it; the receiver's was told so.
    pub(super) finished: bool,
    pub(super) end_seen: bool,
    /// What the sender was allowed in all, and what of it the receiver's application took.
    granted: u64,
    taken: u64,
    /// The largest that the receiver's window can have become, and what was taken since it last could grow.
    window: u64,
    since: u64,
    grown: bool,
    /// The receiver's application has gone: nobody says any more what was taken.
    pub(super) released: bool,
    /// The stream is over for the receiver, whose pool has back what its window had grown by.
    pub(super) over: bool,
}

impl Flow {
    fn new(priority: Priority) -> Self {
        Self {
            class: priority as usize,
            sent: Vec::new(),
            received: 0,
            finished: false,
            end_seen: false,
            granted: STREAM_WINDOW,
            taken: 0,
            window: STREAM_WINDOW,
            since: 0,
            grown: false,
            released: false,
            over: false,
        }
    }

    /// Whether all that was sent has come, and the end.
    pub(super) fn is_complete(&self) -> bool {
        self.finished && self.end_seen && self.received == self.sent.len()
    }

    /// Whether anything has not come.
    pub(super) fn misses(&self) -> bool {
        self.received < self.sent.len() || self.finished != self.end_seen
    }
}

/// All streams of a session, in both directions. A flow is named by its stream and the side that sends.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    flows: BTreeMap<(StreamId, usize), Flow>,
    /// What each side has sent, and what of it came, by class.
    sent: [[Load; 3]; 2],
    received: [[Load; 3]; 2],
}

/// Bytes that may be on the way before a message for reasons other than messages: batches that were written already or are
/// padded, credit, the first flights, what one delivery merges.
const SLACK: u64 = 256 * 1_024;
/// Bytes of higher classes that may go before one frame of a lower one: the machine's patience, and batches under way.
const PATIENCE: u64 = 200 * 1_024;
/// What one message takes on the wire beyond four times its cost, which is the most that padding makes of it.
const MESSAGE_WEIGHT: u64 = 1_100;

impl Ledger {
    pub(super) fn opened(&mut self, stream: StreamId, priority: Priority) {
        for side in 0..2 {
            self.flows.insert((stream, side), Flow::new(priority));
        }
    }

    pub(super) fn flow(&mut self, stream: StreamId, from: usize) -> Result<&mut Flow, Violation> {
        match self.flows.get_mut(&(stream, from)) {
            Some(flow) => Ok(flow),
            None => violated(format!("something happened on stream {stream}, which nobody opened")),
        }
    }

    pub(super) fn flows(&self) -> impl Iterator<Item = (StreamId, usize, &Flow)> {
        self.flows.iter().map(|((stream, from), flow)| (*stream, *from, flow))
    }

    /// A message is handed to the machine of `from`, whose primary has `written` so many bytes.
    pub(super) fn sends(
        &mut self,
        stream: StreamId,
        from: usize,
        offset: usize,
        length: usize,
        written: u64,
    ) -> Checked {
        let class = self.flow(stream, from)?.class;
        let mark = Mark { written, received: self.received[from][class] };
        Self::count(&mut self.sent[from], class, length);
        self.flow(stream, from)?.sent.push(Sent { offset, length, mark });
        Ok(())
    }

    fn count(loads: &mut [Load; 3], class: usize, length: usize) {
        for load in &mut loads[class..] {
            load.weight += 4 * message_cost(length) + MESSAGE_WEIGHT;
        }
        loads[class].frames += length.div_ceil(16_000).max(1) as u64;
    }

    /// A message has come from `from`, after `delivered` bytes on its primary. `by_primary` says whether it cannot have come
    /// by another way. It must be the next one that was sent, and not too late.
    pub(super) fn comes(
        &mut self,
        stream: StreamId,
        from: usize,
        message: &[u8],
        delivered: u64,
        by_primary: bool,
    ) -> Checked {
        let flow = self.flow(stream, from)?;
        let place = flow.received;
        let Some(sent) = flow.sent.get(place).copied() else {
            return violated(format!("stream {stream}: message {place} was never sent"));
        };
        if flow.end_seen {
            return violated(format!("stream {stream}: message {place} came after the end"));
        }
        if page(sent.offset, sent.length) != message {
            return violated(format!("stream {stream}: message {place} is not what was sent"));
        }
        flow.received += 1;
        let class = flow.class;
        Self::count(&mut self.received[from], class, sent.length);
        if by_primary { self.is_in_time(stream, from, class, &sent, delivered) } else { Ok(()) }
    }

    fn is_in_time(&self, stream: StreamId, from: usize, class: usize, sent: &Sent, delivered: u64) -> Checked {
        let waited = delivered.saturating_sub(sent.mark.written);
        let pending = self.sent[from][class];
        let before = sent.mark.received;
        // All that may go before it: its own class and those above, and of those below an eighth.
        let above = (pending.weight - before.weight) * 9 / 8;
        if class != Priority::Bulk as usize && waited > SLACK + above {
            return violated(format!("stream {stream}: a message of class {class} waited behind {waited} bytes"));
        }
        // Its own class moves on even when those above never rest.
        let starved = (pending.frames - before.frames) * PATIENCE;
        if waited > SLACK + starved {
            return violated(format!("stream {stream}: class {class} starved for {waited} bytes"));
        }
        Ok(())
    }

    /// The sender was given credit: what it may have out stays within what the window can have become, and what all windows
    /// of the receiver have grown by within `pool`.
    pub(super) fn grants(&mut self, stream: StreamId, from: usize, bytes: u64, pool: u64) -> Result<bool, Violation> {
        let flow = self.flow(stream, from)?;
        if flow.released {
            return Ok(false);
        }
        flow.granted += bytes;
        let out = flow.granted.saturating_sub(flow.taken);
        if out > flow.window {
            return violated(format!("stream {stream}: {out} bytes are allowed, and the window is {}", flow.window));
        }
        let grew = out > STREAM_WINDOW && !flow.grown;
        flow.grown |= grew;
        let live = self.flows.iter().filter(|((_, sender), flow)| *sender == from && !flow.over);
        let growth: u64 =
            live.map(|(_, flow)| flow.granted.saturating_sub(flow.taken).saturating_sub(STREAM_WINDOW)).sum();
        if growth > pool {
            return violated(format!("windows have grown by {growth} bytes, and the session's pool has {pool}"));
        }
        Ok(grew)
    }

    /// The receiver's application has taken what cost so much.
    pub(super) fn takes(&mut self, stream: StreamId, from: usize, cost: u64) -> Checked {
        let flow = self.flow(stream, from)?;
        flow.taken += cost;
        flow.since += cost;
        if flow.since >= flow.window {
            flow.window = (2 * flow.window).min(MAX_STREAM_WINDOW);
            flow.since = 0;
        }
        Ok(())
    }

    /// What side `to` may have to hold at the most: all that its peer was allowed and its application did not take.
    pub(super) fn may_hold(&self, to: usize) -> u64 {
        let towards = self.flows.iter().filter(|((_, from), _)| *from != to);
        towards.map(|(_, flow)| flow.granted.saturating_sub(flow.taken).max(flow.window)).sum()
    }
}

/// Messages that wait for their application, by what each cost.
pub(super) type Unread = VecDeque<u64>;
