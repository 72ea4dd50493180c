//! Profiles on disk: an identity and an encrypted database, opened with a passphrase.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use hcp_core::messenger as core;

use crate::error::HcpError;
use crate::identity::{Identity, OnionAddress, Passphrase};
use crate::keyfile::{Argon2Cost, blocking};

/// An opened profile; nobody else can open it until a `Messenger` that works on it is shut down, or this is dropped.
#[derive(uniffi::Object)]
pub struct Profile {
    address: Arc<OnionAddress>,
    /// Until a messenger takes it.
    inner: Mutex<Option<core::Profile>>,
}

#[uniffi::export(async_runtime = "tokio")]
impl Profile {
    /// Makes a profile with a new identity in `folder`, which is made when it is missing; takes about a second.
    ///
    /// `name` is what the profile calls itself towards contacts; it may be empty.
    ///
    /// # Errors
    /// `InvalidInput` when there is a profile in the folder, which stays as it is, or the name is refused; `Storage`.
    #[uniffi::constructor]
    pub async fn create(folder: String, passphrase: Arc<Passphrase>, name: String) -> Result<Arc<Self>, HcpError> {
        blocking(move || Ok(Self::shared(core::Profile::create(folder, &passphrase.inner, &name)?))).await
    }

    /// Like `create`, for an identity that exists already, and at a given cost of opening.
    ///
    /// # Errors
    /// As `create`.
    #[uniffi::constructor]
    pub async fn create_for(
        identity: Arc<Identity>,
        folder: String,
        passphrase: Arc<Passphrase>,
        name: String,
        cost: Arc<Argon2Cost>,
    ) -> Result<Arc<Self>, HcpError> {
        let create = move || {
            let identity = identity.inner.clone();
            Ok(Self::shared(core::Profile::create_for(identity, folder, &passphrase.inner, &name, cost.inner)?))
        };
        blocking(create).await
    }

    /// Opens the profile in `folder`; takes about a second.
    ///
    /// # Errors
    /// `InUse` when it is open already, here or in another program; `Authentication` for a wrong passphrase;
    /// `InvalidInput` when there is no profile; `Storage`.
    #[uniffi::constructor]
    pub async fn open(folder: String, passphrase: Arc<Passphrase>) -> Result<Arc<Self>, HcpError> {
        blocking(move || Ok(Self::shared(core::Profile::open(folder, &passphrase.inner)?))).await
    }

    /// The profile's address: what its owner gives to friends.
    pub fn address(&self) -> Arc<OnionAddress> {
        Arc::clone(&self.address)
    }
}

/// Seals the key of the profile in `folder` with another passphrase, at once and whole; takes two seconds.
///
/// # Errors
/// As `Profile.open`; the old passphrase counts on then.
#[uniffi::export(async_runtime = "tokio")]
pub async fn change_passphrase(
    folder: String,
    old: Arc<Passphrase>,
    new: Arc<Passphrase>,
    cost: Arc<Argon2Cost>,
) -> Result<(), HcpError> {
    blocking(move || Ok(core::Profile::change_passphrase(folder, &old.inner, &new.inner, cost.inner)?)).await
}

impl Profile {
    fn shared(inner: core::Profile) -> Arc<Self> {
        Arc::new(Self { address: OnionAddress::shared(inner.address()), inner: Mutex::new(Some(inner)) })
    }

    pub(super) fn take(&self) -> Result<core::Profile, HcpError> {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        inner.take().ok_or_else(|| HcpError::invalid("a messenger works on this profile already"))
    }
}

impl fmt::Debug for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Profile([redacted])")
    }
}
