//! Peers that break the protocol.

use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use prost::Message;
use tokio::time::Instant;

use super::*;
use crate::wire::file_proto::{Fetch, FromReceiver, FromSender, Held, from_receiver, from_sender};

/// Reads a receiver's question.
pub(super) async fn question(stream: &mut Stream) -> Bytes {
    stream.recv().await.unwrap().unwrap()
}

pub(super) async fn list(stream: &mut Stream, bytes: &[u8]) {
    send(stream, from_sender::Body::Pieces(Bytes::copy_from_slice(bytes))).await;
}

pub(super) async fn chunk(stream: &mut Stream, bytes: &[u8]) {
    send(stream, from_sender::Body::Chunk(Bytes::copy_from_slice(bytes))).await;
}

/// The receiver may have hung up, at which a liar does not stop.
async fn send(stream: &mut Stream, body: from_sender::Body) {
    let _ = stream.send(FromSender { body: Some(body) }.encode_to_vec()).await;
}

/// Sends the list and all chunks of a file.
async fn chunks(stream: &mut Stream, bytes: &[u8], good: &[u8]) {
    list(stream, good).await;
    for bytes in bytes.chunks(CHUNK as usize) {
        chunk(stream, bytes).await;
    }
}

type Liar = for<'a> fn(&'a mut Stream, Vec<u8>, Vec<u8>) -> BoxFuture<'a, ()>;

/// Fetches three pieces from a liar, who gets the file and its list.
async fn fetch_from(liar: Liar) -> (Offered, FetchEnd) {
    let offered = Offered::new(3 * pieces::MIN_PIECE - 100).await;
    let (bytes, good) = (offered.bytes.clone(), offered.list.to_bytes());
    let pair = Pair::new(move |mut stream, _| {
        let (bytes, good) = (bytes.clone(), good.clone());
        async move {
            question(&mut stream).await;
            liar(&mut stream, bytes, good).await;
            // Until the receiver has had enough; what has not gone out would be lost with the stream.
            while let Ok(Some(_)) = stream.recv().await {}
        }
    })
    .await;
    let end = offered.fetch(&pair.session).await;
    (offered, end)
}

