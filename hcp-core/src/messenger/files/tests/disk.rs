//! What else stands on the disk, what is done to it meanwhile, and disks that are full.

use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;

use super::*;
use crate::messenger::DISK_RESERVE;

/// Leaves a partial file with so many pieces, as if the process had been killed behind a checkpoint.
fn hold(offered: &Offered, pieces: u32) {
    let held = offered.list.layout().start(pieces);
    fs::write(offered.part(), &offered.bytes[..held as usize]).unwrap();
    offered.held.store(held, Ordering::SeqCst);
}

async fn prepare_here(offered: &Offered, space: Space) -> Result<(), SinkError> {
    prepare(offered.destination(), offered.list.layout(), space).await
}

/// Everything in a folder that bears no relation to the transfer must stay as it is.
fn put_something(path: &Path, what: &str) {
    match what {
        "a file" => fs::write(path, "mine").unwrap(),
        "a folder" => fs::create_dir(path).unwrap(),
        "a dangling link" => symlink("nowhere", path).unwrap(),
        "a link to a file" => {
            let other = path.with_file_name("other");
            fs::write(&other, "mine").unwrap();
            symlink(other, path).unwrap();
        }
        _ => unreachable!(),
    }
}

fn assert_unharmed(path: &Path, what: &str) {
    let found = fs::symlink_metadata(path).unwrap();
    match what {
        "a folder" => assert!(found.is_dir()),
        "a dangling link" => assert_eq!(fs::read_link(path).unwrap(), Path::new("nowhere")),
        _ => assert_eq!(fs::read(path).unwrap(), b"mine"),
    }
    assert_eq!(found.is_symlink(), what.contains("link"));
}

const THINGS: [&str; 4] = ["a file", "a folder", "a dangling link", "a link to a file"];

#[tokio::test]
async fn nothing_at_the_destination_is_overwritten() {
    for what in THINGS {
        let offered = Offered::new(2 * pieces::MIN_PIECE).await;
        put_something(&offered.destination(), what);
        let error = prepare_here(&offered, Space::of_disk()).await.unwrap_err();
        assert!(matches!(error, SinkError::Exists), "{what}: {error}");
        for pieces in [0, 1, 2] {
            hold(&offered, pieces);
            let error = offered.open().await.unwrap_err();
            assert!(matches!(error, SinkError::Exists), "{what}: {error}");
        }
        assert_unharmed(&offered.destination(), what);
        assert!(offered.part().exists());
    }
}

#[tokio::test]
async fn an_empty_file_at_the_destination_is_only_replaced_by_a_whole_one() {
    let offered = Offered::new(2 * pieces::MIN_PIECE).await;
    fs::write(offered.destination(), "").unwrap();
    let refused = async |why: &str| {
        let error = offered.open().await.unwrap_err();
        assert!(matches!(error, SinkError::Exists), "{why}: {error}");
        assert_eq!(fs::read(offered.destination()).unwrap(), b"", "{why}");
    };
    refused("nothing is held").await;
    assert!(!offered.part().exists());
    hold(&offered, 1);
    refused("a piece is missing").await;
    hold(&offered, 2);
    let mut wrong = offered.bytes.clone();
    wrong[0] ^= 1;
    fs::write(offered.part(), wrong).unwrap();
    refused("a piece is wrong").await;
    hold(&offered, 2);
    assert!(matches!(offered.open().await.unwrap(), Opened::Done));
    offered.assert_complete();
}

#[tokio::test]
async fn what_appears_at_the_destination_meanwhile_is_not_overwritten() {
    for what in THINGS {
        let offered = Offered::new(2 * pieces::MIN_PIECE).await;
        let (pair, _ends) = Pair::serving(&offered).await;
        let Opened::Ready(sink) = offered.open().await.unwrap() else { panic!("nothing is there") };
        put_something(&offered.destination(), what);
        let end = offered.fetch_into(&pair.session, sink).await;
        assert!(matches!(end, FetchEnd::Disk(SinkError::Exists)), "{what}: {end}");
        assert_unharmed(&offered.destination(), what);
    }
    // Also an empty file is somebody's.
    let offered = Offered::new(2 * pieces::MIN_PIECE).await;
    let (pair, _ends) = Pair::serving(&offered).await;
    let Opened::Ready(sink) = offered.open().await.unwrap() else { panic!("nothing is there") };
    fs::write(offered.destination(), "").unwrap();
    let end = offered.fetch_into(&pair.session, sink).await;
    assert!(matches!(end, FetchEnd::Disk(SinkError::Exists)), "{end}");
}

