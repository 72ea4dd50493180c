//! The Tor network against real relays: a private network of the system's `tor` that all tests of the run share.

#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod tor {
    mod harness;
    mod lanes;
    mod network;
    mod restricted;
}
