//! Numbered entries, and readers that notice what is lacking, comes twice or comes out of turn.

use std::collections::BTreeMap;
use std::sync::Arc;

use hcp_core::replica::{Event, Replica, Subscription, Turn};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinHandle;

#[cfg(feature = "postgres")]
use crate::harness::soon;

/// Who writes: a node, and which of its runs.
pub(crate) type Author = (u8, u32);

/// How far each author came: each numbers its entries from 1.
pub(crate) type Counts = BTreeMap<Author, u64>;

/// ` 0.3:17` is what the third run of the first node wrote up to its 17th entry.
pub(crate) fn text_of(counts: &Counts) -> String {
    counts.iter().map(|((node, run), count)| format!(" {node}.{run}:{count}")).collect()
}

/// What [`text_of`] made; nothing of anything else.
pub(crate) fn counts_of(text: &str) -> Counts {
    let read = |part: &str| {
        let (author, count) = part.split_once(':')?;
        let (node, run) = author.split_once('.')?;
        Some(((node.parse().ok()?, run.parse().ok()?), count.parse().ok()?))
    };
    text.split_whitespace().filter_map(read).collect()
}

/// Whether all of something was read.
pub(crate) fn reaches(counts: &Counts, all: &Counts) -> bool {
    all.iter().all(|(author, count)| counts.get(author).is_some_and(|held| held >= count))
}

/// Reads a log in a task of its own.
pub(crate) struct Reading {
    pub(crate) counts: watch::Receiver<Counts>,
    /// Ends with the subscription, and says why.
    pub(crate) task: JoinHandle<String>,
}

impl Reading {
    pub(crate) fn start(mut subscription: Subscription) -> Self {
        let (told, counts) = watch::channel(Counts::new());
        let task = tokio::spawn(async move {
            loop {
                let applied = match subscription.next().await {
                    Ok(Some(Event::Entry(applied))) if applied.turn == Turn::First => applied,
                    Ok(Some(_)) => continue,
                    Ok(None) => return "the log was shut down".to_owned(),
                    Err(error) => return error.to_string(),
                };
                let text = String::from_utf8_lossy(&applied.entry);
                let Some((author, number)) = counts_of(&text).pop_first() else { continue };
                let held = told.borrow().get(&author).copied().unwrap_or(0);
                if number != held + 1 {
                    return format!("{text} comes after {held}");
                }
                told.send_modify(|counts| {
                    counts.insert(author, number);
                });
            }
        });
        Self { counts, task }
    }

    /// Waits until all of something was read, which must come.
    #[cfg(feature = "postgres")]
    pub(crate) async fn until(&mut self, all: &Counts) {
        soon(self.read(all)).await;
    }

    /// Waits until all of something was read.
    pub(crate) async fn read(&mut self, all: &Counts) {
        let ended = tokio::select! {
            read = self.counts.wait_for(|counts| reaches(counts, all)) => read.is_err(),
            why = &mut self.task => panic!("{why:?}"),
        };
        assert!(!ended, "the reader ended at {:?} of {all:?}", self.counts.borrow());
    }
}

/// What an entry has come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Durable,
    Replicated,
}

/// Appends without end, so many at once that are not yet held by `others`, and tells what each has come to.
///
/// Each author's numbers are in their order in the log, so that whoever holds one holds those before it.
pub(crate) async fn write(
    replica: Replica,
    author: Author,
    at_once: usize,
    others: usize,
    tell: impl Fn(Step, u64) + Clone + Send + 'static,
) {
    let turns = Arc::new(Semaphore::new(at_once));
    for number in 1.. {
        let turn = Arc::clone(&turns).acquire_owned().await.unwrap();
        let receipt = replica.append(text_of(&Counts::from([(author, number)]))).await.unwrap();
        let tell = tell.clone();
        tokio::spawn(async move {
            // Where the replica is shut down nothing more is told, and nothing more written.
            if receipt.durable().await.is_ok() {
                tell(Step::Durable, number);
                if others > 0 && receipt.replicated(others).await.is_ok() {
                    tell(Step::Replicated, number);
                }
                drop(turn);
            }
        });
    }
}
