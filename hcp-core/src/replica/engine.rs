//! The one thread that writes the log: it takes entries and foreign segments in, commits them in groups, and publishes
//! what is durable.
//!
//! Invariants: a segment is staged only behind its predecessor and all its dependencies; nothing is published, receipted
//! or pushed before it is on disk; after a failed commit nothing more is accepted.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot, watch};

use super::ReceiptError;
use super::clock::Clock;
use super::place::{LogId, NodeId, Place};
use super::segment::{self, MAX_ENTRY, MAX_HEADER, Segment, Tip};
use super::segments::{Position, SegmentWriter};
use crate::identity::{LogKey, OnionAddress};
use crate::store::StoreError;

/// Inputs that may wait for the engine; writers and links wait beyond it. Own entries are at most 64 KiB each.
pub(super) const INPUT_QUEUE: usize = 1024;
/// Bytes of foreign segments that may wait for the engine; links wait beyond it.
pub(super) const INPUT_BYTES: usize = 16 * 1024 * 1024;
/// Inputs of one commit.
const BATCH: usize = 512;
/// Bytes of one node's segments that are held back until their dependencies come, so that none can take the others' room.
/// One that does not fit is dropped, and comes again.
const MAX_HELD_BACK: usize = 8 * 1024 * 1024;
/// What a segment costs in memory beyond its bytes.
pub(super) const SEGMENT_OVERHEAD: usize = 512;
/// Bytes of entries in a segment: below the payload's limit by room for the encoding of many short ones.
const SEGMENT_ENTRIES: usize = segment::MAX_PAYLOAD - MAX_ENTRY / 2;
/// What an entry costs in a payload beyond its bytes.
const ENTRY_OVERHEAD: usize = 8;
/// A first segment names every log; more than this do not fit.
pub(super) const MAX_LOGS: usize = MAX_HEADER / 96;

/// What the engine is asked to do.
#[derive(Debug)]
pub(super) enum Input {
    /// Append an entry whose author had seen everything up to a position.
    Append { entry: Bytes, seen: Position, reply: oneshot::Sender<Result<Place, ReceiptError>> },
    /// Take in a segment that came over a link; its form and signature hold. The permit is its share of [`INPUT_BYTES`].
    Segment(Box<Segment>, OwnedSemaphorePermit),
    /// There are so many nodes from now on.
    Nodes(usize),
    /// Finish what is queued and let go of the database.
    Stop,
}

/// What is durable here.
#[derive(Clone, Debug, Default)]
pub(super) struct Head {
    pub(super) last: Position,
    pub(super) tips: Arc<BTreeMap<LogId, Tip>>,
    /// Set when storing failed: nothing more will become durable.
    pub(super) failed: Option<Arc<StoreError>>,
    /// Logs of which two different segments were seen at one place.
    pub(super) forked: Arc<Vec<LogId>>,
    /// Nodes whose clock is too far ahead to be followed.
    pub(super) ahead: Arc<Vec<NodeId>>,
}

struct Pending {
    entry: Bytes,
    seen: Position,
    reply: oneshot::Sender<Result<Place, ReceiptError>>,
}

pub(super) struct Engine {
    writer: SegmentWriter,
    key: LogKey,
    service: OnionAddress,
    log: LogId,
    clock: Clock,
    head: watch::Sender<Head>,
    tips: BTreeMap<LogId, Tip>,
    forked: Vec<LogId>,
    ahead: Vec<NodeId>,
    /// Our segments name what was seen up to this position.
    claimed: Position,
    pending: Vec<Pending>,
    pending_bytes: usize,
    staged: Vec<Segment>,
    replies: Vec<(oneshot::Sender<Result<Place, ReceiptError>>, Place)>,
    held_back: HeldBack,
    /// Logs that one node may have: its share of those that a first segment can name.
    max_runs: usize,
}

impl Engine {
    /// Opens the log's new incarnation: its first segment, which names all that is held, is durable on return.
    pub(super) fn begin(
        writer: SegmentWriter,
        key: LogKey,
        service: OnionAddress,
        log: LogId,
        head: watch::Sender<Head>,
        nodes: usize,
    ) -> Result<Self, StoreError> {
        let tips = writer.tips()?;
        let max_runs = MAX_LOGS / nodes.max(1);
        if runs_of(&tips, log.node) >= max_runs {
            return Err(StoreError::TooManyRuns { limit: max_runs });
        }
        let claimed = writer.last();
        let mut clock = Clock::default();
        clock.see(writer.latest_stamp()?, SystemTime::now());
        let mut engine = Self {
            writer,
            key,
            service,
            log,
            clock,
            head,
            tips,
            forked: Vec::new(),
            ahead: Vec::new(),
            claimed,
            pending: Vec::new(),
            pending_bytes: 0,
            staged: Vec::new(),
            replies: Vec::new(),
            held_back: HeldBack::default(),
            max_runs,
        };
        let dependencies: Vec<Tip> = engine.tips.values().copied().collect();
        engine.stage_own(&dependencies, Vec::new());
        engine.commit()?;
        Ok(engine)
    }

