//! The file that is received: written in order to `<destination>.part`, moved to its destination when it is whole.
//!
//! What is held is what is verified and synced. Nothing is written past the declared size, over anything that exists, or
//! into what the disk keeps in reserve. One sink at a time has a partial file: it is locked.

mod place;

use std::fmt;
use std::fs::File;
use std::io::{self, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;

use self::place::Place;
use super::blocking::{Waiting, blocking};
use super::pieces::{self, Layout, PieceHasher, PieceList};
use super::{BATCH, platform};
use crate::messenger::{DISK_RESERVE, fault};

/// Bytes of whole pieces after which they are synced: a sync takes about as long as writing this.
const SYNC_EVERY: u64 = 4 * 1024 * 1024;
/// Bytes after which the free space is looked at again; far less than the reserve.
const SPACE_EVERY: u64 = 4 * 1024 * 1024;

/// Why a file cannot be written.
#[derive(Debug, thiserror::Error)]
pub(in crate::messenger) enum SinkError {
    #[error("something of this name exists already")]
    Exists,
    #[error("the partial file is not a regular file")]
    NotAFile,
    #[error("the partial file is being written already")]
    Busy,
    #[error("the disk has too little space: {needed} bytes are needed, {available} are free")]
    NoSpace { needed: u64, available: u64 },
    /// A piece that is not in the list; nothing of it is kept.
    #[error("a piece is not that of the list")]
    Mismatch,
    /// Somebody else changed the partial file; so many bytes of it are left.
    #[error("the partial file was changed by somebody else")]
    Damaged { held: u64 },
    #[error("the file cannot be written: {0}")]
    Io(#[from] io::Error),
}

/// Says how many bytes are free where a folder lies.
#[derive(Clone)]
pub(in crate::messenger) struct Space(Arc<FreeSpace>);

type FreeSpace = dyn Fn(&Path) -> io::Result<u64> + Send + Sync;

impl Space {
    /// What the operating system says.
    pub(in crate::messenger) fn of_disk() -> Self {
        Self(Arc::new(platform::free_space))
    }

    /// What a test says.
    #[cfg(test)]
    pub(super) fn pretended(free: impl Fn() -> u64 + Send + Sync + 'static) -> Self {
        Self(Arc::new(move |_| Ok(free())))
    }

    /// # Errors
    /// [`SinkError::NoSpace`] when so many bytes more would not leave the reserve.
    fn check(&self, folder: &Path, bytes: u64) -> Result<(), SinkError> {
        let (needed, available) = (bytes.saturating_add(DISK_RESERVE), (self.0)(folder)?);
        if available < needed { Err(SinkError::NoSpace { needed, available }) } else { Ok(()) }
    }
}

impl fmt::Debug for Space {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Space")
    }
}

/// Makes sure that a file can be saved at a path, and takes the partial file's name, so that a file of that name which
/// belongs to somebody else is never touched later.
///
/// # Errors
/// [`SinkError`].
///
/// # Cancel safety
/// Dropping the future may leave an empty partial file, which [`prepare`] takes again and [`discard`] deletes.
pub(in crate::messenger) async fn prepare(destination: PathBuf, layout: Layout, space: Space) -> Result<(), SinkError> {
    blocking(move |_| {
        let place = Place::new(destination)?;
        if place.destination()?.is_some() {
            return Err(SinkError::Exists);
        }
        space.check(&place.folder, layout.size())?;
        place.take_name()
    })
    .await?
}

/// Deletes what there is of a file that will not be completed.
///
/// # Errors
/// The file system's.
pub(in crate::messenger) fn discard(destination: &Path) -> io::Result<()> {
    Place::new(destination.to_owned())?.remove_part()
}

/// What [`Sink::open`] finds.
#[derive(Debug)]
pub(in crate::messenger) enum Opened {
    /// The file is complete and in its place.
    Done,
    /// Pieces are missing.
    Ready(Sink),
}

/// A partial file, open and locked.
#[derive(Debug)]
pub(in crate::messenger) struct Sink {
    place: Place,
    file: File,
    layout: Layout,
    root: [u8; 32],
    /// The piece that is being written.
    piece: u32,
    hasher: PieceHasher,
    /// Bytes that are verified and synced, all of whole pieces.
    held: u64,
    /// The destination is an empty file that a move which did not end has left.
    reserved: bool,
    space: Space,
    /// Bytes written since the free space was looked at.
    since_space: u64,
}

impl Sink {
    /// Opens the partial file of a destination, of which so many bytes were held when it was used last.
    ///
    /// Whether they still are shows in [`Self::held`], which is 0 when the partial file is gone or too short. When nothing
    /// is missing any more, the file is completed at once: so also if the process was killed before its last step, or after
    /// it and before that could be noted.
    ///
    /// # Errors
    /// [`SinkError`].
    ///
    /// # Cancel safety
    /// Cancel-safe: what it began ends by itself, and the partial file can be opened again then.
    pub(in crate::messenger) async fn open(
        destination: PathBuf,
        layout: Layout,
        root: [u8; 32],
        held: u64,
        space: Space,
    ) -> Result<Opened, SinkError> {
        blocking(move |waiting| {
            let place = Place::new(destination)?;
            let Some((file, reserved)) = place.open_part(layout, &root, waiting)? else { return Ok(Opened::Done) };
            let start = layout.start(layout.whole(held));
            let held = if file.metadata()?.len() >= start { start } else { 0 };
            if reserved && held < layout.size() {
                return Err(SinkError::Exists);
            }
            let hasher = PieceHasher::new(layout, 0);
            let mut sink = Self { place, file, layout, root, piece: 0, hasher, held, reserved, space, since_space: 0 };
            if held == layout.size() {
                match sink.complete(None, waiting) {
                    Ok(()) => return Ok(Opened::Done),
                    // Then whose the empty file at the destination is cannot be told.
                    Err(SinkError::Damaged { .. }) if sink.reserved => return Err(SinkError::Exists),
                    Err(SinkError::Damaged { .. }) => {}
                    Err(error) => return Err(error),
                }
            } else {
                sink.go_back(layout.whole(held))?;
            }
            sink.space.check(&sink.place.folder, layout.size() - sink.held)?;
            Ok(Opened::Ready(sink))
        })
        .await?
    }

    pub(super) fn layout(&self) -> Layout {
        self.layout
    }

    pub(super) fn root(&self) -> &[u8; 32] {
        &self.root
    }

    /// Bytes that are verified and synced.
    pub(in crate::messenger) fn held(&self) -> u64 {
        self.held
    }

    /// Whether all pieces are held.
    pub(super) fn is_full(&self) -> bool {
        self.piece == self.layout.count() && self.held == self.layout.size()
    }

    /// Bytes that the piece which is being written lacks.
    pub(super) fn rest_of_piece(&self) -> u64 {
        self.hasher.rest()
    }

    /// Writes the next bytes, not beyond the end of the piece; a piece that is whole is verified, and now and then synced.
    ///
    /// # Errors
    /// [`SinkError`]; the sink is of no further use then.
    pub(super) fn write(&mut self, list: &PieceList, chunks: &[Bytes]) -> Result<(), SinkError> {
        for chunk in chunks {
            if !self.hasher.update(chunk) {
                return Err(SinkError::Mismatch);
            }
            self.since_space += chunk.len() as u64;
            if self.since_space >= SPACE_EVERY {
                self.since_space = 0;
                self.space.check(&self.place.folder, chunk.len() as u64)?;
            }
            self.file.write_all(chunk)?;
        }
        let Some(hash) = self.hasher.finish() else { return Ok(()) };
        if !list.has(self.piece, &hash) {
            self.file.set_len(self.layout.start(self.piece))?;
            return Err(SinkError::Mismatch);
        }
        self.piece += 1;
        self.hasher = PieceHasher::new(self.layout, self.piece);
        fault::point("piece written, not synced");
        let last = self.piece == self.layout.count();
        if last || self.layout.start(self.piece) - self.held >= SYNC_EVERY { self.sync() } else { Ok(()) }
    }

    /// Makes the pieces that were written survive a power cut.
    ///
    /// # Errors
    /// [`SinkError::Io`]; the sink is of no further use then.
    pub(super) fn sync(&mut self) -> Result<(), SinkError> {
        let end = self.layout.start(self.piece);
        if end > self.held {
            self.file.sync_data()?;
            self.held = end;
            fault::point("piece synced, not committed");
        }
        Ok(())
    }

    /// Moves the file, of which all pieces are held, to its destination.
    ///
    /// The whole is read and verified once more: pieces may have been held for weeks, and anybody could write to them.
    ///
    /// # Errors
    /// [`SinkError`]; after `Damaged` the sink goes on behind what is left, which without a list is nothing.
    pub(super) fn complete(&mut self, list: Option<&PieceList>, waiting: &Waiting) -> Result<(), SinkError> {
        self.verify(list, waiting)?;
        // Not a byte more than was offered, and with that whatever the file system knows of the file.
        self.file.set_len(self.layout.size())?;
        self.file.sync_all()?;
        fault::point("file complete, not moved");
        waiting.check()?;
        if !self.place.is_part(&self.file)? {
            self.go_back(0)?;
            return Err(SinkError::Damaged { held: 0 });
        }
        self.place.publish(self.reserved)?;
        fault::point("file moved, not committed");
        Ok(())
    }

    fn verify(&mut self, list: Option<&PieceList>, waiting: &Waiting) -> Result<(), SinkError> {
        self.file.seek(SeekFrom::Start(0))?;
        let good = match pieces::measure(self.layout, &mut self.file, waiting) {
            Ok(found) if found.root() == self.root => return Ok(()),
            Ok(found) => list.map_or(0, |list| list.common(&found)),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => 0,
            Err(error) => return Err(error.into()),
        };
        self.go_back(good)?;
        Err(SinkError::Damaged { held: self.held })
    }

    /// Forgets what is behind a piece's start.
    fn go_back(&mut self, piece: u32) -> Result<(), SinkError> {
        let start = self.layout.start(piece);
        self.file.set_len(start)?;
        self.file.seek(SeekFrom::Start(start))?;
        self.piece = piece;
        self.hasher = PieceHasher::new(self.layout, piece);
        self.held = start;
        Ok(())
    }
}

/// Whether a file is the one that is wanted.
fn is_wanted(file: &mut File, layout: Layout, root: &[u8; 32], waiting: &Waiting) -> io::Result<bool> {
    if file.metadata()?.len() != layout.size() {
        return Ok(false);
    }
    match pieces::measure(layout, file, waiting) {
        Ok(list) => Ok(list.root() == *root),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}

// What is written in one go is looked at in time.
const _: () = assert!(SPACE_EVERY + BATCH < DISK_RESERVE);
