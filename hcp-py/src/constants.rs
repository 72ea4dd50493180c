//! The core's limits and codes, under their own names; durations in seconds.

use hcp_core::{network, node, session};
use pyo3::prelude::*;

/// Adds them to the module.
pub(crate) fn add(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add("__version__", env!("CARGO_PKG_VERSION"))?;
    module.add("HCP_PORT", network::HCP_PORT)?;
    module.add("ACCEPT_QUEUE", network::ACCEPT_QUEUE)?;
    module.add("MAX_DISCOVERY_CLIENTS", network::MAX_DISCOVERY_CLIENTS)?;
    module.add("MAX_HANDSHAKES", node::MAX_HANDSHAKES)?;
    module.add("MAX_SESSIONS", node::MAX_SESSIONS)?;
    module.add("MAX_KEEPALIVE", node::MAX_KEEPALIVE.as_secs_f64())?;
    module.add("EVENT_QUEUE", node::EVENT_QUEUE)?;
    module.add("NODE_MEMORY", node::NODE_MEMORY)?;
    module.add("NODE_BACKLOG", node::NODE_BACKLOG)?;
    module.add("MIN_BACKOFF", node::MIN_BACKOFF.as_secs_f64())?;
    module.add("MAX_BACKOFF", node::MAX_BACKOFF.as_secs_f64())?;
    module.add("HEALTHY_SESSION", node::HEALTHY_SESSION.as_secs_f64())?;
    module.add("RESET_UNKNOWN_PROTOCOL", node::RESET_UNKNOWN_PROTOCOL)?;
    module.add("RESET_ANONYMOUS", node::RESET_ANONYMOUS)?;
    module.add("RESET_BUSY", node::RESET_BUSY)?;
    module.add("RESET_DROPPED", node::RESET_DROPPED)?;
    module.add("MAX_MESSAGE", session::MAX_MESSAGE)?;
    module.add("STREAM_WINDOW", session::STREAM_WINDOW)?;
    module.add("MAX_STREAM_WINDOW", session::MAX_STREAM_WINDOW)?;
    module.add("SESSION_GROWTH", session::SESSION_GROWTH)?;
    module.add("MAX_STREAMS", session::MAX_STREAMS)?;
    module.add("MAX_LANES", session::MAX_LANES)?;
    module.add("HANDSHAKE_TIMEOUT", session::HANDSHAKE_TIMEOUT.as_secs_f64())?;
    module.add("MAX_PROTOCOL_NAME", session::MAX_PROTOCOL_NAME)
}
