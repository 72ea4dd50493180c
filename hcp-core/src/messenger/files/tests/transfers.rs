//! Transfers between two sides that mean well.

use std::time::{Duration, Instant};

use super::*;

#[tokio::test]
async fn files_of_every_kind_of_size_arrive() {
    let piece = pieces::MIN_PIECE;
    for size in [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, piece - 1, piece, piece + 1, 3 * piece, 9 * MIB + 12_345] {
        let offered = Offered::new(size).await;
        let (pair, mut ends) = Pair::serving(&offered).await;
        let layout = offered.list.layout();
        prepare(offered.destination(), layout, Space::of_disk()).await.unwrap();
        let end = offered.fetch(&pair.session).await;
        assert!(matches!(end, FetchEnd::Complete), "{size}: {end}");
        offered.assert_complete();
        if size > 0 {
            let (end, told) = ends.recv().await.unwrap();
            assert!(matches!(end, ServeEnd::Delivered), "{size}: {end}");
            assert!(told.is_sorted() && told.last() == Some(&size), "{told:?}");
            assert_eq!(offered.held.load(Ordering::SeqCst), size);
        }
        // What is complete is found so, whatever was noted.
        for held in [0, size] {
            offered.held.store(held, Ordering::SeqCst);
            assert!(matches!(offered.open().await.unwrap(), Opened::Done));
        }
        offered.assert_complete();
    }
}

#[tokio::test]
async fn pieces_of_several_batches_arrive() {
    for size in [MIB - 1, MIB, MIB + 1, 6 * MIB + 300_000] {
        let offered = Offered::with_long_pieces(size).await;
        let (pair, _ends) = Pair::serving(&offered).await;
        let end = offered.fetch(&pair.session).await;
        assert!(matches!(end, FetchEnd::Complete), "{size}: {end}");
        offered.assert_complete();
    }
}

