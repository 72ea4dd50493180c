//! Profiles on disk.

use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use hcp_core::identity;
use hcp_core::identity::keyfile;
use hcp_core::messenger as core;
use pyo3::prelude::*;

use crate::errors::Failure;
use crate::identity::{Identity, OnionAddress};
use crate::keyfile::{Argon2Cost, Passphrase};
use crate::operation::{Nothing, Operation, blocking};

/// An opened profile.
#[pyclass(frozen, module = "hcp")]
pub(crate) struct Profile {
    /// `None` once a messenger works on it.
    profile: Mutex<Option<core::Profile>>,
    address: identity::OnionAddress,
}

impl Profile {
    fn new(profile: core::Profile) -> Self {
        let address = profile.address();
        Self { profile: Mutex::new(Some(profile)), address }
    }

    /// Hands the profile to the one messenger that works on it.
    pub(super) fn take(&self) -> Result<core::Profile, Failure> {
        let taken = self.profile.lock().unwrap_or_else(PoisonError::into_inner).take();
        taken.ok_or_else(|| Failure::in_use("a messenger works on this profile already; open it again after its end"))
    }
}

#[pymethods]
impl Profile {
    #[staticmethod]
    fn create(folder: PathBuf, passphrase: &Passphrase, name: String) -> Operation {
        let passphrase = passphrase.0.clone();
        blocking(move || Ok(Self::new(core::Profile::create(folder, &passphrase, &name)?)))
    }

    #[staticmethod]
    #[pyo3(signature = (identity, folder, passphrase, name, cost = None))]
    fn create_for(
        identity: &Identity,
        folder: PathBuf,
        passphrase: &Passphrase,
        name: String,
        cost: Option<&Argon2Cost>,
    ) -> Operation {
        let (identity, passphrase) = (identity.0.clone(), passphrase.0.clone());
        let cost = cost_or_default(cost);
        blocking(move || Ok(Self::new(core::Profile::create_for(identity, folder, &passphrase, &name, cost)?)))
    }

    #[staticmethod]
    fn open(folder: PathBuf, passphrase: &Passphrase) -> Operation {
        let passphrase = passphrase.0.clone();
        blocking(move || Ok(Self::new(core::Profile::open(folder, &passphrase)?)))
    }

    #[staticmethod]
    #[pyo3(signature = (folder, old, new, cost = None))]
    fn change_passphrase(folder: PathBuf, old: &Passphrase, new: &Passphrase, cost: Option<&Argon2Cost>) -> Operation {
        let (old, new, cost) = (old.0.clone(), new.0.clone(), cost_or_default(cost));
        blocking(move || Ok(core::Profile::change_passphrase(folder, &old, &new, cost).map(|()| Nothing)?))
    }

    #[getter]
    fn address(&self) -> OnionAddress {
        OnionAddress(self.address)
    }

    fn __repr__(&self) -> &'static str {
        "Profile([redacted])"
    }
}

fn cost_or_default(cost: Option<&Argon2Cost>) -> keyfile::Argon2Cost {
    cost.map_or_else(keyfile::Argon2Cost::default, |cost| cost.0)
}
