//! Which session goes when an address has no place for one more: the test vectors of protocol.md, section 22, played by a
//! node. The file is made here and compared with the one that is kept; `HCP_WRITE_VECTORS=1` writes it instead.

use std::collections::BTreeMap;
use std::path::Path;
use std::{env, fs};

use futures::FutureExt;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::*;
use crate::session::CLOSE_BUSY;

/// What a dialler does.
#[derive(Clone, Copy)]
enum Does {
    /// Shows its PROOF.
    Dial,
    /// Opens a stream, which stays open.
    Open,
    /// Ends its session.
    End,
}

/// When, in milliseconds; what; who; and whose session is closed with `busy` for it.
type Step = (u64, Does, &'static str, Option<&'static str>);

/// What each is called, how many places there are, and what happens.
const SCRIPTS: [(&str, usize, &[Step]); 3] = [
    (
        "sessions that are idle make room once they have settled, the oldest first",
        3,
        &[
            (0, Does::Dial, "a", None),
            (300, Does::Dial, "b", None),
            (600, Does::Dial, "c", None),
            (900, Does::Open, "a", None),
            (2_000, Does::Dial, "d", Some("d")),
            (6_000, Does::Dial, "e", Some("b")),
            (6_300, Does::Dial, "f", Some("c")),
            (7_000, Does::Dial, "g", Some("g")),
            (12_000, Does::Dial, "h", Some("e")),
        ],
    ),
    (
        "one that ends makes room, and nobody else goes",
        2,
        &[
            (0, Does::Dial, "a", None),
            (300, Does::Dial, "b", None),
            (6_000, Does::End, "b", None),
            (6_300, Does::Dial, "c", None),
        ],
    ),
    (
        "sessions with open streams stay, however old",
        2,
        &[
            (0, Does::Dial, "a", None),
            (300, Does::Open, "a", None),
            (600, Does::Dial, "b", None),
            (900, Does::Open, "b", None),
            (60_000, Does::Dial, "c", Some("c")),
            (60_300, Does::End, "a", None),
            (60_600, Does::Dial, "d", None),
        ],
    ),
];

impl Does {
    fn name(self) -> &'static str {
        match self {
            Self::Dial => "dial",
            Self::Open => "open",
            Self::End => "end",
        }
    }
}

#[tokio::test(start_paused = true)]
async fn vectors() {
    let mut made = Vec::new();
    for (name, places, steps) in SCRIPTS {
        play(name, places, steps).await;
        let steps: Vec<Value> = steps
            .iter()
            .map(|(at, does, who, busy)| json!({ "at": at, "do": does.name(), "who": who, "busy": busy }))
            .collect();
        made.push(json!({ "name": name, "places": places, "steps": steps }));
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors/places.json");
    let made = format!("{:#}\n", Value::Array(made));
    if env::var_os("HCP_WRITE_VECTORS").is_some() {
        fs::write(&path, &made).unwrap();
    }
    let kept = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    assert!(kept == made, "places.json differs from what this code says; HCP_WRITE_VECTORS=1 rewrites it");
}

async fn play(name: &str, places: usize, steps: &[Step]) {
    let network = memory();
    let mut far = builder(&network);
    far.max_sessions = places;
    let far = far.bind().await.unwrap();
    let near = builder(&network).bind().await.unwrap();
    let (began, mut sessions, mut streams) = (Instant::now(), BTreeMap::new(), Vec::new());
    for (at, does, who, busy) in steps {
        tokio::time::sleep_until(began + Duration::from_millis(*at)).await;
        match does {
            Does::Dial => {
                sessions.insert(*who, near.connect_anonymously(far.address()).await.unwrap());
            }
            Does::Open => {
                let mut stream = sessions[who].open(ECHO).await.unwrap();
                stream.send("hello").await.unwrap();
                assert_eq!(stream.recv().await.unwrap().unwrap(), "hello");
                streams.push(stream);
            }
            Does::End => sessions.remove(who).unwrap().shutdown().await,
        }
        if let Some(gone) = busy {
            let end = timeout(Duration::from_millis(100), sessions.remove(gone).unwrap().closed()).await;
            assert!(matches!(end, Ok(SessionError::ClosedByPeer(CLOSE_BUSY))), "{name}: {gone} at {at}: {end:?}");
        }
        // The time is virtual.
        tokio::time::sleep(Duration::from_millis(100)).await;
        for (other, session) in &sessions {
            assert!(session.closed().now_or_never().is_none(), "{name}: {other} is gone at {at}");
        }
    }
}
