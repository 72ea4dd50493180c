//! What a node of openraft keeps: its log in `raft-log`, and how many entries it has applied.

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::io::{self, Cursor, Read, Write};
use std::ops::{Bound, RangeBounds};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use openraft::impls::EmptyNode;
use openraft::storage::{LogFlushed, RaftLogStorage, RaftStateMachine, Snapshot};
use openraft::{
    AnyError, CommittedLeaderId, Entry, EntryPayload, LogId, LogState, Membership, RaftLogReader, RaftSnapshotBuilder,
    SnapshotMeta, StorageError, StorageIOError, StoredMembership, Vote,
};
use raft_log::api::raft_log_writer::RaftLogWriter as _;
use raft_log::codeq::{Decode, Encode};
use raft_log::{Config, RaftLog};
use tokio::sync::oneshot;

use super::{Batch, Types};

type Stored<T> = Result<T, StorageError<u64>>;

/// A node's log.
#[derive(Clone)]
pub(super) struct LogStore(Arc<Mutex<RaftLog<Kinds>>>);

impl LogStore {
    pub(super) fn open(folder: &Path) -> io::Result<Self> {
        let mut config = Config::new(folder.display());
        // Openraft waits for what it appended before it appends more: to wait for that would only take time.
        config.wal.flush_batch_wait = Some(Duration::ZERO);
        let log = RaftLog::open(Arc::new(config))?;
        Ok(Self(Arc::new(Mutex::new(log))))
    }

    fn log(&self) -> MutexGuard<'_, RaftLog<Kinds>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does something and waits until it is synced.
    async fn synced(&self, what: impl FnOnce(&mut RaftLog<Kinds>) -> io::Result<()> + Send) -> io::Result<()> {
        let (tell, told) = oneshot::channel();
        {
            let mut log = self.log();
            what(&mut log)?;
            log.flush(true, Some(Synced::Told(tell)))?;
        }
        told.await.map_err(io::Error::other)?
    }
}

impl RaftLogReader<Types> for LogStore {
    async fn try_get_log_entries<R: RangeBounds<u64> + Clone + Debug + Send>(
        &mut self,
        range: R,
    ) -> Stored<Vec<Entry<Types>>> {
        let from = match range.start_bound() {
            Bound::Included(from) => *from,
            Bound::Excluded(before) => before + 1,
            Bound::Unbounded => 0,
        };
        let end = match range.end_bound() {
            Bound::Included(last) => last + 1,
            Bound::Excluded(end) => *end,
            Bound::Unbounded => u64::MAX,
        };
        if from >= end {
            return Ok(Vec::new());
        }
        let log = self.log();
        let entries = log.read(from, end).map(|read| {
            let (place, payload) = read?;
            Ok(Entry { log_id: place.into(), payload: payload.0 })
        });
        entries.collect::<io::Result<_>>().map_err(|error| StorageIOError::read_logs(&error).into())
    }
}

impl RaftLogStorage<Types> for LogStore {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> Stored<LogState<Types>> {
        let log = self.log();
        let state = log.log_state();
        let (last, purged) = (state.last().cloned(), state.purged().cloned());
        Ok(LogState { last_purged_log_id: purged.map(Into::into), last_log_id: last.map(Into::into) })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote<u64>) -> Stored<()> {
        let vote = Voted { term: vote.leader_id.term, node: vote.leader_id.node_id, committed: vote.committed };
        let saved = self.synced(|log| log.save_vote(vote).map(drop)).await;
        saved.map_err(|error| StorageIOError::write_vote(&error).into())
    }

    async fn read_vote(&mut self) -> Stored<Option<Vote<u64>>> {
        let vote = self.log().log_state().vote().cloned();
        Ok(vote.map(|vote| {
            if vote.committed { Vote::new_committed(vote.term, vote.node) } else { Vote::new(vote.term, vote.node) }
        }))
    }

    async fn append<I>(&mut self, entries: I, callback: LogFlushed<Types>) -> Stored<()>
    where
        I: IntoIterator<Item = Entry<Types>> + Send,
        I::IntoIter: Send,
    {
        let mut log = self.log();
        let entries = entries.into_iter().map(|entry| (entry.log_id.into(), Payload(entry.payload)));
        let appended = log.append(entries).and_then(|_| log.flush(true, Some(Synced::Raft(callback))));
        appended.map_err(|error| StorageIOError::write_logs(&error).into())
    }