#[tokio::test]
async fn a_partial_file_that_is_none_is_neither_followed_nor_touched() {
    for what in &THINGS[1..] {
        let offered = Offered::new(2 * pieces::MIN_PIECE).await;
        put_something(&offered.part(), what);
        let error = prepare_here(&offered, Space::of_disk()).await.unwrap_err();
        assert!(matches!(error, SinkError::Exists), "{what}: {error}");
        for held in [0, pieces::MIN_PIECE] {
            offered.held.store(held, Ordering::SeqCst);
            let error = offered.open().await.unwrap_err();
            assert!(matches!(error, SinkError::NotAFile), "{what}: {error}");
        }
        discard(&offered.destination()).unwrap();
        assert_unharmed(&offered.part(), what);
        // Also if it is put there at the last moment.
        assert!(platform::open_to_write(&offered.part()).is_err(), "{what}");
        assert!(platform::create_private(&offered.part()).is_err(), "{what}");
    }
    // A file that somebody else has begun there.
    let offered = Offered::new(1000).await;
    put_something(&offered.part(), "a file");
    let error = prepare_here(&offered, Space::of_disk()).await.unwrap_err();
    assert!(matches!(error, SinkError::Exists), "{error}");
    assert_unharmed(&offered.part(), "a file");
}

#[tokio::test]
async fn files_are_private_and_discarded_whole() {
    let offered = Offered::new(2 * pieces::MIN_PIECE).await;
    let mode = |path: PathBuf| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
    prepare_here(&offered, Space::of_disk()).await.unwrap();
    prepare_here(&offered, Space::of_disk()).await.expect("what a killed process has prepared");
    assert_eq!(mode(offered.part()), 0o600);
    discard(&offered.destination()).unwrap();
    assert!(!offered.part().exists());
    discard(&offered.destination()).expect("nothing to do");
    drop(offered.open().await.unwrap());
    assert_eq!(mode(offered.part()), 0o600);
    let (pair, _ends) = Pair::serving(&offered).await;
    assert!(matches!(offered.fetch(&pair.session).await, FetchEnd::Complete));
    assert_eq!(mode(offered.destination()), 0o600);
    discard(&offered.destination()).unwrap();
    offered.assert_complete();
    for path in ["/", "..", ""] {
        let error = prepare(path.into(), offered.list.layout(), Space::of_disk()).await.unwrap_err();
        assert!(matches!(error, SinkError::Io(_)), "{path}: {error}");
    }
}

#[tokio::test]
async fn a_partial_file_that_is_gone_or_too_short_begins_anew() {
    for left in [None, Some(0), Some(pieces::MIN_PIECE), Some(2 * pieces::MIN_PIECE - 1)] {
        let offered = Offered::new(3 * pieces::MIN_PIECE).await;
        offered.held.store(2 * pieces::MIN_PIECE, Ordering::SeqCst);
        if let Some(left) = left {
            fs::write(offered.part(), &offered.bytes[..left as usize]).unwrap();
        }
        let (pair, _ends) = Pair::serving(&offered).await;
        let Opened::Ready(sink) = offered.open().await.unwrap() else { panic!("it is not complete") };
        assert_eq!(sink.held(), 0);
        assert_eq!(fs::metadata(offered.part()).unwrap().len(), 0);
        let end = cut_after(3, offered.fetch_into(&pair.session, sink)).await;
        assert!(end.is_none());
        assert_eq!(offered.held.load(Ordering::SeqCst), 0, "the caller was not told");
        assert!(matches!(offered.fetch(&pair.session).await, FetchEnd::Complete));
        offered.assert_complete();
    }
}

