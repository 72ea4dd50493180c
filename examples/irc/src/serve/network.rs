//! The network that a node joined.

use std::path::Path;
use std::sync::Arc;

use hcp_core::network::tor::TorNetwork;
use hcp_core::network::{LocalNetwork, Network};

use crate::cli::{NetworkChoice, Place};
use crate::failure::Failure;
use crate::private_tor;
use crate::report::{Report, Reporter};

/// A network that is ready to use.
pub(super) enum Joined {
    Tor(TorNetwork),
    Local(LocalNetwork),
}

/// Joins the network that the command line names; what it keeps is in `home`.
pub(super) async fn join(home: &Path, place: &Place, reporter: Reporter) -> Result<Joined, Failure> {
    match (&place.network, &place.private_tor) {
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
            let home = home.join(if private.is_some() { "tor-private" } else { "tor" });
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

    /// Whether an address can be hidden from strangers there.
    pub(super) fn hides(&self) -> bool {
        matches!(self, Self::Tor(_))
    }

    /// Leaves the network.
    pub(super) async fn leave(self) {
        if let Self::Tor(network) = self {
            network.shutdown().await;
        }
    }
}
