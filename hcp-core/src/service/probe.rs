//! Probes: whether clients reach a node, shown by somebody who did.
//!
//! A probe dials the service as any client does, anonymously and in fresh isolation, and says to whichever node answers who
//! asks, and a random number. The node that got it says so to the prober over their own link: only then has the probe proved
//! anything, as the session key that it reached is that node's.

use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;

use super::driver::Event;
use super::gossip::Nonce;
use super::machine::{Aim, Input, ProbeOutcome};
use super::roster::Roster;
use crate::identity::OnionAddress;
use crate::node::{Handler, Node, Session, Stream};
use crate::session::Priority;

/// The protocol of a probe's stream, at the service's address.
pub const PROBE_PROTOCOL: &str = "hcp/probe/1";

/// Makes a probe and says what came of it.
pub(super) async fn probe(node: Node, service: OnionAddress, me: OnionAddress, nonce: Nonce) -> ProbeOutcome {
    let asked = async {
        let session = node.connect_apart(service).await.ok()?;
        let mut stream = session.open_with(PROBE_PROTOCOL, Priority::Control).await.ok()?;
        let message = [&me.public_key()[..], &nonce].concat();
        stream.send(message).await.ok()?;
        // Whoever got it ends the stream.
        matches!(stream.recv().await, Ok(None)).then_some(())
    };
    match timeout(DEADLINE, asked).await {
        Ok(Some(())) => ProbeOutcome::Answered,
        Ok(None) | Err(_) => ProbeOutcome::Failed(Aim::Anywhere),
    }
}

/// Takes probes that reached this node.
pub(super) struct Probed {
    pub(super) events: mpsc::Sender<Event>,
    pub(super) roster: watch::Receiver<Roster>,
}

impl Handler for Probed {
    fn serve(&self, stream: Stream, _: Session) -> BoxFuture<'static, ()> {
        let (events, roster) = (self.events.clone(), self.roster.clone());
        async move {
            if let Ok(Some(input)) = timeout(READ_DEADLINE, receive(stream, roster)).await {
                // A flood of them is not waited for.
                let _ = events.try_send(input.into());
            }
        }
        .boxed()
    }
}

async fn receive(mut stream: Stream, roster: watch::Receiver<Roster>) -> Option<Input> {
    let message: Bytes = stream.recv().await.ok()??;
    let (prober, nonce) = message.split_first_chunk::<32>()?;
    let nonce = nonce.try_into().ok()?;
    // Strangers can send these too.
    let prober = roster.borrow().by_key(prober)?;
    stream.finish().await;
    // The stream lives until the other side has ended it, too, so that the end is not taken for a reset.
    let _ = stream.recv().await;
    Some(Input::ProbeHeard { prober, nonce })
}

/// A dial may try several introduction points, each of which may be dead.
const DEADLINE: Duration = Duration::from_secs(60);
/// The message comes with the opening of the stream.
const READ_DEADLINE: Duration = Duration::from_secs(20);
