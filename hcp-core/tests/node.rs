//! Nodes on the memory and the local network: who may speak, what is refused, lanes, pairs of sessions, what peers cannot do.

#![allow(clippy::unwrap_used)]

mod node {
    mod crowd;
    mod harness;
    mod hostile;
    mod keeping;
    mod lanes;
    mod pairs;
    mod services;
    mod streams;
}
