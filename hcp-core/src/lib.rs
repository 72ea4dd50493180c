//! HCP, the Hidden Communication Protocol.
pub mod error;
#[cfg(feature = "replica")]
pub mod replica;
