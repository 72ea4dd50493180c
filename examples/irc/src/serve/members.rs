//! Keeps what depends on the manifest up with it: a newer one comes with a grant, or through the log from who was granted it.

use std::sync::Arc;

use hcp_core::identity::OnionAddress;
use hcp_core::identity::manifest::{Contents, Manifest};
use hcp_core::node::Node;
use hcp_core::owner::Holdings;
use hcp_core::replica::{NodeId, Replica};
use tokio::sync::watch;

use crate::config::Member;
use crate::server::ServerConfig;
use crate::settings::Settings;

/// The members as the log knows them.
pub(super) fn of(contents: &Contents) -> Vec<Member> {
    let member = |member: &hcp_core::identity::manifest::Member| Member {
        address: member.address(),
        node: NodeId(*member.log_key().as_bytes()),
    };
    contents.members().iter().map(member).collect()
}

/// Gives the log the manifests that come with grants; all nodes then have them.
pub(super) async fn give(replica: Replica, mut holdings: watch::Receiver<Arc<Holdings>>) {
    loop {
        let granted = holdings.borrow_and_update().manifest().cloned();
        let newer = granted.filter(|granted| granted.supersedes(&replica.manifest().borrow()));
        if let Some(manifest) = newer
            && let Err(error) = replica.adopt(manifest).await
        {
            tracing::warn!(%error, "a manifest that came with a grant is not taken");
        }
        if holdings.changed().await.is_err() {
            return;
        }
    }
}

/// Follows the manifest that counts: shows clients what it says, and has the members alone find this node's own address, if
/// the network `hides` and all of them have told their keys.
pub(super) async fn follow(
    node: Node,
    hides: bool,
    service: OnionAddress,
    mut manifests: watch::Receiver<Manifest>,
    shown: watch::Sender<ServerConfig>,
) {
    let mut found = manifests.borrow_and_update().contents().discovery_keys();
    while manifests.changed().await.is_ok() {
        let now = manifests.borrow_and_update().clone();
        let contents = now.contents();
        tracing::info!(version = contents.version(), "a later manifest counts");
        let finders = contents.discovery_keys();
        if let Some(keys) = finders.clone().filter(|_| hides && finders != found)
            && let Err(error) = node.restrict_to(keys)
        {
            tracing::error!(%error, "new members may not find this node; it helps to start it again");
        }
        found = finders;
        match Settings::from_shared(contents.shared_configuration()) {
            Ok(settings) => drop(shown.send_replace(settings.server(&service))),
            Err(problem) => tracing::error!(problem, "the settings in the manifest cannot be used; the old ones stay"),
        }
    }
}
