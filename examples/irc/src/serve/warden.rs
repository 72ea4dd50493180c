//! `hcp-irc warden --listen`: the stock at an address of the warden's own.

use std::path::{Path, PathBuf};
use std::time::Duration;

use hcp_core::identity::keyfile::Protection;
use hcp_core::identity::{DiscoveryPublicKey, Identity};
use hcp_core::node::{Access, Node};
use hcp_core::owner::Stock;
use hcp_core::service::{WARDEN_PROTOCOL, Warden};
use tokio::sync::mpsc;
use tokio::time::sleep;

use super::{ORDERS, lock, network, stop_signal};
use crate::cli::Place;
use crate::failure::Failure;
use crate::keys::{self, hint, print};
use crate::owner::now;
use crate::report::{Form, Reporter};

/// Serves until it is told to stop.
pub(crate) async fn listen(home: &Path, place: &Place, protection: &Protection, stock: Stock) -> Result<(), Failure> {
    let (orders, _) = mpsc::channel(ORDERS);
    let stop = stop_signal(false, orders)?;
    tokio::pin!(stop);
    keys::make_private_folder(home)?;
    let _lock = lock(home)?;
    let identity = identity(home.join(KEY), protection)?;
    print(&format!("{}\n", identity.address()))?;
    let joined = tokio::select! {
        joined = network::join(home, place, Reporter(Form::Text)) => joined?,
        () = &mut stop => return Ok(()),
    };
    // A stock that is not there yet hides from nobody, and has nothing to hide.
    let mut finders = finders(&stock).await.ok().flatten();
    let mut builder = Node::builder(identity, joined.network());
    if let Some(finders) = finders.clone().filter(|_| joined.hides()) {
        builder = builder.restricted_to(finders);
    }
    let node = builder.protocol(WARDEN_PROTOCOL, Access::Identified, Warden::new(stock.clone())).bind().await;
    let node = node.map_err(|error| Failure::of("serve the warden's address", &error))?;
    let serving = async {
        if node.reachable().await {
            hint("Nodes can reach the warden: hcp-irc serve --warden ADDRESS")?;
        }
        loop {
            sleep(LOOK_FOR_MEMBERS).await;
            match self::finders(&stock).await {
                Ok(now) if joined.hides() && now.is_some() && now != finders => {
                    match node.restrict_to(now.clone().unwrap_or_default()) {
                        Ok(()) => finders = now,
                        Err(error) => tracing::error!(%error, "new members may not find the warden"),
                    }
                }
                Ok(_) => {}
                Err(failure) => tracing::error!(%failure, "there is nothing to hand out"),
            }
        }
    };
    let ended = tokio::select! {
        ended = serving => ended,
        () = &mut stop => Ok(()),
    };
    drop(node);
    joined.leave().await;
    ended
}

/// The warden's key, made when it starts for the first time.
fn identity(path: PathBuf, protection: &Protection) -> Result<Identity, Failure> {
    if path.exists() {
        return keys::load(&path, "warden's key", protection);
    }
    let identity = Identity::generate();
    keys::save(&path, &identity, protection)?;
    Ok(identity)
}

/// The members, whom alone the warden lets find it; none while it does not know all their keys.
async fn finders(stock: &Stock) -> Result<Option<Vec<DiscoveryPublicKey>>, Failure> {
    let stock = stock.clone();
    let read = tokio::task::spawn_blocking(move || stock.discovery_keys(now())).await;
    let read = read.map_err(|error| Failure::of("read the stock", &error))?;
    read.map_err(|error| Failure::of("read the stock", &error))
}

/// The file of the warden's key in its home.
const KEY: &str = "warden.key";
/// How often the warden looks whether the members are others.
const LOOK_FOR_MEMBERS: Duration = Duration::from_secs(60);
