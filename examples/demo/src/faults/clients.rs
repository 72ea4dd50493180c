//! Clients of the three kinds, ready to connect at a moment's notice.
//!
//! A [`Ticket`] is good for one connect. Tickets are made before the fault: that of a client with a cached descriptor has
//! connected then, and has lost its circuit since; that of a fresh one knows nothing of the service.

mod arti;
mod cut;
mod hcp;
mod tor;

use std::time::Duration;

use futures::future::BoxFuture;
use hcp_core::testing::PrivateTorNetwork;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;

pub(crate) use self::arti::ArtiClients;
pub use self::hcp::{HcpClients, Protocol};
pub(crate) use self::tor::TorClients;
use super::attempt::{Kind, Knowledge};
use crate::Result;

/// The port of IRC at the service's address.
pub(crate) const IRC: u16 = 6667;

/// Connects once; gives the moment at which it began, which may be later than that of the call, and what came of it.
pub type Connect = Box<dyn FnOnce() -> BoxFuture<'static, (tokio::time::Instant, Result<()>)> + Send>;

/// One connect that can be made.
pub struct Ticket {
    /// Who connects.
    pub kind: Kind,
    /// What it knows.
    pub knowledge: Knowledge,
    /// Does it.
    pub connect: Connect,
}

impl std::fmt::Debug for Ticket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ticket").field("kind", &self.kind).field("knowledge", &self.knowledge).finish_non_exhaustive()
    }
}

/// How many clients of each sort are wanted.
#[derive(Clone, Copy, Debug)]
pub struct Wanted {
    /// Connects of each kind, half of them fresh.
    pub connects: usize,
    /// In how many rounds they come; who is fresh has ten seconds between two.
    pub rounds: usize,
}

impl Wanted {
    fn cached(self) -> usize {
        self.connects / 2
    }

    fn fresh(self) -> usize {
        self.connects - self.cached()
    }
}

/// All clients of the suite.
#[derive(Debug)]
pub struct Clients {
    arti: ArtiClients,
    tor: TorClients,
    hcp: HcpClients,
    network: std::net::IpAddr,
}

impl Clients {
    /// Starts them on a private network.
    ///
    /// # Errors
    /// When one does not start.
    pub async fn start(tor: &PrivateTorNetwork, connects: usize, protocol: Protocol) -> Result<Self> {
        let network = tor.description().network();
        let first = network.authorities.first().ok_or("the private network has no authority")?;
        let (arti, ctor, hcp) = tokio::try_join!(
            ArtiClients::start(&network),
            TorClients::start(tor, connects),
            HcpClients::start(&network, protocol),
        )?;
        Ok(Self { arti, tor: ctor, hcp, network: first.or_address.ip() })
    }

    /// Lets Arti learn how long circuits take on this network. Until it has, it waits for minutes where seconds would do.
    ///
    /// # Errors
    /// When the service cannot be reached.
    pub async fn learn(&self, address: &str) -> Result<()> {
        self.arti.learn(address).await
    }

    /// Makes tickets to `address`, which must be healthy.
    ///
    /// # Errors
    /// When a client that is to have the descriptor cannot get it.
    pub async fn tickets(&self, address: &str, wanted: Wanted) -> Result<Vec<Ticket>> {
        let mut tickets = self.arti.tickets(address, wanted).await?;
        let connected = wanted.cached() / 2;
        let cached = self.hcp.warm(address, wanted.cached() - connected).await?;
        // Closes the circuits of those that are to have a cached descriptor.
        cut::links_to(self.network)?;
        self.arti.settle(address).await?;
        let connected = self.hcp.warm(address, connected).await?;
        tickets.extend(self.hcp.tickets(address, cached, connected, wanted.fresh()).await?);
        tickets.extend(self.tor.tickets(address, wanted).await?);
        Ok(tickets)
    }
}

/// Says something to the service and waits for the first bytes of its answer.
///
/// Does not register: what is measured is the way there, and nobody else is to hear of it.
async fn greet(mut stream: impl AsyncRead + AsyncWrite + Unpin) -> Result<()> {
    stream.write_all(b"CAP LS 302\r\n").await?;
    stream.flush().await?;
    let mut first = [0; 64];
    let length = stream.read(&mut first).await?;
    welcome(&first[..length])?;
    // Whether it hears that is its own affair.
    let _ = stream.write_all(b"QUIT\r\n").await;
    let _ = stream.flush().await;
    Ok(())
}

/// Whether the first words of the service say that it serves.
fn welcome(first: &[u8]) -> Result<()> {
    match first {
        [] => Err("the service hung up without a word".into()),
        _ if first.starts_with(b"ERROR") => {
            Err(format!("the service refused: {}", String::from_utf8_lossy(first).trim_end()).into())
        }
        _ => Ok(()),
    }
}

/// Gives up after [`PATIENCE`].
async fn patiently<T>(attempt: impl Future<Output = Result<T>>) -> Result<T> {
    timeout(PATIENCE, attempt).await.map_err(|_| format!("nothing came within {PATIENCE:?}"))?
}

/// Before the fault: tries a few times, as it is not this that is measured.
async fn before<T>(what: &str, mut attempt: impl AsyncFnMut() -> Result<T>) -> Result<T> {
    let mut tries = 1;
    loop {
        match attempt().await {
            Err(_) if tries < TRIES => tries += 1,
            end => return end.map_err(|error| format!("{what}, before the fault: {error}").into()),
        }
        tokio::time::sleep(AGAIN * tries).await;
    }
}

const TRIES: u32 = 5;

/// Longer than any stock client tries that is of use to a person.
const PATIENCE: Duration = Duration::from_secs(300);

/// The wait between a failed try and the next, where somebody tries until it succeeds.
const AGAIN: Duration = Duration::from_millis(250);
