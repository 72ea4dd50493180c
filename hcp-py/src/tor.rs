//! The Tor network: Arti in this process.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use hcp_core::network::tor;
use hcp_core::testing::PrivateTorDescription;
use pyo3::PyClassInitializer;
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use pyo3_async_runtimes::TaskLocals;
use tokio::sync::{oneshot, watch};

use crate::arguments::{array, seconds};
use crate::bridge;
use crate::errors::Failure;
use crate::identity::{DiscoveryKey, OnionAddress};
use crate::lifetime::Lifetime;
use crate::network::Network;
use crate::operation::{Operation, blocking};
use crate::watch::Watch;

/// A connection to the Tor network.
#[pyclass(frozen, extends = Network, module = "hcp")]
pub(crate) struct TorNetwork(Lifetime<tor::TorNetwork>);

impl TorNetwork {
    fn create(py: Python<'_>, network: tor::TorNetwork) -> PyResult<Py<Self>> {
        let base = Network::new(network.clone());
        let this = Self(Lifetime::new(network, "the network was shut down"));
        Py::new(py, PyClassInitializer::from(base).add_subclass(this))
    }
}

#[pymethods]
impl TorNetwork {
    #[staticmethod]
    #[expect(clippy::too_many_arguments, reason = "keyword arguments in Python")]
    #[pyo3(signature = (state_dir, cache_dir, *, private_network = None, bootstrap_deadline = None,
        network_deadline = None, connect_deadline = None, memory_limit = None, discovery_keys = None,
        on_progress = None))]
    fn bootstrap(
        state_dir: PathBuf,
        cache_dir: PathBuf,
        private_network: Option<&PrivateNetwork>,
        bootstrap_deadline: Option<f64>,
        network_deadline: Option<f64>,
        connect_deadline: Option<f64>,
        memory_limit: Option<usize>,
        discovery_keys: Option<Vec<(OnionAddress, Bound<'_, DiscoveryKey>)>>,
        on_progress: Option<Bound<'_, PyAny>>,
    ) -> PyResult<Operation> {
        let mut builder = tor::TorNetwork::builder(state_dir, cache_dir);
        if let Some(network) = private_network {
            builder = builder.private_network(network.0.clone());
        }
        if let Some(deadline) = bootstrap_deadline {
            builder = builder.bootstrap_deadline(seconds("bootstrap_deadline", deadline)?);
        }
        if let Some(deadline) = network_deadline {
            builder = builder.network_deadline(seconds("network_deadline", deadline)?);
        }
        if let Some(deadline) = connect_deadline {
            builder = builder.connect_deadline(seconds("connect_deadline", deadline)?);
        }
        if let Some(bytes) = memory_limit {
            builder = builder.memory_limit(bytes);
        }
        for (address, key) in discovery_keys.unwrap_or_default() {
            builder = builder.discovery_key(address.0, key.get().0.clone());
        }
        let report = on_progress.map(|callback| Report::new(&callback)).transpose()?;
        Ok(Operation::new(async move {
            let network = match report {
                None => builder.bootstrap().await?,
                Some(report) => {
                    let progress = builder.progress();
                    tokio::select! {
                        network = builder.bootstrap() => network?,
                        never = report.run(progress) => match never {},
                    }
                }
            };
            Ok::<_, Failure>(Bootstrapped(network))
        }))
    }

    fn isolated(this: &Bound<'_, Self>) -> PyResult<Py<Self>> {
        Self::create(this.py(), this.get().0.handle()?.isolated())
    }

    fn set_discovery_key(&self, address: &OnionAddress, key: &DiscoveryKey) -> Result<(), Failure> {
        self.0.handle()?.set_discovery_key(address.0, &key.0);
        Ok(())
    }

    fn remove_discovery_key(&self, address: &OnionAddress) -> Result<(), Failure> {
        self.0.handle()?.remove_discovery_key(address.0);
        Ok(())
    }

    fn progress(&self) -> Result<Watch, Failure> {
        Ok(Watch::new(self.0.handle()?.progress(), BootstrapProgress::from_core))
    }

    fn shutdown(this: Bound<'_, Self>) -> Operation {
        let base = Arc::clone(&this.as_super().get().0);
        let this = this.unbind();
        Operation::unit(async move {
            // The base class has a handle of its own, which would keep the state directory in use.
            drop(base.end());
            if let Some(network) = this.get().0.end() {
                network.shutdown().await;
            }
            Ok::<_, Failure>(())
        })
    }

    fn __aenter__(this: Bound<'_, Self>) -> Operation {
        Operation::ready(this.into_any().unbind())
    }

    fn __aexit__(
        this: Bound<'_, Self>,
        _exception_type: Bound<'_, PyAny>,
        _exception: Bound<'_, PyAny>,
        _traceback: Bound<'_, PyAny>,
    ) -> Operation {
        Self::shutdown(this)
    }
}

