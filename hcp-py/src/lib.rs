//! HCP for Python; the package `hcp` in `python/` wraps this module.
//!
//! One file per idea, with the names of `hcp_core`. What takes time is an [`operation`], which asyncio awaits; it runs on
//! tokio threads, and dropping or cancelling it drops the core's future. No tokio thread ever enters the interpreter:
//! whatever needs it goes over the [`bridge`].

mod arguments;
mod bridge;
mod constants;
mod ctor;
mod delegation;
mod errors;
mod handler;
mod identity;
mod keyfile;
mod lifetime;
mod maintained;
mod messenger;
mod network;
mod node;
mod node_event;
mod operation;
mod routes;
mod service;
mod session;
mod stream;
mod tor;
mod watch;

use pyo3::prelude::*;

/// The extension module `hcp._hcp`.
#[pymodule]
fn _hcp(module: &Bound<'_, PyModule>) -> PyResult<()> {
    bridge::add(module)?;
    constants::add(module)?;
    ctor::add(module)?;
    delegation::add(module)?;
    messenger::add(module)?;
    module.add_class::<identity::OnionAddress>()?;
    module.add_class::<identity::Identity>()?;
    module.add_class::<identity::LogKey>()?;
    module.add_class::<identity::DiscoveryKey>()?;
    module.add_class::<identity::DiscoveryPublicKey>()?;
    module.add_class::<keyfile::Passphrase>()?;
    module.add_class::<keyfile::Protection>()?;
    module.add_class::<keyfile::Argon2Cost>()?;
    module.add_class::<keyfile::KeyFile>()?;
    module.add_class::<network::Network>()?;
    module.add_class::<network::MemoryNetwork>()?;
    module.add_class::<network::LocalNetwork>()?;
    module.add_class::<network::ListenerStatus>()?;
    module.add_class::<tor::TorNetwork>()?;
    module.add_class::<tor::BootstrapProgress>()?;
    module.add_class::<tor::PrivateNetwork>()?;
    module.add_class::<tor::PrivateAuthority>()?;
    module.add_class::<routes::Access>()?;
    module.add_class::<node::Node>()?;
    module.add_class::<node_event::DialledBy>()?;
    module.add_class::<node_event::NodeEvent>()?;
    module.add_class::<node_event::NodeEvents>()?;
    module.add_class::<node_event::NodeStats>()?;
    module.add_class::<maintained::Backoff>()?;
    module.add_class::<maintained::DialAs>()?;
    module.add_class::<maintained::Maintained>()?;
    module.add_class::<service::Listener>()?;
    module.add_class::<service::Service>()?;
    module.add_class::<session::Priority>()?;
    module.add_class::<session::Session>()?;
    module.add_class::<session::SessionStats>()?;
    module.add_class::<stream::Stream>()?;
    module.add_class::<stream::StreamSender>()?;
    module.add_class::<watch::Watch>()?;
    Ok(())
}
