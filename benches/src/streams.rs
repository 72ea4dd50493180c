//! One stream over loopback: bytes one way, round trips, small messages.

use crate::Failure;
use crate::measure::{Turns, timed};
use crate::peers::{BareTls, Cipher, HcpPeer, IrohPair, NoisePair, Peer};
use crate::report::{Goal, Report, number, rate, time};
use hcp_core::session::Priority;

const TURNS: usize = 11;
const TRANSFER: u64 = 64 << 20;
const ROUND_TRIPS: u64 = 1000;
const ROUND_TRIP_LENGTH: usize = 200;
const MESSAGES: u64 = 20_000;
const MESSAGE_LENGTH: usize = 64;

/// What HCP is compared with, and what the design asks of its throughput.
const OTHERS: [(&str, Option<Goal>); 4] = [
    ("bare tokio-rustls", Some(Goal::AtLeast(0.9))),
    ("Noise + yamux (ChaCha20-Poly1305)", Some(Goal::MoreThan(2.0))),
    ("Noise + yamux (AES-256-GCM)", Some(Goal::MoreThan(2.0))),
    ("iroh", None),
];

/// Measures all of it.
///
/// # Errors
/// The first that any protocol returns.
pub async fn run(report: &mut Report) -> Result<(), Failure> {
    let iroh = IrohPair::new().await?;
    let mut live = HcpPeer::over_tcp(Priority::Live).await?;
    let mut bulk = HcpPeer::over_tcp(Priority::Bulk).await?;
    let mut tls = BareTls::peer().await?;
    let mut chacha = NoisePair::peer(Cipher::ChaChaPoly).await?;
    let mut aes = NoisePair::peer(Cipher::AesGcm).await?;
    let mut quic = iroh.peer().await?;
    // Ours come first.
    let mut peers: [&mut dyn Peer; 6] = [&mut live, &mut bulk, &mut tls, &mut chacha, &mut aes, &mut quic];

    let turns = Turns::take(TURNS, peers.len(), async |way| timed(peers[way].transfer(TRANSFER)).await).await?;
    for (ours, name) in [(1, "bulk"), (0, "live")] {
        for (theirs, (other, goal)) in OTHERS.into_iter().enumerate() {
            let theirs = theirs + 2;
            let rates = [ours, theirs].map(|way| rate(TRANSFER as usize, turns.median(way)));
            let what = format!("{name} stream vs {other}");
            report.ratio("throughput", what, turns.speed(ours, theirs), goal, note(&turns, [ours, theirs], &rates));
        }
    }

    let turns = Turns::take(TURNS, peers.len(), async |way| {
        timed(peers[way].round_trips(ROUND_TRIPS, ROUND_TRIP_LENGTH)).await
    })
    .await?;
    for (theirs, (other, _)) in OTHERS.into_iter().enumerate() {
        let theirs = theirs + 2;
        let times = [0, theirs].map(|way| time(turns.median(way) / ROUND_TRIPS as f64));
        let what = format!("{ROUND_TRIP_LENGTH} bytes and back, vs {other}");
        report.ratio("round trips", what, turns.speed(0, theirs), None, note(&turns, [0, theirs], &times));
    }

    let turns =
        Turns::take(TURNS, peers.len(), async |way| timed(peers[way].messages(MESSAGES, MESSAGE_LENGTH)).await).await?;
    for (theirs, (other, _)) in OTHERS.into_iter().enumerate() {
        let theirs = theirs + 2;
        let rates = [0, theirs].map(|way| format!("{}/s", number(MESSAGES as f64 / turns.median(way))));
        let what = format!("{MESSAGE_LENGTH} bytes each, vs {other}, length-delimited");
        report.ratio("messages", what, turns.speed(0, theirs), None, note(&turns, [0, theirs], &rates));
    }
    Ok(())
}

/// Both figures, and how the two compare by what they computed.
pub(crate) fn note(turns: &Turns, [ours, theirs]: [usize; 2], figures: &[String; 2]) -> String {
    format!("{}; by CPU time {} x", figures.join(" and "), number(turns.thrift(ours, theirs)))
}
