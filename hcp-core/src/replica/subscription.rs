//! Reading the log in causal order, from its beginning and then as it grows.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use bytes::Bytes;
use tokio::sync::watch;

use super::engine::Head;
use super::place::{LogId, Past, Place};
use super::register::Write;
use super::segment::Segment;
use super::segments::{Position, SegmentReader};
use crate::store::StoreError;

/// Names an entry that this process appended: the n-th of this run, from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AppendId(pub(super) u64);

/// An entry in its place.
#[derive(Clone, Debug)]
pub struct Applied {
    /// Where it stands, when it was written and what its author had seen.
    pub write: Write,
    /// The entry's bytes.
    pub entry: Bytes,
    /// Set for entries that this process appended.
    pub append: Option<AppendId>,
}

/// What a [`Subscription`] delivers.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Event {
    /// A node has begun a new incarnation; its earlier ones have ended.
    Began(LogId),
    /// An entry.
    Entry(Applied),
    /// Everything that was stored when the subscription was made has been delivered.
    CaughtUp,
}

/// Delivers every entry once, an entry behind all that its author had seen.
///
/// What a subscriber has been handed counts as seen by what it appends afterwards. It reads from disk as it goes; a slow
/// one costs no memory.
pub struct Subscription {
    reader: Arc<SegmentReader>,
    head: watch::Receiver<Head>,
    own: LogId,
    cursor: Position,
    catch_up: Option<Position>,
    appended: u64,
    pasts: BTreeMap<LogId, BTreeMap<LogId, u64>>,
    ready: VecDeque<(Position, Event)>,
    /// The last position whose events were all handed out.
    delivered: Arc<AtomicI64>,
}

impl Subscription {
    pub(super) fn new(
        reader: Arc<SegmentReader>,
        head: watch::Receiver<Head>,
        own: LogId,
        delivered: Arc<AtomicI64>,
    ) -> Self {
        let catch_up = Some(head.borrow().last);
        Self {
            reader,
            head,
            own,
            cursor: 0,
            catch_up,
            appended: 0,
            pasts: BTreeMap::new(),
            ready: VecDeque::new(),
            delivered,
        }
    }

    /// Waits for the next event; `None` when the replica was shut down.
    ///
    /// # Errors
    /// [`StoreError`] when the log cannot be read.
    ///
    /// # Cancel safety
    /// Cancel-safe: nothing is lost or repeated.
    pub async fn next(&mut self) -> Result<Option<Event>, StoreError> {
        loop {
            if let Some((pos, event)) = self.ready.pop_front() {
                let last_of_segment = self.ready.front().is_none_or(|(next, _)| *next != pos);
                self.delivered.store(if last_of_segment { pos } else { pos - 1 }, Ordering::Release);
                return Ok(Some(event));
            }
            if self.catch_up.is_some_and(|last| self.cursor >= last) {
                self.catch_up = None;
                return Ok(Some(Event::CaughtUp));
            }
            let last = self.head.borrow_and_update().last;
            if last == self.cursor {
                if self.head.changed().await.is_err() {
                    return Ok(None);
                }
                continue;
            }
            let (reader, cursor) = (Arc::clone(&self.reader), self.cursor);
            let page = tokio::task::spawn_blocking(move || reader.after(cursor, last)).await;
            let page = page.map_err(|_| StoreError::Damaged("reading was interrupted"))??;
            for (pos, segment) in page {
                self.cursor = pos;
                self.unpack(pos, &segment)?;
            }
            if self.ready.is_empty() {
                self.delivered.store(self.cursor, Ordering::Release);
            }
        }
    }

    fn unpack(&mut self, pos: Position, segment: &Segment) -> Result<(), StoreError> {
        let past = self.pasts.entry(segment.log).or_default();
        for tip in &segment.dependencies {
            let seen = past.entry(tip.log).or_default();
            *seen = tip.seq.max(*seen);
        }
        past.insert(segment.log, segment.seq - 1);
        let past = Past(Arc::new(past.clone()));
        if segment.seq == 1 {
            self.ready.push_back((pos, Event::Began(segment.log)));
        }
        let entries = segment.entries().map_err(|_| StoreError::Damaged("a stored segment"))?;
        for (index, entry) in (0..).zip(entries) {
            let append = (segment.log == self.own).then(|| {
                self.appended += 1;
                AppendId(self.appended)
            });
            let place = Place { log: segment.log, seq: segment.seq, index };
            let write = Write { place, stamp: segment.stamp, past: past.clone() };
            self.ready.push_back((pos, Event::Entry(Applied { write, entry, append })));
        }
        Ok(())
    }
}

impl fmt::Debug for Subscription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subscription").field("cursor", &self.cursor).finish_non_exhaustive()
    }
}
