//! HCP for Python; the package `hcp` in `python/` wraps this module.
//!
//! One file per idea, with the names of `hcp_core`. What takes time is an [`operation`], which asyncio awaits; it runs on
//! tokio threads, and dropping or cancelling it drops the core's future. No tokio thread ever waits for the interpreter:
//! whatever needs it runs on the event loop or on a thread for blocking work.

mod arguments;
mod constants;
mod ctor;
mod errors;
mod handler;
mod identity;
mod keyfile;
mod lifetime;
mod network;
mod node;
mod operation;
mod session;
mod stream;
mod tor;
mod watch;

use pyo3::prelude::*;

/// The extension module `hcp._hcp`.
#[pymodule]
fn _hcp(module: &Bound<'_, PyModule>) -> PyResult<()> {
    constants::add(module)?;
    ctor::add(module)?;
    module.add_class::<identity::OnionAddress>()?;
    module.add_class::<identity::Identity>()?;
    module.add_class::<identity::LogKey>()?;
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
    module.add_class::<node::Access>()?;
    module.add_class::<node::Node>()?;
    module.add_class::<session::Session>()?;
    module.add_class::<stream::Stream>()?;
    module.add_class::<stream::StreamSender>()?;
    module.add_class::<watch::Watch>()?;
    Ok(())
}
