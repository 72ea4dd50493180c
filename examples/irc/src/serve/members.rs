//! Keeps what depends on the members up with the manifests that later grants bring.

use std::sync::Arc;

use hcp_core::identity::manifest::{Contents, Manifest};
use hcp_core::node::Node;
use hcp_core::owner::Holdings;
use hcp_core::replica::{Member, NodeId, Replica};
use tokio::sync::watch;

/// The members as the log knows them.
pub(super) fn of(contents: &Contents) -> Vec<Member> {
    let member = |member: &hcp_core::identity::manifest::Member| Member {
        address: member.address(),
        node: NodeId(*member.log_key().as_bytes()),
    };
    contents.members().iter().map(member).collect()
}

/// Has the log replicated with the members, whoever they are by now, and them alone find this node's own address, if the
/// network `hides` and all of them have told their keys.
pub(super) async fn follow(node: Node, replica: Replica, hides: bool, mut holdings: watch::Receiver<Arc<Holdings>>) {
    let manifest = |holdings: &Holdings| holdings.manifest().cloned();
    let mut known = manifest(&holdings.borrow_and_update());
    while holdings.changed().await.is_ok() {
        let now = manifest(&holdings.borrow_and_update());
        let Some(new) = now.filter(|new| known.as_ref().is_none_or(|known| new.supersedes(known))) else { continue };
        let finders = |manifest: &Manifest| manifest.contents().discovery_keys();
        let found_before = known.as_ref().and_then(finders);
        // Before the new ones are dialled, which they may answer by dialling.
        if let Some(finders) = finders(&new).filter(|now| hides && Some(now) != found_before.as_ref())
            && let Err(error) = node.restrict_to(finders)
        {
            tracing::error!(%error, "new members may not find this node; it helps to start it again");
        }
        if let Err(error) = replica.set_members(of(new.contents())).await {
            tracing::error!(%error, "the log goes on with the members that it had");
        }
        tracing::info!(version = new.contents().version(), "the members are those of a later manifest");
        known = Some(new);
    }
}
