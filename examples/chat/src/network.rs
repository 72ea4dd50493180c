//! The network that the command line names.

use std::io::{IsTerminal, Write};
use std::path::Path;
use std::sync::Arc;

use hcp_core::network::tor::TorNetwork;
use hcp_core::network::{LocalNetwork, Network};
use hcp_core::testing::PrivateTorDescription;

use crate::cli::{Common, NetworkChoice};
use crate::failure::Failure;

/// A network that is ready to use.
pub(crate) enum Joined {
    Tor(TorNetwork),
    Local(LocalNetwork),
}

/// Refuses what contradicts itself, before anything is begun.
pub(crate) fn check(common: &Common) -> Result<(), Failure> {
    match (&common.network, &common.private_tor) {
        (NetworkChoice::Local(_), Some(_)) => {
            Err(Failure::new("--private-tor and --network local: contradict each other: leave one out"))
        }
        _ => Ok(()),
    }
}

/// Joins it; `folder` is the profile's, beside which Tor keeps its state.
pub(crate) async fn join(common: &Common, folder: &Path) -> Result<Joined, Failure> {
    match &common.network {
        NetworkChoice::Local(addresses) => {
            tracing::warn!("the local network hides nothing: it is for development only");
            let network = LocalNetwork::new(addresses);
            Ok(Joined::Local(network.map_err(|error| Failure::file("use the folder", addresses, &error))?))
        }
        NetworkChoice::Tor => {
            let private = common.private_tor.as_deref();
            // Guards of the one network must not be tried on the other.
            let home = folder.join(if private.is_some() { "tor-private" } else { "tor" });
            let mut builder = TorNetwork::builder(home.join("state"), home.join("cache"));
            if let Some(path) = private {
                tracing::warn!("a private Tor network protects nobody: it is for tests only");
                let description = PrivateTorDescription::load(path)
                    .map_err(|error| Failure::file("use the description of a private Tor network", path, &error))?;
                builder = builder.private_network(description.network());
            }
            let mut progress = builder.progress();
            let bootstrap = builder.bootstrap();
            tokio::pin!(bootstrap);
            loop {
                tokio::select! {
                    network = &mut bootstrap => {
                        return network.map(Joined::Tor).map_err(|error| Failure::of("join Tor", &error));
                    }
                    Ok(()) = progress.changed() => {
                        let now = progress.borrow_and_update().clone();
                        tracing::info!(percent = now.percent, state = now.text, "joining Tor");
                        tell_person(now.percent);
                    }
                }
            }
        }
    }
}

impl Joined {
    pub(crate) fn network(&self) -> Arc<dyn Network> {
        match self {
            Self::Tor(network) => Arc::new(network.clone()),
            Self::Local(network) => Arc::new(network.clone()),
        }
    }
}

/// A first start on a slow line takes minutes; somebody who looks at a terminal should see that it goes on.
fn tell_person(percent: u8) {
    let mut err = std::io::stderr().lock();
    if err.is_terminal() {
        let _ = writeln!(err, "joining Tor: {percent} %");
    }
}
