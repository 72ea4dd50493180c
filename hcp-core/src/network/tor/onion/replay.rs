//! Which introductions a point has taken, so that none is answered twice.
//!
//! A replay makes a service build a circuit when and where the one who replays wants to watch. Whoever may replay, the relay
//! of the point among them, knows only what was introduced to the point's keys. So marks are kept as long as the keys are:
//!
//! - Keys are made anew at every start and never written to a disk. A log on disk would protect nothing, so there is none,
//!   and nothing to sync before an answer.
//! - Whoever takes a point over gets its keys and the marks of its predecessor, and adds those to its own.
//! - A point whose circuit closed keeps its log, for the case that it is established again. Of closed points, the log of the
//!   one that was established longest ago is given up at last, and with it the point: it cannot be established any more.
//!
//! Left open: what was introduced in the moment before a takeover, whose mark did not reach the successor, can be replayed to
//! it once. A relay gains one circuit by that, which a client of its own would get it too.
//!
//! Memory is bounded: a log is full when the point has taken its share, which ends the point.

use std::collections::{HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sha2::{Digest as _, Sha256};

use crate::network::onion::{MAX_ESTABLISHED, PointId, Tag};

/// The mark of an introduction, from its encrypted part: to change a bit of that is to break it, so that no change of the rest
/// makes a replay look new.
pub(super) fn tag(encrypted: &[u8]) -> Tag {
    Sha256::new().chain_update(b"HCP/1 introduction\0").chain_update(encrypted).finalize().into()
}

/// What a log knows of an introduction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    New,
    Replay,
    /// It cannot be noted any more, so it must not be answered.
    Full,
}

/// The marks of one point.
pub(super) struct Log {
    marks: Mutex<HashSet<Mark>>,
    limit: usize,
}

/// Half a tag: whoever finds two introductions with the same mark loses one of them.
type Mark = [u8; 16];

impl Log {
    fn new(limit: usize) -> Self {
        Self { marks: Mutex::default(), limit }
    }

    /// Notes an introduction that is about to be answered.
    pub(super) fn note(&self, tag: &Tag) -> Verdict {
        let mut marks = self.lock();
        if marks.contains(&mark(tag)) {
            Verdict::Replay
        } else if marks.len() >= self.limit {
            Verdict::Full
        } else {
            marks.insert(mark(tag));
            Verdict::New
        }
    }

    /// Whether it can note no more.
    pub(super) fn is_full(&self) -> bool {
        self.lock().len() >= self.limit
    }

    fn lock(&self) -> MutexGuard<'_, HashSet<Mark>> {
        self.marks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The logs of all points, by the point.
#[derive(Default)]
pub(super) struct Logs(Mutex<Known>);

#[derive(Default)]
struct Known {
    /// In the order in which they were established last.
    kept: VecDeque<(PointId, Arc<Log>)>,
    /// Points whose log was given up, in that order.
    gone: VecDeque<PointId>,
}

impl Logs {
    /// The log of a point that is about to be established, to which `seen` is added; none when the point cannot be used any
    /// more, for it has taken its share or its log was given up.
    ///
    /// A new one can note `limit` introductions. Whoever has the point up holds on to the log.
    pub(super) fn open(&self, point: PointId, seen: &[Tag], limit: usize) -> Option<Arc<Log>> {
        let mut known = self.lock();
        if known.gone.contains(&point) {
            return None;
        }
        let kept = known.kept.iter().position(|(id, _)| *id == point).and_then(|place| known.kept.remove(place));
        let log = kept.map_or_else(|| Arc::new(Log::new(limit)), |(_, log)| log);
        known.kept.push_back((point, Arc::clone(&log)));
        known.give_up();
        drop(known);
        let all_noted = seen.iter().all(|tag| log.note(tag) != Verdict::Full);
        (all_noted && !log.is_full()).then_some(log)
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    /// Gives up logs that nobody holds, but for the last few.
    fn give_up(&mut self) {
        let is_closed = |log: &Arc<Log>| Arc::strong_count(log) == 1;
        let mut surplus = self.kept.iter().filter(|(_, log)| is_closed(log)).count().saturating_sub(MAX_CLOSED);
        let gone = &mut self.gone;
        self.kept.retain(|(id, log)| {
            let goes = surplus > 0 && is_closed(log);
            if goes {
                surplus -= 1;
                gone.push_back(*id);
            }
            !goes
        });
        let forgotten = self.gone.len().saturating_sub(MAX_GONE);
        self.gone.drain(..forgotten);
    }
}

fn mark(tag: &Tag) -> Mark {
    let mut mark = [0; 16];
    mark.copy_from_slice(&tag[..16]);
    mark
}

/// Points that may come back after their circuit closed: as many as are up at once, which may all close at once.
const MAX_CLOSED: usize = MAX_ESTABLISHED;

/// Points that may not come back. Nobody asks for one of so long ago: at 40 a day it is 100 days; a flood that ends a point
/// with every 16,000 introductions needs 67 million.
const MAX_GONE: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    fn id(n: usize) -> PointId {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&n.to_be_bytes());
        PointId(bytes)
    }

