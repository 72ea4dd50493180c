//! Cutting and verifying, against BLAKE3 itself.

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::*;

fn bytes(seed: u64, size: usize) -> Vec<u8> {
    let mut bytes = vec![0; size];
    Hasher::new().update(&seed.to_be_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

fn list_of(bytes: &[u8]) -> PieceList {
    let layout = Layout::new(bytes.len() as u64).unwrap();
    measure(layout, &mut &bytes[..], &Waiting::default()).unwrap()
}

/// Cuts `bytes` into pieces of another length than a real file of that size would have.
fn cut(bytes: &[u8], piece: u64) -> PieceList {
    measure(Layout::with_pieces_of(bytes.len() as u64, piece), &mut &bytes[..], &Waiting::default()).unwrap()
}

#[test]
fn layouts_have_few_pieces_that_cover_the_file_exactly() {
    let mut sizes = vec![0, 1, MIN_PIECE - 1, MAX_FILE - 1, MAX_FILE];
    for shift in 18..=36 {
        sizes.extend([(1_u64 << shift) - 1, 1 << shift, (1 << shift) + 1].map(|size| size.min(MAX_FILE)));
    }
    let mut random = StdRng::seed_from_u64(1);
    sizes.extend((0..1000).map(|_| random.random_range(0..=MAX_FILE)));
    for size in sizes {
        let layout = Layout::new(size).unwrap();
        let count = layout.count();
        assert!((1..=MAX_PIECES as u32).contains(&count), "{size}");
        assert!(layout.piece.is_power_of_two() && layout.piece >= MIN_PIECE, "{size}");
        assert!(layout.piece == MIN_PIECE || size.div_ceil(layout.piece / 2) > MAX_PIECES, "{size}: could be shorter");
        assert_eq!((0..count).map(|piece| layout.len(piece)).sum::<u64>(), size);
        assert!((0..count - 1).all(|piece| layout.len(piece) == layout.piece), "{size}");
        assert_eq!((layout.start(count), layout.whole(size)), (size, count));
        for piece in [0, count / 2, count - 1] {
            assert_eq!(layout.whole(layout.start(piece)), if size == 0 { 1 } else { piece }, "{size}");
            assert!(layout.len(piece) <= 1 || layout.whole(layout.start(piece + 1) - 1) == piece, "{size}");
        }
    }
    assert_eq!(Layout::new(MAX_FILE + 1), None);
    assert_eq!(Layout::new(u64::MAX), None);
}

#[test]
fn the_root_is_the_blake3_hash_around_every_boundary() {
    let piece = MIN_PIECE as usize;
    let mut sizes = vec![0, 1, 1023, 1024, 1025];
    for pieces in [1, 2, 3, 4, 5, 7, 8, 9, 16, 17] {
        sizes.extend([-1025, -1024, -1, 0, 1, 1024].map(|more| (pieces * piece).saturating_add_signed(more)));
    }
    let bytes = bytes(2, 18 * piece);
    for size in sizes {
        let list = list_of(&bytes[..size]);
        assert_eq!(list.root(), *blake3::hash(&bytes[..size]).as_bytes(), "{size}");
        let layout = list.layout();
        assert_eq!(PieceList::verify(layout, &list.root(), &list.to_bytes()), Some(list), "{size}");
    }
}

#[test]
fn the_root_is_the_blake3_hash_for_any_number_of_pieces() {
    let seed = rand::random();
    println!("seed {seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let bytes = bytes(seed, 1 << 20);
    for pieces in 1..=1024_usize {
        let size = (pieces - 1) * 1024 + random.random_range(1..=1024);
        assert_eq!(cut(&bytes[..size], 1024).root(), *blake3::hash(&bytes[..size]).as_bytes(), "{size}");
    }
    for _ in 0..200 {
        let size = random.random_range(0..bytes.len());
        let piece = 1024 << random.random_range(0..8);
        assert_eq!(cut(&bytes[..size], piece).root(), *blake3::hash(&bytes[..size]).as_bytes(), "{size} {piece}");
    }
}

#[test]
fn pieces_hash_alike_however_their_bytes_come() {
    let seed = rand::random();
    println!("seed {seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let bytes = bytes(seed, 3 * MIN_PIECE as usize + 5000);
    let list = list_of(&bytes);
    let layout = list.layout();
    for piece in (0..layout.count()).rev() {
        let mut hasher = PieceHasher::new(layout, piece);
        let mut rest = &bytes[layout.start(piece) as usize..layout.start(piece + 1) as usize];
        while !rest.is_empty() {
            assert_eq!(hasher.finish(), None);
            let (some, others) = rest.split_at(random.random_range(1..=rest.len().min(70_000)));
            assert!(hasher.update(some));
            rest = others;
        }
        assert!(!hasher.update(&[0]), "takes more than the piece has");
        assert!(list.has(piece, &hasher.finish().unwrap()));
        assert!(!list.has(piece + 1, &hasher.finish().unwrap()));
    }
    let mut behind = PieceHasher::new(layout, layout.count());
    assert!(!behind.update(&[0]));
    assert_eq!(behind.finish(), None);
}

#[test]
fn refuses_lists_that_were_tampered_with() {
    let seed = rand::random();
    println!("seed {seed}");
    let mut random = StdRng::seed_from_u64(seed);
    for size in [0, 100, MIN_PIECE as usize + 1, 5 * MIN_PIECE as usize] {
        let list = list_of(&bytes(seed, size));
        let (layout, root, good) = (list.layout(), list.root(), list.to_bytes());
        let verify = |bytes: &[u8]| PieceList::verify(layout, &root, bytes);
        assert_eq!(verify(&good), Some(list));
        for _ in 0..50 {
            let mut bad = good.clone();
            bad[random.random_range(0..good.len())] ^= 1 << random.random_range(0..8);
            assert_eq!(verify(&bad), None);
        }
        assert_eq!(verify(&[]), None);
        assert_eq!(verify(&good[1..]), None);
        assert_eq!(verify(&good[32..]), None);
        assert_eq!(verify(&[&good[..], &[0]].concat()), None);
        assert_eq!(verify(&[&good[..], &[0; 32]].concat()), None);
        assert_eq!(PieceList::verify(layout, &[0; 32], &good), None);
    }
    // The order matters.
    let list = list_of(&bytes(seed, 2 * MIN_PIECE as usize));
    let swapped = [list.hashes[1], list.hashes[0]].concat();
    assert_eq!(PieceList::verify(list.layout, &list.root, &swapped), None);
}

#[test]
fn a_file_shorter_than_its_layout_has_no_list() {
    let layout = Layout::new(1000).unwrap();
    let error = measure(layout, &mut &[0; 999][..], &Waiting::default()).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
}
