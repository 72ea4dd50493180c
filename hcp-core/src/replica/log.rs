//! The replicated log without I/O: what a node decides, the bytes it signs, and what it asks of its store.
//!
//! Invariants: nothing is delivered, pushed or receipted before the store has said that it is durable; a segment is
//! delivered behind its predecessor and everything that its author had seen; two honest nodes that hold the same
//! segments are in the same state (architecture.md says where that is known not to hold).

pub(crate) mod checkpoint;
mod codec;
mod entry;
#[cfg(feature = "testing")]
pub(crate) mod fuzz;
pub(crate) mod keys;
pub(crate) mod ledger;
pub(crate) mod limits;
pub(crate) mod machine;
#[cfg(test)]
mod made;
pub(crate) mod message;
#[cfg(test)]
mod simulation;
pub(crate) mod storage;
pub(crate) mod store;
mod summary;
pub(crate) mod vector;
#[cfg(all(test, feature = "testing"))]
mod vectors;
pub(crate) mod wire;

pub(crate) use self::codec::MessageError;
