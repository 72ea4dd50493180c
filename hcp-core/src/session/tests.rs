//! What a session does and what it refuses.

mod replicas;
