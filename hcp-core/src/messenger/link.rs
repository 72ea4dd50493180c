//! Moves a link's frames between its stream and the engine.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::engine::{Input, Inputs, LinkHandle};
use super::machine::{self, LinkId, MAX_FRAME};
use crate::identity::OnionAddress;
use crate::node::{Session, Stream, StreamSender};

/// Frames that may wait for a slow peer; a link that takes no more is ended, and what was not acknowledged is sent again on
/// the next. Above what can be on its way, with room for acknowledgements.
const OUTBOX: usize = 256;
/// Frames that a peer can bring at once, and how many a second for ever: more is read later. A frame that is more work than
/// others counts as several.
const BURST: f64 = 500.0;
const RATE: f64 = 100.0;
/// How long a frame may wait for a peer that does not read.
const STUCK: Duration = Duration::from_secs(90);
/// How long the last frames may take to go out.
const LINGER: Duration = Duration::from_secs(10);

/// Runs a link until one of the two ends it.
pub(super) async fn run(inputs: Inputs, mut stream: Stream, session: Session, peer: OnionAddress, dialled: bool) {
    static NEXT: AtomicU64 = AtomicU64::new(0);

    let id = LinkId(NEXT.fetch_add(1, Ordering::Relaxed));
    let (outbox, queue) = mpsc::channel(OUTBOX);
    let waiting = Arc::new(AtomicUsize::new(0));
    let link = LinkHandle { outbox, waiting: Arc::clone(&waiting), session };
    if !inputs.send(Input::LinkUp { id, peer, dialled, link }).await {
        return;
    }
    // The engine must hear of the end also when this task is aborted with its session.
    let down = Down { inputs: inputs.clone(), id };
    let sending = send(stream.sender(), queue, waiting);
    tokio::pin!(sending);
    let ended_here = loop {
        tokio::select! {
            () = &mut sending => break true,
            received = stream.recv() => {
                let Ok(Some(bytes)) = received else { break false };
                if bytes.len() > MAX_FRAME {
                    tracing::warn!("a peer sent a frame that is too long");
                    break false;
                }
                inputs.paces().wait(peer, machine::work(&bytes)).await;
                if !inputs.send(Input::Frame { id, bytes }).await {
                    break false;
                }
            }
        }
    };
    drop(down);
    if ended_here {
        // What was sent last is read by a peer that answers with its own end.
        let _ = tokio::time::timeout(LINGER, async { while let Ok(Some(_)) = stream.recv().await {} }).await;
    }
}

/// Sends until the engine lets go of the link.
async fn send(mut sender: StreamSender, mut queue: mpsc::Receiver<Bytes>, waiting: Arc<AtomicUsize>) {
    while let Some(frame) = queue.recv().await {
        let length = frame.len();
        // A peer that does not read for so long has missed every other deadline, too.
        if !matches!(tokio::time::timeout(STUCK, sender.send(frame)).await, Ok(Ok(()))) {
            return;
        }
        waiting.fetch_sub(length, Ordering::AcqRel);
    }
    sender.finish().await;
}

/// Tells the engine of a link's end when it is dropped.
struct Down {
    inputs: Inputs,
    id: LinkId,
}

impl Drop for Down {
    fn drop(&mut self) {
        self.inputs.tell_down(self.id);
    }
}

/// How fast the frames of each peer are read, whatever number of links they come on.
#[derive(Debug, Default)]
pub(super) struct Paces(Mutex<HashMap<OnionAddress, Pace>>);

/// How many ordinary frames of one peer may be read at once; below nothing, how many are waited for.
#[derive(Debug)]
struct Pace {
    tokens: f64,
    since: Instant,
}

impl Paces {
    /// Waits until a frame more may be read that is as much work as so many ordinary ones.
    pub(super) async fn wait(&self, peer: OnionAddress, work: f64) {
        let missing = self.take(peer, work, Instant::now());
        if missing > 0.0 {
            tokio::time::sleep(Duration::from_secs_f64(missing / RATE)).await;
        }
    }

    /// Takes places; how many are missing.
    fn take(&self, peer: OnionAddress, work: f64, now: Instant) -> f64 {
        let mut paces = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !paces.contains_key(&peer) {
            // Who has been quiet is as one who never came: so what is kept is bounded by who came within seconds.
            paces.retain(|_, pace| pace.tokens_at(now) < BURST);
        }
        let pace = paces.entry(peer).or_insert(Pace { tokens: BURST, since: now });
        (pace.tokens, pace.since) = (pace.tokens_at(now) - work, now);
        -pace.tokens
    }
}

impl Pace {
    fn tokens_at(&self, now: Instant) -> f64 {
        (self.tokens + now.saturating_duration_since(self.since).as_secs_f64() * RATE).min(BURST)
    }
}

#[cfg(test)]
mod tests {
    use prost::Message as _;

    use super::*;
    use crate::identity::Identity;
    use crate::network::{MemoryNetwork, Network};
    use crate::node::{Access, Node};
    use crate::wire::messenger_proto::{self as proto, frame::Body};

    const PROTOCOL: &str = "test/link/1";

