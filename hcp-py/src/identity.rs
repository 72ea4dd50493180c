//! Keys and the addresses made of them.

use hcp_core::identity;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::arguments::array;
use crate::errors::Failure;

/// A v3 onion address.
#[pyclass(frozen, eq, ord, hash, from_py_object, module = "hcp")]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct OnionAddress(pub(crate) identity::OnionAddress);

#[pymethods]
impl OnionAddress {
    #[new]
    fn new(text: &str) -> Result<Self, Failure> {
        Ok(Self(text.parse::<identity::OnionAddress>()?))
    }

    #[staticmethod]
    fn from_public_key(key: &[u8]) -> Result<Self, Failure> {
        Ok(Self(identity::OnionAddress::from_public_key(array("a public key", key)?)?))
    }

    #[getter]
    fn public_key<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, self.0.public_key())
    }

    fn verify(&self, message: &[u8], signature: &[u8]) -> Result<(), Failure> {
        Ok(self.0.verify(message, &array("a signature", signature)?)?)
    }

    fn __str__(&self) -> String {
        self.0.to_string()
    }

    fn __repr__(&self) -> String {
        format!("{:?}", self.0)
    }
}

/// The secret key of an onion address.
#[pyclass(frozen, module = "hcp")]
pub(crate) struct Identity(pub(crate) identity::Identity);

#[pymethods]
impl Identity {
    #[staticmethod]
    fn generate() -> Self {
        Self(identity::Identity::generate())
    }

    #[staticmethod]
    fn from_seed(seed: &[u8]) -> Result<Self, Failure> {
        Ok(Self(identity::Identity::from_seed(&array("a seed", seed)?)))
    }

    #[staticmethod]
    fn from_expanded_secret_key(expanded: &[u8]) -> Result<Self, Failure> {
        Ok(Self(identity::Identity::from_expanded_secret_key(&array("an expanded secret key", expanded)?)?))
    }

    #[getter]
    fn address(&self) -> OnionAddress {
        OnionAddress(self.0.address())
    }

    fn sign<'py>(&self, py: Python<'py>, message: &[u8]) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &self.0.sign(message))
    }

    fn expanded_secret_key<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &*self.0.expanded_secret_key())
    }

    fn __repr__(&self) -> String {
        format!("{:?}", self.0)
    }
}

/// The secret key with which a node signs what it writes to a log.
#[pyclass(frozen, module = "hcp")]
pub(crate) struct LogKey(pub(crate) identity::LogKey);

#[pymethods]
impl LogKey {
    #[staticmethod]
    fn generate() -> Self {
        Self(identity::LogKey::generate())
    }

    #[staticmethod]
    fn from_seed(seed: &[u8]) -> Result<Self, Failure> {
        Ok(Self(identity::LogKey::from_seed(&array("a seed", seed)?)))
    }

    #[getter]
    fn public_key<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &self.0.public_key())
    }

    fn sign<'py>(&self, py: Python<'py>, message: &[u8]) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &self.0.sign(message))
    }

    #[staticmethod]
    fn verify(public: &[u8], message: &[u8], signature: &[u8]) -> Result<(), Failure> {
        let (public, signature) = (array("a public key", public)?, array("a signature", signature)?);
        Ok(identity::LogKey::verify(&public, message, &signature)?)
    }

    fn __repr__(&self) -> String {
        format!("{:?}", self.0)
    }
}

/// The secret key with which a client finds addresses that are hidden from others.
#[pyclass(frozen, module = "hcp")]
pub(crate) struct DiscoveryKey(pub(crate) identity::DiscoveryKey);

#[pymethods]
impl DiscoveryKey {
    #[staticmethod]
    fn generate() -> Self {
        Self(identity::DiscoveryKey::generate())
    }

    #[staticmethod]
    fn from_secret_bytes(secret: &[u8]) -> Result<Self, Failure> {
        Ok(Self(identity::DiscoveryKey::from_secret_bytes(&array("an X25519 secret", secret)?)))
    }

    fn secret_bytes<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &*self.0.secret_bytes())
    }

    #[getter]
    fn public_key(&self) -> DiscoveryPublicKey {
        DiscoveryPublicKey(self.0.public_key())
    }

    fn c_tor_line(&self, address: &OnionAddress) -> String {
        self.0.c_tor_line(address.0).to_string()
    }

    fn __repr__(&self) -> String {
        format!("{:?}", self.0)
    }
}

/// The public half of a discovery key.
#[pyclass(frozen, eq, ord, hash, from_py_object, module = "hcp")]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct DiscoveryPublicKey(pub(crate) identity::DiscoveryPublicKey);

#[pymethods]
impl DiscoveryPublicKey {
    #[new]
    fn new(text: &str) -> Result<Self, Failure> {
        Ok(Self(text.parse::<identity::DiscoveryPublicKey>()?))
    }

    #[staticmethod]
    fn from_bytes(key: &[u8]) -> Result<Self, Failure> {
        Ok(Self(identity::DiscoveryPublicKey::from_bytes(array("a public key", key)?)?))
    }

    fn as_bytes<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, self.0.as_bytes())
    }

    fn __str__(&self) -> String {
        self.0.to_string()
    }

    fn __repr__(&self) -> String {
        format!("{:?}", self.0)
    }
}
