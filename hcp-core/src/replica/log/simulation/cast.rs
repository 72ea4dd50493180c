//! Who takes part: keys and manifests, which are the same in every seed.

use std::sync::{Arc, LazyLock};

use crate::identity::delegation::OwnerKey;
use crate::identity::manifest::{Contents, Manifest, Member, Role, SoftwareVersion};
use crate::identity::{Identity, LogKey, OnionAddress};
use crate::replica::log::keys::{Keys, Sign, Verify};
use crate::replica::log::machine::Config;
use crate::replica::place::NodeId;

struct Known {
    service: OnionAddress,
    owner: OwnerKey,
    members: Vec<(Member, LogKey)>,
}

/// The most nodes in a plan.
const MOST: usize = 9;

static KNOWN: LazyLock<Known> = LazyLock::new(|| {
    let member = |n: u8| {
        let (address, log) = (Identity::from_seed(&[n + 10; 32]).address(), LogKey::from_seed(&[n + 100; 32]));
        (Member::new(address, log.public_key(), Role::Publisher).expect("two keys"), log)
    };
    Known {
        service: Identity::from_seed(&[1; 32]).address(),
        owner: OwnerKey::from_seed(&[2; 32]),
        members: (0..MOST as u8).map(member).collect(),
    }
});

/// The nodes of a run.
pub(in crate::replica::log) struct Cast {
    pub(in crate::replica::log) nodes: Vec<NodeId>,
    pub(in crate::replica::log) keys: Vec<Keys>,
    /// Manifests that the owner has signed, by version less one.
    pub(in crate::replica::log) manifests: Vec<Manifest>,
    /// What each node runs.
    pub(in crate::replica::log) software: Vec<SoftwareVersion>,
}

impl Cast {
    pub(in crate::replica::log) fn new(count: usize, real: bool) -> Self {
        let known = &*KNOWN;
        let nodes: Vec<NodeId> = known.members[..count].iter().map(|(_, key)| NodeId(key.public_key())).collect();
        let keys = (0..count)
            .map(|index| {
                if real {
                    return Keys::new(known.service, known.owner.public_key(), known.members[index].1.clone());
                }
                let node = nodes[index];
                let sign: Sign = Arc::new(move |message| quick(&node, message));
                let verify: Verify = Arc::new(|node, message, signature| quick(node, message) == *signature);
                Keys { service: known.service, owner: known.owner.public_key(), node, sign, verify }
            })
            .collect();
        let mut cast =
            Self { nodes, keys, manifests: Vec::new(), software: vec![SoftwareVersion::new(0, 1, 0); count] };
        cast.publish(|_| true, SoftwareVersion::new(0, 1, 0));
        cast
    }

    /// The owner signs a manifest with these members.
    pub(in crate::replica::log) fn publish(
        &mut self,
        is_member: impl Fn(usize) -> bool,
        lowest: SoftwareVersion,
    ) -> usize {
        let known = &*KNOWN;
        let members = (0..self.nodes.len()).filter(|index| is_member(*index)).map(|i| known.members[i].0.clone());
        let contents = Contents::new(self.manifests.len() as u64 + 1, members.collect()).expect("good members");
        let manifest = Manifest::sign(&known.owner, known.service, contents.lowest_software(lowest));
        self.manifests.push(manifest.expect("the service is no member"));
        self.manifests.len() - 1
    }

    pub(in crate::replica::log) fn config(&self, node: usize, manifest: usize) -> Config {
        Config {
            keys: self.keys[node].clone(),
            manifest: self.manifests[manifest].clone(),
            software: self.software[node],
        }
    }

    pub(super) fn index(&self, node: &NodeId) -> Option<usize> {
        self.nodes.iter().position(|known| known == node)
    }
}

/// A signature that costs nothing, for runs in which nobody tries to make somebody else's.
fn quick(node: &NodeId, message: &[u8]) -> [u8; 64] {
    let hash = blake3::keyed_hash(&node.0, message);
    let mut signature = [0; 64];
    signature[..32].copy_from_slice(hash.as_bytes());
    signature
}
