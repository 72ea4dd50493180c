//! Who signs and who verifies: the node's log key and everybody's public ones, or what a simulation puts in their place.

use std::fmt;
use std::sync::Arc;

use super::wire::SIGNATURE;
use crate::identity::LogKey;
use crate::identity::delegation::PublicKey;
use crate::replica::place::NodeId;

/// Signs with this node's log key.
pub(crate) type Sign = Arc<dyn Fn(&[u8]) -> [u8; SIGNATURE] + Send + Sync>;
/// Whether a node has signed a message.
pub(crate) type Verify = Arc<dyn Fn(&NodeId, &[u8], &[u8; SIGNATURE]) -> bool + Send + Sync>;

/// The keys that a node of a service works with.
#[derive(Clone)]
pub(crate) struct Keys {
    /// The key of the service's address; whatever is signed names it.
    pub(crate) service: crate::identity::OnionAddress,
    /// Who signs manifests.
    pub(crate) owner: PublicKey,
    pub(crate) node: NodeId,
    pub(crate) sign: Sign,
    pub(crate) verify: Verify,
}

impl Keys {
    /// The real ones.
    pub(crate) fn new(service: crate::identity::OnionAddress, owner: PublicKey, key: LogKey) -> Self {
        let node = NodeId(key.public_key());
        let sign: Sign = Arc::new(move |message| key.sign(message));
        let verify: Verify = Arc::new(|node, message, signature| LogKey::verify(&node.0, message, signature).is_ok());
        Self { service, owner, node, sign, verify }
    }

    pub(crate) fn service_key(&self) -> &[u8; 32] {
        self.service.public_key()
    }
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keys").field("node", &self.node).finish_non_exhaustive()
    }
}
