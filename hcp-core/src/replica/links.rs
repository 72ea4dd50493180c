//! Who links with whom: of two members the one with the lower address dials, and goes on dialling.

use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::task::{AbortHandle, JoinSet};

use super::peers::Member;
use super::{Replica, Shared, link};
use crate::node::{Handler, Node, Session, Stream};

/// The protocol of a link; register [`Replica::handler`] for it.
pub const PROTOCOL: &str = "hcp/replica/1";
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

struct LinkHandler(Arc<Shared>);

impl Handler for LinkHandler {
    fn serve(&self, stream: Stream, session: Session) -> BoxFuture<'static, ()> {
        let shared = Arc::clone(&self.0);
        async move {
            match session.peer().address().and_then(|address| shared.member_at(address)) {
                Some(member) if member.node != shared.log.node && !shared.has_stopped() => {
                    let mut members = shared.members.subscribe();
                    tokio::select! {
                        error = link::run(shared, stream, member) => {
                            tracing::debug!(node = ?member.node, %error, "a link has ended");
                        }
                        // The replica holds the sender for longer than a link lasts.
                        _ = members.wait_for(|members| !members.contains(&member)) => {
                            tracing::info!(node = ?member.node, "a link has ended: the peer is no member any more");
                        }
                    }
                }
                Some(_) => {}
                None => tracing::warn!("somebody who is no member tried to link"),
            }
        }
        .boxed()
    }
}

/// Dials the members that this node is to dial, whoever they are.
async fn keep_all_linked(shared: Arc<Shared>, node: Node) {
    let mut members = shared.members.subscribe();
    let (mut tasks, mut dialled): (JoinSet<()>, Vec<(Member, AbortHandle)>) = (JoinSet::new(), Vec::new());
    loop {
        let now = Arc::clone(&members.borrow_and_update());
        dialled.retain(|(member, task)| {
            let stays = now.contains(member);
            if !stays {
                task.abort();
            }
            stays
        });
        for member in now.iter().filter(|member| node.address() < member.address) {
            if !dialled.iter().any(|(other, _)| other == member) {
                dialled.push((*member, tasks.spawn(keep_linked(Arc::clone(&shared), node.clone(), *member))));
            }
        }
        tokio::select! {
            // Never fails: the sender is in what this task holds.
            _ = members.changed() => {}
            Some(_) = tasks.join_next() => {}
        }
    }
}

async fn keep_linked(shared: Arc<Shared>, node: Node, member: Member) {
    let mut wait = BACKOFF_FIRST;
    loop {
        let began = tokio::time::Instant::now();
        match node.connect(member.address).await {
            Ok(session) => match session.open(PROTOCOL).await {
                Ok(stream) => {
                    let error = link::run(Arc::clone(&shared), stream, member).await;
                    tracing::info!(node = ?member.node, %error, "a link has ended");
                    if shared.has_stopped() {
                        return;
                    }
                }
                Err(error) => tracing::info!(node = ?member.node, %error, "a peer took no link"),
            },
            Err(error) => tracing::info!(node = ?member.node, %error, "a peer cannot be reached"),
        }
        if began.elapsed() >= HEALTHY {
            wait = BACKOFF_FIRST;
        }
        tokio::time::sleep(wait.mul_f64(rand::random_range(0.5..1.0))).await;
        wait = (wait * 2).min(BACKOFF_MAX);
    }
}