    /// Runs until it is stopped, all senders are gone or storing fails.
    pub(super) fn run(mut self, mut inputs: mpsc::Receiver<Input>) {
        let mut batch = Vec::new();
        loop {
            batch.clear();
            let Some(first) = inputs.blocking_recv() else { return };
            batch.push(first);
            while batch.len() < BATCH
                && let Ok(input) = inputs.try_recv()
            {
                batch.push(input);
            }
            let stop = batch.iter().any(|input| matches!(input, Input::Stop));
            if let Err(error) = self.handle(batch.drain(..)) {
                return self.fail(error, inputs);
            }
            if stop {
                return;
            }
        }
    }

    fn handle(&mut self, inputs: impl Iterator<Item = Input>) -> Result<(), StoreError> {
        for input in inputs {
            match input {
                Input::Append { entry, seen, reply } => self.add(Pending { entry, seen, reply })?,
                Input::Segment(segment, _room) => self.take(*segment)?,
                Input::Nodes(nodes) => self.max_runs = MAX_LOGS / nodes.max(1),
                Input::Stop => {}
            }
        }
        self.cut()?;
        self.commit()
    }

    /// Collects an entry; all entries of a segment have seen the same.
    fn add(&mut self, pending: Pending) -> Result<(), StoreError> {
        let size = pending.entry.len() + ENTRY_OVERHEAD;
        let differs = self.pending.last().is_some_and(|last| last.seen != pending.seen);
        if self.pending_bytes + size > SEGMENT_ENTRIES || differs {
            self.cut()?;
        }
        self.pending_bytes += size;
        self.pending.push(pending);
        Ok(())
    }

    /// Makes a segment of the entries collected.
    fn cut(&mut self) -> Result<(), StoreError> {
        let Some(last) = self.pending.last() else { return Ok(()) };
        // Positions are claimed once, in order, and never beyond what is durable.
        let seen = last.seen.min(self.writer.last()).max(self.claimed);
        let dependencies =
            if seen > self.claimed { self.writer.tips_between(self.claimed, seen, self.log)? } else { Vec::new() };
        self.claimed = seen;
        self.pending_bytes = 0;
        let pending = std::mem::take(&mut self.pending);
        let (entries, replies): (Vec<_>, Vec<_>) = pending.into_iter().map(|p| (p.entry, p.reply)).unzip();
        let seq = self.stage_own(&dependencies, entries);
        for (index, reply) in (0..).zip(replies) {
            self.replies.push((reply, Place { log: self.log, seq, index }));
        }
        Ok(())
    }

    fn stage_own(&mut self, dependencies: &[Tip], entries: Vec<Bytes>) -> u64 {
        let previous = self.tips.get(&self.log).copied();
        let stamp = self.clock.read(SystemTime::now());
        let segment = Segment::sign(&self.key, &self.service, self.log, previous, stamp, dependencies, entries);
        let seq = segment.seq;
        self.stage(segment);
        seq
    }

    /// Takes in a foreign segment: now, when what it needs has come, or never.
    fn take(&mut self, segment: Segment) -> Result<(), StoreError> {
        if segment.log.node == self.log.node && segment.log.incarnation == self.log.incarnation {
            return Ok(());
        }
        match self.tips.get(&segment.log) {
            Some(tip) if segment.seq <= tip.seq => {
                if self.hash_at(&segment.log, segment.seq)? != Some(segment.hash) {
                    self.note_fork(segment.log);
                }
                return Ok(());
            }
            None if runs_of(&self.tips, segment.log.node) >= self.max_runs => {
                tracing::warn!(node = ?segment.log.node, "a node has begun more runs than can be kept");
                return Ok(());
            }
            _ => {}
        }
        let mut next = vec![segment];
        while let Some(segment) = next.pop() {
            if self.tips.get(&segment.log).is_some_and(|tip| segment.seq <= tip.seq) {
                continue;
            }
            match self.requirements(&segment)? {
                Requirements::Met => {
                    let place = (segment.log, segment.seq);
                    self.note_clock(&segment);
                    self.stage(segment);
                    next.extend(self.held_back.released_by(place));
                }
                Requirements::Missing(log, seq) => self.held_back.insert(segment, (log, seq)),
                Requirements::Contradicted(log) => self.note_fork(log),
            }
        }
        Ok(())
    }

