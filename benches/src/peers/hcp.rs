//! The work over a stream of this library's.

use std::sync::Arc;

use ::bytes::Bytes;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use hcp_core::identity::Identity;
use hcp_core::network::Network;
use hcp_core::node::{Access, Node, NodeBuilder, Session, Stream};
use hcp_core::session::Priority;

use super::{Order, PIECE, Peer, TcpNetwork, far, noise};
use crate::Failure;

/// The protocol whose handler does what it is asked.
const PROTOCOL: &str = "bench/orders/1";

/// A stream whose other end does what it is asked.
pub struct HcpPeer {
    stream: Stream,
    piece: Bytes,
    /// Kept for the stream's sake.
    _session: Session,
    _nodes: Vec<Node>,
}

impl HcpPeer {
    /// A session over loopback TCP, without lanes.
    pub async fn over_tcp(priority: Priority) -> Result<Self, Failure> {
        let network: Arc<dyn Network> = Arc::new(TcpNetwork::new());
        let server = serve_orders(Node::builder(Identity::generate(), Arc::clone(&network)));
        let server = far(async { Ok(server.bind().await?) }).await?;
        let client = Node::builder(Identity::generate(), network).lanes(0).bind().await?;
        let session = client.connect(server.address()).await?;
        Self::new(session, priority, vec![server, client]).await
    }

    /// A stream of a session; `nodes` live as long as it.
    pub async fn new(session: Session, priority: Priority, nodes: Vec<Node>) -> Result<Self, Failure> {
        let stream = session.open_with(PROTOCOL, priority).await?;
        Ok(Self { stream, piece: noise(PIECE), _session: session, _nodes: nodes })
    }

    pub fn session(&self) -> &Session {
        &self._session
    }

    async fn answer(&mut self) -> Result<Bytes, Failure> {
        Ok(self.stream.recv().await?.ok_or("the stream ended before the answer")?)
    }
}

impl Peer for HcpPeer {
    fn transfer(&mut self, bytes: u64) -> BoxFuture<'_, Result<(), Failure>> {
        async move {
            self.stream.send(Bytes::copy_from_slice(&Order::Transfer(bytes).to_bytes())).await?;
            let mut left = bytes;
            while left > 0 {
                let length = left.min(PIECE as u64) as usize;
                self.stream.send(self.piece.slice(..length)).await?;
                left -= length as u64;
            }
            self.answer().await?;
            Ok(())
        }
        .boxed()
    }

    fn round_trips(&mut self, count: u64, length: usize) -> BoxFuture<'_, Result<(), Failure>> {
        async move {
            let order = Order::RoundTrips { count, length: u32::try_from(length)? };
            self.stream.send(Bytes::copy_from_slice(&order.to_bytes())).await?;
            for _ in 0..count {
                self.stream.send(self.piece.slice(..length)).await?;
                self.answer().await?;
            }
            Ok(())
        }
        .boxed()
    }

    fn messages(&mut self, count: u64, length: usize) -> BoxFuture<'_, Result<(), Failure>> {
        async move {
            self.stream.send(Bytes::copy_from_slice(&Order::Messages(count).to_bytes())).await?;
            for _ in 0..count {
                self.stream.send(self.piece.slice(..length)).await?;
            }
            self.answer().await?;
            Ok(())
        }
        .boxed()
    }
}

/// Lets the node do what it is asked.
#[must_use]
pub fn serve_orders(node: NodeBuilder) -> NodeBuilder {
    node.protocol(PROTOCOL, Access::Anyone, order_handler)
}

/// Does what it is asked until the stream ends.
pub async fn order_handler(mut stream: Stream, _session: Session) {
    // An end in the middle shows on the side that waits for the answer.
    let _ = serve(&mut stream).await;
}

async fn serve(stream: &mut Stream) -> Result<(), Failure> {
    while let Some(order) = stream.recv().await? {
        match Order::from_bytes(order.as_ref().try_into()?)? {
            Order::Transfer(mut left) => {
                while left > 0 {
                    let message = stream.recv().await?.ok_or("the stream ended inside a transfer")?;
                    left = left.checked_sub(message.len() as u64).ok_or("more than announced")?;
                }
                stream.send(Bytes::from_static(&[1])).await?;
            }
            Order::RoundTrips { count, .. } => {
                for _ in 0..count {
                    let message = stream.recv().await?.ok_or("the stream ended between messages")?;
                    stream.send(message).await?;
                }
            }
            Order::Messages(count) => {
                for _ in 0..count {
                    stream.recv().await?.ok_or("the stream ended between messages")?;
                }
                stream.send(Bytes::from_static(&[1])).await?;
            }
        }
    }
    Ok(())
}
