//! Nodes on the memory and the local network: who may speak, what is refused, lanes, pairs of sessions, replicas that fail, what
//! peers cannot do.

#![allow(clippy::unwrap_used)]

mod node {
    mod crowd;
    mod failover;
    mod harness;
    mod hostile;
    mod keeping;
    mod lanes;
    mod pairs;
    mod restricted;
    mod services;
    mod streams;
    mod warden;
}
