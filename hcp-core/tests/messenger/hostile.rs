//! Peers that behave badly.
