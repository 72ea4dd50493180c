//! How a file is cut into pieces, and the list by which each can be verified before the others are there.
//!
//! A piece is a subtree of BLAKE3's tree: a power of two of bytes, the last one perhaps shorter. The list holds the
//! subtrees' chaining values, which merge to the file's BLAKE3 hash, its root (section 2.1 of the BLAKE3 paper).

use std::io::{self, Read};

use blake3::Hasher;
use blake3::hazmat::{HasherExt, Mode, merge_subtrees_non_root, merge_subtrees_root};

use super::BATCH;
use super::blocking::Waiting;
use crate::messenger::MAX_FILE;

/// The shortest piece; of it at most this much is lost when a transfer breaks off.
pub(super) const MIN_PIECE: u64 = 256 * 1024;
/// The most pieces, which keeps the list within 32 KiB.
pub(super) const MAX_PIECES: u64 = 1024;
/// Bytes of a hash.
const HASH: usize = 32;

/// How a file of some size is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::messenger) struct Layout {
    size: u64,
    piece: u64,
}

impl Layout {
    /// The layout of a file of so many bytes; `None` beyond [`MAX_FILE`].
    pub(in crate::messenger) fn new(size: u64) -> Option<Self> {
        if size > MAX_FILE {
            return None;
        }
        Some(Self { size, piece: size.div_ceil(MAX_PIECES).next_power_of_two().max(MIN_PIECE) })
    }

    /// A layout with pieces of another length than files of that size have.
    #[cfg(test)]
    pub(super) fn with_pieces_of(size: u64, piece: u64) -> Self {
        Self { size, piece }
    }

    /// Bytes of the file.
    pub(in crate::messenger) fn size(self) -> u64 {
        self.size
    }

    /// How many pieces there are; an empty file is one empty piece.
    pub(super) fn count(self) -> u32 {
        // At most MAX_PIECES.
        self.size.div_ceil(self.piece).max(1) as u32
    }

    /// Where a piece begins; behind the last one, the end of the file.
    pub(super) fn start(self, piece: u32) -> u64 {
        (u64::from(piece) * self.piece).min(self.size)
    }

    /// Bytes of a piece.
    pub(super) fn len(self, piece: u32) -> u64 {
        self.start(piece + 1) - self.start(piece)
    }

    /// How many pieces lie wholly within so many bytes.
    pub(super) fn whole(self, bytes: u64) -> u32 {
        if bytes >= self.size { self.count() } else { (bytes / self.piece) as u32 }
    }
}

/// The hashes of a file's pieces, which were found to merge to its root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::messenger) struct PieceList {
    layout: Layout,
    root: [u8; HASH],
    hashes: Vec<[u8; HASH]>,
}

impl PieceList {
    /// Takes a list from outside; `None` unless it has the right length and merges to the root.
    pub(in crate::messenger) fn verify(layout: Layout, root: &[u8; HASH], bytes: &[u8]) -> Option<Self> {
        let (hashes, rest) = bytes.as_chunks::<HASH>();
        if !rest.is_empty() || hashes.len() != layout.count() as usize {
            return None;
        }
        (merged_root(hashes) == *root).then(|| Self { layout, root: *root, hashes: hashes.to_vec() })
    }

    pub(in crate::messenger) fn layout(&self) -> Layout {
        self.layout
    }

    pub(in crate::messenger) fn root(&self) -> [u8; HASH] {
        self.root
    }

    /// The hashes, one after the other.
    pub(in crate::messenger) fn to_bytes(&self) -> Vec<u8> {
        self.hashes.concat()
    }

    /// Whether a piece has this hash.
    pub(super) fn has(&self, piece: u32, hash: &[u8; HASH]) -> bool {
        self.hashes.get(piece as usize) == Some(hash)
    }

    /// How many pieces from the first are alike.
    pub(super) fn common(&self, other: &Self) -> u32 {
        self.hashes.iter().zip(&other.hashes).take_while(|(a, b)| a == b).count() as u32
    }
}