#[tokio::test]
async fn what_is_behind_the_pieces_held_is_cut_off() {
    let offered = Offered::new(3 * pieces::MIN_PIECE).await;
    hold(&offered, 1);
    let longer = [fs::read(offered.part()).unwrap(), vec![0xaa; 4 * MIB as usize]].concat();
    fs::write(offered.part(), longer).unwrap();
    let Opened::Ready(sink) = offered.open().await.unwrap() else { panic!("it is not complete") };
    assert_eq!((sink.held(), fs::metadata(offered.part()).unwrap().len()), (pieces::MIN_PIECE, pieces::MIN_PIECE));
}

#[tokio::test]
async fn pieces_that_somebody_changed_are_fetched_again() {
    let offered = Offered::new(4 * pieces::MIN_PIECE - 5).await;
    let (pair, _ends) = Pair::serving(&offered).await;
    hold(&offered, 3);
    let mut part = fs::read(offered.part()).unwrap();
    part[pieces::MIN_PIECE as usize + 3] ^= 1;
    fs::write(offered.part(), part).unwrap();
    let end = offered.fetch(&pair.session).await;
    assert!(matches!(end, FetchEnd::Damaged), "{end}");
    offered.assert_nothing_but_a_part();
    assert_eq!(offered.held.load(Ordering::SeqCst), pieces::MIN_PIECE);
    assert!(matches!(offered.fetch(&pair.session).await, FetchEnd::Complete));
    offered.assert_complete();

    // Nothing seemed to be missing.
    let offered = Offered::new(2 * pieces::MIN_PIECE).await;
    let (pair, _ends) = Pair::serving(&offered).await;
    hold(&offered, 2);
    fs::write(offered.part(), vec![0; 2 * pieces::MIN_PIECE as usize]).unwrap();
    assert!(matches!(offered.fetch(&pair.session).await, FetchEnd::Complete));
    offered.assert_complete();
}

