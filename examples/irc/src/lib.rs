//! An IRC server.

mod entry;
pub mod message;
mod names;
mod world;
