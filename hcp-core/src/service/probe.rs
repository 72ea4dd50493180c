//! Probes: whether clients reach a node, shown by somebody who did.
//!
//! A probe dials the service as any client does, anonymously and in fresh isolation, and says to whichever node answers who
//! asks, and a random number. The node that got it says so to the prober over their own link: only then has the probe proved
//! anything, as the session key that it reached is that node's.
//!
//! Anybody can open such a stream, so a probe is signed: nobody has the nodes talk to a member that does not probe.

use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;

use super::driver::Event;
use super::gossip::Nonce;
use super::machine::Input;
use super::roster::Roster;
use crate::identity::OnionAddress;
use crate::node::{Handler, Node, Session, Stream};
use crate::session::Priority;

/// The protocol of a probe's stream, at the service's address.
pub const PROBE_PROTOCOL: &str = "hcp/probe/1";

/// Makes a probe, and says whether some node of the service answered.
pub(super) async fn probe(
    node: Node,
    service: OnionAddress,
    nonce: Nonce,
    sign: impl FnOnce(&[u8]) -> [u8; 64],
) -> bool {
    let me = node.address();
    let signature = sign(&signed(service, me, &nonce));
    let asked = async {
        let session = node.connect_apart(service).await.ok()?;
        let mut stream = session.open_with(PROBE_PROTOCOL, Priority::Control).await.ok()?;
        let message = [&me.public_key()[..], &nonce, &signature].concat();
        stream.send(message).await.ok()?;
        // Whoever got it ends the stream.
        matches!(stream.recv().await, Ok(None)).then_some(())
    };
    matches!(timeout(DEADLINE, asked).await, Ok(Some(())))
}

/// What a prober signs with the key of its own address.
fn signed(service: OnionAddress, prober: OnionAddress, nonce: &Nonce) -> Vec<u8> {
    [&b"HCP/1 service probe\0"[..], service.public_key(), prober.public_key(), nonce].concat()
}

/// Takes probes that reached this node.
pub(super) struct Probed {
    pub(super) service: OnionAddress,
    pub(super) events: mpsc::Sender<Event>,
    pub(super) roster: watch::Receiver<Roster>,
}

impl Handler for Probed {
    fn serve(&self, stream: Stream, _: Session) -> BoxFuture<'static, ()> {
        let (service, events, roster) = (self.service, self.events.clone(), self.roster.clone());
        async move {
            if let Ok(Some(input)) = timeout(READ_DEADLINE, receive(stream, service, roster)).await {
                // A flood of them is not waited for.
                let _ = events.try_send(input.into());
            }
        }
        .boxed()
    }
}

async fn receive(mut stream: Stream, service: OnionAddress, roster: watch::Receiver<Roster>) -> Option<Input> {
    let message: Bytes = stream.recv().await.ok()??;
    let (prober, rest) = message.split_first_chunk::<32>()?;
    let (nonce, signature) = rest.split_first_chunk()?;
    let (nonce, signature): (Nonce, [u8; 64]) = (*nonce, signature.try_into().ok()?);
    // Strangers can send these too.
    let prober = roster.borrow().by_key(prober)?;
    prober.verify(&signed(service, prober, &nonce), &signature).ok()?;
    stream.finish().await;
    // The stream lives until the other side has ended it, too, so that the end is not taken for a reset.
    let _ = stream.recv().await;
    Some(Input::ProbeHeard { prober, nonce })
}

/// A dial may try several introduction points, each of which may be dead.
const DEADLINE: Duration = Duration::from_secs(60);
/// The message comes with the opening of the stream.
const READ_DEADLINE: Duration = Duration::from_secs(20);

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::identity::Identity;
    use crate::network::{MemoryNetwork, Network};
    use crate::node::Access;
    use crate::service::roster::Role;

    #[tokio::test(start_paused = true)]
    async fn a_probe_counts_only_for_the_member_that_signed_it() {
        let network: Arc<dyn Network> = Arc::new(MemoryNetwork::new());
        let (reached, member) = (Identity::from_seed(&[1; 32]), Identity::from_seed(&[2; 32]));
        let service = reached.address();
        let (events, mut told) = mpsc::channel(16);
        let (_granted, roster) = watch::channel(Roster::new([(member.address(), Role::Listed)]).unwrap());
        let probed = Probed { service, events, roster };
        let builder = Node::builder(reached, Arc::clone(&network)).protocol(PROBE_PROTOCOL, Access::Anyone, probed);
        let _reached = builder.bind().await.unwrap();

        // Somebody who knows the member's address.
        let stranger = Node::builder(Identity::from_seed(&[3; 32]), Arc::clone(&network)).bind().await.unwrap();
        let session = stranger.connect_anonymously(service).await.unwrap();
        let (key, nonce) = (member.address(), [7; 16]);
        let other_service = member.sign(&signed(key, key, &nonce));
        let other_nonce = member.sign(&signed(service, key, &[8; 16]));
        for signature in [&[][..], &[0; 64], &other_service, &other_nonce] {
            let mut stream = session.open(PROBE_PROTOCOL).await.unwrap();
            stream.send([&key.public_key()[..], &nonce, signature].concat()).await.unwrap();
            assert!(stream.recv().await.is_err(), "it is not taken");
        }
        assert!(told.try_recv().is_err());

        let prober = Node::builder(member.clone(), network).bind().await.unwrap();
        assert!(probe(prober, service, nonce, |message| member.sign(message)).await);
        let Some(Event::Input(input)) = told.recv().await else { panic!("nothing else is told") };
        assert!(matches!(*input, Input::ProbeHeard { prober, nonce: [7, ..] } if prober == key));
    }
}