#[tokio::test(start_paused = true)]
async fn a_lying_sender_is_found_out_and_leaves_nothing_wrong() {
    let liars: [(&str, Liar); 14] = [
        ("a wrong list", |stream, bytes, mut good| {
            Box::pin(async move {
                good[40] ^= 1;
                chunks(stream, &bytes, &good).await;
            })
        }),
        ("a list that is too short", |stream, bytes, good| {
            Box::pin(async move { chunks(stream, &bytes, &good[32..]).await })
        }),
        ("an empty list", |stream, bytes, _| Box::pin(async move { chunks(stream, &bytes, &[]).await })),
        ("a huge list", |stream, bytes, _| Box::pin(async move { chunks(stream, &bytes, &[0; 500 * 1024]).await })),
        ("no list", |stream, bytes, _| Box::pin(async move { chunk(stream, &bytes[..32_768]).await })),
        ("two lists", |stream, _, good| {
            Box::pin(async move {
                list(stream, &good).await;
                list(stream, &good).await;
            })
        }),
        ("a wrong byte", |stream, mut bytes, good| {
            Box::pin(async move {
                bytes[pieces::MIN_PIECE as usize + 7] ^= 1;
                chunks(stream, &bytes, &good).await;
            })
        }),
        ("chunks in another order", |stream, mut bytes, good| {
            Box::pin(async move {
                bytes.rotate_left(CHUNK as usize);
                chunks(stream, &bytes, &good).await;
            })
        }),
        ("chunks that are too long", |stream, bytes, good| {
            Box::pin(async move {
                list(stream, &good).await;
                for bytes in bytes.chunks(500 * 1024) {
                    chunk(stream, bytes).await;
                }
            })
        }),
        ("chunks of one byte without end", |stream, _, good| {
            Box::pin(async move {
                list(stream, &good).await;
                let message: Bytes =
                    FromSender { body: Some(from_sender::Body::Chunk("a".into())) }.encode_to_vec().into();
                while stream.send(message.clone()).await.is_ok() {}
            })
        }),
        ("empty chunks without end", |stream, _, good| {
            Box::pin(async move {
                list(stream, &good).await;
                let message: Bytes =
                    FromSender { body: Some(from_sender::Body::Chunk("".into())) }.encode_to_vec().into();
                while stream.send(message.clone()).await.is_ok() {}
            })
        }),
        ("garbage", |stream, _, good| {
            Box::pin(async move {
                list(stream, &good).await;
                let _ = stream.send(vec![0xff; 40_000]).await;
            })
        }),
        ("empty messages", |stream, _, good| {
            Box::pin(async move {
                list(stream, &good).await;
                while stream.send("").await.is_ok() {}
            })
        }),
        ("a refusal of no kind", |stream, _, _| {
            Box::pin(async move { send(stream, from_sender::Body::Refused(99)).await })
        }),
    ];
    for (name, liar) in liars {
        let (offered, end) = fetch_from(liar).await;
        assert!(matches!(end, FetchEnd::Mismatch(_)), "{name}: {end}");
        offered.assert_nothing_but_a_part();
        let part = fs::read(offered.part()).unwrap();
        assert_eq!(part.len() as u64 % pieces::MIN_PIECE, 0, "{name}");
        assert!(part == offered.bytes[..part.len()], "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_sender_that_stops_is_lost() {
    let liars: [(&str, Liar, u64); 3] = [
        ("says nothing", |_, _, _| Box::pin(async {}), 60),
        (
            "stops without a word",
            |stream, bytes, good| {
                Box::pin(async move {
                    chunks(stream, &bytes[..12 * CHUNK as usize], &good).await;
                })
            },
            60,
        ),
        (
            "ends too early",
            |stream, bytes, good| {
                Box::pin(async move {
                    chunks(stream, &bytes[..pieces::MIN_PIECE as usize], &good).await;
                    stream.finish().await;
                })
            },
            0,
        ),
    ];
    for (name, liar, seconds) in liars {
        let started = Instant::now();
        let (offered, end) = fetch_from(liar).await;
        assert!(matches!(end, FetchEnd::PeerGone), "{name}: {end}");
        assert_eq!(started.elapsed().as_secs(), seconds, "{name}");
        offered.assert_nothing_but_a_part();
    }
}

#[tokio::test]
async fn a_sender_that_hangs_up_is_lost() {
    let offered = Offered::new(1000).await;
    let pair = Pair::new(|_, _| async {}).await;
    let end = offered.fetch(&pair.session).await;
    assert!(matches!(end, FetchEnd::PeerGone), "{end}");
    offered.assert_nothing_but_a_part();
}

#[tokio::test]
async fn what_comes_behind_the_end_is_not_taken() {
    let (offered, end) = fetch_from(|stream, bytes, good| {
        Box::pin(async move {
            chunks(stream, &bytes, &good).await;
            chunk(stream, &bytes[..32_768]).await;
        })
    })
    .await;
    assert!(matches!(end, FetchEnd::Complete), "{end}");
    offered.assert_complete();
}

fn fetch_from_piece(first_piece: u32) -> Bytes {
    let body = from_receiver::Body::Fetch(Fetch { transfer: Bytes::copy_from_slice(&ID), first_piece });
    FromReceiver { body: Some(body) }.encode_to_vec().into()
}

fn held(pieces: u32) -> Bytes {
    FromReceiver { body: Some(from_receiver::Body::Held(Held { pieces })) }.encode_to_vec().into()
}

#[tokio::test]
async fn a_lying_receiver_gets_nothing_more() {
    let offered = Offered::new(3 * pieces::MIN_PIECE).await;
    let short_id = from_receiver::Body::Fetch(Fetch { transfer: Bytes::from_static(&[7; 15]), first_piece: 0 });
    let short_id = FromReceiver { body: Some(short_id) }.encode_to_vec().into();
    let lies: Vec<(&str, Vec<Bytes>)> = vec![
        ("the piece behind the last", vec![fetch_from_piece(3)]),
        ("a piece far away", vec![fetch_from_piece(u32::MAX)]),
        ("garbage", vec![vec![0xff; 100_000].into()]),
        ("an empty message", vec![Bytes::new()]),
        ("a short id", vec![short_id]),
        ("no question first", vec![held(1)]),
        ("a second question", vec![fetch_from_piece(0), fetch_from_piece(0)]),
        ("nothing new", vec![fetch_from_piece(1), held(1)]),
        ("less than before", vec![fetch_from_piece(0), held(2), held(1)]),
        ("more than there is", vec![fetch_from_piece(0), held(4)]),
        ("far more than there is", vec![fetch_from_piece(0), held(u32::MAX)]),
        ("garbage later", vec![fetch_from_piece(0), held(1), vec![0xff; 10].into()]),
    ];
    for (name, lies) in lies {
        let (pair, mut ends) = Pair::serving(&offered).await;
        let mut stream = pair.session.open_with(PROTOCOL, Priority::Bulk).await.unwrap();
        for lie in lies {
            let _ = stream.send(lie).await;
        }
        let (end, _) = ends.recv().await.unwrap();
        assert!(matches!(end, ServeEnd::Violation(_)), "{name}: {end}");
        // It is hung up on.
        while let Ok(Some(_)) = stream.recv().await {}
    }
}

#[tokio::test(start_paused = true)]
async fn a_receiver_that_stops_is_lost() {
    // More than a stream's window, so that the sender has to wait.
    let offered = Offered::new(3 * MIB).await;
    let (pair, mut ends) = Pair::serving(&offered).await;
    let mut silent = pair.session.open_with(PROTOCOL, Priority::Bulk).await.unwrap();
    let started = Instant::now();
    let (end, _) = ends.recv().await.unwrap();
    assert!(matches!(end, ServeEnd::PeerGone), "says nothing: {end}");
    assert_eq!(started.elapsed().as_secs(), LOST_AFTER.as_secs());
    assert!(silent.recv().await.is_err());

    let mut stalling = pair.session.open_with(PROTOCOL, Priority::Bulk).await.unwrap();
    stalling.send(fetch_from_piece(0)).await.unwrap();
    let (end, _) = ends.recv().await.unwrap();
    assert!(matches!(end, ServeEnd::PeerGone), "reads nothing: {end}");

    let mut mute = pair.session.open_with(PROTOCOL, Priority::Bulk).await.unwrap();
    mute.send(fetch_from_piece(0)).await.unwrap();
    let mut bytes = 0;
    while let Ok(Some(message)) = mute.recv().await {
        bytes += message.len() as u64;
    }
    assert!(bytes > 3 * MIB);
    let (end, _) = tokio::time::timeout(Duration::from_secs(100), ends.recv()).await.unwrap().unwrap();
    assert!(matches!(end, ServeEnd::PeerGone), "confirms nothing: {end}");

    let leaving = pair.session.open_with(PROTOCOL, Priority::Bulk).await.unwrap();
    drop(leaving);
    let (end, _) = ends.recv().await.unwrap();
    assert!(matches!(end, ServeEnd::PeerGone), "leaves: {end}");
}
