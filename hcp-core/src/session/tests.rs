//! What a session does and what it refuses.

mod bulk;
mod handshake;
mod harness;
mod hostile;
mod profile;
mod replicas;
mod streams;
mod vectors;