    async fn truncate(&mut self, log_id: LogId<u64>) -> Stored<()> {
        let truncated = self.synced(|log| log.truncate(log_id.index).map(drop)).await;
        truncated.map_err(|error| StorageIOError::write_logs(&error).into())
    }

    async fn purge(&mut self, log_id: LogId<u64>) -> Stored<()> {
        let purged = self.synced(|log| log.purge(log_id.into()).map(drop)).await;
        purged.map_err(|error| StorageIOError::write_logs(&error).into())
    }
}

/// An application that counts.
#[derive(Clone, Debug, Default)]
pub(super) struct Counter {
    entries: u64,
    last: Option<LogId<u64>>,
    members: StoredMembership<u64, EmptyNode>,
}

impl RaftStateMachine<Types> for Counter {
    type SnapshotBuilder = Self;

    async fn applied_state(&mut self) -> Stored<(Option<LogId<u64>>, StoredMembership<u64, EmptyNode>)> {
        Ok((self.last, self.members.clone()))
    }

    async fn apply<I>(&mut self, entries: I) -> Stored<Vec<()>>
    where
        I: IntoIterator<Item = Entry<Types>> + Send,
        I::IntoIter: Send,
    {
        let mut answers = Vec::new();
        for entry in entries {
            self.last = Some(entry.log_id);
            match entry.payload {
                EntryPayload::Blank => {}
                EntryPayload::Normal(Batch(batch)) => self.entries += batch.len() as u64,
                EntryPayload::Membership(members) => {
                    self.members = StoredMembership::new(Some(entry.log_id), members);
                }
            }
            answers.push(());
        }
        Ok(answers)
    }

    async fn get_snapshot_builder(&mut self) -> Self {
        self.clone()
    }

    async fn begin_receiving_snapshot(&mut self) -> Stored<Box<Cursor<Vec<u8>>>> {
        Ok(Box::default())
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMeta<u64, EmptyNode>,
        snapshot: Box<Cursor<Vec<u8>>>,
    ) -> Stored<()> {
        let bytes = snapshot.into_inner().try_into();
        let wrong = |_| StorageIOError::read_snapshot(Some(meta.signature()), AnyError::error("no such snapshot"));
        self.entries = u64::from_be_bytes(bytes.map_err(wrong)?);
        (self.last, self.members) = (meta.last_log_id, meta.last_membership.clone());
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> Stored<Option<Snapshot<Types>>> {
        self.build_snapshot().await.map(Some)
    }
}

impl RaftSnapshotBuilder<Types> for Counter {
    async fn build_snapshot(&mut self) -> Stored<Snapshot<Types>> {
        let meta = SnapshotMeta {
            last_log_id: self.last,
            last_membership: self.members.clone(),
            snapshot_id: self.entries.to_string(),
        };
        Ok(Snapshot { meta, snapshot: Box::new(Cursor::new(self.entries.to_be_bytes().to_vec())) })
    }
}

/// Who hears that something is synced.
enum Synced {
    Raft(LogFlushed<Types>),
    Told(oneshot::Sender<io::Result<()>>),
}

impl raft_log::Callback for Synced {
    fn send(self, result: io::Result<()>) {
        match self {
            Self::Raft(callback) => callback.log_io_completed(result),
            // Nobody waits any more: fine.
            Self::Told(told) => drop(told.send(result)),
        }
    }
}

/// What `raft-log` keeps, in its terms.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Kinds;

impl raft_log::Types for Kinds {
    type LogId = Place;
    type LogPayload = Payload;
    type Vote = Voted;
    type Callback = Synced;
    type UserData = String;

    fn log_index(place: &Place) -> u64 {
        place.index
    }

