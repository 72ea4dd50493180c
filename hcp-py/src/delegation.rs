//! The right to speak for a service: what its owner issues offline, what a replica shows, what a dialler remembers.

use hcp_core::identity::delegation as core;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::arguments::array;
use crate::errors::Failure;
use crate::identity::{Identity, OnionAddress};

/// Adds the classes to the module.
pub(crate) fn add(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add("CLOCK_SKEW", core::CLOCK_SKEW)?;
    module.add_class::<PublicKey>()?;
    module.add_class::<OwnerKey>()?;
    module.add_class::<SessionKey>()?;
    module.add_class::<Validity>()?;
    module.add_class::<Round>()?;
    module.add_class::<OwnerCertificate>()?;
    module.add_class::<Delegation>()?;
    module.add_class::<ReplicaCredentials>()?;
    module.add_class::<SerialFloors>()
}

/// The public half of an owner key or a session key.
#[pyclass(frozen, eq, hash, module = "hcp")]
#[derive(PartialEq, Eq, Hash)]
pub(crate) struct PublicKey(pub(crate) core::PublicKey);

#[pymethods]
impl PublicKey {
    #[staticmethod]
    fn from_bytes(key: &[u8]) -> Result<Self, Failure> {
        Ok(Self(core::PublicKey::from_bytes(array("a public key", key)?)?))
    }

    fn as_bytes<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, self.0.as_bytes())
    }

    fn __repr__(&self) -> String {
        format!("{:?}", self.0)
    }
}

/// The secret key with which an owner signs delegations.
#[pyclass(frozen, module = "hcp")]
pub(crate) struct OwnerKey(pub(crate) core::OwnerKey);

#[pymethods]
impl OwnerKey {
    #[staticmethod]
    fn generate() -> Self {
        Self(core::OwnerKey::generate())
    }

    #[staticmethod]
    fn from_seed(seed: &[u8]) -> Result<Self, Failure> {
        Ok(Self(core::OwnerKey::from_seed(&array("a seed", seed)?)))
    }

    #[getter]
    fn public_key(&self) -> PublicKey {
        PublicKey(self.0.public_key())
    }

    fn delegate(&self, service: &OnionAddress, session_key: &PublicKey, round: &Round) -> Delegation {
        Delegation(self.0.delegate(service.0, session_key.0, round.0))
    }

    fn __repr__(&self) -> String {
        format!("{:?}", self.0)
    }
}

/// The secret key that a replica shows in TLS.
#[pyclass(frozen, module = "hcp")]
pub(crate) struct SessionKey(pub(crate) core::SessionKey);

#[pymethods]
impl SessionKey {
    #[staticmethod]
    fn generate() -> Self {
        Self(core::SessionKey::generate())
    }

    #[staticmethod]
    fn from_seed(seed: &[u8]) -> Result<Self, Failure> {
        Ok(Self(core::SessionKey::from_seed(&array("a seed", seed)?)))
    }

    #[getter]
    fn public_key(&self) -> PublicKey {
        PublicKey(self.0.public_key())
    }

    fn __repr__(&self) -> String {
        format!("{:?}", self.0)
    }
}

/// From when to when something counts.
#[pyclass(frozen, eq, module = "hcp")]
#[derive(PartialEq, Eq)]
pub(crate) struct Validity(core::Validity);

#[pymethods]
impl Validity {
    #[new]
    fn new(not_before: u64, not_after: u64) -> Result<Self, Failure> {
        Ok(Self(core::Validity::new(not_before, not_after)?))
    }

    #[getter]
    fn not_before(&self) -> u64 {
        self.0.not_before()
    }

    #[getter]
    fn not_after(&self) -> u64 {
        self.0.not_after()
    }

    fn __repr__(&self) -> String {
        format!("Validity({}, {})", self.0.not_before(), self.0.not_after())
    }
}

/// What the delegations of one round of issue have in common.
#[pyclass(frozen, eq, module = "hcp")]
#[derive(PartialEq, Eq)]
pub(crate) struct Round(core::Round);

#[pymethods]
impl Round {
    #[new]
    fn new(serial: u64, lowest_serial: u64, validity: &Validity) -> Result<Self, Failure> {
        Ok(Self(core::Round::new(serial, lowest_serial, validity.0)?))
    }
}

/// The word of a service's identity that an owner key speaks for its owner.
#[pyclass(frozen, eq, module = "hcp")]
#[derive(PartialEq, Eq)]
pub(crate) struct OwnerCertificate(core::OwnerCertificate);

