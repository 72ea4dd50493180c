//! The identities of a private Tor network, for tests.

use std::net::SocketAddr;

use arti_client::config::TorClientConfigBuilder;
use arti_client::config::dir::{AuthorityContacts, FallbackDir};

/// A Tor network other than the public one.
///
/// It protects nobody: whoever runs the authorities decides who the relays are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PrivateNetwork {
    /// The directory authorities, through which the directory is fetched at first.
    pub authorities: Vec<PrivateAuthority>,
}

/// A directory authority of a private network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PrivateAuthority {
    /// The fingerprint of its voting key.
    pub v3_identity: [u8; 20],
    /// The fingerprint of its RSA relay key.
    pub rsa_identity: [u8; 20],
    /// Its ed25519 relay key.
    pub ed25519_identity: [u8; 32],
    /// Where it accepts Tor connections.
    pub or_address: SocketAddr,
}

impl PrivateNetwork {
    /// Points `config` at this network, and allows what only a network on one machine needs.
    pub(super) fn apply(&self, config: &mut TorClientConfigBuilder) {
        let mut contacts = AuthorityContacts::builder();
        let mut caches = Vec::with_capacity(self.authorities.len());
        for authority in &self.authorities {
            contacts.v3idents().push(authority.v3_identity.into());
            let mut cache = FallbackDir::builder();
            cache
                .rsa_identity(authority.rsa_identity.into())
                .ed_identity(authority.ed25519_identity.into())
                .orports()
                .push(authority.or_address);
            caches.push(cache);
        }
        *config.tor_network().authorities() = contacts;
        config.tor_network().set_fallback_caches(caches);

        // All relays share one address, so none may count as the family of another.
        config.path_rules().ipv4_subnet_family_prefix(33).ipv6_subnet_family_prefix(129);
        config.address_filter().allow_local_addrs(true);
        config.storage().permissions().dangerously_trust_everyone();
    }
}
