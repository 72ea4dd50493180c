//! A log's store in memory: for tests, under real or paused time. What it holds outlives the store, as a disk outlives a process.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;

use super::Store;
use crate::identity::OnionAddress;
use crate::replica::log::storage::{
    Batch, Branch, Checkpoint, Found, Hash, Opened, Outcome, Payloads, Position, Range, Read, Row,
};
use crate::replica::place::{LogId, NodeId};
use crate::store::StoreError;

/// What a node's log is kept in for as long as the process lives: for tests, under real or paused time. Cheap to clone; clones
/// are the same disk.
///
/// Keep one for each node and open the node's replica on it again and again, as if its process had died meanwhile.
#[derive(Clone, Default)]
pub struct MemoryDisk(Arc<Mutex<Disk>>);

#[derive(Default)]
struct Disk {
    owner: Option<(OnionAddress, NodeId)>,
    /// Counts openings; what an earlier one asks for is refused.
    opened: u64,
    /// The opening that nobody shut down or dropped.
    open: Option<u64>,
    full: bool,
    rows: BTreeMap<Position, Arc<Row>>,
    places: BTreeMap<(LogId, Branch, u64), BTreeSet<Position>>,
    checkpoint: Option<Checkpoint>,
    pieces: BTreeMap<(Hash, u32), Bytes>,
}

impl MemoryDisk {
    /// An empty disk.
    pub fn new() -> Self {
        Self::default()
    }

    /// Leaves no room on it, or makes room again.
    pub fn set_full(&self, full: bool) {
        self.lock().full = full;
    }

    /// A copy of what it holds now, as a backup is one.
    #[must_use]
    pub fn backup(&self) -> Self {
        let disk = self.lock();
        let copy = Disk {
            owner: disk.owner,
            rows: disk.rows.clone(),
            places: disk.places.clone(),
            checkpoint: disk.checkpoint.clone(),
            pieces: disk.pieces.clone(),
            ..Disk::default()
        };
        Self(Arc::new(Mutex::new(copy)))
    }

    fn lock(&self) -> MutexGuard<'_, Disk> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for MemoryDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryDisk").field("segments", &self.lock().rows.len()).finish_non_exhaustive()
    }
}

/// A log on a [`MemoryDisk`]. See [`Store`].
pub(crate) struct MemoryStore {
    disk: MemoryDisk,
    opening: u64,
    failure: Mutex<Option<Arc<StoreError>>>,
}

impl MemoryStore {
    pub(crate) fn open(disk: &MemoryDisk, service: &OnionAddress, node: &NodeId) -> Result<Self, StoreError> {
        let mut held = disk.lock();
        if held.open.is_some() {
            return Err(StoreError::InUse);
        }
        if *held.owner.get_or_insert((*service, *node)) != (*service, *node) {
            return Err(StoreError::Damaged("it belongs to another service or node"));
        }
        held.opened += 1;
        held.open = Some(held.opened);
        let root = held.checkpoint.as_ref().map(|checkpoint| checkpoint.root);
        held.pieces.retain(|(of, _), _| Some(*of) == root);
        Ok(Self { disk: disk.clone(), opening: held.opened, failure: Mutex::new(None) })
    }

    /// The disk, while this opening of it is the current one.
    fn held(&self) -> Result<MutexGuard<'_, Disk>, StoreError> {
        let disk = self.disk.lock();
        if disk.open == Some(self.opening) { Ok(disk) } else { Err(StoreError::Closed) }
    }

    fn let_go(&self) {
        if let Ok(mut disk) = self.held() {
            disk.open = None;
        }
    }

    fn fail(&self, why: Option<StoreError>) {
        *self.failure.lock().unwrap_or_else(PoisonError::into_inner) = why.map(Arc::new);
    }

    fn carry_out(&self, batch: &Batch) -> Outcome {
        let broken = matches!(self.failure().as_deref(), Some(why) if !matches!(why, StoreError::Full));
        let Some(mut disk) = self.held().ok().filter(|_| !broken) else { return Outcome::Broken };
        if disk.full && (!batch.rows.is_empty() || !batch.pieces.is_empty() || batch.checkpoint.is_some()) {
            self.fail(Some(StoreError::Full));
            return Outcome::Full;
        }
        let gone = |position| batch.forget_positions.contains(position);
        if batch.rows.iter().any(|row| disk.rows.contains_key(&row.position) && !gone(&row.position)) {
            self.fail(Some(StoreError::Damaged("a position that is taken")));
            return Outcome::Broken;
        }
        disk.apply(batch);
        self.fail(None);
        Outcome::Done
    }
}

impl Disk {
    fn apply(&mut self, batch: &Batch) {
        batch.forget_positions.iter().for_each(|position| self.forget(*position));
        for row in &batch.rows {
            self.places.entry((row.log, row.branch, row.seq)).or_default().insert(row.position);
            self.rows.insert(row.position, Arc::clone(row));
        }
        for piece in &batch.pieces {
            self.pieces.insert((piece.root, piece.index), piece.bytes.clone());
        }
        if let Some(checkpoint) = &batch.checkpoint {
            self.checkpoint = Some(checkpoint.clone());
        }
        self.pieces.retain(|(root, _), _| !batch.forget_states.contains(root));
        for up_to in &batch.forget_rows {
            let places = (up_to.log, Branch(0), 0)..=(up_to.log, Branch(u32::MAX), u64::MAX);
            let below = |((_, _, seq), _): &(&(LogId, Branch, u64), &BTreeSet<Position>)| *seq <= up_to.seq;
            let gone: Vec<Position> = self.places.range(places).filter(below).flat_map(|(_, at)| at.clone()).collect();
            gone.into_iter().for_each(|position| self.forget(position));
        }
    }

