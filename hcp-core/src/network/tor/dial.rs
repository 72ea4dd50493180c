//! Dialling onion addresses: deadlines for each phase, and tries on fresh circuits after a failure.
//!
//! Arti refetches a descriptor only after an introduction point refused it, and reuses a circuit until it notices
//! that the circuit is dead. So a try after a failure starts from nothing: no descriptor, no circuit.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arti_client::{DataStream, ErrorKind as ArtiErrorKind, HasKind as _, TorClient};
use futures::StreamExt as _;
use tokio::time::timeout;
use tor_rtcompat::PreferredRuntime;
use tracing::debug;

use crate::identity::OnionAddress;
use crate::network::{BoxedTransport, DialError, DialPhase};

/// How long each phase of a dial may take.
#[derive(Clone, Copy, Debug)]
pub(super) struct DialDeadlines {
    pub(super) network: Duration,
    pub(super) connect: Duration,
}

impl Default for DialDeadlines {
    fn default() -> Self {
        Self { network: Duration::from_secs(60), connect: Duration::from_secs(45) }
    }
}

/// Dials on circuits that it shares with no other dialler.
pub(super) struct Dialler {
    /// Replaced when a try on a fresh client succeeds where this one failed, as it holds what made it fail.
    client: Mutex<Arc<TorClient<PreferredRuntime>>>,
    deadlines: DialDeadlines,
}

impl Dialler {
    pub(super) fn new(client: Arc<TorClient<PreferredRuntime>>, deadlines: DialDeadlines) -> Self {
        Self { client: Mutex::new(client), deadlines }
    }

    pub(super) fn isolated(&self) -> Self {
        Self::new(self.client().isolated_client(), self.deadlines)
    }

    pub(super) async fn dial(&self, address: &OnionAddress, port: u16) -> Result<BoxedTransport, DialError> {
        let mut client = self.client();
        timeout(self.deadlines.network, usable(&client))
            .await
            .map_err(|_| DialError::TimedOut { phase: DialPhase::Network })?;

        let target = address.to_string();
        let mut tries = 0;
        loop {
            let error = match timeout(self.deadlines.connect, client.connect((target.as_str(), port))).await {
                Ok(Ok(stream)) => {
                    if tries > 0 {
                        self.replace(client);
                    }
                    return Ok(boxed(stream));
                }
                Ok(Err(e)) => match e.kind() {
                    ArtiErrorKind::OnionServiceNotFound => return Err(DialError::NotFound),
                    // The first try may have met a node that no longer serves the address on a circuit kept from then.
                    kind if is_refusal(kind) && tries > 0 => return Err(DialError::NotFound),
                    _ => DialError::Unreachable(Box::new(e)),
                },
                Err(_) => DialError::TimedOut { phase: DialPhase::Connect },
            };
            if tries == RETRIES {
                return Err(error);
            }
            tries += 1;
            debug!(tries, %error, "dial failed; trying again on fresh circuits");
            client = client.isolated_client();
        }
    }

    fn client(&self) -> Arc<TorClient<PreferredRuntime>> {
        Arc::clone(&self.client.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn replace(&self, client: Arc<TorClient<PreferredRuntime>>) {
        *self.client.lock().unwrap_or_else(PoisonError::into_inner) = client;
    }
}

/// Waits until the network can be used.
async fn usable(client: &TorClient<PreferredRuntime>) {
    let mut events = client.bootstrap_events();
    while !client.bootstrap_status().ready_for_traffic() {
        if events.next().await.is_none() {
            // Only a client that is being dropped has no more events, and this one is borrowed.
            std::future::pending::<()>().await;
        }
    }
}

/// Whether the service itself said no.
///
/// Onion services end a stream to a port that they do not serve without saying why.
fn is_refusal(kind: ArtiErrorKind) -> bool {
    matches!(
        kind,
        ArtiErrorKind::RemoteStreamClosed | ArtiErrorKind::RemoteStreamError | ArtiErrorKind::RemoteConnectionRefused
    )
}

fn boxed(stream: DataStream) -> BoxedTransport {
    Box::new(stream)
}

/// One for a stale descriptor and one for bad luck with circuits.
const RETRIES: u32 = 2;