/// A network that becomes its Python object on the event loop's side.
struct Bootstrapped(tor::TorNetwork);

impl<'py> IntoPyObject<'py> for Bootstrapped {
    type Target = TorNetwork;
    type Output = Bound<'py, TorNetwork>;
    type Error = PyErr;

    fn into_pyobject(self, py: Python<'py>) -> PyResult<Self::Output> {
        Ok(TorNetwork::create(py, self.0)?.into_bound(py))
    }
}

/// How well the network can be used.
#[pyclass(frozen, eq, module = "hcp")]
#[derive(PartialEq, Eq)]
pub(crate) struct BootstrapProgress(tor::BootstrapProgress);

impl BootstrapProgress {
    fn from_core(progress: &tor::BootstrapProgress) -> Self {
        Self(progress.clone())
    }
}

#[pymethods]
impl BootstrapProgress {
    #[getter]
    fn percent(&self) -> u8 {
        self.0.percent
    }

    #[getter]
    fn text(&self) -> &str {
        &self.0.text
    }

    fn __str__(&self) -> String {
        self.0.to_string()
    }

    fn __repr__(&self) -> String {
        format!("<BootstrapProgress {}>", self.0)
    }
}

/// A Tor network other than the public one.
#[pyclass(frozen, eq, module = "hcp")]
#[derive(PartialEq, Eq)]
pub(crate) struct PrivateNetwork(tor::PrivateNetwork);

#[pymethods]
impl PrivateNetwork {
    #[new]
    fn new(authorities: Vec<Bound<'_, PrivateAuthority>>) -> Self {
        let authorities = authorities.iter().map(|authority| authority.get().0.clone()).collect();
        Self(tor::PrivateNetwork { authorities })
    }

    #[staticmethod]
    fn load(path: PathBuf) -> Operation {
        blocking(move || Ok(Self(PrivateTorDescription::load(path)?.network())))
    }

    #[getter]
    fn authorities(&self) -> Vec<PrivateAuthority> {
        self.0.authorities.iter().cloned().map(PrivateAuthority).collect()
    }
}

/// A directory authority of a private network.
#[pyclass(frozen, eq, module = "hcp")]
#[derive(PartialEq, Eq)]
pub(crate) struct PrivateAuthority(tor::PrivateAuthority);

#[pymethods]
impl PrivateAuthority {
    #[new]
    #[pyo3(signature = (*, v3_identity, rsa_identity, ed25519_identity, or_address))]
    fn new(
        v3_identity: &[u8],
        rsa_identity: &[u8],
        ed25519_identity: &[u8],
        or_address: &str,
    ) -> Result<Self, Failure> {
        let or_address: SocketAddr = or_address
            .parse()
            .map_err(|_| Failure::invalid_input("Address", "or_address is not an IP address and a port"))?;
        Ok(Self(tor::PrivateAuthority {
            v3_identity: array("v3_identity", v3_identity)?,
            rsa_identity: array("rsa_identity", rsa_identity)?,
            ed25519_identity: array("ed25519_identity", ed25519_identity)?,
            or_address,
        }))
    }

    #[getter]
    fn v3_identity<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &self.0.v3_identity)
    }

    #[getter]
    fn rsa_identity<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &self.0.rsa_identity)
    }

    #[getter]
    fn ed25519_identity<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &self.0.ed25519_identity)
    }

    #[getter]
    fn or_address(&self) -> String {
        self.0.or_address.to_string()
    }
}

/// Calls a function of Python on the event loop whenever there is progress.
struct Report {
    callback: Py<PyAny>,
    locals: TaskLocals,
}

impl Report {
    fn new(callback: &Bound<'_, PyAny>) -> PyResult<Self> {
        if !callback.is_callable() {
            return Err(PyTypeError::new_err("on_progress cannot be called"));
        }
        let locals = TaskLocals::with_running_loop(callback.py())?;
        Ok(Self { callback: callback.clone().unbind(), locals })
    }

    async fn run(self, mut progress: watch::Receiver<tor::BootstrapProgress>) -> Infallible {
        let this = Arc::new(self);
        progress.mark_changed();
        while progress.changed().await.is_ok() {
            let value = BootstrapProgress::from_core(&progress.borrow_and_update());
            let this = Arc::clone(&this);
            let (done, called) = oneshot::channel();
            bridge::later(move |py| {
                let event_loop = this.locals.event_loop(py);
                // The loop reports what the callback raises; a closed loop has nobody who waits for progress.
                let _ = done.send(event_loop.call_method1("call_soon_threadsafe", (&this.callback, value)).is_ok());
            });
            if called.await != Ok(true) {
                break;
            }
        }
        std::future::pending().await
    }
}
