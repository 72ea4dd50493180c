//! The file that is offered: read once for the offer, and again, piece by piece, when it is sent.
//!
//! No piece leaves whole that is not the offered one, whoever writes to the file meanwhile.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use bytes::Bytes;

use super::blocking::{Waiting, blocking};
use super::pieces::{self, Layout, PieceHasher, PieceList};
use super::{BATCH, CHUNK, platform};

/// Why a file cannot be offered or sent.
#[derive(Debug, thiserror::Error)]
pub(in crate::messenger) enum SourceError {
    #[error("this is not a regular file")]
    NotAFile,
    #[error("the file has {size} bytes, which is too many")]
    TooLarge { size: u64 },
    /// It is gone or not what it was; for good, as far as can be told.
    #[error("the file is gone, or was changed")]
    Changed,
    #[error("the file cannot be read: {0}")]
    Io(#[from] io::Error),
}

/// Reads a file for an offer.
///
/// # Errors
/// [`SourceError`]; `Changed` when somebody writes to it meanwhile.
///
/// # Cancel safety
/// Cancel-safe; the reading ends soon.
pub(in crate::messenger) async fn measure(path: PathBuf) -> Result<PieceList, SourceError> {
    blocking(move |waiting| measure_now(&path, waiting)).await?
}

fn measure_now(path: &Path, waiting: &Waiting) -> Result<PieceList, SourceError> {
    let mut file = open_regular(path)?;
    let before = file.metadata()?;
    let size = before.len();
    let layout = Layout::new(size).ok_or(SourceError::TooLarge { size })?;
    let list = pieces::measure(layout, &mut file, waiting).map_err(shorter)?;
    let after = file.metadata()?;
    if (after.len(), after.modified().ok()) == (size, before.modified().ok()) {
        Ok(list)
    } else {
        Err(SourceError::Changed)
    }
}

/// An offered file, open to be sent.
#[derive(Debug)]
pub(super) struct Source {
    file: File,
    list: PieceList,
    piece: u32,
    hasher: PieceHasher,
}

impl Source {
    /// Opens a file to send it from a piece on, of which there must be so many.
    ///
    /// # Errors
    /// [`SourceError`].
    ///
    /// # Cancel safety
    /// Cancel-safe.
    pub(super) async fn open(path: PathBuf, list: PieceList, first: u32) -> Result<Self, SourceError> {
        blocking(move |_| {
            let mut file = open_regular(&path).map_err(gone)?;
            let layout = list.layout();
            if file.metadata()?.len() != layout.size() {
                return Err(SourceError::Changed);
            }
            file.seek(SeekFrom::Start(layout.start(first)))?;
            Ok(Self { file, piece: first, hasher: PieceHasher::new(layout, first), list })
        })
        .await?
    }

    /// Reads the next chunks, all of one piece; none when all were read. What ends a piece is only given out when the
    /// whole of it was found right.
    ///
    /// # Errors
    /// [`SourceError`].
    ///
    /// # Cancel safety
    /// Dropping the future closes the source.
    pub(super) async fn next(mut self) -> Result<(Self, Vec<Bytes>), SourceError> {
        blocking(move |_| {
            let chunks = self.read_batch()?;
            Ok((self, chunks))
        })
        .await?
    }

    fn read_batch(&mut self) -> Result<Vec<Bytes>, SourceError> {
        let layout = self.list.layout();
        if self.piece == layout.count() {
            return Ok(Vec::new());
        }
        let mut batch = vec![0; self.hasher.rest().min(BATCH) as usize];
        self.file.read_exact(&mut batch).map_err(shorter)?;
        // Never more than the rest.
        let _ = self.hasher.update(&batch);
        if let Some(hash) = self.hasher.finish() {
            if !self.list.has(self.piece, &hash) {
                return Err(SourceError::Changed);
            }
            self.piece += 1;
            self.hasher = PieceHasher::new(layout, self.piece);
        }
        let mut rest = Bytes::from(batch);
        let mut chunks = Vec::with_capacity((BATCH / CHUNK) as usize);
        while !rest.is_empty() {
            chunks.push(rest.split_to(rest.len().min(CHUNK as usize)));
        }
        Ok(chunks)
    }
}

fn open_regular(path: &Path) -> Result<File, SourceError> {
    let file = platform::open_to_read(path)?;
    if file.metadata()?.is_file() { Ok(file) } else { Err(SourceError::NotAFile) }
}

/// A file that ends early has been cut.
fn shorter(error: io::Error) -> SourceError {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => SourceError::Changed,
        _ => SourceError::Io(error),
    }
}

/// What was a file and is none any more.
fn gone(error: SourceError) -> SourceError {
    match error {
        SourceError::NotAFile => SourceError::Changed,
        SourceError::Io(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            SourceError::Changed
        }
        error => error,
    }
}
