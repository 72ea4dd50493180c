//! C tor's onion service directories; `python/hcp/ctor.py` gives the functions the core's names.

use std::path::PathBuf;

use hcp_core::identity::ctor;
use pyo3::prelude::*;

use crate::errors::Failure;
use crate::identity::Identity;
use crate::operation::{Operation, blocking};

/// Adds the functions to the module.
pub(crate) fn add(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(ctor_import, module)?)?;
    module.add_function(wrap_pyfunction!(ctor_export, module)?)?;
    module.add_function(wrap_pyfunction!(ctor_decode_secret_key, module)?)
}

#[pyfunction]
fn ctor_import(directory: PathBuf) -> Operation {
    blocking(move || Ok(Identity(ctor::import(&directory)?)))
}

#[pyfunction]
fn ctor_export(identity: &Identity, directory: PathBuf) -> Operation {
    let identity = identity.0.clone();
    blocking(move || Ok(ctor::export(&identity, &directory)?))
}

#[pyfunction]
fn ctor_decode_secret_key(content: &[u8]) -> Result<Identity, Failure> {
    Ok(Identity(ctor::decode_secret_key(content)?))
}