/// Hashes one piece as its bytes come.
#[derive(Clone, Debug)]
pub(super) struct PieceHasher {
    /// Two kilobytes that are not to be moved about.
    hasher: Box<Hasher>,
    kind: Kind,
    rest: u64,
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    WholeFile,
    Subtree,
    BehindTheLast,
}

impl PieceHasher {
    /// For a piece, or for what comes behind the last one, which takes nothing and has no hash.
    pub(super) fn new(layout: Layout, piece: u32) -> Self {
        let mut hasher = Box::new(Hasher::new());
        if piece >= layout.count() {
            return Self { hasher, kind: Kind::BehindTheLast, rest: 0 };
        }
        hasher.set_input_offset(layout.start(piece));
        let kind = if layout.count() == 1 { Kind::WholeFile } else { Kind::Subtree };
        Self { hasher, kind, rest: layout.len(piece) }
    }

    /// Takes the next bytes; `false`, and takes none, when the piece has not so many.
    #[must_use]
    pub(super) fn update(&mut self, bytes: &[u8]) -> bool {
        let Some(rest) = self.rest.checked_sub(bytes.len() as u64) else { return false };
        self.rest = rest;
        self.hasher.update(bytes);
        true
    }

    /// Bytes that the piece still lacks.
    pub(super) fn rest(&self) -> u64 {
        self.rest
    }

    /// The piece's hash, once it lacks nothing.
    pub(super) fn finish(&self) -> Option<[u8; HASH]> {
        match self.kind {
            Kind::WholeFile if self.rest == 0 => Some(*self.hasher.finalize().as_bytes()),
            // A file of several pieces has no empty one, whose hash there is not.
            Kind::Subtree if self.rest == 0 => Some(self.hasher.finalize_non_root()),
            Kind::WholeFile | Kind::Subtree | Kind::BehindTheLast => None,
        }
    }
}

/// Reads a file once, for its root and its list.
///
/// # Errors
/// `UnexpectedEof` when it is shorter than its layout, `Interrupted` when nobody waits; or the reader's.
pub(super) fn measure(layout: Layout, reader: &mut impl Read, waiting: &Waiting) -> io::Result<PieceList> {
    let mut buffer = vec![0; BATCH as usize];
    let mut hashes = Vec::with_capacity(layout.count() as usize);
    for piece in 0..layout.count() {
        let mut hasher = PieceHasher::new(layout, piece);
        while hasher.rest() > 0 {
            waiting.check()?;
            let part = &mut buffer[..hasher.rest().min(BATCH) as usize];
            reader.read_exact(part)?;
            // Never more than the rest.
            let _ = hasher.update(part);
        }
        hashes.extend(hasher.finish());
    }
    Ok(PieceList { layout, root: merged_root(&hashes), hashes })
}

/// The root of a tree whose subtrees all have the same power of two of bytes, but for the last.
fn merged_root(hashes: &[[u8; HASH]]) -> [u8; HASH] {
    match hashes {
        [] => [0; HASH],
        [root] => *root,
        _ => {
            let (left, right) = hashes.split_at(left_len(hashes.len()));
            *merge_subtrees_root(&merged(left), &merged(right), Mode::Hash).as_bytes()
        }
    }
}

fn merged(hashes: &[[u8; HASH]]) -> [u8; HASH] {
    match hashes {
        [] => [0; HASH],
        [subtree] => *subtree,
        _ => {
            let (left, right) = hashes.split_at(left_len(hashes.len()));
            merge_subtrees_non_root(&merged(left), &merged(right), Mode::Hash)
        }
    }
}

/// The left side of BLAKE3's tree takes the largest power of two that leaves something for the right.
fn left_len(len: usize) -> usize {
    len.next_power_of_two() / 2
}

#[cfg(test)]
mod tests;
