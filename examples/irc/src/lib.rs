//! An IRC server that lives at one onion address on many equal nodes.
//!
//! The nodes share one replicated log; everything that clients see of each other is a function of its entries
//! (`world`). [`server::Server`] owns that state and the clients of one node; [`client::connection`] serves a stream.

pub mod client;
mod commands;
mod entry;
mod log;
pub mod message;
mod names;
pub mod server;
pub use log::LogFailure;
mod world;
