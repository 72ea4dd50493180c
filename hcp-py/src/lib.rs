//! HCP for Python; the package `hcp` in `python/` wraps this module.

use pyo3::prelude::*;

/// The extension module `hcp._hcp`.
#[pymodule]
fn _hcp(_module: &Bound<'_, PyModule>) -> PyResult<()> {
    Ok(())
}
