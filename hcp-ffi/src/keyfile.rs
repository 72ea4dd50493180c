//! Key files: a key, or a replica's credentials, in a file, sealed by a passphrase or, on explicit request, plain.

use std::sync::Arc;

use hcp_core::error::ErrorKind;
use hcp_core::identity::keyfile as core;

use crate::delegation::{OwnerKey, ReplicaCredentials, SessionKey};
use crate::error::HcpError;
use crate::identity::{DiscoveryKey, Identity, Passphrase};

/// How a key file is protected. There is no default: whoever writes a key in the clear says so.
#[derive(Clone, Debug, uniffi::Enum)]
pub enum Protection {
    /// Sealed: useless without the passphrase.
    Passphrase(Arc<Passphrase>),
    /// In the clear, guarded by the file's permissions and the disk's encryption only.
    Plain,
}

impl From<Protection> for core::Protection {
    fn from(protection: Protection) -> Self {
        match protection {
            Protection::Passphrase(passphrase) => Self::Passphrase(passphrase.inner.clone()),
            Protection::Plain => Self::Plain,
        }
    }
}

/// What opening a sealed file costs, for its owner and for whoever guesses passphrases.
#[derive(Debug, uniffi::Object)]
pub struct Argon2Cost {
    pub(crate) inner: core::Argon2Cost,
}

#[uniffi::export]
impl Argon2Cost {
    /// Sets memory in KiB (8 MiB to 1 GiB), passes (1 to 16) and lanes (1 to 4).
    ///
    /// # Errors
    /// `InvalidInput` outside these bounds.
    #[uniffi::constructor]
    pub fn new(memory_kib: u32, passes: u32, lanes: u32) -> Result<Arc<Self>, HcpError> {
        Ok(Arc::new(Self { inner: core::Argon2Cost::new(memory_kib, passes, lanes)? }))
    }
}

/// A file that holds one key, or the credentials of a replica; it never passes for one of another purpose.
#[derive(Debug, uniffi::Object)]
pub struct KeyFile {
    inner: core::KeyFile,
}

#[uniffi::export]
impl KeyFile {
    /// Names the file; nothing is touched yet.
    #[uniffi::constructor]
    pub fn new(path: String) -> Arc<Self> {
        Arc::new(Self { inner: core::KeyFile::new(path) })
    }

    /// The same file with another cost of opening it: by default 64 MiB, 3 passes and 1 lane. Loading takes the cost from
    /// the file.
    pub fn cost(&self, cost: Arc<Argon2Cost>) -> Arc<Self> {
        Arc::new(Self { inner: self.inner.clone().cost(cost.inner) })
    }
}

#[uniffi::export(async_runtime = "tokio")]
impl KeyFile {
    /// Writes the key to a new file with mode 0600, durably and all at once; about 0.1 s when it is sealed.
    ///
    /// # Errors
    /// `InvalidInput` when there is anything at the path, which then stays as it was; `Storage`.
    pub async fn save(&self, key: Arc<Identity>, protection: Protection) -> Result<(), HcpError> {
        self.write(key.inner.clone(), protection).await
    }

    /// Reads the key back.
    ///
    /// # Errors
    /// `Authentication` for a wrong passphrase, a key of another purpose, a plain file when a passphrase was given, or the
    /// other way round; `InvalidInput` for no file or another file; `Storage`; `LimitExceeded` when the file demands too
    /// much.
    pub async fn load(&self, protection: Protection) -> Result<Arc<Identity>, HcpError> {
        Ok(Identity::shared(self.read(protection).await?))
    }

    /// As [`save`](Self::save), for the key of a service's owner.
    ///
    /// # Errors
    /// As `save`.
    pub async fn save_owner_key(&self, key: Arc<OwnerKey>, protection: Protection) -> Result<(), HcpError> {
        self.write(key.inner.clone(), protection).await
    }

    /// As [`load`](Self::load), for the key of a service's owner.
    ///
    /// # Errors
    /// As `load`.
    pub async fn load_owner_key(&self, protection: Protection) -> Result<Arc<OwnerKey>, HcpError> {
        Ok(OwnerKey::shared(self.read(protection).await?))
    }

    /// As [`save`](Self::save), for a session key that waits for its delegation.
    ///
    /// # Errors
    /// As `save`.
    pub async fn save_session_key(&self, key: Arc<SessionKey>, protection: Protection) -> Result<(), HcpError> {
        self.write(key.inner.clone(), protection).await
    }

    /// As [`load`](Self::load), for a session key that waits for its delegation.
    ///
    /// # Errors
    /// As `load`.
    pub async fn load_session_key(&self, protection: Protection) -> Result<Arc<SessionKey>, HcpError> {
        Ok(SessionKey::shared(self.read(protection).await?))
    }

    /// As [`save`](Self::save), for a discovery key.
    ///
    /// # Errors
    /// As `save`.
    pub async fn save_discovery_key(&self, key: Arc<DiscoveryKey>, protection: Protection) -> Result<(), HcpError> {
        self.write(key.inner.clone(), protection).await
    }

    /// As [`load`](Self::load), for a discovery key.
    ///
    /// # Errors
    /// As `load`.
    pub async fn load_discovery_key(&self, protection: Protection) -> Result<Arc<DiscoveryKey>, HcpError> {
        Ok(DiscoveryKey::shared(self.read(protection).await?))
    }

    /// As [`save`](Self::save), for a replica's credentials.
    ///
    /// # Errors
    /// As `save`.
    pub async fn save_replica_credentials(
        &self,
        credentials: Arc<ReplicaCredentials>,
        protection: Protection,
    ) -> Result<(), HcpError> {
        self.write(credentials.inner.clone(), protection).await
    }

    /// As [`load`](Self::load), for a replica's credentials.
    ///
    /// # Errors
    /// As `load`.
    pub async fn load_replica_credentials(&self, protection: Protection) -> Result<Arc<ReplicaCredentials>, HcpError> {
        Ok(ReplicaCredentials::shared(self.read(protection).await?))
    }
}

impl KeyFile {
    async fn write(&self, key: impl core::StoredKey + Send + 'static, protection: Protection) -> Result<(), HcpError> {
        let (file, protection) = (self.inner.clone(), protection.into());
        blocking(move || Ok(file.save(&key, &protection)?)).await
    }

    async fn read<K: core::StoredKey + Send + 'static>(&self, protection: Protection) -> Result<K, HcpError> {
        let (file, protection) = (self.inner.clone(), protection.into());
        blocking(move || Ok(file.load(&protection)?)).await
    }
}

/// Runs `work` where it may block.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, HcpError> + Send + 'static,
) -> Result<T, HcpError> {
    let lost = |_| HcpError::new(ErrorKind::Internal, "the work was lost: a defect of the library");
    tokio::task::spawn_blocking(work).await.map_err(lost)?
}
