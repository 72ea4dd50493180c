//! HCP's own dialler.

use std::sync::Arc;

use clap::ValueEnum;
use futures::future::BoxFuture;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use hcp_core::identity::{Identity, OnionAddress};
use hcp_core::network::tor::{PrivateNetwork, TorNetwork};
use hcp_core::network::{BoxedTransport, DialError, ListenError, Listener, MemoryNetwork, Network};
use hcp_core::node::Node;
use tempfile::TempDir;
use tokio::time::Instant;

use super::{Connect, IRC, Kind, Knowledge, Ticket, before, greet, patiently, welcome};
use crate::Result;

/// What is spoken with the service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Protocol {
    /// An HCP session, and IRC in a stream of it.
    Session,
    /// Plain IRC on its own port.
    Plain,
}

/// The protocol of streams that carry IRC.
const PROTOCOL: &str = "hcp/irc/1";

/// Diallers that share guards and directory, and nothing else.
#[derive(Debug)]
pub struct HcpClients {
    network: TorNetwork,
    protocol: Protocol,
    _folder: TempDir,
}

impl HcpClients {
    /// Joins the network.
    ///
    /// # Errors
    /// When that fails.
    pub async fn start(network: &PrivateNetwork, protocol: Protocol) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let builder = TorNetwork::builder(folder.path().join("state"), folder.path().join("cache"));
        let network = builder.private_network(network.clone()).bootstrap().await?;
        Ok(Self { network, protocol, _folder: folder })
    }

    /// A dialler with nothing behind it.
    pub(in crate::faults) async fn dialler(&self) -> Result<HcpDialler> {
        let network = self.network.isolated();
        let node = match self.protocol {
            Protocol::Plain => None,
            Protocol::Session => {
                let network = Arc::new(DialOnly { tor: network.clone(), own: MemoryNetwork::new() });
                Some(Node::builder(Identity::generate(), network).bind().await?)
            }
        };
        Ok(HcpDialler { network, node })
    }

    /// Diallers that have connected.
    pub(super) async fn warm(&self, address: &str, count: usize) -> Result<Vec<HcpDialler>> {
        let address: OnionAddress = address.parse()?;
        stream::iter(0..count)
            .map(|_| async {
                let dialler = self.dialler().await?;
                before("HCP", async || dialler.connect(address).await).await?;
                Ok(dialler)
            })
            .buffer_unordered(AT_ONCE)
            .try_collect()
            .await
    }

    pub(super) async fn tickets(
        &self,
        address: &str,
        cached: Vec<HcpDialler>,
        connected: Vec<HcpDialler>,
        fresh: usize,
    ) -> Result<Vec<Ticket>> {
        let address: OnionAddress = address.parse()?;
        let cached = cached.into_iter().map(|dialler| (Knowledge::Cached, dialler));
        let mut all: Vec<_> =
            cached.chain(connected.into_iter().map(|dialler| (Knowledge::Connected, dialler))).collect();
        for _ in 0..fresh {
            all.push((Knowledge::Fresh, self.dialler().await?));
        }
        Ok(all
            .into_iter()
            .map(|(knowledge, dialler)| {
                let connect: Connect = Box::new(move || {
                    Box::pin(async move {
                        let begun = Instant::now();
                        (begun, dialler.connect(address).await)
                    })
                });
                Ticket { kind: Kind::Hcp, knowledge, connect }
            })
            .collect())
    }
}

/// One dialler; what it has learned stays with it.
#[derive(Debug)]
pub(in crate::faults) struct HcpDialler {
    network: TorNetwork,
    node: Option<Node>,
}

impl HcpDialler {
    /// Connects, and waits for the first bytes.
    pub(in crate::faults) async fn connect(&self, address: OnionAddress) -> Result<()> {
        patiently(async {
            let Some(node) = &self.node else { return greet(self.network.dial(address, IRC).await?).await };
            let session = node.connect_anonymously(address).await?;
            let mut stream = session.open(PROTOCOL).await?;
            stream.send(&b"CAP LS 302\r\n"[..]).await?;
            welcome(&stream.recv().await?.unwrap_or_default())
        })
        .await
    }
}

/// Dials over Tor; a client's own address is not served there.
#[derive(Debug)]
struct DialOnly {
    tor: TorNetwork,
    own: MemoryNetwork,
}

impl Network for DialOnly {
    fn dial(&self, address: OnionAddress, port: u16) -> BoxFuture<'_, std::result::Result<BoxedTransport, DialError>> {
        self.tor.dial(address, port)
    }

    fn dial_isolated(
        &self,
        address: OnionAddress,
        port: u16,
    ) -> BoxFuture<'_, std::result::Result<BoxedTransport, DialError>> {
        self.tor.dial_isolated(address, port)
    }

    fn listen<'a>(
        &'a self,
        identity: &'a Identity,
        ports: &'a [u16],
    ) -> BoxFuture<'a, std::result::Result<Listener, ListenError>> {
        self.own.listen(identity, ports)
    }
}

/// More at once would measure the machine.
const AT_ONCE: usize = 6;
