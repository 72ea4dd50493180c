//! Arguments that need more than a conversion: byte strings of fixed length, seconds, bounded buffers.

use std::time::Duration;

use pyo3::buffer::PyBuffer;
use pyo3::prelude::*;

use crate::errors::Failure;

/// Exactly `N` bytes.
pub(crate) fn array<const N: usize>(what: &str, bytes: &[u8]) -> Result<[u8; N], Failure> {
    bytes.try_into().map_err(|_| Failure::invalid_input("Length", format!("{what} has {N} bytes, not {}", bytes.len())))
}

/// A duration in seconds, as asyncio has them.
pub(crate) fn seconds(what: &str, seconds: f64) -> Result<Duration, Failure> {
    Duration::try_from_secs_f64(seconds)
        .map_err(|_| Failure::invalid_input("Duration", format!("{what} is not a number of seconds, zero or more")))
}

/// Copies a bytes-like object; one that is too long is not copied, and its length is given back.
pub(crate) fn bounded(buffer: &PyBuffer<u8>, limit: usize) -> PyResult<Result<Vec<u8>, usize>> {
    let length = buffer.item_count();
    if length > limit { Ok(Err(length)) } else { Python::attach(|py| buffer.to_vec(py)).map(Ok) }
}
