//! Files between two nodes on the memory network, and against peers that lie.

mod disk;
mod liars;
mod transfers;

use std::fs;
use std::path::PathBuf;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::Poll;

use futures::future::BoxFuture;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tempfile::TempDir;
use tokio::sync::mpsc;

use super::blocking::Waiting;
use super::*;
use crate::identity::Identity;
use crate::network::{MemoryNetwork, Network};
use crate::node::{Access, Node, Session, Stream};
use crate::session::Priority;

const PROTOCOL: &str = "hcp/file/1";
const ID: [u8; 16] = [7; 16];
const MIB: u64 = 1024 * 1024;

/// A folder with an offered file in it, and where it is to be saved.
struct Offered {
    folder: TempDir,
    path: PathBuf,
    bytes: Vec<u8>,
    list: PieceList,
    /// What was last noted as held.
    held: Arc<AtomicU64>,
}

impl Offered {
    async fn new(size: u64) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("offered");
        let mut bytes = vec![0; size as usize];
        blake3::Hasher::new().update(&size.to_be_bytes()).finalize_xof().fill(&mut bytes);
        fs::write(&path, &bytes).unwrap();
        let list = measure(path.clone()).await.unwrap();
        Self { folder, path, bytes, list, held: Arc::default() }
    }

    /// With pieces that take several batches, which files of more than 256 MiB have.
    async fn with_long_pieces(size: u64) -> Self {
        let mut offered = Self::new(size).await;
        let layout = Layout::with_pieces_of(size, MIB);
        offered.list = pieces::measure(layout, &mut &offered.bytes[..], &Waiting::default()).unwrap();
        offered
    }

    fn destination(&self) -> PathBuf {
        self.folder.path().join("saved")
    }

    fn part(&self) -> PathBuf {
        self.folder.path().join("saved.part")
    }

    fn piece(&self, piece: u32) -> &[u8] {
        let layout = self.list.layout();
        &self.bytes[layout.start(piece) as usize..layout.start(piece + 1) as usize]
    }

    async fn open_with(&self, space: Space) -> Result<Opened, SinkError> {
        let held = self.held.load(Ordering::SeqCst);
        Sink::open(self.destination(), self.list.layout(), self.list.root(), held, space).await
    }

    async fn open(&self) -> Result<Opened, SinkError> {
        self.open_with(Space::of_disk()).await
    }

    /// One attempt to fetch.
    async fn fetch(&self, session: &Session) -> FetchEnd {
        match self.open().await {
            Ok(Opened::Done) => FetchEnd::Complete,
            Ok(Opened::Ready(sink)) => self.fetch_into(session, sink).await,
            Err(error) => FetchEnd::Disk(error),
        }
    }

    async fn fetch_into(&self, session: &Session, sink: Sink) -> FetchEnd {
        let stream = session.open_with(PROTOCOL, Priority::Bulk).await.unwrap();
        let size = self.list.layout().size();
        let progress = |held| {
            assert!(held <= size);
            self.held.store(held, Ordering::SeqCst);
            async {}
        };
        // As an application's task would be.
        let fetching: BoxFuture<'_, FetchEnd> = Box::pin(fetch(stream, ID, sink, progress));
        fetching.await
    }

    fn assert_complete(&self) {
        assert!(fs::read(self.destination()).unwrap() == self.bytes, "the file differs");
        assert!(!self.part().exists());
        assert_eq!(fs::read(&self.path).unwrap(), self.bytes);
    }

    fn assert_nothing_but_a_part(&self) {
        assert!(fs::symlink_metadata(self.destination()).is_err());
        let part = fs::read(self.part()).map_or(0, |bytes| bytes.len() as u64);
        assert!(part <= self.list.layout().size());
        assert!(part >= self.held.load(Ordering::SeqCst));
    }
}

/// What a server's handler did, in the order in which it ended.
type Ends = mpsc::UnboundedReceiver<(ServeEnd, Vec<u64>)>;

/// Two nodes; the first serves the protocol with `handler`, the session is the second one's.
struct Pair {
    _server: Node,
    _client: Node,
    session: Session,
}

impl Pair {
    async fn new<F>(handler: impl Fn(Stream, Session) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let network: Arc<dyn Network> = Arc::new(MemoryNetwork::new());
        let server = Node::builder(Identity::generate(), Arc::clone(&network))
            .protocol(PROTOCOL, Access::Identified, handler)
            .bind()
            .await
            .unwrap();
        let client = Node::builder(Identity::generate(), network).bind().await.unwrap();
        let session = client.connect(server.address()).await.unwrap();
        Self { _server: server, _client: client, session }
    }

    /// The first serves one file, as often as it is asked.
    async fn serving(offered: &Offered) -> (Self, Ends) {
        let (ends, ended) = mpsc::unbounded_channel();
        let (path, list) = (offered.path.clone(), offered.list.clone());
        let handler = move |stream, _| {
            let (path, list, ends) = (path.clone(), list.clone(), ends.clone());
            async move {
                let _ = ends.send(serve_once(stream, path, list).await);
            }
        };
        (Self::new(handler).await, ended)
    }
}

/// Serves a file, and says what progress was told.
async fn serve_once(stream: Stream, path: PathBuf, list: PieceList) -> (ServeEnd, Vec<u64>) {
    let told = Mutex::new(Vec::new());
    let end = match asked(stream).await {
        Ok(question) if question.transfer() == ID => {
            let progress = |held| {
                told.lock().unwrap().push(held);
                async {}
            };
            question.serve(path, list, progress).await
        }
        Ok(question) => {
            question.refuse().await;
            ServeEnd::Delivered
        }
        Err(end) => end,
    };
    (end, told.into_inner().unwrap())
}

/// Drops a future after it was polled so many times; `None` then.
async fn cut_after<F: Future>(mut polls: u32, future: F) -> Option<F::Output> {
    let mut future = pin!(future);
    std::future::poll_fn(|context| {
        if polls == 0 {
            return Poll::Ready(None);
        }
        polls -= 1;
        future.as_mut().poll(context).map(Some)
    })
    .await
}
