//! What HCP's session and its replicated log cost, beside what others take for the same work.
//!
//! Machines differ, and one machine differs from hour to hour. So everything is measured against a peer in the same run,
//! in turns (A B, B A, …), and what counts is the median of the turns' ratios. Times stand there for orientation only.

#![allow(missing_docs, reason = "a program in parts, not a library")]

pub mod codec;
pub mod handshakes;
pub mod idle;
pub mod log;
pub mod measure;
pub mod padding;
pub mod peers;
pub mod report;
pub mod setup;
pub mod streams;
#[cfg(feature = "tor")]
pub mod tor;

/// What may go wrong in a measurement; all of it ends the run.
pub type Failure = Box<dyn std::error::Error + Send + Sync>;
