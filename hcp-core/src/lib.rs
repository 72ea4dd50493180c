//! HCP, the Hidden Communication Protocol.

pub mod error;
pub mod identity;
pub mod network;
pub mod node;
pub mod session;
mod wire;
