//! HCP, the Hidden Communication Protocol: people and services that talk over Tor onion services, without a server that
//! must be trusted or must stay up.
//!
//! - [`identity`]: an onion key and its address, which is the id of a person, a node or a service.
//! - [`network`]: where streams come from: Tor (Arti, in process), memory for tests, loopback for development.
//! - [`node`]: an identity on a network; it opens [sessions](node::Session) with peers and serves streams by protocol.
//! - [`owner`]: what the owner of a replicated service does offline, and what its nodes hold of it.
//! - [`messenger`]: contacts, presence, messages and files between two people.
//! - [`replica`]: a log that the nodes of one service share, which lives while one of them lives.
//!
//! A node that answers, and one that asks. On Tor only the network differs:
//!
//! ```
//! use std::sync::Arc;
//! use hcp_core::identity::Identity;
//! use hcp_core::network::{MemoryNetwork, Network};
//! use hcp_core::node::{Access, Node, Session, Stream};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let network: Arc<dyn Network> = Arc::new(MemoryNetwork::new());
//! let echo = |mut stream: Stream, _: Session| async move {
//!     while let Ok(Some(message)) = stream.recv().await {
//!         let _ = stream.send(message).await;
//!     }
//! };
//! let server = Node::builder(Identity::generate(), Arc::clone(&network))
//!     .protocol("example/echo/1", Access::Anyone, echo)
//!     .bind()
//!     .await?;
//! let client = Node::builder(Identity::generate(), network).bind().await?;
//!
//! let session = client.connect(server.address()).await?;
//! let mut stream = session.open("example/echo/1").await?;
//! stream.send("hello").await?;
//! assert_eq!(stream.recv().await?.as_deref(), Some(&b"hello"[..]));
//! # Ok(())
//! # }
//! ```
//!
//! Features, each of which only adds: `tor`, `replica` and `messenger` (default), `testing`. Without `tor` nothing of Arti is
//! compiled. `docs/architecture.md` in the crate says where things live.

pub mod error;
pub mod identity;
#[cfg(feature = "messenger")]
pub mod messenger;
pub mod network;
pub mod node;
pub mod owner;
#[cfg(feature = "replica")]
pub mod replica;
#[cfg(test)]
mod seeds;
pub mod service;
pub mod session;
#[cfg(any(feature = "messenger", feature = "replica"))]
mod store;
#[cfg(feature = "testing")]
pub mod testing;
mod wire;
