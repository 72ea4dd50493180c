//! HCP, the Hidden Communication Protocol.
pub mod error;
pub mod identity;
