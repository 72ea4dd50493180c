//! Key files: one secret key in one file.

use std::path::PathBuf;

use hcp_core::identity::{self, keyfile};
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::{PyRange, PyType};

use crate::delegation::{OwnerKey, ReplicaCredentials, SessionKey};
use crate::errors::Failure;
use crate::identity::{DiscoveryKey, Identity, LogKey};
use crate::operation::{Nothing, Operation, blocking};

/// A passphrase that does not leak.
#[pyclass(frozen, module = "hcp")]
pub(crate) struct Passphrase(pub(crate) identity::Passphrase);

#[pymethods]
impl Passphrase {
    #[new]
    fn new(text: String) -> Result<Self, Failure> {
        Ok(Self(identity::Passphrase::new(text)?))
    }

    fn __repr__(&self) -> String {
        format!("{:?}", self.0)
    }
}

/// How a key file is protected.
#[pyclass(frozen, module = "hcp")]
pub(crate) struct Protection(keyfile::Protection);

#[pymethods]
impl Protection {
    #[staticmethod]
    fn passphrase(passphrase: &Passphrase) -> Self {
        Self(keyfile::Protection::Passphrase(passphrase.0.clone()))
    }

    #[staticmethod]
    fn plain() -> Self {
        Self(keyfile::Protection::Plain)
    }

    fn __repr__(&self) -> &'static str {
        match self.0 {
            keyfile::Protection::Plain => "Protection.plain()",
            _ => "Protection.passphrase([redacted])",
        }
    }
}

/// What opening a sealed file costs.
#[pyclass(frozen, eq, module = "hcp")]
#[derive(PartialEq, Eq)]
pub(crate) struct Argon2Cost(pub(crate) keyfile::Argon2Cost);

#[pymethods]
impl Argon2Cost {
    #[new]
    fn new(memory_kib: u32, passes: u32, lanes: u32) -> Result<Self, Failure> {
        Ok(Self(keyfile::Argon2Cost::new(memory_kib, passes, lanes)?))
    }

    #[classattr]
    #[pyo3(name = "MEMORY_KIB")]
    fn memory_kib(py: Python<'_>) -> PyResult<Bound<'_, PyRange>> {
        range(py, &keyfile::Argon2Cost::MEMORY_KIB)
    }

    #[classattr]
    #[pyo3(name = "PASSES")]
    fn passes(py: Python<'_>) -> PyResult<Bound<'_, PyRange>> {
        range(py, &keyfile::Argon2Cost::PASSES)
    }

    #[classattr]
    #[pyo3(name = "LANES")]
    fn lanes(py: Python<'_>) -> PyResult<Bound<'_, PyRange>> {
        range(py, &keyfile::Argon2Cost::LANES)
    }
}

/// A place on disk for one key.
#[pyclass(frozen, module = "hcp")]
pub(crate) struct KeyFile(keyfile::KeyFile);

#[pymethods]
impl KeyFile {
    #[new]
    fn new(path: PathBuf) -> Self {
        Self(keyfile::KeyFile::new(path))
    }

    fn cost(&self, cost: &Argon2Cost) -> Self {
        Self(self.0.clone().cost(cost.0))
    }

    fn save(&self, key: Storable<'_>, protection: &Protection) -> Operation {
        let (file, protection) = (self.0.clone(), protection.0.clone());
        match key {
            Storable::Identity(key) => save(file, key.get().0.clone(), protection),
            Storable::LogKey(key) => save(file, key.get().0.clone(), protection),
            Storable::OwnerKey(key) => save(file, key.get().0.clone(), protection),
            Storable::SessionKey(key) => save(file, key.get().0.clone(), protection),
            Storable::DiscoveryKey(key) => save(file, key.get().0.clone(), protection),
            Storable::ReplicaCredentials(credentials) => save(file, credentials.get().0.clone(), protection),
        }
    }

    fn load(&self, key_type: &Bound<'_, PyType>, protection: &Protection) -> PyResult<Operation> {
        let py = key_type.py();
        let (file, protection) = (self.0.clone(), protection.0.clone());
        if key_type.is(py.get_type::<Identity>()) {
            Ok(blocking(move || Ok(Identity(file.load(&protection)?))))
        } else if key_type.is(py.get_type::<LogKey>()) {
            Ok(blocking(move || Ok(LogKey(file.load(&protection)?))))
        } else if key_type.is(py.get_type::<OwnerKey>()) {
            Ok(blocking(move || Ok(OwnerKey(file.load(&protection)?))))
        } else if key_type.is(py.get_type::<SessionKey>()) {
            Ok(blocking(move || Ok(SessionKey(file.load(&protection)?))))
        } else if key_type.is(py.get_type::<DiscoveryKey>()) {
            Ok(blocking(move || Ok(DiscoveryKey(file.load(&protection)?))))
        } else if key_type.is(py.get_type::<ReplicaCredentials>()) {
            Ok(blocking(move || Ok(ReplicaCredentials(file.load(&protection)?))))
        } else {
            Err(PyTypeError::new_err("a key file holds no such key"))
        }
    }
}

fn save(
    file: keyfile::KeyFile,
    key: impl keyfile::StoredKey + Send + 'static,
    protection: keyfile::Protection,
) -> Operation {
    blocking(move || Ok(file.save(&key, &protection).map(|()| Nothing)?))
}

/// What a file can hold.
#[derive(FromPyObject)]
enum Storable<'py> {
    Identity(Bound<'py, Identity>),
    LogKey(Bound<'py, LogKey>),
    OwnerKey(Bound<'py, OwnerKey>),
    SessionKey(Bound<'py, SessionKey>),
    DiscoveryKey(Bound<'py, DiscoveryKey>),
    ReplicaCredentials(Bound<'py, ReplicaCredentials>),
}

fn range<'py>(py: Python<'py>, range: &std::ops::RangeInclusive<u32>) -> PyResult<Bound<'py, PyRange>> {
    PyRange::new(py, *range.start() as isize, *range.end() as isize + 1)
}
