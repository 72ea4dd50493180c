//! HCP, the Hidden Communication Protocol.

pub mod error;
pub mod identity;
pub mod network;
pub mod node;
#[cfg(feature = "replica")]
pub mod replica;
pub mod session;
#[cfg(feature = "replica")]
mod store;
mod wire;