#[pymethods]
impl OwnerCertificate {
    #[classattr]
    const LEN: usize = core::OwnerCertificate::LEN;

    #[staticmethod]
    fn issue(service: &Identity, owner_key: &PublicKey, validity: &Validity) -> Self {
        Self(core::OwnerCertificate::issue(&service.0, owner_key.0, validity.0))
    }

    #[staticmethod]
    fn from_bytes(content: &[u8]) -> Result<Self, Failure> {
        Ok(Self(core::OwnerCertificate::from_bytes(content)?))
    }

    fn to_bytes<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &self.0.to_bytes())
    }

    #[getter]
    fn owner_key(&self) -> PublicKey {
        PublicKey(self.0.owner_key())
    }

    #[getter]
    fn validity(&self) -> Validity {
        Validity(self.0.validity())
    }
}

/// The word of an owner key that a session key speaks for a service.
#[pyclass(frozen, eq, module = "hcp")]
#[derive(PartialEq, Eq)]
pub(crate) struct Delegation(pub(crate) core::Delegation);

#[pymethods]
impl Delegation {
    #[classattr]
    const LEN: usize = core::Delegation::LEN;

    #[staticmethod]
    fn verify(
        service: &OnionAddress,
        certificate: &[u8],
        delegation: &[u8],
        server_key: &[u8],
        unix_now: u64,
        floors: &SerialFloors,
    ) -> Result<Self, Failure> {
        let server_key = array("a server's key", server_key)?;
        Ok(Self(core::verify(service.0, certificate, delegation, &server_key, unix_now, &floors.0)?))
    }

    #[staticmethod]
    fn from_bytes(content: &[u8]) -> Result<Self, Failure> {
        Ok(Self(core::Delegation::from_bytes(content)?))
    }

    fn to_bytes<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &self.0.to_bytes())
    }

    #[getter]
    fn session_key(&self) -> PublicKey {
        PublicKey(self.0.session_key())
    }

    #[getter]
    fn validity(&self) -> Validity {
        Validity(self.0.validity())
    }

    #[getter]
    fn serial(&self) -> u64 {
        self.0.serial()
    }

    #[getter]
    fn lowest_serial(&self) -> u64 {
        self.0.lowest_serial()
    }
}

/// All that a replica needs to speak for a service.
#[pyclass(frozen, module = "hcp")]
pub(crate) struct ReplicaCredentials(pub(crate) core::ReplicaCredentials);

#[pymethods]
impl ReplicaCredentials {
    #[new]
    fn new(
        service: &OnionAddress,
        certificate: &OwnerCertificate,
        delegation: &Delegation,
        session_key: &SessionKey,
    ) -> Result<Self, Failure> {
        let (certificate, delegation) = (certificate.0.clone(), delegation.0.clone());
        Ok(Self(core::ReplicaCredentials::new(service.0, certificate, delegation, session_key.0.clone())?))
    }

    fn check(&self, unix_now: u64) -> Result<(), Failure> {
        Ok(self.0.check(unix_now)?)
    }

    #[getter]
    fn service(&self) -> OnionAddress {
        OnionAddress(self.0.service())
    }

    #[getter]
    fn certificate(&self) -> OwnerCertificate {
        OwnerCertificate(self.0.certificate().clone())
    }

    #[getter]
    fn delegation(&self) -> Delegation {
        Delegation(self.0.delegation().clone())
    }

    #[getter]
    fn session_key(&self) -> SessionKey {
        SessionKey(self.0.session_key().clone())
    }

    fn __repr__(&self) -> String {
        format!("{:?}", self.0)
    }
}

/// What a dialler remembers of the services that it has reached.
#[pyclass(frozen, module = "hcp")]
pub(crate) struct SerialFloors(pub(crate) core::SerialFloors);

#[pymethods]
impl SerialFloors {
    #[classattr]
    const CAPACITY: usize = core::SerialFloors::CAPACITY;

    #[new]
    fn new() -> Self {
        Self(core::SerialFloors::new())
    }

    fn floor(&self, service: &OnionAddress) -> u64 {
        self.0.floor(service.0)
    }

    fn export(&self) -> Vec<(OnionAddress, u64)> {
        self.0.export().into_iter().map(|(service, floor)| (OnionAddress(service), floor)).collect()
    }

    #[pyo3(name = "import_")]
    fn import(&self, floors: Vec<(OnionAddress, u64)>) {
        self.0.import(floors.into_iter().map(|(service, floor)| (service.0, floor)));
    }

    fn forget(&self, service: &OnionAddress) {
        self.0.forget(service.0);
    }
}
