//! The replicated log without I/O: what a node decides, the bytes it signs, and what it asks of its store.
//!
//! Invariants: nothing is delivered, pushed or receipted before the store has said that it is durable; a segment is
//! delivered behind its predecessor and everything that its author had seen; two honest nodes that hold the same
//! segments are in the same state.

mod checkpoint;
mod codec;
mod entry;
#[cfg(feature = "testing")]
pub(crate) mod fuzz;
mod keys;
mod ledger;
mod limits;
mod machine;
mod message;
#[cfg(test)]
mod simulation;
mod storage;
mod store;
mod summary;
mod vector;
#[cfg(all(test, feature = "testing"))]
mod vectors;
mod wire;