    fn requirements(&self, segment: &Segment) -> Result<Requirements, StoreError> {
        let tip = self.tips.get(&segment.log);
        if tip.map_or(0, |tip| tip.seq) + 1 != segment.seq {
            return Ok(Requirements::Missing(segment.log, segment.seq - 1));
        }
        if tip.map(|tip| tip.hash) != segment.previous {
            return Ok(Requirements::Contradicted(segment.log));
        }
        for needed in &segment.dependencies {
            match self.tips.get(&needed.log) {
                Some(tip) if tip.seq >= needed.seq => {
                    if self.hash_at(&needed.log, needed.seq)? != Some(needed.hash) {
                        return Ok(Requirements::Contradicted(needed.log));
                    }
                }
                _ => return Ok(Requirements::Missing(needed.log, needed.seq)),
            }
        }
        Ok(Requirements::Met)
    }

    /// The hash of a segment that is staged or on disk.
    fn hash_at(&self, log: &LogId, seq: u64) -> Result<Option<segment::Hash>, StoreError> {
        if let Some(tip) = self.tips.get(log).filter(|tip| tip.seq == seq) {
            return Ok(Some(tip.hash));
        }
        let staged = self.staged.iter().rev().find(|segment| segment.log == *log && segment.seq == seq);
        match staged {
            Some(segment) => Ok(Some(segment.hash)),
            None => self.writer.hash_at(log, seq),
        }
    }

    fn note_clock(&mut self, segment: &Segment) {
        if !self.clock.see(segment.stamp, SystemTime::now()) && !self.ahead.contains(&segment.log.node) {
            tracing::warn!(node = ?segment.log.node, "a node's clock is over a minute ahead of this one's");
            self.ahead.push(segment.log.node);
        }
    }

    fn note_fork(&mut self, log: LogId) {
        if !self.forked.contains(&log) && self.forked.len() < MAX_LOGS {
            tracing::error!(?log, "a node signed two different segments for one place of its log");
            self.forked.push(log);
        }
    }

    fn stage(&mut self, segment: Segment) {
        self.tips.insert(segment.log, segment.tip());
        self.staged.push(segment);
    }

    /// Makes what is staged durable, then tells everybody.
    fn commit(&mut self) -> Result<(), StoreError> {
        if !self.staged.is_empty() {
            self.writer.commit(&self.staged)?;
            self.staged.clear();
        }
        self.head.send_replace(Head {
            last: self.writer.last(),
            tips: Arc::new(self.tips.clone()),
            failed: None,
            forked: Arc::new(self.forked.clone()),
            ahead: Arc::new(self.ahead.clone()),
        });
        for (reply, place) in self.replies.drain(..) {
            // Nobody waits any more: fine.
            let _ = reply.send(Ok(place));
        }
        Ok(())
    }

    /// Tells everybody that nothing more will be stored.
    fn fail(mut self, error: StoreError, mut inputs: mpsc::Receiver<Input>) {
        tracing::error!(%error, "the log cannot be written");
        let error = Arc::new(error);
        for (reply, _) in self.replies.drain(..) {
            let _ = reply.send(Err(ReceiptError::Store(Arc::clone(&error))));
        }
        for pending in self.pending.drain(..) {
            let _ = pending.reply.send(Err(ReceiptError::Store(Arc::clone(&error))));
        }
        self.head.send_modify(|head| head.failed = Some(Arc::clone(&error)));
        inputs.close();
        while let Some(input) = inputs.blocking_recv() {
            if let Input::Append { reply, .. } = input {
                let _ = reply.send(Err(ReceiptError::Store(Arc::clone(&error))));
            }
        }
    }
}

/// What a foreign segment needs before it can be staged.
enum Requirements {
    Met,
    /// This segment has not come yet.
    Missing(LogId, u64),
    /// Another segment stands where the author says that it saw one: the named log forked, or the author lies.
    Contradicted(LogId),
}

/// Segments that wait for one that they need, by the first that is missing.
#[derive(Default)]
struct HeldBack {
    by_missing: BTreeMap<(LogId, u64), Vec<Segment>>,
    places: BTreeSet<(LogId, u64)>,
    bytes: BTreeMap<NodeId, usize>,
}

impl HeldBack {
    fn insert(&mut self, segment: Segment, missing: (LogId, u64)) {
        let bytes = self.bytes.entry(segment.log.node).or_default();
        if *bytes + size(&segment) <= MAX_HELD_BACK && self.places.insert((segment.log, segment.seq)) {
            *bytes += size(&segment);
            self.by_missing.entry(missing).or_default().push(segment);
        }
    }

    /// Takes out what waited for the segment at this place.
    fn released_by(&mut self, place: (LogId, u64)) -> Vec<Segment> {
        let released = self.by_missing.remove(&place).unwrap_or_default();
        for segment in &released {
            self.places.remove(&(segment.log, segment.seq));
            if let Some(bytes) = self.bytes.get_mut(&segment.log.node) {
                *bytes -= size(segment);
            }
        }
        released
    }
}

fn size(segment: &Segment) -> usize {
    segment.wire.header.len() + segment.wire.payload.len() + SEGMENT_OVERHEAD
}

fn runs_of(tips: &BTreeMap<LogId, Tip>, node: NodeId) -> usize {
    tips.keys().filter(|log| log.node == node).count()
}
