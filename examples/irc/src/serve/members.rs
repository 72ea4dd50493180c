//! Keeps what depends on the members up with the manifests that later grants bring.

use std::sync::Arc;

use hcp_core::identity::manifest::Manifest;
use hcp_core::node::Node;
use hcp_core::owner::Holdings;
use tokio::sync::watch;

/// Has the members, and nobody else, find this node's own address, once all of them have told their keys.
pub(super) async fn hide(node: Node, mut holdings: watch::Receiver<Arc<Holdings>>) {
    let keys = |holdings: &Holdings| holdings.manifest().map(Manifest::contents).and_then(|all| all.discovery_keys());
    let mut known = keys(&holdings.borrow_and_update());
    while holdings.changed().await.is_ok() {
        let now = keys(&holdings.borrow_and_update());
        let Some(finders) = now.clone().filter(|_| now != known) else { continue };
        match node.restrict_to(finders) {
            Ok(()) => known = now,
            Err(error) => tracing::error!(%error, "new members may not find this node; it helps to start it again"),
        }
    }
}