    fn forget(&mut self, position: Position) {
        let Some(row) = self.rows.remove(&position) else { return };
        let place = (row.log, row.branch, row.seq);
        if let Some(at) = self.places.get_mut(&place) {
            at.remove(&position);
            if at.is_empty() {
                self.places.remove(&place);
            }
        }
    }

    fn find(&self, what: &Read) -> Found {
        match what {
            Read::Hashes(places) => Found::Hashes(places.iter().map(|(log, seq)| self.hashes(*log, *seq)).collect()),
            Read::Rows { ranges, bytes, payloads } => Found::Rows(self.rows_in(ranges, *bytes, *payloads)),
            Read::Piece { root, index } => Found::Piece(self.pieces.get(&(*root, *index)).cloned()),
        }
    }

    fn hashes(&self, log: LogId, seq: u64) -> Vec<(Hash, Branch)> {
        let at = self.places.range((log, Branch(0), 0)..=(log, Branch(u32::MAX), u64::MAX));
        let at = at.filter(|((_, _, number), _)| *number == seq).flat_map(|(_, at)| at);
        let mut found: Vec<_> = at.map(|position| &self.rows[position]).map(|row| (row.branch, row.hash)).collect();
        found.sort_unstable();
        found.into_iter().map(|(branch, hash)| (hash, branch)).collect()
    }

    fn rows_in(&self, ranges: &[Range], bytes: usize, payloads: Payloads) -> Vec<Arc<Row>> {
        let places = |range: &Range| {
            self.places.range((range.log, range.branch, range.from)..=(range.log, range.branch, range.to))
        };
        let found = ranges.iter().filter(|range| range.from <= range.to).flat_map(places);
        let found: BTreeSet<Position> = found.flat_map(|(_, at)| at.iter().copied()).collect();
        page(found.iter().map(|position| &self.rows[position]), bytes, payloads)
    }
}

/// Rows until their bytes are enough.
fn page<'a>(rows: impl Iterator<Item = &'a Arc<Row>>, bytes: usize, payloads: Payloads) -> Vec<Arc<Row>> {
    let (mut used, mut page) = (0, Vec::new());
    for row in rows {
        if used >= bytes && !page.is_empty() {
            break;
        }
        let bare = payloads == Payloads::OfSystem && !row.system;
        let row = if bare { Arc::new(Row { payload: None, ..(**row).clone() }) } else { Arc::clone(row) };
        used += row.header.len() + row.payload.as_ref().map_or(0, Bytes::len);
        page.push(row);
    }
    page
}

impl Store for MemoryStore {
    fn write(&self, batch: Box<Batch>) -> BoxFuture<'_, Outcome> {
        async move { self.carry_out(&batch) }.boxed()
    }

    fn read(&self, what: Read) -> BoxFuture<'_, Found> {
        async move { self.held().map_or(Found::Failed, |disk| disk.find(&what)) }.boxed()
    }

    fn opened(&self) -> BoxFuture<'_, Result<Opened, StoreError>> {
        async move { Ok(Opened { checkpoint: self.held()?.checkpoint.clone() }) }.boxed()
    }

    fn scan(&self, after: Position, bytes: usize, payloads: Payloads) -> BoxFuture<'_, Result<Vec<Row>, StoreError>> {
        async move {
            let disk = self.held()?;
            let rows = disk.rows.range(Position(after.0 + 1)..).map(|(_, row)| row);
            Ok(page(rows, bytes, payloads).iter().map(|row| (**row).clone()).collect())
        }
        .boxed()
    }

    fn payload(&self, position: Position) -> BoxFuture<'_, Result<Option<Bytes>, StoreError>> {
        async move { Ok(self.held()?.rows.get(&position).and_then(|row| row.payload.clone())) }.boxed()
    }

    fn failure(&self) -> Option<Arc<StoreError>> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn shutdown(&self) -> BoxFuture<'_, ()> {
        async move { self.let_go() }.boxed()
    }
}

impl Drop for MemoryStore {
    fn drop(&mut self) {
        self.let_go();
    }
}

impl fmt::Debug for MemoryStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryStore").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replica::log::store::contract::{self, Fixture};

    impl Fixture for MemoryDisk {
        fn open(&self, node: NodeId) -> BoxFuture<'_, Result<Arc<dyn Store>, StoreError>> {
            async move {
                let service = crate::identity::Identity::from_seed(&[7; 32]).address();
                Ok(Arc::new(MemoryStore::open(self, &service, &node)?) as Arc<dyn Store>)
            }
            .boxed()
        }
    }

    macro_rules! each {
        ($($name:ident),+ $(,)?) => {
            $(
                #[tokio::test]
                async fn $name() {
                    contract::$name(&MemoryDisk::new()).await;
                }
            )+
        };
    }
    contract::all!(each);
}
