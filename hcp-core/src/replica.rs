//! A log that the nodes of one service share: signed, causal, durable, alive while one node lives.

mod place;
mod register;

pub use self::place::{Incarnation, LogId, NodeId, Past, Place, Stamp};
pub use self::register::{Register, Write};