#[tokio::test]
async fn a_partial_file_that_is_replaced_meanwhile_is_not_published() {
    let offered = Offered::new(2 * pieces::MIN_PIECE).await;
    let (pair, _ends) = Pair::serving(&offered).await;
    let Opened::Ready(sink) = offered.open().await.unwrap() else { panic!("it is not complete") };
    fs::remove_file(offered.part()).unwrap();
    fs::write(offered.part(), "mine").unwrap();
    let end = offered.fetch_into(&pair.session, sink).await;
    assert!(matches!(end, FetchEnd::Damaged), "{end}");
    assert!(!offered.destination().exists());
    assert_eq!(fs::read(offered.part()).unwrap(), b"mine");
    assert_eq!(offered.held.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn a_process_killed_around_the_move_finds_its_file_complete() {
    // All is synced, nothing moved.
    let offered = Offered::new(2 * pieces::MIN_PIECE + 1).await;
    hold(&offered, 3);
    assert!(matches!(offered.open().await.unwrap(), Opened::Done));
    offered.assert_complete();

    for committed in [0, 2] {
        // Both names are there, or only the new one.
        for both in [true, false] {
            let offered = Offered::new(2 * pieces::MIN_PIECE + 1).await;
            fs::write(offered.destination(), &offered.bytes).unwrap();
            if both {
                fs::hard_link(offered.destination(), offered.part()).unwrap();
            }
            offered.held.store(offered.list.layout().start(committed), Ordering::SeqCst);
            assert!(matches!(offered.open().await.unwrap(), Opened::Done));
            offered.assert_complete();
            assert_eq!(fs::metadata(offered.destination()).unwrap().nlink(), 1);
        }
    }

    // The name was reserved where there are no hard links.
    let offered = Offered::new(2 * pieces::MIN_PIECE + 1).await;
    hold(&offered, 3);
    fs::write(offered.destination(), "").unwrap();
    assert!(matches!(offered.open().await.unwrap(), Opened::Done));
    offered.assert_complete();
}

#[tokio::test]
async fn one_sink_at_a_time_has_a_partial_file() {
    let offered = Arc::new(Offered::new(2 * pieces::MIN_PIECE).await);
    let Opened::Ready(first) = offered.open().await.unwrap() else { panic!("it is not complete") };
    let other = Arc::clone(&offered);
    let second = tokio::spawn(async move { other.open().await });
    // It cannot be seen to wait, but it has not got what the first still moves away.
    let (pair, _ends) = Pair::serving(&offered).await;
    let end = offered.fetch_into(&pair.session, first).await;
    assert!(matches!(end, FetchEnd::Complete), "{end}");
    assert!(matches!(second.await.unwrap().unwrap(), Opened::Done));
    offered.assert_complete();
}

#[tokio::test]
async fn a_transfer_leaves_the_reserve_of_the_disk() {
    let size = 9 * MIB;
    let offered = Offered::new(size).await;
    let (pair, _ends) = Pair::serving(&offered).await;
    let full = || Space::pretended(move || size + DISK_RESERVE - 1);
    let refused = |error: SinkError, needed: u64| match error {
        SinkError::NoSpace { needed: said, .. } => assert_eq!(said, needed + DISK_RESERVE),
        error => panic!("{error}"),
    };
    refused(prepare_here(&offered, full()).await.unwrap_err(), size);
    assert!(!offered.part().exists());
    refused(offered.open_with(full()).await.unwrap_err(), size);
    let enough = Space::pretended(move || size + DISK_RESERVE);
    prepare_here(&offered, enough).await.unwrap();
    // What is held needs no more space.
    hold(&offered, 1);
    drop(offered.open_with(full()).await.unwrap());

    // Others fill the disk meanwhile.
    let asked = Arc::new(AtomicU64::new(0));
    let shrinking = {
        let asked = Arc::clone(&asked);
        Space::pretended(move || match asked.fetch_add(1, Ordering::SeqCst) {
            0 => size + DISK_RESERVE,
            1 => DISK_RESERVE + CHUNK,
            _ => DISK_RESERVE + CHUNK - 1,
        })
    };
    let Opened::Ready(sink) = offered.open_with(shrinking).await.unwrap() else { panic!("it is not complete") };
    let end = offered.fetch_into(&pair.session, sink).await;
    assert!(matches!(end, FetchEnd::Disk(SinkError::NoSpace { .. })), "{end}");
    assert_eq!(asked.load(Ordering::SeqCst), 3);
    offered.assert_nothing_but_a_part();
    let held = offered.held.load(Ordering::SeqCst);
    assert!(held >= 4 * MIB, "{held}");
    assert!(fs::read(offered.part()).unwrap() == offered.bytes[..fs::metadata(offered.part()).unwrap().len() as usize]);

    // And make room again.
    assert!(matches!(offered.fetch(&pair.session).await, FetchEnd::Complete));
    offered.assert_complete();
}

#[tokio::test]
async fn the_disk_says_how_much_is_free() {
    let folder = tempfile::tempdir().unwrap();
    let free = platform::free_space(folder.path()).unwrap();
    assert!(free > 0 && free < 1 << 60, "{free}");
    assert!(platform::free_space(&folder.path().join("none")).is_err());
}

#[tokio::test]
async fn a_wrong_piece_leaves_the_right_ones() {
    let offered = Offered::with_long_pieces(3 * MIB).await;
    let Opened::Ready(mut sink) = offered.open().await.unwrap() else { panic!("it is not complete") };
    sink.write(&offered.list, &[offered.piece(0).to_vec().into()]).unwrap();
    let mut wrong = offered.piece(1).to_vec();
    wrong[0] ^= 1;
    let error = sink.write(&offered.list, &[wrong.into()]).unwrap_err();
    assert!(matches!(error, SinkError::Mismatch), "{error}");
    assert!(fs::read(offered.part()).unwrap() == offered.piece(0));
    drop(sink);
    let Opened::Ready(mut sink) = offered.open().await.unwrap() else { panic!("it is not complete") };
    let error = sink.write(&offered.list, &[vec![0; MIB as usize + 1].into()]).unwrap_err();
    assert!(matches!(error, SinkError::Mismatch), "a byte more than the piece: {error}");
    assert_eq!(fs::metadata(offered.part()).unwrap().len(), 0);
}