#[tokio::test]
async fn a_transfer_goes_on_whichever_side_was_dropped_at_whatever_time() {
    let seed: u64 = rand::random();
    println!("seed {seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let (mut receivers, mut senders, mut forgotten, mut skipped) = (0, 0, 0, 0);
    for round in 0..30 {
        let size = random.random_range(1..5 * MIB);
        let offered = if round % 2 == 0 { Offered::new(size).await } else { Offered::with_long_pieces(size).await };
        let (path, list) = (offered.path.clone(), offered.list.clone());
        // Often too few for the whole, and sometimes enough for a piece.
        let turns = size.div_ceil(BATCH) as u32 + 10;
        // How long the server lives in the next attempt.
        let patience = Arc::new(AtomicU64::new(0));
        let server_patience = Arc::clone(&patience);
        let pair = Pair::new(move |stream, _| {
            let (path, list) = (path.clone(), list.clone());
            let polls = server_patience.load(Ordering::SeqCst) as u32;
            async move { drop(cut_after(polls, serve_once(stream, path, list)).await) }
        })
        .await;
        for attempt in 0.. {
            assert!(attempt < 500, "no progress");
            let (mine, its) = match random.random_range(0..2) {
                0 => (random.random_range(0..turns), u32::MAX),
                _ => (u32::MAX, random.random_range(0..turns)),
            };
            patience.store(its.into(), Ordering::SeqCst);
            skipped += u64::from(offered.held.load(Ordering::SeqCst) > 0);
            match cut_after(mine, offered.fetch(&pair.session)).await {
                Some(FetchEnd::Complete) => break,
                Some(FetchEnd::PeerGone) => senders += 1,
                Some(end) => panic!("{end}"),
                None => receivers += 1,
            }
            assert!(fs::symlink_metadata(offered.destination()).is_err() || mine != u32::MAX);
            // Now and then the last checkpoint was not committed.
            if random.random_ratio(1, 8) {
                forgotten += 1;
                let held = offered.held.load(Ordering::SeqCst);
                offered.held.store(random.random_range(0..=held), Ordering::SeqCst);
            }
        }
        offered.assert_complete();
    }
    println!("dropped: {receivers} receivers, {senders} senders; {forgotten} checkpoints forgotten, {skipped} resumed");
    assert!(receivers > 0 && senders > 0 && forgotten > 0 && skipped > 0);
}

#[tokio::test]
async fn what_came_of_whole_pieces_before_the_sender_was_lost_is_held() {
    let offered = Offered::new(3 * pieces::MIN_PIECE).await;
    let (path, list) = (offered.path.clone(), offered.list.clone());
    // Sends the first piece and a part of the next, in a first life.
    let lives = AtomicU64::new(0);
    let pair = Pair::new(move |mut stream, _| {
        let (path, list, life) = (path.clone(), list.clone(), lives.fetch_add(1, Ordering::SeqCst));
        async move {
            if life > 0 {
                drop(serve_once(stream, path, list).await);
                return;
            }
            liars::question(&mut stream).await;
            liars::list(&mut stream, &list.to_bytes()).await;
            for chunk in fs::read(path).unwrap().chunks(CHUNK as usize).take(11) {
                liars::chunk(&mut stream, chunk).await;
            }
            stream.finish().await;
        }
    })
    .await;
    let end = offered.fetch(&pair.session).await;
    assert!(matches!(end, FetchEnd::PeerGone), "{end}");
    assert_eq!(offered.held.load(Ordering::SeqCst), pieces::MIN_PIECE);
    let end = offered.fetch(&pair.session).await;
    assert!(matches!(end, FetchEnd::Complete), "{end}");
    offered.assert_complete();
}

#[tokio::test]
async fn a_sender_refuses_what_it_does_not_offer() {
    let offered = Offered::new(1000).await;
    let pair = Pair::new(|stream, _| async { asked(stream).await.unwrap().refuse().await }).await;
    let end = offered.fetch(&pair.session).await;
    assert!(matches!(end, FetchEnd::Refused), "{end}");
    offered.assert_nothing_but_a_part();

    let network: Arc<dyn Network> = Arc::new(MemoryNetwork::new());
    let server = Node::builder(Identity::generate(), Arc::clone(&network)).bind().await.unwrap();
    let client = Node::builder(Identity::generate(), network).bind().await.unwrap();
    let session = client.connect(server.address()).await.unwrap();
    let end = offered.fetch(&session).await;
    assert!(matches!(end, FetchEnd::Refused), "{end}");
}

type Change = fn(&Offered);

#[tokio::test]
async fn no_piece_of_a_changed_source_arrives_and_both_sides_learn_it() {
    let piece = pieces::MIN_PIECE as usize;
    let changes: [(&str, Change); 6] = [
        ("a byte of the second piece", |offered| {
            let mut bytes = offered.bytes.clone();
            bytes[pieces::MIN_PIECE as usize + 5] ^= 1;
            fs::write(&offered.path, bytes).unwrap();
        }),
        ("shorter", |offered| fs::write(&offered.path, &offered.bytes[1..]).unwrap()),
        ("longer", |offered| fs::write(&offered.path, [&offered.bytes[..], &[0]].concat()).unwrap()),
        ("gone", |offered| fs::remove_file(&offered.path).unwrap()),
        ("its folder is a file", |offered| {
            fs::remove_file(&offered.path).unwrap();
            fs::create_dir(&offered.path).unwrap();
        }),
        ("a device", |offered| {
            fs::remove_file(&offered.path).unwrap();
            std::os::unix::fs::symlink("/dev/zero", &offered.path).unwrap();
        }),
    ];
    for (name, change) in changes {
        let offered = Offered::new(3 * pieces::MIN_PIECE).await;
        let (pair, mut ends) = Pair::serving(&offered).await;
        change(&offered);
        let end = offered.fetch(&pair.session).await;
        assert!(matches!(end, FetchEnd::SourceChanged), "{name}: {end}");
        let (end, _) = ends.recv().await.unwrap();
        assert!(matches!(end, ServeEnd::SourceChanged), "{name}: {end}");
        offered.assert_nothing_but_a_part();
        let part = fs::read(offered.part()).unwrap();
        assert!(part.len() <= piece && part == offered.bytes[..part.len()], "{name}");
    }
}

#[tokio::test]
async fn a_file_that_cannot_be_offered_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    assert!(matches!(measure(folder.path().to_owned()).await, Err(SourceError::NotAFile)));
    assert!(matches!(measure("/dev/zero".into()).await, Err(SourceError::NotAFile)));
    assert!(matches!(measure(folder.path().join("none")).await, Err(SourceError::Io(_))));
    let large = folder.path().join("large");
    let size = crate::messenger::MAX_FILE + 1;
    fs::File::create(&large).unwrap().set_len(size).unwrap();
    assert!(matches!(measure(large).await, Err(SourceError::TooLarge { size: found }) if found == size));
}

#[test]
fn measuring_ends_soon_when_nobody_waits() {
    let folder = tempfile::tempdir().unwrap();
    let large = folder.path().join("large");
    // Takes much longer to read.
    fs::File::create(&large).unwrap().set_len(crate::messenger::MAX_FILE).unwrap();
    let started = Instant::now();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let measuring = async { tokio::time::timeout(Duration::from_millis(50), measure(large)).await };
    assert!(runtime.block_on(measuring).is_err());
    // Waits for what still runs.
    drop(runtime);
    assert!(started.elapsed() < Duration::from_secs(5));
}
