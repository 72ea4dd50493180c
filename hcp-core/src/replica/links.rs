//! Who links with whom: of two members the one with the lower address dials, and goes on dialling.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::task::{AbortHandle, JoinSet};

use super::{Replica, Shared, link};
use crate::identity::OnionAddress;
use crate::identity::manifest::Manifest;
use crate::node::{Handler, Node, Session, Stream};
use crate::replica::place::NodeId;

/// The protocol of a link; register [`Replica::handler`] for it.
pub const PROTOCOL: &str = "hcp/log/1";
/// The first wait after a link was lost; doubles with every failure.
const BACKOFF_FIRST: Duration = Duration::from_millis(250);
/// The longest wait between attempts.
const BACKOFF_MAX: Duration = Duration::from_secs(5);
/// A link that lived this long was a success.
const HEALTHY: Duration = Duration::from_secs(10);

/// Keeps this node linked with its peers until it is dropped.
#[derive(Debug)]
pub struct Links {
    _tasks: JoinSet<()>,
}

/// A node of the service, as the log knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Peer {
    address: OnionAddress,
    node: NodeId,
}

impl Replica {
    /// Serves links that peers open; register it on the node for [`PROTOCOL`], for identified diallers.
    pub fn handler(&self) -> impl Handler {
        LinkHandler(Arc::clone(&self.shared))
    }

    /// Dials the peers that this node is to dial, from `node`, until the returned guard is dropped.
    #[must_use = "dropping it ends the links"]
    pub fn link(&self, node: &Node) -> Links {
        let mut tasks = JoinSet::new();
        tasks.spawn(keep_all_linked(Arc::clone(&self.shared), node.clone()));
        Links { _tasks: tasks }
    }
}

impl Shared {
    /// The members that count now, but this node itself.
    fn peers_of(&self, manifest: &Manifest) -> Vec<Peer> {
        let members = manifest.contents().members().iter();
        let peers =
            members.map(|member| Peer { address: member.address(), node: NodeId(*member.log_key().as_bytes()) });
        peers.filter(|peer| peer.node != self.node).collect()
    }

    async fn run_link(&self, stream: Stream, peer: Peer) -> link::LinkEnd {
        let number = self.links.fetch_add(1, Ordering::Relaxed);
        link::run(&self.inbox, stream, peer.node, number).await
    }
}

struct LinkHandler(Arc<Shared>);

impl Handler for LinkHandler {
    fn serve(&self, stream: Stream, session: Session) -> BoxFuture<'static, ()> {
        let shared = Arc::clone(&self.0);
        async move {
            let peers = shared.peers_of(&shared.manifest.borrow());
            match peers.into_iter().find(|peer| session.peer().address() == Some(peer.address)) {
                // The machine ends links with whoever is no member any more.
                Some(peer) => {
                    let end = shared.run_link(stream, peer).await;
                    tracing::debug!(node = ?peer.node, %end, "a link has ended");
                }
                None => tracing::warn!("somebody who is no member tried to link"),
            }
        }
        .boxed()
    }
}

/// Dials the members that this node is to dial, whoever they are.
async fn keep_all_linked(shared: Arc<Shared>, node: Node) {
    let mut manifest = shared.manifest.clone();
    let (mut tasks, mut dialled): (JoinSet<()>, Vec<(Peer, AbortHandle)>) = (JoinSet::new(), Vec::new());
    loop {
        let now = shared.peers_of(&manifest.borrow_and_update());
        dialled.retain(|(peer, task)| {
            let stays = now.contains(peer);
            if !stays {
                task.abort();
            }
            stays
        });
        for peer in now.into_iter().filter(|peer| node.address() < peer.address) {
            if !dialled.iter().any(|(other, _)| *other == peer) {
                dialled.push((peer, tasks.spawn(keep_linked(Arc::clone(&shared), node.clone(), peer))));
            }
        }
        tokio::select! {
            changed = manifest.changed() => if changed.is_err() {
                return;
            },
            Some(_) = tasks.join_next() => {}
        }
    }
}

async fn keep_linked(shared: Arc<Shared>, node: Node, peer: Peer) {
    let mut wait = BACKOFF_FIRST;
    while !shared.inbox.is_closed() {
        let began = tokio::time::Instant::now();
        match node.connect(peer.address).await {
            Ok(session) => match session.open(PROTOCOL).await {
                Ok(stream) => {
                    let end = shared.run_link(stream, peer).await;
                    tracing::info!(node = ?peer.node, %end, "a link has ended");
                }
                Err(error) => tracing::info!(node = ?peer.node, %error, "a peer took no link"),
            },
            Err(error) => tracing::info!(node = ?peer.node, %error, "a peer cannot be reached"),
        }
        if began.elapsed() >= HEALTHY {
            wait = BACKOFF_FIRST;
        }
        tokio::time::sleep(wait.mul_f64(rand::random_range(0.5..1.0))).await;
        wait = (wait * 2).min(BACKOFF_MAX);
    }
}
