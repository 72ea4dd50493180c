//! The network that the command line names.

use std::io::{IsTerminal, Write};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use hcp_core::error::ErrorKind;
use hcp_core::network::tor::{BootstrapError, TorNetwork, TorNetworkBuilder};
use hcp_core::network::{LocalNetwork, Network};
use hcp_core::testing::PrivateTorDescription;

use crate::cli::{Common, NetworkChoice};
use crate::failure::{Failure, chain};

/// How long after an attempt that came to nothing the next one begins, at first and at the most.
const PAUSE_FIRST: Duration = Duration::from_secs(5);
const PAUSE_MAX: Duration = Duration::from_secs(300);

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

/// Joins it; `folder` is the profile's, beside which Tor keeps its state. While the network is out of reach it tries again, and
/// has `told` why.
pub(crate) async fn join(common: &Common, folder: &Path, mut told: impl AsyncFnMut(String)) -> Result<Joined, Failure> {
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
            let private = match private {
                Some(path) => {
                    tracing::warn!("a private Tor network protects nobody: it is for tests only");
                    let description = PrivateTorDescription::load(path);
                    let what = "use the description of a private Tor network";
                    Some(description.map_err(|error| Failure::file(what, path, &error))?)
                }
                None => None,
            };
            let mut pause = PAUSE_FIRST;
            loop {
                let mut builder = TorNetwork::builder(home.join("state"), home.join("cache"));
                if let Some(description) = &private {
                    builder = builder.private_network(description.network());
                }
                let error = match bootstrap(builder).await {
                    Ok(network) => return Ok(Joined::Tor(network)),
                    Err(error) => error,
                };
                if !matches!(error.kind(), ErrorKind::Unreachable | ErrorKind::TimedOut) {
                    return Err(Failure::of("join Tor", &error));
                }
                told(chain(&error)).await;
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(PAUSE_MAX);
            }
        }
    }
}

async fn bootstrap(builder: TorNetworkBuilder) -> Result<TorNetwork, BootstrapError> {
    let mut progress = builder.progress();
    let bootstrap = builder.bootstrap();
    tokio::pin!(bootstrap);
    loop {
        tokio::select! {
            network = &mut bootstrap => return network,
            Ok(()) = progress.changed() => {
                let now = progress.borrow_and_update().clone();
                tracing::info!(percent = now.percent, state = now.text, "joining Tor");
                tell_person(now.percent);
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