    #[test]
    fn an_introduction_is_new_once_and_what_a_predecessor_saw_is_not() {
        let logs = Logs::default();
        let (a, b) = (tag(b"a"), tag(b"b"));
        let log = logs.open(id(1), &[b], 10).unwrap();
        assert_eq!(log.note(&a), Verdict::New);
        assert_eq!(log.note(&a), Verdict::Replay);
        assert_eq!(log.note(&b), Verdict::Replay);
        assert_eq!(log.lock().len(), 2);
        // Another point is another matter.
        assert_eq!(logs.open(id(2), &[], 10).unwrap().note(&a), Verdict::New);
    }

    #[test]
    fn a_point_that_is_established_again_remembers() {
        let logs = Logs::default();
        let log = logs.open(id(1), &[], 10).unwrap();
        assert_eq!(log.note(&tag(b"a")), Verdict::New);
        drop(log);
        assert_eq!(logs.open(id(1), &[], 10).unwrap().note(&tag(b"a")), Verdict::Replay);
    }

    #[test]
    fn a_full_log_takes_nothing_more_and_ends_the_point() {
        let logs = Logs::default();
        let log = logs.open(id(1), &[], 2).unwrap();
        assert_eq!(log.note(&tag(b"a")), Verdict::New);
        assert!(!log.is_full());
        assert_eq!(log.note(&tag(b"b")), Verdict::New);
        assert!(log.is_full());
        assert_eq!(log.note(&tag(b"c")), Verdict::Full);
        assert_eq!(log.note(&tag(b"a")), Verdict::Replay);
        drop(log);
        assert!(logs.open(id(1), &[], 2).is_none());
        assert!(logs.open(id(2), &[tag(b"a"), tag(b"b")], 2).is_none());
    }

    #[test]
    fn memory_is_bounded_and_a_point_without_a_log_does_not_come_back() {
        let logs = Logs::default();
        let held = logs.open(id(0), &[], 10).unwrap();
        for n in 1..=MAX_CLOSED + 3 {
            logs.open(id(n), &[], 10).unwrap();
        }
        assert!(logs.lock().kept.len() <= MAX_CLOSED + 2, "{}", logs.lock().kept.len());
        assert!(logs.open(id(1), &[], 10).is_none(), "its log was given up");
        assert!(logs.open(id(MAX_CLOSED + 3), &[], 10).is_some());
        assert_eq!(held.note(&tag(b"a")), Verdict::New);
        assert_eq!(logs.open(id(0), &[], 10).unwrap().note(&tag(b"a")), Verdict::Replay);
        for n in 0..MAX_GONE + 100 {
            logs.open(id(n + 1000), &[], 10).unwrap();
        }
        assert_eq!(logs.lock().gone.len(), MAX_GONE);
    }
}