    fn payload_size(payload: &Payload) -> u64 {
        match &payload.0 {
            EntryPayload::Normal(Batch(batch)) => batch.iter().map(Bytes::len).sum::<usize>() as u64,
            _ => 0,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    term: u64,
    node: u64,
    index: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd)]
struct Voted {
    term: u64,
    node: u64,
    committed: bool,
}

#[derive(Clone, Debug)]
struct Payload(EntryPayload<Types>);

impl From<LogId<u64>> for Place {
    fn from(id: LogId<u64>) -> Self {
        Self { term: id.leader_id.term, node: id.leader_id.node_id, index: id.index }
    }
}

impl From<Place> for LogId<u64> {
    fn from(place: Place) -> Self {
        Self::new(CommittedLeaderId::new(place.term, place.node), place.index)
    }
}

impl Encode for Place {
    fn encode<W: Write>(&self, mut to: W) -> io::Result<usize> {
        [self.term, self.node, self.index].iter().try_for_each(|number| to.write_all(&number.to_be_bytes()))?;
        Ok(24)
    }
}

impl Decode for Place {
    fn decode<R: Read>(mut from: R) -> io::Result<Self> {
        Ok(Self { term: number(&mut from)?, node: number(&mut from)?, index: number(&mut from)? })
    }
}

impl Encode for Voted {
    fn encode<W: Write>(&self, mut to: W) -> io::Result<usize> {
        let numbers = [self.term, self.node, u64::from(self.committed)];
        numbers.iter().try_for_each(|number| to.write_all(&number.to_be_bytes()))?;
        Ok(24)
    }
}

impl Decode for Voted {
    fn decode<R: Read>(mut from: R) -> io::Result<Self> {
        Ok(Self { term: number(&mut from)?, node: number(&mut from)?, committed: number(&mut from)? != 0 })
    }
}

/// What kind it is, then: how many entries, each with its length; or how many groups of members, each with how many there are.
impl Encode for Payload {
    fn encode<W: Write>(&self, mut to: W) -> io::Result<usize> {
        let mut length = 0;
        let mut put = |bytes: &[u8]| {
            length += bytes.len();
            to.write_all(bytes)
        };
        match &self.0 {
            EntryPayload::Blank => put(&BLANK.to_be_bytes())?,
            EntryPayload::Normal(Batch(batch)) => {
                put(&BATCH.to_be_bytes())?;
                put(&(batch.len() as u64).to_be_bytes())?;
                for entry in batch {
                    put(&(entry.len() as u64).to_be_bytes())?;
                    put(entry)?;
                }
            }
            EntryPayload::Membership(members) => {
                let groups = members.get_joint_config();
                put(&MEMBERS.to_be_bytes())?;
                put(&(groups.len() as u64).to_be_bytes())?;
                for group in groups {
                    put(&(group.len() as u64).to_be_bytes())?;
                    group.iter().try_for_each(|member| put(&member.to_be_bytes()))?;
                }
            }
        }
        Ok(length)
    }
}

impl Decode for Payload {
    fn decode<R: Read>(mut from: R) -> io::Result<Self> {
        let payload = match number(&mut from)? {
            BLANK => EntryPayload::Blank,
            BATCH => {
                let count = number(&mut from)?;
                let batch = (0..count).map(|_| bytes(&mut from).map(Bytes::from)).collect::<io::Result<_>>()?;
                EntryPayload::Normal(Batch(batch))
            }
            MEMBERS => {
                let mut groups = Vec::new();
                for _ in 0..number(&mut from)? {
                    let mut group = BTreeSet::new();
                    for _ in 0..number(&mut from)? {
                        group.insert(number(&mut from)?);
                    }
                    groups.push(group);
                }
                EntryPayload::Membership(Membership::new(groups, ()))
            }
            _ => return Err(io::Error::other("no such payload")),
        };
        Ok(Self(payload))
    }
}

const BLANK: u64 = 0;
const BATCH: u64 = 1;
const MEMBERS: u64 = 2;

fn number(from: &mut impl Read) -> io::Result<u64> {
    let mut bytes = [0; 8];
    from.read_exact(&mut bytes)?;
    Ok(u64::from_be_bytes(bytes))
}

fn bytes(from: &mut impl Read) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; usize::try_from(number(from)?).map_err(io::Error::other)?];
    from.read_exact(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_is_read_as_it_was() {
        let members = Membership::new(vec![BTreeSet::from([0, 1]), BTreeSet::from([1, 2])], ());
        let batch = Batch(vec![Bytes::from_static(b"one"), Bytes::new()]);
        for payload in [EntryPayload::Blank, EntryPayload::Normal(batch), EntryPayload::Membership(members)] {
            let (mut kept, payload) = (Vec::new(), Payload(payload));
            assert_eq!(payload.encode(&mut kept).ok(), Some(kept.len()));
            assert_eq!(Payload::decode(&kept[..]).map(|read| format!("{read:?}")).ok(), Some(format!("{payload:?}")));
        }
    }
}