    /// What the engine is told of a link, the other end of that, and what it takes for that to live.
    async fn linked() -> (mpsc::Receiver<Input>, Stream, (Session, [Node; 2])) {
        let network: Arc<dyn Network> = Arc::new(MemoryNetwork::new());
        let (inputs, told) = Inputs::without_engine();
        let near = Node::builder(Identity::generate(), Arc::clone(&network)).protocol(
            PROTOCOL,
            Access::Identified,
            move |stream: Stream, session: Session| {
                let (inputs, peer) = (inputs.clone(), session.peer().address());
                async move { run(inputs, stream, session.clone(), peer.expect("it said who it is"), false).await }
            },
        );
        let near = near.bind().await.expect("free");
        let far = Node::builder(Identity::generate(), network).bind().await.expect("free");
        let session = far.connect(near.address()).await.expect("it is there");
        let stream = session.open(PROTOCOL).await.expect("it is served");
        (told, stream, (session, [near, far]))
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_floods_is_read_at_its_pace_and_nothing_is_lost() {
        const FRAMES: u32 = 1_000;
        let (mut told, mut stream, _alive) = linked().await;
        let flood = async {
            for number in 0..FRAMES {
                stream.send(number.to_be_bytes().to_vec()).await.expect("it is read in the end");
            }
        };
        let read = async {
            let Some(Input::LinkUp { link: _link, .. }) = told.recv().await else { panic!("no link") };
            let began = Instant::now();
            for number in 0..FRAMES {
                let Some(Input::Frame { bytes, .. }) = told.recv().await else { panic!("frame {number} is missing") };
                assert_eq!(bytes[..], number.to_be_bytes());
                let most = BURST + RATE * began.elapsed().as_secs_f64() + 1.0;
                assert!(f64::from(number) < most, "{number} frames in {:?}", began.elapsed());
            }
            began.elapsed().as_secs_f64()
        };
        let ((), took) = tokio::join!(flood, read);
        let least = (f64::from(FRAMES) - BURST) / RATE;
        assert!((least..least + 1.0).contains(&took), "{took} s");
    }

    #[tokio::test(start_paused = true)]
    async fn a_frame_that_is_the_work_of_many_is_read_as_seldom_as_those() {
        const FRAMES: u32 = 40;
        let (mut told, mut stream, _alive) = linked().await;
        let epoch = proto::Epoch { epoch: vec![7; 16].into(), seq: 1 };
        let have = proto::Have { epochs: vec![epoch; 1024], more: false };
        let frame = Bytes::from(proto::Frame { body: Some(Body::Have(have)) }.encode_to_vec());
        let work = machine::work(&frame);
        assert!(work > 50.0, "{work}");
        let flood = async {
            for _ in 0..FRAMES {
                stream.send(frame.clone()).await.expect("it is read in the end");
            }
        };
        let read = async {
            let Some(Input::LinkUp { link: _link, .. }) = told.recv().await else { panic!("no link") };
            let began = Instant::now();
            for number in 0..FRAMES {
                let Some(Input::Frame { .. }) = told.recv().await else { panic!("frame {number} is missing") };
            }
            began.elapsed().as_secs_f64()
        };
        let ((), took) = tokio::join!(flood, read);
        let least = (f64::from(FRAMES) * work - BURST) / RATE;
        assert!((least..least + 1.0).contains(&took), "{took} s instead of {least}");
    }

    #[test]
    fn a_peer_has_one_pace_for_all_its_links_and_is_forgotten_once_it_is_quiet() {
        let (paces, now) = (Paces::default(), Instant::now());
        let [one, other] = [1, 2].map(|seed| Identity::from_seed(&[seed; 32]).address());
        for _ in 0..BURST as u32 {
            assert!(paces.take(one, 1.0, now) <= 0.0);
        }
        assert_eq!((paces.take(one, 1.0, now), paces.take(one, 1.0, now)), (1.0, 2.0));
        assert!(paces.take(other, 1.0, now) <= 0.0, "another peer's pace is its own");
        let later = now + Duration::from_secs(60);
        let stranger = Identity::from_seed(&[3; 32]).address();
        assert!(paces.take(stranger, 1.0, later) <= 0.0);
        assert_eq!(paces.0.lock().unwrap().len(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_does_not_read_has_a_bounded_queue_and_is_let_go() {
        let (mut told, _stream, _alive) = linked().await;
        let Some(Input::LinkUp { link, id, .. }) = told.recv().await else { panic!("no link") };
        let frame = Bytes::from(vec![0; 16 * 1024]);
        let mut queued = 0;
        // Until nothing has moved for a while, and the queue is full all the same.
        loop {
            link.waiting.fetch_add(frame.len(), Ordering::AcqRel);
            if link.outbox.try_send(frame.clone()).is_ok() {
                queued += 1;
                continue;
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
            if link.outbox.capacity() == 0 {
                break;
            }
        }
        assert!(queued >= OUTBOX);
        let began = Instant::now();
        let ended = told.recv().await;
        assert!(matches!(ended, Some(Input::LinkDown { id: down }) if down == id));
        let took = began.elapsed();
        assert!(took <= STUCK && took >= STUCK - Duration::from_secs(60), "{took:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_frame_that_is_too_long_ends_the_link() {
        let (mut told, mut stream, _alive) = linked().await;
        let Some(Input::LinkUp { link: _link, .. }) = told.recv().await else { panic!("no link") };
        stream.send(vec![0; MAX_FRAME]).await.expect("open");
        assert!(matches!(told.recv().await, Some(Input::Frame { bytes, .. }) if bytes.len() == MAX_FRAME));
        stream.send(vec![0; MAX_FRAME + 1]).await.expect("open");
        assert!(matches!(told.recv().await, Some(Input::LinkDown { .. })));
    }
}
