//! HCP for Kotlin and Swift, through UniFFI.
//!
//! Types and methods have the names that they have in hcp-core, whose documentation holds here too. What differs:
//!
//! - Errors are [`HcpError`](error::HcpError), with one case for each kind of error and a message.
//! - Kotlin cancels by cancelling the coroutine. Swift cannot, so whatever may take long takes a
//!   [`Cancellation`](cancellation::Cancellation).
//! - A node runs until its `shutdown`, not until its last handle is dropped, for that is when a garbage collector likes.
//!
//! `parity.toml` says what of hcp-core is left out, and why.

mod builder;
pub mod cancellation;
pub mod delegation;
pub mod error;
pub mod handler;
pub mod identity;
pub mod keyfile;
pub mod limits;
pub mod maintained;
pub mod messenger;
mod mirror;
pub mod network;
pub mod node;
pub mod node_event;
pub mod onion_service;
mod running;
pub mod service;
pub mod session;
pub mod stream;
pub mod tor;
pub mod watch;

uniffi::setup_scaffolding!("hcp");
