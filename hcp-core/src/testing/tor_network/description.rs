//! What a client must know to use a private network, as a value and as a JSON file.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use data_encoding::{BASE64_NOPAD, HEXUPPER_PERMISSIVE};
use serde::{Deserialize, Serialize};

use super::period::VotingInterval;
use super::torrc;
use crate::error::ErrorKind;
use crate::network::tor::{PrivateAuthority, PrivateNetwork};

/// What a client must know to use a private network: its authorities, and the `tor` it is made of.
///
/// Identities are checked when a value is made or loaded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PrivateTorDescription {
    pub(super) tor: PathBuf,
    pub(super) directory: PathBuf,
    pub(super) authorities: Vec<Authority>,
    pub(super) voting_interval: VotingInterval,
}

/// One directory authority, in the notation of torrc.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Authority {
    pub(super) nickname: String,
    /// The fingerprint of the voting key, hexadecimal.
    pub(super) v3_identity: String,
    /// The fingerprint of the relay's RSA key, hexadecimal.
    pub(super) rsa_identity: String,
    /// The relay's ed25519 key, base64 without padding.
    pub(super) ed25519_identity: String,
    pub(super) or_address: SocketAddr,
    pub(super) directory_address: SocketAddr,
}

impl PrivateTorDescription {
    /// Reads a description from a file that [`save`](Self::save) wrote.
    ///
    /// # Errors
    /// When the file cannot be read or describes no network.
    pub fn load(path: impl AsRef<Path>) -> Result<Self, DescriptionError> {
        let text = std::fs::read(path).map_err(DescriptionError::Storage)?;
        let description: Self = serde_json::from_slice(&text).map_err(DescriptionError::Syntax)?;
        if description.authorities.is_empty() || description.parse().is_none() {
            return Err(DescriptionError::Identities);
        }
        Ok(description)
    }

    /// Writes the description to a file, so that another process can use the network.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<(), DescriptionError> {
        let text = serde_json::to_vec_pretty(self).map_err(DescriptionError::Syntax)?;
        std::fs::write(path, text).map_err(DescriptionError::Storage)
    }

    /// What [`TorNetworkBuilder::private_network`](crate::network::tor::TorNetworkBuilder::private_network) takes.
    pub fn network(&self) -> PrivateNetwork {
        self.parse().expect("identities are checked when a description is made or loaded")
    }

    /// How long a time period of onion services is, in minutes.
    pub fn time_period_minutes(&self) -> u64 {
        self.voting_interval.time_period().as_secs() / 60
    }

    /// The directory with one folder per process: its torrc, its data, its log.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The `tor` program that the network is made of.
    pub fn tor(&self) -> &Path {
        &self.tor
    }

    /// The lines of a torrc that let a `tor` with its data in `folder`, which must exist, use this network; it ends with this
    /// process. Its log at the level notice is the file `log` there.
    pub fn common_torrc(&self, folder: &Path) -> String {
        torrc::common(folder, &self.authorities, self.voting_interval)
    }

    pub(super) fn parse(&self) -> Option<PrivateNetwork> {
        let authority = |authority: &Authority| {
            Some(PrivateAuthority {
                v3_identity: hex(&authority.v3_identity)?,
                rsa_identity: hex(&authority.rsa_identity)?,
                ed25519_identity: BASE64_NOPAD.decode(authority.ed25519_identity.as_bytes()).ok()?.try_into().ok()?,
                or_address: authority.or_address,
            })
        };
        Some(PrivateNetwork { authorities: self.authorities.iter().map(authority).collect::<Option<_>>()? })
    }
}

/// Why the description of a private network cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DescriptionError {
    /// The file cannot be read or written.
    #[error("the file cannot be read or written")]
    Storage(#[source] std::io::Error),
    /// The file is not such a description.
    #[error("the file does not describe a private tor network")]
    Syntax(#[source] serde_json::Error),
    /// There is no authority, or the identity of one is malformed.
    #[error("the identities of the authorities are missing or malformed")]
    Identities,
}

impl DescriptionError {
    /// What a caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Storage(_) => ErrorKind::Storage,
            Self::Syntax(_) | Self::Identities => ErrorKind::InvalidInput,
        }
    }
}

fn hex(text: &str) -> Option<[u8; 20]> {
    HEXUPPER_PERMISSIVE.decode(text.as_bytes()).ok()?.try_into().ok()
}
