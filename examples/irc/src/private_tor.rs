//! The file that describes a private Tor network, as `hcp_core::testing` writes it.

use std::net::SocketAddr;
use std::path::Path;

use data_encoding::{BASE64_NOPAD, HEXUPPER_PERMISSIVE};
use hcp_core::network::tor::{PrivateAuthority, PrivateNetwork};
use serde::Deserialize;

use crate::failure::Failure;

#[derive(Deserialize)]
struct Description {
    authorities: Vec<Authority>,
}

#[derive(Deserialize)]
struct Authority {
    v3_identity: String,
    rsa_identity: String,
    ed25519_identity: String,
    or_address: SocketAddr,
}

/// Reads the description.
pub(crate) fn load(path: &Path) -> Result<PrivateNetwork, Failure> {
    let text =
        std::fs::read(path).map_err(|error| Failure::file("read the description of a private Tor", path, &error))?;
    let description: Description =
        serde_json::from_slice(&text).map_err(|error| Failure::file("understand", path, &error))?;
    let authorities: Option<Vec<_>> = description.authorities.iter().map(authority).collect();
    let authorities = authorities.filter(|authorities| !authorities.is_empty());
    authorities
        .map(|authorities| PrivateNetwork { authorities })
        .ok_or_else(|| Failure::new(format!("{}: no authorities, or an identity is malformed", path.display())))
}

fn authority(authority: &Authority) -> Option<PrivateAuthority> {
    Some(PrivateAuthority {
        v3_identity: hex(&authority.v3_identity)?,
        rsa_identity: hex(&authority.rsa_identity)?,
        ed25519_identity: BASE64_NOPAD.decode(authority.ed25519_identity.as_bytes()).ok()?.try_into().ok()?,
        or_address: authority.or_address,
    })
}

fn hex(text: &str) -> Option<[u8; 20]> {
    HEXUPPER_PERMISSIVE.decode(text.as_bytes()).ok()?.try_into().ok()
}
