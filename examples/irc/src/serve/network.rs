//! The network that a node joined, and the shared address on it.

use std::sync::Arc;

use hcp_core::identity::Identity;
use hcp_core::network::tor::{SameKeyService, TorNetwork};
use hcp_core::network::{Listener, LocalNetwork, Network};
use hcp_core::replica::{NodeId, Peers};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::cli::{NetworkChoice, Serve};
use crate::failure::Failure;
use crate::private_tor;
use crate::report::{Report, Reporter};
use crate::shared_address::Succession;

/// A network that is ready to use.
pub(super) enum Joined {
    Tor(TorNetwork),
    Local(LocalNetwork),
}

/// Joins the network that the command line names.
pub(super) async fn join(command: &Serve, reporter: Reporter) -> Result<Joined, Failure> {
    match (&command.network, &command.private_tor) {
        (NetworkChoice::Local(_), Some(_)) => {
            Err(Failure::new("--private-tor and --network local: contradict each other: leave one out"))
        }
        (NetworkChoice::Local(folder), None) => {
            tracing::warn!("the local network hides nothing: it is for development only");
            let network = LocalNetwork::new(folder);
            Ok(Joined::Local(network.map_err(|error| Failure::file("use the folder", folder, &error))?))
        }
        (NetworkChoice::Tor, private) => {
            // Guards of the one network must not be tried on the other.
            let home = command.home.join(if private.is_some() { "tor-private" } else { "tor" });
            let mut builder = TorNetwork::builder(home.join("state"), home.join("cache"));
            if let Some(path) = private {
                tracing::warn!("a private Tor network protects nobody: it is for tests only");
                builder = builder.private_network(private_tor::load(path)?);
            }
            let mut progress = builder.progress();
            let bootstrap = builder.bootstrap();
            tokio::pin!(bootstrap);
            loop {
                tokio::select! {
                    network = &mut bootstrap => {
                        let network = network.map_err(|error| Failure::of("join Tor", &error))?;
                        reporter.tell(&Report::Bootstrap { percent: 100, message: "ready".into() });
                        return Ok(Joined::Tor(network));
                    }
                    Ok(()) = progress.changed() => {
                        let now = progress.borrow_and_update().clone();
                        if now.percent < 100 {
                            reporter.tell(&Report::Bootstrap { percent: now.percent, message: now.text });
                        }
                    }
                }
            }
        }
    }
}

impl Joined {
    pub(super) fn network(&self) -> Arc<dyn Network> {
        match self {
            Self::Tor(network) => Arc::new(network.clone()),
            Self::Local(network) => Arc::new(network.clone()),
        }
    }

    /// Serves the shared address.
    pub(super) async fn serve(&self, service: &Identity, port: u16) -> Result<(Listener, Takeover), Failure> {
        let served = match self {
            Self::Tor(network) => SameKeyService::launch(network, service, &[port])
                .await
                .map(|(listener, shared)| (listener, Takeover(Some(shared)))),
            Self::Local(network) => network.listen(service, &[port]).await.map(|listener| (listener, Takeover(None))),
        };
        served.map_err(|error| Failure::of("serve the shared address", &error))
    }

    /// Leaves the network.
    pub(super) async fn leave(self) {
        if let Self::Tor(network) = self {
            network.shutdown().await;
        }
    }
}

/// Takes the shared address over when it is this node's turn. The local network needs none of it: its diallers try all
/// nodes.
pub(super) struct Takeover(Option<SameKeyService>);

impl Takeover {
    pub(super) async fn run(self, reporter: Reporter, own: NodeId, mut peers: watch::Receiver<Peers>) {
        let Some(shared) = self.0 else { return };
        let mut succession = Succession::new(own);
        loop {
            succession.note(&peers.borrow_and_update(), Instant::now());
            let due = async {
                match succession.next() {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                changed = peers.changed() => if changed.is_err() { return },
                () = due => {
                    if succession.is_heir(Instant::now()) {
                        reporter.tell(&Report::Relaunch { reason: "a node is gone".into() });
                        if let Err(error) = shared.relaunch().await {
                            tracing::error!(%error, "cannot announce the shared address anew; will try again");
                            succession.failed(Instant::now());
                        }
                    }
                }
            }
        }
    }
}
